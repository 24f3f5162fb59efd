//! Which channels of each row a ReLU has left on.
//!
//! The mask of a row is kept twice: as words of 32 bits, and as the ascending list of its active
//! channels. Cotangents of what the ReLU reads are stored compressed: for each row a block of V
//! lines, each with the values of only the active channels, and after them [`PAD`] elements more,
//! which let a kernel store whole vectors.
//!
//! ```text
//! channels 0..8, active 1 2 5 7:   word 0b10100110   list [1, 2, 5, 7]
//! block of the row, V = 2:         [g0(1) g0(2) g0(5) g0(7) | g1(1) g1(2) g1(5) g1(7) | PAD]
//! ```

use std::ops::Range;

use rayon::prelude::*;

use crate::kernels::arch;
use crate::kernels::layout::rows::{DenseRows, chunks, tasks};
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// Elements after the lines of a compressed row: one vector of any instruction set.
pub(crate) const PAD: usize = 16;

/// Rows that a task has. With fewer, handing out tasks takes longer than looking at their rows;
/// with more, a batch of few rows leaves threads idle.
const TASK: usize = 256;

/// The active channels of all rows of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Active {
    channels: usize,
    /// Words per row: one more than its channels fill, so that 32 bits may be read from any channel
    /// on.
    pitch: usize,
    words: Vec<u32>,
    /// The lists, one after the other, and [`PAD`] zeros.
    ids: Vec<u16>,
    /// Where the list of each row begins; one more than there are rows.
    starts: Vec<usize>,
}

impl Active {
    /// The most channels that a list can name.
    pub(crate) const MOST_CHANNELS: usize = 1 << 16;

    /// Makes a channel active where it is positive, in those of `rows` rows that are live. The
    /// others have no active channel.
    #[must_use]
    pub(crate) fn positive<T: SimdFloat>(
        set: InstructionSet,
        values: DenseRows<'_, T>,
        rows: usize,
        live: impl Fn(usize) -> bool + Sync,
    ) -> Self {
        // Each task sets the words and counts the bits of its own rows. The lists follow when all
        // are counted: the counts say where each row's list begins.
        let pitch = values.channels.div_ceil(32) + 1;
        let mut words = vec![0_u32; rows * pitch];
        let mut counts = vec![0; rows];
        let each = words.par_chunks_mut(pitch * TASK).zip(counts.par_chunks_mut(TASK)).enumerate();
        each.for_each(|(task, (words, counts))| {
            let mut positive = Positive { values, live: &live, first: task * TASK, words, counts };
            if !arch::positive(set, &mut positive) {
                positive.one_by_one();
            }
        });
        Self::from_words(set, values.channels, words, &counts)
    }

    /// Rows given as words of 32 channels, each row with one word of zeros after it, and how many
    /// bits of each row are set.
    fn from_words(set: InstructionSet, channels: usize, words: Vec<u32>, counts: &[usize]) -> Self {
        // The list of a row begins where those of all rows before it end.
        let mut starts = Vec::with_capacity(counts.len() + 1);
        let mut total = 0;
        starts.push(0);
        starts.extend(counts.iter().map(|count| {
            total += count;
            total
        }));
        let pitch = channels.div_ceil(32) + 1;
        let mut this = Self { channels, pitch, words, ids: vec![0; total + PAD], starts };
        this.write_lists(set);
        this
    }

    /// Writes the lists from the words.
    fn write_lists(&mut self, set: InstructionSet) {
        let rows = self.starts.len() - 1;
        let (words, starts, pitch) = (&self.words, &self.starts, self.pitch);
        let ends = |row: usize| starts[row];
        let parts = chunks(&mut self.ids, rows, tasks(rows, TASK), ends);
        parts.into_par_iter().for_each(|part| {
            let words = &words[part.rows.start * pitch..part.rows.end * pitch];
            list(set, words, pitch, part.values);
        });
    }

    /// Rows with these active channels, in ascending order.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn from_lists(channels: usize, lists: &[Vec<usize>]) -> Self {
        let pitch = channels.div_ceil(32) + 1;
        let mut words = vec![0; lists.len() * pitch];
        for (row, list) in lists.iter().enumerate() {
            for &channel in list {
                words[row * pitch + channel / 32] |= 1 << (channel % 32);
            }
        }
        let counts: Vec<_> = lists.iter().map(Vec::len).collect();
        Self::from_words(InstructionSet::Scalar, channels, words, &counts)
    }

    /// How many channels a row has, active or not.
    #[must_use]
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// The active channels of a row, ascending.
    #[inline(always)]
    #[must_use]
    pub(crate) fn list(&self, row: usize) -> &[u16] {
        &self.ids[self.starts[row]..self.starts[row + 1]]
    }

    /// The list of a row with at least [`PAD`] more ids after it.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn padded_list(&self, row: usize) -> &[u16] {
        &self.ids[self.starts[row]..self.starts[row + 1] + PAD]
    }

    /// 32 bits of a row from any channel on.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn bits(&self, row: usize, channel: usize) -> u32 {
        // The 32 bits may begin within a word: then the rest are in the next one, which every row
        // has.
        let at = row * self.pitch + channel / 32;
        let both = u64::from(self.words[at]) | u64::from(self.words[at + 1]) << 32;
        (both >> (channel % 32)) as u32
    }

    /// How many active channels of a row come before a channel: its index in the list, if it is
    /// active.
    #[inline(always)]
    pub(crate) fn before(&self, row: usize, channel: usize) -> usize {
        // Whole words before the channel's own, and of that word the bits below the channel.
        let words = &self.words[row * self.pitch..][..=channel / 32];
        let (last, whole) = words.split_last().unwrap_or((&0, &[]));
        let part = last & ((1 << (channel % 32)) - 1);
        whole.iter().chain([&part]).map(|word| word.count_ones() as usize).sum()
    }

    /// Elements in one line of a compressed row: its active channels.
    #[inline(always)]
    #[must_use]
    pub(crate) fn stride(&self, row: usize) -> usize {
        self.starts[row + 1] - self.starts[row]
    }

    /// Where the block of a row begins among compressed values of `lines` lines per row. For the
    /// row after the last one that is the size of all blocks.
    #[inline(always)]
    #[must_use]
    pub(crate) fn block(&self, row: usize, lines: usize) -> usize {
        self.starts[row] * lines + PAD * row
    }

    /// How many of some channels of a row are active.
    #[must_use]
    pub(crate) fn within(&self, row: usize, channels: Range<usize>) -> usize {
        self.list(row).iter().filter(|id| channels.contains(&(**id as usize))).count()
    }
}

/// The positive elements of some rows.
#[derive(Debug)]
pub(crate) struct Positive<'a, T, F> {
    pub(crate) values: DenseRows<'a, T>,
    /// Whether a row is looked at.
    pub(crate) live: &'a F,
    /// The first row.
    pub(crate) first: usize,
    /// A bit for each element, 32 to a word, and one word of zeros after each row.
    pub(crate) words: &'a mut [u32],
    /// How many bits of each row are set.
    pub(crate) counts: &'a mut [usize],
}

impl<T: SimdFloat, F: Fn(usize) -> bool> Positive<'_, T, F> {
    /// Calls `row` with each live row and its words; it returns how many bits it has set.
    #[inline(always)]
    pub(crate) fn each(&mut self, row: impl Fn(&[T], &mut [u32]) -> usize) {
        let pitch = self.words.len() / self.counts.len().max(1);
        for ((at, words), count) in self.words.chunks_exact_mut(pitch).enumerate().zip(&mut *self.counts) {
            if (self.live)(self.first + at) {
                *count = row(self.values.row(self.first + at), words);
            }
        }
    }

    fn one_by_one(&mut self) {
        self.each(positive);
    }
}

/// Sets a bit for each positive element, 32 to a word; how many there are.
#[inline(always)]
pub(crate) fn positive<T: SimdFloat>(values: &[T], words: &mut [u32]) -> usize {
    let mut count = 0;
    for (word, values) in words.iter_mut().zip(values.chunks(32)) {
        for (at, value) in values.iter().enumerate() {
            // (NaN is not above 0: its channel is off.)
            *word |= u32::from(*value > T::default()) << at;
        }
        count += word.count_ones() as usize;
    }
    count
}

/// Writes the indices of all set bits within their row of `pitch` words, ascending, row by row.
fn list(set: InstructionSet, words: &[u32], pitch: usize, ids: &mut [u16]) {
    if arch::list(set, words, pitch, ids) {
        return;
    }
    let mut ids = ids.iter_mut();
    for (at, word) in words.chunks_exact(pitch).flat_map(|row| row.iter().enumerate()) {
        // The lowest set bit is listed and cleared until none is left.
        let mut bits = *word;
        while bits != 0 {
            if let Some(id) = ids.next() {
                *id = (at as u32 * 32 + bits.trailing_zeros()) as u16;
            }
            bits &= bits - 1;
        }
    }
}
