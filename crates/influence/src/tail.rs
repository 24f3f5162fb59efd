//! The classes with which a sample is measured: all of them, or the likely ones and one merged
//! class for the rest (the tail).

use std::borrow::Cow;

use influence_autodiff::{Combinations, Rows};
use influence_manifold::{Error as MeasureError, Filter, SampleObjective, Tail, influence};

use crate::direction::Direction;
use crate::error::{Error, Result};
use crate::linearization::Linearization;
use crate::scorer::Scorer;

/// The merged classes of a score, and its lower bound:
/// [`ScorerBuilder::tail`](crate::ScorerBuilder::tail).
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct MergedTail {
    /// The number of classes that were merged.
    pub classes: usize,
    /// Their total probability.
    pub probability: f64,
    /// A lower bound of the influence over all classes, of which
    /// [`Score::value`](crate::Score::value) is an upper bound. It is computed along a few
    /// directions, among them the most influential one, by central differences of the logits. Only
    /// known for perturbations of the whole input.
    pub at_least: Option<f64>,
}

/// The logits of a sample, and the classes that are merged for its measure.
#[derive(Debug, Clone)]
pub(crate) struct Classes {
    sample: usize,
    logits: Vec<f64>,
    tail: Option<Tail>,
}

impl Classes {
    /// Merges the least likely classes up to a total probability of `epsilon`, if it is given.
    pub(crate) fn new(
        sample: usize,
        logits: Vec<f64>,
        objective: &SampleObjective,
        epsilon: Option<f64>,
    ) -> Result<Self> {
        let tail = epsilon.map(|epsilon| Tail::new(&logits, objective, epsilon)).transpose();
        let tail = tail.map_err(|source| Error::Measure { sample, source })?.flatten();
        Ok(Self { sample, logits, tail })
    }

    /// Which sample of the call, from 0.
    pub(crate) fn sample(&self) -> usize {
        self.sample
    }

    /// An error of the measure at this sample.
    pub(crate) fn fault(&self, source: MeasureError) -> Error {
        Error::Measure { sample: self.sample, source }
    }

    /// All K logits.
    pub(crate) fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// The merged classes, if there are any.
    pub(crate) fn tail(&self) -> Option<&Tail> {
        self.tail.as_ref()
    }

    /// The logits that are measured: all, or those of the kept classes and the merged one.
    pub(crate) fn measured(&self) -> &[f64] {
        self.tail.as_ref().map_or(&self.logits, Tail::logits)
    }

    /// The objective in the numbering of the measured classes.
    pub(crate) fn objective<'o>(&self, objective: &'o SampleObjective) -> Result<Cow<'o, SampleObjective>> {
        match &self.tail {
            Some(tail) => tail.objective(objective).map_err(|source| self.fault(source)),
            None => Ok(Cow::Borrowed(objective)),
        }
    }

    /// The combinations of the logits that have to be pulled back.
    pub(crate) fn combinations(&self) -> Combinations {
        match &self.tail {
            Some(tail) => Combinations::Rows(tail.combinations()),
            None => Combinations::Differences,
        }
    }

    /// Converts a combination of the measured logits into one of all K logits.
    pub(crate) fn spread(&self, combination: Vec<f64>) -> Result<Vec<f64>> {
        match &self.tail {
            Some(tail) => tail.spread(&combination).map_err(|source| self.fault(source)),
            None => Ok(combination),
        }
    }

    /// The tail as a score reports it.
    pub(crate) fn merged(&self) -> Option<MergedTail> {
        self.tail.as_ref().map(|tail| MergedTail {
            classes: tail.merged().len(),
            probability: tail.probability(),
            at_least: None,
        })
    }
}

/// Step of the central differences in single precision, as the largest change of a measured logit.
/// Rounding of the logits (about 1e-6 of 10) is then of the order of 1e-4 of the difference, while
/// kinks inside the step contribute little. A smaller step loses digits to rounding, a larger one
/// is off by curvature. The actual error is measured on the kept classes.
const STEP_F32: f64 = 0.03;

/// Step in double precision, likewise the largest change of a measured logit: rounding (about 1e-15
/// of 10) is then of the order of 1e-10 of the difference.
const STEP_F64: f64 = 1e-5;

/// Damping of the directions that are tried for a lower bound, relative to the largest eigenvalue
/// of the merged metric. The undamped direction is the best one for the merged metric. But its
/// Fisher length there may be small while it moves the classes inside the tail, which makes its
/// lower bound poor; damped directions avoid that.
const DAMPING: [f64; 3] = [0.0, 1e-3, 1e-1];

/// A direction of Euclidean length 1, and the velocities of the measured logits along it.
struct Tried {
    direction: Direction,
    velocity: Vec<f64>,
    /// Step of the central difference along it.
    step: f64,
}

impl Linearization<'_> {
    /// The lower bound of [`MergedTail`] for this sample, or `None` if no classes are merged: the
    /// largest over a few directions, at two forward passes per direction.
    pub(crate) fn at_least(
        &self,
        sample: &[f64],
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Option<f64>> {
        let Some(tail) = self.classes().tail() else { return Ok(None) };
        let fault = |source| self.classes().fault(source);
        let lambda = if let Filter::Tikhonov { lambda } = filter { *lambda } else { 0.0 };
        let seen = self.classes().objective(objective)?;
        let found = influence(self.classes().measured(), self.tangent(), &seen, filter).map_err(fault)?;
        // Directions to try: the most influential one, and damped ones. Each is scaled such that
        // the fastest measured logit moves by the step.
        let mut tried = Vec::new();
        for damping in DAMPING {
            let more = lambda + damping * found.spectrum.first().copied().unwrap_or(0.0);
            let damped = if damping == 0.0 { *filter } else { Filter::tikhonov(more).map_err(fault)? };
            let direction = self.direction(objective, &damped)?;
            let velocity = self.velocity(&direction.values);
            let fastest = velocity.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
            // Along it the measured logits do not move, so there is no bound.
            if fastest == 0.0 {
                return Ok(None);
            }
            let most = if matches!(self.rows(), Rows::F64(_)) { STEP_F64 } else { STEP_F32 };
            tried.push(Tried { direction, velocity, step: most / fastest });
        }
        // z_T moves by the mean of the merged logits' velocities, weighted by their share P_j / P_T
        // of the tail.
        let shares = tail.spread(&last_unit(tail.logits().len())).map_err(fault)?;
        let mut best = None;
        for (Tried { velocity, .. }, moved) in tried.iter().zip(self.scorer().differences(sample, &tried)?) {
            let merged: Vec<f64> = tail.merged().iter().map(|&k| moved[k]).collect();
            // The Jacobian gives the exact velocities z_k - z_T of the kept classes. The largest
            // deviation of the central difference from these is taken as its error for the merged
            // classes too.
            let mean: f64 = moved.iter().zip(&shares).map(|(v, share)| v * share).sum();
            let off = |(&k, v): (&usize, &f64)| (moved[k] - mean - v).abs();
            let error = tail.kept().iter().zip(velocity).map(off).fold(0.0, f64::max);
            let kept = &velocity[..tail.kept().len()];
            let log = tail.log_at_least(objective, kept, &merged, error, lambda).map_err(fault)?;
            best = log.map(f64::exp).into_iter().chain(best).reduce(f64::max);
        }
        Ok(best)
    }
}

/// The last of `size` unit vectors.
fn last_unit(size: usize) -> Vec<f64> {
    (0..size).map(|k| f64::from(u8::from(k + 1 == size))).collect()
}

impl Scorer {
    /// The velocities of all logits at a sample along each direction d: (z(x + t d) - z(x - t d)) /
    /// 2t.
    fn differences(&self, sample: &[f64], tried: &[Tried]) -> Result<Vec<Vec<f64>>> {
        let moved = |of: &Tried, step: f64| {
            let along = sample.iter().zip(&of.direction.values);
            along.map(|(x, d)| x + step * d).collect::<Vec<f64>>()
        };
        let both = |of: &Tried| [moved(of, of.step), moved(of, -of.step)].concat();
        let samples: Vec<f64> = tried.iter().flat_map(both).collect();
        let logits = self.logits(self.batch_of(samples, 2 * tried.len()))?;
        let difference = |(pair, of): (&[Vec<f64>], &Tried)| {
            pair[0].iter().zip(&pair[1]).map(|(ahead, behind)| (ahead - behind) / (2.0 * of.step)).collect()
        };
        Ok(logits.chunks_exact(2).zip(tried).map(difference).collect())
    }
}
