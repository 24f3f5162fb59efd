//! Arithmetic with NumPy's broadcasts: operands of lower rank get leading axes of size 1.

use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Add, Div, DivScalar, Mul, Pow, Recip, Sub};
use influence_autodiff::ops::elementwise::{Clamp, Exp, Power};
use influence_autodiff::ops::linear::Linear;
use influence_autodiff::ops::logic::ComparePair;
use influence_autodiff::ops::mask::{MaskWhere, Relation};
use influence_autodiff::ops::step::StepFunction;

use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::import::Binding;
use crate::known::KnownTensor;

/// Both operands, with the same rank.
fn both(call: &mut Call<'_, '_>) -> Result<[ValueId; 2], Refusal> {
    let pair = [call.value(0)?, call.value(1)?];
    call.alike(pair)
}

/// The position of one operand, and the other one's number, where that is a literal of no higher
/// rank.
fn with_number(call: &Call<'_, '_>) -> Option<(usize, f64)> {
    let number = |position: usize| {
        let small = call.rank(position).ok()? <= call.rank(1 - position).ok()?;
        call.literal_number(position).filter(|_| small)
    };
    number(1).map(|number| (0, number)).or_else(|| number(0).map(|number| (1, number)))
}

pub(super) fn add(call: &mut Call<'_, '_>) -> Results {
    if let Some((position, number)) = with_number(call) {
        let x = call.value(position)?;
        return one(call.plus(x, number)?);
    }
    if let Some(value) = biased(call)? {
        return one(value);
    }
    if let Some((position, numbers)) = with_exclusions(call) {
        let x = call.value(position)?;
        let rank = call.shape(x).len().max(numbers.shape.len());
        let x = call.of_rank(x, rank)?;
        let new = std::iter::repeat_n(1, rank - numbers.shape.len());
        let numbers = numbers.reshaped(new.chain(numbers.shape.iter().copied()).collect())?;
        return one(super::attention::biased(call, x, &numbers)?);
    }
    let pair = both(call)?;
    one(call.emit(Op::Add(Add), &pair)?)
}

/// The position of one operand, and the other one, if it is a known tensor with minus infinities:
/// an additive mask.
fn with_exclusions(call: &Call<'_, '_>) -> Option<(usize, KnownTensor)> {
    [(0, 1), (1, 0)].into_iter().find_map(|(position, other)| match call.operand(other) {
        Some(Binding::Known(host)) => {
            let tensor = host.constant()?;
            tensor.values.contains(&f64::NEG_INFINITY).then(|| (position, KnownTensor::clone(tensor)))
        }
        _ => None,
    })
}

/// The sum of a linear layer, without a bias and without other uses, and one element per output:
/// the layer with that bias.
fn biased(call: &mut Call<'_, '_>) -> Result<Option<ValueId>, Refusal> {
    for (position, other) in [(0, 1), (1, 0)] {
        let (Some(&Binding::Value(x)), Some(&Binding::Weight(bias))) =
            (call.operand(position), call.operand(other))
        else {
            continue;
        };
        let once = call.importer.uses.get(call.node.input[position].as_str()) == Some(&1);
        let outputs = call.shape(x).last().map(|size| size.fixed);
        let shape = call.importer.weights[bias.index()].data.shape().to_vec();
        let Some(&[rows, weight]) = call.importer.builder.maker(x).and_then(|node| match node.op {
            Op::Linear(_) => node.inputs.as_array(),
            _ => None,
        }) else {
            continue;
        };
        if once && shape.len() == 1 && shape.first() == outputs.as_ref() {
            let bias = call.importer.weight(bias);
            return Ok(Some(call.emit(Op::Linear(Linear), &[rows, weight, bias])?));
        }
    }
    Ok(None)
}

pub(super) fn sub(call: &mut Call<'_, '_>) -> Results {
    match with_number(call) {
        Some((0, number)) => {
            let x = call.value(0)?;
            one(call.plus(x, -number)?)
        }
        Some((_, number)) => {
            let x = call.value(1)?;
            let negative = call.times(x, -1.0)?;
            one(call.plus(negative, number)?)
        }
        None => {
            let pair = both(call)?;
            one(call.emit(Op::Sub(Sub), &pair)?)
        }
    }
}

pub(super) fn mul(call: &mut Call<'_, '_>) -> Results {
    if let Some((position, number)) = with_number(call) {
        let x = call.value(position)?;
        return one(call.times(x, number)?);
    }
    let pair = both(call)?;
    one(call.emit(Op::Mul(Mul), &pair)?)
}

pub(super) fn div(call: &mut Call<'_, '_>) -> Results {
    match with_number(call) {
        Some((0, value)) => {
            let x = call.value(0)?;
            one(call.emit(Op::DivScalar(DivScalar { value }), &[x])?)
        }
        Some((_, number)) => {
            let x = call.value(1)?;
            let inverse = call.emit(Op::Recip(Recip), &[x])?;
            one(call.times(inverse, number)?)
        }
        None => {
            let pair = both(call)?;
            one(call.emit(Op::Div(Div), &pair)?)
        }
    }
}

/// a - b floor(a / b), with the sign of b; with `fmod`, a - b trunc(a / b), with the sign of a.
pub(super) fn remainder(call: &mut Call<'_, '_>) -> Results {
    let [a, b] = both(call)?;
    let step = if call.attributes().int("fmod", 0) != 0 { StepFunction::Trunc } else { StepFunction::Floor };
    let quotient = call.emit(Op::Div(Div), &[a, b])?;
    let whole = call.emit(Op::Step(step), &[quotient])?;
    let times = call.mul(whole, b)?;
    one(call.emit(Op::Sub(Sub), &[a, times])?)
}

/// x^p, or b^x = exp(x ln b).
pub(super) fn pow(call: &mut Call<'_, '_>) -> Results {
    if let Some(exponent) = call.number(1).ok().flatten() {
        let x = call.value(0)?;
        let ranks = [call.rank(0)?, call.rank(1)?];
        let x = call.of_rank(x, ranks[0].max(ranks[1]))?;
        return one(match exponent {
            1.0 => x,
            2.0 => call.mul(x, x)?,
            _ => call.emit(Op::Power(Power { exponent }), &[x])?,
        });
    }
    match call.literal_number(0) {
        Some(base) if base > 0.0 => {
            let x = call.value(1)?;
            let scaled = call.times(x, base.ln())?;
            one(call.emit(Op::Exp(Exp), &[scaled])?)
        }
        _ => {
            let pair = both(call)?;
            one(call.emit(Op::Pow(Pow), &pair)?)
        }
    }
}

/// The first operand, combined with each further one in turn.
fn joined(
    call: &mut Call<'_, '_>,
    join: fn(&mut Call<'_, '_>, ValueId, usize) -> Result<ValueId, Refusal>,
) -> Result<ValueId, Refusal> {
    let first = call.value(0)?;
    (1..call.operands.len()).try_fold(first, |all, position| join(call, all, position))
}

fn and_added(call: &mut Call<'_, '_>, all: ValueId, position: usize) -> Result<ValueId, Refusal> {
    let next = call.value(position)?;
    let [all, next] = call.alike([all, next])?;
    call.add(all, next)
}

pub(super) fn sum(call: &mut Call<'_, '_>) -> Results {
    one(joined(call, and_added)?)
}

pub(super) fn mean(call: &mut Call<'_, '_>) -> Results {
    let sum = joined(call, and_added)?;
    let value = call.operands.len() as f64;
    one(call.emit(Op::DivScalar(DivScalar { value }), &[sum])?)
}

/// The larger or smaller of two: a clamp where one is a number, else a selection by a comparison.
fn extremum(
    call: &mut Call<'_, '_>,
    all: ValueId,
    position: usize,
    smallest: bool,
) -> Result<ValueId, Refusal> {
    let bound = call.literal_number(position);
    if let Some(bound) = bound.filter(|_| call.rank(position).is_ok_and(|r| r <= call.shape(all).len())) {
        let (min, max) = if smallest { (None, Some(bound)) } else { (Some(bound), None) };
        return call.emit(Op::Clamp(Clamp { min, max }), &[all]);
    }
    let next = call.value(position)?;
    let [a, b] = call.alike([all, next])?;
    let relation = if smallest { Relation::Above } else { Relation::Below };
    let other = call.emit(Op::ComparePair(ComparePair { relation }), &[a, b])?;
    call.emit(Op::MaskWhere(MaskWhere), &[a, other, b])
}

pub(super) fn max(call: &mut Call<'_, '_>) -> Results {
    numbers_last(call);
    one(joined(call, |call, all, position| extremum(call, all, position, false))?)
}

pub(super) fn min(call: &mut Call<'_, '_>) -> Results {
    numbers_last(call);
    one(joined(call, |call, all, position| extremum(call, all, position, true))?)
}

/// Moves known tensors after the values, where single numbers become bounds.
fn numbers_last(call: &mut Call<'_, '_>) {
    call.operands.sort_by_key(|operand| matches!(operand, Some(Binding::Known(_))));
}
