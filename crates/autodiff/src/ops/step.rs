//! Functions of one variable that are constant between their steps: sign and roundings. Their
//! derivative is 0 wherever it exists, so values that depend on the input only through them have no
//! cotangent.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{FloatOperationIr, NumericOperationIr, OperationIr};
use burn::backend::ops::FloatTensorOps;

use super::constant::LocallyConstant;
use super::{Op, Recognition, only, unary};
use crate::array::{Array, Placement};

/// A function that is constant between its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepFunction {
    /// -1, 0 or 1.
    Sign,
    /// The nearest whole number; halves go to the even one.
    Round,
    /// The largest whole number that is not above x.
    Floor,
    /// The smallest whole number that is not below x.
    Ceil,
    /// The nearest whole number towards 0.
    Trunc,
}

impl LocallyConstant for StepFunction {
    fn value(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let x = only(inputs);
        match self {
            Self::Sign => x.sign(),
            Self::Round => x.round(),
            Self::Floor => x.floor(),
            Self::Ceil => Array(Dispatch::float_ceil(x.0)),
            Self::Trunc => Array(Dispatch::float_trunc(x.0)),
        }
    }
}

impl fmt::Display for StepFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sign => "sign",
            Self::Round => "round",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Trunc => "trunc",
        })
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use FloatOperationIr as F;
    let (step, io) = match ir {
        OperationIr::NumericFloat(_, NumericOperationIr::Sign(io)) => (StepFunction::Sign, io),
        OperationIr::Float(_, F::Round(io)) => (StepFunction::Round, io),
        OperationIr::Float(_, F::Floor(io)) => (StepFunction::Floor, io),
        OperationIr::Float(_, F::Ceil(io)) => (StepFunction::Ceil, io),
        OperationIr::Float(_, F::Trunc(io)) => (StepFunction::Trunc, io),
        _ => return None,
    };
    unary(Op::Step(step), &io.input, &io.out)
}

#[cfg(test)]
pub(super) mod tests {
    //! Each function at points where they differ.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, place, spread, values};
    use super::*;

    const STEPS: [StepFunction; 5] = [
        StepFunction::Sign,
        StepFunction::Round,
        StepFunction::Floor,
        StepFunction::Ceil,
        StepFunction::Trunc,
    ];

    pub(in super::super) fn samples() -> Vec<OpSample> {
        STEPS.map(|step| OpSample::new(Op::Step(step), vec![spread(&[2, 3], 8)]).active(&[])).to_vec()
    }

    #[test]
    fn step_functions_have_the_values_worked_out_by_hand() {
        let expected = [
            [-1.0, -1.0, 0.0, 1.0, 1.0, 1.0],
            [-2.0, -1.0, 0.0, 0.0, 2.0, 2.0],
            [-2.0, -1.0, 0.0, 0.0, 1.0, 2.0],
            [-1.0, 0.0, 0.0, 1.0, 2.0, 3.0],
            [-1.0, 0.0, 0.0, 0.0, 1.0, 2.0],
        ];
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let place = place(dtype);
            for (step, expected) in STEPS.iter().zip(expected) {
                let x = array(&[6], &[-1.5, -0.75, 0.0, 0.5, 1.5, 2.25], &place);
                assert_eq!(values(step.value(vec![x], &[6], &place)), expected, "{step} {dtype:?}");
            }
        }
    }
}
