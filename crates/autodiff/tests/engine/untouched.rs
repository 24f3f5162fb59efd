//! Capture does not change the caller's model: its own forward pass gives the same bits afterwards,
//! whatever state the model is in.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use influence_autodiff::graph::Role;
use influence_autodiff::{Graph, Precision};

use crate::models::{Net, SAMPLE, Weights, jacobians, program, samples};

/// The model's own logits in full.
fn own(net: &Net, device: &Device, dtype: DType) -> TensorData {
    let x = samples(2).convert_dtype(dtype);
    net.forward(Tensor::from_data(x, (device, dtype))).into_data()
}

fn capture(net: &Net, device: &Device) -> Graph {
    Graph::capture(net, Net::forward, &SAMPLE, device).expect("it is captured")
}

/// Captures twice between two forward passes of the model, which must agree to the last bit.
fn assert_untouched(net: &Net, device: &Device, dtype: DType) -> Graph {
    let before = own(net, device, dtype);
    let first = capture(net, device);
    let second = capture(net, device);
    assert_eq!(first.to_string(), second.to_string());
    assert!(before == own(net, device, dtype), "the model's own results have changed");
    assert_eq!(first.dtype(), dtype);
    second
}

#[test]
fn a_model_with_batch_normalisation() {
    let device = Device::flex();
    assert_untouched(&Net::new(&device), &device, DType::F32);
}

#[test]
fn a_model_in_double_precision() {
    let device = Device::flex();
    let net = Net::new(&device).map(&mut Weights::new(&device, DType::F64));
    let graph = assert_untouched(&net, &device, DType::F64);
    // Its weights are captured exactly: logits agree to f64 rounding.
    let expected = own(&net, &device, DType::F64);
    let found = jacobians(&program(graph, Precision::F64).expect("it loads"), &samples(2));
    let found = found.into_iter().flat_map(|jacobian| jacobian.logits);
    for (expected, found) in expected.iter::<f64>().zip(found) {
        assert!((expected - found).abs() < 1e-14, "{expected} {found}");
    }
}

#[test]
fn a_model_in_half_precision_runs_in_full() {
    let device = Device::flex();
    let half = Net::new(&device).map(&mut Weights::new(&device, DType::F16));
    let graph = assert_untouched(&half, &device, DType::F16);
    // Every number of half precision is one of single precision, so the weights are captured
    // exactly.
    let weight = half.head.weight.val().into_data().convert_dtype(DType::F64);
    let captured = graph.constants().find(|(_, constant)| constant.name == "head.weight");
    assert!(captured.is_some_and(|(_, captured)| captured.data.clone().convert_dtype(DType::F64) == weight));
    assert_eq!(jacobians(&program(graph, Precision::F32).expect("it loads"), &samples(2)).len(), 2);
}

#[test]
fn a_lazily_initialised_model_gets_its_weights_once() {
    let device = Device::flex();
    let net = Net::lazy(&device);
    let graph = capture(&net, &device);
    let weight = net.stem.weight.val().into_data();
    let captured = graph.constants().find(|(_, constant)| constant.name == "stem.weight");
    let (_, captured) = captured.expect("a weight of the stem");
    assert!(weight == captured.data, "the captured weights are those that the model keeps");
    assert_untouched(&net, &device, DType::F32);
}

#[test]
fn a_model_on_an_autodiff_device_in_training() {
    let plain = Device::flex();
    let device = Device::flex().autodiff();
    let net = Net::new(&device);
    let mean = net.norm.running_mean.value_sync().into_data();
    let evaluation = net.valid();
    let before = own(&evaluation, &plain, DType::F32);
    // Captured as inference: batch statistics are neither used nor updated.
    for home in [&device, &plain] {
        let graph = capture(&net, home);
        assert!(graph.to_string().contains("batch_norm"), "{graph}");
        let found = jacobians(&program(graph, Precision::F32).expect("it loads"), &samples(2));
        let found = found.into_iter().flat_map(|jacobian| jacobian.logits);
        for (expected, found) in before.iter::<f64>().zip(found) {
            assert!((expected - found).abs() < 1e-5, "{expected} {found}");
        }
    }
    assert!(mean == net.norm.running_mean.value_sync().into_data(), "the running mean has changed");
    // It still trains: gradients flow, and the running mean moves.
    let x = Tensor::<4>::random([4, 2, 5, 5], Distribution::Default, &device);
    let gradients = net.forward(x).sum().backward();
    assert!(net.stem.weight.val().grad(&gradients).is_some());
    assert!(mean != net.norm.running_mean.value_sync().into_data());
}

#[test]
fn several_threads_capture_at_once() {
    let device = Device::flex();
    let net = Net::new(&device);
    let before = own(&net, &device, DType::F32);
    let expected = capture(&net, &device).to_string();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(capture(&net, &device).to_string(), expected)));
        }
    });
    assert!(before == own(&net, &device, DType::F32));
}

#[test]
fn names_are_those_of_pytorch_and_buffers_are_no_parameters() {
    let device = Device::flex();
    let graph = capture(&Net::new(&device), &device);
    let names = |wanted: fn(&Role) -> bool| {
        let mut names: Vec<_> = graph
            .constants()
            .filter(|(_, constant)| wanted(&constant.role))
            .map(|(_, constant)| constant.name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    let parameters = names(|role| matches!(role, Role::Parameter(_)));
    let expected = [
        "branch.bias",
        "branch.weight",
        "head.bias",
        "head.weight",
        "norm.bias",
        "norm.weight",
        "stem.bias",
        "stem.weight",
    ];
    assert_eq!(parameters, expected);
    assert_eq!(names(|role| *role == Role::Buffer), ["norm.running_mean", "norm.running_var"]);
    assert!(names(|role| *role == Role::Literal).is_empty());
}

/// A parameter that the model itself holds, and a list of layers.
#[derive(Module, Debug)]
struct Own {
    scale: Param<Tensor<1>>,
    layers: Vec<burn::nn::Linear>,
}

#[test]
fn own_parameters_and_lists_are_named_by_their_path() {
    let device = Device::flex();
    let layer = || burn::nn::LinearConfig::new(2, 2).init(&device);
    let own = Own { scale: Param::from_tensor(Tensor::ones([2], &device)), layers: vec![layer(), layer()] };
    let forward = |own: &Own, x: Tensor<2>| {
        own.layers.iter().fold(x, |x, layer| layer.forward(x)) * own.scale.val().unsqueeze::<2>()
    };
    let graph = Graph::capture(&own, forward, &[2], &device).expect("it is captured");
    let mut names: Vec<_> = graph.constants().map(|(_, constant)| constant.name.as_str()).collect();
    names.sort_unstable();
    let expected = ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight", "scale"];
    assert_eq!(names, expected);
}
