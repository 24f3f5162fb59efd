//! A third recording, with five samples, compared with the graph of the other two.
//!
//! Two sizes always lie on a line, whatever a model computes (`n / 2` is 1 for two samples and for
//! three). A third size catches most such cases. The graph that all three recordings agree on is
//! compared with the model itself, at one sample and at five, when it is loaded (`reference.rs`).

use std::collections::HashMap;

use burn::backend::ir::TensorIr;

use crate::capture::{Recording, operation_name};
use crate::error::{Error, Problem, Result};
use crate::graph::{Graph, Origin, Role, ValueId};
use crate::integers;
use crate::linears;
use crate::lower::{Recogniser, needed};
use crate::slices;

/// The batch size of the recording by which the graph of the other two is confirmed.
pub(crate) const LAST_BATCH: usize = 5;

/// Compares a graph with a recording of [`LAST_BATCH`] samples: this finds control flow that two
/// and three samples do not show.
///
/// # Errors
/// [`Error::Unsupported`] with the first operation that differs from the graph's at this batch
/// size.
pub(crate) fn against(graph: &Graph, mut recording: Recording, recognise: Recogniser) -> Result<()> {
    // The recording is rewritten as the first two were, and read side by side with the graph: an
    // operation must be that of the node, on the same operands, with the shape that the graph
    // predicts.
    integers::fold(&mut recording);
    slices::turn(&mut recording);
    linears::unite(&mut recording);
    let operations = needed(&recording);
    // For each tensor of the recording, the graph's value.
    let mut known = HashMap::from([(recording.input, graph.input)]);
    let refuse = |op: String, node: usize| {
        let why = format!(
            "control flow on the batch: for {LAST_BATCH} samples the model does something else there; \
             compute the same for every batch"
        );
        let node = if node < graph.nodes.len() { graph.describe(node) } else { "the end".into() };
        Err(Error::Unsupported(vec![Problem { op, node, why }]))
    };
    for (index, &at) in operations.iter().enumerate() {
        let op = &recording.operations[at];
        let (Some(node), Some(Ok(lowered))) = (graph.nodes.get(index), recognise(op)) else {
            return refuse(operation_name(op), index);
        };
        // An operand is known already, or a constant that the graph has too.
        let same = |(operand, &id): (&&TensorIr, &ValueId)| match known.get(&operand.id) {
            Some(value) => *value == id,
            None => is_constant(graph, id, operand, &recording),
        };
        let shape = graph.values[node.output].shape_at(LAST_BATCH);
        let operands =
            lowered.inputs.len() == node.inputs.len() && lowered.inputs.iter().zip(&node.inputs).all(same);
        if lowered.op != node.op || lowered.output.shape.to_vec() != shape || !operands {
            return refuse(operation_name(op), index);
        }
        known.insert(lowered.output.id, node.output);
    }
    // Both end together, with the same result.
    if operations.len() == graph.nodes.len() && known.get(&recording.output) == Some(&graph.output) {
        return Ok(());
    }
    refuse("the result".into(), operations.len())
}

/// Whether an operand of a recording is a constant of the graph.
fn is_constant(graph: &Graph, id: ValueId, operand: &TensorIr, recording: &Recording) -> bool {
    let (Origin::Constant(constant), Some(data)) =
        (&graph.values[id].origin, recording.values.get(&operand.id))
    else {
        return false;
    };
    // What the forward function makes is compared by its elements, the model's own tensors by their
    // names.
    match (constant.role, recording.names.get(&operand.id)) {
        (Role::Literal, None) => {
            let row = integers::common_row(data, LAST_BATCH);
            row.as_ref().unwrap_or(data) == &constant.data
        }
        (_, named) => named.is_some_and(|named| named.name == constant.name),
    }
}
