//! What to run, in which order, what to keep, and how many bytes it takes: all known before
//! anything runs.
//!
//! The passes over the graph:
//! 1. *Activity*: a value is active when it depends on a perturbed leaf through operations that
//!    have a derivative (the derivative of a comparison is zero). Only active values get
//!    cotangents.
//! 2. *Constant folding*: nodes that depend on no input are computed once, when the plan is loaded
//!    onto a device. Folded nodes between a perturbed parameter and its use (the chain) are still
//!    visited by the reverse pass, after all other nodes.
//! 3. *Gram matrices*: where a parameter is used once, possibly after reshapes and permutations,
//!    its Gram matrix is computed at that use from the factors of the gradient, which is not formed
//!    as a whole. For any other parameter, the gradients of all uses are summed at the parameter
//!    first.
//! 4. *Keeping*: the rule of each active node declares what its pullback reads ([`Keep`]); nothing
//!    else survives the forward pass.
//! 5. *Lifetimes*: a value is dropped after its last use; the bytes that are live at each node give
//!    the peaks.

use std::fmt;
use std::sync::Arc;

use crate::coupling;
use crate::direct::{DirectUse, direct};
use crate::error::{Error, Problem, Result};
use crate::grams::OuterSizes;
use crate::graph::{Graph, Kind, Node, Origin, ValueId};
use crate::ops::Keep;
use crate::parameters::{LeafId, Leaves};
use crate::precision::Precision;

/// One node of the forward pass, with what the plan has decided about it and its operands.
#[derive(Debug, Clone)]
pub(crate) struct PlannedNode {
    /// The node's index in the graph.
    pub(crate) node: usize,
    /// Which operands are active; none for a node that the reverse pass does not visit.
    pub(crate) active: Vec<bool>,
    /// Active operands that get a Gram matrix here instead of a cotangent.
    pub(crate) direct: Vec<DirectOperand>,
    /// What the pullback reads.
    pub(crate) keeps: Vec<Keep>,
    /// Values that nothing reads after this node, neither forward nor reverse.
    pub(crate) dead: Vec<ValueId>,
}

impl PlannedNode {
    pub(crate) fn is_active(&self) -> bool {
        self.active.contains(&true)
    }

    /// The positions of the operands that get a cotangent.
    pub(crate) fn pulled(&self) -> impl Iterator<Item = usize> {
        let direct = |position: &usize| self.direct.iter().any(|direct| direct.position == *position);
        (0..self.active.len()).filter(move |position| self.active[*position] && !direct(position))
    }

    /// Whether the rule has to make a mask or indices.
    pub(crate) fn derives(&self) -> bool {
        self.keeps.iter().any(|keep| matches!(keep, Keep::Mask | Keep::Indices))
    }
}

/// A perturbed parameter as an operand of the one node that uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DirectOperand {
    /// The operand's position.
    pub(crate) position: usize,
    /// The parameter.
    pub(crate) leaf: LeafId,
}

/// Bytes of one run of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bytes {
    /// Weights and folded constants.
    pub weights: usize,
    /// What the forward pass keeps for the reverse pass.
    pub kept: usize,
    /// The largest sum of live values during the forward pass, kept values among them.
    pub forward: usize,
    /// The largest sum of live cotangents during the reverse pass.
    pub reverse: usize,
}

impl Bytes {
    /// The peak of a run: weights, and the larger of the forward pass and the reverse pass with all
    /// that is kept.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.weights + self.forward.max(self.kept + self.reverse)
    }
}

/// The part of a graph that a plan runs: all of it, or some nodes between values that another
/// executor computes and reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subgraph {
    /// The values that are given.
    pub(crate) inputs: Vec<ValueId>,
    /// The values that are wanted.
    pub(crate) outputs: Vec<ValueId>,
    /// For each node, whether it belongs to the part.
    pub(crate) nodes: Vec<bool>,
}

impl Subgraph {
    /// The whole graph.
    pub(crate) fn whole(graph: &Graph) -> Self {
        Self { inputs: vec![graph.input], outputs: vec![graph.output], nodes: vec![true; graph.nodes.len()] }
    }

    /// For each value, whether nodes of the part read or write it.
    fn touched(&self, graph: &Graph) -> Vec<bool> {
        let mut touched = vec![false; graph.values.len()];
        self.inputs.iter().chain(&self.outputs).for_each(|&id| touched[id] = true);
        for (node, _) in graph.nodes.iter().zip(&self.nodes).filter(|(_, own)| **own) {
            node.inputs.iter().chain([&node.output]).for_each(|&id| touched[id] = true);
        }
        touched
    }
}

/// A graph, or a part of one, made ready to run at one batch size.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) graph: Arc<Graph>,
    /// The batch size of every run: shorter batches are padded.
    pub(crate) batch: usize,
    /// The number of cotangents that one reverse pass carries: fewer are padded, more take several
    /// passes.
    pub(crate) block: usize,
    pub(crate) precision: Precision,
    /// The nodes that run, the values given to them and those wanted from them.
    pub(crate) subgraph: Subgraph,
    /// Nodes that depend on no input, in order.
    pub(crate) folded: Vec<usize>,
    pub(crate) steps: Vec<PlannedNode>,
    /// Folded nodes through which cotangents go to perturbed parameters, in order.
    pub(crate) chain: Vec<PlannedNode>,
    leaves: Leaves,
    bytes: Bytes,
}

impl Plan {
    /// Plans the perturbation of the input.
    ///
    /// `batch` samples run together, with `block` cotangents in one reverse pass. Both are fixed
    /// for the life of the plan, because matrix products change their order of summation with the
    /// shape; so a result never depends on what else is in the batch.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a batch or block of 0; [`Error::Unsupported`] where a weight
    /// or a statistic depends on the input.
    pub fn input(graph: Arc<Graph>, batch: usize, block: usize, precision: Precision) -> Result<Self> {
        Self::new(graph, Leaves::input(), batch, block, precision)
    }

    /// Plans the perturbation of some leaves. Where parameters are among them, `block` is the size
    /// of their Gram matrices.
    ///
    /// # Errors
    /// As [`Plan::input`]; [`Error::Unsupported`] with every use of a parameter as an operand for
    /// which the operation has no derivative; [`Error::InvalidArgument`] for no leaves, or a tensor
    /// that the graph does not have.
    pub fn new(
        graph: Arc<Graph>,
        leaves: Leaves,
        batch: usize,
        block: usize,
        precision: Precision,
    ) -> Result<Self> {
        leaves.check(&graph)?;
        let (direct, subgraph) = (direct(&graph, &leaves), Subgraph::whole(&graph));
        Self::of_subgraph(graph, subgraph, leaves, &direct, [batch, block], precision)
    }

    /// [`Plan::new`] without Gram matrices at direct uses: every gradient is summed at its
    /// parameter.
    pub(crate) fn of_gradients(graph: Arc<Graph>, leaves: Leaves, precision: Precision) -> Result<Self> {
        let subgraph = Subgraph::whole(&graph);
        Self::of_subgraph(graph, subgraph, leaves, &[], [1, 1], precision)
    }

    /// Plans some nodes of a graph, for one sample and `block` cotangents at a time. Every value
    /// given to them is perturbed, and so is each of the leaves' tensors that they use.
    pub(crate) fn part(
        graph: Arc<Graph>,
        subgraph: Subgraph,
        leaves: Leaves,
        block: usize,
        precision: Precision,
    ) -> Result<Self> {
        let direct: Vec<_> =
            direct(&graph, &leaves).into_iter().filter(|direct| subgraph.nodes[direct.node]).collect();
        Self::of_subgraph(graph, subgraph, leaves, &direct, [1, block], precision)
    }

    /// Plans some nodes of a graph, with these direct uses of perturbed parameters.
    fn of_subgraph(
        graph: Arc<Graph>,
        subgraph: Subgraph,
        leaves: Leaves,
        direct: &[DirectUse],
        [batch, block]: [usize; 2],
        precision: Precision,
    ) -> Result<Self> {
        if batch == 0 || block == 0 {
            return Err(Error::InvalidArgument(
                "a plan needs at least one sample and one cotangent at a time".into(),
            ));
        }
        // Which values depend on the input, and which on something perturbed through derivatives.
        let smooth = |node: &Node| !node.op.rule().is_locally_constant();
        let dependent = reachable(&graph, |id| id == graph.input, |_| true);
        let given = |id| leaves.has_input() && subgraph.inputs.contains(&id);
        let active = reachable(&graph, |id| given(id) || is_perturbed(&graph, &leaves, id), smooth);
        let problems = not_differentiable(&graph, &active, &dependent);
        if !problems.is_empty() {
            return Err(Error::Unsupported(problems));
        }
        coupling::check(&graph, &dependent)?;
        // Nodes between a parameter and its direct use get no cotangent: the Gram matrix is taken
        // at the use.
        let passed: Vec<_> = direct.iter().flat_map(|direct| direct.passed.iter().copied()).collect();
        let (steps, folded): (Vec<_>, Vec<_>) =
            (0..graph.nodes.len()).partition(|&node| dependent[graph.nodes[node].output]);
        let step = |&node: &usize| step(&graph, node, &active, direct);
        let mut steps: Vec<_> = steps.iter().filter(|&&node| subgraph.nodes[node]).map(step).collect();
        lifetimes(&graph, &subgraph.outputs, &mut steps, &dependent);
        let chain = folded.iter().filter(|&&node| !passed.contains(&graph.nodes[node].output)).map(step);
        let chain = chain.filter(PlannedNode::is_active).collect();
        let bytes = Bytes::default();
        let mut plan = Self { graph, batch, block, precision, subgraph, folded, steps, chain, leaves, bytes };
        plan.folded = plan.needed();
        plan.bytes = plan.count();
        Ok(plan)
    }

    /// The folded nodes on which the part depends.
    fn needed(&self) -> Vec<usize> {
        let mut wanted = self.subgraph.touched(&self.graph);
        let is_needed = |&&node: &&usize| {
            let Node { inputs, output, .. } = &self.graph.nodes[node];
            let own = wanted[*output];
            inputs.iter().for_each(|&input| wanted[input] |= own);
            own
        };
        // From the last node to the first: a node is needed if its result is wanted, and then its
        // operands are wanted too.
        let mut needed: Vec<_> = self.folded.iter().rev().filter(is_needed).copied().collect();
        needed.reverse();
        needed
    }

    /// For each value, whether the plan reads it as a constant.
    pub(crate) fn reads(&self) -> Vec<bool> {
        let mut read = self.subgraph.touched(&self.graph);
        for &node in &self.folded {
            let Node { inputs, output, .. } = &self.graph.nodes[node];
            inputs.iter().chain([output]).for_each(|&id| read[id] = true);
        }
        read
    }

    /// The graph that is run.
    #[must_use]
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What is perturbed.
    #[must_use]
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// How many samples run together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The float type of the run.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The bytes of one run, without the temporaries inside the backend's kernels.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// The number of elements of a value at the plan's batch size.
    fn elements(&self, id: ValueId) -> usize {
        self.graph.values[id].shape_at(self.batch).iter().product()
    }

    /// The bytes of a value at the plan's batch size.
    fn size(&self, id: ValueId) -> usize {
        let element = match self.graph.values[id].kind {
            Kind::Float => self.precision.bytes(),
            Kind::Index => derived_bytes(Keep::Indices),
            Kind::Mask => derived_bytes(Keep::Mask),
        };
        self.elements(id) * element
    }

    /// Whether a value is computed only from constants.
    pub(crate) fn is_folded(&self, id: ValueId) -> bool {
        matches!(self.graph.values[id].origin, Origin::Node(node) if self.folded.contains(&node))
    }

    /// Whether a value is a weight or folded, and so stays for the life of the plan.
    fn is_constant(&self, id: ValueId) -> bool {
        match self.graph.values[id].origin {
            Origin::Input => false,
            Origin::Constant(_) => true,
            Origin::Node(node) => self.folded.contains(&node),
        }
    }

    /// The bytes of one run.
    fn count(&self) -> Bytes {
        let read = self.reads();
        let constants = (0..self.graph.values.len()).filter(|&id| read[id] && self.is_constant(id));
        let weights = constants.map(|id| self.size(id)).sum();
        let (forward, kept) = self.count_forward();
        Bytes { weights, kept, forward, reverse: self.count_reverse() }
    }

    /// The peak of the forward pass, and the bytes left after it.
    fn count_forward(&self) -> (usize, usize) {
        let given: usize = self.subgraph.inputs.iter().map(|&id| self.size(id)).sum();
        // Masks and indices (`derived`) live to the end of the reverse pass; values die at the node
        // that lists them as dead.
        let (mut live, mut peak, mut derived) = (given, 0, 0);
        for step in &self.steps {
            let node = &self.graph.nodes[step.node];
            let elements = self.elements(node.output);
            derived += step.keeps.iter().map(|keep| elements * derived_bytes(*keep)).sum::<usize>();
            live += self.size(node.output);
            peak = peak.max(live + derived);
            live -= step.dead.iter().map(|&id| self.size(id)).sum::<usize>();
        }
        (peak, live + derived)
    }

    /// The peak of the reverse pass: cotangents, and what Gram matrices hold.
    fn count_reverse(&self) -> usize {
        // For each value, the bytes of the cotangents that have arrived and were not passed on.
        let mut pending = vec![0; self.graph.values.len()];
        for &output in &self.subgraph.outputs {
            pending[output] = self.block * self.size(output);
        }
        let mut peak: usize = pending.iter().sum();
        for step in self.reversed() {
            let Node { inputs, output, .. } = &self.graph.nodes[step.node];
            let before: usize = pending.iter().sum();
            for position in step.pulled() {
                pending[inputs[position]] = self.block * self.size(inputs[position]);
            }
            // Gram matrices are taken before the node's operands get their cotangents. The result's
            // cotangent is dropped after that.
            let factors = step.direct.iter().map(|direct| self.count_factors(step, direct.position)).max();
            peak = peak.max(before + factors.unwrap_or(0)).max(pending.iter().sum());
            pending[*output] = 0;
        }
        peak
    }

    /// The bytes held while the Gram matrix of an operand is computed.
    fn count_factors(&self, step: &PlannedNode, position: usize) -> usize {
        match self.outer(step, position) {
            Some(outer) => outer.bytes(self.block, self.precision.bytes()),
            None => self.block * self.size(self.graph.nodes[step.node].inputs[position]),
        }
    }

    /// The sizes of the outer products whose sum is the gradient of an operand, where it is such a
    /// sum.
    pub(crate) fn outer(&self, step: &PlannedNode, position: usize) -> Option<OuterSizes> {
        let Node { op, inputs, output, .. } = &self.graph.nodes[step.node];
        let shapes: Vec<_> = inputs.iter().map(|&id| self.graph.values[id].shape_at(self.batch)).collect();
        op.rule().outer(position, &shapes, &self.graph.values[*output].shape_at(self.batch))
    }

    /// The steps of the reverse pass, in its order.
    pub(crate) fn reversed(&self) -> impl Iterator<Item = &PlannedNode> {
        self.chain.iter().chain(&self.steps).rev().filter(|step| step.is_active())
    }
}

/// Bytes per element of the mask or indices that a rule makes with its result.
fn derived_bytes(keep: Keep) -> usize {
    match keep {
        Keep::Mask => 1,
        Keep::Indices => 8,
        Keep::Input(_) | Keep::Output => 0,
    }
}

/// For each value, whether it depends on a value that is `perturbed`, through nodes that `pass`.
pub(crate) fn reachable(
    graph: &Graph,
    perturbed: impl Fn(ValueId) -> bool,
    pass: impl Fn(&Node) -> bool,
) -> Vec<bool> {
    let mut reached: Vec<_> = (0..graph.values.len()).map(perturbed).collect();
    for node in &graph.nodes {
        if pass(node) && node.inputs.iter().any(|&input| reached[input]) {
            reached[node.output] = true;
        }
    }
    reached
}

/// Whether a value holds a perturbed parameter.
fn is_perturbed(graph: &Graph, leaves: &Leaves, id: ValueId) -> bool {
    leaves.ids().any(|leaf| graph.parameters[leaf.index()].values.contains(&id))
}

/// The nodes with an active operand to which their operation has no pullback.
fn not_differentiable(graph: &Graph, active: &[bool], dependent: &[bool]) -> Vec<Problem> {
    let refused = |index: usize| {
        let Node { op, inputs, output, .. } = &graph.nodes[index];
        let rule = op.rule();
        // An operand that depends on the input needs a pullback for every sample. For one that
        // depends only on parameters a pullback that is summed over the batch is enough.
        let fine = |i: usize| if dependent[inputs[i]] { rule.differentiable(i) } else { rule.trainable(i) };
        let position = (0..inputs.len()).find(|&i| active[inputs[i]] && active[*output] && !fine(i))?;
        let why = if dependent[inputs[position]] {
            format!(
                "operand {position} depends on the input; only constants are supported there: write it with products of \
                 values (matmul, multiplication)"
            )
        } else {
            let names: Vec<&str> = sources(graph, inputs[position]).collect();
            format!(
                "operand {position} depends on {}, and this operation has no derivative in that operand; leave its group out",
                names.join(", ")
            )
        };
        Some(Problem { op: op.to_string(), node: graph.describe(index), why })
    };
    (0..graph.nodes.len()).filter_map(refused).collect()
}

/// The names of the parameters on which a value depends.
fn sources(graph: &Graph, value: ValueId) -> impl Iterator<Item = &str> {
    graph.parameters.iter().filter_map(move |parameter| {
        let reached = reachable(graph, |id| parameter.values.contains(&id), |_| true);
        reached[value].then_some(parameter.name.as_str())
    })
}

/// What the plan decides about one node, but for lifetimes.
fn step(graph: &Graph, node: usize, active: &[bool], direct: &[DirectUse]) -> PlannedNode {
    // The result of a comparison is not active: the node is computed, and nothing is pulled back
    // through it.
    let smooth = active[graph.nodes[node].output];
    let active: Vec<_> = graph.nodes[node].inputs.iter().map(|&input| smooth && active[input]).collect();
    let keeps = if active.contains(&true) { graph.nodes[node].op.rule().keeps(&active) } else { vec![] };
    let own = direct.iter().filter(|direct| direct.node == node && active[direct.position]);
    let direct = own.map(|direct| DirectOperand { position: direct.position, leaf: direct.leaf }).collect();
    PlannedNode { node, active, direct, keeps, dead: vec![] }
}

/// Lists each value that is not kept at the node after which nothing reads it.
fn lifetimes(graph: &Graph, outputs: &[ValueId], steps: &mut [PlannedNode], computed: &[bool]) {
    // Constants, outputs and kept values outlive the forward pass, so no node drops them.
    let mut settled: Vec<_> = computed.iter().map(|computed| !computed).collect();
    outputs.iter().for_each(|&output| settled[output] = true);
    for step in &*steps {
        let node = &graph.nodes[step.node];
        for keep in &step.keeps {
            match keep {
                Keep::Input(position) => settled[node.inputs[*position]] = true,
                Keep::Output => settled[node.output] = true,
                Keep::Mask | Keep::Indices => {}
            }
        }
    }
    // Backwards, the first reader that is met is the last one in the order of execution.
    for step in steps.iter_mut().rev() {
        for &input in &graph.nodes[step.node].inputs {
            if !std::mem::replace(&mut settled[input], true) {
                step.dead.push(input);
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bytes { weights, kept, forward, reverse } = self.bytes;
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        writeln!(f, "batch {}, {} cotangents per pass, {}", self.batch, self.block, self.precision)?;
        writeln!(
            f,
            "weights {:.1} MiB, forward {:.1}, kept {:.1}, reverse {:.1}",
            mib(weights),
            mib(forward),
            mib(kept),
            mib(reverse)
        )?;
        for step in &self.steps {
            write!(f, "{}", self.graph.describe(step.node))?;
            writeln!(f, " keeps {:?}, drops {:?}", step.keeps, step.dead)?;
        }
        Ok(())
    }
}
