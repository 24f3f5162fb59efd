//! Files of rows: complete or not there at all.
//!
//! Rows go to a temporary file in the target's folder, which takes the target's name when the last row is written. A run that fails
//! leaves nothing behind, and an older file of that name stays as it was until then.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::{Failure, Result};
use crate::row::Row;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Csv,
    JsonLines,
}

/// The path and what its extension says, if something can be written there.
pub(crate) fn check(path: &Path) -> Result<(PathBuf, Format)> {
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Format::Csv,
        Some("jsonl") => Format::JsonLines,
        _ => {
            return Err(Failure::new(format!(
                "--out {}: the name must end in .csv or .jsonl",
                path.display()
            )));
        }
    };
    if path.is_dir() {
        return Err(Failure::new(format!("--out {}: this is a folder", path.display())));
    }
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(Failure::new(format!(
            "--out {}: there is no folder {}",
            path.display(),
            folder.display()
        )));
    }
    Ok((path.to_owned(), format))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file being written.
#[derive(Debug)]
pub(crate) struct RowFile {
    path: PathBuf,
    writer: Writer,
}

#[derive(Debug)]
enum Writer {
    Csv(Box<csv::Writer<NamedTempFile>>),
    JsonLines(BufWriter<NamedTempFile>),
}

impl RowFile {
    pub(crate) fn create(path: &Path, format: Format) -> Result<Self> {
        let file = tempfile::Builder::new().prefix(".influence-").tempfile_in(folder(path));
        let file = file.map_err(|error| Failure::at(path, &error))?;
        let writer = match format {
            Format::Csv => Writer::Csv(Box::new(csv::Writer::from_writer(file))),
            Format::JsonLines => Writer::JsonLines(BufWriter::new(file)),
        };
        Ok(Self { path: path.to_owned(), writer })
    }

    pub(crate) fn write(&mut self, row: &Row) -> Result<()> {
        let written = match &mut self.writer {
            Writer::Csv(writer) => writer.serialize(row).map_err(std::io::Error::from),
            Writer::JsonLines(writer) => serde_json::to_writer(&mut *writer, row)
                .map_err(std::io::Error::from)
                .and_then(|()| writer.write_all(b"\n")),
        };
        written.map_err(|error| Failure::at(&self.path, &error))
    }

    /// Gives the file its name: the last thing that can fail.
    pub(crate) fn finish(self) -> Result<()> {
        let Self { path, writer } = self;
        let at = |error: std::io::Error| Failure::at(&path, &error);
        let file = match writer {
            Writer::Csv(writer) => writer.into_inner().map_err(|error| at(error.into_error()))?,
            Writer::JsonLines(writer) => writer.into_inner().map_err(|error| at(error.into_error()))?,
        };
        file.as_file().sync_all().map_err(at)?;
        readable_by_others(file.path()).map_err(at)?;
        file.persist(&path).map_err(|error| at(error.error)).map(|_| ())
    }
}

/// Temporary files are the user's alone; a result has the permissions of any new file.
fn readable_by_others(path: &Path) -> std::io::Result<()> {
    let probe = tempfile::Builder::new()
        .prefix(".influence-")
        .make_in(folder(path), |path| fs::File::create_new(path))?;
    fs::set_permissions(path, probe.as_file().metadata()?.permissions())
}
