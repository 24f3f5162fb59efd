//! Counts over the rows of a run, updated as they come.

use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};

use crate::record::{CellValue, Record};
use crate::row::ScoreRow;

/// Counts over all rows; a resumed run finds them in its journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) rows: usize,
    /// Rows with rank 0.
    pub(crate) still: usize,
    /// Rows whose prediction is not the label.
    pub(crate) wrong: usize,
    /// Rows above the bound of the exact measure.
    pub(crate) above: usize,
    pub(crate) ambiguous: usize,
    /// Rows with merged classes, whose value is an upper bound.
    pub(crate) merged: usize,
    /// The smallest ratio of a lower bound to its upper bound, over the rows that have both.
    pub(crate) loosest: Option<f64>,
}

impl Tally {
    pub(crate) fn add(&mut self, row: &ScoreRow) {
        self.rows += 1;
        self.still += usize::from(row.rank == 0);
        self.wrong += usize::from(!row.is_as_labelled());
        self.above += usize::from(!row.saturated && row.reach.is_some_and(|reach| reach > 1.0));
        self.ambiguous += usize::from(row.ambiguous);
        self.merged += usize::from(row.merged_classes.is_some());
        let share = row.at_least.zip(row.influence).map(|(least, most)| least / most);
        self.loosest = share.into_iter().chain(self.loosest).reduce(f64::min);
    }
}

/// The rows that a table shows: those with the largest values in one column.
#[derive(Debug)]
pub(crate) struct Top {
    /// The index of the column.
    column: usize,
    most: usize,
    /// The rows kept so far, the smallest on top.
    rows: BinaryHeap<Ranked>,
    seen: usize,
}

/// A row with its order: larger values first, equal ones in order of arrival.
#[derive(Debug)]
struct Ranked {
    value: f64,
    came: usize,
    row: ScoreRow,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.value.total_cmp(&self.value).then(self.came.cmp(&other.came))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}

impl Top {
    /// Keeps the `most` largest rows in the column with this name; `None` if there is no such
    /// column.
    pub(crate) fn new(column: &str, most: usize) -> Option<Self> {
        // Sort by the logarithm, which also distinguishes values beyond f64.
        let column = if column == "influence" { "log10_influence" } else { column };
        let column = ScoreRow::COLUMNS.iter().position(|(name, _)| *name == column)?;
        Some(Self { column, most, rows: BinaryHeap::new(), seen: 0 })
    }

    pub(crate) fn add(&mut self, row: &ScoreRow) {
        let value = match row.cells().swap_remove(self.column) {
            CellValue::Float(value) => value,
            CellValue::Integer(value) => value as f64,
            CellValue::Flag(value) => f64::from(u8::from(value)),
            CellValue::Text(_) | CellValue::Json(_) | CellValue::Nothing => f64::NEG_INFINITY,
        };
        self.rows.push(Ranked { value, came: self.seen, row: row.clone() });
        self.seen += 1;
        if self.rows.len() > self.most {
            self.rows.pop();
        }
    }

    /// The rows, largest first.
    pub(crate) fn rows(self) -> Vec<ScoreRow> {
        self.rows.into_sorted_vec().into_iter().map(|ranked| ranked.row).collect()
    }
}
