//! Parity of devices: every sample of every operation, forward and pullback, on the device under
//! test, against flex in f64.
//!
//! The device is Burn's default device; `BURN_DEVICE` selects among those that are built in. As for
//! whole networks (tests/parity.rs of the workspace), tests/parity/ has one file per backend with
//! the worst differences measured, and four times these are allowed. A published package does not
//! contain these files: there the operations run, and the comparison is skipped, and says so.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use burn::tensor::{DType, Device, FloatDType};

use super::derivatives::{OpSample, place, results, samples};
use crate::array::Placement;
use crate::device::has_double_functions;

/// The allowed difference as a multiple of the worst one measured; another CPU or driver sums in
/// another order.
const MARGIN: f64 = 4.0;

/// The backends with a file in tests/parity/.
const BACKENDS: [&str; 3] = ["flex", "ndarray", "wgpu"];

/// The worst difference under one name.
struct WorstDifference {
    difference: f64,
    /// Unit roundoff of the float type: the allowed difference is at least [`MARGIN`] times this.
    roundoff: f64,
    /// The sample at which it occurred.
    sample: String,
}

/// The float types of a device, with their unit roundoff.
fn float_types(device: &Device) -> Vec<(&'static str, DType, f64)> {
    let all = [("f32", DType::F32, 2.0_f64.powi(-24)), ("f64", DType::F64, 2.0_f64.powi(-53))];
    all.into_iter().filter(|(_, dtype, _)| device.supports_dtype(*dtype)).collect()
}

/// The largest difference, relative to the larger of 1 and the largest element of `expected`; NaN
/// counts as the largest of all.
fn difference(expected: &[f64], found: &[f64]) -> f64 {
    let scale = expected.iter().fold(1.0_f64, |scale, x| scale.max(x.abs()));
    let differences = expected.iter().zip(found).map(|(e, f)| (e - f).abs() / scale);
    differences.fold(0.0, |worst: f64, x| if x <= worst { worst } else { x })
}

/// Operands as single precision holds them, so that both runs start from the same values.
fn rounded(mut sample: OpSample) -> OpSample {
    let values = sample.operands.iter_mut().flat_map(|operand| &mut operand.values);
    values.for_each(|value| *value = f64::from(*value as f32));
    sample
}

/// The worst differences of all samples between a device and flex in f64, by name.
fn worst_differences(device: &Device) -> BTreeMap<String, WorstDifference> {
    let types = float_types(device);
    let double_functions = types.iter().any(|(_, dtype, _)| *dtype == DType::F64)
        && has_double_functions(device.as_dispatch()).expect("the device is read");
    // `Empty` is NaN everywhere, which has no distance.
    let compared = |sample: &OpSample| sample.op.name() != "Empty";
    let mut worst: BTreeMap<String, WorstDifference> = BTreeMap::new();
    for sample in samples().into_iter().filter(compared).map(rounded) {
        let expected = results(&sample, &place(FloatDType::F64));
        let refused = |dtype| dtype == DType::F64 && sample.op.is_transcendental() && !double_functions;
        for &(precision, dtype, roundoff) in types.iter().filter(|(_, dtype, _)| !refused(*dtype)) {
            let place = Placement { device: device.as_dispatch().clone(), dtype: dtype.into() };
            for ((what, expected), (_, found)) in expected.iter().zip(results(&sample, &place)) {
                let name = format!("op.{}.{what}.{precision}", sample.op.name());
                assert_eq!(expected.len(), found.len(), "{name}, {}", sample.label());
                let difference = difference(expected, &found);
                let none = || WorstDifference { difference: 0.0, roundoff, sample: String::new() };
                let known = worst.entry(name).or_insert_with(none);
                if difference.is_nan() || difference > known.difference {
                    (known.difference, known.sample) = (difference, sample.label());
                }
            }
        }
    }
    worst
}

/// The worst differences that were measured on a backend, by name, and the backend's name.
fn measured(device: &Device) -> Option<(&'static str, BTreeMap<String, f64>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/parity");
    if !folder.exists() {
        return None;
    }
    let debug = format!("{:?}", device.as_dispatch()).to_lowercase();
    let backend = BACKENDS.into_iter().find(|name| debug.contains(name));
    let backend = backend.unwrap_or_else(|| panic!("no file in tests/parity for {debug}"));
    let text = fs::read_to_string(folder.join(format!("{backend}.txt"))).expect("the file of the backend");
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let number =
        |name: &str, number: &str| number.parse().unwrap_or_else(|_| panic!("{backend}: {name} {number}"));
    Some((backend, lines.map(|(name, text)| (name.to_owned(), number(name, text))).collect()))
}

#[test]
#[expect(clippy::print_stdout, reason = "the differences found are what tests/parity/ is made of")]
fn every_operation_agrees_with_the_reference() {
    let device = Device::default();
    let worst = worst_differences(&device);
    let Some((backend, measured)) = measured(&device) else {
        println!("skipped: tests/parity is not in this package");
        return;
    };
    let mut wrong = vec![];
    for (name, WorstDifference { difference, roundoff, sample }) in &worst {
        // In the format of the files.
        println!("{name} {difference:.1e}");
        match measured.get(name.as_str()) {
            Some(known) if *difference <= MARGIN * known.max(*roundoff) => {}
            known => wrong.push(format!("{name}: {difference:.2e}, measured before {known:?}, at {sample}")),
        }
    }
    assert!(
        wrong.is_empty(),
        "{backend}: beyond {MARGIN} x tests/parity/{backend}.txt:\n{}",
        wrong.join("\n")
    );
}
