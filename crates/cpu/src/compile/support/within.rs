//! Functions of all channels of a row: softmax, and normalisation by their mean and variance.

use influence_autodiff::graph::Node;
use influence_autodiff::ops::norm::LayerNorm;

use super::{Answer, Arrangement, NewStage, Reason, Support};
use crate::compile::stage::{ChannelAffine, StageNorm, StageOp, StageTensors};
use crate::kernels::WithinRow;

impl<'g> Support<'_, 'g> {
    /// Softmax along one axis.
    pub(super) fn softmax(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        Ok(Answer::Stage(Box::new(self.within(node, axis, WithinRow::Softmax)?)))
    }

    /// Layer normalisation along the last axis.
    pub(super) fn layer_norm(&self, node: &Node, op: &LayerNorm) -> Result<Answer<'g>, Reason> {
        let gamma = self.numbers(node, 1)?.to_vec();
        let beta = match node.inputs.len() {
            2 => vec![0.0; gamma.len()],
            _ => self.numbers(node, 2)?.to_vec(),
        };
        let last = self.view(node.inputs[0])?.shape.sizes.len() - 1;
        let tensor = |position: usize| self.perturbed.tensor(self.graph, *node.inputs.get(position)?);
        // Gradients of gamma and beta are taken after the row's own statistics.
        let affine = ChannelAffine { scale: gamma.clone(), shift: beta.clone() };
        let norm = StageNorm { gamma: tensor(1), beta: tensor(2), ..StageNorm::constant(affine) };
        let norm = (norm.gamma.or(norm.beta).is_some()).then_some(norm);
        let row = WithinRow::Standard { epsilon: op.epsilon, gamma, beta };
        let stage = self.within(node, last, row)?;
        Ok(Answer::Stage(Box::new(NewStage {
            tensors: StageTensors { norm, ..StageTensors::default() },
            ..stage
        })))
    }

    fn within(&self, node: &Node, axis: usize, row: WithinRow<f64>) -> Result<NewStage<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if axis == view.shape.batch {
            return Err("a normalisation of samples".into());
        }
        let operand = self.whole_image(view, axis);
        let result = match &operand.copy {
            Some(copy) => copy.clone(),
            None => Arrangement::like(view, self.store(view.store)),
        };
        Ok(NewStage::new(StageOp::Within(row), vec![operand], result))
    }
}
