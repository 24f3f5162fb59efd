//! Scaled dot-product attention in one node (opset 23), as products, a constant mask and a softmax.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::activation::Tanh;
use influence_autodiff::ops::linear::Matmul;
use influence_autodiff::ops::mask::MaskFill;
use influence_autodiff::ops::softmax::Softmax;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Binding;
use crate::known::{ElementKind, KnownTensor};

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
    let (scores, mask) = masked(call, scores)?;
    let shares = shares(call, scores, mask.as_ref())?;
    let result = call.emit(Op::Matmul(Matmul), &[shares, v])?;
    if !merged {
        return one(result);
    }
    // The heads side by side again.
    let shape = call.shape(result);
    let width = fixed(shape[1].fixed * shape[3].fixed);
    let result = call.permute(result, vec![0, 2, 1, 3])?;
    one(call.reshape(result, &[shape[0], shape[2], width])?)
}

/// The softmax of masked scores. Excluded scores are replaced by the lowest finite number of f32,
/// whose softmax is 0, instead of minus infinity, which would give NaN in a row of which all scores
/// are excluded. Such rows are then set to 0.
fn shares(call: &mut Call<'_, '_>, scores: ValueId, mask: Option<&KnownTensor>) -> Result<ValueId, Refusal> {
    let softmax = Op::Softmax(Softmax { axis: 3 });
    let Some(mask) = mask else { return call.emit(softmax, &[scores]) };
    let scores = excluded(call, scores, mask, f64::from(f32::MIN))?;
    let shares = call.emit(softmax, &[scores])?;
    match empty_rows(mask)? {
        None => Ok(shares),
        Some(rows) => excluded(call, shares, &rows, 0.0),
    }
}

/// Refuses options that are not supported: caches, windows, outputs other than the first.
fn refuse(call: &Call<'_, '_>) -> Result<(), Refusal> {
    let attributes = call.attributes();
    let capped = attributes.float("softcap", 0.0) > 0.0;
    let bounded = ["left_window_size", "right_window_size"];
    let why = if call.has(4) || call.has(5) || call.has(6) {
        "it has a cache of earlier keys"
    } else if call.node.output.iter().skip(1).any(|output| !output.is_empty()) {
        "more results than the first are asked for"
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

/// Keys or values with fewer heads than the queries have, repeated for groups of query heads.
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

/// Scores with an additive mask added, and the mask (true excludes) of all other exclusions.
fn masked(call: &mut Call<'_, '_>, scores: ValueId) -> Result<(ValueId, Option<KnownTensor>), Refusal> {
    let shape = call.shape(scores);
    let later = [1, 1, shape[2].fixed, shape[3].fixed];
    let later = (call.attributes().int("is_causal", 0) != 0)
        .then(|| KnownTensor::build(&later, ElementKind::Bool, |at| f64::from(u8::from(at[3] > at[2]))));
    let later = later.transpose()?;
    let mask = match call.operand(3) {
        None => return Ok((scores, later)),
        Some(Binding::Known(_) | Binding::Weight(_)) => call.constant(3)?.ok_or("it has no mask")?,
        Some(_) => {
            let bias = call.value(3)?;
            if call.is_mask(bias) {
                return Err(Refusal::new("its mask follows the input", "export with a constant mask"));
            }
            let bias = call.of_rank(bias, 4)?;
            return Ok((call.add(scores, bias)?, later));
        }
    };
    // A boolean mask is true where attention is allowed. An additive one excludes where it is minus
    // infinity, and its finite elements are added to the scores.
    let new = std::iter::repeat_n(1, 4usize.saturating_sub(mask.shape.len()));
    let mask = mask.reshaped(new.chain(mask.shape.iter().copied()).collect())?;
    let boolean = mask.element == ElementKind::Bool;
    let (own, finite) = divided(&mask);
    let scores = if boolean { scores } else { added(call, scores, &finite)? };
    let none = |at: &[usize]| if boolean { 1.0 - mask.at(at) } else { own.at(at) };
    // Excluded is what either mask excludes.
    let both = match later {
        None => KnownTensor::build(&mask.shape, ElementKind::Bool, none)?,
        Some(later) => {
            let shape = crate::known::broadcast(&mask.shape, &later.shape)?;
            KnownTensor::build(&shape, ElementKind::Bool, |at| none_of(&mask, at, none).max(later.at(at)))?
        }
    };
    Ok((scores, Some(both)))
}

/// The value of `none` at an index of a shape to which the mask broadcasts.
fn none_of(mask: &KnownTensor, at: &[usize], none: impl Fn(&[usize]) -> f64) -> f64 {
    let own: Vec<_> = at.iter().zip(&mask.shape).map(|(&i, &size)| i.min(size - 1)).collect();
    none(&own)
}

/// The rows of which everything is excluded, as a mask; none where there are none.
fn empty_rows(mask: &KnownTensor) -> Result<Option<KnownTensor>, Refusal> {
    let width = mask.shape.last().copied().unwrap_or(1).max(1);
    let empty: Vec<bool> = mask.values.chunks(width).map(|row| !row.contains(&0.0)).collect();
    if !empty.contains(&true) {
        return Ok(None);
    }
    let mut shape = mask.shape.clone();
    shape[3] = 1;
    let values = empty.into_iter().map(|empty| f64::from(u8::from(empty))).collect();
    Ok(Some(KnownTensor { shape, element: ElementKind::Bool, values }))
}

fn excluded(call: &mut Call<'_, '_>, x: ValueId, mask: &KnownTensor, value: f64) -> Result<ValueId, Refusal> {
    let mask = call.literal(mask.data());
    call.emit(Op::MaskFill(MaskFill { value }), &[x, mask])
}

/// An additive mask, divided into a mask of its minus infinities and its finite elements.
fn divided(numbers: &KnownTensor) -> (KnownTensor, KnownTensor) {
    let none = |x: &f64| *x == f64::NEG_INFINITY;
    let finite = numbers.values.iter().map(|x| if none(x) { 0.0 } else { *x }).collect();
    let excluded = numbers.values.iter().map(|x| f64::from(u8::from(none(x)))).collect();
    let of = |element, values| KnownTensor { shape: numbers.shape.clone(), element, values };
    (of(ElementKind::Bool, excluded), of(ElementKind::Float, finite))
}

/// x + `numbers`; x itself where all of them are 0.
fn added(call: &mut Call<'_, '_>, x: ValueId, numbers: &KnownTensor) -> Result<ValueId, Refusal> {
    if numbers.values.iter().all(|&x| x == 0.0) {
        return Ok(x);
    }
    let bias = call.literal(numbers.data());
    call.add(x, bias)
}

/// x + `numbers`, where minus infinities are applied as a mask, so that all constants are finite.
pub(super) fn biased(call: &mut Call<'_, '_>, x: ValueId, numbers: &KnownTensor) -> Result<ValueId, Refusal> {
    let (mask, finite) = divided(numbers);
    let sum = added(call, x, &finite)?;
    excluded(call, sum, &mask, f64::NEG_INFINITY)
}
