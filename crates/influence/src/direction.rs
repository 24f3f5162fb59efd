//! Which way a sample is sensitive: the perturbation along which the objective changes most per unit of Fisher length, and how far the
//! first order holds along it.

use burn::tensor::TensorData;
use influence_autodiff::{Precision, Rows};
use influence_manifold::{Filter, Objective, Probabilities, Scalar, influence};

use crate::error::Result;
use crate::scorer::{Linearization, Scorer};
use crate::value::value;

/// A direction of perturbations of one sample, of Euclidean length 1.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Direction {
    /// The direction, as the sample's elements; all zero where nothing moves the distribution.
    pub values: Vec<f64>,
    /// df . values: change of the objective per unit of Euclidean length.
    pub slope: f64,
    /// Fisher length per unit of Euclidean length. For the exact filter, slope^2 / fisher^2 is the influence.
    pub fisher: f64,
}

/// What happens a step along a direction.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Euclidean length of the step.
    pub length: f64,
    /// Fisher length of the step in the first order.
    pub fisher: f64,
    /// Change of the objective that the first order predicts.
    pub predicted: f64,
    /// Change of the objective that the network shows.
    pub found: f64,
    /// The class that the network predicts there.
    pub class: usize,
}

impl Linearization<'_> {
    /// The most influential direction G^+ df, or its damped form, scaled to Euclidean length 1.
    ///
    /// # Errors
    /// [`Error::Measure`](crate::Error::Measure) as [`Linearization::score_for`], and for an objective that is no function of the
    /// probabilities.
    pub fn direction(&self, objective: &Objective, filter: &Filter) -> Result<Direction> {
        let found = influence(self.logits(), self.tangent(), objective, filter);
        let found = found.map_err(|source| self.fault(source))?;
        let columns = self.shape().iter().product();
        let values = match self.rows() {
            Rows::F32(rows) => found.direction(rows, columns),
            Rows::F64(rows) => found.direction(rows, columns),
            other => unreachable!("rows in a precision that no plan has: {other:?}"),
        };
        let mut values = values.map_err(|source| self.fault(source))?;
        let largest = values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        if largest > 0.0 {
            let norm = values.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt();
            values.iter_mut().for_each(|x| *x = *x / largest / norm);
        }
        let gradient = self.gradient(objective)?;
        let slope = gradient.iter().zip(&values).map(|(d, x)| d * x).sum();
        let velocity = self.velocity(&values);
        let probabilities = Probabilities::new(self.logits()).map_err(|source| self.fault(source))?;
        Ok(Direction { values, slope, fisher: fisher_length(&probabilities, &velocity) })
    }

    /// J h, of the differences z_k - z_K, the last being zero.
    fn velocity(&self, h: &[f64]) -> Vec<f64> {
        let mut velocity = match self.rows() {
            Rows::F32(rows) => products(rows, h),
            Rows::F64(rows) => products(rows, h),
            other => unreachable!("rows in a precision that no plan has: {other:?}"),
        };
        velocity.push(0.0);
        velocity
    }
}

fn products<T: Scalar>(rows: &[T], h: &[f64]) -> Vec<f64> {
    rows.chunks_exact(h.len()).map(|row| row.iter().zip(h).map(|(x, h)| x.to_f64() * h).sum()).collect()
}

/// sqrt(v^T (diag P - P P^T) v): how fast the distribution moves where the logits move by v.
pub(crate) fn fisher_length(probabilities: &Probabilities, velocity: &[f64]) -> f64 {
    let (values, top) = (probabilities.values(), probabilities.predicted());
    let above = || velocity.iter().map(|v| v - velocity[top]).zip(&values);
    let mean: f64 = above().map(|(v, p)| p * v).sum();
    above().map(|(v, p)| p * (v - mean).powi(2)).sum::<f64>().sqrt()
}

impl Scorer {
    /// Takes steps of these Euclidean lengths from `sample` along `direction`, and compares the change of the objective with the first
    /// order. A measure of first order is honest only where the two agree.
    ///
    /// # Errors
    /// [`Error::NoValue`](crate::Error::NoValue) for an objective that is known by its derivatives alone; as [`Scorer::logits`].
    pub fn along(
        &self,
        sample: &[f64],
        direction: &Direction,
        objective: &Objective,
        lengths: &[f64],
    ) -> Result<Vec<Step>> {
        let mut values = sample.to_vec();
        for length in lengths {
            values.extend(sample.iter().zip(&direction.values).map(|(x, d)| x + length * d));
        }
        let logits = self.logits(self.batch_of(values, lengths.len() + 1))?;
        let fault = |source| crate::Error::Measure { sample: 0, source };
        let at = logits.iter().map(|logits| Probabilities::new(logits).map_err(fault));
        let at: Vec<Probabilities> = at.collect::<Result<_>>()?;
        let Some((base, others)) = at.split_first() else { return Ok(Vec::new()) };
        let start = value(objective, base, base)?;
        let step = |(length, at): (&f64, &Probabilities)| {
            Ok(Step {
                length: *length,
                fisher: length.abs() * direction.fisher,
                predicted: length * direction.slope,
                found: value(objective, base, at)? - start,
                class: at.predicted(),
            })
        };
        lengths.iter().zip(others).map(step).collect()
    }

    /// Samples in a row as a batch in the precision of the run.
    fn batch_of(&self, values: Vec<f64>, count: usize) -> TensorData {
        let shape = [&[count], self.plan().graph().sample_shape().as_slice()].concat();
        match self.precision() {
            Precision::F64 => TensorData::new(values, shape),
            Precision::F32 => {
                TensorData::new(values.into_iter().map(|x| x as f32).collect::<Vec<_>>(), shape)
            }
        }
    }
}
