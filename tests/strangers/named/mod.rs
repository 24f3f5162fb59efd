//! Named models that were once computed wrongly or not at all.

mod both;
mod eegnet;
mod loading;
mod relus;
mod reshaped;

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig1d, PaddingConfig2d};
use burn::tensor::Device;

/// A model without layers. Its one parameter is never read; it only makes the module an f64 one.
#[derive(Module, Debug)]
struct Bare {
    unread: Linear,
}

impl Bare {
    fn new() -> Self {
        Self { unread: linear(1, 1) }
    }
}

/// A convolution followed by a linear layer.
#[derive(Module, Debug)]
struct ConvNet {
    conv: Conv2d,
    head: Linear,
}

/// A convolution along one axis followed by a linear layer.
#[derive(Module, Debug)]
struct WaveNet {
    conv: Conv1d,
    head: Linear,
}

fn linear(inputs: usize, outputs: usize) -> Linear {
    LinearConfig::new(inputs, outputs).init(&Device::flex())
}

fn conv2d(channels: [usize; 2], kernel: [usize; 2], padding: [usize; 2]) -> Conv2d {
    let [h, w] = padding;
    let padding = PaddingConfig2d::Explicit(h, w, h, w);
    Conv2dConfig::new(channels, kernel).with_padding(padding).init(&Device::flex())
}

fn conv1d(inputs: usize, outputs: usize, kernel: usize) -> Conv1d {
    let padding = PaddingConfig1d::Explicit(kernel / 2, kernel / 2);
    Conv1dConfig::new(inputs, outputs, kernel).with_padding(padding).init(&Device::flex())
}

impl ConvNet {
    /// A 3 x 3 convolution that keeps the size, and a linear layer from `features` elements to
    /// three classes.
    fn new(channels: [usize; 2], features: usize) -> Self {
        Self { conv: conv2d(channels, [3, 3], [1, 1]), head: linear(features, 3) }
    }
}

impl WaveNet {
    /// A convolution that keeps the length, and a linear layer from `features` elements to three
    /// classes.
    fn new([inputs, outputs, kernel]: [usize; 3], features: usize) -> Self {
        Self { conv: conv1d(inputs, outputs, kernel), head: linear(features, 3) }
    }
}
