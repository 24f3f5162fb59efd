//! A network's first-order behaviour at one sample: logits, Jacobian and metric, from which scores
//! come for any objective and filter.

use std::borrow::Cow;

use influence_autodiff::{Jacobian, Jacobians, Rows};
use influence_manifold::{Filter, Objective as SampleObjective, Tail, Tangent};

use crate::error::{Error, Result};
use crate::score::Score;
use crate::scorer::Scorer;
use crate::tail::Classes;

impl Scorer {
    /// The metric of one sample, from the rows of its Jacobian.
    pub(crate) fn linearization(
        &self,
        jacobian: Jacobian,
        objective: &SampleObjective,
    ) -> Result<Linearization<'_>> {
        let Jacobian { sample, logits, rows } = jacobian;
        let fault = |source| Error::Measure { sample, source };
        let classes = Classes::new(logits, objective, self.tail()).map_err(fault)?;
        let (count, columns) =
            (classes.measured().len(), self.plan().graph().sample_shape().iter().product());
        let tangent = match &rows {
            Rows::F64(rows) => Tangent::from_rows(rows, count, columns),
            Rows::F32(rows) => Tangent::from_rows(rows, count, columns),
        };
        Ok(Linearization { scorer: self, sample, classes, tangent: tangent.map_err(fault)?, rows })
    }
}

/// The iterator of [`Scorer::linearize`].
#[derive(Debug)]
pub struct Linearizations<'a>(pub(crate) Jacobians<'a, Linearization<'a>, Error>);

impl<'a> Iterator for Linearizations<'a> {
    type Item = Result<Linearization<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The network's first-order behaviour at one sample.
#[derive(Debug, Clone)]
pub struct Linearization<'a> {
    scorer: &'a Scorer,
    sample: usize,
    classes: Classes,
    rows: Rows,
    tangent: Tangent,
}

impl Linearization<'_> {
    /// Which sample of the call, from 0.
    #[must_use]
    pub fn sample(&self) -> usize {
        self.sample
    }

    /// The logits `[K]`.
    #[must_use]
    pub fn logits(&self) -> &[f64] {
        self.classes.logits()
    }

    /// The merged classes, if there are any.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.classes.tail()
    }

    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    pub(crate) fn scorer(&self) -> &Scorer {
        self.scorer
    }

    /// An objective in the numbering of the measured classes.
    pub(crate) fn objective<'o>(&self, objective: &'o SampleObjective) -> Result<Cow<'o, SampleObjective>> {
        self.classes.objective(objective).map_err(|source| self.fault(source))
    }

    /// The metric of the measured classes, as `influence_manifold` takes it.
    #[must_use]
    pub fn tangent(&self) -> &Tangent {
        &self.tangent
    }

    /// The rows d(z_k - z_K) / dx of its Jacobian, where z_K is the last of the measured logits.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The shape of a sample.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.scorer.plan().graph().sample_shape()
    }

    /// The score of the same sample with another tangent, e.g. that of a family.
    pub(crate) fn score_of(
        &self,
        tangent: &Tangent,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Score> {
        if self.tail().is_some() && matches!(filter, Filter::Paper { .. }) {
            return Err(self.fault(influence_manifold::Error::TailFilter));
        }
        Score::new(&self.classes, tangent, objective, filter, self.scorer.shared_engine())
            .map_err(|source| self.fault(source))
    }

    /// An error of the measure at this sample.
    pub(crate) fn fault(&self, source: influence_manifold::Error) -> Error {
        Error::Measure { sample: self.sample, source }
    }

    /// The score for -log P of `class` (of the predicted class for `None`) under `filter`, which
    /// may differ from the scorer's own.
    ///
    /// # Errors
    /// [`Error::ClassOutOfRange`]; [`Error::Measure`] where the measure is not defined or the
    /// filter's argument is out of range.
    pub fn score(&self, class: Option<usize>, filter: &Filter) -> Result<Score> {
        let classes = self.logits().len();
        match class {
            Some(class) if class >= classes => {
                Err(Error::ClassOutOfRange { what: "the objective".into(), class, classes })
            }
            Some(class) => self.score_for(&SampleObjective::class(class), filter),
            None => self.score_for(&SampleObjective::Predicted, filter),
        }
    }

    /// The score for any objective of one sample under `filter`.
    ///
    /// # Errors
    /// [`Error::Measure`] where the measure is not defined, or not for this objective, or the
    /// filter's argument is out of range.
    pub fn score_for(&self, objective: &SampleObjective, filter: &Filter) -> Result<Score> {
        self.score_of(&self.tangent, objective, filter)
    }
}
