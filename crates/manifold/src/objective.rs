//! Objectives f(omega) = h(z(omega)), by their gradient dh in the logits.
//!
//! The measure needs dh alone, and every function of the probabilities has sum_k dh_k = 0. For h = -log P_y it is
//! dh = P - e_y, so w = dh / sqrt(P) has |w|^2 = (1 - P_y) / P_y. The entries of dh reach from 1 to below the smallest
//! `f64`, and are kept as logarithms with signs.

use std::fmt;

use crate::{Error, Probabilities};

/// The function of the output whose change is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Objective {
    /// f = -log P_class: the cross-entropy where the class is the label (Shu & Zhu 2019, section 3).
    NegLogProbability {
        /// The class, counted from 0.
        class: usize,
    },
    /// f = -log P of the class with the largest logit; the lowest index on ties.
    Predicted,
}

impl Objective {
    /// -log P of the class `class`.
    pub const fn class(class: usize) -> Self {
        Self::NegLogProbability { class }
    }

    /// The class whose probability the objective names.
    ///
    /// # Errors
    ///
    /// No such class among the logits.
    pub fn class_of(&self, probabilities: &Probabilities) -> Result<usize, Error> {
        match *self {
            Self::NegLogProbability { class } => probabilities.check_class(class).map(|()| class),
            Self::Predicted => Ok(probabilities.predicted()),
        }
    }

    /// dh and ln |w|^2 at these probabilities.
    pub(crate) fn gradient(&self, probabilities: &Probabilities) -> Result<LogitGradient, Error> {
        let class = self.class_of(probabilities)?;
        let mut log_abs = probabilities.logs().to_vec();
        let mut signs = vec![1.0; log_abs.len()];
        log_abs[class] = probabilities.log_complement(class)?;
        signs[class] = -1.0;
        Ok(LogitGradient { class, log_abs, signs, log_bound: probabilities.log_odds_against(class)? })
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NegLogProbability { class } => write!(formatter, "class:{class}"),
            Self::Predicted => formatter.write_str("predicted"),
        }
    }
}

/// dh, the gradient of the objective in the logits: dh_k = sign_k exp(log_abs_k), its sum zero.
#[derive(Debug, Clone)]
pub(crate) struct LogitGradient {
    /// y, for the filter that is defined by the class.
    pub(crate) class: usize,
    pub(crate) log_abs: Vec<f64>,
    pub(crate) signs: Vec<f64>,
    /// ln |w|^2 = ln sum_k dh_k^2 / P_k.
    pub(crate) log_bound: f64,
}
