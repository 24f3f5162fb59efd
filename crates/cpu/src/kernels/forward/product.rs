//! The forward pass of a convolution: a dense product over the rows that a table names.
//!
//! Tiles of eight rows (four where registers are few) by two vectors of columns stay in registers
//! while taps and channels pass by. With [`Patches`] the product is taken in Winograd's form
//! instead.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::layout::cotangent::RowTile;
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::{Chunk, DenseRows, LiveRows, tasks};
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{InstructionSet, SimdFloat, equally_long, load, store};
use crate::kernels::winograd::patched::{Deliver, PatchSource, Patched};
use crate::kernels::winograd::patches::Patches;

/// y(row, o) = bias(o) + residual(row, o) + sum over taps t and channels i of x(table(row, t), i)
/// w(t, i, o), then relu(y) if asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product<'a, T> {
    /// Which rows a row reads.
    pub(crate) table: &'a RowTable,
    /// The table in Winograd's form, if the weights are in it: for products at all positions.
    pub(crate) patches: Option<&'a Patches>,
    /// The weights.
    pub(crate) panels: &'a Panels<T>,
    /// One value for each output.
    pub(crate) bias: &'a [T],
    /// The rows that are read.
    pub(crate) source: DenseRows<'a, T>,
    /// Rows that are added to the results.
    pub(crate) residual: Option<DenseRows<'a, T>>,
    /// Whether negative results become 0.
    pub(crate) relu: bool,
}

/// Where rows are written: [`DenseRows`] without the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowLayout {
    /// Elements from one row to the next.
    pub(crate) pitch: usize,
    /// The first channel in the buffer's row.
    pub(crate) offset: usize,
}

/// Vectors of columns that a tile holds in registers.
const COLUMNS: usize = 2;

/// Rows that a task should have at least ([`tasks`]): several tiles. A tile that is not full takes
/// as long as a full one.
const LEAST_ROWS: usize = 32;

impl<T: SimdFloat> Product<'_, T> {
    /// Writes the rows of `samples` samples at the positions `live`, ascending, into `out`.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        samples: usize,
        live: &[usize],
        out: &mut [T],
        layout: RowLayout,
    ) {
        if let Some(patches) = self.patches {
            debug_assert_eq!(live.len(), self.table.rows());
            let DenseRows { values, pitch, offset, channels } = self.source;
            let source = PatchSource { patches, values, pitch, offset, channels, lines: 1 };
            let patched = Patched { source, panels: self.panels };
            return patched.run(
                set,
                samples,
                out,
                |row| row * layout.pitch,
                &ProductRows { product: self, layout },
            );
        }
        let rows = LiveRows { positions: self.table.rows(), live, samples };
        // Where rows pass by one panel at a time, each part reads all weights: no more parts than
        // threads.
        let parts = match self.panels.passes() {
            1 => tasks(rows.count(), LEAST_ROWS),
            _ => tasks(rows.count(), LEAST_ROWS).min(rayon::current_num_threads()),
        };
        rows.chunks(out, parts, layout.pitch).into_par_iter().for_each(|chunk| {
            set.run(Tiles { product: self, chunk, rows, layout });
        });
    }
}

/// Where results of patches go.
struct ProductRows<'a, T> {
    product: &'a Product<'a, T>,
    layout: RowLayout,
}

impl<T: SimdFloat> Deliver<T> for ProductRows<'_, T> {
    /// Adds bias and residual to a row's results, cuts them off at 0 if asked, and stores them.
    #[inline(always)]
    fn deliver<S: Simd>(&self, simd: S, tile: RowTile<'_, T>, chunk: &mut Chunk<'_, T>) {
        let Self { product, layout } = self;
        let RowTile { row, first, width, values, .. } = tile;
        let bias = &product.bias[first..first + width];
        let other = product.residual.map(|residual| &residual.row(row)[first..first + width]);
        let at = row * layout.pitch + layout.offset + first - chunk.start;
        let out = &mut chunk.values[at..at + width];
        let lanes = T::lanes::<S>();
        for (at, out) in out.chunks_mut(lanes).enumerate() {
            let columns = at * lanes..at * lanes + out.len();
            let sum = T::load(simd, &values[at * lanes..]);
            let mut sum = T::sum(simd, load(simd, &bias[columns.clone()]), sum);
            if let Some(other) = other {
                sum = T::sum(simd, sum, load(simd, &other[columns]));
            }
            if product.relu {
                sum = T::relu(simd, sum);
            }
            store(simd, sum, out);
        }
    }
}

/// The rows of one chunk.
struct Tiles<'a, 'b, T> {
    product: &'a Product<'a, T>,
    chunk: Chunk<'b, T>,
    /// The rows that the chunk's range counts.
    rows: LiveRows<'a>,
    layout: RowLayout,
}

impl<T: SimdFloat> WithSimd for Tiles<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if const { S::REGISTER_COUNT < 32 } { self.tiles::<S, 4>(simd) } else { self.tiles::<S, 8>(simd) }
    }
}

/// What R rows read by one tap.
type Reads<'a, T, const R: usize> = (usize, [&'a [T]; R]);

/// R rows of G vectors.
type TileSums<T, S, const R: usize, const G: usize = COLUMNS> = [[<T as SimdFloat>::Vector<S>; G]; R];

impl<T: SimdFloat> Tiles<'_, '_, T> {
    #[inline(always)]
    fn tiles<S: Simd, const R: usize>(mut self, simd: S) {
        let panels = self.product.panels;
        let zeros = vec![T::default(); panels.inputs];
        let mut reads = Vec::with_capacity(panels.taps);
        // All panels at once, or one after the other.
        let step = panels.count().div_ceil(panels.passes());
        for first in (0..panels.count()).step_by(step.max(1)) {
            for at in self.chunk.rows.clone().step_by(R) {
                let rows = self.rows::<R>(at);
                reads_of(self.product, &rows, &zeros, &mut reads);
                for panel in first..panels.count().min(first + step) {
                    self.panel(simd, panel, &rows, &reads);
                }
            }
        }
    }

    /// The rows of a tile, of which the last may have fewer.
    #[inline(always)]
    fn rows<const R: usize>(&self, at: usize) -> [Option<usize>; R] {
        std::array::from_fn(|i| (at + i < self.chunk.rows.end).then(|| self.rows.row(at + i)))
    }

    /// One panel's columns of a tile.
    #[inline(always)]
    fn panel<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        panel: usize,
        rows: &[Option<usize>; R],
        reads: &[Reads<'_, T, R>],
    ) {
        let Product { panels, .. } = self.product;
        let columns = COLUMNS * T::lanes::<S>();
        let (outputs, block) = (panels.outputs - panel * panels.width, panels.block(panel));
        for column in (0..panels.width.min(outputs)).step_by(columns) {
            let first = panel * panels.width + column;
            let width = columns.min(outputs - column);
            let mut sums = self.start(simd, rows, first, width);
            for (tap, operands) in reads {
                let operands = operands.map(|row| &row[block.clone()]);
                let weights = &panels.tap(panel, *tap)[block.start * panels.width + column..];
                accumulate(simd, &mut sums, operands, weights, panels.width);
            }
            self.finish(simd, &sums, rows, first, width);
        }
    }

    /// The sums that a tile begins with: bias and residual.
    #[inline(always)]
    fn start<S: Simd, const R: usize>(
        &self,
        simd: S,
        rows: &[Option<usize>; R],
        first: usize,
        width: usize,
    ) -> TileSums<T, S, R> {
        let Product { bias, residual, .. } = self.product;
        let bias = load_columns(simd, &bias[first..first + width]);
        let mut sums = [bias; R];
        for (row, sums) in rows.iter().zip(&mut sums) {
            let (Some(row), Some(residual)) = (row, residual) else { continue };
            let other = load_columns(simd, &residual.row(*row)[first..first + width]);
            for (sum, other) in sums.iter_mut().zip(other) {
                *sum = T::sum(simd, *sum, other);
            }
        }
        sums
    }

    /// Stores the sums, cut off at 0 if asked.
    #[inline(always)]
    fn finish<S: Simd, const R: usize>(
        &mut self,
        simd: S,
        sums: &TileSums<T, S, R>,
        rows: &[Option<usize>; R],
        first: usize,
        width: usize,
    ) {
        for (row, sums) in rows.iter().zip(sums) {
            let Some(row) = row else { continue };
            let at = row * self.layout.pitch + self.layout.offset + first - self.chunk.start;
            let mut sums = *sums;
            if self.product.relu {
                for sum in &mut sums {
                    *sum = T::relu(simd, *sum);
                }
            }
            let lanes = T::lanes::<S>();
            for (sum, out) in sums.into_iter().zip(self.chunk.values[at..at + width].chunks_mut(lanes)) {
                store(simd, sum, out);
            }
        }
    }
}

/// The operands of rows, tap by tap. Rows without a tap read zeros; taps that no row has are left
/// out.
#[inline(always)]
fn reads_of<'a, T: SimdFloat, const R: usize>(
    product: &Product<'a, T>,
    rows: &[Option<usize>; R],
    zeros: &'a [T],
    reads: &mut Vec<Reads<'a, T, R>>,
) {
    let Product { table, source, panels, .. } = product;
    reads.clear();
    for tap in 0..panels.taps {
        let mut any = false;
        let operands = rows.map(|row| {
            let found = row.and_then(|row| {
                let (sample, position) = (row / table.rows(), row % table.rows());
                Some(sample * table.source_rows() + table.source(position, tap)?)
            });
            any |= found.is_some();
            found.map_or(zeros, |row| source.row(row))
        });
        if any {
            reads.push((tap, operands));
        }
    }
}

/// sums(r) += sum over channels i of x(r, i) w(i), one after the other.
#[inline(always)]
pub(crate) fn accumulate<S: Simd, T: SimdFloat, const R: usize, const G: usize>(
    simd: S,
    sums: &mut TileSums<T, S, R, G>,
    rows: [&[T]; R],
    weights: &[T],
    width: usize,
) {
    let lanes = T::lanes::<S>();
    let count = rows[0].len();
    let rows: [&[T]; R] = equally_long(count, |row| rows[row]);
    // A copy that stays in registers: see `accumulate` in `reverse/pullback.rs`.
    let mut local = *sums;
    for (channel, weights) in (0..count).zip(weights.chunks(width)) {
        let weights: [T::Vector<S>; G] =
            std::array::from_fn(|g| T::load(simd, &weights[g * lanes..(g + 1) * lanes]));
        for (sums, row) in local.iter_mut().zip(&rows) {
            let x = T::splat(simd, row[channel]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = T::mul_add(simd, x, weight, *sum);
            }
        }
    }
    *sums = local;
}

/// Vectors from elements that may be too few to fill them.
#[inline(always)]
fn load_columns<S: Simd, T: SimdFloat>(simd: S, from: &[T]) -> [T::Vector<S>; COLUMNS] {
    let lanes = T::lanes::<S>();
    let mut vectors = [T::splat(simd, T::default()); COLUMNS];
    for (vector, from) in vectors.iter_mut().zip(from.chunks(lanes)) {
        *vector = load(simd, from);
    }
    vectors
}
