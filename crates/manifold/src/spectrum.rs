//! Gamma = S M S^T = sum_i gamma_i q_i q_i^T, S = diag(sqrt P)(I - 1 P^T) on centred rows: its eigenvalues, and |df|.
//!
//! The gamma_i are the non-zero eigenvalues of the Fisher information G = J^T (diag P - P P^T) J too.

use faer::Mat;

use crate::dense::singular_values;
use crate::filters::{above_predicted, deviations};
use crate::objective::LogitGradient;
use crate::{Error, Probabilities, Tangent};

/// gamma_i as squared singular values of diag(sqrt P)(X - 1 P^T X), X = V Sigma: K of them, descending, the last zero.
///
/// Their absolute error is that of rounding beside the largest; below the range of `f64` they are 0, above it infinite.
pub(crate) fn eigenvalues(probabilities: &Probabilities, tangent: &Tangent) -> Result<Vec<f64>, Error> {
    let classes = tangent.classes();
    let largest = tangent.largest();
    let mut gammas = Vec::with_capacity(classes);
    if largest > 0.0 {
        let weighted = weighted_tangent(probabilities, tangent);
        gammas.extend(singular_values(weighted.as_ref())?.into_iter().map(|s| (s * largest).powi(2)));
    }
    gammas.resize(classes, 0.0);
    Ok(gammas)
}

/// diag(sqrt P)(X - 1 P^T X) / sigma_1.
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

/// |df| = |X^T dh|, the Euclidean norm of the objective's gradient.
///
/// The predicted class's row is taken off first, so that its dh, the largest, does not cancel against the others.
pub(crate) fn gradient_norm(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
) -> f64 {
    if tangent.largest() == 0.0 {
        return 0.0;
    }
    let rows = above_predicted(probabilities, tangent);
    let weighed = || (0..tangent.classes()).filter(|k| *k != probabilities.predicted());
    let log_scale = weighed().map(|k| gradient.log_abs[k]).fold(f64::NEG_INFINITY, f64::max);
    let norm = (0..rows.ncols()).fold(0.0_f64, |norm, j| {
        let term = |k: usize| gradient.signs[k] * (gradient.log_abs[k] - log_scale).exp() * rows[(k, j)];
        norm.hypot(weighed().map(term).sum())
    });
    norm * log_scale.exp() * tangent.largest()
}
