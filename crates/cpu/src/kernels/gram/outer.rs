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
use crate::kernels::layout::lines::{MOST_LINES, by_lines};
use crate::kernels::layout::rows::DenseRows;
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{FEW_CHANNELS, InstructionSet, SimdFloat};
use crate::kernels::winograd::patched_outer::{self, PatchGram};
use crate::kernels::winograd::patches::Patches;

/// G(v, w) = sum over o, t, i of D_v(o, t, i) D_w(o, t, i), for one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileGram<'a, T> {
    /// Which row each row reads by each tap.
    pub(crate) table: &'a RowTable,
    /// The table in Winograd's form (`WinogradForm::Four`), if it is to be taken: for layers all of
    /// whose rows are computed.
    pub(crate) patches: Option<&'a Patches>,
    /// The rows that are read: x. Two vectors after the last are read and not used.
    pub(crate) rows: DenseRows<'a, T>,
    /// The positions at which there may be cotangents, ascending.
    pub(crate) live: &'a [usize],
    /// The cotangents of the layer's outputs there: g.
    pub(crate) entries: &'a ByChannel<T>,
    /// The first of the outputs that read these rows, and the one after the last.
    pub(crate) outputs: [usize; 2],
    /// One factor for each output.
    pub(crate) scale: Option<&'a [T]>,
}

/// Output channels that one task takes. The sums of tasks are added in the order of the tasks, so
/// that results are bit-identical on any number of threads.
pub(crate) const CHANNELS: usize = 8;

/// Elements of a tile's line: two of the widest vectors.
pub(crate) const WIDE: usize = 32;

impl<T: SimdFloat> TileGram<'_, T> {
    /// The sum of the matrices of groups of neighbouring channels, added in their order, where each
    /// output reads only the inputs of its own group.
    #[must_use]
    pub(crate) fn grouped(&self, set: InstructionSet, sample: usize, groups: usize) -> Vec<f64> {
        if groups == 1 {
            return self.gram(set, sample);
        }
        let [first, end] = self.outputs;
        let (inputs, outputs) = (self.rows.channels / groups, (end - first) / groups);
        let of_group = |group: usize| {
            let rows = DenseRows { offset: self.rows.offset + group * inputs, channels: inputs, ..self.rows };
            let outputs = [first + group * outputs, first + (group + 1) * outputs];
            Self { rows, outputs, ..*self }.gram(set, sample)
        };
        // Either groups run side by side, or the outputs of each group do: then no more columns are
        // held than there are threads.
        let parts: Vec<_> = match outputs > CHANNELS {
            true => (0..groups).map(of_group).collect(),
            false => (0..groups).into_par_iter().map(of_group).collect(),
        };
        let mut gram = vec![0.0; self.entries.lines.pow(2)];
        for part in parts {
            gram.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        }
        gram
    }

    /// `[V, V]`, row-major, the squares summed in f64.
    #[must_use]
    pub(crate) fn gram(&self, set: InstructionSet, sample: usize) -> Vec<f64> {
        if !takes_columns(self.table, self.rows.channels) {
            return self.of_rows(set, sample);
        }
        // The channels of one tap would leave vectors mostly empty. Those of all taps side by side
        // fill them, and each position then reads one row of its own.
        let values = self.columns(sample);
        let channels = self.table.taps() * self.rows.channels;
        let rows = DenseRows { values: &values, pitch: channels, offset: 0, channels };
        let (table, live) = (RowTable::identity(self.live.len()), Vec::from_iter(0..self.live.len()));
        let Self { entries, outputs, scale, .. } = *self;
        TileGram { table: &table, patches: None, rows, live: &live, entries, outputs, scale }.of_rows(set, 0)
    }

    /// What each live position reads by all taps, `[position][tap][channel]`, and room for two
    /// vectors.
    fn columns(&self, sample: usize) -> Vec<T> {
        let DenseRows { values, channels, .. } = self.rows;
        let width = self.table.taps() * channels;
        let mut columns = vec![T::default(); self.live.len() * width + WIDE];
        for (tap, begins) in row_begins(self.table, self.rows, self.live, sample).into_iter().enumerate() {
            for (out, begin) in columns.chunks_exact_mut(width).zip(begins) {
                if let Some(begin) = begin {
                    out[tap * channels..][..channels].copy_from_slice(&values[begin..begin + channels]);
                }
            }
        }
        columns
    }

    /// Bytes that the sums of so many outputs take.
    #[must_use]
    pub(crate) fn sum_bytes(outputs: usize) -> usize {
        outputs.div_ceil(CHANNELS) * size_of::<LinePairSums>()
    }

    /// Bytes that the columns of so many positions and inputs take, where they are made.
    #[must_use]
    pub(crate) fn column_bytes(table: &RowTable, positions: usize, inputs: usize) -> usize {
        let numbers = positions * table.taps() * inputs + WIDE;
        if takes_columns(table, inputs) { numbers * size_of::<T>() } else { 0 }
    }

    fn of_rows(&self, set: InstructionSet, sample: usize) -> Vec<f64> {
        let [first, end] = self.outputs;
        let tasks: Vec<_> =
            (first..end).step_by(CHANNELS).map(|from| from..end.min(from + CHANNELS)).collect();
        let parts: Vec<LinePairSums> = match self.patches {
            Some(patches) => PatchGram { outer: self, patches }.sums(set, sample, tasks),
            None => {
                let sources = &row_begins(self.table, self.rows, self.live, sample);
                let run = |channels| set.run(TileChannels { outer: self, sources, channels });
                tasks.into_par_iter().map(run).collect()
            }
        };
        LinePairSums::gram(&parts, self.entries.lines)
    }

    /// Bytes that [`TileGram::gram`] takes by patches, beside the cotangents.
    #[must_use]
    pub(crate) fn bytes(patches: &Patches, inputs: usize, lines: usize) -> usize {
        size_of::<T>() * patched_outer::numbers(patches, inputs, lines, rayon::current_num_threads())
    }
}

/// Whether the taps of each position are written side by side first.
fn takes_columns(table: &RowTable, inputs: usize) -> bool {
    table.taps() > 1 && inputs < FEW_CHANNELS
}

/// For each tap and live position, where the row that it reads begins in the buffer.
pub(crate) fn row_begins<T>(
    table: &RowTable,
    rows: DenseRows<'_, T>,
    live: &[usize],
    sample: usize,
) -> Vec<Vec<Option<usize>>> {
    let begin = |row: usize| (sample * table.source_rows() + row) * rows.pitch + rows.offset;
    let of_tap = |tap: usize| live.iter().map(|&position| table.source(position, tap).map(begin)).collect();
    (0..table.taps()).map(of_tap).collect()
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
        if const { S::REGISTER_COUNT < 32 } {
            by_lines!(S, self.outer.entries.lines, |V| self.run::<S, 1, V>(simd, &mut sums));
        } else {
            by_lines!(S, self.outer.entries.lines, |V| self.run::<S, 2, V>(simd, &mut sums));
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

/// V lines of two vectors of D.
pub(crate) type GradientTile<T, const V: usize> = [[T; WIDE]; V];

/// sums(v, w) += scale^2 D_v . D_w over the first `width` elements. The tile is converted to f64 in
/// `wide` first. Zeros follow the last element there, so that whole vectors can be multiplied.
#[inline(always)]
pub(crate) fn square<S: Simd, T: SimdFloat, const V: usize>(
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
    /// The sums of several parts in one matrix, `[V, V]`, added in their order.
    pub(crate) fn gram(parts: &[Self], lines: usize) -> Vec<f64> {
        let mut gram = vec![0.0; lines * lines];
        for (part, v) in parts.iter().flat_map(|part| (0..lines).map(move |v| (part, v))) {
            for w in v..lines {
                gram[v * lines + w] += part.0[v][w].iter().sum::<f64>();
            }
        }
        for (v, w) in (0..lines).flat_map(|v| (0..v).map(move |w| (v, w))) {
            gram[v * lines + w] = gram[w * lines + v];
        }
        gram
    }

    /// Adds the products of two rows, whose length is a multiple of the lanes. Vector n of the rows
    /// goes to vector n modulo `vectors` of the sums.
    #[inline(always)]
    pub(crate) fn add<S: Simd>(&mut self, simd: S, v: usize, w: usize, a: &[f64], b: &[f64]) {
        let (a, _) = S::as_simd_f64s(a);
        let (b, _) = S::as_simd_f64s(b);
        let (sums, _) = S::as_mut_simd_f64s(&mut self.0[v][w]);
        let vectors = sums.len();
        for (at, sum) in sums.iter_mut().enumerate() {
            // A copy that stays in registers: see `accumulate` in `reverse/pullback.rs`.
            let mut local = *sum;
            for (a, b) in a[at..].iter().zip(&b[at..]).step_by(vectors) {
                local = simd.mul_add_f64s(*a, *b, local);
            }
            *sum = local;
        }
    }
}
