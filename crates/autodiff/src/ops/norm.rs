//! Normalisation.
//!
//! [`BatchNorm`], in evaluation: y = gamma (x - mean) / sqrt(variance + epsilon) + beta, per
//! channel (axis 1). With stored statistics it is an affine map of x, y = s x + t with s = gamma /
//! sqrt(variance + epsilon) and t = beta - s mean, and the pullback to x is s g. The pullbacks to
//! gamma and beta are the sums over a channel of g (x - mean) / sqrt(variance + epsilon) and of g.
//!
//! In [`LayerNorm`], y = gamma h + beta with h = (x - mean) r, r = 1 / sqrt(variance + epsilon),
//! where mean and (biased) variance are those of each row along the last axis. With u = g gamma,
//! the pullback to x is r (u - mean u - h mean(u h)). For a constant row, r is 1 / sqrt(epsilon).
//! The pullbacks to gamma and beta are the sums over the rows of g h and of g.
//!
//! Burn records group, instance and RMS normalisation as compositions of elementary operations.

use std::fmt;

use burn::backend::ir::{BatchNormOpIr, LayerNormOpIr, ModuleOperationIr, OperationIr};

use super::{Keep, Lowered, Op, Recognition, Rule, Saved, over_cotangents, weight_and_bias, weighted};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

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

/// A vector of channels, reshaped to broadcast over a tensor of `rank` axes whose channels are on
/// `axis`.
fn over_channels(vector: Array, rank: usize, axis: usize) -> Array {
    let mut shape = vec![1; rank];
    shape[axis] = vector.shape()[0];
    vector.reshape(&shape)
}

/// Cotangents `[V, ...]` summed over all axes but one: `[V, size]`.
fn over_all_but(cotangent: Array, axis: usize) -> Array {
    let shape = cotangent.shape();
    let others = (1..shape.len()).filter(|&other| other != axis);
    others.fold(cotangent, Array::sum_axis).reshape(&[shape[0], shape[axis]])
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

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [x, gamma, beta, mean, variance] = <[Array; 5]>::try_from(inputs)
            .unwrap_or_else(|_| unreachable!("the shape rule has seen five operands"));
        let scale = self.scale(gamma, variance);
        let shift = beta.sub(scale.clone().mul(mean));
        let rank = shape.len();
        x.mul(over_channels(scale, rank, 1)).add(over_channels(shift, rank, 1))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis == 1)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        // To x: gamma and variance; to gamma: x, mean and variance; to beta: nothing.
        let read = [active[1], active[0], false, active[1], active[0] || active[1]];
        (0..5).filter(|&position| read[position]).map(Keep::Input).collect()
    }

    /// Weights that depend on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    /// Mean and variance are not parameters; there is no rule for statistics that are computed from
    /// parameters.
    fn trainable(&self, position: usize) -> bool {
        position < 3
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let rank = cotangent.shape().len();
        match position {
            0 => {
                let scale = self.scale(saved.input(1), saved.input(4));
                cotangent.mul(over_channels(scale, rank, 2))
            }
            1 => {
                let x = over_cotangents(saved.input(0));
                let centred = x.sub(over_channels(saved.input(3), rank, 2));
                let summed = over_all_but(cotangent.mul(centred), 2);
                let deviation = saved.input(4).add_scalar(self.epsilon).sqrt();
                summed.div(over_cotangents(deviation))
            }
            _ => over_all_but(cotangent, 2),
        }
    }
}

/// Normalisation along the last axis: operands x `[..., D]`, gamma `[D]` and, if there is one, beta
/// `[D]`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance under the root.
    pub epsilon: f64,
}

impl fmt::Display for LayerNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer_norm(epsilon {})", self.epsilon)
    }
}

/// The mean along the last axis, which keeps size 1.
fn row_mean(x: Array) -> Array {
    let shape = x.shape();
    let last = shape.len() - 1;
    x.sum_axis(last).div_scalar(shape[last] as f64)
}

impl LayerNorm {
    /// h and r of each row.
    fn normalised(&self, x: Array) -> [Array; 2] {
        let mean = row_mean(x.clone());
        let centred = x.sub(mean);
        let variance = row_mean(centred.clone().mul(centred.clone()));
        let scale = variance.add_scalar(self.epsilon).sqrt().recip();
        [centred.mul(scale.clone()), scale]
    }
}

impl Rule for LayerNorm {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        match inputs[0].last() {
            Some(&last) if last > 0 && inputs[1..].iter().all(|vector| vector.as_slice() == [last]) => {
                Ok(inputs[0].clone())
            }
            _ => Err(format!(
                "weights of shapes {:?} do not fit the last axis of an input of shape {:?}",
                &inputs[1..],
                inputs[0]
            )),
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let ([x, gamma], beta) = weight_and_bias(inputs);
        let (rank, last) = (shape.len(), shape.len() - 1);
        let [normalised, _] = self.normalised(x);
        let scaled = normalised.mul(over_channels(gamma, rank, last));
        beta.into_iter().fold(scaled, |y, beta| y.add(over_channels(beta, rank, last)))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis + 1 == passage.input.len())
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        let read = [active[0] || active[1], active[0]];
        (0..2).filter(|&position| read[position]).map(Keep::Input).collect()
    }

    /// Weights that depend on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let rank = cotangent.shape().len();
        if position == 2 {
            return over_all_but(cotangent, rank - 1);
        }
        if position == 1 {
            let [normalised, _] = self.normalised(saved.input(0)).map(over_cotangents);
            return over_all_but(cotangent.mul(normalised), rank - 1);
        }
        // r (u - mean u - h mean(u h)), in the notation of the header.
        let [normalised, scale] = self.normalised(saved.input(0)).map(over_cotangents);
        let weighted = cotangent.mul(over_channels(saved.input(1), rank, rank - 1));
        let along = row_mean(weighted.clone().mul(normalised.clone()));
        let mean = row_mean(weighted.clone());
        weighted.sub(mean).sub(normalised.mul(along)).mul(scale)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::Module(module) = ir else { return None };
    match module {
        ModuleOperationIr::BatchNorm(BatchNormOpIr { x, gamma, beta, mean, variance, epsilon, out }) => {
            let op = Op::BatchNorm(BatchNorm { epsilon: epsilon.elem() });
            Some(Ok(Lowered { op, inputs: vec![x, gamma, beta, mean, variance], output: out }))
        }
        ModuleOperationIr::LayerNorm(LayerNormOpIr { input, gamma, beta, epsilon, out }) => {
            let op = Op::LayerNorm(LayerNorm { epsilon: epsilon.elem() });
            weighted(op, [input, gamma], beta.as_ref(), out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples for ranks 2 to 5, one channel, and variances down to 0.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{
        OpSample, OperandValues, array, assert_close, check, place, positive, spread, values,
    };
    use super::*;

    fn sample(x: &[usize], variance: OperandValues, epsilon: f64) -> OpSample {
        let channels = [x[1]];
        let operands =
            vec![spread(x, 3), spread(&channels, 50), spread(&channels, 60), spread(&channels, 70), variance];
        OpSample::new(Op::BatchNorm(BatchNorm { epsilon }), operands).active(&[0, 1, 2]).linear(&[0, 1, 2])
    }

    fn layers() -> Vec<OpSample> {
        let shapes: [&[usize]; 6] = [&[1, 3], &[2, 5], &[5, 2, 4], &[3, 1], &[1, 2, 3, 6], &[3, 17, 33]];
        let layer = |x: &[usize], epsilon, bias| {
            let last = [x[x.len() - 1]];
            let mut operands = vec![spread(x, 3), spread(&last, 50)];
            operands.extend(if bias { Some(spread(&last, 60)) } else { None });
            let linear: Vec<_> = (1..operands.len()).collect();
            OpSample::new(Op::LayerNorm(LayerNorm { epsilon }), operands).linear(&linear)
        };
        let each = |x: &&[usize]| [(1e-5, true), (0.1, false)].map(|(epsilon, bias)| layer(x, epsilon, bias));
        shapes.iter().flat_map(each).collect()
    }

    #[test]
    fn layer_norm_of_a_constant_row_is_beta() {
        let place = place(FloatDType::F64);
        let vector = |values: &[f64]| array(&[values.len()], values, &place);
        let (gamma, rule) = (vector(&[2.0, 3.0]), LayerNorm { epsilon: 1e-4 });
        let x = array(&[1, 2], &[5.0, 5.0], &place);
        let inputs = vec![x.clone(), gamma.clone(), vector(&[0.5, -0.5])];
        assert_eq!(values(rule.forward(inputs, &[1, 2], &place)), [0.5, -0.5]);
        let shapes = [vec![1, 2], vec![2], vec![2]];
        let saved =
            Saved { inputs: &[Some(x), Some(gamma), None], output: None, derived: None, shapes: &shapes };
        let pulled = values(rule.pullback(array(&[1, 1, 2], &[1.0, 0.0], &place), 0, &saved));
        // u = (2, 0), minus its mean, divided by sqrt(epsilon).
        assert_close("a constant row", &[100.0, -100.0], &pulled, 1e-14);
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let shapes: [&[usize]; 6] =
            [&[1, 3, 2, 2], &[2, 1, 3, 1], &[5, 4, 1, 1], &[2, 3], &[2, 3, 4], &[1, 2, 2, 1, 2]];
        let mut all: Vec<_> = shapes
            .iter()
            .flat_map(|x| [1e-5, 1e-3, 0.0].map(|epsilon| sample(x, positive(&[x[1]], 80), epsilon)))
            .collect();
        // Variances of 0 and nearly 0: the slope is gamma / sqrt(epsilon), up to 316 gamma.
        let dead = OperandValues { shape: vec![3], values: vec![0.0, 1e-300, 1e-12] };
        all.push(sample(&[2, 3, 2, 2], dead.clone(), 1e-5));
        all.push(sample(&[2, 3, 2, 2], dead, 1e-3));
        all.push(sample(&[3, 17, 7, 5], positive(&[17], 80), 1e-5));
        all.extend(layers());
        all
    }

    #[test]
    fn normalisation_derivatives_match_differences() {
        check(&samples());
    }
}
