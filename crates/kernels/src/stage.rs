//! The results of one row, gathered where they stay in a core's first cache, and delivered in one sweep.
//!
//! The sweep writes zeros where the mask is off, so that dense lines need not be cleared before the first product into them. (Compressed
//! lines are written at once: by way of here ResNet50 took 12 % longer.)

use std::ops::Range;

use pulp::x86::V4;

use crate::active::{Active, PAD};
use crate::wide::Wide;
use crate::windows::Written;

/// V lines of compressed results.
pub(crate) struct Stage<T> {
    values: Vec<T>,
    stride: usize,
    /// For each vector of neighbours its mask, and the place of its first active channel in the lines.
    parts: Vec<(u32, usize)>,
}

impl<T: Wide> Stage<T> {
    /// Room for `lines` lines of up to `channels` numbers and a vector behind them.
    pub(crate) fn new(lines: usize, channels: usize) -> Self {
        // An odd number of vectors: at a power of two all lines would fall into the same few places of the cache.
        let stride = ((channels + PAD).div_ceil(PAD) | 1) * PAD;
        Self { values: vec![T::default(); lines * stride], stride, parts: Vec::new() }
    }

    /// For results whose list begins with place `from`.
    #[inline(always)]
    pub(crate) fn written(&mut self, from: usize) -> Written<'_, T> {
        Written { values: &mut self.values, stride: self.stride, from, end: usize::MAX, add: false }
    }

    /// Writes the `channels` of dense lines `pitch` apart, which begin with the first of them: zeros where the mask is off; or adds.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "where from, where to, and how")]
    pub(crate) fn expand(
        &mut self,
        simd: V4,
        active: &Active,
        row: usize,
        channels: Range<usize>,
        add: bool,
        block: &mut [T],
        pitch: usize,
    ) {
        self.parts.clear();
        let mut at = 0;
        for channel in channels.clone().step_by(T::LANES) {
            let bits = active.bits(row, channel) & (u32::MAX >> (32 - T::LANES));
            self.parts.push((bits, at));
            at += bits.count_ones() as usize;
        }
        for (line, own) in self.values.chunks_exact(self.stride).enumerate() {
            let out = &mut block[line * pitch..][..channels.len()];
            let mut parts = self.parts.iter();
            let mut vectors = out.chunks_exact_mut(T::LANES);
            for (out, &(bits, at)) in (&mut vectors).zip(&mut parts) {
                let value = T::expand(simd, bits, T::read(&own[at..]));
                T::write(if add { T::sum_of(simd, value, T::read(out)) } else { value }, out);
            }
            if let Some(&(bits, mut at)) = parts.next() {
                for (bit, out) in vectors.into_remainder().iter_mut().enumerate() {
                    let on = bits >> bit & 1 == 1;
                    let value = if on { own[at] } else { T::default() };
                    *out = if add { *out + value } else { value };
                    at += usize::from(on);
                }
            }
        }
    }
}
