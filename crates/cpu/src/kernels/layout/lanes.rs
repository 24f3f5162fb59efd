//! Rows of many lines at once: `[channel][line]`, so that a vector holds lines of one channel.
//!
//! Up to [`MOST_LINES`](crate::kernels::MOST_LINES) lines a row is `[line][channel]`, and what a
//! mask leaves out are lanes. Rows of [`LANE_LINES`] lines are the other way round: what a mask
//! leaves out are whole vectors, on the side that is read and on the side that is written, on every
//! instruction set and without permutations. Blocks of rows begin where they do for fewer lines
//! ([`LineLayout::block`]); offsets and pitches count channels.

use std::ops::Range;

use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, LineLayout, every, part};
use crate::kernels::simd::SimdFloat;

/// Lines of a row in lanes: two vectors of the widest set in f32, whole vectors of every set.
pub(crate) const LANE_LINES: usize = 32;

/// The lines of one channel of a row.
pub(crate) type LaneLines<T> = [T; LANE_LINES];

/// Whether rows of so many lines are `[channel][line]`.
#[inline(always)]
pub(crate) fn in_lanes(lines: usize) -> bool {
    lines == LANE_LINES
}

/// Neighbouring channels of one row: channel `ids[a]` has the lines `values[a]`, all others are
/// zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneRow<'a, T> {
    /// Ascending.
    pub(crate) ids: &'a [u16],
    pub(crate) values: &'a [LaneLines<T>],
}

impl<'a, T: SimdFloat> Cotangents<'a, T> {
    /// Some channels of a row in lanes.
    #[inline(always)]
    pub(crate) fn lanes(&self, row: usize, channels: Range<usize>) -> LaneRow<'a, T> {
        let (at, ids) = match self.layout {
            LineLayout::Dense { offset, .. } => (offset + channels.start, every(channels)),
            LineLayout::Compressed(active) => part(active, row, channels.start, channels.len()),
        };
        let values = &self.values[self.layout.block(row, LANE_LINES)..];
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

/// Where the first channels of a row lie.
#[derive(Debug, Clone, Copy)]
enum FirstChannel {
    /// Of all channels, the first.
    OfAll(usize),
    /// Of the channels that are computed, the first.
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
    pub(crate) fn clear<T: SimdFloat>(&self, block: &mut [LaneLines<T>]) {
        if let Some((first, end)) = self.zeros {
            block[first..end].as_flattened_mut().fill(T::default());
        }
    }

    /// Adds a row's channels to the block, or writes them there, times the factors of each channel.
    #[inline(always)]
    pub(crate) fn deliver<T: SimdFloat>(
        &self,
        row: LaneRow<'_, T>,
        factor: impl Fn(usize) -> T,
        add: bool,
        block: &mut [LaneLines<T>],
    ) {
        if !add {
            self.clear(block);
        }
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
