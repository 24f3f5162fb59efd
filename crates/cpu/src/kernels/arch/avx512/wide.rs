//! What the kernels need of AVX-512 beyond what every instruction set has: permutations, and masks
//! that are integers.
//!
//! Vectors are the CPU's own types here: portable ones would be kept in memory between
//! permutations. Masks are `u32` for both float types; of an f64's the low 8 bits count.

use std::arch::x86_64::{__m128i, __m256i, __m512, __m512d, __m512i, _CMP_GT_OQ};

use pulp::cast;
use pulp::x86::V4;

/// A vector of AVX-512.
pub(crate) type Vector<T> = <T as Avx512Float>::Register;

/// What AVX-512 offers for a float type.
pub(crate) trait Avx512Float: Sized + Copy {
    /// A vector.
    type Register: Copy;

    /// Elements in a vector.
    const LANES: usize;

    /// A vector with the value in every element.
    fn every(simd: V4, value: Self) -> Self::Register;

    /// The first elements of `from`.
    fn read(from: &[Self]) -> Self::Register;

    /// Writes over the first elements of `to`.
    fn write(value: Self::Register, to: &mut [Self]);

    /// a + b.
    fn sum_of(simd: V4, a: Self::Register, b: Self::Register) -> Self::Register;

    /// a b + c.
    fn fused(simd: V4, a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;

    /// How far the first channels of a list, one vector of them, lie after `first`. Channels before
    /// it have large distances, as unsigned integers.
    fn distances(simd: V4, ids: &[u16], first: usize) -> __m512i;

    /// Which distances are below `limit`.
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32;

    /// Element `index` of the two vectors side by side, where `keep` says so, else 0. An index
    /// counts modulo two vectors.
    fn pick(simd: V4, keep: u32, low: Self::Register, index: __m512i, high: Self::Register)
    -> Self::Register;

    /// The first elements, one to each set bit, 0 elsewhere.
    fn among_zeros(simd: V4, bits: u32, from: Self::Register) -> Self::Register;

    /// The elements whose bits are set, side by side, 0 after them.
    fn together(simd: V4, bits: u32, value: Self::Register) -> Self::Register;

    /// Which elements are positive.
    fn above_zero(simd: V4, value: Self::Register) -> u32;

    /// The first where `keep` says so, else the second.
    fn blend(simd: V4, keep: u32, first: Self::Register, second: Self::Register) -> Self::Register;

    /// For the channels at `distances`, modulo two vectors: whether the bit of each is set, and how
    /// many set bits come before it, as an index for [`pick`](Self::pick).
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i);
}

/// Sixteen ids as they lie in memory.
#[inline(always)]
fn ids(list: &[u16]) -> [u16; 16] {
    let mut own = [0; 16];
    own.copy_from_slice(&list[..16]);
    own
}

const IOTA32: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const IOTA64: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

impl Avx512Float for f32 {
    type Register = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn every(simd: V4, value: Self) -> __m512 {
        simd.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn read(from: &[Self]) -> __m512 {
        let mut own = [0.0; 16];
        own.copy_from_slice(&from[..16]);
        cast(own)
    }

    #[inline(always)]
    fn write(value: __m512, to: &mut [Self]) {
        let own: [Self; 16] = cast(value);
        to[..16].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of(simd: V4, a: __m512, b: __m512) -> __m512 {
        simd.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn fused(simd: V4, a: __m512, b: __m512, c: __m512) -> __m512 {
        simd.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn distances(simd: V4, list: &[u16], first: usize) -> __m512i {
        let f = simd.avx512f;
        let own: __m256i = cast(ids(list));
        f._mm512_sub_epi32(f._mm512_cvtepu16_epi32(own), f._mm512_set1_epi32(first as i32))
    }

    #[inline(always)]
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32 {
        let f = simd.avx512f;
        u32::from(f._mm512_cmplt_epu32_mask(distances, f._mm512_set1_epi32(limit as i32)))
    }

    #[inline(always)]
    fn pick(
        simd: V4,
        keep: u32,
        low: Self::Register,
        index: __m512i,
        high: Self::Register,
    ) -> Self::Register {
        simd.avx512f._mm512_maskz_permutex2var_ps(keep as u16, low, index, high)
    }

    #[inline(always)]
    fn among_zeros(simd: V4, bits: u32, from: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_expand_ps(bits as u16, from)
    }

    #[inline(always)]
    fn together(simd: V4, bits: u32, value: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_compress_ps(bits as u16, value)
    }

    #[inline(always)]
    fn above_zero(simd: V4, value: Self::Register) -> u32 {
        let zero = Self::every(simd, 0.0);
        u32::from(simd.avx512f._mm512_cmp_ps_mask::<_CMP_GT_OQ>(value, zero))
    }

    #[inline(always)]
    fn blend(simd: V4, keep: u32, first: Self::Register, second: Self::Register) -> Self::Register {
        simd.avx512f._mm512_mask_blend_ps(keep as u16, second, first)
    }

    #[inline(always)]
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i) {
        let f = simd.avx512f;
        // The expansion of 0, 1, 2, ... by a mask has at each set bit the number of set bits before
        // it: for the first vector's bits, and, going on with their count, for the second's.
        let low = f._mm512_maskz_expand_epi32(bits as u16, cast(IOTA32));
        let later =
            f._mm512_add_epi32(cast(IOTA32), f._mm512_set1_epi32((bits & 0xFFFF).count_ones() as i32));
        let high = f._mm512_maskz_expand_epi32((bits >> 16) as u16, later);
        // Rotated by its distance, a lane's own bit is the lowest.
        let own = f._mm512_rorv_epi32(f._mm512_set1_epi32(bits as i32), distances);
        let on = f._mm512_test_epi32_mask(own, f._mm512_set1_epi32(1));
        (u32::from(on), f._mm512_permutex2var_epi32(low, distances, high))
    }
}

impl Avx512Float for f64 {
    type Register = __m512d;

    const LANES: usize = 8;

    #[inline(always)]
    fn every(simd: V4, value: Self) -> __m512d {
        simd.avx512f._mm512_set1_pd(value)
    }

    #[inline(always)]
    fn read(from: &[Self]) -> __m512d {
        let mut own = [0.0; 8];
        own.copy_from_slice(&from[..8]);
        cast(own)
    }

    #[inline(always)]
    fn write(value: __m512d, to: &mut [Self]) {
        let own: [Self; 8] = cast(value);
        to[..8].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of(simd: V4, a: __m512d, b: __m512d) -> __m512d {
        simd.avx512f._mm512_add_pd(a, b)
    }

    #[inline(always)]
    fn fused(simd: V4, a: __m512d, b: __m512d, c: __m512d) -> __m512d {
        simd.avx512f._mm512_fmadd_pd(a, b, c)
    }

    #[inline(always)]
    fn distances(simd: V4, list: &[u16], first: usize) -> __m512i {
        let f = simd.avx512f;
        let [own, _]: [__m128i; 2] = cast(ids(list));
        f._mm512_sub_epi64(f._mm512_cvtepu16_epi64(own), f._mm512_set1_epi64(first as i64))
    }

    #[inline(always)]
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32 {
        let f = simd.avx512f;
        u32::from(f._mm512_cmplt_epu64_mask(distances, f._mm512_set1_epi64(limit as i64)))
    }

    #[inline(always)]
    fn pick(
        simd: V4,
        keep: u32,
        low: Self::Register,
        index: __m512i,
        high: Self::Register,
    ) -> Self::Register {
        simd.avx512f._mm512_maskz_permutex2var_pd(keep as u8, low, index, high)
    }

    #[inline(always)]
    fn among_zeros(simd: V4, bits: u32, from: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_expand_pd(bits as u8, from)
    }

    #[inline(always)]
    fn together(simd: V4, bits: u32, value: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_compress_pd(bits as u8, value)
    }

    #[inline(always)]
    fn above_zero(simd: V4, value: Self::Register) -> u32 {
        let zero = Self::every(simd, 0.0);
        u32::from(simd.avx512f._mm512_cmp_pd_mask::<_CMP_GT_OQ>(value, zero))
    }

    #[inline(always)]
    fn blend(simd: V4, keep: u32, first: Self::Register, second: Self::Register) -> Self::Register {
        simd.avx512f._mm512_mask_blend_pd(keep as u8, second, first)
    }

    #[inline(always)]
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i) {
        let f = simd.avx512f;
        let low = f._mm512_maskz_expand_epi64(bits as u8, cast(IOTA64));
        let later =
            f._mm512_add_epi64(cast(IOTA64), f._mm512_set1_epi64(i64::from((bits & 0xFF).count_ones())));
        let high = f._mm512_maskz_expand_epi64((bits >> 8) as u8, later);
        // Two vectors have 16 bits here, and a window's distances go to 31: the bits twice, instead
        // of a rotation.
        let both = i64::from(bits & 0xFFFF) << 16 | i64::from(bits & 0xFFFF);
        let own = f._mm512_srlv_epi64(f._mm512_set1_epi64(both), distances);
        let on = f._mm512_test_epi64_mask(own, f._mm512_set1_epi64(1));
        (u32::from(on), f._mm512_permutex2var_epi64(low, distances, high))
    }
}
