//! How many operations the reverse pass really does, compared with a dense one.

use std::ops::Range;

use crate::kernels::{Active, Links, SimdFloat};

use super::forward::ForwardTrace;
use crate::compile::ids::MaskId;
use crate::compile::program::{Compiled, KernelKind};
use crate::compile::steps::{CotangentRef, ReverseStep, Sink, StepKind};

/// Multiply-adds of the products of one reverse pass, for one cotangent of every sample of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Multiply-adds of channels that the masks have left on, both where they are read and where
    /// they are written. The zeros that fill the panels of grouped convolutions count, so that
    /// these may do more than a dense pass would. In Winograd's form all products count, which are
    /// fewer.
    pub done: u64,
    /// Multiply-adds of channels that are on where they are read, and of all channels that are
    /// written: what an instruction set without the write side does.
    pub read: u64,
    /// Multiply-adds of all channels at all positions that something reads, within their groups.
    pub dense: u64,
}

/// Counts the steps of a reverse pass for the masks of a forward pass.
pub(super) fn count<T: SimdFloat>(compiled: &Compiled<T>, trace: &ForwardTrace<T>) -> Work {
    let mut work = Work::default();
    for step in compiled.steps.iter().flat_map(ReverseStep::parts) {
        let kernel = compiled.kernel(step.kernel);
        let (inputs, outputs) = (kernel.input.channels, kernel.output.channels);
        let (links, target, blocks, dense) = match (&step.kind, &kernel.kind) {
            (StepKind::Product { links, panels, .. }, _) => {
                let dense = outputs * panels.written().len() / panels.groups();
                (links, mask(step.target), panels.blocks().collect(), dense)
            }
            // All taps of a row are computed before they are added up.
            (StepKind::Columns { links, .. }, KernelKind::Product { panels, .. }) => {
                let dense = outputs * inputs / panels.groups();
                (links, None, vec![[0..outputs, 0..inputs]], dense)
            }
            // Each channel by itself, on or not.
            (StepKind::Channelwise { links, .. }, _) => {
                let blocks = (0..inputs).map(|channel| [channel..channel + 1, channel..channel + 1]);
                (links, None, blocks.collect(), inputs)
            }
            _ => continue,
        };
        let readings: usize = (0..links.targets()).map(|row| links.of(row).len()).sum();
        work.dense += (trace.samples * readings * dense) as u64;
        if let StepKind::Product { patches: Some(patches), .. } = &step.kind {
            // All channels of both sides.
            let products = trace.samples * patches.count() * patches.frequencies() * inputs * outputs;
            work.done += products as u64;
            work.read += products as u64;
            continue;
        }
        let source = match step.source {
            CotangentRef::Compressed(mask) if !matches!(step.kind, StepKind::Channelwise { .. }) => {
                Some(mask)
            }
            _ => None,
        };
        let masks = [source, target].map(|mask| mask.map(|mask| trace.mask(mask)));
        for sample in 0..trace.samples {
            blocks.iter().for_each(|block| add(&mut work, links, sample, masks, block));
        }
    }
    work
}

/// The mask that says which channels a sink takes.
fn mask(sink: Sink) -> Option<MaskId> {
    match sink {
        Sink::Plain(CotangentRef::Compressed(mask)) | Sink::Through { mask, .. } => Some(mask),
        Sink::Plain(_) | Sink::Times { .. } => None,
    }
}

fn add(
    work: &mut Work,
    links: &Links,
    sample: usize,
    [source, target]: [Option<&Active>; 2],
    [read, written]: &[Range<usize>; 2],
) {
    let on = |mask: Option<&Active>, row: usize, of: &Range<usize>| {
        mask.map_or(of.len(), |mask| mask.within(row, of.clone())) as u64
    };
    for row in 0..links.targets() {
        let on_there = on(target, sample * links.targets() + row, written);
        for link in links.of(row) {
            let on_here = on(source, sample * links.rows() + link.row, read);
            work.done += on_here * on_there;
            work.read += on_here * written.len() as u64;
        }
    }
}
