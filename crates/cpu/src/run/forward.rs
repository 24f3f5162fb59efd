//! The forward pass: the kernels one after the other, each on all threads.

use crate::kernels::{
    Active, Channelwise, Combine, DenseRows, InstructionSet, Pointwise, Product, RowLayout, Rowwise, Within,
};

use influence_autodiff::Result;

use super::arena::Arena;
use super::executor::{LoadedProgram, Number};
use super::memory::SlotPlan;
use super::segments::{SegmentTraces, Segments, numbers};
use crate::compile::ids::{ChoiceId, KernelId, MaskId, SegmentId};
use crate::compile::program::{Compiled, CompiledSegment, Kernel, KernelKind, MapView, RowMap, ShownValue};

/// What the forward pass leaves for reverse passes besides the values in its arena: logits, masks,
/// and the choices of maxima.
#[derive(Debug)]
pub(super) struct ForwardTrace<T> {
    pub(super) samples: usize,
    /// `[sample][class]`.
    pub(super) logits: Vec<T>,
    /// Indexed by [`MaskId`].
    masks: Vec<Active>,
    /// Indexed by [`ChoiceId`]: the tap that each maximum has chosen, `[row][channel]`.
    choices: Vec<Vec<u16>>,
    /// What each segment keeps of each sample, indexed by [`SegmentId`].
    segments: Vec<SegmentTraces>,
}

/// A forward pass under way.
pub(super) struct ForwardPass<'a, T> {
    compiled: &'a Compiled<T>,
    slots: &'a SlotPlan,
    arena: Arena<T>,
    set: InstructionSet,
    samples: usize,
    /// Whether a reverse pass follows, which needs the masks.
    masked: bool,
    /// The masks so far. With `choices` and `traces` they become the trace.
    masks: Vec<Active>,
    choices: Vec<Vec<u16>>,
    segments: &'a Segments,
    traces: Vec<SegmentTraces>,
}

/// Runs all kernels on samples in the network's order of axes, channels first. The values are left
/// in the arena, the masks in the trace where they are wanted.
///
/// # Errors
/// What Burn's operations fail to do in a segment.
pub(super) fn run<T: Number>(
    loaded: &LoadedProgram<T>,
    set: InstructionSet,
    input: &[T],
    samples: usize,
    masked: bool,
) -> Result<(ForwardTrace<T>, Arena<T>)> {
    observed(loaded, set, input, samples, masked, |_, _| {})
}

/// As [`run`], with a look after each kernel at the value of the graph that it has computed.
///
/// # Errors
/// As [`run`].
pub(super) fn observed<T: Number>(
    loaded: &LoadedProgram<T>,
    set: InstructionSet,
    input: &[T],
    samples: usize,
    masked: bool,
    mut look: impl FnMut(&ForwardPass<'_, T>, &ShownValue),
) -> Result<(ForwardTrace<T>, Arena<T>)> {
    let LoadedProgram { compiled, slots, arenas, segments, .. } = loaded;
    let mut forward = ForwardPass {
        compiled,
        slots,
        arena: arenas.take(&slots.sizes, slots.slack, samples),
        set,
        samples,
        masked,
        masks: vec![Active::default(); compiled.masks.len()],
        choices: vec![Vec::new(); compiled.choices],
        segments,
        traces: compiled.segments.iter().map(|_| SegmentTraces::default()).collect(),
    };
    forward.load(input);
    let mut shown = compiled.shown.iter().peekable();
    for (index, kernel) in compiled.kernels.iter().enumerate() {
        match kernel.kind {
            KernelKind::Segment(segment) => forward.segment(segment)?,
            _ => forward.kernel(kernel),
        }
        // (A segment computes several values.)
        while let Some(value) = shown.next_if(|value| value.kernel == KernelId(index)) {
            look(&forward, value);
        }
    }
    Ok(forward.into_trace())
}

impl<T> ForwardTrace<T> {
    pub(super) fn mask(&self, id: MaskId) -> &Active {
        &self.masks[id.index()]
    }

    pub(super) fn choices(&self, id: ChoiceId) -> &[u16] {
        &self.choices[id.index()]
    }

    pub(super) fn segment(&self, id: SegmentId) -> &SegmentTraces {
        &self.segments[id.index()]
    }
}

impl<T: Number> ForwardPass<'_, T> {
    /// Writes the samples with their channels last.
    fn load(&mut self, input: &[T]) {
        let MapView { map, channels, .. } = self.compiled.input;
        let positions = self.compiled.map(map).positions;
        // From `[sample][channel][position]` to rows of channels.
        let mut rows = self.arena.take(self.slots.values(map));
        for (sample, values) in input.chunks_exact(positions * channels).enumerate() {
            for (channel, plane) in values.chunks_exact(positions).enumerate() {
                for (position, value) in plane.iter().enumerate() {
                    rows[(sample * positions + position) * channels + channel] = *value;
                }
            }
        }
        self.arena.put(self.slots.values(map), rows);
    }

    /// The values on the edges of a segment, one sample after the other.
    fn segment(&mut self, id: SegmentId) -> Result<()> {
        let CompiledSegment { inputs, outputs, .. } = self.compiled.segment(id);
        for sample in 0..self.samples {
            // Elements in the order of the graph's values, from the rows where they lie.
            let given = inputs.iter().map(|edge| {
                let (rows, positions) = (self.rows(edge.view), self.compiled.map(edge.view.map).positions);
                let at = |[row, channel]: &[usize; 2]| rows.row(sample * positions + row)[*channel];
                self.segments.value(edge, edge.elements.iter().map(at).collect::<Vec<T>>())
            });
            let (wanted, trace) = self.segments.segment(id).forward(given.collect())?;
            if self.masked {
                self.traces[id.index()].push(trace);
            }
            // And back into rows.
            for (edge, value) in outputs.iter().zip(wanted) {
                let map = self.compiled.map(edge.view.map);
                let mut rows = self.arena.take(self.slots.values(edge.view.map));
                let first = sample * map.positions * map.pitch + edge.view.offset;
                for (value, [row, channel]) in numbers::<T>(&value)?.iter().zip(&edge.elements) {
                    rows[first + row * map.pitch + channel] = *value;
                }
                self.arena.put(self.slots.values(edge.view.map), rows);
            }
        }
        Ok(())
    }

    fn kernel(&mut self, kernel: &Kernel<T>) {
        if let Some(norm) = kernel.kept_product() {
            self.keep(kernel, norm.rows);
        }
        let target = self.compiled.map(kernel.output.map);
        let size = self.samples * target.positions * target.pitch;
        let slot = self.slots.values(kernel.output.map);
        let mut out = self.arena.take(slot);
        // A kernel may read other channels of the buffer that it writes, which is taken out: it
        // then reads a copy.
        if kernel.reads_its_map() {
            self.arena.put(slot, out[..size].to_vec());
        }
        let mut kept: Vec<_> = if self.masked { kernel.kept.clone() } else { Vec::new() }
            .into_iter()
            .map(|view| (self.slots.values(view.map), self.arena.take(self.slots.values(view.map))))
            .collect();
        let buffers = kept.iter_mut().map(|(_, buffer)| buffer.as_mut_slice()).collect();
        self.compute(kernel, &mut out[..size], buffers);
        self.arena.put(slot, out);
        kept.into_iter().for_each(|(slot, buffer)| self.arena.put(slot, buffer));
        if self.masked {
            kernel.kept.iter().chain([&kernel.output]).for_each(|view| self.clear(*view));
        }
        if let (Some(mask), true) = (kernel.relu, self.masked) {
            let live = &target.live;
            let all = target.is_all_live();
            let is_live = |row: usize| all || live.binary_search(&(row % target.positions)).is_ok();
            let rows = self.samples * target.positions;
            self.masks[mask.index()] = Active::positive(self.set, self.rows(kernel.output), rows, is_live);
        }
    }

    /// Writes zeros into rows that are not computed, of what the reverse pass reads. Cotangents are
    /// zero there, but zero times what the buffer happens to hold might be NaN.
    fn clear(&mut self, view: MapView) {
        let map = self.compiled.map(view.map);
        if map.is_all_live() || !self.compiled.keeps(view.map) {
            return;
        }
        let slot = self.slots.values(view.map);
        let mut rows = self.arena.take(slot);
        for (at, row) in rows.chunks_exact_mut(map.pitch).take(self.samples * map.positions).enumerate() {
            if map.live.binary_search(&(at % map.positions)).is_err() {
                row[view.offset..view.offset + view.channels].fill(T::default());
            }
        }
        self.arena.put(slot, rows);
    }

    /// The elements of a value, `[sample][element]`, if all of them are computed.
    pub(super) fn numbers(&self, shown: &ShownValue) -> Option<Vec<T>> {
        let (elements, map) = (shown.view.elements(), self.compiled.map(shown.at.map));
        let computed = |&[row, _]: &[usize; 2]| map.live.binary_search(&row).is_ok();
        let rows = self.rows(shown.at);
        let of_sample = |sample: usize| {
            elements.iter().map(move |[row, channel]| rows.row(sample * map.positions + row)[*channel])
        };
        elements.iter().all(computed).then(|| (0..self.samples).flat_map(of_sample).collect())
    }

    /// Computes only the product, before it is normalised, into rows of its own: gradients read
    /// them.
    fn keep(&mut self, kernel: &Kernel<T>, rows: MapView) {
        let (slot, map) = (self.slots.values(rows.map), self.compiled.map(rows.map));
        let mut out = self.arena.take(slot);
        let layout = RowLayout { pitch: map.pitch, offset: rows.offset };
        let size = self.samples * map.positions * map.pitch;
        self.multiply(kernel, None, false, &mut out[..size], layout);
        self.arena.put(slot, out);
    }

    /// The live rows of a product with weights.
    fn multiply(
        &self,
        kernel: &Kernel<T>,
        residual: Option<DenseRows<'_, T>>,
        relu: bool,
        out: &mut [T],
        layout: RowLayout,
    ) {
        let (source, live) = (self.rows(kernel.input), &self.compiled.map(kernel.output.map).live);
        match &kernel.kind {
            KernelKind::Product { table, patches, panels, bias } => {
                let patches = patches.as_ref();
                let product = Product { table, patches, panels, bias, source, residual, relu };
                product.run(self.set, self.samples, live, out, layout);
            }
            KernelKind::Channelwise { table, weights, bias } => {
                let product = Channelwise { table, weights, bias, source, residual, relu };
                product.run(self.set, self.samples, live, out, layout);
            }
            _ => {}
        }
    }

    /// The rows of a value.
    fn rows(&self, view: MapView) -> DenseRows<'_, T> {
        let pitch = self.compiled.map(view.map).pitch;
        let values = self.arena.slot(self.slots.values(view.map));
        DenseRows { values, pitch, offset: view.offset, channels: view.channels }
    }

    /// Computes a kernel's result into `out`, and what it leaves for the reverse pass into `kept`:
    /// one buffer for each of [`Kernel::kept`], or none where no reverse pass follows.
    fn compute(&mut self, kernel: &Kernel<T>, out: &mut [T], mut kept: Vec<&mut [T]>) {
        let map = self.compiled.map(kernel.output.map);
        let layout = RowLayout { pitch: map.pitch, offset: kernel.output.offset };
        let source = self.rows(kernel.input);
        let other = kernel.other.map(|view| self.rows(view));
        let rowwise = Rowwise { source, positions: map.positions, live: &map.live, samples: self.samples };
        match &kernel.kind {
            KernelKind::Product { .. } | KernelKind::Channelwise { .. } => {
                let relu = kernel.relu.is_some();
                // Where no normalisation is kept apart for gradients, its scale is in the weights,
                // and the stage is one product.
                let Some(norm) = kernel.kept_product() else {
                    return self.multiply(kernel, other, relu, out, layout);
                };
                // Else `keep` has computed the product already, into rows that the gradients read.
                // An affine map of these rows, with residual and ReLU, is all that is left.
                let affine = [norm.affine[0].as_slice(), norm.affine[1].as_slice()];
                let rowwise = Rowwise { source: self.rows(norm.rows), ..rowwise };
                rowwise.affine(self.set, Some(affine), other, relu, out, layout);
            }
            KernelKind::Affine(affine) => {
                let affine = affine.as_ref().map(|[scale, shift]| [scale.as_slice(), shift.as_slice()]);
                rowwise.affine(self.set, affine, None, kernel.relu.is_some(), out, layout);
            }
            KernelKind::Sum => rowwise.affine(self.set, None, other, kernel.relu.is_some(), out, layout),
            KernelKind::Pointwise(chain) => {
                let RowMap { positions, live, .. } = map;
                let (positions, samples) = (*positions, self.samples);
                let pointwise = Pointwise { chain, source, positions, live, samples };
                // (Its one buffer, for the derivatives.)
                pointwise.run(self.set, out, layout, kept.pop());
            }
            KernelKind::Combine { how, repeat } => {
                let Some(view) = kernel.other else { return };
                let combine = Combine {
                    how: *how,
                    source,
                    other: self.rows(view),
                    repeat,
                    positions: map.positions,
                    live: &map.live,
                    samples: self.samples,
                    other_rows: self.compiled.map(view.map).positions,
                };
                // (A quotient keeps its derivatives by both operands, the others nothing.)
                combine.run(self.set, out, layout, <[&mut [T]; 2]>::try_from(kept).ok());
            }
            KernelKind::Elementwise { scale, shift } => {
                rowwise.elementwise(scale.as_deref(), shift, kernel.relu.is_some(), out, layout);
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
                let mut chosen = vec![0; self.samples * map.positions * kernel.output.channels];
                rowwise.maximum(table, out, layout, &mut chosen);
                self.choices[choices.index()] = chosen;
            }
            KernelKind::Rearrange { moves, fill } => {
                moves.run(source, fill.as_deref(), self.samples, out, layout);
            }
            // Segments do not come here: `observed` runs them by `Self::segment`.
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
            segments: self.traces,
        };
        (trace, self.arena)
    }
}
