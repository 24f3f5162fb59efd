//! Which constants of a graph are perturbed tensors, and that the compiled stages know them all.

use std::collections::HashMap;

use super::compile::Refusal;
use super::stages::Trainable;
use crate::graph::{Graph, Node, Origin, ValueId};
use crate::ops::Op;

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
        let mut places = HashMap::new();
        for &tensor in tensors {
            let parameter = &graph.parameters()[tensor];
            let read = |node: &&Node| node.inputs.iter().any(|input| parameter.values.contains(input));
            let readers = graph.nodes().iter().filter(read).count();
            if readers > 1 {
                return Err(format!("{} is used {readers} times", parameter.name));
            }
            places.extend(parameter.values.iter().map(|&value| (value, tensor)));
        }
        Ok(Self { places })
    }

    /// The tensor that a constant is, under whatever shape.
    pub(super) fn tensor(&self, graph: &Graph, id: ValueId) -> Option<usize> {
        match graph.values()[id].origin {
            Origin::Node(node) => match &graph.nodes()[node].op {
                Op::Reshape(_) | Op::Cast(_) => self.tensor(graph, graph.nodes()[node].inputs[0]),
                _ => None,
            },
            _ => self.places.get(&id).copied(),
        }
    }

    /// The tensors of a convolution or linear layer.
    pub(super) fn product<T>(&self, graph: &Graph, node: &Node) -> Trainable<T> {
        let tensor = |position: usize| self.tensor(graph, *node.inputs.get(position)?);
        Trainable { weight: tensor(1), bias: tensor(2), norm: None }
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
