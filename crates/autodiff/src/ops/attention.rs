//! Scaled dot-product attention in one operation.
//!
//! For Q `[B, H, S, D]`, K `[B, H, T, D]`, V `[B, H, T, E]`: R = s Q K^T, where s is 1 / sqrt(D) by
//! default; C = cap tanh(R / cap) where a cap is given, else R; P = the softmax of C + bias along T
//! over the positions that no mask excludes; y = P V. A row of which all positions are excluded is
//! 0.
//!
//! With dP = g V^T and dC = P (dP - sum dP P): dbias = dC, dR = dC (1 - tanh^2), and the pullbacks
//! are s dR K, s dR^T Q and P^T g.
//!
//! The multi-head attention of `burn::nn` is recorded as matrix products, a mask and a softmax
//! instead.

use std::fmt;

use burn::backend::ir::{AttentionOpIr, ModuleOperationIr, OperationIr};
use burn::tensor::{FloatDType, TensorData};

use super::arithmetic::{broadcast, sum_to};
use super::conv::dims4;
use super::linear::transpose;
use super::{Keep, Lowered, Op, Recognition, Rule, Saved, over_cotangents};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Attention with the operands Q, K, V and, where there are such, a constant mask (true excludes)
/// and a bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// The factor s of the products.
    pub scale: Option<f64>,
    /// The bound towards which products saturate.
    pub cap: Option<f64>,
    /// Whether later positions are excluded, where the last of Q and the last of K are the same
    /// position.
    pub causal: bool,
    /// Whether the fourth operand is a mask.
    pub masked: bool,
}

/// P, and tanh(R / cap) where there is a cap.
struct AttentionWeights {
    probabilities: Array,
    saturated: Option<Array>,
}

impl Attention {
    fn scale(&self, width: usize) -> f64 {
        self.scale.unwrap_or(1.0 / (width as f64).sqrt())
    }

    /// The positions of mask and bias among the operands.
    fn extras(&self, operands: usize) -> [Option<usize>; 2] {
        let bias = 3 + usize::from(self.masked);
        [self.masked.then_some(3), (bias < operands).then_some(bias)]
    }

    /// P, from the operands.
    fn weights(
        &self,
        operand: impl Fn(usize) -> Array,
        operands: usize,
        place: &Placement,
    ) -> AttentionWeights {
        let (q, k) = (operand(0), operand(1));
        let scale = self.scale(q.shape()[3]);
        let scores = q.matmul(transpose(k)).mul_scalar(scale);
        // From R to C.
        let saturated = self.cap.map(|cap| scores.clone().div_scalar(cap).tanh());
        let scores = match (&saturated, self.cap) {
            (Some(saturated), Some(cap)) => saturated.clone().mul_scalar(cap),
            _ => scores,
        };
        // The bias, then minus infinity where the mask or the order of positions excludes.
        let [mask, bias] = self.extras(operands).map(|position| position.map(&operand));
        let scores = bias.into_iter().fold(scores, Array::add);
        let scores = mask.into_iter().fold(scores, |scores, mask| scores.fill(mask, f64::NEG_INFINITY));
        let shape = scores.shape();
        let causal = self.causal.then(|| later(shape[2], shape[3], place));
        let scores = causal.into_iter().fold(scores, |scores, mask| scores.fill(mask, f64::NEG_INFINITY));
        AttentionWeights { probabilities: softmax(scores), saturated }
    }

    /// dC `[V, B, H, S, T]`, from g.
    fn scores_cotangent(probabilities: Array, cotangent: Array, value: Array) -> Array {
        let probabilities = over_cotangents(probabilities);
        let pulled = cotangent.matmul(transpose(over_cotangents(value)));
        // dP, minus its mean under P, times P.
        let mean = pulled.clone().mul(probabilities.clone()).sum_axis(4);
        pulled.sub(mean).mul(probabilities)
    }
}

/// The causal mask: true where a position of K comes after the position of Q.
fn later(rows: usize, columns: usize, place: &Placement) -> Array {
    // Counted from the end: column - columns > row - rows.
    let after = |i: usize| i % columns + rows > i / columns + columns;
    let mask = (0..rows * columns).map(after).collect::<Vec<_>>();
    Array::mask(TensorData::new(mask, [1, 1, rows, columns]), place)
}

/// Softmax along the last of four axes; a row of minus infinities gives zeros, not NaN.
fn softmax(scores: Array) -> Array {
    let double = scores.place().dtype == FloatDType::F64;
    let (lowest, least) = if double {
        (f64::MIN, f64::MIN_POSITIVE)
    } else {
        (f64::from(f32::MIN), f64::from(f32::MIN_POSITIVE))
    };
    // The clamps change only a row of minus infinities: its maximum, which would give NaN, and its
    // sum, which would be 0.
    let largest = scores.clone().max_axis(3).clamp(Some(lowest), None);
    let exponentials = scores.sub(largest).exp();
    let sum = exponentials.clone().sum_axis(3).clamp(Some(least), None);
    exponentials.div(sum)
}

impl Rule for Attention {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let [[b, h, s, d], k, v] = [dims4(&inputs[0])?, dims4(&inputs[1])?, dims4(&inputs[2])?];
        if k != [b, h, k[2], d] || v[..3] != k[..3] || d == 0 {
            return Err(format!("queries, keys and values do not fit: {:?}", &inputs[..3]));
        }
        if self.cap.is_some_and(|cap| cap.is_nan() || cap <= 0.0) {
            return Err("the cap must be positive".into());
        }
        let scores = vec![b, h, s, k[2]];
        for extra in &inputs[3..] {
            if broadcast(&scores, extra)? != scores {
                return Err(format!("a mask or bias of shape {extra:?} does not fit scores of {scores:?}"));
            }
        }
        Ok(vec![b, h, s, v[3]])
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], place: &Placement) -> Array {
        let weights = self.weights(|position| inputs[position].clone(), inputs.len(), place);
        weights.probabilities.matmul(inputs[2].clone())
    }

    fn differentiable(&self, position: usize) -> bool {
        !(self.masked && position == 3)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        (0..active.len()).map(Keep::Input).collect()
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let place = cotangent.place();
        // P is not kept, but computed again.
        let weights = self.weights(|position| saved.input(position), saved.shapes.len(), &place);
        if position == 2 {
            return transpose(over_cotangents(weights.probabilities)).matmul(cotangent);
        }
        let scores = Self::scores_cotangent(weights.probabilities, cotangent, saved.input(2));
        if position > 2 {
            return sum_to(scores, &saved.shapes[position]);
        }
        // From dC to s dR.
        let slope = |t: Array| over_cotangents(t.clone().mul(t).neg().add_scalar(1.0));
        let products = weights.saturated.map(slope).into_iter().fold(scores, Array::mul);
        let products = products.mul_scalar(self.scale(saved.shapes[0][3]));
        if position == 0 {
            products.matmul(over_cotangents(saved.input(1)))
        } else {
            transpose(products).matmul(over_cotangents(saved.input(0)))
        }
    }
}

impl fmt::Display for Attention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = self.scale.map_or("1/sqrt(d)".to_owned(), |scale| scale.to_string());
        write!(f, "attention(scale {scale}")?;
        if let Some(cap) = self.cap {
            write!(f, ", cap {cap}")?;
        }
        f.write_str(if self.causal { ", causal" } else { "" })?;
        f.write_str(if self.masked { ", masked)" } else { ")" })
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::Module(ModuleOperationIr::Attention(io)) = ir else { return None };
    let AttentionOpIr { query, key, value, mask, attn_bias, options, out } = io;
    let [scale, cap] = [options.scale, options.softcap].map(|scalar| scalar.map(|scalar| scalar.elem()));
    let rule = Attention { scale, cap, causal: options.is_causal, masked: mask.is_some() };
    let inputs = [query, key, value].into_iter().chain(mask).chain(attn_bias).collect();
    Some(Ok(Lowered { op: Op::Attention(rule), inputs, output: out }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples with every option, and against Burn's own kernel.

    use burn::backend::Dispatch;
    use burn::backend::ops::{AttentionModuleOptions, ModuleOps};

    use super::super::derivatives::{
        OpSample, OperandValues, array, check, check_values, place, spread, values,
    };
    use super::*;
    use crate::graph::Kind;

    /// Tolerance for f64 against Burn's kernel, which sums in another order.
    const KERNEL: f64 = 1e-13;

    const SHAPES: [[usize; 6]; 4] =
        [[1, 1, 1, 1, 1, 1], [2, 1, 3, 2, 2, 3], [1, 2, 2, 4, 3, 1], [3, 2, 7, 5, 4, 6]];

    fn mask(shape: [usize; 4]) -> OperandValues {
        let count = shape.iter().product();
        let values = (0..count).map(|i: usize| f64::from(u8::from(i % 3 == 1))).collect();
        OperandValues { shape: shape.to_vec(), values }
    }

    fn sample([b, h, s, t, d, e]: [usize; 6], option: usize) -> OpSample {
        let rule = Attention {
            scale: (option == 1).then_some(0.7),
            cap: (option == 2).then_some(1.5),
            causal: option == 3,
            masked: option >= 4,
        };
        let mut operands =
            vec![spread(&[b, h, s, d], 8), spread(&[b, h, t, d], 300), spread(&[b, h, t, e], 600)];
        operands.extend((option >= 4).then(|| mask([1, 1, s, t])));
        operands.extend((option == 2 || option == 5).then(|| spread(&[1, h, s, t], 900)));
        let active: Vec<_> = (0..operands.len()).filter(|&i| option < 4 || i != 3).collect();
        let sample = OpSample::new(Op::Attention(rule), operands).active(&active).linear(&[2]);
        if option >= 4 { sample.kind(3, Kind::Mask) } else { sample }
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        SHAPES.iter().flat_map(|&shape| (0..6).map(move |option| sample(shape, option))).collect()
    }

    #[test]
    fn attention_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn attention_values_are_those_of_burns_kernel() {
        check_values(&samples(), KERNEL, |op, given| {
            let Op::Attention(rule) = op else { return None };
            let [masked, bias] = rule.extras(given.len()).map(|i| i.map(|i| given[i].0.clone()));
            let options =
                AttentionModuleOptions { scale: rule.scale, softcap: rule.cap, is_causal: rule.causal };
            let [q, k, v] = [0, 1, 2].map(|i: usize| given[i].0.clone());
            Some(Array(Dispatch::attention(q, k, v, masked, bias, options)))
        });
    }

    #[test]
    fn attention_row_with_all_positions_excluded_is_zero_both_ways() {
        let place = place(FloatDType::F64);
        let rule = Attention { scale: None, cap: None, causal: false, masked: true };
        let one = |value: f64| array(&[1, 1, 1, 1], &[value], &place);
        let all = Array::mask(TensorData::new(vec![true], [1, 1, 1, 1]), &place);
        let inputs = vec![one(1.0), one(2.0), one(3.0), all];
        assert_eq!(values(rule.forward(inputs.clone(), &[1, 1, 1, 1], &place)), [0.0]);
        let kept: Vec<_> = inputs.into_iter().map(Some).collect();
        let shapes = vec![vec![1; 4]; 4];
        let saved = Saved { inputs: &kept, output: None, derived: None, shapes: &shapes };
        for position in 0..3 {
            let cotangent = array(&[1; 5], &[1.0], &place);
            assert_eq!(values(rule.pullback(cotangent, position, &saved)), [0.0], "operand {position}");
        }
    }
}
