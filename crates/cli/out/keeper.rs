//! A partial file with its journal: complete output is kept, and output torn by a stop is removed.
//!
//! The order of writes makes this safe. First the rows are written and synced, then a journal
//! record with their length and hash is written and synced. After a crash, the longest prefix of
//! records whose hashes match the file is taken, and both files are cut back to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::journal::{Journal, JournalEntry, JournalHeader};
use super::output_file::{at as fault, beside, keep_mode};
use super::shard::Shard;
use super::stop;
use crate::failure::{Failure, Result};

/// Initial pause between records, short so that a run which has just begun loses little.
const SOON: Duration = Duration::from_millis(100);
/// The pause between records doubles up to this. A kill loses at most this much work; a shorter
/// pause would spend more time on syncing, which takes milliseconds.
const OFTEN: Duration = Duration::from_secs(2);
/// Number of pending bytes that are recorded at once, whatever the time: they are in memory.
const MUCH: usize = 1 << 22;

/// One unit of work, e.g. an image.
#[derive(Debug)]
pub(crate) struct Unit {
    /// The bytes to append to the file.
    pub(crate) bytes: Vec<u8>,
    /// What the command needs when it is resumed after this unit.
    pub(crate) note: Value,
}

/// A partial file with its journal.
#[derive(Debug)]
pub(crate) struct Keeper {
    path: PathBuf,
    file: File,
    journal: Journal,
    header: JournalHeader,
    /// Units and bytes that are recorded.
    done: usize,
    bytes: u64,
    /// Bytes, units (`further`) and note that are not recorded yet.
    pending: Vec<u8>,
    further: usize,
    note: Value,
    last: Instant,
    pause: Duration,
}

/// The state in which a run was found.
#[derive(Debug)]
pub(crate) enum RunState {
    /// There is work to do.
    Open(Box<Keeper>),
    /// The result is complete.
    Complete,
}

/// The path of a result's partial file.
pub(crate) fn partial(path: &Path) -> PathBuf {
    beside(path, ".partial")
}

/// The path of a result's journal.
pub(crate) fn journal(path: &Path) -> PathBuf {
    beside(path, ".journal")
}

impl Keeper {
    /// Begins the file at `path` with `head`, or resumes it if `resume` is set and there is a
    /// stopped run.
    pub(crate) fn open(path: &Path, header: JournalHeader, head: &[u8], resume: bool) -> Result<RunState> {
        let (book, rows) = (journal(path), partial(path));
        if resume {
            Journal::clear_stump(&book)?;
        }
        if !book.exists() {
            let journal = Journal::create(&book, &header)?;
            return Self::begin(path, journal, header, head).map(|keeper| RunState::Open(Box::new(keeper)));
        }
        // A journal is there. It must be this run's, and resuming must be asked for.
        let (mut journal, (found, end, entries)) = Journal::open(&book)?;
        if !resume {
            let what = if entries.last().is_some_and(|(entry, _)| entry.complete.is_some()) {
                "a finished part of another run is there: give another name, or remove it and its journal"
            } else {
                "a run that was stopped is kept there: add --resume to continue it, or remove its journal to \
                 start again"
            };
            return Err(Failure::new(format!("{}: {what}", book.display())));
        }
        if let Some(difference) = header.difference(&found) {
            let message = format!("--resume: {} belongs to another run: {difference}", book.display());
            return Err(Failure::new(message));
        }
        if (found.shard, found.units) != (header.shard, header.units) {
            let name = |shard: Option<Shard>| {
                shard.map_or_else(|| "a whole run".into(), |shard| format!("part {shard}"))
            };
            let (there, here) = (name(found.shard), name(header.shard));
            let message = format!("--resume: {} belongs to {there}, this is {here}", book.display());
            return Err(Failure::new(message));
        }
        // Killed between naming the result and removing the journal: the result is complete.
        let last = entries.last().map(|(entry, _)| entry);
        if let Some(sum) = last.and_then(|entry| entry.complete.as_deref())
            && !rows.exists()
            && hash_of(path).is_ok_and(|found| found == *sum)
        {
            if header.shard.is_none() {
                journal.remove()?;
            }
            return Ok(RunState::Complete);
        }
        // A record of completion without the result (e.g. it was changed or removed) is dropped. If
        // the partial file is gone too, the run starts from the beginning.
        let entries: Vec<(JournalEntry, u64)> =
            entries.into_iter().filter(|(entry, _)| entry.complete.is_none()).collect();
        if !rows.exists() {
            journal.cut(0, end)?;
            return Self::begin(path, journal, header, head).map(|keeper| RunState::Open(Box::new(keeper)));
        }
        // Cut file and journal back to the last record that the bytes of the file confirm.
        let file =
            OpenOptions::new().read(true).write(true).open(&rows).map_err(|error| fault(&rows, &error))?;
        let sound = sound(&file, head, &entries).map_err(|error| fault(&rows, &error))?;
        journal.cut(sound, sound.checked_sub(1).map_or(end, |last| entries[last].1))?;
        let mut keeper = Self::at(path, file, journal, header);
        match sound.checked_sub(1).map(|last| &entries[last].0) {
            Some(entry) => keeper.go_on(entry)?,
            None => keeper.start(head)?,
        }
        Ok(RunState::Open(Box::new(keeper)))
    }

    /// Begins with an empty partial file.
    fn begin(path: &Path, journal: Journal, header: JournalHeader, head: &[u8]) -> Result<Self> {
        let rows = partial(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&rows);
        let mut keeper = Self::at(path, file.map_err(|error| fault(&rows, &error))?, journal, header);
        match keeper.start(head) {
            Ok(()) => Ok(keeper),
            Err(failure) => Err(keeper.end(failure)),
        }
    }

    fn at(path: &Path, file: File, journal: Journal, header: JournalHeader) -> Self {
        Self {
            path: path.to_owned(),
            file,
            journal,
            header,
            done: 0,
            bytes: 0,
            pending: Vec::new(),
            further: 0,
            note: Value::Null,
            last: Instant::now(),
            pause: SOON,
        }
    }

    /// Resets the file to its head.
    fn start(&mut self, head: &[u8]) -> Result<()> {
        let written = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        let written = written.and_then(|_| self.file.write_all(head));
        written.map_err(|error| fault(&partial(&self.path), &error))?;
        self.bytes = head.len() as u64;
        Ok(())
    }

    /// Cuts the file back to a record and continues from there.
    fn go_on(&mut self, entry: &JournalEntry) -> Result<()> {
        let cut = self.file.set_len(entry.bytes).and_then(|()| self.file.seek(SeekFrom::Start(entry.bytes)));
        cut.map_err(|error| fault(&partial(&self.path), &error))?;
        self.done = entry.done;
        self.bytes = entry.bytes;
        self.note = entry.note.clone();
        Ok(())
    }

    /// Number of units that are done.
    pub(crate) fn done(&self) -> usize {
        self.done + self.further
    }

    /// The path of the rows until they are complete.
    pub(crate) fn rows(&self) -> PathBuf {
        partial(&self.path)
    }

    /// What the command noted with the last unit.
    pub(crate) fn note(&self) -> &Value {
        &self.note
    }

    /// Adds a complete unit; records it if the pause is over or much is pending.
    pub(crate) fn add(&mut self, unit: Unit) -> Result<()> {
        self.pending.extend(unit.bytes);
        self.note = unit.note;
        self.further += 1;
        if self.last.elapsed() >= self.pause || self.pending.len() >= MUCH {
            self.record(None)?;
        }
        Ok(())
    }

    /// Writes and syncs everything pending, then records it in the journal.
    fn record(&mut self, complete: Option<String>) -> Result<()> {
        let written = self.file.write_all(&self.pending).and_then(|()| self.file.sync_data());
        written.map_err(|error| fault(&partial(&self.path), &error))?;
        let entry = JournalEntry {
            done: self.done + self.further,
            bytes: self.bytes + self.pending.len() as u64,
            hash: blake3::hash(&self.pending).to_hex().to_string(),
            note: self.note.clone(),
            complete,
        };
        self.journal.add(&entry)?;
        (self.done, self.bytes, self.further) = (entry.done, entry.bytes, 0);
        self.pending.clear();
        self.last = Instant::now();
        self.pause = (self.pause * 2).min(OFTEN);
        Ok(())
    }

    /// Stops the run early: what is finished is recorded, and the message says how to resume. If
    /// nothing is finished, both files are removed.
    pub(crate) fn end(mut self, failure: Failure) -> Failure {
        // This may fail, e.g. on a full disk; earlier records remain valid.
        let _ = self.record(None);
        if self.done == 0 {
            let _ = fs::remove_file(partial(&self.path));
            let _ = self.journal.remove();
            return failure;
        }
        let (done, units) = (self.done, self.header.units);
        let kept = format!("{done} of {units} are kept in {}", partial(&self.path).display());
        failure.with(&format!("{kept}; to continue: the same command with --resume"))
    }

    /// Completes the run. If the result differs from the rows (Parquet), `finish` makes it from
    /// them and returns its hash; otherwise it returns `None`, and the partial file becomes the
    /// result.
    pub(crate) fn finish(
        mut self,
        finish: impl FnOnce(&Path, &Path) -> Result<Option<String>>,
    ) -> Result<()> {
        let rows = partial(&self.path);
        if self.further > 0 {
            self.record(None)?;
        }
        let path = self.path.clone();
        let made = match finish(&rows, &path) {
            Ok(made) => made,
            Err(failure) => return Err(self.end(failure)),
        };
        let outcome = self.name(&rows, made);
        outcome.map_err(|failure| {
            failure.with("the rows are complete; to continue: the same command with --resume")
        })
    }

    /// Records the hash of the result, then gives the result its name. A kill in between is
    /// detected by `open`, which compares the hash.
    fn name(mut self, rows: &Path, made: Option<String>) -> Result<()> {
        let path = &self.path.clone();
        let sum = match &made {
            Some(sum) => sum.clone(),
            None => hash_of(rows)?,
        };
        self.record(Some(sum))?;
        if made.is_some() {
            fs::remove_file(rows).map_err(|error| fault(rows, &error))?;
        } else {
            keep_mode(path, rows)
                .and_then(|()| fs::rename(rows, path))
                .map_err(|error| fault(path, &error))?;
        }
        match self.header.shard {
            // A part keeps its journal, which states which part it is and that it is complete.
            Some(_) => Ok(()),
            None => self.journal.remove(),
        }
    }
}

/// An error if a signal has requested to stop.
pub(crate) fn check_signals() -> Result<()> {
    stop::requested().map_or(Ok(()), |signal| Err(Failure::Stopped { signal, kept: String::new() }))
}

/// The number of records that the bytes of a partial file confirm.
fn sound(mut file: &File, head: &[u8], entries: &[(JournalEntry, u64)]) -> io::Result<usize> {
    let mut start = vec![0; head.len()];
    if file.read_exact(&mut start).is_err() || start != head {
        return Ok(0);
    }
    let mut at = head.len() as u64;
    for (count, (entry, _)) in entries.iter().enumerate() {
        let Some(length) = entry.bytes.checked_sub(at) else { return Ok(count) };
        let mut hasher = blake3::Hasher::new();
        let read = io::copy(&mut file.take(length), &mut hasher)?;
        if read < length || hasher.finalize().to_hex().as_str() != entry.hash {
            return Ok(count);
        }
        at = entry.bytes;
    }
    Ok(entries.len())
}

/// The hash of a whole file.
pub(crate) fn hash_of(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|mut file| io::copy(&mut file, &mut hasher));
    read.map(|_| hasher.finalize().to_hex().to_string()).map_err(|error| fault(path, &error))
}
