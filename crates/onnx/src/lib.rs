//! ONNX files as differentiable graphs, at run time.
//!
//! [`Model::open`] reads a file, and [`Model::graph`] makes a [`Graph`] of it: the same plain data
//! that a captured Burn module becomes, with the file's own names, ready for a `Program` or a
//! `Scorer`.
//!
//! ```no_run
//! use influence_autodiff::Graph;
//! use influence_onnx::FromOnnx;
//!
//! # fn main() -> influence_onnx::Result<()> {
//! let graph = Graph::from_onnx("network.onnx")?;
//! println!("{} classes, {} trainable tensors", graph.classes(), graph.parameters().len());
//! # Ok(())
//! # }
//! ```
//!
//! # What is taken from a file
//!
//! - One input of floats `[n, ...]`, where n is the batch: a symbolic size, or a 1 that is read as
//!   any size.
//! - Float initializers are the trainable tensors, under their own names, grouped into layers by
//!   the stems of the names; the statistics of batch normalisations are buffers. Constants of nodes
//!   are literals.
//! - Arithmetic on shapes is carried out here, as a function of the batch size.
//! - A softmax at the end is removed, and [`Import::ending`] says so.
//!
//! Nodes that are not supported are refused, all at once, each with its name, operator and opset,
//! the reason, and what to do.
//!
//! # What is guaranteed for bad files
//!
//! Files are read as if an adversary had written them: whatever they contain, the result is a graph
//! or an [`Error`]. Nothing panics, no memory is allocated because a shape claims it, and no file
//! outside the model's folder is read.

mod call;
mod elements;
mod error;
mod external;
mod file;
mod host;
mod import;
mod interface;
mod known;
mod names;
mod node;
mod ops;
mod proto;
mod reread;
mod shapes;
mod tensor;
mod window;

use std::path::Path;

use influence_autodiff::Graph;

pub use error::{Error, Problem, Result};
pub use file::{Model, OPSETS};
pub use interface::{Ending, ImportOptions};
pub use ops::{OPERATORS, REFUSED};

/// A graph made from a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Import {
    /// The network, ending in logits.
    pub graph: Graph,
    /// What followed the logits in the file.
    pub ending: Ending,
    /// Names of matrices that the graph holds transposed.
    pub transposed: Vec<String>,
    /// Names of initializers that are frozen, as [`ImportOptions::frozen`] requests.
    pub frozen: Vec<String>,
}

impl Model {
    /// The network as a graph.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Output`] when input or output are not a classifier's or are
    /// ambiguous; [`Error::Frozen`] when a name to be frozen matches no initializer;
    /// [`Error::Unsupported`] with all nodes that cannot be imported; [`Error::Graph`] when the
    /// graph does not map `[n, ...]` to `[n, K]`.
    pub fn graph(&self, choice: &ImportOptions) -> Result<Import> {
        let interface = interface::Interface::of(self, choice)?;
        import::graph(self, &interface)
    }
}

/// Graphs from ONNX files.
pub trait FromOnnx: Sized {
    /// The network in an ONNX file, with the default [`ImportOptions`].
    ///
    /// # Errors
    /// As [`Model::open`] and [`Model::graph`].
    fn from_onnx(file: impl AsRef<Path>) -> Result<Self>;
}

impl FromOnnx for Graph {
    fn from_onnx(file: impl AsRef<Path>) -> Result<Self> {
        Ok(Model::open(file)?.graph(&ImportOptions::default())?.graph)
    }
}
