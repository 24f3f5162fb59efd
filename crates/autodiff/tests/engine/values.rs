//! Logits against the model's own forward pass, Jacobians against central differences.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{gelu, relu, sigmoid, tanh};
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Graph, Precision, Program};

use crate::models::{
    Net, SAMPLE, WIDE_SAMPLE, batch, error_of_rows, jacobians, load, net_program, noise, program, rows,
    samples, wide,
};

/// Step of central differences of whole networks in f64.
const STEP: f64 = 1e-6;

/// Tolerance of Jacobian rows at [`STEP`], relative to the largest entry (at least 1): the rounding
/// of the logits divided by the step, and the third derivative.
const NETWORK: f64 = 1e-7;

/// Tolerance of logits in f32 against the model's own forward pass in f32, for logits around 1: the
/// order of summation may differ.
const LOGITS_F32: f64 = 2e-6;

fn assert_rows<const D: usize>(sample: &[usize], forward: impl Fn(Tensor<D>) -> Tensor<2>) -> Program {
    let program = load(sample, forward).expect("it can be loaded");
    let error = error_of_rows(&program, sample, STEP);
    assert!(error < NETWORK, "{error:e}\n{}", program.plan().graph());
    program
}

#[test]
fn jacobian_agrees_with_central_differences() {
    let program = net_program(&Net::new(&Device::flex()), Precision::F64);
    let error = error_of_rows(&program, &SAMPLE, STEP);
    assert!(error < NETWORK, "{error:e}");
}

#[test]
fn rows_of_a_wide_network_are_its_derivatives_along_directions() {
    let program = program(wide(), Precision::F64).expect("it loads");
    let x = batch(1, &WIDE_SAMPLE);
    let jacobian = jacobians(&program, &x).remove(0);
    let (rows, point) = (rows(&jacobian), x.as_slice::<f64>().expect("f64"));
    for seed in [1, 2, 3] {
        let direction: Vec<f64> = (0..point.len()).map(|i| noise(seed * 10_000 + i)).collect();
        let logits = |by: f64| {
            let moved = point.iter().zip(&direction).map(|(x, d)| x + by * d).collect();
            jacobians(&program, &TensorData::new(moved, x.shape().clone())).remove(0).logits
        };
        let (plus, minus) = (logits(STEP), logits(-STEP));
        let last = plus.len() - 1;
        for (k, row) in rows.chunks(point.len()).enumerate() {
            let expected = ((plus[k] - plus[last]) - (minus[k] - minus[last])) / (2.0 * STEP);
            let products = || row.iter().zip(&direction).map(|(r, d)| r * d);
            let scale = products().map(f64::abs).sum::<f64>().max(1.0);
            let error = (products().sum::<f64>() - expected).abs() / scale;
            assert!(error < NETWORK, "class {k}, direction {seed}: {error:e}");
        }
    }
}

#[test]
fn logits_are_those_of_the_model() {
    let device = Device::flex();
    let net = Net::new(&device);
    let program = net_program(&net, Precision::F32);
    let x = samples(3).convert_dtype(DType::F32);
    let expected = net.forward(Tensor::from_data(x.clone(), &device)).into_data();
    let found = jacobians(&program, &x).into_iter().flat_map(|j| j.logits);
    for (expected, found) in expected.iter::<f64>().zip(found) {
        assert!((expected - found).abs() < LOGITS_F32, "{expected} {found}");
    }
}

#[test]
fn single_precision_follows_double_precision() {
    let net = Net::new(&Device::flex());
    let [single, double] = [Precision::F32, Precision::F64].map(|precision| net_program(&net, precision));
    // Inputs that both types hold exactly.
    let x = samples(2).convert_dtype(DType::F32);
    for (a, b) in jacobians(&single, &x).iter().zip(&jacobians(&double, &x)) {
        let influence_autodiff::Rows::F32(found) = &a.rows else { panic!("a run in f32") };
        for (found, expected) in found.iter().zip(rows(b)) {
            assert!((f64::from(*found) - expected).abs() < LOGITS_F32, "{found} {expected}");
        }
    }
}

#[test]
fn samples_come_back_in_their_order_with_their_numbers() {
    let program = net_program(&Net::new(&Device::flex()), Precision::F64);
    let numbers: Vec<_> =
        jacobians(&program, &samples(5)).iter().map(|j| (j.sample, j.logits.len())).collect();
    assert_eq!(numbers, [(0, 3), (1, 3), (2, 3), (3, 3), (4, 3)]);
}

#[test]
fn pools_activations_and_broadcasts_in_one_network() {
    assert_rows(&[2, 6, 5], |x: Tensor<4>| {
        let [n, ..] = x.dims();
        let mean = AvgPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
        let mean = mean.with_count_include_pad(false).with_ceil_mode(true);
        let a = max_pool2d(x.clone(), MaxPoolOptions::new([2, 2]).with_padding([1, 1]).with_ceil_mode(true));
        let b = gelu(avg_pool2d(x.clone(), mean));
        let c = tanh(adaptive_avg_pool2d(x.clone(), [4, 3]));
        let gate = sigmoid(x.mean_dim(2).mean_dim(3));
        (a.narrow(2, 0, 3) * gate + b.narrow(2, 0, 3) / (c.narrow(2, 0, 3) + 3.0)).sum_dim(2).reshape([n, 6])
    });
}

#[test]
fn an_output_that_does_not_hang_on_the_input_has_a_zero_jacobian() {
    let program = load(&[3], |x: Tensor<2>| {
        let [n, _] = x.dims();
        Tensor::<2>::from_data([[1.0, 2.0]], &x.device()).expand([n, 2])
    });
    let jacobian = jacobians(&program.expect("it loads"), &batch(1, &[3])).remove(0);
    assert_eq!((rows(&jacobian), jacobian.logits.as_slice()), (&[0.0; 3][..], &[1.0, 2.0][..]));
}

#[test]
fn part_of_the_input_may_be_unused() {
    let program = assert_rows(&[4], |x: Tensor<2>| tanh(x.narrow(1, 1, 2)));
    let jacobian = jacobians(&program, &batch(1, &[4])).remove(0);
    assert_eq!((rows(&jacobian)[0], rows(&jacobian)[3]), (0.0, 0.0));
}

#[test]
fn the_input_itself_may_be_the_output() {
    let program = load(&[3], |x: Tensor<2>| x).expect("it loads");
    let jacobian = jacobians(&program, &batch(1, &[3])).remove(0);
    assert_eq!(rows(&jacobian), [1.0, 0.0, -1.0, 0.0, 1.0, -1.0]);
}

/// A model with one weight for two layers.
#[derive(Module, Debug)]
struct Tied {
    first: Linear,
    second: Linear,
}

impl Tied {
    fn new(device: &Device) -> Self {
        let first = LinearConfig::new(3, 3).init(device);
        Self { second: first.clone(), first }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let first = self.first.forward(x);
        self.second.forward(relu(self.first.forward(first)))
    }
}

#[test]
fn a_layer_used_twice_and_tied_layers() {
    let device = Device::flex();
    let graph = Graph::capture(&Tied::new(&device), Tied::forward, &[3], &device).expect("it is captured");
    let parameters: Vec<_> = graph
        .constants()
        .filter_map(|(_, constant)| match constant.role {
            influence_autodiff::graph::Role::Parameter(id) => Some((constant.name.clone(), id)),
            _ => None,
        })
        .collect();
    let [first, second] = ["first.weight", "second.weight"]
        .map(|name| parameters.iter().find(|(found, _)| found == name).map(|(_, id)| *id));
    assert!(first.is_some() && first == second, "tied parameters share their identity: {parameters:?}");
    let program = program(graph, Precision::F64).expect("it loads");
    let error = error_of_rows(&program, &[3], STEP);
    assert!(error < NETWORK, "{error:e}");
}
