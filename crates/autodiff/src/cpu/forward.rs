//! The forward pass: the stages one after the other, each on all threads.

use influence_kernels::{Active, Dense, Element, InstructionSet, Place, Product, Rowwise};

use super::buffers::Buffers;
use super::stages::{Compiled, Stage, StageKind, View};

/// What the forward pass leaves: the output, and which channels and elements it has chosen.
#[derive(Debug)]
pub(super) struct Trace<T> {
    pub(super) samples: usize,
    /// `[sample][class]`.
    pub(super) logits: Vec<T>,
    pub(super) masks: Vec<Active>,
    pub(super) choices: Vec<Vec<u16>>,
}

/// A forward pass under way.
struct Forward<'a, T> {
    compiled: &'a Compiled<T>,
    buffers: &'a Buffers<T>,
    set: InstructionSet,
    samples: usize,
    maps: Vec<Option<Vec<T>>>,
    masks: Vec<Active>,
    choices: Vec<Vec<u16>>,
}

/// Runs all stages on samples in the network's order of axes, channels first.
pub(super) fn run<T: Element>(
    compiled: &Compiled<T>,
    buffers: &Buffers<T>,
    set: InstructionSet,
    input: &[T],
    samples: usize,
) -> Trace<T> {
    let mut forward = Forward {
        compiled,
        buffers,
        set,
        samples,
        maps: vec![None; compiled.maps.len()],
        masks: vec![Active::default(); compiled.masks.len()],
        choices: vec![Vec::new(); compiled.choices],
    };
    forward.load(input);
    for (stage, dead) in compiled.stages.iter().zip(&compiled.dead) {
        forward.stage(stage);
        for &map in dead {
            forward.maps[map].take().into_iter().for_each(|buffer| buffers.give(buffer));
        }
    }
    forward.into_trace()
}

impl<T: Element> Forward<'_, T> {
    /// Writes the samples with their channels last.
    fn load(&mut self, input: &[T]) {
        let View { map, channels, .. } = self.compiled.input;
        let positions = self.compiled.maps[map].positions;
        let mut rows = self.buffers.take(self.samples * positions * channels);
        for (sample, values) in input.chunks_exact(positions * channels).enumerate() {
            for (channel, plane) in values.chunks_exact(positions).enumerate() {
                for (position, value) in plane.iter().enumerate() {
                    rows[(sample * positions + position) * channels + channel] = *value;
                }
            }
        }
        self.maps[map] = Some(rows);
    }

    fn stage(&mut self, stage: &Stage<T>) {
        let target = &self.compiled.maps[stage.output.map];
        let size = self.samples * target.positions * target.pitch;
        // Another part of the same buffer may be read: then from a copy.
        let shared =
            [Some(stage.input), stage.other].into_iter().flatten().any(|view| view.map == stage.output.map);
        let old = self.maps[stage.output.map].take();
        let copy = if shared { old.clone() } else { None };
        let mut out = old.unwrap_or_else(|| self.buffers.take(size));
        self.maps[stage.output.map] = copy;
        self.compute(stage, &mut out[..size]);
        if let Some(copy) = self.maps[stage.output.map].replace(out) {
            self.buffers.give(copy);
        }
        if let Some(mask) = stage.relu {
            let live = &self.compiled.maps[stage.output.map].live;
            let is_live = |row: usize| live.binary_search(&(row % target.positions)).is_ok();
            let rows = self.samples * target.positions;
            self.masks[mask] = Active::positive(self.rows(stage.output), rows, is_live);
        }
    }

    /// The rows of a value.
    fn rows(&self, view: View) -> Dense<'_, T> {
        let pitch = self.compiled.maps[view.map].pitch;
        let values = self.maps[view.map].as_deref().unwrap_or_default();
        Dense { values, pitch, offset: view.offset, channels: view.channels }
    }

    fn compute(&mut self, stage: &Stage<T>, out: &mut [T]) {
        let map = &self.compiled.maps[stage.output.map];
        let place = Place { pitch: map.pitch, offset: stage.output.offset };
        let source = self.rows(stage.input);
        let other = stage.other.map(|view| self.rows(view));
        let rowwise = Rowwise { source, positions: map.positions, live: &map.live, samples: self.samples };
        match &stage.kind {
            StageKind::Product { table, panels, bias } => {
                let relu = stage.relu.is_some();
                let product = Product { table, panels, bias, source, residual: other, relu };
                product.run(self.set, self.samples, &map.live, out, place);
            }
            StageKind::Affine(affine) => {
                let affine = affine.as_ref().map(|[scale, shift]| [scale.as_slice(), shift.as_slice()]);
                rowwise.affine(affine, None, stage.relu.is_some(), out, place);
            }
            StageKind::Sum => rowwise.affine(None, other, stage.relu.is_some(), out, place),
            StageKind::Average { table, shares } => rowwise.average(table, shares, out, place),
            StageKind::Maximum { table, choices } => {
                let mut chosen = vec![0; self.samples * map.positions * stage.output.channels];
                rowwise.maximum(table, out, place, &mut chosen);
                self.choices[*choices] = chosen;
            }
        }
    }

    fn into_trace(mut self) -> Trace<T> {
        let view = self.compiled.output;
        let logits = (0..self.samples).flat_map(|sample| self.rows(view).row(sample).to_vec()).collect();
        for buffer in self.maps.drain(..).flatten() {
            self.buffers.give(buffer);
        }
        Trace { samples: self.samples, logits, masks: self.masks, choices: self.choices }
    }
}
