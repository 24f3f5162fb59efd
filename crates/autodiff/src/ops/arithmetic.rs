//! Elementwise arithmetic with broadcasts and scalars.
//!
//! | operation | y | pullback to the first | pullback to the second |
//! |---|---|---|---|
//! | add | a + b | g | g |
//! | sub | a - b | g | -g |
//! | mul | a b | g b | g a |
//! | div | a / b | g / b | -g a / b^2 |
//! | pow | a^b | g b a^(b - 1); 0 where b = 0 | g y ln a; 0 where a = 0 |
//! | add scalar | a + s | g | |
//! | mul scalar | s a | s g | |
//! | div scalar | a / s | g / s | |
//! | recip | 1 / a | -g / a^2 | |
//!
//! The zeros in the pullbacks of pow replace 0 times infinity, which is NaN. For an operand that
//! broadcasts, the cotangents are summed over the axes along which it was repeated (`sum_to`).
//! Subtraction of a scalar is the addition of its negative, and negation is the product with -1.

use std::fmt;

use burn::backend::ir::{BinaryOpIr, FloatOperationIr, NumericOperationIr, OperationIr};

use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, only, over_cotangents, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// The shape to which two shapes of equal rank broadcast.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let pairs = || a.iter().zip(b);
    if a.len() != b.len() || pairs().any(|(&a, &b)| a != b && a != 1 && b != 1) {
        return Err(format!("shapes {a:?} and {b:?} do not broadcast"));
    }
    Ok(pairs().map(|(&a, &b)| if a == 1 { b } else { a }).collect())
}

/// Cotangents `[V, ...broadcast shape]`, summed to the operand's own shape: `[V, ...shape]`.
pub(crate) fn sum_to(cotangent: Array, shape: &[usize]) -> Array {
    let full = cotangent.shape();
    let new = full.len() - 1 - shape.len();
    let summed = (1..full.len()).fold(cotangent, |sum, axis| {
        let own = if axis > new { shape[axis - 1 - new] } else { 1 };
        if own == full[axis] { sum } else { sum.sum_axis(axis) }
    });
    summed.reshape(&with_leading(full[0], shape))
}

/// The operands that the pullback of a product reads: each operand whose partner is active.
pub(super) fn other_of_active(active: &[bool]) -> Vec<Keep> {
    (0..2).filter(|&position| active[1 - position]).map(Keep::Input).collect()
}

/// Operations of two operands that broadcast, by name, method of `Array`, kept tensors and pullback
/// before the sum over broadcast axes.
macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $forward:ident, $keeps:expr, $vjp:expr;)+) => {$(
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
                broadcast(&inputs[0], &inputs[1])
            }

            fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
                let [a, b] = both(inputs);
                a.$forward(b)
            }

            fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
                passage.unless(false)
            }

            fn keeps(&self, active: &[bool]) -> Vec<Keep> {
                let keeps: fn(&[bool]) -> Vec<Keep> = $keeps;
                keeps(active)
            }

            fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
                let vjp: fn(Array, usize, &Saved<'_>) -> Array = $vjp;
                sum_to(vjp(cotangent, position, saved), &saved.shapes[position])
            }
        }
    )+};
}

binary! {
    /// a + b.
    Add, "add", add, |_| vec![], |g, _, _| g;
    /// a - b.
    Sub, "sub", sub, |_| vec![], |g, position, _| if position == 0 { g } else { g.neg() };
    /// a b.
    Mul, "mul", mul, other_of_active, |g, position, saved| g.mul(over_cotangents(saved.input(1 - position)));
    /// a / b.
    Div, "div", div,
        |active| if active[1] { vec![Keep::Input(0), Keep::Input(1)] } else { vec![Keep::Input(1)] },
        |g, position, saved| {
            let quotient = g.div(over_cotangents(saved.input(1)));
            if position == 0 { return quotient; }
            let ratio = saved.input(0).div(saved.input(1)).neg();
            quotient.mul(over_cotangents(ratio))
        };
    /// a^b.
    Pow, "pow", power_of, |_| vec![Keep::Input(0), Keep::Input(1)],
        |g, position, saved| {
            let (a, b) = (saved.input(0), saved.input(1));
            let slope = if position == 0 {
                let zero = b.equal_to(0.0);
                b.clone().mul(a.power_of(b.add_scalar(-1.0))).fill(zero, 0.0)
            } else {
                let zero = a.equal_to(0.0);
                a.clone().power_of(b).mul(a.log()).fill(zero, 0.0)
            };
            g.mul(over_cotangents(slope))
        };
}

/// Operations with a scalar, by name, method of `Array` and pullback.
macro_rules! scalar {
    ($($(#[$doc:meta])* $name:ident, $label:literal, $forward:ident, $vjp:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            /// The scalar.
            pub value: f64,
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($label, "({})"), self.value)
            }
        }

        impl Rule for $name {
            fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
                Ok(inputs[0].clone())
            }

            fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
                only(inputs).$forward(self.value)
            }

            fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
                passage.unless(false)
            }

            fn keeps(&self, _: &[bool]) -> Vec<Keep> {
                vec![]
            }

            fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
                let vjp: fn(Array, f64) -> Array = $vjp;
                vjp(cotangent, self.value)
            }
        }
    )+};
}

scalar! {
    /// a + s.
    AddScalar, "add_scalar", add_scalar, |g, _| g;
    /// s a.
    MulScalar, "mul_scalar", mul_scalar, |g, value| g.mul_scalar(value);
    /// a / s.
    DivScalar, "div_scalar", div_scalar, |g, value| g.div_scalar(value);
}

/// 1 / a.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recip;

impl fmt::Display for Recip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("recip")
    }
}

impl Rule for Recip {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).recip()
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Output]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let y = saved.output();
        cotangent.mul(over_cotangents(y.clone().mul(y).neg()))
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use NumericOperationIr as N;
    match ir {
        OperationIr::NumericFloat(_, numeric) => match numeric {
            N::Add(io) => binary(Op::Add(Add), io),
            N::Sub(io) => binary(Op::Sub(Sub), io),
            N::Mul(io) => binary(Op::Mul(Mul), io),
            N::Div(io) => binary(Op::Div(Div), io),
            N::AddScalar(io) => unary(Op::AddScalar(AddScalar { value: io.rhs.elem() }), &io.lhs, &io.out),
            N::SubScalar(io) => {
                unary(Op::AddScalar(AddScalar { value: -io.rhs.elem::<f64>() }), &io.lhs, &io.out)
            }
            N::MulScalar(io) => unary(Op::MulScalar(MulScalar { value: io.rhs.elem() }), &io.lhs, &io.out),
            N::DivScalar(io) => unary(Op::DivScalar(DivScalar { value: io.rhs.elem() }), &io.lhs, &io.out),
            N::Neg(io) => unary(Op::MulScalar(MulScalar { value: -1.0 }), &io.input, &io.out),
            _ => None,
        },
        OperationIr::Float(_, FloatOperationIr::Powf(io)) => binary(Op::Pow(Pow), io),
        OperationIr::Float(_, FloatOperationIr::Recip(io)) => unary(Op::Recip(Recip), &io.input, &io.out),
        _ => None,
    }
}

fn binary(op: Op, io: &BinaryOpIr) -> Recognition<'_> {
    Some(Ok(Lowered { op, inputs: vec![&io.lhs, &io.rhs], output: &io.out }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples that broadcast along each axis, either operand or both.

    use super::super::derivatives::{OpSample, check, positive, spread};
    use super::*;

    /// Pairs of shapes that broadcast.
    const PAIRS: [[&[usize]; 2]; 12] = [
        [&[2, 3], &[2, 3]],
        [&[1, 1], &[1, 1]],
        [&[5, 2, 3], &[1, 2, 3]],
        [&[1, 2, 3], &[5, 2, 3]],
        [&[2, 3, 2], &[2, 1, 2]],
        [&[2, 3, 2], &[2, 3, 1]],
        [&[2, 3, 2, 2], &[1, 3, 1, 1]],
        [&[1, 3, 1, 1], &[2, 3, 2, 2]],
        [&[2, 1, 3], &[1, 4, 1]],
        [&[3], &[1]],
        [&[1, 1], &[4, 3]],
        [&[2, 5, 7, 9], &[1, 5, 1, 1]],
    ];

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for [a, b] in PAIRS {
            let point = |op, first, linear: &[usize]| {
                OpSample::new(op, vec![first, positive(b, 1_000)]).linear(linear)
            };
            all.extend([
                point(Op::Add(Add), spread(a, 8), &[0, 1]),
                point(Op::Sub(Sub), spread(a, 8), &[0, 1]),
                point(Op::Mul(Mul), spread(a, 8), &[0, 1]),
                // Away from 0 too: the test with one value as both operands divides by it.
                point(Op::Div(Div), positive(a, 8), &[0]),
                point(Op::Pow(Pow), positive(a, 8), &[]),
            ]);
        }
        for shape in [&[3][..], &[2, 3], &[5, 1, 2], &[3, 8, 9, 10]] {
            for value in [0.0, -1.0, 1.0 / 3.0, 1e3] {
                let point = |op| OpSample::new(op, vec![spread(shape, 8)]).linear(&[0]);
                all.extend([
                    point(Op::AddScalar(AddScalar { value })),
                    point(Op::MulScalar(MulScalar { value })),
                    point(Op::DivScalar(DivScalar { value: value + 2.0 })),
                ]);
            }
            all.push(OpSample::new(Op::Recip(Recip), vec![positive(shape, 8)]));
        }
        all
    }

    #[test]
    fn arithmetic_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn broadcast_needs_equal_ranks_and_ones() {
        assert_eq!(broadcast(&[2, 1], &[1, 3]), Ok(vec![2, 3]));
        assert_eq!(broadcast(&[0, 1], &[1, 3]), Ok(vec![0, 3]));
        assert!(broadcast(&[2, 2], &[2, 3]).is_err());
        assert!(broadcast(&[3], &[2, 3]).is_err());
    }
}
