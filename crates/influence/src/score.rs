//! The result for one sample.

use std::sync::Arc;

use influence_manifold::{Baselines, Filter, Influence, Probabilities, SampleObjective, Tangent, measure};

use crate::error::Result;
use crate::tail::{Classes, MergedTail};

/// The influence of one sample's perturbation, with what is needed to interpret it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Score {
    /// Which sample of the call, from 0.
    pub sample: usize,
    /// The objective of the sample: "class:3", "entropy", or the name of the function.
    pub objective: Arc<str>,
    /// The influence FI: the largest squared change of the objective per unit of squared Fisher
    /// length. Infinite where it overflows f64; `log10` holds it there too.
    pub value: f64,
    /// Its decimal logarithm; `None` when the influence is 0.
    pub log10: Option<f64>,
    /// The number of directions in which the perturbation moves the distribution, at most K - 1.
    pub rank: usize,
    /// The largest value that any perturbation could have for this sample: (1 - P) / P for the
    /// negative log-probability of a class. Infinite for an objective that is not a function of the
    /// probabilities, because it has no bound.
    pub bound: f64,
    /// `value / bound`: at 1 the value depends only on the probabilities. Only [`Filter::Paper`]
    /// can exceed 1.
    pub reach: f64,
    /// The part of |df|^2 along directions that change the objective and leave the distribution
    /// unchanged: exactly 0 for every function of the probabilities. Where it is not 0 the measure
    /// is unbounded, and `value` covers the rest of df; see [`Score::is_unbounded`].
    pub outside: f64,
    /// Whether the rank was a close decision or digits were lost: a slightly different tolerance
    /// might give another value.
    pub ambiguous: bool,
    /// The class that the objective names, or else the predicted class.
    pub class: usize,
    /// The probability of that class.
    pub probability: f64,
    /// The class that the network predicts.
    pub predicted: usize,
    /// The classical measures, for comparison. Those of the Jacobian are `None` where it was not
    /// computed: for an exact score of parameters that is known to be saturated.
    pub baselines: Baselines,
    /// The classes that were merged into one, if
    /// [`ScorerBuilder::tail`](crate::ScorerBuilder::tail) is set and any were. The value is then
    /// an upper bound.
    pub tail: Option<MergedTail>,
    /// The layer, tensor, group, family, window or region whose perturbation this is, as
    /// [`Scorer::groups`](crate::Scorer::groups) names it; empty for the whole input, the whole
    /// network, or both.
    pub group: Arc<str>,
    /// The most influential setting of a family of image transformations, under the filter of the
    /// score; `None` for other perturbations.
    pub setting: Option<Setting>,
    /// Which engine computed it.
    pub engine: Arc<str>,
}

/// The most influential setting of a family: one knob for each member, scaled to Fisher length 1 to
/// first order. [`Basis::describe`](crate::Basis::describe) puts it into words.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// `[q]`: the knob of each member of the family, in the order and the units of
    /// [`Basis::members`](crate::Basis::members). All zero where no setting moves the distribution.
    pub knobs: Vec<f64>,
    /// 0 unless the setting exceeds the range of f64, e.g. where all probabilities but one
    /// underflow. Then the setting is `knobs` times 10 to this power, and the largest of `knobs` is
    /// 1 or -1.
    pub log10: f64,
}

/// A reach within this distance of 1 counts as saturated: above the noise of f32 runs and far below
/// any real difference.
const SATURATED: f64 = 1e-6;

/// Whether a value with this reach equals its bound. It then depends only on the probabilities.
#[must_use]
pub fn is_saturated(reach: f64) -> bool {
    (reach - 1.0).abs() <= SATURATED
}

impl Score {
    /// Whether the value equals its bound. It then depends only on the probabilities.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        is_saturated(self.reach)
    }

    /// Whether some perturbations change the objective but not the distribution, so that the
    /// measure is infinite.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.outside > 0.0
    }

    /// The score of one sample from its logits and tangent, and the influence that it was made
    /// from.
    pub(crate) fn new(
        classes: &Classes,
        tangent: &Tangent,
        objective: &SampleObjective,
        filter: &Filter,
        engine: &Arc<str>,
    ) -> Result<(Self, Influence)> {
        let fault = |source| classes.fault(source);
        let probabilities = Probabilities::new(classes.logits()).map_err(fault)?;
        let class = objective.class_of(&probabilities).map_err(fault)?;
        let measured = classes.objective(objective)?;
        let (found, mut baselines) =
            measure(classes.measured(), tangent, &measured, filter).map_err(fault)?;
        if classes.tail().is_some() {
            // Entropy and margin are computed from all classes. The metric of all classes is not
            // known, only that of the merged classes.
            baselines.entropy = probabilities.entropy();
            baselines.margin = probabilities.margin(class).map_err(fault)?;
            (baselines.fisher_norm, baselines.fisher_trace) = (None, None);
        }
        let Influence { value, log10, rank, bound, reach, outside, ambiguous, .. } = found;
        let score = Self {
            sample: classes.sample(),
            objective: objective.to_string().into(),
            value,
            log10,
            rank,
            bound,
            reach,
            outside,
            ambiguous,
            class,
            probability: probabilities.of(class).map_err(fault)?,
            predicted: probabilities.predicted(),
            baselines,
            tail: classes.merged(),
            group: "".into(),
            setting: None,
            engine: Arc::clone(engine),
        };
        Ok((score, found))
    }

    /// Adds the lower bound of the value over all classes.
    pub(crate) fn at_least(mut self, bound: Option<f64>) -> Self {
        if let Some(tail) = &mut self.tail {
            // Rounding may put it above the upper bound.
            tail.at_least = bound.map(|bound| bound.min(self.value));
        }
        self
    }

    /// This score under the name of a group.
    pub(crate) fn of_group(self, group: &Arc<str>) -> Self {
        Self { group: Arc::clone(group), ..self }
    }

    /// Makes this the score of a perturbation that moves the logits in all K - 1 directions: the
    /// value is the bound, and the baselines of the Jacobian are those of `of`, if they are known.
    pub(crate) fn at_its_bound(mut self, of: Option<Baselines>) -> Self {
        (self.value, self.reach) = (self.bound, if self.log10.is_some() { 1.0 } else { 0.0 });
        self.baselines.jacobian_norm = of.and_then(|of| of.jacobian_norm);
        self.baselines.fisher_norm = of.and_then(|of| of.fisher_norm);
        self.baselines.fisher_trace = of.and_then(|of| of.fisher_trace);
        self
    }
}
