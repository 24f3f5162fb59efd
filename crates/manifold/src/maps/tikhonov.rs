//! FI = df^T (G + lambda I)^-1 df of every window: u^T A (A + lambda I)^-1 u with A = Y Y^T, n x n,
//! for df = Y^T u.
//!
//! The error of the value u^T z is bounded from z = (A + lambda I)^-1 (A u) and x = (A + lambda
//! I)^-1 u. The entries of A are graded like the probabilities, and each is accurate relative to
//! its own size. The factorisation A + lambda I = L L^T changes entry (i, j) by n roundings of (|L|
//! |L|^T)_ij: of a_ii + lambda on the diagonal, and of at most sqrt(a_ii (a_jj + lambda)) off it,
//! because l_jj^2 >= lambda.
//!
//! x is solved for and not computed as (u - z) / lambda: where a pivot of the size of lambda is
//! lost in rounding, z equals u to the last bit, the difference is 0, and only x shows the error.

use super::exact::ACCURACY;
use super::frame::Frame;
use super::grams::{WindowGrams, window_sums};
use super::lanes::{LANES, Lane, cholesky, map, packed, product, solve};
use super::{Layout, Windows};
use crate::precision::{ROUNDINGS, RowPrecision};

/// The damped influence of each window; `None` where rounding could affect it.
pub(super) fn tikhonov(
    frame: &Frame,
    layout: Layout,
    s: usize,
    lambda: f64,
    precision: RowPrecision,
) -> Vec<Option<f64>> {
    let (rows, u) = frame.weighted();
    let (n, lambda) = (frame.size(), lambda / frame.scale / frame.scale);
    let grams = WindowGrams::new(&rows, n, layout.shape, layout.channels, s);
    let count = Windows::new(layout, s).count();
    let mut squares = vec![0.0; count];
    window_sums(&frame.given_squares(), layout.shape, layout.channels, s, &mut squares);
    let mut values = Vec::with_capacity(count);
    let (mut a, mut z, mut x) = (Vec::new(), vec![[0.0; LANES]; n], vec![[0.0; LANES]; n]);
    for at in (0..count).step_by(LANES) {
        // z = (A + lambda I)^-1 A u, and x = (A + lambda I)^-1 u, which only the error needs.
        grams.load(at, &mut a);
        product(&a, n, &u, &mut z);
        x.iter_mut().zip(&u).for_each(|(x, u)| x.fill(*u));
        let diagonal: Vec<Lane<LANES>> = (0..n).map(|i| a[packed(i) + i]).collect();
        for i in 0..n {
            a[packed(i) + i].iter_mut().for_each(|d| *d += lambda);
        }
        cholesky(&mut a, n);
        solve(&a, n, &mut z);
        solve(&a, n, &mut x);
        let (value, error) = summary(&diagonal, &u, &z, &x, lambda);
        for l in 0..LANES.min(count - at) {
            // Two conditions: roundings of this computation (a pivot of zero makes both numbers
            // infinite), and errors that the rows had when they were given.
            let own = value[l].is_finite() && error[l] <= ACCURACY * value[l];
            let given = ROUNDINGS * precision.unit_roundoff() * squares[at + l].sqrt();
            let given = of_rows(&diagonal, &frame.weights, &x, lambda, given, l);
            let sound = own && given <= precision.ambiguous_error() * value[l];
            values.push(sound.then(|| value[l].min(frame.bound)));
        }
    }
    values
}

/// The error of the value caused by errors of the rows. `error` is the error of an entry of J: a
/// roundoff times the norm of the window's rows as given. FI = |u|^2 - lambda u^T x changes by
/// lambda x^T (error of A) x, and row i of Y has q_i times the error of two rows of J.
fn of_rows(diagonal: &[Lane<LANES>], q: &[f64], x: &[Lane<LANES>], lambda: f64, error: f64, l: usize) -> f64 {
    let rows = || q.iter().zip(diagonal).zip(x).map(|((q, d), x)| (q, d[l], x[l].abs()));
    let weighed: f64 = rows().map(|(q, _, x)| 2.0 * error * q * x).sum();
    let long: f64 = rows().map(|(_, d, x)| d.sqrt() * x).sum();
    lambda * weighed * (2.0 * long + weighed)
}

/// u^T z and a bound of its rounding error: the header's entrywise errors of A + lambda I and of A,
/// multiplied by |x| on one side and by |u| or |z| on the other.
fn summary(
    diagonal: &[Lane<LANES>],
    u: &[f64],
    z: &[Lane<LANES>],
    x: &[Lane<LANES>],
    lambda: f64,
) -> (Lane<LANES>, Lane<LANES>) {
    let sum = |term: &dyn Fn(usize, usize) -> f64| -> Lane<LANES> {
        map(|l| (0..u.len()).map(|i| term(i, l)).sum())
    };
    let value = sum(&|i, l| u[i] * z[i][l]);
    let magnitude = sum(&|i, l| (u[i] * z[i][l]).abs());
    let plain = |i: usize, l: usize| diagonal[i][l].sqrt();
    let damped = |i: usize, l: usize| (diagonal[i][l] + lambda).sqrt();
    let of_u = sum(&|i, l| plain(i, l) * u[i].abs());
    let (x_plain, x_damped) =
        (sum(&|i, l| plain(i, l) * x[i][l].abs()), sum(&|i, l| damped(i, l) * x[i][l].abs()));
    let z_plain = sum(&|i, l| plain(i, l) * z[i][l].abs());
    let z_damped = sum(&|i, l| damped(i, l) * z[i][l].abs());
    let diagonals = sum(&|i, l| (diagonal[i][l] + lambda) * (x[i][l] * z[i][l]).abs());
    let unit = u.len() as f64 * RowPrecision::F64.unit_roundoff();
    let error = |l: usize| {
        magnitude[l] + diagonals[l] + x_plain[l] * (of_u[l] + z_damped[l]) + x_damped[l] * z_plain[l]
    };
    (value, map(|l| unit * error(l)))
}
