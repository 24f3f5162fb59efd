//! Windows along an axis, one after the other on a new axis.
//!
//! In [`Unfold`], y[.., i, .., j] = x[.., step i + j, ..] along an axis, with j on a new last axis;
//! the pullback adds each element of g at the element from which it came.

use std::fmt;

use burn::backend::ir::{BaseOperationIr, OperationIr};
use burn::tensor::TensorData;

use super::{Keep, Op, Recognition, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Windows of `size` elements along `axis`, a `step` apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfold {
    /// The axis.
    pub axis: usize,
    /// Number of elements of a window.
    pub size: usize,
    /// Distance between the starts of two windows.
    pub step: usize,
}

impl Unfold {
    /// For each element of each of `count` windows, the index along the axis from which it comes.
    fn sources(&self, count: usize, place: &Placement) -> Array {
        let source = |i: usize| (i / self.size * self.step + i % self.size) as i64;
        let sources: Vec<_> = (0..count * self.size).map(source).collect();
        let shape = [sources.len()];
        Array::indices(TensorData::new(sources, shape), place)
    }

    /// Two orders of axes, for `lead` more axes in front: one moves the axis of the windows'
    /// elements from its place after the windows to the end, the other moves it back.
    fn orders(&self, rank: usize, lead: usize) -> [Vec<usize>; 2] {
        let inside = lead + self.axis + 1;
        let mut out: Vec<_> = (0..lead + rank + 1).collect();
        out.remove(inside);
        out.push(inside);
        let mut back: Vec<_> = (0..lead + rank).collect();
        back.insert(inside, lead + rank);
        [out, back]
    }
}

impl Rule for Unfold {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let mut shape = inputs[0].clone();
        let fits = shape.get(self.axis).is_some_and(|&size| self.size <= size);
        if !fits || self.size == 0 || self.step == 0 {
            return Err(format!("{self} does not fit shape {:?}", inputs[0]));
        }
        shape[self.axis] = (shape[self.axis] - self.size) / self.step + 1;
        shape.push(self.size);
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let (x, rank) = (only(inputs), shape.len() - 1);
        let mut windows = shape[..rank].to_vec();
        windows.insert(self.axis + 1, self.size);
        let [out, _] = self.orders(rank, 0);
        x.select(self.axis, self.sources(shape[self.axis], place)).reshape(&windows).permute(&out)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (full, x) = (cotangent.shape(), &saved.shapes[0]);
        let (count, place) = (full[self.axis + 1], cotangent.place());
        let [_, back] = self.orders(x.len(), 1);
        let mut flat = with_leading(full[0], x);
        flat[self.axis + 1] = count * self.size;
        let zeros = cotangent.zeros_like(&with_leading(full[0], x));
        zeros.select_add(self.axis + 1, self.sources(count, &place), cotangent.permute(&back).reshape(&flat))
    }
}

impl fmt::Display for Unfold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unfold(axis {}, size {}, step {})", self.axis, self.size, self.step)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::BaseFloat(BaseOperationIr::Unfold(io)) = ir else { return None };
    unary(Op::Unfold(Unfold { axis: io.dim, size: io.size, step: io.step }), &io.input, &io.out)
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples along every axis, with windows that overlap, touch, and leave elements out.

    use burn::backend::Dispatch;
    use burn::backend::ops::FloatTensorOps;

    use super::super::derivatives::{OpSample, check, check_values, spread};
    use super::*;

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (x, axis) in [(&[5][..], 0), (&[2, 5], 1), (&[3, 6, 2], 1), (&[5, 2, 3], 0), (&[2, 3, 9, 11], 2)]
        {
            for (size, step) in [(1, 1), (2, 1), (3, 2), (2, 3)] {
                let op = Op::Unfold(Unfold { axis, size, step });
                all.push(OpSample::new(op, vec![spread(x, 8)]).linear(&[0]));
            }
        }
        all
    }

    #[test]
    fn unfold_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn unfold_values_are_those_of_burns_kernel() {
        // Elements are only moved: the values are equal.
        check_values(&samples(), 0.0, |op, operands| {
            let Op::Unfold(Unfold { axis, size, step }) = *op else { return None };
            Some(Array(Dispatch::float_unfold(only(operands).0, axis, size, step)))
        });
    }
}
