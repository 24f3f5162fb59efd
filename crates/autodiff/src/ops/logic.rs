//! Masks from two tensors, masks from masks, and masks as floats.
//!
//! - [`ComparePair`]: a mask that is true where a is in a given relation to b. Burn records the
//!   elementwise maximum or minimum of two tensors as such a mask and a selection by it.
//! - [`Logic`]: the conjunction, disjunction or exclusive disjunction of two masks; [`Not`]: the
//!   negation of a mask.
//! - [`Indicator`]: 1 where a mask is true, else 0.
//!
//! None has a cotangent: the derivative is zero wherever it exists.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{BaseOperationIr, BinaryOpIr, BoolOperationIr, NumericOperationIr, OperationIr};
use burn::backend::ops::BoolTensorOps;

use super::arithmetic::broadcast;
use super::constant::LocallyConstant;
use super::mask::Relation;
use super::{Lowered, Op, Recognition, both, only, unary};
use crate::array::{Array, Placement};

/// Whether a is in a relation to b, with broadcasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparePair {
    /// The relation of a to b.
    pub relation: Relation,
}

/// How two masks are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connective {
    /// Both masks are true.
    And,
    /// At least one mask is true.
    Or,
    /// Exactly one mask is true.
    Xor,
}

/// Two masks as one, with broadcasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logic {
    /// How the masks are combined.
    pub connective: Connective,
}

/// True where the mask is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Not;

/// 1 where the mask is true, else 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indicator;

impl LocallyConstant for ComparePair {
    fn shape_of(&self, inputs: &[Vec<usize>]) -> Result<Vec<usize>, String> {
        broadcast(&inputs[0], &inputs[1])
    }

    fn value(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [a, b] = both(inputs).map(|x| if x.shape() == shape { x } else { x.expand(shape) });
        match self.relation {
            Relation::Above => b.lower(a),
            Relation::AtLeast => b.lower_equal(a),
            Relation::Below => a.lower(b),
            Relation::AtMost => a.lower_equal(b),
            Relation::Equal => a.equals(b),
            Relation::Unequal => a.equals(b).not(),
        }
    }
}

impl LocallyConstant for Logic {
    fn shape_of(&self, inputs: &[Vec<usize>]) -> Result<Vec<usize>, String> {
        broadcast(&inputs[0], &inputs[1])
    }

    fn value(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [a, b] = both(inputs).map(|mask| mask.expand_mask(shape));
        match self.connective {
            Connective::And => a.and(b),
            Connective::Or => Array(Dispatch::bool_or(a.0, b.0)),
            Connective::Xor => Array(Dispatch::bool_xor(a.0, b.0)),
        }
    }
}

impl LocallyConstant for Not {
    fn value(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).not()
    }
}

impl LocallyConstant for Indicator {
    fn value(&self, inputs: Vec<Array>, _: &[usize], place: &Placement) -> Array {
        only(inputs).mask_as_numbers(place)
    }
}

impl fmt::Display for ComparePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compare(a {} b)", self.relation)
    }
}

impl fmt::Display for Logic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.connective {
            Connective::And => "and",
            Connective::Or => "or",
            Connective::Xor => "xor",
        })
    }
}

impl fmt::Display for Not {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not")
    }
}

impl fmt::Display for Indicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("indicator")
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use BoolOperationIr as B;
    use NumericOperationIr as N;
    let pair = |relation, io| binary(Op::ComparePair(ComparePair { relation }), io);
    let logic = |connective, io| binary(Op::Logic(Logic { connective }), io);
    match ir {
        OperationIr::NumericFloat(_, N::Greater(io)) => pair(Relation::Above, io),
        OperationIr::NumericFloat(_, N::GreaterEqual(io)) => pair(Relation::AtLeast, io),
        OperationIr::NumericFloat(_, N::Lower(io)) => pair(Relation::Below, io),
        OperationIr::NumericFloat(_, N::LowerEqual(io)) => pair(Relation::AtMost, io),
        OperationIr::BaseFloat(BaseOperationIr::Equal(io)) => pair(Relation::Equal, io),
        OperationIr::BaseFloat(BaseOperationIr::NotEqual(io)) => pair(Relation::Unequal, io),
        OperationIr::Bool(B::And(io)) => logic(Connective::And, io),
        OperationIr::Bool(B::Or(io)) => logic(Connective::Or, io),
        OperationIr::Bool(B::Xor(io)) | OperationIr::BaseBool(BaseOperationIr::NotEqual(io)) => {
            logic(Connective::Xor, io)
        }
        OperationIr::Bool(B::Not(io)) => unary(Op::Not(Not), &io.input, &io.out),
        OperationIr::Bool(B::IntoFloat(io)) => unary(Op::Indicator(Indicator), &io.input, &io.out),
        _ => None,
    }
}

fn binary(op: Op, io: &BinaryOpIr) -> Recognition<'_> {
    Some(Ok(Lowered { op, inputs: vec![&io.lhs, &io.rhs], output: &io.out }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples with broadcasts; every relation and connective by hand.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, OperandValues, array, place, spread, values};
    use super::super::mask::tests::{RELATIONS, mask};
    use super::*;
    use crate::graph::Kind;

    const CONNECTIVES: [Connective; 3] = [Connective::And, Connective::Or, Connective::Xor];

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for [a, b] in [[&[2, 3][..], &[2, 3]], [&[5, 2, 3], &[1, 2, 1]], [&[1, 4], &[3, 1]]] {
            for relation in RELATIONS {
                let op = Op::ComparePair(ComparePair { relation });
                all.push(OpSample::new(op, vec![spread(a, 8), spread(b, 500)]).active(&[]));
            }
            for connective in CONNECTIVES {
                let sample = OpSample::new(Op::Logic(Logic { connective }), vec![mask(a), mask(b)]);
                all.push(sample.active(&[]).kind(0, Kind::Mask).kind(1, Kind::Mask));
            }
            for op in [Op::Not(Not), Op::Indicator(Indicator)] {
                all.push(OpSample::new(op, vec![mask(a)]).active(&[]).kind(0, Kind::Mask));
            }
        }
        all
    }

    #[test]
    fn compare_pair_gives_every_relation_of_two_numbers() {
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let place = place(dtype);
            let of = |values: &[f64]| array(&[4], values, &place);
            let (a, b) = ([1.0, 2.0, -0.0, f64::NAN], [2.0, 1.0, 0.0, 1.0]);
            let expected =
                [[0, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 1]];
            for (relation, expected) in RELATIONS.into_iter().zip(expected) {
                let mask = ComparePair { relation }.value(vec![of(&a), of(&b)], &[4], &place);
                assert_eq!(values(mask.mask_as_numbers(&place)), expected.map(f64::from), "{relation}");
            }
        }
    }

    #[test]
    fn logic_combines_two_masks() {
        let place = place(FloatDType::F64);
        let mask = |values: [f64; 4]| {
            let sample = OperandValues { shape: vec![4], values: values.to_vec() };
            Array::mask(burn::tensor::TensorData::new(sample.values, sample.shape), &place)
        };
        let (a, b) = ([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 1.0]);
        for (connective, expected) in CONNECTIVES.into_iter().zip([[0, 0, 0, 1], [0, 1, 1, 1], [0, 1, 1, 0]])
        {
            let both = Logic { connective }.value(vec![mask(a), mask(b)], &[4], &place);
            assert_eq!(values(both.mask_as_numbers(&place)), expected.map(f64::from));
        }
        let other = Not.value(vec![mask(b)], &[4], &place);
        assert_eq!(values(Indicator.value(vec![other], &[4], &place)), [1.0, 0.0, 1.0, 0.0]);
    }
}
