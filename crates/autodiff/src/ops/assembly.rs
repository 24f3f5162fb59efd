//! Results put together from copies and parts of operands.
//!
//! - [`SliceAssign`]: y = x with a regular part replaced by b. The pullback to x is g with zeros in
//!   the part, the pullback to b is the part of g.
//! - [`Pad`]: y = x with a margin that holds one number, x mirrored about its outermost elements,
//!   or copies of these. The pullback is g inside; for mirrored and copied margins, g of the margin
//!   is added at the elements from which it came.
//! - [`Repeat`]: y = copies of x concatenated along an axis; the pullback is the sum of g over the
//!   copies.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{BaseOperationIr, NumericOperationIr, OperationIr, PadModeIr};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;

use super::layout::{Slice, plain_range, whole};
use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// The first operand with a part replaced by the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceAssign {
    /// The part.
    pub part: Slice,
}

/// The elements of a margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Margin {
    /// One number everywhere.
    Constant(f64),
    /// x mirrored about its outermost elements, which are not repeated.
    Reflect,
    /// Copies of the outermost elements.
    Edge,
}

/// x with margins.
#[derive(Debug, Clone, PartialEq)]
pub struct Pad {
    /// The number of elements before and after each axis.
    pub padding: Vec<(usize, usize)>,
    /// The elements of the margins.
    pub margin: Margin,
}

impl Pad {
    /// The slices of y in which x lies, after `skipped` leading axes.
    fn inner(&self, y: &[usize], skipped: usize) -> Vec<burn::tensor::Slice> {
        let mut slices = whole(y);
        for ((slice, &size), &(before, after)) in
            slices[skipped..].iter_mut().zip(&y[skipped..]).zip(&self.padding)
        {
            *slice = burn::tensor::Slice::from(before..size - after);
        }
        slices
    }

    /// For each element of a padded axis, the element of the axis of `size` of which it is a copy.
    fn sources(&self, axis: usize, size: usize, place: &Placement) -> Array {
        let ((before, after), last) = (self.padding[axis], size as i64 - 1);
        // i counts from the first element of x: it is negative before x, and above `last` after it.
        let source = |i: i64| match self.margin {
            Margin::Reflect if i > last => 2 * last - i,
            Margin::Reflect => i.abs(),
            _ => i.clamp(0, last),
        };
        let sources: Vec<_> = (-(before as i64)..=last + after as i64).map(source).collect();
        let shape = [sources.len()];
        Array::indices(TensorData::new(sources, shape), place)
    }

    fn padded_axes(&self) -> impl Iterator<Item = usize> {
        (0..self.padding.len()).filter(|&axis| self.padding[axis] != (0, 0))
    }
}

impl Rule for Pad {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let x = &inputs[0];
        let fits = |(&size, &(before, after)): (&usize, &(usize, usize))| match self.margin {
            Margin::Constant(_) => true,
            Margin::Reflect => before.max(after) < size.max(1),
            Margin::Edge => size > 0 || before + after == 0,
        };
        if x.len() != self.padding.len() || !x.iter().zip(&self.padding).all(fits) {
            return Err(format!("margins {:?} do not fit shape {x:?}", self.padding));
        }
        Ok(x.iter().zip(&self.padding).map(|(size, (before, after))| before + size + after).collect())
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let x = only(inputs);
        if let Margin::Constant(value) = self.margin {
            return Array::full(shape, value, place).slice_assign(&self.inner(shape, 0), x);
        }
        self.padded_axes().fold(x, |x, axis| {
            let sources = self.sources(axis, x.shape()[axis], place);
            x.select(axis, sources)
        })
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.padding[passage.from.axis] != (0, 0))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let stacked = cotangent.shape();
        if matches!(self.margin, Margin::Constant(_)) {
            return cotangent.slice(&self.inner(&stacked, 1));
        }
        // Axis by axis, as in the forward pass; their order does not matter.
        let place = cotangent.place();
        self.padded_axes().fold(cotangent, |cotangent, axis| {
            let (mut shape, size) = (cotangent.shape(), saved.shapes[0][axis]);
            shape[axis + 1] = size;
            let sources = self.sources(axis, size, &place);
            cotangent.zeros_like(&shape).select_add(axis + 1, sources, cotangent)
        })
    }
}

impl fmt::Display for Pad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pad({:?}, {:?})", self.padding, self.margin)
    }
}

/// As many copies along `axis` as fill the recorded shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The axis.
    pub axis: usize,
}

impl SliceAssign {
    /// Burn's slices of the part, after a leading axis of cotangents.
    fn slices(&self, stacked: &[usize]) -> Vec<burn::tensor::Slice> {
        let mut slices = whole(stacked);
        slices[1..=self.part.ranges.len()].clone_from_slice(&self.part.slices(&stacked[1..]));
        slices
    }
}

impl Rule for SliceAssign {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        let part = self.part.shape(&inputs[..1], recorded)?;
        if part == inputs[1] {
            Ok(inputs[0].clone())
        } else {
            Err(format!("a value of shape {:?} does not fill a part of shape {part:?}", inputs[1]))
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [x, value] = both(inputs);
        let mut slices = whole(shape);
        slices[..self.part.ranges.len()].clone_from_slice(&self.part.slices(shape));
        x.slice_assign(&slices, value)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.part.ranges.get(passage.from.axis).is_some_and(Option::is_some))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let stacked = cotangent.shape();
        let slices = self.slices(&stacked);
        if position == 1 {
            return cotangent.slice(&slices);
        }
        // What was overwritten does not reach the result.
        let zeros = cotangent.zeros_like(&with_leading(stacked[0], &saved.shapes[1]));
        cotangent.slice_assign(&slices, zeros)
    }
}

impl Rule for Repeat {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        let x = &inputs[0];
        let fits = |axis: usize| match axis == self.axis {
            true => x[axis] > 0 && recorded[axis] > 0 && recorded[axis].is_multiple_of(x[axis]),
            false => recorded[axis] == x[axis],
        };
        if self.axis < x.len() && recorded.len() == x.len() && (0..x.len()).all(fits) {
            Ok(recorded.to_vec())
        } else {
            Err(format!("copies of shape {x:?} along axis {} do not fill shape {recorded:?}", self.axis))
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let x = only(inputs);
        let times = shape[self.axis] / x.shape()[self.axis];
        Array(Dispatch::float_repeat_dim(x.0, self.axis, times))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (stacked, axis) = (cotangent.shape(), self.axis + 1);
        let shape = with_leading(stacked[0], &saved.shapes[0]);
        // The copies lie one after the other: they get an axis of their own, in front of that of x,
        // and are summed over it.
        let mut copies = shape.clone();
        copies.insert(axis, stacked[axis] / shape[axis]);
        cotangent.reshape(&copies).sum_axis(axis).reshape(&shape)
    }
}

impl fmt::Display for SliceAssign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "assign to {}", self.part)
    }
}

impl fmt::Display for Repeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repeat(axis {})", self.axis)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    match ir {
        OperationIr::BaseFloat(BaseOperationIr::RepeatDim(io)) => {
            unary(Op::Repeat(Repeat { axis: io.dim }), &io.tensor, &io.out)
        }
        OperationIr::BaseFloat(BaseOperationIr::SliceAssign(io)) => {
            let pairs = io.ranges.iter().zip(io.tensor.shape.iter());
            let ranges: Result<_, _> = pairs.map(|(range, &size)| plain_range(range, size)).collect();
            Some(ranges.map(|ranges| {
                let op = Op::SliceAssign(SliceAssign { part: Slice { ranges } });
                Lowered { op, inputs: vec![&io.tensor, &io.value], output: &io.out }
            }))
        }
        OperationIr::NumericFloat(_, NumericOperationIr::Pad(io)) => {
            let margin = match io.mode {
                PadModeIr::Constant(value) => Margin::Constant(value.elem()),
                PadModeIr::Reflect => Margin::Reflect,
                PadModeIr::Edge => Margin::Edge,
            };
            unary(Op::Pad(Pad { padding: io.padding.clone(), margin }), &io.input, &io.out)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples of parts at every end, with steps, and of copies along every axis.

    use super::super::derivatives::{OpSample, check, spread};
    use super::*;

    /// A shape with its margins.
    type Padding<'a> = (&'a [usize], &'a [(usize, usize)]);

    fn assign(x: &[usize], ranges: &[Option<[usize; 3]>], value: &[usize]) -> OpSample {
        let op = Op::SliceAssign(SliceAssign { part: Slice { ranges: ranges.to_vec() } });
        OpSample::new(op, vec![spread(x, 8), spread(value, 500)]).linear(&[0, 1])
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = vec![
            assign(&[2, 3], &[None, Some([1, 3, 1])], &[2, 2]),
            assign(&[2, 3], &[None, None], &[2, 3]),
            assign(&[5, 2, 4], &[Some([1, 4, 2])], &[2, 2, 4]),
            assign(&[1, 4, 5], &[None, Some([0, 1, 1]), Some([0, 5, 3])], &[1, 1, 2]),
            assign(&[2, 3, 9, 11], &[None, None, Some([1, 8, 1]), Some([2, 10, 1])], &[2, 3, 7, 8]),
        ];
        let paddings: [Padding<'_>; 5] = [
            (&[3], &[(1, 2)]),
            (&[2, 4], &[(0, 0), (3, 0)]),
            (&[1, 3, 2], &[(0, 0), (0, 2), (1, 1)]),
            (&[5, 2, 1], &[(0, 0), (1, 1), (0, 0)]),
            (&[2, 3, 9, 11], &[(0, 0), (0, 0), (2, 2), (1, 3)]),
        ];
        for (x, padding) in paddings {
            for margin in [Margin::Constant(0.5), Margin::Reflect, Margin::Edge] {
                let op = Op::Pad(Pad { padding: padding.to_vec(), margin });
                all.push(OpSample::new(op, vec![spread(x, 8)]).linear(&[0]));
            }
        }
        for (x, axis) in [(&[3][..], 0), (&[1, 4], 0), (&[2, 3], 1), (&[5, 2, 3], 1), (&[2, 1, 7, 9], 2)] {
            for times in [1, 2, 3] {
                let mut recorded = x.to_vec();
                recorded[axis] *= times;
                let sample = OpSample::new(Op::Repeat(Repeat { axis }), vec![spread(x, 8)]);
                all.push(sample.linear(&[0]).recorded(&recorded));
            }
        }
        all
    }

    #[test]
    fn assembly_derivatives_match_differences() {
        check(&samples());
    }
}
