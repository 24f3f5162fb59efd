//! Parity of devices: every sample of every operation, forward and pullback, on the device under test against flex in f64.

use burn::tensor::{DType, FloatDType};

use super::derivatives::{OpSample, place, results, samples};
use crate::array::Place;
use crate::device::has_double_functions;

#[expect(clippy::print_stdout, reason = "the differences found are what the tolerance files are made of")]
#[path = "../../../../tests/common/parity.rs"]
mod device;

use device::Differences;

/// Operands as single precision holds them, so that both runs start from the same numbers.
fn rounded(mut sample: OpSample) -> OpSample {
    let values = sample.operands.iter_mut().flat_map(|operand| &mut operand.values);
    values.for_each(|value| *value = f64::from(*value as f32));
    sample
}

#[test]
fn every_operation_agrees_with_the_reference() {
    let under_test = device::device();
    let mut differences = Differences::default();
    let mut types = device::float_types(&under_test);
    let double_functions = types.any(|(_, dtype, _)| dtype == DType::F64)
        && has_double_functions(under_test.as_dispatch()).expect("the device is read");
    // What is empty is NaN everywhere, and has no distance.
    let compared = |sample: &OpSample| sample.op.name() != "Empty";
    for sample in samples().into_iter().filter(compared).map(rounded) {
        let expected = results(&sample, &place(FloatDType::F64));
        let types = device::float_types(&under_test);
        let refused = |dtype| dtype == DType::F64 && sample.op.is_transcendental() && !double_functions;
        for (precision, dtype, roundoff) in types.filter(|(_, dtype, _)| !refused(*dtype)) {
            let place = Place { device: under_test.as_dispatch().clone(), dtype: dtype.into() };
            for ((what, expected), (_, found)) in expected.iter().zip(results(&sample, &place)) {
                let name = format!("op.{}.{what}.{precision}", sample.op.name());
                differences.note_all(name, &sample.label(), expected, &found, roundoff);
            }
        }
    }
    differences.check();
}
