//! Parity of devices: the measure from tensors, the embedded network and narrow versions of both
//! networks, on the device under test against flex in f64. (For single operations see
//! crates/autodiff/src/ops/parity.rs.)
//!
//!     BURN_DEVICE=ndarray cargo test --workspace --features ndarray agree

#![expect(clippy::print_stdout, reason = "the differences found are what tests/parity/ is made of")]

#[path = "common/parity.rs"]
mod parity;

use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence::{Filter, Precision, SampleObjective, Tangent};
use influence_autodiff::{Graph, Jacobian, Options, Program, Rows};
use influence_data::{Dataset, sample};
use influence_manifold::batch::{self, BatchTangent};
use influence_zoo::weights;
use influence_zoo::{Architecture, Network};
use parity::Differences;

/// Images of a network under test.
const IMAGES: usize = 2;

/// A network and images for it.
struct ParityCase {
    name: &'static str,
    network: Network,
    shape: [usize; 3],
    images: Vec<f64>,
}

/// The embedded network on its own images.
fn embedded() -> ParityCase {
    let device = Device::flex();
    let network = Architecture::ResNet50 { width: 8 }.init(1, 28, 10, &device).unwrap();
    let weights = weights::load(network, sample::RESNET50W8_MNIST, Precision::F32.dtype(), &device);
    let images = Dataset::embedded().batch::<f64>(&Vec::from_iter(0..IMAGES));
    ParityCase { name: "resnet50w8-mnist", network: weights.unwrap().0, shape: [1, 28, 28], images }
}

/// A narrow version of a network with random initial weights, on synthetic images.
fn narrow(name: &'static str, architecture: Architecture) -> ParityCase {
    let device = Device::flex();
    device.seed(11);
    let network = architecture.init(3, 32, 10, &device).unwrap();
    let images = (0..IMAGES * 3 * 32 * 32).map(|i| f64::from(((i * 2_654_435_761) % 256) as u8) / 255.0);
    ParityCase { name, network, shape: [3, 32, 32], images: images.collect() }
}

impl ParityCase {
    fn jacobians(&self, device: &Device, precision: Precision) -> Vec<Jacobian> {
        let graph = Graph::capture(&self.network, Network::forward, &self.shape, &Device::flex()).unwrap();
        let options = Options { precision, batch: IMAGES, ..Options::default() };
        let program = Program::new(graph, device, &options).unwrap();
        let shape = [&[IMAGES], &self.shape[..]].concat();
        let images = TensorData::new(self.images.clone(), shape);
        program.jacobians(images).unwrap().collect::<Result<_, _>>().unwrap()
    }
}

fn rows(jacobian: &Jacobian) -> Vec<f64> {
    match &jacobian.rows {
        Rows::F64(rows) => rows.clone(),
        Rows::F32(rows) => rows.iter().map(|&x| f64::from(x)).collect(),
    }
}

/// Value and rank under a filter, for the predicted class.
fn measure(jacobian: &Jacobian, filter: &str) -> (f64, usize) {
    let (classes, filter) = (jacobian.logits.len(), filter.parse::<Filter>().unwrap());
    let columns = rows(jacobian).len() / (classes - 1);
    let tangent = match &jacobian.rows {
        Rows::F64(rows) => Tangent::from_rows(rows, classes, columns),
        Rows::F32(rows) => Tangent::from_rows(rows, classes, columns),
    };
    let predicted = SampleObjective::Predicted;
    let found =
        influence_manifold::influence(&jacobian.logits, &tangent.unwrap(), &predicted, &filter).unwrap();
    (found.value, found.rank)
}

#[test]
fn networks_agree_with_the_reference() {
    let under_test = parity::device();
    let mut differences = Differences::default();
    let cases = [
        embedded(),
        narrow("resnet50w4", Architecture::ResNet50 { width: 4 }),
        narrow("densenet121g4", Architecture::DenseNet121 { growth: 4 }),
    ];
    for case in &cases {
        let expected = case.jacobians(&Device::flex(), Precision::F64);
        for (precision, _, roundoff) in parity::float_types(&under_test) {
            let found = case.jacobians(&under_test, precision.parse().unwrap());
            for (expected, found) in expected.iter().zip(&found) {
                let at = format!("image {}", expected.sample);
                let name = |what: &str| format!("network.{}.{what}.{precision}", case.name);
                differences.note_all(name("logits"), &at, &expected.logits, &found.logits, roundoff);
                let scale = rows(expected).iter().fold(0.0_f64, |scale, x| scale.max(x.abs()));
                let [expected_rows, found_rows] = [expected, found]
                    .map(|jacobian| rows(jacobian).iter().map(|x| x / scale).collect::<Vec<_>>());
                differences.note_all(name("jacobian"), &at, &expected_rows, &found_rows, roundoff);
                for filter in ["exact", "tikhonov:100"] {
                    let ((expected, rank), (found, found_rank)) =
                        (measure(expected, filter), measure(found, filter));
                    differences.note(name(filter), &at, (found / expected - 1.0).abs(), roundoff);
                    assert_eq!(rank, found_rank, "{}", name(filter));
                }
            }
        }
    }
    differences.check();
}

/// Some devices have f64 arithmetic but no f64 functions such as exp. A network with such a
/// function is computed correctly or refused.
#[test]
fn functions_in_double_precision_agree_or_are_refused() {
    let layer = LinearConfig::new(3, 2).init(&Device::flex());
    let forward = |layer: &Linear, x: Tensor<2>| tanh(layer.forward(x));
    let graph = Graph::capture(&layer, forward, &[3], &Device::flex()).unwrap();
    let run = |device: &Device| {
        let options = Options { precision: Precision::F64, ..Options::default() };
        let program = Program::new(graph.clone(), device, &options)?;
        let samples = TensorData::new(vec![0.5, -1.25, 2.0], [1, 3]);
        program.jacobians(samples)?.collect::<Result<Vec<_>, _>>()
    };
    match (run(&parity::device()), run(&Device::flex()).unwrap()) {
        (Ok(found), expected) => {
            let pairs = rows(&found[0]).into_iter().zip(rows(&expected[0]));
            assert!(pairs.into_iter().all(|(found, expected)| (found - expected).abs() < 1e-13));
        }
        (Err(error), _) => {
            let why = error.to_string();
            assert!(why.contains("no functions such as exp") || why.contains("has no f64"), "{why}");
        }
    }
}

/// The measure from a device's tensors has the same bits as the measure from slices, since both are
/// computed on the host.
#[test]
fn the_measure_from_tensors_of_the_device_agrees_with_that_from_slices() {
    const SHAPE: [usize; 3] = [4, 5, 9];
    let [samples, classes, columns] = SHAPE;
    let device = parity::device();
    // Multiples of 1/64, which every float type represents exactly.
    let draw = |count: usize, by: usize| -> Vec<f64> {
        (0..count).map(|i| f64::from(((i * by) % 257) as u16) / 64.0 - 2.0).collect()
    };
    let (logits, rows) = (draw(samples * classes, 101), draw(samples * classes * columns, 97));
    let objectives = [1, 0, 4, 2].map(SampleObjective::class);
    for filter in ["exact", "paper", "tikhonov:3"] {
        let filter = filter.parse().unwrap();
        for (_, dtype, _) in parity::float_types(&device) {
            let z =
                Tensor::<2>::from_data(TensorData::new(logits.clone(), [samples, classes]), (&device, dtype));
            let jacobian = Tensor::<3>::from_data(TensorData::new(rows.clone(), SHAPE), (&device, dtype));
            let found = batch::influences(z, BatchTangent::Jacobian(jacobian), &objectives, &filter).unwrap();
            for (i, found) in found.iter().enumerate() {
                let rows = &rows[i * classes * columns..][..classes * columns];
                let single: Vec<f32> = rows.iter().map(|&x| x as f32).collect();
                let tangent = match dtype {
                    DType::F64 => Tangent::from_rows(rows, classes, columns),
                    _ => Tangent::from_rows(&single, classes, columns),
                };
                let logits = &logits[i * classes..][..classes];
                let expected =
                    influence_manifold::influence(logits, &tangent.unwrap(), &objectives[i], &filter);
                assert_eq!(*found, expected.unwrap(), "{dtype:?}");
            }
        }
    }
}
