//! Softmax and its logarithm along one axis.
//!
//! - softmax: y_i = exp(x_i) / sum_j exp(x_j), pullback y_i (g_i - sum_j g_j y_j);
//! - softmin: the softmax of -x, pullback -y_i (g_i - sum_j g_j y_j);
//! - log-softmax: y_i = x_i - ln sum_j exp(x_j), pullback g_i - exp(y_i) sum_j g_j.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{ActivationOperationIr, OperationIr};
use burn::backend::ops::ActivationOps;

use super::{Keep, Lowering, Op, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Place};
use crate::coupling::{BatchAxis, Passage};

/// exp(x) / sum exp(x) along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Softmax {
    /// The axis along which the result sums to 1.
    pub axis: usize,
}

/// exp(-x) / sum exp(-x) along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Softmin {
    /// The axis along which the result sums to 1.
    pub axis: usize,
}

/// x - ln sum exp(x) along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSoftmax {
    /// The axis along which the exponentials of the result sum to 1.
    pub axis: usize,
}

fn same_shape(inputs: &[Vec<usize>], axis: usize) -> Result<Vec<usize>, String> {
    if axis < inputs[0].len() {
        Ok(inputs[0].clone())
    } else {
        Err(format!("shape {:?} has no axis {axis}", inputs[0]))
    }
}

/// The kept result as `[1, ...]`.
fn output_over_cotangents(saved: &Saved<'_>) -> Array {
    saved.output().reshape(&with_leading(1, &saved.shapes[0]))
}

impl Rule for Softmax {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        same_shape(inputs, self.axis)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        Array(Dispatch::softmax(only(inputs).0, self.axis))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Output]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let y = output_over_cotangents(saved);
        let mean = cotangent.clone().mul(y.clone()).sum_axis(self.axis + 1);
        cotangent.sub(mean).mul(y)
    }
}

impl Rule for Softmin {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        same_shape(inputs, self.axis)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        Array(Dispatch::softmax(only(inputs).neg().0, self.axis))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Output]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let y = output_over_cotangents(saved);
        let mean = cotangent.clone().mul(y.clone()).sum_axis(self.axis + 1);
        mean.sub(cotangent).mul(y)
    }
}

impl Rule for LogSoftmax {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        same_shape(inputs, self.axis)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        Array(Dispatch::log_softmax(only(inputs).0, self.axis))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Output]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let total = cotangent.clone().sum_axis(self.axis + 1);
        cotangent.sub(output_over_cotangents(saved).exp().mul(total))
    }
}

impl fmt::Display for Softmax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "softmax(axis {})", self.axis)
    }
}

impl fmt::Display for Softmin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "softmin(axis {})", self.axis)
    }
}

impl fmt::Display for LogSoftmax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log_softmax(axis {})", self.axis)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    match ir {
        OperationIr::Activation(ActivationOperationIr::Softmax(io)) => {
            unary(Op::Softmax(Softmax { axis: io.axis }), &io.input, &io.out)
        }
        OperationIr::Activation(ActivationOperationIr::Softmin(io)) => {
            unary(Op::Softmin(Softmin { axis: io.axis }), &io.input, &io.out)
        }
        OperationIr::Activation(ActivationOperationIr::LogSoftmax(io)) => {
            unary(Op::LogSoftmax(LogSoftmax { axis: io.axis }), &io.input, &io.out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples along every axis; values and pullbacks where exponentials overflow.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, check, place, spread, values};
    use super::*;

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let shapes: [&[usize]; 6] = [&[1, 2], &[2, 4], &[5, 3], &[1, 1], &[2, 3, 2], &[3, 10, 7, 5]];
        let along = |shape: &&[usize]| {
            let operand = spread(shape, 8);
            let all = |axis| {
                let smallest = Op::Softmin(Softmin { axis });
                [Op::Softmax(Softmax { axis }), smallest, Op::LogSoftmax(LogSoftmax { axis })]
            };
            let ops = (0..shape.len()).flat_map(all);
            ops.map(|op| OpSample::new(op, vec![operand.clone()])).collect::<Vec<_>>()
        };
        shapes.iter().flat_map(along).collect()
    }

    #[test]
    fn derivatives() {
        check(&samples());
    }

    #[test]
    fn large_logits_do_not_overflow() {
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let (shape, place) = ([1, 3], place(dtype));
            let logits = || vec![array(&shape, &[800.0, 810.0, -800.0], &place)];
            let y = LogSoftmax { axis: 1 }.forward(logits(), &shape, &place);
            let expected = [-10.0, 0.0, -1610.0];
            for (expected, found) in expected.iter().zip(values(y.clone())) {
                assert!((expected - found).abs() < 1e-4, "{expected} {found}");
            }
            let saved = Saved { inputs: &[None], output: Some(&y), derived: None, shapes: &[vec![1, 3]] };
            let cotangent = array(&[1, 1, 3], &[0.0, 0.0, 1.0], &place);
            let pulled = values(LogSoftmax { axis: 1 }.pullback(cotangent, 0, &saved));
            assert!((pulled[1] + 1.0).abs() < 1e-4 && pulled[2] == 1.0, "{pulled:?}");
            let y = values(Softmax { axis: 1 }.forward(logits(), &shape, &place));
            assert!((y[0] / (-10.0_f64).exp() - 1.0).abs() < 1e-4 && y[2] == 0.0, "{y:?}");
        }
    }
}
