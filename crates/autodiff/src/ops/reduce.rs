//! Sums, means and extrema over axes, which keep size 1 (a reduction over all axes may give shape
//! `[1]`).
//!
//! - [`Sum`], [`Mean`]: y = sum of x over the axes, and the pullback is g repeated along them; the
//!   mean divides both by the number of summed elements.
//! - [`Extremum`]: y = the largest or smallest element along an axis; the pullback adds g at that
//!   element. Of several equal ones the first receives all, as in pools.
//! - [`CumSum`]: y_i = the sum of x_j for j <= i along an axis; the pullback is the sum of g_j for
//!   j >= i.

use std::fmt;

use burn::backend::ir::{NumericOperationIr, OperationIr};

use super::indexing::added_at;
use super::{Keep, Op, Recognition, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

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

/// The largest or smallest element along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extremum {
    /// The axis.
    pub axis: usize,
    /// Whether the smallest element is taken.
    pub smallest: bool,
}

/// The sums of the elements up to each along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
}

/// The shape of a reduction, which is `[1]` where all axes are reduced and the recording has that.
fn reduced(input: &[usize], axes: &[usize], recorded: &[usize]) -> Result<Vec<usize>, String> {
    if axes.iter().any(|&axis| axis >= input.len()) {
        return Err(format!("shape {input:?} does not have all of the axes {axes:?}"));
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

/// The number of elements of `shape` that one element of the result sums.
fn count(shape: &[usize], axes: &[usize]) -> f64 {
    axes.iter().map(|&axis| shape[axis]).product::<usize>() as f64
}

impl Rule for Sum {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        reduced(&inputs[0], &self.axes, recorded)
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        sum(only(inputs), &self.axes, shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.axes.contains(&passage.from.axis))
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

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let count = count(&inputs[0].shape(), &self.axes);
        sum(only(inputs), &self.axes, shape).div_scalar(count)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(self.axes.contains(&passage.from.axis))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        // Division before repetition: there are fewer elements to divide.
        let count = count(&saved.shapes[0], &self.axes);
        repeat(cotangent.div_scalar(count), &self.axes, &saved.shapes[0])
    }
}

impl Rule for Extremum {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        reduced(&inputs[0], &[self.axis], &[])
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
        let x = only(inputs);
        let indices = if self.smallest { x.clone().neg().argmax(self.axis) } else { x.argmax(self.axis) };
        (x.gather(self.axis, indices.clone()), Some(indices))
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        added_at(cotangent, saved.derived(), self.axis, &saved.shapes[0])
    }
}

impl Rule for CumSum {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        reduced(&inputs[0], &[self.axis], &[]).map(|_| inputs[0].clone())
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        only(inputs).sums_along(self.axis)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, _: &Saved<'_>) -> Array {
        let axis = self.axis + 1;
        cotangent.flip(&[axis]).sums_along(axis).flip(&[axis])
    }
}

impl fmt::Display for CumSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cumsum(axis {})", self.axis)
    }
}

impl fmt::Display for Extremum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(axis {})", if self.smallest { "min" } else { "max" }, self.axis)
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

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
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
        N::CumSum(io) => unary(Op::CumSum(CumSum { axis: io.axis }), &io.input, &io.out),
        N::MaxDim(io) => unary(extremum(io.axis, false), &io.input, &io.out),
        N::MinDim(io) => unary(extremum(io.axis, true), &io.input, &io.out),
        N::MaxDimWithIndices(io) => unary(extremum(io.dim, false), &io.tensor, &io.out),
        N::MinDimWithIndices(io) => unary(extremum(io.dim, true), &io.tensor, &io.out),
        _ => None,
    }
}

fn extremum(axis: usize, smallest: bool) -> Op {
    Op::Extremum(Extremum { axis, smallest })
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples for every set of axes of small shapes.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, check, place, spread, values};
    use super::*;

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let shapes: [&[usize]; 6] = [&[3], &[1, 4], &[5, 2], &[2, 3, 2], &[1, 1, 3, 2], &[2, 5, 7, 9]];
        let mut all = Vec::new();
        for shape in shapes {
            for set in 1_usize..1 << shape.len() {
                let axes: Vec<_> = (0..shape.len()).filter(|axis| set >> axis & 1 == 1).collect();
                let kept = reduced(shape, &axes, &[]).expect("axes of the shape");
                let full = axes.len() == shape.len();
                if let [axis] = axes[..] {
                    let both = [false, true].map(|smallest| extremum(axis, smallest));
                    all.extend(both.map(|op| OpSample::new(op, vec![spread(shape, 8)])));
                    let sums = OpSample::new(Op::CumSum(CumSum { axis }), vec![spread(shape, 8)]);
                    all.push(sums.linear(&[0]));
                }
                for recorded in [Some(kept), full.then(|| vec![1])].into_iter().flatten() {
                    for op in [Op::Sum(Sum { axes: axes.clone() }), Op::Mean(Mean { axes: axes.clone() })] {
                        let sample = OpSample::new(op, vec![spread(shape, 8)]);
                        all.push(sample.linear(&[0]).recorded(&recorded));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn reduction_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn extremum_pullback_goes_to_the_first_of_equal_elements_and_nan_goes_through() {
        for dtype in [FloatDType::F32, FloatDType::F64] {
            let x = [1.0, 3.0, 3.0, 1.0, 2.0];
            assert_eq!(along(&extremum(0, false), &x, dtype), (3.0, vec![0.0, 1.0, 0.0, 0.0, 0.0]));
            assert_eq!(along(&extremum(0, true), &x, dtype), (1.0, vec![1.0, 0.0, 0.0, 0.0, 0.0]));
            for (at, smallest) in (0..3).flat_map(|at| [(at, false), (at, true)]) {
                let mut x = [1.0, 2.0, 3.0];
                x[at] = f64::NAN;
                assert!(along(&extremum(0, smallest), &x, dtype).0.is_nan(), "NaN at {at}, {smallest}");
            }
        }
    }

    /// Value and slopes of an extremum of one row.
    fn along(op: &Op, x: &[f64], dtype: FloatDType) -> (f64, Vec<f64>) {
        let (place, shape) = (place(dtype), [x.len()]);
        let (y, derived) = op.rule().trace(vec![array(&shape, x, &place)], &[1], &place);
        let saved =
            Saved { inputs: &[None], output: None, derived: derived.as_ref(), shapes: &[shape.to_vec()] };
        let slopes = op.rule().pullback(array(&[1, 1], &[1.0], &place), 0, &saved);
        (values(y)[0], values(slopes))
    }
}
