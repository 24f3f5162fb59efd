//! Places of files: looked at before anything is computed, and filled in one step.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempPath;

use crate::failure::{Failure, Result};

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
        match writable(flag, path)? {
            Place::File(path) => Ok(Self { path }),
            Place::Pipe(path) => {
                Err(Failure::new(format!("{flag} {}: this is no ordinary file", path.display())))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole file beside its place.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Finished> {
        finish(&self.path, |file| file.write_all(bytes).map_err(|error| at(&self.path, &error)))
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// An ordinary file, or none yet; links are followed.
    File(PathBuf),
    /// A pipe or a device: what is written there is gone.
    Pipe(PathBuf),
}

/// The place, if something can be written there.
pub(crate) fn writable(flag: &str, path: &Path) -> Result<Place> {
    let refuse = |why: String| Err(Failure::new(format!("{flag} {}: {why}", path.display())));
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(found) if found.is_dir() => return refuse("this is a folder".into()),
        Ok(found) if found.permissions().readonly() => return refuse("this file may not be written".into()),
        Ok(found) if !found.is_file() => return Ok(Place::Pipe(path)),
        _ => {}
    }
    let folder = folder(&path);
    if !folder.is_dir() {
        return refuse(format!("there is no folder {}", folder.display()));
    }
    if let Err(error) = probe(&path) {
        return refuse(format!("nothing can be written in {}: {}", folder.display(), reason(&error)));
    }
    Ok(Place::File(path))
}

/// The same path with something behind its name.
pub(crate) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// The file that becomes the one at `path`: always of the same name, so that the next run writes over what
/// a kill has left of it.
fn finishing(path: &Path) -> PathBuf {
    beside(path, ".finishing")
}

/// Makes sure that files can be made in a folder, beside the one of another process that is being finished.
fn probe(path: &Path) -> io::Result<()> {
    let place = finishing(path);
    match fs::File::create_new(&place) {
        Ok(_) => fs::remove_file(&place),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The system's words without the temporary name that tempfile adds.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" at path ").next().unwrap_or_default().to_owned()
}

pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A whole file that has no name yet: what can fail for want of room has been done.
#[derive(Debug)]
pub(crate) struct Finished {
    path: PathBuf,
    file: TempPath,
}

/// Fills a file beside `path`.
pub(crate) fn finish(path: &Path, fill: impl FnOnce(&mut fs::File) -> Result<()>) -> Result<Finished> {
    let fault = |error: io::Error| at(path, &error);
    let place = finishing(path);
    let mut file = fs::File::create(&place).map_err(fault)?;
    // Gone again unless it gets its name.
    let temporary = TempPath::try_from_path(place).map_err(fault)?;
    fill(&mut file)?;
    keep_mode(path, &temporary).map_err(fault)?;
    file.sync_all().map_err(fault)?;
    Ok(Finished { path: path.to_owned(), file: temporary })
}

/// An error of the system's about a file.
pub(crate) fn at(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("{}: {}", path.display(), reason(error)))
}

/// Gives a new file the permissions of the older one whose place it takes.
pub(crate) fn keep_mode(older: &Path, new: &Path) -> io::Result<()> {
    match fs::metadata(older) {
        Ok(older) => fs::set_permissions(new, older.permissions()),
        Err(_) => Ok(()),
    }
}

impl Finished {
    /// Gives the file its name.
    pub(crate) fn name(self) -> Result<()> {
        let Self { path, file } = self;
        file.persist(&path).map(|_| ()).map_err(|error| at(&path, &error.error))
    }
}
