//! Convolution in two dimensions.
//!
//! y[b, o, i] = bias[o] + sum over c, k of w[o, c, k] x[b, c, stride i + dilation k - padding], channels in `groups` blocks. Linear in
//! x: its pullback is the transposed convolution with the same weight, and nothing of the forward pass is kept but the weight.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{Conv2dOpIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::{ConvOptions, ConvTransposeOptions, ModuleOps};
use burn::tensor::Slice;

use super::{Keep, Lowered, Lowering, Op, Rule, Saved, fold, with_leading};
use crate::array::{Array, Place};

/// Convolution of `[B, C, H, W]` with a weight `[O, C / groups, KH, KW]` and an optional bias `[O]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv2d {
    /// Step of the window along H and W.
    pub stride: [usize; 2],
    /// Zeros added before and after H, before and after W.
    pub padding: [(usize, usize); 2],
    /// Distance of the kernel's taps.
    pub dilation: [usize; 2],
    /// Number of blocks into which the channels fall.
    pub groups: usize,
}

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
        let padded = input + self.padding[axis].0 + self.padding[axis].1;
        let reach = self.dilation[axis] * (kernel.max(1) - 1) + 1;
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
        if self.groups == 0 || per_group * self.groups != c || o % self.groups != 0 {
            return Err(format!(
                "{c} input and {o} output channels do not fit a weight of {per_group} channels in {} groups",
                self.groups
            ));
        }
        Ok(vec![b, o, self.size(0, h, kh)?, self.size(1, w, kw)?])
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        let options = ConvOptions::new_with_padding(self.stride, self.padding, self.dilation, self.groups);
        let bias = inputs.get(2).map(|bias| bias.0.clone());
        Array(Dispatch::conv2d(inputs[0].0.clone(), inputs[1].0.clone(), bias, options))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (v, weight, shape) = (cotangent.shape()[0], saved.input(1), &saved.shapes[0]);
        let (out, kernel) = (cotangent.shape(), weight.shape());
        let symmetric = self.padding.iter().all(|(before, after)| before == after);
        // Asymmetric padding: the pullback to the padded input, from which the padding is then cut.
        let cut = |axis: usize| if symmetric { self.padding[axis].0 } else { 0 };
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
}

impl Conv2d {
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

/// Four sizes, or why there are not four.
pub(crate) fn dims4(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("four axes are needed, found shape {shape:?}"))
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    let OperationIr::Module(ModuleOperationIr::Conv2d(Conv2dOpIr { x, weight, bias, options, out })) = ir
    else {
        return None;
    };
    let (stride, padding, dilation, groups) =
        (options.stride, options.padding, options.dilation, options.groups);
    let inputs = [x, weight].into_iter().chain(bias).collect();
    Some(Ok(Lowered { op: Op::Conv2d(Conv2d { stride, padding, dilation, groups }), inputs, output: out }))
}
