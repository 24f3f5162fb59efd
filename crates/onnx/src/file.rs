//! The file as a message: read, decoded, and its versions checked.

use std::path::{Path, PathBuf};

use prost::Message;
use prost::bytes::Bytes;

use crate::error::{Error, Result};
use crate::names::is_own;
use crate::proto::{GraphProto, ModelProto};

/// The supported versions of the operator set of ONNX's own domain. Before 7, arithmetic broadcasts
/// by attributes, which are not read here.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

/// An ONNX file, decoded; [`Model::graph`] makes a graph of it.
#[derive(Debug, Clone)]
pub struct Model {
    pub(crate) graph: GraphProto,
    /// Names of operators that the file itself defines.
    pub(crate) functions: Vec<String>,
    pub(crate) opset: i64,
    /// The folder of tensors that are not in the message; none for a model in memory.
    pub(crate) folder: Option<PathBuf>,
    producer: String,
}

impl Model {
    /// Reads a file; tensors in other files are read when the graph is made.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read; [`Error::Corrupt`] when it is not an ONNX file or
    /// damaged, with the byte at which that shows; [`Error::Opset`] for versions that are not
    /// supported.
    pub fn open(file: impl AsRef<Path>) -> Result<Self> {
        let file = file.as_ref();
        let bytes = std::fs::read(file).map_err(|source| Error::Io { file: file.to_owned(), source })?;
        let folder = file.parent().map(|folder| match folder.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => folder.to_owned(),
        });
        Self::decode(bytes.into(), file, folder)
    }

    /// Decodes a model that is in memory; tensors in other files are refused.
    ///
    /// # Errors
    /// As [`Model::open`]; the file's name in messages is `memory`.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        Self::decode(Bytes::copy_from_slice(bytes), Path::new("memory"), None)
    }

    fn decode(bytes: Bytes, file: &Path, folder: Option<PathBuf>) -> Result<Self> {
        let corrupt = |offset: Option<u64>, why: String| Error::Corrupt {
            file: file.to_owned(),
            offset,
            why: format!("this is not an ONNX model, or it is damaged: {why}"),
        };
        let size = bytes.len();
        let mut rest = bytes;
        let model = ModelProto::decode(&mut rest).map_err(|error| {
            // The parser stops at the fault, so the bytes that it has not consumed give the offset.
            corrupt(Some((size - rest.len()) as u64), error.to_string())
        })?;
        let Some(graph) = model.graph else {
            return Err(corrupt(None, "it has no graph".into()));
        };
        if graph.node.is_empty() {
            return Err(corrupt(None, "its graph has no nodes".into()));
        }
        let opset = model.opset_import.iter().find(|set| is_own(&set.domain)).map(|set| set.version);
        let Some(opset) = opset else {
            return Err(corrupt(None, "it does not say which operator set it uses".into()));
        };
        if !OPSETS.contains(&opset) {
            let (oldest, newest) = (*OPSETS.start(), *OPSETS.end());
            return Err(Error::Opset { file: file.to_owned(), found: opset, oldest, newest });
        }
        let functions = model.functions.into_iter().map(|function| function.name).collect();
        let producer = format!("{} {}", model.producer_name, model.producer_version);
        Ok(Self { graph, functions, opset, folder, producer: producer.trim().to_owned() })
    }

    /// The version of ONNX's operator set that the file uses.
    #[must_use]
    pub fn opset(&self) -> i64 {
        self.opset
    }

    /// The program that wrote the file, with its version, as the file has it.
    #[must_use]
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The names of the outputs.
    #[must_use]
    pub fn outputs(&self) -> Vec<&str> {
        self.graph.output.iter().map(|output| output.name.as_str()).collect()
    }
}
