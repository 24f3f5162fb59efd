//! The Gram matrix of a weight's gradients, without the gradients: tile by tile in registers,
//! squared and dropped.
//!
//! The gradient of a convolution's weight for cotangent v is D_v(o, t, i) = sum over positions p of
//! g(p, v, o) x(p, t, i). Compared with the pullback, position and channel change roles: for one
//! output channel o only the positions count where o is active, and one list of them
//! ([`ByChannel`]) serves all taps and inputs. A tile is V lines by one or two vectors of inputs of
//! one tap; its sums over positions stay in registers. What is kept of a tile is its contribution
//! to V x V sums.
//!
//! With [`Patches`] the same is done in Winograd's form
//! ([`crate::kernels::winograd::patched_outer`]).

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::gram::channels::ByChannel;
use crate::kernels::layout::rows::DenseRows;
use crate::kernels::layout::table::RowTable;
use crate::kernels::reverse::pullback::{MOST_LINES, by_lines};
use crate::kernels::simd::{InstructionSet, SimdFloat};
use crate::kernels::winograd::patched_outer::{self, PatchGram};
use crate::kernels::winograd::patches::Patches;

/// G(v, w) = sum over o, t, i of D_v(o, t, i) D_w(o, t, i), for one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileGram<'a, T> {
    /// Which row each row reads by which tap.
    pub(crate) table: &'a RowTable,
    /// The same in Winograd's form (`WinogradForm::Four`), if it is to be taken: for layers all of
    /// whose rows are computed.
    pub(crate) patches: Option<&'a Patches>,
    /// The rows that are read: x. Two vectors behind the last are read and not used.
    pub(crate) rows: DenseRows<'a, T>,
    /// The positions at which there may be cotangents, ascending.
    pub(crate) live: &'a [usize],
    /// The cotangents of the layer's outputs there: g.
    pub(crate) entries: &'a ByChannel<T>,
    /// One factor for each output.
    pub(crate) scale: Option<&'a [T]>,
}

/// Output channels that one task takes. The sums of tasks are added in the order of the tasks, so
/// that bits do not depend on the number of threads.
pub(crate) const CHANNELS: usize = 8;

/// Numbers of a tile's line: two of the widest vectors.
pub(crate) const WIDE: usize = 32;

impl<T: SimdFloat> TileGram<'_, T> {
    /// `[V, V]`, row-major, the squares summed in f64.
    #[must_use]
    pub(crate) fn gram(&self, set: InstructionSet, sample: usize) -> Vec<f64> {
        let channels = self.entries.channels();
        let tasks: Vec<_> =
            (0..channels).step_by(CHANNELS).map(|from| from..channels.min(from + CHANNELS)).collect();
        let parts: Vec<LinePairSums> = match self.patches {
            Some(patches) => PatchGram { outer: self, patches }.sums(set, sample, tasks),
            None => {
                let sources = self.sources(sample);
                let run = |channels| set.run(TileChannels { outer: self, sources: &sources, channels });
                tasks.into_par_iter().map(run).collect()
            }
        };
        let lines = self.entries.lines;
        let mut gram = vec![0.0; lines * lines];
        for part in parts {
            for (v, w) in (0..lines).flat_map(|v| (v..lines).map(move |w| (v, w))) {
                gram[v * lines + w] += part.0[v][w].iter().sum::<f64>();
            }
        }
        for (v, w) in (0..lines).flat_map(|v| (0..v).map(move |w| (v, w))) {
            gram[v * lines + w] = gram[w * lines + v];
        }
        gram
    }

    /// Bytes that [`TileGram::gram`] takes by patches, beside the cotangents.
    #[must_use]
    pub(crate) fn bytes(patches: &Patches, inputs: usize, lines: usize) -> usize {
        size_of::<T>() * patched_outer::numbers(patches, inputs, lines, rayon::current_num_threads())
    }

    /// For each tap and live position, where the row that it reads begins in the buffer.
    fn sources(&self, sample: usize) -> Vec<Vec<Option<usize>>> {
        let begin =
            |row: usize| (sample * self.table.source_rows() + row) * self.rows.pitch + self.rows.offset;
        let of_tap = |tap: usize| {
            self.live.iter().map(|&position| self.table.source(position, tap).map(begin)).collect()
        };
        (0..self.table.taps()).map(of_tap).collect()
    }
}

/// Sums of D_v D_w for each pair of lines v <= w, in eight lanes each: as many as the widest vector
/// of f64 has. All instruction sets keep eight, so that the order of summation is the same.
#[derive(Default)]
pub(crate) struct LinePairSums([[[f64; LANES]; MOST_LINES]; MOST_LINES]);

const LANES: usize = 8;

/// Some output channels.
struct TileChannels<'a, T> {
    outer: &'a TileGram<'a, T>,
    sources: &'a [Vec<Option<usize>>],
    channels: Range<usize>,
}

impl<T: SimdFloat> WithSimd for TileChannels<'_, T> {
    type Output = LinePairSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> LinePairSums {
        let mut sums = LinePairSums::default();
        if S::REGISTER_COUNT < 32 {
            by_lines!(self.outer.entries.lines, |V| self.run::<S, 1, V>(simd, &mut sums));
        } else {
            by_lines!(self.outer.entries.lines, |V| self.run::<S, 2, V>(simd, &mut sums));
        }
        sums
    }
}

impl<T: SimdFloat> TileChannels<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const G: usize, const V: usize>(&self, simd: S, sums: &mut LinePairSums) {
        let columns = G * T::lanes::<S>();
        let inputs = self.outer.rows.channels;
        let mut wide = [[0.0; WIDE]; V];
        for channel in self.channels.clone() {
            let entries = self.outer.entries.entries(channel);
            let scale = self.outer.scale.map_or(1.0, |scale| scale[channel].to_f64());
            for sources in self.sources {
                for first in (0..inputs).step_by(columns) {
                    let tile = self.tile::<S, G, V>(simd, entries, sources, first);
                    square(simd, &tile, columns.min(inputs - first), scale, &mut wide, sums);
                }
            }
        }
    }

    /// D(o, t, first ..) for all lines.
    #[inline(always)]
    fn tile<S: Simd, const G: usize, const V: usize>(
        &self,
        simd: S,
        (positions, values): (&[u32], &[T]),
        sources: &[Option<usize>],
        first: usize,
    ) -> GradientTile<T, V> {
        let lanes = T::lanes::<S>();
        let mut tile = [[T::splat(simd, T::default()); G]; V];
        for (position, values) in positions.iter().zip(values.chunks_exact(V)) {
            // None where the tap falls into the padding.
            let Some(begin) = sources[*position as usize] else { continue };
            let row = &self.outer.rows.values[begin + first..][..G * lanes];
            let row: [T::Vector<S>; G] =
                std::array::from_fn(|g| T::load(simd, &row[g * lanes..(g + 1) * lanes]));
            for (sums, value) in tile.iter_mut().zip(values) {
                let value = T::splat(simd, *value);
                for (sum, x) in sums.iter_mut().zip(row) {
                    *sum = T::mul_add(simd, value, x, *sum);
                }
            }
        }
        let mut out = [[T::default(); WIDE]; V];
        for (out, sums) in out.iter_mut().zip(tile) {
            for (out, sum) in out.chunks_exact_mut(lanes).zip(sums) {
                T::store(simd, sum, out);
            }
        }
        out
    }
}

/// Lines of two vectors of D.
type GradientTile<T, const V: usize> = [[T; WIDE]; V];

/// sums(v, w) += scale^2 D_v . D_w over the first `width` numbers. The tile is converted to f64 in
/// `wide` first, where zeros stand behind the last number, so that whole vectors can be multiplied.
#[inline(always)]
fn square<S: Simd, T: SimdFloat, const V: usize>(
    simd: S,
    tile: &GradientTile<T, V>,
    width: usize,
    scale: f64,
    wide: &mut GradientTile<f64, V>,
    sums: &mut LinePairSums,
) {
    let used = width.next_multiple_of(LANES);
    for (wide, line) in wide.iter_mut().zip(tile) {
        for (wide, x) in wide.iter_mut().zip(&line[..width]) {
            *wide = x.to_f64() * scale;
        }
        if width < used {
            wide[width..used].fill(0.0);
        }
    }
    for v in 0..V {
        for w in v..V {
            sums.add(simd, v, w, &wide[v][..used], &wide[w][..used]);
        }
    }
}

impl LinePairSums {
    /// Adds the products of two rows, whose length is a multiple of the lanes. Vector n of the rows
    /// goes to vector n modulo `vectors` of the sums.
    #[inline(always)]
    pub(crate) fn add<S: Simd>(&mut self, simd: S, v: usize, w: usize, a: &[f64], b: &[f64]) {
        let (a, _) = S::as_simd_f64s(a);
        let (b, _) = S::as_simd_f64s(b);
        let (sums, _) = S::as_mut_simd_f64s(&mut self.0[v][w]);
        let vectors = sums.len();
        for (at, sum) in sums.iter_mut().enumerate() {
            let mut local = *sum;
            for (a, b) in a[at..].iter().zip(&b[at..]).step_by(vectors) {
                local = simd.mul_add_f64s(*a, *b, local);
            }
            *sum = local;
        }
    }
}
