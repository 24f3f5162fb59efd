//! The ResNets and DenseNets of torchvision and timm, built to match a file of their weights.
//!
//! Nothing is configured: depth, kind of block, widths, groups, biases, stem and number of classes
//! are inferred from the names and shapes of the file's tensors, and [`Published::form`] states the
//! result. Three things are in no file and are assumed to be torchvision's: strides (2 in the first
//! block of each later stage, in its 3x3 convolution), the pool after the stem (a 7x7 stem has
//! stride 2 and is followed by a 3x3 max-pool, a 3x3 stem neither), and BatchNorm's epsilon, which
//! the caller passes. `influence check` verifies these assumptions against logits saved from
//! PyTorch.
//!
//! A tensor that the inferred network does not use may belong to a computation that it lacks.
//! Therefore it is an error, which names the tensor.
//!
//! He et al., *Deep Residual Learning for Image Recognition* (CVPR 2016); Huang et al., *Densely
//! Connected Convolutional Networks* (CVPR 2017).

mod densenet;
mod named;
mod resnet;
mod shapes;
mod telltale;

use std::collections::HashSet;

use burn::tensor::Device;

pub use densenet::DenseNet;
pub use resnet::ResNet;

use crate::names::entries;
use crate::weights::{Checkpoint, TensorInfo, normal};
use crate::{Error, Network};
use shapes::Shapes;

/// What BatchNorm adds to the variance by default: PyTorch's value.
pub const TORCH_EPSILON: f64 = 1e-5;

/// A network built to match a file, without the weights loaded.
#[derive(Debug, Clone)]
pub struct Published {
    /// The network; [`weights::load`](crate::weights::load) takes it and the file.
    pub network: Network,
    /// Torchvision's name for it ("resnet18"), or only the kind if there is none ("resnet").
    pub name: String,
    /// What was inferred from the file and what was assumed, in one line without the name.
    pub form: String,
}

/// Builds the ResNet or DenseNet whose weights a file contains under torchvision's names, for
/// images of shape `image` [C, H, W]. `None` if the names are not torchvision's.
///
/// # Errors
///
/// [`Error::Form`] if a tensor is missing, has a shape inconsistent with the others, or belongs to
/// a variant that computes something else; [`Error::Images`] for images that the network does not
/// accept.
pub fn published(
    checkpoint: &Checkpoint<'_>,
    image: [usize; 3],
    epsilon: f64,
    device: &Device,
) -> Result<Option<Published>, Error> {
    let shapes = Shapes::new(checkpoint, epsilon, device);
    let Some(family) = shapes.family() else { return Ok(None) };
    // Checked first: a variant also lacks tensors of the plain form, but naming the variant is the
    // better message.
    if let Some((tensor, why)) = checkpoint.tensors().iter().find_map(telling) {
        return shapes.fault(tensor, why);
    }
    let published = match family {
        PublishedFamily::ResNet => resnet::read(&shapes, image)?,
        PublishedFamily::DenseNet => densenet::read(&shapes, image)?,
    };
    refuse_others(checkpoint, &shapes, &published)?;
    Ok(Some(published))
}

/// The family to which a file's names belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PublishedFamily {
    ResNet,
    DenseNet,
}

/// The name of a tensor that only a variant has, and what it belongs to.
fn telling(tensor: &TensorInfo) -> Option<(&str, &'static str)> {
    // Counts of training steps are skipped; the tensors next to them give a better message.
    let counts = tensor.name.ends_with("num_batches_tracked");
    let why = telltale::of(&normal(&tensor.name)).filter(|_| !counts);
    why.map(|why| (tensor.name.as_str(), why))
}

/// Refuses a tensor that the inferred network does not use.
fn refuse_others(
    checkpoint: &Checkpoint<'_>,
    shapes: &Shapes<'_>,
    published: &Published,
) -> Result<(), Error> {
    let names: HashSet<String> =
        entries(&published.network).iter().map(|entry| normal(&entry.name).into_owned()).collect();
    let is_stranger = |tensor: &&TensorInfo| {
        let name = normal(&tensor.name);
        !name.ends_with("num_batches_tracked") && !names.contains(name.as_ref())
    };
    match checkpoint.tensors().iter().find(is_stranger) {
        None => Ok(()),
        Some(tensor) => {
            let name = &published.name;
            let why = format!(
                "does not belong to a {name} in torchvision's form, so this network computes \
                         something else"
            );
            shapes.fault(&tensor.name, why)
        }
    }
}

/// Sizes of images for messages, as in "images of 3x224x224".
pub(crate) fn sizes([channels, height, width]: [usize; 3]) -> String {
    format!("{channels}x{height}x{width}")
}
