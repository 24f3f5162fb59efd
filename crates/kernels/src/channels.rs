//! Sums of cotangents over the positions of a sample, channel by channel: gradients of biases and of batch normalisation.

use crate::cotangent::{Cotangents, Lines};
use crate::rows::Dense;
use crate::simd::Element;

/// The gradients of y(p, c) = gamma(c) h(p, c) + beta(c), h = (x - mean) / deviation, for one sample.
#[derive(Debug, Clone, Copy)]
pub struct Channels<'a, T> {
    /// The cotangents of y.
    pub source: Cotangents<'a, T>,
    /// The rows of a sample.
    pub positions: usize,
    /// Those at which there may be cotangents, ascending.
    pub live: &'a [usize],
    /// V.
    pub lines: usize,
}

impl<T: Element> Channels<'_, T> {
    /// The sum over positions of the cotangents, `[V][channel]` in f64: the gradient of beta.
    #[must_use]
    pub fn sums(&self, sample: usize) -> Vec<f64> {
        self.weighted(sample, |_, _| 1.0)
    }

    /// The sum of the cotangents times h, `[V][channel]` in f64: the gradient of gamma. `inverse` is one over the deviation.
    #[must_use]
    pub fn moments(&self, sample: usize, rows: Dense<'_, T>, mean: &[f64], inverse: &[f64]) -> Vec<f64> {
        self.weighted(sample, |row, channel| {
            (rows.row(row)[channel].to_f64() - mean[channel]) * inverse[channel]
        })
    }

    /// The cotangents of a sample's live positions in full, times a factor for each channel: `[line][live position][channel]`.
    pub fn expand(&self, sample: usize, scale: Option<&[T]>, out: &mut [T]) {
        let channels = self.source.layout.channels();
        for (at, position) in self.live.iter().enumerate() {
            let Lines { ids, values, stride } =
                self.source.row(sample * self.positions + position, self.lines);
            for line in 0..self.lines {
                let out = &mut out[(line * self.live.len() + at) * channels..][..channels];
                out.fill(T::default());
                for (&id, value) in ids.iter().zip(&values[line * stride..]) {
                    out[id as usize] = scale.map_or(*value, |scale| *value * scale[id as usize]);
                }
            }
        }
    }

    fn weighted(&self, sample: usize, weight: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let channels = self.source.layout.channels();
        let mut sums = vec![0.0; self.lines * channels];
        for position in self.live {
            let row = sample * self.positions + position;
            let Lines { ids, values, stride } = self.source.row(row, self.lines);
            for (a, &id) in ids.iter().enumerate() {
                let (channel, factor) = (id as usize, weight(row, id as usize));
                for line in 0..self.lines {
                    sums[line * channels + channel] += values[line * stride + a].to_f64() * factor;
                }
            }
        }
        sums
    }
}

/// The inner products of V rows side by side, `[V, V]`, summed in f64.
#[must_use]
pub fn gram_of<T: Element>(rows: &[T], lines: usize) -> Vec<f64> {
    symmetric_gram(rows, rows, lines)
}

/// a_v . b_w of V rows each, `[V, V]`, summed in f64, where it is known that a_v . b_w = a_w . b_v.
#[must_use]
pub fn symmetric_gram<T: Element>(a: &[T], b: &[T], lines: usize) -> Vec<f64> {
    let size = a.len() / lines.max(1);
    let mut gram = vec![0.0; lines * lines];
    for (v, w) in (0..lines).flat_map(|v| (v..lines).map(move |w| (v, w))) {
        gram[v * lines + w] = dot(&a[v * size..][..size], &b[w * size..][..size]);
        gram[w * lines + v] = gram[v * lines + w];
    }
    gram
}

/// The inner product of two rows, summed in f64 and always in the same order.
fn dot<T: Element>(a: &[T], b: &[T]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut left).zip(&mut right) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a.to_f64() * b.to_f64();
        }
    }
    let rest = left.remainder().iter().zip(right.remainder());
    sums.iter().sum::<f64>() + rest.map(|(a, b)| a.to_f64() * b.to_f64()).sum::<f64>()
}
