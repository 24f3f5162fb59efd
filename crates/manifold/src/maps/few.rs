//! The exact influence of a window of fewer columns than K-1, whose rank is full for certain: FI = b^T N^-1 b.
//!
//! diag(q) X = Z U by elimination with complete pivoting on the weighted entries, Z having entries of at most one and ones at the
//! pivots, so that it is well conditioned whatever the weights are (the decomposition of `graded.rs`). Then with q^T q =
//! 1 - P_top, N = Z^T (I - q q^T) Z and b = Z^T r; the eigenvalues of I - q q^T are 1 and P_top >= 1 / K, so nothing is lost in N.

use super::frame::{Frame, Rows};
use super::lanes::{cholesky, inverse_trace, packed, solve, trace};
use crate::precision::{Precision, ROUNDINGS};

/// Largest relative error, as estimated, of a value that is taken.
pub(super) const ACCURACY: f64 = 1e-9;

/// The elimination of one window after another, and its memory.
#[derive(Debug)]
pub(super) struct Few<'a> {
    frame: &'a Frame,
    above: Rows,
    precision: Precision,
    /// X, then what is left of it: n x c.
    x: Vec<f64>,
    /// Z: n x c.
    z: Vec<f64>,
    /// Absolute error of the entries of X, in units of the roundoff.
    error: f64,
    /// How much of each pivot's row, in their order, was taken off each row: n x c.
    taken: Vec<f64>,
    open: Vec<bool>,
    b: Vec<[f64; 1]>,
    gram: Vec<[f64; 1]>,
}

/// Relative errors in units of the roundoff: of the pivots and of b.
#[derive(Debug, Default)]
struct Loss {
    /// From the errors of the rows.
    data: f64,
    /// Absolute errors of b from those of the rows, the largest.
    right: f64,
    /// Absolute errors of b from its own sums, the largest.
    sums: f64,
}

impl<'a> Few<'a> {
    pub(super) fn new(frame: &'a Frame, precision: Precision) -> Self {
        let n = frame.size();
        Self {
            frame,
            above: frame.above(),
            precision,
            x: Vec::new(),
            z: Vec::new(),
            error: 0.0,
            taken: Vec::new(),
            open: vec![true; n],
            b: Vec::new(),
            gram: Vec::new(),
        }
    }

    /// FI of the columns `indices`; nothing where rounding could show in it.
    pub(super) fn value(&mut self, indices: &[usize]) -> Option<f64> {
        let c = indices.len();
        self.load(indices);
        let mut loss = Loss::default();
        for step in 0..c {
            self.step(step, c, &mut loss)?;
        }
        self.normal_equations(c);
        let size = trace(&self.gram, c)[0];
        cholesky(&mut self.gram, c);
        let inverse = inverse_trace(&self.gram, c, &mut Vec::new())[0];
        let mut solution = self.b.clone();
        solve(&self.gram, c, &mut solution);
        let value: f64 = self.b.iter().zip(&solution).map(|(b, x)| b[0] * x[0]).sum();
        let root = (inverse / value).sqrt();
        let n = self.open.len() as f64;
        let (own, given) = (Precision::F64.unit_roundoff(), self.precision.unit_roundoff());
        // Of N, whose entries change with all of Z, and of b.
        let data = loss.data * (size * inverse).sqrt() + loss.right * root;
        let rounding = own * (n * size * inverse + n * loss.sums * root + data);
        let sound =
            rounding <= ACCURACY && 2.0 * ROUNDINGS * given * data <= self.precision.ambiguous_error();
        // NaN, of a zero gradient, is not sound either.
        sound.then(|| value.min(self.frame.bound))
    }

    /// X of the window.
    fn load(&mut self, indices: &[usize]) {
        self.x.clear();
        for row in self.above.values.chunks_exact(self.above.columns) {
            self.x.extend(indices.iter().map(|&i| row[i]));
        }
        // That of the rows as they were given: a part that is common to them was rounded too.
        self.error = self.frame.norm(indices);
        self.open.fill(true);
        for memory in [&mut self.z, &mut self.taken] {
            memory.clear();
            memory.resize(self.x.len(), 0.0);
        }
        self.b.clear();
    }

    /// Eliminates one column on the largest weighted entry that is left; nothing when all are zero.
    fn step(&mut self, step: usize, c: usize, loss: &mut Loss) -> Option<()> {
        let (pivot, column) = self.largest_entry(step, c)?;
        for row in self.x.chunks_exact_mut(c) {
            row.swap(step, column);
        }
        self.open[pivot] = false;
        let weights = &self.frame.weights;
        let value = self.x[pivot * c + step];
        loss.data = loss.data.max(self.error * row_error(&self.taken[pivot * c..][..step]) / value.abs());
        self.z[pivot * c + step] = 1.0;
        let mut right = self.frame.right[pivot];
        let (mut magnitude, mut error) = (right.abs(), 0.0);
        for i in (0..weights.len()).filter(|i| self.open[*i]) {
            let (above, below) = two_rows(&mut self.x, c, pivot, i);
            let entry = below[step] / value;
            let ratio = weights[i] / weights[pivot];
            let (of_pivot, own) = two_rows(&mut self.taken, c, pivot, i);
            let error_left = self.error * row_error(&own[..step]) / value.abs() * ratio;
            loss.data += error_left;
            own[..step].iter_mut().zip(of_pivot).for_each(|(taken, before)| *taken -= entry * before);
            own[step] = entry;
            self.z[i * c + step] = entry * ratio;
            let term = entry * ratio * self.frame.right[i];
            right += term;
            magnitude += term.abs();
            error += error_left * self.frame.right[i].abs();
            for j in step + 1..c {
                below[j] -= entry * above[j];
            }
        }
        loss.sums = loss.sums.max(magnitude);
        loss.right += error;
        self.b.push([right]);
        Some(())
    }

    /// Row and column of the largest weighted entry among the open ones.
    fn largest_entry(&self, step: usize, c: usize) -> Option<(usize, usize)> {
        let (mut best, mut place) = (0.0, None);
        for (i, row) in self.x.chunks_exact(c).enumerate().filter(|(i, _)| self.open[*i]) {
            for (j, x) in row.iter().enumerate().skip(step) {
                let size = self.frame.weights[i] * x.abs();
                if size > best {
                    (best, place) = (size, Some((i, j)));
                }
            }
        }
        place
    }

    /// N, packed.
    fn normal_equations(&mut self, c: usize) {
        let rows = || self.z.chunks_exact(c).zip(&self.frame.weights);
        let mut mean = vec![0.0; c];
        for (row, q) in rows() {
            mean.iter_mut().zip(row).for_each(|(mean, z)| *mean += q * z);
        }
        self.gram.clear();
        for i in 0..c {
            for j in 0..=i {
                let dot: f64 = rows().map(|(row, _)| row[i] * row[j]).sum();
                self.gram.push([dot - mean[i] * mean[j]]);
            }
        }
        debug_assert_eq!(self.gram.len(), packed(c), "a packed matrix");
    }
}

/// The error of a row of X, a difference of two, once so much of the pivots' rows was taken off it.
fn row_error(taken: &[f64]) -> f64 {
    taken.iter().fold(2.0, |sum: f64, t| sum + t * t).sqrt()
}

/// Rows a and b, a /= b, of a matrix of c columns.
fn two_rows(values: &mut [f64], c: usize, a: usize, b: usize) -> (&[f64], &mut [f64]) {
    if b < a {
        let (before, after) = values.split_at_mut(a * c);
        (&after[..c], &mut before[b * c..][..c])
    } else {
        let (before, after) = values.split_at_mut(b * c);
        (&before[a * c..][..c], &mut after[..c])
    }
}
