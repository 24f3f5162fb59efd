//! The messages of the ONNX format that a network's forward pass needs.
//!
//! Field numbers and types are those of onnx.proto (IR version 13). The parser skips fields that
//! are not declared: documentation strings, training graphs, shape annotations of inner values.
//! prost reads the wire format and enforces its limits (lengths, recursion, UTF-8). `message!`
//! replaces prost's derive macro, whose dependencies would force a rebuild of all of Burn.
//! `raw_data`, where tensors usually have their elements, is not copied: it is a part of the file's
//! bytes.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

/// Reads a field that has one value, an optional value, or any number of values.
macro_rules! merge {
    (one $kind:ident, $field:expr, $rest:expr) => {{
        let (wire, buf, context) = $rest;
        encoding::$kind::merge(wire, &mut $field, buf, context)
    }};
    (optional $kind:ident, $field:expr, $rest:expr) => {{
        let (wire, buf, context) = $rest;
        encoding::$kind::merge(wire, $field.get_or_insert_default(), buf, context)
    }};
    (repeated $kind:ident, $field:expr, $rest:expr) => {{
        let (wire, buf, context) = $rest;
        encoding::$kind::merge_repeated(wire, &mut $field, buf, context)
    }};
}

/// Writes a field that has one value, an optional value, or any number of values.
macro_rules! encode {
    (one $kind:ident, $tag:literal, $field:expr, $buf:expr) => {
        encoding::$kind::encode($tag, &$field, $buf)
    };
    (optional $kind:ident, $tag:literal, $field:expr, $buf:expr) => {
        if let Some(value) = &$field {
            encoding::$kind::encode($tag, value, $buf);
        }
    };
    (repeated $kind:ident, $tag:literal, $field:expr, $buf:expr) => {
        encoding::$kind::encode_repeated($tag, &$field, $buf)
    };
}

/// The encoded length of a field that has one value, an optional value, or any number of values.
macro_rules! length {
    (one $kind:ident, $tag:literal, $field:expr) => {
        encoding::$kind::encoded_len($tag, &$field)
    };
    (optional $kind:ident, $tag:literal, $field:expr) => {
        $field.as_ref().map_or(0, |value| encoding::$kind::encoded_len($tag, value))
    };
    (repeated $kind:ident, $tag:literal, $field:expr) => {
        encoding::$kind::encoded_len_repeated($tag, &$field)
    };
}

/// A message: a struct of its fields, each with its number and how it is encoded.
macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty = $tag:literal $how:ident $kind:ident;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)+
        }

        impl Message for $name {
            fn merge_field(
                &mut self,
                tag: u32,
                wire: WireType,
                buf: &mut impl Buf,
                context: DecodeContext,
            ) -> Result<(), DecodeError> {
                match tag {
                    $($tag => merge!($how $kind, self.$field, (wire, buf, context))
                        .map_err(|mut error| {
                            error.push(stringify!($name), stringify!($field));
                            error
                        }),)+
                    _ => encoding::skip_field(wire, tag, buf, context),
                }
            }

            fn encode_raw(&self, buf: &mut impl BufMut) {
                $(encode!($how $kind, $tag, self.$field, buf);)+
            }

            fn encoded_len(&self) -> usize {
                0 $(+ length!($how $kind, $tag, self.$field))+
            }

            fn clear(&mut self) {
                *self = Self::default();
            }
        }
    };
}

message! {
    /// A file: a graph with the versions of its operator sets.
    ModelProto {
        ir_version: i64 = 1 one int64;
        producer_name: String = 2 one string;
        producer_version: String = 3 one string;
        graph: Option<GraphProto> = 7 optional message;
        opset_import: Vec<OperatorSetIdProto> = 8 repeated message;
        functions: Vec<FunctionProto> = 25 repeated message;
    }
}

message! {
    /// A version of a set of operators.
    OperatorSetIdProto {
        domain: String = 1 one string;
        version: i64 = 2 one int64;
    }
}

message! {
    /// An operator that the file itself defines; only its name is read, for messages.
    FunctionProto {
        name: String = 1 one string;
        domain: String = 10 one string;
    }
}

message! {
    /// Nodes in topological order, constants, inputs and outputs.
    GraphProto {
        node: Vec<NodeProto> = 1 repeated message;
        initializer: Vec<TensorProto> = 5 repeated message;
        input: Vec<ValueInfoProto> = 11 repeated message;
        output: Vec<ValueInfoProto> = 12 repeated message;
    }
}

message! {
    /// One operation.
    NodeProto {
        input: Vec<String> = 1 repeated string;
        output: Vec<String> = 2 repeated string;
        name: String = 3 one string;
        op_type: String = 4 one string;
        attribute: Vec<AttributeProto> = 5 repeated message;
        domain: String = 7 one string;
    }
}

message! {
    /// A named attribute of an operation.
    AttributeProto {
        name: String = 1 one string;
        f: Option<f32> = 2 optional float;
        i: Option<i64> = 3 optional int64;
        s: Option<Vec<u8>> = 4 optional bytes;
        t: Option<Box<TensorProto>> = 5 optional message;
        floats: Vec<f32> = 7 repeated float;
        ints: Vec<i64> = 8 repeated int64;
        strings: Vec<Vec<u8>> = 9 repeated bytes;
    }
}

message! {
    /// A constant.
    TensorProto {
        dims: Vec<i64> = 1 repeated int64;
        data_type: i32 = 2 one int32;
        float_data: Vec<f32> = 4 repeated float;
        int32_data: Vec<i32> = 5 repeated int32;
        int64_data: Vec<i64> = 7 repeated int64;
        name: String = 8 one string;
        raw_data: Option<Bytes> = 9 optional bytes;
        double_data: Vec<f64> = 10 repeated double;
        uint64_data: Vec<u64> = 11 repeated uint64;
        external_data: Vec<StringStringEntryProto> = 13 repeated message;
        data_location: i32 = 14 one int32;
    }
}

message! {
    /// A key and its value.
    StringStringEntryProto {
        key: String = 1 one string;
        value: String = 2 one string;
    }
}

message! {
    /// A named input or output with its type.
    ValueInfoProto {
        name: String = 1 one string;
        r#type: Option<TypeProto> = 2 optional message;
    }
}

message! {
    /// A type: of a tensor, or of something else, which no classifier takes.
    TypeProto {
        tensor_type: Option<TensorTypeProto> = 1 optional message;
    }
}

message! {
    /// Element type and shape of a tensor.
    TensorTypeProto {
        elem_type: i32 = 1 one int32;
        shape: Option<TensorShapeProto> = 2 optional message;
    }
}

message! {
    /// A shape, some of whose sizes may be names.
    TensorShapeProto {
        dim: Vec<DimensionProto> = 1 repeated message;
    }
}

message! {
    /// A size, or (with no number) its name.
    DimensionProto {
        dim_value: Option<i64> = 1 optional int64;
        dim_param: Option<String> = 2 optional string;
    }
}
