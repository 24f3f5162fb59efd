//! Matrix products over rows of channels that skip what a ReLU has switched off.
//!
//! The cotangents of one sample, K - 1 of them for a classifier of K classes, share the sample's masks: at each position only the active
//! channels carry a cotangent, for all K - 1 at once. [`Pullback`] reads, and where the instruction set allows writes, nothing else.
//! [`Product`] is the forward pass that goes with it. Neither knows of graphs, strides or padding: which rows a row reads is a [`Table`].
//! Convolutions over 3 x 3 neighbours can be taken in Winograd's form, with fewer products, where all channels are computed ([`Patches`]).
//!
//! # Notation
//!
//! | word | meaning |
//! |---|---|
//! | row | one position of one sample; the rows of a batch are numbered sample by sample |
//! | channels | the numbers of a row, neighbours in memory |
//! | tap | one place of a convolution's kernel, or of a window |
//! | line | one of V cotangents of a row |
//! | active | not switched off by a ReLU |
//!
//! # Accuracy
//!
//! Sums run over taps and then channels, one product after the other, in dense products each fused with its sum where the set has such an
//! instruction; by [`Patches`] over channels at each frequency. A row's result has the same bits whatever else is computed, on any number of threads; it differs between instruction sets by rounding.

mod active;
mod channels;
mod channelwise;
mod cotangent;
#[cfg(target_arch = "x86_64")]
mod expand;
mod gather;
#[cfg(target_arch = "x86_64")]
mod masks;
mod outer;
mod pairs;
mod panels;
mod patched;
mod patched_outer;
mod patches;
mod pool;
mod product;
mod pullback;
mod rows;
mod simd;
mod spread;
#[cfg(target_arch = "x86_64")]
mod stage;
mod sums;
mod table;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(target_arch = "x86_64")]
mod wide_sums;
#[cfg(target_arch = "x86_64")]
mod windows;
mod winograd;

pub use active::{Active, PAD};
pub use channels::{At, ByChannel, gram_of};
pub use channelwise::Channelwise;
pub use cotangent::{Cotangents, Layout, Target};
pub use gather::{Gather, Share};
pub use outer::Outer;
pub use pairs::Pairs;
pub use panels::Panels;
pub use patches::Patches;
pub use pool::Rowwise;
pub use product::{Place, Product};
pub use pullback::{MOST_LINES, Pullback, Start};
pub use rows::{Chunk, Dense};
pub use simd::{Element, InstructionSet};
pub use spread::Spread;
pub use sums::Normalized;
pub use table::{Link, Links, Table};
pub use winograd::Form;
