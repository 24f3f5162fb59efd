//! Operators that move elements.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::assembly::{Margin, Pad, Repeat};
use influence_autodiff::ops::layout::{Cat, Fill, Flip, Slice};
use influence_autodiff::ops::logic::Indicator;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::host::{BatchId, Host, each_batch};
use crate::import::Binding;
use crate::known::{ElementKind, axis};
use crate::names;
use crate::reread;
use crate::shapes::{self, SliceBounds};
use crate::window::extent;

/// The operand itself.
pub(super) fn identity(call: &mut Call<'_, '_>) -> Results {
    if call.number(2).ok().flatten().is_some_and(|training| training != 0.0) {
        return Err(Refusal::new("it drops elements at random", "export the network in evaluation"));
    }
    Ok(vec![call.operand(0).cloned().ok_or("it has no operand")?])
}

/// Casts between floats have no effect, because the precision of the run is used throughout; a mask
/// becomes floats.
pub(super) fn cast(call: &mut Call<'_, '_>) -> Results {
    let to = call.attributes().get("to").and_then(|attribute| attribute.i);
    let element = to.map_or(Some(ElementKind::Float), |to| crate::tensor::element(to as i32));
    if let Some(Binding::Weight(_)) = call.operand(0)
        && element == Some(ElementKind::Float)
    {
        return identity(call);
    }
    let x = call.value(0)?;
    match (call.is_mask(x), element) {
        (true, Some(ElementKind::Float | ElementKind::Int)) => {
            one(call.emit(Op::Indicator(Indicator), &[x])?)
        }
        (false, Some(ElementKind::Float)) | (true, Some(ElementKind::Bool)) => one(x),
        _ => Err(Refusal::new(
            "it makes whole numbers of values that depend on the input, which have no derivative",
            "where the input is token ids, export the network from its embeddings on",
        )),
    }
}

pub(super) fn concat(call: &mut Call<'_, '_>) -> Results {
    let along = axis(call.attributes().int("axis", 1), call.rank(0)?)?;
    let mut values: Vec<_> =
        (0..call.operands.len()).map(|position| call.value(position)).collect::<Result<_, _>>()?;
    if call.importer.batch_of_one {
        reread::together(call, &mut values, along)?;
    }
    match values[..] {
        [only] => one(only),
        _ => one(call.emit(Op::Cat(Cat { axis: along }), &values)?),
    }
}

pub(super) fn reshape(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let zero = call.attributes().int("allowzero", 0) != 0;
    let target = match call.attributes().ints("shape") {
        Some(target) => Host::fixed(crate::known::KnownTensor {
            shape: vec![target.len()],
            element: ElementKind::Int,
            values: target.into_iter().map(|size| size as f64).collect(),
        }),
        None => call.host(1)?.ok_or("it has no target")?,
    };
    let from = call.shape(x);
    let neighbours = call.importer.builder.neighbours(x).unwrap_or(1);
    if call.importer.batch_of_one
        && let Some(target) = target.constant()
        && let Some(shape) = reread::target(&from, neighbours, &target.ints(), zero)?
    {
        return one(call.reshape(x, &shape)?);
    }
    let at = |batch: BatchId| shapes::target(&call.shape_at(x, batch), &target.at(batch).ints(), zero);
    let shape = lines(each_batch(at)?)?;
    one(call.reshape(x, &shape)?)
}

/// Shapes at the followed batch sizes, as one shape of lines in the batch size.
pub(crate) fn lines(at: [Vec<usize>; 3]) -> Result<Vec<Size>, Refusal> {
    let [first, second, third] = &at;
    let [from, _, to] = BatchId::ALL.map(BatchId::size);
    let line = |axis: usize| {
        let per_sample = second[axis].checked_sub(first[axis])?;
        let size = Size { per_sample, fixed: first[axis].checked_sub(per_sample * from)? };
        (size.at(to) == third[axis]).then_some(size)
    };
    let same = first.len() == second.len() && first.len() == third.len();
    let lines = same.then(|| (0..first.len()).map(line).collect::<Option<_>>()).flatten();
    lines.ok_or_else(|| {
        let why = format!(
            "it asks for the shapes {first:?}, {second:?} and {third:?} for 2, 3 and 7 samples, which \
             do not grow with the batch"
        );
        Refusal::new(why, "export with a dynamic first axis, or a batch of 1")
    })
}

pub(super) fn flatten(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let (shape, given) = (call.shape(x), call.attributes().int("axis", 1));
    let at = if given == shape.len() as i64 { shape.len() } else { axis(given, shape.len())? };
    let merged = |batch: BatchId| {
        let sizes = call.shape_at(x, batch);
        let (rows, columns) = sizes.split_at(at);
        vec![rows.iter().product(), columns.iter().product()]
    };
    let shape = lines(BatchId::ALL.map(merged))?;
    one(call.reshape(x, &shape)?)
}

pub(super) fn squeeze(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let axes = match call.axes(1, shape.len())? {
        Some(axes) => axes,
        None => (0..shape.len()).filter(|&axis| shape[axis] == fixed(1)).collect(),
    };
    if axes.iter().any(|&axis| shape[axis] != fixed(1)) {
        return Err("it drops an axis that is not of size 1".into());
    }
    let kept = (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]);
    let shape: Vec<_> = kept.collect();
    one(call.reshape(x, &shape)?)
}

pub(super) fn unsqueeze(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let axes = call.listed("axes", 1)?.ok_or("it has no axes")?;
    let shape = shapes::unsqueezed(&call.shape(x), &axes, fixed(1))?;
    one(call.reshape(x, &shape)?)
}

pub(super) fn transpose(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let axes = shapes::order(call.attributes().ints("perm"), call.shape(x).len())?;
    one(call.permute(x, axes)?)
}

/// A constant of equal elements that a file with a batch of 1 expands to a shape of the batch:
/// filled for any batch.
fn of_one_sample(call: &mut Call<'_, '_>, target: &Host) -> Result<Option<ValueId>, Refusal> {
    let constant = match call.operand(0) {
        Some(Binding::Known(_)) => true,
        Some(&Binding::Weight(id)) => names::is_generated(&call.importer.weights[id.index()].name),
        _ => false,
    };
    if !call.importer.batch_of_one || !constant {
        return Ok(None);
    }
    let Some(Ok(tensor)) = call.constant(0).transpose() else { return Ok(None) };
    let Some(&value) = tensor.values.first() else { return Ok(None) };
    let uniform = tensor.element == ElementKind::Float && tensor.values.iter().all(|&x| x == value);
    let sizes =
        |batch: BatchId| target.at(batch).ints().into_iter().map(|size| size.max(0) as usize).collect();
    let Ok(shape) = lines(BatchId::ALL.map(sizes)) else { return Ok(None) };
    let alone: Vec<_> = shape.iter().map(|size| size.at(1)).collect();
    let fits = crate::known::broadcast(&tensor.shape, &alone).is_ok_and(|all| all == alone);
    if !uniform || !fits || shape.iter().all(|size| size.per_sample == 0) {
        return Ok(None);
    }
    Ok(Some(call.emit_of(Op::Fill(Fill { value }), &[], &shape)?))
}

pub(super) fn expand(call: &mut Call<'_, '_>) -> Results {
    let target = call.host(1)?.ok_or("it has no shape")?;
    if let Some(filled) = of_one_sample(call, &target)? {
        return one(filled);
    }
    let x = call.value(0)?;
    let at = |batch: BatchId| {
        let sizes: Option<Vec<_>> =
            target.at(batch).ints().into_iter().map(|size| usize::try_from(size).ok()).collect();
        let sizes = sizes.ok_or("a size is negative")?;
        let own = call.shape_at(x, batch);
        crate::known::broadcast(&own, &sizes)
    };
    // In an expansion 1 keeps an axis as it is, so a target with a batch of 1 is right for any
    // batch.
    let shape = lines(each_batch(at)?)?;
    one(call.expand(x, &shape)?)
}

/// Copies along each axis; their number may be that of the samples.
pub(super) fn tile(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let repeats = call.host(1)?.ok_or("it has no numbers of copies")?;
    let counts =
        BatchId::ALL.map(|batch| repeats.at(batch).values.iter().map(|&x| x.max(0.0) as usize).collect());
    let counts = lines(counts)?;
    if counts.len() != call.shape(x).len() {
        return Err("it does not have one number of copies for each axis".into());
    }
    let mut result = x;
    for (axis, count) in counts.into_iter().enumerate().filter(|(_, count)| *count != fixed(1)) {
        let mut shape = call.shape(result);
        shape[axis] = times(shape[axis], count)?;
        result = match call.shape(result)[axis] == fixed(1) {
            true => call.expand(result, &shape)?,
            false => call.emit_of(Op::Repeat(Repeat { axis }), &[result], &shape)?,
        };
    }
    one(result)
}

/// The product of two sizes, of which at most one depends on the batch.
pub(crate) fn times(a: Size, b: Size) -> Result<Size, Refusal> {
    let (size, number) = match (a.per_sample, b.per_sample) {
        (_, 0) => (a, b.fixed),
        (0, _) => (b, a.fixed),
        _ => return Err("two of its axes grow with the batch".into()),
    };
    let product = |size: usize| size.checked_mul(number).ok_or("one of its axes is too long");
    Ok(Size { per_sample: product(size.per_sample)?, fixed: product(size.fixed)? })
}

/// A regular part; axes with negative steps are flipped first.
pub(super) fn slice(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let operands: Vec<_> = (0..5)
        .map(|position| if position == 0 { Ok(None) } else { call.host(position) })
        .collect::<Result<_, _>>()?;
    // Bounds may depend on the batch only where they take all of the batch axis.
    let at = |batch: BatchId| {
        let bound = |position: usize| operands[position].as_ref().map(|host| host.at(batch).ints());
        Ok::<_, Refusal>(
            SliceBounds::of(call.attributes(), bound, shape.len())?.ranges(&call.shape_at(x, batch)),
        )
    };
    let all = each_batch(at)?;
    let mut ranges = vec![None; shape.len()];
    let mut backwards = Vec::new();
    for axis in 0..shape.len() {
        let range = all[0][axis];
        // An axis that is taken whole at every batch size may be the batch axis; at most it is
        // reversed.
        let whole = |batch: BatchId| {
            let (range, size) = (all[batch.index()][axis], call.shape_at(x, batch)[axis]);
            range.count == size && range.step.abs() == 1
        };
        if BatchId::ALL.into_iter().all(whole) {
            if range.step < 0 {
                backwards.push(axis);
            }
            continue;
        }
        if shape[axis].per_sample > 0 || all.iter().any(|ranges| ranges[axis] != range) {
            return Err(Refusal::new(
                "it cuts the batch axis, or another axis by the batch size",
                "export a network that treats each sample on its own",
            ));
        }
        // The engine's slices have positive steps. An axis with a negative one is flipped first,
        // and the start counted from its other end.
        let (size, step) = (shape[axis].fixed, range.step.unsigned_abs() as usize);
        let start = if range.step < 0 { size - 1 - range.start } else { range.start };
        if range.step < 0 {
            backwards.push(axis);
        }
        // The end is right after the last element that is taken.
        let end = start + range.count.saturating_sub(1) * step + usize::from(range.count > 0);
        ranges[axis] = Some([start, end, step]);
    }
    let x = if backwards.is_empty() { x } else { call.emit(Op::Flip(Flip { axes: backwards }), &[x])? };
    match ranges.iter().all(Option::is_none) {
        true => one(x),
        false => one(call.emit(Op::Slice(Slice { ranges }), &[x])?),
    }
}

/// Parts along an axis: of given sizes, or equal ones.
pub(super) fn split(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let along = axis(call.attributes().int("axis", 0), shape.len())?;
    if shape[along].per_sample > 0 {
        return Err(Refusal::new("it divides the samples", "export a network for one batch"));
    }
    let (size, outputs) = (shape[along].fixed, call.node.output.len());
    let parts: Vec<usize> = match call.listed("split", 1)? {
        Some(parts) => parts
            .into_iter()
            .map(|part| usize::try_from(part).map_err(|_| "a part has no size"))
            .collect::<Result<_, _>>()?,
        None => {
            // Equal parts, rounded up; the last ones may be smaller.
            let part = size.div_ceil(outputs.max(1));
            (0..outputs).map(|i| part.min(size.saturating_sub(i * part))).collect()
        }
    };
    if parts.len() != outputs || parts.iter().sum::<usize>() != size {
        return Err(format!("parts {parts:?} do not make up an axis of {size}").into());
    }
    let mut start = 0;
    let mut results = Vec::new();
    for part in parts {
        let mut ranges = vec![None; shape.len()];
        ranges[along] = Some([start, start + part, 1]);
        results.push(Binding::Value(call.emit(Op::Slice(Slice { ranges }), &[x])?));
        start += part;
    }
    Ok(results)
}

/// Zeros before and after one axis.
pub(super) fn margin(
    call: &mut Call<'_, '_>,
    x: ValueId,
    axis: usize,
    before: usize,
    after: usize,
) -> Result<ValueId, Refusal> {
    let mut padding = vec![(0, 0); call.shape(x).len()];
    padding[axis] = (before, after);
    call.emit(Op::Pad(Pad { padding, margin: Margin::Constant(0.0) }), &[x])
}

pub(super) fn pad(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let rank = call.shape(x).len();
    let widths = call.listed("pads", 1)?.or(call.attributes().ints("paddings"));
    let widths = widths.ok_or("it has no widths")?;
    // First all widths before the axes, then all after them.
    let axes = match call.ints(3)? {
        Some(axes) => axes.into_iter().map(|given| axis(given, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).collect::<Vec<_>>(),
    };
    if let Some(width) = widths.iter().find(|width| extent(width.saturating_abs()).is_none()) {
        return Err(format!("its width {width} is larger than a tensor may be").into());
    }
    if widths.len() != 2 * axes.len() {
        return Err(format!("{} widths do not fit {} axes", widths.len(), axes.len()).into());
    }
    let value = match call.attributes().get("value").and_then(|attribute| attribute.f) {
        Some(value) => f64::from(value),
        None => call.number(2)?.unwrap_or(0.0),
    };
    let margin = match call.attributes().word("mode", "constant") {
        "constant" => Margin::Constant(value),
        "reflect" => Margin::Reflect,
        "edge" => Margin::Edge,
        other => {
            let why = format!("its mode is \"{other}\"");
            return Err(Refusal::new(why, "constant, reflect and edge are supported"));
        }
    };
    // Negative widths cut elements off. They are cut first, and the rest is padded.
    let mut padding = vec![(0, 0); rank];
    let mut ranges = vec![None; rank];
    for (position, &axis) in axes.iter().enumerate() {
        let (before, after) = (widths[position], widths[position + axes.len()]);
        let width = |width: i64| width.max(0) as usize;
        padding[axis] = (width(before), width(after));
        let (first, last) = (width(before.saturating_neg()), width(after.saturating_neg()));
        if first + last > 0 {
            let size = call.shape(x)[axis];
            let end = size.fixed.checked_sub(last).filter(|&end| end > first && size.per_sample == 0);
            ranges[axis] = Some([first, end.ok_or("it cuts off more than there is")?, 1]);
        }
    }
    let cut = match ranges.iter().all(Option::is_none) {
        true => x,
        false => call.emit(Op::Slice(Slice { ranges }), &[x])?,
    };
    match padding.iter().all(|&widths| widths == (0, 0)) {
        true => one(cut),
        false => one(call.emit(Op::Pad(Pad { padding, margin }), &[cut])?),
    }
}

/// An image operand, its batch size, and the size of blocks, channels, height and width.
fn blocks(call: &mut Call<'_, '_>) -> Result<(ValueId, Size, [usize; 4]), Refusal> {
    let x = call.value(0)?;
    let block = usize::try_from(call.attributes().int("blocksize", 0)).unwrap_or(0);
    match call.sample(x)?[..] {
        [c, h, w] if block > 0 => Ok((x, call.shape(x)[0], [block, c, h, w])),
        _ => Err("it takes images, and blocks of at least 1".into()),
    }
}

pub(super) fn depth_to_space(call: &mut Call<'_, '_>) -> Results {
    let (x, n, [b, c, h, w]) = blocks(call)?;
    if c % (b * b) != 0 {
        return Err(format!("{c} channels do not fall into blocks of {b} x {b}").into());
    }
    let depth = c / (b * b);
    // The channels fall into a depth and a position in the block: the block first (DCR), or the
    // depth (CRD).
    let (split, order) = match call.attributes().word("mode", "DCR") {
        "DCR" => ([b, b, depth, h, w], vec![0, 3, 4, 1, 5, 2]),
        "CRD" => ([depth, b, b, h, w], vec![0, 1, 4, 2, 5, 3]),
        other => return Err(format!("there is no mode \"{other}\"").into()),
    };
    let with = |sizes: &[usize]| -> Vec<Size> {
        std::iter::once(n).chain(sizes.iter().map(|&size| fixed(size))).collect()
    };
    let apart = call.reshape(x, &with(&split))?;
    let turned = call.permute(apart, order)?;
    one(call.reshape(turned, &with(&[depth, h * b, w * b]))?)
}

pub(super) fn space_to_depth(call: &mut Call<'_, '_>) -> Results {
    let (x, n, [b, c, h, w]) = blocks(call)?;
    if h % b != 0 || w % b != 0 {
        return Err(format!("{h} x {w} positions do not fall into blocks of {b} x {b}").into());
    }
    let with = |sizes: &[usize]| -> Vec<Size> {
        std::iter::once(n).chain(sizes.iter().map(|&size| fixed(size))).collect()
    };
    let order = match call.attributes().word("mode", "DCR") {
        "DCR" => vec![0, 3, 5, 1, 2, 4],
        "CRD" => vec![0, 1, 3, 5, 2, 4],
        other => return Err(format!("there is no mode \"{other}\"").into()),
    };
    let apart = call.reshape(x, &with(&[c, h / b, b, w / b, b]))?;
    let turned = call.permute(apart, order)?;
    one(call.reshape(turned, &with(&[c * b * b, h / b, w / b]))?)
}
