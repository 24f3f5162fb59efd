//! From a graph to the stages of the forward pass: batch normalisation folded, sums and ReLUs at the end of what they follow.

use std::collections::{HashMap, HashSet};

use influence_kernels::{Active, Element, Table};

use super::adjoint;
use super::constants::{Affine, Numbers};
use super::geometry::{self, Window, area};
use super::stages::{Compiled, Map, MaskId, Norm, Stage, StageKind, Trainable, View};
use super::trained::Trained;
use super::values::{Shape, Uses, concatenated};
use super::weights::{Form, Weights};
use crate::graph::{Graph, Node, ValueId};
use crate::ops::Op;

/// Why the CPU executor does not run a graph.
pub(crate) type Refusal = String;

/// The values of the graph between which a stage stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Between {
    /// What it reads.
    pub(super) input: ValueId,
    /// What it adds.
    pub(super) other: Option<ValueId>,
    /// Its result; none for a copy into a concatenation.
    pub(super) output: Option<ValueId>,
}

/// The compiler's state.
pub(super) struct Compiler<'a, T> {
    pub(super) graph: &'a Graph,
    pub(super) uses: Uses,
    places: HashMap<ValueId, (ValueId, usize)>,
    /// Where values are computed, by root.
    pub(super) views: HashMap<ValueId, View>,
    /// The masks of the results of ReLUs.
    pub(super) mask_of: HashMap<ValueId, MaskId>,
    /// Nodes that stages before them have taken in.
    taken: HashSet<usize>,
    pub(super) maps: Vec<Map>,
    pub(super) stages: Vec<Stage<T>>,
    pub(super) between: Vec<Between>,
    pub(super) weights: Vec<Option<Weights<'a>>>,
    pub(super) masks: Vec<View>,
    choices: usize,
    /// The perturbed tensors, where there are any.
    pub(super) trains: Option<Trained>,
}

/// Compiles a graph for perturbations of some tensors, by their places, or of the input alone.
///
/// # Errors
/// The operations that the CPU executor lacks, with their places.
pub(crate) fn compile<T: Element>(graph: &Graph, tensors: &[usize]) -> Result<Compiled<T>, Refusal> {
    let uses = Uses::of(graph);
    let trains = (!tensors.is_empty()).then(|| Trained::of(graph, tensors)).transpose()?;
    let places = concatenated(graph, &uses);
    let mut compiler = Compiler {
        graph,
        uses,
        places,
        views: HashMap::new(),
        mask_of: HashMap::new(),
        taken: HashSet::new(),
        maps: Vec::new(),
        stages: Vec::new(),
        between: Vec::new(),
        weights: Vec::new(),
        masks: Vec::new(),
        choices: 0,
        trains,
    };
    let input = compiler.reserve(graph.input())?;
    let refusals: Vec<_> = (0..graph.nodes().len())
        .filter_map(|index| {
            let why = compiler.node(index).err()?;
            Some(format!("{}: {why}", graph.describe(index)))
        })
        .collect();
    if !refusals.is_empty() {
        return Err(refusals.join("; "));
    }
    let output = compiler.view(graph.output()).ok_or("the output does not depend on the input")?;
    compiler.pool_first();
    compiler.mark_live(output);
    compiler.patch();
    if let Some(trains) = &compiler.trains {
        trains.check(graph, compiler.stages.iter().filter_map(|stage| stage.trainable.as_ref()))?;
    }
    let steps = adjoint::steps(&compiler);
    let Compiler { maps, stages, masks, choices, trains, .. } = compiler;
    let trains = trains.is_some();
    Ok(Compiled { maps, stages, steps, masks, choices, input, output, trains })
}

impl<'a, T: Element> Compiler<'a, T> {
    /// Where a value is computed.
    pub(super) fn view(&self, id: ValueId) -> Option<View> {
        self.views.get(&self.uses.root(id)).copied()
    }

    /// Whether a value lies in a concatenation.
    pub(super) fn is_concatenated(&self, id: ValueId) -> bool {
        self.places.contains_key(&self.uses.root(id))
    }

    fn known(&self, id: ValueId) -> Result<View, Refusal> {
        self.view(id).ok_or_else(|| "an operand that is not computed here".to_owned())
    }

    fn shape(&self, id: ValueId) -> Result<Shape, Refusal> {
        Shape::of(self.graph, id)
            .ok_or_else(|| "a value that is no image, row or vector of each sample".into())
    }

    /// The shape under which a value is stored: its root's.
    fn stored(&self, id: ValueId) -> Result<Shape, Refusal> {
        self.shape(self.uses.root(id))
    }

    /// Finds room for a value.
    fn reserve(&mut self, id: ValueId) -> Result<View, Refusal> {
        let shape = self.shape(id)?;
        let (root, offset) = self.places.get(&id).copied().unwrap_or((id, 0));
        let map = match self.views.get(&root) {
            Some(view) => view.map,
            None => {
                let whole = self.shape(root)?;
                if whole.channels > Active::MOST_CHANNELS {
                    return Err(format!(
                        "{} channels are more than {}",
                        whole.channels,
                        Active::MOST_CHANNELS
                    ));
                }
                let map = Map { positions: whole.positions(), pitch: whole.channels, live: Vec::new() };
                self.maps.push(map);
                let map = self.maps.len() - 1;
                self.views.insert(root, View { map, offset: 0, channels: whole.channels });
                map
            }
        };
        let view = View { map, offset, channels: shape.channels };
        self.views.insert(id, view);
        Ok(view)
    }

    fn new_mask(&mut self, id: ValueId, view: View) -> MaskId {
        self.masks.push(view);
        self.mask_of.insert(id, self.masks.len() - 1);
        self.masks.len() - 1
    }

    /// Compiles one node.
    fn node(&mut self, index: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        if !self.uses.depends(node.output) || self.taken.contains(&index) {
            return Ok(());
        }
        match &node.op {
            Op::Conv2d(_) | Op::Conv1d(_) | Op::Linear(_) | Op::Matmul(_) => self.product(index),
            Op::BatchNorm(_) | Op::Relu(_) => self.affine(index),
            Op::Add(_) => self.sum(index),
            Op::Cat(cat) => self.concatenation(index, cat.axis),
            Op::Reshape(_) => self.reshape(node),
            Op::Cast(_) => Ok(()),
            Op::MaxPool2d(pool) => self.maximum(index, Window::of_max(pool)),
            Op::MaxPool1d(pool) => self.maximum(index, Window::of_max(&pool.0)),
            Op::AvgPool2d(_)
            | Op::AvgPool1d(_)
            | Op::AdaptiveAvgPool2d(_)
            | Op::AdaptiveAvgPool1d(_)
            | Op::Mean(_) => self.average(index),
            other => Err(format!("{} is not an operation of the CPU executor", other.name())),
        }
    }

    /// The only reader of a value as a node.
    pub(super) fn reader(&self, id: ValueId) -> Option<(usize, &'a Node)> {
        let index = self.uses.sole(self.graph, id)?;
        Some((index, &self.graph.nodes()[index]))
    }

    /// The other operand of a sum with a value.
    pub(super) fn partner(&self, node: &Node, id: ValueId) -> Option<ValueId> {
        let root = self.uses.root(id);
        match (&node.op, node.inputs.as_slice()) {
            (Op::Add(_), [a, b]) if self.uses.root(*a) == root => Some(*b),
            (Op::Add(_), [a, b]) if self.uses.root(*b) == root => Some(*a),
            _ => None,
        }
    }

    /// A convolution or linear layer with what follows it.
    fn product(&mut self, index: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        let (table, mut weights, mut bias) = self.operands(node)?;
        let mut result = node.output;
        let mut names = vec![self.graph.describe(index)];
        let mut trainable = self.trains.as_ref().map(|trains| trains.product(self.graph, node));
        let mut norm = None;
        while let Some((next, affine, output)) = self.foldable(result) {
            let node = &self.graph.nodes()[next];
            let scale = weights.scale.take().unwrap_or_else(|| vec![1.0; bias.len()]);
            weights.scale = Some(scale.iter().zip(&affine.scale).map(|(a, b)| a * b).collect());
            self.take(next, &mut names);
            result = output;
            match (&mut trainable, &node.op) {
                // Its gradient reads what is normalised, which therefore is kept.
                (Some(_), Op::BatchNorm(_)) => {
                    norm = Some((next, affine));
                    break;
                }
                (Some(trainable), _) if trainable.bias.is_none() => {
                    let addend = node.inputs.iter().find(|&&id| !self.uses.depends(id));
                    trainable.bias = addend.and_then(|&id| self.trains.as_ref()?.tensor(self.graph, id));
                }
                (Some(_), _) => return Err("a bias behind another".into()),
                (None, _) => {}
            }
            bias.iter_mut().zip(&affine.scale).for_each(|(b, s)| *b *= s);
            bias.iter_mut().zip(&affine.shift).for_each(|(b, t)| *b += t);
        }
        let mut other = None;
        if let Some((next, node)) = self.reader(result)
            && let Some(partner) = self.partner(node, result)
            && self.is_addend(partner, node.output)
        {
            other = Some(partner);
            self.take(next, &mut names);
            result = node.output;
        }
        let forward = if norm.is_some() { weights.unscaled() } else { weights.clone() };
        let bias = bias.iter().map(|b| T::from_f64(*b)).collect();
        let (kind, channels) = (forward.stage(table, bias), weights.outputs);
        self.finish(kind, node.inputs[0], other, result, names, Some(weights))?;
        if let Some((node, affine)) = norm {
            let output = self.stages.last().map_or(0, |stage| stage.output.map);
            let map = Map { positions: self.maps[output].positions, pitch: channels, live: Vec::new() };
            self.maps.push(map);
            let rows = View { map: self.maps.len() - 1, offset: 0, channels };
            if let Some(trainable) = &mut trainable {
                trainable.norm = self.norm(node, &affine, rows)?;
            }
        }
        self.train(trainable);
        Ok(())
    }

    /// The gradients of a batch normalisation of some rows.
    fn norm(&self, node: usize, affine: &Affine, rows: View) -> Result<Option<Norm<T>>, Refusal> {
        let (Some(trains), node) = (&self.trains, &self.graph.nodes()[node]) else { return Ok(None) };
        let Op::BatchNorm(norm) = &node.op else { return Ok(None) };
        let vector = |position: usize| {
            let numbers =
                Numbers::of(self.graph, node.inputs[position]).ok_or("statistics that are computed")?;
            Ok::<_, Refusal>(numbers.to_vec())
        };
        let inverse = vector(4)?.iter().map(|variance| 1.0 / (variance + norm.epsilon).sqrt()).collect();
        let numbers = |all: &[f64]| all.iter().map(|x| T::from_f64(*x)).collect::<Vec<_>>();
        let [gamma, beta] = [1, 2].map(|position| trains.tensor(self.graph, node.inputs[position]));
        let affine = [numbers(&affine.scale), numbers(&affine.shift)];
        Ok(Some(Norm { gamma, beta, mean: vector(3)?, inverse, rows, affine }))
    }

    /// Notes the tensors of the last stage.
    fn train(&mut self, trainable: Option<Trainable<T>>) {
        if let Some(stage) = self.stages.last_mut() {
            stage.trainable = trainable;
        }
    }

    /// Whether a value is there already, in the shape of the sum.
    fn is_addend(&self, id: ValueId, sum: ValueId) -> bool {
        let same = |id: ValueId| self.stored(id).ok() == self.shape(sum).ok();
        self.view(id).is_some() && same(id)
    }

    fn take(&mut self, index: usize, names: &mut Vec<String>) {
        self.taken.insert(index);
        names.push(self.graph.describe(index));
    }

    /// Batch normalisation or a constant added behind a product, as long as nothing else reads the product.
    fn foldable(&self, id: ValueId) -> Option<(usize, Affine, ValueId)> {
        let (index, node) = self.reader(id)?;
        let channels = self.stored(id).ok()?.channels;
        let affine = match &node.op {
            Op::BatchNorm(norm) => Affine::of_batch_norm(self.graph, &node.inputs, norm.epsilon)?,
            Op::Add(_) => {
                let shift = Numbers::of(self.graph, self.partner(node, id)?)?.to_vec();
                if self.stored(id).ok()?.positions() != 1 {
                    return None;
                }
                Affine { scale: vec![1.0; channels], shift }
            }
            _ => return None,
        };
        let fits = affine.shift.len() == channels && self.stored(node.output).ok()?.channels == channels;
        fits.then_some((index, affine, node.output))
    }

    /// Geometry, weights and bias of a product.
    fn operands(&self, node: &'a Node) -> Result<(Table, Weights<'a>, Vec<f64>), Refusal> {
        let numbers = Numbers::of(self.graph, node.inputs[1]).ok_or("a weight that is computed")?;
        let (from, to) = (self.stored(node.inputs[0])?, self.shape(node.output)?);
        let weight: Vec<_> = self.graph.values()[node.inputs[1]].shape_at(1);
        let conv = match &node.op {
            Op::Conv2d(conv) => Some(conv),
            Op::Conv1d(conv) => Some(&conv.0),
            _ => None,
        };
        let groups = conv.map_or(1, |conv| conv.groups);
        if groups > 1 && self.trains.is_some() {
            return Err("a grouped convolution where parameters are perturbed".into());
        }
        let kernel = match weight.as_slice() {
            [_, _, kh, kw] => [*kh, *kw],
            [.., k] => [1, *k],
            [] => [1, 1],
        };
        let window = conv.map(|conv| Window::of_conv(conv, kernel));
        let (table, form) = match (window, weight.as_slice()) {
            (Some(window), _) => (window.table(from.extent, to.extent), Form::Convolution),
            (_, [_, _]) if to.positions() == 1 && !self.uses.depends(node.inputs[1]) => {
                let positions = from.positions();
                (Table::new(1, positions, positions, |_, tap| Some(tap)), Form::Linear)
            }
            _ => return Err("products of other than one vector a sample with a constant matrix".into()),
        };
        let weights = Weights {
            numbers,
            form,
            scale: None,
            taps: table.taps(),
            inputs: from.channels,
            outputs: to.channels,
            groups,
            neighbours: window.and_then(|window| window.neighbours(from.extent, to.extent)),
        };
        let bias = match node.inputs.get(2) {
            Some(&id) => Numbers::of(self.graph, id).ok_or("a bias that is computed")?.to_vec(),
            None => vec![0.0; to.channels],
        };
        Ok((table, weights, bias))
    }

    /// Batch normalisation, ReLU, or both.
    fn affine(&mut self, index: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        let (stored, seen) = (self.stored(node.inputs[0])?, self.shape(node.inputs[0])?);
        let affine = match &node.op {
            Op::BatchNorm(_) if stored != seen && stored.positions() != 1 => {
                return Err("batch normalisation of flattened images".into());
            }
            Op::BatchNorm(norm) => Some(
                Affine::of_batch_norm(self.graph, &node.inputs, norm.epsilon)
                    .ok_or("statistics that are computed")?,
            ),
            _ => None,
        };
        let norm = match &affine {
            Some(affine) => self.norm(index, affine, self.known(node.inputs[0])?)?,
            None => None,
        };
        let numbers = |all: &[f64]| all.iter().map(|x| T::from_f64(*x)).collect::<Vec<_>>();
        let kind = StageKind::Affine(affine.map(|affine| [numbers(&affine.scale), numbers(&affine.shift)]));
        let names = vec![self.graph.describe(index)];
        if matches!(node.op, Op::Relu(_)) {
            return self.emit(kind, node.inputs[0], None, node.output, names, None, true);
        }
        self.finish(kind, node.inputs[0], None, node.output, names, None)?;
        self.train(norm.map(|norm| Trainable { weight: None, patches: None, bias: None, norm: Some(norm) }));
        Ok(())
    }

    fn sum(&mut self, index: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        let [a, b] = [node.inputs[0], node.inputs[1]];
        if ![a, b].into_iter().all(|id| self.is_addend(id, node.output)) {
            return Err("sums other than of two values of one shape".into());
        }
        let names = vec![self.graph.describe(index)];
        self.finish(StageKind::Sum, a, Some(b), node.output, names, None)
    }

    /// Views of what lies there already, and copies of what does not.
    fn concatenation(&mut self, index: usize, axis: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        if axis != 1 {
            return Err("concatenation along another axis than the channels".into());
        }
        let whole = self.reserve(node.output)?;
        let mut offset = whole.offset;
        for &input in &node.inputs {
            let view = self.known(input)?;
            let wanted = View { map: whole.map, offset, channels: view.channels };
            if self.stored(input)?.extent != self.shape(node.output)?.extent {
                return Err("concatenation of flattened images".into());
            }
            if view != wanted {
                let stage = Stage {
                    kind: StageKind::Affine(None),
                    input: view,
                    output: wanted,
                    other: None,
                    relu: None,
                    name: self.graph.describe(index),
                    trainable: None,
                };
                self.push(stage, Between { input, other: None, output: None }, None);
            }
            offset += view.channels;
        }
        Ok(())
    }

    /// Flattening, and axes of size 1 that come or go, are other views of the same rows.
    fn reshape(&self, node: &Node) -> Result<(), Refusal> {
        let (stored, from, to) =
            (self.stored(node.inputs[0])?, self.shape(node.inputs[0])?, self.shape(node.output)?);
        let flat = Shape { channels: stored.channels * stored.positions(), extent: [1, 1] };
        let same = from == stored && to.channels == from.channels && to.positions() == from.positions();
        if to == flat || same { Ok(()) } else { Err("reshapes other than to a vector".into()) }
    }

    fn maximum(&mut self, index: usize, window: Window) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        let (from, to) = (self.stored(node.inputs[0])?, self.shape(node.output)?);
        if area(window.kernel) > usize::from(u16::MAX) {
            return Err("a window of more than 65535 elements".into());
        }
        let kind = StageKind::Maximum { table: window.table(from.extent, to.extent), choices: self.choices };
        self.choices += 1;
        let names = vec![self.graph.describe(index)];
        self.finish(kind, node.inputs[0], None, node.output, names, None)
    }

    fn average(&mut self, index: usize) -> Result<(), Refusal> {
        let node = &self.graph.nodes()[index];
        let (from, to) = (self.shape(node.inputs[0])?, self.shape(node.output)?);
        if from != self.stored(node.inputs[0])? {
            return Err("means of flattened images".into());
        }
        let plain = |pool| {
            (
                Window::of_average(pool).table(from.extent, to.extent),
                geometry::counts(pool, from.extent, to.extent),
            )
        };
        let rank = self.graph.values()[node.inputs[0]].shape.len();
        let (table, counts) = match &node.op {
            Op::AvgPool2d(pool) => plain(pool),
            Op::AvgPool1d(pool) => plain(&pool.0),
            Op::AdaptiveAvgPool2d(pool) => geometry::adaptive(pool, from.extent),
            Op::AdaptiveAvgPool1d(pool) => geometry::adaptive(&pool.0, from.extent),
            Op::Mean(mean) if mean.axes.iter().all(|axis| (2..rank).contains(axis)) => {
                // The axes of a row are the last one of an image's.
                let axes = [0, 1].map(|axis| mean.axes.contains(&(axis + rank - 2)));
                geometry::mean(axes, from.extent)
            }
            _ => return Err("means over other axes than an image's".into()),
        };
        let shares = counts.iter().map(|&count| T::from_f64(1.0 / count as f64)).collect();
        let names = vec![self.graph.describe(index)];
        self.finish(StageKind::Average { table, shares }, node.inputs[0], None, node.output, names, None)
    }

    /// Ends a stage with the ReLU that alone reads its result, if there is one.
    fn finish(
        &mut self,
        kind: StageKind<T>,
        input: ValueId,
        other: Option<ValueId>,
        result: ValueId,
        mut names: Vec<String>,
        weights: Option<Weights<'a>>,
    ) -> Result<(), Refusal> {
        let relu = self.reader(result).filter(|(_, node)| matches!(node.op, Op::Relu(_)));
        // A maximum keeps its choices, not a mask: its ReLU stands alone.
        let relu = relu.filter(|_| !matches!(kind, StageKind::Maximum { .. } | StageKind::Average { .. }));
        match relu {
            Some((next, node)) => {
                self.take(next, &mut names);
                self.emit(kind, input, other, node.output, names, weights, true)
            }
            None => self.emit(kind, input, other, result, names, weights, false),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one stage")]
    fn emit(
        &mut self,
        kind: StageKind<T>,
        input: ValueId,
        other: Option<ValueId>,
        output: ValueId,
        names: Vec<String>,
        weights: Option<Weights<'a>>,
        relu: bool,
    ) -> Result<(), Refusal> {
        let from = self.known(input)?;
        let addend = other.map(|other| self.known(other)).transpose()?;
        let to = self.reserve(output)?;
        let relu = relu.then(|| self.new_mask(output, to));
        let name = names.join(", ");
        let stage = Stage { kind, input: from, output: to, other: addend, relu, name, trainable: None };
        self.push(stage, Between { input, other, output: Some(output) }, weights);
        Ok(())
    }

    fn push(&mut self, stage: Stage<T>, between: Between, weights: Option<Weights<'a>>) {
        self.stages.push(stage);
        self.between.push(between);
        self.weights.push(weights);
    }
}
