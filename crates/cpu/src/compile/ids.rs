//! The index spaces of the compiler, each a type of its own: an index of one list is none of
//! another.
//!
//! | id | list | made by |
//! |---|---|---|
//! | [`StoreId`] | `Stages::stores`: where values lie, before buffers are known | `lower`, `fuse` |
//! | [`StageId`] | `Stages::stages`, while they are rewritten | `fuse` |
//! | [`MapId`] | `Compiled::maps`: buffers of rows | `build` |
//! | [`KernelId`] | `Compiled::kernels`: calls of the forward pass | `build` |
//! | [`MaskId`] | `Compiled::masks`: what each ReLU has left on | `build` |
//! | [`ChoiceId`] | the choices that maxima leave for the reverse pass | `build` |
//! | [`SegmentId`] | `Compiled::segments`: what runs on Burn's operations | `build` |
//! | [`StepId`] | `Compiled::steps`: the reverse pass | `adjoint`, `together` |
//! | [`LeafId`] | the graph's parameters, `Graph::parameters` | `influence_autodiff` |
//!
//! Values of the graph are counted by `influence_autodiff::graph::ValueId`, slots of memory by
//! `run::arena::SlotId`.

pub(crate) use influence_autodiff::LeafId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
            pub(crate) struct $name(pub(crate) usize);

            impl $name {
                /// Its index in the list.
                #[inline]
                pub(crate) fn index(self) -> usize {
                    self.0
                }
            }
        )*
    };
}
pub(crate) use ids;

ids! {
    /// Index of a [`Store`](super::view::Store).
    StoreId
    /// Index of a [`Stage`](super::stage::Stage).
    StageId
    /// Index of a [`RowMap`](super::program::RowMap).
    MapId
    /// Index of a [`Kernel`](super::program::Kernel).
    KernelId
    /// Index of a mask: the channels of each row that one ReLU has left on.
    MaskId
    /// Index of the taps that one maximum has chosen, for each row and channel.
    ChoiceId
    /// Index of a [`CompiledSegment`](super::program::CompiledSegment).
    SegmentId
    /// Index of a [`ReverseStep`](super::program::ReverseStep).
    StepId
}
