//! The executor written in Burn's tensor operations: it runs on any device in any float type, and
//! is the reference for every other executor.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};

use crate::array::{Array, Placement};
use crate::capture::quietly;
use crate::check;
use crate::device;
use crate::error::{Error, Result};
use crate::executor::{Executor, Linearized};
use crate::grams::GramSums;
use crate::graph::{Constant, Kind, Node, ValueId};
use crate::ops::{Keep, Saved, with_leading};
use crate::parameters::{Grams, LeafId};
use crate::plan::{DirectOperand, Plan, PlannedNode};
use crate::precision::Precision;

/// A plan loaded onto a device.
#[derive(Debug)]
pub struct BurnExecutor {
    plan: Arc<Plan>,
    place: Placement,
    /// Weights and folded constants, indexed by value.
    constants: Vec<Option<Array>>,
    /// Masks and indices of the folded nodes in the chain, indexed by node.
    derived: Vec<Option<Array>>,
    /// Whether the device has f64.
    exact: bool,
}

impl BurnExecutor {
    /// Moves the weights to `device` in the plan's precision, checks that they are finite, and
    /// computes the folded nodes.
    ///
    /// # Errors
    /// [`Error::Device`] when the device lacks the plan's float type, or functions such as exp in
    /// it; [`Error::NonFinite`] with the name of the first tensor that holds NaN or infinity.
    pub fn new(plan: Arc<Plan>, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let dtype = plan.precision.dtype();
        let name = device::name(device.as_dispatch());
        // The first query opens the device, which may panic.
        let has = quietly(|| device.supports_dtype(burn::tensor::DType::from(dtype)));
        if !has.map_err(|message| Error::Device(format!("{name} cannot be opened: {message}")))? {
            return Err(Error::Device(format!("{name} has no {}: run in f32", plan.precision)));
        }
        let place = Placement { device: device.as_dispatch().clone(), dtype };
        // A device may have arithmetic in f64, but functions such as exp only in f32.
        let transcendental = (0..plan.graph.nodes.len())
            .find(|&i| plan.subgraph.nodes[i] && plan.graph.nodes[i].op.is_transcendental());
        if let Some(node) = transcendental.filter(|_| plan.precision == Precision::F64)
            && !device::has_double_functions(&place.device)?
        {
            let node = plan.graph.describe(node);
            return Err(Error::Device(format!(
                "{name} has arithmetic in f64 but no functions such as exp, which {node} needs: run in f32"
            )));
        }
        let mut constants = vec![None; plan.graph.values.len()];
        let read = plan.reads();
        for (id, constant) in plan.graph.constants().filter(|(id, _)| read[*id]) {
            constants[id] = Some(load(constant, plan.graph.values[id].kind, &place)?);
        }
        let exact = quietly(|| device.supports_dtype(burn::tensor::DType::F64)).unwrap_or(false);
        let derived = vec![None; plan.graph.nodes.len()];
        let mut this = Self { plan, place, constants, derived, exact };
        this.fold()?;
        Ok(this)
    }

    /// The device and float type of the run.
    pub(crate) fn place(&self) -> &Placement {
        &self.place
    }

    /// Whether the device has f64.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// A constant on the device.
    pub(crate) fn constant(&self, id: ValueId) -> Option<Array> {
        self.constants[id].clone()
    }

    /// The plan that is run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The gradients of some parameters at one sample, for one cotangent `[1, 1, K]` of the logits,
    /// in a plan without direct uses.
    pub(crate) fn gradients(
        &self,
        sample: TensorData,
        cotangent: TensorData,
        tensors: &[LeafId],
    ) -> Result<Vec<TensorData>> {
        check::shape("cotangent", cotangent.shape(), &[1, 1, self.plan.graph.classes()])?;
        let linearized = BurnLinearized { executor: self, tape: self.run(sample, |_, _| Ok(()))? };
        let mut pending = linearized.reverse(vec![Array::from_data(cotangent, &self.place)], None)?;
        let one = |&tensor: &LeafId| {
            let shape = &self.plan.graph.parameters[tensor.index()].shape;
            let found = linearized.of_parameter(&mut pending, tensor);
            found.unwrap_or_else(|| Array::full(shape, 0.0, &self.place)).reshape(shape).into_data()
        };
        tensors.iter().map(one).collect()
    }

    /// Computes the folded nodes, which do not depend on the input.
    fn fold(&mut self) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for &index in &plan.folded {
            let node = &plan.graph.nodes[index];
            let shape = plan.graph.values[node.output].shape_at(plan.batch);
            let inputs = node.inputs.iter().map(|&id| owned(&self.constants, id)).collect();
            // Masks and indices are needed only for nodes that the reverse pass visits.
            let derives = plan.chain.iter().any(|step| step.node == index && step.derives());
            let (value, derived) = self.guard(index, || self.compute(node, inputs, &shape, derives))?;
            self.constants[node.output] = Some(value);
            self.derived[index] = derived;
        }
        Ok(())
    }

    /// The result of a node, and the mask or indices that its rule derives.
    fn compute(
        &self,
        node: &Node,
        operands: Vec<Array>,
        shape: &[usize],
        derives: bool,
    ) -> (Array, Option<Array>) {
        let rule = node.op.rule();
        if derives {
            rule.trace(operands, shape, &self.place)
        } else {
            (rule.forward(operands, shape, &self.place), None)
        }
    }

    /// Runs backend code for a node; a panic inside becomes an error that names the node.
    fn guard<T>(&self, node: usize, work: impl FnOnce() -> T) -> Result<T> {
        quietly(work).map_err(|message| Error::Execution { node: self.plan.graph.describe(node), message })
    }

    /// The forward pass on a batch; `look` sees the result of every node as it is computed.
    fn run(&self, batch: TensorData, look: impl FnMut(usize, &Array) -> Result<()>) -> Result<Tape> {
        let graph = &self.plan.graph;
        check::shape("batch", batch.shape(), &graph.values[graph.input].shape_at(self.plan.batch))?;
        self.trace(vec![batch], look)
    }

    /// The forward pass from the values given to the planned part; `look` sees the result of every
    /// node as it is computed.
    pub(crate) fn trace(
        &self,
        given: Vec<TensorData>,
        mut look: impl FnMut(usize, &Array) -> Result<()>,
    ) -> Result<Tape> {
        let graph = &self.plan.graph;
        let mut tape = Tape { values: self.constants.clone(), derived: self.derived.clone() };
        for (&id, value) in self.plan.subgraph.inputs.iter().zip(given) {
            tape.values[id] = Some(Array::from_data(value, &self.place));
        }
        for step in &self.plan.steps {
            self.step(step, &mut tape)?;
            let result = tape.values[graph.nodes[step.node].output].as_ref();
            look(step.node, result.unwrap_or_else(|| unreachable!("just computed")))?;
        }
        Ok(tape)
    }

    /// Computes one node of the forward pass.
    fn step(&self, step: &PlannedNode, tape: &mut Tape) -> Result<()> {
        let live = &mut tape.values;
        let graph = &self.plan.graph;
        let node @ Node { inputs, output, .. } = &graph.nodes[step.node];
        let shape = graph.values[*output].shape_at(self.plan.batch);
        // A value that dies here is moved, not shared, so that Burn reuses its storage. An operand
        // that the node takes twice has to be shared.
        let once = |id: &ValueId| inputs.iter().filter(|other| *other == id).count() == 1;
        let operands = inputs
            .iter()
            .map(|id| if step.dead.contains(id) && once(id) { taken(live, *id) } else { owned(live, *id) })
            .collect();
        for &id in &step.dead {
            live[id] = None;
        }
        let (value, derived) =
            self.guard(step.node, || self.compute(node, operands, &shape, step.derives()))?;
        live[*output] = Some(value);
        tape.derived[step.node] = derived;
        Ok(())
    }
}

/// A constant on the device; floats must be finite there.
fn load(constant: &Constant, kind: Kind, place: &Placement) -> Result<Array> {
    match kind {
        Kind::Index => Ok(Array::indices(constant.data.clone(), place)),
        Kind::Mask => Ok(Array::mask(constant.data.clone(), place)),
        Kind::Float => Ok(Array::from_data(check::weight(constant, place.dtype)?, place)),
    }
}

/// A copy of a value that the plan keeps until here.
fn owned(values: &[Option<Array>], id: ValueId) -> Array {
    values[id].clone().unwrap_or_else(|| unreachable!("the plan keeps every value until its last use"))
}

/// A value that the plan keeps until here, and whose last use this is.
fn taken(values: &mut [Option<Array>], id: ValueId) -> Array {
    values[id].take().unwrap_or_else(|| unreachable!("the plan keeps every value until its last use"))
}

/// The results of the forward pass that the reverse pass reads.
#[derive(Debug)]
pub(crate) struct Tape {
    /// Indexed by value: the kept ones, all constants, the output.
    values: Vec<Option<Array>>,
    /// Masks and indices, indexed by node.
    derived: Vec<Option<Array>>,
}

impl Tape {
    /// A value that the plan keeps.
    pub(crate) fn value(&self, id: ValueId) -> Array {
        owned(&self.values, id)
    }
}

impl Executor for BurnExecutor {
    fn name(&self) -> String {
        format!("burn on {}", device::name(&self.place.device))
    }

    fn describe(&self) -> String {
        self.plan.to_string()
    }

    fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>> {
        let tape = self.run(batch, |_, _| Ok(()))?;
        Ok(Box::new(BurnLinearized { executor: self, tape }))
    }

    fn observe(&self, batch: TensorData, look: &mut dyn FnMut(usize, TensorData)) -> Result<()> {
        let graph = &self.plan.graph;
        let show = |node: usize, value: &Array| {
            if graph.values[graph.nodes[node].output].kind == Kind::Float {
                look(node, value.clone().into_data()?);
            }
            Ok(())
        };
        self.run(batch, show).map(|_| ())
    }

    fn most_cotangents(&self) -> usize {
        self.plan.block
    }
}

/// The network linearised at a batch. Nothing is read from the device before it is asked for, so
/// that the host can queue work on a GPU without waiting.
#[derive(Debug)]
pub(crate) struct BurnLinearized<'a> {
    pub(crate) executor: &'a BurnExecutor,
    pub(crate) tape: Tape,
}

impl Linearized for BurnLinearized<'_> {
    fn logits(&self) -> Result<TensorData> {
        self.output().into_data()
    }

    fn pullback(&self, cotangents: TensorData) -> Result<TensorData> {
        self.pulled(cotangents)?.into_data()
    }

    fn logits_and_pullback(&self, cotangents: TensorData) -> Result<(TensorData, TensorData)> {
        let pulled = self.pulled(cotangents)?;
        Array::into_data_together(self.output(), pulled)
    }

    fn grams(&self, cotangents: TensorData, tensors: &[usize]) -> Result<Grams> {
        let plan = &self.executor.plan;
        let leaves = plan.leaves();
        let count = check::first_axis(&cotangents);
        check::shape("cotangents", cotangents.shape(), &[count, 1, plan.graph.classes()])?;
        if plan.batch != 1 || count == 0 || count > plan.block {
            let message = format!(
                "Gram matrices of parameters take one sample and 1 to {} cotangents, not {} samples and {count} cotangents",
                plan.block, plan.batch
            );
            return Err(Error::InvalidArgument(message));
        }
        leaves.check_asked(tensors)?;
        let tensors: Vec<LeafId> = tensors.iter().copied().map(LeafId::new).collect();
        let block = pad_rows(Array::from_data(cotangents, &self.executor.place), plan.block);
        let mut all = leading(self.summed(block, &tensors)?.finish()?, plan.block, count);
        let input = all.split_off(tensors.len() * count * count);
        let input = leaves.has_input().then_some(input);
        Ok(Grams { samples: 1, cotangents: count, tensors: all, input })
    }
}

/// The rows, followed by rows of zeros up to `count`.
fn pad_rows(rows: Array, count: usize) -> Array {
    let mut shape = rows.shape();
    if shape[0] == count {
        return rows;
    }
    shape[0] = count - shape[0];
    let padding = rows.zeros_like(&shape);
    Array::cat(vec![rows, padding], 0)
}

impl BurnLinearized<'_> {
    fn output(&self) -> Array {
        self.tape.value(self.executor.plan.graph.output)
    }

    /// Cotangents `[V, n, K]` pulled back in blocks, on the device.
    fn pulled(&self, cotangents: TensorData) -> Result<Array> {
        let plan = &self.executor.plan;
        let count = check::first_axis(&cotangents);
        check::shape("cotangents", cotangents.shape(), &[count, plan.batch, plan.graph.classes()])?;
        if !plan.leaves().has_input() {
            return Err(Error::InvalidArgument("the input is not perturbed in this plan".into()));
        }
        let all = Array::from_data(cotangents, &self.executor.place);
        // All blocks have one size, the last with rows of zeros: a row's result does not depend on
        // how many there are.
        let mut blocks = Vec::new();
        for start in (0..count).step_by(plan.block) {
            let end = count.min(start + plan.block);
            let block = pad_rows(all.clone().rows(start, end), plan.block);
            let mut pending = self.reverse(vec![block], None)?;
            blocks.push(self.gradient(&mut pending, plan.graph.input).rows(0, end - start));
        }
        match blocks.len() {
            0 => Err(Error::InvalidArgument("a pullback needs at least one cotangent".into())),
            1 => Ok(blocks.remove(0)),
            _ => Ok(Array::cat(blocks, 0)),
        }
    }

    /// Runs one reverse pass over one block of cotangents `[block, n, ...]` of each output.
    /// Returns, for each value, the cotangents that were not passed on: those of the leaves. The
    /// Gram matrices of parameters with a direct use are added to `sums`.
    pub(crate) fn reverse(
        &self,
        seeds: Vec<Array>,
        mut sums: Option<&mut GramSums>,
    ) -> Result<Vec<Option<Array>>> {
        let plan = &self.executor.plan;
        let graph = &plan.graph;
        let mut pending: Vec<Option<Array>> = vec![None; graph.values.len()];
        for (&output, seed) in plan.subgraph.outputs.iter().zip(seeds) {
            pending[output] = Some(seed);
        }
        for step in plan.reversed() {
            if let Some(cotangent) = pending[graph.nodes[step.node].output].take() {
                self.pull(step, cotangent, &mut pending, sums.as_deref_mut())?;
            }
        }
        Ok(pending)
    }

    /// The cotangents of a leaf; zeros where no output depends on it.
    pub(crate) fn gradient(&self, pending: &mut [Option<Array>], leaf: ValueId) -> Array {
        let plan = &self.executor.plan;
        let shape = || with_leading(plan.block, &plan.graph.values[leaf].shape_at(plan.batch));
        pending[leaf].take().unwrap_or_else(|| Array::full(&shape(), 0.0, &self.executor.place))
    }

    /// Pulls the cotangent of a node's result back to its active operands.
    fn pull(
        &self,
        step: &PlannedNode,
        cotangent: Array,
        pending: &mut [Option<Array>],
        sums: Option<&mut GramSums>,
    ) -> Result<()> {
        let plan = &self.executor.plan;
        let Node { op, inputs, output, .. } = &plan.graph.nodes[step.node];
        let shapes: Vec<_> = inputs.iter().map(|&id| plan.graph.values[id].shape_at(plan.batch)).collect();
        let kept: Vec<_> =
            (0..inputs.len()).map(|position| self.kept(step, position, inputs[position])).collect();
        // What the rule may read: it gets no tensor that it does not keep.
        let saved = Saved {
            inputs: &kept,
            output: self.tape.values[*output].as_ref().filter(|_| step.keeps.contains(&Keep::Output)),
            derived: self.tape.derived[step.node].as_ref(),
            shapes: &shapes,
        };
        // Gram matrices come first: they read the cotangent that the last operand takes below.
        if let Some(sums) = sums {
            self.measure(step, &cotangent, &saved, sums)?;
        }
        // The last operand takes the cotangent itself, so that Burn can reuse its storage; the
        // others share it.
        let mut cotangent = Some(cotangent);
        let last = step.pulled().last();
        for position in step.pulled() {
            let input = inputs[position];
            let own = if Some(position) == last { cotangent.take() } else { cotangent.clone() };
            let own = own.unwrap_or_else(|| unreachable!("only the last operand takes the cotangent away"));
            let pulled = self.executor.guard(step.node, || {
                let pulled = op.rule().pullback(own, position, &saved);
                match pending[input].take() {
                    Some(sum) => sum.add(pulled),
                    None => pulled,
                }
            })?;
            pending[input] = Some(pulled);
        }
        Ok(())
    }

    /// Adds the Gram matrices of the parameters whose one use is at this node.
    fn measure(
        &self,
        step: &PlannedNode,
        cotangent: &Array,
        saved: &Saved<'_>,
        sums: &mut GramSums,
    ) -> Result<()> {
        let plan = &self.executor.plan;
        let rule = plan.graph.nodes[step.node].op.rule();
        for &DirectOperand { position, leaf } in &step.direct {
            let Some(slot) = sums.slot_of(leaf) else { continue };
            let cotangent = cotangent.clone();
            self.executor.guard(step.node, || match plan.outer(step, position) {
                Some(_) => sums.factors(slot, rule.factors(cotangent, position, saved)),
                None => sums.gradients(slot, rule.pullback(cotangent, position, saved)),
            })??;
        }
        Ok(())
    }

    /// The cotangents of a parameter, summed over the values that hold it; none where its Gram
    /// matrix was taken at a direct use.
    pub(crate) fn of_parameter(&self, pending: &mut [Option<Array>], tensor: LeafId) -> Option<Array> {
        let values = &self.executor.plan.graph.parameters[tensor.index()].values;
        let arrived: Vec<Array> = values.iter().filter_map(|&value| pending[value].take()).collect();
        arrived.into_iter().reduce(Array::add)
    }

    /// The Gram matrices of these tensors, and after them that of the input, for one block of
    /// cotangents.
    fn summed(&self, block: Array, tensors: &[LeafId]) -> Result<GramSums> {
        let plan = &self.executor.plan;
        let mut sums = GramSums::new(tensors, plan.block, self.executor.exact);
        let mut pending = self.reverse(vec![block], Some(&mut sums))?;
        // Tensors with a direct use are summed by now. The gradients of the others have arrived at
        // their values.
        for (tensor, slot) in sums.slots() {
            if let Some(gradients) = self.of_parameter(&mut pending, tensor) {
                sums.gradients(slot, gradients)?;
            }
        }
        if plan.leaves().has_input() {
            sums.gradients(sums.of_input(), self.gradient(&mut pending, plan.graph.input))?;
        }
        Ok(sums)
    }

    /// An operand, if the rule keeps it.
    fn kept(&self, step: &PlannedNode, position: usize, id: ValueId) -> Option<Array> {
        step.keeps.contains(&Keep::Input(position)).then(|| self.tape.values[id].clone()).flatten()
    }
}

/// The leading `[count, count]` of each matrix `[size, size]`.
fn leading(matrices: Vec<f64>, size: usize, count: usize) -> Vec<f64> {
    if size == count {
        return matrices;
    }
    let rows = matrices.chunks_exact(size).enumerate().filter(|(row, _)| row % size < count);
    rows.flat_map(|(_, row)| &row[..count]).copied().collect()
}
