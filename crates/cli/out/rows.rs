//! Destinations of rows: a file that can be resumed, a pipe, or nothing if a table is shown.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::format::{ENDINGS, Format};
use super::journal::JournalHeader;
use super::keeper::{Keeper, RunState, Unit, check_signals, hash_of};
use super::output_file::{Finished, OutputPath, at, finish, writable};
#[cfg(feature = "parquet")]
use super::parquet::Writer;
use crate::failure::{Failure, Result};
use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowDestination {
    /// Nowhere: a table is shown.
    Table,
    File(PathBuf, Format),
    /// A pipe or device; standard output if there is no path.
    Pipe(Option<PathBuf>, Format),
}

impl RowDestination {
    /// The file or pipe that has a path.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) | Self::Pipe(Some(path), _) => Some(path),
            Self::Table | Self::Pipe(None, _) => None,
        }
    }

    /// Parses `--out` and `--format`, and checks the path.
    pub(crate) fn parse(out: Option<&Path>, format: Option<&str>) -> Result<Self> {
        let format = format.map(Format::parse).transpose()?;
        let Some(path) = out else {
            return match format {
                None => Ok(Self::Table),
                Some(_) => Err(Failure::new("--format needs a file or a pipe: add --out FILE, or --out -")),
            };
        };
        if path == Path::new("-") {
            return Self::pipe(path, None, format);
        }
        let ending = Format::of(path);
        match writable("--out", path)? {
            OutputPath::Pipe(at) => Self::pipe(path, Some(at), format.or(ending)),
            OutputPath::File(at) => match format.or(ending) {
                Some(format) => format.check().map(|()| Self::File(at, format)),
                None => Err(Failure::new(format!(
                    "--out {}: the name must end in {ENDINGS}, or - for standard output; or add --format",
                    path.display()
                ))),
            },
        }
    }

    /// A pipe, with CSV unless a format is given.
    fn pipe(path: &Path, at: Option<PathBuf>, format: Option<Format>) -> Result<Self> {
        match format.unwrap_or(Format::Csv) {
            Format::Parquet => Err(Failure::new(format!(
                "--out {}: Parquet cannot go into a pipe, since its end is written last; take csv or jsonl",
                path.display()
            ))),
            format => Ok(Self::Pipe(at, format)),
        }
    }

    /// Whether a table is shown.
    pub(crate) fn is_table(&self) -> bool {
        *self == Self::Table
    }

    /// Whether rows go to standard output.
    pub(crate) fn is_standard_output(&self) -> bool {
        matches!(self, Self::Pipe(None, _))
    }

    /// The format's name, for the journal.
    pub(crate) fn format(&self) -> Option<Format> {
        match self {
            Self::Table => None,
            Self::File(_, format) | Self::Pipe(_, format) => Some(*format),
        }
    }
}

/// A writer of rows.
pub(crate) struct RowWriter {
    to: To,
    columns: &'static [ColumnSpec],
    /// Values that are the same in all rows, by name.
    constants: Vec<(String, String)>,
}

enum To {
    Nowhere,
    File(Box<Keeper>, Format),
    Pipe(BufWriter<Box<dyn Write>>, Format),
}

impl RowWriter {
    /// Opens the destination. `None` if `resume` finds the result complete.
    pub(crate) fn open<R: Record>(
        destination: &RowDestination,
        header: JournalHeader,
        constants: Vec<(String, String)>,
        resume: bool,
    ) -> Result<Option<Self>> {
        let columns = R::COLUMNS;
        let to = match destination {
            RowDestination::Table => To::Nowhere,
            RowDestination::File(path, format) => {
                let head = format.head(columns, in_rows(*format, &constants));
                match Keeper::open(path, header, &head, resume)? {
                    RunState::Open(keeper) => To::File(keeper, *format),
                    RunState::Complete => return Ok(None),
                }
            }
            RowDestination::Pipe(path, format) => {
                let mut to = BufWriter::new(pipe(path.as_deref())?);
                to.write_all(&format.head(columns, &constants))?;
                To::Pipe(to, *format)
            }
        };
        Ok(Some(Self { to, columns, constants }))
    }

    /// Number of units that are done already, and the note of the last one.
    pub(crate) fn done(&self) -> (usize, Option<&Value>) {
        match &self.to {
            To::File(keeper, _) if keeper.done() > 0 => (keeper.done(), Some(keeper.note())),
            _ => (0, None),
        }
    }

    /// Passes some cells of every finished row to `each`: those of the columns `names`, in that
    /// order. A pipe has none.
    pub(crate) fn kept(&self, names: &[&str], each: &mut dyn FnMut(&[CellValue])) -> Result<()> {
        let To::File(keeper, format) = &self.to else { return Ok(()) };
        if keeper.done() == 0 {
            return Ok(());
        }
        let path = keeper.rows();
        let bad = |what: String| Failure::new(format!("{}: {what}", path.display()));
        let file = BufReader::new(File::open(&path).map_err(|error| at(&path, &error))?);
        // Lines of JSON name their cells. CSV, and the kept form of Parquet, have them in the order
        // of the columns.
        let kinds = names.iter().map(|name| {
            let column = self.columns.iter().position(|(column, _)| column == name)?;
            Some((column, *name, self.columns.get(column)?.1))
        });
        let columns: Vec<(usize, &str, ColumnKind)> =
            kinds.collect::<Option<_>>().ok_or_else(|| bad("there is no such column".into()))?;
        if *format == Format::JsonLines {
            for line in file.lines() {
                let row: Value = serde_json::from_str(&line.map_err(|error| at(&path, &error))?)
                    .map_err(|error| bad(error.to_string()))?;
                let cells: Vec<CellValue> =
                    columns.iter().map(|(_, name, kind)| json_cell(&row[*name], *kind)).collect();
                each(&cells);
            }
            return Ok(());
        }
        let mut reader = csv::ReaderBuilder::new().from_reader(file);
        for record in reader.records() {
            let record = record.map_err(|error| bad(error.to_string()))?;
            let cell = |(column, name, kind): &(usize, &str, ColumnKind)| {
                let text = record.get(*column).unwrap_or_default();
                CellValue::from_raw(text, *kind).ok_or_else(|| bad(format!("{text} in the column {name}")))
            };
            each(&columns.iter().map(cell).collect::<Result<Vec<_>>>()?);
        }
        Ok(())
    }

    /// Adds all rows of one unit. If a signal has been received, the run stops after it.
    pub(crate) fn add<R: Record>(&mut self, rows: &[R], note: impl FnOnce() -> Value) -> Result<()> {
        match &mut self.to {
            To::Nowhere => {}
            To::File(keeper, format) => {
                let constants = in_rows(*format, &self.constants);
                let bytes = lines(*format, self.columns, rows, constants);
                keeper.add(Unit { bytes, note: note() })?;
            }
            To::Pipe(to, format) => {
                to.write_all(&lines(*format, self.columns, rows, &self.constants))?;
                // Flushed so that a reader of the pipe sees every image at once.
                to.flush()?;
            }
        }
        check_signals()
    }

    /// Stops the run early; what is finished is kept.
    pub(crate) fn end(self, failure: Failure) -> Failure {
        match self.to {
            To::File(keeper, _) => keeper.end(failure),
            To::Nowhere | To::Pipe(..) => failure,
        }
    }

    /// Completes the output.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { to, columns, constants } = self;
        match to {
            To::Nowhere => Ok(()),
            To::Pipe(mut to, _) => Ok(to.flush()?),
            To::File(keeper, Format::Parquet) => keeper.finish(|rows, path| {
                write_parquet(path, columns, &constants, |each| read_spool(rows, columns, each))?.name()?;
                hash_of(path).map(Some)
            }),
            To::File(keeper, _) => keeper.finish(|_, _| Ok(None)),
        }
    }
}

/// A cell from a value in a line of JSON.
fn json_cell(value: &Value, kind: ColumnKind) -> CellValue {
    match value {
        Value::Null => CellValue::Nothing,
        Value::String(text) => CellValue::Text(text.clone()),
        other => CellValue::from_raw(&other.to_string(), kind).unwrap_or(CellValue::Nothing),
    }
}

/// Opens a pipe or device, or standard output.
fn pipe(path: Option<&Path>) -> Result<Box<dyn Write>> {
    let Some(path) = path else { return Ok(Box::new(io::stdout())) };
    let file = OpenOptions::new().write(true).open(path).map_err(|error| at(path, &error))?;
    Ok(Box::new(file))
}

/// Writes a complete table to a pipe.
pub(crate) fn write_rows<R: Record>(path: Option<&Path>, format: Format, rows: &[R]) -> Result<()> {
    pipe_cells(path, format, R::COLUMNS, rows.iter().map(Record::cells), &[])
}

/// The constants that are repeated in every row: none for Parquet, which has them in its metadata.
fn in_rows(format: Format, constants: &[(String, String)]) -> &[(String, String)] {
    if format == Format::Parquet { &[] } else { constants }
}

/// Rows as lines of a format.
fn lines<R: Record>(
    format: Format,
    columns: &[ColumnSpec],
    rows: &[R],
    constants: &[(String, String)],
) -> Vec<u8> {
    rows.iter().flat_map(|row| format.line(columns, &row.cells(), constants)).collect()
}

/// Writes a complete table under a temporary name.
pub(crate) fn write_table<R: Record>(
    path: &Path,
    format: Format,
    rows: &[R],
    constants: &[(String, String)],
) -> Result<Finished> {
    write_cells(path, format, R::COLUMNS, rows.iter().map(Record::cells), constants)
}

/// Writes a complete table of columns that are only known at run time, under a temporary name.
pub(crate) fn write_cells(
    path: &Path,
    format: Format,
    columns: &'static [ColumnSpec],
    mut rows: impl Iterator<Item = Vec<CellValue>>,
    constants: &[(String, String)],
) -> Result<Finished> {
    if format == Format::Parquet {
        return write_parquet(path, columns, constants, |each| rows.try_for_each(each));
    }
    finish(path, |file| {
        let mut file = BufWriter::new(file);
        let mut written = file.write_all(&format.head(columns, constants));
        for cells in rows {
            written = written.and_then(|()| file.write_all(&format.line(columns, &cells, constants)));
        }
        written.and_then(|()| file.flush()).map_err(|error| at(path, &error))
    })
}

/// Writes such a table to a pipe.
pub(crate) fn pipe_cells(
    path: Option<&Path>,
    format: Format,
    columns: &[ColumnSpec],
    rows: impl Iterator<Item = Vec<CellValue>>,
    constants: &[(String, String)],
) -> Result<()> {
    let mut to = BufWriter::new(pipe(path)?);
    to.write_all(&format.head(columns, constants))?;
    for cells in rows {
        to.write_all(&format.line(columns, &cells, constants))?;
    }
    Ok(to.flush()?)
}

/// Receives rows one by one.
type Each<'a> = &'a mut dyn FnMut(Vec<CellValue>) -> Result<()>;

/// Writes a Parquet file of all rows that `rows` passes on, under a temporary name.
#[cfg(feature = "parquet")]
pub(super) fn write_parquet(
    path: &Path,
    columns: &'static [ColumnSpec],
    constants: &[(String, String)],
    rows: impl FnOnce(Each<'_>) -> Result<()>,
) -> Result<Finished> {
    finish(path, |file| {
        let mut writer = Writer::new(file, columns, constants)?;
        rows(&mut |cells| writer.row(cells))?;
        writer.close().map(|_| ())
    })
}

/// Fails, like [`Format::check`] before it.
#[cfg(not(feature = "parquet"))]
pub(super) fn write_parquet(
    _: &Path,
    _: &'static [ColumnSpec],
    _: &[(String, String)],
    _: impl FnOnce(Each<'_>) -> Result<()>,
) -> Result<Finished> {
    Format::Parquet.check().and_then(|()| Err(Failure::new("no Parquet in this build")))
}

/// Passes every row that a run has kept to `each`.
pub(crate) fn read_spool(path: &Path, columns: &[ColumnSpec], each: Each<'_>) -> Result<()> {
    let bad = |what: &str| Failure::new(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let mut reader = csv::ReaderBuilder::new().from_reader(file);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(|error| bad(&error.to_string()))? {
        if record.len() != columns.len() {
            return Err(bad("a row with other columns than this run's"));
        }
        let cells = record.iter().zip(columns).map(|(text, (name, kind))| {
            CellValue::from_raw(text, *kind).ok_or_else(|| bad(&format!("{text} in the column {name}")))
        });
        each(cells.collect::<Result<_>>()?)?;
    }
    Ok(())
}
