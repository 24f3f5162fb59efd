//! FI = df^T (G + lambda I)^-1 df of every window: u^T A (A + lambda I)^-1 u with A = Y Y^T, n x n, for df = Y^T u.
//!
//! z = (A + lambda I)^-1 (A u) and x = (A + lambda I)^-1 u bound the error of u^T z: A has entries
//! graded as the probabilities are, each with its own digits, and the factorisation A + lambda I =
//! L L^T changes entry (i, j) by n roundings of (|L| |L|^T)_ij: of a_ii + lambda on the diagonal, of
//! at most sqrt(a_ii (a_jj + lambda)) beside it, for l_jj^2 >= lambda. x is solved for, and is not
//! (u - z) / lambda: where a pivot near lambda is lost in its rounding, z is u to the last bit, and
//! only x tells.

use super::few::ACCURACY;
use super::frame::Frame;
use super::grams::{Grams, window_sums};
use super::lanes::{LANES, Lane, cholesky, map, packed, product, solve};
use super::{Layout, Windows};
use crate::precision::{Precision, ROUNDINGS};

/// The damped influence of each window; nothing where rounding could show in it.
pub(super) fn damped(
    frame: &Frame,
    layout: Layout,
    s: usize,
    lambda: f64,
    precision: Precision,
) -> Vec<Option<f64>> {
    let (rows, u) = frame.weighted();
    let (n, lambda) = (frame.size(), lambda / frame.scale / frame.scale);
    let grams = Grams::new(&rows, n, layout.shape, layout.channels, s);
    let count = Windows::new(layout, s).count();
    // The data's own errors count once, those of sums of n terms n times.
    let data = n as f64 * Precision::F64.unit_roundoff() / precision.unit_roundoff();
    let limit = ACCURACY.min(precision.ambiguous_error() / ROUNDINGS * data);
    let grown = common_part(frame, layout, s, count);
    let mut values = Vec::with_capacity(count);
    let (mut a, mut z, mut x) = (Vec::new(), vec![[0.0; LANES]; n], vec![[0.0; LANES]; n]);
    for at in (0..count).step_by(LANES) {
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
            // A pivot of zero makes both infinite.
            let sound = value[l].is_finite() && error[l] * grown[at + l] <= limit * value[l];
            values.push(sound.then(|| value[l].min(frame.bound)));
        }
    }
    values
}

/// The norm of each window's rows as they were given over that of the centred ones: what errors of
/// the rows are larger by.
fn common_part(frame: &Frame, layout: Layout, s: usize, count: usize) -> Vec<f64> {
    let sums = |squares: Vec<f64>| {
        let mut sums = vec![0.0; count];
        window_sums(&squares, layout.shape, layout.channels, s, &mut sums);
        sums
    };
    let (given, centred) = (sums(frame.given_squares()), sums(frame.centred().squares()));
    given.iter().zip(centred).map(|(given, centred)| (given / centred).sqrt().max(1.0)).collect()
}

/// u^T z and a bound of its error.
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
    let unit = u.len() as f64 * Precision::F64.unit_roundoff();
    let error = |l: usize| {
        magnitude[l] + diagonals[l] + x_plain[l] * (of_u[l] + z_damped[l]) + x_damped[l] * z_plain[l]
    };
    (value, map(|l| unit * error(l)))
}
