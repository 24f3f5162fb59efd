//! Transposed convolution in one and two dimensions.
//!
//! `y[b, o, stride i + dilation k - padding] += w[c, o, k] x[b, c, i]`, where the channels fall
//! into `groups` blocks, plus a bias.
//!
//! This equals a convolution at stride 1 of x with `stride - 1` zeros between neighbours, padded by
//! `dilation (K - 1) - padding`, with the weight's taps reversed and its channels swapped. The
//! pullbacks are those of that convolution: the zeros are left out of the cotangent of x, and the
//! cotangent of the weight goes back through the reversal.

use std::fmt;

use burn::backend::ir::{ModuleOperationIr, OperationIr};
use burn::tensor::Slice;

use super::conv::{Conv2d, dims4, fits_bias};
use super::row::AsImage;
use super::{Keep, Op, Recognition, Rule, Saved, weight_and_bias, weighted, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Transposed convolution of `[B, C, H, W]` with a weight `[C, O / groups, KH, KW]` and an optional
/// bias `[O]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvTranspose2d {
    /// Distance in y between neighbours of x.
    pub stride: [usize; 2],
    /// Rows and columns cut from every side of y.
    pub padding: [usize; 2],
    /// Rows and columns added after y.
    pub padding_out: [usize; 2],
    /// Distance of the kernel's taps.
    pub dilation: [usize; 2],
    /// Number of blocks of channels.
    pub groups: usize,
}

/// Transposed convolution of `[B, C, L]` with a weight `[C, O / groups, K]` and an optional bias
/// `[O]`.
pub type ConvTranspose1d = AsImage<ConvTranspose2d>;

impl ConvTranspose2d {
    /// The equal convolution, for a kernel of this size.
    fn convolution(&self, kernel: &[usize]) -> Result<Conv2d, String> {
        let side = |axis: usize| {
            let reach = self.dilation[axis].saturating_mul(kernel[axis].max(1) - 1);
            let before = reach.checked_sub(self.padding[axis]).ok_or_else(|| {
                format!(
                    "padding {} cuts more than the kernel's reach of {reach}: pad less, and take a part of the result",
                    self.padding[axis]
                )
            })?;
            Ok::<_, String>((before, before.saturating_add(self.padding_out[axis])))
        };
        let padding = [side(0)?, side(1)?];
        Ok(Conv2d { stride: [1, 1], padding, dilation: self.dilation, groups: self.groups })
    }

    /// The equal convolution, for a weight whose shape was checked.
    fn inner(&self, weight: &[usize]) -> Conv2d {
        self.convolution(&weight[2..]).unwrap_or_else(|_| unreachable!("the shape rule has seen the kernel"))
    }

    /// The shape of x `[..., H, W]` with zeros between neighbours.
    fn wide(&self, shape: &[usize]) -> Vec<usize> {
        let rank = shape.len();
        let mut wide = shape.to_vec();
        for axis in 0..2 {
            wide[rank - 2 + axis] =
                (shape[rank - 2 + axis].max(1) - 1).saturating_mul(self.stride[axis]).saturating_add(1);
        }
        wide
    }

    /// The slices of [`Self::wide`] where x lies among the zeros.
    fn among_zeros(&self, wide: &[usize]) -> Vec<Slice> {
        let mut slices: Vec<_> = wide.iter().map(|&size| Slice::from(0..size)).collect();
        let rank = wide.len();
        for axis in 0..2 {
            let size = wide[rank - 2 + axis] as isize;
            slices[rank - 2 + axis] = Slice::new(0, Some(size), self.stride[axis] as isize);
        }
        slices
    }

    /// x with zeros between neighbours.
    fn spread(&self, x: Array) -> Array {
        if self.stride == [1, 1] {
            return x;
        }
        let wide = self.wide(&x.shape());
        x.zeros_like(&wide).slice_assign(&self.among_zeros(&wide), x)
    }

    /// The weight `[..., C, O / groups, KH, KW]` as the weight of the equal convolution, `[..., O,
    /// C / groups, KH, KW]`.
    fn turned(&self, weight: Array, [channels, outputs]: [usize; 2]) -> Array {
        let shape = weight.shape();
        let lead = shape.len() - 4;
        // Groups on an axis of their own, channels and outputs swapped, then groups and outputs on
        // one axis, and the taps reversed.
        let mut blocks = shape[..lead].to_vec();
        blocks.extend([self.groups, channels, outputs, shape[lead + 2], shape[lead + 3]]);
        let mut order: Vec<_> = (0..lead + 5).collect();
        order.swap(lead + 1, lead + 2);
        let mut turned = shape[..lead].to_vec();
        turned.extend([self.groups * outputs, channels, shape[lead + 2], shape[lead + 3]]);
        weight.reshape(&blocks).permute(&order).reshape(&turned).flip(&[lead + 2, lead + 3])
    }

    /// Input channels and output channels of one group.
    fn channels(&self, weight: &[usize]) -> [usize; 2] {
        [weight[0] / self.groups, weight[1]]
    }

    /// The shapes of the operands of the equal convolution.
    fn inner_shapes(&self, shapes: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let ([channels, outputs], weight) = (self.channels(&shapes[1]), &shapes[1]);
        let turned = vec![self.groups * outputs, channels, weight[2], weight[3]];
        [self.wide(&shapes[0]), turned].into_iter().chain(shapes.get(2).cloned()).collect()
    }
}

impl Rule for ConvTranspose2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let ([_, c, h, w], [rows, outputs, kh, kw]) = (dims4(&inputs[0])?, dims4(&inputs[1])?);
        if self.groups == 0 || rows != c || c % self.groups != 0 {
            return Err(format!(
                "{c} input channels do not fit a weight of {rows} in {} groups",
                self.groups
            ));
        }
        if self.stride.contains(&0) || [h, w, kh, kw].contains(&0) {
            return Err("stride, sizes and kernel must be positive".into());
        }
        fits_bias(inputs, outputs * self.groups)?;
        self.convolution(&[kh, kw])?.shape(&self.inner_shapes(inputs), &[])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let ([x, weight], bias) = weight_and_bias(inputs);
        let kernel = weight.shape();
        let operands = [self.spread(x), self.turned(weight, self.channels(&kernel))];
        self.inner(&kernel).forward(operands.into_iter().chain(bias).collect(), shape, place)
    }

    /// A weight that depends on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis > 0)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        (0..2).filter(|&position| active[1 - position]).map(Keep::Input).collect()
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let (weight, v) = (&saved.shapes[1], cotangent.shape()[0]);
        let [channels, outputs] = self.channels(weight);
        let shapes = self.inner_shapes(saved.shapes);
        let x = saved.kept(0).map(|x| self.spread(x));
        let turned = saved.kept(1).map(|weight| self.turned(weight, [channels, outputs]));
        let inputs = [x, turned, None];
        let own = Saved { inputs: &inputs, output: None, derived: None, shapes: &shapes };
        let pulled = self.inner(weight).pullback(cotangent, position, &own);
        match position {
            0 => {
                let slices = self.among_zeros(&with_leading(v, &shapes[0]));
                if self.stride == [1, 1] { pulled } else { pulled.slice(&slices) }
            }
            // Reversing once more, with input and output channels exchanged, undoes the reversal.
            1 => self.turned(pulled, [outputs, channels]),
            _ => pulled,
        }
    }
}

impl fmt::Display for ConvTranspose2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([sh, sw], [ph, pw]) = (self.stride, self.padding);
        let ([oh, ow], [dh, dw]) = (self.padding_out, self.dilation);
        write!(
            f,
            "conv_transpose2d(stride {sh}x{sw}, padding {ph}x{pw}, output padding {oh}x{ow}, dilation {dh}x{dw}, groups {})",
            self.groups
        )
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    match ir {
        OperationIr::Module(ModuleOperationIr::ConvTranspose2d(io)) => {
            let options = &io.options;
            let rule = ConvTranspose2d {
                stride: options.stride,
                padding: options.padding,
                padding_out: options.padding_out,
                dilation: options.dilation,
                groups: options.groups,
            };
            weighted(Op::ConvTranspose2d(rule), [&io.x, &io.weight], io.bias.as_ref(), &io.out)
        }
        OperationIr::Module(ModuleOperationIr::ConvTranspose1d(io)) => {
            let options = &io.options;
            let rule = AsImage(ConvTranspose2d {
                stride: [1, options.stride[0]],
                padding: [0, options.padding[0]],
                padding_out: [0, options.padding_out[0]],
                dilation: [1, options.dilation[0]],
                groups: options.groups,
            });
            weighted(Op::ConvTranspose1d(rule), [&io.x, &io.weight], io.bias.as_ref(), &io.out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Combinations of kernels, strides, paddings, dilations and groups: derivatives, and the
    //! values against Burn's own kernel.

    use burn::backend::Dispatch;
    use burn::backend::ops::{ConvTransposeOptions, ModuleOps};

    use super::super::derivatives::{OpSample, check, check_values, spread};
    use super::*;

    /// Tolerance for f64 against Burn's kernel, which sums in another order.
    const KERNEL: f64 = 1e-12;

    fn sample(
        op: ConvTranspose2d,
        [n, h, w]: [usize; 3],
        kernel: [usize; 2],
        bias: bool,
    ) -> Option<OpSample> {
        let (channels, outputs) = (2 * op.groups, if op.groups == 2 { 3 } else { 2 });
        let (x, weight) = ([n, channels, h, w], [channels, outputs, kernel[0], kernel[1]]);
        let mut operands = vec![spread(&x, 3), spread(&weight, 1_000)];
        if bias {
            operands.push(spread(&[outputs * op.groups], 2_000));
        }
        let linear: Vec<_> = (0..operands.len()).collect();
        let sample = OpSample::new(Op::ConvTranspose2d(op), operands).linear(&linear);
        let shapes: Vec<_> = sample.operands.iter().map(|operand| operand.shape.clone()).collect();
        sample.op.rule().shape(&shapes, &[]).is_ok().then_some(sample)
    }

    fn grid() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (index, kernel) in [[1, 1], [2, 2], [3, 3], [1, 3], [3, 2]].into_iter().enumerate() {
            for (stride, padding, dilation, groups) in [
                ([1, 1], [0, 0], [1, 1], 1),
                ([2, 2], [0, 0], [1, 1], 1),
                ([2, 3], [1, 1], [1, 1], 2),
                ([2, 1], [0, 1], [2, 2], 1),
                ([3, 2], [2, 1], [2, 1], 2),
            ] {
                let padding_out = [stride[0] - 1, 0];
                let op = ConvTranspose2d { stride, padding, padding_out, dilation, groups };
                let size = [[1, 3, 4], [2, 2, 3], [5, 1, 2]][index % 3];
                all.extend(sample(op, size, kernel, index % 2 == 0));
            }
        }
        all
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let row = |stride, groups: usize| {
            let (padding, padding_out) = ([0, 1], [0, stride - 1]);
            let op = ConvTranspose2d { stride: [1, stride], padding, padding_out, dilation: [1, 1], groups };
            let operands = vec![spread(&[2, 4, 5], 3), spread(&[4, 3, 3], 1_000), spread(&[3 * groups], 9)];
            OpSample::new(Op::ConvTranspose1d(AsImage(op)), operands).linear(&[0, 1, 2])
        };
        grid().into_iter().chain([row(1, 1), row(2, 1), row(2, 2)]).collect()
    }

    #[test]
    fn transposed_convolution_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn transposed_convolution_values_are_those_of_burns_kernel() {
        check_values(&grid(), KERNEL, |op, operands| {
            let Op::ConvTranspose2d(op) = op else { return None };
            let ConvTranspose2d { stride, padding, padding_out, dilation, groups } = *op;
            let options = ConvTransposeOptions::new(stride, padding, padding_out, dilation, groups);
            let ([x, weight], bias) = weight_and_bias(operands);
            Some(Array(Dispatch::conv_transpose2d(x.0, weight.0, bias.map(|bias| bias.0), options)))
        });
    }

    #[test]
    fn transposed_convolution_with_padding_beyond_the_kernel_is_refused() {
        let op = ConvTranspose2d {
            stride: [2; 2],
            padding: [3, 0],
            padding_out: [0; 2],
            dilation: [1; 2],
            groups: 1,
        };
        let why = op.shape(&[vec![1, 2, 5, 5], vec![2, 2, 3, 3]], &[]).expect_err("it is refused");
        assert!(why.contains("take a part of the result"), "{why}");
    }
}
