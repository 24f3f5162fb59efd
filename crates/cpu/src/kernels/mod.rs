//! Kernels over rows of channels, which skip what a ReLU has switched off.
//!
//! The cotangents of one sample, K - 1 of them for a classifier of K classes, share the sample's
//! masks: at each position only the active channels carry a cotangent, for all K - 1 at once.
//! [`Pullback`] reads nothing else, and writes nothing else where the instruction set allows.
//! [`Product`] is the forward pass that goes with it. No kernel knows of graphs, strides or
//! padding: which rows a row reads is a [`RowTable`]. Convolutions over 3 x 3 neighbours can be
//! taken in Winograd's form, with fewer products, where all channels are computed ([`Patches`]).
//!
//! Generic loops are written once over `pulp::Simd`; what an instruction set does faster is in
//! `arch`. `twins` tests every kernel on every set against plain loops.
//!
//! # Notation
//!
//! | word | meaning |
//! |---|---|
//! | row | one position of one sample; the rows of a batch are numbered sample by sample |
//! | position | index of a row within its sample |
//! | channels | the elements of a row, neighbours in memory |
//! | tap | one element of a convolution's kernel, or of a window |
//! | line | one of V cotangents of a row |
//! | pitch, stride | elements from one row, or line, to the next |
//! | active | not switched off by a ReLU |
//! | live | a row that something reads; no other is computed |
//! | slopes | derivatives of a function of each element, kept by the forward pass |
//!
//! # Accuracy
//!
//! Sums run over taps and then channels, one product after the other, each fused with its sum where
//! the set has such an instruction; by [`Patches`] over channels at each frequency. A row's result
//! is bit-identical whatever else is computed, on any number of threads. Between instruction sets
//! it differs by rounding.

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
pub(crate) use self::forward::combine::{Combine, How, Repetition};
pub(crate) use self::forward::pointwise::{ChainPart, Pointwise};
pub(crate) use self::forward::pool::{Rowwise, Shares};
pub(crate) use self::forward::product::{Product, RowLayout};
pub(crate) use self::forward::within::{Within, WithinRow};
pub(crate) use self::gram::channels::{ByChannel, SampleCotangents, gram_of};
pub(crate) use self::gram::depthwise::ChannelwiseGram;
pub(crate) use self::gram::elements::ElementsOf;
pub(crate) use self::gram::outer::TileGram;
pub(crate) use self::gram::pairs::PairGram;
pub(crate) use self::gram::sums::Normalized;
pub(crate) use self::layout::active::{Active, PAD};
pub(crate) use self::layout::cotangent::{CotangentTarget, Cotangents, LineLayout};
pub(crate) use self::layout::lanes::{FEW_LANES, MANY_LANES, carried, has_few_lanes, in_lanes};
pub(crate) use self::layout::lines::{MOST_LINES, lines_for};
pub(crate) use self::layout::moves::{Moves, MovesPullback};
pub(crate) use self::layout::panels::Panels;
pub(crate) use self::layout::rows::DenseRows;
pub(crate) use self::layout::table::{Links, RowTable};
pub(crate) use self::matrices::{Matrices, MatricesPullback, MatrixOperand, MatrixRole, Stride};
pub(crate) use self::reverse::gather::{GatherPullback, Share};
pub(crate) use self::reverse::pullback::{Pullback, Start};
pub(crate) use self::reverse::scaled::{RowFactor, ScaledPullback};
pub(crate) use self::reverse::spread::SpreadPullback;
pub(crate) use self::reverse::within::WithinPullback;
pub use self::simd::InstructionSet;
pub(crate) use self::simd::{FEW_CHANNELS, SimdFloat};
pub(crate) use self::winograd::form::WinogradForm;
pub(crate) use self::winograd::patches::Patches;
