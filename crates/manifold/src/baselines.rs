//! Classical measures, to compare the influence with: |df|, 1/P_y - 1, entropy, margin,
//! cross-entropy, and the largest eigenvalue and the trace of the Fisher information G = J^T (diag
//! P - P P^T) J.

use crate::influence::Measurement;
use crate::{Error, SampleObjective, Tangent};

/// Classical measures of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Baselines {
    /// |df|, the Euclidean norm of the objective's gradient, in units of 1 / the perturbed
    /// quantity. `None` where the Jacobian is not known; [`baselines`] always knows it.
    pub jacobian_norm: Option<f64>,
    /// 1 / P_y - 1, infinite beyond the range of `f64`.
    pub odds: f64,
    /// - sum_k P_k ln P_k, in nats.
    pub entropy: f64,
    /// z_y less the largest other logit.
    pub margin: f64,
    /// - ln P_y, in nats.
    pub cross_entropy: f64,
    /// Largest eigenvalue of G (Zhao et al., arXiv 1810.03806). `None` as for the norm.
    pub fisher_norm: Option<f64>,
    /// Trace of G (Shen et al., arXiv 1909.06137; Martin & Elster, arXiv 1909.05527). `None` as
    /// for the norm.
    pub fisher_trace: Option<f64>,
}

/// The classical measures. y is the class that the objective names, or else the predicted class.
///
/// # Shapes
///
/// `logits`: `[K]`; `tangent` of K classes.
///
/// # Errors
///
/// As [`influence`](crate::influence()) for the logits and the objective.
pub fn baselines(logits: &[f64], tangent: &Tangent, objective: &SampleObjective) -> Result<Baselines, Error> {
    Measurement::new(logits, tangent, objective)?.baselines()
}
