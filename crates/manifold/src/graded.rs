//! Weighted least squares with weights from 1 to below the smallest `f64`: x^T x and A z for
//! x = R^-T A^T d, z = R^-1 x, where diag(e^omega) A = Q R.
//!
//! In the measure A holds a constant column beside the tangent vectors, omega_k = l_k / 2, and d is the gradient of the
//! objective, so that x^T x = FI and A z is the change of the logits along the most influential direction. The constant
//! column is what takes the mean P^T V away: diag(sqrt P) 1 = sqrt P is the direction in which probabilities cannot move.
//!
//! A Householder QR of diag(e^omega) A loses the light rows, and a mean subtracted in floating point loses the heaviest one:
//! V_1 - P^T V is a sum of P_k (V_1 - V_k) of the order of the second probability, below the rounding of V_1. So A is
//! first brought to A = L U by elimination with complete pivoting on the weighted entries, the constant column first, on
//! the heaviest row. L is unit lower trapezoidal, and diag(e^omega) L diag(e^-omega_pivot) has entries of at most one and is
//! well conditioned whatever the weights are: its QR is harmless, and every exponent is added before an exponential is taken.
//! This is the rank-revealing decomposition of Demmel et al. (Linear Algebra Appl. 299, 1999), and keeps what QR with
//! column pivoting on sorted rows keeps (Cox & Higham, BIT 38, 1998) without its range of exponents.

use faer::Mat;

use crate::dense::qr_factor;
use crate::gradient::LogitGradient;

/// The rows of A and their weights: K class rows [1 | X_k], then further rows [0 | X_i].
#[derive(Debug)]
pub(crate) struct GradedRows {
    /// X: n x m, without the constant column.
    pub(crate) rows: Mat<f64>,
    /// omega: n.
    pub(crate) log_weights: Vec<f64>,
    /// Absolute error of the entries of each row.
    pub(crate) errors: Vec<f64>,
    /// K.
    pub(crate) classes: usize,
}

/// The solution, with its scales apart.
#[derive(Debug)]
pub(crate) struct GradedSolution {
    /// ln x^T x, nothing where d is orthogonal to the columns.
    pub(crate) log_value: Option<f64>,
    /// A z e^-`log_scale`, its class rows up to a common constant.
    pub(crate) image: Vec<f64>,
    pub(crate) log_scale: f64,
    /// Estimated relative error of x from the errors of the rows.
    pub(crate) loss: f64,
}

/// One column of L with its pivot row.
#[derive(Debug)]
struct Column {
    pivot: usize,
    /// L_i: one at the pivot, zero at rows that were pivots before.
    entries: Vec<f64>,
    /// Absolute errors of the entries.
    errors: Vec<f64>,
}

/// Rows and columns not yet eliminated.
struct Elimination {
    rows: Mat<f64>,
    log_weights: Vec<f64>,
    errors: Vec<f64>,
    open_rows: Vec<usize>,
    open_columns: Vec<usize>,
    loss: f64,
}

/// Solves the weighted least-squares problem for the gradient d of an objective, which acts on the class rows.
pub(crate) fn solve(problem: GradedRows, gradient: &LogitGradient) -> GradedSolution {
    let (log_weights, classes) = (problem.log_weights.clone(), problem.classes);
    let top = heaviest(&log_weights[..classes]);
    let mut elimination = Elimination::begin(problem, top);
    let columns: Vec<Column> = std::iter::from_fn(|| elimination.step()).collect();
    let (right, log_right, error) = right_hand_side(&columns, &log_weights, gradient);
    let factor = qr_factor(scaled(&columns, &log_weights, classes, top));
    let x = forward(&factor, &right);
    let squared: f64 = x.iter().map(|v| v * v).sum();
    let (image, log_image) = image(&columns, &log_weights, &backward(&factor, &x));
    GradedSolution {
        log_value: (squared > 0.0).then(|| 2.0 * log_right + squared.ln()),
        image,
        log_scale: log_right + log_image,
        loss: elimination.loss.max(if squared > 0.0 { error / squared.sqrt() } else { 0.0 }),
    }
}

impl Elimination {
    /// Takes the constant column out on the heaviest class row.
    fn begin(problem: GradedRows, top: usize) -> Self {
        let GradedRows { mut rows, log_weights, mut errors, classes } = problem;
        for j in 0..rows.ncols() {
            let column = rows.col_as_slice_mut(j);
            let level = column[top];
            column[..classes].iter_mut().for_each(|value| *value -= level);
        }
        let level = errors[top];
        errors[..classes].iter_mut().for_each(|error| *error += level);
        let open_rows = (0..log_weights.len()).filter(|i| *i != top).collect();
        let open_columns = (0..rows.ncols()).collect();
        Self { rows, log_weights, errors, open_rows, open_columns, loss: 0.0 }
    }

    /// Eliminates one column on the largest weighted entry that is left; nothing when all are zero.
    fn step(&mut self) -> Option<Column> {
        let (pivot, column) = self.largest_entry()?;
        let value = self.rows[(pivot, column)];
        self.record_loss(pivot, value);
        let pivot_error = self.errors[pivot];
        self.open_rows.retain(|i| *i != pivot);
        self.open_columns.retain(|j| *j != column);
        let n = self.log_weights.len();
        let (mut entries, mut errors) = (vec![0.0; n], vec![0.0; n]);
        entries[pivot] = 1.0;
        for &i in &self.open_rows {
            entries[i] = self.rows[(i, column)] / value;
            self.errors[i] += entries[i].abs() * pivot_error;
            errors[i] = self.errors[i] / value.abs();
        }
        for &j in &self.open_columns {
            let target = self.rows.col_as_slice_mut(j);
            let level = target[pivot];
            for &i in &self.open_rows {
                target[i] -= entries[i] * level;
            }
        }
        Some(Column { pivot, entries, errors })
    }

    /// Row and column of the largest e^omega |X|.
    fn largest_entry(&self) -> Option<(usize, usize)> {
        let mut best: Option<(usize, f64, usize)> = None;
        for &i in &self.open_rows {
            let mut largest = (0.0, 0);
            for &j in &self.open_columns {
                let size = self.rows[(i, j)].abs();
                if size > largest.0 {
                    largest = (size, j);
                }
            }
            // Weights are compared before logarithms of entries are added, which a weight of 1e20 would swallow.
            let exceeds = |(row, size, _): (usize, f64, usize)| {
                (self.log_weights[i] - self.log_weights[row]) + (largest.0.ln() - size.ln()) > 0.0
            };
            if largest.0 > 0.0 && best.is_none_or(exceeds) {
                best = Some((i, largest.0, largest.1));
            }
        }
        best.map(|(i, _, j)| (i, j))
    }

    /// Relative error of the pivot: the largest weighted error of a row that is left, over the weighted pivot.
    fn record_loss(&mut self, pivot: usize, value: f64) {
        let ratio = |i: usize| (self.log_weights[i] - self.log_weights[pivot] + self.errors[i].ln()).exp();
        let largest = self.open_rows.iter().map(|i| ratio(*i)).fold(0.0, f64::max);
        self.loss = self.loss.max(largest / value.abs());
    }
}

/// Index of the largest weight, the lowest on ties.
fn heaviest(log_weights: &[f64]) -> usize {
    (1..log_weights.len()).fold(0, |best, i| if log_weights[i] > log_weights[best] { i } else { best })
}

/// diag(e^omega) L diag(e^-omega_pivot), the constant column first: n x (m + 1), entries of at most one.
///
/// Its rows come in the order of the pivots, then the others: lower trapezoidal, so that a Householder QR keeps the
/// grading R_ij ~ e^(omega_j - omega_i) of its factor above the diagonal, and with it the digits of light coordinates.
fn scaled(columns: &[Column], log_weights: &[f64], classes: usize, top: usize) -> Mat<f64> {
    let mut order: Vec<usize> =
        std::iter::once(top).chain(columns.iter().map(|column| column.pivot)).collect();
    let rest: Vec<usize> = (0..log_weights.len()).filter(|i| !order.contains(i)).collect();
    order.extend(rest);
    Mat::from_fn(log_weights.len(), columns.len() + 1, |position, j| {
        let i = order[position];
        if j == 0 {
            return if i < classes { (log_weights[i] - log_weights[top]).exp() } else { 0.0 };
        }
        let Column { pivot, entries, .. } = &columns[j - 1];
        match entries[i] {
            0.0 => 0.0,
            entry => entry.signum() * (log_weights[i] - log_weights[*pivot] + entry.abs().ln()).exp(),
        }
    })
}

/// diag(e^-omega_pivot) L^T d and its error, both over e^(the second result); first the constant column's, which is zero.
fn right_hand_side(
    columns: &[Column],
    log_weights: &[f64],
    gradient: &LogitGradient,
) -> (Vec<f64>, f64, f64) {
    let exponent = |column: &Column, i: usize| gradient.log_abs[i] - log_weights[column.pivot];
    let classes = gradient.log_abs.len();
    let mut log_scale = f64::NEG_INFINITY;
    for column in columns {
        for i in (0..classes).filter(|i| column.entries[*i] != 0.0) {
            log_scale = log_scale.max(exponent(column, i) + column.entries[i].abs().ln());
        }
    }
    let mut right = vec![0.0; columns.len() + 1];
    let mut largest_error = 0.0_f64;
    if log_scale.is_finite() {
        for (column, target) in columns.iter().zip(&mut right[1..]) {
            let mut error = 0.0;
            for i in 0..classes {
                let power = (exponent(column, i) - log_scale).exp();
                // An entry of zero may meet a power beyond f64.
                *target += if column.entries[i] == 0.0 {
                    0.0
                } else {
                    gradient.signs[i] * column.entries[i] * power
                };
                error += if column.errors[i] == 0.0 { 0.0 } else { column.errors[i] * power };
                let own = (gradient.log_error - log_weights[column.pivot] - log_scale).exp();
                error += if column.entries[i] == 0.0 { 0.0 } else { column.entries[i].abs() * own };
            }
            largest_error = largest_error.max(error);
        }
    }
    (right, if log_scale.is_finite() { log_scale } else { 0.0 }, largest_error)
}

/// R^-T b.
fn forward(factor: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let mut x = right.to_vec();
    for j in 0..x.len() {
        let sum: f64 = (0..j).map(|i| factor[(i, j)] * x[i]).sum();
        x[j] = (x[j] - sum) / factor[(j, j)];
    }
    x
}

/// R^-1 b.
fn backward(factor: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let mut x = right.to_vec();
    for i in (0..x.len()).rev() {
        let sum: f64 = (i + 1..x.len()).map(|j| factor[(i, j)] * x[j]).sum();
        x[i] = (x[i] - sum) / factor[(i, i)];
    }
    x
}

/// L diag(e^-omega_pivot) u over e^(the second result), without the constant column.
fn image(columns: &[Column], log_weights: &[f64], u: &[f64]) -> (Vec<f64>, f64) {
    let terms = || columns.iter().zip(&u[1..]).filter(|(_, u)| **u != 0.0);
    let exponents = terms().map(|(column, u)| u.abs().ln() - log_weights[column.pivot]);
    let log_scale = exponents.fold(f64::NEG_INFINITY, f64::max);
    let mut image = vec![0.0; log_weights.len()];
    for (column, u) in terms() {
        let factor = u.signum() * (u.abs().ln() - log_weights[column.pivot] - log_scale).exp();
        image.iter_mut().zip(&column.entries).for_each(|(image, entry)| *image += entry * factor);
    }
    (image, if log_scale.is_finite() { log_scale } else { 0.0 })
}
