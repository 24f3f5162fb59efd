//! FI = df^T (G + lambda I)^-1 df of every window: u^T A (A + lambda I)^-1 u with A = Y Y^T, n x n, for df = Y^T u.
//!
//! z = (A + lambda I)^-1 (A u) and x = (u - z) / lambda bound the error of u^T z: A has entries graded as the probabilities are, each
//! with its own digits, and the factorisation A + lambda I = L L^T changes entry (i, j) by n roundings of |L| |L|^T: of a_ii + lambda on the diagonal, of
//! at most sqrt(a_ii (a_jj + lambda)) beside it, for l_jj^2 >= lambda.

use super::few::ACCURACY;
use super::frame::Frame;
use super::grams::Grams;
use super::lanes::{LANES, Lane, cholesky, map, packed, product, solve};
use super::{Layout, Windows};
use crate::precision::Precision;

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
    let limit = ACCURACY.min(precision.ambiguous_error() * data);
    let mut values = Vec::with_capacity(count);
    let (mut a, mut image, mut z) = (Vec::new(), vec![[0.0; LANES]; n], vec![[0.0; LANES]; n]);
    for at in (0..count).step_by(LANES) {
        grams.load(at, &mut a);
        product(&a, n, &u, &mut image);
        z.copy_from_slice(&image);
        let diagonal: Vec<Lane<LANES>> = (0..n).map(|i| a[packed(i) + i]).collect();
        for i in 0..n {
            a[packed(i) + i].iter_mut().for_each(|d| *d += lambda);
        }
        cholesky(&mut a, n);
        solve(&a, n, &mut z);
        let (value, error) = summary(&diagonal, &u, &z, lambda);
        for l in 0..LANES.min(count - at) {
            let sound = error[l] <= limit * value[l];
            values.push(sound.then(|| value[l].min(frame.bound)));
        }
    }
    values
}

/// u^T z and a bound of its error.
fn summary(
    diagonal: &[Lane<LANES>],
    u: &[f64],
    z: &[Lane<LANES>],
    lambda: f64,
) -> (Lane<LANES>, Lane<LANES>) {
    let sum = |term: &dyn Fn(usize, usize) -> f64| -> Lane<LANES> {
        map(|l| (0..u.len()).map(|i| term(i, l)).sum())
    };
    let value = sum(&|i, l| u[i] * z[i][l]);
    let magnitude = sum(&|i, l| (u[i] * z[i][l]).abs());
    let x = |i: usize, l: usize| ((u[i] - z[i][l]) / lambda).abs();
    let plain = |i: usize, l: usize| diagonal[i][l].sqrt();
    let damped = |i: usize, l: usize| (diagonal[i][l] + lambda).sqrt();
    let of_u = sum(&|i, l| plain(i, l) * u[i].abs());
    let (x_plain, x_damped) = (sum(&|i, l| plain(i, l) * x(i, l)), sum(&|i, l| damped(i, l) * x(i, l)));
    let z_plain = sum(&|i, l| plain(i, l) * z[i][l].abs());
    let z_damped = sum(&|i, l| damped(i, l) * z[i][l].abs());
    let diagonals = sum(&|i, l| (diagonal[i][l] + lambda) * x(i, l) * z[i][l].abs());
    let unit = u.len() as f64 * Precision::F64.unit_roundoff();
    let error = |l: usize| {
        magnitude[l] + diagonals[l] + x_plain[l] * (of_u[l] + z_damped[l]) + x_damped[l] * z_plain[l]
    };
    (value, map(|l| unit * error(l)))
}
