//! The results of one row, gathered in a buffer that stays in a core's L1 cache, and delivered in
//! one sweep.
//!
//! It is used for results that go through a mask to dense lines. The sweep
//! ([`Expander::row`](super::expand::Expander)) writes zeros where the mask is off, so that dense
//! lines need not be cleared before the first product into them. Results that go to compressed
//! lines are written there at once: by way of this buffer ResNet50 took 12 % longer.

use crate::kernels::arch::avx512::windows::ResultLines;
use crate::kernels::layout::active::PAD;
use crate::kernels::simd::SimdFloat;

/// V lines of compressed results.
pub(crate) struct RowBuffer<T> {
    values: Vec<T>,
    /// Elements from one line to the next.
    stride: usize,
}

impl<T: SimdFloat> RowBuffer<T> {
    /// Room for `lines` lines of up to `channels` elements and a vector after them.
    pub(crate) fn new(lines: usize, channels: usize) -> Self {
        // An odd number of vectors: at a power of two all lines would fall into the same few sets
        // of the cache.
        let stride = ((channels + PAD).div_ceil(PAD) | 1) * PAD;
        Self { values: vec![T::default(); lines * stride], stride }
    }

    /// The lines to write, for results from index `from` of the row's list on.
    #[inline(always)]
    pub(crate) fn written(&mut self, from: usize) -> ResultLines<'_, T> {
        ResultLines { values: &mut self.values, stride: self.stride, from, end: usize::MAX, add: false }
    }

    /// The lines, and from one to the next.
    #[inline(always)]
    pub(crate) fn lines(&self) -> (&[T], usize) {
        (&self.values, self.stride)
    }
}
