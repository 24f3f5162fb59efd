//! The journal of a run: its configuration, and how much of its output is complete.
//!
//! One record per line: the CRC-32 of the rest of the line, a sequence number, and the record as
//! JSON. The first record is the [`JournalHeader`]: the whole configuration with hashes of weights
//! and data, so that a run is never resumed with another configuration. A truncated last line is
//! what a killed process leaves, and is dropped; any other fault is an error.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::output_file::at as fault;
use super::shard::Shard;
use crate::failure::{Failure, Result};

/// Identifies the format, in the first record.
const MARK: &str = "influence journal 1";

/// Everything that determines the bytes of a result, by name.
pub(crate) type Config = BTreeMap<String, String>;

/// The identity of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalHeader {
    mark: String,
    version: String,
    /// The command.
    pub(crate) command: String,
    pub(crate) config: Config,
    pub(crate) shard: Option<Shard>,
    /// Number of units of work in this file: images, or images of several networks one after the
    /// other.
    pub(crate) units: usize,
}

impl JournalHeader {
    pub(crate) fn new(command: &str, config: Config, shard: Option<Shard>, units: usize) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { mark: MARK.to_owned(), version, command: command.to_owned(), config, shard, units }
    }

    /// The first difference of `other` from this run, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if (&self.mark, &self.version) != (&other.mark, &other.version) {
            return Some(format!("it was written by version {}, this is {}", other.version, self.version));
        }
        if self.command != other.command {
            return Some(format!(
                "it belongs to influence {}, not to influence {}",
                other.command, self.command
            ));
        }
        let keys = self.config.keys().chain(other.config.keys());
        let mut keys = keys.filter(|key| self.config.get(*key) != other.config.get(*key));
        keys.next().map(|key| {
            let of = |config: &Config| config.get(key).cloned().unwrap_or_else(|| "nothing".into());
            format!("its {key} is {}, not {}", of(&other.config), of(&self.config))
        })
    }
}

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    /// Units whose output is complete.
    pub(crate) done: usize,
    /// Length of the output so far, in bytes.
    pub(crate) bytes: u64,
    /// Hash of the bytes since the previous entry.
    pub(crate) hash: String,
    /// What the command notes about the units so far.
    pub(crate) note: serde_json::Value,
    /// Hash of the whole result, once it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) complete: Option<String>,
}

/// A journal that is locked by this process.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    sequence: u64,
}

/// The records of a journal, each with the offset of its end in the file.
type JournalRecords = (JournalHeader, u64, Vec<(JournalEntry, u64)>);

impl Journal {
    /// Creates a journal. An existing one is an error: that run was stopped or is still running.
    pub(crate) fn create(path: &Path, header: &JournalHeader) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
        let file = file.map_err(|error| fault(path, &error))?;
        let mut journal = Self { path: path.to_owned(), file, sequence: 0 };
        journal.lock()?;
        journal.add(header)?;
        Ok(journal)
    }

    /// Removes a journal whose process was killed before the first record was complete. Its length
    /// is checked again under the lock, because another process may just be writing it.
    pub(crate) fn clear_stump(path: &Path) -> Result<()> {
        let stump = |file: &File| file.metadata().is_ok_and(|found| found.len() < MARK.len() as u64);
        match File::open(path) {
            Ok(file) if stump(&file) && file.try_lock().is_ok() && stump(&file) => {
                std::fs::remove_file(path).map_err(|error| fault(path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Opens and locks an existing journal, and reads its records.
    pub(crate) fn open(path: &Path) -> Result<(Self, JournalRecords)> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(|error| fault(path, &error))?;
        let mut journal = Self { path: path.to_owned(), file, sequence: 0 };
        journal.lock()?;
        let found = read(path)?;
        journal.sequence = 1 + found.2.len() as u64;
        Ok((journal, found))
    }

    /// Locks the file until it is closed, so that two processes cannot write one output.
    fn lock(&self) -> Result<()> {
        match self.file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
                "{}: another process writes this output; wait for it, or give another name",
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(fault(&self.path, &error)),
        }
    }

    /// Truncates the journal to its first `entries` entries, which end at offset `length`.
    pub(crate) fn cut(&mut self, entries: usize, length: u64) -> Result<()> {
        self.sequence = 1 + entries as u64;
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)));
        cut.map(|_| ()).map_err(|error| fault(&self.path, &error))
    }

    /// Appends a record and syncs it to the disk.
    pub(crate) fn add(&mut self, record: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(record).map_err(|error| Failure::new(error.to_string()))?;
        let body = format!("{} {text}", self.sequence);
        let line = format!("{:08x} {body}\n", crc32fast::hash(body.as_bytes()));
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| fault(&self.path, &error))?;
        self.sequence += 1;
        Ok(())
    }

    /// Removes the journal: there is nothing to resume.
    pub(crate) fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|error| fault(&self.path, &error))
    }
}

/// Reads a journal without locking it.
pub(crate) fn read(path: &Path) -> Result<JournalRecords> {
    let bad = |why: String| Failure::new(format!("{}: {why}", path.display()));
    let mut reader = BufReader::new(File::open(path).map_err(|error| fault(path, &error))?);
    let (mut line, mut at, mut sequence) = (Vec::new(), 0, 0);
    let (mut header, mut entries) = (None, Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(|error| fault(path, &error))? == 0 {
            break;
        }
        at += line.len() as u64;
        let outcome = match &header {
            None => record::<JournalHeader>(&line, sequence).map(|(found, end)| header = Some((found, end))),
            Some(_) => record::<JournalEntry>(&line, sequence).map(|(found, _)| entries.push((found, at))),
        };
        if let Err(why) = outcome {
            // A faulty record is a torn write only if nothing follows it; the file is then treated
            // as ending before it. The header itself must be sound.
            let torn = reader.fill_buf().map_err(|error| fault(path, &error))?.is_empty();
            if torn && header.is_some() {
                break;
            }
            return Err(bad(format!(
                "not a valid journal: record {sequence} {why}; remove it to start again"
            )));
        }
        sequence += 1;
    }
    match header {
        Some((header, end)) if header.mark == MARK => Ok((header, end, entries)),
        _ => Err(bad("not a journal of this program; remove it to start again".into())),
    }
}

/// Parses and verifies the record in a line; also returns the length of the line.
fn record<T: DeserializeOwned>(line: &[u8], sequence: u64) -> std::result::Result<(T, u64), String> {
    let text = std::str::from_utf8(line).map_err(|_| "is not text")?;
    let body = text.strip_suffix('\n').ok_or("is cut short")?;
    let (sum, body) = body.split_once(' ').ok_or("has no checksum")?;
    if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(body.as_bytes())) {
        return Err("does not match its checksum".into());
    }
    let (number, json) = body.split_once(' ').ok_or("has no number")?;
    if number.parse() != Ok(sequence) {
        return Err(format!("has the number {number}"));
    }
    let found = serde_json::from_str(json).map_err(|error| format!("is not understood: {error}"))?;
    Ok((found, line.len() as u64))
}

#[cfg(test)]
mod tests {
    //! A torn last record is dropped; a fault anywhere else is an error.

    use super::*;

    fn entry(done: usize) -> JournalEntry {
        let hash = format!("{done:x}");
        JournalEntry { done, bytes: done as u64 * 10, hash, note: serde_json::Value::Null, complete: None }
    }

    fn written(folder: &Path) -> (PathBuf, Vec<u8>) {
        let path = folder.join("rows.csv.journal");
        let config = Config::from([("filter".to_owned(), "exact".to_owned())]);
        let header = JournalHeader::new("score", config, None, 3);
        let mut journal = Journal::create(&path, &header).expect("a place");
        (1..=3).for_each(|done| journal.add(&entry(done)).expect("room"));
        let bytes = std::fs::read(&path).expect("a file");
        (path, bytes)
    }

    #[test]
    fn every_truncation_is_a_shorter_run_or_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, bytes) = written(folder.path());
        let ends: Vec<usize> = (1..=bytes.len()).filter(|end| bytes[end - 1] == b'\n').collect();
        for length in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("room");
            let whole = ends.iter().filter(|end| **end <= length).count();
            match read(&path) {
                Ok((_, _, entries)) => {
                    let expected: Vec<JournalEntry> = (1..whole).map(entry).collect();
                    assert_eq!(entries.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>(), expected);
                    assert!(entries.iter().zip(&ends[1..]).all(|((_, end), at)| *end == *at as u64));
                }
                Err(error) => assert!(whole == 0, "{length}: {error}"),
            }
        }
    }

    #[test]
    fn a_fault_before_the_last_line_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, bytes) = written(folder.path());
        let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
        for at in (0..last).step_by(7) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).expect("room");
            let error = read(&path).expect_err("it is changed").to_string();
            assert!(error.contains("rows.csv.journal"), "{at}: {error}");
        }
    }

    #[test]
    fn two_processes_do_not_write_one_journal() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("j");
        let header = JournalHeader::new("score", Config::new(), None, 1);
        let held = Journal::create(&path, &header).expect("a place");
        let error = Journal::open(&path).expect_err("it is held").to_string();
        assert!(error.contains("another process"), "{error}");
        drop(held);
        assert!(Journal::open(&path).is_ok());
    }
}
