//! Pooling in one and two dimensions.
//!
//! - [`MaxPool2d`]: y_i = max of x over the window of i; the pullback adds g_i at the window's
//!   maximum. Of several equal maxima, the first in row-major order receives all of it, as in
//!   PyTorch. (The measure is not defined at such points; every choice is a one-sided derivative.)
//! - [`AvgPool2d`]: y_i = sum of x over the window / count; the pullback adds g_i / count at every
//!   element of the window. With `count_include_pad` the count includes padding, but not the
//!   elements that `ceil_mode` adds beyond it.
//! - [`AdaptiveAvgPool2d`]: the mean over n windows along an axis of size H, of which window i
//!   covers floor(i H / n) .. ceil((i + 1) H / n); the pullback adds g_i / count at every element
//!   of the window.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{ModuleOperationIr, OperationIr};
use burn::backend::ops::{ModuleOps, conv::calculate_pool_output_size};
use burn::tensor::Device;

use super::conv::dims4;
use super::row::AsImage;
use super::{Keep, Op, Recognition, Rule, Saved, fold, folded, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// The maximum over windows of `[B, C, H, W]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPool2d {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Number of minus infinities added on both sides.
    pub padding: [usize; 2],
    /// Distance of the window's taps.
    pub dilation: [usize; 2],
    /// Whether a last window that begins inside the input may end outside.
    pub ceil_mode: bool,
}

/// The mean over windows of `[B, C, H, W]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvgPool2d {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Number of zeros added on both sides.
    pub padding: [usize; 2],
    /// Whether padding counts in the divisor.
    pub count_include_pad: bool,
    /// Whether a last window that begins inside the input may end outside.
    pub ceil_mode: bool,
}

/// The mean over windows that divide `[B, C, H, W]` into `[B, C, output[0], output[1]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptiveAvgPool2d {
    /// Size of the result along H and W.
    pub output: [usize; 2],
}

/// The maximum over windows of `[B, C, L]`.
pub type MaxPool1d = AsImage<MaxPool2d>;

/// The mean over windows of `[B, C, L]`.
pub type AvgPool1d = AsImage<AvgPool2d>;

/// The mean over windows that divide `[B, C, L]` into a given number.
pub type AdaptiveAvgPool1d = AsImage<AdaptiveAvgPool2d>;

/// The shape of a pooled `[B, C, H, W]`.
fn pooled(
    x: &[usize],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
) -> Result<Vec<usize>, String> {
    let [b, c, h, w] = dims4(x)?;
    let mut shape = vec![b, c];
    for (axis, size) in [h, w].into_iter().enumerate() {
        let reach = dilation[axis].saturating_mul(kernel[axis].max(1) - 1).saturating_add(1);
        if stride[axis] == 0 || dilation[axis] == 0 || kernel[axis] == 0 {
            return Err("stride, dilation and window must be positive".into());
        }
        if reach > size + 2 * padding[axis] {
            return Err(format!(
                "a window that reaches over {reach} is larger than the padded input of {}",
                size + 2 * padding[axis]
            ));
        }
        shape.push(calculate_pool_output_size(
            kernel[axis],
            stride[axis],
            padding[axis],
            dilation[axis],
            size,
            ceil_mode,
        ));
    }
    Ok(shape)
}

/// A stand-in for the input, of which Burn's pooling pullbacks read only the shape: one zero,
/// expanded.
fn shape_only(shape: &[usize], like: &Array) -> Array {
    like.zeros_like(&[1, 1, 1, 1]).expand(shape)
}

impl Rule for MaxPool2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        if (0..2).any(|axis| self.padding[axis] > self.kernel[axis] / 2) {
            return Err("padding must be at most half the window".into());
        }
        pooled(&inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let Self { kernel, stride, padding, dilation, ceil_mode } = *self;
        Array(Dispatch::max_pool2d(inputs[0].0.clone(), kernel, stride, padding, dilation, ceil_mode))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Indices]
    }

    fn trace(&self, inputs: Vec<Array>, _: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let Self { kernel, stride, padding, dilation, ceil_mode } = *self;
        let int = Device::new(place.device.clone()).settings().int_dtype;
        let pair = Dispatch::max_pool2d_with_indices(
            inputs[0].0.clone(),
            kernel,
            stride,
            padding,
            dilation,
            ceil_mode,
            int,
        );
        (Array(pair.output), Some(Array(pair.indices)))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let Self { kernel, stride, padding, dilation, ceil_mode } = *self;
        let stacked = cotangent.shape();
        // One set of indices serves all V cotangents.
        let indices = saved.derived();
        let single = indices.shape();
        let indices = indices.reshape_indices(&with_leading(1, &single)).expand_indices(&stacked);
        let indices = indices.reshape_indices(&folded(stacked[0], &single)).0;
        let x = shape_only(&folded(stacked[0], &saved.shapes[0]), &cotangent).0;
        let grad = fold(cotangent).0;
        let result = Dispatch::max_pool2d_with_indices_backward(
            x, kernel, stride, padding, dilation, ceil_mode, grad, indices,
        );
        Array(result.x_grad).reshape(&with_leading(stacked[0], &saved.shapes[0]))
    }
}

impl Rule for AvgPool2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        if (0..2).any(|axis| self.padding[axis] > self.kernel[axis] / 2) {
            return Err("padding must be at most half the window".into());
        }
        pooled(&inputs[0], self.kernel, self.stride, self.padding, [1, 1], self.ceil_mode)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let Self { kernel, stride, padding, count_include_pad, ceil_mode } = *self;
        Array(Dispatch::avg_pool2d(
            inputs[0].0.clone(),
            kernel,
            stride,
            padding,
            count_include_pad,
            ceil_mode,
        ))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let Self { kernel, stride, padding, count_include_pad, ceil_mode } = *self;
        let v = cotangent.shape()[0];
        let x = shape_only(&folded(v, &saved.shapes[0]), &cotangent).0;
        let grad = fold(cotangent).0;
        let result =
            Dispatch::avg_pool2d_backward(x, grad, kernel, stride, padding, count_include_pad, ceil_mode);
        Array(result).reshape(&with_leading(v, &saved.shapes[0]))
    }
}

impl Rule for AdaptiveAvgPool2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let [b, c, _, _] = dims4(&inputs[0])?;
        if self.output.contains(&0) {
            return Err("the output size must be positive".into());
        }
        Ok(vec![b, c, self.output[0], self.output[1]])
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        Array(Dispatch::adaptive_avg_pool2d(inputs[0].0.clone(), self.output))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let v = cotangent.shape()[0];
        let x = shape_only(&folded(v, &saved.shapes[0]), &cotangent).0;
        let result = Dispatch::adaptive_avg_pool2d_backward(x, fold(cotangent).0);
        Array(result).reshape(&with_leading(v, &saved.shapes[0]))
    }
}

impl fmt::Display for MaxPool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([kh, kw], [sh, sw], [ph, pw], [dh, dw]) =
            (self.kernel, self.stride, self.padding, self.dilation);
        write!(
            f,
            "max_pool2d({kh}x{kw}, stride {sh}x{sw}, padding {ph}x{pw}, dilation {dh}x{dw}{})",
            ceil(self.ceil_mode)
        )
    }
}

impl fmt::Display for AvgPool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([kh, kw], [sh, sw], [ph, pw]) = (self.kernel, self.stride, self.padding);
        let pad = if self.count_include_pad { "" } else { ", padding not counted" };
        write!(f, "avg_pool2d({kh}x{kw}, stride {sh}x{sw}, padding {ph}x{pw}{pad}{})", ceil(self.ceil_mode))
    }
}

impl fmt::Display for AdaptiveAvgPool2d {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adaptive_avg_pool2d({}x{})", self.output[0], self.output[1])
    }
}

fn ceil(mode: bool) -> &'static str {
    if mode { ", ceil" } else { "" }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::Module(module) = ir else { return None };
    match module {
        ModuleOperationIr::MaxPool2d(pool) => {
            let (kernel, stride, padding) = (pool.kernel_size, pool.stride, pool.padding);
            let rule =
                MaxPool2d { kernel, stride, padding, dilation: pool.dilation, ceil_mode: pool.ceil_mode };
            unary(Op::MaxPool2d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::MaxPool2dWithIndices(pool) => {
            let (kernel, stride, padding) = (pool.kernel_size, pool.stride, pool.padding);
            let rule =
                MaxPool2d { kernel, stride, padding, dilation: pool.dilation, ceil_mode: pool.ceil_mode };
            unary(Op::MaxPool2d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::AvgPool2d(pool) => {
            let (kernel, stride, padding) = (pool.kernel_size, pool.stride, pool.padding);
            let (count_include_pad, ceil_mode) = (pool.count_include_pad, pool.ceil_mode);
            let rule = AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode };
            unary(Op::AvgPool2d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::AdaptiveAvgPool2d(pool) => {
            unary(Op::AdaptiveAvgPool2d(AdaptiveAvgPool2d { output: pool.output_size }), &pool.x, &pool.out)
        }
        ModuleOperationIr::MaxPool1d(pool) => {
            let rule = max_row(pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode);
            unary(Op::MaxPool1d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::MaxPool1dWithIndices(pool) => {
            let rule = max_row(pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode);
            unary(Op::MaxPool1d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::AvgPool1d(pool) => {
            let (kernel, stride, padding) = ([1, pool.kernel_size], [1, pool.stride], [0, pool.padding]);
            let (count_include_pad, ceil_mode) = (pool.count_include_pad, pool.ceil_mode);
            let rule = AsImage(AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode });
            unary(Op::AvgPool1d(rule), &pool.x, &pool.out)
        }
        ModuleOperationIr::AdaptiveAvgPool1d(pool) => {
            let rule = AsImage(AdaptiveAvgPool2d { output: [1, pool.output_size] });
            unary(Op::AdaptiveAvgPool1d(rule), &pool.x, &pool.out)
        }
        _ => None,
    }
}

/// A maximum along one axis.
fn max_row(kernel: usize, stride: usize, padding: usize, dilation: usize, ceil_mode: bool) -> MaxPool1d {
    let (kernel, stride, padding) = ([1, kernel], [1, stride], [0, padding]);
    AsImage(MaxPool2d { kernel, stride, padding, dilation: [1, dilation], ceil_mode })
}

#[cfg(test)]
pub(super) mod tests {
    //! Combinations of windows, strides, paddings, dilations and modes: derivatives, and both
    //! directions against naive loops.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, assert_close, check, place, spread, values};
    use super::super::naive::{NaiveSums, adaptive_windows, max_windows, mean_windows};
    use super::*;

    /// Tolerance for f64 against loops in f64: the rounding of a few dozen terms.
    const TWIN: f64 = 1e-12;

    /// Tolerance for f32 against loops in f64: a few dozen unit roundoffs of values below 1
    /// (windows have at most 24 elements).
    const TWIN_F32: f64 = 32.0 / (1_u64 << 24) as f64;

    const KERNELS: [[usize; 2]; 5] = [[1, 1], [2, 2], [3, 3], [1, 3], [3, 2]];
    const STRIDES: [[usize; 2]; 4] = [[1, 1], [2, 2], [3, 3], [2, 1]];

    fn sizes(index: usize) -> [usize; 4] {
        [[1, 2, 5, 4], [2, 1, 7, 3], [5, 1, 3, 4], [1, 3, 6, 5]][index % 4]
    }

    /// Kernels, strides and paddings of at most half the window, as far as they fit.
    fn windows() -> Vec<([usize; 2], [usize; 2], [usize; 2])> {
        let pairs = KERNELS.iter().flat_map(|&kernel| STRIDES.map(|stride| (kernel, stride)));
        pairs
            .flat_map(|(kernel, stride)| {
                [[0, 0], [1, 1], [0, 1]].map(|padding: [usize; 2]| (kernel, stride, padding))
            })
            .filter(|(kernel, _, padding)| (0..2).all(|axis| 2 * padding[axis] <= kernel[axis]))
            .collect()
    }

    /// A sample with the input's shape as `x`, if the operation fits it.
    fn fitting(op: Op, x: [usize; 4]) -> Option<OpSample> {
        op.rule().shape(&[x.to_vec()], &[]).ok()?;
        Some(OpSample::new(op, vec![spread(&x, 8)]))
    }

    fn max_pools() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (index, (kernel, stride, padding)) in windows().into_iter().enumerate() {
            for (dilation, ceil_mode) in [(1, false), (2, false), (3, true), (1, true)] {
                let op = MaxPool2d { kernel, stride, padding, dilation: [dilation; 2], ceil_mode };
                all.extend(fitting(Op::MaxPool2d(op), sizes(index)));
            }
        }
        all
    }

    fn mean_pools() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (index, (kernel, stride, padding)) in windows().into_iter().enumerate() {
            for mode in 0..4 {
                let (count_include_pad, ceil_mode) = (mode & 1 == 1, mode & 2 == 2);
                let op = AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode };
                all.extend(fitting(Op::AvgPool2d(op), sizes(index)));
            }
        }
        all
    }

    fn adaptive_pools() -> Vec<OpSample> {
        let outputs = [[1, 1], [2, 2], [3, 2], [1, 4], [5, 3], [7, 7], [4, 1]];
        let ops = outputs.map(|output| Op::AdaptiveAvgPool2d(AdaptiveAvgPool2d { output }));
        (0..4).flat_map(|index| ops.iter().filter_map(move |op| fitting(op.clone(), sizes(index)))).collect()
    }

    fn larger() -> Vec<OpSample> {
        let (kernel, stride, padding) = ([3, 3], [2, 2], [1, 1]);
        let max = MaxPool2d { kernel, stride, padding, dilation: [1, 1], ceil_mode: false };
        let mean = AvgPool2d { kernel, stride, padding, count_include_pad: true, ceil_mode: false };
        let adaptive = AdaptiveAvgPool2d { output: [3, 5] };
        let ops = [Op::MaxPool2d(max), Op::AvgPool2d(mean), Op::AdaptiveAvgPool2d(adaptive)];
        ops.into_iter()
            .flat_map(|op| [[2, 9, 17, 23], [1, 1, 1, 1]].map(|x| fitting(op.clone(), x)))
            .flatten()
            .collect()
    }

    /// Pools along one axis, of lengths that are no multiple of the stride.
    fn rows() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (kernel, stride, padding) in [(1, 1, 0), (2, 2, 1), (3, 2, 1), (3, 3, 0), (2, 3, 1)] {
            for (mode, x) in [[1, 2, 7], [2, 1, 10], [5, 3, 8], [1, 1, 5]].into_iter().enumerate() {
                let (count_include_pad, ceil_mode) = (mode & 1 == 1, mode & 2 == 2);
                let max = max_row(kernel, stride, padding, 1 + mode % 2, ceil_mode);
                all.push(OpSample::new(Op::MaxPool1d(max), vec![spread(&x, 8)]));
                let (kernel, stride, padding) = ([1, kernel], [1, stride], [0, padding]);
                let mean = AsImage(AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode });
                all.push(OpSample::new(Op::AvgPool1d(mean), vec![spread(&x, 8)]).linear(&[0]));
                let adaptive = AsImage(AdaptiveAvgPool2d { output: [1, 1 + mode] });
                all.push(OpSample::new(Op::AdaptiveAvgPool1d(adaptive), vec![spread(&x, 8)]).linear(&[0]));
            }
        }
        all
    }

    /// Pools in two dimensions and in one.
    pub(in super::super) fn samples() -> Vec<OpSample> {
        [images(), rows()].concat()
    }

    fn images() -> Vec<OpSample> {
        let mean = [mean_pools(), adaptive_pools()].concat().into_iter().map(|sample| sample.linear(&[0]));
        let larger = larger().into_iter();
        // A maximum is linear only until another element exceeds it, so it is tested with small
        // steps.
        max_pools().into_iter().chain(mean).chain(larger).collect()
    }

    #[test]
    fn pool_derivatives_match_differences() {
        assert!(max_pools().len() > 100 && mean_pools().len() > 100, "most combinations fit");
        check(&samples());
    }

    /// Values, and the pullback of one cotangent.
    fn run(op: &Op, x: &[usize], values_of_x: &[f64], cotangent: &[f64], dtype: FloatDType) -> [Vec<f64>; 2] {
        let place = place(dtype);
        let shape = op.rule().shape(&[x.to_vec()], &[]).expect("it fits");
        let (y, derived) = op.rule().trace(vec![array(x, values_of_x, &place)], &shape, &place);
        let saved = Saved { inputs: &[None], output: None, derived: derived.as_ref(), shapes: &[x.to_vec()] };
        let cotangent = array(&with_leading(1, &shape), cotangent, &place);
        [values(y), values(op.rule().pullback(cotangent, 0, &saved))]
    }

    /// Values and pullback by naive loops; of equal maxima the first receives all.
    fn naive(op: &Op, x: [usize; 4], y: [usize; 4], xs: &[f64], gs: &[f64]) -> [Vec<f64>; 2] {
        let windows: Vec<(Vec<usize>, f64)> = match op {
            Op::MaxPool2d(op) => {
                let first = |window: Vec<usize>| {
                    let best =
                        window.iter().copied().reduce(|best, i| if xs[i] > xs[best] { i } else { best });
                    (best.into_iter().collect(), 1.0)
                };
                max_windows(op, x, y).into_iter().map(first).collect()
            }
            Op::AvgPool2d(op) => mean_windows(op, x, y),
            Op::AdaptiveAvgPool2d(op) => {
                adaptive_windows(op, x, y).into_iter().map(|w| (w.clone(), w.len() as f64)).collect()
            }
            other => panic!("{other} is no pool"),
        };
        let (mut forward, mut backward) = (NaiveSums::zeros(gs.len()), NaiveSums::zeros(xs.len()));
        for (at, (window, divisor)) in windows.into_iter().enumerate() {
            for i in window {
                forward.add(at, xs[i] / divisor);
                backward.add(i, gs[at] / divisor);
            }
        }
        [forward.values, backward.values]
    }

    #[test]
    fn pool_forward_and_pullback_agree_with_naive_loops() {
        for sample in images() {
            let x = dims4(&sample.operands[0].shape).expect("four axes");
            let y = dims4(&sample.shape()).expect("four axes");
            let round = |values: &[f64]| values.iter().map(|&v| f64::from(v as f32)).collect::<Vec<_>>();
            let (xs, gs) = (round(&sample.operands[0].values), round(&spread(&y, 4).values));
            let expected = naive(&sample.op, x, y, &xs, &gs);
            for (dtype, tolerance) in [(FloatDType::F64, TWIN), (FloatDType::F32, TWIN_F32)] {
                let found = run(&sample.op, &x, &xs, &gs, dtype);
                for (what, (expected, found)) in
                    ["forward", "pullback"].iter().zip(expected.iter().zip(&found))
                {
                    assert_close(&format!("{} {what} {dtype:?}", sample.label()), expected, found, tolerance);
                }
            }
        }
    }

    #[test]
    fn average_pool_in_ceil_mode_divides_by_the_elements_inside() {
        // x = [1 .. 5], window and stride [1, 2], ceil: windows {1, 2}, {3, 4}, {5}; upstream [2,
        // 4, 8].
        for count_include_pad in [true, false] {
            let op = AvgPool2d {
                kernel: [1, 2],
                stride: [1, 2],
                padding: [0, 0],
                count_include_pad,
                ceil_mode: true,
            };
            let x = [1.0, 2.0, 3.0, 4.0, 5.0];
            let [y, gx] = run(&Op::AvgPool2d(op), &[1, 1, 1, 5], &x, &[2.0, 4.0, 8.0], FloatDType::F64);
            assert_eq!((y, gx), (vec![1.5, 3.5, 5.0], vec![1.0, 1.0, 2.0, 2.0, 8.0]));
        }
    }

    #[test]
    fn max_pool_pullback_goes_to_the_first_of_equal_maxima() {
        let op = |kernel| {
            let rule =
                MaxPool2d { kernel, stride: [1, 1], padding: [0, 0], dilation: [1, 1], ceil_mode: false };
            Op::MaxPool2d(rule)
        };
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let [_, gx] = run(&op([2, 2]), &[1, 1, 2, 2], &[7.0; 4], &[1.0], dtype);
            assert_eq!(gx, [1.0, 0.0, 0.0, 0.0], "{dtype:?}");
            let [_, gx] = run(&op([2, 2]), &[1, 1, 2, 2], &[0.0, 7.0, 7.0, 1.0], &[1.0], dtype);
            assert_eq!(gx, [0.0, 1.0, 0.0, 0.0], "{dtype:?}");
            // 0 and -0 are equal.
            let [_, gx] = run(&op([1, 2]), &[1, 1, 1, 2], &[-0.0, 0.0], &[1.0], dtype);
            assert_eq!(gx, [1.0, 0.0], "{dtype:?}");
        }
    }

    #[test]
    fn max_pool_never_selects_padding() {
        let rule =
            MaxPool2d { kernel: [3, 3], stride: [3, 3], padding: [1, 1], dilation: [1, 1], ceil_mode: true };
        for low in [-5.0, f64::NEG_INFINITY] {
            let [y, gx] = run(&Op::MaxPool2d(rule.clone()), &[1, 1, 1, 1], &[low], &[3.0], FloatDType::F64);
            assert_eq!((y, gx), (vec![low], vec![3.0]));
        }
    }

    #[test]
    fn nan_goes_through_every_pool() {
        let rule =
            MaxPool2d { kernel: [2, 2], stride: [1, 1], padding: [0, 0], dilation: [1, 1], ceil_mode: false };
        let mean = AvgPool2d {
            kernel: [2, 2],
            stride: [1, 1],
            padding: [0, 0],
            count_include_pad: true,
            ceil_mode: false,
        };
        let ops = [
            Op::MaxPool2d(rule),
            Op::AvgPool2d(mean),
            Op::AdaptiveAvgPool2d(AdaptiveAvgPool2d { output: [1, 1] }),
        ];
        for op in ops {
            for at in 0..4 {
                let mut x = [1.0, 2.0, 3.0, 4.0];
                x[at] = f64::NAN;
                for dtype in [FloatDType::F32, FloatDType::F64] {
                    let [y, _] = run(&op, &[1, 1, 2, 2], &x, &[1.0], dtype);
                    assert!(y[0].is_nan(), "{op} {dtype:?}: NaN at {at} gives {y:?}");
                }
            }
        }
    }
}
