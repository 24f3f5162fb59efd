//! Rows of channels in memory, and how work on them is shared among threads.
//!
//! A row is one position of one sample; rows of a batch are numbered sample by sample. Every kernel
//! computes each of its rows only from that row's operands, in an order that does not depend on
//! what else is computed. Results are bit-identical for every batch, split and number of threads.

use std::ops::Range;

use crate::kernels::simd::SimdFloat;

/// Dense rows to read: `values[row * pitch + offset + channel]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DenseRows<'a, T> {
    /// All elements of the buffer.
    pub(crate) values: &'a [T],
    /// Elements from one row to the next.
    pub(crate) pitch: usize,
    /// The first channel in the buffer's row.
    pub(crate) offset: usize,
    /// How many channels a row has.
    pub(crate) channels: usize,
}

impl<'a, T> DenseRows<'a, T> {
    /// The channels of one row.
    #[inline(always)]
    #[must_use]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        &self.values[row * self.pitch + self.offset..][..self.channels]
    }
}

/// The rows at some positions of all samples, counted one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LiveRows<'a> {
    /// Rows of a sample.
    pub(crate) positions: usize,
    /// The positions that are computed, ascending.
    pub(crate) live: &'a [usize],
    pub(crate) samples: usize,
}

impl LiveRows<'_> {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.samples * self.live.len()
    }

    /// The row with this index among them.
    #[inline(always)]
    pub(crate) fn row(&self, number: usize) -> usize {
        number / self.live.len() * self.positions + self.live[number % self.live.len()]
    }

    /// The rows in `parts` runs, in a buffer with rows of `pitch` elements.
    pub(crate) fn chunks<'b, T>(&self, values: &'b mut [T], parts: usize, pitch: usize) -> Vec<Chunk<'b, T>> {
        let (count, end) = (self.count(), self.samples * self.positions);
        let begin = |number: usize| if number < count { self.row(number) } else { end };
        chunks(values, count, parts, |number| begin(number) * pitch)
    }
}

/// A run of rows with the part of a buffer that belongs only to them.
#[derive(Debug)]
pub(crate) struct Chunk<'a, T> {
    pub(crate) rows: Range<usize>,
    /// Where the part begins in the whole buffer.
    pub(crate) start: usize,
    pub(crate) values: &'a mut [T],
}

/// Cuts a buffer into `parts` runs of about equally many rows. Row r has the elements from
/// `begin(r)` to `begin(r + 1)`.
pub(crate) fn chunks<T>(
    mut values: &mut [T],
    rows: usize,
    parts: usize,
    begin: impl Fn(usize) -> usize,
) -> Vec<Chunk<'_, T>> {
    let step = rows.div_ceil(parts.max(1)).max(1);
    let mut all = Vec::with_capacity(parts);
    let mut start = begin(0);
    values = &mut values[start..];
    for first in (0..rows).step_by(step) {
        let rows = first..rows.min(first + step);
        let (part, rest) = values.split_at_mut(begin(rows.end) - start);
        all.push(Chunk { rows: rows.clone(), start, values: part });
        values = rest;
        start = begin(rows.end);
    }
    all
}

/// How many parts to cut `rows` into so that threads can even out their shares: up to four per
/// thread, with at least `least` rows in each.
///
/// Each kernel has a `LEAST_ROWS` of its own, by how much work a row is. If it is too small, a
/// layer of few rows is cut into parts that take less time than handing them to threads and
/// allocating their buffers. If it is too large, such a layer has fewer parts than there are
/// threads, and the others are idle. It changes no result. Layers of many rows take four parts per
/// thread whatever it is.
pub(crate) fn tasks(rows: usize, least: usize) -> usize {
    match rayon::current_num_threads() {
        1 => 1,
        threads => (rows / least.max(1)).clamp(1, 4 * threads),
    }
}

/// Bytes of weights up to which all of them stay in a core's cache while rows pass by. Above that,
/// rows pass by one panel after the other. If it is too large, weights push one another out of the
/// cache, and each row fetches all of them again. If it is too small, rows are fetched again for
/// each panel, and are cut into no more parts than there are threads.
pub(crate) const CACHED_WEIGHTS: usize = 400_000;

/// Adds a row to another if there is one, then relu of the sums if asked.
#[inline(always)]
pub(crate) fn add_then_relu<T: SimdFloat>(out: &mut [T], other: Option<&[T]>, relu: bool) {
    if let Some(other) = other {
        out.iter_mut().zip(other).for_each(|(x, y)| *x = *x + *y);
    }
    if relu {
        let floor = T::default();
        out.iter_mut().for_each(|x| *x = if *x < floor { floor } else { *x });
    }
}

/// Bytes of a cache line.
pub(crate) const CACHE_LINE: usize = 64;

/// Fetches elements into the L2 cache, on CPUs that have an instruction for it. The L1 cache has
/// too few buffers for lines on their way: with those in use, a row's pullback took 1.4 times as
/// long.
#[inline(always)]
pub(crate) fn fetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    values.iter().step_by(CACHE_LINE / size_of::<T>()).for_each(safe_arch::prefetch_t1);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
