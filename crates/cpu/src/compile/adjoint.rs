//! From the stages of the forward pass to the steps of the reverse pass: where each cotangent is
//! kept, and what is pulled back into it.
//!
//! Kernels are visited from the last to the first. At each of them three things are decided:
//!
//! 1. *Where the cotangent of its result is* ([`Adjoint::cotangent`]). The cotangent of what a ReLU
//!    reads is kept compressed by the ReLU's mask, and stands for that of the ReLU's result as
//!    well: where the mask is on the two are equal, and where it is off the ReLU hands nothing on.
//!    A value that only one sum reads has that sum's cotangent.
//! 2. *Where contributions to its operand go* ([`Adjoint::sink`]): to the operand's cotangent
//!    itself, or past it. Where a mask or a batch normalisation stands between a product and a
//!    value that others read too, the product's pullback goes through both at once
//!    ([`Sink::Through`]); past a function of each element it is multiplied by the derivatives
//!    ([`Sink::Times`]). What is skipped this way has no buffer and no step.
//! 3. *By which step*: one per operand, added to what earlier steps have left.
//!
//! Contributions that are handed on unchanged to a compressed cotangent *wait* for a product that
//! writes there first, and are then added by that product ([`StepKind::Product`], `identity`). So
//! the residual connections of a ResNet take no step of their own.

use std::collections::{HashMap, HashSet};

use super::build::ProgramBuilder;
use super::ids::{KernelId, MaskId, SegmentId, StoreId};
use super::program::{Kernel, KernelKind, MapView};
use super::stage::StoreChannels;
use super::steps::{CotangentRef, Factor, ReverseStep, Sink, Site, StepKind};
use super::together;
use super::weights::ProductWeights;
use crate::kernels::{FEW_CHANNELS, How, Links, MatrixRole, Panels, RowTable, SimdFloat};

/// The reverse pass.
pub(super) fn steps<T: SimdFloat>(builder: &ProgramBuilder<'_, T>) -> Vec<ReverseStep<T>> {
    let output = builder.view(builder.stages.output);
    let mut adjoint = Adjoint {
        builder,
        readers: readers(builder),
        steps: Vec::new(),
        // The cotangents of the logits are there before the first step.
        written: HashSet::from([Site::Map(output.map)]),
        waiting: HashMap::new(),
    };
    for kernel in (0..builder.kernels.len()).rev() {
        adjoint.kernel(KernelId(kernel));
    }
    together::join(adjoint.steps)
}

/// The kernels that read a store.
#[derive(Debug, Clone, Default)]
struct Readers {
    /// Once for each operand.
    kernels: Vec<KernelId>,
    /// Whether one of them reads only some of the channels: then the cotangent has to be dense.
    partial: bool,
}

/// The readers of all stores, by [`StoreId`].
fn readers<T: SimdFloat>(builder: &ProgramBuilder<'_, T>) -> Vec<Readers> {
    let mut readers = vec![Readers::default(); builder.stages.stores.len()];
    for (index, stores) in builder.kernel_stores.iter().enumerate() {
        if let Some(StoreChannels { store, channels }) = &stores.input {
            readers[store.index()].kernels.push(KernelId(index));
            readers[store.index()].partial |= channels.len() < builder.store(*store).channels;
        }
        if let Some(store) = stores.other {
            readers[store.index()].kernels.push(KernelId(index));
        }
    }
    readers
}

struct Adjoint<'c, 'g, T> {
    builder: &'c ProgramBuilder<'g, T>,
    /// Indexed by [`StoreId`].
    readers: Vec<Readers>,
    steps: Vec<ReverseStep<T>>,
    /// Buffers that hold something.
    written: HashSet<Site>,
    /// Cotangents that are to be handed on unchanged to a mask's buffer, each with the kernel whose
    /// pullback that is. A product that writes there first takes one along; the others become steps
    /// of their own before anything reads the buffer.
    waiting: HashMap<MaskId, Vec<(CotangentRef, KernelId)>>,
}

/// Some channels of a cotangent; all of it where it is compressed, since a mask has no parts.
fn part_of(source: &StoreChannels, cotangent: CotangentRef) -> CotangentRef {
    match cotangent {
        CotangentRef::Dense(view) => CotangentRef::Dense(MapView {
            offset: view.offset + source.channels.start,
            channels: source.channels.len(),
            ..view
        }),
        whole => whole,
    }
}

// Where cotangents are, and where contributions to them go.
impl<T: SimdFloat> Adjoint<'_, '_, T> {
    fn readers_of(&self, store: StoreId) -> &Readers {
        &self.readers[store.index()]
    }

    /// Whether the cotangent of a store has to be dense, and lie where the store's values do.
    fn is_forced_dense(&self, store: StoreId) -> bool {
        let builder = self.builder;
        // The cotangent of the input is the result of the reverse pass, that of the output is given
        // to the reverse pass.
        let ends = [builder.stages.input, builder.stages.output].contains(&store);
        // The parts of a concatenation have cotangents in the channels of the whole.
        let joint = builder.nesting.is_joint(store);
        ends || joint || builder.is_dense(store) || self.readers_of(store).partial
    }

    /// Where the cotangent of a store is.
    fn cotangent(&self, store: StoreId) -> CotangentRef {
        let builder = self.builder;
        let dense = CotangentRef::Dense(builder.view(store));
        if self.is_forced_dense(store) {
            return dense;
        }
        if let [only] = self.readers_of(store).kernels[..] {
            let (kernel, stores) = (builder.kernel(only), builder.stores_of(only));
            let is_summand = stores.other == Some(store) || matches!(kernel.kind, KernelKind::Sum);
            match (kernel.relu, stores.output) {
                // Read only by a ReLU, or by a sum that ends in one: what goes into the ReLU and
                // what comes out of it have one cotangent, compressed by its mask.
                (Some(mask), _) if is_summand || matches!(kernel.kind, KernelKind::Affine(None)) => {
                    return CotangentRef::Compressed(mask);
                }
                // Read only by a sum: the derivative of a sum by a summand is 1.
                (None, Some(sum)) if is_summand => return self.cotangent(sum),
                _ => {}
            }
        }
        match builder.mask_of(store) {
            Some(mask) if !self.is_masked_channelwise(store) => CotangentRef::Compressed(mask),
            _ => dense,
        }
    }

    /// Whether a channelwise product with a ReLU writes a store. Its pullback reads each row of
    /// cotangents once for each tap, so they are kept dense, with zeros where the mask is off.
    /// (Where parameters are perturbed they are compressed like those of other layers, as gradients
    /// read them.)
    fn is_masked_channelwise(&self, store: StoreId) -> bool {
        let writer = self.builder.writer(store).map(|id| self.builder.kernel(id));
        let is_masked = |kernel: &Kernel<T>| {
            matches!(kernel.kind, KernelKind::Channelwise { .. }) && kernel.relu.is_some()
        };
        !self.builder.perturbs_parameters() && writer.is_some_and(is_masked)
    }

    /// Where contributions to the cotangent of a store go.
    fn sink(&self, store: StoreId) -> Sink {
        let cotangent = self.cotangent(store);
        self.through_normalisation(store, cotangent)
            .or_else(|| self.through_mask(store, cotangent))
            .or_else(|| self.past_function(store))
            .unwrap_or(Sink::Plain(cotangent))
    }

    /// Past a ReLU with a scale and shift before it, to the dense cotangent of what these read.
    /// (Each layer of a DenseNet begins like that, on channels that all later layers read too.)
    fn through_normalisation(&self, store: StoreId, cotangent: CotangentRef) -> Option<Sink> {
        let builder = self.builder;
        // The gradient of a batch normalisation reads the cotangent between it and the mask.
        if builder.perturbs_parameters() {
            return None;
        }
        let (CotangentRef::Compressed(mask), Some(own)) = (cotangent, builder.mask_of(store)) else {
            return None;
        };
        let writer = builder.writer(store).filter(|_| mask == own)?;
        let KernelKind::Affine(affine) = &builder.kernel(writer).kind else { return None };
        let input = builder.stores_of(writer).input.as_ref()?;
        let CotangentRef::Dense(view) = part_of(input, self.cotangent(input.store)) else { return None };
        Some(Sink::Through { mask, view, from: 0, scaled: affine.as_ref().map(|_| writer) })
    }

    /// To the dense cotangent of a channelwise product with a ReLU, zeros where its mask is off.
    fn through_mask(&self, store: StoreId, cotangent: CotangentRef) -> Option<Sink> {
        let (CotangentRef::Dense(view), Some(mask)) = (cotangent, self.builder.mask_of(store)) else {
            return None;
        };
        let own = view == self.builder.view(store) && !self.is_forced_dense(store);
        (self.is_masked_channelwise(store) && own).then_some(Sink::Through {
            mask,
            view,
            from: 0,
            scaled: None,
        })
    }

    /// Past a function of each element: what its readers hand on goes to its operand, times its
    /// derivatives, so that the cotangent of its result is never in memory.
    ///
    /// All its readers have to be able to multiply, and to read all channels. And nothing else may
    /// need the cotangent of its result: not the network's output, a concatenation or a segment.
    fn past_function(&self, store: StoreId) -> Option<Sink> {
        let builder = self.builder;
        let writer = builder.writer(store)?;
        let (kernel, stores) = (builder.kernel(writer), builder.stores_of(writer));
        let Readers { kernels, partial } = self.readers_of(store);
        let channels = builder.store(store).channels;
        // A reader that can multiply its results as it stores them, and that reads all channels.
        // (As its second operand it may read a single channel that stands for all.)
        let takes = |&reader: &KernelId| {
            let (kernel, stores) = (builder.kernel(reader), builder.stores_of(reader));
            let whole =
                stores.other != Some(store) || kernel.other.is_some_and(|view| view.channels == channels);
            kernel.kind.takes_slopes() && whole
        };
        let all = kernels.iter().all(takes);
        // The output's cotangent is given, and that of a concatenation's part lies in the whole's.
        let alone = store != builder.stages.output && !builder.nesting.is_joint(store);
        if !matches!(kernel.kind, KernelKind::Pointwise(_))
            || kernel.relu.is_some()
            || !(all && alone)
            || *partial
            || builder.is_on_segment(store)
        {
            return None;
        }
        // The forward pass keeps the function's derivatives.
        let slopes = *kernel.kept.first()?;
        let input = stores.input.as_ref()?;
        // No sink multiplies by derivatives and goes through a mask as well: then the function has
        // a step of its own.
        match part_of(input, self.cotangent(input.store)) {
            CotangentRef::Dense(view) => Some(Sink::Times { view, slopes }),
            CotangentRef::Compressed(_) => None,
        }
    }

    /// Where contributions to some channels of a store go.
    fn part_sink(&self, source: &StoreChannels) -> Sink {
        match self.sink(source.store) {
            Sink::Plain(cotangent) => Sink::Plain(part_of(source, cotangent)),
            whole => whole,
        }
    }

    /// Where contributions to the cotangent of a kernel's other operand go, and the channels that
    /// are read.
    fn other_sink(&self, id: KernelId) -> Option<(Sink, MapView)> {
        let view = self.builder.kernel(id).other?;
        let store = self.builder.stores_of(id).other?;
        match self.sink(store) {
            Sink::Plain(CotangentRef::Dense(_)) => Some((Sink::Plain(CotangentRef::Dense(view)), view)),
            sink @ Sink::Times { .. } => Some((sink, view)),
            _ => None,
        }
    }

    /// Which rows read each row of a table's source. A row that nothing reads has no cotangent. In
    /// a mask nothing is active there; dense rows are left out here.
    fn links(&self, table: &RowTable, cotangent: CotangentRef) -> Links {
        match cotangent {
            CotangentRef::Dense(view) => table.links_of(self.builder.live(view)),
            CotangentRef::Compressed(_) => table.links(),
        }
    }
}

// The steps.
impl<T: SimdFloat> Adjoint<'_, '_, T> {
    /// Pulls one kernel back.
    fn kernel(&mut self, id: KernelId) {
        let (kernel, stores) = (self.builder.kernel(id), self.builder.stores_of(id));
        if let KernelKind::Segment(segment) = kernel.kind {
            return self.segment(segment, id);
        }
        let Some(input) = &stores.input else { return };
        let sink = self.part_sink(input);
        let Some(cotangent) = self.behind_relu(id) else { return };
        match &kernel.kind {
            KernelKind::Product { .. } => self.product(cotangent, sink, id),
            KernelKind::Channelwise { table, .. } => {
                // (The kernel's own weights are without the scale of a normalisation that is taken
                // apart from it.)
                let Some(weights) = self.builder.weights_of(id) else { return };
                let (links, weights) = (self.links(table, cotangent), weights.channelwise());
                self.push(cotangent, sink, StepKind::Channelwise { links, weights }, id);
            }
            KernelKind::Affine(affine) => {
                self.spread(cotangent, sink, affine.as_ref().map(|[scale, _]| scale.clone()), id);
            }
            KernelKind::Sum => self.spread(cotangent, sink, None, id),
            // A perturbed shift is read at a step of its own, which no product takes along.
            KernelKind::Elementwise { scale: None, .. }
                if matches!(sink, Sink::Plain(CotangentRef::Compressed(_)))
                    && kernel.tensors.as_ref().is_some_and(|tensors| !tensors.elements.is_empty()) =>
            {
                self.push(cotangent, sink, StepKind::Spread { scale: None }, id);
            }
            KernelKind::Elementwise { scale: None, .. } => self.spread(cotangent, sink, None, id),
            KernelKind::Elementwise { .. } => self.scaled(cotangent, sink, None, Factor::Own, id),
            KernelKind::Pointwise(_) => self.function(cotangent, sink, id),
            // These two have two operands, of which neither is merely added.
            KernelKind::Combine { .. } => return self.combined(cotangent, sink, id),
            KernelKind::Matrices(_) => return self.matrices(cotangent, sink, id),
            KernelKind::Within(_) => {
                let kept = kernel.kept.first().copied().unwrap_or(kernel.output);
                self.push(cotangent, sink, StepKind::Within { kept }, id);
            }
            KernelKind::Average { table, .. } => {
                self.push(cotangent, sink, StepKind::Average { links: self.links(table, cotangent) }, id);
            }
            KernelKind::Maximum { table, .. } => {
                self.push(cotangent, sink, StepKind::Maximum { links: self.links(table, cotangent) }, id);
            }
            KernelKind::Rearrange { .. } => self.push(cotangent, sink, StepKind::Rearrange, id),
            KernelKind::Segment(_) => {}
        }
        // What was added to the result has its cotangent unchanged.
        if let Some(other) = stores.other {
            let sink = self.sink(other);
            self.spread(cotangent, sink, None, id);
        }
    }

    /// The cotangent that a kernel is pulled back from: that of its result, or of what the ReLU at
    /// its end reads. None where the readers of the result have gone past the kernel already
    /// ([`Sink::Through`]).
    fn behind_relu(&mut self, id: KernelId) -> Option<CotangentRef> {
        let (kernel, stores) = (self.builder.kernel(id), self.builder.stores_of(id));
        let cotangent =
            stores.output.map_or(CotangentRef::Dense(kernel.output), |output| self.cotangent(output));
        let Some(mask) = kernel.relu else { return Some(cotangent) };
        match stores.output.map(|output| self.sink(output)) {
            // Dense, with zeros where the mask is off: nothing is left for the ReLU to do.
            Some(Sink::Through { .. }) if matches!(kernel.kind, KernelKind::Channelwise { .. }) => {
                Some(cotangent)
            }
            Some(Sink::Through { .. }) => None,
            _ => {
                let compressed = CotangentRef::Compressed(mask);
                if cotangent != compressed {
                    self.spread(cotangent, Sink::Plain(compressed), None, id);
                }
                Some(compressed)
            }
        }
    }

    fn scaled(
        &mut self,
        cotangent: CotangentRef,
        sink: Sink,
        links: Option<Links>,
        factor: Factor,
        id: KernelId,
    ) {
        self.push(cotangent, sink, StepKind::Scaled { links, factor }, id);
    }

    /// Pulls back a function of each element: times the derivatives that it has kept.
    fn function(&mut self, cotangent: CotangentRef, sink: Sink, id: KernelId) {
        let (kernel, stores) = (self.builder.kernel(id), self.builder.stores_of(id));
        // Where the readers go past the function, what they hand on is at its operand already.
        if stores.output.is_some_and(|output| self.past_function(output).is_some()) {
            return;
        }
        if let Some(&view) = kernel.kept.first() {
            self.scaled(cotangent, sink, None, Factor::Values { view, repeated: false }, id);
        }
    }

    /// Pulls back a sum with signs, a product or a quotient to both operands.
    fn combined(&mut self, cotangent: CotangentRef, sink: Sink, id: KernelId) {
        let kernel = self.builder.kernel(id);
        let (KernelKind::Combine { how, repeat }, Some((other, view))) = (&kernel.kind, self.other_sink(id))
        else {
            return;
        };
        let values = |view: MapView, repeated: bool| Factor::Values { view, repeated };
        let factors = match (how, &kernel.kept[..]) {
            (How::Sum(signs), _) => signs.map(Factor::Number),
            // Of a product each operand is the other's derivative; of a quotient both are kept.
            (How::Product, _) => [values(view, true), values(kernel.input, false)],
            (_, &[first, second]) => [values(first, false), values(second, false)],
            _ => return,
        };
        self.scaled(cotangent, sink, None, factors[0], id);
        let links = repeat.rows.as_ref().map(|table| self.links(table, cotangent));
        self.scaled(cotangent, other, links, factors[1], id);
    }

    /// Pulls back matrix products to both operands.
    fn matrices(&mut self, cotangent: CotangentRef, sink: Sink, id: KernelId) {
        let Some((other, view)) = self.other_sink(id) else { return };
        let input = self.builder.kernel(id).input;
        self.push(cotangent, sink, StepKind::Matrices { operand: MatrixRole::A, other: view }, id);
        self.push(cotangent, other, StepKind::Matrices { operand: MatrixRole::B, other: input }, id);
    }

    /// Pulls back a segment, from its outputs to its inputs. An output that nothing has reached has
    /// zeros.
    fn segment(&mut self, segment: SegmentId, id: KernelId) {
        let segment = self.builder.segment(segment);
        let reached = |cotangent: CotangentRef| self.written.contains(&cotangent.site()).then_some(cotangent);
        let sources: Vec<_> =
            segment.outputs.iter().map(|edge| reached(CotangentRef::Dense(edge.view))).collect();
        // Where nothing has reached any output, there is nothing to pull back.
        let Some(source) = sources.iter().flatten().next().copied() else { return };
        let sinks: Vec<_> =
            segment.inputs.iter().map(|edge| Sink::Plain(CotangentRef::Dense(edge.view))).collect();
        let mut first = |sink: &Sink| self.written.insert(sink.cotangent().site());
        let targets: Vec<_> = sinks.into_iter().map(|sink| (sink, first(&sink))).collect();
        // The step's own target is the first of them; `targets` has all.
        let Some(&(target, first)) = targets.first() else { return };
        let kind = StepKind::Segment { sources, targets };
        self.steps.push(ReverseStep { kind, source, target, first, kernel: id });
    }

    /// Pulls back a product: by columns where it reads few channels, by patches where nothing is
    /// masked, else row by row.
    fn product(&mut self, cotangent: CotangentRef, sink: Sink, id: KernelId) {
        let (KernelKind::Product { table, .. }, Some(weights)) =
            (&self.builder.kernel(id).kind, self.builder.weights_of(id))
        else {
            return;
        };
        let dense = matches!(sink, Sink::Plain(CotangentRef::Dense(_)) | Sink::Times { .. });
        let kind = if dense && weights.inputs < FEW_CHANNELS && table.taps() > 1 {
            self.columns(table, weights, cotangent)
        } else {
            self.direct(table, weights, cotangent, sink)
        };
        self.push(cotangent, sink, kind, id);
    }

    /// The product of each row with the columns of all taps, `[tap][input]`, which are added up
    /// afterwards.
    fn columns(
        &self,
        table: &RowTable,
        weights: &ProductWeights<'_>,
        cotangent: CotangentRef,
    ) -> StepKind<T> {
        let (inputs, outputs, taps) = (weights.inputs, weights.outputs, table.taps());
        let panels = weights.with(|at| {
            Panels::reverse(1, outputs, taps * inputs, 1, |_, o, column| {
                at(column / inputs, column % inputs, o)
            })
        });
        let rows = self.links(&RowTable::identity(table.rows()), cotangent);
        StepKind::Columns { rows, panels, links: self.links(table, cotangent) }
    }

    fn direct(
        &self,
        table: &RowTable,
        weights: &ProductWeights<'_>,
        cotangent: CotangentRef,
        sink: Sink,
    ) -> StepKind<T> {
        // A scale that is gone through on the way is multiplied into the columns of the weights.
        let scale = sink.scale(&self.builder.kernels);
        let factor = |i: usize| scale.map_or(1.0, |scale| scale[i].to_f64());
        // Winograd's form computes all channels of what it reads and writes. Where masks have
        // switched channels off on both sides, skipping them saves more, and products that are
        // taken together cannot be patched.
        let plain =
            matches!((cotangent, sink), (CotangentRef::Dense(_), Sink::Plain(_) | Sink::Times { .. }));
        let (patches, panels) = match plain.then(|| weights.reversed()).flatten() {
            Some((patches, panels)) => (Some(patches), panels),
            None => {
                let (inputs, outputs, taps, groups) =
                    (weights.inputs, weights.outputs, table.taps(), weights.groups);
                let panels = weights.with(|at| {
                    Panels::reverse(taps, outputs, inputs, groups, |tap, o, i| at(tap, i, o) * factor(i))
                });
                (None, panels)
            }
        };
        StepKind::Product { links: self.links(table, cotangent), patches, panels, identity: None }
    }

    /// Hands cotangents on, times a scale if there is one. Where they are there already, nothing
    /// has to be done.
    fn spread(&mut self, cotangent: CotangentRef, sink: Sink, scale: Option<Vec<T>>, id: KernelId) {
        if sink == Sink::Plain(cotangent) && scale.is_none() {
            return;
        }
        match sink {
            // (A sum hands on without a scale, and nothing that has one takes slopes.)
            Sink::Times { .. } => self.scaled(cotangent, sink, None, Factor::Number(1.0), id),
            Sink::Plain(CotangentRef::Dense(_))
                if scale.is_none() && matches!(cotangent, CotangentRef::Dense(_)) =>
            {
                self.scaled(cotangent, sink, None, Factor::Number(1.0), id);
            }
            Sink::Plain(CotangentRef::Compressed(mask)) if scale.is_none() => {
                self.waiting.entry(mask).or_default().push((cotangent, id));
            }
            _ => {
                let through = sink.scale(&self.builder.kernels).map(<[T]>::to_vec);
                let scale = match (scale, through) {
                    (Some(a), Some(b)) => Some(a.iter().zip(&b).map(|(a, b)| *a * *b).collect()),
                    (a, b) => a.or(b),
                };
                self.push(cotangent, sink, StepKind::Spread { scale }, id);
            }
        }
    }

    /// Makes steps of all that waits for a cotangent, before something reads it.
    fn complete(&mut self, cotangent: CotangentRef) {
        let CotangentRef::Compressed(mask) = cotangent else { return };
        for (part, kernel) in self.waiting.remove(&mask).unwrap_or_default() {
            self.push(part, Sink::Plain(cotangent), StepKind::Spread { scale: None }, kernel);
        }
    }

    /// Adds a step, and before it all that its source still waits for.
    fn push(&mut self, source: CotangentRef, target: Sink, mut kind: StepKind<T>, kernel: KernelId) {
        self.complete(source);
        // No cotangent has reached the result: nothing of it depends on what the kernel computes.
        if !self.written.contains(&source.site()) {
            return;
        }
        let site = target.cotangent().site();
        // The first product into a mask's buffer takes along one of those that wait for it. (A
        // product adds an identity only where its results are written, not where they are added.)
        if let (StepKind::Product { identity, .. }, Sink::Plain(CotangentRef::Compressed(mask))) =
            (&mut kind, target)
            && !self.written.contains(&site)
            && let Some((cotangent, _)) = self.waiting.get_mut(&mask).and_then(Vec::pop)
        {
            self.complete(cotangent);
            *identity = self.written.contains(&cotangent.site()).then_some(cotangent);
        }
        let first = self.written.insert(site);
        self.steps.push(ReverseStep { kind, source, target, first, kernel });
    }
}
