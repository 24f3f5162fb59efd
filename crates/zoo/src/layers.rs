//! The layers from which the networks are built, with the paper's constants.
//!
//! Shu & Zhu (AAAI-19, "Experiments") train in Keras: biases in all convolutions, BatchNorm with
//! Keras' epsilon, dropout 0.2. The momentum 0.1 is Burn's and PyTorch's: running = 0.9 running +
//! 0.1 batch.

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::Device;

/// What BatchNorm adds to the variance (Keras' default, which the paper's networks use).
pub const BATCH_NORM_EPSILON: f64 = 1e-3;
/// The weight of a batch's statistics in the running ones.
pub const BATCH_NORM_MOMENTUM: f64 = 0.1;
/// The paper's dropout probability.
pub const DROPOUT: f64 = 0.2;

/// A 1x1 convolution with bias: [N, from, H, W] to [N, to, ceil(H / stride), ceil(W / stride)].
pub(crate) fn conv1x1(from: usize, to: usize, stride: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [1, 1]).with_stride([stride, stride]).init(device)
}

/// A 3x3 convolution with bias, stride 1 and zero padding of 1: [N, from, H, W] to [N, to, H, W].
pub(crate) fn conv3x3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
}

/// BatchNorm over the channels of [N, channels, H, W].
pub(crate) fn batch_norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels)
        .with_epsilon(BATCH_NORM_EPSILON)
        .with_momentum(BATCH_NORM_MOMENTUM)
        .init(device)
}

/// Dropout; it acts only in training.
pub(crate) fn dropout(probability: f64) -> Dropout {
    DropoutConfig::new(probability).init()
}

/// The head: [N, features] to [N, classes].
pub(crate) fn linear(features: usize, classes: usize, device: &Device) -> Linear {
    LinearConfig::new(features, classes).init(device)
}
