//! The forward pass: the stages one after the other, each on all threads.

use crate::kernels::{
    Active, Channelwise, Combine, DenseRows, InstructionSet, Pointwise, Product, RowLayout, Rowwise, Within,
};

use influence_autodiff::Result;

use super::arena::Arena;
use super::executor::{LoadedNetwork, Number};
use super::memory::SlotPlan;
use super::segments::{Kept, Segments, numbers};
use crate::compile::program::{Compiled, CompiledSegment, Kernel, KernelKind, MapView, RowMap, ShownValue};

/// What the forward pass leaves: the output, and which channels and elements it has chosen.
#[derive(Debug)]
pub(super) struct ForwardTrace<T> {
    pub(super) samples: usize,
    /// `[sample][class]`.
    pub(super) logits: Vec<T>,
    pub(super) masks: Vec<Active>,
    pub(super) choices: Vec<Vec<u16>>,
    /// What each segment keeps of each sample.
    pub(super) segments: Vec<Kept>,
}

/// A forward pass under way.
pub(super) struct ForwardPass<'a, T> {
    compiled: &'a Compiled<T>,
    memory: &'a SlotPlan,
    arena: Arena<T>,
    set: InstructionSet,
    samples: usize,
    /// Whether a reverse pass follows, which needs the masks.
    masked: bool,
    masks: Vec<Active>,
    choices: Vec<Vec<u16>>,
    segments: &'a Segments,
    kept: Vec<Kept>,
}

/// Runs all kernels on samples in the network's order of axes, channels first. The values are left in
/// the arena, the masks in the trace where they are wanted.
///
/// # Errors
/// What Burn's operations fail to do in a segment.
pub(super) fn run<T: Number>(
    loaded: &LoadedNetwork<T>,
    set: InstructionSet,
    input: &[T],
    samples: usize,
    masked: bool,
) -> Result<(ForwardTrace<T>, Arena<T>)> {
    observed(loaded, set, input, samples, masked, |_, _| {})
}

/// The same, and after each kernel a look at the value of the graph that it has computed.
///
/// # Errors
/// As [`run`].
pub(super) fn observed<T: Number>(
    loaded: &LoadedNetwork<T>,
    set: InstructionSet,
    input: &[T],
    samples: usize,
    masked: bool,
    mut look: impl FnMut(&ForwardPass<'_, T>, &ShownValue),
) -> Result<(ForwardTrace<T>, Arena<T>)> {
    let LoadedNetwork { compiled, memory, arenas, segments } = loaded;
    let mut forward = ForwardPass {
        compiled,
        memory,
        arena: arenas.take(&memory.sizes, memory.slack, samples),
        set,
        samples,
        masked,
        masks: vec![Active::default(); compiled.masks.len()],
        choices: vec![Vec::new(); compiled.choices],
        segments,
        kept: compiled.segments.iter().map(|_| Kept::default()).collect(),
    };
    forward.load(input);
    let mut shown = compiled.shown.iter().peekable();
    for (index, kernel) in compiled.kernels.iter().enumerate() {
        match kernel.kind {
            KernelKind::Segment(segment) => forward.segment(segment)?,
            _ => forward.kernel(kernel),
        }
        while let Some(value) = shown.next_if(|value| value.kernel == index) {
            look(&forward, value);
        }
    }
    Ok(forward.into_trace())
}

impl<T: Number> ForwardPass<'_, T> {
    /// Writes the samples with their channels last.
    fn load(&mut self, input: &[T]) {
        let MapView { map, channels, .. } = self.compiled.input;
        let positions = self.compiled.maps[map].positions;
        let mut rows = self.arena.take(self.memory.maps[map]);
        for (sample, values) in input.chunks_exact(positions * channels).enumerate() {
            for (channel, plane) in values.chunks_exact(positions).enumerate() {
                for (position, value) in plane.iter().enumerate() {
                    rows[(sample * positions + position) * channels + channel] = *value;
                }
            }
        }
        self.arena.put(self.memory.maps[map], rows);
    }

    /// The values on the edges of a segment, one sample after the other.
    fn segment(&mut self, index: usize) -> Result<()> {
        let CompiledSegment { inputs, outputs, .. } = &self.compiled.segments[index];
        for sample in 0..self.samples {
            let given = inputs.iter().map(|edge| {
                let (rows, positions) = (self.rows(edge.view), self.compiled.maps[edge.view.map].positions);
                let at = |[row, channel]: &[usize; 2]| rows.row(sample * positions + row)[*channel];
                self.segments.value(edge, edge.elements.iter().map(at).collect::<Vec<T>>())
            });
            let (wanted, trace) = self.segments.segment(index).forward(given.collect())?;
            if self.masked {
                self.kept[index].push(trace);
            }
            for (edge, value) in outputs.iter().zip(wanted) {
                let map = &self.compiled.maps[edge.view.map];
                let mut rows = self.arena.take(self.memory.maps[edge.view.map]);
                let first = sample * map.positions * map.pitch + edge.view.offset;
                for (value, [row, channel]) in numbers::<T>(&value)?.iter().zip(&edge.elements) {
                    rows[first + row * map.pitch + channel] = *value;
                }
                self.arena.put(self.memory.maps[edge.view.map], rows);
            }
        }
        Ok(())
    }

    fn kernel(&mut self, stage: &Kernel<T>) {
        if let Some(norm) = stage.kept_product() {
            self.keep(stage, norm.rows);
        }
        let target = &self.compiled.maps[stage.output.map];
        let size = self.samples * target.positions * target.pitch;
        let slot = self.memory.maps[stage.output.map];
        let mut out = self.arena.take(slot);
        // Another part of the same buffer may be read: then from a copy.
        if stage.reads_its_map() {
            self.arena.put(slot, out[..size].to_vec());
        }
        let mut kept: Vec<_> = if self.masked { stage.kept.clone() } else { Vec::new() }
            .into_iter()
            .map(|view| (self.memory.maps[view.map], self.arena.take(self.memory.maps[view.map])))
            .collect();
        let buffers = kept.iter_mut().map(|(_, buffer)| buffer.as_mut_slice()).collect();
        self.compute(stage, &mut out[..size], buffers);
        self.arena.put(slot, out);
        kept.into_iter().for_each(|(slot, buffer)| self.arena.put(slot, buffer));
        if self.masked {
            stage.kept.iter().chain([&stage.output]).for_each(|view| self.clear(*view));
        }
        if let (Some(mask), true) = (stage.relu, self.masked) {
            let live = &target.live;
            let all = live.len() == target.positions;
            let is_live = |row: usize| all || live.binary_search(&(row % target.positions)).is_ok();
            let rows = self.samples * target.positions;
            self.masks[mask] = Active::positive(self.set, self.rows(stage.output), rows, is_live);
        }
    }

    /// Zeros where nothing is computed, in what the reverse pass reads: there cotangents are zero, and what
    /// a buffer happens to hold might be no number.
    fn clear(&mut self, view: MapView) {
        let map = &self.compiled.maps[view.map];
        if map.live.len() == map.positions || !self.compiled.keeps(view.map) {
            return;
        }
        let slot = self.memory.maps[view.map];
        let mut rows = self.arena.take(slot);
        for (at, row) in rows.chunks_exact_mut(map.pitch).take(self.samples * map.positions).enumerate() {
            if map.live.binary_search(&(at % map.positions)).is_err() {
                row[view.offset..view.offset + view.channels].fill(T::default());
            }
        }
        self.arena.put(slot, rows);
    }

    /// The numbers of a value, `[sample][element]`, if all of them are computed.
    pub(super) fn numbers(&self, shown: &ShownValue) -> Option<Vec<T>> {
        let (elements, map) = (shown.view.elements(), &self.compiled.maps[shown.at.map]);
        let computed = |&[row, _]: &[usize; 2]| map.live.binary_search(&row).is_ok();
        let rows = self.rows(shown.at);
        let of_sample = |sample: usize| {
            elements.iter().map(move |[row, channel]| rows.row(sample * map.positions + row)[*channel])
        };
        elements.iter().all(computed).then(|| (0..self.samples).flat_map(of_sample).collect())
    }

    /// The product alone, before it is normalised, for the gradients.
    fn keep(&mut self, stage: &Kernel<T>, rows: MapView) {
        let KernelKind::Product { table, patches, panels, bias } = &stage.kind else { return };
        let (slot, map) = (self.memory.maps[rows.map], &self.compiled.maps[rows.map]);
        let mut out = self.arena.take(slot);
        let source = self.rows(stage.input);
        let layout = RowLayout { pitch: map.pitch, offset: rows.offset };
        let size = self.samples * map.positions * map.pitch;
        let patches = patches.as_ref();
        let product = Product { table, patches, panels, bias, source, residual: None, relu: false };
        product.run(self.set, self.samples, &map.live, &mut out[..size], layout);
        self.arena.put(slot, out);
    }

    /// The rows of a value.
    fn rows(&self, view: MapView) -> DenseRows<'_, T> {
        let pitch = self.compiled.maps[view.map].pitch;
        let values = self.arena.slot(self.memory.maps[view.map]);
        DenseRows { values, pitch, offset: view.offset, channels: view.channels }
    }

    fn compute(&mut self, stage: &Kernel<T>, out: &mut [T], mut kept: Vec<&mut [T]>) {
        let map = &self.compiled.maps[stage.output.map];
        let layout = RowLayout { pitch: map.pitch, offset: stage.output.offset };
        let source = self.rows(stage.input);
        let other = stage.other.map(|view| self.rows(view));
        let rowwise = Rowwise { source, positions: map.positions, live: &map.live, samples: self.samples };
        match &stage.kind {
            KernelKind::Product { table, patches, panels, bias } => {
                let patches = patches.as_ref();
                let relu = stage.relu.is_some();
                if let Some(norm) = stage.kept_product() {
                    let affine = [norm.affine[0].as_slice(), norm.affine[1].as_slice()];
                    let rowwise = Rowwise { source: self.rows(norm.rows), ..rowwise };
                    return rowwise.affine(self.set, Some(affine), other, relu, out, layout);
                }
                let product = Product { table, patches, panels, bias, source, residual: other, relu };
                product.run(self.set, self.samples, &map.live, out, layout);
            }
            KernelKind::Channelwise { table, weights, bias } => {
                let relu = stage.relu.is_some();
                let product = Channelwise { table, weights, bias, source, residual: other, relu };
                product.run(self.set, self.samples, &map.live, out, layout);
            }
            KernelKind::Affine(affine) => {
                let affine = affine.as_ref().map(|[scale, shift]| [scale.as_slice(), shift.as_slice()]);
                rowwise.affine(self.set, affine, None, stage.relu.is_some(), out, layout);
            }
            KernelKind::Sum => rowwise.affine(self.set, None, other, stage.relu.is_some(), out, layout),
            KernelKind::Pointwise(chain) => {
                let RowMap { positions, live, .. } = map;
                let (positions, samples) = (*positions, self.samples);
                let pointwise = Pointwise { chain, source, positions, live, samples };
                pointwise.run(self.set, out, layout, kept.pop());
            }
            KernelKind::Combine { how, repeat } => {
                let Some(view) = stage.other else { return };
                let combine = Combine {
                    how: *how,
                    source,
                    other: self.rows(view),
                    repeat,
                    positions: map.positions,
                    live: &map.live,
                    samples: self.samples,
                    other_rows: self.compiled.maps[view.map].positions,
                };
                combine.run(self.set, out, layout, <[&mut [T]; 2]>::try_from(kept).ok());
            }
            KernelKind::Elementwise { scale, shift } => {
                rowwise.elementwise(scale.as_deref(), shift, stage.relu.is_some(), out, layout);
            }
            KernelKind::Within(row) => {
                let RowMap { positions, live, .. } = map;
                let (positions, samples) = (*positions, self.samples);
                let within = Within { row, source, positions, live, samples };
                within.run(self.set, out, layout, kept.pop());
            }
            KernelKind::Matrices(matrices) => {
                let Some(other) = other else { return };
                matrices.run([source, other], self.samples, out, [layout.pitch, layout.offset]);
            }
            KernelKind::Average { table, shares } => rowwise.average(table, shares, out, layout),
            KernelKind::Maximum { table, choices } => {
                let mut chosen = vec![0; self.samples * map.positions * stage.output.channels];
                rowwise.maximum(table, out, layout, &mut chosen);
                self.choices[*choices] = chosen;
            }
            KernelKind::Rearrange { moves, fill } => {
                moves.run(source, fill.as_deref(), self.samples, out, layout);
            }
            KernelKind::Segment(_) => {}
        }
    }

    fn into_trace(self) -> (ForwardTrace<T>, Arena<T>) {
        let view = self.compiled.output;
        let logits = (0..self.samples).flat_map(|sample| self.rows(view).row(sample).to_vec()).collect();
        let trace = ForwardTrace {
            samples: self.samples,
            logits,
            masks: self.masks,
            choices: self.choices,
            segments: self.kept,
        };
        (trace, self.arena)
    }
}
