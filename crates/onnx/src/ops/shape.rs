//! Constants, and shapes as known tensors.

use influence_autodiff::graph::Size;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::layout::Fill;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::host::{BatchId, Host};
use crate::import::Binding;
use crate::known::{ElementKind, KnownTensor};

/// The constant in a node's attributes.
pub(super) fn constant(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let list = |element, values: Vec<f64>| KnownTensor { shape: vec![values.len()], element, values };
    let tensor = if let Some(tensor) = attributes.tensor("value")? {
        tensor
    } else if let Some(attribute) = attributes.get("value_float").and_then(|a| a.f) {
        KnownTensor::scalar(ElementKind::Float, f64::from(attribute))
    } else if let Some(attribute) = attributes.get("value_int").and_then(|a| a.i) {
        KnownTensor::scalar(ElementKind::Int, attribute as f64)
    } else if let Some(values) = attributes.floats("value_floats") {
        list(ElementKind::Float, values)
    } else if let Some(values) = attributes.ints("value_ints") {
        list(ElementKind::Int, values.into_iter().map(|value| value as f64).collect())
    } else {
        return Err(Refusal::new("it holds no dense tensor of numbers", "export with dense constants"));
    };
    Ok(vec![Binding::Known(Host::fixed(tensor))])
}

/// The largest number of elements that a node may fill: more than the weights of any layer have,
/// and few enough for a machine's memory (1 GiB in f32).
const MOST_FILLED: usize = 1 << 28;

/// A tensor of equal elements, too many for a known tensor: filled by the engine, in the precision
/// of the run.
pub(super) fn filled(call: &mut Call<'_, '_>) -> Results {
    let shape = call.ints(0)?.ok_or("it has no shape")?;
    let shape: Option<Vec<Size>> = shape.iter().map(|&size| usize::try_from(size).ok().map(fixed)).collect();
    let shape = shape.ok_or("its shape has a negative size")?;
    let elements = shape.iter().try_fold(1_usize, |all, size| all.checked_mul(size.fixed));
    if elements.is_none_or(|elements| elements > MOST_FILLED) {
        return Err(format!("it fills more than {MOST_FILLED} elements").into());
    }
    let value = match call.attributes().tensor("value")? {
        Some(tensor) => tensor.only().ok_or("its value is not a single number")?,
        None => 0.0,
    };
    one(call.emit_of(Op::Fill(Fill { value }), &[], &shape)?)
}

/// The shape of the operand at each of the followed batch sizes.
fn sizes(call: &mut Call<'_, '_>) -> Result<[Vec<usize>; 3], Refusal> {
    let x = call.value(0)?;
    Ok(BatchId::ALL.map(|batch| call.shape_at(x, batch)))
}

pub(super) fn shape(call: &mut Call<'_, '_>) -> Results {
    let all = sizes(call)?;
    let part = crate::host::part(call.attributes(), all[0].len());
    let host =
        Host::varying(|batch| Ok(KnownTensor::list(all[batch.index()][part.clone()].iter().copied())))?;
    Ok(vec![Binding::Known(host)])
}

pub(super) fn size(call: &mut Call<'_, '_>) -> Results {
    let all = sizes(call)?;
    let count = |batch: BatchId| all[batch.index()].iter().product::<usize>() as f64;
    let host = Host::varying(|batch| Ok(KnownTensor::scalar(ElementKind::Int, count(batch))))?;
    Ok(vec![Binding::Known(host)])
}
