//! The result for one sample.

use std::sync::Arc;

use influence_manifold::{Baselines, Filter, Influence, Objective, Probabilities, Tangent, measure};

use crate::tail::{Classes, MergedTail};

/// The influence of one sample's perturbation, and what is needed to read it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// The influence FI: the largest squared change of the objective per unit of squared Fisher length. Infinite where it is beyond
    /// f64; `log10` still tells it.
    pub value: f64,
    /// Its decimal logarithm; `None` when the influence is 0.
    pub log10: Option<f64>,
    /// How many directions the perturbation moves the distribution in, at most K - 1.
    pub rank: usize,
    /// The largest value that any perturbation could have here: (1 - P) / P for the negative log-probability of a class. Infinite for an
    /// objective that is no function of the probabilities, which has none.
    pub bound: f64,
    /// `value / bound`: 1 means that the value says nothing that the probability does not say. Only [`Filter::Paper`] exceeds 1.
    pub reach: f64,
    /// How much of |df|^2 lies along directions that change the objective and leave the distribution as it is: exactly 0 for every
    /// function of the probabilities. Where it is not 0 the measure is unbounded, and `value` is that of the rest of df; see
    /// [`Score::is_unbounded`].
    pub outside: f64,
    /// Whether the decision on the rank was close, or digits were lost: another tolerance might give another value.
    pub ambiguous: bool,
    /// The class of the objective; the predicted one where it names none.
    pub class: usize,
    /// The probability of that class.
    pub probability: f64,
    /// The class that the network predicts.
    pub predicted: usize,
    /// The classical measures, for comparison. There are none of the Jacobian where it was not
    /// needed: an exact score of parameters that is known to be saturated.
    pub baselines: Baselines,
    /// The classes that are merged into one, where [`ScorerBuilder::tail`](crate::ScorerBuilder::tail) allows it and there are some. The
    /// value is an upper bound then.
    pub tail: Option<MergedTail>,
    /// The layer, tensor or group whose perturbation this is; empty for the whole input, the whole network, or both.
    pub group: Arc<str>,
    /// Which engine computed it.
    pub engine: Arc<str>,
}

/// How near to 1 a reach counts as saturated.
const SATURATED: f64 = 1e-6;

/// Whether a value with this reach equals its bound: then it is a function of the probabilities alone.
#[must_use]
pub fn is_saturated(reach: f64) -> bool {
    (reach - 1.0).abs() <= SATURATED
}

impl Score {
    /// Whether the value equals its bound: then it is a function of the probabilities alone.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        is_saturated(self.reach)
    }

    /// Whether perturbations exist that change the objective and not the distribution, so that no finite influence bounds them.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.outside > 0.0
    }

    /// The score of one sample from its logits and tangent.
    pub(crate) fn new(
        classes: &Classes,
        tangent: &Tangent,
        objective: &Objective,
        filter: &Filter,
        engine: &Arc<str>,
    ) -> Result<Self, influence_manifold::Error> {
        let probabilities = Probabilities::new(classes.logits())?;
        let class = objective.class_of(&probabilities)?;
        let measured = classes.objective(objective)?;
        let (found, mut baselines) = measure(classes.measured(), tangent, &measured, filter)?;
        if classes.tail().is_some() {
            // Those of the probabilities are known of all classes; the metric is known of the merged ones alone.
            (baselines.entropy, baselines.margin) = (probabilities.entropy(), probabilities.margin(class)?);
            (baselines.fisher_norm, baselines.fisher_trace) = (None, None);
        }
        let Influence { value, log10, rank, bound, reach, outside, ambiguous, .. } = found;
        Ok(Self {
            value,
            log10,
            rank,
            bound,
            reach,
            outside,
            ambiguous,
            class,
            probability: probabilities.of(class)?,
            predicted: probabilities.predicted(),
            baselines,
            tail: classes.merged(),
            group: "".into(),
            engine: Arc::clone(engine),
        })
    }

    /// With a lower bound of its value over all classes.
    pub(crate) fn at_least(mut self, bound: Option<f64>) -> Self {
        if let Some(tail) = &mut self.tail {
            // Rounding may put it above the upper one.
            tail.at_least = bound.map(|bound| bound.min(self.value));
        }
        self
    }

    /// Of a group.
    pub(crate) fn of_group(self, group: &Arc<str>) -> Self {
        Self { group: Arc::clone(group), ..self }
    }

    /// Of any perturbation that moves the logits in all K - 1 directions: the value is its bound,
    /// and what `of` says of the Jacobian holds, if it is known.
    pub(crate) fn at_its_bound(mut self, of: Option<Baselines>) -> Self {
        (self.value, self.reach) = (self.bound, if self.log10.is_some() { 1.0 } else { 0.0 });
        self.baselines.jacobian_norm = of.and_then(|of| of.jacobian_norm);
        self.baselines.fisher_norm = of.and_then(|of| of.fisher_norm);
        self.baselines.fisher_trace = of.and_then(|of| of.fisher_trace);
        self
    }
}
