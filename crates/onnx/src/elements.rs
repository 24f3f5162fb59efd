//! Elements of a value at known indices, taken or replaced.
//!
//! Gathers and scatters name elements by their indices. Where the indices are known, they give a
//! list of elements at each of the followed batch sizes. The list must be the same for every
//! sample, at every batch size. The value is then reshaped to `[n, elements of one sample]`, and
//! the operation is a selection along the second axis.

use burn::tensor::TensorData;
use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Add, Mul};
use influence_autodiff::ops::indexing::Select;
use influence_autodiff::ops::layout::{Cat, Fill};

use crate::call::{Call, fixed};
use crate::error::Refusal;
use crate::host::{BatchId, Host};
use crate::known::{KnownTensor, MOST_ELEMENTS};

const SAMPLES_FIRST: Size = Size { per_sample: 1, fixed: 0 };

/// The division of a value's elements among samples.
#[derive(Debug, Clone)]
pub(crate) struct SampleLayout {
    shape: Vec<Size>,
    /// The axis of the samples, if there is one.
    batch: Option<usize>,
    /// The number of neighbours along that axis that belong to one sample: more than 1 where it
    /// holds more than the samples (`[n s, d]`).
    inner: usize,
}

impl SampleLayout {
    /// The layout of a shape whose batch axis has `neighbours` elements per sample.
    pub(crate) fn of(shape: &[Size], neighbours: usize) -> Result<Self, Refusal> {
        let mut following = (0..shape.len()).filter(|&axis| shape[axis].per_sample > 0);
        let batch = following.next();
        let whole = |axis: usize| shape[axis] == Size { per_sample: neighbours, fixed: 0 };
        match following.next().is_none() && batch.is_none_or(whole) {
            true => Ok(Self { shape: shape.to_vec(), batch, inner: neighbours }),
            false => Err(Refusal::new(
                "its operand has the samples merged with something else",
                "keep the samples on an axis of their own there",
            )),
        }
    }

    /// The layout of a value.
    pub(crate) fn of_value(call: &Call<'_, '_>, x: ValueId) -> Result<Self, Refusal> {
        Self::of(&call.shape(x), call.importer.builder.neighbours(x).unwrap_or(1))
    }

    pub(crate) fn at(&self, n: usize) -> Vec<usize> {
        self.shape.iter().map(|size| size.at(n)).collect()
    }

    /// The sizes of one sample; where the batch axis holds more than the samples, its part of a
    /// sample is one of them.
    fn sample(&self) -> Vec<Size> {
        let own = |axis: usize| match Some(axis) == self.batch {
            true => (self.inner > 1).then_some(fixed(self.inner)),
            false => Some(self.shape[axis]),
        };
        (0..self.shape.len()).filter_map(own).collect()
    }

    /// The number of elements of one sample.
    fn count(&self) -> usize {
        self.sample().iter().map(|size| size.fixed).product()
    }

    /// The sample of an element, and its flat index within the sample.
    fn divide(&self, index: &[usize]) -> (usize, usize) {
        let mut sample = 0;
        let offset = index.iter().enumerate().fold(0, |flat, (axis, &at)| {
            if Some(axis) == self.batch {
                sample = at / self.inner;
                flat * self.inner + at % self.inner
            } else {
                flat * self.shape[axis].fixed + at
            }
        });
        (sample, offset)
    }

    /// A value of this shape as `[rows, elements of one sample]`; a value without samples is
    /// repeated.
    fn flat(&self, call: &mut Call<'_, '_>, x: ValueId, rows: Size) -> Result<ValueId, Refusal> {
        let count = fixed(self.count());
        let Some(batch) = self.batch else {
            let row = call.reshape(x, &[fixed(1), count])?;
            return call.expand(row, &[rows, count]);
        };
        // The samples on an axis of their own, then first, then all other axes as one.
        let mut apart = self.sample();
        apart.insert(batch, SAMPLES_FIRST);
        let mut order: Vec<_> = (0..apart.len()).filter(|&axis| axis != batch).collect();
        order.insert(0, batch);
        let apart = call.reshape(x, &apart)?;
        let first = call.permute(apart, order)?;
        call.reshape(first, &[SAMPLES_FIRST, count])
    }

    /// `[n, elements of one sample]` as a value of this shape.
    fn unflat(&self, call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Refusal> {
        let Some(batch) = self.batch else { return call.reshape(x, &self.shape) };
        let shape: Vec<_> = std::iter::once(SAMPLES_FIRST).chain(self.sample()).collect();
        let x = call.reshape(x, &shape)?;
        let mut order: Vec<_> = (1..shape.len()).collect();
        order.insert(batch, 0);
        let turned = call.permute(x, order)?;
        call.reshape(turned, &self.shape)
    }
}

/// The batch sizes at which indices are read, and for each the followed size whose indices are read
/// there. Where the file has a batch of 1 and the indices are fixed, they are read only at that
/// size.
fn batches(call: &Call<'_, '_>, names: &Host) -> Vec<(usize, BatchId)> {
    match call.importer.batch_of_one && names.constant().is_some() {
        true => vec![(1, BatchId::FIRST)],
        false => BatchId::ALL.map(|batch| (batch.size(), batch)).to_vec(),
    }
}

/// The shape of a known tensor as a function of the batch size; with a batch of 1 in the file, the
/// samples lie on the axis `batch`.
pub(crate) fn named_shape(
    call: &Call<'_, '_>,
    names: &Host,
    batch: Option<usize>,
) -> Result<Vec<Size>, Refusal> {
    let shapes = BatchId::ALL.map(|batch| names.at(batch).shape.clone());
    let mut shape = super::ops::lines(shapes)?;
    if let Some(axis) = batch.filter(|_| call.importer.batch_of_one)
        && shape.get(axis) == Some(&fixed(1))
    {
        shape[axis] = SAMPLES_FIRST;
    }
    Ok(shape)
}

/// Pairs of indices: of an element in the result, and of the element from which it comes.
pub(crate) type IndexPairs = Vec<(Vec<usize>, Vec<usize>)>;

/// Why a list of elements is refused.
fn mixes() -> Refusal {
    Refusal::new(
        "it takes elements of other samples, or different elements for different samples",
        "export a network that treats each sample on its own, with a dynamic first axis",
    )
}

/// The pairs of one sample, which must be the same for all: flat indices in `to` and in `from`,
/// which may have no samples.
fn per_sample(
    call: &Call<'_, '_>,
    names: &Host,
    [from, to]: [&SampleLayout; 2],
    pairs: impl Fn(&KnownTensor, usize) -> Result<IndexPairs, Refusal>,
) -> Result<Vec<(usize, usize)>, Refusal> {
    let mut found: Option<Vec<(usize, usize)>> = None;
    for (n, batch) in batches(call, names) {
        // At each batch size a list of pairs for each sample of the result, and no pair of two
        // samples.
        let mut lists = vec![Vec::new(); if to.batch.is_some() { n } else { 1 }];
        for (target, source) in pairs(names.at(batch), n)? {
            let (sample, target) = to.divide(&target);
            let (other, source) = from.divide(&source);
            if from.batch.is_some() && other != sample {
                return Err(mixes());
            }
            lists.get_mut(sample).ok_or_else(mixes)?.push((target, source));
        }
        // All lists must be equal, whatever the sample and the batch size.
        for list in lists {
            match &found {
                Some(first) if *first != list => return Err(mixes()),
                Some(_) => {}
                None => found = Some(list),
            }
        }
    }
    Ok(found.unwrap_or_default())
}

/// One row for each sample; a single row where there are no samples.
fn rows(layout: &SampleLayout) -> Size {
    if layout.batch.is_some() { SAMPLES_FIRST } else { fixed(1) }
}

fn selected(call: &mut Call<'_, '_>, x: ValueId, axis: usize, indices: &[usize]) -> Result<ValueId, Refusal> {
    let list: Vec<i64> = indices.iter().map(|&index| index as i64).collect();
    let list = call.literal(TensorData::new(list, [indices.len()]));
    call.emit(Op::Select(Select { axis }), &[x, list])
}

/// The elements of `x` that `pairs` names, one for every element of the result.
pub(crate) fn taken(
    call: &mut Call<'_, '_>,
    x: ValueId,
    names: &Host,
    result: &[Size],
    pairs: impl Fn(&KnownTensor, usize) -> Result<IndexPairs, Refusal>,
) -> Result<ValueId, Refusal> {
    let (from, to) = (SampleLayout::of_value(call, x)?, SampleLayout::of(result, 1)?);
    if from.batch.is_some() != to.batch.is_some() {
        return Err(mixes());
    }
    let mut list = per_sample(call, names, [&from, &to], pairs)?;
    // Sorted, the list must name each element of the result once.
    list.sort_unstable();
    if list.iter().map(|(target, _)| *target).ne(0..to.count()) {
        return Err("its indices do not fill its result".into());
    }
    let sources: Vec<_> = list.into_iter().map(|(_, source)| source).collect();
    let flat = from.flat(call, x, rows(&from))?;
    let chosen = selected(call, flat, 1, &sources)?;
    to.unflat(call, chosen)
}

/// How an update changes the element that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Replace,
    Add,
    Multiply,
}

/// `x` with the elements that `pairs` names replaced by those of `updates`, or combined with them.
pub(crate) fn scattered(
    call: &mut Call<'_, '_>,
    [x, updates]: [ValueId; 2],
    names: &Host,
    merge: Merge,
    pairs: impl Fn(&KnownTensor, usize) -> Result<IndexPairs, Refusal>,
) -> Result<ValueId, Refusal> {
    let (to, from) = (SampleLayout::of_value(call, x)?, SampleLayout::of_value(call, updates)?);
    if to.batch.is_none() && from.batch.is_some() {
        return Err(Refusal::new(
            "it writes into a tensor that has no samples",
            "write into one with a row for each sample (x.new_zeros, torch.zeros_like)",
        ));
    }
    // Flat indices of one sample: of the elements to be written, and of their updates.
    let list = per_sample(call, names, [&from, &to], pairs)?;
    let (count, new) = (to.count(), from.count());
    if count.saturating_add(new) > MOST_ELEMENTS {
        return Err("it names too many elements".into());
    }
    let rows = rows(&to);
    let operands = [to.flat(call, x, rows)?, from.flat(call, updates, rows)?];
    let result = match merge {
        Merge::Replace => replaced(call, operands, &list, count)?,
        Merge::Add => combined(call, operands, list, [count, new], (Op::Add(Add), 0.0))?,
        Merge::Multiply => combined(call, operands, list, [count, new], (Op::Mul(Mul), 1.0))?,
    };
    to.unflat(call, result)
}

/// `flat` `[rows, count]` with the elements of `list` replaced by updates.
fn replaced(
    call: &mut Call<'_, '_>,
    [flat, updates]: [ValueId; 2],
    list: &[(usize, usize)],
    count: usize,
) -> Result<ValueId, Refusal> {
    // Selected from both side by side: each element is that of `flat`, unless it is replaced.
    let mut sources: Vec<_> = (0..count).collect();
    for &(target, source) in list {
        if sources[target] != target {
            return Err(Refusal::new(
                "it replaces an element twice, in an order that ONNX leaves open",
                "add with reduction=\"add\" (index_add and scatter_add from opset 16 on)",
            ));
        }
        sources[target] = count + source;
    }
    let both = call.emit(Op::Cat(Cat { axis: 1 }), &[flat, updates])?;
    selected(call, both, 1, &sources)
}

/// `flat` `[rows, count]`, whose elements of `list` are combined with `new` updates by an operation
/// with a neutral number.
fn combined(
    call: &mut Call<'_, '_>,
    [mut flat, updates]: [ValueId; 2],
    list: Vec<(usize, usize)>,
    [count, new]: [usize; 2],
    (op, neutral): (Op, f64),
) -> Result<ValueId, Refusal> {
    // Each round combines every element with at most one update; elements that are named several
    // times take several rounds. Elements without an update take the neutral number, which comes
    // after the updates.
    let rows = call.shape(flat)[0];
    let neutral = call.emit_of(Op::Fill(Fill { value: neutral }), &[], &[rows, fixed(1)])?;
    let both = call.emit(Op::Cat(Cat { axis: 1 }), &[updates, neutral])?;
    let mut rest = list;
    while !rest.is_empty() {
        let mut sources = vec![new; count];
        rest.retain(|&(target, source)| {
            let free = sources[target] == new;
            if free {
                sources[target] = source;
            }
            !free
        });
        let part = selected(call, both, 1, &sources)?;
        flat = call.emit(op.clone(), &[flat, part])?;
    }
    Ok(flat)
}

/// Every index of a shape, in order.
pub(crate) fn every(shape: &[usize]) -> Result<Vec<Vec<usize>>, Refusal> {
    let count = crate::known::elements(shape)?;
    let index = |mut flat: usize| {
        let mut index = vec![0; shape.len()];
        for axis in (0..shape.len()).rev() {
            index[axis] = flat % shape[axis];
            flat /= shape[axis];
        }
        index
    };
    Ok((0..count).map(index).collect())
}
