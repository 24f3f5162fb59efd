//! The stage graph: what the executor computes, in order, as plain data without a precision.
//!
//! A stage reads stores and writes one (a segment may write several). It knows rows and channels,
//! and nothing of the shapes that the graph gave its values: what was a reshape, a permutation or a
//! slice has become the way in which a stage reads ([`super::view`]).

use std::ops::Range;

use influence_autodiff::graph::ValueId;

use super::ids::{LeafId, StageId, StoreId};
use super::view::{Store, StoreView};
use super::weights::ProductWeights;
use crate::kernels::{ChainPart, ElementsOf, How, Matrices, Repetition, RowTable, Shares, WithinRow};

/// One stage.
#[derive(Debug, Clone)]
pub(crate) struct Stage<'g> {
    pub(crate) op: StageOp<'g>,
    /// What the stage reads; none for one that reads any number of stores.
    pub(crate) input: Option<StoreChannels>,
    /// A second operand, or what is added to its result, row by row.
    pub(crate) other: Option<StoreId>,
    pub(crate) output: StoreId,
    /// Whether negative results become 0.
    pub(crate) relu: bool,
    /// The graph's nodes that it stands for.
    pub(crate) nodes: Vec<usize>,
    /// Its perturbed tensors.
    pub(crate) tensors: StageTensors,
}

/// Neighbouring channels of a store; the operation says which rows of them are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreChannels {
    pub(crate) store: StoreId,
    pub(crate) channels: Range<usize>,
}

/// What a stage does.
#[derive(Debug, Clone)]
pub(crate) enum StageOp<'g> {
    /// A convolution or matrix product with constant weights.
    Product { table: RowTable, weights: Box<ProductWeights<'g>>, bias: Vec<f64> },
    /// scale x + shift for each channel; x itself without them. Row by row.
    Affine(Option<ChannelAffine>),
    /// The input plus the other. Row by row.
    Sum,
    /// A chain of functions of each element. Row by row.
    Pointwise(Vec<ChainPart>),
    /// The input and the other, which is repeated, element by element.
    Combine { how: How, repeat: Repetition },
    /// scale x + shift for each element of a sample; no scale where all are 1. Row by row.
    Elementwise { scale: Option<Vec<f64>>, shift: Vec<f64> },
    /// A function of all channels of a row: softmax or layer normalisation. Row by row.
    Within(WithinRow<f64>),
    /// Matrices of the input times matrices of the other.
    Matrices(Matrices),
    /// The sum over a window of each element times its share.
    Average { table: RowTable, shares: Shares<f64> },
    /// The maximum over windows.
    Maximum { table: RowTable },
    /// Each element of the result is an element of the input's store, or a constant.
    Rearrange { sources: Vec<u32>, fill: Option<Vec<f64>> },
    /// The channels of stores side by side. Row by row.
    Concat(Vec<StoreId>),
    /// Nodes that run on Burn's operations.
    Segment(Box<StageSegment>),
}

/// y = scale x + shift, for each channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ChannelAffine {
    pub(crate) scale: Vec<f64>,
    pub(crate) shift: Vec<f64>,
}

/// Nodes that run on Burn's operations, and where the values on the segment's edges lie.
#[derive(Debug, Clone)]
pub(crate) struct StageSegment {
    pub(crate) nodes: Vec<usize>,
    pub(crate) inputs: Vec<(ValueId, StoreView)>,
    pub(crate) outputs: Vec<(ValueId, StoreView)>,
}

/// The perturbed tensors of a stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageTensors {
    /// The weight of the product.
    pub(crate) weight: Option<LeafId>,
    pub(crate) bias: Option<LeafId>,
    /// The normalisation after the product, or one without a product.
    pub(crate) norm: Option<StageNorm>,
    /// Tensors whose elements are elements of the result, or are added to them.
    pub(crate) elements: Vec<(LeafId, ElementsOf)>,
}

/// A normalisation gamma (x - mean) inverse + beta, some of whose tensors are perturbed. Of a layer
/// normalisation only gamma and beta are meant, after its statistics: mean is 0 and inverse 1. The
/// same holds for a factor or a shift by itself.
#[derive(Debug, Clone)]
pub(crate) struct StageNorm {
    pub(crate) gamma: Option<LeafId>,
    pub(crate) beta: Option<LeafId>,
    pub(crate) mean: Vec<f64>,
    /// One over the standard deviation.
    pub(crate) inverse: Vec<f64>,
    /// The scale and the shift of the whole normalisation.
    pub(crate) affine: ChannelAffine,
}

impl StageNorm {
    /// A scale and shift without statistics, of which no tensor is perturbed yet.
    pub(crate) fn constant(affine: ChannelAffine) -> Self {
        let channels = affine.shift.len();
        let (mean, inverse) = (vec![0.0; channels], vec![1.0; channels]);
        Self { gamma: None, beta: None, mean, inverse, affine }
    }
}

impl StageTensors {
    /// The ids of all tensors of the stage that are perturbed: weight and bias, gamma and beta of
    /// its normalisation, and [`Self::elements`].
    pub(crate) fn all(&self) -> impl Iterator<Item = LeafId> {
        let norm = self.norm.iter().flat_map(|norm| [norm.gamma, norm.beta]);
        let elements = self.elements.iter().map(|(tensor, _)| Some(*tensor));
        [self.weight, self.bias].into_iter().chain(norm).chain(elements).flatten()
    }
}

impl Stage<'_> {
    /// The stores that it reads, once for each operand.
    pub(crate) fn reads(&self) -> Vec<StoreId> {
        let mut reads: Vec<StoreId> = self.input.iter().map(|source| source.store).collect();
        reads.extend(self.other);
        match &self.op {
            StageOp::Concat(parts) => reads.extend(parts),
            StageOp::Segment(segment) => reads.extend(segment.inputs.iter().map(|(_, view)| view.store)),
            _ => {}
        }
        reads
    }

    /// The stores that it writes.
    pub(crate) fn writes(&self) -> Vec<StoreId> {
        match &self.op {
            StageOp::Segment(segment) => segment.outputs.iter().map(|(_, view)| view.store).collect(),
            _ => vec![self.output],
        }
    }

    /// Whether it is a ReLU and nothing else.
    pub(crate) fn is_relu(&self) -> bool {
        matches!(self.op, StageOp::Affine(None)) && self.relu && self.other.is_none()
    }
}

/// All stages of a network.
#[derive(Debug)]
pub(crate) struct Stages<'g> {
    /// Indexed by [`StoreId`].
    pub(crate) stores: Vec<Store>,
    /// In the order in which they run.
    pub(crate) stages: Vec<Stage<'g>>,
    /// How each value of the graph lies, where it is stored at all: by [`ValueId`].
    pub(crate) values: Vec<Option<StoreView>>,
    pub(crate) input: StoreId,
    pub(crate) output: StoreId,
}

impl Stages<'_> {
    /// The stages that read each store, once for each operand: by [`StoreId`].
    pub(crate) fn readers(&self) -> Vec<Vec<StageId>> {
        let mut readers = vec![Vec::new(); self.stores.len()];
        for (index, stage) in self.stages.iter().enumerate() {
            stage.reads().into_iter().for_each(|store| readers[store.index()].push(StageId(index)));
        }
        readers
    }

    /// The stage that writes each store, by [`StoreId`]; none for the input.
    pub(crate) fn writers(&self) -> Vec<Option<StageId>> {
        let mut writers = vec![None; self.stores.len()];
        for (index, stage) in self.stages.iter().enumerate() {
            stage.writes().into_iter().for_each(|store| writers[store.index()] = Some(StageId(index)));
        }
        writers
    }

    /// The size of a store.
    pub(crate) fn store(&self, id: StoreId) -> Store {
        self.stores[id.index()]
    }
}
