//! The first-order influence measure FI = df^T G^+ df of one sample (Shu & Zhu 2019, arXiv
//! 1901.07152, definition 2).
//!
//! It is the largest squared change of the objective f per unit of squared Fisher length of the
//! perturbation. It lies between 0 and the bound |w|^2, which is (1 - P_y) / P_y for f = -log P_y,
//! and equals the bound whenever the Jacobian has rank K-1.
//!
//! A general f is split. The component of df in the row space of C J is the gradient of a function
//! of the logits and is measured as such. Along the rest, `outside`, f changes and the distribution
//! does not, and the measure has no bound.

use crate::filters::{Outcome, exact::exact, paper::paper, tikhonov::tikhonov};
use crate::gradient::Gradient;
use crate::{Baselines, Error, Filter, Probabilities, SampleObjective, Scalar, Tangent, error, spectrum};

/// Largest |ln c| of the largest coefficient that is returned as a plain number: e^709 is the end
/// of the range of `f64`.
const LARGEST_EXPONENT: f64 = 690.0;

/// The influence of one sample, with the quantities that show how far it can be trusted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Influence {
    /// FI; never NaN. Infinite on overflow of `f64` and 0 on underflow; `log10` holds it in both
    /// cases.
    pub value: f64,
    /// log10 FI; `None` where FI is exactly 0.
    pub log10: Option<f64>,
    /// Number of directions that count: the rank of the centred Jacobian, or the number of singular
    /// values that [`Filter::Paper`] keeps.
    pub rank: usize,
    /// |w|^2, the exact measure at full rank: (1 - P_y) / P_y for -log P_y. Infinite for an
    /// objective that is not a function of the probabilities, because it has no bound.
    pub bound: f64,
    /// log10 of the bound, -infinity where it is 0.
    pub log10_bound: f64,
    /// FI / bound: in [0, 1], except for [`Filter::Paper`], which can exceed 1. 0 where the
    /// influence is 0 or there is no bound.
    pub reach: f64,
    /// |df|^2 minus its projection on the row space of C J: how much of the objective's gradient
    /// lies along directions that leave the distribution unchanged. Exactly 0 for functions of the
    /// probabilities, and where it could be only rounding. Where it is not 0, the measure itself is
    /// unbounded, and `value` covers only the component in the row space. [`Filter::Tikhonov`] is
    /// the exception: its budget on omega bounds the whole, and it adds `outside` / lambda.
    pub outside: f64,
    /// Whether rounding, or a slightly different tolerance, could give another value.
    pub ambiguous: bool,
    /// Eigenvalues of the K x K matrix Gamma, unfiltered, descending, K of them.
    pub spectrum: Vec<f64>,
    /// The coefficients c, K values that sum to zero: h = exp(`coefficients_log_scale`) J^T c is
    /// the most influential direction G^+ df (or its filtered form), along which f grows fastest
    /// per unit of Fisher length.
    ///
    /// With rows of the K-1 differences z_k - z_K, use the first K-1 coefficients. The component
    /// `outside` is not part of h.
    pub coefficients: Vec<f64>,
    /// The logarithm of the scale of `coefficients`: 0 unless a coefficient would leave the range
    /// of `f64`.
    pub coefficients_log_scale: f64,
}

/// The influence on the objective of the perturbations that `tangent` describes, for one sample.
///
/// # Shapes
///
/// `logits`: `[K]`; `tangent` of K classes.
///
/// # Errors
///
/// Fewer than two logits, a number of logits that differs from the tangent's classes, logits that
/// are not finite or span more than `f64`; no such class; a filter argument out of range or finer
/// than a Gram matrix resolves; a decomposition that does not converge; [`Filter::Paper`] for an
/// objective other than -log P; costs, derivatives or a row of the wrong number of classes or not
/// finite; an objective that changes with a common shift of the logits, when only the K-1 rows of
/// differences were given.
pub fn influence(
    logits: &[f64],
    tangent: &Tangent,
    objective: &SampleObjective,
    filter: &Filter,
) -> Result<Influence, Error> {
    let filter = checked(objective, filter)?;
    Measurement::new(logits, tangent, objective)?.influence(filter)
}

/// [`influence`] and [`baselines`](crate::baselines()) of one sample together, which share the
/// probabilities, the gradient and the spectrum.
///
/// # Shapes
///
/// `logits`: `[K]`; `tangent` of K classes.
///
/// # Errors
///
/// As [`influence`].
pub fn measure(
    logits: &[f64],
    tangent: &Tangent,
    objective: &SampleObjective,
    filter: &Filter,
) -> Result<(Influence, Baselines), Error> {
    let filter = checked(objective, filter)?;
    let sample = Measurement::new(logits, tangent, objective)?;
    Ok((sample.influence(filter)?, sample.baselines()?))
}

/// The filter, if its arguments are in range and it is defined for the objective.
fn checked(objective: &SampleObjective, filter: &Filter) -> Result<Filter, Error> {
    let filter = filter.validated()?;
    filter.check_objective(objective)?;
    Ok(filter)
}

/// One sample and one objective, with what all measures share.
pub(crate) struct Measurement<'a> {
    probabilities: Probabilities,
    tangent: &'a Tangent,
    objective: &'a SampleObjective,
    gradient: Gradient,
    /// Eigenvalues of Gamma.
    spectrum: Vec<f64>,
}

impl<'a> Measurement<'a> {
    pub(crate) fn new(
        logits: &[f64],
        tangent: &'a Tangent,
        objective: &'a SampleObjective,
    ) -> Result<Self, Error> {
        let probabilities = probabilities_of(logits, tangent)?;
        let gradient = objective.gradient(&probabilities, tangent)?;
        let spectrum = spectrum::eigenvalues(&probabilities, tangent)?;
        Ok(Self { probabilities, tangent, objective, gradient, spectrum })
    }

    fn influence(&self, filter: Filter) -> Result<Influence, Error> {
        let Self { probabilities, tangent, objective, .. } = self;
        // An objective that is not a function of the probabilities is first reduced to its
        // component in the row space, as a gradient in the logits; it has no bound.
        let reduced;
        let (gradient, log_bound, log_outside) = match &self.gradient {
            Gradient::OfProbabilities(gradient) => {
                let log_bound = gradient.log_bound;
                (gradient, log_bound, f64::NEG_INFINITY)
            }
            Gradient::Free(gradient) => {
                let rank = tangent.rank(tolerance(&filter, tangent)).rank;
                let (of_logits, log_outside) = gradient.reduced(probabilities, tangent, rank)?;
                reduced = of_logits;
                (&reduced, f64::INFINITY, log_outside)
            }
        };
        let mut outcome = match filter {
            Filter::Exact { tolerance } => exact(probabilities, tangent, gradient, tolerance)?,
            Filter::Paper { epsilon, rank_epsilon } => {
                let class = objective.class_of(probabilities)?;
                paper(probabilities, tangent, class, epsilon, rank_epsilon)?
            }
            Filter::Tikhonov { lambda } => tikhonov(probabilities, tangent, gradient, lambda),
        };
        // Along directions that leave the distribution unchanged only the budget limits omega: they
        // add `outside` / lambda.
        if let Filter::Tikhonov { lambda } = filter {
            outcome.add(log_outside - lambda.ln());
        }
        Ok(Influence::new(outcome, log_bound, log_outside, self.spectrum.clone()))
    }

    /// The classical measures. y is the class that the objective names, or else the predicted
    /// class.
    pub(crate) fn baselines(&self) -> Result<Baselines, Error> {
        let probabilities = &self.probabilities;
        let y = self.objective.class_of(probabilities)?;
        Ok(Baselines {
            jacobian_norm: Some(spectrum::gradient_norm(probabilities, self.tangent, &self.gradient)),
            odds: probabilities.log_odds_against(y)?.exp(),
            entropy: probabilities.entropy(),
            margin: probabilities.margin(y)?,
            cross_entropy: -probabilities.logs()[y],
            fisher_norm: Some(self.spectrum[0]),
            fisher_trace: Some(self.spectrum.iter().sum()),
        })
    }
}

/// The relative tolerance by which the filter decides the rank.
fn tolerance(filter: &Filter, tangent: &Tangent) -> f64 {
    tolerance_of(filter).unwrap_or_else(|| tangent.default_tolerance())
}

/// The relative tolerance of the rank that a filter sets explicitly.
pub(crate) fn tolerance_of(filter: &Filter) -> Option<f64> {
    match filter {
        Filter::Exact { tolerance } => *tolerance,
        _ => None,
    }
}

/// The probabilities, if the number of logits matches the tangent's classes.
pub(crate) fn probabilities_of(logits: &[f64], tangent: &Tangent) -> Result<Probabilities, Error> {
    let (found, expected) = (logits.len(), tangent.classes());
    if found != expected {
        return Err(Error::ClassMismatch { what: "logits", found, expected });
    }
    Probabilities::new(logits)
}

impl Influence {
    /// Converts the logarithms of an outcome to plain numbers where their range allows.
    fn new(outcome: Outcome, log_bound: f64, log_outside: f64, spectrum: Vec<f64>) -> Self {
        let (coefficients, coefficients_log_scale) = natural(outcome.coefficients, outcome.log_scale);
        Self {
            value: outcome.log_value.map_or(0.0, f64::exp),
            log10: outcome.log_value.map(|value| value / std::f64::consts::LN_10),
            rank: outcome.rank,
            bound: log_bound.exp(),
            log10_bound: log_bound / std::f64::consts::LN_10,
            reach: outcome.log_value.map_or(0.0, |value| (value - log_bound).exp()),
            outside: log_outside.exp(),
            ambiguous: outcome.ambiguous,
            spectrum,
            coefficients,
            coefficients_log_scale,
        }
    }

    /// The most influential direction J^T c without its scale exp(`coefficients_log_scale`).
    ///
    /// # Shapes
    ///
    /// `rows`: [K, p] or [K-1, p], the rows that the tangent was made from; the result: `[p]`.
    ///
    /// # Errors
    ///
    /// Another length.
    pub fn direction<T: Scalar>(&self, rows: &[T], columns: usize) -> Result<Vec<f64>, Error> {
        let classes = self.coefficients.len();
        if columns == 0 {
            return Err(Error::NoColumns);
        }
        if !rows.len().is_multiple_of(columns) || !(classes - 1..=classes).contains(&(rows.len() / columns)) {
            let expected = format!("{classes} or {} rows of {columns}", classes - 1);
            return Err(error::wrong_length("the Jacobian", expected, rows.len()));
        }
        let mut direction = vec![0.0; columns];
        for (row, c) in rows.chunks_exact(columns).zip(&self.coefficients) {
            direction.iter_mut().zip(row).for_each(|(sum, value)| *sum += c * value.to_f64());
        }
        Ok(direction)
    }
}

/// The coefficients times e^`log_scale`, and 0, where the largest of them stays in range. Otherwise
/// the coefficients scaled to a largest of one, and the logarithm of that scale.
fn natural(coefficients: Vec<f64>, log_scale: f64) -> (Vec<f64>, f64) {
    let largest = coefficients.iter().fold(0.0_f64, |largest, c| c.abs().max(largest));
    if largest == 0.0 {
        return (coefficients, 0.0);
    }
    let log_largest = log_scale + largest.ln();
    let rest = if log_largest.abs() < LARGEST_EXPONENT { 0.0 } else { log_largest };
    let factor = (log_largest - rest).exp();
    (coefficients.into_iter().map(|c| c / largest * factor).collect(), rest)
}
