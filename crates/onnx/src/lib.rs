//! ONNX files as differentiable graphs, at run time.
//!
//! [`Model::open`] reads a file, [`Model::graph`] makes a [`Graph`] of it: the same plain data that a
//! captured Burn module becomes, with the file's own names, ready for a `Program` or a `Scorer`.
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
//! - One input of floats `[n, ...]`, n being the batch: a symbolic size, or a 1 that is read as any.
//! - Float initializers are the trainable tensors, under their names, grouped to layers by the names'
//!   stems; statistics of batch normalisations are buffers. Constants of nodes are literals.
//! - Arithmetic of shapes is carried out here and followed through the batch's size.
//! - A softmax at the end is taken off, and [`Import::ending`] says so.
//!
//! What is not supported is refused: all nodes at once, each by its name, operator and opset, with the
//! reason and what to do.
//!
//! # What is promised of bad files
//!
//! Files are read as if an adversary had written them: whatever they hold, the answer is a graph or
//! an [`Error`]; nothing panics, no memory is set aside because a shape asks for it, and no file
//! outside the model's folder is read.

mod call;
mod elements;
mod error;
mod external;
mod file;
mod host;
mod import;
mod interface;
mod names;
mod node;
mod ops;
mod proto;
mod reread;
mod shapes;
mod table;
mod tensor;
mod window;

use std::path::Path;

use influence_autodiff::Graph;

pub use error::{Error, Problem, Result};
pub use file::{Model, OPSETS};
pub use interface::{Choice, Ending};
pub use ops::{OPERATORS, REFUSED};

/// A graph out of a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Import {
    /// The network, ending in logits.
    pub graph: Graph,
    /// What stood behind the logits.
    pub ending: Ending,
    /// Names of matrices that the graph holds with rows and columns exchanged.
    pub transposed: Vec<String>,
    /// Names of initializers that are frozen, as [`Choice::frozen`] asks.
    pub frozen: Vec<String>,
}

impl Model {
    /// The network as a graph.
    ///
    /// # Errors
    /// [`Error::Input`] and [`Error::Output`] when the ends are not a classifier's or cannot be told;
    /// [`Error::Frozen`] when a name that is to be frozen is no initializer's;
    /// [`Error::Unsupported`] with all nodes that cannot be imported; [`Error::Graph`] when what comes
    /// out does not map `[n, ...]` to `[n, K]`.
    pub fn graph(&self, choice: &Choice) -> Result<Import> {
        let interface = interface::Interface::of(self, choice)?;
        import::graph(self, &interface)
    }
}

/// Graphs from ONNX files.
pub trait FromOnnx: Sized {
    /// The network in an ONNX file, with everything as the file has it.
    ///
    /// # Errors
    /// As [`Model::open`] and [`Model::graph`].
    fn from_onnx(file: impl AsRef<Path>) -> Result<Self>;
}

impl FromOnnx for Graph {
    fn from_onnx(file: impl AsRef<Path>) -> Result<Self> {
        Ok(Model::open(file)?.graph(&Choice::default())?.graph)
    }
}
