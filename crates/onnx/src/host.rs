//! Operators carried out on known numbers.
//!
//! Exporters write arithmetic of shapes into the graph: the size of an axis, halved and concatenated
//! with others, becomes the target of a reshape. Such nodes are computed here, once for each of a few
//! batch sizes ([`BATCHES`]), and never become part of the graph.

use std::sync::Arc;

use crate::error::Refusal;
use crate::node::Attributes;
use crate::table::{Element, MOST_ELEMENTS, Table, axis, broadcast};

/// The batch sizes at which known numbers are followed.
pub(crate) const BATCHES: [usize; 3] = [2, 3, 7];

/// Known numbers, at each of [`BATCHES`].
#[derive(Debug, Clone)]
pub(crate) struct Host([Arc<Table>; 3]);

impl Host {
    /// Numbers that do not depend on the batch.
    pub(crate) fn fixed(table: Table) -> Self {
        let table = Arc::new(table);
        Self([Arc::clone(&table), Arc::clone(&table), table])
    }

    /// Numbers at each batch size.
    pub(crate) fn varying(at: impl Fn(usize) -> Result<Table, Refusal>) -> Result<Self, Refusal> {
        let [first, second, third] = [at(0)?, at(1)?, at(2)?];
        if first == second && first == third {
            return Ok(Self::fixed(first));
        }
        Ok(Self([Arc::new(first), Arc::new(second), Arc::new(third)]))
    }

    /// The numbers at the batch size with this place in [`BATCHES`].
    pub(crate) fn at(&self, batch: usize) -> &Table {
        &self.0[batch]
    }

    /// The numbers, where they do not depend on the batch.
    pub(crate) fn constant(&self) -> Option<&Arc<Table>> {
        let [first, second, third] = &self.0;
        let same = Arc::ptr_eq(first, second) && Arc::ptr_eq(first, third);
        (same || (first == second && first == third)).then_some(first)
    }
}

/// The results of an operator on known operands; `None` when it is none of those known here.
pub(crate) fn fold(
    op: &str,
    inputs: &[Option<Host>],
    attributes: Attributes<'_>,
) -> Option<Result<Vec<Host>, Refusal>> {
    let run = evaluator(op)?;
    if op == "ConstantOfShape" && inputs.first()?.as_ref()?.constant().is_some_and(|shape| is_large(shape)) {
        return None;
    }
    let same = inputs.iter().flatten().all(|host| host.constant().is_some());
    let at = |batch: usize| {
        let inputs: Vec<_> = inputs.iter().map(|host| host.as_ref().map(|host| host.at(batch))).collect();
        run(&Operands { inputs: &inputs, attributes })
    };
    let all = || {
        let first = at(0)?;
        if same {
            return Ok(first.into_iter().map(Host::fixed).collect());
        }
        let (second, third) = (at(1)?, at(2)?);
        if second.len() != first.len() || third.len() != first.len() {
            return Err("its number of results depends on the batch".into());
        }
        let all = first.into_iter().zip(second).zip(third);
        Ok(all.map(|((a, b), c)| Host([Arc::new(a), Arc::new(b), Arc::new(c)])).collect())
    };
    Some(all())
}

/// Whether a tensor of this shape has more elements than known numbers may have.
fn is_large(shape: &Table) -> bool {
    shape.values.iter().product::<f64>() > MOST_ELEMENTS as f64
}

/// Known operands at one batch size, with the node's settings.
pub(crate) struct Operands<'a> {
    inputs: &'a [Option<&'a Table>],
    pub(crate) attributes: Attributes<'a>,
}

impl<'a> Operands<'a> {
    fn optional(&self, position: usize) -> Option<&'a Table> {
        self.inputs.get(position).copied().flatten()
    }

    fn table(&self, position: usize) -> Result<&'a Table, Refusal> {
        self.optional(position).ok_or_else(|| format!("operand {position} is missing").into())
    }

    /// Axes: an attribute in older files, an operand in newer ones; none where there is neither.
    fn axes(&self, rank: usize) -> Result<Option<Vec<usize>>, Refusal> {
        let axes = self.attributes.ints("axes").or_else(|| self.optional(1).map(Table::ints));
        axes.map(|axes| axes.into_iter().map(|given| axis(given, rank)).collect()).transpose()
    }
}

type Evaluator = fn(&Operands<'_>) -> Result<Vec<Table>, Refusal>;

fn evaluator(op: &str) -> Option<Evaluator> {
    Some(match op {
        "Identity" | "Dropout" => |o| Ok(vec![o.table(0)?.clone()]),
        "Shape" => |o| shape(o),
        "Size" => |o| {
            let size = o.table(0)?.values.len() as f64;
            Ok(vec![Table::scalar(Element::Int, size)])
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
        "Not" => |o| each(o, Some(Element::Bool), |a| f64::from(u8::from(a == 0.0))),
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

fn each(o: &Operands<'_>, element: Option<Element>, f: fn(f64) -> f64) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let values = a.values.iter().map(|&a| f(a)).collect();
    let element = element.unwrap_or(a.element);
    Ok(vec![Table { shape: a.shape.clone(), element, values }])
}

fn zipped(a: &Table, b: &Table, element: Element, f: impl Fn(f64, f64) -> f64) -> Result<Table, Refusal> {
    let shape = broadcast(&a.shape, &b.shape)?;
    Table::build(&shape, element, |index| f(a.at(index), b.at(index)))
}

/// A binary operator, or its fold over any number of operands.
fn pairs(o: &Operands<'_>, f: fn(f64, f64) -> f64) -> Result<Vec<Table>, Refusal> {
    let first = o.table(0)?.clone();
    let rest = 1..o.inputs.len().max(1);
    let result = rest
        .map(|position| o.table(position))
        .try_fold(first, |all, next| zipped(&all, next?, all.element, f));
    result.map(|table| vec![table])
}

fn relation(o: &Operands<'_>, f: fn(f64, f64) -> bool) -> Result<Vec<Table>, Refusal> {
    let truth = |a, b| f64::from(u8::from(f(a, b)));
    zipped(o.table(0)?, o.table(1)?, Element::Bool, truth).map(|table| vec![table])
}

/// Integers are divided towards zero.
fn divided(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let (a, b) = (o.table(0)?, o.table(1)?);
    if a.element == Element::Int && b.values.contains(&0.0) {
        return Err("an integer is divided by 0".into());
    }
    let whole = a.element == Element::Int;
    let quotient = |a: f64, b: f64| if whole { (a / b).trunc() } else { a / b };
    Ok(vec![zipped(a, b, a.element, quotient)?])
}

/// With the sign of the divisor, or with `fmod` that of the dividend.
fn remainder(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let (a, b) = (o.table(0)?, o.table(1)?);
    let of_dividend = o.attributes.int("fmod", 0) != 0;
    if a.element == Element::Int && b.values.contains(&0.0) {
        return Err("an integer is divided by 0".into());
    }
    let rest = |a: f64, b: f64| {
        let rest = a % b;
        if !of_dividend && rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
    };
    Ok(vec![zipped(a, b, a.element, rest)?])
}

fn shape(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let shape = &o.table(0)?.shape;
    Ok(vec![Table::list(shape[part(o.attributes, shape.len())].iter().copied())])
}

/// Which part of a shape the operator `Shape` gives.
pub(crate) fn part(attributes: Attributes<'_>, rank: usize) -> std::ops::Range<usize> {
    let bound = |name: &str, default: i64| {
        let given = attributes.int(name, default);
        let from_front = if given < 0 { given + rank as i64 } else { given };
        from_front.clamp(0, rank as i64) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank as i64));
    start..end.max(start)
}

fn cast(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let Table { shape, values, .. } = o.table(0)?;
    let element = crate::tensor::element(o.attributes.int("to", 1) as i32)
        .ok_or("it casts to a type that is no number")?;
    let to = |value: f64| match element {
        Element::Float => value,
        Element::Int => value.trunc(),
        Element::Bool => f64::from(u8::from(value != 0.0)),
    };
    let values = values.iter().map(|&value| to(value)).collect();
    Ok(vec![Table { shape: shape.clone(), element, values }])
}

fn chosen(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let (mask, a, b) = (o.table(0)?, o.table(1)?, o.table(2)?);
    let shape = broadcast(&broadcast(&mask.shape, &a.shape)?, &b.shape)?;
    let pick = |at: &[usize]| if mask.at(at) != 0.0 { a.at(at) } else { b.at(at) };
    Ok(vec![Table::build(&shape, a.element, pick)?])
}

fn gather(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let (data, indices) = (o.table(0)?, o.table(1)?);
    let along = axis(o.attributes.int("axis", 0), data.shape.len())?;
    let size = data.shape[along] as i64;
    let chosen: Vec<usize> = indices
        .ints()
        .into_iter()
        .map(|index| axis(index, size as usize))
        .collect::<Result<_, _>>()
        .map_err(|_| format!("an index lies outside an axis of {size}"))?;
    let (before, after) = (&data.shape[..along], &data.shape[along + 1..]);
    let shape = [before, &indices.shape, after].concat();
    let rank = indices.shape.len();
    let table = Table::build(&shape, data.element, |at| {
        let place = at[along..along + rank].iter().zip(&indices.shape);
        let place = place.fold(0, |flat, (&i, &size)| flat * size + i);
        data.at(&[&at[..along], &[chosen[place]], &at[along + rank..]].concat())
    })?;
    Ok(vec![table])
}

fn concatenated(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let tables: Vec<_> = (0..o.inputs.len()).map(|position| o.table(position)).collect::<Result<_, _>>()?;
    let first = *tables.first().ok_or("it has no operands")?;
    let along = axis(o.attributes.int("axis", 0), first.shape.len())?;
    let fits = |table: &&Table| {
        table.shape.len() == first.shape.len()
            && (0..first.shape.len()).all(|axis| axis == along || table.shape[axis] == first.shape[axis])
    };
    if !tables.iter().all(fits) {
        return Err("its operands do not fit side by side".into());
    }
    let mut shape = first.shape.clone();
    shape[along] = tables.iter().map(|table| table.shape[along]).sum();
    let table = Table::build(&shape, first.element, |at| {
        let mut own = at.to_vec();
        for table in &tables {
            if own[along] < table.shape[along] {
                return table.at(&own);
            }
            own[along] -= table.shape[along];
        }
        0.0
    })?;
    Ok(vec![table])
}

fn range(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let number = |position: usize| -> Result<f64, Refusal> {
        o.table(position)?.only().ok_or_else(|| "its bounds are no single numbers".into())
    };
    let (start, limit, step) = (number(0)?, number(1)?, number(2)?);
    let count = ((limit - start) / step).ceil().max(0.0);
    if count.is_nan() || count > MOST_ELEMENTS as f64 {
        return Err(format!("it would have {count} elements").into());
    }
    let element = o.table(0)?.element;
    let values: Vec<_> = (0..count as usize).map(|i| start + i as f64 * step).collect();
    Ok(vec![Table { shape: vec![values.len()], element, values }])
}

fn unsqueezed(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let given = o.attributes.ints("axes").or_else(|| o.optional(1).map(Table::ints));
    let shape = crate::shapes::unsqueezed(&a.shape, &given.ok_or("it has no axes")?, 1)?;
    Ok(vec![a.reshaped(shape)?])
}

fn squeezed(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let axes = o.axes(a.shape.len())?;
    let kept = |place: &usize| match &axes {
        Some(axes) => !axes.contains(place),
        None => a.shape[*place] != 1,
    };
    let shape = (0..a.shape.len()).filter(kept).map(|place| a.shape[place]).collect();
    Ok(vec![a.reshaped(shape)?])
}

fn reshaped(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let target = match o.attributes.ints("shape") {
        Some(target) => target,
        None => o.table(1)?.ints(),
    };
    let zero = o.attributes.int("allowzero", 0) != 0;
    Ok(vec![a.reshaped(crate::shapes::target(&a.shape, &target, zero)?)?])
}

fn flattened(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let given = o.attributes.int("axis", 1);
    let rank = a.shape.len();
    let at = if given == rank as i64 { rank } else { axis(given, rank.max(1))? };
    let (rows, columns) = a.shape.split_at(at.min(rank));
    Ok(vec![a.reshaped(vec![rows.iter().product(), columns.iter().product()])?])
}

fn transposed(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let axes = crate::shapes::order(o.attributes.ints("perm"), a.shape.len())?;
    let shape: Vec<_> = axes.iter().map(|&axis| a.shape[axis]).collect();
    let mut source = vec![0; shape.len()];
    let table = Table::build(&shape, a.element, |at| {
        axes.iter().zip(at).for_each(|(&axis, &i)| source[axis] = i);
        a.at(&source)
    })?;
    Ok(vec![table])
}

fn sliced(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let part = crate::shapes::Part::of(
        o.attributes,
        |position| o.optional(position).map(Table::ints),
        a.shape.len(),
    )?;
    let ranges = part.ranges(&a.shape);
    let shape: Vec<_> = ranges.iter().map(|range| range.count).collect();
    let table = Table::build(&shape, a.element, |at| {
        let source: Vec<_> = at.iter().zip(&ranges).map(|(&i, range)| range.at(i)).collect();
        a.at(&source)
    })?;
    Ok(vec![table])
}

fn sizes(table: &Table) -> Result<Vec<usize>, Refusal> {
    let size = |size: i64| usize::try_from(size).map_err(|_| format!("{size} is no size").into());
    table.ints().into_iter().map(size).collect()
}

fn expanded(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let shape = broadcast(&a.shape, &sizes(o.table(1)?)?)?;
    Ok(vec![Table::build(&shape, a.element, |at| a.at(at))?])
}

fn tiled(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let (a, repeats) = (o.table(0)?, sizes(o.table(1)?)?);
    if repeats.len() != a.shape.len() {
        return Err("it has not one number of copies an axis".into());
    }
    let shape: Vec<_> = a.shape.iter().zip(&repeats).map(|(size, n)| size.saturating_mul(*n)).collect();
    let table = Table::build(&shape, a.element, |at| {
        let source: Vec<_> = at.iter().zip(&a.shape).map(|(i, size)| i % size).collect();
        a.at(&source)
    })?;
    Ok(vec![table])
}

fn filled(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let shape = sizes(o.table(0)?)?;
    let value = o.attributes.table("value")?;
    let (element, value) = match &value {
        Some(table) => (table.element, table.only().ok_or("its value is no single number")?),
        None => (Element::Float, 0.0),
    };
    Ok(vec![Table::build(&shape, element, |_| value)?])
}

fn triangle(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let k = o.optional(1).and_then(Table::only).unwrap_or(0.0);
    let upper = o.attributes.int("upper", 1) != 0;
    let rank = a.shape.len();
    if rank < 2 {
        return Err("it takes matrices".into());
    }
    let table = Table::build(&a.shape, a.element, |at| {
        let above = at[rank - 1] as f64 - at[rank - 2] as f64;
        if if upper { above >= k } else { above <= k } { a.at(at) } else { 0.0 }
    })?;
    Ok(vec![table])
}

fn reduced(o: &Operands<'_>, start: f64, f: fn(f64, f64) -> f64) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let axes = match o.axes(a.shape.len())? {
        Some(axes) if !axes.is_empty() => axes,
        _ if o.attributes.int("noop_with_empty_axes", 0) != 0 => return Ok(vec![a.clone()]),
        _ => (0..a.shape.len()).collect(),
    };
    let kept: Vec<_> = a
        .shape
        .iter()
        .enumerate()
        .map(|(place, &size)| if axes.contains(&place) { 1 } else { size })
        .collect();
    let mut sums = vec![start; crate::table::elements(&kept)?];
    Table::build(&a.shape, a.element, |at| {
        let place = at.iter().zip(&kept).fold(0, |flat, (&i, &size)| flat * size + i.min(size - 1));
        sums[place] = f(sums[place], a.at(at));
        0.0
    })?;
    let keep = o.attributes.int("keepdims", 1) != 0;
    let shape = (0..kept.len()).filter(|place| keep || !axes.contains(place));
    let shape = shape.map(|place| kept[place]).collect();
    Ok(vec![Table { shape, element: a.element, values: sums }])
}

fn cumulated(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let along = o.table(1)?.only().ok_or("its axis is no single number")?;
    let along = axis(along as i64, a.shape.len())?;
    if o.attributes.int("exclusive", 0) != 0 || o.attributes.int("reverse", 0) != 0 {
        return Err(Refusal::new("reversed and exclusive sums are not known here", "leave them out"));
    }
    let table = Table::build(&a.shape, a.element, |at| {
        let mut source = at.to_vec();
        (0..=at[along])
            .map(|i| {
                source[along] = i;
                a.at(&source)
            })
            .sum()
    })?;
    Ok(vec![table])
}

/// The indices of the elements that are not 0, a column each.
fn nonzero(o: &Operands<'_>) -> Result<Vec<Table>, Refusal> {
    let a = o.table(0)?;
    let mut columns = Vec::new();
    Table::build(&a.shape, a.element, |at| {
        if a.at(at) != 0.0 {
            columns.push(at.to_vec());
        }
        0.0
    })?;
    let shape = [a.shape.len(), columns.len()];
    Ok(vec![Table::build(&shape, Element::Int, |at| columns[at[1]][at[0]] as f64)?])
}
