//! Rows for the writers: named columns, each of one kind, and cells.
//!
//! Every format writes the same numbers with all their digits. An unknown value is empty in CSV and
//! null elsewhere. Lists are JSON text in formats without lists.

use serde::Serialize;

/// The kind of values in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Integer,
    Float,
    Text,
    Flag,
    /// Structured data, as JSON.
    Json,
}

/// A column's name and kind; scripts depend on names and order.
pub(crate) type ColumnSpec = (&'static str, ColumnKind);

/// The value in one column of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum CellValue {
    Integer(u64),
    Float(f64),
    Text(String),
    Flag(bool),
    Json(String),
    /// Unknown, or beyond the range of the kind.
    Nothing,
}

/// A type that can be written as a row.
pub(crate) trait Record {
    /// The columns of every row.
    const COLUMNS: &'static [ColumnSpec];

    /// The values, in the order of the columns.
    fn cells(&self) -> Vec<CellValue>;
}

impl From<usize> for CellValue {
    fn from(value: usize) -> Self {
        Self::Integer(value as u64)
    }
}

impl From<f64> for CellValue {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Float(value) } else { Self::Nothing }
    }
}

impl From<bool> for CellValue {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}

impl From<&String> for CellValue {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl<T: Into<Self>> From<Option<T>> for CellValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

impl CellValue {
    /// Structured data.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        serde_json::to_string(value).map_or(Self::Nothing, Self::Json)
    }

    /// The cell of a CSV file, before quoting. A text that a spreadsheet would execute as a formula
    /// is prefixed with an apostrophe.
    pub(crate) fn csv(&self) -> String {
        match self {
            Self::Text(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            Self::Text(text) | Self::Json(text) => text.clone(),
            Self::Integer(value) => value.to_string(),
            Self::Flag(value) => value.to_string(),
            Self::Float(value) => digits(*value),
            Self::Nothing => String::new(),
        }
    }

    /// The cell of a CSV file that only this program reads: texts are unchanged.
    pub(crate) fn raw(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            _ => self.csv(),
        }
    }

    /// Reads [`CellValue::raw`] back.
    pub(crate) fn from_raw(text: &str, kind: ColumnKind) -> Option<Self> {
        match kind {
            ColumnKind::Text => Some(Self::Text(text.to_owned())),
            _ if text.is_empty() => Some(Self::Nothing),
            ColumnKind::Json => Some(Self::Json(text.to_owned())),
            ColumnKind::Integer => text.parse().ok().map(Self::Integer),
            ColumnKind::Float => text.parse().ok().map(Self::Float),
            ColumnKind::Flag => text.parse().ok().map(Self::Flag),
        }
    }

    /// The value in a line of JSON.
    pub(crate) fn value(&self) -> String {
        match self {
            Self::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
            Self::Nothing => "null".into(),
            Self::Json(_) | Self::Integer(_) | Self::Flag(_) | Self::Float(_) => self.csv(),
        }
    }
}

/// The shortest text that reads back to the same number.
fn digits(value: f64) -> String {
    serde_json::Number::from_f64(value).map_or_else(String::new, |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_back_to_the_last_bit() {
        // Quotients have digits to the end; a parser that rounds twice is off by one bit for some.
        for i in 1..20_000_u32 {
            let number = f64::from(i).sqrt() / 7.0 * 10_f64.powi((i % 60) as i32 - 30);
            let text = CellValue::from(number).value();
            assert_eq!(serde_json::from_str::<f64>(&text).ok(), Some(number), "{text}");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&text).ok().and_then(|x| x.as_f64()),
                Some(number)
            );
        }
    }

    #[test]
    fn formulas_are_no_formulas_and_numbers_have_all_digits() {
        for (cell, csv, json) in [
            (CellValue::Text("=1+1".into()), "'=1+1", "\"=1+1\""),
            (CellValue::Text("a;\n\"\u{1b}".into()), "a;\n\"\u{1b}", r#""a;\n\"\u001b""#),
            (CellValue::from(-0.1), "-0.1", "-0.1"),
            (CellValue::from(1e300), "1e+300", "1e+300"),
            (CellValue::from(f64::INFINITY), "", "null"),
            (CellValue::from(Some(3_usize)), "3", "3"),
            (CellValue::json(&["a"]), "[\"a\"]", "[\"a\"]"),
        ] {
            assert_eq!((cell.csv().as_str(), cell.value().as_str()), (csv, json));
        }
        assert_eq!(digits(0.1 + 0.2), "0.30000000000000004");
        for (cell, kind) in [
            (CellValue::Text("=1".into()), ColumnKind::Text),
            (CellValue::Float(0.1 + 0.2), ColumnKind::Float),
            (CellValue::Float(f64::MIN_POSITIVE / 3.0), ColumnKind::Float),
            (CellValue::Nothing, ColumnKind::Float),
            (CellValue::Flag(true), ColumnKind::Flag),
            (CellValue::Integer(7), ColumnKind::Integer),
        ] {
            assert_eq!(CellValue::from_raw(&cell.raw(), kind), Some(cell));
        }
    }
}
