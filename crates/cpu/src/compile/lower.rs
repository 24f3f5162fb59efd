//! From a graph to its stages: each node becomes a view, a stage of ours, or part of a segment.
//!
//! Segments are maximal runs of nodes without kernels. One is open at a time. A node that has a
//! kernel and does not read the open segment is computed before it; one that reads it ends it.
//! Cheap nodes that only read the segment join it even if they have kernels: carrying a value
//! across the edge costs more than computing it on Burn's operations.

use std::collections::HashMap;

use influence_autodiff::graph::{Graph, Kind, ValueId};
use influence_autodiff::ops::Op;

use super::constants::Constants;
use super::ids::StoreId;
use super::perturbed::Perturbed;
use super::stage::{Stage, StageOp, StageSegment, StageTensors, Stages, StoreChannels};
use super::support::{Answer, Arrangement, NewStage, Reason, StageOperand, Support, default_axis};
use super::view::{SampleShape, Store, StoreView};

/// The stages of a graph.
///
/// # Errors
/// The reason why the graph has none: its output does not depend on the input, or a value on a
/// segment's edge has a shape that no view describes.
pub(crate) fn lower<'g>(
    graph: &'g Graph,
    constants: &'g Constants<'g>,
    perturbed: &Perturbed,
) -> Result<Stages<'g>, Reason> {
    let mut lowering = StageLowering {
        graph,
        constants,
        perturbed,
        stores: Vec::new(),
        views: vec![None; graph.values().len()],
        stages: Vec::new(),
        copies: HashMap::new(),
        open: OpenSegment::default(),
        readers: last_readers(graph),
    };
    let input = lowering.input()?;
    for index in 0..graph.nodes().len() {
        lowering.node(index)?;
    }
    lowering.close()?;
    let output = lowering.output(input)?;
    let StageLowering { stores, stages, views: values, .. } = lowering;
    Ok(Stages { stores, stages, values, input, output })
}

/// For each value the last node that reads it.
fn last_readers(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        node.inputs.iter().for_each(|&input| last[input] = Some(index));
    }
    last
}

/// Whether a node takes only a few operations for each element: an edge before it would cost more.
fn is_cheap(op: &Op) -> bool {
    !matches!(op, Op::Conv2d(_) | Op::Conv1d(_) | Op::Linear(_) | Op::Matmul(_))
}

/// A segment to which nodes may still be added.
#[derive(Debug, Default)]
struct OpenSegment {
    nodes: Vec<usize>,
    /// What its nodes compute.
    values: Vec<ValueId>,
    /// The last node that has to be in the segment, because it reads a perturbed tensor that
    /// another of its nodes reads too; 0 where there is none.
    until: usize,
}

struct StageLowering<'a, 'g> {
    graph: &'g Graph,
    constants: &'g Constants<'g>,
    perturbed: &'a Perturbed,
    stores: Vec<Store>,
    views: Vec<Option<StoreView>>,
    stages: Vec<Stage<'g>>,
    /// Stores that hold the same copy, by what it is a copy of.
    copies: HashMap<(StoreId, usize, Vec<u32>), StoreId>,
    open: OpenSegment,
    readers: Vec<Option<usize>>,
}

impl<'g> StageLowering<'_, 'g> {
    fn store(&mut self, store: Store) -> StoreId {
        self.stores.push(store);
        StoreId(self.stores.len() - 1)
    }

    /// The arrangement of a value that no stage of ours computes: the input, or a segment's result.
    fn arrangement(&self, id: ValueId) -> Result<Arrangement, Reason> {
        let shape = SampleShape::of(self.graph, id).ok_or("a value without a batch axis of its own")?;
        let axis = default_axis(&shape);
        Ok(Arrangement::channels(shape, axis))
    }

    fn store_value(&mut self, id: ValueId, arrangement: &Arrangement) -> StoreId {
        let store = self.store(arrangement.store);
        self.views[id] = Some(arrangement.view.at(store));
        store
    }

    fn input(&mut self) -> Result<StoreId, Reason> {
        let id = self.graph.input();
        let arrangement = self.arrangement(id)?;
        Ok(self.store_value(id, &arrangement))
    }

    /// The logits as one row of K channels, in another store than the input's.
    fn output(&mut self, input: StoreId) -> Result<StoreId, Reason> {
        let id = self.graph.output();
        let view = self.views[id].clone().ok_or("the output does not depend on the input")?;
        let arrangement = Arrangement::channels(view.shape.clone(), 1);
        let lies = view.is_like(&arrangement.view) && self.stores[view.store.index()] == arrangement.store;
        if lies && view.store != input {
            return Ok(view.store);
        }
        Ok(self.copy(&view, &arrangement))
    }

    fn node(&mut self, index: usize) -> Result<(), Reason> {
        let node = &self.graph.nodes()[index];
        if !self.constants.depends(node.output) {
            return Ok(());
        }
        let inside = |id: &ValueId| self.open.values.contains(id);
        let (reads, outside) = {
            let live = || node.inputs.iter().filter(|&&id| self.constants.depends(id));
            (live().any(inside), live().any(|id| !inside(id)))
        };
        let together = self.perturbed.together(index);
        // Between the first and the last reader of one tensor nothing leaves the segment.
        let held = !self.open.nodes.is_empty() && index <= self.open.until;
        // A cheap node that reads the segment and nothing else is computed there.
        let cheap = reads && !outside && is_cheap(&node.op);
        if together.is_some() || held || cheap {
            self.join(index, together);
            return Ok(());
        }
        if reads {
            if self.is_pending(index) {
                self.join(index, None);
                return Ok(());
            }
            // Ending the segment pays only if the node then has a kernel, and that depends on how
            // its operands would be stored.
            if !self.would_have_kernel(index)? {
                self.join(index, None);
                return Ok(());
            }
            self.close()?;
        }
        match self.support().node(index) {
            Ok(Answer::View(view)) => self.views[node.output] = Some(view),
            Ok(Answer::Stage(stage)) => self.stage(index, *stage),
            Err(_) => self.join(index, None),
        }
        Ok(())
    }

    fn support(&self) -> Support<'_, 'g> {
        let Self { graph, constants, perturbed, stores, views, .. } = self;
        Support { graph, constants, perturbed, stores, views }
    }

    /// Whether a node that reads the open segment would have a kernel if the segment ended before
    /// it.
    fn would_have_kernel(&self, index: usize) -> Result<bool, Reason> {
        let (mut stores, mut views) = (self.stores.clone(), self.views.clone());
        for &id in self.graph.nodes()[index].inputs.iter().filter(|id| self.open.values.contains(id)) {
            let Ok(arrangement) = self.arrangement(id) else { return Ok(false) };
            stores.push(arrangement.store);
            views[id] = Some(arrangement.view.at(StoreId(stores.len() - 1)));
        }
        let support = Support { stores: &stores, views: &views, ..self.support() };
        Ok(support.node(index).is_ok())
    }

    /// Whether a value that cannot leave the open segment, such as a mask, has readers at this node
    /// or after it.
    fn is_pending(&self, index: usize) -> bool {
        self.open.values.iter().any(|&id| {
            let edge =
                self.graph.values()[id].kind == Kind::Float && SampleShape::of(self.graph, id).is_some();
            !edge && self.readers[id].is_some_and(|last| last >= index)
        })
    }

    fn join(&mut self, index: usize, until: Option<usize>) {
        self.open.nodes.push(index);
        self.open.values.push(self.graph.nodes()[index].output);
        self.open.until = self.open.until.max(until.unwrap_or(0));
    }

    /// Ends the open segment, if there is one: what later nodes read of it is stored.
    fn close(&mut self) -> Result<(), Reason> {
        let OpenSegment { nodes, values, .. } = std::mem::take(&mut self.open);
        if nodes.is_empty() {
            return Ok(());
        }
        let inputs = self.segment_inputs(&nodes, &values)?;
        let outputs = self.segment_outputs(&nodes, &values)?;
        let output = outputs.first().map(|(_, view)| view.store).ok_or("a segment that nothing reads")?;
        let op = StageOp::Segment(Box::new(StageSegment { nodes: nodes.clone(), inputs, outputs }));
        let tensors = StageTensors::default();
        self.stages.push(Stage { op, input: None, other: None, output, relu: false, nodes, tensors });
        Ok(())
    }

    /// What some nodes read that they do not compute themselves, each value once.
    fn segment_inputs(
        &self,
        nodes: &[usize],
        values: &[ValueId],
    ) -> Result<Vec<(ValueId, StoreView)>, Reason> {
        let mut inputs: Vec<(ValueId, StoreView)> = Vec::new();
        for id in nodes.iter().flat_map(|&node| &self.graph.nodes()[node].inputs).copied() {
            let given = self.constants.depends(id) && !values.contains(&id);
            if given && !inputs.iter().any(|(other, _)| *other == id) {
                let view = self.views[id].clone().ok_or("a value that cannot enter a segment")?;
                inputs.push((id, view));
            }
        }
        Ok(inputs)
    }

    /// Stores for what other nodes read of the values that some nodes compute.
    fn segment_outputs(
        &mut self,
        nodes: &[usize],
        values: &[ValueId],
    ) -> Result<Vec<(ValueId, StoreView)>, Reason> {
        let is_inside = |node: usize| nodes.binary_search(&node).is_ok();
        let read_outside = |id: ValueId| {
            let mut readers = self.graph.nodes().iter().enumerate();
            readers.any(|(at, node)| !is_inside(at) && node.inputs.contains(&id)) || id == self.graph.output()
        };
        let wanted: Vec<ValueId> = values.iter().copied().filter(|&id| read_outside(id)).collect();
        let mut outputs = Vec::new();
        for id in wanted {
            if self.graph.values()[id].kind != Kind::Float {
                let last = nodes.last().map_or_else(String::new, |&node| self.graph.describe(node));
                return Err(format!("{last}: a mask cannot leave its segment"));
            }
            let arrangement = self.arrangement(id)?;
            let store = self.store_value(id, &arrangement);
            outputs.push((id, arrangement.view.at(store)));
        }
        Ok(outputs)
    }

    /// Adds a stage, and before it copies of the operands that do not lie as it takes them.
    fn stage(&mut self, index: usize, stage: NewStage<'g>) {
        let NewStage { mut op, operands, result, relu, tensors } = stage;
        let sources: Vec<StoreChannels> = operands.into_iter().map(|operand| self.operand(operand)).collect();
        let output = self.store_value(self.graph.nodes()[index].output, &result);
        let (mut input, mut other) = (sources.first().cloned(), None);
        match &mut op {
            StageOp::Concat(parts) => {
                *parts = sources.iter().map(|source| source.store).collect();
                input = None;
            }
            StageOp::Sum | StageOp::Combine { .. } | StageOp::Matrices(_) => {
                other = sources.get(1).map(|source| source.store);
            }
            _ => {}
        }
        self.stages.push(Stage { op, input, other, output, relu, nodes: vec![index], tensors });
    }

    fn operand(&mut self, StageOperand { from, copy, reading }: StageOperand) -> StoreChannels {
        let store = match copy {
            Some(arrangement) => self.copy(&from, &arrangement),
            None => from.store,
        };
        StoreChannels { store, channels: reading.channels }
    }

    /// A copy of a value in another arrangement. The same copy is not made twice.
    fn copy(&mut self, from: &StoreView, arrangement: &Arrangement) -> StoreId {
        let width = self.stores[from.store.index()].channels;
        let sources = from.sources(&arrangement.view, arrangement.store, width);
        let key = (from.store, arrangement.store.channels, sources);
        if let Some(&store) = self.copies.get(&key) {
            return store;
        }
        let store = self.store(arrangement.store);
        let input = StoreChannels { store: from.store, channels: 0..width };
        let op = StageOp::Rearrange { sources: key.2.clone(), fill: None };
        let (nodes, tensors) = (Vec::new(), StageTensors::default());
        self.stages.push(Stage {
            op,
            input: Some(input),
            other: None,
            output: store,
            relu: false,
            nodes,
            tensors,
        });
        self.copies.insert(key, store);
        store
    }
}
