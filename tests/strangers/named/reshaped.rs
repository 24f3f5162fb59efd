//! A convolution or a pool that reads a reshaped image: its extent is that of the reshaped tensor,
//! not that of the tensor as stored.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::conv::{Conv1d, Conv2d};
use burn::tensor::activation::relu;
use burn::tensor::module::{self, max_pool1d, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor};

use super::{Bare, ConvNet, WaveNet, conv1d, conv2d, linear};
use crate::harness::agrees;

#[test]
fn an_image_given_as_a_sequence() {
    let forward = |net: &ConvNet, x: Tensor<3>| {
        let n = x.dims()[0];
        net.head.forward(relu(net.conv.forward(x.reshape([n, 1, 6, 6]))).flatten(1, 3))
    };
    agrees(ConvNet::new([1, 2], 72), forward, &[1, 36]);
}

fn wave(net: &WaveNet, x: Tensor<4>) -> Tensor<2> {
    net.head.forward(net.conv.forward(x.flatten::<3>(2, 3)).flatten(1, 2))
}

#[test]
fn a_flattened_image_before_a_pointwise_convolution_along_one_axis() {
    agrees(WaveNet::new([2, 2, 1], 18), wave, &[2, 3, 3]);
}

#[test]
fn a_flattened_image_before_a_convolution_along_one_axis() {
    agrees(WaveNet::new([2, 2, 3], 18), wave, &[2, 3, 3]);
}

/// The smallest case: a convolution with the single weight 1 must return the four elements of the
/// image in order.
#[derive(Module, Debug)]
struct SingleWeight {
    weight: Param<Tensor<3>>,
}

#[test]
fn the_four_numbers_of_an_image_by_a_weight_of_one() {
    let forward = |net: &SingleWeight, x: Tensor<4>| {
        let options = ConvOptions::new([1], [0], [1], 1);
        module::conv1d(x.flatten::<3>(2, 3), net.weight.val(), None, options).reshape([-1, 4])
    };
    let weight = Param::from_tensor(Tensor::ones([1, 1, 1], &Device::flex()));
    agrees(SingleWeight { weight }, forward, &[1, 2, 2]);
}

/// A convolution over images, followed by a convolution along one axis.
#[derive(Module, Debug)]
struct Both {
    first: Conv2d,
    second: Conv1d,
    head: Linear,
}

#[test]
fn a_flattened_map_before_a_convolution_along_one_axis() {
    let forward = |net: &Both, x: Tensor<4>| {
        let flat = relu(net.first.forward(x)).flatten::<3>(2, 3);
        net.head.forward(net.second.forward(flat).flatten(1, 2))
    };
    let net = Both { first: conv2d([1, 2], [3, 3], [1, 1]), second: conv1d(2, 2, 3), head: linear(24, 3) };
    agrees(net, forward, &[1, 3, 4]);
}

#[test]
fn means_of_rows_before_a_convolution_along_one_axis() {
    let forward = |net: &Both, x: Tensor<4>| {
        let rows: Tensor<3> = relu(net.first.forward(x)).mean_dim(3).squeeze_dim(3);
        net.head.forward(net.second.forward(rows).flatten(1, 2))
    };
    let net = Both { first: conv2d([1, 2], [3, 3], [1, 1]), second: conv1d(2, 2, 3), head: linear(6, 3) };
    agrees(net, forward, &[1, 3, 4]);
}

#[test]
fn a_sequence_folded_to_an_image_before_a_convolution() {
    let forward = |net: &ConvNet, x: Tensor<3>| {
        let n = x.dims()[0];
        net.head.forward(net.conv.forward(x.reshape([n, 2, 3, 4])).flatten(1, 3))
    };
    agrees(ConvNet::new([2, 2], 24), forward, &[4, 6]);
    let forward = |net: &ConvNet, x: Tensor<4>| {
        let n = x.dims()[0];
        net.head.forward(net.conv.forward(x.reshape([n, 2, 3, 4])).flatten(1, 3))
    };
    agrees(ConvNet::new([2, 2], 24), forward, &[2, 2, 6]);
}

#[test]
fn a_flattened_image_before_a_pool_along_one_axis() {
    let forward =
        |_: &Bare, x: Tensor<4>| max_pool1d(x.flatten::<3>(2, 3), MaxPoolOptions::new([2])).flatten(1, 2);
    agrees(Bare::new(), forward, &[2, 3, 4]);
}

#[test]
fn a_sequence_folded_to_an_image_before_a_pool() {
    let forward = |_: &Bare, x: Tensor<3>| {
        let n = x.dims()[0];
        max_pool2d(x.reshape([n, 1, 4, 4]), MaxPoolOptions::new([2, 2])).flatten(1, 3)
    };
    agrees(Bare::new(), forward, &[1, 16]);
}

/// The operand of a sum lies among other channels of what is stored: their derivatives are 0, not
/// what a buffer happens to hold.
#[test]
fn a_sum_with_the_first_of_several_channels() {
    let forward = |_: &Bare, x: Tensor<3>| {
        let first = x.flip([1]).narrow(1, 0, 1);
        let sum = ((first.clone() * 2.0 + 0.3) + first).flatten::<2>(1, 2);
        Tensor::cat(vec![sum.clone(), sum * 3.0], 1)
    };
    agrees(Bare::new(), forward, &[3, 1]);
    agrees(Bare::new(), forward, &[4, 2]);
}
