//! The Gram matrix of a tensor whose elements are elements of a result, or are added to them: a
//! positional embedding, a class token. Each cotangent of the result belongs to one element of the
//! tensor, whose gradient is the sum of the cotangents that belong to it.

use crate::kernels::gram::channels::{SampleCotangents, gram_of};
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// For each element of a sample's result, which element of a tensor it is, or has been added to it.
#[derive(Debug, Clone)]
pub(crate) struct ElementsOf {
    /// How many elements the tensor has.
    pub(crate) count: usize,
    /// `[row][channel]`: an index, or [`ElementsOf::NONE`].
    pub(crate) indices: Vec<u32>,
}

impl ElementsOf {
    /// No element of the tensor.
    pub(crate) const NONE: u32 = u32::MAX;

    /// Bytes that the indices take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(self.indices.as_slice())
    }

    /// Bytes that [`ElementsOf::gram`] takes.
    pub(crate) fn gram_bytes<T>(&self, channels: usize, lines: usize) -> usize {
        lines * (self.count * size_of::<f64>() + channels * size_of::<T>())
    }

    /// `[V, V]`, row-major, the sums and their products in f64.
    #[must_use]
    pub(crate) fn gram<T: SimdFloat>(&self, set: InstructionSet, at: SampleCotangents<'_, T>) -> Vec<f64> {
        let channels = at.source.layout.channels();
        let mut sums = vec![0.0; at.lines * self.count];
        let mut full = vec![T::default(); at.lines * channels];
        for (&position, row) in at.live.iter().zip(at.live_rows()) {
            let indices = &self.indices[position * channels..][..channels];
            at.source.expand(set, row, at.lines, 0..channels, &mut full);
            for (line, sums) in full.chunks_exact(channels).zip(sums.chunks_exact_mut(self.count)) {
                for (x, &index) in line.iter().zip(indices) {
                    if index != Self::NONE {
                        sums[index as usize] += x.to_f64();
                    }
                }
            }
        }
        gram_of(set, &sums, at.lines)
    }
}
