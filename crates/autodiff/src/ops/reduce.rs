//! Sums and means over axes, which stay with size 1 (a full reduction gives shape `[1]`).
//!
//! y = sum of x over the axes, pullback g repeated along them; the mean divides both by the number of summed elements.

use std::fmt;

use burn::backend::ir::{NumericOperationIr, OperationIr};

use super::{Keep, Lowering, Op, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Place};

/// The sum over `axes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    /// The summed axes, in ascending order.
    pub axes: Vec<usize>,
}

/// The mean over `axes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mean {
    /// The averaged axes, in ascending order.
    pub axes: Vec<usize>,
}

fn reduced(input: &[usize], axes: &[usize], recorded: &[usize]) -> Result<Vec<usize>, String> {
    if axes.iter().any(|&axis| axis >= input.len()) {
        return Err(format!("shape {input:?} has not all of the axes {axes:?}"));
    }
    if axes.len() == input.len() && recorded == [1] {
        return Ok(vec![1]);
    }
    Ok(input.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect())
}

fn sum(input: Array, axes: &[usize], shape: &[usize]) -> Array {
    axes.iter().fold(input, |sum, &axis| sum.sum_axis(axis)).reshape(shape)
}

/// The cotangent of a reduction, repeated along the reduced axes.
fn repeat(cotangent: Array, axes: &[usize], shape: &[usize]) -> Array {
    let v = cotangent.shape()[0];
    let kept: Vec<_> =
        shape.iter().enumerate().map(|(axis, &size)| if axes.contains(&axis) { 1 } else { size }).collect();
    cotangent.reshape(&with_leading(v, &kept)).expand(&with_leading(v, shape))
}

/// How many elements of `shape` one element of the result stands for.
fn count(shape: &[usize], axes: &[usize]) -> f64 {
    axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64
}

impl Rule for Sum {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        reduced(&inputs[0], &self.axes, recorded)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Place) -> Array {
        sum(only(inputs), &self.axes, shape)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        repeat(cotangent, &self.axes, &saved.shapes[0])
    }
}

impl Rule for Mean {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        reduced(&inputs[0], &self.axes, recorded)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Place) -> Array {
        let count = count(&inputs[0].shape(), &self.axes);
        sum(only(inputs), &self.axes, shape).div_scalar(count)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        // The division comes first: it has fewer elements to divide.
        let count = count(&saved.shapes[0], &self.axes);
        repeat(cotangent.div_scalar(count), &self.axes, &saved.shapes[0])
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sum(axes {:?})", self.axes)
    }
}

impl fmt::Display for Mean {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mean(axes {:?})", self.axes)
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    use NumericOperationIr as N;
    let OperationIr::NumericFloat(_, numeric) = ir else { return None };
    let all = |rank: usize| (0..rank).collect::<Vec<_>>();
    match numeric {
        N::Sum(io) => unary(Op::Sum(Sum { axes: all(io.input.shape.num_dims()) }), &io.input, &io.out),
        N::SumDim(io) => unary(Op::Sum(Sum { axes: vec![io.axis] }), &io.input, &io.out),
        N::SumDims(io) => {
            let mut axes = io.axes.clone();
            axes.sort_unstable();
            axes.dedup();
            unary(Op::Sum(Sum { axes }), &io.input, &io.out)
        }
        N::Mean(io) => unary(Op::Mean(Mean { axes: all(io.input.shape.num_dims()) }), &io.input, &io.out),
        N::MeanDim(io) => unary(Op::Mean(Mean { axes: vec![io.axis] }), &io.input, &io.out),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples for every set of axes of small shapes.

    use super::super::derivatives::{Sample, check, spread};
    use super::*;

    pub(in super::super) fn samples() -> Vec<Sample> {
        let shapes: [&[usize]; 6] = [&[3], &[1, 4], &[5, 2], &[2, 3, 2], &[1, 1, 3, 2], &[2, 5, 7, 9]];
        let mut all = Vec::new();
        for shape in shapes {
            for set in 1_usize..1 << shape.len() {
                let axes: Vec<_> = (0..shape.len()).filter(|axis| set >> axis & 1 == 1).collect();
                let kept = reduced(shape, &axes, &[]).expect("axes of the shape");
                let full = axes.len() == shape.len();
                for recorded in [Some(kept), full.then(|| vec![1])].into_iter().flatten() {
                    for op in [Op::Sum(Sum { axes: axes.clone() }), Op::Mean(Mean { axes: axes.clone() })] {
                        let sample = Sample::new(op, vec![spread(shape, 8)]);
                        all.push(sample.linear(&[0]).recorded(&recorded));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn derivatives() {
        check(&samples());
    }
}
