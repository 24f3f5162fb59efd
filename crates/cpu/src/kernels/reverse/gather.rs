//! Cotangents gathered from the rows that read a row, each channel for itself: the reverse pass of pools and depthwise convolutions.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::layout::cotangent::{Cotangents, Layout, Lines, Target, Tile, scale_lines};
use crate::kernels::layout::rows::{Chunk, chunks, tasks};
use crate::kernels::layout::table::{Link, Links};
use crate::kernels::simd::{Element, InstructionSet};

/// What a row gets of the cotangents of a row that reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Share<'a, T> {
    /// A share that follows from the reading row's position.
    Even(&'a [T]),
    /// All of the channels whose choice was the tap, none of the others: `[reading row][channel]`.
    Chosen(&'a [u16]),
    /// The columns of the tap: the reading rows have the channels of all taps side by side.
    Columns,
    /// Times a weight of the tap and channel: `[tap][channel]`.
    Weights(&'a [T]),
}

/// target(row, v, c) += scale(c) times the sum over the taps and rows that read the row of their share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gather<'a, T> {
    /// By which taps and rows each row is read.
    pub(crate) links: &'a Links,
    /// The cotangents of the rows that read.
    pub(crate) source: Cotangents<'a, T>,
    /// What each gets of them.
    pub(crate) share: Share<'a, T>,
    /// Where they go.
    pub(crate) target: Target<'a>,
    /// How many channels the target has.
    pub(crate) channels: usize,
    /// One factor for each channel.
    pub(crate) scale: Option<&'a [T]>,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

/// Rows that a task should have at least.
const LEAST_ROWS: usize = 32;

impl<T: Element> Gather<'_, T> {
    /// Gathers for all rows of `samples` samples into `out`, the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        let rows = samples * self.links.targets();
        let begin = |row: usize| self.target.block(row, self.lines);
        chunks(out, rows, tasks(rows, LEAST_ROWS), begin).into_par_iter().for_each(|chunk| {
            set.run(Rows { gather: self, set, chunk });
        });
    }

    /// All lines of one row of the target, `[V][channels]`.
    #[inline(always)]
    fn row(&self, set: InstructionSet, row: usize, expanded: &mut [T], tile: &mut [T]) {
        let (sample, position) = (row / self.links.targets(), row % self.links.targets());
        tile.fill(T::default());
        for link in self.links.of(position) {
            let from = sample * self.links.rows() + link.row;
            match self.source.layout {
                Layout::Dense { .. } => {
                    let Lines { values, stride, .. } = self.source.row(from, self.lines);
                    self.add_share(*link, from, values, stride, tile);
                }
                Layout::Compressed(active) => {
                    let channels = active.channels();
                    self.source.expand(set, from, self.lines, 0..channels, expanded);
                    self.add_share(*link, from, expanded, channels, tile);
                }
            }
        }
        if let Some(scale) = self.scale {
            scale_lines(tile, scale);
        }
    }

    /// Adds the share of one reading row's lines, `stride` apart.
    #[inline(always)]
    fn add_share(&self, link: Link, from: usize, read: &[T], stride: usize, tile: &mut [T]) {
        let wide = self.source.layout.channels();
        for (tile, read) in tile.chunks_exact_mut(self.channels).zip(read.chunks_exact(stride)) {
            let read = &read[..wide];
            match self.share {
                Share::Even(shares) => {
                    let share = shares[link.row];
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
struct Rows<'a, 'b, T> {
    gather: &'a Gather<'a, T>,
    set: InstructionSet,
    chunk: Chunk<'b, T>,
}

impl<T: Element> WithSimd for Rows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { gather, set, chunk } = self;
        let Gather { source, target, channels, add, lines, .. } = *gather;
        let mut tile = vec![T::default(); lines * channels];
        let mut expanded = vec![T::default(); lines * source.layout.channels()];
        for row in chunk.rows {
            gather.row(set, row, &mut expanded, &mut tile);
            let block = &mut chunk.values[target.block(row, lines) - chunk.start..];
            let tile = Tile { row, first: 0, width: channels, values: &tile, stride: channels };
            target.deliver(set, tile, add, block);
        }
    }
}
