//! Networks chosen at run time: the names that a user types, and one type for any of the networks.

use std::fmt;
use std::str::FromStr;

use burn::tensor::{Device, Tensor};

use crate::delegate::transparent_module;
use crate::nearest::nearest;
use crate::torchvision::{DenseNet, ResNet};
use crate::{Cnn, CnnConfig, DenseNet121, DenseNet121Config, Error, ResNet50, ResNet50Config};

/// The kind of a network, whatever its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NetworkFamily {
    /// [`ResNet50`].
    ResNet50,
    /// [`DenseNet121`].
    DenseNet121,
    /// [`Cnn`].
    Cnn,
}

impl NetworkFamily {
    /// Every family, in the order of the documentation.
    pub const ALL: [Self; 3] = [Self::ResNet50, Self::DenseNet121, Self::Cnn];

    /// The name that a user types.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet50 => "resnet50",
            Self::DenseNet121 => "densenet121",
            Self::Cnn => "cnn",
        }
    }

    /// The family's name for the number that scales its channels: width or growth.
    pub fn scale_name(self) -> &'static str {
        match self {
            Self::DenseNet121 => "growth",
            Self::ResNet50 | Self::Cnn => "width",
        }
    }

    /// The family at `scale`: width for [`ResNet50`] and [`Cnn`], growth for [`DenseNet121`].
    pub fn at(self, scale: usize) -> Architecture {
        match self {
            Self::ResNet50 => Architecture::ResNet50 { width: scale },
            Self::DenseNet121 => Architecture::DenseNet121 { growth: scale },
            Self::Cnn => Architecture::Cnn { width: scale },
        }
    }
}

impl fmt::Display for NetworkFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for NetworkFamily {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::UnknownNetwork`] for any other name.
    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| Error::UnknownNetwork {
            name: name.to_owned(),
            nearest: nearest(name, Self::ALL.map(Self::name)).map(str::to_owned),
        })
    }
}

/// A network's kind and scale. Parsed from "resnet50", "densenet121" or "cnn", it has the default
/// scale, the paper's for the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// [`ResNet50`].
    ResNet50 {
        /// Channels of the stem; the paper's is 64.
        width: usize,
    },
    /// [`DenseNet121`].
    DenseNet121 {
        /// Channels that each layer adds; the paper's is 32.
        growth: usize,
    },
    /// [`Cnn`].
    Cnn {
        /// Channels of the first convolution; 32 by default.
        width: usize,
    },
}

impl Architecture {
    /// The kind, without the scale.
    pub fn family(self) -> NetworkFamily {
        match self {
            Self::ResNet50 { .. } => NetworkFamily::ResNet50,
            Self::DenseNet121 { .. } => NetworkFamily::DenseNet121,
            Self::Cnn { .. } => NetworkFamily::Cnn,
        }
    }

    /// Width, or growth for [`DenseNet121`].
    pub fn scale(self) -> usize {
        match self {
            Self::ResNet50 { width } | Self::Cnn { width } => width,
            Self::DenseNet121 { growth } => growth,
        }
    }

    /// This kind of network at another width, or growth for [`DenseNet121`].
    #[must_use]
    pub fn with_width(self, width: usize) -> Self {
        self.family().at(width)
    }

    /// Builds the network for images [N, channels, size, size] and `classes` classes on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] with every fault.
    pub fn init(
        self,
        channels: usize,
        size: usize,
        classes: usize,
        device: &Device,
    ) -> Result<Network, Error> {
        match self {
            Self::ResNet50 { width } => {
                let config = ResNet50Config::new(channels, size, classes).with_width(width);
                config.init(device).map(Network::ResNet50)
            }
            Self::DenseNet121 { growth } => {
                let config = DenseNet121Config::new(channels, size, classes).with_growth(growth);
                config.init(device).map(Network::DenseNet121)
            }
            Self::Cnn { width } => {
                let config = CnnConfig::new(channels, size, classes).with_width(width);
                config.init(device).map(Network::Cnn)
            }
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.family(), self.family().scale_name(), self.scale())
    }
}

impl FromStr for Architecture {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::UnknownNetwork`] for any other name.
    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name.parse()? {
            NetworkFamily::ResNet50 => Self::ResNet50 { width: 64 },
            NetworkFamily::DenseNet121 => Self::DenseNet121 { growth: 32 },
            NetworkFamily::Cnn => Self::Cnn { width: 32 },
        })
    }
}

/// Any network of this crate. Its parameters have the same paths as those of the inner network.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "a program holds a few networks, whose weights dwarf the difference"
)]
pub enum Network {
    /// ResNet50 for small images.
    ResNet50(ResNet50),
    /// DenseNet121 for small images.
    DenseNet121(DenseNet121),
    /// The small CNN.
    Cnn(Cnn),
    /// A ResNet in torchvision's form.
    ResNet(ResNet),
    /// A DenseNet in torchvision's form.
    DenseNet(DenseNet),
}

transparent_module!(Network { ResNet50, DenseNet121, Cnn, ResNet, DenseNet });

impl Network {
    /// Computes the logits of images.
    ///
    /// # Shapes
    ///
    /// `images` [N, C, H, W], with the sizes of [`input`](Self::input); the logits are [N,
    /// classes].
    ///
    /// # Panics
    ///
    /// Burn panics if the images do not have the network's shape, type or device.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        match self {
            Self::ResNet50(network) => network.forward(images),
            Self::DenseNet121(network) => network.forward(images),
            Self::Cnn(network) => network.forward(images),
            Self::ResNet(network) => network.forward(images),
            Self::DenseNet(network) => network.forward(images),
        }
    }

    /// Channels, height and width of the images it takes.
    pub fn input(&self) -> [usize; 3] {
        match self {
            Self::ResNet50(network) => network.input(),
            Self::DenseNet121(network) => network.input(),
            Self::Cnn(network) => network.input(),
            Self::ResNet(network) => network.input(),
            Self::DenseNet(network) => network.input(),
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match self {
            Self::ResNet50(network) => network.classes(),
            Self::DenseNet121(network) => network.classes(),
            Self::Cnn(network) => network.classes(),
            Self::ResNet(network) => network.classes(),
            Self::DenseNet(network) => network.classes(),
        }
    }

    /// Its family; `None` for torchvision's networks, which are described only by their files.
    pub fn family(&self) -> Option<NetworkFamily> {
        match self {
            Self::ResNet50(_) => Some(NetworkFamily::ResNet50),
            Self::DenseNet121(_) => Some(NetworkFamily::DenseNet121),
            Self::Cnn(_) => Some(NetworkFamily::Cnn),
            Self::ResNet(_) | Self::DenseNet(_) => None,
        }
    }
}

impl From<ResNet50> for Network {
    fn from(network: ResNet50) -> Self {
        Self::ResNet50(network)
    }
}

impl From<DenseNet121> for Network {
    fn from(network: DenseNet121) -> Self {
        Self::DenseNet121(network)
    }
}

impl From<Cnn> for Network {
    fn from(network: Cnn) -> Self {
        Self::Cnn(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_print() {
        for family in NetworkFamily::ALL {
            let architecture: Architecture = family.name().parse().unwrap();
            assert_eq!(architecture.family(), family);
            assert_eq!(architecture.with_width(5).scale(), 5);
        }
        assert_eq!(Architecture::DenseNet121 { growth: 32 }.to_string(), "densenet121 of growth 32");
    }

    #[test]
    fn an_unknown_name_offers_the_nearest() {
        let message = "resnet5".parse::<Architecture>().unwrap_err().to_string();
        assert!(message.contains("`resnet5`") && message.contains("resnet50"), "{message}");
        let message = "vit".parse::<Architecture>().unwrap_err().to_string();
        assert!(message.contains("resnet50, densenet121, cnn"), "{message}");
    }
}
