//! Weighted least squares with weights from 1 to below the smallest `f64`: x^T x and A z for
//! x = R^-T A^T d, z = R^-1 x, where diag(e^omega) A = Q R.
//!
//! In the measure, A has a constant column and the tangent vectors, omega_k = l_k / 2, and d is the
//! gradient of the objective, so that x^T x = FI and A z is the change of the logits along the most
//! influential direction. The constant column subtracts the mean P^T V: diag(sqrt P) 1 = sqrt P is
//! the direction in which probabilities cannot move.
//!
//! Two simpler methods lose digits. A Householder QR of diag(e^omega) A loses the light rows. A
//! mean subtracted in floating point loses the heaviest row: V_1 - P^T V is a sum of
//! P_k (V_1 - V_k), of the order of the second probability, which is below the rounding of V_1.
//!
//! So A is first factored as A = L U by elimination with complete pivoting on the weighted entries;
//! the constant column comes first, with the heaviest row as its pivot. L is unit lower
//! trapezoidal, and diag(e^omega) L diag(e^-omega_pivot) has entries of at most one and is well
//! conditioned whatever the weights are. Its QR is therefore harmless, and every exponent is added
//! before an exponential is taken.
//!
//! This is the rank-revealing decomposition of Demmel et al. (Linear Algebra Appl. 299, 1999). It
//! preserves what QR with column pivoting on sorted rows preserves (Cox & Higham, BIT 38, 1998),
//! and is not limited by the range of exponents.

mod loss;

use faer::Mat;

use crate::dense::qr_factor;
use crate::gradient::LogitGradient;
use loss::Doubt;

/// The rows of A and their weights: K class rows [1 | X_k], then further rows [0 | X_i].
#[derive(Debug)]
pub(crate) struct GradedRows {
    /// X, without the constant column: n x m.
    pub(crate) rows: Mat<f64>,
    /// The logarithms of the weights, omega: n.
    pub(crate) log_weights: Vec<f64>,
    /// Absolute error of the entries of each column; that of the constant one is zero.
    pub(crate) errors: Vec<f64>,
    /// K: only the class rows have errors; the rows below them are exact.
    pub(crate) classes: usize,
}

/// The solution, with its exponents kept separately.
#[derive(Debug)]
pub(crate) struct GradedSolution {
    /// ln x^T x; `None` where d is orthogonal to the columns.
    pub(crate) log_value: Option<f64>,
    /// A z e^-`log_scale`; its class rows are known up to a common constant.
    pub(crate) image: Vec<f64>,
    pub(crate) log_scale: f64,
    /// Estimated relative error of x^T x from the errors of the columns.
    pub(crate) loss: f64,
}

/// One column of L with its pivot.
#[derive(Debug)]
struct Column {
    pivot: usize,
    /// The column of X that was eliminated.
    of: usize,
    /// L_i: one at the pivot, zero at rows that were pivots before.
    entries: Vec<f64>,
}

/// Rows and columns not yet eliminated.
struct Elimination {
    /// Open rows hold the remainder of X; the row of a former pivot holds its row of U, in the
    /// columns that were open at that step.
    rows: Mat<f64>,
    log_weights: Vec<f64>,
    /// Column s: the multiple of the s-th pivot's original row that has been subtracted from each
    /// row that is still open, n x m. The error estimate needs it.
    taken: Mat<f64>,
    open_rows: Vec<usize>,
    open_columns: Vec<usize>,
}

/// Solves the weighted least-squares problem for the gradient d of an objective, which acts on the
/// class rows.
pub(crate) fn solve(problem: GradedRows, gradient: &LogitGradient) -> GradedSolution {
    let GradedRows { rows, log_weights, errors, classes } = problem;
    // A = L U: the constant column on the heaviest class, then one pivot per step until only zeros
    // are left.
    let top = heaviest(&log_weights[..classes]);
    let mut elimination = Elimination::begin(rows, log_weights, classes, top);
    let mut columns: Vec<Column> = Vec::with_capacity(errors.len());
    while let Some(column) = elimination.step(&columns) {
        columns.push(column);
    }
    // QR of the scaled L, then two triangular solves: x = R^-T L^T d and the change L R^-1 x of the
    // logits. The common exponents log_right and log_image are carried outside the solves, since
    // the weights span more than the range of f64.
    let log_weights = &elimination.log_weights;
    let (right, log_right) = right_hand_side(&columns, log_weights, gradient);
    let factor = qr_factor(scaled(&columns, log_weights, classes, top));
    let x = forward(&factor, &right);
    let squared: f64 = x.iter().map(|v| v * v).sum();
    let (lightened, log_image) = lightened(&columns, log_weights, &backward(&factor, &x));
    let image = image(&columns, log_weights.len(), &lightened);
    let log_scale = log_right + log_image;
    let log_value = (squared > 0.0).then(|| 2.0 * log_right + squared.ln());
    let doubt =
        Doubt { elimination: &elimination, columns: &columns, errors: &errors, classes, top, gradient };
    let loss = doubt.loss(factor.as_ref(), &lightened, &image, log_scale, log_value);
    GradedSolution { log_value, image, log_scale, loss }
}

impl Elimination {
    /// Eliminates the constant column, with the heaviest class row as its pivot: subtracts that row
    /// from all class rows. Rows below the classes have a zero in the constant column.
    fn begin(mut rows: Mat<f64>, log_weights: Vec<f64>, classes: usize, top: usize) -> Self {
        for j in 0..rows.ncols() {
            let column = rows.col_as_slice_mut(j);
            let level = column[top];
            column[..classes].iter_mut().for_each(|value| *value -= level);
        }
        let open_rows = (0..log_weights.len()).filter(|i| *i != top).collect();
        let open_columns = (0..rows.ncols()).collect();
        let taken = Mat::zeros(rows.nrows(), rows.ncols());
        Self { rows, log_weights, taken, open_rows, open_columns }
    }

    /// Eliminates one column, with the largest weighted entry left as the pivot; `None` when all
    /// entries are zero.
    fn step(&mut self, before: &[Column]) -> Option<Column> {
        let (pivot, of) = self.largest_entry()?;
        let value = self.rows[(pivot, of)];
        self.open_rows.retain(|i| *i != pivot);
        self.open_columns.retain(|j| *j != of);
        let mut entries = vec![0.0; self.log_weights.len()];
        entries[pivot] = 1.0;
        for &i in &self.open_rows {
            entries[i] = self.rows[(i, of)] / value;
        }
        for &j in &self.open_columns {
            take_off(self.rows.col_as_slice_mut(j), pivot, &entries, &self.open_rows);
        }
        // Subtracting the pivot's row also subtracts what earlier pivots had contributed to it, so
        // `taken` is updated in the same way as X.
        for s in 0..before.len() {
            take_off(self.taken.col_as_slice_mut(s), pivot, &entries, &self.open_rows);
        }
        let own = self.taken.col_as_slice_mut(before.len());
        self.open_rows.iter().for_each(|&i| own[i] = entries[i]);
        Some(Column { pivot, of, entries })
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
            // Difference of the weights first, then that of the entries: adding ln |X| to a log
            // weight of 1e20 would round it away.
            let exceeds = |(row, size, _): (usize, f64, usize)| {
                (self.log_weights[i] - self.log_weights[row]) + (largest.0.ln() - size.ln()) > 0.0
            };
            if largest.0 > 0.0 && best.is_none_or(exceeds) {
                best = Some((i, largest.0, largest.1));
            }
        }
        best.map(|(i, _, j)| (i, j))
    }
}

/// Subtracts `entries`[i] times the pivot's value from every open row i.
fn take_off(column: &mut [f64], pivot: usize, entries: &[f64], open_rows: &[usize]) {
    let level = column[pivot];
    for &i in open_rows {
        column[i] -= entries[i] * level;
    }
}

/// Index of the largest weight, the lowest on ties.
fn heaviest(log_weights: &[f64]) -> usize {
    (1..log_weights.len()).fold(0, |best, i| if log_weights[i] > log_weights[best] { i } else { best })
}

/// diag(e^omega) L diag(e^-omega_pivot), the constant column first: n x (m + 1), entries of at most
/// one.
///
/// The rows are ordered by pivot, followed by the rest. The matrix is then lower trapezoidal, so a
/// Householder QR preserves the grading R_ij ~ e^(omega_j - omega_i) of its factor above the
/// diagonal, and with it the digits of light coordinates.
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

/// diag(e^-omega_pivot) L^T d, divided by e^(the second result). The first entry belongs to the
/// constant column and is zero, because sum_k d_k = 0.
fn right_hand_side(columns: &[Column], log_weights: &[f64], gradient: &LogitGradient) -> (Vec<f64>, f64) {
    let exponent = |column: &Column, i: usize| gradient.log_abs[i] - log_weights[column.pivot];
    let classes = gradient.log_abs.len();
    let mut log_scale = f64::NEG_INFINITY;
    for column in columns {
        for i in (0..classes).filter(|i| column.entries[*i] != 0.0) {
            log_scale = log_scale.max(exponent(column, i) + column.entries[i].abs().ln());
        }
    }
    let mut right = vec![0.0; columns.len() + 1];
    if !log_scale.is_finite() {
        return (right, 0.0);
    }
    for (column, target) in columns.iter().zip(&mut right[1..]) {
        // Zero entries are skipped: multiplied by an overflowed exponential they would give NaN.
        let entry = |i: usize| match column.entries[i] {
            0.0 => 0.0,
            entry => gradient.signs[i] * entry * (exponent(column, i) - log_scale).exp(),
        };
        *target = (0..classes).map(entry).sum();
    }
    (right, log_scale)
}

/// R^-T b by forward substitution; R is upper triangular.
fn forward(factor: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let mut x = right.to_vec();
    for j in 0..x.len() {
        let sum: f64 = (0..j).map(|i| factor[(i, j)] * x[i]).sum();
        x[j] = (x[j] - sum) / factor[(j, j)];
    }
    x
}

/// R^-1 b by backward substitution.
fn backward(factor: &Mat<f64>, right: &[f64]) -> Vec<f64> {
    let mut x = right.to_vec();
    for i in (0..x.len()).rev() {
        let sum: f64 = (i + 1..x.len()).map(|j| factor[(i, j)] * x[j]).sum();
        x[i] = (x[i] - sum) / factor[(i, i)];
    }
    x
}

/// diag(e^-omega_pivot) u, divided by e^(the second result), without the constant column.
fn lightened(columns: &[Column], log_weights: &[f64], u: &[f64]) -> (Vec<f64>, f64) {
    let exponent = |column: &Column, u: f64| u.abs().ln() - log_weights[column.pivot];
    let terms = || columns.iter().zip(&u[1..]);
    let log_scale = terms().map(|(column, u)| exponent(column, *u)).fold(f64::NEG_INFINITY, f64::max);
    if !log_scale.is_finite() {
        return (vec![0.0; columns.len()], 0.0);
    }
    (terms().map(|(column, u)| u.signum() * (exponent(column, *u) - log_scale).exp()).collect(), log_scale)
}

/// L times the output of [`lightened`].
fn image(columns: &[Column], rows: usize, lightened: &[f64]) -> Vec<f64> {
    let mut image = vec![0.0; rows];
    for (column, factor) in columns.iter().zip(lightened) {
        image.iter_mut().zip(&column.entries).for_each(|(image, entry)| *image += entry * factor);
    }
    image
}
