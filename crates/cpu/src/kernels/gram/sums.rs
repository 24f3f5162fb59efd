//! Gradients of per-channel parameters: biases, and the scale and the shift of a normalisation.
//! They are sums over positions.
//!
//! Fast path: compressed lines on AVX-512 are expanded and added in registers
//! (`arch::avx512::wide_sums`); elsewhere they are written in full first.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernels::arch;
use crate::kernels::gram::channels::SampleCotangents;
use crate::kernels::layout::cotangent::Cotangents;
use crate::kernels::layout::lines::by_lines;
use crate::kernels::layout::rows::DenseRows;
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST};

/// What is normalised, (x - mean) inverse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Normalized<'a, T> {
    /// x, at the rows and channels of the cotangents.
    pub(crate) rows: DenseRows<'a, T>,
    /// One value for each channel.
    pub(crate) mean: &'a [f64],
    /// One over the deviation of each channel.
    pub(crate) inverse: &'a [f64],
}

/// Channels of a block, which are summed while its rows pass by.
const CHANNELS: usize = 64;

/// Rows of a block. Their sums are in the precision of the run, and are then added in f64: more
/// rows round more, fewer add in f64 more often.
pub(crate) const ROWS: usize = 32;

impl<T: SimdFloat> SampleCotangents<'_, T> {
    /// How many cotangents of each line are not switched off.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.live_rows().map(|row| self.source.row(row, self.lines).ids.len()).sum()
    }

    /// The sums over positions of the cotangents, `[V][channel]`, and of their products with what
    /// is normalised, if anything is: the gradients of a shift and of a scale. Up to [`ROWS`] rows
    /// are summed in the precision of T, these sums in f64.
    #[must_use]
    pub(crate) fn sums(&self, set: InstructionSet, normalized: Option<Normalized<'_, T>>) -> [Vec<f64>; 2] {
        let channels = self.source.layout.channels();
        let size = self.lines * channels;
        let mut sums = [vec![0.0; size], vec![0.0; if normalized.is_some() { size } else { 0 }]];
        let mut tile = vec![T::default(); ROWS * self.lines * CHANNELS + WIDEST];
        let mut factors = vec![T::default(); if normalized.is_some() { ROWS * CHANNELS + WIDEST } else { 0 }];
        // Rows whose channels are all off add nothing.
        let is_on = |row: &usize| !self.source.row(*row, self.lines).ids.is_empty();
        let rows: Vec<_> = self.live_rows().filter(is_on).collect();
        for rows in rows.chunks(ROWS) {
            for first in (0..channels).step_by(CHANNELS) {
                let part = first..channels.min(first + CHANNELS);
                // All lines share what is normalised: it is computed once for a block.
                if let Some(normalized) = normalized {
                    set.run(NormalizeRows { normalized, rows, channels: part.clone(), out: &mut factors });
                }
                let block = RowBlock {
                    source: self.source,
                    lines: self.lines,
                    rows,
                    channels: part,
                    factors: &factors,
                };
                if !arch::sum_rows(set, &block, &mut sums) {
                    block.sum(set, &mut tile, &mut sums);
                }
            }
        }
        sums
    }
}

/// Computes what is normalised, at some rows and channels.
struct NormalizeRows<'a, 'b, T> {
    normalized: Normalized<'a, T>,
    rows: &'a [usize],
    channels: Range<usize>,
    /// `[row][channel]`.
    out: &'b mut [T],
}

impl<T: SimdFloat> WithSimd for NormalizeRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Normalized { rows, mean, inverse } = self.normalized;
        let (mean, inverse) = (&mean[self.channels.clone()], &inverse[self.channels.clone()]);
        for (row, out) in self.rows.iter().zip(self.out.chunks_exact_mut(self.channels.len())) {
            let x = &rows.row(*row)[self.channels.clone()];
            for (out, ((x, mean), inverse)) in out.iter_mut().zip(x.iter().zip(mean).zip(inverse)) {
                *out = T::from_f64((x.to_f64() - mean) * inverse);
            }
        }
    }
}

/// Some channels of some rows.
#[derive(Debug)]
pub(crate) struct RowBlock<'a, T> {
    pub(crate) source: Cotangents<'a, T>,
    pub(crate) lines: usize,
    /// At most [`ROWS`].
    pub(crate) rows: &'a [usize],
    pub(crate) channels: Range<usize>,
    /// `[row][channel]`, and a vector more, if the sums of products are wanted too.
    pub(crate) factors: &'a [T],
}

impl<T: SimdFloat> RowBlock<'_, T> {
    /// Adds the sums, by way of lines in full.
    fn sum(&self, set: InstructionSet, tile: &mut [T], sums: &mut [Vec<f64>; 2]) {
        let size = self.lines * self.channels.len();
        for (&row, out) in self.rows.iter().zip(tile.chunks_exact_mut(size)) {
            self.source.expand(set, row, self.lines, self.channels.clone(), out);
        }
        set.run(AddLines { block: self, tile, sums });
    }

    /// Adds sums of a vector of channels, from `first` of the block's on, to the line's.
    #[inline(always)]
    pub(crate) fn add(&self, line: usize, first: usize, own: &[T], sums: &mut [f64]) {
        // What lies after the last channel belongs to others.
        let count = own.len().min(self.channels.len() - first);
        let out = &mut sums[line * self.source.layout.channels() + self.channels.start + first..][..count];
        out.iter_mut().zip(own).for_each(|(out, own)| *out += own.to_f64());
    }
}

/// Adds up lines in full, `[row][V][channel]`, and a vector more.
struct AddLines<'a, 'b, T> {
    block: &'a RowBlock<'a, T>,
    tile: &'a [T],
    sums: &'b mut [Vec<f64>; 2],
}

impl<T: SimdFloat> WithSimd for AddLines<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        by_lines!(S, self.block.lines, |V| self.columns::<S, V>(simd));
    }
}

impl<T: SimdFloat> AddLines<'_, '_, T> {
    #[inline(always)]
    fn columns<S: Simd, const V: usize>(&mut self, simd: S) {
        let (block, lanes) = (self.block, T::lanes::<S>());
        let width = block.channels.len();
        // First sums, then sums of products: not every set has registers for both.
        for (factors, out) in [&[], block.factors].into_iter().zip(&mut *self.sums) {
            if out.is_empty() {
                continue;
            }
            for column in (0..width).step_by(lanes) {
                let mut sums = [T::splat(simd, T::default()); V];
                let mut factor = T::splat(simd, T::from_f64(1.0));
                for row in 0..block.rows.len() {
                    if !factors.is_empty() {
                        factor = T::load(simd, &factors[row * width + column..]);
                    }
                    for (v, sum) in sums.iter_mut().enumerate() {
                        let x = T::load(simd, &self.tile[(row * V + v) * width + column..]);
                        *sum = T::mul_add(simd, x, factor, *sum);
                    }
                }
                for (v, sum) in sums.into_iter().enumerate() {
                    let mut own = [T::default(); WIDEST];
                    T::store(simd, sum, &mut own);
                    block.add(v, column, &own[..lanes], out);
                }
            }
        }
    }
}
