//! The steps of the reverse pass as plain data: which cotangent is pulled back through what, and
//! where the result goes.

use super::ids::{KernelId, MapId, MaskId};
use super::program::{Kernel, KernelKind, MapView};
use crate::kernels::{Links, MatrixRole, Panels, Patches};

/// The cotangent of a value, by where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CotangentRef {
    /// In full, in the channels of a map.
    Dense(MapView),
    /// Only the active channels of a mask: the cotangent of what the ReLU reads.
    Compressed(MaskId),
}

/// A buffer of cotangents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Cotangents of a map's values, dense.
    Map(MapId),
    /// Cotangents of what a ReLU reads, compressed by its mask.
    Mask(MaskId),
}

impl CotangentRef {
    /// The buffer it lies in.
    pub(crate) fn site(self) -> Site {
        match self {
            Self::Dense(view) => Site::Map(view.map),
            Self::Compressed(mask) => Site::Mask(mask),
        }
    }
}

/// Where contributions to a value's cotangent go, and what is done to them on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// To the cotangent itself.
    Plain(CotangentRef),
    /// To the cotangent of the operand of a function of each element that computed the value, times
    /// the function's derivatives. `slopes` are the derivatives that the forward pass has kept.
    Times { view: MapView, slopes: MapView },
    /// Through the mask of a ReLU, and the scale of the channels before it, to the channels of a
    /// map. These are the mask's channels from `from` on. `scaled` is the kernel that has the
    /// scale, if there is one.
    Through { mask: MaskId, view: MapView, from: usize, scaled: Option<KernelId> },
}

impl Sink {
    /// The cotangent that is written.
    pub(crate) fn cotangent(self) -> CotangentRef {
        match self {
            Self::Plain(cotangent) => cotangent,
            Self::Through { view, .. } | Self::Times { view, .. } => CotangentRef::Dense(view),
        }
    }

    /// The derivatives by which it multiplies.
    pub(crate) fn slopes(self) -> Option<MapView> {
        match self {
            Self::Times { slopes, .. } => Some(slopes),
            _ => None,
        }
    }

    /// The scale of the batch normalisation through which it goes.
    pub(crate) fn scale<T>(self, kernels: &[Kernel<T>]) -> Option<&[T]> {
        let Self::Through { scaled: Some(kernel), .. } = self else { return None };
        match &kernels[kernel.index()].kind {
            KernelKind::Affine(Some([scale, _])) => Some(scale),
            _ => None,
        }
    }
}

/// One step of the reverse pass: from the cotangent of one value to that of another.
#[derive(Debug, Clone)]
pub(crate) struct ReverseStep<T> {
    pub(crate) kind: StepKind<T>,
    pub(crate) source: CotangentRef,
    pub(crate) target: Sink,
    /// Whether the target's buffer holds nothing yet.
    pub(crate) first: bool,
    /// The kernel that is pulled back.
    pub(crate) kernel: KernelId,
}

/// How cotangents are pulled back.
#[derive(Debug, Clone)]
pub(crate) enum StepKind<T> {
    /// Through a convolution; `identity` are cotangents of the same rows that are added to the
    /// results.
    Product { links: Links, patches: Option<Patches>, panels: Panels<T>, identity: Option<CotangentRef> },
    /// Several products through masks into the same channels, row by row.
    Together(Vec<ReverseStep<T>>),
    /// Through a convolution that reads too few channels to fill a vector: the product gives the
    /// channels of all taps side by side, as columns, and these are then added up at the rows that
    /// they belong to.
    Columns {
        /// The product's links: each row reads itself.
        rows: Links,
        panels: Panels<T>,
        /// The sum's links: where the columns of each tap go.
        links: Links,
    },
    /// Through a depthwise convolution: `[tap][channel]`.
    Channelwise { links: Links, weights: Vec<T> },
    /// Row by row, times a scale.
    Spread { scale: Option<Vec<T>> },
    /// Through a mean over windows.
    Average { links: Links },
    /// Through a maximum over windows.
    Maximum { links: Links },
    /// Back to where each element came from.
    Rearrange,
    /// Times a factor for each element; to a repeated operand, the sum over the repeats.
    Scaled { links: Option<Links>, factor: Factor },
    /// Through a function of all channels of a row, by what the forward pass has kept of it.
    Within { kept: MapView },
    /// To one of the operands of matrix products, by the values of the other.
    Matrices { operand: MatrixRole, other: MapView },
    /// Through a segment: from its outputs, where anything has reached them, to its inputs, with
    /// whether the buffer of each of these holds nothing yet.
    Segment { sources: Vec<Option<CotangentRef>>, targets: Vec<(Sink, bool)> },
}

impl<T> StepKind<T> {
    /// Whether the step's kernel takes rows in lanes.
    pub(crate) fn fits_lanes(&self) -> bool {
        match self {
            Self::Product { patches, .. } => patches.is_none(),
            Self::Together(_)
            | Self::Columns { .. }
            | Self::Channelwise { .. }
            | Self::Spread { .. }
            | Self::Average { .. }
            | Self::Maximum { .. }
            | Self::Rearrange => true,
            Self::Scaled { .. } | Self::Within { .. } | Self::Matrices { .. } | Self::Segment { .. } => false,
        }
    }
}

/// The factors of a row's cotangents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factor {
    /// One factor for all elements.
    Number(f64),
    /// The values of a row, and whether they are repeated as the kernel's other operand is.
    Values { view: MapView, repeated: bool },
    /// The kernel's own scale.
    Own,
}

impl<T> ReverseStep<T> {
    /// The values of the forward pass that it reads.
    pub(crate) fn values(&self) -> impl Iterator<Item = MapView> {
        let own = match self.kind {
            StepKind::Scaled { factor: Factor::Values { view, .. }, .. }
            | StepKind::Within { kept: view }
            | StepKind::Matrices { other: view, .. } => Some(view),
            _ => None,
        };
        own.into_iter().chain(self.target.slopes())
    }

    /// Whether it reads other channels of the buffer that it writes.
    pub(crate) fn reads_its_target(&self) -> bool {
        self.source.site() == self.target.cotangent().site()
    }

    /// All cotangents that it reads or writes.
    pub(crate) fn cotangents(&self) -> Vec<CotangentRef> {
        let mut all = vec![self.source, self.target.cotangent()];
        match &self.kind {
            StepKind::Product { identity, .. } => all.extend(identity),
            StepKind::Together(parts) => all.extend(parts.iter().flat_map(Self::cotangents)),
            StepKind::Segment { sources, targets } => {
                all.extend(sources.iter().flatten());
                all.extend(targets.iter().map(|(sink, _)| sink.cotangent()));
            }
            _ => {}
        }
        all
    }

    /// The steps that are taken together: most often only itself.
    pub(crate) fn parts(&self) -> &[Self] {
        match &self.kind {
            StepKind::Together(parts) => parts,
            _ => std::slice::from_ref(self),
        }
    }
}
