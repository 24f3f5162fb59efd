//! From the stages of the forward pass to the steps of the reverse pass: where each cotangent lies, and what is pulled back into it.
//!
//! The cotangent of what a ReLU reads is kept compressed by its mask, and stands for that of the ReLU's result as well. A value that only
//! one sum reads has that sum's cotangent. Where a mask or a batch normalisation stands between a convolution and a value that others
//! read too, the convolution's pullback goes through both at once.

use std::collections::{HashMap, HashSet};

use influence_kernels::{Element, Panels, Table};

use super::compile::Compiler;
use super::stages::{MaskId, Place, Sink, Site, StageKind, Step, StepKind};
use super::together;
use super::weights::FEW_CHANNELS;
use crate::graph::ValueId;
use crate::ops::Op;

/// The reverse pass.
pub(super) fn steps<T: Element>(compiler: &Compiler<'_, T>) -> Vec<Step<T>> {
    let Some(output) = compiler.view(compiler.graph.output()) else { return Vec::new() };
    let mut adjoint = Adjoint {
        compiler,
        steps: Vec::new(),
        written: HashSet::from([Site::Map(output.map)]),
        waiting: HashMap::new(),
    };
    for stage in (0..compiler.stages.len()).rev() {
        adjoint.stage(stage);
    }
    together::join(adjoint.steps)
}

struct Adjoint<'c, 'a, T> {
    compiler: &'c Compiler<'a, T>,
    steps: Vec<Step<T>>,
    /// Buffers that hold something.
    written: HashSet<Site>,
    /// Cotangents that are to be handed on unchanged to a mask's buffer: a product that writes there takes one along.
    waiting: HashMap<MaskId, Vec<(Place, usize)>>,
}

impl<T: Element> Adjoint<'_, '_, T> {
    /// Where the cotangent of a value is.
    fn place(&self, id: ValueId) -> Option<Place> {
        let compiler = self.compiler;
        let root = compiler.uses.root(id);
        // The input's cotangent is the result; parts of a concatenation's belong to others.
        if root == compiler.graph.input() || compiler.is_concatenated(root) {
            return compiler.view(root).map(Place::Dense);
        }
        if let Some((_, node)) = compiler.reader(root) {
            match &node.op {
                Op::Relu(_) => return compiler.mask_of.get(&node.output).copied().map(Place::Compressed),
                Op::Add(_) => return self.place(node.output),
                _ => {}
            }
        }
        // The seed is dense.
        let is_output = compiler.uses.root(compiler.graph.output()) == root;
        let own = compiler.mask_of.get(&root).filter(|_| !is_output);
        own.map(|mask| Place::Compressed(*mask)).or_else(|| compiler.view(root).map(Place::Dense))
    }

    /// Where contributions to the cotangent of a value go.
    fn sink(&self, id: ValueId) -> Option<Sink> {
        let root = self.compiler.uses.root(id);
        let place = self.place(root)?;
        // The gradient of a batch normalisation reads the cotangent between it and the mask.
        if self.compiler.trains.is_none()
            && let (Place::Compressed(mask), Some(own)) = (place, self.compiler.mask_of.get(&root))
            && mask == *own
            && let Some(stage) = self.compiler.between.iter().position(|b| b.output == Some(root))
            && let StageKind::Affine(affine) = &self.compiler.stages[stage].kind
            && let Some(Place::Dense(view)) = self.place(self.compiler.between[stage].input)
        {
            return Some(Sink::Through { mask, view, from: 0, scaled: affine.as_ref().map(|_| stage) });
        }
        Some(Sink::Place(place))
    }

    /// Pulls one stage back.
    fn stage(&mut self, index: usize) {
        let (stage, between) = (&self.compiler.stages[index], self.compiler.between[index]);
        let place = match between.output {
            Some(output) => self.place(output),
            None => Some(Place::Dense(stage.output)),
        };
        let (Some(mut place), Some(sink)) = (place, self.sink(between.input)) else { return };
        if let Some(mask) = stage.relu {
            let through = between.output.and_then(|output| self.sink(output));
            if matches!(through, Some(Sink::Through { .. })) {
                return;
            }
            if place != Place::Compressed(mask) {
                self.spread(place, Sink::Place(Place::Compressed(mask)), None, index);
            }
            place = Place::Compressed(mask);
        }
        match &stage.kind {
            StageKind::Product { .. } => self.product(place, sink, index),
            StageKind::Channelwise { table, .. } => {
                self.push(place, sink, StepKind::Channelwise { links: table.links() }, index);
            }
            StageKind::Affine(affine) => {
                self.spread(place, sink, affine.as_ref().map(|[scale, _]| scale.clone()), index);
            }
            StageKind::Sum => self.spread(place, sink, None, index),
            StageKind::Average { table, .. } => {
                self.push(place, sink, StepKind::Average { links: table.links() }, index);
            }
            StageKind::Maximum { table, .. } => {
                self.push(place, sink, StepKind::Maximum { links: table.links() }, index);
            }
        }
        if let Some(sink) = between.other.and_then(|other| self.sink(other)) {
            self.spread(place, sink, None, index);
        }
    }

    fn product(&mut self, place: Place, sink: Sink, index: usize) {
        let (StageKind::Product { table, .. }, Some(weights)) =
            (&self.compiler.stages[index].kind, &self.compiler.weights[index])
        else {
            return;
        };
        let (inputs, outputs, taps, groups) = (weights.inputs, weights.outputs, table.taps(), weights.groups);
        let dense = matches!(sink, Sink::Place(Place::Dense(_)));
        let kind = if dense && inputs < FEW_CHANNELS && taps > 1 {
            let column = |at: &dyn Fn(usize, usize, usize) -> f64| {
                Panels::reverse(1, outputs, taps * inputs, 1, |_, o, column| {
                    at(column / inputs, column % inputs, o)
                })
            };
            let rows = Table::identity(table.rows()).links();
            StepKind::Columns { rows, panels: weights.with(column), links: table.links() }
        } else {
            let scale = sink.scale(&self.compiler.stages);
            let factor = |i: usize| scale.map_or(1.0, |scale| scale[i].to_f64());
            // Where masks have switched channels off on both sides, skipping them saves more; so does what is taken together.
            let plain = matches!((place, sink), (Place::Dense(_), Sink::Place(_)));
            let (patches, panels) = match plain.then(|| weights.reversed()).flatten() {
                Some((patches, panels)) => (Some(patches), panels),
                None => {
                    let panels = weights.with(|at| {
                        Panels::reverse(taps, outputs, inputs, groups, |tap, o, i| at(tap, i, o) * factor(i))
                    });
                    (None, panels)
                }
            };
            StepKind::Product { links: table.links(), patches, panels, identity: None }
        };
        self.push(place, sink, kind, index);
    }

    /// Hands cotangents on, unless they are there already.
    fn spread(&mut self, place: Place, sink: Sink, scale: Option<Vec<T>>, index: usize) {
        if sink == Sink::Place(place) && scale.is_none() {
            return;
        }
        match sink {
            Sink::Place(Place::Compressed(mask)) if scale.is_none() => {
                self.waiting.entry(mask).or_default().push((place, index));
            }
            _ => {
                let through = sink.scale(&self.compiler.stages).map(<[T]>::to_vec);
                let scale = match (scale, through) {
                    (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a * *b).collect()),
                    (a, b) => a.or(b),
                };
                self.push(place, sink, StepKind::Spread { scale }, index);
            }
        }
    }

    /// Adds a step, and before it all that its source still waits for.
    fn push(&mut self, source: Place, target: Sink, mut kind: StepKind<T>, stage: usize) {
        if let Place::Compressed(mask) = source {
            for (place, stage) in self.waiting.remove(&mask).unwrap_or_default() {
                self.push(place, Sink::Place(source), StepKind::Spread { scale: None }, stage);
            }
        }
        if !self.written.contains(&source.site()) {
            return;
        }
        let site = target.place().site();
        if let (StepKind::Product { identity, .. }, Sink::Place(Place::Compressed(mask))) =
            (&mut kind, target)
            && !self.written.contains(&site)
            && let Some((place, _)) = self.waiting.get_mut(&mask).and_then(Vec::pop)
        {
            *identity = self.written.contains(&place.site()).then_some(place);
        }
        let first = self.written.insert(site);
        self.steps.push(Step { kind, source, target, first, stage });
    }
}
