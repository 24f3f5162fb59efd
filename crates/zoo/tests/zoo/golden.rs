//! The trained networks against PyTorch's float64 logits.

use crate::common::{TRAINED, golden_batch, skip, values};
use burn::tensor::{DType, Device, FloatDType};
use influence_zoo::names::parameter_count;
use influence_zoo::weights;

/// Loads each trained network in `precision` and compares its logits with the reference (absolute
/// differences).
fn agree(precision: FloatDType, tolerance: f64) {
    let device = Device::flex();
    for trained in TRAINED {
        let (Some(path), Some(golden)) = (trained.weights(), trained.golden()) else {
            skip(trained.name);
            continue;
        };
        let network = trained.network(&device);
        let (network, report) = weights::load(network, &path, precision, &device).unwrap();
        assert_eq!(report.parameters, parameter_count(&network));
        assert_eq!(report.source.keys().map(|dtype| dtype.name()).collect::<Vec<_>>(), ["F16"]);
        assert!(report.extra.is_empty() && report.stripped == 0, "{report}");
        let (images, expected) = golden_batch(&golden, precision, &device);
        let started = std::time::Instant::now();
        let logits = network.forward(images);
        assert_eq!(logits.dtype(), DType::from(precision));
        let logits = values(logits);
        let worst = logits.iter().zip(&expected).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max);
        report_line(trained.name, precision, worst, expected.len() / 10, started.elapsed().as_secs_f64());
        assert_eq!(logits.len(), expected.len());
        assert!(worst <= tolerance, "{}: {worst:e} off", trained.name);
    }
}

#[expect(clippy::print_stdout, reason = "the measured figures, shown by --nocapture")]
fn report_line(name: &str, precision: FloatDType, worst: f64, images: usize, seconds: f64) {
    let each = 1e3 * seconds / images as f64;
    println!("{name} {precision:?}: {worst:.1e} off at most, {each:.1} ms per image");
}

#[test]
fn logits_in_f64() {
    agree(FloatDType::F64, 1e-9);
}

#[test]
fn logits_in_f32() {
    agree(FloatDType::F32, 1e-4);
}
