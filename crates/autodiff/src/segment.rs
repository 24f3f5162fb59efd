//! A part of a graph, run for another executor: its forward pass, its pullback, its Gram matrices.
//!
//! An executor that has kernels of its own for most operations of a network, but not for all, runs
//! the others as segments on Burn's operations. Values and cotangents are handed over as host data,
//! one sample at a time, so that a segment's results have the same bits whatever the batch.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};

use crate::array::Array;
use crate::burn_executor::{BurnExecutor, BurnLinearized, Tape};
use crate::error::Result;
use crate::grams::GramSums;
use crate::graph::{Graph, Kind, ValueId};
use crate::parameters::{LeafId, Leaves};
use crate::plan::{Bytes, Plan, Subgraph};
use crate::precision::Precision;

/// Some nodes of a graph, loaded onto a device.
#[derive(Debug)]
pub struct Segment {
    executor: BurnExecutor,
}

/// The results of one sample's forward pass that its reverse pass reads.
#[derive(Debug)]
pub struct Trace(Tape);

impl Segment {
    /// Plans the nodes with the indices `nodes` (ascending), which compute the values `outputs`
    /// from the values `inputs`, and loads the weights that they read. Reverse passes take `block`
    /// cotangents; `leaves` says which parameters are perturbed.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) for an operation without a derivative
    /// where one is needed, [`Error::NonFinite`](crate::Error::NonFinite) for weights,
    /// [`Error::Device`](crate::Error::Device) for what the device lacks.
    pub fn new(
        graph: Arc<Graph>,
        [nodes, inputs, outputs]: [&[usize]; 3],
        leaves: &Leaves,
        block: usize,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let mut own = vec![false; graph.nodes.len()];
        nodes.iter().for_each(|&node| own[node] = true);
        let subgraph = Subgraph { inputs: inputs.to_vec(), outputs: outputs.to_vec(), nodes: own };
        let leaves = leaves.clone().and_input();
        let plan = Plan::part(graph, subgraph, leaves, block, precision)?;
        Ok(Self { executor: BurnExecutor::new(Arc::new(plan), device)? })
    }

    /// The bytes of a run on one sample.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.executor.plan().bytes()
    }

    /// The number of cotangents that a reverse pass takes.
    #[must_use]
    pub fn block(&self) -> usize {
        self.executor.plan().block
    }

    /// The outputs at one sample, from the inputs at that sample; each has the shape of its value
    /// at batch size 1.
    ///
    /// # Errors
    /// [`Error::Execution`](crate::Error::Execution) with the node at which the backend failed.
    pub fn forward(&self, inputs: Vec<TensorData>) -> Result<(Vec<TensorData>, Trace)> {
        let tape = self.executor.trace(inputs, |_, _| Ok(()))?;
        let outputs = &self.executor.plan().subgraph.outputs;
        let read = |&id: &ValueId| tape.value(id).into_data();
        let outputs = outputs.iter().map(read).collect::<Result<_>>()?;
        Ok((outputs, Trace(tape)))
    }

    /// Pulls cotangents `[V, ...]` of the outputs back to the inputs, where V is the block. Where
    /// `tensors` (ascending) are given, also computes the Gram matrices `[V, V]` of their gradients
    /// within the segment.
    ///
    /// # Errors
    /// As [`Segment::forward`].
    pub fn pullback(
        &self,
        trace: Trace,
        cotangents: Vec<TensorData>,
        tensors: &[LeafId],
    ) -> Result<(Pulled, Trace)> {
        let plan = self.executor.plan();
        let place = self.executor.place();
        let linearized = BurnLinearized { executor: &self.executor, tape: trace.0 };
        let seeds = cotangents.into_iter().map(|data| Array::from_data(data, place)).collect();
        let mut sums = GramSums::new(tensors, plan.block, self.executor.is_exact());
        // Direct uses are summed during the pass, all other gradients where they have arrived.
        let wanted = (!tensors.is_empty()).then_some(&mut sums);
        let mut pending = linearized.reverse(seeds, wanted)?;
        let input = |&id: &ValueId| linearized.gradient(&mut pending, id).into_data();
        let inputs = plan.subgraph.inputs.iter().map(input).collect::<Result<_>>()?;
        for (tensor, slot) in sums.slots() {
            if let Some(gradients) = linearized.of_parameter(&mut pending, tensor) {
                sums.gradients(slot, gradients)?;
            }
        }
        let grams = if tensors.is_empty() { Vec::new() } else { sums.finish()? };
        Ok((Pulled { inputs, grams }, Trace(linearized.tape)))
    }
}

/// The results of a segment's reverse pass.
#[derive(Debug)]
pub struct Pulled {
    /// The cotangents of the inputs, `[V, ...]`.
    pub inputs: Vec<TensorData>,
    /// The Gram matrix `[V, V]` of each tensor, one after the other; empty for no tensors.
    pub grams: Vec<f64>,
}

/// The constants that nodes compute from other constants, in double precision, indexed by value;
/// constants that the graph itself holds are left out.
///
/// # Errors
/// [`Error::Execution`](crate::Error::Execution) where the backend fails;
/// [`Error::NonFinite`](crate::Error::NonFinite) for weights.
pub fn folded(graph: &Arc<Graph>, device: &Device) -> Result<Vec<Option<TensorData>>> {
    let plan = Plan::part(Arc::clone(graph), Subgraph::whole(graph), Leaves::input(), 1, Precision::F64)?;
    if plan.folded.is_empty() {
        return Ok(vec![None; graph.values.len()]);
    }
    let executor = BurnExecutor::new(Arc::new(plan), device)?;
    // Folded masks and indices are read only by segments, which compute them themselves.
    let number = |id: ValueId| graph.values[id].kind == Kind::Float && executor.plan().is_folded(id);
    let read = |id: ValueId| match number(id) {
        true => executor.constant(id).map(Array::into_data).transpose(),
        false => Ok(None),
    };
    (0..graph.values.len()).map(read).collect()
}
