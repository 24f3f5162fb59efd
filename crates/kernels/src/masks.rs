//! Masks and lists of active channels on AVX-512: sixteen channels at a time.

use std::arch::x86_64::{__m256i, __m512i};

use pulp::x86::V4;
use pulp::{NullaryFnOnce, cast};

use crate::active::positive as one_by_one;
use crate::wide::Wide;

/// Sets a bit for each positive number, 32 to a word; how many there are. Nothing where the processor lacks the instructions.
pub(crate) fn positive<T: Wide>(values: &[T], words: &mut [u32]) -> Option<usize> {
    V4::try_new().map(|simd| simd.vectorize(Positive { simd, values, words }))
}

struct Positive<'a, T> {
    simd: V4,
    values: &'a [T],
    words: &'a mut [u32],
}

impl<T: Wide> NullaryFnOnce for Positive<'_, T> {
    type Output = usize;

    #[inline(always)]
    fn call(self) -> usize {
        let whole = self.values.chunks_exact(32);
        let (rest, words) = (whole.remainder(), whole.len());
        let mut count = 0;
        for (word, values) in self.words.iter_mut().zip(whole) {
            for (at, values) in values.chunks_exact(T::LANES).enumerate() {
                *word |= T::above_zero(self.simd, T::read(values)) << (at * T::LANES);
            }
            count += word.count_ones() as usize;
        }
        count + one_by_one(rest, &mut self.words[words..])
    }
}

/// Writes the places of all set bits, ascending, where the processor has the instructions.
pub(crate) fn list(words: &[u32], ids: &mut [u16]) -> bool {
    V4::try_new().map(|simd| simd.vectorize(List { simd, words, ids })).is_some()
}

struct List<'a> {
    simd: V4,
    words: &'a [u32],
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
        for (number, word) in self.words.iter().enumerate() {
            for half in 0..2 {
                let bits = (word >> (16 * half)) as u16;
                let first = (32 * number + 16 * half) as i32;
                let own =
                    f._mm512_maskz_compress_epi32(bits, f._mm512_add_epi32(iota, f._mm512_set1_epi32(first)));
                let own: __m256i = f._mm512_cvtepi32_epi16(own);
                let own: [u16; 16] = cast(own);
                let count = bits.count_ones() as usize;
                // A whole vector where there is room: what is too much is written over.
                match self.ids[at..].first_chunk_mut::<16>() {
                    Some(ids) => *ids = own,
                    None => self.ids[at..at + count].copy_from_slice(&own[..count]),
                }
                at += count;
            }
        }
    }
}
