//! Files of named arrays: NumPy's .npz, safetensors, or a .npy with a single array without a name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::bufread::DeflateDecoder;
use rawzip::{CompressionMethod, ZipArchive};
use safetensors::{Dtype, SafeTensors};

use crate::Error;
use crate::npy::{self, OffsetFault, RawArray};

/// The file's bytes. The format is recognised by the first of them, not by the file's name.
#[derive(Debug)]
pub(crate) struct Container(Vec<u8>);

impl Container {
    /// Reads the whole file.
    pub(crate) fn open(file: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { file: file.to_path_buf(), source };
        let mut bytes = Vec::new();
        File::open(file).and_then(|mut opened| opened.read_to_end(&mut bytes)).map_err(io)?;
        Ok(Self(bytes))
    }

    /// The array with this name, if there is one. The array of a .npy file matches every name.
    pub(crate) fn get(&self, name: &str) -> Result<Option<RawArray>, OffsetFault> {
        let bytes = &self.0[..];
        if self.is_single() {
            npy::read(bytes).map(Some)
        } else if self.is_zip() {
            Ok(zipped(bytes, name)?.0)
        } else {
            tensor(bytes, name)
        }
    }

    /// Whether the file is a .npy: one array without a name.
    pub(crate) fn is_single(&self) -> bool {
        self.0.starts_with(npy::MAGIC)
    }

    /// The names of all arrays.
    pub(crate) fn names(&self) -> Result<Vec<String>, OffsetFault> {
        if self.is_single() {
            return Ok(Vec::new());
        }
        if self.is_zip() {
            return Ok(zipped(&self.0, "")?.1);
        }
        let mut names: Vec<String> = tensors(&self.0)?.names().into_iter().map(str::to_owned).collect();
        // The library returns them in arbitrary order.
        names.sort();
        Ok(names)
    }

    fn is_zip(&self) -> bool {
        self.0.starts_with(b"PK")
    }
}

/// The wanted array of a zip archive of .npy files, if it has it, and the names of all arrays.
fn zipped(bytes: &[u8], wanted: &str) -> Result<(Option<RawArray>, Vec<String>), OffsetFault> {
    let damaged = |error: rawzip::Error| (0, format!("a damaged .npz archive: {error}"));
    let archive = ZipArchive::from_slice(bytes).map_err(damaged)?;
    let (mut array, mut names) = (None, Vec::new());
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        let file = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        let name = file.trim_end_matches(".npy");
        names.push(name.to_owned());
        if name != wanted {
            continue;
        }
        // The checksum of the entry is verified while its array is read.
        let (method, local) = (entry.compression_method(), archive.get_entry(entry.wayfinder()));
        let local = local.map_err(damaged)?;
        let reader: Box<dyn Read + '_> = match method {
            CompressionMethod::STORE => Box::new(local.data()),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(local.data())),
            other => return Err((0, format!("{file} is compressed by method {other:?}: use deflate"))),
        };
        let found = npy::read(local.verifying_reader(reader));
        array = Some(found.map_err(|(offset, why)| (offset, format!("{file}: {why}")))?);
    }
    Ok((array, names))
}

fn tensors(bytes: &[u8]) -> Result<SafeTensors<'_>, OffsetFault> {
    SafeTensors::deserialize(bytes).map_err(|error| {
        (0, format!("this is not a .npz, .npy or safetensors file, or it is damaged: {error}"))
    })
}

/// An array of a safetensors file.
fn tensor(bytes: &[u8], name: &str) -> Result<Option<RawArray>, OffsetFault> {
    let file = tensors(bytes)?;
    let Ok(view) = file.tensor(name) else { return Ok(None) };
    let kind = match view.dtype() {
        Dtype::F32 => ('f', 4),
        Dtype::F64 => ('f', 8),
        Dtype::F16 => ('f', 2),
        Dtype::U8 => ('u', 1),
        Dtype::U16 => ('u', 2),
        Dtype::U32 => ('u', 4),
        Dtype::U64 => ('u', 8),
        Dtype::I8 => ('i', 1),
        Dtype::I16 => ('i', 2),
        Dtype::I32 => ('i', 4),
        Dtype::I64 => ('i', 8),
        other => return Err((0, format!("\"{name}\" has the type {other:?}"))),
    };
    Ok(Some(RawArray { shape: view.shape().to_vec(), kind, bytes: view.data().to_vec() }))
}
