//! Scaled dot-product attention in one node (opset 23), as products, a constant mask and a softmax.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::activation::Tanh;
use influence_autodiff::ops::linear::Matmul;
use influence_autodiff::ops::mask::MaskFill;
use influence_autodiff::ops::softmax::Softmax;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Operand;
use crate::table::{Element, Table};

/// softmax(scale Q K^T, where the mask allows, plus bias) V.
pub(super) fn attention(call: &mut Call<'_, '_>) -> Results {
    refuse(call)?;
    let merged = call.rank(0)? == 3;
    let [q, k, v] = [heads(call, 0)?, heads(call, 1)?, heads(call, 2)?];
    let (k, v) = (shared(call, q, k)?, shared(call, q, v)?);
    let head = call.shape(q)[3].fixed as f64;
    let scale = call.attributes().float("scale", 1.0 / head.sqrt());
    let turned = call.permute(k, vec![0, 1, 3, 2])?;
    let product = call.emit(Op::Matmul(Matmul), &[q, turned])?;
    let scores = call.times(product, scale)?;
    let scores = capped(call, scores)?;
    let scores = masked(call, scores)?;
    let shares = call.emit(Op::Softmax(Softmax { axis: 3 }), &[scores])?;
    let result = call.emit(Op::Matmul(Matmul), &[shares, v])?;
    if !merged {
        return one(result);
    }
    let shape = call.shape(result);
    let width = fixed(shape[1].fixed * shape[3].fixed);
    let result = call.permute(result, vec![0, 2, 1, 3])?;
    one(call.reshape(result, &[shape[0], shape[2], width])?)
}

/// What is not known here: caches, windows, outputs beside the first.
fn refuse(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let attributes = call.attributes();
    let capped = attributes.float("softcap", 0.0) > 0.0;
    let bounded = ["left_window_size", "right_window_size"];
    let why = if call.has(4) || call.has(5) || call.has(6) {
        "it has a cache of earlier keys"
    } else if call.node.output.iter().skip(1).any(|output| !output.is_empty()) {
        "results beside the first are asked for"
    } else if bounded.into_iter().any(|name| attributes.int(name, -1) >= 0) {
        "it has a sliding window"
    } else if capped && (call.has(3) || attributes.int("is_causal", 0) != 0) {
        "whether its cap comes before or after its mask depends on the version of the operator"
    } else {
        return Ok(());
    };
    Err(Refusal::new(why, "export with an opset below 23, which writes attention out"))
}

/// An operand as `[n, heads, positions, size]`.
fn heads(call: &mut Call<'_, '_>, position: usize) -> Result<ValueId, Refusal> {
    let x = call.value(position)?;
    let shape = call.shape(x);
    if shape.len() == 4 {
        return Ok(x);
    }
    let name = if position == 0 { "q_num_heads" } else { "kv_num_heads" };
    let heads = usize::try_from(call.attributes().int(name, 0)).unwrap_or(0);
    match shape[..] {
        [batch, positions, width] if heads > 0 && width.fixed % heads == 0 => {
            let apart = [batch, positions, fixed(heads), fixed(width.fixed / heads)];
            let apart = call.reshape(x, &apart)?;
            call.permute(apart, vec![0, 2, 1, 3])
        }
        _ => Err(format!("an operand of {} axes does not fall into {heads} heads", shape.len()).into()),
    }
}

/// Keys or values of fewer heads than the queries have, each for as many of those.
fn shared(call: &mut Call<'_, '_>, q: ValueId, x: ValueId) -> Result<ValueId, Refusal> {
    let (heads, shape) = (call.shape(q)[1].fixed, call.shape(x));
    let own = shape[1].fixed;
    if own == heads {
        return Ok(x);
    }
    if own == 0 || heads % own != 0 {
        return Err(format!("{heads} heads of queries do not share {own} of keys").into());
    }
    let [batch, _, positions, size] = [shape[0], shape[1], shape[2], shape[3]];
    let apart = call.reshape(x, &[batch, fixed(own), fixed(1), positions, size])?;
    let repeated: [Size; 5] = [batch, fixed(own), fixed(heads / own), positions, size];
    let repeated = call.expand(apart, &repeated)?;
    call.reshape(repeated, &[batch, fixed(heads), positions, size])
}

/// cap tanh(x / cap), where there is a cap.
fn capped(call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Refusal> {
    let cap = call.attributes().float("softcap", 0.0);
    if cap <= 0.0 {
        return Ok(x);
    }
    let inner = call.times(x, 1.0 / cap)?;
    let bent = call.emit(Op::Tanh(Tanh), &[inner])?;
    call.times(bent, cap)
}

/// Scores with what the mask and the order of positions exclude.
fn masked(call: &mut Call<'_, '_>, scores: ValueId) -> Result<ValueId, Refusal> {
    let mut scores = scores;
    if call.attributes().int("is_causal", 0) != 0 {
        let shape = call.shape(scores);
        let later = [1, 1, shape[2].fixed, shape[3].fixed];
        let later = Table::build(&later, Element::Bool, |at| f64::from(u8::from(at[3] > at[2])))?;
        scores = excluded(call, scores, &later)?;
    }
    match call.operand(3) {
        None => Ok(scores),
        Some(Operand::Known(_) | Operand::Weight(_)) => {
            let table = call.table(3)?.ok_or("its mask depends on the batch")?;
            let new = 4usize.saturating_sub(table.shape.len());
            let shape = std::iter::repeat_n(1, new).chain(table.shape.iter().copied()).collect();
            let table = table.reshaped(shape)?;
            if table.element == Element::Bool {
                let values = table.values.iter().map(|&x| f64::from(u8::from(x == 0.0))).collect();
                return excluded(call, scores, &Table { values, ..table });
            }
            biased(call, scores, &table)
        }
        Some(_) => {
            let bias = call.value(3)?;
            if call.is_mask(bias) {
                return Err(Refusal::new("its mask follows the input", "export with a constant mask"));
            }
            let bias = call.of_rank(bias, 4)?;
            call.add(scores, bias)
        }
    }
}

fn excluded(call: &mut Call<'_, '_>, x: ValueId, mask: &Table) -> Result<ValueId, Refusal> {
    let mask = call.literal(mask.data());
    call.emit(Op::MaskFill(MaskFill { value: f64::NEG_INFINITY }), &[x, mask])
}

/// x + numbers, of which minus infinity excludes: a mask, so that every constant stays finite.
pub(super) fn biased(call: &mut Call<'_, '_>, x: ValueId, numbers: &Table) -> Result<ValueId, Refusal> {
    let none = |x: &f64| *x == f64::NEG_INFINITY;
    let finite = numbers.values.iter().map(|x| if none(x) { 0.0 } else { *x }).collect();
    let finite = Table { values: finite, ..numbers.clone() };
    let mut sum = x;
    if finite.values.iter().any(|&x| x != 0.0) {
        let bias = call.literal(finite.data());
        sum = call.add(x, bias)?;
    }
    if !numbers.values.iter().any(none) {
        return Ok(sum);
    }
    let values = numbers.values.iter().map(|x| f64::from(u8::from(none(x)))).collect();
    excluded(call, sum, &Table { element: Element::Bool, values, ..numbers.clone() })
}
