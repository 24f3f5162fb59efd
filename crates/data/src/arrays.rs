//! Samples of any shape from array files: NumPy's .npz and .npy, and safetensors.

use std::path::Path;

use half::f16;

use crate::container::Container;
use crate::error::counted;
use crate::npy::RawArray;
use crate::{Error, Pixel};

/// `N` >= 1 samples of one shape, in the element type of their file, with labels if the file has
/// them.
#[derive(Clone, PartialEq)]
pub struct Arrays {
    name: String,
    /// Shape of one sample.
    shape: Vec<usize>,
    numbers: Elements,
    labels: Option<Vec<usize>>,
}

/// The elements of all samples.
#[derive(Debug, Clone, PartialEq)]
enum Elements {
    Bytes(Vec<u8>),
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Arrays {
    /// Reads `images` `[N, ...]` and, if present, `labels` `[N]` from a .npz or safetensors file,
    /// or the only array of a .npy file.
    ///
    /// Images are float32, float64, float16 or uint8, of any rank; labels are integers from 0. The
    /// format is recognised by the first bytes of the file, not by its name.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the byte offset if the file has none of these formats, is damaged,
    /// or lacks these arrays; [`Error::Io`] if it cannot be read.
    pub fn open(file: &Path) -> Result<Self, Error> {
        let corrupt = |(offset, why)| Error::Corrupt { file: file.to_path_buf(), offset, why };
        let container = Container::open(file)?;
        let images = match container.get("images").map_err(corrupt)? {
            Some(images) => images,
            None => {
                let names = container.names().map_err(corrupt)?.join(", ");
                return Err(corrupt((0, format!("there is no array \"images\", but {names}"))));
            }
        };
        let labels = if container.is_single() { None } else { container.get("labels").map_err(corrupt)? };
        Self::of(file, images, labels).map_err(|why| corrupt((0, why)))
    }

    /// Checks shapes and types of the arrays and converts their elements.
    fn of(file: &Path, images: RawArray, labels: Option<RawArray>) -> Result<Self, String> {
        let name = file.file_stem().unwrap_or(file.as_os_str()).display().to_string();
        let Some((&count, shape)) = images.shape.split_first().filter(|(count, _)| **count > 0) else {
            return Err(format!("images of shape {:?}: at least one sample is needed", images.shape));
        };
        if shape.contains(&0) {
            return Err(format!("samples of shape {shape:?} have no elements"));
        }
        let labels = labels.map(|raw| numbers_of_labels(&raw, count)).transpose()?;
        let (shape, numbers) = (shape.to_vec(), numbers(images)?);
        Ok(Self { name, shape, numbers, labels })
    }

    /// The file's name without its extension.
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
            Elements::Bytes(all) => all.len(),
            Elements::Single(all) => all.len(),
            Elements::Double(all) => all.len(),
        };
        count / self.size()
    }

    /// Always false: there is at least one sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The label of each sample, if the file has labels.
    #[must_use]
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// Keeps only the first `len` samples, but at least one.
    pub fn truncate(&mut self, len: usize) {
        let len = len.clamp(1, self.len());
        let count = len * self.size();
        match &mut self.numbers {
            Elements::Bytes(all) => all.truncate(count),
            Elements::Single(all) => all.truncate(count),
            Elements::Double(all) => all.truncate(count),
        }
        if let Some(labels) = &mut self.labels {
            labels.truncate(len);
        }
    }

    /// The samples with these indices, concatenated: `[indices.len(), ...shape]`. Floats are
    /// rounded to the requested type, bytes become byte / 255.
    ///
    /// # Panics
    /// If an index is not less than [`len`](Self::len), as indexing does.
    #[must_use]
    pub fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        let mut values = Vec::with_capacity(indices.len() * self.size());
        for range in indices.iter().map(|&index| index * self.size()..(index + 1) * self.size()) {
            match &self.numbers {
                Elements::Bytes(all) => values.extend(all[range].iter().map(|&byte| T::scaled(byte))),
                Elements::Single(all) => values.extend(all[range].iter().map(|&x| T::of(x.into()))),
                Elements::Double(all) => values.extend(all[range].iter().map(|&x| T::of(x))),
            }
        }
        values
    }

    /// The number of elements of one sample.
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

/// Converts the elements of the images: f16 to f32, the other types unchanged.
fn numbers(raw: RawArray) -> Result<Elements, String> {
    fn of<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
    }
    match raw.kind {
        ('u', 1) => Ok(Elements::Bytes(raw.bytes)),
        ('f', 2) => Ok(Elements::Single(of(&raw.bytes, |bytes| f16::from_le_bytes(bytes).to_f32()))),
        ('f', 4) => Ok(Elements::Single(of(&raw.bytes, f32::from_le_bytes))),
        ('f', 8) => Ok(Elements::Double(of(&raw.bytes, f64::from_le_bytes))),
        (kind, bytes) => Err(format!(
            "images of type {kind}{bytes}: give float16, float32 or float64, or uint8 in 0 to 255"
        )),
    }
}

/// Converts the labels, which must be one per sample.
fn numbers_of_labels(raw: &RawArray, count: usize) -> Result<Vec<usize>, String> {
    let labels = match raw.shape[..] {
        [labels] | [labels, 1] => labels,
        _ => return Err(format!("labels of shape {:?}: one label per sample is needed", raw.shape)),
    };
    if labels != count {
        let (labels, samples) = (counted(labels, "label", "labels"), counted(count, "sample", "samples"));
        return Err(format!("{labels} for {samples}"));
    }
    let (kind, width) = raw.kind;
    if kind == 'f' || kind == 'b' {
        return Err("labels are whole numbers from 0: save them as integers".into());
    }
    // Little-endian integers of 1 to 8 bytes; the sign is the top bit of the last byte.
    let label = |(index, bytes): (usize, &[u8])| {
        let negative = kind == 'i' && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let number = bytes.iter().rev().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        let label = usize::try_from(number).ok().filter(|_| !negative);
        label.ok_or_else(|| format!("the label of sample {index} is negative: classes count from 0"))
    };
    raw.bytes.chunks_exact(width).enumerate().map(label).collect()
}
