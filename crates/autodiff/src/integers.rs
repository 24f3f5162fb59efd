//! Integers and booleans of a recording, computed on the host before it is lowered.
//!
//! The indices and masks of a classifier are usually constants: made in the model's code (`arange`,
//! `tril_mask`, comparisons, casts to float) or held in its buffers. Their operands are known from
//! the recording, so these operations are carried out here, and the graph has constants instead.
//! Operations on integers that depend on the input stay in the recording, and are refused as
//! unknown operations later.

use std::collections::BTreeMap;

use burn::backend::ir::{
    BaseOperationIr, BinaryOpIr, BoolOperationIr, IntOperationIr, NumericOperationIr, OperationIr,
    ScalarOpIr, SliceOpIr, TensorId, TensorIr,
};
use burn::tensor::{DType, TensorData};

use crate::capture::Recording;

/// Carries out every integer and boolean operation whose operands are known.
pub(crate) fn fold(recording: &mut Recording) {
    let values = &mut recording.values;
    recording.operations.retain(|op| match computed(op, values) {
        Some((out, integers)) => {
            values.insert(out.id, integers.data(out.dtype));
            false
        }
        None => true,
    });
}

/// A tensor of integers, booleans among them as 0 and 1.
#[derive(Debug, Clone, PartialEq)]
struct Integers {
    shape: Vec<usize>,
    values: Vec<i64>,
}

/// The known tensors, by identity.
type KnownTensors = BTreeMap<TensorId, TensorData>;

impl Integers {
    /// The elements of a tensor of integers or booleans; none for floats.
    fn read(data: &TensorData) -> Option<Self> {
        let shape = data.shape().to_vec();
        let values = match data.dtype() {
            DType::Bool(_) => data.iter::<bool>().map(i64::from).collect(),
            dtype if dtype.is_int() || dtype.is_uint() => data.iter::<i64>().collect(),
            _ => return None,
        };
        Some(Self { shape, values })
    }

    /// The elements in another type: booleans, floats, or integers.
    fn data(self, dtype: DType) -> TensorData {
        let Self { shape, values } = self;
        match dtype {
            DType::Bool(_) => TensorData::new(values.into_iter().map(|x| x != 0).collect::<Vec<_>>(), shape),
            dtype if dtype.is_float() => {
                let floats = values.into_iter().map(|x| x as f64).collect::<Vec<_>>();
                TensorData::new(floats, shape).convert_dtype(dtype)
            }
            _ => TensorData::new(values, shape),
        }
    }

    /// The tensor of this shape with the element `at(index)` at each index.
    fn build(shape: &[usize], mut at: impl FnMut(&[usize]) -> i64) -> Self {
        let mut index = vec![0; shape.len()];
        let values = (0..shape.iter().product())
            .map(|flat: usize| {
                // The index of a flat position, from the last axis, which runs fastest.
                let mut rest = flat;
                for axis in (0..shape.len()).rev() {
                    index[axis] = rest % shape[axis];
                    rest /= shape[axis];
                }
                at(&index)
            })
            .collect();
        Self { shape: shape.to_vec(), values }
    }

    /// The element at an index, broadcast: leading axes that this tensor lacks are ignored, and
    /// axes of size 1 repeat.
    fn at(&self, index: &[usize]) -> i64 {
        let own = &index[index.len() - self.shape.len()..];
        let flat = own.iter().zip(&self.shape).fold(0, |flat, (&i, &size)| flat * size + i.min(size - 1));
        self.values[flat]
    }
}

/// The result of an operation on known integers or booleans.
fn computed<'a>(op: &'a OperationIr, known: &KnownTensors) -> Option<(&'a TensorIr, Integers)> {
    match op {
        OperationIr::BaseInt(base) | OperationIr::BaseBool(base) => moved(base, known),
        OperationIr::NumericInt(_, numeric) => counted(numeric, known),
        OperationIr::Int(IntOperationIr::IntoFloat(io))
        | OperationIr::Bool(BoolOperationIr::IntoFloat(io) | BoolOperationIr::IntoInt(io)) => {
            Some((&io.out, known_integers(&io.input, known)?))
        }
        OperationIr::Bool(boolean) => match boolean {
            BoolOperationIr::Not(io) => {
                let a = known_integers(&io.input, known)?;
                Some((&io.out, Integers::build(&io.out.shape, |at| 1 - a.at(at))))
            }
            BoolOperationIr::And(io) => pairs(io, known, |a, b| a & b),
            BoolOperationIr::Or(io) => pairs(io, known, |a, b| a | b),
            BoolOperationIr::Xor(io) => pairs(io, known, |a, b| a ^ b),
            _ => None,
        },
        _ => None,
    }
}

/// A known tensor of integers or booleans.
fn known_integers(tensor: &TensorIr, known: &KnownTensors) -> Option<Integers> {
    Integers::read(known.get(&tensor.id)?)
}

/// Operations that move elements, and equality.
fn moved<'a>(op: &'a BaseOperationIr, known: &KnownTensors) -> Option<(&'a TensorIr, Integers)> {
    use BaseOperationIr as Base;
    match op {
        Base::Reshape(io) => {
            Some((&io.out, Integers { shape: io.out.shape.to_vec(), ..known_integers(&io.input, known)? }))
        }
        Base::Expand(io) => {
            let a = known_integers(&io.input, known)?;
            Some((&io.out, Integers::build(&io.out.shape, |at| a.at(at))))
        }
        Base::Permute(io) => {
            Some((&io.out, permuted(&known_integers(&io.input, known)?, &io.axes, &io.out.shape)))
        }
        Base::SwapDims(io) => {
            let mut axes: Vec<_> = (0..io.input.shape.num_dims()).collect();
            axes.swap(io.dim1, io.dim2);
            Some((&io.out, permuted(&known_integers(&io.input, known)?, &axes, &io.out.shape)))
        }
        Base::Slice(io) => Some((&io.out, sliced(&known_integers(&io.tensor, known)?, io)?)),
        Base::Flip(io) => Some((&io.out, flipped(&known_integers(&io.input, known)?, &io.axes))),
        Base::RepeatDim(io) => {
            let (a, size) = (known_integers(&io.tensor, known)?, io.tensor.shape[io.dim]);
            Some((&io.out, Integers::build(&io.out.shape, |at| a.at(&along(at, io.dim, at[io.dim] % size)))))
        }
        Base::Cat(io) => {
            let parts: Option<Vec<Integers>> =
                io.tensors.iter().map(|part| known_integers(part, known)).collect();
            Some((&io.out, joined(&parts?, io.dim, &io.out.shape)))
        }
        Base::Select(io) => {
            let (a, chosen) = (known_integers(&io.tensor, known)?, known_integers(&io.indices, known)?);
            let chosen = positions(&chosen, io.tensor.shape[io.dim])?;
            Some((&io.out, Integers::build(&io.out.shape, |at| a.at(&along(at, io.dim, chosen[at[io.dim]])))))
        }
        Base::Cast(io) => Some((&io.out, known_integers(&io.input, known)?)),
        Base::Zeros(io) => Some((&io.out, Integers::build(&io.out.shape, |_| 0))),
        Base::Ones(io) => Some((&io.out, Integers::build(&io.out.shape, |_| 1))),
        Base::Equal(io) => pairs(io, known, |a, b| i64::from(a == b)),
        Base::NotEqual(io) => pairs(io, known, |a, b| i64::from(a != b)),
        Base::EqualElem(io) => scalars(io, known, |a, b| i64::from(a == b)),
        Base::NotEqualElem(io) => scalars(io, known, |a, b| i64::from(a != b)),
        _ => None,
    }
}

/// A slice with positive steps; none for others.
fn sliced(a: &Integers, io: &SliceOpIr) -> Option<Integers> {
    if io.ranges.iter().any(|range| range.step < 1) {
        return None;
    }
    // Axes beyond the given ranges are taken whole.
    let start = |axis: usize| io.ranges.get(axis).map_or(0, |range| range.to_range(a.shape[axis]).start);
    let step = |axis: usize| io.ranges.get(axis).map_or(1, |range| range.step as usize);
    let source = |at: &[usize]| -> Vec<usize> {
        at.iter().enumerate().map(|(axis, i)| start(axis) + i * step(axis)).collect()
    };
    Some(Integers::build(&io.out.shape, |at| a.at(&source(at))))
}

/// The elements with some axes reversed.
fn flipped(a: &Integers, axes: &[usize]) -> Integers {
    let turned = |(axis, &i): (usize, &usize)| if axes.contains(&axis) { a.shape[axis] - 1 - i } else { i };
    let source = |at: &[usize]| at.iter().enumerate().map(turned).collect::<Vec<_>>();
    Integers::build(&a.shape, |at| a.at(&source(at)))
}

/// The index `at` with `moved` along one axis.
fn along(at: &[usize], axis: usize, moved: usize) -> Vec<usize> {
    let mut index = at.to_vec();
    index[axis] = moved;
    index
}

/// Concatenation along an axis.
fn joined(parts: &[Integers], axis: usize, shape: &[usize]) -> Integers {
    Integers::build(shape, |at| {
        let mut offset = at[axis];
        let mut parts = parts.iter();
        loop {
            // By the recorded shape, there is a part that holds the element.
            let Some(part) = parts.next() else { return 0 };
            match offset.checked_sub(part.shape[axis]) {
                None => return part.at(&along(at, axis, offset)),
                Some(rest) => offset = rest,
            }
        }
    })
}

/// Indices into an axis of `size` elements, if all of them lie within it.
fn positions(indices: &Integers, size: usize) -> Option<Vec<usize>> {
    let position = |&value: &i64| usize::try_from(value).ok().filter(|&position| position < size);
    indices.values.iter().map(position).collect()
}

/// The tensor with its axes in another order: axis i of the result is axis `axes[i]`.
fn permuted(x: &Integers, axes: &[usize], shape: &[usize]) -> Integers {
    Integers::build(shape, |at| {
        let mut source = vec![0; at.len()];
        for (i, &axis) in axes.iter().enumerate() {
            source[axis] = at[i];
        }
        x.at(&source)
    })
}

/// Arithmetic and comparisons.
fn counted<'a>(op: &'a NumericOperationIr, known: &KnownTensors) -> Option<(&'a TensorIr, Integers)> {
    use NumericOperationIr as N;
    match op {
        N::Add(io) => pairs(io, known, i64::wrapping_add),
        N::Sub(io) => pairs(io, known, i64::wrapping_sub),
        N::Mul(io) => pairs(io, known, i64::wrapping_mul),
        N::AddScalar(io) => scalars(io, known, i64::wrapping_add),
        N::SubScalar(io) => scalars(io, known, i64::wrapping_sub),
        N::MulScalar(io) => scalars(io, known, i64::wrapping_mul),
        N::Div(io) => divided(io, known, i64::checked_div),
        N::Rem(io) => divided(io, known, remainder),
        N::DivScalar(io) => divided_by(io, known, i64::checked_div),
        N::RemScalar(io) => divided_by(io, known, remainder),
        N::Greater(io) => pairs(io, known, |a, b| i64::from(a > b)),
        N::GreaterEqual(io) => pairs(io, known, |a, b| i64::from(a >= b)),
        N::Lower(io) => pairs(io, known, |a, b| i64::from(a < b)),
        N::LowerEqual(io) => pairs(io, known, |a, b| i64::from(a <= b)),
        N::GreaterElem(io) => scalars(io, known, |a, b| i64::from(a > b)),
        N::GreaterEqualElem(io) => scalars(io, known, |a, b| i64::from(a >= b)),
        N::LowerElem(io) => scalars(io, known, |a, b| i64::from(a < b)),
        N::LowerEqualElem(io) => scalars(io, known, |a, b| i64::from(a <= b)),
        N::Full(io) => {
            let value = io.value.elem::<i64>();
            Some((&io.out, Integers::build(&io.out.shape, |_| value)))
        }
        _ => None,
    }
}

/// An operation on each pair of elements of two operands that broadcast.
fn pairs<'a>(
    io: &'a BinaryOpIr,
    known: &KnownTensors,
    each: impl Fn(i64, i64) -> i64,
) -> Option<(&'a TensorIr, Integers)> {
    let (a, b) = (known_integers(&io.lhs, known)?, known_integers(&io.rhs, known)?);
    Some((&io.out, Integers::build(&io.out.shape, |at| each(a.at(at), b.at(at)))))
}

/// a - b floor(a / b), as in Python.
fn remainder(a: i64, b: i64) -> Option<i64> {
    let rest = a.checked_rem(b)?;
    Some(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
}

/// A quotient or remainder of each pair; none if a divisor is 0.
fn divided<'a>(
    io: &'a BinaryOpIr,
    known: &KnownTensors,
    each: impl Fn(i64, i64) -> Option<i64>,
) -> Option<(&'a TensorIr, Integers)> {
    let (a, b) = (known_integers(&io.lhs, known)?, known_integers(&io.rhs, known)?);
    // Becomes false at the first pair without a result; the elements are not used then.
    let mut whole = true;
    let build = |at: &[usize]| each(a.at(at), b.at(at)).unwrap_or_else(|| std::mem::take(&mut whole).into());
    let found = Integers::build(&io.out.shape, build);
    whole.then_some((&io.out, found))
}

/// A quotient or remainder of each element by a scalar; none if that is 0.
fn divided_by<'a>(
    io: &'a ScalarOpIr,
    known: &KnownTensors,
    each: impl Fn(i64, i64) -> Option<i64>,
) -> Option<(&'a TensorIr, Integers)> {
    let (a, b) = (known_integers(&io.lhs, known)?, io.rhs.elem::<i64>());
    let values: Option<Vec<i64>> = a.values.iter().map(|&a| each(a, b)).collect();
    Some((&io.out, Integers { values: values?, shape: a.shape }))
}

/// An operation on each element and a scalar.
fn scalars<'a>(
    io: &'a ScalarOpIr,
    known: &KnownTensors,
    each: impl Fn(i64, i64) -> i64,
) -> Option<(&'a TensorIr, Integers)> {
    let (a, b) = (known_integers(&io.lhs, known)?, io.rhs.elem::<i64>());
    Some((&io.out, Integers { values: a.values.iter().map(|&a| each(a, b)).collect(), shape: a.shape }))
}

/// The row `[1, ...]` of an index or mask that has one row per sample, where the rows of all
/// `batch` samples are equal.
pub(crate) fn common_row(data: &TensorData, batch: usize) -> Option<TensorData> {
    let table = Integers::read(data)?;
    let rest = table.shape.get(1..)?;
    let size = rest.iter().product::<usize>();
    if table.shape.first() != Some(&batch) || size == 0 {
        return None;
    }
    let row = table.values[..size].to_vec();
    let equal = table.values.chunks(size).all(|other| other == row);
    let shape = std::iter::once(1).chain(rest.iter().copied()).collect();
    equal.then(|| Integers { shape, values: row }.data(data.dtype()))
}

#[cfg(test)]
mod tests {
    //! Small tensors by hand; models with integers are tested from outside (`tests/engine`).

    use super::*;

    #[test]
    fn elements_repeat_along_axes_of_size_1_and_new_axes() {
        let row = Integers { shape: vec![1, 3], values: vec![1, 2, 3] };
        let column = Integers { shape: vec![2, 1], values: vec![10, 20] };
        let sum = Integers::build(&[2, 3], |at| row.at(at) + column.at(at));
        assert_eq!(sum.values, [11, 12, 13, 21, 22, 23]);
        assert_eq!(Integers::build(&[2, 2, 1], |at| column.at(at)).values, [10, 20, 10, 20]);
        assert_eq!(permuted(&sum, &[1, 0], &[3, 2]).values, [11, 21, 12, 22, 13, 23]);
    }

    #[test]
    fn data_and_back() {
        let table = Integers { shape: vec![2], values: vec![0, 1] };
        let masks = TensorData::new(vec![false, true], [2]);
        assert_eq!(table.clone().data(masks.dtype()), masks);
        assert_eq!(Integers::read(&masks), Some(table.clone()));
        assert_eq!(table.clone().data(DType::F32), TensorData::new(vec![0.0_f32, 1.0], [2]));
        assert_eq!(Integers::read(&TensorData::new(vec![0_u8, 1], [2])), Some(table));
        assert_eq!(Integers::read(&TensorData::new(vec![0.5_f32], [1])), None);
    }

    #[test]
    fn rows_that_are_equal_are_one() {
        let rows = |rows: &[[i64; 2]]| TensorData::new(rows.concat(), [rows.len(), 2]);
        assert_eq!(common_row(&rows(&[[1, 2]; 2]), 2), Some(TensorData::new(vec![1_i64, 2], [1, 2])));
        assert_eq!(common_row(&rows(&[[1, 2], [1, 2], [1, 3]]), 3), None);
        assert_eq!(common_row(&rows(&[[1, 2]; 3]), 2), None);
    }
}
