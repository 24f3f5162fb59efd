//! The operations that common code is recorded and recognised as; and layers with every option,
//! whose logits are the model's own.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::pool::{AdaptiveAvgPool2dConfig, AvgPool2dConfig, MaxPool2dConfig};
use burn::nn::{LeakyReluConfig, PaddingConfig2d};
use burn::tensor::{DType, Device, Tensor, activation, s};
use influence_autodiff::{Graph, Precision};

use crate::models::{Weights, batch, capture, jacobians, program};

/// Logits of a layer against Burn's own, both in f64: the order of summation may differ.
const LAYER: f64 = 1e-13;

type Case = (fn(Tensor<3>) -> Tensor<3>, &'static [&'static str]);

/// Functions of `[n, 2, 6]` to `[n, c, w]`, with the operations that they become.
const CASES: &[Case] = &[
    (|x| x - 2.0, &["add_scalar(-2)"]),
    (|x| -x, &["mul_scalar(-1)"]),
    (|x| x / 4.0, &["div_scalar(4)"]),
    (|x| 1.0 / x, &["recip"]),
    (|x| x.clone() * x, &["mul"]),
    (|x| x.slice(s![.., 1.., ..]), &["slice(:, 1:2, :)"]),
    (|x| x.slice(s![.., .., -4..-1]), &["slice(:, :, 2:5)"]),
    (|x| x.slice(s![.., .., 0..6;2]), &["slice(:, :, 0:6:2)"]),
    (|x| x.slice(s![.., 0..2, ..]), &["slice(:, :, :)"]),
    (|x| x.narrow(2, 3, 2), &["slice(:, :, 3:5)"]),
    (|x| Tensor::cat(x.chunk(2, 2), 1), &["slice(:, :, 0:3)", "slice(:, :, 3:6)", "cat(axis 1)"]),
    (|x| x.swap_dims(1, 2), &["permute([0, 2, 1])"]),
    (|x| x.permute([0, 2, 1]), &["permute([0, 2, 1])"]),
    (|x| x.flip([2]), &["flip([2])"]),
    (|x| x.flatten::<2>(1, 2).unsqueeze_dim(1), &["reshape", "reshape"]),
    (|x| x.mean_dim(2), &["mean(axes [2])"]),
    (|x| x.sum_dim(1), &["sum(axes [1])"]),
    (|x| activation::softmax(x, 2), &["softmax(axis 2)"]),
    (|x| activation::log_softmax(x, 1), &["log_softmax(axis 1)"]),
    (|x| activation::leaky_relu(x, 0.2), &["leaky_relu(slope 0.2)"]),
    (|x| LeakyReluConfig::new().init().forward(x), &["leaky_relu(slope 0.01)"]),
    (|x| burn::nn::Relu::new().forward(x), &["relu"]),
    (|x| burn::nn::Sigmoid::new().forward(x), &["sigmoid"]),
    (|x| burn::nn::Tanh::new().forward(x), &["tanh"]),
    (|x| burn::nn::Gelu::new().forward(x), &["gelu"]),
    (|x| x.cast(DType::F64), &["cast"]),
];

#[test]
fn common_code_becomes_the_expected_operations() {
    for (number, (function, expected)) in CASES.iter().enumerate() {
        let graph = capture(&[2, 6], |x: Tensor<3>| {
            let y = function(x);
            let [n, c, w] = y.dims();
            // Two copies, so that there are at least two classes.
            Tensor::cat(vec![y.clone().reshape([n, c * w]), y.reshape([n, c * w])], 1)
        });
        let graph = graph.unwrap_or_else(|error| panic!("case {number}, {expected:?}: {error}"));
        let found: Vec<_> = graph.nodes().iter().map(|node| node.op.to_string()).collect();
        assert!(found.len() >= expected.len(), "case {number}: {found:?}");
        assert_eq!(found[..expected.len()], **expected, "case {number}: {found:?}");
    }
}

/// The module's own logits in f64 against the captured graph's, and the text of the first
/// operation.
fn assert_same<M: Module>(module: M, forward: fn(&M, Tensor<4>) -> Tensor<4>, first: &str) {
    let (device, sample) = (Device::flex(), [4, 7, 6]);
    let module = module.map(&mut Weights::new(&device, DType::F64));
    let flat = |module: &M, x: Tensor<4>| {
        let y = forward(module, x);
        let [n, c, h, w] = y.dims();
        y.reshape([n, c * h * w])
    };
    let x = batch(2, &sample);
    let expected = flat(&module, Tensor::from_data(x.clone(), (&device, DType::F64))).into_data();
    let graph = Graph::capture(&module, flat, &sample, &device).unwrap_or_else(|e| panic!("{first}: {e}"));
    assert_eq!(graph.nodes()[0].op.to_string(), first);
    let program = program(graph, Precision::F64).unwrap_or_else(|error| panic!("{first}: {error}"));
    let found = jacobians(&program, &x).into_iter().flat_map(|jacobian| jacobian.logits);
    for (expected, found) in expected.iter::<f64>().zip(found) {
        assert!((expected - found).abs() < LAYER, "{first}: {expected} {found}");
    }
}

#[test]
fn convolutions_keep_every_option() {
    let device = Device::flex();
    let conv = |kernel| Conv2dConfig::new([4, 6], kernel);
    let forward = burn::nn::conv::Conv2d::forward;
    let padded = conv([3, 2]).with_padding(PaddingConfig2d::Explicit(1, 2, 0, 3)).with_stride([2, 1]);
    assert_same(padded.init(&device), forward, "conv2d(stride 2x1, padding 1,0x2,3, dilation 1x1, groups 1)");
    let dilated = conv([3, 2]).with_dilation([2, 3]).with_groups(2).with_bias(false);
    assert_same(
        dilated.init(&device),
        forward,
        "conv2d(stride 1x1, padding 0,0x0,0, dilation 2x3, groups 2)",
    );
    let same = conv([3, 3]).with_padding(PaddingConfig2d::Same);
    assert_same(same.init(&device), forward, "conv2d(stride 1x1, padding 1,1x1,1, dilation 1x1, groups 1)");
}

#[test]
fn pools_keep_every_option() {
    let max =
        MaxPool2dConfig::new([3, 2]).with_strides([2, 1]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    let first = "max_pool2d(3x2, stride 2x1, padding 1x1, dilation 1x1)";
    assert_same(max.clone().init(), burn::nn::pool::MaxPool2d::forward, first);
    let first = "max_pool2d(3x2, stride 2x1, padding 1x1, dilation 1x1, ceil)";
    assert_same(max.with_ceil_mode(true).init(), burn::nn::pool::MaxPool2d::forward, first);
    let mean =
        AvgPool2dConfig::new([2, 3]).with_strides([2, 2]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
    let first = "avg_pool2d(2x3, stride 2x2, padding 1x1)";
    assert_same(mean.clone().init(), burn::nn::pool::AvgPool2d::forward, first);
    let first = "avg_pool2d(2x3, stride 2x2, padding 1x1, padding not counted, ceil)";
    let uncounted = mean.with_count_include_pad(false).with_ceil_mode(true);
    assert_same(uncounted.init(), burn::nn::pool::AvgPool2d::forward, first);
    let adaptive = AdaptiveAvgPool2dConfig::new([3, 4]).init();
    assert_same(adaptive, burn::nn::pool::AdaptiveAvgPool2d::forward, "adaptive_avg_pool2d(3x4)");
}
