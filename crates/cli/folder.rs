//! A folder of results: all files or none.
//!
//! Files are written into a hidden folder beside their place, and moved there when the last of them is complete. A run that fails leaves
//! nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Result};

/// Files on their way.
#[derive(Debug)]
pub(crate) struct Folder {
    target: PathBuf,
    staging: TempDir,
    names: Vec<String>,
}

fn fault(path: &Path, error: &io::Error) -> Failure {
    let text = error.to_string();
    let text = text.split(" at path ").next().unwrap_or_default();
    Failure::new(format!("--out {}: {text}", path.display()))
}

impl Folder {
    /// Makes sure that files can be written there, before anything is computed.
    pub(crate) fn new(target: &Path) -> Result<Self> {
        let beside = match fs::metadata(target) {
            Ok(found) if found.is_dir() => target,
            Ok(_) => return Err(Failure::new(format!("--out {}: this is no folder", target.display()))),
            Err(_) => {
                target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
        };
        if !beside.is_dir() {
            return Err(Failure::new(format!(
                "--out {}: there is no folder {}",
                target.display(),
                beside.display()
            )));
        }
        let staging = tempfile::Builder::new().prefix(".influence-").tempdir_in(beside);
        let staging = staging.map_err(|error| fault(target, &error))?;
        Ok(Self { target: target.to_owned(), staging, names: Vec::new() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.target
    }

    /// Writes one file.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.staging.path().join(name);
        fs::write(path, bytes).map_err(|error| fault(&self.target, &error))?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Moves all files to their place; how many there are.
    pub(crate) fn finish(self) -> Result<usize> {
        let Self { target, staging, names } = self;
        let at = |error: io::Error| fault(&target, &error);
        if !target.exists() {
            fs::create_dir(&target).map_err(at)?;
        }
        for name in &names {
            if target.join(name).is_dir() {
                return Err(Failure::new(format!("--out {}: {name} is a folder", target.display())));
            }
        }
        for name in &names {
            fs::rename(staging.path().join(name), target.join(name)).map_err(at)?;
        }
        Ok(names.len())
    }
}
