//! Weights in and out of [safetensors](https://github.com/huggingface/safetensors) files, under PyTorch's
//! names and in PyTorch's layouts.
//!
//! Reading trusts nothing: the header is checked whole (names, types, shapes, offsets, the file's length)
//! before any tensor is read, nothing is allocated on its word alone, and tensors are converted one at a
//! time. All problems of a file are told at once, with the nearest key to each missing name.
//!
//! All that depends on Burn's module API is in `module.rs`.

mod aliases;
mod checkpoint;
mod describe;
mod dtype;
mod fit;
mod header;
mod json;
mod load;
mod module;
mod report;
mod save;
mod write;

pub use checkpoint::{Checkpoint, Source, TensorInfo, Values};
pub use describe::{Description, describe};
pub use dtype::{Dtype, Precision};
pub use load::load;
pub use report::Report;
pub use save::{save, save_with};
