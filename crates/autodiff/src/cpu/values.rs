//! The graph as the compiler sees it: which nodes read a value, reshapes taken out, and where concatenated values lie.

use std::collections::HashMap;

use crate::cpu::geometry::{Extent, area};
use crate::graph::{Graph, Origin, ValueId};
use crate::ops::Op;

/// Who reads what.
#[derive(Debug)]
pub(super) struct Uses {
    /// For each value, the value of which it is another view; itself for most.
    same: Vec<ValueId>,
    /// The nodes that read a value or another view of it, once for each operand.
    readers: Vec<Vec<usize>>,
    /// Whether a value depends on the input.
    dependent: Vec<bool>,
}

impl Uses {
    pub(super) fn of(graph: &Graph) -> Self {
        let count = graph.values().len();
        let mut this = Self {
            same: (0..count).collect(),
            readers: vec![Vec::new(); count],
            dependent: vec![false; count],
        };
        this.dependent[graph.input()] = true;
        for (index, node) in graph.nodes().iter().enumerate() {
            if !node.inputs.iter().any(|&input| this.dependent[input]) {
                continue;
            }
            this.dependent[node.output] = true;
            if matches!(node.op, Op::Reshape(_) | Op::Cast(_)) {
                this.same[node.output] = this.same[node.inputs[0]];
                continue;
            }
            for &input in &node.inputs {
                this.readers[this.same[input]].push(index);
            }
        }
        this
    }

    /// The value of which this is another view.
    pub(super) fn root(&self, id: ValueId) -> ValueId {
        self.same[id]
    }

    pub(super) fn depends(&self, id: ValueId) -> bool {
        self.dependent[id]
    }

    /// The only node that reads a value, if there is one and the value is not the network's output.
    pub(super) fn sole(&self, graph: &Graph, id: ValueId) -> Option<usize> {
        match self.readers[self.same[id]].as_slice() {
            [only] if self.same[graph.output()] != self.same[id] => Some(*only),
            _ => None,
        }
    }
}

/// Channels, and the height and width over which they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) extent: Extent,
}

impl Shape {
    /// The shape of a sample with one to three axes.
    pub(super) fn of(graph: &Graph, id: ValueId) -> Option<Self> {
        let sizes: Vec<_> =
            graph.values()[id].shape.iter().map(|size| (size.per_sample, size.fixed)).collect();
        match *sizes.as_slice() {
            [(1, 0), (0, channels)] => Some(Self { channels, extent: [1, 1] }),
            [(1, 0), (0, channels), (0, l)] => Some(Self { channels, extent: [1, l] }),
            [(1, 0), (0, channels), (0, h), (0, w)] => Some(Self { channels, extent: [h, w] }),
            _ => None,
        }
    }

    pub(super) fn positions(self) -> usize {
        area(self.extent)
    }
}

/// Where the operands of concatenations lie, so that they need no copies: for each value the concatenation that holds it and the first
/// channel there.
pub(super) fn concatenated(graph: &Graph, uses: &Uses) -> HashMap<ValueId, (ValueId, usize)> {
    let mut places = HashMap::new();
    for node in graph.nodes().iter().rev() {
        let Op::Cat(cat) = &node.op else { continue };
        let shapes: Option<Vec<_>> = node.inputs.iter().map(|&input| Shape::of(graph, input)).collect();
        let (Some(shapes), 1) = (shapes, cat.axis) else { continue };
        let mut offset = 0;
        let mut wanted = Vec::new();
        for (&input, shape) in node.inputs.iter().zip(&shapes) {
            wanted.push((input, offset));
            offset += shape.channels;
        }
        let already = inside(&places, &wanted);
        let (root, base) = places.get(&node.output).copied().or(already).unwrap_or((node.output, 0));
        places.entry(node.output).or_insert((root, base));
        for (input, offset) in wanted {
            if uses.root(input) == input && movable(graph, uses, input) {
                places.entry(input).or_insert((root, base + offset));
            }
        }
    }
    places
}

/// The place of values that lie side by side in another concatenation already.
fn inside(
    places: &HashMap<ValueId, (ValueId, usize)>,
    wanted: &[(ValueId, usize)],
) -> Option<(ValueId, usize)> {
    let first = *places.get(&wanted.first()?.0)?;
    let fits = |(input, offset): &(ValueId, usize)| places.get(input) == Some(&(first.0, first.1 + offset));
    wanted.iter().all(fits).then_some(first)
}

/// Whether a value may be written into another's buffer: it is computed, and not the network's output.
fn movable(graph: &Graph, uses: &Uses, id: ValueId) -> bool {
    let computed = matches!(graph.values()[id].origin, Origin::Node(_)) && uses.depends(id);
    computed && uses.root(graph.output()) != id
}
