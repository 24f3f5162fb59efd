//! Direct uses of parameters: where the Gram matrix of a parameter can be computed without its
//! gradient.

use crate::graph::{Graph, Node, ValueId};
use crate::parameters::{LeafId, Leaves};
use crate::plan::reachable;

/// A perturbed parameter with a single use, reached only through operations that preserve the inner
/// products of gradients.
#[derive(Debug, Clone)]
pub(crate) struct DirectUse {
    /// The parameter.
    pub(crate) leaf: LeafId,
    /// The node that uses it.
    pub(crate) node: usize,
    /// The operand as which that node takes it.
    pub(crate) position: usize,
    /// The parameter's value, and the moved copies of it between it and the use.
    pub(crate) passed: Vec<ValueId>,
}

/// A value as an operand of a node.
#[derive(Debug, Clone, Copy)]
struct OperandOf {
    node: usize,
    position: usize,
}

/// The direct uses of all perturbed parameters that have one.
pub(crate) fn direct(graph: &Graph, leaves: &Leaves) -> Vec<DirectUse> {
    let dependent = reachable(graph, |id| id == graph.input, |_| true);
    // For each value, the nodes that read it, and as which operand.
    let mut uses: Vec<Vec<OperandOf>> = vec![Vec::new(); graph.values.len()];
    for (node, Node { inputs, .. }) in graph.nodes.iter().enumerate() {
        inputs
            .iter()
            .enumerate()
            .for_each(|(position, &input)| uses[input].push(OperandOf { node, position }));
    }
    // From the parameter to the node that depends on the input. On the way each value has one use,
    // and operations only move elements.
    let follow = |leaf: LeafId| {
        let [value] = graph.parameters[leaf.index()].values[..] else { return None };
        let mut passed = vec![value];
        loop {
            let [OperandOf { node, position }] = uses[*passed.last()?][..] else { return None };
            let Node { op, output, .. } = &graph.nodes[node];
            match dependent[*output] {
                true => return Some(DirectUse { leaf, node, position, passed }),
                false if op.rule().is_isometric() => passed.push(*output),
                false => return None,
            }
        }
    };
    leaves.ids().filter_map(follow).collect()
}
