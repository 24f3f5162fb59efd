//! Depthwise convolutions, forward: each channel by itself. Their reverse pass is
//! [`Share::Weights`] of a gather.
//!
//! [`Share::Weights`]: crate::kernels::Share::Weights

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::rows::{Chunk, DenseRows, LiveRows, add_then_relu, tasks};
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// y(row, c) = bias(c) + sum over taps t of x(table(row, t), c) w(t, c) + residual(row, c), then
/// relu(y) if asked.
///
/// As [`Panels`](crate::kernels::Panels) of groups it would take 32 times the operations, most of
/// them by zeros. There are so few operations for each element that is read that plain loops leave
/// nothing to gain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Channelwise<'a, T> {
    /// Which rows a row reads.
    pub(crate) table: &'a RowTable,
    /// `[tap][channel]`.
    pub(crate) weights: &'a [T],
    /// One value for each channel.
    pub(crate) bias: &'a [T],
    /// The rows that are read.
    pub(crate) source: DenseRows<'a, T>,
    /// Rows that are added to the results.
    pub(crate) residual: Option<DenseRows<'a, T>>,
    /// Whether negative results become 0.
    pub(crate) relu: bool,
}

/// Rows that a task should have at least ([`tasks`]): many, since a row takes one product for each
/// tap and channel.
const LEAST_ROWS: usize = 64;

impl<T: SimdFloat> Channelwise<'_, T> {
    /// Writes the rows of `samples` samples at the positions `live`, ascending, into `out`.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        samples: usize,
        live: &[usize],
        out: &mut [T],
        layout: RowLayout,
    ) {
        let rows = LiveRows { positions: self.table.rows(), live, samples };
        let parts = rows.chunks(out, tasks(rows.count(), LEAST_ROWS), layout.pitch);
        parts.into_par_iter().for_each(|chunk| {
            set.run(ChannelwiseRows { own: self, chunk, rows, layout });
        });
    }

    /// One row.
    #[inline(always)]
    fn row(&self, row: usize, out: &mut [T]) {
        let Self { table, weights, bias, source, residual, relu } = *self;
        let (sample, position) = (row / table.rows(), row % table.rows());
        out.copy_from_slice(bias);
        for (tap, weights) in weights.chunks_exact(out.len()).enumerate() {
            let Some(from) = table.source(position, tap) else { continue };
            let read = source.row(sample * table.source_rows() + from);
            for ((sum, x), weight) in out.iter_mut().zip(read).zip(weights) {
                *sum = *sum + *x * *weight;
            }
        }
        add_then_relu(out, residual.map(|residual| residual.row(row)), relu);
    }
}

/// The rows of one chunk.
struct ChannelwiseRows<'a, 'b, T> {
    own: &'a Channelwise<'a, T>,
    chunk: Chunk<'b, T>,
    /// The rows that the chunk's range counts.
    rows: LiveRows<'a>,
    layout: RowLayout,
}

impl<T: SimdFloat> WithSimd for ChannelwiseRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { own, chunk, rows, layout } = self;
        for row in chunk.rows.map(|number| rows.row(number)) {
            let first = row * layout.pitch + layout.offset - chunk.start;
            own.row(row, &mut chunk.values[first..first + own.source.channels]);
        }
    }
}
