//! Builds layers from the shapes of a file's tensors.

use std::collections::HashMap;

use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::Device;

use super::PublishedFamily;
use crate::Error;
use crate::error::quoted;
use crate::layers::BATCH_NORM_MOMENTUM;
use crate::nearest::nearest;
use crate::weights::{Checkpoint, normal};

/// The shape of every tensor of a file under its normalised name, with the settings of the layers.
pub(super) struct Shapes<'a> {
    file: &'a str,
    /// The name in the file and the shape, by normalised name.
    by_name: HashMap<String, (&'a str, &'a [usize])>,
    epsilon: f64,
    device: &'a Device,
}

impl<'a> Shapes<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint<'_>, epsilon: f64, device: &'a Device) -> Self {
        let tensors = checkpoint.tensors().iter();
        let by_name = tensors
            .map(|tensor| (normal(&tensor.name).into_owned(), (tensor.name.as_str(), &tensor.shape[..])))
            .collect();
        Self { file: checkpoint.file(), by_name, epsilon, device }
    }

    /// The family to which the names belong, if any.
    pub(super) fn family(&self) -> Option<PublishedFamily> {
        if self.any("layer1.0.") {
            Some(PublishedFamily::ResNet)
        } else {
            self.any("features.denseblock").then_some(PublishedFamily::DenseNet)
        }
    }

    /// Whether any name begins with `start`.
    pub(super) fn any(&self, start: &str) -> bool {
        self.by_name.keys().any(|name| name.starts_with(start))
    }

    /// Whether there is a tensor with this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The convolution `name` with `from` input channels. Kernel, output channels, groups and bias
    /// follow from the file; the zero padding preserves the size at stride 1.
    pub(super) fn conv(&self, name: &str, from: usize, stride: usize) -> Result<Conv2d, Error> {
        let weight = format!("{name}.weight");
        let shape = self.shape(&weight)?;
        let &[to, per_group, height, width] = shape else {
            return self.fault(&weight, format!("has shape {shape:?}: a convolution's has four axes"));
        };
        if height != width || height % 2 == 0 {
            return self
                .fault(&weight, format!("is a kernel of {height}x{width}: 1x1, 3x3 and 7x7 are known"));
        }
        let groups = from.checked_div(per_group).unwrap_or(0);
        if groups == 0 || groups * per_group != from || to == 0 || to % groups != 0 {
            return self.fault(
                &weight,
                format!("has shape {shape:?}, and the layer before it gives {from} channels"),
            );
        }
        let padding = height / 2;
        Ok(Conv2dConfig::new([from, to], [height, width])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding))
            .with_groups(groups)
            .with_bias(self.has(&format!("{name}.bias")))
            .init(self.device))
    }

    /// The input channels per group of a convolution: the second axis of its weight.
    pub(super) fn reads(&self, name: &str) -> Result<usize, Error> {
        let weight = format!("{name}.weight");
        match self.shape(&weight)? {
            &[_, channels, _, _] if channels > 0 => Ok(channels),
            other => self.fault(&weight, format!("has shape {other:?}: a convolution's has four axes")),
        }
    }

    /// The BatchNorm `name` over `channels` channels.
    pub(super) fn norm(&self, name: &str, channels: usize) -> Result<BatchNorm, Error> {
        let weight = format!("{name}.weight");
        match self.shape(&weight)? {
            [found] if *found == channels => {}
            found => {
                return self.fault(
                    &weight,
                    format!("has shape {found:?}, and the layer before it gives {channels} channels"),
                );
            }
        }
        let config = BatchNormConfig::new(channels).with_epsilon(self.epsilon);
        Ok(config.with_momentum(BATCH_NORM_MOMENTUM).init(self.device))
    }

    /// The linear head `name` with `from` input features, and its number of classes.
    pub(super) fn linear(&self, name: &str, from: usize) -> Result<(Linear, usize), Error> {
        let weight = format!("{name}.weight");
        let shape = self.shape(&weight)?;
        match *shape {
            [classes, features] if features == from && classes > 0 => {
                let bias = self.has(&format!("{name}.bias"));
                Ok((LinearConfig::new(from, classes).with_bias(bias).init(self.device), classes))
            }
            _ => {
                self.fault(&weight, format!("has shape {shape:?}, and {from} features are pooled before it"))
            }
        }
    }

    /// The shape of a tensor that must be there.
    fn shape(&self, name: &str) -> Result<&'a [usize], Error> {
        if let Some((_, shape)) = self.by_name.get(name) {
            return Ok(shape);
        }
        let near = nearest(name, self.by_name.keys().map(String::as_str));
        let near = near.map_or_else(String::new, |name| format!(" (nearest is `{}`)", quoted(name)));
        self.fault(name, format!("is missing{near}"))
    }

    /// The error for a tensor, under its name in the file.
    pub(super) fn fault<T>(&self, tensor: &str, why: impl Into<String>) -> Result<T, Error> {
        let network = match self.family() {
            Some(PublishedFamily::DenseNet) => "densenet",
            _ => "resnet",
        };
        Err(Error::Form {
            file: self.file.to_owned(),
            network,
            tensor: self.by_name.get(tensor).map_or(tensor, |(own, _)| own).to_owned(),
            why: why.into(),
        })
    }

    /// Checks that the images have the input channels of `stem` and sides of at least `smallest`.
    pub(super) fn images(&self, stem: &str, image: [usize; 3], smallest: usize) -> Result<(), Error> {
        let channels = self.reads(stem)?;
        let fits = image[0] == channels && image[1].min(image[2]) >= smallest;
        if fits {
            return Ok(());
        }
        Err(Error::Images { file: self.file.to_owned(), found: image, channels, smallest })
    }
}
