//! Gathers and scatters of single elements at known indices.

use influence_autodiff::graph::{Size, ValueId};

use crate::call::{Call, Results, fixed, one};
use crate::elements::{self, IndexPairs, Merge, SampleLayout, every, named_shape};
use crate::error::Refusal;
use crate::host::{BatchId, Host};
use crate::known::{KnownTensor, axis};

/// The known indices of a node.
fn names(call: &Call<'_, '_>) -> Result<Host, Refusal> {
    call.host(1)
        .map_err(|_| {
            Refusal::new(
                "its indices are computed from the input",
                "where the input is token ids, export the network from its embeddings on",
            )
        })?
        .ok_or_else(|| "it has no indices".into())
}

/// An index that may count from the end.
fn counted(index: f64, size: usize) -> Result<usize, Refusal> {
    axis(index as i64, size).map_err(|_| format!("an index lies outside an axis of {size}").into())
}

/// Pairs for indices of the operand's rank, which replace the index along one axis: of the element
/// that is named, and of the index tensor's own element.
fn along(indices: &KnownTensor, axis: usize, shape: &[usize]) -> Result<IndexPairs, Refusal> {
    let named = |at: Vec<usize>| {
        let mut target = at.clone();
        target[axis] = counted(indices.at(&at), shape[axis])?;
        Ok((target, at))
    };
    every(&indices.shape)?.into_iter().map(named).collect()
}

/// Known indices of the operand's rank, and the axis along which they select.
fn of_one_rank(call: &Call<'_, '_>, x: ValueId) -> Result<(Host, usize), Refusal> {
    let (names, rank) = (names(call)?, call.shape(x).len());
    let along = axis(call.attributes().int("axis", 0), rank)?;
    match names.at(BatchId::FIRST).shape.len() == rank {
        true => Ok((names, along)),
        false => Err("its indices do not have the rank of its operand".into()),
    }
}

/// The batch axis.
fn batch_axis(shape: &[Size]) -> Option<usize> {
    shape.iter().position(|size| size.per_sample > 0)
}

pub(super) fn gather_elements(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let (names, axis) = of_one_rank(call, x)?;
    let shape = call.shape(x);
    let result = named_shape(call, &names, batch_axis(&shape))?;
    let from = SampleLayout::of_value(call, x)?;
    let taken = elements::taken(call, x, &names, &result, |indices, n| {
        let pairs = along(indices, axis, &from.at(n))?;
        Ok(pairs.into_iter().map(|(source, target)| (target, source)).collect())
    })?;
    one(taken)
}

/// Slices along the batch axis, at indices that depend on the batch size.
pub(super) fn gather_samples(call: &mut Call<'_, '_>, x: ValueId, axis: usize) -> Results {
    let (names, shape) = (names(call)?, call.shape(x));
    let of_names = named_shape(call, &names, Some(0))?;
    let rank = of_names.len();
    let result = [&shape[..axis], &of_names, &shape[axis + 1..]].concat();
    let (from, to) = (SampleLayout::of_value(call, x)?, SampleLayout::of(&result, 1)?);
    let taken = elements::taken(call, x, &names, &result, |indices, n| {
        let size = from.at(n)[axis];
        let named = |target: Vec<usize>| {
            let index = counted(indices.at(&target[axis..axis + rank]), size)?;
            let source = [&target[..axis], &[index], &target[axis + rank..]].concat();
            Ok((target, source))
        };
        every(&to.at(n))?.into_iter().map(named).collect()
    })?;
    one(taken)
}

/// How updates are combined with the elements that they name.
fn merge(call: &Call<'_, '_>) -> Result<Merge, Refusal> {
    Ok(match call.attributes().word("reduction", "none") {
        "none" => Merge::Replace,
        "add" => Merge::Add,
        "mul" => Merge::Multiply,
        other => {
            let why = format!("its reduction is \"{other}\"");
            return Err(Refusal::new(why, "none, add and mul are supported; gather, and take the extremum"));
        }
    })
}

/// The tensor that is written into, and the updates. Where a file with a batch of 1 has a constant
/// as the former, it is repeated for each sample.
fn operands(call: &mut Call<'_, '_>) -> Result<[ValueId; 2], Refusal> {
    let (x, updates) = (call.value(0)?, call.value(2)?);
    let mut shape = call.shape(x);
    let follows = batch_axis(&call.shape(updates)).is_some() && batch_axis(&shape).is_none();
    if call.importer.batch_of_one && follows && shape.first() == Some(&fixed(1)) {
        shape[0] = Size { per_sample: 1, fixed: 0 };
        return Ok([call.expand(x, &shape)?, updates]);
    }
    Ok([x, updates])
}

pub(super) fn scatter_elements(call: &mut Call<'_, '_>) -> Results {
    let ([x, updates], merge) = (operands(call)?, merge(call)?);
    let (names, axis) = of_one_rank(call, x)?;
    let to = SampleLayout::of_value(call, x)?;
    let pairs = |indices: &KnownTensor, n: usize| along(indices, axis, &to.at(n));
    one(elements::scattered(call, [x, updates], &names, merge, pairs)?)
}

/// Pairs for indices whose last axis names a slice of the operand: of the operand's element, and of
/// the result's. The first `lead` axes are shared by both.
fn by_rows(indices: &KnownTensor, shape: &[usize], lead: usize) -> Result<IndexPairs, Refusal> {
    // A row of indices names the axes after the first `lead`; of the rest everything is taken.
    let (depth, rows) = indices.shape.split_last().ok_or("its indices are one number")?;
    let behind = shape.get(lead + depth..).ok_or("its indices have more axes than its operand")?;
    let mut pairs = Vec::new();
    for row in every(rows)? {
        let mut named = row.get(..lead).ok_or("it has more batch axes than its indices")?.to_vec();
        for (at, &size) in shape[lead..lead + depth].iter().enumerate() {
            named.push(counted(indices.at(&[&row[..], &[at]].concat()), size)?);
        }
        for rest in every(behind)? {
            pairs.push(([&named[..], &rest].concat(), [&row[..], &rest].concat()));
        }
    }
    Ok(pairs)
}

pub(super) fn gather_nd(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let names = names(call)?;
    let lead = usize::try_from(call.attributes().int("batch_dims", 0)).map_err(|_| "no such batch axes")?;
    let (shape, of_names) = (call.shape(x), named_shape(call, &names, Some(0))?);
    let depth = of_names.last().map_or(0, |size| size.fixed);
    let behind = shape.get(lead + depth..).ok_or("its indices have more axes than its operand")?;
    let result = [&of_names[..of_names.len().saturating_sub(1)], behind].concat();
    let from = SampleLayout::of_value(call, x)?;
    let taken = elements::taken(call, x, &names, &result, |indices, n| {
        let pairs = by_rows(indices, &from.at(n), lead)?;
        Ok(pairs.into_iter().map(|(source, target)| (target, source)).collect())
    })?;
    one(taken)
}

pub(super) fn scatter_nd(call: &mut Call<'_, '_>) -> Results {
    let ([x, updates], merge) = (operands(call)?, merge(call)?);
    let names = names(call)?;
    let to = SampleLayout::of_value(call, x)?;
    let pairs = |indices: &KnownTensor, n: usize| by_rows(indices, &to.at(n), 0);
    one(elements::scattered(call, [x, updates], &names, merge, pairs)?)
}
