//! What a compiled network takes: packed weights and tables, which every run shares, and what one
//! sample takes at most.

use super::program::{Compiled, Kernel, KernelKind, MapView};
use super::steps::{ReverseStep, Site, StepKind};
use crate::kernels::{Links, PAD, Patches, SimdFloat};

fn of_patches(patches: Option<&Patches>) -> usize {
    patches.map_or(0, Patches::bytes)
}

impl<T: SimdFloat> Kernel<T> {
    /// Bytes of its weights, and of the tables that say which row reads which.
    fn fixed_bytes(&self) -> usize {
        let elements = self.tensors.iter().flat_map(|tensors| &tensors.elements);
        self.kind.fixed_bytes() + elements.map(|(_, elements)| elements.bytes()).sum::<usize>()
    }
}

impl<T: SimdFloat> KernelKind<T> {
    /// Bytes of weights and tables.
    fn fixed_bytes(&self) -> usize {
        match self {
            Self::Product { table, patches, panels, .. } => {
                panels.bytes() + table.bytes() + of_patches(patches.as_ref())
            }
            Self::Channelwise { table, weights, .. } => size_of_val(weights.as_slice()) + table.bytes(),
            Self::Average { table, shares } => table.bytes() + shares.bytes(),
            Self::Maximum { table, .. } => table.bytes(),
            Self::Rearrange { moves, fill } => {
                moves.bytes() + fill.as_ref().map_or(0, |fill| size_of_val(fill.as_slice()))
            }
            Self::Combine { repeat, .. } => repeat.bytes(),
            Self::Elementwise { scale, shift } => {
                let scales = scale.as_ref().map_or(0, |scale| size_of_val(scale.as_slice()));
                scales + size_of_val(shift.as_slice())
            }
            Self::Within(row) => row.bytes(),
            Self::Matrices(matrices) => matrices.bytes(),
            Self::Affine(_) | Self::Sum | Self::Pointwise(_) | Self::Segment(_) => 0,
        }
    }
}

impl<T: SimdFloat> ReverseStep<T> {
    /// Bytes of the step's weights, and of the tables that say which row reads which.
    fn fixed_bytes(&self) -> usize {
        match &self.kind {
            StepKind::Product { links, patches, panels, .. } => {
                panels.bytes() + links.bytes() + of_patches(patches.as_ref())
            }
            StepKind::Columns { rows, panels, links } => rows.bytes() + panels.bytes() + links.bytes(),
            StepKind::Channelwise { links, weights } => links.bytes() + size_of_val(weights.as_slice()),
            StepKind::Average { links } | StepKind::Maximum { links } => links.bytes(),
            StepKind::Scaled { links, .. } => links.as_ref().map_or(0, Links::bytes),
            // Its parts are counted one by one.
            StepKind::Together(_)
            | StepKind::Within { .. }
            | StepKind::Matrices { .. }
            | StepKind::Spread { .. }
            | StepKind::Rearrange
            | StepKind::Segment { .. } => 0,
        }
    }
}

impl<T: SimdFloat> Compiled<T> {
    /// Bytes of the packed weights of both passes, and of the tables that say which row reads
    /// which.
    pub(crate) fn fixed_bytes(&self) -> usize {
        let forward = self.kernels.iter().map(Kernel::fixed_bytes);
        let reverse = self.steps.iter().flat_map(ReverseStep::parts).map(ReverseStep::fixed_bytes);
        let live = self.maps.iter().map(|map| size_of_val(map.live.as_slice()));
        forward.chain(reverse).chain(live).sum()
    }
}

impl<T> Compiled<T> {
    /// How many elements the cotangents of one sample take at most in a buffer: as if no ReLU
    /// switched any channel off.
    pub(crate) fn site_size(&self, site: Site, lines: usize) -> usize {
        match site {
            Site::Map(map) => self.map(map).size() * lines,
            Site::Mask(mask) => {
                let MapView { map, channels, .. } = self.mask(mask);
                self.map(map).positions * (lines * channels + PAD)
            }
        }
    }

    /// Bytes that the masks and choices of one sample take at most.
    pub(crate) fn kept_bytes(&self) -> usize {
        let masks = self.masks.iter().map(|view| {
            // Words of 32 channels, a list of 16 bits each, and where the list begins.
            let words = 4 * (view.channels.div_ceil(32) + 1);
            self.map(view.map).positions * (words + 2 * view.channels + size_of::<usize>())
        });
        let choices = self.kernels.iter().map(|kernel| match &kernel.kind {
            KernelKind::Maximum { .. } => 2 * self.map(kernel.output.map).positions * kernel.output.channels,
            _ => 0,
        });
        masks.chain(choices).sum()
    }
}
