//! Which constants of a graph are perturbed tensors, and that the compiled stages know them all.

use std::collections::HashMap;

use super::compile::Refusal;
use super::stages::Trainable;
use crate::graph::{Graph, Node, Origin, ValueId};
use crate::ops::Op;

/// Whether a node's result is its operand under another shape.
fn is_view(node: &Node) -> bool {
    matches!(node.op, Op::Reshape(_) | Op::Cast(_))
}

/// The perturbed tensors of a graph.
#[derive(Debug)]
pub(super) struct Trained {
    /// The tensor of each value that holds one.
    places: HashMap<ValueId, usize>,
}

impl Trained {
    /// The tensors at some places.
    ///
    /// # Errors
    /// A tensor that is read more than once: its gradients would have to be added before they are squared.
    pub(super) fn of(graph: &Graph, tensors: &[usize]) -> Result<Self, Refusal> {
        let values =
            |&tensor: &usize| graph.parameters()[tensor].values.iter().map(move |&value| (value, tensor));
        let this = Self { places: tensors.iter().flat_map(values).collect() };
        // Another shape of a tensor is no use of it; two operands of one operation are two.
        let uses = graph.nodes().iter().filter(|node| !is_view(node)).flat_map(|node| &node.inputs);
        let used: Vec<usize> = uses.filter_map(|&input| this.tensor(graph, input)).collect();
        for &tensor in tensors {
            let times = used.iter().filter(|&&other| other == tensor).count();
            if times > 1 {
                return Err(format!("{} is used {times} times", graph.parameters()[tensor].name));
            }
        }
        Ok(this)
    }

    /// The tensor that a constant is, under whatever shape.
    pub(super) fn tensor(&self, graph: &Graph, id: ValueId) -> Option<usize> {
        match graph.values()[id].origin {
            Origin::Node(node) if is_view(&graph.nodes()[node]) => {
                self.tensor(graph, graph.nodes()[node].inputs[0])
            }
            Origin::Node(_) => None,
            _ => self.places.get(&id).copied(),
        }
    }

    /// The tensors of a convolution or linear layer.
    pub(super) fn product<T>(&self, graph: &Graph, node: &Node) -> Trainable<T> {
        let tensor = |position: usize| self.tensor(graph, *node.inputs.get(position)?);
        Trainable { weight: tensor(1), patches: None, bias: tensor(2), norm: None }
    }

    /// Refuses a perturbed tensor that no stage has taken in.
    pub(super) fn check<'a, T: 'a>(
        &self,
        graph: &Graph,
        stages: impl Iterator<Item = &'a Trainable<T>>,
    ) -> Result<(), Refusal> {
        let known: Vec<usize> = stages.flat_map(Trainable::tensors).collect();
        match self.places.values().find(|tensor| !known.contains(tensor)) {
            None => Ok(()),
            Some(&tensor) => {
                Err(format!("{} is perturbed where it has no gradient", graph.parameters()[tensor].name))
            }
        }
    }
}
