//! Reads MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 in their official file formats, picture
//! files, and array files; and contains a small embedded sample.
//!
//! A [`Dataset`] is one [`Split`] of images with their labels, kept as raw bytes: `N` images of
//! shape `[C, H, W]` (channels, height, width; one plane per channel, rows from the top), one byte
//! per value. [`Dataset::write_scaled`] converts them to the values in `[0, 1]` that networks take.
//! A [`Selection`] names some of the images: `0..8,12`.
//!
//! ```
//! use influence_data::{Dataset, Selection};
//!
//! # fn main() -> Result<(), influence_data::Error> {
//! let digits = Dataset::embedded();
//! assert_eq!((digits.len(), digits.shape(), digits.classes()), (100, [1, 28, 28], 10));
//!
//! let chosen = "0..2,12".parse::<Selection>()?.resolve(digits.len())?;
//! assert_eq!(chosen, [0, 1, 12]);
//! let inputs: Vec<f32> = digits.batch(&chosen); // [3, 1, 28, 28], in [0, 1]
//! assert_eq!(inputs.len(), 3 * 28 * 28);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees for faulty files
//!
//! Files are read as if an adversary had written them. Whatever they contain, the result is a
//! [`Dataset`] or an [`Error`] that names the file, the byte and the remedy. Nothing panics, and
//! what a header claims causes no allocation by itself: at most about twice the contents that are
//! really there are allocated, and at most [`MAX_DECOMPRESSED`] bytes are read from a gzip file.

mod arrays;
mod cifar;
mod container;
mod dataset;
mod error;
mod foreign;
mod idx;
mod kind;
mod locate;
mod matrix;
mod mnist;
mod names;
mod npy;
mod pictures;
mod pixel;
pub mod sample;
mod selection;
mod source;
#[cfg(test)]
mod trickle;

pub use arrays::Arrays;
pub use dataset::Dataset;
pub use error::Error;
pub use kind::{DatasetKind, Split};
pub use locate::files;
pub use matrix::Matrix;
pub use pictures::{Listing, OnError, Pictures, Recipe, Refused, Resize};
pub use pixel::Pixel;
pub use selection::Selection;
pub use source::MAX_DECOMPRESSED;
