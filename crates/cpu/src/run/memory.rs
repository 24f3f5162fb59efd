//! Which slot of the arena each value and cotangent has.

use std::collections::HashMap;

use super::arena::{Lease, SlotId, assign};
use crate::compile::ids::{MapId, StepId};
use crate::compile::program::{Compiled, CompiledSegment, KernelKind};
use crate::compile::steps::{CotangentRef, ReverseStep, Site, StepKind};
use crate::kernels::{PAD, SimdFloat};

/// The slots of a compiled network.
#[derive(Debug)]
pub(super) struct SlotPlan {
    /// Slot of each map's values, indexed by [`MapId`].
    values: Vec<SlotId>,
    /// Slot of each buffer of cotangents.
    cotangents: HashMap<Site, SlotId>,
    /// Slot of the columns of each step that has some.
    columns: HashMap<StepId, SlotId>,
    /// Slot of the copy of what a step reads, where it reads channels of the buffer that it writes.
    copies: HashMap<StepId, SlotId>,
    /// The most elements of one sample that a kernel copies, because it reads channels of the
    /// buffer that it writes.
    pub(super) copied: usize,
    /// The most cotangents at once.
    pub(super) lines: usize,
    /// How many elements of one sample each slot holds, indexed by [`SlotId`].
    pub(super) sizes: Vec<usize>,
    /// How many elements each slot has after its last sample.
    pub(super) slack: usize,
}

impl SlotPlan {
    /// The slot of a map's values.
    pub(super) fn values(&self, map: MapId) -> SlotId {
        self.values[map.index()]
    }

    /// The slot of a buffer of cotangents.
    pub(super) fn cotangents(&self, site: Site) -> SlotId {
        self.cotangents[&site]
    }

    /// The slot of a step's columns, if it has some.
    pub(super) fn columns(&self, step: StepId) -> Option<SlotId> {
        self.columns.get(&step).copied()
    }

    /// The slot of a copy of what a step reads, if it has to be copied.
    pub(super) fn copy(&self, step: StepId) -> Option<SlotId> {
        self.copies.get(&step).copied()
    }
}

/// Plans the slots for up to `lines` cotangents at once.
pub(super) fn plan<T: SimdFloat>(compiled: &Compiled<T>, lines: usize) -> SlotPlan {
    let mut leases = of_values(compiled);
    let cotangents = of_cotangents(compiled, lines, &mut leases);
    let (mut columns, mut copies) = (HashMap::new(), HashMap::new());
    let mut widest = compiled.maps.iter().map(|map| map.pitch).max().unwrap_or(0);
    let lease = |leases: &mut Vec<Lease>, time: usize, size: usize| {
        leases.push(Lease { first: time, last: time, size });
        leases.len() - 1
    };
    for (id, step) in compiled.steps.iter().enumerate().map(|(index, step)| (StepId(index), step)) {
        let time = time(compiled, id);
        if let StepKind::Columns { rows, panels, .. } = &step.kind {
            let channels = panels.written().len();
            widest = widest.max(channels);
            columns.insert(id, lease(&mut leases, time, rows.targets() * lines * channels));
        }
        if let Some(size) = copied_by(compiled, step, lines) {
            copies.insert(id, lease(&mut leases, time, size));
        }
    }
    let copying = compiled.kernels.iter().filter(|kernel| kernel.reads_its_map());
    let copied = copying.map(|kernel| compiled.map(kernel.output.map).size()).max().unwrap_or(0);
    let (own, sizes) = assign(&leases);
    let slots =
        |leases: HashMap<StepId, usize>| leases.into_iter().map(|(step, lease)| (step, own[lease])).collect();
    SlotPlan {
        values: own[..compiled.maps.len()].to_vec(),
        cotangents: cotangents.into_iter().map(|(site, lease)| (site, own[lease])).collect(),
        columns: slots(columns),
        copies: slots(copies),
        copied,
        lines,
        sizes,
        // A kernel may read one whole row, and two vectors, after the last row of a buffer.
        slack: widest + 2 * PAD,
    }
}

/// How many elements of one sample a step has to copy, because it reads channels of the buffer that
/// it writes.
fn copied_by<T>(compiled: &Compiled<T>, step: &ReverseStep<T>, lines: usize) -> Option<usize> {
    let CotangentRef::Dense(view) = step.source else { return None };
    let copies = step.reads_its_target() && !matches!(step.kind, StepKind::Segment { .. });
    copies.then(|| compiled.map(view.map).positions * lines * view.channels)
}

/// When a step runs: after the kernels, and after the cotangents of the logits.
fn time<T>(compiled: &Compiled<T>, step: StepId) -> usize {
    compiled.kernels.len() + 1 + step.index()
}

/// When all steps have run.
fn end<T>(compiled: &Compiled<T>) -> usize {
    time(compiled, StepId(compiled.steps.len()))
}

/// Leases of each map's values, from the kernel that first writes them to the last that reads them;
/// indexed by [`MapId`].
fn of_values<T>(compiled: &Compiled<T>) -> Vec<Lease> {
    let of_map = |size: usize| Lease { first: usize::MAX, last: 0, size };
    let mut leases: Vec<_> = compiled.maps.iter().map(|map| of_map(map.size())).collect();
    let mut used = |map: MapId, time: usize| {
        let lease = &mut leases[map.index()];
        (lease.first, lease.last) = (lease.first.min(time), lease.last.max(time));
    };
    used(compiled.input.map, 0);
    for (time, kernel) in compiled.kernels.iter().enumerate() {
        if let KernelKind::Segment(segment) = kernel.kind {
            let CompiledSegment { inputs, outputs, .. } = compiled.segment(segment);
            inputs.iter().chain(outputs).for_each(|edge| used(edge.view.map, time));
            continue;
        }
        let kept = kernel.kept_product().map(|norm| norm.rows);
        let views = [Some(kernel.input), kernel.other, kept, Some(kernel.output)];
        let views = views.into_iter().flatten().chain(kernel.kept.iter().copied());
        views.for_each(|view| used(view.map, time));
    }
    used(compiled.output.map, compiled.kernels.len());
    // What a reverse pass reads stays to its end: several of them may follow one forward pass.
    for (map, lease) in leases.iter_mut().enumerate() {
        if compiled.keeps(MapId(map)) {
            lease.last = end(compiled);
        }
    }
    leases
}

/// Adds a lease for each buffer of cotangents, from the step that first writes it to the last that
/// reads it. The cotangents of the network's input stay to the end. Returns the index of each
/// buffer's lease.
fn of_cotangents<T>(compiled: &Compiled<T>, lines: usize, leases: &mut Vec<Lease>) -> HashMap<Site, usize> {
    let mut sites = HashMap::new();
    let mut used = |site: Site, time: usize| {
        let lease = *sites.entry(site).or_insert_with(|| {
            leases.push(Lease { first: time, last: time, size: compiled.site_size(site, lines) });
            leases.len() - 1
        });
        leases[lease].last = leases[lease].last.max(time);
    };
    used(Site::Map(compiled.output.map), compiled.kernels.len());
    for (index, step) in compiled.steps.iter().enumerate() {
        let time = time(compiled, StepId(index));
        step.cotangents().into_iter().for_each(|cotangent| used(cotangent.site(), time));
    }
    used(Site::Map(compiled.input.map), end(compiled));
    sites
}
