//! y = head(mean(stages(stem(x)))): a stem, stages of residual blocks relu(f(x) + s(x)), the mean
//! over all positions, a linear head.
//!
//! f is two 3x3 convolutions (basic block) or 1x1, 3x3, 1x1 (bottleneck, which has a `conv3`), each
//! with BatchNorm, and a relu between them; s is the identity, or a 1x1 convolution with BatchNorm
//! if the file has a `downsample`.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, Linear, PaddingConfig2d};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::shapes::Shapes;
use super::{Published, sizes};
use crate::{Error, Network};

/// Torchvision's names: whether the blocks are bottlenecks, the number of blocks of each stage, the
/// name.
const NAMES: [(bool, [usize; 4], &str); 5] = [
    (false, [2, 2, 2, 2], "resnet18"),
    (false, [3, 4, 6, 3], "resnet34"),
    (true, [3, 4, 6, 3], "resnet50"),
    (true, [3, 4, 23, 3], "resnet101"),
    (true, [3, 8, 36, 3], "resnet152"),
];

/// A ResNet in torchvision's form. Built by [`published`](super::published).
#[derive(Module, Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm,
    pool: Option<MaxPool2d>,
    layer1: Vec<ResidualBlock>,
    layer2: Vec<ResidualBlock>,
    layer3: Vec<ResidualBlock>,
    /// Empty in ResNets of three stages.
    layer4: Vec<ResidualBlock>,
    mean: AdaptiveAvgPool2d,
    fc: Linear,
    input: [usize; 3],
    classes: usize,
}

impl ResNet {
    /// Computes the logits [N, K] of images [N, C, H, W].
    ///
    /// # Panics
    ///
    /// Burn panics if the images do not have the network's shape, type or device.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let stem = relu(self.bn1.forward(self.conv1.forward(images)));
        let stem = match &self.pool {
            Some(pool) => pool.forward(stem),
            None => stem,
        };
        let blocks = [&self.layer1, &self.layer2, &self.layer3, &self.layer4].into_iter().flatten();
        let map = blocks.fold(stem, |map, block| block.forward(map));
        self.fc.forward(self.mean.forward(map).flatten(1, 3))
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

/// y = relu(f(x) + s(x)).
#[derive(Module, Debug)]
struct ResidualBlock {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    /// A tuple, because its paths are then PyTorch's: "downsample.0.weight",
    /// "downsample.1.running_mean".
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl ResidualBlock {
    /// The block `name` with `from` input channels, and the number of its output channels.
    fn read(shapes: &Shapes<'_>, name: &str, from: usize, stride: usize) -> Result<(Self, usize), Error> {
        let part = |part: &str| format!("{name}.{part}");
        // A third convolution marks a bottleneck block. Its stride is at the 3 x 3 convolution, as
        // in torchvision; a basic block has it at the first convolution.
        let bottleneck = shapes.has(&part("conv3.weight"));
        let (first, second) = if bottleneck { (1, stride) } else { (stride, 1) };
        let conv1 = shapes.conv(&part("conv1"), from, first)?;
        let conv2 = shapes.conv(&part("conv2"), width(&conv1), second)?;
        let conv3 = bottleneck.then(|| shapes.conv(&part("conv3"), width(&conv2), 1)).transpose()?;
        let to = conv3.as_ref().map_or(width(&conv2), width);
        // Without a projection the shortcut is the identity, which needs equal channel counts.
        let projects = shapes.has(&part("downsample.0.weight"));
        if !projects && from != to {
            let why = format!(
                "is missing: the block reads {from} channels and gives {to}, and a shortcut without \
                               weights (option A, or only an average pool) is not known here"
            );
            return shapes.fault(&part("downsample.0.weight"), why);
        }
        let downsample = projects
            .then(|| {
                let conv = shapes.conv(&part("downsample.0"), from, stride)?;
                let norm = shapes.norm(&part("downsample.1"), width(&conv))?;
                if width(&conv) == to {
                    Ok((conv, norm))
                } else {
                    let why = format!("gives {} channels to be added to {to}", width(&conv));
                    shapes.fault(&part("downsample.0.weight"), why)
                }
            })
            .transpose()?;
        let block = Self {
            bn1: shapes.norm(&part("bn1"), width(&conv1))?,
            bn2: shapes.norm(&part("bn2"), width(&conv2))?,
            bn3: conv3.as_ref().map(|conv| shapes.norm(&part("bn3"), width(conv))).transpose()?,
            conv1,
            conv2,
            conv3,
            downsample,
        };
        Ok((block, to))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut y = relu(self.bn1.forward(self.conv1.forward(x.clone())));
        y = self.bn2.forward(self.conv2.forward(y));
        if let (Some(conv), Some(bn)) = (&self.conv3, &self.bn3) {
            y = bn.forward(conv.forward(relu(y)));
        }
        let short = match &self.downsample {
            Some((conv, bn)) => bn.forward(conv.forward(x)),
            None => x,
        };
        relu(y + short)
    }
}

/// The output channels of a convolution.
fn width(conv: &Conv2d) -> usize {
    conv.weight.lazy_shape()[0]
}

/// The blocks of stage `stage` (from 1) with `from` input channels, and the number of output
/// channels.
fn stage(shapes: &Shapes<'_>, stage: usize, mut from: usize) -> Result<(Vec<ResidualBlock>, usize), Error> {
    let mut blocks = Vec::new();
    loop {
        let name = format!("layer{stage}.{}", blocks.len());
        if !shapes.any(&format!("{name}.")) {
            return Ok((blocks, from));
        }
        // The first block of a later stage has a stride, and then it needs a projection. Without a
        // projection in the file, it therefore has no stride.
        let strided = stage > 1 && blocks.is_empty() && shapes.has(&format!("{name}.downsample.0.weight"));
        let (block, to) = ResidualBlock::read(shapes, &name, from, if strided { 2 } else { 1 })?;
        blocks.push(block);
        from = to;
    }
}

/// The ResNet whose weights a file contains.
pub(super) fn read(shapes: &Shapes<'_>, image: [usize; 3]) -> Result<Published, Error> {
    shapes.images("conv1", image, 1)?;
    let (stem, pool, words) = stem(shapes, "conv1")?;
    let from = width(&stem);
    let bn1 = shapes.norm("bn1", from)?;
    let (layer1, from) = stage(shapes, 1, from)?;
    let (layer2, from) = stage(shapes, 2, from)?;
    let (layer3, from) = stage(shapes, 3, from)?;
    let (layer4, from) = stage(shapes, 4, from)?;
    let (fc, classes) = shapes.linear("fc", from)?;
    let mean = AdaptiveAvgPool2dConfig::new([1, 1]).init();
    let input = image;
    let network = ResNet { conv1: stem, bn1, pool, layer1, layer2, layer3, layer4, mean, fc, input, classes };
    let (name, blocks) = described(&network);
    let biases = if network.conv1.bias.is_some() { "with" } else { "without" };
    let form = format!(
        "{blocks} of stem width {}, {words}, convolutions {biases} biases, {classes} classes, images of {}",
        width(&network.conv1),
        sizes(image)
    );
    Ok(Published { network: Network::ResNet(network), name: name.to_owned(), form })
}

/// Torchvision's name, and the blocks in words.
fn described(network: &ResNet) -> (&'static str, String) {
    let stages = [&network.layer1, &network.layer2, &network.layer3, &network.layer4];
    let counts = stages.map(Vec::len);
    let bottleneck = network.layer1.first().is_some_and(|block| block.conv3.is_some());
    let groups = network.layer1.first().map_or(1, |block| block.conv2.groups);
    // ResNeXt and the wide ResNets have the same numbers of blocks, but other widths within them.
    let plain = network.layer1.first().is_some_and(|block| {
        groups == 1 && block.conv3.as_ref().is_none_or(|conv| width(conv) == 4 * width(&block.conv2))
    });
    let known = NAMES.into_iter().find(|known| plain && (known.0, known.1) == (bottleneck, counts));
    let kind = if bottleneck { "bottlenecks" } else { "basic blocks" };
    let grouped = if groups > 1 { format!(" in {groups} groups") } else { String::new() };
    (known.map_or("resnet", |known| known.2), format!("{counts:?} {kind}{grouped}"))
}

/// The stem's convolution, the pool after it, and both in words. The size of the kernel decides.
pub(super) fn stem(
    shapes: &Shapes<'_>,
    name: &str,
) -> Result<(Conv2d, Option<MaxPool2d>, &'static str), Error> {
    let channels = shapes.reads(name)?;
    let conv = shapes.conv(name, channels, 1)?;
    match conv.kernel_size {
        [7, 7] => {
            let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]);
            let pool = pool.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
            let conv = shapes.conv(name, channels, 2)?;
            Ok((conv, Some(pool), "7x7 stem of stride 2 and a 3x3 max-pool after it"))
        }
        [3, 3] => Ok((conv, None, "3x3 stem of stride 1 and no pool after it")),
        [side, _] => shapes.fault(
            &format!("{name}.weight"),
            format!("is a stem of {side}x{side}: strides and pools are known for 3x3 and 7x7"),
        ),
    }
}
