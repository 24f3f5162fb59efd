//! Masks and lists of active channels on AVX-512: sixteen channels at a time.

use std::arch::x86_64::{__m256i, __m512i};

use pulp::x86::V4;
use pulp::{NullaryFnOnce, cast};

use crate::kernels::layout::active::{Positive, positive as one_by_one};
use crate::kernels::simd::SimdFloat;

/// Looks for the positive elements of some rows, where the CPU has the instructions.
pub(crate) fn positive<T: SimdFloat, F: Fn(usize) -> bool>(positive: &mut Positive<'_, T, F>) -> bool {
    V4::try_new().map(|simd| simd.vectorize(MaskRows { simd, positive })).is_some()
}

struct MaskRows<'a, 'b, T, F> {
    simd: V4,
    positive: &'a mut Positive<'b, T, F>,
}

impl<T: SimdFloat, F: Fn(usize) -> bool> NullaryFnOnce for MaskRows<'_, '_, T, F> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, positive } = self;
        positive.each(|values, words| row(simd, values, words));
    }
}

/// Sets a bit for each positive element, 32 to a word; how many there are.
#[inline(always)]
fn row<T: SimdFloat>(simd: V4, values: &[T], words: &mut [u32]) -> usize {
    let whole = values.chunks_exact(32);
    let (rest, more) = (whole.remainder(), whole.len());
    let mut count = 0;
    for (word, values) in words.iter_mut().zip(whole) {
        for (at, values) in values.chunks_exact(T::LANES).enumerate() {
            *word |= T::above_zero(simd, T::read(values)) << (at * T::LANES);
        }
        count += word.count_ones() as usize;
    }
    count + one_by_one(rest, &mut words[more..])
}

/// Writes the indices of all set bits within their row of `pitch` words, ascending, where the CPU
/// has the instructions.
pub(crate) fn list(words: &[u32], pitch: usize, ids: &mut [u16]) -> bool {
    V4::try_new().map(|simd| simd.vectorize(List { simd, words, pitch, ids })).is_some()
}

struct List<'a> {
    simd: V4,
    words: &'a [u32],
    pitch: usize,
    ids: &'a mut [u16],
}

const IOTA: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

impl NullaryFnOnce for List<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let f = self.simd.avx512f;
        let iota: __m512i = cast(IOTA);
        let mut at = 0;
        let rows = self.words.chunks_exact(self.pitch);
        for (number, word) in rows.flat_map(|row| row[..self.pitch - 1].iter().enumerate()) {
            for half in 0..2 {
                // Sixteen channels: their indices in 32 bits, those of the active ones side by
                // side, in 16 bits.
                let bits = (word >> (16 * half)) as u16;
                let first = (32 * number + 16 * half) as i32;
                let own =
                    f._mm512_maskz_compress_epi32(bits, f._mm512_add_epi32(iota, f._mm512_set1_epi32(first)));
                let own: __m256i = f._mm512_cvtepi32_epi16(own);
                let own: [u16; 16] = cast(own);
                let count = bits.count_ones() as usize;
                // A whole vector where there is room: the next one overwrites what is too much.
                match self.ids[at..].first_chunk_mut::<16>() {
                    Some(ids) => *ids = own,
                    None => self.ids[at..at + count].copy_from_slice(&own[..count]),
                }
                at += count;
            }
        }
    }
}
