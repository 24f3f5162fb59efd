//! Cotangents gathered from the rows that read a row, each channel by itself: the reverse pass of
//! pools and depthwise convolutions, and the sum over the taps of columns.
//!
//! Fast path: weighted shares of dense lines keep a vector of channels of three lines in registers
//! while the taps pass by ([`WeightedRows`]). All else adds up a row in memory, line by line.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::pool::Shares;
use crate::kernels::layout::cotangent::{
    CotangentTarget, Cotangents, LineLayout, Lines, RowTile, scale_lines,
};
use crate::kernels::layout::lanes::{by_lanes, in_lanes};
use crate::kernels::layout::rows::{Chunk, DenseRows, chunks, tasks};
use crate::kernels::layout::table::{Link, Links};
use crate::kernels::reverse::lanes::LaneSteps;
use crate::kernels::simd::{InstructionSet, SimdFloat, load, store};

/// The share that a row has in the cotangents of a row that reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share<'a, T> {
    /// The factors of the reading window, and how many taps it has.
    Window(&'a Shares<T>, usize),
    /// A channel's cotangent where the channel chose the tap, else nothing. These are the choices,
    /// `[reading row][channel]`.
    Chosen(&'a [u16]),
    /// The columns of the tap: the reading rows have the channels of all taps side by side.
    Columns,
    /// Times a weight of the tap and channel: `[tap][channel]`.
    Weights(&'a [T]),
}

/// target(row, v, c) += scale(c) times the sum over the taps and rows that read the row of their
/// share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatherPullback<'a, T> {
    /// By which taps and rows each row is read.
    pub(crate) links: &'a Links,
    /// The cotangents of the rows that read.
    pub(crate) source: Cotangents<'a, T>,
    /// The share that a row has in them.
    pub(crate) share: Share<'a, T>,
    /// Where they go.
    pub(crate) target: CotangentTarget<'a>,
    /// How many channels the target has.
    pub(crate) channels: usize,
    /// One factor for each channel.
    pub(crate) scale: Option<&'a [T]>,
    /// Factors for each row of the target, channel by channel.
    pub(crate) slopes: Option<DenseRows<'a, T>>,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

/// Rows that a task should have at least ([`tasks`]): fewer than forward, since a row has V lines.
const LEAST_ROWS: usize = 32;

impl<T: SimdFloat> GatherPullback<'_, T> {
    /// Gathers for all rows of `samples` samples into `out`, the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        let rows = samples * self.links.targets();
        let begin = |row: usize| self.target.block(row, self.lines);
        chunks(out, rows, tasks(rows, LEAST_ROWS), begin).into_par_iter().for_each(|mut chunk| {
            if in_lanes(self.lines) {
                let chunk = &mut chunk;
                return by_lanes!(self.lines, |L| set
                    .run(LaneSteps::<'_, '_, '_, _, _, L> { step: self, chunk }));
            }
            set.run(GatherRows { gather: self, set, chunk });
        });
    }

    /// All lines of one row of the target, `[V][channels]`.
    #[inline(always)]
    fn row(&self, set: InstructionSet, row: usize, expanded: &mut [T], tile: &mut [T]) {
        tile.fill(T::default());
        for (link, from) in self.links.readers(row) {
            match self.source.layout {
                LineLayout::Dense { .. } => {
                    let Lines { values, stride, .. } = self.source.row(from, self.lines);
                    self.add_share(link, from, values, stride, tile);
                }
                LineLayout::Compressed(active) => {
                    let channels = active.channels();
                    self.source.expand(set, from, self.lines, 0..channels, expanded);
                    self.add_share(link, from, expanded, channels, tile);
                }
            }
        }
        if let Some(scale) = self.scale {
            scale_lines(tile, scale);
        }
        if let Some(slopes) = self.slopes {
            scale_lines(tile, slopes.row(row));
        }
    }

    /// Adds the share of one reading row's lines, `stride` apart.
    #[inline(always)]
    fn add_share(&self, link: Link, from: usize, read: &[T], stride: usize, tile: &mut [T]) {
        let wide = self.source.layout.channels();
        for (tile, read) in tile.chunks_exact_mut(self.channels).zip(read.chunks_exact(stride)) {
            let read = &read[..wide];
            // (`add_lanes` of `reverse/lanes.rs` has the same cases, with what each of them means.)
            match self.share {
                Share::Window(shares, taps) => {
                    let share = match shares {
                        Shares::Rows(shares) => shares[link.row],
                        Shares::Taps(shares) => shares[link.row * taps + link.tap],
                    };
                    tile.iter_mut().zip(read).for_each(|(sum, x)| *sum = *sum + *x * share);
                }
                Share::Chosen(choices) => {
                    let choices = &choices[from * wide..(from + 1) * wide];
                    for ((sum, x), choice) in tile.iter_mut().zip(read).zip(choices) {
                        *sum = if usize::from(*choice) == link.tap { *sum + *x } else { *sum };
                    }
                }
                Share::Columns => {
                    let read = &read[link.tap * self.channels..][..self.channels];
                    tile.iter_mut().zip(read).for_each(|(sum, x)| *sum = *sum + *x);
                }
                Share::Weights(weights) => {
                    let weights = &weights[link.tap * self.channels..][..self.channels];
                    for ((sum, x), weight) in tile.iter_mut().zip(read).zip(weights) {
                        *sum = *sum + *x * *weight;
                    }
                }
            }
        }
    }
}

/// The rows of one chunk.
struct GatherRows<'a, 'b, T> {
    gather: &'a GatherPullback<'a, T>,
    set: InstructionSet,
    chunk: Chunk<'b, T>,
}

impl<T: SimdFloat> WithSimd for GatherRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { gather, set, chunk } = self;
        let GatherPullback { source, target, channels, add, lines, .. } = *gather;
        if let (Share::Weights(weights), LineLayout::Dense { pitch, offset, .. }) =
            (gather.share, source.layout)
        {
            let weighted = WeightedRows { gather, set, chunk, weights, pitch, offset };
            return weighted.rows(simd);
        }
        let mut tile = vec![T::default(); lines * channels];
        let mut expanded = vec![T::default(); lines * source.layout.channels()];
        for row in chunk.rows {
            gather.row(set, row, &mut expanded, &mut tile);
            let block = &mut chunk.values[target.block(row, lines) - chunk.start..];
            let tile = RowTile { row, first: 0, width: channels, values: &tile, stride: channels };
            target.deliver(set, tile, add, block);
        }
    }
}

/// Rows of weighted dense lines: a vector of channels of some lines stays in registers while the
/// taps pass by, and a weight is read once for all of these.
struct WeightedRows<'a, 'b, T> {
    gather: &'a GatherPullback<'a, T>,
    set: InstructionSet,
    chunk: Chunk<'b, T>,
    /// `[tap][channel]`.
    weights: &'a [T],
    /// Elements from one line of the source to the next.
    pitch: usize,
    /// The first channel in a line of the source.
    offset: usize,
}

impl<T: SimdFloat> WeightedRows<'_, '_, T> {
    #[inline(always)]
    fn rows<S: Simd>(mut self, simd: S) {
        let GatherPullback { target, channels, add, scale, slopes, lines, .. } = *self.gather;
        let stride = channels.next_multiple_of(T::lanes::<S>());
        let mut tile = vec![T::default(); lines * stride];
        for row in self.chunk.rows.clone() {
            let first = target.block(row, lines) - self.chunk.start;
            if let (CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. }), None) = (target, scale) {
                // Dense lines are written at once. (The chunk's buffer is taken out, because `row`
                // borrows the rest.)
                let block = std::mem::take(&mut self.chunk.values);
                let own = slopes.map(|slopes| slopes.row(row));
                self.row(simd, row, own, &mut block[first + offset..], (pitch, add));
                self.chunk.values = block;
                continue;
            }
            self.row(simd, row, None, &mut tile, (stride, false));
            if let Some(scale) = scale {
                tile.chunks_exact_mut(stride).for_each(|line| scale_lines(&mut line[..channels], scale));
            }
            let tile = RowTile { row, first: 0, width: channels, values: &tile, stride };
            target.deliver(self.set, tile, add, &mut self.chunk.values[first..]);
        }
    }

    /// All lines of one row, times its factors, `stride` apart in `out`, where they are written or
    /// added.
    #[inline(always)]
    fn row<S: Simd>(
        &self,
        simd: S,
        row: usize,
        slopes: Option<&[T]>,
        out: &mut [T],
        (stride, add): (usize, bool),
    ) {
        let GatherPullback { channels, lines, .. } = *self.gather;
        let lanes = T::lanes::<S>();
        for first in (0..channels).step_by(lanes) {
            let width = lanes.min(channels - first);
            let factors = match slopes {
                Some(slopes) => load(simd, &slopes[first..first + width]),
                None => T::splat(simd, T::of(1.0)),
            };
            // Lines by threes: nine are usual.
            let whole = lines / TOGETHER * TOGETHER;
            for line in (0..whole).step_by(TOGETHER) {
                let sums = self.sums::<S, TOGETHER>(simd, row, line, first);
                deliver(simd, sums, factors, &mut out[line * stride + first..], (stride, width, add));
            }
            for line in whole..lines {
                let sums = self.sums::<S, 1>(simd, row, line, first);
                deliver(simd, sums, factors, &mut out[line * stride + first..], (stride, width, add));
            }
        }
    }

    /// A vector of channels of some lines of a row.
    #[inline(always)]
    fn sums<S: Simd, const V: usize>(
        &self,
        simd: S,
        row: usize,
        line: usize,
        first: usize,
    ) -> [T::Vector<S>; V] {
        let GatherPullback { links, source, channels, lines, .. } = *self.gather;
        let mut sums = [T::splat(simd, T::default()); V];
        for (link, from) in links.readers(row) {
            let weight = vector(simd, self.weights, link.tap * channels + first);
            let from = from * lines + line;
            for (at, sum) in sums.iter_mut().enumerate() {
                let read = vector(simd, source.values, (from + at) * self.pitch + self.offset + first);
                *sum = T::mul_add(simd, read, weight, *sum);
            }
        }
        sums
    }
}

/// Writes, or adds, a vector of `width` channels of some lines, times factors. (A function, because
/// a closure would be compiled without the set's instructions.)
#[inline(always)]
fn deliver<S: Simd, T: SimdFloat, const V: usize>(
    simd: S,
    sums: [T::Vector<S>; V],
    factors: T::Vector<S>,
    out: &mut [T],
    (stride, width, add): (usize, usize, bool),
) {
    for (line, sum) in sums.into_iter().enumerate() {
        let out = &mut out[line * stride..][..width];
        let start = if add { load(simd, out) } else { T::splat(simd, T::default()) };
        let product = T::mul_add(simd, sum, factors, T::splat(simd, T::default()));
        store(simd, T::sum(simd, start, product), out);
    }
}

/// Lines whose sums are in registers together. More would read a weight less often and take more
/// registers.
const TOGETHER: usize = 3;

/// The elements from an index on, of which the last may be too few to fill a vector.
#[inline(always)]
fn vector<S: Simd, T: SimdFloat>(simd: S, values: &[T], at: usize) -> T::Vector<S> {
    let end = values.len().min(at + T::lanes::<S>());
    load(simd, &values[at..end])
}
