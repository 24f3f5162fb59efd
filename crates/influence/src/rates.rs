//! How fast the objective and the distribution move along a direction.

use std::f64::consts::LN_10;

use influence_manifold::{Probabilities, SampleObjective};

use crate::error::Result;
use crate::tail::Classes;

/// Rates of change along a direction h, per unit of its Euclidean length, with their logarithms,
/// because probabilities of confident samples leave the range of f64. For the exact filter,
/// slope^2 / fisher^2 along the most influential direction is the influence.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// df . h: change of the objective, in its units; 0 on underflow of f64.
    pub slope: f64,
    /// log10 of the size of the slope, also where `slope` underflows; `None` where it is 0.
    pub log10_slope: Option<f64>,
    /// Fisher length; 0 on underflow of f64.
    pub fisher: f64,
    /// log10 of the Fisher length, also where `fisher` underflows; `None` where the direction does
    /// not move the distribution.
    pub log10_fisher: Option<f64>,
}

impl Rates {
    /// The rates where the measured logits move by `velocity`, one value for each of them, per unit
    /// of length.
    pub(crate) fn new(classes: &Classes, objective: &SampleObjective, velocity: &[f64]) -> Result<Self> {
        let fault = |source| classes.fault(source);
        let probabilities = Probabilities::new(classes.measured()).map_err(fault)?;
        let slope = objective.log_slope(&probabilities, velocity).map_err(fault)?;
        let fisher = probabilities.log_fisher_length(velocity).map_err(fault)?;
        Ok(Self {
            slope: slope.map_or(0.0, |(sign, log)| sign * log.exp()),
            log10_slope: slope.map(|(_, log)| log / LN_10),
            fisher: fisher.map_or(0.0, f64::exp),
            log10_fisher: fisher.map(|log| log / LN_10),
        })
    }
}
