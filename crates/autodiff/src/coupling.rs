//! The check that samples are not coupled across the batch, on the graph and before anything runs.
//!
//! Every value that depends on the input, or on the number of samples, has one axis along which the
//! samples lie, and each rule says where they lie in its result ([`Rule::carry`](crate::ops)). The
//! network is refused at the first node whose result has no such axis (a sum over the batch, a part
//! of it, a product of two samples). A network that passes computes each sample only from that
//! sample, for all inputs and batch sizes; no number of trial runs could show that.

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, Size, Value};

/// Where the samples of a batch of n lie in a value: the element at index i along the axis belongs
/// to sample `i / inner % n`.
///
/// The size of the axis is a multiple of n: `[n, s, d]` reshaped to `[n s, d]` has inner = s, and
/// two copies of a batch one after the other along their first axis have size 2 n and inner = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchAxis {
    /// The axis.
    pub(crate) axis: usize,
    /// The number of neighbours along the axis that belong to one sample.
    pub(crate) inner: usize,
}

/// An operand of an operation, and where the samples lie in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage<'a> {
    /// The operand's position.
    pub(crate) position: usize,
    /// Where the samples lie in the operand.
    pub(crate) from: BatchAxis,
    /// The operand's shape for one sample.
    pub(crate) input: &'a [usize],
    /// The shape of the result for one sample.
    pub(crate) output: &'a [usize],
    /// The axis of the result that grows with the batch.
    pub(crate) axis: usize,
}

impl Passage<'_> {
    /// The samples lie in the result as in the operand, unless the operation mixes elements along
    /// that axis.
    pub(crate) fn unless(&self, mixed: bool) -> Option<BatchAxis> {
        (!mixed).then_some(self.from)
    }
}

/// Refuses a graph in which a sample's logits depend on other samples, or on their number.
///
/// # Errors
/// [`Error::BatchCoupled`] with the first node at which they do.
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

/// Where the samples lie in a node's result: `Some(None)` for a result that does not depend on
/// them, `None` where they are coupled.
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
        // A result that depends on the samples but has no axis for them mixes them all.
        return (!dependent && !batched).then_some(None);
    };
    // Only one axis may grow, and it may hold nothing but samples.
    let size = shape[axis];
    if size.fixed > 0 || shape[axis + 1..].iter().any(grows) {
        return None;
    }
    if !batched {
        // Made only of constants, one copy per sample.
        return (!dependent).then_some(Some(BatchAxis { axis, inner: size.per_sample }));
    }
    let output = values[node.output].shape_at(1);
    // Every operand that has samples must lead to the same axis of the result.
    let mut carried = node.inputs.iter().enumerate().filter_map(|(position, &id)| {
        let (from, input) = (found[id]?, values[id].shape_at(1));
        Some(node.op.rule().carry(&Passage { position, from, input: &input, output: &output, axis }))
    });
    let first = carried.next()??;
    let agree = carried.all(|other| other == Some(first));
    // The samples must lie on the axis that grows, which holds whole batches ([`BatchAxis`]).
    let fits = first.axis == axis && size.per_sample.is_multiple_of(first.inner);
    (agree && fits).then_some(Some(first))
}
