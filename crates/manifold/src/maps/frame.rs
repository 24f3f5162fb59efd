//! What all windows of one image share: the rows of the Jacobian in the coordinates of each filter.
//! Each row is a plane of the image.
//!
//! With R = J / `scale`, `scale` a power of two, and X_k = R_k - R_top for the n = K-1 classes
//! other than the predicted one:
//!
//! * centred rows in n orthonormal coordinates of the complement of 1: they have the singular
//!   values of C J, which decide the rank;
//! * X, for the elimination of few columns, with weights q = sqrt P and r = dh / q;
//! * Y = (I - beta q q^T) diag(q) X, beta = 1 / (1 + sqrt P_top). Y^T Y = G, because (I - beta q
//!   q^T)^2 = I - q q^T, which is invertible. df = Y^T u with u = (I - beta q q^T)^-1 r. No mean is
//!   subtracted, so nothing cancels;
//! * T of the authors' numerics in the complement of its null direction, and the row T_y.

use faer::Mat;

use crate::filters::paper::null_logs;
use crate::gradient::LogitGradient;
use crate::reflection::Reflection;
use crate::{Probabilities, Scalar};

/// Samples with |ln P| or |ln dh| beyond this go to the reference route, which carries exponents
/// separately. Here plain numbers are used, whose squares must stay within e^709.
const SAFE_LOG: f64 = 500.0;
/// Largest number of classes for which the Gram matrices of all windows are held in memory: at 33
/// they take 4 KiB per window. Samples with more go to the reference route.
pub(super) const MOST_CLASSES: usize = 33;

/// A row-major matrix whose columns are those of J.
#[derive(Debug)]
pub(super) struct FrameRows {
    pub(super) values: Vec<f64>,
    pub(super) columns: usize,
}

impl FrameRows {
    fn new(count: usize, columns: usize) -> Self {
        Self { values: vec![0.0; count * columns], columns }
    }

    pub(super) fn row(&self, k: usize) -> &[f64] {
        &self.values[k * self.columns..][..self.columns]
    }

    fn row_mut(&mut self, k: usize) -> &mut [f64] {
        &mut self.values[k * self.columns..][..self.columns]
    }
}

/// `target` += `factor` `row`.
fn add_scaled(target: &mut [f64], factor: f64, row: &[f64]) {
    target.iter_mut().zip(row).for_each(|(sum, x)| *sum += factor * x);
}

/// One image: R with K rows, and the objective as plain `f64` numbers.
#[derive(Debug)]
pub(super) struct Frame {
    /// R: K x p, the last row zero where differences were given.
    rows: FrameRows,
    /// The number of rows that were given: K or K-1.
    given: usize,
    pub(super) scale: f64,
    /// The classes other than the predicted one, ascending.
    others: Vec<usize>,
    top: usize,
    /// q, of the other classes.
    pub(super) weights: Vec<f64>,
    /// r = dh / q, of the other classes.
    pub(super) right: Vec<f64>,
    top_weight: f64,
    pub(super) bound: f64,
}

impl Frame {
    /// The frame of one sample; `None` where it exceeds the range of plain `f64` numbers, has too
    /// many classes, or a gradient with an error of its own.
    pub(super) fn new<T: Scalar>(
        rows: &[T],
        columns: usize,
        probabilities: &Probabilities,
        gradient: &LogitGradient,
    ) -> Option<Self> {
        let (classes, top) = (probabilities.classes(), probabilities.predicted());
        let logs = probabilities.logs();
        let in_range = |log: &f64| log.abs() < SAFE_LOG || *log == f64::NEG_INFINITY;
        let safe = logs.iter().all(|l| -l < SAFE_LOG) && gradient.log_abs.iter().all(in_range);
        // Only the reference route includes the gradient's own error in its estimate.
        if classes > MOST_CLASSES || !safe || gradient.log_error > f64::NEG_INFINITY {
            return None;
        }
        let largest = rows.iter().fold(0.0_f64, |most, x| most.max(x.to_f64().abs()));
        if !(largest > 0.0 && largest.log2().abs() < SAFE_LOG) {
            return None;
        }
        let scale = largest.log2().floor().exp2();
        let mut all = FrameRows::new(classes, columns);
        all.values.iter_mut().zip(rows).for_each(|(target, x)| *target = x.to_f64() / scale);
        let others: Vec<usize> = (0..classes).filter(|k| *k != top).collect();
        let weights: Vec<f64> = others.iter().map(|&k| (0.5 * logs[k]).exp()).collect();
        let right = others.iter().map(|&k| gradient.signs[k] * (gradient.log_abs[k] - 0.5 * logs[k]).exp());
        Some(Self {
            right: right.collect(),
            given: rows.len() / columns,
            rows: all,
            scale,
            others,
            top,
            weights,
            top_weight: (0.5 * logs[top]).exp(),
            bound: gradient.log_bound.exp(),
        })
    }

    /// The number of rows, n = K - 1.
    pub(super) fn size(&self) -> usize {
        self.others.len()
    }

    /// The sum of squares of every column as given, before centring.
    pub(super) fn given_squares(&self) -> Vec<f64> {
        let mut sum = vec![0.0; self.rows.columns];
        for k in 0..self.given {
            sum.iter_mut().zip(self.rows.row(k)).for_each(|(sum, x)| *sum += x * x);
        }
        sum
    }

    /// The Frobenius norm of some columns as given, before centring.
    pub(super) fn norm(&self, indices: &[usize]) -> f64 {
        let of = |row: &[f64]| indices.iter().map(|&i| row[i] * row[i]).sum::<f64>();
        (0..self.given).map(|k| of(self.rows.row(k))).sum::<f64>().sqrt()
    }

    /// The centred rows in the complement of 1: n x p.
    pub(super) fn centred(&self) -> FrameRows {
        complement(&self.rows, &vec![1.0; self.size() + 1])
    }

    /// The rows X: n x p.
    pub(super) fn above(&self) -> FrameRows {
        let mut above = FrameRows::new(self.size(), self.rows.columns);
        for (i, &k) in self.others.iter().enumerate() {
            let target = above.row_mut(i);
            target.copy_from_slice(self.rows.row(k));
            add_scaled(target, -1.0, self.rows.row(self.top));
        }
        above
    }

    /// The rows Y (n x p) and the vector u (n).
    pub(super) fn weighted(&self) -> (FrameRows, Vec<f64>) {
        let beta = 1.0 / (1.0 + self.top_weight);
        let mut rows = self.above();
        let mut mean = vec![0.0; rows.columns];
        for (i, q) in self.weights.iter().enumerate() {
            add_scaled(&mut mean, q * q, rows.row(i));
        }
        for (i, q) in self.weights.iter().enumerate() {
            let target = rows.row_mut(i);
            target.iter_mut().for_each(|x| *x *= q);
            add_scaled(target, -beta * q, &mean);
        }
        // (I - beta q q^T)^-1 = I + q q^T / (t (1 + t)), t = sqrt P_top.
        let share: f64 = self.weights.iter().zip(&self.right).map(|(q, r)| q * r).sum();
        let factor = share / (self.top_weight * (1.0 + self.top_weight));
        (rows, self.weights.iter().zip(&self.right).map(|(q, r)| r + factor * q).collect())
    }

    /// T in the complement of its null direction with T_y appended as the last row, (n + 1) x p;
    /// and e_y in that complement, n.
    pub(super) fn paper(
        &self,
        probabilities: &Probabilities,
        y: usize,
        epsilon: f64,
    ) -> (FrameRows, Vec<f64>) {
        let classes = self.size() + 1;
        let (values, logs) = (probabilities.values(), probabilities.logs());
        let mut rows = FrameRows::new(classes, self.rows.columns);
        let mut mean = vec![0.0; rows.columns];
        // T_k = P_k / n_k (X_k - P^T X). The predicted class's row is subtracted before the mean is
        // taken, for the reason given in `filters::deviations`.
        for &k in &self.others {
            let target = rows.row_mut(k);
            target.copy_from_slice(self.rows.row(k));
            add_scaled(target, -1.0, self.rows.row(self.top));
            add_scaled(&mut mean, values[k], target);
        }
        let null: Vec<f64> = null_logs(probabilities, epsilon);
        for k in 0..classes {
            let weight = (logs[k] - null[k]).exp();
            let target = rows.row_mut(k);
            target.iter_mut().zip(&mean).for_each(|(x, mean)| *x = weight * (*x - mean));
        }
        let null: Vec<f64> = null.iter().map(|n| n.exp()).collect();
        let mut below = complement(&rows, &null);
        below.values.extend_from_slice(rows.row(y));
        let unit = Mat::from_fn(classes, 1, |k, _| if k == y { 1.0 } else { 0.0 });
        let unit = Reflection::of(&null).complement(unit.as_ref());
        (below, unit.col_as_slice(0).to_vec())
    }
}

/// The rows in the complement of a positive vector: K x p to (K-1) x p.
fn complement(rows: &FrameRows, vector: &[f64]) -> FrameRows {
    let classes = vector.len();
    let reflection = Reflection::of(vector);
    let (u, factor) = reflection.parts();
    let mut dot = vec![0.0; rows.columns];
    for (k, u) in u.iter().enumerate() {
        add_scaled(&mut dot, factor * u, rows.row(k));
    }
    let mut below = FrameRows::new(classes - 1, rows.columns);
    for (k, u) in u.iter().enumerate().skip(1) {
        let target = below.row_mut(k - 1);
        target.copy_from_slice(rows.row(k));
        add_scaled(target, -u, &dot);
    }
    below
}
