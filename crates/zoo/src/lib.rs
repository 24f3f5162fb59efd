//! The networks of Shu & Zhu, *Sensitivity Analysis of Deep Neural Networks* (AAAI-19), for small
//! images, as [Burn](burn) modules; and reading and writing of their weights under PyTorch's names.
//!
//! - [`ResNet50`] and [`DenseNet121`] as in the paper, at any width or growth, and [`Cnn`], a small
//!   network. [`Network`] is any of them, chosen at run time by an [`Architecture`].
//! - [`torchvision::published`] builds the ResNets and DenseNets of torchvision and timm to match a
//!   file of their weights.
//! - [`weights::load`] reads safetensors and PyTorch's `.pt` and `.pth` files, [`weights::save`]
//!   writes safetensors; [`weights::Checkpoint`] reads a file without a network.
//! - [`names`] converts Burn's paths to PyTorch's names and counts parameters, without BatchNorm's
//!   buffers.
//!
//! Notation: N samples in a batch, C channels, H = W the side of a square image in pixels, K
//! classes. Images are [N, C, H, W] with pixels in [0, 1], logits [N, K].
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use influence_zoo::{Architecture, names};
//!
//! # fn main() -> Result<(), influence_zoo::Error> {
//! let device = Device::flex();
//! let network = "resnet50".parse::<Architecture>()?.with_width(8).init(1, 28, 10, &device)?;
//! let logits = network.forward(Tensor::zeros([2, 1, 28, 28], &device));
//! assert_eq!(logits.dims(), [2, 10]);
//! assert_eq!(names::parameter_count(&network), 386_618);
//! # Ok(())
//! # }
//! ```

mod architecture;
mod cnn;
mod delegate;
mod densenet;
mod error;
mod layers;
mod limits;
mod mismatch;
pub mod names;
mod nearest;
mod resnet;
pub mod torchvision;
pub mod weights;

pub use architecture::{Architecture, Network, NetworkFamily};
pub use cnn::{Cnn, CnnConfig};
pub use densenet::{DenseNet121, DenseNet121Config};
pub use error::Error;
pub use layers::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, DROPOUT};
pub use mismatch::{Mismatch, Misshaped, Missing, Resized, Strangers};
pub use resnet::{ResNet50, ResNet50Config};
