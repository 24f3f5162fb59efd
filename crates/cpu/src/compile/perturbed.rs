//! Which constants of a graph are perturbed tensors, and where their gradients have to be added up.

use std::collections::HashMap;

use influence_autodiff::graph::{Graph, Node, Origin, ValueId};
use influence_autodiff::ops::Op;

use super::constants::Constants;
use super::ids::LeafId;
use super::support::Reason;

/// Whether a node's result is its operand under another shape.
fn is_view(node: &Node) -> bool {
    matches!(node.op, Op::Reshape(_) | Op::Cast(_))
}

/// The perturbed tensors of a graph.
#[derive(Debug)]
pub(crate) struct Perturbed {
    /// The tensor of each value that holds one.
    tensor_of: HashMap<ValueId, LeafId>,
    /// Whether a value is a perturbed tensor or is computed from one.
    computed: Vec<bool>,
    /// For each node, the last of those that have to run in one segment with it. Where a tensor is
    /// read more than once, its gradients have to be added before they are squared; our kernels
    /// square them reader by reader, while a segment that holds all the readers adds them.
    together: Vec<Option<usize>>,
    /// The nodes that read each perturbed tensor.
    readers: Vec<(LeafId, Vec<usize>)>,
}

impl Perturbed {
    /// The perturbed tensors, for some of the graph's parameters.
    pub(crate) fn of(graph: &Graph, constants: &Constants<'_>, tensors: &[LeafId]) -> Self {
        let parameter = |tensor: LeafId| &graph.parameters()[tensor.index()];
        let values = |&tensor: &LeafId| parameter(tensor).values.iter().map(move |&value| (value, tensor));
        let tensor_of: HashMap<_, _> = tensors.iter().flat_map(values).collect();
        let mut computed: Vec<_> = (0..graph.values().len()).map(|id| tensor_of.contains_key(&id)).collect();
        for node in graph.nodes() {
            computed[node.output] |= node.inputs.iter().any(|&input| computed[input]);
        }
        let mut together = vec![None; graph.nodes().len()];
        let of_tensor = |&tensor: &LeafId| (tensor, readers(graph, constants, &parameter(tensor).values));
        let all: Vec<_> = tensors.iter().map(of_tensor).collect();
        for (_, readers) in &all {
            if let (Some(&first), Some(&last), true) = (readers.first(), readers.last(), readers.len() > 1) {
                together[first] = together[first].max(Some(last));
            }
        }
        Self { tensor_of, computed, together, readers: all }
    }

    /// The last node that has to run in one segment with this one and all between, if there is one.
    pub(crate) fn together(&self, node: usize) -> Option<usize> {
        self.together[node]
    }

    /// All perturbed tensors, ascending.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = LeafId> {
        self.readers.iter().map(|(tensor, _)| *tensor)
    }

    /// The perturbed tensors that some nodes read, directly or through constants that are computed
    /// from them.
    pub(crate) fn read_by(&self, nodes: &[usize]) -> Vec<LeafId> {
        let reads = |readers: &Vec<usize>| readers.iter().any(|node| nodes.contains(node));
        self.readers.iter().filter(|(_, readers)| reads(readers)).map(|(tensor, _)| *tensor).collect()
    }

    /// The tensor that a constant is, under whatever shape.
    pub(crate) fn tensor(&self, graph: &Graph, id: ValueId) -> Option<LeafId> {
        match graph.values()[id].origin {
            Origin::Node(node) if is_view(&graph.nodes()[node]) => {
                self.tensor(graph, graph.nodes()[node].inputs[0])
            }
            Origin::Node(_) => None,
            _ => self.tensor_of.get(&id).copied(),
        }
    }

    /// Refuses a constant that is computed from a perturbed tensor.
    pub(crate) fn direct(&self, graph: &Graph, id: ValueId) -> Result<(), Reason> {
        match self.computed[id] && self.tensor(graph, id).is_none() {
            true => Err("a constant that is computed from a perturbed tensor".into()),
            false => Ok(()),
        }
    }
}

/// The nodes that depend on the input and read a tensor, or a constant that is computed from it:
/// once for each operand, in order.
fn readers(graph: &Graph, constants: &Constants<'_>, tensor: &[ValueId]) -> Vec<usize> {
    let mut follows: Vec<_> = (0..graph.values().len()).map(|id| tensor.contains(&id)).collect();
    let mut readers = Vec::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        let operands = node.inputs.iter().filter(|&&id| follows[id] && !constants.depends(id)).count();
        if constants.depends(node.output) {
            readers.extend(std::iter::repeat_n(index, operands));
        } else {
            follows[node.output] |= operands > 0;
        }
    }
    readers
}
