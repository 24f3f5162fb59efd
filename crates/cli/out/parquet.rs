//! Rows as Parquet: written from the rows of a complete run, and read back for a merge.
//!
//! Values that are the same in all rows (network, weights, filter, ...) are in the metadata. Row
//! groups have a fixed number of rows. So the same rows give the same bytes however the run was
//! interrupted, and only one group is in memory.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::writer::ColumnWriterImpl;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::Field;
use parquet::schema::types::Type;

use crate::failure::{Failure, Result};
use crate::record::{CellValue, ColumnKind, ColumnSpec};

/// Rows per row group. They are buffered as cells, a few hundred bytes per row, until it is full.
const GROUP: usize = 1 << 11;
/// The program that wrote the file, for its metadata.
const PROGRAM: &str = concat!("influence ", env!("CARGO_PKG_VERSION"));

/// A file being written.
pub(crate) struct Writer<W: Write + Send> {
    columns: &'static [ColumnSpec],
    file: SerializedFileWriter<W>,
    /// The cells of the next group, one list per column.
    waiting: Vec<Vec<CellValue>>,
}

impl<W: Write + Send> Writer<W> {
    pub(crate) fn new(to: W, columns: &'static [ColumnSpec], metadata: &[(String, String)]) -> Result<Self> {
        let pairs = metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        let properties = WriterProperties::builder()
            .set_created_by(PROGRAM.to_owned())
            .set_key_value_metadata(Some(pairs))
            .build();
        let schema = schema(columns).map_err(fault)?;
        let file = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties)).map_err(fault)?;
        Ok(Self { columns, file, waiting: vec![Vec::new(); columns.len()] })
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<CellValue>) -> Result<()> {
        self.waiting.iter_mut().zip(cells).for_each(|(column, cell)| column.push(cell));
        if self.waiting.first().is_some_and(|column| column.len() == GROUP) { self.group() } else { Ok(()) }
    }

    /// Writes the waiting rows as one group.
    fn group(&mut self) -> Result<()> {
        let mut group = self.file.next_row_group().map_err(fault)?;
        for ((_, kind), cells) in self.columns.iter().zip(&mut self.waiting) {
            column(&mut group, *kind, cells).map_err(fault)?;
            cells.clear();
        }
        group.close().map(|_| ()).map_err(fault)
    }

    /// Writes the remaining rows and the footer.
    pub(crate) fn close(mut self) -> Result<W> {
        if self.waiting.first().is_some_and(|column| !column.is_empty()) {
            self.group()?;
        }
        self.file.into_inner().map_err(fault)
    }
}

fn fault(error: ParquetError) -> Failure {
    Failure::new(format!("Parquet: {error}"))
}

/// The schema: every column is optional, and texts say whether they are JSON.
fn schema(columns: &[ColumnSpec]) -> parquet::errors::Result<Type> {
    let one = |(name, kind): &ColumnSpec| {
        let (physical, logical) = match kind {
            ColumnKind::Integer => (Physical::INT64, None),
            ColumnKind::Float => (Physical::DOUBLE, None),
            ColumnKind::Flag => (Physical::BOOLEAN, None),
            ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            ColumnKind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        };
        let column = Type::primitive_type_builder(name, physical).with_repetition(Repetition::OPTIONAL);
        column.with_logical_type(logical).build().map(Arc::new)
    };
    let fields = columns.iter().map(one).collect::<parquet::errors::Result<_>>()?;
    Type::group_type_builder("rows").with_fields(fields).build()
}

/// Writes the next column of a group.
fn column<W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    kind: ColumnKind,
    cells: &[CellValue],
) -> parquet::errors::Result<()> {
    let Some(mut writer) = group.next_column()? else {
        return Err(ParquetError::General("more columns than the schema has".into()));
    };
    let text = |cell: &CellValue| match cell {
        CellValue::Text(text) | CellValue::Json(text) => Some(ByteArray::from(text.as_str())),
        _ => None,
    };
    match kind {
        ColumnKind::Integer => values(writer.typed::<Int64Type>(), cells, |cell| match cell {
            CellValue::Integer(value) => i64::try_from(*value).ok(),
            _ => None,
        })?,
        ColumnKind::Float => values(writer.typed::<DoubleType>(), cells, |cell| match cell {
            CellValue::Float(value) => Some(*value),
            _ => None,
        })?,
        ColumnKind::Flag => values(writer.typed::<BoolType>(), cells, |cell| match cell {
            CellValue::Flag(value) => Some(*value),
            _ => None,
        })?,
        ColumnKind::Text | ColumnKind::Json => values(writer.typed::<ByteArrayType>(), cells, text)?,
    }
    writer.close()
}

/// Writes a column: the non-null values, and as definition levels, for every row, whether it has
/// one.
fn values<T: DataType>(
    writer: &mut ColumnWriterImpl<'_, T>,
    cells: &[CellValue],
    value: impl Fn(&CellValue) -> Option<T::T>,
) -> parquet::errors::Result<()> {
    let found: Vec<Option<T::T>> = cells.iter().map(value).collect();
    let there: Vec<i16> = found.iter().map(|value| i16::from(value.is_some())).collect();
    let values: Vec<T::T> = found.into_iter().flatten().collect();
    writer.write_batch(&values, Some(&there), None).map(|_| ())
}

/// The metadata of a file that [`Writer`] wrote.
pub(crate) fn metadata(file: File) -> Result<Vec<(String, String)>> {
    let reader = SerializedFileReader::new(file).map_err(fault)?;
    let pairs = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
    Ok(pairs.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect())
}

/// Passes every row of a file that [`Writer`] wrote to `each`.
pub(crate) fn read(
    file: File,
    columns: &[ColumnSpec],
    each: &mut dyn FnMut(Vec<CellValue>) -> Result<()>,
) -> Result<()> {
    let reader = SerializedFileReader::new(file).map_err(fault)?;
    for row in reader.get_row_iter(None).map_err(fault)? {
        let row = row.map_err(fault)?;
        let fields = row.get_column_iter().zip(columns);
        each(fields.map(|((_, field), (_, kind))| cell(field, *kind)).collect())?;
    }
    Ok(())
}

/// The cell that was written as this field.
fn cell(field: &Field, kind: ColumnKind) -> CellValue {
    match field {
        Field::Long(value) => CellValue::Integer(u64::try_from(*value).unwrap_or(0)),
        Field::Double(value) => CellValue::Float(*value),
        Field::Bool(value) => CellValue::Flag(*value),
        Field::Str(text) if kind == ColumnKind::Json => CellValue::Json(text.clone()),
        Field::Str(text) => CellValue::Text(text.clone()),
        _ => CellValue::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_were() {
        const COLUMNS: &[ColumnSpec] = &[
            ("n", ColumnKind::Integer),
            ("x", ColumnKind::Float),
            ("name", ColumnKind::Text),
            ("yes", ColumnKind::Flag),
            ("data", ColumnKind::Json),
        ];
        let row = |at: usize| {
            vec![
                at.into(),
                if at.is_multiple_of(3) { CellValue::Nothing } else { CellValue::Float(1.0 / at as f64) },
                CellValue::Text(format!("=\u{1b}{at}")),
                (at % 2 == 1).into(),
                if at.is_multiple_of(5) { CellValue::json(&[at]) } else { CellValue::Nothing },
            ]
        };
        let count = GROUP + 100;
        let pairs = [("filter".to_owned(), "exact".to_owned())];
        let written = || {
            let mut writer =
                Writer::new(tempfile::tempfile().expect("a file"), COLUMNS, &pairs).expect("a schema");
            (0..count).for_each(|at| writer.row(row(at)).expect("room"));
            writer.close().expect("room")
        };
        let mut at = 0;
        let found = metadata(written()).expect("it is whole");
        read(written(), COLUMNS, &mut |cells| {
            assert_eq!(cells, row(at));
            at += 1;
            Ok(())
        })
        .expect("it is whole");
        assert_eq!((at, found), (count, pairs.to_vec()));
    }
}
