//! How many operations the reverse pass really does, beside those of a dense one.

use std::ops::Range;

use influence_kernels::{Active, Element, Links};

use super::forward::Trace;
use super::stages::{Compiled, Place, Sink, StageKind, Step, StepKind};

/// Multiply-adds of the products of one reverse pass, for one cotangent of every sample of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Of channels that the masks have left on, where they are read and where they are written.
    pub done: u64,
    /// Of the channels that are on where they are read, whatever is written: what an instruction set without the write side does.
    pub read: u64,
    /// Of all channels at all positions.
    pub dense: u64,
}

/// Counts the steps of a reverse pass for the masks of a forward pass.
pub(super) fn count<T: Element>(compiled: &Compiled<T>, trace: &Trace<T>) -> Work {
    let mut work = Work::default();
    for step in compiled.steps.iter().flat_map(Step::parts) {
        let stage = &compiled.stages[step.stage];
        let StageKind::Product { table, .. } = &stage.kind else { continue };
        let (links, target, written) = match &step.kind {
            StepKind::Product { links, panels, .. } => (links.clone(), mask(step.target), panels.written()),
            // All taps of a row are computed before they are added up.
            StepKind::Columns { .. } => (table.links(), None, 0..stage.input.channels),
            _ => continue,
        };
        let source = match step.source {
            Place::Compressed(mask) => Some(mask),
            Place::Dense(_) => None,
        };
        let [source, target] = [source, target].map(|mask| mask.map(|mask| &trace.masks[mask]));
        for sample in 0..trace.samples {
            add(&mut work, &links, sample, [source, target], stage.output.channels, &written);
        }
    }
    work
}

/// The mask of what a sink takes.
fn mask(sink: Sink) -> Option<usize> {
    match sink {
        Sink::Place(Place::Compressed(mask)) | Sink::Through { mask, .. } => Some(mask),
        Sink::Place(_) => None,
    }
}

fn add(
    work: &mut Work,
    links: &Links,
    sample: usize,
    [source, target]: [Option<&Active>; 2],
    outputs: usize,
    channels: &Range<usize>,
) {
    let on = |mask: Option<&Active>, row: usize, of: &Range<usize>| {
        mask.map_or(of.len(), |mask| mask.within(row, of.clone())) as u64
    };
    for row in 0..links.targets() {
        let written = on(target, sample * links.targets() + row, channels);
        for link in links.of(row) {
            let read = on(source, sample * links.rows() + link.row, &(0..outputs));
            work.done += read * written;
            work.read += read * channels.len() as u64;
            work.dense += (outputs * channels.len()) as u64;
        }
    }
}
