//! How many operations the reverse pass really does, beside those of a dense one.

use influence_kernels::{Active, Links};

use super::forward::Trace;
use super::stages::{Compiled, Place, Sink, StageKind, StepKind};

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
pub(super) fn count<T>(compiled: &Compiled<T>, trace: &Trace<T>) -> Work {
    let mut work = Work::default();
    for step in &compiled.steps {
        let stage = &compiled.stages[step.stage];
        let StageKind::Product { table, .. } = &stage.kind else { continue };
        let (links, target) = match &step.kind {
            StepKind::Product { links, .. } => (links.clone(), mask(step.target)),
            // All taps of a row are computed before they are added up.
            StepKind::Columns { .. } => (table.links(), None),
            _ => continue,
        };
        let source = match step.source {
            Place::Compressed(mask) => Some(mask),
            Place::Dense(_) | Place::Slice(_) => None,
        };
        let [source, target] = [source, target].map(|mask| mask.map(|mask| &trace.masks[mask]));
        let [outputs, inputs] = [stage.output.channels, stage.input.channels];
        for sample in 0..trace.samples {
            add(&mut work, &links, sample, [source, target], [outputs, inputs]);
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
    [outputs, inputs]: [usize; 2],
) {
    let on =
        |mask: Option<&Active>, row: usize, all: usize| mask.map_or(all, |mask| mask.list(row).len()) as u64;
    for row in 0..links.targets() {
        let written = on(target, sample * links.targets() + row, inputs);
        for link in links.of(row) {
            let read = on(source, sample * links.rows() + link.row, outputs);
            work.done += read * written;
            work.read += read * inputs as u64;
            work.dense += (outputs * inputs) as u64;
        }
    }
}
