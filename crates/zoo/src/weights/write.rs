//! Atomic writing of a file: it appears complete or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

/// Bytes of the write buffer; elements are written one at a time.
const BUFFER: usize = 1 << 20;

/// Writes `path` through `fill`: into a new file of the same folder, which is synced and then
/// renamed to `path`. On any failure the new file is removed and `path` is not changed.
pub(super) fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Error> {
    let refused = |source| Error::Io { file: path.display().to_string(), action: "write", source };
    let (file, scrap) = create_beside(path).map_err(refused)?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    fill(&mut out).map_err(refused)?;
    let file = out.into_inner().map_err(|error| refused(error.into_error()))?;
    file.sync_all().map_err(refused)?;
    drop(file);
    fs::rename(&scrap.path, path).map_err(refused)?;
    scrap.keep();
    Ok(())
}

/// A new file in the folder of `path`, under a name that no other process or thread uses.
fn create_beside(path: &Path) -> io::Result<(File, Scrap)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}.{count}.partial", std::process::id()));
    let path = path.with_file_name(hidden);
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    Ok((file, Scrap { path, keep: false }))
}

/// Removes the file it names, unless kept.
struct Scrap {
    path: PathBuf,
    keep: bool,
}

impl Scrap {
    fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Scrap {
    fn drop(&mut self) {
        if !self.keep {
            // A failure here is ignored: the original error is already being returned.
            let _ = fs::remove_file(&self.path);
        }
    }
}
