//! The authors' numerics of every window: the singular values s_i of T above the cut, and the
//! entries q_iy of its left singular vectors, from the eigenvalues s_i^2 of T T^T in the complement
//! of the null direction.
//!
//! FI = ((sqrt P_y + epsilon) / (P_y + epsilon))^2 sum_{s_i > cut} q_iy^2. Here q_iy is e_y . q_i,
//! or T_y T^T q_i / s_i^2 where the row T_y is shorter than s_i, which preserves the digits of T_y
//! (`filters/paper.rs`). Gram matrices lose singular values below 1e-8 of the largest. The errors
//! are therefore estimated, and a window whose error may be too large is recomputed from its rows.

use super::eigen::SmallEigen;
use super::frame::Frame;
use super::grams::{WindowGrams, window_sums};
use super::{Layout, Windows};
use crate::Probabilities;
use crate::filters::paper::{CUT_ROUNDOFFS, log_gradient_factor, null_logs};
use crate::precision::RowPrecision;

/// Largest estimated relative error of a value that is accepted, for rows in `f64`. The authors'
/// cut of 1e-3 is near the limit of what Gram matrices resolve.
const ACCURACY: f64 = 1e-8;
/// Largest accepted relative error for rows in lower precision, in their roundoffs.
const ROUNDOFFS: f64 = 10.0;

/// The constants of a map.
struct Cut {
    /// The singular value up to which directions are dropped.
    cut: f64,
    /// Error of a singular value, as a multiple of the norm of the window's rows.
    error: f64,
    /// ((sqrt P_y + epsilon) / (P_y + epsilon))^2.
    factor: f64,
    accuracy: f64,
    /// Relative error from which a value is ambiguous.
    ambiguous: f64,
    n: usize,
}

/// Value and rank of each window; `None` where rounding could affect them.
pub(super) fn paper(
    frame: &Frame,
    probabilities: &Probabilities,
    layout: Layout,
    s: usize,
    y: usize,
    (epsilon, rank_epsilon): (f64, f64),
    precision: RowPrecision,
) -> Vec<Option<(f64, usize)>> {
    let (rows, unit) = frame.paper(probabilities, y, epsilon);
    let n = frame.size();
    let grams = WindowGrams::new(&rows, n + 1, layout.shape, layout.channels, s);
    let mut norms = vec![0.0; Windows::new(layout, s).count()];
    window_sums(&frame.given_squares(), layout.shape, layout.channels, s, &mut norms);
    let null = null_logs(probabilities, epsilon);
    // P_k (1 - P_k) / n_k, the sizes by which errors of the rows enter T; see `filters/paper.rs`.
    let weights = probabilities.logs().iter().zip(&null).map(|(l, n)| (l - n + (-l.exp()).ln_1p()).exp());
    let heaviest = weights.fold(0.0, f64::max);
    let cut = Cut {
        cut: rank_epsilon / frame.scale,
        error: CUT_ROUNDOFFS * precision.unit_roundoff() * heaviest,
        factor: (2.0 * log_gradient_factor(probabilities.logs()[y], epsilon)).exp(),
        accuracy: ACCURACY.max(ROUNDOFFS * precision.unit_roundoff()),
        ambiguous: precision.ambiguous_error(),
        n,
    };
    let mut eigen = SmallEigen::default();
    (0..norms.len()).map(|at| cut.window(&grams, at, norms[at].sqrt(), &unit, &mut eigen)).collect()
}

impl Cut {
    /// Value and rank of window `at`, whose rows as given have this norm; `unit` is e_y.
    fn window(
        &self,
        grams: &WindowGrams,
        at: usize,
        norm: f64,
        unit: &[f64],
        eigen: &mut SmallEigen,
    ) -> Option<(f64, usize)> {
        let n = self.n;
        let size: f64 = (0..n).map(|i| grams.entry(at, i, i)).sum();
        let error = self.error * norm + n as f64 * RowPrecision::F64.unit_roundoff() * size / self.cut;
        // The trace bounds the largest singular value: below the cut nothing counts.
        if size.sqrt() + error < self.cut {
            return Some((0.0, 0));
        }
        // T T^T, with e_y and T_y T^T as the vectors whose products with its eigenvectors are
        // needed.
        eigen.matrix.clear();
        for i in 0..n {
            eigen.matrix.extend((0..n).map(|j| grams.entry(at, i.max(j), i.min(j))));
        }
        eigen.tracked.clear();
        eigen.tracked.extend((0..n).map(|i| [unit[i], grams.entry(at, n, i)]));
        let length = grams.entry(at, n, n).sqrt();
        if !eigen.decompose() || eigen.values.iter().any(|v| (v.max(0.0).sqrt() - self.cut).abs() < error) {
            return None;
        }
        self.sum(eigen, unit, length, self.error / CUT_ROUNDOFFS * norm)
    }

    /// Sums the kept directions; `None` if their estimated error is too large. `data` is the error
    /// of the rows.
    fn sum(&self, eigen: &SmallEigen, unit: &[f64], length: f64, data: f64) -> Option<(f64, usize)> {
        let threshold = self.cut * self.cut;
        let kept = || eigen.values.iter().zip(&eigen.tracked).filter(|(value, _)| **value > threshold);
        let largest = eigen.values.iter().copied().fold(0.0, f64::max);
        let smallest = kept().map(|(value, _)| *value).fold(f64::INFINITY, f64::min);
        let dropped = eigen.values.iter().copied().filter(|v| *v <= threshold).fold(0.0, f64::max);
        // The angle by which rounding rotates the kept directions into the dropped ones.
        let angle = self.n as f64 * RowPrecision::F64.unit_roundoff() * largest / (smallest - dropped);
        let norm = |t: usize| eigen.tracked.iter().map(|x| x[t] * x[t]).sum::<f64>().sqrt();
        let (of_unit, of_row) = (unit.iter().map(|x| x * x).sum::<f64>().sqrt(), norm(1));
        let (mut sum, mut error, mut rank) = (0.0, 0.0, 0);
        for (value, [direct, product]) in kept() {
            let (share, doubt) =
                if length * length > *value { (*direct, of_unit) } else { (product / value, of_row / value) };
            sum += share * share;
            error += (angle * doubt).powi(2);
            rank += 1;
        }
        // The rows' own errors rotate the kept directions and change the row T_y. This estimate is
        // coarser than that of the reference route, which decides in case of doubt.
        let turned = data / (smallest.sqrt() - dropped.sqrt()) * (1.0 + of_unit / sum.sqrt());
        let clear = turned + data / length <= 0.5 * self.ambiguous;
        let sound = rank == 0 || clear && error <= (0.5 * self.accuracy).powi(2) * sum;
        sound.then_some((self.factor * sum, rank))
    }
}
