//! A convolution patch by patch ([`crate::kernels::winograd::form`]): what both passes have in
//! common.
//!
//! A *row of registers* is one line of one patch: nine of them, or a few fewer, are multiplied
//! together by the weights of a frequency. The forward pass has one line per patch, and takes nine
//! patches together; the reverse pass has V lines.
//!
//! A group of patches goes through three buffers ([`PatchBuffers`]):
//!
//! ```text
//! rows --B^T x B--> spectrum [frequency][row of registers][channel]
//!                      | times panels, one vector or two of columns at a time
//!                   products [frequency][row of registers][column]
//!                      | A^T x A
//!                   results  [result][row of registers][channel]
//! ```
//!
//! How many rows of registers there are is a constant only of the products, and the form only of
//! the transforms: both together would be eight copies of all of it, a quarter of the build of
//! these kernels.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::accumulate;
use crate::kernels::layout::cotangent::RowTile;
use crate::kernels::layout::lines::{MOST_LINES, by_lines};
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::{Chunk, chunks, fetch, tasks};
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST, equally_long};
use crate::kernels::winograd::form::{
    MOST_READS, WinogradForm, load_square, readings, results, store_square,
};
use crate::kernels::winograd::patches::Patches;

/// Dense lines that patches read: `values[(row * lines + line) * pitch + offset + channel]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PatchSource<'a, T> {
    pub(crate) patches: &'a Patches,
    pub(crate) values: &'a [T],
    pub(crate) pitch: usize,
    pub(crate) offset: usize,
    pub(crate) channels: usize,
    /// V.
    pub(crate) lines: usize,
}

/// A convolution of dense lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patched<'a, T> {
    pub(crate) source: PatchSource<'a, T>,
    /// See [`Patches::panels`].
    pub(crate) panels: &'a Panels<T>,
}

/// Where the results of patches go.
pub(crate) trait Deliver<T: SimdFloat>: Sync {
    /// Takes one row into the part of the buffer that is the chunk's.
    fn deliver<S: Simd>(&self, simd: S, tile: RowTile<'_, T>, chunk: &mut Chunk<'_, T>);
}

impl<T: SimdFloat> Patched<'_, T> {
    /// Computes all rows of `samples` samples; the elements of a row begin at `begin(row)` in
    /// `out`. Threads take whole lines of patches, each of which writes neighbouring rows.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        samples: usize,
        out: &mut [T],
        begin: impl Fn(usize) -> usize,
        deliver: &impl Deliver<T>,
    ) {
        let bands = samples * self.source.patches.bands();
        let first = |band: usize| begin(self.source.patches.first_row(band));
        chunks(out, bands, tasks(bands, 1), first).into_par_iter().for_each(|chunk| {
            set.run(Bands { patched: self, deliver, chunk });
        });
    }

    /// How many patches are taken together so that their lines fill the rows of registers.
    fn together(&self) -> usize {
        (MOST_LINES / self.source.lines).max(1)
    }
}

/// Some lines of patches.
struct Bands<'a, 'b, T, D> {
    patched: &'a Patched<'a, T>,
    deliver: &'a D,
    chunk: Chunk<'b, T>,
}

impl<T: SimdFloat, D: Deliver<T>> WithSimd for Bands<'_, '_, T, D> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // One vector of sums per row where registers are few, two where there are more.
        if const { S::REGISTER_COUNT < 32 } {
            self.groups::<S, 1>(simd);
        } else {
            self.groups::<S, 2>(simd);
        }
    }
}

/// The buffers of a group of patches.
struct PatchBuffers<T> {
    /// R: how many rows of registers are in use.
    rows: usize,
    /// `[frequency][row of registers][channel]`
    spectrum: Vec<T>,
    /// Elements from one row of the spectrum to the next.
    depth: usize,
    /// `[frequency][row of registers][column]`, with room for [`MOST_LINES`] rows
    products: Vec<T>,
    /// `[result][row of registers][channel]`
    results: Vec<T>,
    /// Elements from one row of the results to the next.
    width: usize,
}

impl<T: SimdFloat, D: Deliver<T>> Bands<'_, '_, T, D> {
    #[inline(always)]
    fn groups<S: Simd, const G: usize>(mut self, simd: S) {
        let Patched { source, panels } = *self.patched;
        let PatchSource { patches, lines, .. } = source;
        let (columns, together) = (G * T::lanes::<S>(), self.patched.together());
        // With fewer than 5 lines a group has several patches.
        let rows = lines * together;
        let depth = panels.inputs.next_multiple_of(T::lanes::<S>());
        let width = panels.outputs.next_multiple_of(columns);
        let form = patches.form();
        let mut buffers = PatchBuffers {
            rows,
            spectrum: vec![T::default(); patches.frequencies() * rows * depth],
            depth,
            products: vec![T::default(); patches.frequencies() * MOST_LINES * columns],
            results: vec![T::default(); form.results().pow(2) * rows * width],
            width,
        };
        // The chunk's range counts lines of patches.
        let all = patches.of_bands(self.chunk.rows.clone());
        let group = |first: usize| first..all.end.min(first + together);
        for first in all.clone().step_by(together) {
            for (at, patch) in group(first).enumerate() {
                for line in 0..lines {
                    let to = &mut buffers.spectrum[(at * lines + line) * depth..];
                    match form {
                        WinogradForm::Two => source.frequencies::<S, 4>(simd, patch, line, to, rows * depth),
                        WinogradForm::Four => source.frequencies::<S, 6>(simd, patch, line, to, rows * depth),
                    }
                }
            }
            // What the group after this one reads is fetched while the last columns of this one are
            // multiplied.
            let next = group(group(first).end);
            for panel in 0..panels.count() {
                let written = panels.outputs - panel * panels.width;
                for column in (0..panels.width.min(written)).step_by(columns) {
                    let ends = column + columns >= written;
                    let next = ends.then(|| next.clone());
                    by_lines!(@among [5 7 8 9] S, rows, |R| {
                        self.patched.multiply::<S, R, G>(simd, panel, column, next, &mut buffers);
                    });
                    let first = panel * panels.width + column;
                    match form {
                        WinogradForm::Two => finish::<S, T, G, 4, 2>(simd, first, &mut buffers),
                        WinogradForm::Four => finish::<S, T, G, 6, 4>(simd, first, &mut buffers),
                    }
                }
            }
            self.write(simd, group(first), &buffers);
        }
    }

    /// Hands on the results.
    #[inline(always)]
    fn write<S: Simd>(&mut self, simd: S, group: Range<usize>, buffers: &PatchBuffers<T>) {
        let (lines, stride, width) = (self.patched.source.lines, buffers.width, self.patched.panels.outputs);
        for (at, results) in buffers.results.chunks_exact(buffers.rows * stride).enumerate() {
            for (patch, values) in group.clone().zip(results.chunks(lines * stride)) {
                let Some(row) = self.patched.source.patches.written(patch, at) else { continue };
                let tile = RowTile { row, first: 0, width, values, stride };
                self.deliver.deliver(simd, tile, &mut self.chunk);
            }
        }
    }
}

impl<'a, T: SimdFloat> PatchSource<'a, T> {
    /// The frequencies of one line of a patch, each `stride` after the one before.
    #[inline(always)]
    pub(crate) fn frequencies<S: Simd, const N: usize>(
        &self,
        simd: S,
        patch: usize,
        line: usize,
        out: &mut [T],
        stride: usize,
    ) {
        let (lanes, channels) = (T::lanes::<S>(), self.channels);
        let mut rows: [Option<&[T]>; MOST_READS] = [None; MOST_READS];
        for (k, row) in rows[..N * N].iter_mut().enumerate() {
            if let Some(found) = self.patches.read(patch, k) {
                *row = Some(self.row(found, line));
            }
        }
        // Channels that fill vectors; those after them go through a copy that fills one.
        let rest = channels % lanes;
        for channel in (0..channels - rest).step_by(lanes) {
            vector::<S, T, N>(simd, &rows, channel, &mut out[channel..], stride);
        }
        if rest > 0 {
            let mut full = [[T::default(); WIDEST]; MOST_READS];
            for (full, row) in full.iter_mut().zip(rows) {
                row.iter().for_each(|row| full[..rest].copy_from_slice(&row[channels - rest..]));
            }
            let mut rows: [Option<&[T]>; MOST_READS] = [None; MOST_READS];
            rows.iter_mut().zip(&full).for_each(|(row, full)| *row = Some(full));
            vector::<S, T, N>(simd, &rows, 0, &mut out[channels - rest..], stride);
        }
    }

    #[inline(always)]
    fn row(&self, row: usize, line: usize) -> &'a [T] {
        &self.values[(row * self.lines + line) * self.pitch + self.offset..][..self.channels]
    }

    /// Fetches the rows that some patches read as their row `at`.
    #[inline(always)]
    fn fetch(&self, group: Range<usize>, at: usize) {
        for row in group.filter_map(|patch| self.patches.read(patch, at)) {
            (0..self.lines).for_each(|line| fetch(self.row(row, line)));
        }
    }
}

/// The frequencies of one vector of channels.
#[inline(always)]
fn vector<S: Simd, T: SimdFloat, const N: usize>(
    simd: S,
    rows: &[Option<&[T]>; MOST_READS],
    channel: usize,
    out: &mut [T],
    stride: usize,
) {
    let lanes = T::lanes::<S>();
    let mut x = [[T::splat(simd, T::default()); N]; N];
    for (i, line) in x.iter_mut().enumerate() {
        for (j, x) in line.iter_mut().enumerate() {
            if let Some(row) = rows[i * N + j] {
                *x = T::load(simd, &row[channel..channel + lanes]);
            }
        }
    }
    store_square::<S, T, N>(simd, readings::<S, T, N>(simd, x), out, stride);
}

impl<T: SimdFloat> Patched<'_, T> {
    /// The products of every frequency with some columns. Meanwhile what the patches `next` will
    /// read is fetched: a patch reads as many rows as it has frequencies, so each frequency fetches
    /// one of these.
    #[inline(always)]
    fn multiply<S: Simd, const R: usize, const G: usize>(
        &self,
        simd: S,
        panel: usize,
        column: usize,
        next: Option<Range<usize>>,
        buffers: &mut PatchBuffers<T>,
    ) {
        let (panels, lanes, zero) = (self.panels, T::lanes::<S>(), T::splat(simd, T::default()));
        let PatchBuffers { spectrum, depth, products, .. } = buffers;
        let each = products.chunks_exact_mut(MOST_LINES * G * lanes).zip(spectrum.chunks_exact(R * *depth));
        for (frequency, (products, spectrum)) in each.enumerate() {
            next.iter().for_each(|next| self.source.fetch(next.clone(), frequency));
            let rows: [&[T]; R] = equally_long(panels.inputs, |r| &spectrum[r * *depth..]);
            let mut sums = [[zero; G]; R];
            accumulate(simd, &mut sums, rows, &panels.tap(panel, frequency)[column..], panels.width);
            for (to, sums) in products.chunks_exact_mut(G * lanes).zip(sums) {
                for (to, sum) in to.chunks_exact_mut(lanes).zip(sums) {
                    T::store(simd, sum, to);
                }
            }
        }
    }
}

/// A^T x A: the results of some columns, from `first` on, from their products.
#[inline(always)]
fn finish<S: Simd, T: SimdFloat, const G: usize, const N: usize, const M: usize>(
    simd: S,
    first: usize,
    buffers: &mut PatchBuffers<T>,
) {
    let lanes = T::lanes::<S>();
    let PatchBuffers { rows, products, results: out, width, .. } = buffers;
    for r in 0..*rows {
        for g in 0..G {
            let x = load_square::<S, T, N>(simd, &products[(r * G + g) * lanes..], MOST_LINES * G * lanes);
            let y = results::<S, T, N, M>(simd, x);
            store_square::<S, T, M>(simd, y, &mut out[r * *width + first + g * lanes..], *rows * *width);
        }
    }
}
