//! From the stages of the forward pass to the steps of the reverse pass: where each cotangent lies, and what is pulled back into it.
//!
//! The cotangent of what a ReLU reads is kept compressed by its mask, and stands for that of the ReLU's result as well. A value that only
//! one sum reads has that sum's cotangent. Where a mask or a batch normalisation stands between a convolution and a value that others
//! read too, the convolution's pullback goes through both at once.

use std::collections::{HashMap, HashSet};

use super::build::Builder;
use super::program::{KernelKind, MaskId, Place, Sink, Site, Step, StepKind, View};
use super::stage::Source;
use super::together;
use super::view::StoreId;
use super::weights::FEW_CHANNELS;
use crate::kernels::{Element, Panels, Table};

/// The reverse pass.
pub(super) fn steps<T: Element>(builder: &Builder<'_, T>) -> Vec<Step<T>> {
    let output = builder.view(builder.stages.output);
    let mut adjoint = Adjoint {
        builder,
        readers: readers(builder),
        steps: Vec::new(),
        written: HashSet::from([Site::Map(output.map)]),
        waiting: HashMap::new(),
    };
    for kernel in (0..builder.kernels.len()).rev() {
        adjoint.kernel(kernel);
    }
    together::join(adjoint.steps)
}

/// Who reads a store.
#[derive(Debug, Clone, Default)]
struct Readers {
    /// The kernels that do, once for each operand.
    kernels: Vec<usize>,
    /// Whether one of them takes some of its channels alone, or is a segment: both take dense cotangents.
    dense: bool,
}

fn readers<T: Element>(builder: &Builder<'_, T>) -> Vec<Readers> {
    let mut readers = vec![Readers::default(); builder.stages.stores.len()];
    for (index, between) in builder.between.iter().enumerate() {
        if let Some(Source { store, channels }) = &between.input {
            readers[*store].kernels.push(index);
            readers[*store].dense |= channels.len() < builder.stages.stores[*store].channels;
        }
        if let Some(store) = between.other {
            readers[store].kernels.push(index);
        }
    }
    readers
}

struct Adjoint<'c, 'g, T> {
    builder: &'c Builder<'g, T>,
    readers: Vec<Readers>,
    steps: Vec<Step<T>>,
    /// Buffers that hold something.
    written: HashSet<Site>,
    /// Cotangents that are to be handed on unchanged to a mask's buffer: a product that writes there takes one along.
    waiting: HashMap<MaskId, Vec<(Place, usize)>>,
}

impl<T: Element> Adjoint<'_, '_, T> {
    /// Where the cotangent of a store is.
    fn place(&self, store: StoreId) -> Place {
        let builder = self.builder;
        let dense = Place::Dense(builder.view(store));
        let ends = [builder.stages.input, builder.stages.output].contains(&store);
        // The input's cotangent is the result, the output's is given; parts of a concatenation's belong to others.
        if ends || builder.places.is_joint(store) || builder.on_segment[store] || self.readers[store].dense {
            return dense;
        }
        if let [only] = self.readers[store].kernels[..] {
            let (kernel, between) = (&builder.kernels[only], &builder.between[only]);
            let is_sum = between.other == Some(store) || matches!(kernel.kind, KernelKind::Sum);
            match (kernel.relu, between.output) {
                // Alone before a ReLU, or before a sum that ends in one.
                (Some(mask), _) if is_sum || matches!(kernel.kind, KernelKind::Affine(None)) => {
                    return Place::Compressed(mask);
                }
                (None, Some(sum)) if is_sum => return self.place(sum),
                _ => {}
            }
        }
        builder.mask_of[store].map_or(dense, Place::Compressed)
    }

    /// Where contributions to the cotangent of a store go.
    fn sink(&self, store: StoreId) -> Sink {
        let (builder, place) = (self.builder, self.place(store));
        // The gradient of a batch normalisation reads the cotangent between it and the mask.
        if !builder.trains()
            && let (Place::Compressed(mask), Some(own)) = (place, builder.mask_of[store])
            && mask == own
            && let Some(kernel) = builder.between.iter().position(|between| between.output == Some(store))
            && let KernelKind::Affine(affine) = &builder.kernels[kernel].kind
            && let Some(input) = &builder.between[kernel].input
            && let Place::Dense(view) = self.place(input.store)
        {
            return Sink::Through { mask, view, from: 0, scaled: affine.as_ref().map(|_| kernel) };
        }
        Sink::Place(place)
    }

    /// Where contributions to some channels of a store go.
    fn part(&self, Source { store, channels }: &Source) -> Sink {
        match self.sink(*store) {
            Sink::Place(Place::Dense(view)) => Sink::Place(Place::Dense(View {
                offset: view.offset + channels.start,
                channels: channels.len(),
                ..view
            })),
            whole => whole,
        }
    }

    /// Pulls one kernel back.
    fn kernel(&mut self, index: usize) {
        let (stage, between) = (&self.builder.kernels[index], &self.builder.between[index]);
        if let KernelKind::Segment(segment) = stage.kind {
            return self.segment(segment, index);
        }
        let Some(input) = &between.input else { return };
        let mut place = between.output.map_or(Place::Dense(stage.output), |output| self.place(output));
        let sink = self.part(input);
        if let Some(mask) = stage.relu {
            let through = between.output.map(|output| self.sink(output));
            if matches!(through, Some(Sink::Through { .. })) {
                return;
            }
            if place != Place::Compressed(mask) {
                self.spread(place, Sink::Place(Place::Compressed(mask)), None, index);
            }
            place = Place::Compressed(mask);
        }
        match &stage.kind {
            KernelKind::Product { .. } => self.product(place, sink, index),
            KernelKind::Channelwise { table, .. } => {
                self.push(place, sink, StepKind::Channelwise { links: table.links() }, index);
            }
            KernelKind::Affine(affine) => {
                self.spread(place, sink, affine.as_ref().map(|[scale, _]| scale.clone()), index);
            }
            KernelKind::Sum => self.spread(place, sink, None, index),
            KernelKind::Average { table, .. } => {
                self.push(place, sink, StepKind::Average { links: table.links() }, index);
            }
            KernelKind::Maximum { table, .. } => {
                self.push(place, sink, StepKind::Maximum { links: table.links() }, index);
            }
            KernelKind::Rearrange(_) => self.push(place, sink, StepKind::Rearrange, index),
            KernelKind::Segment(_) => {}
        }
        if let Some(other) = between.other {
            let sink = self.sink(other);
            self.spread(place, sink, None, index);
        }
    }

    /// From the outputs of a segment to its inputs; an output that nothing has reached has zeros.
    fn segment(&mut self, segment: usize, index: usize) {
        let portion = &self.builder.segments[segment];
        let reached = |place: Place| self.written.contains(&place.site()).then_some(place);
        let sources: Vec<_> = portion.outputs.iter().map(|edge| reached(Place::Dense(edge.view))).collect();
        let Some(source) = sources.iter().flatten().next().copied() else { return };
        let sinks: Vec<_> = portion.inputs.iter().map(|edge| Sink::Place(Place::Dense(edge.view))).collect();
        let mut first = |sink: &Sink| self.written.insert(sink.place().site());
        let targets: Vec<_> = sinks.into_iter().map(|sink| (sink, first(&sink))).collect();
        let Some(&(target, first)) = targets.first() else { return };
        let kind = StepKind::Segment { sources, targets };
        self.steps.push(Step { kind, source, target, first, stage: index });
    }

    fn product(&mut self, place: Place, sink: Sink, index: usize) {
        let (KernelKind::Product { table, .. }, Some(weights)) =
            (&self.builder.kernels[index].kind, &self.builder.weights[index])
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
            let scale = sink.scale(&self.builder.kernels);
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
                let through = sink.scale(&self.builder.kernels).map(<[T]>::to_vec);
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
