//! Gradients of what each channel has for itself: of biases, and of the scale and the shift of a normalisation.

use pulp::{Simd, WithSimd};

use crate::channels::At;
use crate::rows::Dense;
use crate::simd::{Element, InstructionSet};

/// What is normalised, (x - mean) inverse.
#[derive(Debug, Clone, Copy)]
pub struct Normalized<'a, T> {
    /// x, at the rows and channels of the cotangents.
    pub rows: Dense<'a, T>,
    /// One number for each channel.
    pub mean: &'a [f64],
    /// One over the deviation of each channel.
    pub inverse: &'a [f64],
}

/// Channels that are summed while the rows pass by: as many as stay in a core's first cache with their sums.
const CHANNELS: usize = 128;

impl<T: Element> At<'_, T> {
    /// How many cotangents are not switched off, for each line.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live_rows().map(|row| self.source.row(row, self.lines).ids.len()).sum()
    }

    /// The sums over positions of the cotangents, `[V][channel]`, and of their products with what is normalised, if anything is: the
    /// gradients of a shift and of a scale.
    #[must_use]
    pub fn sums(&self, set: InstructionSet, normalized: Option<Normalized<'_, T>>) -> [Vec<f64>; 2] {
        let channels = self.source.layout.channels();
        let size = self.lines * channels;
        let mut sums = [vec![0.0; size], vec![0.0; if normalized.is_some() { size } else { 0 }]];
        let mut tile = vec![T::default(); self.lines * CHANNELS];
        for first in (0..channels).step_by(CHANNELS) {
            let part = first..channels.min(first + CHANNELS);
            let tile = &mut tile[..self.lines * part.len()];
            for row in self.live_rows() {
                // The processor does not foresee lines that are read side by side.
                if row + 1 < (self.sample + 1) * self.rows {
                    self.source.fetch(row + 1, self.lines, part.clone());
                }
                if self.source.row(row, self.lines).ids.is_empty() {
                    continue;
                }
                self.source.expand(set, row, self.lines, part.clone(), tile);
                set.run(Add { tile, row, first, channels, width: part.len(), normalized, sums: &mut sums });
            }
        }
        sums
    }
}

/// Adds one row.
struct Add<'a, 'b, T> {
    /// `[V][width]`.
    tile: &'a [T],
    row: usize,
    first: usize,
    channels: usize,
    width: usize,
    normalized: Option<Normalized<'a, T>>,
    sums: &'b mut [Vec<f64>; 2],
}

impl<T: Element> WithSimd for Add<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { tile, row, first, channels, width, normalized, sums: [sums, moments] } = self;
        let part = first..first + width;
        for (tile, sums) in tile.chunks_exact(width).zip(sums.chunks_exact_mut(channels)) {
            for (sum, value) in sums[part.clone()].iter_mut().zip(tile) {
                *sum += value.to_f64();
            }
        }
        let Some(Normalized { rows, mean, inverse }) = normalized else { return };
        let mut factors = [0.0; CHANNELS];
        let (x, mean, inverse) = (&rows.row(row)[part.clone()], &mean[part.clone()], &inverse[part.clone()]);
        for (factor, ((x, mean), inverse)) in factors.iter_mut().zip(x.iter().zip(mean).zip(inverse)) {
            *factor = (x.to_f64() - mean) * inverse;
        }
        for (tile, moments) in tile.chunks_exact(width).zip(moments.chunks_exact_mut(channels)) {
            for ((moment, value), factor) in moments[part.clone()].iter_mut().zip(tile).zip(&factors) {
                *moment += value.to_f64() * factor;
            }
        }
    }
}
