//! The vectors of each instruction set behind one trait, and the choice of the set at run time.

use std::fmt;
use std::ops::{Add, Div, Mul};
use std::str::FromStr;

use pulp::{Simd, WithSimd};

use crate::kernels::arch::ArchElement;
use crate::kernels::forward::pointwise::Real;

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstructionSet {
    /// AVX-512 with F, BW, CD, DQ and VL: 64-byte vectors, 32 registers.
    Avx512,
    /// AVX2 with FMA: 32-byte vectors, 16 registers.
    Avx2,
    /// NEON: 16-byte vectors, 32 registers.
    Neon,
    /// One element at a time.
    Scalar,
}

impl InstructionSet {
    /// All sets, the widest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar];

    /// The widest set that this CPU has.
    #[must_use]
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|set| set.is_available()).unwrap_or(Self::Scalar)
    }

    /// Whether this CPU has the set.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => pulp::x86::V4::try_new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => pulp::x86::V3::try_new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => pulp::aarch64::Neon::try_new().is_some(),
            Self::Scalar => true,
            _ => false,
        }
    }

    /// Runs `work` with the set's vectors, one element at a time where the CPU lacks them.
    pub(crate) fn run<W: WithSimd>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if let Some(simd) = pulp::x86::V4::try_new() => Simd::vectorize(simd, work),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if let Some(simd) = pulp::x86::V3::try_new() => Simd::vectorize(simd, work),
            #[cfg(target_arch = "aarch64")]
            Self::Neon if let Some(simd) = pulp::aarch64::Neon::try_new() => Simd::vectorize(simd, work),
            _ => Simd::vectorize(pulp::Scalar::new(), work),
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        })
    }
}

impl FromStr for InstructionSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|set| set.to_string() == text);
        known.ok_or_else(|| format!("no such instruction set: {text}; give avx512, avx2, neon or scalar"))
    }
}

/// A float type with its vectors on every instruction set.
pub(crate) trait SimdFloat:
    ArchElement
    + Real
    + Copy
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// The largest number of this type.
    const LARGEST: f64;

    /// A vector of the set.
    type Vector<S: Simd>: Copy;

    /// How many elements a vector holds.
    fn lanes<S: Simd>() -> usize;

    /// A vector with the value in every element.
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Vector<S>;

    /// The first elements of `from`, which holds a vector's worth.
    fn load<S: Simd>(simd: S, from: &[Self]) -> Self::Vector<S>;

    /// Writes over the first elements of `to`, which holds a vector's worth.
    fn store<S: Simd>(simd: S, value: Self::Vector<S>, to: &mut [Self]);

    /// a b + c.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;

    /// a + b.
    fn sum<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// x where it is not negative, 0 where it is; NaN stays NaN.
    fn relu<S: Simd>(simd: S, x: Self::Vector<S>) -> Self::Vector<S>;

    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;

    /// The same value as f64.
    fn to_f64(self) -> f64;
}

/// Channels below which vectors would be mostly empty: other paths are taken for fewer.
pub(crate) const FEW_CHANNELS: usize = 16;

/// Elements in the widest vector of any set: 16 of f32.
pub(crate) const WIDEST: usize = 16;

/// The first `count` elements of N slices. Inner loops that read all of them at one index check it
/// once: of slices that a closure returns to `map` or `from_fn` the compiler forgets that they are
/// equally long, and checks the index N times.
#[inline(always)]
pub(crate) fn equally_long<'a, T, const N: usize>(
    count: usize,
    slice: impl Fn(usize) -> &'a [T],
) -> [&'a [T]; N] {
    let mut all: [&[T]; N] = [&[]; N];
    for (n, own) in all.iter_mut().enumerate() {
        *own = &slice(n)[..count];
    }
    all
}

/// A vector from elements that may be too few to fill it.
#[inline(always)]
pub(crate) fn load<S: Simd, T: SimdFloat>(simd: S, from: &[T]) -> T::Vector<S> {
    if from.len() == T::lanes::<S>() {
        return T::load(simd, from);
    }
    let mut full = [T::default(); WIDEST];
    full[..from.len()].copy_from_slice(from);
    T::load(simd, &full)
}

/// A vector to elements that may be too few to hold it.
#[inline(always)]
pub(crate) fn store<S: Simd, T: SimdFloat>(simd: S, vector: T::Vector<S>, to: &mut [T]) {
    if to.len() == T::lanes::<S>() {
        return T::store(simd, vector, to);
    }
    let mut full = [T::default(); WIDEST];
    T::store(simd, vector, &mut full);
    let count = to.len();
    to.copy_from_slice(&full[..count]);
}

macro_rules! element {
    ($type:ident, $vector:ident, $lanes:ident, $splat:ident, $view:ident, $view_mut:ident, $fma:ident, $add:ident, $less:ident, $select:ident) => {
        impl SimdFloat for $type {
            const LARGEST: f64 = $type::MAX as f64;

            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> S::$vector {
                simd.$splat(value)
            }

            #[inline(always)]
            fn load<S: Simd>(_: S, from: &[Self]) -> S::$vector {
                S::$view(&from[..S::$lanes]).0[0]
            }

            #[inline(always)]
            fn store<S: Simd>(_: S, value: S::$vector, to: &mut [Self]) {
                S::$view_mut(&mut to[..S::$lanes]).0[0] = value;
            }

            #[inline(always)]
            fn mul_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$fma(a, b, c)
            }

            #[inline(always)]
            fn sum<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$add(a, b)
            }

            #[inline(always)]
            fn relu<S: Simd>(simd: S, x: S::$vector) -> S::$vector {
                let zero = simd.$splat(0.0);
                simd.$select(simd.$less(x, zero), zero, x)
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
        }
    };
}

element!(
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    mul_add_e_f32s,
    add_f32s,
    less_than_f32s,
    select_f32s
);
element!(
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    mul_add_e_f64s,
    add_f64s,
    less_than_f64s,
    select_f64s
);
