//! Operators computed on known tensors at import.
//!
//! Exporters write arithmetic on shapes into the graph: the size of an axis, halved and
//! concatenated with others, becomes the target of a reshape. Such nodes are computed here, once
//! for each of three batch sizes ([`BATCHES`]), and do not become part of the graph.

use std::sync::Arc;

use crate::error::Refusal;
use crate::known::{ElementKind, KnownTensor, MOST_ELEMENTS, axis, broadcast};
use crate::node::Attributes;

/// The batch sizes at which known tensors are followed. A size that is a line through the first two
/// must lie on it at the third, so that a rounded size (half a batch) is not taken for a constant.
const BATCHES: [usize; 3] = [2, 3, 7];

/// One of the followed batch sizes: an index into [`BATCHES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BatchId(usize);

impl BatchId {
    pub(crate) const FIRST: Self = Self(0);
    pub(crate) const ALL: [Self; 3] = [Self(0), Self(1), Self(2)];

    /// The index in [`BATCHES`].
    pub(crate) fn index(self) -> usize {
        self.0
    }

    /// The batch size.
    pub(crate) fn size(self) -> usize {
        BATCHES[self.0]
    }
}

/// The results of `at` for all followed batch sizes.
pub(crate) fn each_batch<T>(mut at: impl FnMut(BatchId) -> Result<T, Refusal>) -> Result<[T; 3], Refusal> {
    let [first, second, third] = BatchId::ALL;
    Ok([at(first)?, at(second)?, at(third)?])
}

/// A known tensor, at each of [`BATCHES`].
#[derive(Debug, Clone)]
pub(crate) struct Host([Arc<KnownTensor>; 3]);

impl Host {
    /// A tensor that does not depend on the batch.
    pub(crate) fn fixed(tensor: KnownTensor) -> Self {
        let tensor = Arc::new(tensor);
        Self([Arc::clone(&tensor), Arc::clone(&tensor), tensor])
    }

    /// The tensor that `at` gives at each batch size.
    pub(crate) fn varying(at: impl Fn(BatchId) -> Result<KnownTensor, Refusal>) -> Result<Self, Refusal> {
        let [first, second, third] = each_batch(at)?;
        if first == second && first == third {
            return Ok(Self::fixed(first));
        }
        Ok(Self([Arc::new(first), Arc::new(second), Arc::new(third)]))
    }

    /// The tensor at one of the followed batch sizes.
    pub(crate) fn at(&self, batch: BatchId) -> &KnownTensor {
        &self.0[batch.index()]
    }

    /// The tensor, where it does not depend on the batch.
    pub(crate) fn constant(&self) -> Option<&Arc<KnownTensor>> {
        let [first, second, third] = &self.0;
        let same = Arc::ptr_eq(first, second) && Arc::ptr_eq(first, third);
        (same || (first == second && first == third)).then_some(first)
    }
}

/// The results of an operator on known operands; `None` for operators that are not computed here.
pub(crate) fn fold(
    op: &str,
    inputs: &[Option<Host>],
    attributes: Attributes<'_>,
) -> Option<Result<Vec<Host>, Refusal>> {
    let run = evaluator(op)?;
    // A tensor that is too large to be held is filled by the engine.
    if op == "ConstantOfShape" && inputs.first()?.as_ref()?.constant().is_some_and(|shape| is_large(shape)) {
        return None;
    }
    // Operands that do not depend on the batch need one run.
    let same = inputs.iter().flatten().all(|host| host.constant().is_some());
    let at = |batch: BatchId| {
        let inputs: Vec<_> = inputs.iter().map(|host| host.as_ref().map(|host| host.at(batch))).collect();
        run(&Operands { inputs: &inputs, attributes })
    };
    let all = || {
        if same {
            return Ok(at(BatchId::FIRST)?.into_iter().map(Host::fixed).collect());
        }
        let [first, second, third] = each_batch(at)?;
        if second.len() != first.len() || third.len() != first.len() {
            return Err("its number of results depends on the batch".into());
        }
        let all = first.into_iter().zip(second).zip(third);
        Ok(all.map(|((a, b), c)| Host([Arc::new(a), Arc::new(b), Arc::new(c)])).collect())
    };
    Some(all())
}

/// Whether a tensor of this shape has more elements than a known tensor may have.
fn is_large(shape: &KnownTensor) -> bool {
    shape.values.iter().product::<f64>() > MOST_ELEMENTS as f64
}

/// Known operands at one batch size, with the node's attributes.
pub(crate) struct Operands<'a> {
    inputs: &'a [Option<&'a KnownTensor>],
    pub(crate) attributes: Attributes<'a>,
}

impl<'a> Operands<'a> {
    fn optional(&self, position: usize) -> Option<&'a KnownTensor> {
        self.inputs.get(position).copied().flatten()
    }

    fn operand(&self, position: usize) -> Result<&'a KnownTensor, Refusal> {
        self.optional(position).ok_or_else(|| format!("operand {position} is missing").into())
    }

    /// The axes, which are an attribute in older files and an operand in newer ones; none where
    /// there is neither.
    fn axes(&self, rank: usize) -> Result<Option<Vec<usize>>, Refusal> {
        let axes = self.attributes.ints("axes").or_else(|| self.optional(1).map(KnownTensor::ints));
        axes.map(|axes| axes.into_iter().map(|given| axis(given, rank)).collect()).transpose()
    }
}

type Evaluator = fn(&Operands<'_>) -> Result<Vec<KnownTensor>, Refusal>;

/// How an operator is computed; none for operators that are not computed here.
fn evaluator(op: &str) -> Option<Evaluator> {
    Some(match op {
        "Identity" | "Dropout" => |o| Ok(vec![o.operand(0)?.clone()]),
        "Shape" => |o| shape(o),
        "Size" => |o| {
            let size = o.operand(0)?.values.len() as f64;
            Ok(vec![KnownTensor::scalar(ElementKind::Int, size)])
        },
        "Cast" => |o| cast(o),
        "Add" => |o| pairs(o, |a, b| a + b),
        "Sub" => |o| pairs(o, |a, b| a - b),
        "Mul" => |o| pairs(o, |a, b| a * b),
        "Div" => |o| divided(o),
        "Mod" => |o| remainder(o),
        "Pow" => |o| pairs(o, f64::powf),
        "Min" => |o| pairs(o, f64::min),
        "Max" => |o| pairs(o, f64::max),
        "Equal" => |o| relation(o, |a, b| a == b),
        "Greater" => |o| relation(o, |a, b| a > b),
        "GreaterOrEqual" => |o| relation(o, |a, b| a >= b),
        "Less" => |o| relation(o, |a, b| a < b),
        "LessOrEqual" => |o| relation(o, |a, b| a <= b),
        "And" => |o| relation(o, |a, b| a != 0.0 && b != 0.0),
        "Or" => |o| relation(o, |a, b| a != 0.0 || b != 0.0),
        "Xor" => |o| relation(o, |a, b| (a != 0.0) != (b != 0.0)),
        "Not" => |o| each(o, Some(ElementKind::Bool), |a| f64::from(u8::from(a == 0.0))),
        "Neg" => |o| each(o, None, |a| -a),
        "Abs" => |o| each(o, None, f64::abs),
        "Sign" => |o| each(o, None, |a| if a == 0.0 { 0.0 } else { a.signum() }),
        "Floor" => |o| each(o, None, f64::floor),
        "Ceil" => |o| each(o, None, f64::ceil),
        "Round" => |o| each(o, None, f64::round_ties_even),
        "Sqrt" => |o| each(o, None, f64::sqrt),
        "Exp" => |o| each(o, None, f64::exp),
        "Log" => |o| each(o, None, f64::ln),
        "Sin" => |o| each(o, None, f64::sin),
        "Cos" => |o| each(o, None, f64::cos),
        "Reciprocal" => |o| each(o, None, f64::recip),
        "Where" => |o| chosen(o),
        "Gather" => |o| gather(o),
        "Concat" => |o| concatenated(o),
        "Range" => |o| range(o),
        "Unsqueeze" => |o| unsqueezed(o),
        "Squeeze" => |o| squeezed(o),
        "Reshape" => |o| reshaped(o),
        "Flatten" => |o| flattened(o),
        "Transpose" => |o| transposed(o),
        "Slice" => |o| sliced(o),
        "Expand" => |o| expanded(o),
        "Tile" => |o| tiled(o),
        "ConstantOfShape" => |o| filled(o),
        "Trilu" => |o| triangle(o),
        "ReduceProd" => |o| reduced(o, 1.0, |a, b| a * b),
        "ReduceSum" => |o| reduced(o, 0.0, |a, b| a + b),
        "ReduceMax" => |o| reduced(o, f64::NEG_INFINITY, f64::max),
        "ReduceMin" => |o| reduced(o, f64::INFINITY, f64::min),
        "CumSum" => |o| cumulated(o),
        "NonZero" => |o| nonzero(o),
        _ => return None,
    })
}

fn each(
    o: &Operands<'_>,
    element: Option<ElementKind>,
    f: fn(f64) -> f64,
) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let values = a.values.iter().map(|&a| f(a)).collect();
    let element = element.unwrap_or(a.element);
    Ok(vec![KnownTensor { shape: a.shape.clone(), element, values }])
}

fn zipped(
    a: &KnownTensor,
    b: &KnownTensor,
    element: ElementKind,
    f: impl Fn(f64, f64) -> f64,
) -> Result<KnownTensor, Refusal> {
    let shape = broadcast(&a.shape, &b.shape)?;
    KnownTensor::build(&shape, element, |index| f(a.at(index), b.at(index)))
}

/// A binary operator, or its fold over any number of operands.
fn pairs(o: &Operands<'_>, f: fn(f64, f64) -> f64) -> Result<Vec<KnownTensor>, Refusal> {
    let first = o.operand(0)?.clone();
    let rest = 1..o.inputs.len().max(1);
    let result = rest
        .map(|position| o.operand(position))
        .try_fold(first, |all, next| zipped(&all, next?, all.element, f));
    result.map(|tensor| vec![tensor])
}

fn relation(o: &Operands<'_>, f: fn(f64, f64) -> bool) -> Result<Vec<KnownTensor>, Refusal> {
    let truth = |a, b| f64::from(u8::from(f(a, b)));
    zipped(o.operand(0)?, o.operand(1)?, ElementKind::Bool, truth).map(|tensor| vec![tensor])
}

/// Quotients; those of integers are rounded towards zero.
fn divided(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let (a, b) = (o.operand(0)?, o.operand(1)?);
    if a.element == ElementKind::Int && b.values.contains(&0.0) {
        return Err("an integer is divided by 0".into());
    }
    let whole = a.element == ElementKind::Int;
    let quotient = |a: f64, b: f64| if whole { (a / b).trunc() } else { a / b };
    Ok(vec![zipped(a, b, a.element, quotient)?])
}

/// Remainders with the sign of the divisor, or with `fmod` of the dividend.
fn remainder(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let (a, b) = (o.operand(0)?, o.operand(1)?);
    let of_dividend = o.attributes.int("fmod", 0) != 0;
    if a.element == ElementKind::Int && b.values.contains(&0.0) {
        return Err("an integer is divided by 0".into());
    }
    let rest = |a: f64, b: f64| {
        let rest = a % b;
        if !of_dividend && rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    Ok(vec![zipped(a, b, a.element, rest)?])
}

fn shape(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let shape = &o.operand(0)?.shape;
    Ok(vec![KnownTensor::list(shape[part(o.attributes, shape.len())].iter().copied())])
}

/// The range of a shape that the operator `Shape` gives.
pub(crate) fn part(attributes: Attributes<'_>, rank: usize) -> std::ops::Range<usize> {
    let bound = |name: &str, default: i64| {
        let given = attributes.int(name, default);
        let from_front = if given < 0 { given + rank as i64 } else { given };
        from_front.clamp(0, rank as i64) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank as i64));
    start..end.max(start)
}

fn cast(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let KnownTensor { shape, values, .. } = o.operand(0)?;
    let element = crate::tensor::element(o.attributes.int("to", 1) as i32)
        .ok_or("it casts to a type that is not numeric")?;
    let to = |value: f64| match element {
        ElementKind::Float => value,
        ElementKind::Int => value.trunc(),
        ElementKind::Bool => f64::from(u8::from(value != 0.0)),
    };
    let values = values.iter().map(|&value| to(value)).collect();
    Ok(vec![KnownTensor { shape: shape.clone(), element, values }])
}

fn chosen(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let (mask, a, b) = (o.operand(0)?, o.operand(1)?, o.operand(2)?);
    let shape = broadcast(&broadcast(&mask.shape, &a.shape)?, &b.shape)?;
    let pick = |at: &[usize]| if mask.at(at) != 0.0 { a.at(at) } else { b.at(at) };
    Ok(vec![KnownTensor::build(&shape, a.element, pick)?])
}

fn gather(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let (data, indices) = (o.operand(0)?, o.operand(1)?);
    let along = axis(o.attributes.int("axis", 0), data.shape.len())?;
    let size = data.shape[along] as i64;
    let chosen: Vec<usize> = indices
        .ints()
        .into_iter()
        .map(|index| axis(index, size as usize))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("an index lies outside an axis of {size}"))?;
    // The axes of the indices take the place of the axis that they index.
    let (before, after) = (&data.shape[..along], &data.shape[along + 1..]);
    let shape = [before, &indices.shape, after].concat();
    let rank = indices.shape.len();
    let tensor = KnownTensor::build(&shape, data.element, |at| {
        let own = at[along..along + rank].iter().zip(&indices.shape);
        let flat = own.fold(0, |flat, (&i, &size)| flat * size + i);
        data.at(&[&at[..along], &[chosen[flat]], &at[along + rank..]].concat())
    })?;
    Ok(vec![tensor])
}

fn concatenated(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let tensors: Vec<_> =
        (0..o.inputs.len()).map(|position| o.operand(position)).collect::<Result<_, _>>()?;
    let first = *tensors.first().ok_or("it has no operands")?;
    let along = axis(o.attributes.int("axis", 0), first.shape.len())?;
    let fits = |tensor: &&KnownTensor| {
        tensor.shape.len() == first.shape.len()
            && (0..first.shape.len()).all(|axis| axis == along || tensor.shape[axis] == first.shape[axis])
    };
    if !tensors.iter().all(fits) {
        return Err("its operands do not fit side by side".into());
    }
    let mut shape = first.shape.clone();
    shape[along] = tensors.iter().map(|tensor| tensor.shape[along]).sum();
    let tensor = KnownTensor::build(&shape, first.element, |at| {
        // The operand that holds the index: the sizes of those before it are taken off.
        let mut own = at.to_vec();
        for tensor in &tensors {
            if own[along] < tensor.shape[along] {
                return tensor.at(&own);
            }
            own[along] -= tensor.shape[along];
        }
        0.0
    })?;
    Ok(vec![tensor])
}

fn range(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let number = |position: usize| -> Result<f64, Refusal> {
        o.operand(position)?.only().ok_or_else(|| "its bounds are not single numbers".into())
    };
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / step).ceil().max(0.0);
    if count.is_nan() || count > MOST_ELEMENTS as f64 {
        return Err(format!("it would have {count} elements").into());
    }
    let element = o.operand(0)?.element;
    let values: Vec<_> = (0..count as usize).map(|i| start + i as f64 * step).collect();
    Ok(vec![KnownTensor { shape: vec![values.len()], element, values }])
}

fn unsqueezed(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let given = o.attributes.ints("axes").or_else(|| o.optional(1).map(KnownTensor::ints));
    let shape = crate::shapes::unsqueezed(&a.shape, &given.ok_or("it has no axes")?, 1)?;
    Ok(vec![a.reshaped(shape)?])
}

fn squeezed(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let axes = o.axes(a.shape.len())?;
    let kept = |axis: &usize| match &axes {
        Some(axes) => !axes.contains(axis),
        None => a.shape[*axis] != 1,
    };
    let shape = (0..a.shape.len()).filter(kept).map(|axis| a.shape[axis]).collect();
    Ok(vec![a.reshaped(shape)?])
}

fn reshaped(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let target = match o.attributes.ints("shape") {
        Some(target) => target,
        None => o.operand(1)?.ints(),
    };
    let zero = o.attributes.int("allowzero", 0) != 0;
    Ok(vec![a.reshaped(crate::shapes::target(&a.shape, &target, zero)?)?])
}

fn flattened(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let given = o.attributes.int("axis", 1);
    let rank = a.shape.len();
    let at = if given == rank as i64 { rank } else { axis(given, rank.max(1))? };
    let (rows, columns) = a.shape.split_at(at.min(rank));
    Ok(vec![a.reshaped(vec![rows.iter().product(), columns.iter().product()])?])
}

fn transposed(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let axes = crate::shapes::order(o.attributes.ints("perm"), a.shape.len())?;
    let shape: Vec<_> = axes.iter().map(|&axis| a.shape[axis]).collect();
    let mut source = vec![0; shape.len()];
    let tensor = KnownTensor::build(&shape, a.element, |at| {
        axes.iter().zip(at).for_each(|(&axis, &i)| source[axis] = i);
        a.at(&source)
    })?;
    Ok(vec![tensor])
}

fn sliced(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let part = crate::shapes::SliceBounds::of(
        o.attributes,
        |position| o.optional(position).map(KnownTensor::ints),
        a.shape.len(),
    )?;
    let ranges = part.ranges(&a.shape);
    let shape: Vec<_> = ranges.iter().map(|range| range.count).collect();
    let tensor = KnownTensor::build(&shape, a.element, |at| {
        let source: Vec<_> = at.iter().zip(&ranges).map(|(&i, range)| range.at(i)).collect();
        a.at(&source)
    })?;
    Ok(vec![tensor])
}

fn sizes(tensor: &KnownTensor) -> Result<Vec<usize>, Refusal> {
    let size = |size: i64| usize::try_from(size).map_err(|_| format!("{size} is not a valid size").into());
    tensor.ints().into_iter().map(size).collect()
}

fn expanded(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let shape = broadcast(&a.shape, &sizes(o.operand(1)?)?)?;
    Ok(vec![KnownTensor::build(&shape, a.element, |at| a.at(at))?])
}

fn tiled(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let (a, repeats) = (o.operand(0)?, sizes(o.operand(1)?)?);
    if repeats.len() != a.shape.len() {
        return Err("it does not have one number of copies for each axis".into());
    }
    let shape: Vec<_> = a.shape.iter().zip(&repeats).map(|(size, n)| size.saturating_mul(*n)).collect();
    let tensor = KnownTensor::build(&shape, a.element, |at| {
        let source: Vec<_> = at.iter().zip(&a.shape).map(|(i, size)| i % size).collect();
        a.at(&source)
    })?;
    Ok(vec![tensor])
}

fn filled(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let shape = sizes(o.operand(0)?)?;
    let value = o.attributes.tensor("value")?;
    let (element, value) = match &value {
        Some(tensor) => (tensor.element, tensor.only().ok_or("its value is not a single number")?),
        None => (ElementKind::Float, 0.0),
    };
    Ok(vec![KnownTensor::build(&shape, element, |_| value)?])
}

fn triangle(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let k = o.optional(1).and_then(KnownTensor::only).unwrap_or(0.0);
    let upper = o.attributes.int("upper", 1) != 0;
    let rank = a.shape.len();
    if rank < 2 {
        return Err("it takes matrices".into());
    }
    let tensor = KnownTensor::build(&a.shape, a.element, |at| {
        let above = at[rank - 1] as f64 - at[rank - 2] as f64;
        if if upper { above >= k } else { above <= k } { a.at(at) } else { 0.0 }
    })?;
    Ok(vec![tensor])
}

fn reduced(o: &Operands<'_>, start: f64, f: fn(f64, f64) -> f64) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let axes = match o.axes(a.shape.len())? {
        Some(axes) if !axes.is_empty() => axes,
        _ if o.attributes.int("noop_with_empty_axes", 0) != 0 => return Ok(vec![a.clone()]),
        _ => (0..a.shape.len()).collect(),
    };
    let kept: Vec<_> =
        a.shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    // `build` visits every element; what it builds is not used.
    let mut sums = vec![start; crate::known::elements(&kept)?];
    KnownTensor::build(&a.shape, a.element, |at| {
        let flat = at.iter().zip(&kept).fold(0, |flat, (&i, &size)| flat * size + i.min(size - 1));
        sums[flat] = f(sums[flat], a.at(at));
        0.0
    })?;
    let keep = o.attributes.int("keepdims", 1) != 0;
    let shape = (0..kept.len()).filter(|axis| keep || !axes.contains(axis));
    let shape = shape.map(|axis| kept[axis]).collect();
    Ok(vec![KnownTensor { shape, element: a.element, values: sums }])
}

fn cumulated(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    let along = o.operand(1)?.only().ok_or("its axis is not a single number")?;
    let along = axis(along as i64, a.shape.len())?;
    if o.attributes.int("exclusive", 0) != 0 || o.attributes.int("reverse", 0) != 0 {
        return Err(Refusal::new("reversed and exclusive sums are not supported", "leave them out"));
    }
    let tensor = KnownTensor::build(&a.shape, a.element, |at| {
        let mut source = at.to_vec();
        (0..=at[along])
            .map(|i| {
                source[along] = i;
                a.at(&source)
            })
            .sum()
    })?;
    Ok(vec![tensor])
}

/// The indices of the elements that are not 0, one per column.
fn nonzero(o: &Operands<'_>) -> Result<Vec<KnownTensor>, Refusal> {
    let a = o.operand(0)?;
    // As in `reduced`, only the visits are used.
    let mut columns = Vec::new();
    KnownTensor::build(&a.shape, a.element, |at| {
        if a.at(at) != 0.0 {
            columns.push(at.to_vec());
        }
        0.0
    })?;
    let shape = [a.shape.len(), columns.len()];
    Ok(vec![KnownTensor::build(&shape, ElementKind::Int, |at| columns[at[1]][at[0]] as f64)?])
}
