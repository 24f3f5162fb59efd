//! The reverse pass: the steps one after the other, each on all threads, for up to nine cotangents
//! of every sample at once, or 32 in lanes.
//!
//! A step takes its target's buffer out of the arena, reads others that stay there, and puts it
//! back. Two cases do not fit this pattern and have slots of their own. Channels that are read in
//! the buffer that is written are copied first. Columns are computed before they are added up.

use crate::kernels::{
    self, CotangentTarget, Cotangents, DenseRows, GatherPullback, InstructionSet, LineLayout, Links,
    MatricesPullback, MovesPullback, Pullback, ScaledPullback, Share, SpreadPullback, Start, WithinPullback,
    in_lanes,
};

use burn::tensor::TensorData;
use influence_autodiff::Result;
use rayon::prelude::*;

use super::arena::{Arena, SlotId};
use super::executor::{LoadedProgram, Number};
use super::forward::ForwardTrace;
use super::grams::leading;
use super::memory::SlotPlan;
use super::segments::{Segments, numbers};
use crate::compile::ids::{KernelId, LeafId, StepId};
use crate::compile::program::{Compiled, Edge, KernelKind, MapView};
use crate::compile::steps::{CotangentRef, Factor, ReverseStep, Sink, Site, StepKind};

/// Elements that a thread sets to zero at a time. With fewer, handing out the parts takes longer
/// than writing them; with more, small buffers are one part, and the other threads are idle.
const ZEROED: usize = 1 << 16;

/// Cotangents that are pulled back together.
#[derive(Debug, Clone, Copy)]
pub(super) struct CotangentBlock {
    /// How many there are.
    pub(super) count: usize,
    /// How many lines a row has: as many, or more, which are zero.
    pub(super) lines: usize,
}

/// A reverse pass under way.
pub(super) struct ReversePass<'a, T> {
    pub(super) compiled: &'a Compiled<T>,
    pub(super) slots: &'a SlotPlan,
    arena: Arena<T>,
    pub(super) set: InstructionSet,
    pub(super) trace: &'a ForwardTrace<T>,
    /// V: how many lines a row has.
    pub(super) lines: usize,
    /// How many cotangents there are. Further lines are zero.
    count: usize,
    segments: &'a Segments,
    /// The tensors whose Gram matrices are asked for, ascending.
    asked: &'a [LeafId],
    /// The matrices that segments have computed: tensor, sample, matrix.
    pub(super) given: Vec<(LeafId, usize, Vec<f64>)>,
}

impl<'a, T: Number> ReversePass<'a, T> {
    /// Starts with a block of cotangents `[line][sample][class]` of the logits, of no more lines
    /// than the slots are planned for.
    pub(super) fn new(
        loaded: &'a LoadedProgram<T>,
        set: InstructionSet,
        trace: &'a ForwardTrace<T>,
        arena: Arena<T>,
        cotangents: &[T],
        CotangentBlock { count, lines }: CotangentBlock,
        asked: &'a [LeafId],
    ) -> Self {
        let LoadedProgram { compiled, slots, segments, .. } = loaded;
        let given = Vec::new();
        let mut this = Self { compiled, slots, arena, set, trace, lines, count, segments, asked, given };
        this.seed(cotangents);
        this
    }

    /// Runs all steps; those into the input's cotangent only if `input` says so. `visit` is called
    /// before each step: its source's cotangent is complete then.
    ///
    /// # Errors
    /// What Burn's operations fail to do in a segment.
    pub(super) fn run(
        &mut self,
        input: bool,
        mut visit: impl FnMut(&Self, &'a ReverseStep<T>),
    ) -> Result<()> {
        let last = self.compiled.input;
        // Channels that share the input's buffer would be lost with it.
        let alone = self.compiled.map(last.map).pitch == last.channels;
        for (index, step) in self.compiled.steps.iter().enumerate() {
            visit(self, step);
            if let StepKind::Segment { sources, targets } = &step.kind {
                self.segment(step.kernel, sources, targets)?;
            } else if input || !alone || step.target.cotangent().site() != Site::Map(last.map) {
                self.step(StepId(index), step);
            }
        }
        Ok(())
    }

    /// Pulls back a segment from its outputs to its inputs, one sample after the other.
    fn segment(
        &mut self,
        kernel: KernelId,
        sources: &[Option<CotangentRef>],
        targets: &[(Sink, bool)],
    ) -> Result<()> {
        let KernelKind::Segment(id) = self.compiled.kernel(kernel).kind else { return Ok(()) };
        let segment = self.compiled.segment(id);
        // The segment's tensors whose Gram matrices are asked for.
        let wanted: Vec<LeafId> =
            segment.tensors.iter().copied().filter(|tensor| self.asked.contains(tensor)).collect();
        // Every sample adds to the buffers of the inputs, so those that hold nothing yet begin with
        // zeros.
        for (sink, _) in targets.iter().filter(|(_, first)| *first) {
            let cotangent = sink.cotangent();
            let size = self.layout(cotangent).size(self.rows(cotangent), self.lines);
            let slot = self.slots.cotangents(cotangent.site());
            let mut out = self.arena.take(slot);
            out[..size].par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
            self.arena.put(slot, out);
        }
        for sample in 0..self.trace.samples {
            let outputs = segment.outputs.iter().zip(sources);
            // Each sample has a trace of its own. On the edges cotangents have the order of the
            // graph's values.
            let cotangents = outputs.map(|(edge, source)| self.of_edge(edge, *source, sample)).collect();
            let kept = self.trace.segment(id);
            let pulled = kept.pull(sample, self.segments.segment(id), cotangents, &wanted)?;
            for (edge, cotangents) in segment.inputs.iter().zip(&pulled.inputs) {
                self.add_to_edge(edge, numbers(cotangents)?, sample);
            }
            // The segment takes blocks of one size. Lines after this pass's are zero, and so are
            // their rows and columns of the matrices: only the leading part is kept.
            let size = self.segments.segment(id).block();
            for (&tensor, gram) in wanted.iter().zip(pulled.grams.chunks_exact((size * size).max(1))) {
                self.given.push((tensor, sample, leading(gram, size, self.lines).collect()));
            }
        }
        Ok(())
    }

    /// The cotangents of a value on a segment's edge, `[block, ...]`: zeros where nothing has
    /// reached it, and after the last line, since a segment takes blocks of one size.
    fn of_edge(&self, edge: &Edge, source: Option<CotangentRef>, sample: usize) -> TensorData {
        let map = self.compiled.map(edge.view.map);
        let block = self.slots.lines;
        let mut values = vec![T::default(); block * edge.elements.len()];
        if let Some(cotangent) = source {
            let rows = self.arena.slot(self.slots.cotangents(cotangent.site()));
            for (line, values) in values.chunks_exact_mut(edge.elements.len()).take(self.lines).enumerate() {
                for (value, [row, channel]) in values.iter_mut().zip(&edge.elements) {
                    let row = sample * map.positions + row;
                    *value = rows[self.place(map.pitch, row, line, edge.view.offset + channel)];
                }
            }
        }
        self.segments.cotangents(edge, block, values)
    }

    /// Adds cotangents `[block, ...]` of a value to what its buffer holds.
    fn add_to_edge(&mut self, edge: &Edge, values: &[T], sample: usize) {
        let map = self.compiled.map(edge.view.map);
        let slot = self.slots.cotangents(Site::Map(edge.view.map));
        let mut rows = self.arena.take(slot);
        for (line, values) in values.chunks_exact(edge.elements.len()).take(self.lines).enumerate() {
            for (value, [row, channel]) in values.iter().zip(&edge.elements) {
                let row = sample * map.positions + row;
                rows[self.place(map.pitch, row, line, edge.view.offset + channel)] += *value;
            }
        }
        self.arena.put(slot, rows);
    }

    /// Gives the arena back, to be used again.
    pub(super) fn into_arena(self) -> Arena<T> {
        self.arena
    }

    /// The rows of a value of the forward pass, where those are kept.
    pub(super) fn values(&self, view: MapView) -> DenseRows<'_, T> {
        let pitch = self.compiled.map(view.map).pitch;
        let values = self.arena.slot(self.slots.values(view.map));
        DenseRows { values, pitch, offset: view.offset, channels: view.channels }
    }
}

impl<T: Number> ReversePass<'_, T> {
    fn layout(&self, cotangent: CotangentRef) -> LineLayout<'_> {
        match cotangent {
            CotangentRef::Dense(view) => {
                let pitch = self.compiled.map(view.map).pitch;
                LineLayout::Dense { pitch, offset: view.offset, channels: view.channels }
            }
            CotangentRef::Compressed(mask) => LineLayout::Compressed(self.trace.mask(mask)),
        }
    }

    fn target(&self, sink: Sink) -> CotangentTarget<'_> {
        match sink {
            Sink::Plain(_) | Sink::Times { .. } => CotangentTarget::Lines(self.layout(sink.cotangent())),
            Sink::Through { mask, view, from, .. } => {
                let pitch = self.compiled.map(view.map).pitch;
                CotangentTarget::Masked { active: self.trace.mask(mask), pitch, offset: view.offset - from }
            }
        }
    }

    /// How many rows the buffer of a cotangent has.
    fn rows(&self, cotangent: CotangentRef) -> usize {
        let map = match cotangent {
            CotangentRef::Dense(view) => view.map,
            CotangentRef::Compressed(mask) => self.compiled.mask(mask).map,
        };
        self.trace.samples * self.compiled.map(map).positions
    }

    /// Where a channel of a line of a dense row is, in a buffer of so many channels.
    fn place(&self, pitch: usize, row: usize, line: usize, channel: usize) -> usize {
        let within = if in_lanes(self.lines) { channel * self.lines + line } else { line * pitch + channel };
        row * self.lines * pitch + within
    }

    /// The cotangents of the logits.
    fn seed(&mut self, cotangents: &[T]) {
        let view = self.compiled.output;
        let (pitch, samples) = (self.compiled.map(view.map).pitch, self.trace.samples);
        let slot = self.slots.cotangents(Site::Map(view.map));
        let mut buffer = self.arena.take(slot);
        buffer[..samples * self.lines * pitch].fill(T::default());
        for (at, row) in cotangents.chunks_exact(view.channels).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            for (channel, value) in row.iter().enumerate() {
                buffer[self.place(pitch, sample, line, view.offset + channel)] = *value;
            }
        }
        self.arena.put(slot, buffer);
    }

    fn step(&mut self, id: StepId, step: &ReverseStep<T>) {
        let cotangent = step.target.cotangent();
        let size = self.layout(cotangent).size(self.rows(cotangent), self.lines);
        let slot = self.slots.cotangents(cotangent.site());
        let copy = self.slots.copy(id).map(|slot| (slot, self.copied(slot, step.source)));
        let mut out = self.arena.take(slot);
        // The first step into a buffer writes, later ones add. If the first does not write all
        // channels of the buffer, zeros have to be there, and it adds as well.
        let whole = match cotangent {
            CotangentRef::Dense(view) => view.channels == self.compiled.map(view.map).pitch,
            CotangentRef::Compressed(_) => true,
        };
        if step.first && !whole {
            out[..size].par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
        }
        let mut columns = self.slots.columns(id).map(|slot| (slot, self.arena.take(slot)));
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
        let values = self.arena.slot(self.slots.cotangents(cotangent.site()));
        Cotangents { values, layout: self.layout(cotangent) }
    }

    /// A copy of the channels that a step reads, without others between them, where it writes
    /// others of the same buffer.
    fn copied(&mut self, slot: SlotId, cotangent: CotangentRef) -> Vec<T> {
        let mut buffer = self.arena.take(slot);
        let source = self.cotangents(cotangent);
        let target = CotangentTarget::Lines(side_by_side(source.layout.channels()));
        let spread = SpreadPullback { source, target, scale: None, add: false, lines: self.lines };
        spread.run(self.set, self.rows(cotangent), &mut buffer);
        buffer
    }

    /// One step into the target's buffer; `add` where something is there to add to.
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
        let kernel = &self.compiled.kernel(step.kernel).kind;
        match &step.kind {
            StepKind::Product { links, patches, panels, identity } => {
                let start = match identity {
                    Some(identity) => Start::Identity(self.cotangents(*identity)),
                    None if add => Start::Sum,
                    None => Start::Empty,
                };
                let (patches, slopes) = (patches.as_ref(), self.slopes(step.target));
                let pullback = Pullback { links, patches, panels, source, target, start, slopes, lines };
                pullback.run(self.set, samples, out);
            }
            StepKind::Together(parts) => {
                let pullbacks: Vec<_> = parts.iter().filter_map(|part| self.pullback(part)).collect();
                Pullback::run_together(&pullbacks, self.set, samples, out);
            }
            StepKind::Columns { rows, panels, links } => {
                let Some(columns) = columns else { return };
                // The product of every row with the columns of all taps, then the sum over the
                // taps.
                let layout = side_by_side(panels.written().len());
                let (target, start) = (CotangentTarget::Lines(layout), Start::Empty);
                Pullback { links: rows, patches: None, panels, source, target, start, slopes: None, lines }
                    .run(self.set, samples, columns);
                let source = Cotangents { values: columns, layout };
                self.gather(step, links, source, Share::Columns, add, out);
            }
            StepKind::Channelwise { links, weights } => {
                self.gather(step, links, source, Share::Weights(weights), add, out);
            }
            StepKind::Average { links } => {
                let KernelKind::Average { table, shares } = kernel else { return };
                self.gather(step, links, source, Share::Window(shares, table.taps()), add, out);
            }
            StepKind::Maximum { links } => {
                let KernelKind::Maximum { choices, .. } = kernel else { return };
                let share = Share::Chosen(self.trace.choices(*choices));
                self.gather(step, links, source, share, add, out);
            }
            StepKind::Spread { scale } => {
                let rows = self.rows(step.source);
                SpreadPullback { source, target, scale: scale.as_deref(), add, lines }
                    .run(self.set, rows, out);
            }
            StepKind::Rearrange => {
                let KernelKind::Rearrange { moves, .. } = kernel else { return };
                let scale = step.target.scale(&self.compiled.kernels);
                MovesPullback { moves, source, target, scale, add, lines }.run(self.set, samples, out);
            }
            StepKind::Scaled { .. } | StepKind::Within { .. } | StepKind::Matrices { .. } => {
                if let Some(target) = dense(target) {
                    self.pull_dense(step, source, add, target, out);
                }
            }
            StepKind::Segment { .. } => {}
        }
    }

    /// A step whose results are dense lines of this pitch, offset and number of channels.
    fn pull_dense(
        &self,
        step: &ReverseStep<T>,
        source: Cotangents<'_, T>,
        add: bool,
        [pitch, offset, channels]: [usize; 3],
        out: &mut [T],
    ) {
        let (lines, samples) = (self.lines, self.trace.samples);
        let kernel = &self.compiled.kernel(step.kernel).kind;
        match &step.kind {
            StepKind::Scaled { links, factor } => {
                let positions = self.rows(step.source) / samples;
                let factor = self.factor(step.kernel, *factor);
                let (links, slopes) = (links.as_ref(), self.slopes(step.target));
                ScaledPullback {
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
                }
                .run(self.set, samples, out);
            }
            StepKind::Within { kept } => {
                let KernelKind::Within(row) = kernel else { return };
                let kept = self.values(*kept);
                WithinPullback { row, kept, source, pitch, offset, add, lines }.run(
                    self.set,
                    self.rows(step.source),
                    out,
                );
            }
            StepKind::Matrices { operand, other } => {
                let KernelKind::Matrices(matrices) = kernel else { return };
                let LineLayout::Dense { pitch: own, offset: first, channels } = source.layout else { return };
                let source = DenseRows { values: source.values, pitch: own, offset: first, channels };
                // Several matrices may have read the same elements, or none: each adds its
                // contribution, to zeros where nothing is there.
                if !add {
                    out.par_chunks_mut(ZEROED).for_each(|part| part.fill(T::default()));
                }
                let (operand, other) = (*operand, self.values(*other));
                MatricesPullback { matrices, operand, source, other, pitch, offset, lines }.run(samples, out);
            }
            _ => {}
        }
    }

    /// The derivatives by which a sink multiplies, if it does.
    fn slopes(&self, sink: Sink) -> Option<DenseRows<'_, T>> {
        sink.slopes().map(|view| self.values(view))
    }

    /// The factors of a kernel's cotangents.
    fn factor(&self, kernel: KernelId, factor: Factor) -> kernels::RowFactor<'_, T> {
        let kernel = self.compiled.kernel(kernel);
        match factor {
            Factor::Number(number) => kernels::RowFactor::Number(T::from_f64(number)),
            Factor::Values { view, repeated } => {
                let repeat = match &kernel.kind {
                    KernelKind::Combine { repeat, .. } if repeated => Some(repeat),
                    _ => None,
                };
                let count = self.compiled.map(view.map).positions;
                kernels::RowFactor::Rows { rows: self.values(view), count, repeat }
            }
            Factor::Own => {
                let channels = kernel.output.channels;
                let values = match &kernel.kind {
                    KernelKind::Elementwise { scale: Some(scale), .. } => scale.as_slice(),
                    _ => &[],
                };
                kernels::RowFactor::Fixed(DenseRows { values, pitch: channels, offset: 0, channels })
            }
        }
    }

    /// A part of a step of several products, which are added to what is there.
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
        let channels = self.compiled.kernel(step.kernel).input.channels;
        let scale = step.target.scale(&self.compiled.kernels);
        let slopes = self.slopes(step.target);
        let gather = GatherPullback { links, source, share, target, channels, scale, slopes, add, lines };
        gather.run(self.set, self.trace.samples, out);
    }

    /// The input's cotangents with their channels first, `[line][sample][channel][position]`.
    pub(super) fn input(&self) -> Vec<T> {
        let view = self.compiled.input;
        let (positions, samples) = (self.compiled.map(view.map).positions, self.trace.samples);
        let size = view.channels * positions;
        let mut out = vec![T::default(); self.count * samples * size];
        let rows = self.arena.slot(self.slots.cotangents(Site::Map(view.map)));
        for (at, out) in out.chunks_exact_mut(size).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            for (channel, plane) in out.chunks_exact_mut(positions).enumerate() {
                for (position, value) in plane.iter_mut().enumerate() {
                    let row = sample * positions + position;
                    *value = rows[self.place(view.channels, row, line, channel)];
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

/// Dense lines without other channels between them.
fn side_by_side(channels: usize) -> LineLayout<'static> {
    LineLayout::Dense { pitch: channels, offset: 0, channels }
}
