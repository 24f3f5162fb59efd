//! Copies of rows in another arrangement, and their reverse.

use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::cotangent::{
    CotangentTarget, Cotangents, LineLayout, Lines, RowTile, scale_lines,
};
use crate::kernels::layout::lanes::{by_lanes, in_lanes};
use crate::kernels::layout::rows::{DenseRows, chunks, tasks};
use crate::kernels::reverse::lanes::LaneSteps;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// y(r, c) = x(s(r, c)): each element of a sample's result is one of its operand's, which may be
/// taken more than once or not at all, or a constant.
#[derive(Debug, Clone)]
pub(crate) struct Moves {
    /// Rows and channels of the operand.
    from: [usize; 2],
    /// Rows and channels of the result.
    to: [usize; 2],
    /// For each element of the result the operand's element that it takes, row by row.
    sources: Vec<u32>,
    /// Where the list of each row of the operand begins among `takers`.
    starts: Vec<usize>,
    /// For each row of the operand, the channels that are taken and the elements of the result that
    /// take them, in the order of the latter, so that a row of the result is expanded once.
    takers: Vec<[u32; 2]>,
}

/// Rows that a task should have at least ([`tasks`]): many, since a row is only copied.
const LEAST_ROWS: usize = 64;

impl Moves {
    /// No element of the operand.
    pub(crate) const NONE: u32 = u32::MAX;

    /// `sources` has as many entries as `to` has elements: each is an element of `from`, or
    /// [`Moves::NONE`].
    pub(crate) fn new(sources: Vec<u32>, from: [usize; 2], to: [usize; 2]) -> Self {
        // `starts` and `takers` are `sources` turned round, for the pullback: sorted by the
        // operand's row, and within it by the element of the result.
        let width = from[1].max(1);
        let takers = sources.iter().zip(0..).map(|(&source, taker)| [source, taker]);
        let mut takers: Vec<_> = takers.filter(|[source, _]| *source != Self::NONE).collect();
        takers.sort_by_key(|&[source, taker]| (source as usize / width, taker));
        let starts =
            (0..=from[0]).map(|row| takers.partition_point(|[source, _]| (*source as usize) < row * width));
        let starts = starts.collect();
        let takers = takers.into_iter().map(|[source, taker]| [source % width as u32, taker]).collect();
        Self { from, to, sources, starts, takers }
    }

    /// Bytes that the lists take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.sources.as_slice())
            + size_of_val(self.starts.as_slice())
            + size_of_val(self.takers.as_slice())
    }

    /// The rows of the operand from which a row of the result takes elements.
    pub(crate) fn rows_of(&self, row: usize) -> Vec<usize> {
        let sources = &self.sources[row * self.to[1]..][..self.to[1]];
        let taken = sources.iter().filter(|source| **source != Self::NONE);
        let mut rows: Vec<_> = taken.map(|&source| source as usize / self.from[1]).collect();
        rows.dedup();
        rows
    }

    /// How many channels a row has of the operand, and of the result.
    pub(crate) fn channels(&self) -> [usize; 2] {
        [self.from[1], self.to[1]]
    }

    /// What takes elements of a row of the operand, rows counted through all samples: the channel
    /// that is taken, and the row and channel of the result that take it.
    pub(crate) fn takers_of(&self, row: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let Self { from, to, starts, takers, .. } = self;
        let (sample, at) = (row / from[0], row % from[0]);
        takers[starts[at]..starts[at + 1]].iter().map(move |&[channel, taker]| {
            let (row, other) = (sample * to[0] + taker as usize / to[1], taker as usize % to[1]);
            (channel as usize, row, other)
        })
    }

    /// Writes all rows of `samples` samples into `out`; elements that are not taken from the
    /// operand come from `fill`, which has those of a sample, or are 0.
    pub(crate) fn run<T: SimdFloat>(
        &self,
        source: DenseRows<'_, T>,
        fill: Option<&[T]>,
        samples: usize,
        out: &mut [T],
        layout: RowLayout,
    ) {
        let rows = samples * self.to[0];
        let parts = chunks(out, rows, tasks(rows, LEAST_ROWS), |row| row * layout.pitch);
        parts.into_par_iter().for_each(|chunk| {
            for row in chunk.rows {
                let (sample, at) = (row / self.to[0], row % self.to[0]);
                let out = &mut chunk.values[row * layout.pitch + layout.offset - chunk.start..][..self.to[1]];
                let sources = &self.sources[at * self.to[1]..][..self.to[1]];
                for (channel, (out, &source_at)) in out.iter_mut().zip(sources).enumerate() {
                    if source_at == Self::NONE {
                        *out = fill.map_or(T::default(), |fill| fill[at * self.to[1] + channel]);
                        continue;
                    }
                    let (row, channel) =
                        (source_at as usize / self.from[1], source_at as usize % self.from[1]);
                    *out = source.row(sample * self.from[0] + row)[channel];
                }
            }
        });
    }
}

/// target(s, v, c) += scale(c) times the sum of source(r, v, d) over all (r, d) that took (s, c).
#[derive(Debug, Clone, Copy)]
pub(crate) struct MovesPullback<'a, T> {
    pub(crate) moves: &'a Moves,
    /// The cotangents of the result.
    pub(crate) source: Cotangents<'a, T>,
    /// Where those of the operand go.
    pub(crate) target: CotangentTarget<'a>,
    /// One factor for each channel of the operand.
    pub(crate) scale: Option<&'a [T]>,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

impl<T: SimdFloat> MovesPullback<'_, T> {
    /// Fills all rows of `samples` samples of the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        let rows = samples * self.moves.from[0];
        let begin = |row: usize| self.target.block(row, self.lines);
        chunks(out, rows, tasks(rows, LEAST_ROWS), begin).into_par_iter().for_each(|mut chunk| {
            if in_lanes(self.lines) {
                let chunk = &mut chunk;
                return by_lanes!(self.lines, |L| set
                    .run(LaneSteps::<'_, '_, '_, _, _, L> { step: self, chunk }));
            }
            let width = self.moves.from[1];
            let mut tile = vec![T::default(); self.lines * width];
            let mut expanded = vec![T::default(); self.lines * self.moves.to[1]];
            for row in chunk.rows {
                self.row(set, row, &mut expanded, &mut tile);
                let block = &mut chunk.values[begin(row) - chunk.start..];
                let tile = RowTile { row, first: 0, width, values: &tile, stride: width };
                self.target.deliver(set, tile, self.add, block);
            }
        });
    }

    /// All lines of one row of the target, `[V][channels]`.
    fn row(&self, set: InstructionSet, row: usize, expanded: &mut [T], tile: &mut [T]) {
        let Moves { from, to, .. } = self.moves;
        tile.fill(T::default());
        let mut known = None;
        for (channel, taken, other) in self.moves.takers_of(row) {
            // Compressed rows are written in full; takers come in the order of the result's rows,
            // so that each row is expanded once.
            let (values, stride) = match self.source.layout {
                LineLayout::Dense { .. } => {
                    let Lines { values, stride, .. } = self.source.row(taken, self.lines);
                    (values, stride)
                }
                LineLayout::Compressed(_) => {
                    if known.replace(taken) != Some(taken) {
                        self.source.expand(set, taken, self.lines, 0..to[1], expanded);
                    }
                    (&*expanded, to[1])
                }
            };
            for line in 0..self.lines {
                let sum = &mut tile[line * from[1] + channel];
                *sum = *sum + values[line * stride + other];
            }
        }
        if let Some(scale) = self.scale {
            scale_lines(tile, scale);
        }
    }
}
