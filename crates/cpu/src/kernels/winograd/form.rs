//! Winograd's form of a convolution over 3 x 3 neighbours: fewer products for the same sums.
//!
//! M x M neighbouring results read a *patch* of N x N rows, N = M + 2. With three constant matrices
//!
//! ```text
//! y = A^T [ (G w G^T) . (B^T x B) ] A        "." element by element
//! ```
//!
//! (Winograd 1980; for neural networks Lavin and Gray, arXiv 1509.09308), so that a pair of
//! channels takes N^2 products per patch instead of 9 M^2: 2.25 times fewer with M = 2, four times
//! fewer with M = 4. The elements of B^T x B are called *frequencies*, by analogy with Fourier
//! transforms.
//!
//! The gradient of the 3 x 3 weights is such a sum as well: it has 3 x 3 results, and a patch's 4 x
//! 4 cotangents are its weights. There the sum over all patches comes before A^T, which is then
//! applied once.
//!
//! # Interpolation points
//!
//! The form is the transpose of multiplying two polynomials by their values at N points: 0, 1, -1
//! and infinity for M = 2; 0, +-sqrt(1/2), +-sqrt(2) and infinity for M = 4. The matrices follow
//! from the points: A^T has their powers, G the powers over the products of their distances to the
//! others, B^T the coefficients of the polynomials that vanish at all points but one. The points
//! decide the rounding. For 32 to 256 channels of synthetic values in f32 the rounding of a sum was
//! measured as 0.7 (M = 2) and 2 times (M = 4) that of the products one after the other. The usual
//! points for M = 4, 0, +-1, +-2, made it 4 to 5 times.

use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2};

use pulp::Simd;

use crate::kernels::simd::SimdFloat;

/// How many results a patch has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WinogradForm {
    /// 2 x 2, of 4 x 4 rows.
    Two,
    /// 4 x 4, of 6 x 6 rows.
    Four,
}

/// The most rows that a patch reads along one axis.
pub(crate) const MOST_SIDE: usize = 6;

/// The most frequencies, and rows that a patch reads.
pub(crate) const MOST_READS: usize = MOST_SIDE * MOST_SIDE;

impl WinogradForm {
    /// M: results of a patch along one axis.
    #[must_use]
    pub(crate) fn results(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// N: rows that a patch reads along one axis.
    #[must_use]
    pub(crate) fn reads(self) -> usize {
        self.results() + 2
    }

    /// All interpolation points but infinity.
    fn points(self) -> &'static [f64] {
        match self {
            Self::Two => &[0.0, 1.0, -1.0],
            Self::Four => &[0.0, FRAC_1_SQRT_2, -FRAC_1_SQRT_2, SQRT_2, -SQRT_2],
        }
    }

    /// G w: the values of the polynomial with coefficients w at the points, each over the product
    /// of the distances to the others, and at infinity; N values, and zeros after them.
    pub(crate) fn values(self, w: [f64; 3]) -> [f64; MOST_SIDE] {
        let (points, mut values) = (self.points(), [0.0; MOST_SIDE]);
        for (at, (value, point)) in values.iter_mut().zip(points).enumerate() {
            let others = points.iter().enumerate().filter(|(other, _)| *other != at);
            let distances: f64 = others.map(|(_, other)| point - other).product();
            *value = (w[0] + point * (w[1] + point * w[2])) / distances;
        }
        values[points.len()] = w[2];
        values
    }
}

/// B^T x, for all lanes of N vectors.
///
/// For M = 4 the rows of a pair of points +-p differ only by the sign of their odd terms, so that
/// each pair takes two sums, `even` and `odd`, and even +- p odd.
#[inline(always)]
fn reading<S: Simd, T: SimdFloat, const N: usize>(simd: S, x: [T::Vector<S>; N]) -> [T::Vector<S>; N] {
    let number = |value: f64| T::splat(simd, T::from_f64(value));
    let mut y = x;
    if N == 4 {
        let minus = number(-1.0);
        y[0] = T::mul_add(simd, minus, x[0], x[2]);
        y[1] = T::sum(simd, x[1], x[2]);
        y[2] = T::mul_add(simd, minus, x[1], x[2]);
        y[3] = T::mul_add(simd, minus, x[1], x[3]);
        return y;
    }
    // The polynomials that vanish at all finite points but one: of 0 it is t^4 - 5/2 t^2 + 1, of a
    // point p with q that of the other pair t (t^2 - q^2) (t + p). Of infinity it vanishes at all
    // finite points.
    let (middle, near, far) = (number(-2.5), number(-0.5), number(-2.0));
    y[0] = T::sum(simd, T::mul_add(simd, middle, x[2], x[0]), x[4]);
    let even = T::mul_add(simd, far, x[2], x[4]);
    let odd = T::mul_add(simd, far, x[1], x[3]);
    y[1] = T::mul_add(simd, number(FRAC_1_SQRT_2), odd, even);
    y[2] = T::mul_add(simd, number(-FRAC_1_SQRT_2), odd, even);
    let even = T::mul_add(simd, near, x[2], x[4]);
    let odd = T::mul_add(simd, near, x[1], x[3]);
    y[3] = T::mul_add(simd, number(SQRT_2), odd, even);
    y[4] = T::mul_add(simd, number(-SQRT_2), odd, even);
    y[5] = T::sum(simd, T::mul_add(simd, middle, x[3], x[1]), x[5]);
    y
}

/// G x for the 4 x 4 cotangents of a patch, six vectors from four: values of the polynomial with
/// coefficients x at the points of M = 4, each over the product of the point's distances to the
/// others.
#[inline(always)]
fn weighing<S: Simd, T: SimdFloat>(simd: S, x: [T::Vector<S>; 4]) -> [T::Vector<S>; 6] {
    let number = |value: f64| T::splat(simd, T::from_f64(value));
    let mut y = [x[0]; 6];
    // Each positive point, its square, and the product of its distances to the others (the same for
    // its negative).
    let points = [(FRAC_1_SQRT_2, 0.5, -1.5), (SQRT_2, 2.0, 6.0)];
    for (pair, (point, square, distances)) in points.into_iter().enumerate() {
        let scale = 1.0 / distances;
        let even = T::mul_add(simd, number(square), x[2], x[0]);
        let odd = T::mul_add(simd, number(square), x[3], x[1]);
        let (even, zero) = (T::mul_add(simd, number(scale), even, number(0.0)), number(0.0));
        let odd = T::mul_add(simd, number(scale * point), odd, zero);
        y[1 + 2 * pair] = T::sum(simd, even, odd);
        y[2 + 2 * pair] = T::mul_add(simd, number(-1.0), odd, even);
    }
    y[5] = x[3];
    y
}

/// Powers p^i of the two positive points of M = 4.
const POWERS: [[f64; 2]; 4] =
    [[1.0, 1.0], [FRAC_1_SQRT_2, SQRT_2], [0.5, 2.0], [0.5 * FRAC_1_SQRT_2, 2.0 * SQRT_2]];

/// A^T x, M vectors from N: sum over the points p of p^i x(p); infinity counts only in the last. Of
/// a pair +-p even powers take the sum and odd powers the difference.
#[inline(always)]
fn result<S: Simd, T: SimdFloat, const N: usize, const M: usize>(
    simd: S,
    x: [T::Vector<S>; N],
) -> [T::Vector<S>; M] {
    let number = |value: f64| T::splat(simd, T::from_f64(value));
    let minus = number(-1.0);
    let mut y = [x[0]; M];
    let (sum, difference) = (T::sum(simd, x[1], x[2]), T::mul_add(simd, minus, x[2], x[1]));
    if N == 4 {
        y[0] = T::sum(simd, x[0], sum);
        y[1] = T::sum(simd, difference, x[3]);
        return y;
    }
    let (far_sum, far_difference) = (T::sum(simd, x[3], x[4]), T::mul_add(simd, minus, x[4], x[3]));
    let zero = number(0.0);
    for (i, (y, [near, far])) in y.iter_mut().zip(POWERS).enumerate() {
        let (own, other) = if i % 2 == 0 { (sum, far_sum) } else { (difference, far_difference) };
        let start = if i == 0 { x[0] } else { zero };
        *y = T::mul_add(simd, number(far), other, T::mul_add(simd, number(near), own, start));
    }
    y[M - 1] = T::sum(simd, y[M - 1], x[N - 1]);
    y
}

/// A square of vectors, transformed line by line and then column by column. (A macro, since the
/// number of vectors differs before and after the transformation.)
macro_rules! both_ways {
    ($simd:ident, $x:ident, $transform:expr, [$from:expr, $to:expr]) => {{
        let zero = T::splat($simd, T::default());
        let mut lines = [[zero; $to]; $from];
        for (line, x) in lines.iter_mut().zip($x) {
            *line = $transform($simd, x);
        }
        let mut all = [[zero; $to]; $to];
        for j in 0..$to {
            let mut column = [zero; $from];
            for (own, line) in column.iter_mut().zip(&lines) {
                *own = line[j];
            }
            for (i, y) in $transform($simd, column).into_iter().enumerate() {
                all[i][j] = y;
            }
        }
        all
    }};
}

/// A square of vectors.
pub(crate) type VectorSquare<T, S, const N: usize> = [[<T as SimdFloat>::Vector<S>; N]; N];

/// B^T x B.
#[inline(always)]
pub(crate) fn readings<S: Simd, T: SimdFloat, const N: usize>(
    simd: S,
    x: VectorSquare<T, S, N>,
) -> VectorSquare<T, S, N> {
    both_ways!(simd, x, reading::<S, T, N>, [N, N])
}

/// A^T x A.
#[inline(always)]
pub(crate) fn results<S: Simd, T: SimdFloat, const N: usize, const M: usize>(
    simd: S,
    x: VectorSquare<T, S, N>,
) -> VectorSquare<T, S, M> {
    both_ways!(simd, x, result::<S, T, N, M>, [N, M])
}

/// G x G^T for the cotangents of a patch of 4 x 4.
#[inline(always)]
pub(crate) fn weighings<S: Simd, T: SimdFloat>(simd: S, x: VectorSquare<T, S, 4>) -> VectorSquare<T, S, 6> {
    both_ways!(simd, x, weighing::<S, T>, [4, 6])
}

/// Loads a square of vectors, each `stride` after the one before.
#[inline(always)]
pub(crate) fn load_square<S: Simd, T: SimdFloat, const N: usize>(
    simd: S,
    from: &[T],
    stride: usize,
) -> VectorSquare<T, S, N> {
    let mut square = [[T::splat(simd, T::default()); N]; N];
    for (i, line) in square.iter_mut().enumerate() {
        for (j, x) in line.iter_mut().enumerate() {
            *x = T::load(simd, &from[(i * N + j) * stride..]);
        }
    }
    square
}

/// Stores a square of vectors, each `stride` after the one before.
#[inline(always)]
pub(crate) fn store_square<S: Simd, T: SimdFloat, const N: usize>(
    simd: S,
    square: VectorSquare<T, S, N>,
    to: &mut [T],
    stride: usize,
) {
    for (i, line) in square.into_iter().enumerate() {
        for (j, x) in line.into_iter().enumerate() {
            T::store(simd, x, &mut to[(i * N + j) * stride..]);
        }
    }
}
