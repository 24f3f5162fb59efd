//! Cotangents gathered from the rows that read a row, each channel for itself: the reverse pass of pools.

use rayon::prelude::*;

use crate::cotangent::{Cotangents, Target};
use crate::rows::{chunks, tasks};
use crate::simd::{Element, InstructionSet};
use crate::table::{Link, Links};

/// What a row gets of the cotangents of a row that reads it.
#[derive(Debug, Clone, Copy)]
pub enum Share<'a, T> {
    /// A share that follows from the reading row's position.
    Even(&'a [T]),
    /// All of the channels whose choice was the tap, none of the others: `[reading row][channel]`.
    Chosen(&'a [u16]),
    /// The columns of the tap: the reading rows have the channels of all taps side by side.
    Columns,
}

/// target(row, v, c) += scale(c) times the sum over the taps and rows that read the row of their share.
#[derive(Debug, Clone, Copy)]
pub struct Gather<'a, T> {
    /// By which taps and rows each row is read.
    pub links: &'a Links,
    /// The cotangents of the rows that read.
    pub source: Cotangents<'a, T>,
    /// What each gets of them.
    pub share: Share<'a, T>,
    /// Where they go.
    pub target: Target<'a>,
    /// How many channels the target has.
    pub channels: usize,
    /// One factor for each channel.
    pub scale: Option<&'a [T]>,
    /// Whether they are added to what is there.
    pub add: bool,
    /// V.
    pub lines: usize,
}

/// Rows that a task should have at least.
const LEAST_ROWS: usize = 32;

impl<T: Element> Gather<'_, T> {
    /// Gathers for all rows of `samples` samples into `out`, the target's buffer.
    pub fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        let rows = samples * self.links.targets();
        let begin = |row: usize| self.target.block(row, self.lines);
        chunks(out, rows, tasks(rows, LEAST_ROWS), begin).into_par_iter().for_each(|chunk| {
            let mut tile = vec![T::default(); self.lines * self.channels];
            let all = 0..self.source.layout.channels();
            let mut read = vec![T::default(); self.lines * all.len()];
            for row in chunk.rows.clone() {
                let (sample, position) = (row / self.links.targets(), row % self.links.targets());
                tile.fill(T::default());
                for link in self.links.of(position) {
                    let from = sample * self.links.rows() + link.row;
                    self.source.expand(set, from, self.lines, all.clone(), &mut read);
                    self.add_share(*link, from, &read, &mut tile);
                }
                if let Some(scale) = self.scale {
                    for line in tile.chunks_exact_mut(self.channels) {
                        line.iter_mut().zip(scale).for_each(|(x, s)| *x = *x * *s);
                    }
                }
                let block = &mut chunk.values[begin(row) - chunk.start..];
                let channels = self.channels;
                self.target.deliver(row, 0, &tile, channels, channels, self.add, block);
            }
        });
    }

    /// Adds the share of one reading row's lines.
    fn add_share(&self, link: Link, from: usize, read: &[T], tile: &mut [T]) {
        let wide = self.source.layout.channels();
        for (tile, read) in tile.chunks_exact_mut(self.channels).zip(read.chunks_exact(wide)) {
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
            }
        }
    }
}
