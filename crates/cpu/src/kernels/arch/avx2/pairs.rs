//! What the kernels need of AVX2 beyond what every instruction set has: any elements of two
//! vectors, side by side.
//!
//! AVX-512 picks them in one instruction (`arch::avx512::wide`). Here each of the two vectors is
//! permuted by itself, and a blend takes from the second one what lies there: three instructions.
//!
//! Vectors are the CPU's own types here: portable ones would be kept in memory between
//! permutations. Names carry the width of the vectors in bits, because a float type has those of
//! AVX-512 too.

use std::arch::x86_64::{__m256, __m256d, __m256i};

use pulp::cast;
use pulp::x86::V3;

/// Which elements of two vectors are picked, one for each lane.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// The index of each element in the vector in which it lies.
    index: __m256i,
    /// All bits of a lane set where this is the second vector, else none.
    second: __m256i,
}

/// What AVX2 offers for a float type.
pub(crate) trait Avx2Float: Sized + Copy {
    /// A vector.
    type Register256: Copy;

    /// Elements in a vector.
    const LANES256: usize;

    /// A vector with the value in every element.
    fn every256(simd: V3, value: Self) -> Self::Register256;

    /// The first elements of `from`.
    fn read256(from: &[Self]) -> Self::Register256;

    /// Writes over the first elements of `to`.
    fn write256(value: Self::Register256, to: &mut [Self]);

    /// a + b.
    fn sum_of256(simd: V3, a: Self::Register256, b: Self::Register256) -> Self::Register256;

    /// a b + c.
    fn fused256(
        simd: V3,
        a: Self::Register256,
        b: Self::Register256,
        c: Self::Register256,
    ) -> Self::Register256;

    /// The choice of the elements at the first distances, one vector of them: how far each lies
    /// from the beginning of two vectors side by side. A distance beyond these chooses any element
    /// of the second.
    fn choice256(distances: [u32; 8]) -> Choice;

    /// The chosen elements of the two vectors side by side.
    fn pick256(
        simd: V3,
        choice: Choice,
        low: Self::Register256,
        high: Self::Register256,
    ) -> Self::Register256;
}

impl Avx2Float for f32 {
    type Register256 = __m256;

    const LANES256: usize = 8;

    #[inline(always)]
    fn every256(simd: V3, value: Self) -> __m256 {
        simd.avx._mm256_set1_ps(value)
    }

    #[inline(always)]
    fn read256(from: &[Self]) -> __m256 {
        let mut own = [0.0; 8];
        own.copy_from_slice(&from[..8]);
        cast(own)
    }

    #[inline(always)]
    fn write256(value: __m256, to: &mut [Self]) {
        let own: [Self; 8] = cast(value);
        to[..8].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of256(simd: V3, a: __m256, b: __m256) -> __m256 {
        simd.avx._mm256_add_ps(a, b)
    }

    #[inline(always)]
    fn fused256(simd: V3, a: __m256, b: __m256, c: __m256) -> __m256 {
        simd.fma._mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn choice256(distances: [u32; 8]) -> Choice {
        let second = distances.map(|distance| if distance < 8 { 0 } else { u32::MAX });
        Choice { index: cast(distances.map(|distance| distance % 8)), second: cast(second) }
    }

    #[inline(always)]
    fn pick256(simd: V3, choice: Choice, low: __m256, high: __m256) -> __m256 {
        let [low, high] = [low, high].map(|vector| simd.avx2._mm256_permutevar8x32_ps(vector, choice.index));
        simd.avx._mm256_blendv_ps(low, high, cast(choice.second))
    }
}

impl Avx2Float for f64 {
    type Register256 = __m256d;

    const LANES256: usize = 4;

    #[inline(always)]
    fn every256(simd: V3, value: Self) -> __m256d {
        simd.avx._mm256_set1_pd(value)
    }

    #[inline(always)]
    fn read256(from: &[Self]) -> __m256d {
        let mut own = [0.0; 4];
        own.copy_from_slice(&from[..4]);
        cast(own)
    }

    #[inline(always)]
    fn write256(value: __m256d, to: &mut [Self]) {
        let own: [Self; 4] = cast(value);
        to[..4].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of256(simd: V3, a: __m256d, b: __m256d) -> __m256d {
        simd.avx._mm256_add_pd(a, b)
    }

    #[inline(always)]
    fn fused256(simd: V3, a: __m256d, b: __m256d, c: __m256d) -> __m256d {
        simd.fma._mm256_fmadd_pd(a, b, c)
    }

    /// AVX2 permutes elements of 64 bits only by constants. For the permutation of 32-bit elements
    /// each of them is two: `2 i` and `2 i + 1`.
    #[inline(always)]
    fn choice256(distances: [u32; 8]) -> Choice {
        let own: [u32; 8] = std::array::from_fn(|half| distances[half / 2]);
        let second = own.map(|distance| if distance < 4 { 0 } else { u32::MAX });
        let index: [u32; 8] = std::array::from_fn(|half| own[half] % 4 * 2 + half as u32 % 2);
        Choice { index: cast(index), second: cast(second) }
    }

    #[inline(always)]
    fn pick256(simd: V3, choice: Choice, low: __m256d, high: __m256d) -> __m256d {
        let [low, high] = [low, high].map(|vector| {
            cast::<__m256i, __m256d>(simd.avx2._mm256_permutevar8x32_epi32(cast(vector), choice.index))
        });
        simd.avx._mm256_blendv_pd(low, high, cast(choice.second))
    }
}
