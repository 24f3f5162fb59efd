//! The reverse pass: the steps one after the other, each on all threads, for up to nine cotangents of every sample at once.

use std::collections::HashMap;

use influence_kernels::{
    Cotangents, Element, Gather, InstructionSet, Layout, Links, Panels, Pullback, Share, Spread, Start,
    Table, Target,
};

use super::buffers::Buffers;
use super::forward::Trace;
use super::stages::{Compiled, Place, Sink, Site, StageKind, Step, StepKind};

/// A reverse pass under way.
struct Reverse<'a, T> {
    compiled: &'a Compiled<T>,
    buffers: &'a Buffers<T>,
    set: InstructionSet,
    trace: &'a Trace<T>,
    lines: usize,
    sites: HashMap<Site, Vec<T>>,
}

/// Pulls `lines` cotangents `[line][sample][class]` back to the input, `[line][sample][channel][position]`.
pub(super) fn run<T: Element>(
    compiled: &Compiled<T>,
    buffers: &Buffers<T>,
    set: InstructionSet,
    trace: &Trace<T>,
    cotangents: &[T],
    lines: usize,
) -> Vec<T> {
    let mut reverse = Reverse { compiled, buffers, set, trace, lines, sites: HashMap::new() };
    reverse.seed(cotangents);
    for step in &compiled.steps {
        reverse.step(step);
        for site in &step.dead {
            reverse.sites.remove(site).into_iter().for_each(|buffer| buffers.give(buffer));
        }
    }
    reverse.into_input()
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
            Sink::Through { mask, view, .. } => {
                let pitch = self.compiled.maps[view.map].pitch;
                Target::Masked { active: &self.trace.masks[mask], pitch, offset: view.offset }
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
        let size = self.layout(Place::Dense(view)).size(samples, self.lines);
        let mut buffer = self.buffers.zeros(size);
        for (at, row) in cotangents.chunks_exact(view.channels).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            let start = (sample * self.lines + line) * pitch + view.offset;
            buffer[start..start + view.channels].copy_from_slice(row);
        }
        self.sites.insert(Site::Map(view.map), buffer);
    }

    fn step(&mut self, step: &Step<T>) {
        let (site, source) = (step.target.place().site(), step.source.site());
        let size = self.layout(step.target.place()).size(self.rows(step.target.place()), self.lines);
        let old = self.sites.remove(&site);
        // Another part of the same buffer may be read: then from a copy.
        if let (true, Some(old)) = (site == source, &old) {
            self.sites.insert(site, old.clone());
        }
        let dense = matches!(step.target.place(), Place::Dense(_));
        let mut out = old.unwrap_or_else(|| match dense {
            true => self.buffers.zeros(size),
            false => self.buffers.take(size),
        });
        self.pull(step, dense || !step.first, &mut out[..size]);
        if let Some(copy) = self.sites.insert(site, out) {
            self.buffers.give(copy);
        }
    }

    fn cotangents(&self, place: Place) -> Cotangents<'_, T> {
        let values = self.sites.get(&place.site()).map_or(&[][..], Vec::as_slice);
        Cotangents { values, layout: self.layout(place) }
    }

    /// One step into the target's buffer; `add` when something is there.
    fn pull(&self, step: &Step<T>, add: bool, out: &mut [T]) {
        let (source, target) = (self.cotangents(step.source), self.target(step.target));
        let (lines, samples) = (self.lines, self.trace.samples);
        let stage = &self.compiled.stages[step.stage].kind;
        match &step.kind {
            StepKind::Product { links, panels, identity } => {
                let start = match identity {
                    Some(place) => Start::Identity(self.cotangents(*place)),
                    None if add => Start::Sum,
                    None => Start::Empty,
                };
                Pullback { links, panels, source, target, start, lines }.run(self.set, samples, out);
            }
            StepKind::Columns { panels } => {
                let StageKind::Product { table, .. } = stage else { return };
                self.columns(step, table, panels, add, out);
            }
            StepKind::Spread { scale } => {
                let rows = self.rows(step.source);
                Spread { source, target, scale: scale.as_deref(), add, lines }.run(rows, out);
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
        let scale = self.compiled.scale(step.target);
        Gather { links, source, share, target, channels, scale, add, lines }.run(self.trace.samples, out);
    }

    /// The product of every output position with the columns of all taps, then the sum over the taps.
    fn columns(&self, step: &Step<T>, table: &Table, panels: &Panels<T>, add: bool, out: &mut [T]) {
        let channels = self.compiled.stages[step.stage].input.channels * table.taps();
        let layout = Layout::Dense { pitch: channels, offset: 0, channels };
        let rows = self.trace.samples * table.rows();
        let mut columns = self.buffers.zeros(layout.size(rows, self.lines));
        let links = Table::identity(table.rows()).links();
        let pullback = Pullback {
            links: &links,
            panels,
            source: self.cotangents(step.source),
            target: Target::Lines(layout),
            start: Start::Empty,
            lines: self.lines,
        };
        pullback.run(self.set, self.trace.samples, &mut columns);
        let source = Cotangents { values: &columns, layout };
        self.gather(step, &table.links(), source, Share::Columns, add, out);
        self.buffers.give(columns);
    }

    /// The input's cotangents with their channels first.
    fn into_input(mut self) -> Vec<T> {
        let view = self.compiled.input;
        let (positions, samples) = (self.compiled.maps[view.map].positions, self.trace.samples);
        let size = view.channels * positions;
        let mut out = vec![T::default(); self.lines * samples * size];
        let Some(rows) = self.sites.remove(&Site::Map(view.map)) else { return out };
        for (at, out) in out.chunks_exact_mut(size).enumerate() {
            let (line, sample) = (at / samples, at % samples);
            for (channel, plane) in out.chunks_exact_mut(positions).enumerate() {
                for (position, value) in plane.iter_mut().enumerate() {
                    *value =
                        rows[((sample * positions + position) * self.lines + line) * view.channels + channel];
                }
            }
        }
        self.sites
            .drain()
            .map(|(_, buffer)| buffer)
            .chain([rows])
            .for_each(|buffer| self.buffers.give(buffer));
        out
    }
}
