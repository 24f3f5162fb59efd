//! The contents of a pickle of weights, as plain data. Values refer to each other by index, so
//! nothing here is recursive, however deep or cyclic the pickle is.

use crate::weights::Dtype;

/// One value. Containers, storages and tensors are indices into [`Objects`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum PickleValue<'a> {
    None,
    Bool(bool),
    Integer(i64),
    Text(&'a str),
    Tuple(usize),
    List(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
    Global(Global),
    /// Something that is not part of a tensor, with its description for messages.
    Other(&'static str),
}

impl PickleValue<'_> {
    /// What it is, for messages.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) => "a number",
            Self::Text(_) => "a text",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Global(_) => "a class",
            Self::Other(kind) => kind,
        }
    }
}

/// The Python names that weight files need. They are only compared as text and never executed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    /// A tensor on an untyped storage.
    RebuildTyped,
    RebuildParameter,
    RebuildQuantised,
    RebuildSparse,
    /// A tensor without values.
    RebuildMeta,
    Size,
    Layout,
    Device,
    /// A quantisation scheme.
    Scheme,
    /// A storage class, by its element type.
    Storage(Dtype),
    /// An element type.
    Type(Dtype),
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v3") => Some(Self::RebuildTyped),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Some(Self::RebuildParameter)
            }
            ("torch._utils", "_rebuild_qtensor") => Some(Self::RebuildQuantised),
            ("torch._utils", "_rebuild_sparse_tensor") => Some(Self::RebuildSparse),
            ("torch._utils", "_rebuild_meta_tensor_no_storage") => Some(Self::RebuildMeta),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("torch.serialization", "_get_layout") => Some(Self::Layout),
            ("torch.storage", "UntypedStorage") => Dtype::parse("U8").map(Self::Storage),
            ("torch", "per_tensor_affine" | "per_channel_affine" | "per_channel_affine_float_qparams") => {
                Some(Self::Scheme)
            }
            ("torch", _) => elements(name).map(Self::Storage).or_else(|| element(name).map(Self::Type)),
            _ => None,
        }
    }
}

/// The element type of a storage class of PyTorch, e.g. `torch.FloatStorage`.
fn elements(storage: &str) -> Option<Dtype> {
    Dtype::parse(match storage {
        "HalfStorage" => "F16",
        "BFloat16Storage" => "BF16",
        "FloatStorage" => "F32",
        "DoubleStorage" => "F64",
        "BoolStorage" => "BOOL",
        "ByteStorage" => "U8",
        "CharStorage" => "I8",
        "ShortStorage" => "I16",
        "IntStorage" => "I32",
        "LongStorage" => "I64",
        "ComplexFloatStorage" => "C64",
        "ComplexDoubleStorage" => return Some(Dtype::C128),
        // Storages of quantised tensors, which are not read: only the width of an element matters.
        "QInt8Storage" => "I8",
        "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => "U8",
        "QInt32Storage" => "I32",
        _ => return None,
    })
}

/// The element type of one of PyTorch's names, e.g. `torch.float32`.
fn element(name: &str) -> Option<Dtype> {
    Dtype::parse(match name {
        "float16" => "F16",
        "bfloat16" => "BF16",
        "float32" => "F32",
        "float64" => "F64",
        "bool" => "BOOL",
        "uint8" => "U8",
        "int8" => "I8",
        "int16" => "I16",
        "uint16" => "U16",
        "int32" => "I32",
        "uint32" => "U32",
        "int64" => "I64",
        "uint64" => "U64",
        "complex64" => "C64",
        "complex128" => return Some(Dtype::C128),
        "float8_e4m3fn" => "F8_E4M3",
        "float8_e4m3fnuz" => "F8_E4M3FNUZ",
        "float8_e5m2" => "F8_E5M2",
        "float8_e5m2fnuz" => "F8_E5M2FNUZ",
        "float8_e8m0fnu" => "F8_E8M0",
        _ => return None,
    })
}

/// A contiguous array of elements in the file; several tensors may share one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    /// Number of elements.
    pub(super) count: u64,
}

/// A tensor.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    /// Offset in the pickle of the instruction that makes it.
    pub(super) at: usize,
    pub(super) shape: Vec<usize>,
    pub(super) body: Body<'a>,
}

/// The values of a tensor.
#[derive(Debug, Clone)]
pub(super) enum Body<'a> {
    /// A view of a storage. Offset and strides count elements.
    Stored { storage: Storage<'a>, offset: u64, strides: Vec<usize> },
    /// Not plain elements: quantised, sparse or without values.
    Odd(Dtype),
}

/// Everything to which values refer.
#[derive(Debug, Default)]
pub(super) struct Objects<'a> {
    pub(super) tuples: Vec<Vec<PickleValue<'a>>>,
    pub(super) lists: Vec<Vec<PickleValue<'a>>>,
    /// Pairs in the order of insertion; keys may repeat.
    pub(super) dicts: Vec<Vec<(PickleValue<'a>, PickleValue<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor<'a>>,
}

/// Appends an object and returns its index.
pub(super) fn add<T>(objects: &mut Vec<T>, object: T) -> usize {
    objects.push(object);
    objects.len() - 1
}
