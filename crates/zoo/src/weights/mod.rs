//! Reads and writes weights as [safetensors](https://github.com/huggingface/safetensors) files,
//! under PyTorch's names and in PyTorch's layouts, and reads PyTorch's own `.pt` and `.pth` files
//! of a `state_dict`.
//!
//! Reading trusts nothing and executes nothing. The header is checked completely (names, types,
//! shapes, offsets, the length of the file) before any tensor is read; no size that it claims
//! causes an allocation by itself; and tensors are converted one at a time. All problems of a file
//! are reported at once, with the most similar key for each missing name.
//!
//! `module.rs` contains everything that depends on Burn's module API.

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
pub use dtype::Dtype;
pub use input::Source;
pub use load::load;
pub use report::LoadReport;
pub use save::{save, save_with};
