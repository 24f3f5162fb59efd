//! Layers that several networks have.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::{avg_pool2d, conv_transpose2d, conv2d, interpolate, max_pool2d};
use burn::tensor::ops::{
    AvgPoolOptions, ConvOptions, ConvTransposeOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions,
};

use crate::common::{MOST, weights};

/// One value for each channel, from all positions.
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

/// A residual block with its ReLUs. With a stride the channels change too, and the shortcut is a
/// convolution.
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

/// A transposed convolution, in one group, two, or as many as there are channels.
pub(super) fn transposed(x: Tensor<4>, first: usize, second: usize, channels: usize) -> Tensor<4> {
    let ([_, c, _, _], device) = (x.dims(), x.device());
    let groups = [1, if c % 2 == 0 { 2 } else { 1 }, c][first % 3];
    // Padding of the output has to be less than the stride or the dilation.
    let (stride, behind) = ([1 + second % 2, 2], [second % 2, channels % 2]);
    let options = ConvTransposeOptions::new(stride, [first % 2, 1], behind, [1 + first % 2, 1], groups);
    let weight = weights([c, channels.div_ceil(groups), 2, 3], first, &device);
    let bias = weights([channels.div_ceil(groups) * groups], second, &device);
    conv_transpose2d(x, weight, Some(bias), options)
}

/// Interpolation to another size.
pub(super) fn resized(x: Tensor<4>, first: usize, second: usize, channels: usize) -> Tensor<4> {
    let modes = [
        InterpolateMode::Nearest,
        InterpolateMode::Bilinear,
        InterpolateMode::Bicubic,
        InterpolateMode::Lanczos3,
    ];
    let options = InterpolateOptions::new(modes[first % 4].clone())
        .with_output_size([1 + second, 1 + channels % 13])
        .with_align_corners(channels.is_multiple_of(2));
    interpolate(x, options)
}
