//! Weights in and out of [safetensors](https://github.com/huggingface/safetensors) files, under
//! PyTorch's names and in PyTorch's layouts, and in from PyTorch's own `.pt` and `.pth` files of a
//! `state_dict`.
//!
//! Reading trusts nothing and runs nothing: the header is checked whole (names, types, shapes,
//! offsets, the file's length) before any tensor is read, nothing is allocated on its word alone,
//! and tensors are converted one at a time. All problems of a file are told at once, with the
//! nearest key to each missing name.
//!
//! All that depends on Burn's module API is in `module.rs`.

mod aliases;
mod checkpoint;
mod describe;
mod dtype;
mod fit;
mod foreign;
mod header;
mod input;
mod json;
mod layout;
mod load;
mod module;
mod report;
mod save;
mod torch;
mod write;

pub(crate) use aliases::normal;
pub use checkpoint::{Checkpoint, TensorInfo, Values};
pub use describe::{Description, describe};
pub use dtype::{Dtype, Precision};
pub use input::Source;
pub use load::load;
pub use report::Report;
pub use save::{save, save_with};
