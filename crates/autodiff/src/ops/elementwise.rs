//! Elementary functions of one variable: y_i = f(x_i), pullback g_i f'(x_i).
//!
//! | operation | f(x) | f'(x) | kept | domain and kinks |
//! |---|---|---|---|---|
//! | exp | exp x | y | output | overflows to infinity |
//! | log | ln x | 1 / x | input | x > 0; infinite slope at 0 |
//! | log1p | ln(1 + x) | 1 / (1 + x) | input | x > -1 |
//! | sqrt | sqrt x | 1 / (2 y) | output | x >= 0; infinite slope at 0, as in PyTorch |
//! | power | x^p | p x^(p - 1) | input | x < 0 for whole p only; f' = 0 everywhere for p = 0, as in PyTorch |
//! | sin, cos | sin x, cos x | cos x, -sin x | input | |
//! | erf | erf x | 2 / sqrt(pi) exp(-x^2) | input | |
//! | abs | absolute value | sign x | input | f'(0) = 0, as in PyTorch |
//! | log-sigmoid | -ln(1 + exp(-x)) | 1 / (1 + exp(x)) | input | |
//! | clamp | x cut to [min, max] | 1 inside, else 0 | mask | 0 on the bounds, as in PyTorch 2.15 |
//! | hard sigmoid | a x + b cut to [0, 1] | a inside, else 0 | mask | 0 at the kinks, as in PyTorch |
//!
//! Burn records its other activations (SiLU, hard-swish, mish, softsign, tanh-GELU) as compositions
//! of these and arithmetic.

use std::f64::consts::FRAC_2_SQRT_PI;
use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{ActivationOperationIr, FloatOperationIr, NumericOperationIr, OperationIr};
use burn::backend::ops::ActivationOps;
use burn::tensor::FloatDType;

use super::{Keep, Op, Recognition, Rule, Saved, only, over_cotangents, unary, where_true};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Functions f, by name, kept tensor, value f(x) and slope f'(x) from the kept tensor.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $keep:expr, $value:expr, $slope:expr;)+) => {$(
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
                let value: fn(Array) -> Array = $value;
                value(only(inputs))
            }

            fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
                passage.unless(false)
            }

            fn keeps(&self, _: &[bool]) -> Vec<Keep> {
                vec![$keep]
            }

            fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
                let slope: fn(Array) -> Array = $slope;
                let kept = if $keep == Keep::Output { saved.output() } else { saved.input(0) };
                cotangent.mul(over_cotangents(slope(kept)))
            }
        }
    )+};
}

functions! {
    /// exp x.
    Exp, "exp", Keep::Output, Array::exp, finite;
    /// ln x.
    Log, "log", Keep::Input(0), Array::log, Array::recip;
    /// ln(1 + x).
    Log1p, "log1p", Keep::Input(0), Array::log1p, |x| x.add_scalar(1.0).recip();
    /// sqrt x.
    Sqrt, "sqrt", Keep::Output, Array::sqrt, |y| y.mul_scalar(2.0).recip();
    /// sin x.
    Sin, "sin", Keep::Input(0), Array::sin, Array::cos;
    /// cos x.
    Cos, "cos", Keep::Input(0), Array::cos, |x| x.sin().neg();
    /// The error function.
    Erf, "erf", Keep::Input(0), Array::erf, |x| x.clone().mul(x).neg().exp().mul_scalar(FRAC_2_SQRT_PI);
    /// -ln(1 + exp(-x)).
    LogSigmoid, "log_sigmoid", Keep::Input(0), |x| Array(Dispatch::log_sigmoid(x.0)),
        |x| Array(Dispatch::sigmoid(x.neg().0));
}

/// Infinities replaced by the largest number: where a mask discards an overflowed branch, its
/// cotangent is 0, and 0 times infinity would be NaN.
fn finite(y: Array) -> Array {
    let largest = if y.place().dtype == FloatDType::F64 { f64::MAX } else { f64::from(f32::MAX) };
    y.clamp(None, Some(largest))
}

/// The absolute value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abs;

/// x^p for a constant p.
#[derive(Debug, Clone, PartialEq)]
pub struct Power {
    /// The exponent p.
    pub exponent: f64,
}

/// x cut to bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Clamp {
    /// The lower bound.
    pub min: Option<f64>,
    /// The upper bound.
    pub max: Option<f64>,
}

/// a x + b cut to [0, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct HardSigmoid {
    /// The slope a.
    pub alpha: f64,
    /// The value b at 0.
    pub beta: f64,
}

impl Rule for Abs {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).abs()
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(0)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let x = saved.input(0);
        let kink = x.at_least(0.0).and(x.at_most(0.0));
        where_true(cotangent, kink.not()).mul(over_cotangents(x.sign()))
    }
}

impl Rule for Power {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).power(self.exponent)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(0)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        if self.exponent == 0.0 {
            let shape = cotangent.shape();
            return cotangent.zeros_like(&shape);
        }
        let slope = saved.input(0).power(self.exponent - 1.0).mul_scalar(self.exponent);
        cotangent.mul(over_cotangents(slope))
    }
}

impl Clamp {
    /// True between the bounds, and not on them.
    fn inside(&self, x: &Array) -> Array {
        match (self.min, self.max) {
            (Some(min), Some(max)) => x.above(min).and(x.below(max)),
            (Some(min), None) => x.above(min),
            (None, max) => x.below(max.unwrap_or(f64::INFINITY)),
        }
    }
}

impl Rule for Clamp {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let (min, max) = (self.min.unwrap_or(f64::NEG_INFINITY), self.max.unwrap_or(f64::INFINITY));
        if min <= max { Ok(inputs[0].clone()) } else { Err(format!("no number lies in [{min}, {max}]")) }
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).clamp(self.min, self.max)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Mask]
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let mask = self.inside(&inputs[0]);
        (self.forward(inputs, shape, place), Some(mask))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        where_true(cotangent, saved.derived())
    }
}

impl Rule for HardSigmoid {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        // Burn's default for this operation computes in f32, whatever the float type.
        only(inputs).mul_scalar(self.alpha).add_scalar(self.beta).clamp(Some(0.0), Some(1.0))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Mask]
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let y = self.forward(inputs, shape, place);
        let mask = y.above(0.0).and(y.below(1.0));
        (y, Some(mask))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        where_true(cotangent, saved.derived()).mul_scalar(self.alpha)
    }
}

impl fmt::Display for Abs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("abs")
    }
}

impl fmt::Display for Power {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "power({})", self.exponent)
    }
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bound: Option<f64>| bound.map(|bound| bound.to_string()).unwrap_or_default();
        write!(f, "clamp({}..{})", bound(self.min), bound(self.max))
    }
}

impl fmt::Display for HardSigmoid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hard_sigmoid({} x + {})", self.alpha, self.beta)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use FloatOperationIr as F;
    use NumericOperationIr as N;
    let clamp = |min, max| Op::Clamp(Clamp { min, max });
    match ir {
        OperationIr::Float(_, float) => match float {
            F::Exp(io) => unary(Op::Exp(Exp), &io.input, &io.out),
            F::Log(io) => unary(Op::Log(Log), &io.input, &io.out),
            F::Log1p(io) => unary(Op::Log1p(Log1p), &io.input, &io.out),
            F::Sqrt(io) => unary(Op::Sqrt(Sqrt), &io.input, &io.out),
            F::Sin(io) => unary(Op::Sin(Sin), &io.input, &io.out),
            F::Cos(io) => unary(Op::Cos(Cos), &io.input, &io.out),
            F::Erf(io) => unary(Op::Erf(Erf), &io.input, &io.out),
            F::PowfScalar(io) => unary(Op::Power(Power { exponent: io.rhs.elem() }), &io.lhs, &io.out),
            _ => None,
        },
        OperationIr::NumericFloat(_, numeric) => match numeric {
            N::Abs(io) => unary(Op::Abs(Abs), &io.input, &io.out),
            N::PowiScalar(io) => unary(Op::Power(Power { exponent: io.rhs.elem() }), &io.lhs, &io.out),
            N::Clamp(io) => unary(clamp(Some(io.min.elem()), Some(io.max.elem())), &io.tensor, &io.out),
            N::ClampMin(io) => unary(clamp(Some(io.rhs.elem()), None), &io.lhs, &io.out),
            N::ClampMax(io) => unary(clamp(None, Some(io.rhs.elem())), &io.lhs, &io.out),
            _ => None,
        },
        OperationIr::Activation(ActivationOperationIr::LogSigmoid(io)) => {
            unary(Op::LogSigmoid(LogSigmoid), &io.input, &io.out)
        }
        OperationIr::Activation(ActivationOperationIr::HardSigmoid(io)) => {
            let rule = HardSigmoid { alpha: io.alpha.elem(), beta: io.beta.elem() };
            unary(Op::HardSigmoid(rule), &io.tensor, &io.out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples inside the domains and on both sides of the kinks; kinks and edges of domains are
    //! tested one by one.

    use super::super::activation::tests::{at, wide};
    use super::super::derivatives::{OpSample, check, positive};
    use super::*;

    const SHAPES: [&[usize]; 5] = [&[1, 1], &[2, 3], &[5, 2, 3], &[1, 2, 3, 1], &[3, 4, 9, 11]];

    fn clamps() -> Vec<Op> {
        let bounds = [(Some(-1.0), Some(2.0)), (Some(0.5), None), (None, Some(0.25)), (Some(0.0), Some(6.0))];
        bounds.map(|(min, max)| Op::Clamp(Clamp { min, max })).to_vec()
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let power = |exponent| Op::Power(Power { exponent });
        let mut anywhere = vec![
            Op::Exp(Exp),
            Op::Sin(Sin),
            Op::Cos(Cos),
            Op::Erf(Erf),
            Op::Abs(Abs),
            Op::LogSigmoid(LogSigmoid),
            Op::HardSigmoid(HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }),
            Op::HardSigmoid(HardSigmoid { alpha: -0.4, beta: 0.3 }),
        ];
        anywhere.extend([0.0, 1.0, 2.0, 3.0].map(power));
        anywhere.extend(clamps());
        let mut inside = vec![Op::Log(Log), Op::Log1p(Log1p), Op::Sqrt(Sqrt)];
        inside.extend([0.5, -1.0, -2.0, 2.5, -0.3, 4.0].map(power));
        let mut all = Vec::new();
        for shape in SHAPES {
            all.extend(anywhere.iter().map(|op| OpSample::new(op.clone(), vec![wide(shape)])));
            all.extend(inside.iter().map(|op| OpSample::new(op.clone(), vec![positive(shape, 8)])));
        }
        all
    }

    #[test]
    fn elementwise_derivatives_match_differences() {
        check(&samples());
    }

    const TYPES: [FloatDType; 2] = [FloatDType::F32, FloatDType::F64];

    #[test]
    fn abs_clamp_and_hard_sigmoid_have_the_kinks_of_pytorch() {
        for dtype in TYPES {
            assert_eq!(at(&Op::Abs(Abs), &[-2.0, -0.0, 0.0, 2.0], dtype).1, [-1.0, 0.0, 0.0, 1.0]);
            let clamp = Op::Clamp(Clamp { min: Some(-1.0), max: Some(2.0) });
            let (y, slope) = at(&clamp, &[-3.0, -1.0, 0.5, 2.0, 2.5], dtype);
            assert_eq!(y, [-1.0, -1.0, 0.5, 2.0, 2.0]);
            assert_eq!(slope, [0.0, 0.0, 1.0, 0.0, 0.0], "0 on the bounds");
            let hard = Op::HardSigmoid(HardSigmoid { alpha: 0.25, beta: 0.5 });
            let (y, slope) = at(&hard, &[-3.0, -2.0, 0.0, 2.0, 3.0], dtype);
            assert_eq!(y, [0.0, 0.0, 0.5, 1.0, 1.0]);
            assert_eq!(slope, [0.0, 0.0, 0.25, 0.0, 0.0], "0 at the kinks");
        }
    }

    #[test]
    fn roots_logarithms_and_powers_at_the_edges_of_their_domains() {
        for dtype in TYPES {
            let (y, slope) = at(&Op::Sqrt(Sqrt), &[0.0, 4.0], dtype);
            assert_eq!((y, slope), (vec![0.0, 2.0], vec![f64::INFINITY, 0.25]));
            let (y, slope) = at(&Op::Log(Log), &[0.0, 1.0], dtype);
            assert_eq!((y, slope), (vec![f64::NEG_INFINITY, 0.0], vec![f64::INFINITY, 1.0]));
            for (exponent, y, slope) in [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (2.0, 0.0, 0.0), (3.0, 0.0, 0.0)] {
                assert_eq!(at(&Op::Power(Power { exponent }), &[0.0], dtype), (vec![y], vec![slope]));
            }
            let (y, slope) = at(&Op::Power(Power { exponent: 3.0 }), &[-2.0], dtype);
            assert_eq!((y, slope), (vec![-8.0], vec![12.0]), "whole powers of negative numbers");
            assert!(at(&Op::Power(Power { exponent: 0.5 }), &[-2.0], dtype).0[0].is_nan());
            let (y, slope) = at(&Op::LogSigmoid(LogSigmoid), &[-1e4, 1e4], dtype);
            assert_eq!((y, slope), (vec![-1e4, 0.0], vec![1.0, 0.0]));
        }
    }

    #[test]
    fn nan_goes_through_elementwise_functions() {
        for op in samples().into_iter().map(|sample| sample.op) {
            let zeroth = matches!(&op, Op::Power(Power { exponent }) if *exponent == 0.0);
            for dtype in TYPES {
                assert!(zeroth || at(&op, &[f64::NAN], dtype).0[0].is_nan(), "{op} {dtype:?}");
            }
        }
    }
}
