//! What the three filters have in common: their outcome, and the vectors which they project.

pub(crate) mod exact;
pub(crate) mod paper;
pub(crate) mod tikhonov;

use faer::Mat;

use crate::Tangent;

/// What a filter finds, its scales still as logarithms.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// ln FI, nothing where FI = 0.
    pub(crate) log_value: Option<f64>,
    pub(crate) rank: usize,
    pub(crate) ambiguous: bool,
    /// c e^-`log_scale`.
    pub(crate) coefficients: Vec<f64>,
    pub(crate) log_scale: f64,
}

impl Outcome {
    /// Nothing that is perturbed moves the probabilities.
    pub(crate) fn zero(classes: usize, rank: usize, ambiguous: bool) -> Self {
        Self { log_value: None, rank, ambiguous, coefficients: vec![0.0; classes], log_scale: 0.0 }
    }
}

/// V diag(s) V^T zeta, s_i being given for the first columns of V.
pub(crate) fn filtered(tangent: &Tangent, s: &[f64], zeta: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; zeta.len()];
    for (j, s) in s.iter().enumerate() {
        let column = tangent.basis.col_as_slice(j);
        let product: f64 = s * column.iter().zip(zeta).map(|(v, z)| v * z).sum::<f64>();
        sum.iter_mut().zip(column).for_each(|(sum, v)| *sum += product * v);
    }
    sum
}

/// V Sigma / sigma_1 of the first `count` columns: K x `count`.
pub(crate) fn scaled_factor(tangent: &Tangent, count: usize) -> Mat<f64> {
    let largest = tangent.largest();
    Mat::from_fn(tangent.classes(), count, |k, j| tangent.basis[(k, j)] * (tangent.singular[j] / largest))
}
