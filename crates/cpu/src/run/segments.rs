//! Segments of the network that run on Burn's operations, one sample at a time, and what crosses
//! their edges.

use std::cell::RefCell;
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use influence_autodiff::graph::Graph;
use influence_autodiff::{Error, Leaves, Precision, Pulled, Result, Segment, Trace};

use super::executor::Number;
use crate::compile::ids::{LeafId, SegmentId};
use crate::compile::program::{CompiledSegment, Edge};

/// All segments of a network, loaded onto a device of Burn.
#[derive(Debug)]
pub(super) struct Segments {
    graph: Arc<Graph>,
    segments: Vec<Segment>,
}

impl Segments {
    /// Loads all segments, for reverse passes of `block` cotangents.
    ///
    /// # Errors
    /// As [`Segment::new`].
    pub(super) fn load(
        graph: &Arc<Graph>,
        compiled: &[CompiledSegment],
        block: usize,
        precision: Precision,
        device: &Device,
    ) -> Result<Self> {
        let load = |segment: &CompiledSegment| {
            let ids = |edges: &[Edge]| edges.iter().map(|edge| edge.value).collect::<Vec<_>>();
            let (inputs, outputs) = (ids(&segment.inputs), ids(&segment.outputs));
            let leaves = Leaves::tensors(segment.tensors.iter().map(|tensor| tensor.index()));
            let parts = [segment.nodes.as_slice(), &inputs, &outputs];
            Segment::new(Arc::clone(graph), parts, &leaves, block, precision, device)
        };
        let segments = compiled.iter().map(load).collect::<Result<_>>()?;
        Ok(Self { graph: Arc::clone(graph), segments })
    }

    pub(super) fn segment(&self, id: SegmentId) -> &Segment {
        &self.segments[id.index()]
    }

    /// Bytes of the weights, and of a run with one sample.
    pub(super) fn bytes(&self) -> [usize; 2] {
        let bytes = || self.segments.iter().map(Segment::bytes);
        let sample = bytes().map(|bytes| bytes.peak() - bytes.weights);
        // Every trace waits for the reverse pass.
        [bytes().map(|bytes| bytes.weights).sum(), sample.sum()]
    }

    /// A value at one sample.
    pub(super) fn value<T: Number>(&self, edge: &Edge, values: Vec<T>) -> TensorData {
        TensorData::new(values, self.graph.values()[edge.value].shape_at(1))
    }

    /// Cotangents of a value at one sample.
    pub(super) fn cotangents<T: Number>(&self, edge: &Edge, block: usize, values: Vec<T>) -> TensorData {
        let own = self.graph.values()[edge.value].shape_at(1);
        let shape: Vec<_> = std::iter::once(block).chain(own).collect();
        TensorData::new(values, shape)
    }
}

/// The elements of a tensor from Burn.
///
/// # Errors
/// [`Error::Device`] for another type than `T`.
pub(super) fn numbers<T: Number>(data: &TensorData) -> Result<&[T]> {
    data.as_slice::<T>().map_err(|error| Error::Device(format!("{error:?}")))
}

/// What a segment keeps of each sample of a batch for its reverse pass.
#[derive(Debug, Default)]
pub(super) struct SegmentTraces(Vec<RefCell<Option<Trace>>>);

impl SegmentTraces {
    pub(super) fn push(&mut self, trace: Trace) {
        self.0.push(RefCell::new(Some(trace)));
    }

    /// The reverse pass at one sample; the trace stays for the next.
    ///
    /// # Errors
    /// As [`Segment::pullback`].
    pub(super) fn pull(
        &self,
        sample: usize,
        segment: &Segment,
        cotangents: Vec<TensorData>,
        tensors: &[LeafId],
    ) -> Result<Pulled> {
        let cell =
            self.0.get(sample).ok_or_else(|| Error::Device("a segment without a forward pass".into()))?;
        let trace =
            cell.take().ok_or_else(|| Error::Device("a segment in two reverse passes at once".into()))?;
        let (pulled, trace) = segment.pullback(trace, cotangents, tensors)?;
        cell.replace(Some(trace));
        Ok(pulled)
    }
}
