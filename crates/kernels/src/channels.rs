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
}

impl<T: Element> ByChannel<T> {
    /// Of a sample with `rows` rows, at the positions `live`.
    #[must_use]
    pub fn new(source: Cotangents<'_, T>, lines: usize, rows: usize, live: &[usize], sample: usize) -> Self {
        debug_assert!((1..=MOST_LINES).contains(&lines), "{lines} lines");
        let row = |position: &usize| source.row(sample * rows + position, lines);
        let mut starts = vec![0; source.layout.channels() + 1];
        for position in live {
            row(position).ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
        }
        for channel in 1..starts.len() {
            starts[channel] += starts[channel - 1];
        }
        let count = starts.last().copied().unwrap_or(0);
        let (mut next, mut positions) = (starts.clone(), vec![0; count]);
        let mut values = vec![T::default(); count * lines];
        for (at, position) in live.iter().enumerate() {
            let Lines { ids, values: from, stride } = row(position);
            for (a, &id) in ids.iter().enumerate() {
                let entry = next[id as usize];
                next[id as usize] += 1;
                positions[entry] = at as u32;
                let values = values[entry * lines..(entry + 1) * lines].iter_mut();
                values.zip(from[a..].iter().step_by(stride)).for_each(|(to, from)| *to = *from);
            }
        }
        Self { lines, starts, positions, values }
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
        set.run(Sums { entries: self, factor: |_, _| 1.0 })
    }

    /// The sums over positions of the cotangents times (x - mean) inverse, `[V][channel]` in f64: the gradient of the scale of a batch
    /// normalisation of `rows`, whose row is `row` of the place in the list of positions.
    #[must_use]
    pub fn moments(
        &self,
        set: InstructionSet,
        rows: Dense<'_, T>,
        row: impl Fn(usize) -> usize,
        [mean, inverse]: [&[f64]; 2],
    ) -> Vec<f64> {
        let factor = |at: usize, channel: usize| {
            (rows.row(row(at))[channel].to_f64() - mean[channel]) * inverse[channel]
        };
        set.run(Sums { entries: self, factor })
    }
}

/// Weighted sums of the entries of each channel.
struct Sums<'a, T, F> {
    entries: &'a ByChannel<T>,
    factor: F,
}

impl<T: Element, F: Fn(usize, usize) -> f64> WithSimd for Sums<'_, T, F> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f64> {
        by_lines!(self.entries.lines, |V| self.run::<V>())
    }
}

impl<T: Element, F: Fn(usize, usize) -> f64> Sums<'_, T, F> {
    #[inline(always)]
    fn run<const V: usize>(&self) -> Vec<f64> {
        let channels = self.entries.channels();
        let mut out = vec![0.0; V * channels];
        for channel in 0..channels {
            let (positions, values) = self.entries.entries(channel);
            let mut sums = [0.0; V];
            for (at, values) in positions.iter().zip(values.chunks_exact(V)) {
                let factor = (self.factor)(*at as usize, channel);
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += value.to_f64() * factor;
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
