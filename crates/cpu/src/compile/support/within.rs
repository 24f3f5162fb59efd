//! Functions of all channels of a row: softmax, and normalisation by their mean and variance.

use influence_autodiff::graph::Node;
use influence_autodiff::ops::norm::LayerNorm;

use super::{Answer, Arrangement, NewStage, Reason, Support};
use crate::compile::stage::StageOp;
use crate::kernels::WithinRow;

impl<'g> Support<'_, 'g> {
    /// Along one axis.
    pub(super) fn softmax(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        self.within(node, axis, &WithinRow::Softmax)
    }

    /// Along the last axis.
    pub(super) fn layer_norm(&self, node: &Node, norm: &LayerNorm) -> Result<Answer<'g>, Reason> {
        if self.perturbed.any(self.graph, &node.inputs[1..]) {
            return Err("the parameters of a layer normalisation are perturbed".into());
        }
        let gamma = self.numbers(node, 1)?.to_vec();
        let beta = match node.inputs.len() {
            2 => vec![0.0; gamma.len()],
            _ => self.numbers(node, 2)?.to_vec(),
        };
        let last = self.view(node.inputs[0])?.shape.sizes.len() - 1;
        self.within(node, last, &WithinRow::Standard { epsilon: norm.epsilon, gamma, beta })
    }

    fn within(&self, node: &Node, axis: usize, row: &WithinRow<f64>) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if axis == view.shape.batch {
            return Err("a normalisation of samples".into());
        }
        let operand = self.whole_image(view, axis);
        let result = match &operand.copy {
            Some(copy) => copy.clone(),
            None => Arrangement::like(view, self.store(view.store)),
        };
        Ok(Answer::Stage(Box::new(NewStage::new(StageOp::Within(row.clone()), vec![operand], result))))
    }
}
