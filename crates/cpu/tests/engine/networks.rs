//! Networks by name, each for what is odd about it.

use burn::tensor::activation::{gelu, relu, sigmoid, softmax};
use burn::tensor::module::{adaptive_avg_pool2d, conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use influence_autodiff::Graph;

use crate::common::{Norms, SAMPLE, weights};
use crate::layers::{bottleneck, grouped, maxima, means, normalised, squeezed};
use crate::models::{EMPTY, Empty};

/// One image of [`large`].
pub(super) const LARGE: [usize; 3] = [2, 24, 20];

/// Enough rows and channels that the work is cut up for several threads, and that Winograd's form
/// is taken both ways.
pub(super) fn large() -> Graph {
    let forward = |_: &Empty, x: Tensor<4>| {
        let device = x.device();
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let stem = relu(conv2d(x, weights([40, 2, 3, 3], 1, &device), None, options.clone()));
        let block = bottleneck(bottleneck(stem.clone(), 24, [1, 1]), 33, [2, 2]);
        let more = relu(conv2d(block.clone(), weights([8, 66, 3, 3], 4, &device), None, options.clone()));
        let all = relu(Tensor::cat(vec![block, more], 1));
        let pointwise = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let inner = relu(conv2d(stem, weights([22, 40, 1, 1], 5, &device), None, pointwise));
        // No ReLU after it: its cotangents are dense.
        let plain = conv2d(inner, weights([19, 22, 3, 3], 6, &device), None, options);
        let pooled = [all, plain].map(|x| adaptive_avg_pool2d(x, [2, 2])).to_vec();
        let flat = Tensor::cat(pooled, 1).flatten::<2>(1, 3);
        let features = flat.dims()[1];
        linear(flat, weights([features, 13], 3, &device), None)
    };
    Graph::capture(&EMPTY, forward, &LARGE, &Device::flex()).expect("it can be captured")
}

/// Masks before and after every layer, pools of both kinds, a concatenation and a depthwise layer,
/// and so many classes that their cotangents are laid out in lanes.
pub(super) fn many() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let options = |groups| ConvOptions::new([1, 1], [1, 1], [1, 1], groups);
        let stem = relu(conv2d(x, weights([20, 2, 3, 3], 1, &device), None, options(1)));
        let block = bottleneck(bottleneck(maxima(stem, 1), 12, [1, 1]), 17, [2, 2]);
        let apart = relu(conv2d(block.clone(), weights([34, 1, 3, 3], 2, &device), None, options(34)));
        let more = relu(norms.norms[33].forward(means(block.clone(), 5)));
        let pooled = [block, apart, more].map(|x| adaptive_avg_pool2d(x, [2, 1])).to_vec();
        let flat = Tensor::cat(pooled, 1).flatten::<2>(1, 3);
        let features = flat.dims()[1];
        linear(flat, weights([features, 68], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &LARGE, &Device::flex())
        .expect("it can be captured")
}

/// Layers that each read all that the ones before have made, as in DenseNet, with a layer of
/// another width among them.
pub(super) fn dense() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize, kernel: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs, kernel, kernel], inputs + outputs, &device);
            let padding = [kernel / 2, kernel / 2];
            conv2d(x, weight, None, ConvOptions::new([1, 1], padding, [1, 1], 1))
        };
        let mut all = conv(x, 3, 3);
        for layer in 0..7 {
            let read = relu(norms.norms[all.dims()[1] - 1].forward(all.clone()));
            let inner = relu(conv(read, if layer == 3 { 9 } else { 11 }, 1));
            all = Tensor::cat(vec![all, conv(inner, 5, 3)], 1);
        }
        let features = relu(norms.norms[all.dims()[1] - 1].forward(all));
        let flat = adaptive_avg_pool2d(features, [1, 1]).flatten::<2>(1, 3);
        linear(flat, weights([38, 4], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &SAMPLE, &Device::flex())
        .expect("it can be captured")
}

/// One image of [`mobile`].
pub(super) const MOBILE: [usize; 3] = [3, 12, 10];

/// Blocks of depthwise and pointwise convolutions with normalisation and ReLUs, one of them
/// residual, and a block of 16 groups whose panels hold several of them.
pub(super) fn mobile() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize, kernel: usize, stride: usize, groups: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs / groups, kernel, kernel], inputs + outputs, &device);
            let padding = [kernel / 2, kernel / 2];
            conv2d(x, weight, None, ConvOptions::new([stride, stride], padding, [1, 1], groups))
        };
        let on = |x: Tensor<4>| relu(norms.norms[x.dims()[1] - 1].forward(x));
        let mut x = on(conv(x, 36, 3, 1, 1));
        for (outputs, stride) in [(36, 1), (40, 2)] {
            let channels = x.dims()[1];
            let inner = conv(on(conv(x.clone(), channels, 3, stride, channels)), outputs, 1, 1, 1);
            x = if stride == 1 { x + inner } else { on(inner) };
        }
        let wide = relu(conv(x.clone(), 96, 1, 1, 1));
        let wide = relu(conv(wide, 80, 3, 1, 16));
        let x = relu(conv(wide, 40, 1, 1, 1) + x);
        linear(adaptive_avg_pool2d(x, [1, 1]).flatten::<2>(1, 3), weights([40, 7], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &MOBILE, &Device::flex())
        .expect("it can be captured")
}

/// Layers without bottlenecks that read all that the ones before have made and write after it, some
/// of them with a ReLU of their own.
pub(super) fn plain() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs, 3, 3], inputs + outputs, &device);
            conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
        };
        let mut all = conv(x, 5);
        for layer in 0..6 {
            let next = conv(relu(norms.norms[all.dims()[1] - 1].forward(all.clone())), 5);
            all = Tensor::cat(vec![all, if layer % 2 == 0 { relu(next) } else { next }], 1);
        }
        let features = relu(norms.norms[all.dims()[1] - 1].forward(all));
        linear(features.flatten::<2>(1, 3), weights([35 * 30, 4], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &SAMPLE, &Device::flex())
        .expect("it can be captured")
}

/// Without a mask: gates, normalisation, attention, functions of each element.
pub(super) fn smooth() -> Graph {
    let forward = |_: &Empty, x: Tensor<4>| {
        let device = x.device();
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let stem = conv2d(x, weights([40, 2, 3, 3], 1, &device), None, options.clone());
        let stem = stem.clone() * sigmoid(stem);
        let deep = grouped(stem.clone(), 0, 0, [3, 3], options);
        let gated = normalised(deep.clone() * sigmoid(squeezed(deep, 40)), 1);
        let tokens = gelu(gated + stem).narrow(2, 0, 5).flatten::<3>(2, 3).swap_dims(1, 2);
        let heads = |seed: usize| {
            let all = linear(tokens.clone(), weights([40, 24], seed, &device), None);
            all.reshape([0, 100, 3, 8]).swap_dims(1, 2)
        };
        let scores = softmax(heads(5).matmul(heads(6).swap_dims(2, 3)) * 0.4, 3);
        let mixed = scores.matmul(heads(7)).swap_dims(1, 2).flatten::<3>(2, 3);
        linear(mixed.narrow(1, 0, 1).flatten::<2>(1, 2), weights([24, 4], 3, &device), None)
    };
    Graph::capture(&EMPTY, forward, &LARGE, &Device::flex()).expect("it can be captured")
}
