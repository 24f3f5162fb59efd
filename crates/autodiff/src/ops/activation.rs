//! Elementwise activations: y_i = f(x_i), pullback g_i f'(x_i).
//!
//! | operation | f(x) | f'(x) | kept | kink |
//! |---|---|---|---|---|
//! | ReLU | max(x, 0) | 1 for x > 0, else 0 | mask | f'(0) = 0, as in PyTorch |
//! | leaky ReLU | x for x > 0, else slope x | 1 or slope | mask | f'(0) = slope |
//! | PReLU | x for x > 0, else a x | 1 or a; to a: 0 or x | mask, a, x | f'(0) = a, as in PyTorch |
//! | sigmoid | 1 / (1 + exp(-x)) | y (1 - y) | output | none |
//! | tanh | tanh x | 1 - y^2 | output | none |
//! | GELU | x Phi(x), Phi the normal distribution function | Phi(x) + x phi(x) | input | none |

use std::f64::consts::{FRAC_1_SQRT_2, PI};
use std::fmt;

use burn::backend::Dispatch;
use burn::backend::Scalar;
use burn::backend::ir::{ActivationOperationIr, FloatOperationIr, OperationIr};
use burn::backend::ops::{ActivationOps, FloatTensorOps};

use super::arithmetic::{broadcast, sum_to};
use super::{
    Keep, Lowered, Op, Recognition, Rule, Saved, both, only, over_cotangents, unary, where_true, with_leading,
};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Activations of one operand, by name and kept tensor; each has a `value` and a `vjp` below.
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

            fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
                Self::value(only(inputs))
            }

            fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
                passage.unless(false)
            }

            fn keeps(&self, _: &[bool]) -> Vec<Keep> {
                vec![$keep]
            }

            fn trace(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> (Array, Option<Array>) {
                let mask = ($keep == Keep::Mask).then(|| inputs[0].above(0.0));
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

/// The cotangents where x > 0, and those of `low`, of the same shape, elsewhere.
fn above_or(cotangent: Array, low: Array, saved: &Saved<'_>) -> Array {
    let negative = saved.derived().reshape_mask(&with_leading(1, &saved.shapes[0])).not();
    let shape = cotangent.shape();
    cotangent.choose(negative.expand_mask(&shape), low)
}

impl Relu {
    fn value(x: Array) -> Array {
        Array(Dispatch::relu(x.0))
    }

    fn vjp(cotangent: Array, saved: &Saved<'_>) -> Array {
        where_true(cotangent, saved.derived())
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

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        Array(Dispatch::leaky_relu(only(inputs).0, Scalar::Float(self.slope)))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Mask]
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let mask = inputs[0].above(0.0);
        (self.forward(inputs, shape, place), Some(mask))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        if self.slope == 0.0 {
            return where_true(cotangent, saved.derived());
        }
        let low = cotangent.clone().mul_scalar(self.slope);
        above_or(cotangent, low, saved)
    }
}

/// x for x > 0, else a x, for operands x and a constant a that broadcasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PRelu;

impl fmt::Display for PRelu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("prelu")
    }
}

impl Rule for PRelu {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        match broadcast(&inputs[0], &inputs[1])? {
            shape if shape == inputs[0] => Ok(shape),
            _ => Err(format!("slopes of shape {:?} do not fit an input of shape {:?}", inputs[1], inputs[0])),
        }
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let [x, slope] = both(inputs);
        Array(Dispatch::prelu(x.0, slope.0))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        let operands = (0..2).filter(|&position| active[1 - position]).map(Keep::Input);
        operands.chain([Keep::Mask]).collect()
    }

    /// There is no rule for a slope that depends on the input.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let mask = inputs[0].above(0.0);
        (self.forward(inputs, shape, place), Some(mask))
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        if position == 1 {
            let negative = where_true(cotangent, saved.derived().not());
            return sum_to(negative.mul(over_cotangents(saved.input(0))), &saved.shapes[1]);
        }
        let low = cotangent.clone().mul(over_cotangents(saved.input(1)));
        above_or(cotangent, low, saved)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use ActivationOperationIr as A;
    match ir {
        OperationIr::Activation(A::Relu(io)) => unary(Op::Relu(Relu), &io.input, &io.out),
        OperationIr::Activation(A::Sigmoid(io)) => unary(Op::Sigmoid(Sigmoid), &io.input, &io.out),
        OperationIr::Activation(A::Gelu(io)) => unary(Op::Gelu(Gelu), &io.input, &io.out),
        OperationIr::Float(_, FloatOperationIr::Tanh(io)) => unary(Op::Tanh(Tanh), &io.input, &io.out),
        OperationIr::Activation(A::LeakyRelu(io)) => {
            unary(Op::LeakyRelu(LeakyRelu { slope: io.rhs.elem() }), &io.lhs, &io.out)
        }
        OperationIr::Activation(A::PRelu(io)) => {
            Some(Ok(Lowered { op: Op::PRelu(PRelu), inputs: vec![&io.lhs, &io.rhs], output: &io.out }))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples away from kinks; kinks and special values are tested one by one.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, OperandValues, array, check, place, spread, values};
    use super::*;

    const SLOPES: [f64; 4] = [0.01, 0.3, 0.0, -0.5];

    /// Values of [`spread`] in (-6, 6).
    pub(in super::super) fn wide(shape: &[usize]) -> OperandValues {
        let OperandValues { shape, values } = spread(shape, 8);
        OperandValues { shape, values: values.into_iter().map(|x| 6.0 * x).collect() }
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut ops = vec![Op::Relu(Relu), Op::Sigmoid(Sigmoid), Op::Tanh(Tanh), Op::Gelu(Gelu)];
        ops.extend(SLOPES.map(|slope| Op::LeakyRelu(LeakyRelu { slope })));
        let shapes: [&[usize]; 6] = [&[1, 1], &[2, 3], &[5, 2, 3], &[1, 2, 3, 1], &[7], &[3, 4, 9, 11]];
        let point = |op: &Op, shape: &&[usize]| OpSample::new(op.clone(), vec![wide(shape)]);
        let prelu =
            |[x, slope]: &[&[usize]; 2]| OpSample::new(Op::PRelu(PRelu), vec![wide(x), spread(slope, 300)]);
        let slopes: [[&[usize]; 2]; 4] = [
            [&[2, 3], &[1, 1]],
            [&[5, 2, 3], &[1, 2, 1]],
            [&[1, 4], &[1, 4]],
            [&[3, 4, 9, 11], &[1, 4, 1, 1]],
        ];
        let plain = ops.iter().flat_map(|op| shapes.iter().map(|shape| point(op, shape)));
        plain.chain(slopes.iter().map(prelu)).collect()
    }

    #[test]
    fn activation_derivatives_match_differences() {
        check(&samples());
    }

    /// Values and slopes of an activation at some points, in one float type.
    pub(in super::super) fn at(op: &Op, points: &[f64], dtype: FloatDType) -> (Vec<f64>, Vec<f64>) {
        let (shape, place) = ([points.len()], place(dtype));
        let x = array(&shape, points, &place);
        let (y, derived) = op.rule().trace(vec![x.clone()], &shape, &place);
        let saved = Saved {
            inputs: &[Some(x)],
            output: Some(&y),
            derived: derived.as_ref(),
            shapes: &[shape.to_vec()],
        };
        let slope =
            op.rule().pullback(array(&[1, points.len()], &vec![1.0; points.len()], &place), 0, &saved);
        (values(y), values(slope))
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|x| x.to_bits()).collect()
    }

    const TYPES: [FloatDType; 2] = [FloatDType::F32, FloatDType::F64];

    /// The smallest subnormal number of a type.
    fn tiny(dtype: FloatDType) -> f64 {
        if dtype == FloatDType::F32 { f64::from(f32::from_bits(1)) } else { f64::from_bits(1) }
    }

    #[test]
    fn relu_at_special_values() {
        for dtype in TYPES {
            let tiny = tiny(dtype);
            let points = [0.0, -0.0, tiny, -tiny, f64::INFINITY, f64::NEG_INFINITY];
            let (y, slope) = at(&Op::Relu(Relu), &points, dtype);
            assert_eq!(bits(&y), bits(&[0.0, 0.0, tiny, 0.0, f64::INFINITY, 0.0]), "{dtype:?}");
            assert_eq!(slope, [0.0, 0.0, 1.0, 0.0, 1.0, 0.0], "the derivative at 0 is 0; {dtype:?}");
            // NaN goes through, so that it is found later.
            assert!(at(&Op::Relu(Relu), &[f64::NAN], dtype).0[0].is_nan(), "{dtype:?}");
        }
    }

    #[test]
    fn leaky_relu_at_special_values() {
        let op = Op::LeakyRelu(LeakyRelu { slope: 0.5 });
        for dtype in TYPES {
            let points = [0.0, -0.0, tiny(dtype), f64::INFINITY, f64::NEG_INFINITY, -2.0];
            let (y, slope) = at(&op, &points, dtype);
            assert_eq!(y, [0.0, 0.0, tiny(dtype), f64::INFINITY, f64::NEG_INFINITY, -1.0], "{dtype:?}");
            assert_eq!(slope, [0.5, 0.5, 1.0, 1.0, 0.5, 0.5], "the derivative at 0 is the slope; {dtype:?}");
            assert!(at(&op, &[f64::NAN], dtype).0[0].is_nan(), "{dtype:?}");
        }
    }

    #[test]
    fn sigmoid_tanh_and_gelu_saturate_without_nan() {
        for dtype in TYPES {
            for op in [Op::Sigmoid(Sigmoid), Op::Tanh(Tanh)] {
                let points = [1e4, -1e4, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0];
                let (y, slope) = at(&op, &points, dtype);
                let low = if op.name() == "Sigmoid" { 0.0 } else { -1.0 };
                assert_eq!(y[..4], [1.0, low, 1.0, low], "{op} {dtype:?}");
                assert_eq!(slope[..4], [0.0; 4], "{op} {dtype:?}");
                assert!(at(&op, &[f64::NAN], dtype).0[0].is_nan(), "{op} {dtype:?}");
            }
            let (y, slope) = at(&Op::Gelu(Gelu), &[1e4, -1e4, 0.0, -0.0], dtype);
            assert_eq!(y, [1e4, 0.0, 0.0, 0.0], "{dtype:?}");
            assert_eq!(slope, [1.0, 0.0, 0.5, 0.5], "{dtype:?}");
        }
    }

    #[test]
    fn sigmoid_is_accurate_in_its_tails() {
        // exp(-40) in double precision; Burn's default formula computes in single precision.
        let (y, slope) = at(&Op::Sigmoid(Sigmoid), &[-40.0], FloatDType::F64);
        let expected = (-40.0_f64).exp();
        for found in [y[0], slope[0]] {
            assert!((found / expected - 1.0).abs() < 1e-14, "{found} {expected}");
        }
    }
}
