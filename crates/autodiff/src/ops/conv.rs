//! Convolution in one and two dimensions.
//!
//! `y[b, o, i] = bias[o] + sum over c, k of w[o, c, k] x[b, c, stride i + dilation k - padding]`,
//! where the channels fall into `groups` blocks: output channels of a block read only the input
//! channels of the same block (1: plain; as many as channels: depthwise).
//!
//! The map is linear in x: the pullback to x is the transposed convolution of g with the same
//! weight, and keeps only the weight. It is linear in w: the pullback to w is the sum over
//! positions i of `g[o, i] x[c, stride i + dilation k - padding]`, and keeps x. The pullback to the
//! bias is the sum of g.
//!
//! Ways of the pullback to x, in the order in which they are tried:
//! - a plain convolution with the reversed weight, at stride 1 in one group, where it is cheaper
//!   (`reversed`);
//! - Burn's transposed convolution, for padding that is equal on both sides;
//! - Burn's transposed convolution to the padded input, from which the padding is then cut, for
//!   other padding.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{Conv1dOpIr, Conv2dOpIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::{ConvOptions, ConvTransposeOptions, ModuleOps};
use burn::tensor::Slice;

use super::row::AsImage;
use super::{Keep, Op, Recognition, Rule, Saved, fold, weighted, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};
use crate::grams::{GradientFactors, OuterSizes};

/// Convolution of `[B, C, H, W]` with a weight `[O, C / groups, KH, KW]` and an optional bias
/// `[O]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2d {
    /// Step of the window along H and W.
    pub stride: [usize; 2],
    /// Zeros added before and after H, before and after W.
    pub padding: [(usize, usize); 2],
    /// Distance of the kernel's taps.
    pub dilation: [usize; 2],
    /// Number of blocks of channels; each output channel reads the input channels of its own block.
    pub groups: usize,
}

/// Convolution of `[B, C, L]` with a weight `[O, C / groups, K]` and an optional bias `[O]`.
pub type Conv1d = AsImage<Conv2d>;

impl fmt::Display for Conv2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(top, bottom), (left, right)] = self.padding;
        let ([sh, sw], [dh, dw]) = (self.stride, self.dilation);
        write!(
            f,
            "conv2d(stride {sh}x{sw}, padding {top},{bottom}x{left},{right}, dilation {dh}x{dw}, groups {})",
            self.groups
        )
    }
}

impl Conv2d {
    /// The size of the result along `axis` (0 for H, 1 for W).
    fn size(&self, axis: usize, input: usize, kernel: usize) -> Result<usize, String> {
        let padded = input.saturating_add(self.padding[axis].0).saturating_add(self.padding[axis].1);
        let reach = self.dilation[axis].saturating_mul(kernel.max(1) - 1).saturating_add(1);
        if self.stride[axis] == 0 || self.dilation[axis] == 0 || kernel == 0 {
            return Err("stride, dilation and kernel must be positive".into());
        }
        if reach > padded {
            return Err(format!(
                "a kernel that reaches over {reach} is larger than the padded input of {padded}"
            ));
        }
        Ok((padded - reach) / self.stride[axis] + 1)
    }
}

impl Rule for Conv2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let ([b, c, h, w], [o, per_group, kh, kw]) = (dims4(&inputs[0])?, dims4(&inputs[1])?);
        if self.groups == 0 || per_group.checked_mul(self.groups) != Some(c) || o % self.groups != 0 {
            return Err(format!(
                "{c} input and {o} output channels do not fit a weight of {per_group} channels in {} groups",
                self.groups
            ));
        }
        fits_bias(inputs, o)?;
        Ok(vec![b, o, self.size(0, h, kh)?, self.size(1, w, kw)?])
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let options = ConvOptions::new_with_padding(self.stride, self.padding, self.dilation, self.groups);
        let bias = inputs.get(2).map(|bias| bias.0.clone());
        Array(Dispatch::conv2d(inputs[0].0.clone(), inputs[1].0.clone(), bias, options))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis > 0)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        (0..2).filter(|&position| active[1 - position]).map(Keep::Input).collect()
    }

    /// A weight that depends on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn outer(&self, position: usize, inputs: &[Vec<usize>], output: &[usize]) -> Option<OuterSizes> {
        let weight = &inputs[1];
        (position == 1).then(|| OuterSizes {
            groups: self.groups,
            outputs: weight[0] / self.groups,
            inputs: weight[1..].iter().product(),
            positions: output[0] * output[2] * output[3],
        })
    }

    fn factors(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> GradientFactors {
        let (shape, g) = (cotangent.shape(), self.groups);
        let [v, images, o, h, w] = [shape[0], shape[1], shape[2], shape[3], shape[4]];
        // Positions of one image, and of all: the P of the outer products runs over both.
        let (seen, all) = (h * w, images * h * w);
        // Both factors by group first, with the positions of all images on one axis.
        let deltas = cotangent.reshape(&[v, images, g, o / g, seen]).permute(&[0, 2, 3, 1, 4]);
        let windows = self.windows(saved.input(0), &saved.shapes[1], [h, w]);
        let taps: usize = saved.shapes[1][1..].iter().product();
        let inputs = windows.reshape(&[images, g, taps, seen]).permute(&[1, 0, 3, 2]);
        GradientFactors {
            deltas: deltas.reshape(&[v, g, o / g, all]),
            inputs: inputs.reshape(&[g, all, taps]),
        }
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let v = cotangent.shape()[0];
        match position {
            0 => self.to_input(cotangent, saved),
            1 => self.to_weight(cotangent, saved),
            _ => cotangent.sum_axis(4).sum_axis(3).sum_axis(1).reshape(&with_leading(v, &saved.shapes[2])),
        }
    }
}

impl Conv2d {
    /// The pullback to x.
    fn to_input(&self, cotangent: Array, saved: &Saved<'_>) -> Array {
        let (v, weight, shape) = (cotangent.shape()[0], saved.input(1), &saved.shapes[0]);
        if let Some(reversed) = self.reversed(&weight.shape()) {
            let flipped = weight.permute(&[1, 0, 2, 3]).flip(&[2, 3]);
            let pulled = Array(Dispatch::conv2d(fold(cotangent).0, flipped.0, None, reversed));
            return pulled.reshape(&with_leading(v, shape));
        }
        let (out, kernel) = (cotangent.shape(), weight.shape());
        let symmetric = self.padding.iter().all(|(before, after)| before == after);
        // Burn's transposed convolution cuts the same padding from both sides. For other padding it
        // cuts nothing, and gives the cotangents of the padded input.
        let cut = |axis: usize| if symmetric { self.padding[axis].0 } else { 0 };
        // The last rows and columns that no window reaches have zero cotangents: they are added as
        // output padding.
        let wanted = |axis: usize| shape[2 + axis] + self.padding[axis].0 + self.padding[axis].1;
        let reached = |axis: usize| {
            (out[3 + axis] - 1) * self.stride[axis] + self.dilation[axis] * (kernel[2 + axis] - 1) + 1
        };
        let rest = [wanted(0) - reached(0), wanted(1) - reached(1)];
        let options =
            ConvTransposeOptions::new(self.stride, [cut(0), cut(1)], rest, self.dilation, self.groups);
        let padded = Array(Dispatch::conv_transpose2d(fold(cotangent).0, weight.0, None, options));
        let cropped = if symmetric { padded } else { self.crop(padded, shape) };
        cropped.reshape(&with_leading(v, shape))
    }

    /// The pullback to w, summed over the samples; only one sample at a time is unfolded into
    /// windows.
    fn to_weight(&self, cotangent: Array, saved: &Saved<'_>) -> Array {
        let (full, x) = (cotangent.shape(), saved.input(0));
        let one = |sample: usize| {
            let mut shapes = saved.shapes.to_vec();
            shapes[0][0] = 1;
            let inputs = [Some(x.clone().rows(sample, sample + 1)), None];
            let own = Saved { inputs: &inputs, output: None, derived: None, shapes: &shapes };
            self.factors(cotangent.clone().part(1, sample, 1), 1, &own).gradients()
        };
        let sum = (1..full[1]).fold(one(0), |sum, sample| sum.add(one(sample)));
        sum.reshape(&with_leading(full[0], &saved.shapes[1]))
    }

    /// For images `[B, C, H, W]`, the elements under each tap of the kernel at each of `[h, w]`
    /// positions: `[B, C, KH KW, h w]`.
    fn windows(&self, x: Array, weight: &[usize], [h, w]: [usize; 2]) -> Array {
        let ([images, channels], kernel) = ([x.shape()[0], x.shape()[1]], &weight[2..]);
        let padded = self.padded(x);
        // What one tap sees at all positions is a regular part of the padded images.
        let along = |axis: usize, tap: usize, count: usize| {
            let start = tap * self.dilation[axis];
            let end = start + (count - 1) * self.stride[axis] + 1;
            Slice::new(start as isize, Some(end as isize), self.stride[axis] as isize)
        };
        let taps = (0..kernel[0]).flat_map(|k| (0..kernel[1]).map(move |l| [k, l]));
        let seen = taps.map(|[k, l]| {
            let ranges = [Slice::from(0..images), Slice::from(0..channels), along(0, k, h), along(1, l, w)];
            padded.clone().slice(&ranges).reshape(&[images, channels, 1, h * w])
        });
        Array::cat(seen.collect(), 2)
    }

    /// `[B, C, H, W]` with its padding.
    fn padded(&self, x: Array) -> Array {
        if self.padding == [(0, 0); 2] {
            return x;
        }
        let shape = x.shape();
        let size = |axis: usize| shape[2 + axis] + self.padding[axis].0 + self.padding[axis].1;
        let inner = |axis: usize| Slice::from(self.padding[axis].0..self.padding[axis].0 + shape[2 + axis]);
        let zeros = x.zeros_like(&[shape[0], shape[1], size(0), size(1)]);
        let ranges = [Slice::from(0..shape[0]), Slice::from(0..shape[1]), inner(0), inner(1)];
        zeros.slice_assign(&ranges, x)
    }

    /// The options of the pullback as a convolution, where that is possible and cheaper.
    ///
    /// At stride 1 the pullback is itself a convolution, with the weight's channels swapped, its
    /// taps reversed, and padding dilation (kernel - 1) - padding. Backends compute a convolution
    /// as one matrix product over gathered columns, and a transposed convolution as a product whose
    /// columns are scattered. Gathering is cheaper when the result has fewer channels than the
    /// operand, so that its columns are smaller, and for a pointwise kernel, which needs no
    /// columns: then it takes about half the time on burn-flex.
    fn reversed(&self, weight: &[usize]) -> Option<ConvOptions<2>> {
        let pays = weight[0] < weight[1] || weight[2..] == [1, 1];
        if self.stride != [1, 1] || self.groups != 1 || !pays {
            return None;
        }
        let full = |axis: usize| self.dilation[axis] * (weight[2 + axis] - 1);
        let side = |axis: usize, padding: usize| full(axis).checked_sub(padding);
        let both = |axis: usize| side(axis, self.padding[axis].0).zip(side(axis, self.padding[axis].1));
        Some(ConvOptions::new_with_padding([1, 1], [both(0)?, both(1)?], self.dilation, 1))
    }

    /// The part of `[B, C, H + padding, W + padding]` that is not padding.
    fn crop(&self, padded: Array, shape: &[usize]) -> Array {
        let full = padded.shape();
        let inner = |axis: usize| self.padding[axis].0..self.padding[axis].0 + shape[2 + axis];
        padded.slice(&[
            Slice::from(0..full[0]),
            Slice::from(0..full[1]),
            Slice::from(inner(0)),
            Slice::from(inner(1)),
        ])
    }
}

/// Checks that the third operand, if there is one, has one element for each output channel.
pub(crate) fn fits_bias(inputs: &[Vec<usize>], outputs: usize) -> Result<(), String> {
    match inputs.get(2) {
        Some(bias) if bias.as_slice() != [outputs] => {
            Err(format!("a bias of shape {bias:?} does not fit {outputs} outputs"))
        }
        _ => Ok(()),
    }
}

/// The four sizes of a shape, or why it does not have four.
pub(crate) fn dims4(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("four axes are needed, found shape {shape:?}"))
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::Module(module) = ir else { return None };
    match module {
        ModuleOperationIr::Conv2d(Conv2dOpIr { x, weight, bias, options, out }) => {
            let (stride, padding, dilation) = (options.stride, options.padding, options.dilation);
            let rule = Conv2d { stride, padding, dilation, groups: options.groups };
            weighted(Op::Conv2d(rule), [x, weight], bias.as_ref(), out)
        }
        ModuleOperationIr::Conv1d(Conv1dOpIr { x, weight, bias, options, out }) => {
            let ([stride], [padding], [dilation]) = (options.stride, options.padding, options.dilation);
            let rule = row(stride, padding, dilation, options.groups);
            weighted(Op::Conv1d(rule), [x, weight], bias.as_ref(), out)
        }
        _ => None,
    }
}

/// Convolution along one axis.
pub(crate) fn row(stride: usize, padding: (usize, usize), dilation: usize, groups: usize) -> Conv1d {
    AsImage(Conv2d { stride: [1, stride], padding: [(0, 0), padding], dilation: [1, dilation], groups })
}

#[cfg(test)]
pub(super) mod tests {
    //! All combinations of kernels, strides, paddings, dilations and groups: derivatives, and both
    //! directions against naive loops.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, check, place, spread, values};
    use super::super::naive::{NaiveSums, convolution};
    use super::*;

    /// Tolerance for f64 against loops in f64: the rounding of some hundred products, relative to
    /// the sum of their magnitudes.
    const TWIN: f64 = 1e-12;

    /// The unit roundoff of f32. The sum of n products, in any order, is off by at most n times
    /// this, relative to the sum of their magnitudes.
    const UNIT_F32: f64 = 1.0 / (1_u64 << 24) as f64;

    const KERNELS: [[usize; 2]; 5] = [[1, 1], [2, 2], [3, 3], [5, 5], [1, 3]];
    const PADDINGS: [[(usize, usize); 2]; 4] =
        [[(0, 0), (0, 0)], [(1, 1), (1, 1)], [(2, 2), (2, 2)], [(1, 2), (0, 3)]];
    /// Groups, input and output channels: to more and to fewer channels (the two ways of the
    /// pullback), two groups, depthwise with two filters per channel.
    const GROUPS: [[usize; 3]; 4] = [[1, 2, 3], [1, 4, 2], [2, 4, 2], [3, 3, 6]];

    fn sample(op: Conv2d, x: [usize; 4], outputs: usize, kernel: [usize; 2], bias: bool) -> OpSample {
        let weight = [outputs, x[1] / op.groups, kernel[0], kernel[1]];
        let mut operands = vec![spread(&x, 3), spread(&weight, 1_000)];
        if bias {
            operands.push(spread(&[outputs], 2_000));
        }
        let linear: Vec<_> = (0..operands.len()).collect();
        OpSample::new(Op::Conv2d(op), operands).linear(&linear)
    }

    /// All combinations whose kernel fits the padded input; batch sizes and biases alternate.
    fn grid(size: [usize; 2]) -> Vec<OpSample> {
        let mut all = Vec::new();
        for kernel in KERNELS {
            for (stride, padding) in (1..=3).flat_map(|stride| PADDINGS.map(|padding| (stride, padding))) {
                for (dilation, [groups, c, o]) in (1..=3).flat_map(|d| GROUPS.map(|channels| (d, channels))) {
                    let op = Conv2d { stride: [stride; 2], padding, dilation: [dilation; 2], groups };
                    let n = [1, 2, 5][all.len() % 3];
                    let fits = |axis: usize| {
                        dilation * (kernel[axis] - 1) < size[axis] + padding[axis].0 + padding[axis].1
                    };
                    if fits(0) && fits(1) {
                        all.push(sample(op, [n, c, size[0], size[1]], o, kernel, all.len() % 2 == 0));
                    }
                }
            }
        }
        all
    }

    /// Convolutions along one axis, in similar combinations.
    fn rows() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (kernel, padding) in
            [1, 2, 3, 5].into_iter().flat_map(|k| [(0, 0), (2, 2), (1, 3)].map(|p| (k, p)))
        {
            for (stride, dilation) in (1..=3).flat_map(|s| (1..=3).map(move |d| (s, d))) {
                let [groups, c, o] = GROUPS[all.len() % 3];
                let (n, length) = ([1, 2, 5][all.len() / 3 % 3], 13);
                let mut operands = vec![spread(&[n, c, length], 3), spread(&[o, c / groups, kernel], 1_000)];
                operands.extend((all.len() % 2 == 0).then(|| spread(&[o], 2_000)));
                let linear: Vec<_> = (0..operands.len()).collect();
                let op = Op::Conv1d(row(stride, padding, dilation, groups));
                all.push(OpSample::new(op, operands).linear(&linear));
            }
        }
        all
    }

    /// Convolutions in two dimensions and in one.
    pub(in super::super) fn samples() -> Vec<OpSample> {
        [images(), rows()].concat()
    }

    fn images() -> Vec<OpSample> {
        let mut all = grid([5, 4]);
        let plain = Conv2d { stride: [1, 2], padding: [(1, 1), (0, 2)], dilation: [2, 1], groups: 1 };
        // Axes of size 1, sizes that are no multiple of the stride, and one larger than a tile of a
        // kernel.
        all.push(sample(plain.clone(), [2, 1, 1, 1], 1, [1, 2], true));
        all.push(sample(plain.clone(), [1, 3, 1, 7], 2, [2, 3], false));
        all.push(sample(plain.clone(), [1, 2, 7, 1], 2, [3, 2], false));
        all.push(sample(plain, [3, 5, 13, 11], 17, [3, 3], true));
        all
    }

    #[test]
    fn convolution_derivatives_match_differences() {
        assert!(samples().len() > 300, "most combinations fit");
        check(&samples());
    }

    /// Forward and pullback in one float type, against naive loops, within the bound `unit` (of the
    /// number of terms).
    fn against_naive(sample: &OpSample, dtype: FloatDType, unit: impl Fn(f64) -> f64) {
        let Op::Conv2d(op) = &sample.op else { panic!("a convolution") };
        let shape4 = |shape: &[usize]| dims4(shape).expect("four axes");
        let (x, w, y) = (&sample.operands[0], &sample.operands[1], shape4(&sample.shape()));
        // Operands are rounded to f32 first, so that they are equal in both types.
        let round = |values: &[f64]| values.iter().map(|&v| f64::from(v as f32)).collect::<Vec<_>>();
        let (xs, ws, gs) = (round(&x.values), round(&w.values), round(&spread(&y, 4).values));
        let (mut forward, mut backward) = (NaiveSums::zeros(gs.len()), NaiveSums::zeros(xs.len()));
        convolution(op, shape4(&x.shape), shape4(&w.shape), y, |y, x, w| {
            forward.add(y, xs[x] * ws[w]);
            backward.add(x, gs[y] * ws[w]);
        });
        if let Some(bias) = sample.operands.get(2) {
            let (bias, inner) = (round(&bias.values), y[2] * y[3]);
            (0..gs.len()).for_each(|i| forward.add(i, bias[i / inner % y[1]]));
        }
        let place = place(dtype);
        let weight = array(&w.shape, &ws, &place);
        let mut given = vec![array(&x.shape, &xs, &place), weight.clone()];
        given.extend(sample.operands.get(2).map(|bias| array(&bias.shape, &round(&bias.values), &place)));
        assert_within(sample, &forward, &values(op.forward(given, &y, &place)), &unit);
        let saved = Saved {
            inputs: &[None, Some(weight)],
            output: None,
            derived: None,
            shapes: &[x.shape.clone(), w.shape.clone()],
        };
        let cotangent = array(&with_leading(1, &y), &gs, &place);
        assert_within(sample, &backward, &values(op.pullback(cotangent, 0, &saved)), &unit);
    }

    fn assert_within(sample: &OpSample, expected: &NaiveSums, found: &[f64], unit: &impl Fn(f64) -> f64) {
        assert_eq!(expected.values.len(), found.len());
        for (i, found) in found.iter().enumerate() {
            let bound = unit(expected.terms[i]) * expected.magnitudes[i];
            let error = (expected.values[i] - found).abs();
            assert!(error <= bound, "{}: element {i}: {error:e} over {bound:e}", sample.label());
        }
    }

    #[test]
    fn convolution_forward_and_pullback_agree_with_naive_loops() {
        for sample in images() {
            against_naive(&sample, FloatDType::F64, |_| TWIN);
            against_naive(&sample, FloatDType::F32, |terms| (terms + 1.0) * UNIT_F32);
        }
    }
}
