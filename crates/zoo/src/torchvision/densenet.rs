//! y = head(mean(relu(norm5(blocks(stem(x)))))): dense blocks whose layers add channels, [x, f(x)],
//! with transitions between them that reduce the channels and halve the map.
//!
//! f is BatchNorm, relu, a 1x1 convolution, BatchNorm, relu, a 3x3 convolution.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AvgPool2d, AvgPool2dConfig, MaxPool2d};
use burn::nn::{BatchNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::activation::relu;

use super::named::NamedModules;
use super::resnet::stem;
use super::shapes::Shapes;
use super::{Published, sizes};
use crate::delegate::transparent_module;
use crate::{Error, Network};

/// Torchvision's names, by the layers of each block.
const NAMES: [([usize; 4], &str); 4] = [
    ([6, 12, 24, 16], "densenet121"),
    ([6, 12, 36, 24], "densenet161"),
    ([6, 12, 32, 32], "densenet169"),
    ([6, 12, 48, 32], "densenet201"),
];

/// A DenseNet in torchvision's form. Built by [`published`](super::published).
#[derive(Module, Debug)]
pub struct DenseNet {
    features: NamedModules<Section>,
    mean: AdaptiveAvgPool2d,
    classifier: Linear,
    input: [usize; 3],
    classes: usize,
}

impl DenseNet {
    /// Computes the logits [N, K] of images [N, C, H, W].
    ///
    /// # Panics
    ///
    /// Burn panics if the images do not have the network's shape, type or device.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let map = self.features.iter().fold(images, |map, section| section.forward(map));
        self.classifier.forward(self.mean.forward(map).flatten(1, 3))
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

/// A part of the features, in the order in which they are applied.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a network has a dozen of them")]
enum Section {
    Conv(Conv2d),
    /// BatchNorm followed by a relu.
    Norm(BatchNorm),
    Pool(MaxPool2d),
    Block(NamedModules<DenseLayer>),
    Transition(Transition),
}

transparent_module!(Section { Conv, Norm, Pool, Block, Transition });

impl Section {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Norm(norm) => relu(norm.forward(x)),
            Self::Pool(pool) => pool.forward(x),
            Self::Block(layers) => layers.iter().fold(x, |x, layer| layer.forward(x)),
            Self::Transition(transition) => transition.forward(x),
        }
    }
}

/// y = [x, f(x)] along the channels.
#[derive(Module, Debug)]
struct DenseLayer {
    norm1: BatchNorm,
    conv1: Conv2d,
    norm2: BatchNorm,
    conv2: Conv2d,
}

impl DenseLayer {
    /// The layer `name` with `from` input channels, and the number of channels that it adds.
    fn read(shapes: &Shapes<'_>, name: &str, from: usize) -> Result<(Self, usize), Error> {
        let part = |part: &str| format!("{name}.{part}");
        let conv1 = shapes.conv(&part("conv1"), from, 1)?;
        let middle = conv1.weight.lazy_shape()[0];
        let conv2 = shapes.conv(&part("conv2"), middle, 1)?;
        let growth = conv2.weight.lazy_shape()[0];
        let (norm1, norm2) = (shapes.norm(&part("norm1"), from)?, shapes.norm(&part("norm2"), middle)?);
        Ok((Self { norm1, conv1, norm2, conv2 }, growth))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.conv1.forward(relu(self.norm1.forward(x.clone())));
        let y = self.conv2.forward(relu(self.norm2.forward(y)));
        Tensor::cat(vec![x, y], 1)
    }
}

/// Reduces the channels by a 1x1 convolution and halves the map by a 2x2 average pool.
#[derive(Module, Debug)]
struct Transition {
    norm: BatchNorm,
    conv: Conv2d,
    pool: AvgPool2d,
}

impl Transition {
    /// The transition `name` with `from` input channels, and the number of its output channels.
    fn read(shapes: &Shapes<'_>, name: &str, from: usize) -> Result<(Self, usize), Error> {
        let conv = shapes.conv(&format!("{name}.conv"), from, 1)?;
        let to = conv.weight.lazy_shape()[0];
        let norm = shapes.norm(&format!("{name}.norm"), from)?;
        Ok((Self { norm, conv, pool: AvgPool2dConfig::new([2, 2]).init() }, to))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.pool.forward(self.conv.forward(relu(self.norm.forward(x))))
    }
}

/// The DenseNet whose weights a file contains.
pub(super) fn read(shapes: &Shapes<'_>, image: [usize; 3]) -> Result<Published, Error> {
    let (conv, pool, words) = stem(shapes, "features.conv0")?;
    let biases = if conv.bias.is_some() { "with" } else { "without" };
    let (width, pooled) = (conv.weight.lazy_shape()[0], pool.is_some());
    let mut sections = vec![
        ("conv0".to_owned(), Section::Conv(conv)),
        ("norm0".to_owned(), Section::Norm(shapes.norm("features.norm0", width)?)),
    ];
    sections.extend(pool.map(|pool| ("pool0".to_owned(), Section::Pool(pool))));
    let (counts, growth, from) = body(shapes, width, &mut sections)?;
    sections.push(("norm5".to_owned(), Section::Norm(shapes.norm("features.norm5", from)?)));
    // Smallest image: each transition halves the map, rounding down; before that a pooled stem has
    // quartered it, rounding up.
    let halved = 1 << counts.len().saturating_sub(1).min(16);
    shapes.images("features.conv0", image, if pooled { 4 * (halved - 1) + 1 } else { halved })?;
    let (classifier, classes) = shapes.linear("fc", from)?;
    let known = NAMES.into_iter().find(|(layers, _)| layers[..] == counts[..]);
    let name = known.map_or("densenet", |(_, name)| name);
    let form = format!(
        "blocks of {counts:?} layers, growth {growth}, stem width {width}, {words}, convolutions {biases} biases, \
         {classes} classes, images of {}",
        sizes(image)
    );
    let mean = AdaptiveAvgPool2dConfig::new([1, 1]).init();
    let network = DenseNet { features: NamedModules(sections), mean, classifier, input: image, classes };
    Ok(Published { network: Network::DenseNet(network), name: name.to_owned(), form })
}

/// Appends all blocks and transitions to `sections`. Returns the number of layers of each block,
/// the growth of the first layer, and the output channels of the last one.
fn body(
    shapes: &Shapes<'_>,
    mut from: usize,
    sections: &mut Vec<(String, Section)>,
) -> Result<(Vec<usize>, usize, usize), Error> {
    // Blocks and layers are numbered from 1; a missing name ends the block or the network. Each
    // layer appends `growth` channels to its input, so `from` grows along the block.
    let (mut counts, mut first) = (Vec::new(), 0);
    loop {
        let block = format!("denseblock{}", counts.len() + 1);
        let mut layers = Vec::new();
        loop {
            let layer = format!("denselayer{}", layers.len() + 1);
            let name = format!("features.{block}.{layer}");
            if !shapes.any(&format!("{name}.")) {
                break;
            }
            let (read, growth) = DenseLayer::read(shapes, &name, from)?;
            layers.push((layer, read));
            from += growth;
            first = if first == 0 { growth } else { first };
        }
        counts.push(layers.len());
        sections.push((block, Section::Block(NamedModules(layers))));
        let transition = format!("transition{}", counts.len());
        let name = format!("features.{transition}");
        if !shapes.any(&format!("{name}.")) {
            return Ok((counts, first, from));
        }
        let (read, to) = Transition::read(shapes, &name, from)?;
        sections.push((transition, Section::Transition(read)));
        from = to;
    }
}
