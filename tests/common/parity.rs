//! The device under test, and how far its results may be from the reference.
//!
//! The device is Burn's default one; `BURN_DEVICE` selects among those that are built in.
//! tests/parity/ has one file per backend with the worst differences measured on one machine; four
//! times these are allowed. The files are measurements: when kernels change they are measured
//! again, by hand and with a line in CHANGELOG, and never edited to make a test pass.

use std::collections::BTreeMap;

use burn::tensor::{DType, Device};

/// The allowed difference as a multiple of the worst one measured; another CPU or driver sums in
/// another order.
const MARGIN: f64 = 4.0;

/// The files with the worst differences measured, by backend.
const FILES: [(&str, &str); 3] = [
    ("flex", include_str!("../parity/flex.txt")),
    ("ndarray", include_str!("../parity/ndarray.txt")),
    ("wgpu", include_str!("../parity/wgpu.txt")),
];

/// The device under test.
pub(crate) fn device() -> Device {
    Device::default()
}

/// The float types of the device, with their unit roundoff.
pub(crate) fn float_types(device: &Device) -> impl Iterator<Item = (&'static str, DType, f64)> {
    let all = [("f32", DType::F32, 2.0_f64.powi(-24)), ("f64", DType::F64, 2.0_f64.powi(-53))];
    let device = device.clone();
    all.into_iter().filter(move |(_, dtype, _)| device.supports_dtype(*dtype))
}

/// The worst differences of one run, by name.
#[derive(Debug, Default)]
pub(crate) struct Differences(BTreeMap<String, WorstDifference>);

/// The worst difference under one name.
#[derive(Debug)]
struct WorstDifference {
    difference: f64,
    /// Unit roundoff of the float type; the allowed difference is at least [`MARGIN`] times this.
    roundoff: f64,
    /// The sample at which it occurred.
    at: String,
}

impl Differences {
    /// Records `difference` if it is the worst under its name.
    pub(crate) fn note(&mut self, name: String, at: &str, difference: f64, roundoff: f64) {
        let none = || WorstDifference { difference: 0.0, roundoff, at: String::new() };
        let worst = self.0.entry(name).or_insert_with(none);
        // NaN counts as the worst difference.
        if difference.is_nan() || difference > worst.difference {
            (worst.difference, worst.at) = (difference, at.to_owned());
        }
    }

    /// Records the largest difference of two lists, relative to the larger of 1 and the largest
    /// element of `expected`.
    pub(crate) fn note_all(
        &mut self,
        name: String,
        at: &str,
        expected: &[f64],
        found: &[f64],
        roundoff: f64,
    ) {
        assert_eq!(expected.len(), found.len(), "{name}, {at}");
        let scale = expected.iter().fold(1.0_f64, |scale, x| scale.max(x.abs()));
        let differences = expected.iter().zip(found).map(|(e, f)| (e - f).abs() / scale);
        let worst = differences.fold(0.0, |worst: f64, x| if x <= worst { worst } else { x });
        self.note(name, at, worst, roundoff);
    }

    /// Prints every line in the format of the file, and asserts that no difference exceeds what is
    /// allowed.
    pub(crate) fn check(&self) {
        let backend = format!("{:?}", device().as_dispatch()).to_lowercase();
        let file = FILES.iter().find(|(name, _)| backend.contains(name));
        let (backend, text) = file.unwrap_or_else(|| panic!("no file in tests/parity for {backend}"));
        let seen: BTreeMap<_, f64> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .map(|(name, number)| {
                (name, number.parse().unwrap_or_else(|_| panic!("{backend}: {name} {number}")))
            })
            .collect();
        let mut wrong = vec![];
        for (name, WorstDifference { difference, roundoff, at }) in &self.0 {
            println!("{name} {difference:.1e}");
            match seen.get(name.as_str()) {
                Some(seen) if *difference <= MARGIN * seen.max(*roundoff) => {}
                seen => wrong.push(format!("{name}: {difference:.2e}, seen before {seen:?}, at {at}")),
            }
        }
        assert!(
            wrong.is_empty(),
            "{backend}: beyond {MARGIN} x tests/parity/{backend}.txt:\n{}",
            wrong.join("\n")
        );
    }
}
