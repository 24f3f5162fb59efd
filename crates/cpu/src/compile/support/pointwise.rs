//! Functions of one variable: an arm of [`parts`] each.

use influence_autodiff::graph::Node;
use influence_autodiff::ops::Op;

use super::{Answer, Own, Reason, Support};
use crate::compile::stage::StageOp;
use crate::kernels::Part;

/// What an operation does to each number, where that is all it does.
fn parts(op: &Op) -> Option<Vec<Part>> {
    let one = |part| Some(vec![part]);
    match op {
        Op::Sigmoid(_) => one(Part::Sigmoid),
        Op::LogSigmoid(_) => one(Part::LogSigmoid),
        Op::HardSigmoid(op) => {
            Some(vec![Part::Affine { scale: op.alpha, shift: op.beta }, Part::Clamp { min: 0.0, max: 1.0 }])
        }
        Op::Tanh(_) => one(Part::Tanh),
        Op::Gelu(_) => one(Part::Gelu),
        Op::LeakyRelu(op) => one(Part::Leaky(op.slope)),
        Op::Exp(_) => one(Part::Exp),
        Op::Log(_) => one(Part::Log),
        Op::Log1p(_) => one(Part::Log1p),
        Op::Sqrt(_) => one(Part::Sqrt),
        Op::Recip(_) => one(Part::Recip),
        Op::Power(op) => one(Part::Power(op.exponent)),
        Op::Sin(_) => one(Part::Sin),
        Op::Cos(_) => one(Part::Cos),
        Op::Erf(_) => one(Part::Erf),
        Op::Abs(_) => one(Part::Abs),
        Op::Clamp(op) => one(Part::Clamp {
            min: op.min.unwrap_or(f64::NEG_INFINITY),
            max: op.max.unwrap_or(f64::INFINITY),
        }),
        _ => None,
    }
}

impl<'g> Support<'_, 'g> {
    /// A function of each number.
    pub(super) fn pointwise(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let chain = parts(&node.op).ok_or_else(|| format!("no kernel for {}", node.op.name()))?;
        let (operand, result) = self.whole(self.view(node.inputs[0])?);
        Ok(Answer::Own(Box::new(Own::new(StageOp::Pointwise(chain), vec![operand], result))))
    }
}
