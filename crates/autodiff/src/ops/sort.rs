//! Sorted elements.
//!
//! In [`Sort`], y = the elements along an axis in ascending or descending order, or the first of
//! them (the largest k); the pullback adds each element of g at the element from which it came. The
//! order of equal elements is the backend's; the measure is not defined where elements are equal.

use std::fmt;

use burn::backend::ir::{NumericOperationIr, OperationIr};

use super::indexing::added_at;
use super::{Keep, Op, Recognition, Rule, Saved, only, unary};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// The first `count` elements along `axis` in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// The axis.
    pub axis: usize,
    /// Whether the largest comes first.
    pub descending: bool,
    /// The number of elements to keep; all where there is none.
    pub count: Option<usize>,
}

impl Rule for Sort {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let mut shape = inputs[0].clone();
        match (shape.get_mut(self.axis), self.count) {
            (None, _) => return Err(format!("shape {:?} has no axis {}", inputs[0], self.axis)),
            (Some(size), Some(count)) if count > *size => {
                return Err(format!("an axis of {size} has fewer than {count} elements"));
            }
            (Some(size), count) => *size = count.unwrap_or(*size),
        }
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        self.trace(inputs, shape, place).0
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Indices]
    }

    fn trace(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> (Array, Option<Array>) {
        let (values, indices) = only(inputs).sorted(self.axis, self.descending);
        match self.count {
            None => (values, Some(indices)),
            Some(count) => {
                let kept = indices.first_indices(self.axis, count);
                (values.part(self.axis, 0, count), Some(kept))
            }
        }
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        added_at(cotangent, saved.derived(), self.axis, &saved.shapes[0])
    }
}

impl fmt::Display for Sort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.descending { "descending" } else { "ascending" };
        let count = self.count.map(|count| format!(", first {count}")).unwrap_or_default();
        write!(f, "sort(axis {}, {order}{count})", self.axis)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    use NumericOperationIr as N;
    let OperationIr::NumericFloat(_, numeric) = ir else { return None };
    let sort = |axis, descending, count| Op::Sort(Sort { axis, descending, count });
    match numeric {
        N::Sort(io) => unary(sort(io.dim, io.descending, None), &io.input, &io.out),
        N::SortWithIndices(io) => unary(sort(io.dim, io.descending, None), &io.input, &io.out),
        N::TopK(io) => unary(sort(io.axis, true, Some(io.out.shape[io.axis])), &io.input, &io.out),
        N::TopKWithIndices(io) => unary(sort(io.dim, true, Some(io.k)), &io.tensor, &io.out),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples along every axis, in both orders, with all elements and with the first k.

    use super::super::derivatives::{OpSample, check, spread};
    use super::*;

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (x, axis) in [(&[4][..], 0), (&[2, 5], 1), (&[3, 4, 2], 1), (&[5, 1, 3], 0), (&[3, 9, 11], 2)] {
            for (descending, count) in [(false, None), (true, None), (true, Some(1)), (true, Some(3))] {
                all.push(OpSample::new(Op::Sort(Sort { axis, descending, count }), vec![spread(x, 8)]));
            }
        }
        all
    }

    #[test]
    fn sort_derivatives_match_differences() {
        check(&samples());
    }
}
