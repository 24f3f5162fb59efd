//! Which slot of the arena each value and cotangent has.

use std::collections::HashMap;

use crate::kernels::{PAD, SimdFloat};

use super::arena::{Lease, assign};
use crate::compile::program::{Compiled, CompiledSegment, CotangentRef, KernelKind, Site, StepKind};

/// The slots of a compiled network.
#[derive(Debug)]
pub(super) struct SlotPlan {
    /// Of each map's values.
    pub(super) maps: Vec<usize>,
    /// Of each buffer of cotangents.
    pub(super) sites: HashMap<Site, usize>,
    /// Of the columns of each step that has some.
    pub(super) columns: HashMap<usize, usize>,
    /// Of what each step reads that reads channels of the buffer it writes.
    pub(super) copies: HashMap<usize, usize>,
    /// Numbers of one sample that a stage copies which does so.
    pub(super) copied: usize,
    /// The most cotangents at once.
    pub(super) lines: usize,
    /// Numbers of one sample that each slot holds.
    pub(super) sizes: Vec<usize>,
    /// Numbers behind the last sample of each slot.
    pub(super) slack: usize,
}

/// Plans the slots for up to `lines` cotangents at once.
pub(super) fn plan<T: SimdFloat>(compiled: &Compiled<T>, lines: usize) -> SlotPlan {
    let mut leases = forward(compiled);
    let sites = reverse(compiled, lines, &mut leases);
    let (mut columns, mut copies) = (HashMap::new(), HashMap::new());
    let mut widest = compiled.maps.iter().map(|map| map.pitch).max().unwrap_or(0);
    for (index, step) in compiled.steps.iter().enumerate() {
        let time = time(compiled, index);
        if let StepKind::Columns { rows, panels, .. } = &step.kind {
            let channels = panels.written().len();
            widest = widest.max(channels);
            columns.insert(index, leases.len());
            leases.push(Lease { first: time, last: time, size: rows.targets() * lines * channels });
        }
        if let CotangentRef::Dense(view) = step.source
            && step.reads_its_target()
            && !matches!(step.kind, StepKind::Segment { .. })
        {
            copies.insert(index, leases.len());
            let positions = compiled.maps[view.map].positions;
            leases.push(Lease { first: time, last: time, size: positions * lines * view.channels });
        }
    }
    let copying = compiled.kernels.iter().filter(|stage| stage.reads_its_map());
    let copied = copying.map(|stage| compiled.maps[stage.output.map].size()).max().unwrap_or(0);
    let (own, sizes) = assign(&leases);
    SlotPlan {
        maps: own[..compiled.maps.len()].to_vec(),
        sites: sites.into_iter().map(|(site, lease)| (site, own[lease])).collect(),
        columns: columns.into_iter().map(|(step, lease)| (step, own[lease])).collect(),
        copies: copies.into_iter().map(|(step, lease)| (step, own[lease])).collect(),
        copied,
        lines,
        sizes,
        slack: widest + 2 * PAD,
    }
}

/// When a step runs: behind the stages and the seed.
fn time<T>(compiled: &Compiled<T>, step: usize) -> usize {
    compiled.kernels.len() + 1 + step
}

/// The values of each map, from the stage that first writes it to the last that reads it.
fn forward<T>(compiled: &Compiled<T>) -> Vec<Lease> {
    let mut leases: Vec<_> = (0..compiled.maps.len())
        .map(|map| Lease { first: usize::MAX, last: 0, size: compiled.maps[map].size() })
        .collect();
    let mut used = |map: usize, time: usize| {
        leases[map].first = leases[map].first.min(time);
        leases[map].last = leases[map].last.max(time);
    };
    used(compiled.input.map, 0);
    for (time, stage) in compiled.kernels.iter().enumerate() {
        if let KernelKind::Segment(segment) = stage.kind {
            let CompiledSegment { inputs, outputs, .. } = &compiled.segments[segment];
            inputs.iter().chain(outputs).for_each(|edge| used(edge.view.map, time));
            continue;
        }
        let kept = stage.kept_product().map(|norm| norm.rows);
        let views = [Some(stage.input), stage.other, kept, Some(stage.output)];
        let views = views.into_iter().flatten().chain(stage.kept.iter().copied());
        views.for_each(|view| used(view.map, time));
    }
    used(compiled.output.map, compiled.kernels.len());
    // For all reverse passes that follow, of which there may be several.
    for (_, lease) in leases.iter_mut().enumerate().filter(|(map, _)| compiled.keeps(*map)) {
        lease.last = time(compiled, compiled.steps.len());
    }
    leases
}

/// The cotangents of each buffer, from the step that first writes it to the last that reads it; the network's input stays to the end.
fn reverse<T>(compiled: &Compiled<T>, lines: usize, leases: &mut Vec<Lease>) -> HashMap<Site, usize> {
    let mut sites = HashMap::new();
    let mut used = |site: Site, time: usize| {
        let lease = *sites.entry(site).or_insert_with(|| {
            leases.push(Lease { first: time, last: time, size: compiled.site_size(site, lines) });
            leases.len() - 1
        });
        leases[lease].last = leases[lease].last.max(time);
    };
    used(CotangentRef::Dense(compiled.output).site(), compiled.kernels.len());
    for (index, step) in compiled.steps.iter().enumerate() {
        step.cotangents().into_iter().for_each(|cotangent| used(cotangent.site(), time(compiled, index)));
    }
    used(Site::Map(compiled.input.map), time(compiled, compiled.steps.len()));
    sites
}
