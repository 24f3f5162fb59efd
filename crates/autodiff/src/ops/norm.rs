//! Normalisation.
//!
//! [`BatchNorm`] in evaluation: y = gamma (x - mean) / sqrt(variance + epsilon) + beta, per channel (axis 1). With stored statistics it
//! is an affine map of x alone, y = s x + t with s = gamma / sqrt(variance + epsilon) and t = beta - s mean, whose pullback is s g.

use std::fmt;

use burn::backend::ir::{BatchNormOpIr, ModuleOperationIr, OperationIr};

use super::{Keep, Lowered, Lowering, Op, Rule, Saved};
use crate::array::{Array, Place};

/// Batch normalisation in evaluation: operands x `[B, C, ...]`, gamma, beta, mean, variance `[C]`.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNorm {
    /// Added to the variance under the root.
    pub epsilon: f64,
}

impl fmt::Display for BatchNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch_norm(epsilon {})", self.epsilon)
    }
}

impl BatchNorm {
    /// s = gamma / sqrt(variance + epsilon), of shape `[C]`.
    fn scale(&self, gamma: Array, variance: Array) -> Array {
        gamma.div(variance.add_scalar(self.epsilon).sqrt())
    }
}

/// A vector over channels, shaped to broadcast over a tensor of `rank` axes whose channels are on `axis`.
fn over_channels(vector: Array, rank: usize, axis: usize) -> Array {
    let mut shape = vec![1; rank];
    shape[axis] = vector.shape()[0];
    vector.reshape(&shape)
}

impl Rule for BatchNorm {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let x = &inputs[0];
        if x.len() < 2 || inputs[1..].iter().any(|vector| vector.as_slice() != [x[1]]) {
            return Err(format!(
                "statistics of shapes {:?} do not fit an input of shape {x:?}",
                &inputs[1..]
            ));
        }
        Ok(x.clone())
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Place) -> Array {
        let [x, gamma, beta, mean, variance] = <[Array; 5]>::try_from(inputs)
            .unwrap_or_else(|_| unreachable!("the shape rule has seen five operands"));
        let scale = self.scale(gamma, variance);
        let shift = beta.sub(scale.clone().mul(mean));
        let rank = shape.len();
        x.mul(over_channels(scale, rank, 1)).add(over_channels(shift, rank, 1))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1), Keep::Input(4)]
    }

    /// Weights and statistics are constants: a rule for those that follow the input is not written yet.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let rank = cotangent.shape().len();
        let scale = self.scale(saved.input(1), saved.input(4));
        cotangent.mul(over_channels(scale, rank, 2))
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    let OperationIr::Module(ModuleOperationIr::BatchNorm(BatchNormOpIr {
        x,
        gamma,
        beta,
        mean,
        variance,
        epsilon,
        out,
    })) = ir
    else {
        return None;
    };
    let op = Op::BatchNorm(BatchNorm { epsilon: epsilon.elem() });
    Some(Ok(Lowered { op, inputs: vec![x, gamma, beta, mean, variance], output: out }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples for ranks 2 to 5, one channel, and variances down to 0.

    use super::super::derivatives::{Operand, Sample, check, positive, spread};
    use super::*;

    fn sample(x: &[usize], variance: Operand, epsilon: f64) -> Sample {
        let channels = [x[1]];
        let operands =
            vec![spread(x, 3), spread(&channels, 50), spread(&channels, 60), spread(&channels, 70), variance];
        Sample::new(Op::BatchNorm(BatchNorm { epsilon }), operands).active(&[0]).linear(&[0])
    }

    pub(in super::super) fn samples() -> Vec<Sample> {
        let shapes: [&[usize]; 6] =
            [&[1, 3, 2, 2], &[2, 1, 3, 1], &[5, 4, 1, 1], &[2, 3], &[2, 3, 4], &[1, 2, 2, 1, 2]];
        let mut all: Vec<_> = shapes
            .iter()
            .flat_map(|x| [1e-5, 1e-3, 0.0].map(|epsilon| sample(x, positive(&[x[1]], 80), epsilon)))
            .collect();
        // Variance 0 and next to nothing: the slope is gamma / sqrt(epsilon), up to 316 gamma.
        let dead = Operand { shape: vec![3], values: vec![0.0, 1e-300, 1e-12] };
        all.push(sample(&[2, 3, 2, 2], dead.clone(), 1e-5));
        all.push(sample(&[2, 3, 2, 2], dead, 1e-3));
        all.push(sample(&[3, 17, 7, 5], positive(&[17], 80), 1e-5));
        all
    }

    #[test]
    fn derivatives() {
        check(&samples());
    }
}
