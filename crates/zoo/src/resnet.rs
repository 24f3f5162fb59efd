//! ResNet50 for small images, as Shu & Zhu (AAAI-19) use it: a 3x3 stem of stride 1 and no
//! max-pool, bottlenecks [3, 4, 6, 3] with the stride on a stage's first 1x1 convolution, biases
//! everywhere, a 2x2 average pool before the linear head.
//!
//! Fields are declared in the order in which PyTorch registers them, which is the order of layers
//! in every report.

use burn::config::Config;
use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig};
use burn::nn::{BatchNorm, Dropout, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::Error;
use crate::layers::{batch_norm, conv1x1, conv3x3, dropout, linear};
use crate::limits::Limits;

/// Bottlenecks of each stage.
const BLOCKS: [usize; 4] = [3, 4, 6, 3];
/// Output channels of a bottleneck, in multiples of its middle channels.
const EXPANSION: usize = 4;
/// The smallest image side that leaves a pixel after three strides and the pool.
const SMALLEST: usize = 9;

/// How to build a [`ResNet50`].
#[derive(Config, Debug, Copy, PartialEq)]
pub struct ResNet50Config {
    /// Channels of the input images.
    pub channels: usize,
    /// Side of the square input images, in pixels; at least 9.
    pub size: usize,
    /// Number of classes.
    pub classes: usize,
    /// Channels of the stem; every other layer scales with it. The paper's is 64.
    #[config(default = 64)]
    pub width: usize,
    /// Probability that training drops an activation.
    #[config(default = 0.2)]
    pub dropout: f64,
}

impl ResNet50Config {
    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn validate(&self) -> Result<(), Error> {
        Limits::of("resnet50")
            .count("channels", self.channels)
            .side(self.size, SMALLEST)
            .count("classes", self.classes)
            .count("width", self.width)
            .probability("dropout", self.dropout)
            .elements("the stem", &[9, self.channels, self.width])
            .elements("the last stage", &[9 * 64, self.width, self.width])
            .elements("the head", &[32, self.width, self.pooled_side(), self.pooled_side(), self.classes])
            .check()
    }

    /// Builds the network on `device`. Its parameters are initialised at their first use.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn init(&self, device: &Device) -> Result<ResNet50, Error> {
        self.validate()?;
        let mut from = self.width;
        let mut stages = Vec::with_capacity(BLOCKS.len());
        // Channels double and the map halves from stage to stage. The first block of a stage has
        // its stride, and projects its input for the shortcut.
        for (stage, blocks) in BLOCKS.into_iter().enumerate() {
            let middle = self.width << stage;
            let stride = if stage == 0 { 1 } else { 2 };
            let first = Bottleneck::new(from, middle, Some(stride), self.dropout, device);
            from = EXPANSION * middle;
            let rest = (1..blocks).map(|_| Bottleneck::new(from, middle, None, self.dropout, device));
            stages.push(std::iter::once(first).chain(rest).collect());
        }
        Ok(ResNet50 {
            conv1: conv3x3(self.channels, self.width, device),
            bn1: batch_norm(self.width, device),
            stages,
            pool: AvgPool2dConfig::new([2, 2]).init(),
            fc: linear(from * self.pooled_side() * self.pooled_side(), self.classes, device),
            input: [self.channels, self.size, self.size],
            classes: self.classes,
        })
    }

    /// The side of the map that the head reads: three halvings that round up, one that rounds down.
    fn pooled_side(&self) -> usize {
        (0..3).fold(self.size, |side, _| side.div_ceil(2)) / 2
    }
}

/// ResNet50 for small images. Built by [`ResNet50Config`].
#[derive(Module, Debug)]
pub struct ResNet50 {
    conv1: Conv2d,
    bn1: BatchNorm,
    stages: Vec<Vec<Bottleneck>>,
    pool: AvgPool2d,
    fc: Linear,
    input: [usize; 3],
    classes: usize,
}

impl ResNet50 {
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
        let map = self.stages.iter().flatten().fold(stem, |map, block| block.forward(map));
        self.fc.forward(self.pool.forward(map).flatten(1, 3))
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

/// y = relu(f(x) + s(x)), where f is 1x1, 3x3, 1x1 convolutions and s a 1x1 convolution or the
/// identity.
#[derive(Module, Debug)]
struct Bottleneck {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Conv2d,
    bn3: BatchNorm,
    /// A tuple, because its paths are then PyTorch's: "short.0.weight", "short.1.running_mean".
    short: Option<(Conv2d, BatchNorm)>,
    drop: Dropout,
}

impl Bottleneck {
    /// `project` is the stride of a stage's first block, which projects its input. It is `None` for
    /// other blocks, whose shortcut is the identity.
    fn new(from: usize, middle: usize, project: Option<usize>, probability: f64, device: &Device) -> Self {
        let (to, stride) = (EXPANSION * middle, project.unwrap_or(1));
        Self {
            conv1: conv1x1(from, middle, stride, device),
            bn1: batch_norm(middle, device),
            conv2: conv3x3(middle, middle, device),
            bn2: batch_norm(middle, device),
            conv3: conv1x1(middle, to, 1, device),
            bn3: batch_norm(to, device),
            short: project.map(|stride| (conv1x1(from, to, stride, device), batch_norm(to, device))),
            drop: dropout(probability),
        }
    }

    /// [N, from, H, W] to [N, 4 middle, ceil(H / stride), ceil(W / stride)].
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.drop.forward(relu(self.bn1.forward(self.conv1.forward(x.clone()))));
        let y = self.drop.forward(relu(self.bn2.forward(self.conv2.forward(y))));
        let y = self.bn3.forward(self.conv3.forward(y));
        let short = match &self.short {
            Some((conv, bn)) => bn.forward(conv.forward(x)),
            None => x,
        };
        self.drop.forward(relu(y + short))
    }
}
