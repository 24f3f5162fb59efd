//! A safetensors file, its header checked whole, its tensors read one at a time.
//!
//! The format: eight bytes that give the length n of the header (little-endian), n bytes of JSON (name to
//! type, shape and byte range), then the tensors' bytes, without hole or overlap up to the end of the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::describe::{Description, describe};
use super::header;
use super::json::Fault;
use super::{Dtype, Precision};
use crate::Error;
use crate::nearest::nearest;

/// Bytes before the header.
const PREFIX: u64 = 8;
/// The longest header that is read (the limit of the format's own library).
const LONGEST_HEADER: u64 = 100_000_000;

/// Where to read weights from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file.
    File(&'a Path),
    /// The bytes of a file, for instance embedded in the program.
    Bytes {
        /// What messages call it.
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

/// What the header says of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, as the file has it.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub(super) bytes: Range<u64>,
}

/// A tensor's elements in the precision asked for, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

/// A tensor's elements, and the first one that is not finite: its index, and its value in the file.
type Read1 = (Values, Option<(usize, f64)>);

enum Data<'a> {
    File(File),
    Bytes(&'a [u8]),
}

/// A safetensors file, opened and checked.
pub struct Checkpoint<'a> {
    file: String,
    data: Data<'a>,
    tensors: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Checkpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("file", &self.file).field("tensors", &self.tensors.len()).finish()
    }
}

impl<'a> Checkpoint<'a> {
    /// Opens a file and checks its header; no tensor is read.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the system refuses, [`Error::Corrupt`] where the file is not what the format asks
    /// for.
    pub fn open(source: impl Into<Source<'a>>) -> Result<Self, Error> {
        let (file, data, length) = match source.into() {
            Source::File(path) => open_file(path)?,
            Source::Bytes { name, bytes } => (name.to_owned(), Data::Bytes(bytes), bytes.len() as u64),
        };
        let mut checkpoint =
            Self { file, data, tensors: Vec::new(), metadata: BTreeMap::new(), scratch: Vec::new() };
        checkpoint.read_header(length)?;
        Ok(checkpoint)
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The tensors in the order of the header.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The header's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The network of this crate that its names and shapes imply, if they imply one.
    pub fn describe(&self) -> Option<Description> {
        describe(self.tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..])))
    }

    /// Reads one tensor.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchTensor`], [`Error::NotFloat`], [`Error::NonFinite`] for NaN, infinity and what the
    /// precision cannot hold; [`Error::Corrupt`] or [`Error::Io`] where the file has changed since it was
    /// opened.
    pub fn read(&mut self, name: &str, precision: Precision) -> Result<Values, Error> {
        let Some(index) = self.tensors.iter().position(|tensor| tensor.name == name) else {
            let nearest = nearest(name, self.tensors.iter().map(|tensor| tensor.name.as_str()));
            return Err(Error::NoSuchTensor {
                file: self.file.clone(),
                name: name.to_owned(),
                nearest: nearest.map(str::to_owned),
            });
        };
        match self.read_at(index, precision)? {
            (values, None) => Ok(values),
            (_, Some((first, value))) => Err(Error::NonFinite {
                file: self.file.clone(),
                tensor: name.to_owned(),
                index: first,
                value,
                precision,
                others: 0,
            }),
        }
    }

    /// Reads the tensor at `index` of [`tensors`](Self::tensors).
    pub(super) fn read_at(&mut self, index: usize, precision: Precision) -> Result<Read1, Error> {
        let tensor = &self.tensors[index];
        let dtype = tensor.dtype;
        if !dtype.is_float() {
            return Err(Error::NotFloat {
                file: self.file.clone(),
                name: tensor.name.clone(),
                dtype: dtype.name(),
            });
        }
        let range = tensor.bytes.clone();
        let mut bytes = std::mem::take(&mut self.scratch);
        let outcome = self.fetch(range, &mut bytes).map(|()| convert(dtype, &bytes, precision));
        self.scratch = bytes;
        outcome
    }

    /// Copies a range of the file into `buffer`.
    fn fetch(&mut self, range: Range<u64>, buffer: &mut Vec<u8>) -> Result<(), Error> {
        let Ok(length) = usize::try_from(range.end - range.start) else {
            return self.corrupt(range.start, "more bytes than this machine can address");
        };
        buffer.clear();
        let outcome = match &mut self.data {
            Data::Bytes(bytes) => {
                let start = usize::try_from(range.start).unwrap_or(usize::MAX);
                match bytes.get(start..start.saturating_add(length)) {
                    Some(slice) => {
                        buffer.extend_from_slice(slice);
                        Ok(())
                    }
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Data::File(file) => file.seek(SeekFrom::Start(range.start)).and_then(|_| {
                buffer.resize(length, 0);
                file.read_exact(buffer)
            }),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self
                .corrupt(range.start, format!("the file ends before the {length} bytes that begin here do")),
            Err(source) => Err(Error::Io { file: self.file.clone(), action: "read", source }),
        }
    }

    fn read_header(&mut self, length: u64) -> Result<(), Error> {
        if length < PREFIX {
            return self.corrupt(length, "the file ends within the 8 bytes that give the header's length");
        }
        let mut bytes = Vec::new();
        self.fetch(0..PREFIX, &mut bytes)?;
        let header = bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let wrong = if header == 0 {
            "the header is empty".to_owned()
        } else if header > LONGEST_HEADER {
            format!("a header of {header} bytes is announced: at most {LONGEST_HEADER}{}", guess(&bytes))
        } else if header > length - PREFIX {
            format!("a header of {header} bytes is announced, the file has {length}{}", guess(&bytes))
        } else {
            String::new()
        };
        if !wrong.is_empty() {
            return self.corrupt(0, wrong);
        }
        let data = PREFIX + header;
        self.fetch(PREFIX..data, &mut bytes)?;
        match header::read(&bytes, data, length) {
            Ok((tensors, metadata)) => {
                (self.tensors, self.metadata) = (tensors, metadata);
                Ok(())
            }
            Err(Fault { offset, why }) => self.corrupt(PREFIX + offset as u64, why),
        }
    }

    fn corrupt<T>(&self, offset: u64, why: impl Into<String>) -> Result<T, Error> {
        Err(Error::Corrupt { file: self.file.clone(), offset, why: why.into() })
    }
}

fn open_file(path: &Path) -> Result<(String, Data<'static>, u64), Error> {
    let name = path.display().to_string();
    let refused = |source| Error::Io { file: name.clone(), action: "open", source };
    let file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    if !metadata.is_file() {
        let why = "this is a folder or a device, not a file".to_owned();
        return Err(Error::Corrupt { file: name, offset: 0, why });
    }
    Ok((name, Data::File(file), metadata.len()))
}

/// What a file that is no safetensors file may be, from its first eight bytes.
fn guess(start: &[u8]) -> &'static str {
    match start {
        [b'P', b'K', 3, 4, ..] => " (a zip archive, perhaps PyTorch's .pt: convert it to safetensors)",
        [0x80, 2..=5, ..] => " (a Python pickle, perhaps PyTorch's old .pt: convert it to safetensors)",
        [0x1f, 0x8b, ..] => " (compressed by gzip: unpack it)",
        [b'<', ..] => " (an HTML page, perhaps an error page instead of a download)",
        b"version " => " (a Git LFS pointer: fetch the file itself)",
        _ => "",
    }
}

fn convert(dtype: Dtype, bytes: &[u8], precision: Precision) -> Read1 {
    let mut first = None;
    let mut note = |index: usize, value: f64, finite: bool| {
        if !finite && first.is_none() {
            first = Some((index, value));
        }
    };
    let elements = dtype.decode(bytes).enumerate();
    let mut values = match precision {
        Precision::F32 => Values::F32(Vec::new()),
        Precision::F64 => Values::F64(Vec::new()),
    };
    let count = bytes.len() * 8 / dtype.bits() as usize;
    match &mut values {
        Values::F32(values) => {
            values.reserve_exact(count);
            values.extend(elements.map(|(index, value)| {
                // Rounds to the nearest; what is beyond f32 becomes infinite and is noted.
                let single = value as f32;
                note(index, value, single.is_finite());
                single
            }));
        }
        Values::F64(values) => {
            values.reserve_exact(count);
            values.extend(elements.map(|(index, value)| {
                note(index, value, value.is_finite());
                value
            }));
        }
    }
    (values, first)
}
