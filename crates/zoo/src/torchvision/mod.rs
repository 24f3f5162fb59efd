//! The ResNets and DenseNets of torchvision and timm, built to fit a file of their weights.
//!
//! Nothing is configured: depth, kind of block, widths, groups, biases, stem and number of classes
//! are read off the names and shapes of the file's tensors, and [`Published::form`] says what was
//! read. Three things are in no file and are taken as torchvision has them: strides (2 in the first
//! block of each later stage, in its 3x3 convolution), the pool behind the stem (a 7x7 stem has
//! stride 2 and a 3x3 max-pool behind it, a 3x3 stem neither), and BatchNorm's epsilon, which the
//! caller gives. Logits saved from PyTorch tell whether that is so: `influence check`.
//!
//! A tensor that the network as read has no use for may stand for a computation that it lacks, so
//! it is an error that names the tensor.
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

/// What BatchNorm adds to the variance unless told otherwise: PyTorch's default.
pub const TORCH_EPSILON: f64 = 1e-5;

/// A network built to fit a file, its weights not yet loaded.
#[derive(Debug, Clone)]
pub struct Published {
    /// The network; [`weights::load`](crate::weights::load) takes it and the file.
    pub network: Network,
    /// What torchvision calls it ("resnet18"), or its kind alone where it has no name for it
    /// ("resnet").
    pub name: String,
    /// What was read off the file and what was assumed, in one line without the name.
    pub form: String,
}

/// Builds the ResNet or DenseNet whose weights a file holds under torchvision's names, for images
/// of shape `image` [C, H, W]. None where the names are not torchvision's.
///
/// # Errors
///
/// [`Error::Form`] where a tensor is missing, of a shape that does not go with the others, or of a
/// variant that computes something else; [`Error::Images`] for images that the network does not
/// read.
pub fn published(
    checkpoint: &Checkpoint<'_>,
    image: [usize; 3],
    epsilon: f64,
    device: &Device,
) -> Result<Option<Published>, Error> {
    let shapes = Shapes::new(checkpoint, epsilon, device);
    let Some(family) = shapes.family() else { return Ok(None) };
    // Before what is missing for the same reason.
    if let Some((tensor, why)) = checkpoint.tensors().iter().find_map(telling) {
        return shapes.fault(tensor, why);
    }
    let published = match family {
        Family::ResNet => resnet::read(&shapes, image)?,
        Family::DenseNet => densenet::read(&shapes, image)?,
    };
    refuse_others(checkpoint, &shapes, &published)?;
    Ok(Some(published))
}

/// What a file's names are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    ResNet,
    DenseNet,
}

/// A tensor of a variant, and what it stands for.
fn telling(tensor: &TensorInfo) -> Option<(&str, &'static str)> {
    // A count of training steps stands beside tensors that tell more.
    let counts = tensor.name.ends_with("num_batches_tracked");
    let why = telltale::of(&normal(&tensor.name)).filter(|_| !counts);
    why.map(|why| (tensor.name.as_str(), why))
}

/// Refuses a tensor that the network as read has no use for.
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
            let why =
                format!("is none of a {name} in torchvision's form, so this one computes something else");
            shapes.fault(&tensor.name, why)
        }
    }
}

/// "images of 3x224x224", for messages.
pub(crate) fn sizes([channels, height, width]: [usize; 3]) -> String {
    format!("{channels}x{height}x{width}")
}
