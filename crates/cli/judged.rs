//! What is kept of each image in a study (`compare`, `outliers`), and the rows made from it.

use influence::{Probabilities, Score};

use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};
use crate::row::ScoreRow;

/// One image: its score under the filter of the run, with the values to compare it with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    pub(crate) row: ScoreRow,
    /// log10 of the influence under each filter; -infinity for 0.
    pub(crate) log10: Vec<f64>,
    /// ln P of each class.
    pub(crate) logs: Vec<f64>,
}

/// The columns of [`ScoreRow`] that are copied to the table.
const TAKEN: [&str; 17] = [
    "index",
    "label",
    "predicted",
    "probability",
    "influence",
    "log10_influence",
    "rank",
    "bound",
    "reach",
    "jacobian_norm",
    "odds",
    "entropy",
    "margin",
    "cross_entropy",
    "ambiguous",
    "fisher_norm",
    "fisher_trace",
];
/// The index at which the suggested label is inserted among them: after `predicted`.
const SUGGESTED: usize = 3;

/// A column of [`ScoreRow`] by name, with its index.
fn column(name: &str) -> Option<(usize, ColumnSpec)> {
    ScoreRow::COLUMNS.iter().enumerate().find(|(_, (own, _))| *own == name).map(|(at, column)| (at, *column))
}

impl Record for Judged {
    const COLUMNS: &'static [ColumnSpec] =
        &[("row", ColumnKind::Json), ("log10", ColumnKind::Json), ("logs", ColumnKind::Json)];

    fn cells(&self) -> Vec<CellValue> {
        let row: Vec<String> = self.row.cells().iter().map(CellValue::raw).collect();
        let log10: Vec<Option<f64>> = self.log10.iter().map(|x| x.is_finite().then_some(*x)).collect();
        vec![CellValue::json(&row), CellValue::json(&log10), CellValue::json(&self.logs)]
    }
}

impl Judged {
    /// `scores` has one score per filter. `None` if the logits have no probabilities.
    pub(crate) fn new(row: ScoreRow, scores: &[Score], logits: &[f64]) -> Option<Self> {
        let probabilities = Probabilities::new(logits).ok()?;
        Some(Self {
            row,
            log10: scores.iter().map(|score| score.log10.unwrap_or(f64::NEG_INFINITY)).collect(),
            logs: probabilities.logs().to_vec(),
        })
    }

    /// Reads [`Record::cells`] back.
    pub(crate) fn read(cells: &[CellValue]) -> Option<Self> {
        let [CellValue::Json(row), CellValue::Json(log10), CellValue::Json(logs)] = cells else {
            return None;
        };
        let texts: Vec<String> = serde_json::from_str(row).ok()?;
        let cells =
            texts.iter().zip(ScoreRow::COLUMNS).map(|(text, (_, kind))| CellValue::from_raw(text, *kind));
        let log10: Vec<Option<f64>> = serde_json::from_str(log10).ok()?;
        Some(Self {
            row: ScoreRow::read(&cells.collect::<Option<Vec<_>>>()?)?,
            log10: log10.into_iter().map(|x| x.unwrap_or(f64::NEG_INFINITY)).collect(),
            logs: serde_json::from_str(logs).ok()?,
        })
    }

    /// -ln P of the label, whatever the class of the objective.
    pub(crate) fn loss(&self) -> Option<f64> {
        self.logs.get(self.row.label?).map(|log| -log)
    }

    /// The predicted class, if it is not the label.
    pub(crate) fn suggested(&self) -> Option<usize> {
        (!self.row.is_as_labelled()).then_some(self.row.predicted)
    }

    /// The cells that both studies have, in the order of [`taken`].
    pub(crate) fn taken(&self) -> Vec<CellValue> {
        let own = self.row.cells();
        let cell = |name: &&str| column(name).and_then(|(at, _)| own.get(at)).cloned();
        TAKEN.iter().map(|name| cell(name).unwrap_or(CellValue::Nothing)).collect()
    }

    /// The cells of the table of outliers, in the order of [`columns`].
    pub(crate) fn table(&self, place: usize, bad: Option<bool>) -> Vec<CellValue> {
        let mut cells = self.taken();
        cells.insert(SUGGESTED, self.suggested().into());
        cells.extend([place.into(), bad.into()]);
        cells.extend(self.log10.iter().map(|log10| CellValue::from(*log10)));
        cells.extend(self.logs.iter().map(|log| CellValue::from(log.exp())));
        cells
    }
}

/// The columns that both studies have.
pub(crate) fn taken() -> Vec<ColumnSpec> {
    TAKEN.iter().filter_map(|name| column(name).map(|(_, column)| column)).collect()
}

/// The columns of the table of outliers, which depend on the filters and on the number of classes.
/// Column names must be `'static`, so they are leaked; this happens once per run.
pub(crate) fn columns(filters: &[String], classes: usize) -> &'static [ColumnSpec] {
    let mut columns = taken();
    columns.insert(SUGGESTED, ("suggested", ColumnKind::Integer));
    columns.extend([("place", ColumnKind::Integer), ("bad", ColumnKind::Flag)]);
    let float = |name: String| -> ColumnSpec { (name.leak(), ColumnKind::Float) };
    columns.extend(filters.iter().map(|filter| float(format!("log10_{filter}"))));
    columns.extend((0..classes).map(|class| float(format!("p{class}"))));
    columns.leak()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_back_and_the_table_has_a_cell_per_column() {
        let row = ScoreRow {
            index: 7,
            label: Some(3),
            predicted: 5,
            probability: 0.1 + 0.2,
            objective: "label".into(),
            perturbation: "input".into(),
            group: String::new(),
            influence: None,
            log10_influence: Some(400.25),
            rank: 9,
            bound: None,
            reach: Some(1.0),
            jacobian_norm: Some(1e-300),
            odds: None,
            entropy: Some(0.5),
            margin: Some(-3.0),
            cross_entropy: Some(921.0),
            ambiguous: true,
            fisher_norm: Some(2.0),
            fisher_trace: Some(3.0),
            direction: None,
            at_least: None,
            merged_classes: None,
            merged_probability: None,
            saturated: true,
        };
        let judged = Judged { row, log10: vec![400.25, f64::NEG_INFINITY], logs: vec![-1.5, 0.0] };
        assert_eq!(Judged::read(&judged.cells()).as_ref(), Some(&judged));
        let columns = columns(&["exact".into(), "tikhonov:1".into()], 2);
        let cells = judged.table(1, Some(false));
        assert_eq!(cells.len(), columns.len());
        let of = |name: &str| columns.iter().position(|(own, _)| *own == name).map(|at| cells[at].clone());
        assert_eq!(of("suggested"), Some(CellValue::Integer(5)));
        assert_eq!(
            (of("influence"), of("log10_exact")),
            (Some(CellValue::Nothing), Some(CellValue::Float(400.25)))
        );
        assert_eq!(
            (of("log10_tikhonov:1"), of("p1")),
            (Some(CellValue::Nothing), Some(CellValue::Float(1.0)))
        );
    }
}
