//! The exact influence of a window of fewer than K-1 columns with certified full rank: FI = b^T
//! N^-1 b.
//!
//! diag(q) X = Z U by elimination with complete pivoting on the weighted entries. Z has entries of
//! at most one and ones at the pivots, so it is well conditioned whatever the weights are (the
//! decomposition of `graded.rs`). Then N = Z^T (I - q q^T) Z and b = Z^T r. Because q^T q = 1 -
//! P_top, the eigenvalues of I - q q^T are 1 and P_top >= 1 / K, so N loses no digits.

use super::frame::{Frame, FrameRows};
use super::lanes::{cholesky, inverse_trace, packed, solve, trace};
use crate::precision::{ROUNDINGS, RowPrecision};

/// Largest estimated relative error of a value that is accepted: a hundredth of what is promised.
pub(super) const ACCURACY: f64 = 1e-9;

/// Eliminates one window after another, reusing its memory.
#[derive(Debug)]
pub(super) struct FewColumns<'a> {
    frame: &'a Frame,
    above: FrameRows,
    precision: RowPrecision,
    /// X, overwritten by its remainder after each step: n x c.
    x: Vec<f64>,
    /// Z: n x c.
    z: Vec<f64>,
    /// Absolute error of the entries of X, in units of the roundoff.
    error: f64,
    /// The multiple of each pivot's row, in the order of the pivots, that has been subtracted from
    /// each row: n x c.
    taken: Vec<f64>,
    open: Vec<bool>,
    b: Vec<[f64; 1]>,
    gram: Vec<[f64; 1]>,
}

/// Estimated errors in units of the roundoff: of Z and of b.
#[derive(Debug, Default)]
struct Loss {
    /// Relative errors of the pivots and absolute errors of Z, from the errors of the rows.
    data: f64,
    /// Absolute errors of b from the errors of the rows, summed over the steps.
    right: f64,
    /// The largest sum of magnitudes of the terms of an entry of b, which bounds its rounding.
    sums: f64,
}

impl<'a> FewColumns<'a> {
    pub(super) fn new(frame: &'a Frame, precision: RowPrecision) -> Self {
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

    /// FI of the columns `indices`; `None` where rounding could affect it.
    pub(super) fn value(&mut self, indices: &[usize]) -> Option<f64> {
        let c = indices.len();
        self.load(indices);
        let mut loss = Loss::default();
        for step in 0..c {
            self.step(step, c, &mut loss)?;
        }
        // FI = b^T N^-1 b, and the trace of N times that of its inverse, which bounds the condition
        // of N.
        self.normal_equations(c);
        let size = trace(&self.gram, c)[0];
        cholesky(&mut self.gram, c);
        let inverse = inverse_trace(&self.gram, c, &mut Vec::new())[0];
        let mut solution = self.b.clone();
        solve(&self.gram, c, &mut solution);
        let value: f64 = self.b.iter().zip(&solution).map(|(b, x)| b[0] * x[0]).sum();
        let root = (inverse / value).sqrt();
        let n = self.open.len() as f64;
        let (own, given) = (RowPrecision::F64.unit_roundoff(), self.precision.unit_roundoff());
        // Error of the value from the rows, through N (all of Z enters it) and through b; then from
        // the roundings of the sums here.
        let data = loss.data * (size * inverse).sqrt() + loss.right * root;
        let rounding = own * (n * size * inverse + n * loss.sums * root + data);
        let sound =
            rounding <= ACCURACY && 2.0 * ROUNDINGS * given * data <= self.precision.ambiguous_error();
        // A zero gradient gives NaN, which is not accepted either.
        sound.then(|| value.min(self.frame.bound))
    }

    /// Loads X of the window and resets the elimination.
    fn load(&mut self, indices: &[usize]) {
        self.x.clear();
        for row in self.above.values.chunks_exact(self.above.columns) {
            self.x.extend(indices.iter().map(|&i| row[i]));
        }
        // The norm of the rows as given, not of X: a part common to all rows was rounded too.
        self.error = self.frame.norm(indices);
        self.open.fill(true);
        for memory in [&mut self.z, &mut self.taken] {
            memory.clear();
            memory.resize(self.x.len(), 0.0);
        }
        self.b.clear();
    }

    /// Eliminates one column, with the largest weighted entry left as the pivot; `None` when all
    /// entries are zero.
    fn step(&mut self, step: usize, c: usize, loss: &mut Loss) -> Option<()> {
        let (pivot, column) = self.largest_entry(step, c)?;
        for row in self.x.chunks_exact_mut(c) {
            row.swap(step, column);
        }
        self.open[pivot] = false;
        let weights = &self.frame.weights;
        let value = self.x[pivot * c + step];
        loss.data = loss.data.max(self.error * row_error(&self.taken[pivot * c..][..step]) / value.abs());
        // Column `step` of Z: one at the pivot, and in every open row the multiplier of the
        // elimination times q_i / q_pivot. The entry of b is its product with r; error and
        // magnitude of each are accumulated along with it.
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

    /// Fills N = Z^T (I - q q^T) Z, packed.
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

/// The error of a row of X after these multiples of the pivot rows were subtracted. The 2 stands
/// for the row itself, which is a difference of two rows of J.
fn row_error(taken: &[f64]) -> f64 {
    taken.iter().fold(2.0, |sum: f64, t| sum + t * t).sqrt()
}

/// Rows a and b, a != b, of a matrix of c columns; row b is mutable.
fn two_rows(values: &mut [f64], c: usize, a: usize, b: usize) -> (&[f64], &mut [f64]) {
    if b < a {
        let (before, after) = values.split_at_mut(a * c);
        (&after[..c], &mut before[b * c..][..c])
    } else {
        let (before, after) = values.split_at_mut(b * c);
        (&before[a * c..][..c], &mut after[..c])
    }
}
