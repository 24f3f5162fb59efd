//! Products with a matrix.
//!
//! [`Linear`]: y = x W + b, pullback g W^T. [`Matmul`]: y = a b over the last two axes, pullbacks g b^T and a^T g.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{FloatOperationIr, LinearOpIr, MatmulOpIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::{FloatTensorOps, ModuleOps};

use super::arithmetic::sum_to;
use super::{Keep, Lowered, Lowering, Op, Rule, Saved, both, with_leading};
use crate::array::{Array, Place};

/// y = x W + b for x `[..., I]`, W `[I, O]` and an optional b `[O]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear;

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("linear")
    }
}

impl Rule for Linear {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        match (inputs[0].split_last(), inputs[1].as_slice()) {
            (Some((last, leading)), [i, o]) if last == i => Ok(leading.iter().chain([o]).copied().collect()),
            _ => Err(format!(
                "a weight of shape {:?} does not fit an input of shape {:?}",
                inputs[1], inputs[0]
            )),
        }
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        let bias = inputs.get(2).map(|bias| bias.0.clone());
        Array(Dispatch::linear(inputs[0].0.clone(), inputs[1].0.clone(), bias))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (shape, weight) = (cotangent.shape(), saved.input(1));
        let (outputs, rows) = (shape[shape.len() - 1], shape[..shape.len() - 1].iter().product());
        let product = cotangent.reshape(&[rows, outputs]).matmul(weight.permute(&[1, 0]));
        product.reshape(&with_leading(shape[0], &saved.shapes[0]))
    }
}

/// y = a b over the last two axes; leading axes broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matmul;

impl fmt::Display for Matmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("matmul")
    }
}

impl Rule for Matmul {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let (a, b) = (&inputs[0], &inputs[1]);
        let rank = a.len();
        if rank < 2 || b.len() != rank || a[rank - 1] != b[rank - 2] {
            return Err(format!("shapes {a:?} and {b:?} do not fit a matrix product"));
        }
        let mut shape = super::arithmetic::broadcast(&a[..rank - 2], &b[..rank - 2])?;
        shape.extend([a[rank - 2], b[rank - 1]]);
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Place) -> Array {
        let [a, b] = both(inputs);
        a.matmul(b)
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        (0..2).filter(|&position| active[1 - position]).map(Keep::Input).collect()
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let other = saved.input(1 - position);
        let other_shape = other.shape();
        let other = transpose(other.reshape(&with_leading(1, &other_shape)));
        let product = if position == 0 { cotangent.matmul(other) } else { other.matmul(cotangent) };
        sum_to(product, &saved.shapes[position])
    }
}

/// The last two axes swapped.
fn transpose(array: Array) -> Array {
    let rank = array.shape().len();
    let mut axes: Vec<_> = (0..rank).collect();
    axes.swap(rank - 2, rank - 1);
    array.permute(&axes)
}

impl Array {
    /// The matrix product over the last two axes; leading axes broadcast.
    pub(crate) fn matmul(self, other: Self) -> Self {
        Self(Dispatch::float_matmul(self.0, other.0))
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    match ir {
        OperationIr::Module(ModuleOperationIr::Linear(LinearOpIr { x, weight, bias, out })) => {
            let inputs = [x, weight].into_iter().chain(bias).collect();
            Some(Ok(Lowered { op: Op::Linear(Linear), inputs, output: out }))
        }
        OperationIr::Float(_, FloatOperationIr::Matmul(MatmulOpIr { lhs, rhs, out })) => {
            Some(Ok(Lowered { op: Op::Matmul(Matmul), inputs: vec![lhs, rhs], output: out }))
        }
        _ => None,
    }
}
