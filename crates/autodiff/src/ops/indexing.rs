//! Parts selected by constant indices.
//!
//! - [`Select`]: y = the slices of x at a list of indices along an axis; the pullback adds the
//!   slices of g at these indices.
//! - [`Gather`]: y[.., i, ..] = x[.., index[.., i, ..], ..] along an axis; the pullback adds g at
//!   the indices.
//! - [`Embedding`]: y = the rows of a parameter at constant indices (a positional embedding); the
//!   pullback adds the rows of g at these indices.
//!
//! Where an index occurs several times, its cotangents add up. Indices are checked when the graph
//! is made: all lie within their axis.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{BaseOperationIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::ModuleOps;

use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// Slices at the second operand's indices along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// The axis.
    pub axis: usize,
}

/// Elements at the second operand's indices along `axis`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gather {
    /// The axis.
    pub axis: usize,
}

/// Rows of a matrix `[R, D]` at indices `[N, S]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding;

impl Rule for Select {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let ([count], true) = (inputs[1].as_slice(), self.axis < inputs[0].len()) else {
            let (x, indices) = (&inputs[0], &inputs[1]);
            return Err(format!(
                "shape {x:?} has no axis {}, or {indices:?} is not the shape of a list",
                self.axis
            ));
        };
        let mut shape = inputs[0].clone();
        shape[self.axis] = *count;
        Ok(shape)
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let [x, indices] = both(inputs);
        x.select(self.axis, indices)
    }

    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn indexes(&self, inputs: &[Vec<usize>]) -> Option<(usize, usize)> {
        Some((1, *inputs[0].get(self.axis)?))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let zeros = cotangent.zeros_like(&with_leading(cotangent.shape()[0], &saved.shapes[0]));
        zeros.select_add(self.axis + 1, saved.input(1), cotangent)
    }
}

impl Rule for Gather {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        let (x, indices, rank) = (&inputs[0], &inputs[1], inputs[0].len());
        let fits = |axis: usize| match axis == self.axis {
            true => recorded[axis] == indices[axis],
            // Indices that are equal for all samples may have a single row.
            false => recorded[axis] == x[axis] && (indices[axis] == x[axis] || indices[axis] == 1),
        };
        let ranks = indices.len() == rank && recorded.len() == rank && self.axis < rank;
        if ranks && (0..rank).all(fits) {
            Ok(recorded.to_vec())
        } else {
            Err(format!("indices of shape {indices:?} do not fit shape {x:?} along axis {}", self.axis))
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [x, indices] = both(inputs);
        x.gather(self.axis, indices.expand_indices(shape))
    }

    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn indexes(&self, inputs: &[Vec<usize>]) -> Option<(usize, usize)> {
        Some((1, *inputs[0].get(self.axis)?))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis == self.axis)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        added_at(cotangent, saved.input(1), self.axis, &saved.shapes[0])
    }
}

/// Cotangents `[V, ...]` of elements gathered at `indices` along an axis, added up in `[V,
/// ...shape]`.
pub(super) fn added_at(cotangent: Array, indices: Array, axis: usize, shape: &[usize]) -> Array {
    let (stacked, single) = (cotangent.shape(), indices.shape());
    let indices = indices.reshape_indices(&with_leading(1, &single)).expand_indices(&stacked);
    let zeros = cotangent.zeros_like(&with_leading(stacked[0], shape));
    zeros.scatter_add(axis + 1, indices, cotangent)
}

impl Rule for Embedding {
    fn shape(&self, inputs: &[Vec<usize>], recorded: &[usize]) -> Result<Vec<usize>, String> {
        match (inputs[0].as_slice(), inputs[1].as_slice(), recorded) {
            ([_, d], [rows, s], [n, length, width])
                if (rows == n || *rows == 1) && s == length && d == width =>
            {
                Ok(recorded.to_vec())
            }
            _ => {
                Err(format!("indices of shape {:?} do not fit a matrix of shape {:?}", inputs[1], inputs[0]))
            }
        }
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], _: &Placement) -> Array {
        let [matrix, indices] = both(inputs);
        Array(Dispatch::embedding(matrix.0, indices.expand_indices(&shape[..2]).0))
    }

    /// Indices are constants, and a matrix that depends on the input would couple the samples. To
    /// perturb an embedding, give its result as the sample.
    fn differentiable(&self, _: usize) -> bool {
        false
    }

    fn trainable(&self, position: usize) -> bool {
        position == 0
    }

    fn indexes(&self, inputs: &[Vec<usize>]) -> Option<(usize, usize)> {
        Some((1, *inputs[0].first()?))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position == 0)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![Keep::Input(1)]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (full, matrix) = (cotangent.shape(), &saved.shapes[0]);
        let [v, n, s] = [full[0], full[1], full[2]];
        // Samples and positions as one list of rows.
        let indices = saved.input(1).expand_indices(&[n, s]).reshape_indices(&[n * s]);
        let zeros = cotangent.zeros_like(&with_leading(v, matrix));
        zeros.select_add(1, indices, cotangent.reshape(&[v, n * s, matrix[1]]))
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "select(axis {})", self.axis)
    }
}

impl fmt::Display for Gather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gather(axis {})", self.axis)
    }
}

impl fmt::Display for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("embedding")
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    match ir {
        OperationIr::BaseFloat(BaseOperationIr::Select(io)) => {
            let op = Op::Select(Select { axis: io.dim });
            Some(Ok(Lowered { op, inputs: vec![&io.tensor, &io.indices], output: &io.out }))
        }
        OperationIr::BaseFloat(BaseOperationIr::Gather(io)) => {
            let op = Op::Gather(Gather { axis: io.dim });
            Some(Ok(Lowered { op, inputs: vec![&io.tensor, &io.indices], output: &io.out }))
        }
        OperationIr::Module(ModuleOperationIr::Embedding(io)) => {
            let inputs = vec![&io.weights, &io.indices];
            Some(Ok(Lowered { op: Op::Embedding(Embedding), inputs, output: &io.out }))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples with repeated and missing indices, and with one row of indices for all samples.

    use super::super::derivatives::{OpSample, OperandValues, check, spread};
    use super::*;
    use crate::graph::Kind;

    /// Indices below `size`, some of them several times.
    fn indices(shape: &[usize], size: usize) -> OperandValues {
        let count = shape.iter().product();
        OperandValues {
            shape: shape.to_vec(),
            values: (0..count).map(|i: usize| (i * i * 3 % size) as f64).collect(),
        }
    }

    fn sample(op: Op, x: &[usize], index: OperandValues, recorded: &[usize]) -> OpSample {
        let sample = OpSample::new(op, vec![spread(x, 8), index]).active(&[0]).linear(&[0]);
        sample.kind(1, Kind::Index).recorded(recorded)
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (x, axis) in [(&[4][..], 0), (&[2, 3], 1), (&[5, 4, 2], 1), (&[2, 3, 1, 4], 3), (&[3, 9, 11], 2)]
        {
            for count in [1, 3, 6] {
                let (mut full, mut one) = (x.to_vec(), x.to_vec());
                full[axis] = count;
                one[axis] = count;
                let select = Op::Select(Select { axis });
                all.push(sample(select, x, indices(&[count], x[axis]), &full));
                let gather = Op::Gather(Gather { axis });
                all.push(sample(gather.clone(), x, indices(&full, x[axis]), &full));
                if axis > 0 {
                    one[0] = 1;
                    all.push(sample(gather, x, indices(&one, x[axis]), &full));
                }
            }
        }
        for rows in [1, 2] {
            let embedding = sample(Op::Embedding(Embedding), &[4, 3], indices(&[rows, 5], 4), &[2, 5, 3]);
            all.push(embedding.active(&[0]).linear(&[0]));
        }
        all
    }

    #[test]
    fn selection_derivatives_match_differences() {
        check(&samples());
    }
}
