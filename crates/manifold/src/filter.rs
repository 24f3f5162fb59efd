//! Spectral filters phi on FI = sum_i phi_i (q_i . w)^2, where Gamma = sum_i gamma_i q_i q_i^T.
//!
//! * [`Filter::Exact`]: phi_i = 1 on the range of Gamma, decided on the unweighted Jacobian.
//! * [`Filter::Paper`]: the authors' numerics with their absolute epsilons.
//! * [`Filter::Tikhonov`]: phi_i = gamma_i / (gamma_i + lambda).
//!
//! Their text form is that of the command line:
//! `exact[:TOL]|paper[:EPS[:RANK_EPS]]|tikhonov:LAMBDA`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, SampleObjective};

/// The epsilon of the authors' code, which they use in columns, gradient and rank. For pixels in
/// 0..255; it is absolute, so that for pixels in 0..1 their cut on the rank becomes 0.255.
pub const PAPER_EPSILON: f64 = 1e-3;

/// Which directions of the spectrum count, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// FI = df^T G^+ df: the measure itself. Its rank is decided relative to the largest singular
    /// value of the centred Jacobian.
    Exact {
        /// Relative tolerance of the rank, in (0, 1); by default it follows from the precision of
        /// the tangent data.
        tolerance: Option<f64>,
    },
    /// The numerics of Shu & Zhu's own code, with absolute thresholds, for -log P objectives.
    Paper {
        /// Added to sqrt(P_k) in the columns and to P_y in the gradient.
        epsilon: f64,
        /// Singular values of the weighted tangent up to this value are dropped.
        rank_epsilon: f64,
    },
    /// FI = df^T (G + lambda I)^-1 df: a budget on the Euclidean size of the perturbation.
    Tikhonov {
        /// lambda, in units of squared Fisher length per squared unit of the perturbed quantity.
        lambda: f64,
    },
}

impl Default for Filter {
    fn default() -> Self {
        Self::Exact { tolerance: None }
    }
}

impl Filter {
    /// The measure itself with the default tolerance.
    pub const fn exact() -> Self {
        Self::Exact { tolerance: None }
    }

    /// The measure itself with a relative tolerance of the rank.
    ///
    /// # Errors
    ///
    /// A tolerance outside (0, 1).
    pub fn exact_within(tolerance: f64) -> Result<Self, Error> {
        Self::Exact { tolerance: Some(tolerance) }.validated()
    }

    /// The authors' numerics with an epsilon and a rank epsilon.
    ///
    /// # Errors
    ///
    /// An argument that is not positive and finite.
    pub fn paper(epsilon: f64, rank_epsilon: f64) -> Result<Self, Error> {
        Self::Paper { epsilon, rank_epsilon }.validated()
    }

    /// Damping by lambda, in units of squared Fisher length per squared unit of the perturbed
    /// quantity.
    ///
    /// # Errors
    ///
    /// A lambda that is not positive and finite.
    pub fn tikhonov(lambda: f64) -> Result<Self, Error> {
        Self::Tikhonov { lambda }.validated()
    }

    /// Checks that the filter is defined for the objective.
    ///
    /// # Errors
    ///
    /// [`Filter::Paper`] for anything but -log P of a class.
    pub fn check_objective(&self, objective: &SampleObjective) -> Result<(), Error> {
        if matches!(self, Self::Paper { .. }) && !objective.is_neg_log_probability() {
            return Err(Error::PaperObjective { objective: objective.to_string() });
        }
        Ok(())
    }

    /// The filter itself, if its arguments are in range.
    ///
    /// # Errors
    ///
    /// The first argument out of range.
    pub fn validated(self) -> Result<Self, Error> {
        match self {
            Self::Exact { tolerance: None } => {}
            Self::Exact { tolerance: Some(tolerance) } => {
                if !(tolerance > 0.0 && tolerance < 1.0) {
                    let range = "greater than 0 and less than 1, as a share of the largest singular value";
                    return Err(Error::FilterArgument { name: "tolerance", value: tolerance, range });
                }
            }
            Self::Paper { epsilon, rank_epsilon } => {
                check_positive("epsilon", epsilon)?;
                check_positive("rank_epsilon", rank_epsilon)?;
            }
            Self::Tikhonov { lambda } => check_positive("lambda", lambda)?,
        }
        Ok(self)
    }
}

/// Refuses all but positive finite numbers.
fn check_positive(name: &'static str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(Error::FilterArgument { name, value, range: "positive and finite" })
}

impl fmt::Display for Filter {
    /// The command line's text form, with all digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exact { tolerance: None } => formatter.write_str("exact"),
            Self::Exact { tolerance: Some(tolerance) } => write!(formatter, "exact:{}", Plain(tolerance)),
            Self::Paper { epsilon, rank_epsilon } if epsilon == rank_epsilon => {
                write!(formatter, "paper:{}", Plain(epsilon))
            }
            Self::Paper { epsilon, rank_epsilon } => {
                write!(formatter, "paper:{}:{}", Plain(epsilon), Plain(rank_epsilon))
            }
            Self::Tikhonov { lambda } => write!(formatter, "tikhonov:{}", Plain(lambda)),
        }
    }
}

/// Formats a number without exponent in 1e-2 .. 1e6 and with one elsewhere; it parses back to the
/// same bits.
struct Plain(f64);

impl fmt::Display for Plain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = self;
        if (1e-2..1e6).contains(value) {
            write!(formatter, "{value}")
        } else {
            write!(formatter, "{value:e}")
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    /// Reads `exact[:TOL]`, `paper[:EPS[:RANK_EPS]]` (1e-3 each; RANK_EPS defaults to EPS) or
    /// `tikhonov:LAMBDA`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |reason: String| Error::FilterSyntax { text: text.to_owned(), reason };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let arguments: Vec<f64> = parts.map(number).collect::<Result<_, _>>().map_err(fail)?;
        let filter = match (name, arguments.as_slice()) {
            ("exact", []) => Ok(Self::exact()),
            ("exact", [tolerance]) => Self::exact_within(*tolerance),
            ("paper", []) => Self::paper(PAPER_EPSILON, PAPER_EPSILON),
            ("paper", [epsilon]) => Self::paper(*epsilon, *epsilon),
            ("paper", [epsilon, rank_epsilon]) => Self::paper(*epsilon, *rank_epsilon),
            ("tikhonov", [lambda]) => Self::tikhonov(*lambda),
            ("tikhonov", []) => return Err(fail("tikhonov needs its lambda, as in tikhonov:1".to_owned())),
            ("exact" | "paper" | "tikhonov", _) => return Err(fail("too many arguments".to_owned())),
            _ => return Err(fail(format!("'{name}' is not a filter"))),
        };
        filter.map_err(|error| fail(error.to_string()))
    }
}

/// One number of the grammar.
fn number(text: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Err("an argument is missing after ':'".to_owned());
    }
    text.parse().map_err(|_| format!("'{text}' is not a number"))
}
