//! A network's first-order behaviour at one sample: logits, Jacobian and metric, from which scores
//! come for any objective and filter.

use influence_autodiff::{Jacobian, Jacobians, Rows};
use influence_manifold::{Filter, Influence, SampleObjective, Tail, Tangent};

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
        let classes = Classes::new(sample, logits, objective, self.tail())?;
        let (count, columns) =
            (classes.measured().len(), self.plan().graph().sample_shape().iter().product());
        let tangent = match &rows {
            Rows::F64(rows) => Tangent::from_rows(rows, count, columns),
            Rows::F32(rows) => Tangent::from_rows(rows, count, columns),
        };
        let tangent = tangent.map_err(|source| classes.fault(source))?;
        Ok(Linearization { scorer: self, classes, tangent, rows })
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
    classes: Classes,
    rows: Rows,
    tangent: Tangent,
}

impl Linearization<'_> {
    /// Which sample of the call, from 0.
    #[must_use]
    pub fn sample(&self) -> usize {
        self.classes.sample()
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

    /// The score of this sample with another tangent, e.g. a family's, and the influence that it
    /// was made from.
    pub(crate) fn score_of(
        &self,
        tangent: &Tangent,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<(Score, Influence)> {
        if self.tail().is_some() && matches!(filter, Filter::Paper { .. }) {
            return Err(self.classes.fault(influence_manifold::Error::TailFilter));
        }
        Score::new(&self.classes, tangent, objective, filter, self.scorer.shared_engine())
    }

    /// The score of the whole sample for any objective under `filter`, which may differ from the
    /// scorer's own.
    ///
    /// # Errors
    /// [`Error::Measure`] where the measure is not defined, or not for this objective, or the
    /// filter's argument is out of range.
    pub fn score(&self, objective: &SampleObjective, filter: &Filter) -> Result<Score> {
        Ok(self.score_of(&self.tangent, objective, filter)?.0)
    }
}
