//! Operations along one axis as operations on images of height 1.
//!
//! An operand `[B, C, L]` is given to the two-dimensional rule as `[B, C, 1, L]`, and the axis of
//! size 1 is dropped from the result. Weights `[O, C, K]` become `[O, C, 1, K]` in the same way.

use std::fmt;

use super::{Keep, Rule, Saved, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};
use crate::grams::{GradientFactors, OuterSizes};

/// A two-dimensional rule applied to images of height 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsImage<R>(pub R);

impl<R: fmt::Display> fmt::Display for AsImage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.0)
    }
}

/// `[a, b, c]` as `[a, b, 1, c]`; other shapes (a bias) stay.
fn lifted_shape(shape: &[usize]) -> Vec<usize> {
    match *shape {
        [a, b, c] => vec![a, b, 1, c],
        _ => shape.to_vec(),
    }
}

/// An array reshaped by [`lifted_shape`].
fn lifted(array: Array) -> Array {
    let shape = lifted_shape(&array.shape());
    array.reshape(&shape)
}

impl<R: Rule> Rule for AsImage<R> {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        if inputs[0].len() != 3 {
            return Err(format!("three axes are needed, found shape {:?}", inputs[0]));
        }
        let inputs: Vec<_> = inputs.iter().map(|shape| lifted_shape(shape)).collect();
        let shape = self.0.shape(&inputs, &lifted_shape(recorded))?;
        Ok(vec![shape[0], shape[1], shape[3]])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let inputs = inputs.into_iter().map(lifted).collect();
        self.0.forward(inputs, &lifted_shape(shape), place).reshape(shape)
    }

    fn differentiable(&self, position: usize) -> bool {
        self.0.differentiable(position)
    }

    fn trainable(&self, position: usize) -> bool {
        self.0.trainable(position)
    }

    fn outer(&self, position: usize, inputs: &[Vec<usize>], output: &[usize]) -> Option<OuterSizes> {
        let inputs: Vec<_> = inputs.iter().map(|shape| lifted_shape(shape)).collect();
        self.0.outer(position, &inputs, &lifted_shape(output))
    }

    fn factors(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> GradientFactors {
        lift(cotangent, saved, |cotangent, image| self.0.factors(cotangent, position, image))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        // Axes of a row as axes of the image, and back.
        let (lifted, dropped) = ([0, 1, 3], [0, 1, 1, 2]);
        let [input, output] = [passage.input, passage.output].map(lifted_shape);
        let from = BatchAxis { axis: lifted[passage.from.axis], ..passage.from };
        let axis = lifted[passage.axis];
        let found = self.0.carry(&Passage { from, input: &input, output: &output, axis, ..*passage })?;
        Some(BatchAxis { axis: dropped[found.axis], ..found })
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        self.0.keeps(active)
    }

    fn trace(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> (Array, Option<Array>) {
        let inputs = inputs.into_iter().map(lifted).collect();
        let (output, derived) = self.0.trace(inputs, &lifted_shape(shape), place);
        (output.reshape(shape), derived)
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let count = cotangent.shape()[0];
        let pulled = lift(cotangent, saved, |cotangent, image| self.0.pullback(cotangent, position, image));
        pulled.reshape(&with_leading(count, &saved.shapes[position]))
    }
}

/// Calls `work` with cotangents and saved tensors reshaped to images of height 1.
fn lift<T>(cotangent: Array, saved: &Saved<'_>, work: impl FnOnce(Array, &Saved<'_>) -> T) -> T {
    let full = cotangent.shape();
    let inputs: Vec<_> = saved.inputs.iter().map(|input| input.clone().map(lifted)).collect();
    let output = saved.output.cloned().map(lifted);
    let shapes: Vec<_> = saved.shapes.iter().map(|shape| lifted_shape(shape)).collect();
    let image = Saved { inputs: &inputs, output: output.as_ref(), derived: saved.derived, shapes: &shapes };
    work(cotangent.reshape(&with_leading(full[0], &lifted_shape(&full[1..]))), &image)
}
