//! Elements of a value at known places, taken or replaced.
//!
//! Gathers and scatters name elements one by one. Where all names are known, they are a list for each
//! batch size that is followed; it must be the same list for every sample, whatever the batch. Then a
//! value is laid out as `[n, elements of one sample]`, and the operation is a selection along the
//! second axis.

use burn::tensor::TensorData;
use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Add, Mul};
use influence_autodiff::ops::indexing::Select;
use influence_autodiff::ops::layout::{Cat, Fill};

use crate::call::{Call, fixed};
use crate::error::Refusal;
use crate::host::{BATCHES, Host};
use crate::table::{MOST_ELEMENTS, Table};

const SAMPLES_FIRST: Size = Size { per_sample: 1, fixed: 0 };

/// How the elements of a value divide among samples.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    shape: Vec<Size>,
    /// The axis of the samples, if there is one.
    batch: Option<usize>,
    /// How many neighbours along that axis belong to one sample: 1, or more where it holds more than the
    /// samples (`[n s, d]`).
    inner: usize,
}

impl Layout {
    /// That of a shape, in whose axis of samples so many neighbours belong to one.
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

    /// That of a value.
    pub(crate) fn of_value(call: &Call<'_, '_>, x: ValueId) -> Result<Self, Refusal> {
        Self::of(&call.shape(x), call.importer.builder.neighbours(x).unwrap_or(1))
    }

    pub(crate) fn at(&self, n: usize) -> Vec<usize> {
        self.shape.iter().map(|size| size.at(n)).collect()
    }

    /// The sizes of one sample, with what its axis holds beside the samples where that is more than one.
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

    /// The sample of an element, and its place there.
    fn divide(&self, index: &[usize]) -> (usize, usize) {
        let mut sample = 0;
        let place = index.iter().enumerate().fold(0, |flat, (axis, &at)| {
            if Some(axis) == self.batch {
                sample = at / self.inner;
                flat * self.inner + at % self.inner
            } else {
                flat * self.shape[axis].fixed + at
            }
        });
        (sample, place)
    }

    /// A value of this shape as `[rows, elements of one sample]`; one without samples is repeated.
    fn flat(&self, call: &mut Call<'_, '_>, x: ValueId, rows: Size) -> Result<ValueId, Refusal> {
        let count = fixed(self.count());
        let Some(batch) = self.batch else {
            let row = call.reshape(x, &[fixed(1), count])?;
            return call.expand(row, &[rows, count]);
        };
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

/// The batch sizes at which known numbers name elements: in a file of one sample that alone.
fn batches(call: &Call<'_, '_>, names: &Host) -> Vec<(usize, usize)> {
    match call.importer.batch_of_one && names.constant().is_some() {
        true => vec![(1, 0)],
        false => BATCHES.iter().enumerate().map(|(place, &n)| (n, place)).collect(),
    }
}

/// A shape that known numbers have at each batch: in a file of one sample, with the samples on `batch`.
pub(crate) fn named_shape(
    call: &Call<'_, '_>,
    names: &Host,
    batch: Option<usize>,
) -> Result<Vec<Size>, Refusal> {
    let shapes = [0, 1, 2].map(|place| names.at(place).shape.clone());
    let mut shape = super::ops::lines(shapes)?;
    if let Some(axis) = batch.filter(|_| call.importer.batch_of_one)
        && shape.get(axis) == Some(&fixed(1))
    {
        shape[axis] = SAMPLES_FIRST;
    }
    Ok(shape)
}

/// Places of elements in a result and where they come from, by their indices.
pub(crate) type Pairs = Vec<(Vec<usize>, Vec<usize>)>;

/// Why a list of elements is refused.
fn mixes() -> Refusal {
    Refusal::new(
        "it takes elements of other samples, or others from sample to sample",
        "export a network that treats each sample on its own, with a dynamic first axis",
    )
}

/// The pairs of one sample, the same for all: places in `to` and in `from`, which may have no samples.
fn per_sample(
    call: &Call<'_, '_>,
    names: &Host,
    [from, to]: [&Layout; 2],
    pairs: impl Fn(&Table, usize) -> Result<Pairs, Refusal>,
) -> Result<Vec<(usize, usize)>, Refusal> {
    let mut found: Option<Vec<(usize, usize)>> = None;
    for (n, place) in batches(call, names) {
        let mut lists = vec![Vec::new(); if to.batch.is_some() { n } else { 1 }];
        for (target, source) in pairs(names.at(place), n)? {
            let (sample, target) = to.divide(&target);
            let (other, source) = from.divide(&source);
            if from.batch.is_some() && other != sample {
                return Err(mixes());
            }
            lists.get_mut(sample).ok_or_else(mixes)?.push((target, source));
        }
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

/// One row for each sample; one in all where there are none.
fn rows(layout: &Layout) -> Size {
    if layout.batch.is_some() { SAMPLES_FIRST } else { fixed(1) }
}

fn selected(call: &mut Call<'_, '_>, x: ValueId, axis: usize, places: &[usize]) -> Result<ValueId, Refusal> {
    let list: Vec<i64> = places.iter().map(|&place| place as i64).collect();
    let list = call.literal(TensorData::new(list, [places.len()]));
    call.emit(Op::Select(Select { axis }), &[x, list])
}

/// The elements of `x` that `pairs` names for every place of a result.
pub(crate) fn taken(
    call: &mut Call<'_, '_>,
    x: ValueId,
    names: &Host,
    result: &[Size],
    pairs: impl Fn(&Table, usize) -> Result<Pairs, Refusal>,
) -> Result<ValueId, Refusal> {
    let (from, to) = (Layout::of_value(call, x)?, Layout::of(result, 1)?);
    if from.batch.is_some() != to.batch.is_some() {
        return Err(mixes());
    }
    let mut list = per_sample(call, names, [&from, &to], pairs)?;
    list.sort_unstable();
    if list.iter().map(|(target, _)| *target).ne(0..to.count()) {
        return Err("its indices do not fill its result".into());
    }
    let places: Vec<_> = list.into_iter().map(|(_, source)| source).collect();
    let flat = from.flat(call, x, rows(&from))?;
    let chosen = selected(call, flat, 1, &places)?;
    to.unflat(call, chosen)
}

/// What becomes of an element that is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Merge {
    Replace,
    Add,
    Multiply,
}

/// `x` with the elements that `pairs` names replaced by those of `updates`, or joined with them.
pub(crate) fn scattered(
    call: &mut Call<'_, '_>,
    [x, updates]: [ValueId; 2],
    names: &Host,
    merge: Merge,
    pairs: impl Fn(&Table, usize) -> Result<Pairs, Refusal>,
) -> Result<ValueId, Refusal> {
    let (to, from) = (Layout::of_value(call, x)?, Layout::of_value(call, updates)?);
    if to.batch.is_none() && from.batch.is_some() {
        return Err(Refusal::new(
            "it writes into a tensor that has no samples",
            "write into one with a row for each sample (x.new_zeros, torch.zeros_like)",
        ));
    }
    let list = per_sample(call, names, [&from, &to], pairs)?;
    let (count, new) = (to.count(), from.count());
    if count.saturating_add(new) > MOST_ELEMENTS {
        return Err("it names too many elements".into());
    }
    let rows = rows(&to);
    let (mut flat, written) = (to.flat(call, x, rows)?, from.flat(call, updates, rows)?);
    if merge == Merge::Replace {
        let mut places: Vec<_> = (0..count).collect();
        for (target, source) in list {
            if places[target] != target {
                return Err(Refusal::new(
                    "it replaces an element twice, in an order that ONNX leaves open",
                    "add with reduction=\"add\" (index_add and scatter_add from opset 16 on)",
                ));
            }
            places[target] = count + source;
        }
        let both = call.emit(Op::Cat(Cat { axis: 1 }), &[flat, written])?;
        flat = selected(call, both, 1, &places)?;
        return to.unflat(call, flat);
    }
    // An element that is named several times is joined once in each round.
    let (op, neutral) = if merge == Merge::Add { (Op::Add(Add), 0.0) } else { (Op::Mul(Mul), 1.0) };
    let neutral = call.emit_of(Op::Fill(Fill { value: neutral }), &[], &[rows, fixed(1)])?;
    let both = call.emit(Op::Cat(Cat { axis: 1 }), &[written, neutral])?;
    let mut rest = list;
    while !rest.is_empty() {
        let mut places = vec![new; count];
        rest.retain(|&(target, source)| {
            let free = places[target] == new;
            if free {
                places[target] = source;
            }
            !free
        });
        let part = selected(call, both, 1, &places)?;
        flat = call.emit(op.clone(), &[flat, part])?;
    }
    to.unflat(call, flat)
}

/// Every index of a shape, in order.
pub(crate) fn every(shape: &[usize]) -> Result<Vec<Vec<usize>>, Refusal> {
    let count = crate::table::elements(shape)?;
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
