//! Functions of one variable: each is an arm of [`parts`].

use influence_autodiff::graph::Node;
use influence_autodiff::ops::Op;

use super::{Answer, NewStage, Reason, Support};
use crate::compile::stage::StageOp;
use crate::kernels::ChainPart;

/// What an operation does to each element, where that is all it does.
fn parts(op: &Op) -> Option<Vec<ChainPart>> {
    let one = |part| Some(vec![part]);
    match op {
        Op::Sigmoid(_) => one(ChainPart::Sigmoid),
        Op::LogSigmoid(_) => one(ChainPart::LogSigmoid),
        Op::HardSigmoid(op) => Some(vec![
            ChainPart::Affine { scale: op.alpha, shift: op.beta },
            ChainPart::Clamp { min: 0.0, max: 1.0 },
        ]),
        Op::Tanh(_) => one(ChainPart::Tanh),
        Op::Gelu(_) => one(ChainPart::Gelu),
        Op::LeakyRelu(op) => one(ChainPart::Leaky(op.slope)),
        Op::Exp(_) => one(ChainPart::Exp),
        Op::Log(_) => one(ChainPart::Log),
        Op::Log1p(_) => one(ChainPart::Log1p),
        Op::Sqrt(_) => one(ChainPart::Sqrt),
        Op::Recip(_) => one(ChainPart::Recip),
        Op::Power(op) => one(ChainPart::Power(op.exponent)),
        Op::Sin(_) => one(ChainPart::Sin),
        Op::Cos(_) => one(ChainPart::Cos),
        Op::Erf(_) => one(ChainPart::Erf),
        Op::Abs(_) => one(ChainPart::Abs),
        Op::Clamp(op) => one(ChainPart::Clamp {
            min: op.min.unwrap_or(f64::NEG_INFINITY),
            max: op.max.unwrap_or(f64::INFINITY),
        }),
        _ => None,
    }
}

impl<'g> Support<'_, 'g> {
    /// A function of each element.
    pub(super) fn pointwise(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let chain = parts(&node.op).ok_or_else(|| format!("no kernel for {}", node.op.name()))?;
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        Ok(Answer::Stage(Box::new(NewStage::new(StageOp::Pointwise(chain), vec![operand], result))))
    }
}
