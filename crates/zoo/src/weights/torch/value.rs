//! What a pickle of weights may hold, as plain data: values that refer to one another by index, so
//! that nothing here is recursive, however deep or circular the pickle is.

use crate::weights::Dtype;

/// One value. Containers, storages and tensors are indices into [`Objects`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
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
    /// Something that no tensor is made of: what it is, for messages.
    Other(&'static str),
}

impl Value<'_> {
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

/// The names of Python that files of weights need. They are compared as text; nothing stands behind
/// them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    /// A tensor whose storage does not say its type.
    RebuildTyped,
    RebuildParameter,
    RebuildQuantised,
    RebuildSparse,
    /// A tensor without values.
    RebuildMeta,
    Size,
    Layout,
    Device,
    /// A scheme of quantisation.
    Scheme,
    /// A type of storage, by its elements' type.
    Storage(Dtype),
    /// A type of elements.
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

/// The type of the elements of PyTorch's `torch.FloatStorage` and its like.
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
        // Of quantised tensors, which are not read: the width of an element is all that counts.
        "QInt8Storage" => "I8",
        "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => "U8",
        "QInt32Storage" => "I32",
        _ => return None,
    })
}

/// PyTorch's `torch.float32` and its like.
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

/// A run of elements somewhere in the file; several tensors may share one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    pub(super) dtype: Dtype,
    /// Elements.
    pub(super) count: u64,
}

/// A tensor.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    /// Where the pickle makes it.
    pub(super) at: usize,
    pub(super) shape: Vec<usize>,
    pub(super) body: Body<'a>,
}

/// What a tensor's values are.
#[derive(Debug, Clone)]
pub(super) enum Body<'a> {
    /// A view of a storage. Offset and strides count elements.
    Stored { storage: Storage<'a>, offset: u64, strides: Vec<usize> },
    /// No plain numbers.
    Odd(Dtype),
}

/// Everything that values refer to.
#[derive(Debug, Default)]
pub(super) struct Objects<'a> {
    pub(super) tuples: Vec<Vec<Value<'a>>>,
    pub(super) lists: Vec<Vec<Value<'a>>>,
    /// In the order of insertion; keys may repeat.
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<Tensor<'a>>,
}

/// Adds an object and gives its index.
pub(super) fn add<T>(objects: &mut Vec<T>, object: T) -> usize {
    objects.push(object);
    objects.len() - 1
}
