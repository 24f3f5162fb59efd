//! Estimates the error of x^T x that errors of the rows cause, from quantities that the solution
//! has computed anyway.
//!
//! Let E be the error of A, W = diag(e^omega), x^T x = |Pi w|^2 the squared length of the
//! projection of w = W^-1 d onto the range of W A, and rho = d - W^2 A z the residual of the fit,
//! for which A^T rho = 0. Then, to first order,
//!
//! delta x^T x = 2 rho^T E z,
//!
//! a product of the residual and the solution. Neither the condition of A nor the number of
//! elimination steps enters. To second order, the range turns by B = (I - Pi) W E R^-1, whose parts
//! are |B^T w| <= |rho^T E| |R^-1| and B x.
//!
//! Pivot rows are fitted through their own pivots, so rho on them is determined by rho on the
//! remaining rows (A^T rho = 0). With M the multiples of the pivot rows that elimination subtracted
//! from the remaining rows, rho^T E = sum_k rho_k (E_k - (M E_pivots)_k) over the remaining rows k.
//! A heavy row that fixes a direction by itself therefore does not degrade light ones. The effect
//! of the errors on the pivot block itself is |A_pivots^-1 E|: where that is near one, a pivot may
//! be nothing but rounding error.

use faer::linalg::triangular_solve::{solve_unit_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Par};

use super::{Column, Elimination};
use crate::filters::log_add;
use crate::gradient::LogitGradient;
use crate::precision::ROUNDINGS;

/// Largest |A_pivots^-1 E| of a value that is accepted. Not closer to one, because an entry that is
/// nothing but rounding may be several roundings large.
const LARGEST_PIVOT_ERROR: f64 = 0.05;

/// A solved problem, with what its error estimate needs.
pub(super) struct Doubt<'a> {
    pub(super) elimination: &'a Elimination,
    pub(super) columns: &'a [Column],
    /// Absolute error of the entries of each column in class rows.
    pub(super) errors: &'a [f64],
    pub(super) classes: usize,
    pub(super) top: usize,
    pub(super) gradient: &'a LogitGradient,
}

impl Doubt<'_> {
    /// The relative error of the value e^`log_value`; infinite where it cannot be estimated.
    ///
    /// `factor` is R; `lightened` is z in the coordinates of the pivots and `image` is A z, both
    /// divided by e^`log_scale`.
    pub(super) fn loss(
        &self,
        factor: MatRef<'_, f64>,
        lightened: &[f64],
        image: &[f64],
        log_scale: f64,
        log_value: Option<f64>,
    ) -> f64 {
        if self.columns.is_empty() {
            return 0.0;
        }
        let upper = self.upper();
        let solution = self.in_error_units(&upper, Mat::from_fn(lightened.len(), 1, |t, _| lightened[t]));
        let log_solution = solution.norm_l2().ln() + log_scale;
        let (log_left, log_turning) = self.left(image, log_scale);
        let log_inverse = self.log_inverse(&upper, factor);
        // The error of a value of zero is taken relative to its bound.
        let log_value = log_value.unwrap_or(self.gradient.log_bound);
        if log_value == f64::NEG_INFINITY {
            return 0.0;
        }
        // The terms of the header, relative to the value: `first` is 2 rho^T E z; `gained` is
        // |rho^T E| |R^-1| and `lost` is |B x|, both over the root of the value; `again` is B
        // applied to what was gained.
        let first = 2.0 * (log_left + log_solution - log_value).exp();
        let gained = (log_left + log_inverse - 0.5 * log_value).exp();
        let lost = (log_turning + log_solution - 0.5 * log_value).exp();
        let again = if gained > 0.0 { gained * (log_turning + log_inverse).exp() } else { 0.0 };
        let own = self.of_gradient(image, log_scale, log_value);
        let second = gained.powi(2) + (lost + again).powi(2);
        let loss = ROUNDINGS * (first + ROUNDINGS * second) + own;
        // NaN, from numbers beyond the range of f64, counts as no estimate too.
        if self.pivot_error(&upper) < LARGEST_PIVOT_ERROR && loss.is_finite() { loss } else { f64::INFINITY }
    }

    /// The factor U, in the order of the pivots.
    fn upper(&self) -> Mat<f64> {
        let (rows, m) = (&self.elimination.rows, self.columns.len());
        Mat::from_fn(
            m,
            m,
            |s, t| if s <= t { rows[(self.columns[s].pivot, self.columns[t].of)] } else { 0.0 },
        )
    }

    /// diag(errors) U^-1 B: E is diag(errors) times numbers of the order of one in the columns of
    /// X, while B is in the coordinates of the pivots. U^-1 converts.
    fn in_error_units(&self, upper: &Mat<f64>, mut b: Mat<f64>) -> Mat<f64> {
        solve_upper_triangular_in_place(upper.as_ref(), b.as_mut(), Par::Seq);
        for j in 0..b.ncols() {
            let column = b.col_as_slice_mut(j).iter_mut().zip(self.columns);
            column.for_each(|(x, column)| *x *= self.errors[column.of]);
        }
        b
    }

    /// ln |diag(errors) R^-1|, without the constant column.
    fn log_inverse(&self, upper: &Mat<f64>, factor: MatRef<'_, f64>) -> f64 {
        let m = self.columns.len();
        let mut inverse = Mat::<f64>::identity(m, m);
        solve_upper_triangular_in_place(factor.get(1..m + 1, 1..m + 1), inverse.as_mut(), Par::Seq);
        let weight = |column: &Column| self.elimination.log_weights[column.pivot];
        let lightest = self.columns.iter().map(weight).fold(f64::INFINITY, f64::min);
        // Row s belongs to the pivot of column s, whose weight it is divided by. All are relative
        // to the lightest pivot, whose inverse weight may overflow.
        for (s, column) in self.columns.iter().enumerate() {
            let share = (lightest - weight(column)).exp();
            (s..m).for_each(|t| inverse[(s, t)] *= share);
        }
        self.in_error_units(upper, inverse).norm_l2().ln() - lightest
    }

    /// |A_pivots^-1 E|: the effect of the errors on the pivot block itself.
    fn pivot_error(&self, upper: &Mat<f64>) -> f64 {
        let m = self.columns.len();
        let lower = Mat::from_fn(m, m, |s, t| self.columns[t].entries[self.columns[s].pivot]);
        let own = |s: usize| if self.columns[s].pivot < self.classes { 1.0 } else { 0.0 };
        let mut inverse = Mat::from_fn(m, m, |s, t| if s == t { own(s) } else { 0.0 });
        solve_unit_lower_triangular_in_place(lower.as_ref(), inverse.as_mut(), Par::Seq);
        self.in_error_units(upper, inverse).norm_l2()
    }

    /// ln sum_k |rho_k| e_k over the rows that are not pivots, and ln of the norm of e^omega_k e_k.
    /// e_k is the error of the remainder of row k, in units of the columns' errors.
    fn left(&self, image: &[f64], log_scale: f64) -> (f64, f64) {
        let weights = &self.elimination.log_weights;
        let powers = || (0..self.classes).map(|k| (2.0 * (weights[k] - weights[self.top])).exp());
        // `image` lacks the constant column (its row of the top class is zero): the fit's constant
        // is minus the mean weighted by the probabilities.
        let mean = powers().zip(image).map(|(p, x)| p * x).sum::<f64>() / powers().sum::<f64>();
        let (mut left, mut turning) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for &k in &self.elimination.open_rows {
            let log_error = self.error_left(k).ln();
            let is_class = k < self.classes;
            let fitted = if is_class { image[k] - mean } else { image[k] };
            let log_fitted = 2.0 * weights[k] + log_scale + fitted.abs().ln();
            let (sign, log_given) = if is_class {
                (self.gradient.signs[k], self.gradient.log_abs[k])
            } else {
                (1.0, f64::NEG_INFINITY)
            };
            // rho_k = d_k - e^(2 omega_k) (A z)_k, as a difference of two signed logarithms.
            let largest = log_given.max(log_fitted);
            if largest > f64::NEG_INFINITY {
                let rest =
                    sign * (log_given - largest).exp() - fitted.signum() * (log_fitted - largest).exp();
                left = log_add(left, largest + rest.abs().ln() + log_error);
            }
            turning = log_add(turning, 2.0 * (weights[k] + log_error));
        }
        (left, 0.5 * turning)
    }

    /// The error of the remainder of row k: its own, and the errors of the pivot rows and of the
    /// top class's row that were subtracted from it, added as independent errors.
    fn error_left(&self, k: usize) -> f64 {
        let is_class = |i: usize| i < self.classes;
        let own = if is_class(k) { 1.0 } else { 0.0 };
        let (mut constant, mut squares) = (own, own);
        for s in (0..self.columns.len()).filter(|s| is_class(self.columns[*s].pivot)) {
            let taken = self.elimination.taken[(k, s)];
            constant -= taken;
            squares += taken * taken;
        }
        (squares + constant * constant).sqrt()
    }

    /// The contribution of the gradient's own error: 2 |A z| e^`log_error`, divided by the value.
    fn of_gradient(&self, image: &[f64], log_scale: f64, log_value: f64) -> f64 {
        let classes = &image[..self.classes];
        let mean = classes.iter().sum::<f64>() / self.classes as f64;
        let size: f64 = classes.iter().map(|x| (x - mean).abs()).sum();
        2.0 * (self.gradient.log_error + size.ln() + log_scale - log_value).exp()
    }
}
