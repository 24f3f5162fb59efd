//! ReLUs of ReLUs: what the second switches off is off already, and in the reverse pass their
//! cotangents wait for each other.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::{Bare, ConvNet};
use crate::harness::agrees;

#[test]
fn a_relu_of_a_relu_beside_a_sum() {
    let forward = |_: &Bare, x: Tensor<3>| {
        let first = relu(relu(x));
        (first.clone().sum_dim(1) + relu(first)).flatten(1, 2)
    };
    agrees(Bare::new(), forward, &[1, 5]);
}

#[test]
fn a_relu_of_a_relu_beside_a_convolution() {
    let forward = |net: &ConvNet, x: Tensor<4>| {
        let first = relu(x);
        let both = vec![net.conv.forward(first.clone()).flatten(1, 3), relu(first).flatten(1, 3)];
        net.head.forward(Tensor::cat(both, 1))
    };
    agrees(ConvNet::new([1, 2], 108), forward, &[1, 6, 6]);
}
