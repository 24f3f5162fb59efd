//! Operations that only move elements: each pullback moves the cotangents back.
//!
//! | operation | y | pullback |
//! |---|---|---|
//! | cat | operands side by side along an axis | the operand's part of g |
//! | reshape | the same elements, row-major, under another shape | reshape back |
//! | permute | axes in another order | the inverse order |
//! | flip | axes reversed | flip again |
//! | slice | a regular part | g written into zeros |
//! | expand | repeated along axes of size 1 and new leading axes | the sum over the repeats |
//! | empty | NaN, for memory that Burn leaves unwritten; no operands | none |
//! | fill | one number everywhere; no operands | none |
//! | cast | the same elements: the plan's precision replaces the model's casts | g |

use std::fmt;

use burn::backend::ir::{BaseOperationIr, NumericOperationIr, OperationIr};
use burn::tensor::Slice as BurnSlice;

use super::{Keep, Lowered, Op, Recognition, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::check::elements;
use crate::coupling::{BatchAxis, Passage};

/// Concatenation along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cat {
    /// The axis along which the operands are concatenated.
    pub axis: usize,
}

/// The same elements under the recorded shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reshape;

/// Axis i of the result is axis `axes[i]` of the operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permute {
    /// The operand's axes in the order of the result.
    pub axes: Vec<usize>,
}

/// The operand with some axes reversed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// The axes that are reversed.
    pub axes: Vec<usize>,
}

/// A regular part of the operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// For each axis: start, end and step (positive), or `None` for the whole axis.
    pub ranges: Vec<Option<[usize; 3]>>,
}

/// Broadcast to the recorded shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expand;

/// `value` everywhere, in the recorded shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Fill {
    /// The value of every element.
    pub value: f64,
}

/// Memory that Burn leaves unwritten, filled with NaN so that a read of it shows. Recurrent layers
/// assign their results to it part by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Empty;

/// A change of float type, which has no effect: the plan's precision is used throughout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cast;

impl Rule for Cat {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let Some((first, others)) = inputs.split_first() else {
            return Err("there is no operand".into());
        };
        if self.axis >= first.len() {
            return Err(format!("shape {first:?} has no axis {}", self.axis));
        }
        let mut shape = first.clone();
        for input in others {
            let fits = input.len() == shape.len()
                && (0..shape.len()).all(|axis| axis == self.axis || shape[axis] == input[axis]);
            if !fits {
                return Err(format!(
                    "shapes {first:?} and {input:?} do not fit side by side along axis {}",
                    self.axis
                ));
            }
            shape[self.axis] += input[self.axis];
        }
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        Array::cat(inputs, self.axis)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let start: usize = saved.shapes[..position].iter().map(|shape| shape[self.axis]).sum();
        let mut ranges = whole(&cotangent.shape());
        ranges[self.axis + 1] = BurnSlice::from(start..start + saved.shapes[position][self.axis]);
        cotangent.slice(&ranges)
    }
}

/// Slices that take every axis whole.
pub(super) fn whole(shape: &[usize]) -> Vec<BurnSlice> {
    shape.iter().map(|&size| BurnSlice::from(0..size)).collect()
}

impl Rule for Reshape {
    fn is_isometric(&self) -> bool {
        true
    }

    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        let (from, to) = (elements(&inputs[0])?, elements(recorded)?);
        if from == to {
            Ok(recorded.to_vec())
        } else {
            Err(format!("{from} elements do not fill shape {recorded:?}"))
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        only(inputs).reshape(shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        let Passage { from, input, output, axis, .. } = *passage;
        // The number of consecutive elements, in row-major order, that belong to one sample; the
        // reshape keeps it.
        let inner = from.inner * input[from.axis + 1..].iter().product::<usize>();
        let behind: usize = output[axis + 1..].iter().product();
        (behind > 0 && inner.is_multiple_of(behind)).then(|| BatchAxis { axis, inner: inner / behind })
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let v = cotangent.shape()[0];
        cotangent.reshape(&with_leading(v, &saved.shapes[0]))
    }
}

impl Rule for Permute {
    fn is_isometric(&self) -> bool {
        true
    }

    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if sorted.iter().copied().ne(0..inputs[0].len()) {
            return Err(format!("{:?} is not an order of the axes of shape {:?}", self.axes, inputs[0]));
        }
        Ok(self.axes.iter().map(|&axis| inputs[0][axis]).collect())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).permute(&self.axes)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        let axis = self.axes.iter().position(|&axis| axis == passage.from.axis)?;
        Some(BatchAxis { axis, ..passage.from })
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        let mut inverse = vec![0; self.axes.len() + 1];
        for (position, &axis) in self.axes.iter().enumerate() {
            inverse[axis + 1] = position + 1;
        }
        cotangent.permute(&inverse)
    }
}

impl Rule for Flip {
    fn is_isometric(&self) -> bool {
        true
    }

    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        match self.axes.iter().find(|&&axis| axis >= inputs[0].len()) {
            Some(axis) => Err(format!("shape {:?} has no axis {axis}", inputs[0])),
            None => Ok(inputs[0].clone()),
        }
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).flip(&self.axes)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.axes.contains(&passage.from.axis))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        let axes: Vec<_> = self.axes.iter().map(|axis| axis + 1).collect();
        cotangent.flip(&axes)
    }
}

impl Slice {
    /// Burn's slices for an operand of this shape.
    pub(super) fn slices(&self, shape: &[usize]) -> Vec<BurnSlice> {
        self.ranges
            .iter()
            .zip(shape)
            .map(|(range, &size)| match *range {
                None => BurnSlice::from(0..size),
                Some([start, end, step]) => BurnSlice::new(start as isize, Some(end as isize), step as isize),
            })
            .collect()
    }
}

impl Rule for Slice {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        if self.ranges.len() > inputs[0].len() {
            return Err(format!("{} ranges for shape {:?}", self.ranges.len(), inputs[0]));
        }
        let mut shape = inputs[0].clone();
        for (size, range) in shape.iter_mut().zip(&self.ranges) {
            if let Some([start, end, step]) = *range {
                if start >= end || end > *size || step == 0 {
                    return Err(format!(
                        "range {start}..{end} in steps of {step} does not fit an axis of {size}"
                    ));
                }
                *size = (end - start).div_ceil(step);
            }
        }
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let slices = self.slices(&inputs[0].shape());
        only(inputs).slice(&slices)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.ranges.get(passage.from.axis).is_some_and(Option::is_some))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let shape = with_leading(cotangent.shape()[0], &saved.shapes[0]);
        let mut slices = whole(&shape);
        slices[1..=self.ranges.len()].clone_from_slice(&self.slices(&saved.shapes[0]));
        cotangent.zeros_like(&shape).slice_assign(&slices, cotangent)
    }
}

impl Rule for Expand {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        let new = recorded.len().checked_sub(inputs[0].len());
        let fits = new.is_some_and(|new| {
            inputs[0].iter().zip(&recorded[new..]).all(|(&from, &to)| from == to || from == 1)
        });
        if fits {
            Ok(recorded.to_vec())
        } else {
            Err(format!("shape {:?} does not expand to {recorded:?}", inputs[0]))
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        only(inputs).expand(shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        let new = passage.output.len() - passage.input.len();
        Some(BatchAxis { axis: passage.from.axis + new, ..passage.from })
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        super::arithmetic::sum_to(cotangent, &saved.shapes[0])
    }
}

impl Rule for Fill {
    fn shape(&self, _: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        Ok(recorded.to_vec())
    }

    fn forward(&self, _: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        Array::full(shape, self.value, place)
    }

    fn carry(&self, _: &Passage<'_>) -> Option<BatchAxis> {
        None
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        cotangent
    }
}

impl Rule for Empty {
    fn shape(&self, _: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        Ok(recorded.to_vec())
    }

    fn forward(&self, _: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        Array::full(shape, f64::NAN, place)
    }

    fn carry(&self, _: &Passage<'_>) -> Option<BatchAxis> {
        None
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        cotangent
    }
}

impl Rule for Cast {
    fn is_isometric(&self) -> bool {
        true
    }

    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        cotangent
    }
}

/// The display of operations without attributes, by name and label.
macro_rules! labels {
    ($($name:ident, $label:literal;)+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($label)
            }
        }
    )+};
}

labels! {
    Reshape, "reshape";
    Expand, "expand";
    Empty, "empty";
    Cast, "cast";
}

impl fmt::Display for Cat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cat(axis {})", self.axis)
    }
}

impl fmt::Display for Permute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "permute({:?})", self.axes)
    }
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flip({:?})", self.axes)
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<_> = self
            .ranges
            .iter()
            .map(|range| match range {
                None => ":".to_owned(),
                Some([start, end, 1]) => format!("{start}:{end}"),
                Some([start, end, step]) => format!("{start}:{end}:{step}"),
            })
            .collect();
        write!(f, "slice({})", ranges.join(", "))
    }
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fill({})", self.value)
    }
}

/// Burn's range, which may count from the end, as start, end and step along an axis of known size;
/// none for the whole axis.
pub(super) fn plain_range(slice: &BurnSlice, size: usize) -> Result<Option<[usize; 3]>, String> {
    if slice.step < 1 {
        return Err(
            "it assigns to a part with a negative step; flip the assigned tensor, and use a positive step"
                .into(),
        );
    }
    let range = slice.to_range(size);
    let whole = range == (0..size) && slice.step == 1;
    Ok(if whole { None } else { Some([range.start, range.end, slice.step as usize]) })
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use BaseOperationIr as Base;
    match ir {
        OperationIr::BaseFloat(base) => match base {
            Base::Reshape(io) => unary(Op::Reshape(Reshape), &io.input, &io.out),
            Base::Expand(io) => unary(Op::Expand(Expand), &io.input, &io.out),
            Base::Permute(io) => unary(Op::Permute(Permute { axes: io.axes.clone() }), &io.input, &io.out),
            Base::SwapDims(io) => {
                let mut axes: Vec<_> = (0..io.input.shape.num_dims()).collect();
                axes.swap(io.dim1, io.dim2);
                unary(Op::Permute(Permute { axes }), &io.input, &io.out)
            }
            Base::Flip(io) => unary(Op::Flip(Flip { axes: io.axes.clone() }), &io.input, &io.out),
            Base::Slice(io) => {
                let sizes = io.tensor.shape.iter();
                let ranges: Result<_, _> =
                    io.ranges.iter().zip(sizes).map(|(range, &size)| plain_range(range, size)).collect();
                match ranges {
                    Ok(ranges) => unary(Op::Slice(Slice { ranges }), &io.tensor, &io.out),
                    Err(why) => Some(Err(why)),
                }
            }
            Base::Cat(io) => {
                let op = Op::Cat(Cat { axis: io.dim });
                Some(Ok(Lowered { op, inputs: io.tensors.iter().collect(), output: &io.out }))
            }
            Base::Cast(io) if io.out.dtype.is_float() => unary(Op::Cast(Cast), &io.input, &io.out),
            Base::Empty(io) => Some(Ok(Lowered { op: Op::Empty(Empty), inputs: vec![], output: &io.out })),
            Base::Zeros(io) => filled(0.0, &io.out),
            Base::Ones(io) => filled(1.0, &io.out),
            _ => None,
        },
        OperationIr::NumericFloat(_, NumericOperationIr::Full(io)) => filled(io.value.elem(), &io.out),
        _ => None,
    }
}

fn filled(value: f64, output: &burn::backend::ir::TensorIr) -> Recognition<'_> {
    Some(Ok(Lowered { op: Op::Fill(Fill { value }), inputs: vec![], output }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples of all operations that move elements, and the conversion of Burn's ranges.

    use super::super::derivatives::{OpSample, check, spread};
    use super::*;

    fn cats() -> Vec<OpSample> {
        let sizes: [&[usize]; 5] = [&[2], &[1, 3], &[2, 2, 2], &[1, 2, 3, 1], &[2, 2]];
        let cat = |axis: usize, sizes: &[usize]| {
            let shape = |size| (0..3).map(|i| if i == axis { size } else { 2 }).collect::<Vec<_>>();
            let operands = sizes.iter().enumerate().map(|(i, &size)| spread(&shape(size), 100 * i)).collect();
            let all: Vec<_> = (0..sizes.len()).collect();
            OpSample::new(Op::Cat(Cat { axis }), operands).linear(&all)
        };
        (0..3).flat_map(|axis| sizes.map(|sizes| cat(axis, sizes))).collect()
    }

    fn reshapes() -> Vec<OpSample> {
        let pairs: [[&[usize]; 2]; 5] = [
            [&[2, 3, 2], &[2, 6]],
            [&[2, 6], &[2, 3, 2, 1]],
            [&[1, 4], &[4]],
            [&[5, 2], &[2, 5]],
            [&[3], &[3]],
        ];
        let sample = |[from, to]: [&[usize]; 2]| {
            OpSample::new(Op::Reshape(Reshape), vec![spread(from, 8)]).recorded(to)
        };
        pairs.map(sample).to_vec()
    }

    fn permutes_and_flips() -> Vec<OpSample> {
        let orders: [&[usize]; 5] = [&[0, 1, 2], &[2, 0, 1], &[1, 2, 0], &[2, 1, 0], &[0, 2, 1]];
        let flips: [&[usize]; 5] = [&[0], &[1], &[2], &[0, 2], &[0, 1, 2]];
        let point = |op| OpSample::new(op, vec![spread(&[2, 3, 4], 8)]);
        let permutes = orders.map(|axes| point(Op::Permute(Permute { axes: axes.to_vec() })));
        permutes.into_iter().chain(flips.map(|axes| point(Op::Flip(Flip { axes: axes.to_vec() })))).collect()
    }

    fn slices() -> Vec<OpSample> {
        let ranges: [&[Option<[usize; 3]>]; 8] = [
            &[None, None, Some([1, 4, 1])],
            &[None, Some([0, 2, 1])],
            &[Some([1, 2, 1])],
            &[None, None, Some([0, 5, 2])],
            &[None, None, Some([1, 5, 3])],
            &[Some([0, 2, 3]), Some([2, 3, 1]), Some([1, 5, 2])],
            &[None, None, None],
            &[],
        ];
        let sample = |ranges: &[Option<[usize; 3]>]| {
            OpSample::new(Op::Slice(Slice { ranges: ranges.to_vec() }), vec![spread(&[2, 3, 5], 8)])
        };
        ranges.map(sample).to_vec()
    }

    fn expands() -> Vec<OpSample> {
        let pairs: [[&[usize]; 2]; 7] = [
            [&[2, 1, 3], &[2, 4, 3]],
            [&[1, 3], &[5, 3]],
            [&[1, 1], &[2, 3]],
            [&[3], &[2, 3]],
            [&[1], &[2, 1, 3]],
            [&[2, 3], &[4, 1, 2, 3]],
            [&[2, 3], &[2, 3]],
        ];
        let sample =
            |[from, to]: [&[usize]; 2]| OpSample::new(Op::Expand(Expand), vec![spread(from, 8)]).recorded(to);
        pairs.map(sample).to_vec()
    }

    fn others() -> Vec<OpSample> {
        let fill = |value| OpSample::new(Op::Fill(Fill { value }), vec![]).recorded(&[2, 1, 3]);
        let cast = |shape: &[usize]| OpSample::new(Op::Cast(Cast), vec![spread(shape, 8)]);
        let empty = OpSample::new(Op::Empty(Empty), vec![]).recorded(&[2, 3]);
        vec![empty, fill(0.0), fill(-1.5), cast(&[2, 3]), cast(&[1])]
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        [cats(), reshapes(), permutes_and_flips(), slices(), expands(), others()]
            .concat()
            .into_iter()
            .map(|sample| if sample.linear.is_empty() { sample.linear(&[0]) } else { sample })
            .collect()
    }

    #[test]
    fn layout_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn slice_ranges_of_burn_are_converted() {
        let plain = |start, end, step, size| plain_range(&BurnSlice::new(start, end, step), size);
        assert_eq!(plain(0, None, 1, 5), Ok(None));
        assert_eq!(plain(0, Some(5), 1, 5), Ok(None));
        assert_eq!(plain(-2, None, 1, 5), Ok(Some([3, 5, 1])));
        assert_eq!(plain(1, Some(-1), 2, 5), Ok(Some([1, 4, 2])));
        assert_eq!(plain(0, None, 2, 5), Ok(Some([0, 5, 2])));
        assert!(plain(0, None, -1, 5).is_err());
    }
}
