//! Operations whose derivative is zero wherever it exists: masks, and functions that are constant
//! between steps. Values that depend on the input only through them have no cotangent.

use std::fmt;

use super::{Keep, Rule, Saved, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// What such an operation computes. The rest of its [`Rule`] follows: nothing is kept, the
/// cotangents are zeros, and samples lie in the result as in the operands.
pub(crate) trait LocallyConstant: fmt::Debug + fmt::Display {
    /// As [`Rule::shape`].
    fn shape_of(&self, inputs: &[Vec<usize>]) -> Result<Vec<usize>, String> {
        Ok(inputs[0].clone())
    }

    /// As [`Rule::forward`].
    fn value(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array;
}

impl<F: LocallyConstant> Rule for F {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        self.shape_of(inputs)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        self.value(inputs, shape, place)
    }

    fn is_locally_constant(&self) -> bool {
        true
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(false)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        cotangent.zeros_like(&with_leading(cotangent.shape()[0], &saved.shapes[position]))
    }
}
