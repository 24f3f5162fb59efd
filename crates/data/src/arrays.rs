//! Samples of any shape out of files of arrays: NumPy's .npz and .npy, and safetensors.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::bufread::DeflateDecoder;
use half::f16;
use rawzip::{CompressionMethod, ZipArchive};
use safetensors::{Dtype, SafeTensors};

use crate::error::counted;
use crate::npy::{self, Raw};
use crate::{Error, Pixel};

/// `N` samples of one shape, in the type in which their file has them, with their labels if it has
/// some; `N` is at least 1.
#[derive(Clone, PartialEq)]
pub struct Arrays {
    name: String,
    /// Of one sample.
    shape: Vec<usize>,
    numbers: Numbers,
    labels: Option<Vec<usize>>,
}

/// The elements of all samples.
#[derive(Debug, Clone, PartialEq)]
enum Numbers {
    Bytes(Vec<u8>),
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Arrays {
    /// Reads `images` `[N, ...]` and, if they are there, `labels` `[N]`, out of a .npz or safetensors
    /// file; or the one array of a .npy file.
    ///
    /// Images are float32, float64, float16 or uint8, of any rank; labels are integers from 0. Which
    /// format it is the file's first bytes tell, not its name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the byte where the fault shows when the file is none of these, damaged,
    /// or has no such arrays; [`Error::Io`] when it cannot be read.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { file: file.to_path_buf(), source };
        let mut bytes = Vec::new();
        File::open(file).and_then(|mut opened| opened.read_to_end(&mut bytes)).map_err(io)?;
        let corrupt = |(offset, why)| Error::Corrupt { file: file.to_path_buf(), offset, why };
        let (images, labels) = if bytes.starts_with(npy::MAGIC) {
            (npy::read(&bytes[..]).map_err(corrupt)?, None)
        } else if bytes.starts_with(b"PK") {
            zipped(&bytes).map_err(corrupt)?
        } else {
            tensors(&bytes).map_err(corrupt)?
        };
        Self::of(file, images, labels).map_err(|why| corrupt((0, why)))
    }

    /// The samples in arrays.
    fn of(file: &Path, images: Raw, labels: Option<Raw>) -> Result<Self, String> {
        let name = file.file_stem().unwrap_or(file.as_os_str()).display().to_string();
        let Some((&count, shape)) = images.shape.split_first().filter(|(count, _)| **count > 0) else {
            return Err(format!("images of shape {:?}: at least one sample is needed", images.shape));
        };
        if shape.contains(&0) {
            return Err(format!("samples of shape {shape:?} hold nothing"));
        }
        let labels = labels.map(|raw| numbers_of_labels(&raw, count)).transpose()?;
        let (shape, numbers) = (shape.to_vec(), numbers(images)?);
        Ok(Self { name, shape, numbers, labels })
    }

    /// The file's name without its ending.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of one sample.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of samples.
    #[must_use]
    pub fn len(&self) -> usize {
        let count = match &self.numbers {
            Numbers::Bytes(all) => all.len(),
            Numbers::Single(all) => all.len(),
            Numbers::Double(all) => all.len(),
        };
        count / self.size()
    }

    /// Whether there is no sample: never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The label of each sample, if the file has labels.
    #[must_use]
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// Lets go of the samples behind the first `len`, of which one stays at least.
    pub fn truncate(&mut self, len: usize) {
        let len = len.clamp(1, self.len());
        let count = len * self.size();
        match &mut self.numbers {
            Numbers::Bytes(all) => all.truncate(count),
            Numbers::Single(all) => all.truncate(count),
            Numbers::Double(all) => all.truncate(count),
        }
        if let Some(labels) = &mut self.labels {
            labels.truncate(len);
        }
    }

    /// The samples of these indices one after the other, `[indices.len(), ...shape]`: floats as they
    /// are, rounded to the type asked for, and bytes as byte / 255.
    ///
    /// # Panics
    /// If an index is not less than [`len`](Self::len), as indexing does.
    #[must_use]
    pub fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        let mut values = Vec::with_capacity(indices.len() * self.size());
        for range in indices.iter().map(|&index| index * self.size()..(index + 1) * self.size()) {
            match &self.numbers {
                Numbers::Bytes(all) => values.extend(all[range].iter().map(|&byte| T::scaled(byte))),
                Numbers::Single(all) => values.extend(all[range].iter().map(|&x| T::of(x.into()))),
                Numbers::Double(all) => values.extend(all[range].iter().map(|&x| T::of(x))),
            }
        }
        values
    }

    /// The elements of one sample.
    fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

impl std::fmt::Debug for Arrays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arrays")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("shape", &self.shape)
            .field("labelled", &self.labels.is_some())
            .finish_non_exhaustive()
    }
}

/// `images` and `labels` out of a zip archive of .npy files.
fn zipped(bytes: &[u8]) -> Result<(Raw, Option<Raw>), npy::Fault> {
    let damaged = |error: rawzip::Error| (0, format!("a damaged .npz archive: {error}"));
    let archive = ZipArchive::from_slice(bytes).map_err(damaged)?;
    let (mut images, mut labels, mut names) = (None, None, Vec::new());
    let mut entries = archive.entries();
    while let Some(entry) = entries.next_entry().map_err(damaged)? {
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        let array = match name.as_str() {
            "images.npy" => &mut images,
            "labels.npy" => &mut labels,
            _ => {
                names.push(name.trim_end_matches(".npy").to_owned());
                continue;
            }
        };
        let (method, local) = (entry.compression_method(), archive.get_entry(entry.wayfinder()));
        let local = local.map_err(damaged)?;
        let reader: Box<dyn Read + '_> = match method {
            CompressionMethod::STORE => Box::new(local.data()),
            CompressionMethod::DEFLATE => Box::new(DeflateDecoder::new(local.data())),
            other => return Err((0, format!("{name} is compressed by method {other:?}: use deflate"))),
        };
        let found = npy::read(local.verifying_reader(reader));
        *array = Some(found.map_err(|(offset, why)| (offset, format!("{name}: {why}")))?);
    }
    let missing = || (0, format!("there is no array \"images\", but {}", names.join(", ")));
    Ok((images.ok_or_else(missing)?, labels))
}

/// `images` and `labels` out of safetensors.
fn tensors(bytes: &[u8]) -> Result<(Raw, Option<Raw>), npy::Fault> {
    let file = SafeTensors::deserialize(bytes).map_err(|error| {
        (0, format!("this is no .npz, .npy or safetensors file, or it is damaged: {error}"))
    })?;
    let array = |name: &str| {
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
            other => return Err((0, format!("\"{name}\" is of type {other:?}"))),
        };
        Ok(Some(Raw { shape: view.shape().to_vec(), kind, bytes: view.data().to_vec() }))
    };
    let names = || file.names().into_iter().collect::<Vec<_>>().join(", ");
    let missing = || (0, format!("there is no tensor \"images\", but {}", names()));
    Ok((array("images")?.ok_or_else(missing)?, array("labels")?))
}

/// The images' elements in a type that we keep.
fn numbers(raw: Raw) -> Result<Numbers, String> {
    fn of<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
    }
    match raw.kind {
        ('u', 1) => Ok(Numbers::Bytes(raw.bytes)),
        ('f', 2) => Ok(Numbers::Single(of(&raw.bytes, |bytes| f16::from_le_bytes(bytes).to_f32()))),
        ('f', 4) => Ok(Numbers::Single(of(&raw.bytes, f32::from_le_bytes))),
        ('f', 8) => Ok(Numbers::Double(of(&raw.bytes, f64::from_le_bytes))),
        (kind, bytes) => Err(format!(
            "images of type {kind}{bytes}: give float16, float32 or float64, or uint8 in 0 to 255"
        )),
    }
}

/// Labels as numbers, one a sample.
fn numbers_of_labels(raw: &Raw, count: usize) -> Result<Vec<usize>, String> {
    let labels = match raw.shape[..] {
        [labels] | [labels, 1] => labels,
        _ => return Err(format!("labels of shape {:?}: one number a sample is needed", raw.shape)),
    };
    if labels != count {
        let (labels, samples) = (counted(labels, "label", "labels"), counted(count, "sample", "samples"));
        return Err(format!("{labels} for {samples}"));
    }
    let (kind, width) = raw.kind;
    if kind == 'f' || kind == 'b' {
        return Err("labels are whole numbers from 0: save them as integers".into());
    }
    let label = |(index, bytes): (usize, &[u8])| {
        let negative = kind == 'i' && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let number = bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        let label = usize::try_from(number).ok().filter(|_| !negative);
        label.ok_or_else(|| format!("the label of sample {index} is negative: classes count from 0"))
    };
    raw.bytes.chunks_exact(width).enumerate().map(label).collect()
}
