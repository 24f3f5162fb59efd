//! Gamma = S M S^T = sum_i gamma_i q_i q_i^T, S = diag(sqrt P)(I - 1 P^T) on centred rows: its
//! eigenvalues, and |df|.
//!
//! The gamma_i are also the non-zero eigenvalues of the Fisher information G = J^T (diag P - P P^T)
//! J.

use faer::Mat;

use crate::dense::singular_values;
use crate::filters::{above_predicted, deviations, scaled_factor};
use crate::gradient::{FreeGradient, Gradient, LogitGradient};
use crate::{Error, Probabilities, Tangent};

/// The eigenvalues gamma_i as squared singular values of diag(sqrt P)(X - 1 P^T X), X = V Sigma: K
/// of them, descending, the last zero.
///
/// Their absolute error is a rounding of the largest. Eigenvalues that underflow `f64` are 0, those
/// that overflow it infinite.
pub(crate) fn eigenvalues(probabilities: &Probabilities, tangent: &Tangent) -> Result<Vec<f64>, Error> {
    let classes = tangent.classes();
    let largest = tangent.largest();
    // (A tangent of zeros has no scale; all its eigenvalues are 0.)
    let mut gammas = Vec::with_capacity(classes);
    if largest > 0.0 {
        let weighted = weighted_tangent(probabilities, tangent);
        gammas.extend(singular_values(weighted.as_ref())?.into_iter().map(|s| (s * largest).powi(2)));
    }
    gammas.resize(classes, 0.0);
    Ok(gammas)
}

/// diag(sqrt P)(X - 1 P^T X) / sigma_1: K x m.
fn weighted_tangent(probabilities: &Probabilities, tangent: &Tangent) -> Mat<f64> {
    let mut rows = deviations(probabilities, tangent);
    for j in 0..rows.ncols() {
        rows.col_as_slice_mut(j)
            .iter_mut()
            .zip(probabilities.logs())
            .for_each(|(x, l)| *x *= (0.5 * l).exp());
    }
    rows
}

/// The Euclidean norm |df| of the objective's gradient.
pub(crate) fn gradient_norm(probabilities: &Probabilities, tangent: &Tangent, gradient: &Gradient) -> f64 {
    match gradient {
        Gradient::OfProbabilities(gradient) => inner_norm(probabilities, tangent, gradient),
        Gradient::Free(gradient) => free_norm(tangent, gradient),
    }
}

/// |X^T dh + e|, where X^T dh . e = dh . (C J e).
fn free_norm(tangent: &Tangent, gradient: &FreeGradient) -> f64 {
    let FreeGradient { dh, row } = gradient;
    let largest = dh.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
    if largest == 0.0 || tangent.largest() == 0.0 {
        return row.norm;
    }
    // |a + e|^2 = |a|^2 + 2 a . e + |e|^2 with a = X^T dh, in units of the larger of |a| and |e|.
    // The sizes are logarithms because both may be near the limits of f64.
    let log_size = largest.ln() + tangent.largest().ln();
    let log_unit = log_size.max(row.norm.ln());
    let (size, share) = ((log_size - log_unit).exp(), (row.norm.ln() - log_unit).exp());
    let factor = scaled_factor(tangent, tangent.singular.len());
    // X^T dh, entry by entry, and its product with e, in units of sigma_1 and of the largest dh.
    let image = |j: usize| factor.col_as_slice(j).iter().zip(dh).map(|(x, d)| x * (d / largest)).sum::<f64>();
    let square: f64 = (0..factor.ncols()).map(|j| (size * image(j)).powi(2)).sum();
    let cross: f64 = dh.iter().zip(&row.product).map(|(d, x)| d / largest * (x / tangent.largest())).sum();
    let relative = (square + 2.0 * size * share * cross + share * share).max(0.0);
    (log_unit + 0.5 * relative.ln()).exp()
}

/// |X^T dh|.
///
/// The predicted class's row is subtracted first, which changes nothing because sum_k dh_k = 0.
/// Otherwise its term, with the largest dh, would cancel against the others.
fn inner_norm(probabilities: &Probabilities, tangent: &Tangent, gradient: &LogitGradient) -> f64 {
    if tangent.largest() == 0.0 {
        return 0.0;
    }
    let rows = above_predicted(probabilities, tangent);
    let weighed = || (0..tangent.classes()).filter(|k| *k != probabilities.predicted());
    let log_scale = weighed().map(|k| gradient.log_abs[k]).fold(f64::NEG_INFINITY, f64::max);
    if log_scale == f64::NEG_INFINITY {
        return 0.0;
    }
    let norm = (0..rows.ncols()).fold(0.0_f64, |norm, j| {
        let term = |k: usize| gradient.signs[k] * (gradient.log_abs[k] - log_scale).exp() * rows[(k, j)];
        norm.hypot(weighed().map(term).sum())
    });
    norm * log_scale.exp() * tangent.largest()
}
