//! FI = |Pi w|^2, Pi the projector onto range(Gamma): the measure of Shu & Zhu (2019, definition 2)
//! by scale-free truncation.
//!
//! The rank r is decided on the unweighted centred Jacobian C J = V Sigma W^T. Range(Gamma) is
//! spanned by diag(sqrt P)(V - 1 P^T V), so with N = V^T (diag P - P P^T) V and zeta = V N^-1 V^T
//! dh
//!
//! FI = dh^T zeta,  c = V Sigma^-2 V^T zeta,  h = J^T c = G^+ df.
//!
//! At rank K-1 the range is the whole complement of sqrt P: FI = |w|^2 and zeta_k = dh_k / P_k up
//! to a constant. At rank 0 both are zero.

use faer::Mat;

use super::{Outcome, filtered};
use crate::graded::{GradedRows, solve};
use crate::gradient::LogitGradient;
use crate::precision::{Carrier, GRAM_RESOLUTION};
use crate::tangent::RankDecision;
use crate::{Error, Probabilities, Tangent};

/// The exact influence, with the rank decided at a relative tolerance.
pub(crate) fn exact(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    tolerance: Option<f64>,
) -> Result<Outcome, Error> {
    let tolerance = tolerance.unwrap_or_else(|| tangent.default_tolerance());
    if tangent.noise.carrier == Carrier::Gram && tolerance < GRAM_RESOLUTION {
        return Err(Error::BelowGramResolution {
            what: "tolerance",
            asked: tolerance,
            carried: GRAM_RESOLUTION,
        });
    }
    let decision = tangent.rank(tolerance);
    Ok(match decision.rank {
        0 => Outcome::zero(tangent.classes(), 0, decision.ambiguous),
        rank if rank == tangent.classes() - 1 => saturated(probabilities, tangent, gradient, decision),
        _ => truncated(probabilities, tangent, gradient, decision),
    })
}

/// Rank K-1: FI = |w|^2, zeta = dh / P.
fn saturated(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    mut decision: RankDecision,
) -> Outcome {
    if gradient.log_bound == f64::NEG_INFINITY {
        return Outcome::zero(tangent.classes(), decision.rank, decision.ambiguous);
    }
    let lightest = probabilities.logs().iter().copied().fold(f64::INFINITY, f64::min);
    // w_k = dh_k / sqrt(P_k): the gradient's absolute error weighs most in the least likely class.
    // `loss` is the relative error of w there.
    let loss = (gradient.log_error - 0.5 * (lightest + gradient.log_bound)).exp();
    decision.ambiguous |= loss > tangent.precision().ambiguous_error();
    // zeta_k = dh_k / P_k, scaled to a largest entry of one.
    let exponents: Vec<f64> = gradient.log_abs.iter().zip(probabilities.logs()).map(|(d, l)| d - l).collect();
    let log_scale = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let zeta: Vec<f64> =
        exponents.iter().zip(&gradient.signs).map(|(e, sign)| sign * (e - log_scale).exp()).collect();
    finish(tangent, decision, Some(gradient.log_bound), &zeta, log_scale)
}

/// 0 < rank < K-1: the weighted least-squares problem of the basis V.
fn truncated(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    mut decision: RankDecision,
) -> Outcome {
    let (classes, rank) = (tangent.classes(), decision.rank);
    let problem = GradedRows {
        rows: Mat::from_fn(classes, rank, |k, j| tangent.basis[(k, j)]),
        log_weights: probabilities.logs().iter().map(|l| 0.5 * l).collect(),
        errors: (0..rank).map(|j| tangent.direction_error(j)).collect(),
        classes,
    };
    let solution = solve(problem, gradient);
    decision.ambiguous |= solution.loss > tangent.precision().ambiguous_error();
    // A projection is never longer than the projected vector; rounding may exceed that.
    let log_value = solution.log_value.map(|value| value.min(gradient.log_bound));
    finish(tangent, decision, log_value, &solution.image, solution.log_scale)
}

/// The outcome of a value and of zeta, with c = V Sigma^-2 V^T zeta in units of sigma_1^-2.
fn finish(
    tangent: &Tangent,
    decision: RankDecision,
    log_value: Option<f64>,
    zeta: &[f64],
    log_scale: f64,
) -> Outcome {
    let largest = tangent.largest();
    let inverse_squares: Vec<f64> =
        tangent.singular[..decision.rank].iter().map(|s| (largest / s).powi(2)).collect();
    Outcome {
        log_value,
        rank: decision.rank,
        ambiguous: decision.ambiguous,
        coefficients: filtered(tangent, &inverse_squares, zeta),
        log_scale: log_scale - 2.0 * largest.ln(),
    }
}
