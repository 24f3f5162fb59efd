//! Cotangents in memory: V lines for each row, dense or compressed by a mask.

use std::ops::Range;
use std::sync::LazyLock;

use crate::kernels::arch;
use crate::kernels::layout::active::{Active, PAD};
use crate::kernels::layout::rows::fetch;
use crate::kernels::simd::{InstructionSet, SimdFloat, equally_long};

/// How the V lines of rows are laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LineLayout<'a> {
    /// `[row][V][pitch]`, of which the `channels` channels from `offset` on belong to the value.
    Dense {
        /// Elements from one line to the next.
        pitch: usize,
        /// The first channel in a line.
        offset: usize,
        /// How many channels there are.
        channels: usize,
    },
    /// `[row][V][active channel]`, see [`Active`]: inactive channels are zero.
    Compressed(&'a Active),
}

impl LineLayout<'_> {
    /// How many channels a line has, active or not.
    #[must_use]
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::Dense { channels, .. } => *channels,
            Self::Compressed(active) => active.channels(),
        }
    }

    /// How many elements a buffer of `rows` rows needs: the lines, and what a kernel may read after
    /// them. That is two vectors, and one more line where a value's lines begin within the
    /// buffer's.
    #[must_use]
    pub(crate) fn size(&self, rows: usize, lines: usize) -> usize {
        let more = match self {
            Self::Dense { pitch, .. } => *pitch,
            Self::Compressed(_) => 0,
        };
        self.block(rows, lines) + more + 2 * PAD
    }

    /// Elements from one line of a row to the next.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn stride(&self, row: usize) -> usize {
        match self {
            Self::Dense { pitch, .. } => *pitch,
            Self::Compressed(active) => active.stride(row),
        }
    }

    /// Where the first element of a row is in the buffer.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn begin(&self, row: usize, lines: usize) -> usize {
        match self {
            Self::Dense { offset, .. } => self.block(row, lines) + offset,
            Self::Compressed(_) => self.block(row, lines),
        }
    }

    /// Where the lines of a row begin in the buffer.
    #[inline(always)]
    pub(crate) fn block(&self, row: usize, lines: usize) -> usize {
        match self {
            Self::Dense { pitch, .. } => row * lines * pitch,
            Self::Compressed(active) => active.block(row, lines),
        }
    }
}

/// Cotangents to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cotangents<'a, T> {
    /// The buffer.
    pub(crate) values: &'a [T],
    /// How it is laid out.
    pub(crate) layout: LineLayout<'a>,
}

/// The lines of one row: line v has the element `values[v * stride + a]` for channel `ids[a]`. So
/// dense and compressed lines are read alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines<'a, T> {
    pub(crate) ids: &'a [u16],
    pub(crate) values: &'a [T],
    pub(crate) stride: usize,
}

impl<'a, T> Lines<'a, T> {
    /// The elements of each line.
    #[inline(always)]
    pub(crate) fn each<const V: usize>(&self) -> [&'a [T]; V] {
        equally_long(self.ids.len(), |line| &self.values[line * self.stride..])
    }
}

/// The list of all channels, for dense lines.
static EVERY: LazyLock<Vec<u16>> = LazyLock::new(|| (0..=u16::MAX).collect());

/// A list of neighbouring channels.
#[inline(always)]
pub(crate) fn every(channels: Range<usize>) -> &'static [u16] {
    &EVERY[channels]
}

impl<'a, T: SimdFloat> Cotangents<'a, T> {
    /// The lines of one row, V strides long.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize, lines: usize) -> Lines<'a, T> {
        match self.layout {
            LineLayout::Dense { pitch, offset, channels } => Lines {
                ids: every(0..channels),
                values: &self.values[row * lines * pitch + offset..][..lines * pitch],
                stride: pitch,
            },
            LineLayout::Compressed(active) => {
                let stride = active.stride(row);
                let values = &self.values[active.block(row, lines)..][..lines * stride];
                Lines { ids: active.list(row), values, stride }
            }
        }
    }

    /// The lines of one row, with only some neighbouring channels.
    #[inline(always)]
    pub(crate) fn part(&self, row: usize, lines: usize, channels: Range<usize>) -> Lines<'a, T> {
        let Lines { ids, values, stride } = self.row(row, lines);
        let (at, ids) = match self.layout {
            LineLayout::Dense { .. } => (channels.start, &ids[channels]),
            LineLayout::Compressed(active) => part(active, row, channels.start, channels.len()),
        };
        Lines { ids, values: &values[at..], stride }
    }

    /// Fetches some channels of the lines of a row into the L2 cache.
    #[inline(always)]
    pub(crate) fn fetch(&self, row: usize, lines: usize, channels: Range<usize>) {
        // Compressed lines follow one another without gaps: all channels are one run.
        if let (LineLayout::Compressed(_), true) = (self.layout, channels.len() == self.layout.channels()) {
            return fetch(self.row(row, lines).values);
        }
        let Lines { ids, values, stride } = self.part(row, lines, channels);
        for line in 0..lines {
            fetch(&values[line * stride..][..ids.len()]);
        }
    }

    /// Writes some channels of the lines of a row in full, `[V][channel]`.
    pub(crate) fn expand(
        &self,
        set: InstructionSet,
        row: usize,
        lines: usize,
        channels: Range<usize>,
        out: &mut [T],
    ) {
        if arch::expand(set, self, row, lines, channels.clone(), out) {
            return;
        }
        let (width, whole) = (channels.len(), self.layout.channels());
        let Lines { ids, values, stride } = self.row(row, lines);
        for (line, out) in out.chunks_exact_mut(width).enumerate() {
            let values = &values[line * stride..][..ids.len()];
            // A line of all channels, dense or with all of them active: an element lies at its
            // channel.
            if ids.len() == whole {
                out.copy_from_slice(&values[channels.clone()]);
                continue;
            }
            out.fill(T::default());
            for (id, value) in ids.iter().map(|id| *id as usize).zip(values) {
                if channels.contains(&id) {
                    out[id - channels.start] = *value;
                }
            }
        }
    }
}

/// Multiplies each channel of lines, which follow one another without gaps, by its factor.
#[inline(always)]
pub(crate) fn scale_lines<T: SimdFloat>(lines: &mut [T], scale: &[T]) {
    for line in lines.chunks_exact_mut(scale.len()) {
        line.iter_mut().zip(scale).for_each(|(x, s)| *x = *x * *s);
    }
}

/// Where the results of a step of the reverse pass go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum CotangentTarget<'a> {
    /// To these lines; what a mask has switched off is not computed.
    Lines(LineLayout<'a>),
    /// To dense lines where a mask is on, zeros where it is off.
    Masked {
        /// The mask.
        active: &'a Active,
        /// Elements from one line to the next.
        pitch: usize,
        /// The first channel in a line.
        offset: usize,
    },
}

impl<'a> CotangentTarget<'a> {
    /// The mask that says which channels are computed, if there is one.
    #[inline(always)]
    pub(crate) fn active(&self) -> Option<&'a Active> {
        match self {
            Self::Lines(LineLayout::Compressed(active)) | Self::Masked { active, .. } => Some(active),
            Self::Lines(LineLayout::Dense { .. }) => None,
        }
    }

    /// How many elements a buffer of `rows` rows needs.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn size(&self, rows: usize, lines: usize) -> usize {
        match *self {
            Self::Lines(layout) => layout.size(rows, lines),
            Self::Masked { active, pitch, offset } => {
                LineLayout::Dense { pitch, offset, channels: active.channels() }.size(rows, lines)
            }
        }
    }

    /// Where the lines of a row begin in the buffer.
    #[inline(always)]
    pub(crate) fn block(&self, row: usize, lines: usize) -> usize {
        match self {
            Self::Lines(layout) => layout.block(row, lines),
            Self::Masked { pitch, .. } => row * lines * pitch,
        }
    }

    /// Adds some channels of a row to its block, or writes them there.
    pub(crate) fn deliver<T: SimdFloat>(
        &self,
        set: InstructionSet,
        tile: RowTile<'_, T>,
        add: bool,
        block: &mut [T],
    ) {
        if arch::deliver(set, *self, tile, add, block) {
            return;
        }
        // The tile has every channel from `first` on. A layout decides which of them are kept, and
        // where.
        let RowTile { row, first, width, values, stride } = tile;
        let tiles = values.chunks_exact(stride).map(|tile| &tile[..width]);
        let sum = |old: T, new: T| if add { old + new } else { new };
        match *self {
            Self::Lines(LineLayout::Dense { pitch, offset, .. }) => {
                // All of them, each at its own channel.
                for (line, tile) in tiles.enumerate() {
                    let out = &mut block[line * pitch + offset + first..][..width];
                    out.iter_mut().zip(tile).for_each(|(out, new)| *out = sum(*out, *new));
                }
            }
            Self::Masked { active, pitch, offset } => {
                // The active ones, each at its own channel. Where nothing is added to, the line may
                // hold anything: zeros come first, for the channels that are off.
                let (_, ids) = part(active, row, first, width);
                for (line, tile) in tiles.enumerate() {
                    let out = &mut block[line * pitch + offset..];
                    if !add {
                        out[first..first + width].fill(T::default());
                    }
                    for id in ids.iter().map(|id| usize::from(*id)) {
                        out[id] = sum(out[id], tile[id - first]);
                    }
                }
            }
            Self::Lines(LineLayout::Compressed(active)) => {
                // The active ones side by side, from their index in the row's list on. What is off
                // has no place.
                let (at, ids) = part(active, row, first, width);
                for (line, tile) in tiles.enumerate() {
                    let out = &mut block[line * active.stride(row) + at..];
                    let kept = ids.iter().map(|id| tile[usize::from(*id) - first]);
                    out.iter_mut().zip(kept).for_each(|(out, new)| *out = sum(*out, new));
                }
            }
        }
    }
}

/// Neighbouring channels of a row's lines in full, active or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowTile<'a, T> {
    pub(crate) row: usize,
    /// The first channel.
    pub(crate) first: usize,
    /// How many channels.
    pub(crate) width: usize,
    pub(crate) values: &'a [T],
    /// Elements from one line to the next.
    pub(crate) stride: usize,
}

/// The active channels of a row among `width` from `first` on, and how many come before them.
#[inline(always)]
pub(crate) fn part(active: &Active, row: usize, first: usize, width: usize) -> (usize, &[u16]) {
    // The list ascends, so that the channels lie side by side in it.
    let list = active.list(row);
    let at = active.before(row, first);
    let rest = &list[at..];
    // Up to the last channel nothing has to be counted: the list ends there.
    let end = (first + width).min(active.channels());
    let count = if end == active.channels() { rest.len() } else { active.before(row, end) - at };
    (at, &rest[..count])
}
