//! The source of weights: a file or memory, read by byte ranges, and errors that name it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::json::FormatFault;
use crate::Error;

/// Where to read weights from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// The bytes of a file, e.g. embedded in the program.
    Bytes {
        /// Its name in messages.
        name: &'a str,
        /// Its contents.
        bytes: &'a [u8],
    },
}

impl<'a> From<&'a Path> for Source<'a> {
    fn from(path: &'a Path) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a PathBuf> for Source<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::File(path)
    }
}

impl<'a> From<&'a str> for Source<'a> {
    /// The file at this path.
    fn from(path: &'a str) -> Self {
        Self::File(Path::new(path))
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes { name: "weights in memory", bytes }
    }
}

enum Contents<'a> {
    File(File),
    Bytes(&'a [u8]),
}

/// An opened source.
pub(super) struct Input<'a> {
    /// Its name in messages.
    pub(super) name: String,
    /// The format as which it is read, for messages.
    pub(super) format: &'static str,
    /// Its length in bytes.
    pub(super) length: u64,
    data: Contents<'a>,
}

impl<'a> Input<'a> {
    pub(super) fn open(source: Source<'a>, format: &'static str) -> Result<Self, Error> {
        match source {
            Source::File(path) => open_file(path, format),
            Source::Bytes { name, bytes } => Ok(Self {
                name: name.to_owned(),
                format,
                length: bytes.len() as u64,
                data: Contents::Bytes(bytes),
            }),
        }
    }

    /// Copies a range of the file into `buffer`. The range is checked against the length of the
    /// file first, so `buffer` never grows beyond it.
    pub(super) fn fetch(&mut self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        if range.end > self.length {
            let beyond = range.end - self.length;
            return self.corrupt(self.length, format!("the file is cut short: it lacks {beyond} bytes"));
        }
        let Ok(length) = usize::try_from(range.end - range.start) else {
            return self.corrupt(range.start, "more bytes than this machine can address");
        };
        buffer.clear();
        let outcome = match &mut self.data {
            Contents::Bytes(bytes) => {
                let start = usize::try_from(range.start).unwrap_or(usize::MAX);
                match bytes.get(start..start.saturating_add(length)) {
                    Some(slice) => {
                        buffer.extend_from_slice(slice);
                        Ok(())
                    }
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Contents::File(file) => file.seek(SeekFrom::Start(range.start)).and_then(|_| {
                buffer.resize(length, 0);
                file.read_exact(buffer)
            }),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self
                .corrupt(range.start, format!("the file ends before the {length} bytes that begin here do")),
            Err(source) => Err(Error::Io { file: self.name.clone(), action: "read", source }),
        }
    }

    /// [`Error::Corrupt`] at a byte of the file.
    pub(super) fn corrupt<T>(&self, offset: u64, why: impl Into<String>) -> Result<T, Error> {
        Err(Error::Corrupt { file: self.name.clone(), format: self.format, offset, why: why.into() })
    }

    /// [`Error::Corrupt`] for a fault within a part of the file that begins at byte `start`.
    pub(super) fn at<T>(&self, start: u64, fault: FormatFault) -> Result<T, Error> {
        self.corrupt(start.saturating_add(fault.offset as u64), fault.why)
    }
}

fn open_file(path: &Path, format: &'static str) -> Result<Input<'static>, Error> {
    let name = path.display().to_string();
    let refused = |source| Error::Io { file: name.clone(), action: "open", source };
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    let input = Input { name, format, length: metadata.len(), data: Contents::File(file) };
    if metadata.is_file() { Ok(input) } else { input.corrupt(0, "this is a folder or a device, not a file") }
}
