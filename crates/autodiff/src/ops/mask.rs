//! Masks, and selections by masks.
//!
//! - [`Compare`]: a mask that is true where x is in a given relation to a number. Its derivative is
//!   zero wherever it exists, so values that depend on the input only through a mask have no
//!   cotangent.
//! - [`MaskFill`]: y = s where the mask is true, else x; the pullback is g where the mask is false,
//!   else 0.
//! - [`MaskWhere`]: y = b where the mask is true, else a; the pullback to a is g where the mask is
//!   false, else 0, and the pullback to b is g where it is true, else 0.
//!
//! Burn records softplus, ELU, CELU, SELU, the shrinkage functions, thresholds and attention masks
//! as these operations.

use std::fmt;

use burn::backend::ir::{BaseOperationIr, NumericOperationIr, OperationIr, ScalarOpIr};

use super::arithmetic::{broadcast, sum_to};
use super::constant::LocallyConstant;
use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, only, unary, where_true};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// A relation between two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// x > s.
    Above,
    /// x >= s.
    AtLeast,
    /// x < s.
    Below,
    /// x <= s.
    AtMost,
    /// x = s.
    Equal,
    /// x differs from s.
    Unequal,
}

/// Whether x is in a relation to a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare {
    /// The relation of x to the bound.
    pub relation: Relation,
    /// The number s.
    pub bound: f64,
}

/// `value` where the mask (the second operand) is true, else x.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskFill {
    /// The number s.
    pub value: f64,
}

/// The third operand where the mask (the second) is true, else the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskWhere;

impl LocallyConstant for Compare {
    fn value(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let x = only(inputs);
        match self.relation {
            Relation::Above => x.above(self.bound),
            Relation::AtLeast => x.at_least(self.bound),
            Relation::Below => x.below(self.bound),
            Relation::AtMost => x.at_most(self.bound),
            Relation::Equal => x.equal_to(self.bound),
            Relation::Unequal => x.equal_to(self.bound).not(),
        }
    }
}

impl Rule for MaskFill {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        broadcast(&inputs[0], &inputs[1])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [x, mask] = both(inputs);
        // The mask may have the larger shape.
        let x = if x.shape() == shape { x } else { x.expand(shape) };
        x.fill(mask, self.value)
    }

    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        sum_to(where_true(cotangent, saved.input(1).not()), &saved.shapes[0])
    }
}

impl Rule for MaskWhere {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        broadcast(&broadcast(&inputs[0], &inputs[1])?, &inputs[2])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [x, mask, other] = <[Array; 3]>::try_from(inputs)
            .unwrap_or_else(|_| unreachable!("the shape rule has seen three operands"));
        let full = |x: Array| if x.shape() == shape { x } else { x.expand(shape) };
        full(x).choose(mask.expand_mask(shape), full(other))
    }

    fn differentiable(&self, position: usize) -> bool {
        position != 1
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let mask = saved.input(1);
        // Each operand gets the cotangents of the elements that were taken from it.
        let own = if position == 0 { mask.not() } else { mask };
        sum_to(where_true(cotangent, own), &saved.shapes[position])
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::Unequal => "!=",
        })
    }
}

impl fmt::Display for Compare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compare({} {})", self.relation, self.bound)
    }
}

impl fmt::Display for MaskFill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mask_fill({})", self.value)
    }
}

impl fmt::Display for MaskWhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mask_where")
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use NumericOperationIr as N;
    match ir {
        OperationIr::NumericFloat(_, numeric) => match numeric {
            N::GreaterElem(io) => compare(Relation::Above, io),
            N::GreaterEqualElem(io) => compare(Relation::AtLeast, io),
            N::LowerElem(io) => compare(Relation::Below, io),
            N::LowerEqualElem(io) => compare(Relation::AtMost, io),
            _ => None,
        },
        OperationIr::BaseFloat(BaseOperationIr::EqualElem(io)) => compare(Relation::Equal, io),
        OperationIr::BaseFloat(BaseOperationIr::NotEqualElem(io)) => compare(Relation::Unequal, io),
        OperationIr::BaseFloat(BaseOperationIr::MaskFill(io)) => {
            let op = Op::MaskFill(MaskFill { value: io.value.elem() });
            Some(Ok(Lowered { op, inputs: vec![&io.tensor, &io.mask], output: &io.out }))
        }
        OperationIr::BaseFloat(BaseOperationIr::MaskWhere(io)) => {
            let inputs = vec![&io.tensor, &io.mask, &io.value];
            Some(Ok(Lowered { op: Op::MaskWhere(MaskWhere), inputs, output: &io.out }))
        }
        _ => None,
    }
}

fn compare(relation: Relation, io: &ScalarOpIr) -> Recognition<'_> {
    unary(Op::Compare(Compare { relation, bound: io.rhs.elem() }), &io.lhs, &io.out)
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples with masks that broadcast; comparisons exactly at the bound.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, OperandValues, array, check, place, spread, values};
    use super::*;
    use crate::graph::Kind;

    pub(in super::super) const RELATIONS: [Relation; 6] = [
        Relation::Above,
        Relation::AtLeast,
        Relation::Below,
        Relation::AtMost,
        Relation::Equal,
        Relation::Unequal,
    ];

    pub(in super::super) fn mask(shape: &[usize]) -> OperandValues {
        let count = shape.iter().product();
        OperandValues {
            shape: shape.to_vec(),
            values: (0..count).map(|i: usize| (i * 7 % 5 % 2) as f64).collect(),
        }
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all: Vec<_> = RELATIONS
            .map(|relation| Op::Compare(Compare { relation, bound: 0.1 }))
            .map(|op| OpSample::new(op, vec![spread(&[2, 3], 8)]).active(&[]))
            .to_vec();
        let shapes: [[&[usize]; 3]; 6] = [
            [&[2, 3], &[2, 3], &[2, 3]],
            [&[5, 2, 3], &[1, 2, 3], &[5, 2, 3]],
            [&[2, 3, 4], &[2, 1, 4], &[1, 3, 1]],
            [&[1, 3], &[4, 3], &[4, 1]],
            [&[7], &[7], &[1]],
            [&[3, 4, 9, 11], &[1, 1, 9, 11], &[3, 4, 9, 11]],
        ];
        for [x, m, other] in shapes {
            for value in [0.0, -1e4] {
                let op = Op::MaskFill(MaskFill { value });
                let sample = OpSample::new(op, vec![spread(x, 8), mask(m)]);
                all.push(sample.active(&[0]).linear(&[0]).kind(1, Kind::Mask));
            }
            let operands = vec![spread(x, 8), mask(m), spread(other, 500)];
            let sample = OpSample::new(Op::MaskWhere(MaskWhere), operands);
            all.push(sample.active(&[0, 2]).linear(&[0, 2]).kind(1, Kind::Mask));
        }
        all
    }

    #[test]
    fn mask_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn compare_at_the_bound_and_with_nan() {
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let place = place(dtype);
            let points = [-1.0, 0.0, -0.0, 1.0, f64::NAN, f64::INFINITY];
            let expected = [
                [0, 0, 0, 1, 0, 1],
                [0, 1, 1, 1, 0, 1],
                [1, 0, 0, 0, 0, 0],
                [1, 1, 1, 0, 0, 0],
                [0, 1, 1, 0, 0, 0],
                [1, 0, 0, 1, 1, 1],
            ];
            for (relation, expected) in RELATIONS.into_iter().zip(expected) {
                let rule = Compare { relation, bound: 0.0 };
                let mask = rule.forward(vec![array(&[6], &points, &place)], &[6], &place);
                let found = values(mask.mask_as_numbers(&place));
                assert_eq!(found, expected.map(f64::from), "{rule} {dtype:?}");
            }
        }
    }
}
