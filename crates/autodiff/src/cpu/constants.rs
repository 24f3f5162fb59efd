//! Weights as numbers: read from the graph, folded in f64, and rounded once when they are packed.

use std::borrow::Cow;

use burn::tensor::{DType, TensorData};

use crate::graph::{Graph, Origin, ValueId};
use crate::ops::Op;

/// A constant of the graph, as numbers.
#[derive(Debug, Clone)]
pub(super) struct Numbers<'a>(Cow<'a, TensorData>);

impl<'a> Numbers<'a> {
    /// The numbers of a constant, or of one under another shape.
    pub(super) fn of(graph: &'a Graph, id: ValueId) -> Option<Self> {
        match &graph.values()[id].origin {
            Origin::Constant(constant) if constant.data.dtype().is_float() => {
                let widened = match constant.data.dtype() {
                    DType::F32 | DType::F64 => Cow::Borrowed(&constant.data),
                    _ => Cow::Owned(constant.data.clone().convert_dtype(DType::F32)),
                };
                Some(Self(widened))
            }
            Origin::Node(node) => match &graph.nodes()[*node].op {
                Op::Reshape(_) | Op::Cast(_) => Self::of(graph, graph.nodes()[*node].inputs[0]),
                _ => None,
            },
            _ => None,
        }
    }

    /// A way to look at single numbers.
    pub(super) fn look(&self) -> Look<'_> {
        match self.0.dtype() {
            DType::F64 => Look::Double(self.0.as_slice().unwrap_or_default()),
            _ => Look::Single(self.0.as_slice().unwrap_or_default()),
        }
    }

    /// All of them.
    pub(super) fn to_vec(&self) -> Vec<f64> {
        self.0.iter::<f64>().collect()
    }
}

/// Numbers of either type.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look<'a> {
    /// Single precision.
    Single(&'a [f32]),
    /// Double precision.
    Double(&'a [f64]),
}

impl Look<'_> {
    #[inline]
    pub(super) fn at(&self, index: usize) -> f64 {
        match self {
            Self::Single(all) => f64::from(all[index]),
            Self::Double(all) => all[index],
        }
    }
}

/// y = scale x + shift, for each channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
}

impl Affine {
    /// What a batch normalisation does in evaluation.
    pub(super) fn of_batch_norm(graph: &Graph, inputs: &[ValueId], epsilon: f64) -> Option<Self> {
        let vector = |position: usize| Numbers::of(graph, *inputs.get(position)?).map(|n| n.to_vec());
        let (gamma, beta, mean, variance) = (vector(1)?, vector(2)?, vector(3)?, vector(4)?);
        let scale: Vec<_> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&scale).zip(&mean).map(|((b, s), m)| b - s * m).collect();
        Some(Self { scale, shift })
    }
}
