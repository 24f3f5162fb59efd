//! DenseNet121 for small images, as Shu & Zhu (AAAI-19) use it: a 3x3 stem of stride 1 and no
//! max-pool, dense blocks of [6, 12, 24, 16] layers, compression 0.5 between them, biases
//! everywhere, a global average pool.
//!
//! `body` contains layers and transitions in one list, numbered like PyTorch's `Sequential`.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AvgPool2d, AvgPool2dConfig};
use burn::nn::{BatchNorm, Dropout, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::Error;
use crate::delegate::transparent_module;
use crate::layers::{batch_norm, conv1x1, conv3x3, dropout, linear};
use crate::limits::Limits;

/// Layers of each dense block.
pub(crate) const LAYERS: [usize; 4] = [6, 12, 24, 16];
/// Channels of the stem, whatever the growth.
const STEM: usize = 64;
/// Channels of a layer's bottleneck, in multiples of the growth.
const BOTTLENECK: usize = 4;
/// The smallest image side that leaves a pixel after three pools.
const SMALLEST: usize = 8;

/// How to build a [`DenseNet121`].
#[derive(Config, Debug, Copy, PartialEq)]
pub struct DenseNet121Config {
    /// Channels of the input images.
    pub channels: usize,
    /// Side of the square input images, in pixels; at least 8. No parameter depends on it, because
    /// the pool is global.
    pub size: usize,
    /// Number of classes.
    pub classes: usize,
    /// Channels that each layer adds. The paper's is 32.
    #[config(default = 32)]
    pub growth: usize,
    /// Probability that training drops an activation.
    #[config(default = 0.2)]
    pub dropout: f64,
}

impl DenseNet121Config {
    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn validate(&self) -> Result<(), Error> {
        // An upper bound of the input channels of any layer: those of the stem and of all layers.
        let widest = STEM.saturating_add(self.growth.saturating_mul(LAYERS.iter().sum()));
        Limits::of("densenet121")
            .count("channels", self.channels)
            .side(self.size, SMALLEST)
            .count("classes", self.classes)
            .count("growth", self.growth)
            .probability("dropout", self.dropout)
            .elements("the stem", &[9, self.channels, STEM])
            .elements("the widest layer", &[widest, widest])
            .elements("the head", &[widest, self.classes])
            .check()
    }

    /// Builds the network on `device`. Its parameters are initialised at their first use.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn init(&self, device: &Device) -> Result<DenseNet121, Error> {
        self.validate()?;
        let mut width = STEM;
        let mut body = Vec::with_capacity(LAYERS.iter().sum::<usize>() + LAYERS.len() - 1);
        // Each layer appends `growth` channels to its input; a transition before each further block
        // halves them.
        for (block, layers) in LAYERS.into_iter().enumerate() {
            if block > 0 {
                body.push(Section::Transition(Transition::new(width, self.dropout, device)));
                width /= 2;
            }
            for _ in 0..layers {
                body.push(Section::Layer(DenseLayer::new(width, self.growth, self.dropout, device)));
                width += self.growth;
            }
        }
        Ok(DenseNet121 {
            conv1: conv3x3(self.channels, STEM, device),
            bn1: batch_norm(STEM, device),
            body,
            bn: batch_norm(width, device),
            pool: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: linear(width, self.classes, device),
            input: [self.channels, self.size, self.size],
            classes: self.classes,
        })
    }
}

/// DenseNet121 for small images. Built by [`DenseNet121Config`].
#[derive(Module, Debug)]
pub struct DenseNet121 {
    conv1: Conv2d,
    bn1: BatchNorm,
    body: Vec<Section>,
    bn: BatchNorm,
    pool: AdaptiveAvgPool2d,
    fc: Linear,
    input: [usize; 3],
    classes: usize,
}

impl DenseNet121 {
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
        let stem = relu(self.bn1.forward(self.conv1.forward(images)));
        let map = self.body.iter().fold(stem, |map, section| section.forward(map));
        let map = self.pool.forward(relu(self.bn.forward(map)));
        self.fc.forward(map.flatten(1, 3))
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

/// One entry of the body.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "58 of the 61 sections are of the larger variant")]
enum Section {
    Layer(DenseLayer),
    Transition(Transition),
}

transparent_module!(Section { Layer, Transition });

impl Section {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Layer(layer) => layer.forward(x),
            Self::Transition(transition) => transition.forward(x),
        }
    }
}

/// y = [x, f(x)] along the channels, where f is a 1x1 and a 3x3 convolution, each preceded by
/// BatchNorm and relu.
#[derive(Module, Debug)]
struct DenseLayer {
    bn1: BatchNorm,
    conv1: Conv2d,
    bn2: BatchNorm,
    conv2: Conv2d,
    drop: Dropout,
}

impl DenseLayer {
    fn new(from: usize, growth: usize, probability: f64, device: &Device) -> Self {
        let middle = BOTTLENECK * growth;
        Self {
            bn1: batch_norm(from, device),
            conv1: conv1x1(from, middle, 1, device),
            bn2: batch_norm(middle, device),
            conv2: conv3x3(middle, growth, device),
            drop: dropout(probability),
        }
    }

    /// [N, from, H, W] to [N, from + growth, H, W].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.drop.forward(self.conv1.forward(relu(self.bn1.forward(x.clone()))));
        let y = self.drop.forward(self.conv2.forward(relu(self.bn2.forward(y))));
        Tensor::cat(vec![x, y], 1)
    }
}

/// Halves the channels by a 1x1 convolution and the map by a 2x2 average pool, between two dense
/// blocks.
#[derive(Module, Debug)]
struct Transition {
    bn: BatchNorm,
    conv: Conv2d,
    drop: Dropout,
    pool: AvgPool2d,
}

impl Transition {
    fn new(from: usize, probability: f64, device: &Device) -> Self {
        Self {
            bn: batch_norm(from, device),
            conv: conv1x1(from, from / 2, 1, device),
            drop: dropout(probability),
            pool: AvgPool2dConfig::new([2, 2]).init(),
        }
    }

    /// [N, from, H, W] to [N, from / 2, H / 2, W / 2], rounded down.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.pool.forward(self.drop.forward(self.conv.forward(relu(self.bn.forward(x)))))
    }
}
