//! Products into the same dense channels taken together, where nothing reads those channels in
//! between.
//!
//! Every layer of a dense block adds to the cotangents of all channels before it, and the layer
//! that is pulled back next reads only the last few of these. So the product of a layer is cut in
//! two. The part into the channels that the next layers read is taken at once; the part into all
//! channels before them waits for the last layer of the group, and all these parts are one step
//! ([`StepKind::Together`]). A row of the wide buffer is then read and written once for the group,
//! and not once for each layer.
//!
//! ```text
//! layers 3, 2, 1 of a block, reverse:    channels  0 ......... a ... b ... c
//! before:  3 adds to [0, c)   2 adds to [0, b)   1 adds to [0, a)
//! after:   3 adds to [a, c)   2 adds to [a, b)   3, 2 and 1 together add to [0, a)
//! ```

use crate::kernels::{Panels, SimdFloat};

use super::ids::StepId;
use super::program::MapView;
use super::steps::{CotangentRef, ReverseStep, Sink, StepKind};

/// The most products that are taken together. With more, more cotangents wait in memory; with
/// fewer, the wide rows are read and written more often. Six and eight took 1.07 and 1.11 times as
/// long as four (docs/cpu.md).
const MOST: usize = 4;

/// Rewrites the steps.
pub(super) fn join<T: SimdFloat>(steps: Vec<ReverseStep<T>>) -> Vec<ReverseStep<T>> {
    let groups = groups(&steps);
    let mut kept: Vec<_> = steps.into_iter().map(Some).collect();
    for group in groups {
        let Some((&last, before)) = group.split_last() else { continue };
        // The last product goes to the fewest channels: what all of the group have in common.
        let common = kept[last.index()].as_ref().and_then(wide).map(|wide| wide.view.channels);
        let Some(common) = common else { continue };
        let mut parts = Vec::new();
        for &id in before {
            let Some(step) = kept[id.index()].take() else { continue };
            let all = wide(&step).map_or(0, |wide| wide.view.channels);
            // The channels after the common ones are still added at this step's own turn.
            kept[id.index()] = (all > common).then(|| part(&step, common, all));
            parts.push(part(&step, 0, common));
        }
        let Some(step) = kept[last.index()].take() else { continue };
        let ReverseStep { source, target, kernel, first, .. } = step;
        parts.push(step);
        kept[last.index()] =
            Some(ReverseStep { kind: StepKind::Together(parts), source, target, first, kernel });
    }
    kept.into_iter().flatten().collect()
}

/// A product that is added, through a mask, to the channels of a map, and reads none of that map.
struct WideProduct<'a, T> {
    view: MapView,
    panels: &'a Panels<T>,
}

/// A step as such a product, if it is one.
fn wide<T>(step: &ReverseStep<T>) -> Option<WideProduct<'_, T>> {
    match (&step.kind, step.target) {
        (
            StepKind::Product { patches: None, panels, identity: None, .. },
            Sink::Through { view, from: 0, .. },
        ) if !step.first && !step.reads_its_target() => Some(WideProduct { view, panels }),
        _ => None,
    }
}

/// The step into only the channels from `start` to `end` of its target.
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
fn groups<T: SimdFloat>(steps: &[ReverseStep<T>]) -> Vec<Vec<StepId>> {
    // Runs of wide products, each into some of the channels of the one before it. Several runs may
    // be under way at a time: layers of other widths in between begin a run of their own.
    let mut runs: Vec<Vec<StepId>> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if let Some(own) = wide(step) {
            let id = StepId(index);
            let joins =
                |run: &&mut Vec<StepId>| run.last().is_some_and(|&last| follows(steps, last, id, &own));
            match runs.iter_mut().find(joins) {
                Some(run) => run.push(id),
                None => runs.push(vec![id]),
            }
        }
    }
    // As few groups of at most `MOST` as a run takes, of about equal size: 5 are cut into 3 and 2.
    let cut = |run: Vec<StepId>| {
        let size = run.len().div_ceil(run.len().div_ceil(MOST));
        run.chunks(size).map(<[StepId]>::to_vec).collect::<Vec<_>>()
    };
    runs.into_iter().flat_map(cut).filter(|group| group.len() > 1 && may_wait(steps, group)).collect()
}

/// Whether a product goes to some of the channels of an earlier one, from the same first channel
/// on, reads alike, and nothing else is written there in between.
fn follows<T: SimdFloat>(
    steps: &[ReverseStep<T>],
    earlier: StepId,
    id: StepId,
    own: &WideProduct<'_, T>,
) -> bool {
    let Some(other) = wide(&steps[earlier.index()]) else { return false };
    let MapView { map, offset, channels } = own.view;
    let nested = other.view.map == map && other.view.offset == offset && other.view.channels >= channels;
    let written =
        |step: &ReverseStep<T>| step.target.cotangent().site() == CotangentRef::Dense(own.view).site();
    nested && other.panels.reads_as(own.panels) && !steps[earlier.index() + 1..id.index()].iter().any(written)
}

/// Whether nothing reads the common channels before the last of the group has its turn.
fn may_wait<T>(steps: &[ReverseStep<T>], group: &[StepId]) -> bool {
    let (first, last) = (group[0].index(), group[group.len() - 1].index());
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
