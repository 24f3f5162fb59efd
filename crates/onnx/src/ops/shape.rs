//! Constants, and shapes as numbers.

use influence_autodiff::graph::Size;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::layout::Fill;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::host::Host;
use crate::import::Operand;
use crate::table::{Element, Table};

/// A constant that stands in the node.
pub(super) fn constant(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let list = |element, values: Vec<f64>| Table { shape: vec![values.len()], element, values };
    let table = if let Some(table) = attributes.table("value")? {
        table
    } else if let Some(attribute) = attributes.get("value_float").and_then(|a| a.f) {
        Table::scalar(Element::Float, f64::from(attribute))
    } else if let Some(attribute) = attributes.get("value_int").and_then(|a| a.i) {
        Table::scalar(Element::Int, attribute as f64)
    } else if let Some(values) = attributes.floats("value_floats") {
        list(Element::Float, values)
    } else if let Some(values) = attributes.ints("value_ints") {
        list(Element::Int, values.into_iter().map(|value| value as f64).collect())
    } else {
        return Err(Refusal::new("it holds no dense tensor of numbers", "export with dense constants"));
    };
    Ok(vec![Operand::Known(Host::fixed(table))])
}

/// The most elements of one number: more than any layer's weights have, and within a machine's memory.
const MOST_FILLED: usize = 1 << 28;

/// One number throughout, where it is too large for numbers that are followed here: computed by the
/// engine, in the precision of the run.
pub(super) fn filled(call: &mut Call<'_, '_>) -> Results {
    let shape = call.ints(0)?.ok_or("it has no shape")?;
    let shape: Option<Vec<Size>> = shape.iter().map(|&size| usize::try_from(size).ok().map(fixed)).collect();
    let shape = shape.ok_or("its shape has a negative size")?;
    let elements = shape.iter().try_fold(1_usize, |all, size| all.checked_mul(size.fixed));
    if elements.is_none_or(|elements| elements > MOST_FILLED) {
        return Err(format!("it fills more than {MOST_FILLED} elements").into());
    }
    let value = match call.attributes().table("value")? {
        Some(table) => table.only().ok_or("its value is no single number")?,
        None => 0.0,
    };
    one(call.emit_of(Op::Fill(Fill { value }), &[], &shape)?)
}

/// The shape of a value, at each batch size.
fn sizes(call: &mut Call<'_, '_>, batch: usize) -> Result<Vec<usize>, Refusal> {
    let x = call.value(0)?;
    Ok(call.shape_at(x, batch))
}

pub(super) fn shape(call: &mut Call<'_, '_>) -> Results {
    let all = [sizes(call, 0)?, sizes(call, 1)?, sizes(call, 2)?];
    let part = crate::host::part(call.attributes(), all[0].len());
    let host = Host::varying(|batch| Ok(Table::list(all[batch][part.clone()].iter().copied())))?;
    Ok(vec![Operand::Known(host)])
}

pub(super) fn size(call: &mut Call<'_, '_>) -> Results {
    let all = [sizes(call, 0)?, sizes(call, 1)?, sizes(call, 2)?];
    let count = |batch: usize| all[batch].iter().product::<usize>() as f64;
    let host = Host::varying(|batch| Ok(Table::scalar(Element::Int, count(batch))))?;
    Ok(vec![Operand::Known(host)])
}
