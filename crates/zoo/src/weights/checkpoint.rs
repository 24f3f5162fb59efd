//! A weight file: its directory of tensors is checked completely when it is opened, the tensors
//! themselves are read one at a time.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::FloatDType;

use super::describe::{Description, describe};
use super::input::{Input, Source};
use super::layout::ElementOrder;
use super::{Dtype, foreign, header, torch};
use crate::Error;
use crate::nearest::nearest;

/// The most tensors a file may have: more than any network has, few enough for a small directory in
/// memory.
pub(super) const MOST_TENSORS: usize = 1 << 16;
/// The most axes of a tensor.
pub(super) const MOST_AXES: usize = 16;

/// The description of a tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The range of its bytes in the file. For a view, the range from its first element to its
    /// last.
    pub(super) bytes: Range<u64>,
    /// The order of its elements in that range.
    pub(super) layout: ElementOrder,
}

/// A tensor's elements in the requested precision, in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
}

impl Values {
    /// An empty list of elements of this type.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPrecision`] for another type than f32 and f64.
    pub(super) fn empty(precision: FloatDType) -> Result<Self, Error> {
        match precision {
            FloatDType::F32 => Ok(Self::F32(Vec::new())),
            FloatDType::F64 => Ok(Self::F64(Vec::new())),
            _ => Err(Error::NoSuchPrecision { precision }),
        }
    }
}

/// A tensor's elements, and the first one that is not finite: its index, and its value in the file.
type ReadTensor = (Values, Option<(usize, f64)>);

/// A weight file, opened and checked.
pub struct Checkpoint<'a> {
    input: Input<'a>,
    tensors: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Checkpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint")
            .field("file", &self.input.name)
            .field("tensors", &self.tensors.len())
            .finish()
    }
}

impl<'a> Checkpoint<'a> {
    /// Opens a file and checks its directory; no tensor is read. The format (safetensors, or what
    /// PyTorch's `torch.save` writes for a `state_dict`) is recognised by the first bytes, whatever
    /// the name of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] from the system, [`Error::Corrupt`] if the file violates its format,
    /// [`Error::NotWeights`] if it is of another known kind; for PyTorch's files also
    /// [`Error::Foreign`] and [`Error::TorchScript`] if they contain more than weights, and
    /// [`Error::StateDict`] if they do not contain exactly one dict of tensors.
    pub fn open(source: impl Into<Source<'a>>) -> Result<Self, Error> {
        let mut input = Input::open(source.into(), "safetensors")?;
        let mut start = Vec::new();
        input.fetch(0..input.length.min(foreign::START), &mut start)?;
        let (tensors, metadata) = if torch::is_torch(&start) {
            input.format = "PyTorch";
            (torch::open(&mut input)?, BTreeMap::new())
        } else if let Some((what, remedy)) = foreign::recognise(&start) {
            return Err(Error::NotWeights { file: input.name, what, remedy });
        } else {
            header::open(&mut input)?
        };
        Ok(Self { input, tensors, metadata, scratch: Vec::new() })
    }

    /// The file's name, for messages.
    pub fn file(&self) -> &str {
        &self.input.name
    }

    /// The tensors in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The header's `__metadata__`; PyTorch's files have none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The network of this crate that the names and shapes imply, if any.
    pub fn describe(&self) -> Option<Description> {
        describe(self.tensors.iter().map(|tensor| (tensor.name.as_str(), &tensor.shape[..])))
    }

    /// Reads one tensor.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPrecision`] unless `precision` is f32 or f64; [`Error::NoSuchTensor`],
    /// [`Error::NotFloat`], [`Error::NonFinite`] for NaN, infinity and values beyond the range of
    /// the precision; [`Error::Corrupt`] or [`Error::Io`] if the file has changed since it was
    /// opened.
    pub fn read(&mut self, name: &str, precision: FloatDType) -> Result<Values, Error> {
        let Some(index) = self.tensors.iter().position(|tensor| tensor.name == name) else {
            let nearest = nearest(name, self.tensors.iter().map(|tensor| tensor.name.as_str()));
            return Err(Error::NoSuchTensor {
                file: self.input.name.clone(),
                name: name.to_owned(),
                nearest: nearest.map(str::to_owned),
            });
        };
        match self.read_at(index, precision)? {
            (values, None) => Ok(values),
            (_, Some((first, value))) => Err(Error::NonFinite {
                file: self.input.name.clone(),
                tensor: name.to_owned(),
                index: first,
                value,
                precision,
                others: 0,
            }),
        }
    }

    /// Reads the tensor at `index` of [`tensors`](Self::tensors).
    pub(super) fn read_at(&mut self, index: usize, precision: FloatDType) -> Result<ReadTensor, Error> {
        let tensor = &self.tensors[index];
        let dtype = tensor.dtype;
        if !dtype.is_float() {
            return Err(Error::NotFloat {
                file: self.input.name.clone(),
                name: tensor.name.clone(),
                dtype: dtype.name(),
            });
        }
        self.input.fetch(tensor.bytes.clone(), &mut self.scratch)?;
        tensor.layout.settle(&tensor.shape, dtype, &mut self.scratch);
        Ok(convert(dtype, &self.scratch, Values::empty(precision)?))
    }
}

/// Appends the elements of a tensor to `values`, which is empty.
fn convert(dtype: Dtype, bytes: &[u8], mut values: Values) -> ReadTensor {
    let mut first = None;
    let mut note = |index: usize, value: f64, finite: bool| {
        if !finite && first.is_none() {
            first = Some((index, value));
        }
    };
    let elements = dtype.decode(bytes).enumerate();
    let count = bytes.len() * 8 / dtype.bits() as usize;
    match &mut values {
        Values::F32(values) => {
            values.reserve_exact(count);
            values.extend(elements.map(|(index, value)| {
                // Rounds to nearest; values beyond f32 become infinite and are noted.
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
