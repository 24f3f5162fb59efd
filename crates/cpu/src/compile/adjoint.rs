//! From the stages of the forward pass to the steps of the reverse pass: where each cotangent lies, and what is pulled back into it.
//!
//! The cotangent of what a ReLU reads is kept compressed by its mask, and stands for that of the ReLU's result as well. A value that only
//! one sum reads has that sum's cotangent. Where a mask or a batch normalisation stands between a convolution and a value that others
//! read too, the convolution's pullback goes through both at once.

use std::collections::{HashMap, HashSet};

use super::build::ProgramBuilder;
use super::program::{
    CotangentRef, Factor, Kernel, KernelKind, MapView, MaskId, ReverseStep, Sink, Site, StepKind,
};
use super::stage::StoreChannels;
use super::together;
use super::view::StoreId;
use super::weights::FEW_CHANNELS;
use crate::kernels::{How, Links, Panels, RowTable, SimdFloat};

/// The reverse pass.
pub(super) fn steps<T: SimdFloat>(builder: &ProgramBuilder<'_, T>) -> Vec<ReverseStep<T>> {
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

fn readers<T: SimdFloat>(builder: &ProgramBuilder<'_, T>) -> Vec<Readers> {
    let mut readers = vec![Readers::default(); builder.stages.stores.len()];
    for (index, between) in builder.between.iter().enumerate() {
        if let Some(StoreChannels { store, channels }) = &between.input {
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
    builder: &'c ProgramBuilder<'g, T>,
    readers: Vec<Readers>,
    steps: Vec<ReverseStep<T>>,
    /// Buffers that hold something.
    written: HashSet<Site>,
    /// Cotangents that are to be handed on unchanged to a mask's buffer: a product that writes there takes one along.
    waiting: HashMap<MaskId, Vec<(CotangentRef, usize)>>,
}

impl<T: SimdFloat> Adjoint<'_, '_, T> {
    /// Whether the cotangent of a store has to be dense, and as it comes.
    fn is_forced(&self, store: StoreId) -> bool {
        let builder = self.builder;
        let ends = [builder.stages.input, builder.stages.output].contains(&store);
        // The input's cotangent is the result, the output's is given; parts of a concatenation's belong to others.
        ends || builder.nesting.is_joint(store) || builder.is_dense[store] || self.readers[store].dense
    }

    /// Where the cotangent of a store is.
    fn cotangent(&self, store: StoreId) -> CotangentRef {
        let builder = self.builder;
        let dense = CotangentRef::Dense(builder.view(store));
        if self.is_forced(store) {
            return dense;
        }
        if let [only] = self.readers[store].kernels[..] {
            let (kernel, between) = (&builder.kernels[only], &builder.between[only]);
            let is_sum = between.other == Some(store) || matches!(kernel.kind, KernelKind::Sum);
            match (kernel.relu, between.output) {
                // Alone before a ReLU, or before a sum that ends in one.
                (Some(mask), _) if is_sum || matches!(kernel.kind, KernelKind::Affine(None)) => {
                    return CotangentRef::Compressed(mask);
                }
                (None, Some(sum)) if is_sum => return self.cotangent(sum),
                _ => {}
            }
        }
        match builder.mask_of[store] {
            Some(mask) if !self.is_channelwise(store) => CotangentRef::Compressed(mask),
            _ => dense,
        }
    }

    /// Whether a channelwise product with a ReLU writes a store. Its pullback reads each row of cotangents once
    /// for each tap: they are kept dense, zeros where the mask is off. (Gradients of parameters read them as
    /// they are elsewhere.)
    fn is_channelwise(&self, store: StoreId) -> bool {
        let builder = self.builder;
        let mut writers = builder.kernels.iter().zip(&builder.between);
        let writer = writers.find(|(_, between)| between.output == Some(store));
        let own = |kernel: &Kernel<T>| matches!(kernel.kind, KernelKind::Channelwise { .. });
        !builder.perturbs_parameters()
            && writer.is_some_and(|(kernel, _)| own(kernel) && kernel.relu.is_some())
    }

    /// Where contributions to the cotangent of a store go.
    fn sink(&self, store: StoreId) -> Sink {
        let (builder, cotangent) = (self.builder, self.cotangent(store));
        // The gradient of a batch normalisation reads the cotangent between it and the mask.
        if !builder.perturbs_parameters()
            && let (CotangentRef::Compressed(mask), Some(own)) = (cotangent, builder.mask_of[store])
            && mask == own
            && let Some(kernel) = builder.between.iter().position(|between| between.output == Some(store))
            && let KernelKind::Affine(affine) = &builder.kernels[kernel].kind
            && let Some(input) = &builder.between[kernel].input
            && let CotangentRef::Dense(view) = self.part_of(input, self.cotangent(input.store))
        {
            return Sink::Through { mask, view, from: 0, scaled: affine.as_ref().map(|_| kernel) };
        }
        if let (CotangentRef::Dense(view), Some(mask)) = (cotangent, builder.mask_of[store])
            && self.is_channelwise(store)
            && view == builder.view(store)
            && !self.is_forced(store)
        {
            return Sink::Through { mask, view, from: 0, scaled: None };
        }
        match self.slopes(store) {
            Some(sink) => sink,
            None => Sink::Plain(cotangent),
        }
    }

    /// Past a function of each number: what its readers hand on goes to its operand, times its derivatives,
    /// so that the cotangents of its result need no pass of their own.
    fn slopes(&self, store: StoreId) -> Option<Sink> {
        let builder = self.builder;
        let kernel = builder.between.iter().position(|between| between.output == Some(store))?;
        let (stage, between) = (&builder.kernels[kernel], &builder.between[kernel]);
        let Readers { kernels, dense } = &self.readers[store];
        let channels = builder.stages.stores[store].channels;
        let takes = |&reader: &usize| {
            let (stage, between) = (&builder.kernels[reader], &builder.between[reader]);
            let whole =
                between.other != Some(store) || stage.other.is_some_and(|view| view.channels == channels);
            stage.kind.takes_slopes() && whole
        };
        let all = kernels.iter().all(takes);
        let alone = store != builder.stages.output && !builder.nesting.is_joint(store);
        if !matches!(stage.kind, KernelKind::Pointwise(_))
            || stage.relu.is_some()
            || !(all && alone)
            || *dense
            || builder.on_segment[store]
        {
            return None;
        }
        let slopes = *stage.kept.first()?;
        match self.part_of(between.input.as_ref()?, self.cotangent(between.input.as_ref()?.store)) {
            CotangentRef::Dense(view) => Some(Sink::Times { view, slopes }),
            CotangentRef::Compressed(_) => None,
        }
    }

    /// Some channels of a cotangent.
    fn part_of(&self, source: &StoreChannels, cotangent: CotangentRef) -> CotangentRef {
        match cotangent {
            CotangentRef::Dense(view) => CotangentRef::Dense(MapView {
                offset: view.offset + source.channels.start,
                channels: source.channels.len(),
                ..view
            }),
            whole => whole,
        }
    }

    /// Where contributions to some channels of a store go.
    fn part(&self, source: &StoreChannels) -> Sink {
        match self.sink(source.store) {
            Sink::Plain(cotangent) => Sink::Plain(self.part_of(source, cotangent)),
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
        let mut cotangent =
            between.output.map_or(CotangentRef::Dense(stage.output), |output| self.cotangent(output));
        let sink = self.part(input);
        if let Some(mask) = stage.relu {
            match between.output.map(|output| self.sink(output)) {
                // Zeros stand where it has switched off.
                Some(Sink::Through { .. }) if matches!(stage.kind, KernelKind::Channelwise { .. }) => {}
                Some(Sink::Through { .. }) => return,
                _ => {
                    if cotangent != CotangentRef::Compressed(mask) {
                        self.spread(cotangent, Sink::Plain(CotangentRef::Compressed(mask)), None, index);
                    }
                    cotangent = CotangentRef::Compressed(mask);
                }
            }
        }
        match &stage.kind {
            KernelKind::Product { .. } => self.product(cotangent, sink, index),
            KernelKind::Channelwise { table, .. } => {
                self.push(
                    cotangent,
                    sink,
                    StepKind::Channelwise { links: self.links(table, cotangent) },
                    index,
                );
            }
            KernelKind::Affine(affine) => {
                self.spread(cotangent, sink, affine.as_ref().map(|[scale, _]| scale.clone()), index);
            }
            KernelKind::Sum => self.spread(cotangent, sink, None, index),
            KernelKind::Elementwise { scale: None, .. } => self.spread(cotangent, sink, None, index),
            KernelKind::Elementwise { .. } => self.scaled(cotangent, sink, None, Factor::Own, index),
            // What its readers have handed on is there already.
            KernelKind::Pointwise(_)
                if between.output.is_some_and(|output| self.slopes(output).is_some()) => {}
            KernelKind::Pointwise(_) => {
                let factor = stage.kept.first().map(|&view| Factor::Values { view, repeated: false });
                factor.into_iter().for_each(|factor| self.scaled(cotangent, sink, None, factor, index));
            }
            KernelKind::Combine { .. } => return self.combined(cotangent, sink, index),
            KernelKind::Within(_) => {
                let kept = stage.kept.first().copied().unwrap_or(stage.output);
                self.push(cotangent, sink, StepKind::Within { kept }, index);
            }
            KernelKind::Matrices(_) => return self.matrices(cotangent, sink, index),
            KernelKind::Average { table, .. } => {
                self.push(cotangent, sink, StepKind::Average { links: self.links(table, cotangent) }, index);
            }
            KernelKind::Maximum { table, .. } => {
                self.push(cotangent, sink, StepKind::Maximum { links: self.links(table, cotangent) }, index);
            }
            KernelKind::Rearrange { .. } => self.push(cotangent, sink, StepKind::Rearrange, index),
            KernelKind::Segment(_) => {}
        }
        if let Some(other) = between.other {
            let sink = self.sink(other);
            self.spread(cotangent, sink, None, index);
        }
    }

    /// Which rows read each row of a table's source. What nothing reads has no cotangent: a mask says so
    /// itself, dense rows are left out here.
    fn links(&self, table: &RowTable, cotangent: CotangentRef) -> Links {
        match cotangent {
            CotangentRef::Dense(view) => table.links_of(self.builder.live(view)),
            CotangentRef::Compressed(_) => table.links(),
        }
    }

    fn scaled(
        &mut self,
        cotangent: CotangentRef,
        sink: Sink,
        links: Option<Links>,
        factor: Factor,
        index: usize,
    ) {
        self.push(cotangent, sink, StepKind::Scaled { links, factor }, index);
    }

    /// Where contributions to the cotangent of a stage's other operand go.
    fn other(&self, index: usize) -> Option<(Sink, MapView)> {
        let view = self.builder.kernels[index].other?;
        let store = self.builder.between[index].other?;
        match self.sink(store) {
            // Those of the channels that are read.
            Sink::Plain(CotangentRef::Dense(_)) => Some((Sink::Plain(CotangentRef::Dense(view)), view)),
            sink @ Sink::Times { .. } => Some((sink, view)),
            _ => None,
        }
    }

    /// To both operands of a sum, product or quotient.
    fn combined(&mut self, cotangent: CotangentRef, sink: Sink, index: usize) {
        let stage = &self.builder.kernels[index];
        let (KernelKind::Combine { how, repeat }, Some((other, view))) = (&stage.kind, self.other(index))
        else {
            return;
        };
        let values = |view: MapView, repeated: bool| Factor::Values { view, repeated };
        let factors = match (how, &stage.kept[..]) {
            (How::Sum(signs), _) => signs.map(Factor::Number),
            (How::Product, _) => [values(view, true), values(stage.input, false)],
            (_, &[first, second]) => [values(first, false), values(second, false)],
            _ => return,
        };
        self.scaled(cotangent, sink, None, factors[0], index);
        let links = repeat.rows.as_ref().map(|table| self.links(table, cotangent));
        self.scaled(cotangent, other, links, factors[1], index);
    }

    /// To both operands of matrix products.
    fn matrices(&mut self, cotangent: CotangentRef, sink: Sink, index: usize) {
        let Some((other, view)) = self.other(index) else { return };
        let input = self.builder.kernels[index].input;
        self.push(cotangent, sink, StepKind::Matrices { operand: 0, other: view }, index);
        self.push(cotangent, other, StepKind::Matrices { operand: 1, other: input }, index);
    }

    /// From the outputs of a segment to its inputs; an output that nothing has reached has zeros.
    fn segment(&mut self, segment: usize, index: usize) {
        let portion = &self.builder.segments[segment];
        let reached = |cotangent: CotangentRef| self.written.contains(&cotangent.site()).then_some(cotangent);
        let sources: Vec<_> =
            portion.outputs.iter().map(|edge| reached(CotangentRef::Dense(edge.view))).collect();
        let Some(source) = sources.iter().flatten().next().copied() else { return };
        let sinks: Vec<_> =
            portion.inputs.iter().map(|edge| Sink::Plain(CotangentRef::Dense(edge.view))).collect();
        let mut first = |sink: &Sink| self.written.insert(sink.cotangent().site());
        let targets: Vec<_> = sinks.into_iter().map(|sink| (sink, first(&sink))).collect();
        let Some(&(target, first)) = targets.first() else { return };
        let kind = StepKind::Segment { sources, targets };
        self.steps.push(ReverseStep { kind, source, target, first, stage: index });
    }

    fn product(&mut self, cotangent: CotangentRef, sink: Sink, index: usize) {
        let (KernelKind::Product { table, .. }, Some(weights)) =
            (&self.builder.kernels[index].kind, &self.builder.weights[index])
        else {
            return;
        };
        let (inputs, outputs, taps, groups) = (weights.inputs, weights.outputs, table.taps(), weights.groups);
        let dense = matches!(sink, Sink::Plain(CotangentRef::Dense(_)) | Sink::Times { .. });
        let kind = if dense && inputs < FEW_CHANNELS && taps > 1 {
            let column = |at: &dyn Fn(usize, usize, usize) -> f64| {
                Panels::reverse(1, outputs, taps * inputs, 1, |_, o, column| {
                    at(column / inputs, column % inputs, o)
                })
            };
            let rows = self.links(&RowTable::identity(table.rows()), cotangent);
            StepKind::Columns { rows, panels: weights.with(column), links: self.links(table, cotangent) }
        } else {
            let scale = sink.scale(&self.builder.kernels);
            let factor = |i: usize| scale.map_or(1.0, |scale| scale[i].to_f64());
            // Where masks have switched channels off on both sides, skipping them saves more; so does what is taken together.
            let plain =
                matches!((cotangent, sink), (CotangentRef::Dense(_), Sink::Plain(_) | Sink::Times { .. }));
            let (patches, panels) = match plain.then(|| weights.reversed()).flatten() {
                Some((patches, panels)) => (Some(patches), panels),
                None => {
                    let panels = weights.with(|at| {
                        Panels::reverse(taps, outputs, inputs, groups, |tap, o, i| at(tap, i, o) * factor(i))
                    });
                    (None, panels)
                }
            };
            StepKind::Product { links: self.links(table, cotangent), patches, panels, identity: None }
        };
        self.push(cotangent, sink, kind, index);
    }

    /// Hands cotangents on, unless they are there already.
    fn spread(&mut self, cotangent: CotangentRef, sink: Sink, scale: Option<Vec<T>>, index: usize) {
        if sink == Sink::Plain(cotangent) && scale.is_none() {
            return;
        }
        match sink {
            // (A sum hands on without a scale, and nothing that has one takes slopes.)
            Sink::Times { .. } => self.scaled(cotangent, sink, None, Factor::Number(1.0), index),
            Sink::Plain(CotangentRef::Dense(_))
                if scale.is_none() && matches!(cotangent, CotangentRef::Dense(_)) =>
            {
                self.scaled(cotangent, sink, None, Factor::Number(1.0), index);
            }
            Sink::Plain(CotangentRef::Compressed(mask)) if scale.is_none() => {
                self.waiting.entry(mask).or_default().push((cotangent, index));
            }
            _ => {
                let through = sink.scale(&self.builder.kernels).map(<[T]>::to_vec);
                let scale = match (scale, through) {
                    (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a * *b).collect()),
                    (a, b) => a.or(b),
                };
                self.push(cotangent, sink, StepKind::Spread { scale }, index);
            }
        }
    }

    /// Adds a step, and before it all that its source still waits for.
    fn push(&mut self, source: CotangentRef, target: Sink, mut kind: StepKind<T>, stage: usize) {
        if let CotangentRef::Compressed(mask) = source {
            for (cotangent, stage) in self.waiting.remove(&mask).unwrap_or_default() {
                self.push(cotangent, Sink::Plain(source), StepKind::Spread { scale: None }, stage);
            }
        }
        if !self.written.contains(&source.site()) {
            return;
        }
        let site = target.cotangent().site();
        if let (StepKind::Product { identity, .. }, Sink::Plain(CotangentRef::Compressed(mask))) =
            (&mut kind, target)
            && !self.written.contains(&site)
            && let Some((cotangent, _)) = self.waiting.get_mut(&mask).and_then(Vec::pop)
        {
            *identity = self.written.contains(&cotangent.site()).then_some(cotangent);
        }
        let first = self.written.insert(site);
        self.steps.push(ReverseStep { kind, source, target, first, stage });
    }
}
