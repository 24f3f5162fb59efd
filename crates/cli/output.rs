//! Files of rows: complete or not there at all.
//!
//! Rows are written when all of them are there, to a temporary file in the target's folder, which takes the target's name as the very
//! last step. A run that fails or is stopped leaves nothing behind, and an older file of that name stays as it was until then.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::{Failure, Result};
use crate::record::{Cell, Record};

/// A file of bytes, whose place has been looked at before anything was computed.
#[derive(Debug)]
pub(crate) struct Target {
    path: PathBuf,
}

impl Target {
    /// A file with this ending, given to `flag`.
    pub(crate) fn new(flag: &str, path: &Path, ending: &str) -> Result<Self> {
        if path.extension().is_none_or(|end| !end.eq_ignore_ascii_case(ending)) {
            let message = format!("{flag} {}: the name must end in .{ending}", path.display());
            return Err(Failure::new(message));
        }
        writable(flag, path).map(|path| Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole file beside its place.
    pub(crate) fn write(self, bytes: &[u8]) -> Result<Finished> {
        finish(&self.path, |mut file| file.write_all(bytes).map(|()| file))
    }
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    JsonLines,
}

/// The path, links followed, and what its extension says, if something can be written there.
pub(crate) fn check(path: &Path) -> Result<(PathBuf, Format)> {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_lowercase);
    let format = match extension.as_deref() {
        Some("csv") => Format::Csv,
        Some("jsonl") => Format::JsonLines,
        _ => {
            let message = format!("--out {}: the name must end in .csv or .jsonl", path.display());
            return Err(Failure::new(message));
        }
    };
    Ok((writable("--out", path)?, format))
}

/// The path, links followed, if a file can be written there.
fn writable(flag: &str, path: &Path) -> Result<PathBuf> {
    let refuse = |why: String| Err(Failure::new(format!("{flag} {}: {why}", path.display())));
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => return refuse("this is a folder".into()),
        Ok(found) if !found.is_file() => return refuse("this is no ordinary file".into()),
        Ok(found) if found.permissions().readonly() => return refuse("this file may not be written".into()),
        _ => {}
    }
    let folder = folder(&path);
    if !folder.is_dir() {
        return refuse(format!("there is no folder {}", folder.display()));
    }
    if let Err(error) = temporary(folder) {
        return refuse(format!("nothing can be written in {}: {}", folder.display(), reason(&error)));
    }
    Ok(path)
}

/// A file without a name of its own to anybody; it goes when it is dropped.
fn temporary(folder: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(".influence-").make_in(folder, |path| fs::File::create_new(path)).map(
        |file| {
            let (file, path) = file.into_parts();
            NamedTempFile::from_parts(file, path)
        },
    )
}

/// The system's words without the temporary name that tempfile adds.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" at path ").next().unwrap_or_default().to_owned()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// All rows in a file that has no name yet: what can fail for want of room has been done.
#[derive(Debug)]
pub(crate) struct Finished {
    path: PathBuf,
    file: NamedTempFile,
}

/// Writes all rows beside `path`.
pub(crate) fn write<R: Record>(path: &Path, format: Format, rows: &[R]) -> Result<Finished> {
    finish(path, |file| match format {
        Format::Csv => csv_rows(file, rows),
        Format::JsonLines => json_lines(file, rows),
    })
}

/// Fills a file beside `path`.
fn finish(
    path: &Path,
    fill: impl FnOnce(NamedTempFile) -> std::io::Result<NamedTempFile>,
) -> Result<Finished> {
    let at = |error: std::io::Error| Failure::new(format!("{}: {}", path.display(), reason(&error)));
    let file = temporary(folder(path)).and_then(fill).map_err(at)?;
    if let Ok(older) = fs::metadata(path) {
        fs::set_permissions(file.path(), older.permissions()).map_err(at)?;
    }
    file.as_file().sync_all().map_err(at)?;
    Ok(Finished { path: path.to_owned(), file })
}

fn csv_rows<R: Record>(file: NamedTempFile, rows: &[R]) -> std::io::Result<NamedTempFile> {
    let mut writer = csv::Writer::from_writer(file);
    writer.write_record(R::COLUMNS.iter().map(|(name, _)| name))?;
    rows.iter().try_for_each(|row| writer.write_record(row.cells().iter().map(Cell::csv)))?;
    writer.into_inner().map_err(|error| error.into_error())
}

fn json_lines<R: Record>(file: NamedTempFile, rows: &[R]) -> std::io::Result<NamedTempFile> {
    let mut writer = BufWriter::new(file);
    for row in rows {
        let cells = R::COLUMNS.iter().zip(row.cells());
        let pairs: Vec<String> =
            cells.map(|((name, _), cell)| format!("\"{name}\":{}", cell.value())).collect();
        writeln!(writer, "{{{}}}", pairs.join(","))?;
    }
    writer.into_inner().map_err(|error| error.into_error())
}

impl Finished {
    /// Gives the file its name.
    pub(crate) fn name(self) -> Result<()> {
        let Self { path, file } = self;
        file.persist(&path)
            .map(|_| ())
            .map_err(|error| Failure::new(format!("{}: {}", path.display(), reason(&error.error))))
    }
}
