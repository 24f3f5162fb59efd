//! A folder of maps: files are written one by one under a journal, and never next to the files of
//! another run.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::out::{
    Format, JournalHeader, Keeper, RunState, Unit, beside, check_signals, fault, hash_of, read_spool,
};
use crate::record::{CellValue, ColumnKind, ColumnSpec, Record};

/// The list of files of an incomplete run, or of a part of a run.
pub(crate) const LIST: &str = "maps.csv";

/// The files of one image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Drawn {
    pub(crate) index: usize,
    pub(crate) files: Vec<ListedFile>,
    /// Steps along the most influential direction: Fisher length, actual change, predicted change,
    /// and whether the image after the step is predicted as another class.
    pub(crate) steps: Vec<(f64, f64, f64, bool)>,
    /// The windows of each half-width.
    pub(crate) windows: Vec<WindowsSummary>,
}

/// Summary of the windows of one half-width at one image, for the verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowsSummary {
    pub(crate) half_width: usize,
    pub(crate) count: usize,
    pub(crate) saturated: usize,
    /// Number of windows with a reach above 0.9.
    pub(crate) near: usize,
    /// log10 of the median influence; `None` for 0.
    pub(crate) log10: Option<f64>,
    /// The quartiles of their reach.
    pub(crate) reach: [f64; 3],
    /// The odds; `None` beyond f64.
    pub(crate) odds: Option<f64>,
}

/// A file and the hash of its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedFile {
    pub(crate) name: String,
    pub(crate) hash: String,
}

impl Record for Drawn {
    const COLUMNS: &'static [ColumnSpec] = &[
        ("index", ColumnKind::Integer),
        ("files", ColumnKind::Json),
        ("steps", ColumnKind::Json),
        ("windows", ColumnKind::Json),
    ];

    fn cells(&self) -> Vec<CellValue> {
        vec![
            self.index.into(),
            CellValue::json(&self.files),
            CellValue::json(&self.steps),
            CellValue::json(&self.windows),
        ]
    }
}

impl Drawn {
    /// Reads every image of a list.
    pub(crate) fn read(list: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        read_spool(list, Self::COLUMNS, &mut |cells| {
            let drawn = Self::of(&cells);
            found.push(drawn.ok_or_else(|| Failure::new(format!("{}: not a list of maps", list.display())))?);
            Ok(())
        })?;
        Ok(found)
    }

    fn of(cells: &[CellValue]) -> Option<Self> {
        match cells {
            [
                CellValue::Integer(index),
                CellValue::Json(files),
                CellValue::Json(steps),
                CellValue::Json(windows),
            ] => Some(Self {
                index: *index as usize,
                files: serde_json::from_str(files).ok()?,
                steps: serde_json::from_str(steps).ok()?,
                windows: serde_json::from_str(windows).ok()?,
            }),
            _ => None,
        }
    }

    /// Checks that the files have not changed since they were written.
    pub(crate) fn check(&self, folder: &Path) -> Result<()> {
        self.files.iter().try_for_each(|ListedFile { name, hash }| {
            let path = folder.join(name);
            if hash_of(&path)? == *hash {
                return Ok(());
            }
            Err(Failure::new(format!("{}: this is not the file that the run wrote", path.display())))
        })
    }
}

/// Checks that the folder exists or can be created.
pub(crate) fn check(target: &Path) -> Result<()> {
    let refuse = |why: String| Err(Failure::new(format!("--out {}: {why}", target.display())));
    match fs::metadata(target) {
        Ok(found) if !found.is_dir() => return refuse("this is not a folder".into()),
        Ok(_) => {}
        Err(_) => {
            let above =
                target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !above.is_dir() {
                return refuse(format!("there is no folder {}", above.display()));
            }
        }
    }
    Ok(())
}

/// A folder that is being filled.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    keeper: Box<Keeper>,
}

impl Folder {
    /// Creates the folder, or resumes a stopped run. `None` if the run is already complete.
    ///
    /// `own` recognises the files of this run. A run that is resumed may have been complete, and
    /// then writes them again.
    pub(crate) fn open(
        target: &Path,
        header: JournalHeader,
        resume: bool,
        own: impl Fn(&str) -> bool,
    ) -> Result<Option<Self>> {
        let made = !target.exists();
        if made {
            fs::create_dir(target).map_err(|error| fault(target, &error))?;
        }
        let list = target.join(LIST);
        // With a journal, the keeper compares the runs. Without one, maps in the folder are of
        // another run, or of this one if it had finished.
        let opened = if beside(&list, ".journal").exists() {
            Ok(())
        } else {
            unmixed(target, |name| resume && own(name))
        };
        let head = Format::KEPT.head(Drawn::COLUMNS, &[]);
        let opened = opened.and_then(|()| Keeper::open(&list, header, &head, resume));
        if opened.is_err() && made {
            let _ = fs::remove_dir(target);
        }
        match opened? {
            RunState::Complete => Ok(None),
            RunState::Open(keeper) => {
                let folder = Self { path: target.to_owned(), keeper };
                // A file that someone has changed since would not be this run's result.
                if folder.done() > 0 {
                    Drawn::read(&beside(&list, ".partial"))?
                        .iter()
                        .try_for_each(|drawn| drawn.check(target))?;
                }
                Ok(Some(folder))
            }
        }
    }

    /// Number of images that are done already.
    pub(crate) fn done(&self) -> usize {
        self.keeper.done()
    }

    /// Writes the files of one image. If a signal has been received, the run stops after them.
    pub(crate) fn add(
        &mut self,
        index: usize,
        files: &[(String, Vec<u8>)],
        steps: Vec<(f64, f64, f64, bool)>,
        windows: Vec<WindowsSummary>,
    ) -> Result<()> {
        for (name, bytes) in files {
            let path = self.path.join(name);
            let partial = beside(&path, ".partial");
            let written = File::create(&partial).and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_data()?;
                fs::rename(&partial, &path)
            });
            if let Err(error) = written {
                let _ = fs::remove_file(&partial);
                return Err(fault(&path, &error));
            }
        }
        let listed = |(name, bytes): &(String, Vec<u8>)| ListedFile {
            name: name.clone(),
            hash: blake3::hash(bytes).to_hex().to_string(),
        };
        let drawn = Drawn { index, files: files.iter().map(listed).collect(), steps, windows };
        let bytes = Format::KEPT.line(Drawn::COLUMNS, &drawn.cells(), &[]);
        self.keeper.add(Unit { bytes, note: serde_json::Value::Null })?;
        check_signals()
    }

    /// Stops the run early. Finished files are kept; if there are none, an empty folder is removed.
    pub(crate) fn end(self, failure: Failure) -> Failure {
        let failure = self.keeper.end(failure);
        let _ = fs::remove_dir(&self.path);
        failure
    }

    /// Completes the run and returns what was drawn. A part of a run keeps its list for the merge.
    pub(crate) fn finish(self, part: bool) -> Result<Vec<Drawn>> {
        let mut found = Vec::new();
        self.keeper.finish(|list, _| {
            found = Drawn::read(list)?;
            Ok((!part).then(|| "the files themselves".to_owned()))
        })?;
        Ok(found)
    }
}

/// Refuses a folder that contains maps other than the allowed ones.
pub(crate) fn unmixed(folder: &Path, allowed: impl Fn(&str) -> bool) -> Result<()> {
    let entries = fs::read_dir(folder).map_err(|error| fault(folder, &error))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if (is_map(&name) || name == LIST) && !allowed(&name) {
            return Err(Failure::new(format!(
                "--out {}: there are maps of another run, such as {name}; give a folder of its own",
                folder.display()
            )));
        }
    }
    Ok(())
}

/// Whether a file has a name that a run would give.
fn is_map(name: &str) -> bool {
    let stem = name.strip_prefix("map-").or_else(|| name.strip_prefix("direction-"));
    let number =
        stem.and_then(|stem| stem.strip_suffix(".png").or_else(|| stem.strip_suffix(".safetensors")));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}
