//! Constants, and shapes as numbers.

use crate::call::{Call, Results};
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
