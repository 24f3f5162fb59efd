//! Cotangents of one sample by channel: gradients of what a channel has for itself, and the way into those of weights.

use pulp::{Simd, WithSimd};

use crate::cotangent::{Cotangents, Lines};
use crate::pullback::{MOST_LINES, by_lines};
use crate::rows::Dense;
use crate::simd::{Element, InstructionSet};

/// For each channel of a layer's outputs the positions where it is active, and the V cotangents there.
#[derive(Debug, Clone)]
pub struct ByChannel<T> {
    /// V, from 1 to [`MOST_LINES`].
    pub(crate) lines: usize,
    /// Where the entries of each channel begin; one more than there are channels.
    starts: Vec<usize>,
    /// Places in the list of positions.
    positions: Vec<u32>,
    /// `[entry][V]`.
    values: Vec<T>,
    /// What other rows have there, `[entry]`; empty where none are given.
    others: Vec<T>,
}

/// Where the cotangents of a sample are.
#[derive(Debug, Clone, Copy)]
pub struct At<'a, T> {
    /// The cotangents.
    pub source: Cotangents<'a, T>,
    /// V, from 1 to [`MOST_LINES`].
    pub lines: usize,
    /// How many rows a sample has.
    pub rows: usize,
    /// Those at which there may be cotangents, ascending.
    pub live: &'a [usize],
    /// Which sample.
    pub sample: usize,
}

impl<T: Element> ByChannel<T> {
    /// Of one sample, with the values that `others` has at the same rows and channels.
    #[must_use]
    pub fn new(at: At<'_, T>, others: Option<Dense<'_, T>>) -> Self {
        debug_assert!((1..=MOST_LINES).contains(&at.lines), "{} lines", at.lines);
        let mut starts = vec![0; at.source.layout.channels() + 1];
        for row in at.live_rows() {
            at.source.row(row, at.lines).ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
        }
        for channel in 1..starts.len() {
            starts[channel] += starts[channel - 1];
        }
        let count = starts.last().copied().unwrap_or(0);
        let mut this = Self {
            lines: at.lines,
            starts,
            positions: vec![0; count],
            values: vec![T::default(); count * at.lines],
            others: vec![T::default(); if others.is_some() { count } else { 0 }],
        };
        by_lines!(at.lines, |V| this.fill::<V>(at, others));
        this
    }

    /// Sorts the cotangents of all rows into their channels.
    fn fill<const V: usize>(&mut self, at: At<'_, T>, others: Option<Dense<'_, T>>) {
        let mut next = self.starts.clone();
        for (place, row) in at.live_rows().enumerate() {
            let Lines { ids, values, stride } = at.source.row(row, V);
            let lines: [&[T]; V] = std::array::from_fn(|line| &values[line * stride..][..ids.len()]);
            for (a, &id) in ids.iter().enumerate() {
                let entry = next[id as usize];
                next[id as usize] += 1;
                self.positions[entry] = place as u32;
                for (value, line) in self.values[entry * V..][..V].iter_mut().zip(lines) {
                    *value = line[a];
                }
                if let Some(others) = others {
                    self.others[entry] = others.row(row)[id as usize];
                }
            }
        }
    }

    /// How many channels there are.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.starts.len() - 1
    }

    /// How many entries all channels have together.
    #[must_use]
    pub fn count(&self) -> usize {
        self.positions.len()
    }

    /// The entries of a channel: places in the list of positions, and `[entry][V]`.
    #[inline(always)]
    pub(crate) fn entries(&self, channel: usize) -> (&[u32], &[T]) {
        let (from, till) = (self.starts[channel], self.starts[channel + 1]);
        (&self.positions[from..till], &self.values[from * self.lines..till * self.lines])
    }

    /// The sums over positions, `[V][channel]` in f64: the gradient of a bias.
    #[must_use]
    pub fn sums(&self, set: InstructionSet) -> Vec<f64> {
        set.run(Sums { of: self, norm: None })
    }

    /// The sums over positions of the cotangents times (x - mean) inverse, x being the others, `[V][channel]` in f64: the gradient of the
    /// scale of a batch normalisation of them.
    #[must_use]
    pub fn moments(&self, set: InstructionSet, mean: &[f64], inverse: &[f64]) -> Vec<f64> {
        set.run(Sums { of: self, norm: Some([mean, inverse]) })
    }
}

impl<T> At<'_, T> {
    /// The rows of the sample at which there may be cotangents.
    fn live_rows(&self) -> impl Iterator<Item = usize> {
        let first = self.sample * self.rows;
        self.live.iter().map(move |position| first + position)
    }
}

/// Sums of the entries of each channel, weighted by what is normalised.
struct Sums<'a, T> {
    of: &'a ByChannel<T>,
    norm: Option<[&'a [f64]; 2]>,
}

impl<T: Element> WithSimd for Sums<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        by_lines!(self.of.lines, |V| self.run::<V>())
    }
}

impl<T: Element> Sums<'_, T> {
    #[inline(always)]
    fn run<const V: usize>(&self) -> Vec<f64> {
        let channels = self.of.channels();
        let mut out = vec![0.0; V * channels];
        for channel in 0..channels {
            let entries = self.of.starts[channel]..self.of.starts[channel + 1];
            let values = self.of.values[entries.start * V..entries.end * V].chunks_exact(V);
            let mut sums = [0.0; V];
            match self.norm {
                None => {
                    for values in values {
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += value.to_f64();
                        }
                    }
                }
                Some([mean, inverse]) => {
                    for (values, x) in values.zip(&self.of.others[entries]) {
                        let factor = (x.to_f64() - mean[channel]) * inverse[channel];
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += value.to_f64() * factor;
                        }
                    }
                }
            }
            sums.iter().enumerate().for_each(|(line, sum)| out[line * channels + channel] = *sum);
        }
        out
    }
}

/// The inner products of V rows side by side, `[V, V]`, summed in f64.
#[must_use]
pub fn gram_of<T: Element>(set: InstructionSet, rows: &[T], lines: usize) -> Vec<f64> {
    symmetric_gram(set, rows, rows, [lines, rows.len() / lines.max(1)])
}

/// The sum over p of a_v(p) . b_w(p), `[V, V]` in f64, of V rows of so many numbers for each p, `[p][V][size]`; it is known to be symmetric.
#[must_use]
pub fn symmetric_gram<T: Element>(
    set: InstructionSet,
    a: &[T],
    b: &[T],
    [lines, size]: [usize; 2],
) -> Vec<f64> {
    set.run(Products { a, b, lines, size })
}

struct Products<'a, T> {
    a: &'a [T],
    b: &'a [T],
    lines: usize,
    size: usize,
}

impl<T: Element> WithSimd for Products<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        let Self { a, b, lines, size } = self;
        let mut gram = vec![0.0; lines * lines];
        let block = (lines * size).max(1);
        for (a, b) in a.chunks_exact(block).zip(b.chunks_exact(block)) {
            for v in 0..lines {
                for w in v..lines {
                    gram[v * lines + w] += dot(&a[v * size..][..size], &b[w * size..][..size]);
                }
            }
        }
        for (v, w) in (0..lines).flat_map(|v| (0..v).map(move |w| (v, w))) {
            gram[v * lines + w] = gram[w * lines + v];
        }
        gram
    }
}

/// The inner product of two rows, always summed in the same order.
#[inline(always)]
fn dot<T: Element>(a: &[T], b: &[T]) -> f64 {
    const LANES: usize = 32;
    let mut sums = [0.0; LANES];
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut left).zip(&mut right) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.to_f64() * b.to_f64();
        }
    }
    let mut rest = 0.0;
    for (a, b) in left.remainder().iter().zip(right.remainder()) {
        rest += a.to_f64() * b.to_f64();
    }
    sums.iter().sum::<f64>() + rest
}
