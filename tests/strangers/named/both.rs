//! Models that both engines once computed wrongly, or accepted although they must refuse them.

use burn::module::{Module, Param};
use burn::tensor::activation::{relu, sigmoid};
use burn::tensor::{Device, Tensor};

use super::{Bare, linear};
use crate::harness::{agrees, refused};

/// A product of tokens with a matrix, plus a shift with one element per token.
#[derive(Module, Debug)]
struct Along {
    weight: Param<Tensor<2>>,
    shift: Param<Tensor<1>>,
}

impl Along {
    fn new(shape: [usize; 2], shifts: usize) -> Self {
        let device = Device::flex();
        Self {
            weight: Param::from_tensor(Tensor::zeros(shape, &device)),
            shift: Param::from_tensor(Tensor::zeros([shifts], &device)),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let tokens = self.shift.val().dims()[0];
        let product = x.matmul(self.weight.val().unsqueeze::<3>());
        (product + self.shift.val().reshape([1, tokens, 1])).flatten(1, 2)
    }
}

#[test]
fn a_vector_along_the_tokens_behind_a_product() {
    agrees(Along::new([3, 4], 4), Along::forward, &[4, 3]);
}

#[test]
fn a_vector_along_the_tokens_of_another_number() {
    agrees(Along::new([3, 4], 5), Along::forward, &[5, 3]);
    agrees(Along::new([3, 1], 5), Along::forward, &[5, 3]);
}

#[test]
fn control_flow_on_the_number_of_samples() {
    type Forward = fn(&Bare, Tensor<2>) -> Tensor<2>;
    let of_one: Forward = |_, x| if x.dims()[0] == 1 { x * 2.0 } else { x };
    let of_many: Forward = |_, x| if x.dims()[0] > 3 { x * 2.0 } else { x };
    let divided: Forward = |_, x| {
        let n = x.dims()[0];
        x / n.min(2) as f64
    };
    let halved: Forward = |_, x| {
        let n = x.dims()[0];
        x.sin() * (n / 2) as f64
    };
    for forward in [of_one, of_many, divided, halved] {
        refused(Bare::new(), forward, &[3]);
    }
}

#[test]
fn the_root_of_a_relu() {
    agrees(Bare::new(), |_: &Bare, x: Tensor<2>| relu(x).sqrt(), &[6]);
    agrees(Bare::new(), |_: &Bare, x: Tensor<2>| (relu(x) * 3.0).log1p().sqrt(), &[6]);
    agrees(Bare::new(), |_: &Bare, x: Tensor<2>| x.clamp_min(0.0).sqrt(), &[6]);
}

#[test]
fn samples_that_meet_far_from_the_origin() {
    let forward = |_: &Bare, x: Tensor<2>| {
        let far = (x.clone().abs().clamp_min(5.0) - 5.0).sum_dim(0);
        x + far
    };
    refused(Bare::new(), forward, &[3]);
}

#[test]
fn one_probability_a_class() {
    refused(linear(4, 3), |net: &burn::nn::Linear, x: Tensor<2>| sigmoid(net.forward(x)), &[4]);
}

#[test]
fn a_linear_layer_whose_weight_is_held_transposed() {
    let forward = |net: &Along, x: Tensor<3>| {
        let out = burn::tensor::module::linear(x, net.weight.val().transpose(), None);
        out.flatten(1, 2)
    };
    agrees(Along::new([5, 3], 1), forward, &[4, 3]);
    let of_images = |net: &Along, x: Tensor<4>| {
        let out = burn::tensor::module::linear(x, net.weight.val().transpose(), None);
        out.flatten(1, 3)
    };
    agrees(Along::new([5, 3], 1), of_images, &[2, 2, 3]);
}
