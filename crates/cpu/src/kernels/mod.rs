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

mod arch;
mod forward;
mod gram;
mod layout;
mod matrices;
mod reverse;
mod simd;
#[cfg(test)]
mod twins;
mod winograd;

pub(crate) use self::forward::channelwise::Channelwise;
pub(crate) use self::forward::combine::{Combine, How, Repeat};
pub(crate) use self::forward::pointwise::{Part, Pointwise};
pub(crate) use self::forward::pool::Rowwise;
pub(crate) use self::forward::product::{Place, Product};
pub(crate) use self::forward::within::{Row as WithinRow, Within};
pub(crate) use self::gram::channels::{At, ByChannel, gram_of};
pub(crate) use self::gram::outer::Outer;
pub(crate) use self::gram::pairs::Pairs;
pub(crate) use self::gram::sums::Normalized;
pub(crate) use self::layout::active::{Active, PAD};
pub(crate) use self::layout::cotangent::{Cotangents, Layout, Target};
pub(crate) use self::layout::moves::{MovedBack, Moves};
pub(crate) use self::layout::panels::Panels;
pub(crate) use self::layout::rows::Dense;
pub(crate) use self::layout::table::{Links, Table};
pub(crate) use self::matrices::{Matrices, Operand as MatrixOperand, PulledMatrices, Step};
pub(crate) use self::reverse::gather::{Gather, Share};
pub(crate) use self::reverse::pullback::{MOST_LINES, Pullback, Start};
pub(crate) use self::reverse::scaled::{Factor, Scaled};
pub(crate) use self::reverse::spread::Spread;
pub(crate) use self::reverse::within::PulledWithin;
pub(crate) use self::simd::Element;
pub use self::simd::InstructionSet;
pub(crate) use self::winograd::form::Form;
pub(crate) use self::winograd::patches::Patches;
