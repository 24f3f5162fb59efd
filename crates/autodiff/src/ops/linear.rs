//! Products with a matrix.
//!
//! - [`Linear`]: y = x W + b; the pullbacks are g W^T, x^T g, and the sum of g over the rows.
//! - [`Matmul`]: y = a b over the last two axes; the pullbacks are g b^T and a^T g.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{FloatOperationIr, LinearOpIr, MatmulOpIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::{FloatTensorOps, ModuleOps};

use super::arithmetic::sum_to;
use super::conv::fits_bias;
use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, weighted, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};
use crate::grams::{GradientFactors, OuterSizes};

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
            (Some((last, leading)), [i, o]) if last == i => {
                fits_bias(inputs, *o)?;
                Ok(leading.iter().chain([o]).copied().collect())
            }
            _ => Err(format!(
                "a weight of shape {:?} does not fit an input of shape {:?}",
                inputs[1], inputs[0]
            )),
        }
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let bias = inputs.get(2).map(|bias| bias.0.clone());
        Array(Dispatch::linear(inputs[0].0.clone(), inputs[1].0.clone(), bias))
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.position > 0 || passage.from.axis + 1 == passage.input.len())
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        super::arithmetic::other_of_active(active)
    }

    /// A weight that depends on the input would couple the samples.
    fn differentiable(&self, position: usize) -> bool {
        position == 0
    }

    fn trainable(&self, _: usize) -> bool {
        true
    }

    fn outer(&self, position: usize, inputs: &[Vec<usize>], _: &[usize]) -> Option<OuterSizes> {
        let (leading, weight) = (&inputs[0][..inputs[0].len() - 1], &inputs[1]);
        let positions = leading.iter().product();
        (position == 1).then(|| OuterSizes { groups: 1, outputs: weight[1], inputs: weight[0], positions })
    }

    fn factors(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> GradientFactors {
        GradientFactors::of_rows(cotangent, saved.input(0))
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let shape = cotangent.shape();
        let (v, outputs) = (shape[0], shape[shape.len() - 1]);
        let rows: usize = shape[1..shape.len() - 1].iter().product();
        let pulled = match position {
            0 => cotangent.reshape(&[v * rows, outputs]).matmul(saved.input(1).permute(&[1, 0])),
            1 => {
                let x = saved.input(0).reshape(&[1, rows, saved.shapes[1][0]]);
                transpose(x).matmul(cotangent.reshape(&[v, rows, outputs]))
            }
            _ => cotangent.reshape(&[v, rows, outputs]).sum_axis(1),
        };
        pulled.reshape(&with_leading(v, &saved.shapes[position]))
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

    fn forward(&self, inputs: Vec<Array>, _: &[usize], _: &Placement) -> Array {
        let [a, b] = both(inputs);
        a.matmul(b)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis + 1 + passage.position == passage.input.len())
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        super::arithmetic::other_of_active(active)
    }

    fn outer(&self, position: usize, inputs: &[Vec<usize>], output: &[usize]) -> Option<OuterSizes> {
        let rank = output.len();
        let (own, other) = (&inputs[position], &inputs[1 - position]);
        let leading = |shape: &[usize]| shape[..rank - 2].iter().product::<usize>();
        let (groups, products) = (leading(own), leading(output));
        // One matrix in all products, or a separate one in each; other broadcasts are summed as
        // gradients.
        let positions = match groups {
            1 => products * other[rank - 1 - position],
            _ if groups == products => other[rank - 1 - position],
            _ => return None,
        };
        let ([rows, columns], outputs) = ([own[rank - 2], own[rank - 1]], position == 1);
        let [outputs, inputs] = if outputs { [columns, rows] } else { [rows, columns] };
        Some(OuterSizes { groups, outputs, inputs, positions })
    }

    fn factors(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> GradientFactors {
        // The right operand's gradient is a sum over rows of the left one and of the cotangent; the
        // left operand's is that of the transposed product.
        let [cotangent, other] = [cotangent, saved.input(1 - position)]
            .map(|array| if position == 1 { array } else { transpose(array) });
        let (own, shape) = (&saved.shapes[position], other.shape());
        let groups: usize = own[..own.len() - 2].iter().product();
        if groups == 1 {
            return GradientFactors::of_rows(cotangent, other);
        }
        // One group for each product; a matrix that several of them share is repeated.
        let (full, rank) = (cotangent.shape(), shape.len());
        let [positions, outputs] = [full[rank - 1], full[rank]];
        let deltas = transpose(cotangent.reshape(&[full[0], groups, positions, outputs]));
        let mut wide = full[1..].to_vec();
        wide[rank - 1] = shape[rank - 1];
        let inputs = other.expand(&wide).reshape(&[groups, positions, shape[rank - 1]]);
        GradientFactors { deltas, inputs }
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
pub(super) fn transpose(array: Array) -> Array {
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

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    match ir {
        OperationIr::Module(ModuleOperationIr::Linear(LinearOpIr { x, weight, bias, out })) => {
            weighted(Op::Linear(Linear), [x, weight], bias.as_ref(), out)
        }
        OperationIr::Float(_, FloatOperationIr::Matmul(MatmulOpIr { lhs, rhs, out })) => {
            Some(Ok(Lowered { op: Op::Matmul(Matmul), inputs: vec![lhs, rhs], output: out }))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples of both products, and naive loops for linear layers.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{OpSample, array, check, place, spread, values};
    use super::*;

    /// The unit roundoff of f32. The sum of n products, in any order, is off by at most n times
    /// this, relative to the sum of their magnitudes.
    const UNIT_F32: f64 = 1.0 / (1_u64 << 24) as f64;

    /// Tolerance for f64 against loops in f64, relative to the sum of magnitudes.
    const TWIN: f64 = 1e-12;

    fn linear(x: &[usize], outputs: usize, bias: bool) -> OpSample {
        let weight = [x[x.len() - 1], outputs];
        let mut operands = vec![spread(x, 3), spread(&weight, 1_000)];
        if bias {
            operands.push(spread(&[outputs], 2_000));
        }
        let linear: Vec<_> = (0..operands.len()).collect();
        OpSample::new(Op::Linear(Linear), operands).linear(&linear)
    }

    fn matmul(a: &[usize], b: &[usize]) -> OpSample {
        OpSample::new(Op::Matmul(Matmul), vec![spread(a, 3), spread(b, 1_000)]).linear(&[0, 1])
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let linears = [1, 2, 5].into_iter().flat_map(|n| {
            [true, false].into_iter().flat_map(move |bias| {
                [
                    linear(&[n, 3], 4, bias),
                    linear(&[n, 2, 3], 1, bias),
                    linear(&[n, 1], 5, bias),
                    linear(&[n, 2, 1, 3], 2, bias),
                ]
            })
        });
        let matmuls = [
            matmul(&[2, 3], &[3, 4]),
            matmul(&[3, 3], &[3, 3]),
            matmul(&[1, 1], &[1, 1]),
            matmul(&[5, 2, 3], &[5, 3, 2]),
            matmul(&[1, 2, 3], &[4, 3, 2]),
            matmul(&[4, 2, 3], &[1, 3, 2]),
            matmul(&[2, 1, 2, 3], &[1, 3, 3, 1]),
            matmul(&[1, 1, 2, 3], &[2, 2, 3, 2]),
        ];
        let large = [linear(&[5, 67], 33, true), matmul(&[3, 17, 33], &[1, 33, 19])];
        linears.chain(matmuls).chain(large).collect()
    }

    #[test]
    fn product_derivatives_match_differences() {
        check(&samples());
    }

    /// Compares y = x W + b and g W^T with loops, within the bound `unit` (of the number of terms).
    fn agrees(n: usize, i: usize, o: usize, dtype: FloatDType, unit: impl Fn(f64) -> f64) {
        let round = |values: &[f64]| values.iter().map(|&v| f64::from(v as f32)).collect::<Vec<_>>();
        let shapes = [vec![n, i], vec![i, o], vec![o], vec![n, o]];
        let [x, w, b, g] = [0, 1, 2, 3].map(|at| round(&spread(&shapes[at], 100 * at).values));
        let place = place(dtype);
        let [ax, aw, ab] = [(0, &x), (1, &w), (2, &b)].map(|(at, v)| array(&shapes[at], v, &place));
        let y = values(Linear.forward(vec![ax, aw.clone(), ab], &shapes[3], &place));
        let saved =
            Saved { inputs: &[None, Some(aw), None], output: None, derived: None, shapes: &shapes[..3] };
        let gx = values(Linear.pullback(array(&[1, n, o], &g, &place), 0, &saved));
        let compare = |found: f64, products: Vec<f64>| {
            let magnitude: f64 = products.iter().map(|p| p.abs()).sum();
            let error = (products.iter().sum::<f64>() - found).abs();
            assert!(error <= unit(products.len() as f64) * magnitude, "[{n}, {i}] x {o}: {error:e}");
        };
        for row in 0..n {
            for k in 0..o {
                let products = (0..i).map(|j| x[row * i + j] * w[j * o + k]).chain([b[k]]).collect();
                compare(y[row * o + k], products);
            }
            for j in 0..i {
                compare(gx[row * i + j], (0..o).map(|k| g[row * o + k] * w[j * o + k]).collect());
            }
        }
    }

    #[test]
    fn linear_forward_and_pullback_agree_with_naive_loops() {
        for (n, i, o) in [(1, 1, 1), (1, 130, 10), (5, 7, 3), (2, 64, 65), (3, 33, 1)] {
            agrees(n, i, o, FloatDType::F64, |_| TWIN);
            agrees(n, i, o, FloatDType::F32, |terms| (terms + 1.0) * UNIT_F32);
        }
    }
}
