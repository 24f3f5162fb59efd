//! The reverse pass: the steps one after the other, each on all threads, for up to nine cotangents of every sample at once.

use influence_kernels::{
    Cotangents, Dense, Element, Gather, InstructionSet, Layout, Links, Pullback, Share, Spread, Start, Target,
};

use rayon::prelude::*;

use super::Loaded;
use super::arena::Arena;
use super::forward::Trace;
use super::memory::Memory;
use super::stages::{Compiled, Place, Sink, Site, StageKind, Step, StepKind, View};

/// Numbers that a thread sets to zero at a time.
const ZEROED: usize = 1 << 16;

/// A reverse pass under way.
pub(super) struct Reverse<'a, T> {
    pub(super) compiled: &'a Compiled<T>,
    memory: &'a Memory,
    arena: Arena<T>,
    pub(super) set: InstructionSet,
    pub(super) trace: &'a Trace<T>,
    pub(super) lines: usize,
}

impl<'a, T: Element> Reverse<'a, T> {
    /// Starts with `lines` cotangents `[line][sample][class]` of the logits.
    pub(super) fn new(
        loaded: &'a Loaded<T>,
        set: InstructionSet,
        trace: &'a Trace<T>,
        arena: Arena<T>,
        cotangents: &[T],
        lines: usize,
    ) -> Self {
        let mut this = Self { compiled: &loaded.compiled, memory: &loaded.memory, arena, set, trace, lines };
        this.seed(cotangents);
        this
    }

    /// Runs all steps, those into the input where it is wanted; `visit` looks at each before, when all of its source's cotangent is there.
    pub(super) fn run(&mut self, input: bool, mut visit: impl FnMut(&Self, &'a Step<T>)) {
        let last = self.compiled.input;
        let alone = self.compiled.maps[last.map].pitch == last.channels;
        for (index, step) in self.compiled.steps.iter().enumerate() {
            visit(self, step);
            if input || !alone || step.target.place().site() != Site::Map(last.map) {
                self.step(index, step);
            }
        }
    }

    /// The arena, to be used again.
    pub(super) fn into_arena(self) -> Arena<T> {
        self.arena
    }

    /// The rows of a value of the forward pass, where those are kept.
    pub(super) fn values(&self, view: View) -> Dense<'_, T> {
        let pitch = self.compiled.maps[view.map].pitch;
        let values = self.arena.slot(self.memory.maps[view.map]);
        Dense { values, pitch, offset: view.offset, channels: view.channels }
    }
}

impl<T: Element> Reverse<'_, T> {
    fn layout(&self, place: Place) -> Layout<'_> {
        match place {
            Place::Dense(view) => {
                let pitch = self.compiled.maps[view.map].pitch;
                Layout::Dense { pitch, offset: view.offset, channels: view.channels }
            }
            Place::Compressed(mask) => Layout::Compressed(&self.trace.masks[mask]),
        }
    }

    fn target(&self, sink: Sink) -> Target<'_> {
        match sink {
            Sink::Place(place) => Target::Lines(self.layout(place)),
            Sink::Through { mask, view, from, .. } => {
                let pitch = self.compiled.maps[view.map].pitch;
                Target::Masked { active: &self.trace.masks[mask], pitch, offset: view.offset - from }
            }
        }
    }

    /// How many rows the buffer of a place has.
    fn rows(&self, place: Place) -> usize {
        let map = match place {
            Place::Dense(view) => view.map,
            Place::Compressed(mask) => self.compiled.masks[mask].map,
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

    fn step(&mut self, index: usize, step: &Step<T>) {
        let place = step.target.place();
        let size = self.layout(place).size(self.rows(place), self.lines);
        let slot = self.memory.sites[&place.site()];
        let copy = self.memory.copies.get(&index).map(|&slot| (slot, self.copied(slot, step.source)));
        let mut out = self.arena.take(slot);
        // The first to write leaves nothing as it was; where it does not reach, zeros have to be.
        let whole = match place {
            Place::Dense(view) => view.channels == self.compiled.maps[view.map].pitch,
            Place::Compressed(_) => true,
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

    pub(super) fn cotangents(&self, place: Place) -> Cotangents<'_, T> {
        let values = self.arena.slot(self.memory.sites[&place.site()]);
        Cotangents { values, layout: self.layout(place) }
    }

    /// The channels that a step reads, side by side, where it writes others of the same buffer.
    fn copied(&mut self, slot: usize, place: Place) -> Vec<T> {
        let mut buffer = self.arena.take(slot);
        let source = self.cotangents(place);
        let target = Target::Lines(side_by_side(source.layout.channels()));
        let spread = Spread { source, target, scale: None, add: false, lines: self.lines };
        spread.run(self.set, self.rows(place), &mut buffer);
        buffer
    }

    /// One step into the target's buffer; `add` when something is there.
    fn pull(
        &self,
        step: &Step<T>,
        source: Cotangents<'_, T>,
        add: bool,
        columns: Option<&mut [T]>,
        out: &mut [T],
    ) {
        let target = self.target(step.target);
        let (lines, samples) = (self.lines, self.trace.samples);
        let stage = &self.compiled.stages[step.stage].kind;
        match &step.kind {
            StepKind::Product { links, patches, panels, identity } => {
                let start = match identity {
                    Some(place) => Start::Identity(self.cotangents(*place)),
                    None if add => Start::Sum,
                    None => Start::Empty,
                };
                let patches = patches.as_ref();
                let pullback = Pullback { links, patches, panels, source, target, start, lines };
                pullback.run(self.set, samples, out);
            }
            StepKind::Together(parts) => {
                let pullbacks: Vec<_> = parts.iter().filter_map(|part| self.pullback(part)).collect();
                Pullback::run_together(&pullbacks, self.set, samples, out);
            }
            StepKind::Columns { rows, panels, links } => {
                let Some(columns) = columns else { return };
                let layout = side_by_side(panels.written().len());
                let (target, start) = (Target::Lines(layout), Start::Empty);
                // The product of every row with the columns of all taps, then the sum over the taps.
                Pullback { links: rows, patches: None, panels, source, target, start, lines }
                    .run(self.set, samples, columns);
                let source = Cotangents { values: columns, layout };
                self.gather(step, links, source, Share::Columns, add, out);
            }
            StepKind::Channelwise { links } => {
                let StageKind::Channelwise { weights, .. } = stage else { return };
                self.gather(step, links, source, Share::Weights(weights), add, out);
            }
            StepKind::Spread { scale } => {
                let rows = self.rows(step.source);
                Spread { source, target, scale: scale.as_deref(), add, lines }.run(self.set, rows, out);
            }
            StepKind::Average { links } => {
                let StageKind::Average { shares, .. } = stage else { return };
                self.gather(step, links, source, Share::Even(shares), add, out);
            }
            StepKind::Maximum { links } => {
                let StageKind::Maximum { choices, .. } = stage else { return };
                let share = Share::Chosen(&self.trace.choices[*choices]);
                self.gather(step, links, source, share, add, out);
            }
        }
    }

    /// One of several products that are added to what is there.
    fn pullback<'s>(&'s self, step: &'s Step<T>) -> Option<Pullback<'s, T>> {
        let StepKind::Product { links, panels, identity: None, .. } = &step.kind else { return None };
        let (source, target) = (self.cotangents(step.source), self.target(step.target));
        let (start, lines) = (Start::Sum, self.lines);
        Some(Pullback { links, patches: None, panels, source, target, start, lines })
    }

    fn gather(
        &self,
        step: &Step<T>,
        links: &Links,
        source: Cotangents<'_, T>,
        share: Share<'_, T>,
        add: bool,
        out: &mut [T],
    ) {
        let (target, lines) = (self.target(step.target), self.lines);
        let channels = self.compiled.stages[step.stage].input.channels;
        let scale = step.target.scale(&self.compiled.stages);
        let gather = Gather { links, source, share, target, channels, scale, add, lines };
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

/// Dense lines of nothing else.
fn side_by_side(channels: usize) -> Layout<'static> {
    Layout::Dense { pitch: channels, offset: 0, channels }
}
