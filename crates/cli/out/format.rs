//! Rows as text: CSV and JSON lines.

use std::path::Path;

use crate::failure::{Failure, Result};
use crate::record::{CellValue, ColumnSpec};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    JsonLines,
    Parquet,
}

/// The file extensions, as errors list them.
pub(crate) const ENDINGS: &str = ".csv, .jsonl or .parquet";

impl Format {
    /// The format of kept rows, from which a result is made later: that of Parquet's
    /// [`Format::line`].
    pub(crate) const KEPT: Self = Self::Parquet;

    /// The format by the extension of a file's name.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_lowercase();
        match ending.as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// Parses its name on the command line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "csv" => Ok(Self::Csv),
            "jsonl" => Ok(Self::JsonLines),
            "parquet" => Ok(Self::Parquet),
            _ => Err(Failure::new(format!("--format {text}: give csv, jsonl or parquet"))),
        }
    }

    /// Checks that this build supports the format.
    ///
    /// # Errors
    /// What is missing, with the remedy.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Parquet if !cfg!(feature = "parquet") => Err(Failure::new(
                "this build has no Parquet: build it with --features parquet, or take .csv or .jsonl",
            )),
            _ => Ok(()),
        }
    }

    /// The line before the rows.
    pub(crate) fn head(self, columns: &[ColumnSpec], constants: &[(String, String)]) -> Vec<u8> {
        match self {
            Self::JsonLines => Vec::new(),
            Self::Csv | Self::Parquet => {
                let names = columns.iter().map(|(name, _)| *name);
                csv_line(names.chain(constants.iter().map(|(name, _)| name.as_str())).map(str::to_owned))
            }
        }
    }

    /// One row with its newline. For Parquet, the form in which rows are kept until they are
    /// complete: CSV with unchanged texts.
    pub(crate) fn line(
        self,
        columns: &[ColumnSpec],
        cells: &[CellValue],
        constants: &[(String, String)],
    ) -> Vec<u8> {
        match self {
            Self::Csv => csv_line(
                cells
                    .iter()
                    .map(CellValue::csv)
                    .chain(constants.iter().map(|(_, text)| CellValue::Text(text.clone()).csv())),
            ),
            Self::Parquet => csv_line(cells.iter().map(CellValue::raw)),
            Self::JsonLines => {
                let cells = columns.iter().zip(cells).map(|((name, _), cell)| pair(name, &cell.value()));
                let constants =
                    constants.iter().map(|(name, text)| pair(name, &CellValue::Text(text.clone()).value()));
                let pairs: Vec<String> = cells.chain(constants).collect();
                format!("{{{}}}\n", pairs.join(",")).into_bytes()
            }
        }
    }
}

/// A member of a JSON object. Names of columns need no escapes.
fn pair(name: &str, value: &str) -> String {
    format!("\"{name}\":{value}")
}

/// One record of CSV with its newline.
fn csv_line(cells: impl Iterator<Item = String>) -> Vec<u8> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    // Cannot fail: the writer is in memory, and a single record cannot have an inconsistent length.
    let _ = writer.write_record(cells);
    writer.into_inner().unwrap_or_default()
}
