//! A small CNN for first experiments: three times convolution, BatchNorm, relu, with a 2x2 max-pool
//! after the first two and a global average pool after the third, then the linear head.
//!
//! Channels double with each convolution (32, 64, 128 by default): 94 986 parameters for 3 channels
//! and 10 classes. It has no residual branch and no dropout; a forward pass costs about a fiftieth
//! of ResNet50's.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::Error;
use crate::layers::{batch_norm, conv3x3, linear};
use crate::limits::Limits;

/// The smallest image side that leaves a pixel after two pools.
const SMALLEST: usize = 4;

/// How to build a [`Cnn`].
#[derive(Config, Debug, Copy, PartialEq)]
pub struct CnnConfig {
    /// Channels of the input images.
    pub channels: usize,
    /// Side of the square input images, in pixels; at least 4. No parameter depends on it, because
    /// the last pool is global.
    pub size: usize,
    /// Number of classes.
    pub classes: usize,
    /// Channels of the first convolution; the second has twice, the third four times as many.
    #[config(default = 32)]
    pub width: usize,
}

impl CnnConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn validate(&self) -> Result<(), Error> {
        Limits::of("cnn")
            .count("channels", self.channels)
            .side(self.size, SMALLEST)
            .count("classes", self.classes)
            .count("width", self.width)
            .elements("the first convolution", &[9, self.channels, self.width])
            .elements("the last convolution", &[9 * 8, self.width, self.width])
            .elements("the head", &[4, self.width, self.classes])
            .check()
    }

    /// Builds the network on `device`. Its parameters are initialised at their first use.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn init(&self, device: &Device) -> Result<Cnn, Error> {
        self.validate()?;
        let width = self.width;
        Ok(Cnn {
            conv1: conv3x3(self.channels, width, device),
            bn1: batch_norm(width, device),
            conv2: conv3x3(width, 2 * width, device),
            bn2: batch_norm(2 * width, device),
            conv3: conv3x3(2 * width, 4 * width, device),
            bn3: batch_norm(4 * width, device),
            halve: MaxPool2dConfig::new([2, 2]).init(),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: linear(4 * width, self.classes, device),
            input: [self.channels, self.size, self.size],
            classes: self.classes,
        })
    }
}

/// A small CNN. Built by [`CnnConfig`].
#[derive(Module, Debug)]
pub struct Cnn {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    halve: MaxPool2d,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
    input: [usize; 3],
    classes: usize,
}

impl Cnn {
    /// Computes the logits of images.
    ///
    /// # Shapes
    ///
    /// `images` [N, channels, size, size], pixels in [0, 1]; the logits are [N, classes].
    ///
    /// # Panics
    ///
    /// Burn panics if the images do not have the network's shape, type or device.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.halve.forward(relu(self.bn1.forward(self.conv1.forward(images))));
        let x = self.halve.forward(relu(self.bn2.forward(self.conv2.forward(x))));
        let x = self.pool.forward(relu(self.bn3.forward(self.conv3.forward(x))));
        self.fc.forward(x.flatten(1, 3))
    }

    /// Channels, height and width of the images it takes.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
}
