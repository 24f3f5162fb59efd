//! Layers that several networks have.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};

use crate::common::{MOST, weights};

/// One number for each channel, of all positions.
pub(super) fn squeezed(x: Tensor<4>, channels: usize) -> Tensor<4> {
    let (c, device) = (x.dims()[1], x.device());
    let mean = x.mean_dim(2).mean_dim(3);
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    conv2d(mean, weights([channels, c, 1, 1], 7, &device), None, options)
}

/// Without its mean along an axis, over its deviation.
pub(super) fn normalised(x: Tensor<4>, axis: usize) -> Tensor<4> {
    let centred = x.clone() - x.mean_dim(axis);
    let variance = centred.clone().square().mean_dim(axis);
    centred / (variance + 0.1).sqrt()
}

/// A convolution in groups, of which `choice` picks the number, 0 one per channel; each group has
/// up to four outputs.
pub(super) fn grouped(
    x: Tensor<4>,
    choice: usize,
    channels: usize,
    kernel: [usize; 2],
    options: ConvOptions<2>,
) -> Tensor<4> {
    let ([_, c, ..], device) = (x.dims(), x.device());
    let divisors: Vec<_> = (1..=c).rev().filter(|groups| c.is_multiple_of(*groups)).collect();
    let groups = divisors[choice % divisors.len()];
    let outputs = groups * (1 + channels % (MOST / groups).min(4));
    let weight = weights([outputs, c / groups, kernel[0], kernel[1]], outputs + choice, &device);
    conv2d(x, weight, Some(weights([outputs], c, &device)), ConvOptions { groups, ..options })
}

/// A residual block with its ReLUs; with a stride, or other channels, behind a convolution of the
/// shortcut.
pub(super) fn bottleneck(x: Tensor<4>, channels: usize, stride: [usize; 2]) -> Tensor<4> {
    let ([_, c, ..], device) = (x.dims(), x.device());
    let conv = |x: Tensor<4>, outputs: usize, kernel: usize, stride: [usize; 2]| {
        let inputs = x.dims()[1];
        let weight = weights([outputs, inputs, kernel, kernel], outputs + kernel, &device);
        let padding = [kernel / 2, kernel / 2];
        conv2d(
            x,
            weight,
            Some(weights([outputs], inputs, &device)),
            ConvOptions::new(stride, padding, [1, 1], 1),
        )
    };
    let outputs = if stride == [1, 1] { c } else { 2 * channels };
    let inner = relu(conv(relu(conv(x.clone(), channels, 1, stride)), channels, 3, [1, 1]));
    let shortcut = if stride == [1, 1] { x } else { conv(x, outputs, 1, stride) };
    relu(conv(inner, outputs, 1, [1, 1]) + shortcut)
}

/// Strides and paddings of a pool, chosen by a number.
pub(super) fn maxima(x: Tensor<4>, choice: usize) -> Tensor<4> {
    let (stride, before) = ([1 + choice % 2, 2], choice % 2);
    let padding = [(before, before), (0, 0)];
    max_pool2d(x, MaxPoolOptions { kernel_size: [2, 2], stride, padding, dilation: [1, 1], ceil_mode: false })
}

pub(super) fn means(x: Tensor<4>, choice: usize) -> Tensor<4> {
    let (padding, count_include_pad) = ([(choice % 2, choice % 2), (0, 0)], choice.is_multiple_of(3));
    avg_pool2d(
        x,
        AvgPoolOptions { kernel_size: [2, 2], stride: [2, 1], padding, count_include_pad, ceil_mode: false },
    )
}
