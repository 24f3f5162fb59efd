//! Models that once made our own kernels panic while being loaded.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::conv::{Conv1d, Conv2d};
use burn::tensor::activation::{relu, softmax};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};

use super::{Bare, ConvNet, WaveNet, conv2d, linear};
use crate::harness::agrees;

#[test]
fn burns_own_mnist_example() {
    let forward = |net: &ConvNet, x: Tensor<3>| {
        let [n, h, w] = x.dims();
        net.head.forward(relu(net.conv.forward(x.reshape([n, 1, h, w]))).flatten(1, 3))
    };
    agrees(ConvNet::new([1, 2], 128), forward, &[8, 8]);
}

#[test]
fn another_operation_beside_a_reshape_that_is_refused() {
    let forward = |net: &ConvNet, x: Tensor<3>| {
        let n = x.dims()[0];
        net.head.forward(net.conv.forward(x.reshape([n, 1, 4, 4]).sin()).flatten(1, 3).cos())
    };
    agrees(ConvNet::new([1, 2], 32), forward, &[4, 4]);
}

#[test]
fn a_channel_put_before_an_image() {
    let forward = |net: &ConvNet, x: Tensor<3>| {
        net.head.forward(net.conv.forward(x.unsqueeze_dim::<4>(1)).flatten(1, 3))
    };
    agrees(ConvNet::new([1, 2], 24), forward, &[3, 4]);
}

#[test]
fn a_channel_put_before_a_table() {
    let forward = |net: &WaveNet, x: Tensor<2>| {
        net.head.forward(net.conv.forward(x.unsqueeze_dim::<3>(1)).flatten(1, 2))
    };
    agrees(WaveNet::new([1, 2, 3], 14), forward, &[7]);
}

/// A linear layer whose result is reshaped to an image, as in generators and autoencoders.
#[derive(Module, Debug)]
struct Folded {
    wide: Linear,
    conv: Conv2d,
    head: Linear,
}

#[test]
fn a_layer_folded_to_an_image() {
    let forward = |net: &Folded, x: Tensor<2>| {
        let n = x.dims()[0];
        let image = relu(net.wide.forward(x)).reshape([n, 2, 3, 3]);
        net.head.forward(relu(net.conv.forward(image)).flatten(1, 3))
    };
    let net = Folded { wide: linear(5, 18), conv: conv2d([2, 2], [3, 3], [1, 1]), head: linear(18, 3) };
    agrees(net, forward, &[5]);
}

/// Tokens weighted by scores computed from the tokens themselves.
#[derive(Module, Debug)]
struct WeightedTokens {
    score: Linear,
    head: Linear,
}

#[test]
fn attention_pooling() {
    let forward = |net: &WeightedTokens, x: Tensor<3>| {
        let weights = softmax(net.score.forward(x.clone()), 1);
        let pooled: Tensor<2> = (x * weights).sum_dim(1).squeeze_dim(1);
        net.head.forward(pooled)
    };
    agrees(WeightedTokens { score: linear(4, 1), head: linear(4, 3) }, forward, &[5, 4]);
}

#[test]
fn one_score_a_token() {
    let forward = |net: &WeightedTokens, x: Tensor<3>| net.score.forward(x).squeeze_dim::<2>(2);
    agrees(WeightedTokens { score: linear(4, 1), head: linear(4, 3) }, forward, &[5, 4]);
    let forward = |net: &WeightedTokens, x: Tensor<3>| net.score.forward(relu(x)).flatten::<2>(1, 2);
    agrees(WeightedTokens { score: linear(4, 1), head: linear(4, 3) }, forward, &[5, 4]);
}

#[test]
fn a_relu_behind_a_flatten() {
    let forward = |net: &ConvNet, x: Tensor<4>| net.head.forward(relu(net.conv.forward(x).flatten(1, 3)));
    agrees(ConvNet::new([2, 2], 18), forward, &[2, 3, 3]);
}

/// The flattened result of a convolution plus a linear layer of the same input.
#[derive(Module, Debug)]
struct Beside {
    conv: Conv2d,
    wide: Linear,
    head: Linear,
}

#[test]
fn a_flattened_map_added_to_a_layer() {
    let forward = |net: &Beside, x: Tensor<4>| {
        let sum = net.conv.forward(x.clone()).flatten(1, 3) + net.wide.forward(x.flatten(1, 3));
        net.head.forward(sum)
    };
    let net = Beside { conv: conv2d([2, 2], [3, 3], [1, 1]), wide: linear(18, 18), head: linear(18, 3) };
    agrees(net, forward, &[2, 3, 3]);
    // The same sum as the logits.
    let forward = |net: &Beside, x: Tensor<4>| {
        net.conv.forward(x.clone()).flatten(1, 3) + net.wide.forward(x.flatten(1, 3))
    };
    let net = Beside { conv: conv2d([2, 1], [3, 3], [1, 1]), wide: linear(8, 4), head: linear(1, 1) };
    agrees(net, forward, &[2, 2, 2]);
}

#[test]
fn a_flattened_map_as_the_output() {
    let forward = |net: &ConvNet, x: Tensor<4>| net.conv.forward(x).flatten(1, 3);
    agrees(ConvNet::new([2, 1], 1), forward, &[2, 2, 3]);
    let pooled = |_: &Bare, x: Tensor<4>| max_pool2d(x, MaxPoolOptions::new([2, 2])).flatten(1, 3);
    agrees(Bare::new(), pooled, &[2, 4, 4]);
}

#[test]
fn the_flattened_input_as_the_output() {
    agrees(Bare::new(), |_: &Bare, x: Tensor<4>| x.flatten(1, 3), &[2, 2, 3]);
    agrees(Bare::new(), |_: &Bare, x: Tensor<3>| x.flatten(1, 2), &[2, 2]);
    agrees(Bare::new(), |_: &Bare, x: Tensor<2>| x, &[4]);
}

/// A convolution that leaves one position, and a shift along the last axis to which that position
/// is broadcast.
#[derive(Module, Debug)]
struct Shifted {
    conv: Conv2d,
    shift: Param<Tensor<4>>,
    head: Linear,
}

#[test]
fn one_position_and_a_constant_along_the_last_axis() {
    let forward = |net: &Shifted, x: Tensor<4>| {
        let spread = net.conv.forward(x) + net.shift.val();
        net.head.forward(relu(spread).flatten(1, 3))
    };
    let net = |shape: [usize; 4]| Shifted {
        conv: conv2d([2, 3], [2, 2], [0, 0]),
        shift: Param::from_tensor(Tensor::zeros(shape, &Device::flex())),
        head: linear(9, 2),
    };
    agrees(net([1, 1, 1, 3]), forward, &[2, 2, 2]);
    let made = |net: &Shifted, x: Tensor<4>| {
        let constant = Tensor::<4>::from_data([[[[0.3, -0.2, 0.7]]]], (&x.device(), x.dtype()));
        net.head.forward((net.conv.forward(x) * constant).flatten(1, 3))
    };
    agrees(net([1, 1, 1, 3]), made, &[2, 2, 2]);
}

/// A convolution along tokens, `[n, T, C]`, whose axes are swapped for Burn's `[n, C, T]`.
#[derive(Module, Debug)]
struct Tokens {
    conv: Conv1d,
    head: Linear,
}

#[test]
fn tokens_turned_for_a_convolution_and_back() {
    let forward = |net: &Tokens, x: Tensor<3>| {
        let turned = net.conv.forward(x.swap_dims(1, 2)).swap_dims(1, 2);
        net.head.forward(turned).mean_dim(1).squeeze_dim::<2>(1)
    };
    agrees(Tokens { conv: super::conv1d(4, 3, 3), head: linear(3, 3) }, forward, &[5, 4]);
}
