//! One row of the result files: the fixed columns in their fixed order.

use influence::{Score, is_saturated};
use serde::{Deserialize, Serialize};

use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};

/// The knob of one member of a family, in the member's unit. User-defined directions have no unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KnobSetting {
    pub(crate) name: String,
    /// Empty beyond f64, which JSON cannot hold.
    pub(crate) value: Option<f64>,
    pub(crate) unit: String,
}

impl KnobSetting {
    /// The setting of a family: a knob for each member.
    pub(crate) fn all(members: &[(String, String)], values: &[f64]) -> Vec<Self> {
        let one = |((name, unit), value): (&(String, String), &f64)| Self {
            name: name.clone(),
            value: value.is_finite().then_some(*value),
            unit: unit.clone(),
        };
        members.iter().zip(values).map(one).collect()
    }
}

/// The score of one image and group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScoreRow {
    /// The image's index in the split, from 0.
    pub(crate) index: usize,
    /// Empty for samples without labels.
    pub(crate) label: Option<usize>,
    pub(crate) predicted: usize,
    /// Probability of the objective's class, of the predicted class for entropy and margin.
    pub(crate) probability: f64,
    pub(crate) objective: String,
    pub(crate) perturbation: String,
    /// The layer, tensor, window or family; empty for the whole input.
    pub(crate) group: String,
    /// Empty beyond f64.
    pub(crate) influence: Option<f64>,
    /// Empty if the influence is 0.
    pub(crate) log10_influence: Option<f64>,
    pub(crate) rank: usize,
    /// Empty beyond f64, like all following quantities.
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
    /// The most influential setting of a family, a knob for each member.
    pub(crate) direction: Option<Vec<KnobSetting>>,
    /// If classes are merged: a lower bound of the influence over all classes, the number of merged
    /// classes, and their total probability.
    pub(crate) at_least: Option<f64>,
    pub(crate) merged_classes: Option<usize>,
    pub(crate) merged_probability: Option<f64>,
    /// Whether the influence equals its bound; for the summary, not a column.
    pub(crate) saturated: bool,
}

impl ScoreRow {
    /// The row of an image with its label; objective, perturbation and group are given as text.
    pub(crate) fn new(
        index: usize,
        label: Option<usize>,
        (objective, perturbation, group): (String, String, String),
        score: &Score,
    ) -> Self {
        // Infinite and undefined values become empty cells: JSON has no such numbers, and the
        // logarithm in its own column stays finite where the influence itself overflows.
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
            direction: None,
            at_least: score.tail.and_then(|tail| tail.at_least).and_then(finite),
            merged_classes: score.tail.map(|tail| tail.classes),
            merged_probability: score.tail.map(|tail| tail.probability),
            saturated: score.is_saturated(),
        }
    }
}

impl ScoreRow {
    /// Reads [`Record::cells`] back.
    pub(crate) fn read(cells: &[CellValue]) -> Option<Self> {
        let integer = |at: usize| match cells.get(at) {
            Some(CellValue::Integer(value)) => usize::try_from(*value).ok(),
            _ => None,
        };
        let float = |at: usize| match cells.get(at) {
            Some(CellValue::Float(value)) => Some(*value),
            _ => None,
        };
        let text = |at: usize| match cells.get(at) {
            Some(CellValue::Text(text)) => Some(text.clone()),
            _ => None,
        };
        // The indices are the positions in `COLUMNS`. An empty cell reads as `None`; only columns
        // that are never empty are required.
        let reach = float(11);
        Some(Self {
            index: integer(0)?,
            label: integer(1),
            predicted: integer(2)?,
            probability: float(3)?,
            objective: text(4)?,
            perturbation: text(5)?,
            group: text(6)?,
            influence: float(7),
            log10_influence: float(8),
            rank: integer(9)?,
            bound: float(10),
            reach,
            jacobian_norm: float(12),
            odds: float(13),
            entropy: float(14),
            margin: float(15),
            cross_entropy: float(16),
            ambiguous: cells.get(17) == Some(&CellValue::Flag(true)),
            fisher_norm: float(18),
            fisher_trace: float(19),
            direction: match cells.get(20) {
                Some(CellValue::Json(text)) => serde_json::from_str(text).ok(),
                _ => None,
            },
            at_least: float(21),
            merged_classes: integer(22),
            merged_probability: float(23),
            saturated: reach.is_some_and(is_saturated),
        })
    }

    /// Whether the prediction is the label; true without a label.
    pub(crate) fn is_as_labelled(&self) -> bool {
        self.label.is_none_or(|label| label == self.predicted)
    }
}

impl Record for ScoreRow {
    const COLUMNS: &'static [ColumnSpec] = &[
        ("index", ColumnKind::Integer),
        ("label", ColumnKind::Integer),
        ("predicted", ColumnKind::Integer),
        ("probability", ColumnKind::Float),
        ("objective", ColumnKind::Text),
        ("perturbation", ColumnKind::Text),
        ("group", ColumnKind::Text),
        ("influence", ColumnKind::Float),
        ("log10_influence", ColumnKind::Float),
        ("rank", ColumnKind::Integer),
        ("bound", ColumnKind::Float),
        ("reach", ColumnKind::Float),
        ("jacobian_norm", ColumnKind::Float),
        ("odds", ColumnKind::Float),
        ("entropy", ColumnKind::Float),
        ("margin", ColumnKind::Float),
        ("cross_entropy", ColumnKind::Float),
        ("ambiguous", ColumnKind::Flag),
        ("fisher_norm", ColumnKind::Float),
        ("fisher_trace", ColumnKind::Float),
        ("direction", ColumnKind::Json),
        ("at_least", ColumnKind::Float),
        ("merged_classes", ColumnKind::Integer),
        ("merged_probability", ColumnKind::Float),
    ];

    fn cells(&self) -> Vec<CellValue> {
        vec![
            self.index.into(),
            self.label.into(),
            self.predicted.into(),
            self.probability.into(),
            (&self.objective).into(),
            (&self.perturbation).into(),
            (&self.group).into(),
            self.influence.into(),
            self.log10_influence.into(),
            self.rank.into(),
            self.bound.into(),
            self.reach.into(),
            self.jacobian_norm.into(),
            self.odds.into(),
            self.entropy.into(),
            self.margin.into(),
            self.cross_entropy.into(),
            self.ambiguous.into(),
            self.fisher_norm.into(),
            self.fisher_trace.into(),
            self.direction.as_ref().map_or(CellValue::Nothing, CellValue::json),
            self.at_least.into(),
            self.merged_classes.into(),
            self.merged_probability.into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_beyond_f64_are_read_back() {
        let members = ["right", "down"].map(|name| (name.to_owned(), "pixels".to_owned()));
        let settings = KnobSetting::all(&members, &[f64::INFINITY, -0.25]);
        let text = serde_json::to_string(&settings).expect("settings are JSON");
        let read: Vec<KnobSetting> = serde_json::from_str(&text).expect("they are read");
        assert_eq!(read, settings);
        assert_eq!(read.iter().map(|setting| setting.value).collect::<Vec<_>>(), [None, Some(-0.25)]);
    }
}
