//! The elements of a file's constants.
//!
//! A tensor's elements are in `raw_data` (little-endian), in a list of its type, or in a file next
//! to the model's. In all cases their number must be that of the shape; no memory is allocated
//! because a shape claims it.

use burn::tensor::{Bytes, DType, Element, TensorData};
use half::{bf16, f16};

use crate::error::Refusal;
use crate::known::{ElementKind, KnownTensor};
use crate::proto::TensorProto;

/// The values of `TensorProto.DataType` for types of numbers.
const FLOAT: i32 = 1;
const UINT8: i32 = 2;
const INT8: i32 = 3;
const UINT16: i32 = 4;
const INT16: i32 = 5;
const INT32: i32 = 6;
const INT64: i32 = 7;
const BOOL: i32 = 9;
const FLOAT16: i32 = 10;
const DOUBLE: i32 = 11;
const UINT32: i32 = 12;
const UINT64: i32 = 13;
const BFLOAT16: i32 = 16;

/// The kind of elements of a type; `None` for strings and other types that are not numbers.
pub(crate) fn element(data_type: i32) -> Option<ElementKind> {
    match data_type {
        FLOAT | DOUBLE | FLOAT16 | BFLOAT16 => Some(ElementKind::Float),
        UINT8 | INT8 | UINT16 | INT16 | INT32 | INT64 | UINT32 | UINT64 => Some(ElementKind::Int),
        BOOL => Some(ElementKind::Bool),
        _ => None,
    }
}

/// Whether a type is one of floats.
pub(crate) fn is_float(data_type: i32) -> bool {
    element(data_type) == Some(ElementKind::Float)
}

/// The name of a type, for messages.
pub(crate) fn type_name(data_type: i32) -> String {
    let name = match data_type {
        FLOAT => "float32",
        UINT8 => "uint8",
        INT8 => "int8",
        UINT16 => "uint16",
        INT16 => "int16",
        INT32 => "int32",
        INT64 => "int64",
        8 => "string",
        BOOL => "bool",
        FLOAT16 => "float16",
        DOUBLE => "float64",
        UINT32 => "uint32",
        UINT64 => "uint64",
        BFLOAT16 => "bfloat16",
        other => return format!("type {other}"),
    };
    name.into()
}

/// A tensor's elements, in one of the two types that are kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TensorNumbers {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

/// The shape of a tensor and the number of its elements.
fn shape(tensor: &TensorProto) -> Result<(Vec<usize>, usize), Refusal> {
    let size = |&size: &i64| usize::try_from(size).ok();
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(size).collect();
    let count = shape
        .as_ref()
        .and_then(|shape| shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size)));
    match (shape, count) {
        (Some(shape), Some(count)) => Ok((shape, count)),
        _ => Err(format!("{:?} is not a valid shape of \"{}\"", tensor.dims, tensor.name).into()),
    }
}

/// The bytes of one element in `raw_data`.
fn width(data_type: i32) -> Option<usize> {
    Some(match data_type {
        UINT8 | INT8 | BOOL => 1,
        UINT16 | INT16 | FLOAT16 | BFLOAT16 => 2,
        FLOAT | INT32 | UINT32 => 4,
        INT64 | UINT64 | DOUBLE => 8,
        _ => return None,
    })
}

/// The elements in little-endian bytes.
fn raw(data_type: i32, bytes: &[u8]) -> Option<TensorNumbers> {
    fn of<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        bytes.as_chunks().0.iter().map(|chunk| read(*chunk)).collect()
    }
    let double = TensorNumbers::Double;
    Some(match data_type {
        FLOAT => TensorNumbers::Single(of(bytes, f32::from_le_bytes)),
        FLOAT16 => TensorNumbers::Single(of(bytes, |b| f16::from_le_bytes(b).to_f32())),
        BFLOAT16 => TensorNumbers::Single(of(bytes, |b| bf16::from_le_bytes(b).to_f32())),
        DOUBLE => double(of(bytes, f64::from_le_bytes)),
        UINT8 | BOOL => double(bytes.iter().map(|&b| f64::from(b)).collect()),
        INT8 => double(bytes.iter().map(|&b| f64::from(b.cast_signed())).collect()),
        UINT16 => double(of(bytes, |b| f64::from(u16::from_le_bytes(b)))),
        INT16 => double(of(bytes, |b| f64::from(i16::from_le_bytes(b)))),
        INT32 => double(of(bytes, |b| f64::from(i32::from_le_bytes(b)))),
        UINT32 => double(of(bytes, |b| f64::from(u32::from_le_bytes(b)))),
        INT64 => double(of(bytes, |b| i64::from_le_bytes(b) as f64)),
        UINT64 => double(of(bytes, |b| u64::from_le_bytes(b) as f64)),
        _ => return None,
    })
}

/// The elements in the list of their type.
fn listed(tensor: &TensorProto) -> Option<TensorNumbers> {
    let words = || tensor.int32_data.iter();
    let bits = |read: fn(u16) -> f32| TensorNumbers::Single(words().map(|&x| read(x as u16)).collect());
    Some(match tensor.data_type {
        FLOAT => TensorNumbers::Single(tensor.float_data.clone()),
        DOUBLE => TensorNumbers::Double(tensor.double_data.clone()),
        FLOAT16 => bits(|bits| f16::from_bits(bits).to_f32()),
        BFLOAT16 => bits(|bits| bf16::from_bits(bits).to_f32()),
        UINT8 | INT8 | UINT16 | INT16 | INT32 | BOOL => {
            TensorNumbers::Double(words().map(|&x| f64::from(x)).collect())
        }
        INT64 => TensorNumbers::Double(tensor.int64_data.iter().map(|&x| x as f64).collect()),
        UINT32 | UINT64 => TensorNumbers::Double(tensor.uint64_data.iter().map(|&x| x as f64).collect()),
        _ => return None,
    })
}

/// Shape and elements of a tensor, which are in the message or in `external`.
pub(crate) fn numbers(
    tensor: &TensorProto,
    external: Option<&[u8]>,
) -> Result<(Vec<usize>, TensorNumbers), Refusal> {
    let name = &tensor.name;
    let (shape, count) = shape(tensor)?;
    let Some(width) = width(tensor.data_type) else {
        let why = format!("the tensor \"{name}\" is of {}", type_name(tensor.data_type));
        return Err(Refusal::new(why, "export with float or integer tensors"));
    };
    let numbers = match external.or(tensor.raw_data.as_deref()) {
        Some(bytes) if count.checked_mul(width) == Some(bytes.len()) => raw(tensor.data_type, bytes),
        Some(bytes) => {
            let found = bytes.len();
            let why = format!("\"{name}\" of shape {shape:?} has {found} bytes, not {width} per element");
            return Err(why.into());
        }
        None => listed(tensor),
    };
    // A list may be shorter or longer than the shape says.
    let found = match &numbers {
        Some(TensorNumbers::Single(values)) => values.len(),
        Some(TensorNumbers::Double(values)) => values.len(),
        None => 0,
    };
    match numbers {
        Some(numbers) if found == count => Ok((shape, numbers)),
        _ => Err(format!("\"{name}\" of shape {shape:?} has {found} elements").into()),
    }
}

/// A tensor of the file as a known tensor.
pub(crate) fn known(tensor: &TensorProto, external: Option<&[u8]>) -> Result<KnownTensor, Refusal> {
    let (shape, numbers) = numbers(tensor, external)?;
    let element = element(tensor.data_type).ok_or("its elements are not numbers")?;
    let values = match numbers {
        TensorNumbers::Single(values) => values.into_iter().map(f64::from).collect(),
        TensorNumbers::Double(values) => values,
    };
    Ok(KnownTensor { shape, element, values })
}

/// A tensor in a node's attribute.
pub(crate) fn inline(tensor: &TensorProto) -> Result<KnownTensor, Refusal> {
    if tensor.data_location != 0 {
        let why = "an attribute's tensor lies in another file";
        return Err(Refusal::new(why, "save the model with onnx.save, which leaves it inside"));
    }
    known(tensor, None)
}

/// A trainable tensor: f64 if the file has that, else f32 (f16 and bf16 convert to it exactly).
pub(crate) fn weight(tensor: &TensorProto, external: Option<&[u8]>) -> Result<TensorData, Refusal> {
    Ok(match numbers(tensor, external)? {
        (shape, TensorNumbers::Single(values)) => shared(values, shape),
        (shape, TensorNumbers::Double(values)) => shared(values, shape),
    })
}

/// A tensor whose clones have the same memory: the importer keeps what the graph has.
fn shared<T: Element>(values: Vec<T>, shape: Vec<usize>) -> TensorData {
    TensorData::from_bytes(Bytes::from_elems(values).shared(), shape, T::dtype())
}

/// The transpose of a matrix.
pub(crate) fn turned(data: &TensorData) -> TensorData {
    fn turn<T: Copy>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
        (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
    }
    let (rows, columns) = (data.shape()[0], data.shape()[1]);
    let shape = vec![columns, rows];
    match data.dtype() {
        DType::F64 => shared(turn(data.as_slice::<f64>().unwrap_or_default(), rows, columns), shape),
        _ => shared(turn(data.as_slice::<f32>().unwrap_or_default(), rows, columns), shape),
    }
}

#[cfg(test)]
mod tests {
    //! Numbers of every type, from bytes and from lists, and tensors whose elements do not fit
    //! their shape.

    use prost::Message;
    use prost::bytes::Bytes;

    use super::*;

    fn tensor(data_type: i32, dims: &[i64]) -> TensorProto {
        TensorProto { data_type, dims: dims.to_vec(), name: "w".into(), ..Default::default() }
    }

    #[test]
    fn bytes_and_lists_give_the_same_numbers() {
        let cases: [(i32, &[u8], [f64; 2]); 8] = [
            (UINT8, &[200, 1], [200.0, 1.0]),
            (INT8, &[200, 1], [-56.0, 1.0]),
            (INT16, &[0xfe, 0xff, 7, 0], [-2.0, 7.0]),
            (INT32, &[0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0], [-1.0, 5.0]),
            (FLOAT, &[0, 0, 128, 63, 0, 0, 0, 192], [1.0, -2.0]),
            (FLOAT16, &[0, 0x3c, 0, 0xc0], [1.0, -2.0]),
            (BFLOAT16, &[0x80, 0x3f, 0, 0xc0], [1.0, -2.0]),
            (BOOL, &[1, 0], [1.0, 0.0]),
        ];
        for (data_type, bytes, expected) in cases {
            let raw = TensorProto { raw_data: Some(bytes.to_vec().into()), ..tensor(data_type, &[2]) };
            let mut listed = tensor(data_type, &[2]);
            match data_type {
                FLOAT => listed.float_data = expected.map(|x| x as f32).to_vec(),
                FLOAT16 | BFLOAT16 => {
                    let words = bytes.chunks(2).map(|b| i32::from(b[0]) | i32::from(b[1]) << 8);
                    listed.int32_data = words.collect();
                }
                _ => listed.int32_data = expected.map(|x| x as i32).to_vec(),
            }
            for tensor in [raw, listed] {
                assert_eq!(known(&tensor, None).map(|known| known.values), Ok(expected.to_vec()));
            }
        }
    }

    #[test]
    fn tensor_that_does_not_fill_its_shape_is_refused() {
        let short = TensorProto { raw_data: Some(vec![0; 7].into()), ..tensor(FLOAT, &[2]) };
        assert!(numbers(&short, None).is_err_and(|why| why.why.contains("7 bytes")));
        assert!(numbers(&tensor(FLOAT, &[2]), None).is_err_and(|why| why.why.contains("0 elements")));
        assert!(numbers(&tensor(FLOAT, &[-2]), None).is_err());
        assert!(numbers(&tensor(FLOAT, &[i64::MAX, i64::MAX]), None).is_err());
        assert!(numbers(&tensor(8, &[1]), None).is_err_and(|why| why.why.contains("string")));
        assert_eq!(known(&tensor(FLOAT, &[0, 4]), None).map(|known| known.values), Ok(vec![]));
    }

    #[test]
    fn elements_are_neither_copied_from_the_message_nor_with_a_weight() {
        let raw = TensorProto { raw_data: Some(vec![0; 8].into()), ..tensor(FLOAT, &[2]) };
        let file = Bytes::from(raw.encode_to_vec());
        let read = TensorProto::decode(file.clone()).expect("it was encoded here");
        let elements = read.raw_data.as_ref().expect("they were encoded").as_ptr_range();
        assert!(file.as_ptr_range().contains(&elements.start) && elements.end <= file.as_ptr_range().end);
        let weight = weight(&read, None).expect("two floats");
        assert_eq!(weight.as_bytes().as_ptr(), weight.clone().as_bytes().as_ptr());
    }

    #[test]
    fn matrices_are_transposed() {
        let matrix = TensorData::new(vec![1f32, 2., 3., 4., 5., 6.], [2, 3]);
        assert_eq!(turned(&matrix), TensorData::new(vec![1f32, 4., 2., 5., 3., 6.], [3, 2]));
    }
}
