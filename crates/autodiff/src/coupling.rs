//! Samples stay apart: a check of the graph alone, before anything runs.
//!
//! The value of every node that depends on the input, or on how many samples there are, has one axis along which the samples lie,
//! and each rule says where they lie in its result ([`Rule::carry`](crate::ops)). At the first node where that has no answer (a sum over
//! the batch, a part of it, a product of two samples) the network is refused. What is left computes each sample from itself, whatever
//! the numbers are and however many samples there are, which no number of trial runs could tell.

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Size, Value};

/// Where the samples of a batch of n lie in a value: index i of an axis belongs to sample `i / inner % n`.
///
/// The axis itself has a multiple of n elements: `[n, s, d]` reshaped to `[n s, d]` has inner = s, two views of a batch side by side
/// along their first axis are of size 2 n and have inner = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchAxis {
    /// The axis.
    pub(crate) axis: usize,
    /// How many neighbours along the axis belong to one sample.
    pub(crate) inner: usize,
}

/// An operand on its way through an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage<'a> {
    /// Which operand it is.
    pub(crate) position: usize,
    /// Where the samples lie in it.
    pub(crate) from: BatchAxis,
    /// Its shape for one sample.
    pub(crate) input: &'a [usize],
    /// The shape of the result for one sample.
    pub(crate) output: &'a [usize],
    /// The axis of the result that grows with the batch.
    pub(crate) axis: usize,
}

impl Passage<'_> {
    /// The samples lie in the result as in the operand, unless the operation mixes what lies along that axis.
    pub(crate) fn unless(&self, mixed: bool) -> Option<BatchAxis> {
        (!mixed).then_some(self.from)
    }
}

/// Refuses a graph in which one sample's logits hang on another sample, or on how many there are.
///
/// # Errors
/// [`Error::BatchCoupled`] with the first node at which it does.
pub(crate) fn check(graph: &Graph, dependent: &[bool]) -> Result<()> {
    let mut found: Vec<Option<BatchAxis>> = vec![None; graph.values.len()];
    found[graph.input] = Some(BatchAxis { axis: 0, inner: 1 });
    for (index, node) in graph.nodes.iter().enumerate() {
        let coupled = || Error::BatchCoupled { node: graph.describe(index) };
        let lie = of_result(&graph.values, node, &found, dependent[node.output]);
        found[node.output] = lie.ok_or_else(coupled)?;
    }
    Ok(())
}

/// Where the samples lie in a node's result, or that it has none of them; nothing where they do not stay apart.
pub(crate) fn of_result(
    values: &[Value],
    node: &Node,
    found: &[Option<BatchAxis>],
    dependent: bool,
) -> Option<Option<BatchAxis>> {
    let shape = &values[node.output].shape;
    let grows = |size: &Size| size.per_sample > 0;
    let batched = node.inputs.iter().any(|&id| found[id].is_some());
    let Some(axis) = shape.iter().position(grows) else {
        // What hangs on the samples and belongs to none of them belongs to all.
        return (!dependent && !batched).then_some(None);
    };
    let size = shape[axis];
    if size.fixed > 0 || shape[axis + 1..].iter().any(grows) {
        return None;
    }
    if !batched {
        // Made of constants that are the same for every sample, as often as there are samples.
        return (!dependent).then_some(Some(BatchAxis { axis, inner: size.per_sample }));
    }
    let output = values[node.output].shape_at(1);
    let mut carried = node.inputs.iter().enumerate().filter_map(|(position, &id)| {
        let (from, input) = (found[id]?, values[id].shape_at(1));
        Some(node.op.rule().carry(&Passage { position, from, input: &input, output: &output, axis }))
    });
    let first = carried.next()??;
    let agree = carried.all(|other| other == Some(first));
    let fits = first.axis == axis && size.per_sample.is_multiple_of(first.inner);
    (agree && fits).then_some(Some(first))
}
