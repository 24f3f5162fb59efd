//! Paths of output files: checked before anything is computed, and replaced atomically.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::failure::{Failure, Result};

/// A file to be written as a whole. Its path is checked before anything is computed.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
}

impl OutputFile {
    /// A file with this extension, given with `flag`.
    pub(crate) fn new(flag: &str, path: &Path, ending: &str) -> Result<Self> {
        if path.extension().is_none_or(|end| !end.eq_ignore_ascii_case(ending)) {
            let message = format!("{flag} {}: the name must end in .{ending}", path.display());
            return Err(Failure::new(message));
        }
        match writable(flag, path)? {
            OutputPath::File(path) => Ok(Self { path }),
            OutputPath::Pipe(path) => {
                Err(Failure::new(format!("{flag} {}: this is not a regular file", path.display())))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole file under a temporary name.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Finished> {
        finish(&self.path, |file| file.write_all(bytes).map_err(|error| at(&self.path, &error)))
    }
}

/// The kind of file at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputPath {
    /// A regular file, or none yet; links are followed.
    File(PathBuf),
    /// A pipe or a device, which cannot be replaced or reread.
    Pipe(PathBuf),
}

/// The kind of file at `path`, if it can be written.
pub(crate) fn writable(flag: &str, path: &Path) -> Result<OutputPath> {
    let refuse = |why: String| Err(Failure::new(format!("{flag} {}: {why}", path.display())));
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => return refuse("this is a folder".into()),
        Ok(found) if found.permissions().readonly() => return refuse("this file may not be written".into()),
        Ok(found) if !found.is_file() => return Ok(OutputPath::Pipe(path)),
        _ => {}
    }
    let folder = folder(&path);
    if !folder.is_dir() {
        return refuse(format!("there is no folder {}", folder.display()));
    }
    if let Err(error) = probe(&path) {
        return refuse(format!("nothing can be written in {}: {}", folder.display(), reason(&error)));
    }
    Ok(OutputPath::File(path))
}

/// This path with a suffix appended to its name.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// The temporary file that becomes the one at `path`. Its name is fixed, so that the next run
/// overwrites what a killed process has left.
fn finishing(path: &Path) -> PathBuf {
    beside(path, ".finishing")
}

/// Checks that files can be created in a folder. A temporary file of another process is not an
/// error.
fn probe(path: &Path) -> io::Result<()> {
    let temporary = finishing(path);
    match fs::File::create_new(&temporary) {
        Ok(_) => fs::remove_file(&temporary),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The system's message without the temporary path that tempfile appends.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" at path ").next().unwrap_or_default().to_owned()
}

/// The folder of a file; `.` for a bare name.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A complete file under its temporary name. Everything that can fail for lack of space is done.
#[derive(Debug)]
pub(crate) struct Finished {
    path: PathBuf,
    file: TempPath,
}

/// Fills and syncs a temporary file next to `path`.
pub(crate) fn finish(path: &Path, fill: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<Finished> {
    let fault = |error: io::Error| at(path, &error);
    let temporary = finishing(path);
    let mut file = fs::File::create(&temporary).map_err(fault)?;
    // Removed when dropped, unless it is given its final name.
    let temporary = TempPath::try_from_path(temporary).map_err(fault)?;
    fill(&mut file)?;
    keep_mode(path, &temporary).map_err(fault)?;
    file.sync_all().map_err(fault)?;
    Ok(Finished { path: path.to_owned(), file: temporary })
}

/// A system error about a file.
pub(crate) fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {}", path.display(), reason(error)))
}

/// Gives a new file the permissions of the older one that it replaces.
pub(crate) fn keep_mode(older: &Path, new: &Path) -> io::Result<()> {
    match fs::metadata(older) {
        Ok(older) => fs::set_permissions(new, older.permissions()),
        Err(_) => Ok(()),
    }
}

impl Finished {
    /// Renames the file to its final name.
    pub(crate) fn name(self) -> Result<()> {
        let Self { path, file } = self;
        file.persist(&path).map(|_| ()).map_err(|error| at(&path, &error.error))
    }
}
