//! What a pickle of weights may hold, as plain data: values that refer to one another by index, so that nothing
//! here is recursive, however deep or circular the pickle is.

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

/// The names of Python that files of weights need. They are compared as text; nothing stands behind them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    /// A type of storage, by its elements' type.
    Storage(Dtype),
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Some(Self::RebuildParameter)
            }
            ("torch", _) => elements(name).map(Self::Storage),
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

/// A view of a storage. Offset and strides count elements.
#[derive(Debug, Clone)]
pub(super) struct Tensor<'a> {
    /// Where the pickle makes it.
    pub(super) at: usize,
    pub(super) storage: Storage<'a>,
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
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
