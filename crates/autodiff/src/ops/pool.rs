//! Pooling in two dimensions.
//!
//! - [`MaxPool2d`]: y_i = max of x over the window of i; the pullback sends g_i to the window's maximum. Of several equal maxima the
//!   first in row-major order takes all of it (as in PyTorch); the measure is not defined at such points, and any choice is a
//!   one-sided derivative.
//! - [`AvgPool2d`]: y_i = sum of x over the window / count; the pullback sends g_i / count to every element of the window. With
//!   `count_include_pad` the count includes padding (but never what `ceil_mode` adds beyond it).
//! - [`AdaptiveAvgPool2d`]: window i of n spans floor(i H / n) .. ceil((i + 1) H / n).

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{ModuleOperationIr, OperationIr};
use burn::backend::ops::{ModuleOps, conv::calculate_pool_output_size};
use burn::tensor::Device;

use super::conv::dims4;
use super::{Keep, Lowering, Op, Rule, Saved, fold, folded, unary, with_leading};
use crate::array::{Array, Place};

/// The maximum over windows of `[B, C, H, W]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxPool2d {
    /// Size of the window.
    pub kernel: [usize; 2],
    /// Step of the window.
    pub stride: [usize; 2],
    /// Minus infinities added on both sides.
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
    /// Zeros added on both sides.
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

/// Shape of a pooled `[B, C, H, W]`.
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
        let reach = dilation[axis] * (kernel[axis].max(1) - 1) + 1;
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

/// Burn's pooling pullbacks take the input for its shape alone: one zero, expanded.
fn shape_only(shape: &[usize], like: &Array) -> Array {
    like.zeros_like(&[1, 1, 1, 1]).expand(shape)
}

impl Rule for MaxPool2d {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        if (0..2).any(|axis| 2 * self.padding[axis] > self.kernel[axis]) {
            return Err("padding must be at most half the window".into());
        }
        pooled(&inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        let Self { kernel, stride, padding, dilation, ceil_mode } = *self;
        Array(Dispatch::max_pool2d(inputs[0].0.clone(), kernel, stride, padding, dilation, ceil_mode))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Indices]
    }

    fn trace(&self, inputs: Vec<Array>, _: &[usize], place: &Place) -> (Array, Option<Array>) {
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
        if (0..2).any(|axis| 2 * self.padding[axis] > self.kernel[axis]) {
            return Err("padding must be at most half the window".into());
        }
        pooled(&inputs[0], self.kernel, self.stride, self.padding, [1, 1], self.ceil_mode)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
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

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        Array(Dispatch::adaptive_avg_pool2d(inputs[0].0.clone(), self.output))
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

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
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
        _ => None,
    }
}
