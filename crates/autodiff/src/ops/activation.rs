//! Elementwise activations: y_i = f(x_i), pullback g_i f'(x_i).
//!
//! | operation | f(x) | f'(x) | kept | kink |
//! |---|---|---|---|---|
//! | ReLU | max(x, 0) | 1 for x > 0, else 0 | mask | f'(0) = 0, as in PyTorch |
//! | leaky ReLU | x for x > 0, else slope x | 1 or slope | mask | f'(0) = slope |
//! | sigmoid | 1 / (1 + exp(-x)) | y (1 - y) | output | none |
//! | tanh | tanh x | 1 - y^2 | output | none |
//! | GELU | x Phi(x), Phi the normal distribution function | Phi(x) + x phi(x) | input | none |

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

use burn::backend::Dispatch;
use burn::backend::Scalar;
use burn::backend::ir::{ActivationOperationIr, FloatOperationIr, OperationIr};
use burn::backend::ops::{ActivationOps, FloatTensorOps};

use super::{Keep, Lowering, Op, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Place};

macro_rules! activations {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $keep:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($label)
            }
        }

        impl Rule for $name {
            fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
                Ok(inputs[0].clone())
            }

            fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
                Self::value(only(inputs))
            }

            fn keeps(&self, _: &[bool]) -> Vec<Keep> {
                vec![$keep]
            }

            fn trace(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> (Array, Option<Array>) {
                let mask = ($keep == Keep::Mask).then(|| inputs[0].at_most(0.0));
                (Self::value(only(inputs)), mask)
            }

            fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
                Self::vjp(cotangent, saved)
            }
        }
    )+};
}

activations! {
    /// max(x, 0).
    Relu, "relu", Keep::Mask;
    /// 1 / (1 + exp(-x)).
    Sigmoid, "sigmoid", Keep::Output;
    /// tanh x.
    Tanh, "tanh", Keep::Output;
    /// x Phi(x), with the exact normal distribution function.
    Gelu, "gelu", Keep::Input(0);
}

/// `[...]` as `[1, ...]`, to broadcast over the cotangents.
fn over_cotangents(array: Array) -> Array {
    let shape = with_leading(1, &array.shape());
    array.reshape(&shape)
}

/// The kept mask as `[1, ...]`.
fn mask_over_cotangents(saved: &Saved<'_>) -> Array {
    saved.derived().reshape_mask(&with_leading(1, &saved.shapes[0]))
}

impl Relu {
    fn value(x: Array) -> Array {
        Array(Dispatch::relu(x.0))
    }

    fn vjp(cotangent: Array, saved: &Saved<'_>) -> Array {
        cotangent.mask_fill(mask_over_cotangents(saved), 0.0)
    }
}

impl Sigmoid {
    fn value(x: Array) -> Array {
        Array(Dispatch::sigmoid(x.0))
    }

    fn vjp(cotangent: Array, saved: &Saved<'_>) -> Array {
        let y = saved.output();
        let slope = y.clone().mul(y.neg().add_scalar(1.0));
        cotangent.mul(over_cotangents(slope))
    }
}

impl Tanh {
    fn value(x: Array) -> Array {
        Array(Dispatch::float_tanh(x.0))
    }

    fn vjp(cotangent: Array, saved: &Saved<'_>) -> Array {
        let y = saved.output();
        let slope = y.clone().mul(y).neg().add_scalar(1.0);
        cotangent.mul(over_cotangents(slope))
    }
}

impl Gelu {
    /// Phi(x) = (1 + erf(x / sqrt 2)) / 2.
    fn distribution(x: &Array) -> Array {
        x.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0).mul_scalar(0.5)
    }

    fn value(x: Array) -> Array {
        let distribution = Self::distribution(&x);
        x.mul(distribution)
    }

    fn vjp(cotangent: Array, saved: &Saved<'_>) -> Array {
        let x = saved.input(0);
        let density = x.clone().mul(x.clone()).mul_scalar(-0.5).exp().mul_scalar(1.0 / (2.0 * PI).sqrt());
        let slope = Self::distribution(&x).add(x.mul(density));
        cotangent.mul(over_cotangents(slope))
    }
}

/// x for x > 0, else slope x.
#[derive(Debug, Clone, PartialEq)]
pub struct LeakyRelu {
    /// The derivative below 0.
    pub slope: f64,
}

impl fmt::Display for LeakyRelu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "leaky_relu(slope {})", self.slope)
    }
}

impl Rule for LeakyRelu {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        Array(Dispatch::leaky_relu(only(inputs).0, Scalar::Float(self.slope)))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Mask]
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Place) -> (Array, Option<Array>) {
        let mask = inputs[0].at_most(0.0);
        (self.forward(inputs, shape, place), Some(mask))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let ones = Array::full(&with_leading(1, &saved.shapes[0]), 1.0, &cotangent.place());
        cotangent.mul(ones.mask_fill(mask_over_cotangents(saved), self.slope))
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    use ActivationOperationIr as A;
    match ir {
        OperationIr::Activation(A::Relu(io)) => unary(Op::Relu(Relu), &io.input, &io.out),
        OperationIr::Activation(A::Sigmoid(io)) => unary(Op::Sigmoid(Sigmoid), &io.input, &io.out),
        OperationIr::Activation(A::Gelu(io)) => unary(Op::Gelu(Gelu), &io.input, &io.out),
        OperationIr::Float(_, FloatOperationIr::Tanh(io)) => unary(Op::Tanh(Tanh), &io.input, &io.out),
        OperationIr::Activation(A::LeakyRelu(io)) => {
            unary(Op::LeakyRelu(LeakyRelu { slope: io.rhs.elem() }), &io.lhs, &io.out)
        }
        _ => None,
    }
}
