//! FI = df^T (G + lambda I)^-1 df = sum_i gamma_i / (gamma_i + lambda) (q_i . w)^2.
//!
//! With C J = X W^T, X = V Sigma, this is g^T (X^T (diag P - P P^T) X + lambda I)^-1 g, g = X^T dh: the weighted
//! least-squares problem of the rows of X with weights sqrt P, above sqrt(lambda) times the identity. The rows below return
//! a = (..)^-1 g itself, so c = V Sigma^-1 a needs no division by what was damped.
//!
//! lambda FI tends to |df|^2 for large lambda, and FI to the exact influence for lambda to 0. Directions below the noise
//! of the tangent data are left out, or they would count as soon as lambda falls below their square.

use faer::Mat;

use super::{Outcome, scaled_factor};
use crate::graded::{GradedRows, solve};
use crate::gradient::LogitGradient;
use crate::precision::{Carrier, Precision};
use crate::{Probabilities, Tangent};

/// The influence damped by lambda.
pub(crate) fn tikhonov(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    lambda: f64,
) -> Outcome {
    let rank = tangent.rank(tangent.default_tolerance()).rank;
    let count = tangent.rank(tangent.noise.resolution()).rank.max(rank);
    let (classes, largest) = (tangent.classes(), tangent.largest());
    if count == 0 {
        return Outcome::zero(classes, 0, false);
    }
    let error = match tangent.noise.carrier {
        Carrier::Rows => tangent.precision().unit_roundoff(),
        Carrier::Gram => Precision::F64.unit_roundoff().sqrt(),
    };
    let factor = scaled_factor(tangent, count);
    let log_root = 0.5 * lambda.ln() - largest.ln();
    let mut log_weights: Vec<f64> = probabilities.logs().iter().map(|l| 0.5 * l).collect();
    log_weights.resize(classes + count, log_root);
    let mut errors = vec![error; classes];
    errors.resize(classes + count, 0.0);
    let below = |i: usize, j: usize| if i == classes + j { 1.0 } else { 0.0 };
    let rows =
        Mat::from_fn(classes + count, count, |i, j| if i < classes { factor[(i, j)] } else { below(i, j) });
    let solution = solve(GradedRows { rows, log_weights, errors, classes }, gradient);
    // The value hangs on the Gram matrix, the square of the factor, and so does its error.
    let loss = match tangent.noise.carrier {
        Carrier::Rows => solution.loss,
        Carrier::Gram => (solution.loss * solution.loss).max(tangent.precision().unit_roundoff()),
    };
    let a = &solution.image[classes..];
    Outcome {
        log_value: solution.log_value.map(|value| value.min(gradient.log_bound)),
        rank,
        ambiguous: loss > tangent.precision().ambiguous_error(),
        coefficients: coefficients(tangent, a),
        log_scale: solution.log_scale - 2.0 * largest.ln(),
    }
}

/// V Sigma^-1 a, in units of sigma_1^-1.
fn coefficients(tangent: &Tangent, a: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; tangent.classes()];
    for (j, a) in a.iter().enumerate() {
        let factor = a * (tangent.largest() / tangent.singular[j]);
        sum.iter_mut().zip(tangent.basis.col_as_slice(j)).for_each(|(sum, v)| *sum += factor * v);
    }
    sum
}
