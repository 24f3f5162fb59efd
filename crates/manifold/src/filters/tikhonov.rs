//! FI = df^T (G + lambda I)^-1 df = sum_i gamma_i / (gamma_i + lambda) (q_i . w)^2.
//!
//! With C J = X W^T, X = V Sigma, this is g^T (X^T (diag P - P P^T) X + lambda I)^-1 g, g = X^T dh:
//! the weighted least-squares problem of the rows of X with weights sqrt P, stacked on sqrt(lambda)
//! times the identity. The identity rows of the solution are a = (..)^-1 g itself, so
//! c = V Sigma^-1 a needs no division by the damping factors.
//!
//! lambda FI tends to |df|^2 for large lambda, and FI tends to the exact influence for lambda to 0:
//! the directions that count are those that the exact measure counts at the default tolerance. The
//! value is ambiguous where a slightly different tolerance would change the value, not merely the
//! rank.

use faer::Mat;

use super::{Outcome, scaled_factor};
use crate::graded::{GradedRows, GradedSolution, solve};
use crate::gradient::LogitGradient;
use crate::{Probabilities, Tangent};

/// The influence damped by lambda.
pub(crate) fn tikhonov(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    lambda: f64,
) -> Outcome {
    let decision = tangent.rank(tangent.default_tolerance());
    if decision.more == 0 {
        return Outcome::zero(tangent.classes(), 0, decision.ambiguous);
    }
    let damped = |count: usize| damped(probabilities, tangent, gradient, lambda, count);
    let solution = damped(decision.rank);
    let limit = tangent.precision().ambiguous_error();
    let log_value = |solution: &GradedSolution| solution.log_value.unwrap_or(f64::NEG_INFINITY);
    // Two values of zero give -inf - -inf = NaN, and the comparison is false, as it should be.
    let differs = |count: usize| {
        count != decision.rank && (log_value(&damped(count)) - log_value(&solution)).abs() > limit
    };
    let ambiguous = solution.loss > limit || differs(decision.fewer) || differs(decision.more);
    if decision.rank == 0 {
        return Outcome::zero(tangent.classes(), 0, ambiguous);
    }
    let a = &solution.image[tangent.classes()..];
    Outcome {
        log_value: solution.log_value.map(|value| value.min(gradient.log_bound)),
        rank: decision.rank,
        ambiguous,
        coefficients: coefficients(tangent, a),
        log_scale: solution.log_scale - 2.0 * tangent.largest().ln(),
    }
}

/// The solution with only the first `count` directions.
fn damped(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    lambda: f64,
    count: usize,
) -> GradedSolution {
    let (classes, largest) = (tangent.classes(), tangent.largest());
    // Everything is in units of sigma_1: rows X / sigma_1 with weights sqrt P, then the identity
    // with the weight sqrt(lambda) / sigma_1.
    let factor = scaled_factor(tangent, count);
    let log_root = 0.5 * lambda.ln() - largest.ln();
    let mut log_weights: Vec<f64> = probabilities.logs().iter().map(|l| 0.5 * l).collect();
    log_weights.resize(classes + count, log_root);
    let below = |i: usize, j: usize| if i == classes + j { 1.0 } else { 0.0 };
    let rows =
        Mat::from_fn(classes + count, count, |i, j| if i < classes { factor[(i, j)] } else { below(i, j) });
    let error = |j: usize| tangent.direction_error(j) * (tangent.singular[j] / largest);
    let errors = (0..count).map(error).collect();
    solve(GradedRows { rows, log_weights, errors, classes }, gradient)
}

/// The coefficients c = V Sigma^-1 a, in units of sigma_1^-1.
fn coefficients(tangent: &Tangent, a: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; tangent.classes()];
    for (j, a) in a.iter().enumerate() {
        let factor = a * (tangent.largest() / tangent.singular[j]);
        sum.iter_mut().zip(tangent.basis.col_as_slice(j)).for_each(|(sum, v)| *sum += factor * v);
    }
    sum
}
