//! The reverse pass: the steps one after the other, each on all threads, for up to nine cotangents of every sample at once.

use crate::kernels::{
    self, CotangentTarget, Cotangents, DenseRows, GatherPullback, InstructionSet, LineLayout, Links,
    MatricesPullback, MovesPullback, Pullback, ScaledPullback, Share, SpreadPullback, Start, WithinPullback,
};

use burn::tensor::TensorData;
use influence_autodiff::Result;
use rayon::prelude::*;

use super::arena::Arena;
use super::executor::{LoadedNetwork, Number};
use super::forward::ForwardTrace;
use super::memory::SlotPlan;
use super::segments::{Segments, numbers};
use crate::compile::program::{
    Compiled, CotangentRef, Edge, Factor, KernelKind, MapView, ReverseStep, Sink, Site, StepKind,
};

/// Numbers that a thread sets to zero at a time.
const ZEROED: usize = 1 << 16;

/// A reverse pass under way.
pub(super) struct ReversePass<'a, T> {
    pub(super) compiled: &'a Compiled<T>,
    memory: &'a SlotPlan,
    arena: Arena<T>,
    pub(super) set: InstructionSet,
    pub(super) trace: &'a ForwardTrace<T>,
    pub(super) lines: usize,
    segments: &'a Segments,
    /// The tensors whose Gram matrices are wanted, ascending.
    asked: &'a [usize],
    /// Those that segments have given: tensor, sample, matrix.
    pub(super) given: Vec<(usize, usize, Vec<f64>)>,
}

impl<'a, T: Number> ReversePass<'a, T> {
    /// Starts with `lines` cotangents `[line][sample][class]` of the logits.
    pub(super) fn new(
        loaded: &'a LoadedNetwork<T>,
        set: InstructionSet,
        trace: &'a ForwardTrace<T>,
        arena: Arena<T>,
        cotangents: &[T],
        lines: usize,
        asked: &'a [usize],
    ) -> Self {
        let LoadedNetwork { compiled, memory, segments, .. } = loaded;
        let given = Vec::new();
        let mut this = Self { compiled, memory, arena, set, trace, lines, segments, asked, given };
        this.seed(cotangents);
        this
    }

    /// Runs all steps, those into the input where it is wanted; `visit` looks at each before, when all of its source's cotangent is there.
    ///
    /// # Errors
    /// What Burn's operations fail to do in a segment.
    pub(super) fn run(
        &mut self,
        input: bool,
        mut visit: impl FnMut(&Self, &'a ReverseStep<T>),
    ) -> Result<()> {
        let last = self.compiled.input;
        let alone = self.compiled.maps[last.map].pitch == last.channels;
        for (index, step) in self.compiled.steps.iter().enumerate() {
            visit(self, step);
            if let StepKind::Segment { sources, targets } = &step.kind {
                self.segment(step.stage, sources, targets)?;
            } else if input || !alone || step.target.cotangent().site() != Site::Map(last.map) {
                self.step(index, step);
            }
        }
        Ok(())
    }

    /// From the outputs of a segment to its inputs, one sample after the other.
    fn segment(
        &mut self,
        kernel: usize,
        sources: &[Option<CotangentRef>],
        targets: &[(Sink, bool)],
    ) -> Result<()> {
        let KernelKind::Segment(index) = self.compiled.kernels[kernel].kind else { return Ok(()) };
        let portion = &self.compiled.segments[index];
        let wanted: Vec<usize> =
            portion.tensors.iter().copied().filter(|tensor| self.asked.contains(tensor)).collect();
        for (sink, _) in targets.iter().filter(|(_, first)| *first) {
            let cotangent = sink.cotangent();
            let size = self.layout(cotangent).size(self.rows(cotangent), self.lines);
            let slot = self.memory.sites[&cotangent.site()];
            let mut out = self.arena.take(slot);
            out[..size].par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
            self.arena.put(slot, out);
        }
        for sample in 0..self.trace.samples {
            let outputs = portion.outputs.iter().zip(sources);
            let cotangents = outputs.map(|(edge, source)| self.of_edge(edge, *source, sample)).collect();
            let kept = &self.trace.segments[index];
            let pulled = kept.pull(sample, self.segments.segment(index), cotangents, &wanted)?;
            for (edge, cotangents) in portion.inputs.iter().zip(&pulled.inputs) {
                self.add_to_edge(edge, numbers(cotangents)?, sample);
            }
            let size = self.segments.segment(index).block();
            for (&tensor, gram) in wanted.iter().zip(pulled.grams.chunks_exact((size * size).max(1))) {
                let rows = gram.chunks_exact(size).take(self.lines);
                let own = rows.flat_map(|row| &row[..self.lines]).copied().collect();
                self.given.push((tensor, sample, own));
            }
        }
        Ok(())
    }

    /// The cotangents of a value, `[block, ...]`; zeros where nothing has reached it, and behind the last line.
    fn of_edge(&self, edge: &Edge, source: Option<CotangentRef>, sample: usize) -> TensorData {
        let map = &self.compiled.maps[edge.view.map];
        let block = self.memory.lines;
        let mut values = vec![T::default(); block * edge.elements.len()];
        if let Some(cotangent) = source {
            let rows = self.arena.slot(self.memory.sites[&cotangent.site()]);
            for (line, values) in values.chunks_exact_mut(edge.elements.len()).take(self.lines).enumerate() {
                for (value, [row, channel]) in values.iter_mut().zip(&edge.elements) {
                    let at = (sample * map.positions + row) * self.lines + line;
                    *value = rows[at * map.pitch + edge.view.offset + channel];
                }
            }
        }
        self.segments.cotangents(edge, block, values)
    }

    /// Adds cotangents `[block, ...]` of a value to what its buffer holds.
    fn add_to_edge(&mut self, edge: &Edge, values: &[T], sample: usize) {
        let map = &self.compiled.maps[edge.view.map];
        let slot = self.memory.sites[&Site::Map(edge.view.map)];
        let mut rows = self.arena.take(slot);
        for (line, values) in values.chunks_exact(edge.elements.len()).take(self.lines).enumerate() {
            for (value, [row, channel]) in values.iter().zip(&edge.elements) {
                let at = (sample * map.positions + row) * self.lines + line;
                let sum = &mut rows[at * map.pitch + edge.view.offset + channel];
                *sum += *value;
            }
        }
        self.arena.put(slot, rows);
    }

    /// The arena, to be used again.
    pub(super) fn into_arena(self) -> Arena<T> {
        self.arena
    }

    /// The rows of a value of the forward pass, where those are kept.
    pub(super) fn values(&self, view: MapView) -> DenseRows<'_, T> {
        let pitch = self.compiled.maps[view.map].pitch;
        let values = self.arena.slot(self.memory.maps[view.map]);
        DenseRows { values, pitch, offset: view.offset, channels: view.channels }
    }
}

impl<T: Number> ReversePass<'_, T> {
    fn layout(&self, cotangent: CotangentRef) -> LineLayout<'_> {
        match cotangent {
            CotangentRef::Dense(view) => {
                let pitch = self.compiled.maps[view.map].pitch;
                LineLayout::Dense { pitch, offset: view.offset, channels: view.channels }
            }
            CotangentRef::Compressed(mask) => LineLayout::Compressed(&self.trace.masks[mask]),
        }
    }

    fn target(&self, sink: Sink) -> CotangentTarget<'_> {
        match sink {
            Sink::Plain(_) | Sink::Times { .. } => CotangentTarget::Lines(self.layout(sink.cotangent())),
            Sink::Through { mask, view, from, .. } => {
                let pitch = self.compiled.maps[view.map].pitch;
                CotangentTarget::Masked { active: &self.trace.masks[mask], pitch, offset: view.offset - from }
            }
        }
    }

    /// How many rows the buffer of a cotangent has.
    fn rows(&self, cotangent: CotangentRef) -> usize {
        let map = match cotangent {
            CotangentRef::Dense(view) => view.map,
            CotangentRef::Compressed(mask) => self.compiled.masks[mask].map,
        };
        self.trace.samples * self.compiled.maps[map].positions
    }

    /// The cotangents of the logits.
    fn seed(&mut self, cotangents: &[T]) {
        let view = self.compiled.output;
        let (pitch, samples) = (self.compiled.maps[view.map].pitch, self.trace.samples);
        let slot = self.memory.sites[&Site::Map(view.map)];
        let mut buffer = self.arena.take(slot);
        buffer[..samples * self.lines * pitch].fill(T::default());
        for (at, row) in cotangents.chunks_exact(view.channels).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            let start = (sample * self.lines + line) * pitch + view.offset;
            buffer[start..start + view.channels].copy_from_slice(row);
        }
        self.arena.put(slot, buffer);
    }

    fn step(&mut self, index: usize, step: &ReverseStep<T>) {
        let cotangent = step.target.cotangent();
        let size = self.layout(cotangent).size(self.rows(cotangent), self.lines);
        let slot = self.memory.sites[&cotangent.site()];
        let copy = self.memory.copies.get(&index).map(|&slot| (slot, self.copied(slot, step.source)));
        let mut out = self.arena.take(slot);
        // The first to write leaves nothing as it was; where it does not reach, zeros have to be.
        let whole = match cotangent {
            CotangentRef::Dense(view) => view.channels == self.compiled.maps[view.map].pitch,
            CotangentRef::Compressed(_) => true,
        };
        if step.first && !whole {
            out[..size].par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
        }
        let mut columns = self.memory.columns.get(&index).map(|&slot| (slot, self.arena.take(slot)));
        let own = columns.as_mut().map(|(_, buffer)| buffer.as_mut_slice());
        let source = match &copy {
            Some((_, values)) => {
                Cotangents { values, layout: side_by_side(self.layout(step.source).channels()) }
            }
            None => self.cotangents(step.source),
        };
        self.pull(step, source, !(step.first && whole), own, &mut out[..size]);
        self.arena.put(slot, out);
        if let Some((slot, buffer)) = copy {
            self.arena.put(slot, buffer);
        }
        if let Some((slot, buffer)) = columns {
            self.arena.put(slot, buffer);
        }
    }

    pub(super) fn cotangents(&self, cotangent: CotangentRef) -> Cotangents<'_, T> {
        let values = self.arena.slot(self.memory.sites[&cotangent.site()]);
        Cotangents { values, layout: self.layout(cotangent) }
    }

    /// The channels that a step reads, side by side, where it writes others of the same buffer.
    fn copied(&mut self, slot: usize, cotangent: CotangentRef) -> Vec<T> {
        let mut buffer = self.arena.take(slot);
        let source = self.cotangents(cotangent);
        let target = CotangentTarget::Lines(side_by_side(source.layout.channels()));
        let spread = SpreadPullback { source, target, scale: None, add: false, lines: self.lines };
        spread.run(self.set, self.rows(cotangent), &mut buffer);
        buffer
    }

    /// One step into the target's buffer; `add` when something is there.
    fn pull(
        &self,
        step: &ReverseStep<T>,
        source: Cotangents<'_, T>,
        add: bool,
        columns: Option<&mut [T]>,
        out: &mut [T],
    ) {
        let target = self.target(step.target);
        let (lines, samples) = (self.lines, self.trace.samples);
        let stage = &self.compiled.kernels[step.stage].kind;
        let slopes = self.slopes(step.target);
        match &step.kind {
            StepKind::Product { links, patches, panels, identity } => {
                let start = match identity {
                    Some(cotangent) => Start::Identity(self.cotangents(*cotangent)),
                    None if add => Start::Sum,
                    None => Start::Empty,
                };
                let patches = patches.as_ref();
                let pullback = Pullback { links, patches, panels, source, target, start, slopes, lines };
                pullback.run(self.set, samples, out);
            }
            StepKind::Together(parts) => {
                let pullbacks: Vec<_> = parts.iter().filter_map(|part| self.pullback(part)).collect();
                Pullback::run_together(&pullbacks, self.set, samples, out);
            }
            StepKind::Columns { rows, panels, links } => {
                let Some(columns) = columns else { return };
                let layout = side_by_side(panels.written().len());
                let (target, start) = (CotangentTarget::Lines(layout), Start::Empty);
                // The product of every row with the columns of all taps, then the sum over the taps.
                Pullback { links: rows, patches: None, panels, source, target, start, slopes: None, lines }
                    .run(self.set, samples, columns);
                let source = Cotangents { values: columns, layout };
                self.gather(step, links, source, Share::Columns, add, out);
            }
            StepKind::Channelwise { links } => {
                let KernelKind::Channelwise { weights, .. } = stage else { return };
                self.gather(step, links, source, Share::Weights(weights), add, out);
            }
            StepKind::Spread { scale } => {
                let rows = self.rows(step.source);
                SpreadPullback { source, target, scale: scale.as_deref(), add, lines }
                    .run(self.set, rows, out);
            }
            StepKind::Average { links } => {
                let KernelKind::Average { shares, .. } = stage else { return };
                self.gather(step, links, source, Share::Even(shares), add, out);
            }
            StepKind::Maximum { links } => {
                let KernelKind::Maximum { choices, .. } = stage else { return };
                let share = Share::Chosen(&self.trace.choices[*choices]);
                self.gather(step, links, source, share, add, out);
            }
            StepKind::Rearrange => {
                let KernelKind::Rearrange { moves, .. } = stage else { return };
                let scale = step.target.scale(&self.compiled.kernels);
                MovesPullback { moves, source, target, scale, add, lines }.run(self.set, samples, out);
            }
            StepKind::Scaled { links, factor } => {
                let Some([pitch, offset, channels]) = dense(target) else { return };
                let positions = self.positions(step.source);
                let factor = self.factor(step.stage, *factor);
                let links = links.as_ref();
                let scaled = ScaledPullback {
                    links,
                    source,
                    positions,
                    factor,
                    slopes,
                    pitch,
                    offset,
                    channels,
                    add,
                    lines,
                };
                scaled.run(self.set, samples, out);
            }
            StepKind::Within { kept } => {
                let (KernelKind::Within(row), Some([pitch, offset, _])) = (stage, dense(target)) else {
                    return;
                };
                let kept = self.values(*kept);
                let pulled = WithinPullback { row, kept, source, pitch, offset, add, lines };
                pulled.run(self.set, self.rows(step.source), out);
            }
            StepKind::Matrices { operand, other } => {
                let (KernelKind::Matrices(matrices), Some([pitch, offset, _])) = (stage, dense(target))
                else {
                    return;
                };
                let LineLayout::Dense { pitch: own, offset: first, channels } = source.layout else { return };
                let source = DenseRows { values: source.values, pitch: own, offset: first, channels };
                // Several matrices may read the same numbers, or none: all are added to zeros.
                if !add {
                    out.par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
                }
                let (operand, other) = (*operand, self.values(*other));
                MatricesPullback { matrices, operand, source, other, pitch, offset, lines }.run(samples, out);
            }
            StepKind::Segment { .. } => {}
        }
    }

    /// The derivatives by which a sink multiplies.
    fn slopes(&self, sink: Sink) -> Option<DenseRows<'_, T>> {
        sink.slopes().map(|view| self.values(view))
    }

    /// The factors of a stage's cotangents.
    fn factor(&self, stage: usize, factor: Factor) -> kernels::RowFactor<'_, T> {
        let stage = &self.compiled.kernels[stage];
        match factor {
            Factor::Number(number) => kernels::RowFactor::Number(T::from_f64(number)),
            Factor::Values { view, repeated } => {
                let repeat = match &stage.kind {
                    KernelKind::Combine { repeat, .. } if repeated => Some(repeat),
                    _ => None,
                };
                let count = self.compiled.maps[view.map].positions;
                kernels::RowFactor::Rows { rows: self.values(view), count, repeat }
            }
            Factor::Own => {
                let channels = stage.output.channels;
                let values = match &stage.kind {
                    KernelKind::Elementwise { scale: Some(scale), .. } => scale.as_slice(),
                    _ => &[],
                };
                kernels::RowFactor::Fixed(DenseRows { values, pitch: channels, offset: 0, channels })
            }
        }
    }

    /// Rows of one sample in the buffer of a cotangent.
    fn positions(&self, cotangent: CotangentRef) -> usize {
        self.rows(cotangent) / self.trace.samples
    }

    /// One of several products that are added to what is there.
    fn pullback<'s>(&'s self, step: &'s ReverseStep<T>) -> Option<Pullback<'s, T>> {
        let StepKind::Product { links, panels, identity: None, .. } = &step.kind else { return None };
        let (source, target) = (self.cotangents(step.source), self.target(step.target));
        let (start, lines) = (Start::Sum, self.lines);
        Some(Pullback { links, patches: None, panels, source, target, start, slopes: None, lines })
    }

    fn gather(
        &self,
        step: &ReverseStep<T>,
        links: &Links,
        source: Cotangents<'_, T>,
        share: Share<'_, T>,
        add: bool,
        out: &mut [T],
    ) {
        let (target, lines) = (self.target(step.target), self.lines);
        let channels = self.compiled.kernels[step.stage].input.channels;
        let scale = step.target.scale(&self.compiled.kernels);
        let slopes = self.slopes(step.target);
        let gather = GatherPullback { links, source, share, target, channels, scale, slopes, add, lines };
        gather.run(self.set, self.trace.samples, out);
    }

    /// The input's cotangents with their channels first, `[line][sample][channel][position]`.
    pub(super) fn input(&self) -> Vec<T> {
        let view = self.compiled.input;
        let (positions, samples) = (self.compiled.maps[view.map].positions, self.trace.samples);
        let size = view.channels * positions;
        let mut out = vec![T::default(); self.lines * samples * size];
        let rows = self.arena.slot(self.memory.sites[&Site::Map(view.map)]);
        for (at, out) in out.chunks_exact_mut(size).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            for (channel, plane) in out.chunks_exact_mut(positions).enumerate() {
                for (position, value) in plane.iter_mut().enumerate() {
                    *value =
                        rows[((sample * positions + position) * self.lines + line) * view.channels + channel];
                }
            }
        }
        out
    }
}

/// Pitch, offset and channels of dense lines.
fn dense(target: CotangentTarget<'_>) -> Option<[usize; 3]> {
    match target {
        CotangentTarget::Lines(LineLayout::Dense { pitch, offset, channels }) => {
            Some([pitch, offset, channels])
        }
        _ => None,
    }
}

/// DenseRows lines of nothing else.
fn side_by_side(channels: usize) -> LineLayout<'static> {
    LineLayout::Dense { pitch: channels, offset: 0, channels }
}
