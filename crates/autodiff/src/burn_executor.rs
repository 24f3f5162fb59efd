//! The executor that is written in Burn tensor operations: any device, any float type, and the reference for every other executor.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};

use crate::array::{Array, Place};
use crate::capture::quietly;
use crate::check;
use crate::device;
use crate::error::{Error, Result};
use crate::executor::{Executor, Linearized};
use crate::graph::{Constant, Kind, Node, ValueId};
use crate::ops::{Keep, Saved, with_leading};
use crate::plan::{Plan, Precision, Step};

/// A plan loaded onto a device.
#[derive(Debug)]
pub struct BurnExecutor {
    plan: Arc<Plan>,
    place: Place,
    /// Weights and folded constants, by value.
    constants: Vec<Option<Array>>,
}

impl BurnExecutor {
    /// Moves the weights to `device` in the plan's precision, checks that they are finite, and computes what depends on nothing else.
    ///
    /// # Errors
    /// [`Error::Device`] when the device does not have the plan's float type, or a function in it; [`Error::NonFinite`] with the name of the first tensor
    /// that holds NaN or infinity.
    pub fn new(plan: Arc<Plan>, device: &Device) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let dtype = plan.precision.dtype();
        let name = device::name(device.as_dispatch());
        // The first question opens the device.
        let has = quietly(|| device.supports_dtype(burn::tensor::DType::from(dtype)));
        if !has.map_err(|message| Error::Device(format!("{name} cannot be opened: {message}")))? {
            return Err(Error::Device(format!("{name} has no {}: run in f32", plan.precision)));
        }
        let place = Place { device: device.as_dispatch().clone(), dtype };
        let transcendental =
            (0..plan.graph.nodes.len()).find(|&i| plan.graph.nodes[i].op.is_transcendental());
        if let Some(node) = transcendental.filter(|_| plan.precision == Precision::F64)
            && !device::has_double_functions(&place.device)?
        {
            let node = plan.graph.describe(node);
            return Err(Error::Device(format!(
                "{name} has arithmetic in f64 but no functions such as exp, which {node} needs: run in f32"
            )));
        }
        let mut constants = vec![None; plan.graph.values.len()];
        for (id, constant) in plan.graph.constants() {
            constants[id] = Some(load(constant, plan.graph.values[id].kind, &place)?);
        }
        let mut this = Self { plan, place, constants };
        this.fold()?;
        Ok(this)
    }

    /// The same network on the same device at another batch size, sharing the weights.
    pub(crate) fn at_batch(&self, batch: usize) -> Result<Self> {
        let plan = Plan::input(Arc::clone(&self.plan.graph), batch, self.plan.block, self.plan.precision)?;
        let mut this =
            Self { plan: Arc::new(plan), place: self.place.clone(), constants: self.constants.clone() };
        this.fold()?;
        Ok(this)
    }

    /// The plan that is run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Computes what depends on no input.
    fn fold(&mut self) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        for &index in &plan.folded {
            let node = &plan.graph.nodes[index];
            let shape = plan.graph.values[node.output].shape_at(plan.batch);
            let inputs = node.inputs.iter().map(|&id| owned(&self.constants, id)).collect();
            let value = self.guard(index, || node.op.rule().forward(inputs, &shape, &self.place))?;
            self.constants[node.output] = Some(value);
        }
        Ok(())
    }

    /// Runs backend code for a node; a panic inside becomes an error that names it.
    fn guard<T>(&self, node: usize, work: impl FnOnce() -> T) -> Result<T> {
        quietly(work).map_err(|message| Error::Execution { node: self.plan.graph.describe(node), message })
    }

    /// The forward pass, with a look at the result of every node as it comes.
    pub(crate) fn observe(&self, batch: TensorData, mut look: impl FnMut(usize, &Array)) -> Result<Tape> {
        let graph = &self.plan.graph;
        check::shape("batch", batch.shape(), &graph.values[graph.input].shape_at(self.plan.batch))?;
        let mut tape = Tape { values: self.constants.clone(), derived: vec![None; graph.nodes.len()] };
        tape.values[graph.input] = Some(Array::from_data(batch, &self.place));
        for step in &self.plan.steps {
            self.step(step, &mut tape)?;
            look(
                step.node,
                tape.values[graph.nodes[step.node].output]
                    .as_ref()
                    .unwrap_or_else(|| unreachable!("just computed")),
            );
        }
        Ok(tape)
    }

    /// One node of the forward pass.
    fn step(&self, step: &Step, tape: &mut Tape) -> Result<()> {
        let live = &mut tape.values;
        let graph = &self.plan.graph;
        let Node { op, inputs, output, .. } = &graph.nodes[step.node];
        let shape = graph.values[*output].shape_at(self.plan.batch);
        // A dying value is handed over, not shared: Burn then reuses its storage. (An operand used twice is shared all the same.)
        let once = |id: &ValueId| inputs.iter().filter(|other| *other == id).count() == 1;
        let operands = inputs
            .iter()
            .map(|id| if step.dead.contains(id) && once(id) { taken(live, *id) } else { owned(live, *id) })
            .collect();
        for &id in &step.dead {
            live[id] = None;
        }
        let (value, derived) = self.guard(step.node, || {
            if step.derives() {
                op.rule().trace(operands, &shape, &self.place)
            } else {
                (op.rule().forward(operands, &shape, &self.place), None)
            }
        })?;
        live[*output] = Some(value);
        tape.derived[step.node] = derived;
        Ok(())
    }
}

/// A constant on the device; floats must be finite there.
fn load(constant: &Constant, kind: Kind, place: &Place) -> Result<Array> {
    match kind {
        Kind::Index => Ok(Array::indices(constant.data.clone(), place)),
        Kind::Mask => Ok(Array::mask(constant.data.clone(), place)),
        Kind::Float => Ok(Array::from_data(check::weight(constant, place.dtype)?, place)),
    }
}

/// A value that the plan says is there.
fn owned(values: &[Option<Array>], id: ValueId) -> Array {
    values[id].clone().unwrap_or_else(|| unreachable!("the plan keeps every value until its last use"))
}

/// A value that the plan says is there and dies here.
fn taken(values: &mut [Option<Array>], id: ValueId) -> Array {
    values[id].take().unwrap_or_else(|| unreachable!("the plan keeps every value until its last use"))
}

/// What the forward pass leaves for the reverse pass.
#[derive(Debug)]
pub(crate) struct Tape {
    /// Values that are still needed: the kept ones, all constants, the output.
    values: Vec<Option<Array>>,
    /// Masks and indices, by node.
    derived: Vec<Option<Array>>,
}

impl Executor for BurnExecutor {
    fn name(&self) -> String {
        format!("burn on {}", device::name(&self.place.device))
    }

    fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>> {
        let tape = self.observe(batch, |_, _| {})?;
        Ok(Box::new(BurnLinearized { executor: self, tape }))
    }
}

/// A batch's tape. Nothing is read from the device but what is asked for, so that a GPU works on while the host plans ahead.
#[derive(Debug)]
struct BurnLinearized<'a> {
    executor: &'a BurnExecutor,
    tape: Tape,
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
}

/// Zero rows behind the given ones, up to `count`.
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
        owned(&self.tape.values, self.executor.plan.graph.output)
    }

    /// Cotangents `[V, n, K]` pulled back in blocks, on the device.
    fn pulled(&self, cotangents: TensorData) -> Result<Array> {
        let plan = &self.executor.plan;
        let count = cotangents.shape().first().copied().unwrap_or(0);
        check::shape("cotangents", cotangents.shape(), &[count, plan.batch, plan.graph.classes()])?;
        let all = Array::from_data(cotangents, &self.executor.place);
        let mut blocks = Vec::new();
        for start in (0..count).step_by(plan.block) {
            let end = count.min(start + plan.block);
            let block = pad_rows(all.clone().rows(start, end), plan.block);
            blocks.push(self.reverse(block)?.rows(0, end - start));
        }
        match blocks.len() {
            0 => Err(Error::InvalidArgument("a pullback needs at least one cotangent".into())),
            1 => Ok(blocks.remove(0)),
            _ => Ok(Array::cat(blocks, 0)),
        }
    }

    /// One reverse pass over one block of cotangents `[block, n, K]`.
    fn reverse(&self, seed: Array) -> Result<Array> {
        let plan = &self.executor.plan;
        let graph = &plan.graph;
        let input_shape = graph.values[graph.input].shape_at(plan.batch);
        let mut pending: Vec<Option<Array>> = vec![None; graph.values.len()];
        pending[graph.output] = Some(seed);
        for step in plan.steps.iter().rev().filter(|step| step.is_active()) {
            if let Some(cotangent) = pending[graph.nodes[step.node].output].take() {
                self.pull(step, cotangent, &mut pending)?;
            }
        }
        // An output that does not depend on the input has the zero Jacobian.
        let zero = || Array::full(&with_leading(plan.block, &input_shape), 0.0, &self.executor.place);
        Ok(pending[graph.input].take().unwrap_or_else(zero))
    }

    /// Sends the cotangent of a node's result to its active operands.
    fn pull(&self, step: &Step, cotangent: Array, pending: &mut [Option<Array>]) -> Result<()> {
        let plan = &self.executor.plan;
        let Node { op, inputs, output, .. } = &plan.graph.nodes[step.node];
        let shapes: Vec<_> = inputs.iter().map(|&id| plan.graph.values[id].shape_at(plan.batch)).collect();
        let kept: Vec<_> =
            (0..inputs.len()).map(|position| self.kept(step, position, inputs[position])).collect();
        let saved = Saved {
            inputs: &kept,
            output: self.tape.values[*output].as_ref().filter(|_| step.keeps.contains(&Keep::Output)),
            derived: self.tape.derived[step.node].as_ref(),
            shapes: &shapes,
        };
        let mut cotangent = Some(cotangent);
        let last = step.active.iter().rposition(|&active| active);
        for (position, &input) in inputs.iter().enumerate().filter(|(position, _)| step.active[*position]) {
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

    /// An operand if the rule keeps it.
    fn kept(&self, step: &Step, position: usize, id: ValueId) -> Option<Array> {
        step.keeps.contains(&Keep::Input(position)).then(|| self.tape.values[id].clone()).flatten()
    }
}
