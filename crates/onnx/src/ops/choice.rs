//! Masks, selections by masks, and elements at indices.

use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::indexing::Select;
use influence_autodiff::ops::layout::Slice;
use influence_autodiff::ops::logic::{ComparePair, Connective, Logic, Not};
use influence_autodiff::ops::mask::{Compare, MaskFill, MaskWhere, Relation};
use influence_autodiff::ops::sort::Sort;

use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::import::Binding;
use crate::known::{ElementKind, KnownTensor, axis};

/// The relation of x to y, given that of y to x.
fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Above => Relation::Below,
        Relation::AtLeast => Relation::AtMost,
        Relation::Below => Relation::Above,
        Relation::AtMost => Relation::AtLeast,
        Relation::Equal | Relation::Unequal => relation,
    }
}

/// A comparison with a number, or of two values.
fn compared(call: &mut Call<'_, '_>, relation: Relation) -> Results {
    // With a literal on either side, of no higher rank, it is a comparison with a number.
    for (position, relation) in [(0, relation), (1, mirrored(relation))] {
        if let Some(bound) = call.literal_number(1 - position)
            && call.rank(1 - position)? <= call.rank(position)?
        {
            let x = call.value(position)?;
            return one(call.emit(Op::Compare(Compare { relation, bound }), &[x])?);
        }
    }
    let pair = [call.value(0)?, call.value(1)?];
    let [a, b] = call.alike(pair)?;
    one(call.emit(Op::ComparePair(ComparePair { relation }), &[a, b])?)
}

pub(super) fn greater(call: &mut Call<'_, '_>) -> Results {
    compared(call, Relation::Above)
}

pub(super) fn greater_or_equal(call: &mut Call<'_, '_>) -> Results {
    compared(call, Relation::AtLeast)
}

pub(super) fn less(call: &mut Call<'_, '_>) -> Results {
    compared(call, Relation::Below)
}

pub(super) fn less_or_equal(call: &mut Call<'_, '_>) -> Results {
    compared(call, Relation::AtMost)
}

/// The second operand where the mask is true, else the third.
pub(super) fn choose(call: &mut Call<'_, '_>) -> Results {
    let rank = call.rank(0)?.max(call.rank(1)?).max(call.rank(2)?);
    let mask = mask_at(call, 0, rank)?;
    if let Some(value) = call.literal_number(1) {
        let x = call.value(2)?;
        let x = call.of_rank(x, rank)?;
        return one(call.emit(Op::MaskFill(MaskFill { value }), &[x, mask])?);
    }
    let values = [call.value(1)?, call.value(2)?];
    let [chosen, other] = [call.of_rank(values[0], rank)?, call.of_rank(values[1], rank)?];
    one(call.emit(Op::MaskWhere(MaskWhere), &[other, mask, chosen])?)
}

/// An operand as a mask of `rank` axes.
fn mask_at(call: &mut Call<'_, '_>, position: usize, rank: usize) -> Result<ValueId, Refusal> {
    if let Some(Binding::Known(_)) = call.operand(position) {
        let tensor = call.constant(position)?.ok_or("it has no mask")?;
        let new = rank - tensor.shape.len();
        let shape = std::iter::repeat_n(1, new).chain(tensor.shape.iter().copied()).collect();
        let tensor = KnownTensor { element: ElementKind::Bool, ..tensor.reshaped(shape)? };
        return Ok(call.literal(tensor.data()));
    }
    let value = call.value(position)?;
    let raised = call.of_rank(value, rank)?;
    match call.is_mask(raised) {
        true => Ok(raised),
        false => call.emit(Op::Compare(Compare { relation: Relation::Unequal, bound: 0.0 }), &[raised]),
    }
}

/// The part above or below a diagonal, with zeros elsewhere.
pub(super) fn triangle(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let [rows, columns] = match shape[..] {
        [.., rows, columns] if rows.per_sample + columns.per_sample == 0 => [rows.fixed, columns.fixed],
        _ => return Err("it takes matrices".into()),
    };
    let diagonal = call.number(1)?.unwrap_or(0.0);
    let upper = call.attributes().int("upper", 1) != 0;
    let mut of_mask = vec![1; shape.len() - 2];
    of_mask.extend([rows, columns]);
    let last = shape.len() - 1;
    let dropped = KnownTensor::build(&of_mask, ElementKind::Bool, |at| {
        let above = at[last] as f64 - at[last - 1] as f64;
        let kept = if upper { above >= diagonal } else { above <= diagonal };
        f64::from(u8::from(!kept))
    })?;
    let mask = call.literal(dropped.data());
    one(call.emit(Op::MaskFill(MaskFill { value: 0.0 }), &[x, mask])?)
}

/// Indices in range, counted from the front.
fn indices(call: &Call<'_, '_>, size: usize) -> Result<KnownTensor, Refusal> {
    let tensor = match call.operand(1) {
        Some(Binding::Value(_)) => {
            return Err(Refusal::new(
                "its indices are computed from the input",
                "where the input is token ids, export the network from its embeddings on",
            ));
        }
        _ => call.constant(1)?.ok_or("it has no indices")?,
    };
    let values: Vec<f64> = tensor
        .ints()
        .into_iter()
        .map(|index| axis(index, size).map(|index| index as f64))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("an index lies outside an axis of {size}"))?;
    Ok(KnownTensor { values, element: ElementKind::Int, ..(*tensor).clone() })
}

pub(super) fn gather(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let along = axis(call.attributes().int("axis", 0), shape.len())?;
    if shape[along].per_sample > 0 {
        return super::scatter::gather_samples(call, x, along);
    }
    let indices = indices(call, shape[along].fixed)?;
    // A single index is a slice. Several are selected as a list, and the axis is then reshaped to
    // the shape of the indices.
    let chosen = if let Some(index) = indices.only() {
        let mut ranges = vec![None; shape.len()];
        ranges[along] = Some([index as usize, index as usize + 1, 1]);
        call.emit(Op::Slice(Slice { ranges }), &[x])?
    } else {
        let list = indices.reshaped(vec![indices.values.len()])?;
        let list = call.literal(list.data());
        call.emit(Op::Select(Select { axis: along }), &[x, list])?
    };
    let own = indices.shape.iter().map(|&size| crate::call::fixed(size));
    let shape: Vec<_> =
        shape[..along].iter().copied().chain(own).chain(shape[along + 1..].iter().copied()).collect();
    one(call.reshape(chosen, &shape)?)
}

/// A mask that is true where a value is NaN, which differs from itself.
pub(super) fn is_nan(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    one(call.emit(Op::ComparePair(ComparePair { relation: Relation::Unequal }), &[x, x])?)
}

pub(super) fn equal(call: &mut Call<'_, '_>) -> Results {
    compared(call, Relation::Equal)
}

/// Two masks combined.
fn connected(call: &mut Call<'_, '_>, connective: Connective) -> Results {
    let rank = call.rank(0)?.max(call.rank(1)?);
    let masks = [mask_at(call, 0, rank)?, mask_at(call, 1, rank)?];
    one(call.emit(Op::Logic(Logic { connective }), &masks)?)
}

pub(super) fn and(call: &mut Call<'_, '_>) -> Results {
    connected(call, Connective::And)
}

pub(super) fn or(call: &mut Call<'_, '_>) -> Results {
    connected(call, Connective::Or)
}

pub(super) fn xor(call: &mut Call<'_, '_>) -> Results {
    connected(call, Connective::Xor)
}

pub(super) fn not(call: &mut Call<'_, '_>) -> Results {
    let rank = call.rank(0)?;
    let mask = mask_at(call, 0, rank)?;
    one(call.emit(Op::Not(Not), &[mask])?)
}

/// The largest or smallest elements along an axis, without their indices.
pub(super) fn top(call: &mut Call<'_, '_>) -> Results {
    if call.uses_result(1) {
        return Err(Refusal::new(
            "its indices are used, and whole numbers have no derivative",
            "use only the values",
        ));
    }
    let x = call.value(0)?;
    let axis = axis(call.attributes().int("axis", -1), call.shape(x).len())?;
    let count = match call.attributes().get("k").and_then(|attribute| attribute.i) {
        Some(count) => count as f64,
        None => call.number(1)?.ok_or("it has no number of elements")?,
    };
    let descending = call.attributes().int("largest", 1) != 0;
    one(call.emit(Op::Sort(Sort { axis, descending, count: Some(count as usize) }), &[x])?)
}
