//! Rows of lines in lanes: `[channel][line]`, so that a vector holds lines of one channel.
//!
//! In rows that are `[line][channel]`, of up to [`MOST_LINES`] lines, a mask leaves out single
//! lanes of a vector: it takes permutations to skip them on the side that is written ([windows]).
//! In lanes a mask leaves out whole vectors, on both sides and on every instruction set. That pays
//! where lines fill the vectors: [`MANY_LANES`] of them on every set, and [`FEW_LANES`] on sets
//! with vectors of eight elements or fewer. Lines that have no cotangents are zero. Blocks of rows
//! begin where they do for `[line][channel]` ([`LineLayout::block`]). Offsets and pitches count
//! channels.
//!
//! [windows]: crate::kernels::reverse::pullback

use std::ops::Range;

use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, LineLayout, every, part};
use crate::kernels::layout::lines::MOST_LINES;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// Lines of a row in lanes: two vectors of the widest set in f32.
pub(crate) const MANY_LANES: usize = 32;

/// Lines of a row in lanes on sets with shorter vectors, for the nine cotangents of ten classes:
/// eight lines that are taken as vectors ([`IN_VECTORS`]), one that is not, and one of zeros. (With
/// the tenth line their number says how they lie: nine may be `[line][channel]` too.)
pub(crate) const FEW_LANES: usize = 10;

/// How many of [`FEW_LANES`] lines products take as vectors of lines. The next one is taken as
/// vectors of channels.
pub(crate) const IN_VECTORS: usize = 8;

/// How many cotangents lines in lanes carry.
pub(crate) const fn carried(lines: usize) -> usize {
    if lines == FEW_LANES { IN_VECTORS + 1 } else { lines }
}

/// The lines of one channel of a row.
pub(crate) type LaneLines<T, const L: usize> = [T; L];

/// Whether rows of so many lines are `[channel][line]`.
#[inline(always)]
pub(crate) fn in_lanes(lines: usize) -> bool {
    lines > MOST_LINES
}

/// Whether rows of [`FEW_LANES`] lines have kernels on a set.
pub(crate) fn has_few_lanes(set: InstructionSet) -> bool {
    set != InstructionSet::Avx512
}

/// Evaluates an expression with the number of lines in lanes as a constant.
macro_rules! by_lanes {
    ($lines:expr, |$count:ident| $call:expr) => {
        match $lines {
            $crate::kernels::layout::lanes::FEW_LANES => {
                const $count: usize = $crate::kernels::layout::lanes::FEW_LANES;
                $call
            }
            _ => {
                const $count: usize = $crate::kernels::layout::lanes::MANY_LANES;
                $call
            }
        }
    };
}
pub(crate) use by_lanes;

/// Neighbouring channels of one row: channel `ids[a]` has the lines `values[a]`, all others are
/// zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneRow<'a, T, const L: usize> {
    /// Ascending.
    pub(crate) ids: &'a [u16],
    pub(crate) values: &'a [LaneLines<T, L>],
}

impl<'a, T: SimdFloat> Cotangents<'a, T> {
    /// Some channels of a row in lanes.
    #[inline(always)]
    pub(crate) fn lanes<const L: usize>(&self, row: usize, channels: Range<usize>) -> LaneRow<'a, T, L> {
        let (at, ids) = match self.layout {
            LineLayout::Dense { offset, .. } => (offset + channels.start, every(channels)),
            LineLayout::Compressed(active) => part(active, row, channels.start, channels.len()),
        };
        let values = &self.values[self.layout.block(row, L)..];
        LaneRow { ids, values: &values.as_chunks().0[at..at + ids.len()] }
    }
}

/// Where neighbouring channels of a row of a target go, in lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneTarget<'a> {
    /// The channels that are computed, ascending.
    pub(crate) ids: &'a [u16],
    /// All channels that belong to them in the row's block, where some of them are not computed:
    /// those are zero.
    zeros: Option<(usize, usize)>,
    first: FirstChannel,
}

/// Where the channels of a row lie in its block.
#[derive(Debug, Clone, Copy)]
enum FirstChannel {
    /// The block has all channels, computed or not, and channel 0 is at this place.
    OfAll(usize),
    /// The block has only computed channels, and the first of these is at this place.
    OfComputed(usize),
}

impl<'a> CotangentTarget<'a> {
    /// Some channels of a row in lanes.
    #[inline(always)]
    pub(crate) fn lanes(&self, row: usize, channels: Range<usize>) -> LaneTarget<'a> {
        match *self {
            Self::Lines(LineLayout::Dense { offset, .. }) => {
                LaneTarget { ids: every(channels), zeros: None, first: FirstChannel::OfAll(offset) }
            }
            Self::Lines(LineLayout::Compressed(active)) => {
                let (at, ids) = part(active, row, channels.start, channels.len());
                LaneTarget { ids, zeros: None, first: FirstChannel::OfComputed(at) }
            }
            Self::Masked { active, offset, .. } => {
                let (_, ids) = part(active, row, channels.start, channels.len());
                let zeros = Some((offset + channels.start, offset + channels.end));
                LaneTarget { ids, zeros, first: FirstChannel::OfAll(offset) }
            }
        }
    }
}

impl LaneTarget<'_> {
    /// Where the lines of the computed channel `ids[index]` are in the row's block.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> usize {
        match self.first {
            FirstChannel::OfAll(first) => first + usize::from(self.ids[index]),
            FirstChannel::OfComputed(first) => first + index,
        }
    }

    /// Writes zeros to the channels that are not computed, before results are written.
    #[inline(always)]
    pub(crate) fn clear<T: SimdFloat, const L: usize>(&self, block: &mut [LaneLines<T, L>]) {
        if let Some((first, end)) = self.zeros {
            block[first..end].as_flattened_mut().fill(T::default());
        }
    }

    /// Adds a row's channels to the block, or writes them there, times the factors of each channel.
    #[inline(always)]
    pub(crate) fn deliver<T: SimdFloat, const L: usize>(
        &self,
        row: LaneRow<'_, T, L>,
        factor: impl Fn(usize) -> T,
        add: bool,
        block: &mut [LaneLines<T, L>],
    ) {
        if !add {
            self.clear(block);
        }
        // Both lists ascend: the row's is walked along the target's.
        let mut own = row.ids.iter().zip(row.values).peekable();
        for (index, &id) in self.ids.iter().enumerate() {
            while own.next_if(|(other, _)| **other < id).is_some() {}
            let out = &mut block[self.at(index)];
            match own.next_if(|(other, _)| **other == id) {
                Some((_, lines)) => {
                    let factor = factor(usize::from(id));
                    for (out, x) in out.iter_mut().zip(lines) {
                        *out = if add { *out + *x * factor } else { *x * factor };
                    }
                }
                None if !add => out.fill(T::default()),
                None => {}
            }
        }
    }
}
