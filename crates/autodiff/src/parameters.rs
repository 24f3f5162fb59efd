//! The network's trainable tensors, which leaves of the graph are perturbed, and the Gram matrices
//! of their gradients.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::graph::{Graph, ValueId};

/// A trainable tensor of a network: its index in [`Graph::parameters`].
///
/// Functions for users take and give it as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeafId(usize);

impl LeafId {
    /// The tensor of this index.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// The index in [`Graph::parameters`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

/// A trainable tensor of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// The name in PyTorch's terms ("layer1.0.conv1.weight"); for a tensor that several modules
    /// share, the first of its names.
    pub name: String,
    /// The layer, as [`Parameter::layer`] gives it.
    pub(crate) layer: String,
    /// The shape, as Burn has it: a linear weight is `[in, out]`.
    pub shape: Vec<usize>,
    /// The graph's values that hold it, in ascending order: several where fields of the model share
    /// one parameter. Its gradient is the sum of theirs.
    pub values: Vec<ValueId>,
}

impl Parameter {
    /// The path of the module that owns the tensor; all tensors of one module are a layer. For a
    /// tensor that the model itself holds, its own name.
    #[must_use]
    pub fn layer(&self) -> &str {
        &self.layer
    }

    /// The layer of a captured module's tensor: its name without the last word.
    pub(crate) fn module_of(name: &str) -> String {
        name.rsplit_once('.').map_or(name, |(module, _)| module).to_owned()
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What is perturbed: the input, some of the trainable tensors, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    input: bool,
    tensors: Vec<usize>,
}

impl Leaves {
    /// Only the input.
    #[must_use]
    pub fn input() -> Self {
        Self { input: true, tensors: Vec::new() }
    }

    /// Some tensors, given by their indices in [`Graph::parameters`].
    #[must_use]
    pub fn tensors(indices: impl IntoIterator<Item = usize>) -> Self {
        let mut tensors: Vec<usize> = indices.into_iter().collect();
        tensors.sort_unstable();
        tensors.dedup();
        Self { input: false, tensors }
    }

    /// All trainable tensors of a network.
    #[must_use]
    pub fn parameters(graph: &Graph) -> Self {
        Self::tensors(0..graph.parameters().len())
    }

    /// Refuses an empty set, and tensors that the network does not have.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for either.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let known = graph.parameters().len();
        if !self.input && self.tensors.is_empty() || self.tensors.iter().any(|&tensor| tensor >= known) {
            let message = format!("there is nothing to perturb, or a tensor beyond the network's {known}");
            return Err(Error::InvalidArgument(message));
        }
        Ok(())
    }

    /// Refuses a request for a tensor that is not perturbed.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the tensor.
    pub fn check_asked(&self, tensors: &[usize]) -> Result<()> {
        match tensors.iter().find(|tensor| !self.tensors.contains(tensor)) {
            None => Ok(()),
            Some(tensor) => Err(Error::InvalidArgument(format!(
                "tensor {tensor} of the network is not perturbed in this plan"
            ))),
        }
    }

    /// Adds the input to the perturbed tensors.
    #[must_use]
    pub fn and_input(self) -> Self {
        Self { input: true, ..self }
    }

    /// Whether the input is perturbed.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input
    }

    /// The indices of the perturbed tensors in [`Graph::parameters`], ascending.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.tensors
    }

    /// The perturbed tensors, ascending.
    pub fn ids(&self) -> impl Iterator<Item = LeafId> {
        self.tensors.iter().copied().map(LeafId::new)
    }
}

/// Gram matrices of the gradients that V functions of the output have in each perturbed leaf: `G[i,
/// j] = <g_i, g_j>`, summed in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Grams {
    /// n, the number of samples that ran together.
    pub samples: usize,
    /// V, the number of cotangents.
    pub cotangents: usize,
    /// `[tensors, n, V, V]`, row-major: one matrix per requested tensor and sample, in the order of
    /// the request.
    pub tensors: Vec<f64>,
    /// `[n, V, V]` for the input, where it is perturbed.
    pub input: Option<Vec<f64>>,
}

impl Grams {
    /// The matrix `[V, V]` of one tensor, given by its index in the request, at one sample.
    #[must_use]
    pub fn tensor(&self, index: usize, sample: usize) -> &[f64] {
        &self.tensors[self.range(index * self.samples + sample)]
    }

    /// The matrix `[V, V]` of the input at one sample, where it is perturbed.
    #[must_use]
    pub fn of_input(&self, sample: usize) -> Option<&[f64]> {
        self.input.as_ref().map(|grams| &grams[self.range(sample)])
    }

    fn range(&self, matrix: usize) -> Range<usize> {
        let size = self.cotangents * self.cotangents;
        matrix * size..(matrix + 1) * size
    }
}
