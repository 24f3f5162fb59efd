//! The Gram matrix of a depthwise convolution's weight: each channel by itself.
//!
//! The gradient for cotangent v is D_v(t, c) = sum over positions p of g(p, v, c) x(p, t, c). It
//! has one value for each tap and channel, so that neighbouring channels stand side by side in
//! vectors, as they do in the rows: V sums of one tap and one vector of channels are in registers
//! while the positions pass by. By tiles of one channel ([`super::outer`]) nine taps would leave
//! half of a vector empty, and each element that is read would be copied first.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::gram::channels::SampleCotangents;
use crate::kernels::gram::outer::{GradientTile, LinePairSums, WIDE, row_begins, square};
use crate::kernels::layout::lines::by_lines;
use crate::kernels::layout::rows::DenseRows;
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST};

/// G(v, w) = sum over t, c of D_v(t, c) D_w(t, c), for one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelwiseGram<'a, T> {
    /// Which row each row reads by each tap.
    pub(crate) table: &'a RowTable,
    /// The rows that are read: x. A vector after the last is read and not used.
    pub(crate) rows: DenseRows<'a, T>,
    /// The cotangents of the results: g.
    pub(crate) cotangents: SampleCotangents<'a, T>,
    /// One factor for each channel.
    pub(crate) scale: Option<&'a [T]>,
}

impl<T: SimdFloat> ChannelwiseGram<'_, T> {
    /// `[V, V]`, row-major, the squares summed in f64.
    #[must_use]
    pub(crate) fn gram(&self, set: InstructionSet) -> Vec<f64> {
        let begins = row_begins(self.table, self.rows, self.cotangents.live, self.cotangents.sample);
        let channels = self.rows.channels;
        let blocks: Vec<_> =
            (0..channels).step_by(WIDE).map(|from| from..channels.min(from + WIDE)).collect();
        let of_block = |channels| self.block(set, &begins, channels);
        let parts: Vec<_> = blocks.into_par_iter().map(of_block).collect();
        LinePairSums::gram(&parts, self.cotangents.lines)
    }

    /// Bytes that [`ChannelwiseGram::gram`] takes at so many positions, beside where the rows
    /// begin.
    #[must_use]
    pub(crate) fn bytes(positions: usize, channels: usize, lines: usize) -> usize {
        let blocks = channels.div_ceil(WIDE);
        let lines = (positions * lines * WIDE.min(channels) + WIDEST) * size_of::<T>();
        blocks.min(rayon::current_num_threads()) * lines + blocks * size_of::<LinePairSums>()
    }

    /// The sums of a block of channels, whose lines are written in full first: each of them is read
    /// once for each tap.
    fn block(
        &self,
        set: InstructionSet,
        begins: &[Vec<Option<usize>>],
        channels: Range<usize>,
    ) -> LinePairSums {
        let SampleCotangents { source, lines, live, .. } = self.cotangents;
        let size = lines * channels.len();
        // A vector is read from the last element on, too.
        let mut full = vec![T::default(); live.len() * size + WIDEST];
        for (row, out) in self.cotangents.live_rows().zip(full.chunks_exact_mut(size)) {
            source.expand(set, row, lines, channels.clone(), out);
        }
        set.run(ChannelBlock { gram: self, begins, full: &full, channels })
    }
}

/// Some channels of all positions.
struct ChannelBlock<'a, T> {
    gram: &'a ChannelwiseGram<'a, T>,
    begins: &'a [Vec<Option<usize>>],
    /// Their cotangents, `[position][V][channel]`, and a vector more.
    full: &'a [T],
    channels: Range<usize>,
}

impl<T: SimdFloat> WithSimd for ChannelBlock<'_, T> {
    type Output = LinePairSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> LinePairSums {
        let mut sums = LinePairSums::default();
        by_lines!(S, self.gram.cotangents.lines, |V| self.run::<S, V>(simd, &mut sums));
        sums
    }
}

impl<T: SimdFloat> ChannelBlock<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(&self, simd: S, sums: &mut LinePairSums) {
        let mut wide = [[0.0; WIDE]; V];
        for begins in self.begins {
            let mut tile: GradientTile<T, V> = [[T::default(); WIDE]; V];
            for first in (0..self.channels.len()).step_by(T::lanes::<S>()) {
                self.vector::<S, V>(simd, begins, first, &mut tile);
            }
            if let Some(scale) = self.gram.scale {
                for line in &mut tile {
                    line.iter_mut().zip(&scale[self.channels.clone()]).for_each(|(d, s)| *d = *d * *s);
                }
            }
            square(simd, &tile, self.channels.len(), 1.0, &mut wide, sums);
        }
    }

    /// D(t, first ..) for all lines.
    #[inline(always)]
    fn vector<S: Simd, const V: usize>(
        &self,
        simd: S,
        begins: &[Option<usize>],
        first: usize,
        tile: &mut GradientTile<T, V>,
    ) {
        let (lanes, width) = (T::lanes::<S>(), self.channels.len());
        let values = self.gram.rows.values;
        let mut own = [T::splat(simd, T::default()); V];
        for (at, begin) in begins.iter().enumerate() {
            // None where the tap falls into the padding.
            let Some(begin) = begin else { continue };
            let x = T::load(simd, &values[begin + self.channels.start + first..][..lanes]);
            // After the last channel come elements of the next line, which are dropped.
            let lines = &self.full[at * V * width + first..][..(V - 1) * width + lanes];
            for (v, sum) in own.iter_mut().enumerate() {
                *sum = T::mul_add(simd, T::load(simd, &lines[v * width..][..lanes]), x, *sum);
            }
        }
        for (line, sum) in tile.iter_mut().zip(own) {
            T::store(simd, sum, &mut line[first..first + lanes]);
        }
    }
}
