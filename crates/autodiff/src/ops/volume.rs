//! Operations on volumes `[B, C, D, H, W]`, expressed as operations on images.
//!
//! - [`Conv3d`]: for each of the D' results along the depth, the KD slices under the kernel are
//!   stacked as channels, so that `[B, C, D, H, W]` becomes `[B D', C KD, H, W]`, and the weight
//!   `[O, C / groups, KD, KH, KW]` is read as `[O, C KD / groups, KH, KW]`. The rest is [`Conv2d`]
//!   and its pullbacks; the cotangents of the stacked slices are added up at the slices from which
//!   they came.
//! - [`AdaptiveAvgPool3d`]: the mean of a window is the mean along the depth of its means over H
//!   and W.

use std::fmt;

use burn::backend::ir::{ModuleOperationIr, OperationIr};
use burn::tensor::{Slice, TensorData};

use super::conv::{Conv2d, fits_bias};
use super::layout::whole;
use super::pool::AdaptiveAvgPool2d;
use super::{Keep, Op, Recognition, Rule, Saved, only, unary, weight_and_bias, weighted, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};
use crate::grams::{GradientFactors, OuterSizes};

/// Convolution of `[B, C, D, H, W]` with a weight `[O, C / groups, KD, KH, KW]` and an optional
/// bias `[O]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv3d {
    /// Step of the window along D, H and W.
    pub stride: [usize; 3],
    /// Zeros added before and after D, H and W.
    pub padding: [(usize, usize); 3],
    /// Distance of the kernel's taps.
    pub dilation: [usize; 3],
    /// Number of blocks of channels.
    pub groups: usize,
}

/// The mean over windows that divide `[B, C, D, H, W]` into `[B, C, output[0], output[1],
/// output[2]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveAvgPool3d {
    /// Size of the result along D, H and W.
    pub output: [usize; 3],
}

/// The five sizes of a shape, or why it does not have five.
fn dims5(shape: &[usize]) -> Result<[usize; 5], String> {
    shape.try_into().map_err(|_| format!("five axes are needed, found shape {shape:?}"))
}

impl Conv3d {
    /// The convolution of one slice of the result.
    fn flat(&self) -> Conv2d {
        let ([_, sh, sw], [_, dh, dw]) = (self.stride, self.dilation);
        let padding = [self.padding[1], self.padding[2]];
        Conv2d { stride: [sh, sw], padding, dilation: [dh, dw], groups: self.groups }
    }

    /// The convolution along the depth, of which only the number of results is used.
    fn deep(&self) -> Conv2d {
        let padding = [self.padding[0], (0, 0)];
        let (stride, dilation) = ([self.stride[0], 1], [self.dilation[0], 1]);
        Conv2d { stride, padding, dilation, groups: self.groups }
    }

    /// The shape of the weight of [`Self::flat`].
    fn kernel(&self, weight: &[usize]) -> Vec<usize> {
        vec![weight[0], weight[1] * weight[2], weight[3], weight[4]]
    }

    /// For each tap of each of `count` results, the index of the slice of the padded depth under
    /// it.
    fn slices(&self, count: usize, taps: usize, place: &Placement) -> Array {
        let slice = |i: usize| (i / taps * self.stride[0] + i % taps * self.dilation[0]) as i64;
        let slices: Vec<_> = (0..count * taps).map(slice).collect();
        let shape = [slices.len()];
        Array::indices(TensorData::new(slices, shape), place)
    }

    /// The shape of `[B, C, D, H, W]` with the padding of the depth.
    fn padded(&self, shape: &[usize]) -> Vec<usize> {
        let mut padded = shape.to_vec();
        padded[2] += self.padding[0].0 + self.padding[0].1;
        padded
    }

    /// The slices of `[B, C, D, H, W]` under the taps, stacked as channels: `[B D', C KD, H, W]`.
    fn columns(&self, x: Array, [count, taps]: [usize; 2]) -> Array {
        let (shape, place) = (x.shape(), x.place());
        let [b, c, d, h, w] = [0, 1, 2, 3, 4].map(|axis| shape[axis]);
        let padded = if self.padding[0] == (0, 0) {
            x
        } else {
            let wide = self.padded(&shape);
            let mut inner = whole(&wide);
            inner[2] = Slice::from(self.padding[0].0..self.padding[0].0 + d);
            x.zeros_like(&wide).slice_assign(&inner, x)
        };
        let stacked = padded.select(2, self.slices(count, taps, &place)).reshape(&[b, c, count, taps, h, w]);
        stacked.permute(&[0, 2, 1, 3, 4, 5]).reshape(&[b * count, c * taps, h, w])
    }

    /// Cotangents of the columns, `[V, B D', C KD, H, W]`, as those of `[B, C, D, H, W]`.
    fn summed(&self, columns: Array, shape: &[usize], [count, taps]: [usize; 2]) -> Array {
        let (v, place) = (columns.shape()[0], columns.place());
        let [b, c, d, h, w] = [0, 1, 2, 3, 4].map(|axis| shape[axis]);
        // Cotangents and samples are one axis, and a slice's plane another: `burn-ndarray` has at
        // most six axes.
        let apart = columns.reshape(&[v * b, count, c, taps, h * w]).permute(&[0, 2, 1, 3, 4]);
        let zeros = apart.zeros_like(&with_leading(v, &self.padded(shape)));
        let slices = apart.reshape(&[v, b, c, count * taps, h, w]);
        let padded = zeros.select_add(3, self.slices(count, taps, &place), slices);
        if self.padding[0] == (0, 0) {
            return padded;
        }
        let mut inner = whole(&padded.shape());
        inner[3] = Slice::from(self.padding[0].0..self.padding[0].0 + d);
        padded.slice(&inner)
    }

    /// The number of results along the depth, and of taps.
    fn depth(&self, shapes: &[Vec<usize>]) -> [usize; 2] {
        let reach = self.dilation[0] * (shapes[1][2] - 1) + 1;
        [(self.padded(&shapes[0])[2] - reach) / self.stride[0] + 1, shapes[1][2]]
    }

    /// Shapes of the operands of [`Self::flat`].
    fn flat_shapes(&self, shapes: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let ([count, taps], x) = (self.depth(shapes), &shapes[0]);
        let columns = vec![x[0] * count, x[1] * taps, x[3], x[4]];
        [columns, self.kernel(&shapes[1])].into_iter().chain(shapes.get(2).cloned()).collect()
    }

    /// Calls `work` with cotangents `[V, B D', O, H', W']` and saved tensors as [`Self::flat`]
    /// takes them.
    fn as_flat<T>(
        &self,
        cotangent: Array,
        saved: &Saved<'_>,
        work: impl FnOnce(&Conv2d, Array, &Saved<'_>) -> T,
    ) -> T {
        let (full, depth) = (cotangent.shape(), self.depth(saved.shapes));
        let [v, b, o, d, h, w] = [0, 1, 2, 3, 4, 5].map(|axis| full[axis]);
        let columns = saved.kept(0).map(|x| self.columns(x, depth));
        let weight = saved.kept(1).map(|weight| weight.reshape(&self.kernel(&saved.shapes[1])));
        let (inputs, shapes) = ([columns, weight, None], self.flat_shapes(saved.shapes));
        let own = Saved { inputs: &inputs, output: None, derived: None, shapes: &shapes };
        let slices = cotangent.permute(&[0, 1, 3, 2, 4, 5]).reshape(&[v, b * d, o, h, w]);
        work(&self.flat(), slices, &own)
    }
}

impl Rule for Conv3d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let ([b, c, d, h, w], [o, per_group, kd, kh, kw]) = (dims5(&inputs[0])?, dims5(&inputs[1])?);
        fits_bias(inputs, o)?;
        let deep = self.deep().shape(&[vec![b, c, d, 1], vec![o, per_group, kd, 1]], &[])?;
        let flat = self.flat().shape(&[vec![b, c, h, w], vec![o, per_group, kh, kw]], &[])?;
        Ok(vec![b, o, deep[2], flat[2], flat[3]])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let ([x, weight], bias) = weight_and_bias(inputs);
        let kernel = weight.shape();
        let [b, o, d, h, w] = [0, 1, 2, 3, 4].map(|axis| shape[axis]);
        let operands = [self.columns(x, [d, kernel[2]]), weight.reshape(&self.kernel(&kernel))];
        let flat = [b * d, o, h, w];
        let slices = self.flat().forward(operands.into_iter().chain(bias).collect(), &flat, place);
        slices.reshape(&[b, d, o, h, w]).permute(&[0, 2, 1, 3, 4])
    }

    /// A weight that depends on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn outer(&self, position: usize, inputs: &[Vec<usize>], output: &[usize]) -> Option<OuterSizes> {
        let slices = [output[0] * output[2], output[1], output[3], output[4]];
        self.flat().outer(position, &self.flat_shapes(inputs), &slices)
    }

    fn factors(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> GradientFactors {
        self.as_flat(cotangent, saved, |flat, cotangent, own| flat.factors(cotangent, position, own))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis > 0)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        self.flat().keeps(active)
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let (v, shapes) = (cotangent.shape()[0], saved.shapes);
        let pulled =
            self.as_flat(cotangent, saved, |flat, cotangent, own| flat.pullback(cotangent, position, own));
        match position {
            0 => self.summed(pulled, &shapes[0], self.depth(shapes)),
            _ => pulled.reshape(&with_leading(v, &shapes[position])),
        }
    }
}

impl AdaptiveAvgPool3d {
    /// The pool over H and W of each slice, and the one along the depth, each with the shape that
    /// its operand takes.
    fn stages(&self, shape: &[usize]) -> [(AdaptiveAvgPool2d, [usize; 4]); 2] {
        let [depth, height, width] = self.output;
        let plane = height * width;
        let slices = AdaptiveAvgPool2d { output: [height, width] };
        let along = AdaptiveAvgPool2d { output: [depth, plane] };
        let [b, c, d, h, w] = [0, 1, 2, 3, 4].map(|axis| shape[axis]);
        [(slices, [b, c * d, h, w]), (along, [b, c, d, plane])]
    }
}

impl Rule for AdaptiveAvgPool3d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let [b, c, ..] = dims5(&inputs[0])?;
        if self.output.contains(&0) {
            return Err("the output size must be positive".into());
        }
        Ok(with_leading(b, &with_leading(c, &self.output)))
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let x = only(inputs);
        let pooled = self
            .stages(&x.shape())
            .into_iter()
            .fold(x, |x, (pool, operand)| pool.forward(vec![x.reshape(&operand)], &[], place));
        pooled.reshape(shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (v, x) = (cotangent.shape()[0], &saved.shapes[0]);
        let pulled = self.stages(x).into_iter().rev().fold(cotangent, |cotangent, (pool, operand)| {
            let [rows, columns] = pool.output;
            let shapes = [operand.to_vec()];
            let own = Saved { inputs: &[None], output: None, derived: None, shapes: &shapes };
            pool.pullback(cotangent.reshape(&[v, operand[0], operand[1], rows, columns]), 0, &own)
        });
        pulled.reshape(&with_leading(v, x))
    }
}

impl fmt::Display for Conv3d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([sd, sh, sw], [dd, dh, dw]) = (self.stride, self.dilation);
        let [depth, height, width] = self.padding.map(|(before, after)| format!("{before},{after}"));
        write!(
            f,
            "conv3d(stride {sd}x{sh}x{sw}, padding {depth}x{height}x{width}, dilation {dd}x{dh}x{dw}, groups {})",
            self.groups
        )
    }
}

impl fmt::Display for AdaptiveAvgPool3d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [depth, height, width] = self.output;
        write!(f, "adaptive_avg_pool3d({depth}x{height}x{width})")
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    match ir {
        OperationIr::Module(ModuleOperationIr::Conv3d(io)) => {
            let (options, padding) = (&io.options, io.options.padding.map(|width| (width, width)));
            let (stride, dilation) = (options.stride, options.dilation);
            let rule = Conv3d { stride, padding, dilation, groups: options.groups };
            weighted(Op::Conv3d(rule), [&io.x, &io.weight], io.bias.as_ref(), &io.out)
        }
        OperationIr::Module(ModuleOperationIr::AdaptiveAvgPool3d(io)) => {
            let rule = AdaptiveAvgPool3d { output: io.output_size };
            unary(Op::AdaptiveAvgPool3d(rule), &io.x, &io.out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Kernels, strides, paddings, dilations and groups: derivatives, and the values against Burn's
    //! own kernels.

    use burn::backend::Dispatch;
    use burn::backend::ops::{ConvOptions, ModuleOps};

    use super::super::derivatives::{OpSample, check, check_values, spread};
    use super::*;

    /// Tolerance for f64 against Burn's kernels, which sum in another order.
    const KERNEL: f64 = 1e-12;

    fn convolution(op: Conv3d, x: [usize; 5], kernel: [usize; 3], bias: bool) -> OpSample {
        let outputs = 2 * op.groups;
        let weight = [outputs, x[1] / op.groups, kernel[0], kernel[1], kernel[2]];
        let mut operands = vec![spread(&x, 3), spread(&weight, 1_000)];
        if bias {
            operands.push(spread(&[outputs], 2_000));
        }
        let linear: Vec<_> = (0..operands.len()).collect();
        OpSample::new(Op::Conv3d(op), operands).linear(&linear)
    }

    fn convolutions() -> Vec<OpSample> {
        let one = [1, 1, 1];
        let table = [
            ([1, 2, 3, 2, 2], [1, 1, 1], one, [(0, 0); 3], one, 1),
            ([2, 1, 3, 3, 2], [2, 2, 1], one, [(0, 0); 3], one, 1),
            ([2, 2, 3, 3, 3], [3, 3, 3], [2, 1, 2], [(1, 1), (1, 1), (1, 1)], one, 2),
            ([1, 4, 4, 3, 3], [2, 1, 2], [1, 2, 1], [(1, 0), (0, 1), (0, 0)], [2, 1, 2], 2),
            ([3, 1, 1, 2, 4], [1, 2, 3], [3, 1, 1], [(0, 2), (0, 0), (1, 2)], one, 1),
        ];
        let sample = |(index, (x, kernel, stride, padding, dilation, groups)): (usize, _)| {
            convolution(Conv3d { stride, padding, dilation, groups }, x, kernel, index % 2 == 0)
        };
        table.into_iter().enumerate().map(sample).collect()
    }

    fn pools() -> Vec<OpSample> {
        let table =
            [([1, 2, 2, 3, 4], [1, 1, 1]), ([2, 1, 3, 2, 5], [2, 3, 2]), ([2, 3, 1, 3, 1], [2, 2, 1])];
        let pool = |output| Op::AdaptiveAvgPool3d(AdaptiveAvgPool3d { output });
        table.map(|(x, output)| OpSample::new(pool(output), vec![spread(&x, 8)]).linear(&[0])).into()
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        [convolutions(), pools()].concat()
    }

    #[test]
    fn volume_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn volume_values_are_those_of_burns_kernels() {
        check_values(&samples(), KERNEL, |op, operands| match op {
            Op::Conv3d(op) if op.padding.iter().all(|(before, after)| before == after) => {
                let padding = op.padding.map(|(before, _)| before);
                let options = ConvOptions::new(op.stride, padding, op.dilation, op.groups);
                let ([x, weight], bias) = weight_and_bias(operands);
                Some(Array(Dispatch::conv3d(x.0, weight.0, bias.map(|bias| bias.0), options)))
            }
            Op::AdaptiveAvgPool3d(op) => {
                Some(Array(Dispatch::adaptive_avg_pool3d(only(operands).0, op.output)))
            }
            _ => None,
        });
    }
}
