//! Sums, means and extrema over axes.

use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::Sub;
use influence_autodiff::ops::elementwise::{Abs, Exp, Log, Sqrt};
use influence_autodiff::ops::layout::{Flip, Slice};
use influence_autodiff::ops::reduce::{CumSum, Extremum, Mean, Sum};

use super::activation::difference;
use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::known::axis;

/// The operand, and the axes to reduce: all where none are named.
fn reduced(call: &mut Call<'_, '_>) -> Result<(ValueId, Vec<usize>), Refusal> {
    let x = call.value(0)?;
    let rank = call.shape(x).len();
    let axes = call.axes(1, rank)?.filter(|axes| !axes.is_empty());
    let none = call.attributes().int("noop_with_empty_axes", 0) != 0;
    let mut axes = match axes {
        Some(axes) => axes,
        None if none => vec![],
        None => (0..rank).collect(),
    };
    axes.sort_unstable();
    axes.dedup();
    Ok((x, axes))
}

/// The result; the reduced axes are dropped unless they are to be kept.
fn kept(call: &mut Call<'_, '_>, result: ValueId, axes: &[usize]) -> Results {
    if call.attributes().int("keepdims", 1) != 0 {
        return one(result);
    }
    let shape = call.shape(result);
    let shape: Vec<_> =
        (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    one(call.reshape(result, &shape)?)
}

/// The sum over some axes; the value itself for no axes.
fn summed(call: &mut Call<'_, '_>, x: ValueId, axes: &[usize]) -> Result<ValueId, Refusal> {
    if axes.is_empty() { Ok(x) } else { call.emit(Op::Sum(Sum { axes: axes.to_vec() }), &[x]) }
}

pub(super) fn sum(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    let sum = summed(call, x, &axes)?;
    kept(call, sum, &axes)
}

pub(super) fn mean(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    if axes.is_empty() {
        return one(x);
    }
    let mean = call.emit(Op::Mean(Mean { axes: axes.clone() }), &[x])?;
    kept(call, mean, &axes)
}

fn extremum(call: &mut Call<'_, '_>, smallest: bool) -> Results {
    let (x, axes) = reduced(call)?;
    let result = extreme(call, x, &axes, smallest)?;
    kept(call, result, &axes)
}

fn extreme(call: &mut Call<'_, '_>, x: ValueId, axes: &[usize], smallest: bool) -> Result<ValueId, Refusal> {
    axes.iter().try_fold(x, |x, &axis| call.emit(Op::Extremum(Extremum { axis, smallest }), &[x]))
}

pub(super) fn max(call: &mut Call<'_, '_>) -> Results {
    extremum(call, false)
}

pub(super) fn min(call: &mut Call<'_, '_>) -> Results {
    extremum(call, true)
}

/// The sum of absolute values.
pub(super) fn l1(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    let sizes = call.emit(Op::Abs(Abs), &[x])?;
    let sum = summed(call, sizes, &axes)?;
    kept(call, sum, &axes)
}

fn squares(call: &mut Call<'_, '_>) -> Result<(ValueId, Vec<usize>), Refusal> {
    let (x, axes) = reduced(call)?;
    let square = call.mul(x, x)?;
    Ok((summed(call, square, &axes)?, axes))
}

pub(super) fn sum_square(call: &mut Call<'_, '_>) -> Results {
    let (sum, axes) = squares(call)?;
    kept(call, sum, &axes)
}

/// The root of the sum of squares.
pub(super) fn l2(call: &mut Call<'_, '_>) -> Results {
    let (sum, axes) = squares(call)?;
    let root = call.emit(Op::Sqrt(Sqrt), &[sum])?;
    kept(call, root, &axes)
}

pub(super) fn log_sum(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    let sum = summed(call, x, &axes)?;
    let log = call.emit(Op::Log(Log), &[sum])?;
    kept(call, log, &axes)
}

/// m + ln sum exp(x - m), where m is the maximum; the derivatives through m cancel.
pub(super) fn log_sum_exp(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    let most = extreme(call, x, &axes, false)?;
    let below = difference(call, x, most)?;
    let exponential = call.emit(Op::Exp(Exp), &[below])?;
    let sum = summed(call, exponential, &axes)?;
    let log = call.emit(Op::Log(Log), &[sum])?;
    let result = call.add(log, most)?;
    kept(call, result, &axes)
}

/// The largest number of factors of a product: each takes two operations of the graph.
const MOST_FACTORS: usize = 64;

/// The product over axes, factor by factor.
pub(super) fn product(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = reduced(call)?;
    let mut result = x;
    for &axis in &axes {
        let shape = call.shape(result);
        let size = shape[axis];
        if size.per_sample > 0 || size.fixed > MOST_FACTORS {
            let why = format!("it multiplies more than {MOST_FACTORS} elements, or samples");
            return Err(Refusal::new(why, "add logarithms, and take the exponential"));
        }
        let mut all = None;
        for at in 0..size.fixed {
            let mut ranges = vec![None; shape.len()];
            ranges[axis] = Some([at, at + 1, 1]);
            let factor = call.emit(Op::Slice(Slice { ranges }), &[result])?;
            all = Some(match all {
                None => factor,
                Some(all) => call.mul(all, factor)?,
            });
        }
        result = all.ok_or("it has no factors")?;
    }
    kept(call, result, &axes)
}

/// Cumulative sums along an axis, from either end, inclusive or exclusive.
pub(super) fn cumulative(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let along = call.number(1)?.ok_or("it names no axis")?;
    let along = axis(along as i64, call.shape(x).len())?;
    let (backwards, exclusive) =
        (call.attributes().int("reverse", 0) != 0, call.attributes().int("exclusive", 0) != 0);
    let turned = |call: &mut Call<'_, '_>, x: ValueId| match backwards {
        true => call.emit(Op::Flip(Flip { axes: vec![along] }), &[x]),
        false => Ok(x),
    };
    let x = turned(call, x)?;
    let mut sums = call.emit(Op::CumSum(CumSum { axis: along }), &[x])?;
    if exclusive {
        sums = call.emit(Op::Sub(Sub), &[sums, x])?;
    }
    one(turned(call, sums)?)
}
