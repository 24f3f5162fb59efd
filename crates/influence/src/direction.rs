//! The direction in which a sample is most sensitive: the perturbation along which the objective
//! changes most per unit of Fisher length, and how far the first order holds along it.

use burn::tensor::TensorData;
use influence_autodiff::{Precision, Rows};
use influence_manifold::{Filter, Probabilities, SampleObjective, Scalar, influence};

use crate::error::{Error, Result};
use crate::linearization::Linearization;
use crate::rates::Rates;
use crate::samples::IntoSamples;
use crate::scorer::Scorer;

/// A direction of perturbations of one sample, of Euclidean length 1.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Direction {
    /// The direction, one value per element of the sample; all zero where no perturbation moves the
    /// distribution.
    pub values: Vec<f64>,
    /// How fast the objective and the distribution move along it.
    pub rates: Rates,
}

/// A step along a direction: predicted and actual change of the objective.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Euclidean length of the step.
    pub length: f64,
    /// Fisher length of the step, to first order.
    pub fisher: f64,
    /// Change of the objective that the first order predicts.
    pub predicted: f64,
    /// Change of the objective computed by the network.
    pub found: f64,
    /// The class that the network predicts after the step.
    pub class: usize,
}

impl Linearization<'_> {
    /// The most influential direction G^+ df, or its damped form, scaled to Euclidean length 1.
    ///
    /// # Errors
    /// [`Error::Measure`](crate::Error::Measure) as [`Linearization::score`], and for an
    /// objective that is not a function of the probabilities.
    pub fn direction(&self, objective: &SampleObjective, filter: &Filter) -> Result<Direction> {
        let classes = self.classes();
        let fault = |source| classes.fault(source);
        let objective = classes.objective(objective)?;
        let found = influence(classes.measured(), self.tangent(), &objective, filter).map_err(fault)?;
        let columns = self.shape().iter().product();
        let values = match self.rows() {
            Rows::F32(rows) => found.direction(rows, columns),
            Rows::F64(rows) => found.direction(rows, columns),
        };
        let mut values = values.map_err(fault)?;
        // Divided by the largest element first: squares of tiny elements would underflow.
        let largest = values.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        if largest > 0.0 {
            let norm = values.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt();
            values.iter_mut().for_each(|x| *x = *x / largest / norm);
        }
        let rates = Rates::new(classes, &objective, &self.velocity(&values))?;
        Ok(Direction { values, rates })
    }

    /// J h: the velocities of the differences z_k - z_K of the measured logits, K of them; the last
    /// is zero.
    pub(crate) fn velocity(&self, h: &[f64]) -> Vec<f64> {
        let mut velocity = match self.rows() {
            Rows::F32(rows) => products(rows, h),
            Rows::F64(rows) => products(rows, h),
        };
        velocity.push(0.0);
        velocity
    }
}

/// J h row by row, summed in f64.
fn products<T: Scalar>(rows: &[T], h: &[f64]) -> Vec<f64> {
    rows.chunks_exact(h.len()).map(|row| row.iter().zip(h).map(|(x, h)| x.to_f64() * h).sum()).collect()
}

impl Scorer {
    /// Takes steps of these Euclidean lengths from `sample`, a batch of one `[1, ...sample]`, along
    /// `direction`, and compares the change of the objective with the first-order prediction. A
    /// first-order measure describes the network only where the two agree.
    ///
    /// # Errors
    /// [`Error::SampleLength`] for a sample or a direction whose length is not that of the
    /// network's samples; [`Error::NoValue`] for an objective that is known only by its
    /// derivatives; [`Error::Measure`] for one that does not fit the network; as
    /// [`Scorer::logits`].
    pub fn along(
        &self,
        sample: impl IntoSamples,
        direction: &Direction,
        objective: &SampleObjective,
        lengths: &[f64],
    ) -> Result<Vec<Step>> {
        let sample: Vec<f64> = sample.into_samples()?.iter().collect();
        let expected: usize = self.plan().graph().sample_shape().iter().product();
        for (what, found) in [("the sample", sample.len()), ("the direction", direction.values.len())] {
            if found != expected {
                return Err(Error::SampleLength { what, found, expected });
            }
        }
        // One batch: the sample itself, then the sample after each step.
        let mut values = sample.clone();
        for length in lengths {
            values.extend(sample.iter().zip(&direction.values).map(|(x, d)| x + length * d));
        }
        let logits = self.logits(self.batch_of(values, lengths.len() + 1))?;
        let fault = |source| Error::Measure { sample: 0, source };
        let at = logits.iter().map(|logits| Probabilities::new(logits).map_err(fault));
        let at: Vec<Probabilities> = at.collect::<Result<_>>()?;
        let Some((base, others)) = at.split_first() else { return Ok(Vec::new()) };
        // `base` fixes the classes that the objective refers to, such as the predicted one, so that
        // the change is that of one function, even where the prediction changes along the way.
        let value = |at: &Probabilities| {
            let value = objective.value(base, at).map_err(fault)?;
            value.ok_or_else(|| Error::NoValue { objective: objective.to_string() })
        };
        let start = value(base)?;
        let step = |(length, at): (&f64, &Probabilities)| {
            Ok(Step {
                length: *length,
                fisher: length.abs() * direction.rates.fisher,
                predicted: length * direction.rates.slope,
                found: value(at)? - start,
                class: at.predicted(),
            })
        };
        lengths.iter().zip(others).map(step).collect()
    }

    /// Concatenated samples as a batch in the precision of the run.
    pub(crate) fn batch_of(&self, values: Vec<f64>, count: usize) -> TensorData {
        let shape = [&[count], self.plan().graph().sample_shape().as_slice()].concat();
        match self.precision() {
            Precision::F64 => TensorData::new(values, shape),
            Precision::F32 => {
                TensorData::new(values.into_iter().map(|x| x as f32).collect::<Vec<_>>(), shape)
            }
        }
    }
}
