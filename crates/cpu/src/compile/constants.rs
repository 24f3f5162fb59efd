//! The elements of constants: read from the graph, or computed from its constants. They are
//! combined in f64, and rounded once when they are packed.

use std::borrow::Cow;

use burn::tensor::{DType, TensorData};
use influence_autodiff::graph::{Graph, Origin, ValueId};
use influence_autodiff::ops::Op;

/// The values of a graph that do not depend on its input.
#[derive(Debug)]
pub(crate) struct Constants<'g> {
    graph: &'g Graph,
    /// What nodes compute from constants only, by value.
    folded: &'g [Option<TensorData>],
    /// Whether a value depends on the input.
    depends: Vec<bool>,
}

impl<'g> Constants<'g> {
    pub(crate) fn new(graph: &'g Graph, folded: &'g [Option<TensorData>]) -> Self {
        let mut depends = vec![false; graph.values().len()];
        depends[graph.input()] = true;
        for node in graph.nodes() {
            depends[node.output] = node.inputs.iter().any(|&input| depends[input]);
        }
        Self { graph, folded, depends }
    }

    /// Whether a value depends on the input.
    pub(crate) fn depends(&self, id: ValueId) -> bool {
        self.depends[id]
    }

    /// The elements of a constant of floats.
    pub(crate) fn numbers(&self, id: ValueId) -> Option<ConstantNumbers<'g>> {
        let widened = match self.data(id)? {
            data if matches!(data.dtype(), DType::F32 | DType::F64) => Cow::Borrowed(data),
            data if data.dtype().is_float() => Cow::Owned(data.clone().convert_dtype(DType::F32)),
            _ => return None,
        };
        Some(ConstantNumbers(widened))
    }

    /// A constant as indices.
    pub(crate) fn indices(&self, id: ValueId) -> Option<Vec<usize>> {
        self.data(id)?.iter::<i64>().map(|index| usize::try_from(index).ok()).collect()
    }

    /// The elements of a constant, under whatever shape.
    fn data(&self, id: ValueId) -> Option<&'g TensorData> {
        match &self.graph.values()[id].origin {
            Origin::Constant(constant) => Some(&constant.data),
            Origin::Input => None,
            Origin::Node(node) => match &self.graph.nodes()[*node].op {
                // No need for a second copy of the weights.
                Op::Reshape(_) | Op::Cast(_) => self.data(self.graph.nodes()[*node].inputs[0]),
                _ => self.folded[id].as_ref(),
            },
        }
    }
}

/// The elements of a constant of the graph, as floats.
#[derive(Debug, Clone)]
pub(crate) struct ConstantNumbers<'g>(Cow<'g, TensorData>);

impl ConstantNumbers<'_> {
    /// Elements that are no constant of the graph.
    pub(crate) fn new(numbers: Vec<f64>) -> Self {
        let count = numbers.len();
        Self(Cow::Owned(TensorData::new(numbers, [count])))
    }

    /// A way to look at single elements.
    pub(crate) fn look(&self) -> Look<'_> {
        match self.0.dtype() {
            DType::F64 => Look::Double(self.0.as_slice().unwrap_or_default()),
            _ => Look::Single(self.0.as_slice().unwrap_or_default()),
        }
    }

    /// All elements.
    pub(crate) fn to_vec(&self) -> Vec<f64> {
        self.0.iter::<f64>().collect()
    }
}

/// Elements of either type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Look<'a> {
    /// Single precision.
    Single(&'a [f32]),
    /// Double precision.
    Double(&'a [f64]),
}

impl Look<'_> {
    #[inline]
    pub(crate) fn at(&self, index: usize) -> f64 {
        match self {
            Self::Single(all) => f64::from(all[index]),
            Self::Double(all) => all[index],
        }
    }
}
