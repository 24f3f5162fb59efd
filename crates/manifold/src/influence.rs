//! The first-order influence measure FI = df^T G^+ df of one sample (Shu & Zhu 2019, arXiv 1901.07152, definition 2).
//!
//! It is the largest squared change of the objective f per unit of squared Fisher length of the perturbation, and lies
//! between 0 and its bound |w|^2, (1 - P_y) / P_y for f = -log P_y, which it meets whenever the Jacobian has rank K-1.
//!
//! A general f is split: the part of df in the row space of C J is that of a function of the logits and is measured as such;
//! along the rest, `outside`, f changes and the distribution does not, and no bound exists.

use crate::filters::{Outcome, exact::exact, paper::paper, tikhonov::tikhonov};
use crate::gradient::Gradient;
use crate::{Baselines, Error, Filter, Objective, Probabilities, Scalar, Tangent, error, spectrum};

/// Logarithms beyond this would take a coefficient out of the range of `f64`.
const LARGEST_EXPONENT: f64 = 690.0;

/// The influence of one sample, and what says how far to trust it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Influence {
    /// FI: never NaN; infinite above the range of `f64` and 0 below it, where `log10` still tells it.
    pub value: f64,
    /// log10 FI; nothing where FI is exactly 0.
    pub log10: Option<f64>,
    /// Number of directions that count: the rank of the centred Jacobian, or the singular values which
    /// [`Filter::Paper`] keeps.
    pub rank: usize,
    /// |w|^2, the exact measure at full rank: for -log P_y it is (1 - P_y) / P_y. Infinite for an objective that is no function
    /// of the probabilities, which has none.
    pub bound: f64,
    /// log10 of the bound, -infinity where it is 0.
    pub log10_bound: f64,
    /// FI / bound: in [0, 1] but for [`Filter::Paper`], which exceeds 1; 0 where the influence is, or where there is no bound.
    pub reach: f64,
    /// |df|^2 less its projection on the row space of C J: how much of the objective's gradient lies along directions that
    /// leave the distribution unchanged. Exactly 0 for functions of the probabilities, and where rounding alone could be what
    /// is left. Where it is not 0 the measure itself is unbounded: `value` is that of the part which the distribution sees, except
    /// for [`Filter::Tikhonov`], whose budget on omega bounds the whole, and which adds `outside` / lambda.
    pub outside: f64,
    /// Whether rounding or another tolerance near by could give another value.
    pub ambiguous: bool,
    /// Eigenvalues of the K x K matrix Gamma, unfiltered, descending, K of them.
    pub spectrum: Vec<f64>,
    /// c, K numbers that sum to zero: h = exp(`coefficients_log_scale`) J^T c is the most influential direction G^+ df
    /// (or its filtered form), along which f grows fastest per unit of Fisher length.
    ///
    /// Rows of the K-1 differences z_k - z_K do as well, with the first K-1 coefficients. What `outside` tells of is left out.
    pub coefficients: Vec<f64>,
    /// 0 unless a coefficient would leave the range of `f64`.
    pub coefficients_log_scale: f64,
}

/// The influence of the perturbations behind `tangent` on the objective, for one sample.
///
/// # Shapes
///
/// `logits`: `[K]`; `tangent` of K classes.
///
/// # Errors
///
/// Logits that are fewer than two, of another number than the tangent's classes, not finite or beyond all range; no such
/// class; a filter argument out of its range or finer than a Gram matrix carries; a decomposition that does not converge;
/// [`Filter::Paper`] for an objective other than -log P; costs, derivatives or a row of another number of classes or not finite; an
/// objective that changes with a common shift of the logits beside K-1 rows of differences.
pub fn influence(
    logits: &[f64],
    tangent: &Tangent,
    objective: &Objective,
    filter: &Filter,
) -> Result<Influence, Error> {
    let filter = checked(objective, filter)?;
    Sample::new(logits, tangent, objective)?.influence(filter)
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
    objective: &Objective,
    filter: &Filter,
) -> Result<(Influence, Baselines), Error> {
    let filter = checked(objective, filter)?;
    let sample = Sample::new(logits, tangent, objective)?;
    Ok((sample.influence(filter)?, sample.baselines()?))
}

/// The filter, if its arguments are in range and it is defined for the objective.
fn checked(objective: &Objective, filter: &Filter) -> Result<Filter, Error> {
    let filter = filter.validated()?;
    filter.check_objective(objective)?;
    Ok(filter)
}

/// One sample and one objective, and what every measure of them takes.
pub(crate) struct Sample<'a> {
    probabilities: Probabilities,
    tangent: &'a Tangent,
    objective: &'a Objective,
    gradient: Gradient,
    /// Eigenvalues of Gamma.
    spectrum: Vec<f64>,
}

impl<'a> Sample<'a> {
    pub(crate) fn new(logits: &[f64], tangent: &'a Tangent, objective: &'a Objective) -> Result<Self, Error> {
        let probabilities = probabilities_of(logits, tangent)?;
        let gradient = objective.gradient(&probabilities, tangent)?;
        let spectrum = spectrum::eigenvalues(&probabilities, tangent)?;
        Ok(Self { probabilities, tangent, objective, gradient, spectrum })
    }

    fn influence(&self, filter: Filter) -> Result<Influence, Error> {
        let Self { probabilities, tangent, objective, .. } = self;
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
        if let Filter::Tikhonov { lambda } = filter {
            outcome.add(log_outside - lambda.ln());
        }
        Ok(Influence::new(outcome, log_bound, log_outside, self.spectrum.clone()))
    }

    /// The classical measures, y being the class of the objective, the predicted one where it names
    /// none.
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

/// The relative tolerance of the rank that a filter names.
pub(crate) fn tolerance_of(filter: &Filter) -> Option<f64> {
    match filter {
        Filter::Exact { tolerance } => *tolerance,
        _ => None,
    }
}

/// The probabilities, if they are of as many classes as the tangent.
pub(crate) fn probabilities_of(logits: &[f64], tangent: &Tangent) -> Result<Probabilities, Error> {
    let (found, expected) = (logits.len(), tangent.classes());
    if found != expected {
        return Err(Error::ClassMismatch { what: "logits", found, expected });
    }
    Probabilities::new(logits)
}

impl Influence {
    /// Takes the logarithms off.
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

    /// J^T c, the most influential direction without its scale exp(`coefficients_log_scale`).
    ///
    /// # Shapes
    ///
    /// `rows`: [K, p] or [K-1, p], the rows which the tangent was made from; the result: `[p]`.
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

/// The coefficients times e^`log_scale` where all of them stay in range; else scaled to a largest of one, and the rest of the
/// logarithm.
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
