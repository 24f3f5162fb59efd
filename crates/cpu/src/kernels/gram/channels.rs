//! Cotangents of one sample sorted by channel, for the gradients of weights; and Gram matrices of
//! plain rows.

use pulp::{Simd, WithSimd};

use crate::kernels::layout::cotangent::Cotangents;
use crate::kernels::layout::lines::{LINE_COUNTS, by_lines};
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST};

/// For each channel of a layer's outputs the positions where it is active, and the V cotangents
/// there.
#[derive(Debug, Clone)]
pub(crate) struct ByChannel<T> {
    /// V, one of [`LINE_COUNTS`].
    pub(crate) lines: usize,
    /// Where the entries of each channel begin; one more than there are channels.
    starts: Vec<usize>,
    /// Indices in the list of positions.
    positions: Vec<u32>,
    /// `[entry][V]`, and a vector's worth of elements more, which kernels may read.
    values: Vec<T>,
}

/// The cotangents of one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SampleCotangents<'a, T> {
    /// The cotangents.
    pub(crate) source: Cotangents<'a, T>,
    /// V, one of [`LINE_COUNTS`].
    pub(crate) lines: usize,
    /// How many rows a sample has.
    pub(crate) rows: usize,
    /// The positions at which there may be cotangents, ascending.
    pub(crate) live: &'a [usize],
    /// The sample's index in the batch.
    pub(crate) sample: usize,
}

impl<T: SimdFloat> ByChannel<T> {
    /// Sorts the cotangents of one sample.
    #[must_use]
    pub(crate) fn new(at: SampleCotangents<'_, T>) -> Self {
        debug_assert!(LINE_COUNTS.contains(&at.lines), "{} lines", at.lines);
        // A counting sort: first how many entries each channel has, then where they begin, then
        // each entry to its place.
        let mut starts = vec![0; at.source.layout.channels() + 1];
        for row in at.live_rows() {
            at.source.row(row, at.lines).ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
        }
        for channel in 1..starts.len() {
            starts[channel] += starts[channel - 1];
        }
        let count = starts.last().copied().unwrap_or(0);
        let mut this = Self {
            lines: at.lines,
            starts,
            positions: vec![0; count],
            values: vec![T::default(); count * at.lines + WIDEST],
        };
        by_lines!(at.lines, |V| this.fill::<V>(at));
        this
    }

    /// Sorts the cotangents of all rows into their channels.
    fn fill<const V: usize>(&mut self, at: SampleCotangents<'_, T>) {
        let mut next = self.starts.clone();
        let last = (at.sample + 1) * at.rows - 1;
        for (index, row) in at.live_rows().enumerate() {
            // Lines that are read side by side are fetched ahead: the CPU does not foresee them.
            if row < last {
                at.source.fetch(row + 1, V, 0..at.source.layout.channels());
            }
            let read = at.source.row(row, V);
            let lines = read.each::<V>();
            for (a, &id) in read.ids.iter().enumerate() {
                let entry = next[id as usize];
                next[id as usize] += 1;
                self.positions[entry] = index as u32;
                for (value, line) in self.values[entry * V..][..V].iter_mut().zip(lines) {
                    *value = line[a];
                }
            }
        }
    }

    /// How many channels there are.
    #[must_use]
    pub(crate) fn channels(&self) -> usize {
        self.starts.len() - 1
    }

    /// The entries of a channel: indices in the list of positions, and `[entry][V]`, with what
    /// follows them.
    #[inline(always)]
    pub(crate) fn entries(&self, channel: usize) -> (&[u32], &[T]) {
        let (from, till) = (self.starts[channel], self.starts[channel + 1]);
        (&self.positions[from..till], &self.values[from * self.lines..])
    }
}

impl<T> SampleCotangents<'_, T> {
    /// The rows of the sample at which there may be cotangents.
    pub(crate) fn live_rows(&self) -> impl Iterator<Item = usize> {
        let first = self.sample * self.rows;
        self.live.iter().map(move |position| first + position)
    }
}

/// The inner products of V rows side by side, `[V, V]`, summed in f64.
#[must_use]
pub(crate) fn gram_of<T: SimdFloat>(set: InstructionSet, rows: &[T], lines: usize) -> Vec<f64> {
    set.run(Products { rows, lines })
}

struct Products<'a, T> {
    rows: &'a [T],
    lines: usize,
}

impl<T: SimdFloat> WithSimd for Products<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        let (lines, size) = (self.lines, self.rows.len() / self.lines.max(1));
        let row = |v: usize| &self.rows[v * size..][..size];
        let mut gram = vec![0.0; lines * lines];
        for (v, w) in (0..lines).flat_map(|v| (v..lines).map(move |w| (v, w))) {
            let mut sums = [0.0; LANES];
            add_products(row(v), row(w), &mut sums);
            gram[v * lines + w] = sums.iter().sum();
            gram[w * lines + v] = gram[v * lines + w];
        }
        gram
    }
}

/// Sums that run side by side. The number is the same on all instruction sets, and with it the
/// order of summation.
const LANES: usize = 32;

/// Adds the products of two rows.
#[inline(always)]
fn add_products<T: SimdFloat>(a: &[T], b: &[T], sums: &mut [f64; LANES]) {
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    // A copy that stays in registers: see `accumulate` in `reverse/pullback.rs`.
    let mut local = *sums;
    for (a, b) in (&mut left).zip(&mut right) {
        for ((sum, a), b) in local.iter_mut().zip(a).zip(b) {
            *sum += a.to_f64() * b.to_f64();
        }
    }
    for ((sum, a), b) in local.iter_mut().zip(left.remainder()).zip(right.remainder()) {
        *sum += a.to_f64() * b.to_f64();
    }
    *sums = local;
}
