//! Products into the same dense channels taken together, where nothing reads those channels in between.
//!
//! Every layer of a dense block adds to the cotangents of all channels before it, and the next one to be pulled back reads the last few of
//! them alone. So of some layers in a row the products into those few are taken at once, and those into all channels before them together
//! with the last: a row of the wide buffer is then read and written once for all, and not once for each.

use crate::kernels::{Panels, SimdFloat};

use super::program::{CotangentRef, MapView, ReverseStep, Sink, StepKind};

/// The most products that are taken together: more would keep more cotangents waiting, and gain little.
const MOST: usize = 4;

/// Rewrites the steps.
pub(super) fn join<T: SimdFloat>(steps: Vec<ReverseStep<T>>) -> Vec<ReverseStep<T>> {
    let groups = groups(&steps);
    let mut kept: Vec<_> = steps.into_iter().map(Some).collect();
    for group in groups {
        let Some((&last, before)) = group.split_last() else { continue };
        let Some(end) = kept[last].as_ref().and_then(wide).map(|wide| wide.view.channels) else { continue };
        let mut parts = Vec::new();
        for &index in before {
            let Some(step) = kept[index].take() else { continue };
            let all = wide(&step).map_or(0, |wide| wide.view.channels);
            kept[index] = (all > end).then(|| part(&step, end, all));
            parts.push(part(&step, 0, end));
        }
        let Some(step) = kept[last].take() else { continue };
        let ReverseStep { source, target, stage, first, .. } = step;
        parts.push(step);
        kept[last] = Some(ReverseStep { kind: StepKind::Together(parts), source, target, first, stage });
    }
    kept.into_iter().flatten().collect()
}

/// A product that is added, through a mask, to the channels of a map, and reads none of them.
struct WideProduct<'a, T> {
    view: MapView,
    panels: &'a Panels<T>,
}

fn wide<T>(step: &ReverseStep<T>) -> Option<WideProduct<'_, T>> {
    match (&step.kind, step.target) {
        (
            StepKind::Product { patches: None, panels, identity: None, .. },
            Sink::Through { view, from: 0, .. },
        ) if !step.first && step.source.site() != step.target.cotangent().site() => {
            Some(WideProduct { view, panels })
        }
        _ => None,
    }
}

/// The step for some channels alone.
fn part<T: SimdFloat>(step: &ReverseStep<T>, start: usize, end: usize) -> ReverseStep<T> {
    let mut part = step.clone();
    if let StepKind::Product { panels, .. } = &mut part.kind {
        *panels = panels.columns(start..end);
    }
    if let Sink::Through { view, from, .. } = &mut part.target {
        *view = MapView { offset: view.offset + start, channels: end - start, ..*view };
        *from = start;
    }
    part
}

/// The steps of each group, in order.
fn groups<T: SimdFloat>(steps: &[ReverseStep<T>]) -> Vec<Vec<usize>> {
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if let Some(own) = wide(step) {
            let joins =
                |run: &&mut Vec<usize>| run.last().is_some_and(|&last| follows(steps, last, index, &own));
            match runs.iter_mut().find(joins) {
                Some(run) => run.push(index),
                None => runs.push(vec![index]),
            }
        }
    }
    let cut = |run: Vec<usize>| {
        let size = run.len().div_ceil(run.len().div_ceil(MOST));
        run.chunks(size).map(<[usize]>::to_vec).collect::<Vec<_>>()
    };
    runs.into_iter().flat_map(cut).filter(|group| group.len() > 1 && may_wait(steps, group)).collect()
}

/// Whether a product goes to some of the channels of an earlier one, and nothing else is written there in between.
fn follows<T: SimdFloat>(
    steps: &[ReverseStep<T>],
    earlier: usize,
    index: usize,
    own: &WideProduct<'_, T>,
) -> bool {
    let Some(other) = wide(&steps[earlier]) else { return false };
    let MapView { map, offset, channels } = own.view;
    let nested = other.view.map == map && other.view.offset == offset && other.view.channels >= channels;
    let written =
        |step: &ReverseStep<T>| step.target.cotangent().site() == CotangentRef::Dense(own.view).site();
    nested && other.panels.reads_as(own.panels) && !steps[earlier + 1..index].iter().any(written)
}

/// Whether nothing reads the channels of the last before it has its turn.
fn may_wait<T>(steps: &[ReverseStep<T>], group: &[usize]) -> bool {
    let (first, last) = (group[0], group[group.len() - 1]);
    let Some(WideProduct { view, .. }) = wide(&steps[last]) else { return false };
    let reads = |cotangent: CotangentRef| match cotangent {
        CotangentRef::Dense(read) => {
            read.map == view.map
                && read.offset < view.offset + view.channels
                && view.offset < read.offset + read.channels
        }
        CotangentRef::Compressed(_) => false,
    };
    !steps[first..last].iter().any(|step| {
        let identity = match &step.kind {
            StepKind::Product { identity, .. } => *identity,
            _ => None,
        };
        reads(step.source) || identity.is_some_and(reads)
    })
}
