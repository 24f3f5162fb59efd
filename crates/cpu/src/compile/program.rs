//! The program of the CPU executor as plain data: what runs forward, in order, and what runs in
//! reverse ([`super::steps`]). [`super::print`] shows it, [`super::bytes`] counts what it takes.

use influence_autodiff::graph::ValueId;

use super::ids::{ChoiceId, KernelId, LeafId, MapId, MaskId, SegmentId};
use super::steps::ReverseStep;
use super::view::StoreView;
use crate::kernels::{
    ChainPart, ElementsOf, How, Matrices, MatrixRole, Moves, Panels, Patches, Repetition, RowTable, Shares,
    WithinRow,
};

/// A buffer of rows: one for each position of each sample.
#[derive(Debug, Clone)]
pub(crate) struct RowMap {
    /// Rows of one sample.
    pub(crate) positions: usize,
    /// Elements of one row.
    pub(crate) pitch: usize,
    /// The positions that something reads, ascending: no other is computed.
    pub(crate) live: Vec<usize>,
}

impl RowMap {
    /// Elements of one sample.
    pub(crate) fn size(&self) -> usize {
        self.positions * self.pitch
    }

    /// Whether all its rows are read.
    pub(crate) fn is_all_live(&self) -> bool {
        self.live.len() == self.positions
    }
}

/// Neighbouring channels of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MapView {
    pub(crate) map: MapId,
    pub(crate) offset: usize,
    pub(crate) channels: usize,
}

/// One kernel call of the forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Kernel<T> {
    pub(crate) kind: KernelKind<T>,
    pub(crate) input: MapView,
    pub(crate) output: MapView,
    /// A second operand, or what a product's result is added to.
    pub(crate) other: Option<MapView>,
    /// The mask that the ReLU at the kernel's end makes, if there is one.
    pub(crate) relu: Option<MaskId>,
    /// What it leaves for the reverse pass besides its result: derivatives, or what its pullback
    /// reads.
    pub(crate) kept: Vec<MapView>,
    /// The graph's operations that it stands for.
    pub(crate) name: String,
    /// Its perturbed tensors, where parameters are perturbed.
    pub(crate) tensors: Option<KernelTensors<T>>,
}

/// The perturbed tensors of a kernel.
#[derive(Debug, Clone)]
pub(crate) struct KernelTensors<T> {
    /// The weight of the product.
    pub(crate) weight: Option<LeafId>,
    /// Groups of neighbouring channels, each of which reads only the inputs of its own group.
    pub(crate) groups: usize,
    /// The patches of its gradient in Winograd's form, where that can be taken.
    pub(crate) patches: Option<Patches>,
    pub(crate) bias: Option<LeafId>,
    /// The normalisation after the product, or one without a product.
    pub(crate) norm: Option<KernelNorm<T>>,
    /// Tensors whose elements are elements of the result, or are added to them.
    pub(crate) elements: Vec<(LeafId, ElementsOf)>,
}

/// A normalisation gamma (x - mean) inverse + beta whose tensors are perturbed. (For a layer
/// normalisation x is what gamma multiplies: its mean is 0 and its deviation 1 already.)
#[derive(Debug, Clone)]
pub(crate) struct KernelNorm<T> {
    pub(crate) gamma: Option<LeafId>,
    pub(crate) beta: Option<LeafId>,
    pub(crate) mean: Vec<f64>,
    /// One over the standard deviation.
    pub(crate) inverse: Vec<f64>,
    /// What is normalised. For a product these are rows of its own results, because the gradient of
    /// gamma reads them and the product's output holds them normalised.
    pub(crate) rows: MapView,
    /// The scale and the shift of the whole normalisation.
    pub(crate) affine: [Vec<T>; 2],
}

impl<T> KernelTensors<T> {
    /// The ids of all tensors of the kernel that are perturbed: weight and bias, gamma and beta of
    /// its normalisation, and [`Self::elements`].
    pub(crate) fn all(&self) -> impl Iterator<Item = LeafId> {
        let norm = self.norm.iter().flat_map(|norm| [norm.gamma, norm.beta]);
        let elements = self.elements.iter().map(|(tensor, _)| Some(*tensor));
        [self.weight, self.bias].into_iter().chain(norm).chain(elements).flatten()
    }
}

impl<T> Kernel<T> {
    /// Whether it reads other channels of the buffer that it writes.
    pub(crate) fn reads_its_map(&self) -> bool {
        [Some(self.input), self.other].into_iter().flatten().any(|view| view.map == self.output.map)
    }

    /// The rows of the input that a row of the result is computed from.
    pub(crate) fn sources(&self, row: usize) -> Vec<usize> {
        match &self.kind {
            KernelKind::Product { table, .. }
            | KernelKind::Channelwise { table, .. }
            | KernelKind::Average { table, .. }
            | KernelKind::Maximum { table, .. } => {
                (0..table.taps()).filter_map(|tap| table.source(row, tap)).collect()
            }
            KernelKind::Rearrange { moves, .. } => moves.rows_of(row),
            KernelKind::Affine(_)
            | KernelKind::Sum
            | KernelKind::Pointwise(_)
            | KernelKind::Combine { .. }
            | KernelKind::Elementwise { .. }
            | KernelKind::Within(_) => vec![row],
            // The matrices may lie in any rows, so all of them count.
            KernelKind::Matrices(matrices) => (0..matrices.operand(MatrixRole::A).rows).collect(),
            // (The edges of a segment say what it reads.)
            KernelKind::Segment(_) => Vec::new(),
        }
    }

    /// The rows of the other operand that a row of the result is computed from.
    pub(crate) fn other_sources(&self, row: usize) -> Vec<usize> {
        match &self.kind {
            KernelKind::Combine { repeat, .. } => vec![repeat.row(row)],
            KernelKind::Matrices(matrices) => (0..matrices.operand(MatrixRole::B).rows).collect(),
            // A summand is added row by row.
            _ => vec![row],
        }
    }

    /// Whether the other operand is added to the rest.
    pub(crate) fn adds_other(&self) -> bool {
        !matches!(self.kind, KernelKind::Combine { .. } | KernelKind::Matrices(_))
    }

    /// The normalisation after a product whose results have rows of their own.
    pub(crate) fn kept_product(&self) -> Option<&KernelNorm<T>> {
        let norm = self.tensors.as_ref()?.norm.as_ref()?;
        // A normalisation without a product reads its input, which lies in a map anyway.
        self.kind.multiplies().then_some(norm)
    }
}

/// What a kernel does with its operands.
#[derive(Debug, Clone)]
pub(crate) enum KernelKind<T> {
    /// A convolution or linear layer with batch normalisation folded in; in Winograd's form where
    /// there are patches.
    Product { table: RowTable, patches: Option<Patches>, panels: Panels<T>, bias: Vec<T> },
    /// A product of each channel by itself, with weights `[tap][channel]`.
    Channelwise { table: RowTable, weights: Vec<T>, bias: Vec<T> },
    /// scale x + shift for each channel, or x itself.
    Affine(Option<[Vec<T>; 2]>),
    /// The input plus the other.
    Sum,
    /// A function of each element, which leaves its derivatives.
    Pointwise(Vec<ChainPart>),
    /// The input and the other, which is repeated; a quotient leaves its derivatives by both.
    Combine { how: How, repeat: Repetition },
    /// scale x + shift for each element of a sample; no scale where all are 1.
    Elementwise { scale: Option<Vec<T>>, shift: Vec<T> },
    /// A function of all channels of a row: softmax or layer normalisation.
    Within(WithinRow<T>),
    /// Matrices of the input times matrices of the other.
    Matrices(Matrices),
    /// The mean over windows, or another weighted sum.
    Average { table: RowTable, shares: Shares<T> },
    /// The maximum over windows, which leaves its choices.
    Maximum { table: RowTable, choices: ChoiceId },
    /// Each element is one of the input's, or a constant.
    Rearrange { moves: Moves, fill: Option<Vec<T>> },
    /// Nodes on Burn's operations.
    Segment(SegmentId),
}

impl<T> KernelKind<T> {
    /// Whether it is a product with weights.
    pub(crate) fn multiplies(&self) -> bool {
        matches!(self, Self::Product { .. } | Self::Channelwise { .. })
    }

    /// Whether its pullback can multiply its results by the derivatives of the function before it.
    /// (The derivatives of one function are not multiplied by those of another in the same step:
    /// the second function may have no step of its own.)
    pub(crate) fn takes_slopes(&self) -> bool {
        matches!(
            self,
            Self::Product { .. }
                | Self::Channelwise { .. }
                | Self::Average { .. }
                | Self::Maximum { .. }
                | Self::Sum
                | Self::Combine { .. }
        )
    }

    /// Whether the cotangents of its operands and its result have to be dense: where derivatives
    /// are kept as values, no mask has switched anything off.
    pub(crate) fn takes_dense(&self) -> bool {
        match self {
            Self::Pointwise(_) | Self::Combine { .. } | Self::Within(_) | Self::Matrices(_) => true,
            Self::Elementwise { scale, .. } => scale.is_some(),
            _ => false,
        }
    }
}

/// The nodes of a segment, and where the values on its edges lie.
#[derive(Debug, Clone)]
pub(crate) struct CompiledSegment {
    pub(crate) nodes: Vec<usize>,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) outputs: Vec<Edge>,
    /// Its perturbed tensors.
    pub(crate) tensors: Vec<LeafId>,
}

/// A value of the graph on the edge of a segment: where each of its elements lies.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) value: ValueId,
    pub(crate) view: MapView,
    /// Row and channel.
    pub(crate) elements: Vec<[usize; 2]>,
}

/// A value of the graph that a kernel computes: for observers of a forward pass.
#[derive(Debug, Clone)]
pub(crate) struct ShownValue {
    pub(crate) kernel: KernelId,
    pub(crate) value: ValueId,
    /// The channels in which its store lies.
    pub(crate) at: MapView,
    pub(crate) view: StoreView,
}

/// A network compiled for the CPU executor.
#[derive(Debug, Clone)]
pub(crate) struct Compiled<T> {
    /// Indexed by [`MapId`].
    pub(crate) maps: Vec<RowMap>,
    /// Indexed by [`KernelId`], in the order in which they run.
    pub(crate) kernels: Vec<Kernel<T>>,
    /// Indexed by [`StepId`](super::ids::StepId), in the order in which they run.
    pub(crate) steps: Vec<ReverseStep<T>>,
    /// Indexed by [`MaskId`]: the channels that the mask covers.
    pub(crate) masks: Vec<MapView>,
    /// How many maxima leave choices: the number of [`ChoiceId`]s.
    pub(crate) choices: usize,
    /// Indexed by [`SegmentId`].
    pub(crate) segments: Vec<CompiledSegment>,
    pub(crate) shown: Vec<ShownValue>,
    pub(crate) input: MapView,
    pub(crate) output: MapView,
    /// Whether parameters are perturbed: then all values are kept for their gradients.
    pub(crate) perturbs_parameters: bool,
}

impl<T> Compiled<T> {
    pub(crate) fn map(&self, id: MapId) -> &RowMap {
        &self.maps[id.index()]
    }

    pub(crate) fn kernel(&self, id: KernelId) -> &Kernel<T> {
        &self.kernels[id.index()]
    }

    pub(crate) fn mask(&self, id: MaskId) -> MapView {
        self.masks[id.index()]
    }

    pub(crate) fn segment(&self, id: SegmentId) -> &CompiledSegment {
        &self.segments[id.index()]
    }

    /// Whether rows in lanes take less time for many cotangents: there are masks, and kernels for
    /// all steps of the reverse pass.
    pub(crate) fn fits_lanes(&self) -> bool {
        // Gram matrices are taken of rows `[line][channel]` only.
        !self.perturbs_parameters
            && !self.masks.is_empty()
            && self.steps.iter().flat_map(ReverseStep::parts).all(|step| step.kind.fits_lanes())
    }

    /// Whether the reverse pass reads the values of a map.
    pub(crate) fn keeps(&self, map: MapId) -> bool {
        self.perturbs_parameters
            || self.steps.iter().flat_map(ReverseStep::values).any(|view| view.map == map)
    }

    /// Whether the reverse pass reads the values of any map.
    pub(crate) fn keeps_any(&self) -> bool {
        self.perturbs_parameters || self.steps.iter().any(|step| step.values().next().is_some())
    }
}
