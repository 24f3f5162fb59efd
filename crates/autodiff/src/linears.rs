//! One form for Burn's linear layers on operands of three or more axes.
//!
//! Burn 0.22.1 records a linear layer on `[n, s, i]` either as a batched product or, where the
//! merged rows make a squarer matrix, as a product of `[n s, i]` between two reshapes. Which one
//! depends on the batch size, so that two recordings of one model may differ. Here the last
//! operation of either form is replaced by the linear operation. The others are then no longer
//! needed, unless something else reads them.

use std::collections::{HashMap, HashSet};

use burn::backend::ir::{
    BaseOperationIr, BinaryOpIr, FloatOperationIr, LinearOpIr, MatmulOpIr, ModuleOperationIr,
    NumericOperationIr, OperationIr, ShapeOpIr, TensorId, TensorIr,
};

use crate::capture::Recording;

/// Replaces every linear layer on three or more axes, in either form, by the linear operation.
pub(crate) fn unite(recording: &mut Recording) {
    let producers = recording.operations.iter().enumerate();
    let producers = producers.flat_map(|(index, op)| op.outputs().map(move |out| (out.id, index))).collect();
    // All layers are found before the first is replaced, so that the search sees what was recorded.
    let search = Search { recording, producers, computed: computed(recording) };
    let found: Vec<_> = (0..recording.operations.len())
        .filter_map(|index| Some((index, search.linear(&recording.operations[index])?)))
        .collect();
    for (index, linear) in found {
        recording.operations[index] = OperationIr::Module(ModuleOperationIr::Linear(linear));
    }
}

/// The tensors that depend on the input.
fn computed(recording: &Recording) -> HashSet<TensorId> {
    let mut computed = HashSet::from([recording.input]);
    for op in &recording.operations {
        if op.inputs().any(|input| computed.contains(&input.id)) {
            computed.extend(op.outputs().map(|output| output.id));
        }
    }
    computed
}

/// A recording with indexes to search it by.
struct Search<'a> {
    recording: &'a Recording,
    /// For each tensor, the number of the operation that computes it.
    producers: HashMap<TensorId, usize>,
    /// The tensors that depend on the input.
    computed: HashSet<TensorId>,
}

impl<'a> Search<'a> {
    /// The operation that computes a tensor.
    fn producer(&self, tensor: &TensorIr) -> Option<&'a OperationIr> {
        self.producers.get(&tensor.id).map(|&index| &self.recording.operations[index])
    }

    /// The operand of the reshape that gives a tensor.
    fn reshaped(&self, tensor: &TensorIr) -> Option<&'a TensorIr> {
        match self.producer(tensor)? {
            OperationIr::BaseFloat(BaseOperationIr::Reshape(ShapeOpIr { input, .. })) => Some(input),
            _ => None,
        }
    }

    /// The operand of a reshape that only adds leading axes of size 1, as a layer does with its
    /// weight and bias. A vector that is reshaped otherwise and added to a product (`b.reshape([1,
    /// 4, 1])`) is not a layer's bias but the model's own sum.
    fn widened(&self, tensor: &TensorIr) -> Option<&'a TensorIr> {
        let source = self.reshaped(tensor)?;
        let new = tensor.shape.num_dims().checked_sub(source.shape.num_dims())?;
        let plain =
            tensor.shape[..new].iter().all(|&size| size == 1) && tensor.shape[new..] == source.shape[..];
        plain.then_some(source)
    }

    /// A weight of `rank` axes: a constant, or computed from constants (a weight that is held
    /// transposed).
    fn weight(&self, tensor: &'a TensorIr, rank: usize) -> Option<&'a TensorIr> {
        let constant = !self.computed.contains(&tensor.id) && tensor.shape.num_dims() == rank;
        constant.then_some(tensor)
    }

    /// The linear layer of which this is the last operation, if it is one.
    fn linear(&self, op: &'a OperationIr) -> Option<LinearOpIr> {
        let (x, weight, bias, out) = match op {
            // Rows merged: a reshape of a product of a reshape.
            OperationIr::BaseFloat(BaseOperationIr::Reshape(io)) => {
                let (product, bias) = self.with_bias(self.producer(&io.input)?)?;
                let weight = self.weight(&product.rhs, 2)?;
                (self.reshaped(&product.lhs)?, weight, bias, &io.out)
            }
            // A batched product with a weight of leading axes of size 1.
            _ => {
                let (product, bias) = self.with_bias(op)?;
                let weight = self.weight(self.widened(&product.rhs)?, 2)?;
                (&product.lhs, weight, bias, op.outputs().next()?)
            }
        };
        let (from, to) = (x.shape.to_vec(), out.shape.to_vec());
        // The shapes are those of `[..., i]` times `[i, o]`, with equal leading axes.
        let fits = from.len() > 2
            && from.len() == to.len()
            && from[..from.len() - 1] == to[..to.len() - 1]
            && from.last() == weight.shape.first()
            && to.last() == weight.shape.last()
            && bias.is_none_or(|bias| bias.shape.last() == to.last());
        let owned = |tensor: &TensorIr| tensor.clone();
        fits.then(|| LinearOpIr {
            x: owned(x),
            weight: owned(weight),
            bias: bias.map(owned),
            out: owned(out),
        })
    }

    /// A product, with the bias `[O]` that is added to it, if there is one.
    fn with_bias(&self, op: &'a OperationIr) -> Option<(&'a MatmulOpIr, Option<&'a TensorIr>)> {
        match op {
            OperationIr::Float(_, FloatOperationIr::Matmul(product)) => Some((product, None)),
            OperationIr::NumericFloat(_, NumericOperationIr::Add(BinaryOpIr { lhs, rhs, .. })) => {
                let OperationIr::Float(_, FloatOperationIr::Matmul(product)) = self.producer(lhs)? else {
                    return None;
                };
                Some((product, Some(self.weight(self.widened(rhs)?, 1)?)))
            }
            _ => None,
        }
    }
}
