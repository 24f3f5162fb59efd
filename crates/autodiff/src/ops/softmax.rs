//! Softmax, softmin and the logarithm of softmax along one axis.
//!
//! - softmax: y_i = exp(x_i) / sum_j exp(x_j), pullback y_i (g_i - sum_j g_j y_j);
//! - softmin: the softmax of -x, pullback -y_i (g_i - sum_j g_j y_j);
//! - log-softmax: y_i = x_i - ln sum_j exp(x_j), pullback g_i - exp(y_i) sum_j g_j.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{ActivationOperationIr, OperationIr};
use burn::backend::ops::ActivationOps;

use super::{Keep, Op, Recognition, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

fn same_shape(inputs: &[Vec<usize>], axis: usize) -> Result<Vec<usize>, String> {
    if axis < inputs[0].len() {
        Ok(inputs[0].clone())
    } else {
        Err(format!("shape {:?} has no axis {axis}", inputs[0]))
    }
}

/// The kept result y as `[1, ...]`.
fn output_over_cotangents(saved: &Saved<'_>) -> Array {
    saved.output().reshape(&with_leading(1, &saved.shapes[0]))
}

/// sum_j g_j y_j along an axis of the result, for y as `[1, ...]`.
fn mean(cotangent: &Array, y: &Array, axis: usize) -> Array {
    cotangent.clone().mul(y.clone()).sum_axis(axis + 1)
}

/// Operations along one axis whose pullback reads the result, by name, value f(x, axis) and
/// pullback (g, axis, saved).
macro_rules! along_axis {
    ($($(#[$doc:meta])* $name:ident { $(#[$of_axis:meta])* axis }, $label:literal, $value:expr, $vjp:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            $(#[$of_axis])*
            pub axis: usize,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, "(axis {})"), self.axis)
            }
        }

        impl Rule for $name {
            fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
                same_shape(inputs, self.axis)
            }

            fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
                let value: fn(Array, usize) -> Array = $value;
                value(only(inputs), self.axis)
            }

            fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
                passage.unless(passage.from.axis == self.axis)
            }

            fn keeps(&self, _: &[bool]) -> Vec<Keep> {
                vec![Keep::Output]
            }

            fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
                let vjp: fn(Array, usize, &Saved<'_>) -> Array = $vjp;
                vjp(cotangent, self.axis, saved)
            }
        }
    )+};
}

along_axis! {
    /// exp(x) / sum exp(x) along `axis`.
    Softmax {
        /// The axis along which the result sums to 1.
        axis
    }, "softmax", |x, axis| Array(Dispatch::softmax(x.0, axis)), |g, axis, saved| {
        let y = output_over_cotangents(saved);
        let mean = mean(&g, &y, axis);
        g.sub(mean).mul(y)
    };
    /// exp(-x) / sum exp(-x) along `axis`.
    Softmin {
        /// The axis along which the result sums to 1.
        axis
    }, "softmin", |x, axis| Array(Dispatch::softmax(x.neg().0, axis)), |g, axis, saved| {
        let y = output_over_cotangents(saved);
        mean(&g, &y, axis).sub(g).mul(y)
    };
    /// x - ln sum exp(x) along `axis`.
    LogSoftmax {
        /// The axis along which the exponentials of the result sum to 1.
        axis
    }, "log_softmax", |x, axis| Array(Dispatch::log_softmax(x.0, axis)), |g, axis, saved| {
        let total = g.clone().sum_axis(axis + 1);
        g.sub(output_over_cotangents(saved).exp().mul(total))
    };
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
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
    //! Samples along every axis; values and pullbacks for logits whose exponentials overflow.

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
    fn softmax_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn softmax_and_log_softmax_of_large_logits_do_not_overflow() {
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
