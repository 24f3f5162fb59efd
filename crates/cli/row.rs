//! One row of the result files: the fixed columns, in their fixed order.

use influence::Score;
use serde::Serialize;

/// The columns; scripts depend on their names and order. New ones are added at the end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The image's number in the split, from 0.
    pub(crate) index: usize,
    pub(crate) label: usize,
    pub(crate) predicted: usize,
    /// Of the objective's class, the predicted one for entropy and margin.
    pub(crate) probability: f64,
    pub(crate) objective: String,
    pub(crate) perturbation: String,
    /// The layer, tensor, window or family; empty for the whole input.
    pub(crate) group: String,
    /// Empty beyond f64.
    pub(crate) influence: Option<f64>,
    /// Empty for influence 0.
    pub(crate) log10_influence: Option<f64>,
    pub(crate) rank: usize,
    /// Empty beyond f64, as every quantity behind it.
    pub(crate) bound: Option<f64>,
    pub(crate) reach: Option<f64>,
    pub(crate) jacobian_norm: Option<f64>,
    pub(crate) odds: Option<f64>,
    pub(crate) entropy: Option<f64>,
    pub(crate) margin: Option<f64>,
    pub(crate) cross_entropy: Option<f64>,
    pub(crate) ambiguous: bool,
    pub(crate) fisher_norm: Option<f64>,
    pub(crate) fisher_trace: Option<f64>,
    /// Of a family: the most influential setting of its knobs.
    pub(crate) direction: String,
    /// Whether the influence is its bound; for the summary, not a column.
    #[serde(skip)]
    pub(crate) saturated: bool,
}

impl Row {
    /// Of an image with its label; in words the objective, the perturbation and the group.
    pub(crate) fn new(
        index: usize,
        label: usize,
        (objective, perturbation, group): (String, String, String),
        score: &Score,
    ) -> Self {
        let finite = |value: f64| value.is_finite().then_some(value);
        let baselines = &score.baselines;
        Self {
            index,
            label,
            predicted: score.predicted,
            probability: score.probability,
            objective,
            perturbation,
            group,
            influence: finite(score.value),
            log10_influence: score.log10,
            rank: score.rank,
            bound: finite(score.bound),
            reach: finite(score.reach),
            jacobian_norm: baselines.jacobian_norm.and_then(finite),
            odds: finite(baselines.odds),
            entropy: finite(baselines.entropy),
            margin: finite(baselines.margin),
            cross_entropy: finite(baselines.cross_entropy),
            ambiguous: score.ambiguous,
            fisher_norm: baselines.fisher_norm.and_then(finite),
            fisher_trace: baselines.fisher_trace.and_then(finite),
            direction: String::new(),
            saturated: score.is_saturated(),
        }
    }
}
