//! The numerics of Shu & Zhu's own code, for f = -log P_y: absolute epsilons in three places.
//!
//! dP = (diag P - P P^T) J;  T = diag(1 / (sqrt P + epsilon)) dP, whose singular values up to
//! rank_epsilon are dropped; df = -dP_y / (P_y + epsilon). With T = sum_i s_i q_i v_i^T
//!
//! FI = sum_{s_i > rank_epsilon} (df . v_i)^2 / s_i^2,  h = sum_i v_i (v_i . df) / s_i^2.
//!
//! (df . v_i) / s_i = -(sqrt P_y + epsilon) / (P_y + epsilon) q_iy. T has the left null direction
//! n = sqrt P + epsilon, which rounding would turn into a singular value; therefore T is decomposed
//! in the complement of n.

use faer::Mat;

use super::{Outcome, deviations, log_add};
use crate::dense::{Svd, thin_svd};
use crate::precision::{Carrier, GRAM_RESOLUTION, RowPrecision};
use crate::reflection::Reflection;
use crate::{Error, Probabilities, Tangent};

/// A singular value within this many roundings of the weighted tangent from the cut is ambiguous:
/// rounding may put it on either side.
pub(crate) const CUT_ROUNDOFFS: f64 = 10.0;
/// A row of T shorter than this, relative to the largest entry of T, is represented by a unit
/// vector and the logarithm of its length: squares of plain entries underflow from 1e-154.
const LIGHT_ROW: f64 = 1e-100;

/// The influence on -log P of a class by the authors' numerics.
pub(crate) fn paper(
    probabilities: &Probabilities,
    tangent: &Tangent,
    class: usize,
    epsilon: f64,
    rank_epsilon: f64,
) -> Result<Outcome, Error> {
    let classes = tangent.classes();
    let Some(weighted) = Weighted::new(probabilities, tangent, epsilon) else {
        return Ok(Outcome::zero(classes, 0, tangent.may_be_drowned()));
    };
    // The singular values of T, without the one of its null direction. They and the cut are in
    // units of T's largest entry.
    let reflection = Reflection::of(&weighted.null);
    let svd = thin_svd(reflection.complement(weighted.rows().as_ref()).as_ref())?;
    let largest = svd.values.first().copied().unwrap_or(0.0);
    let cut = (rank_epsilon.ln() - weighted.log_unit).exp();
    let gram = tangent.noise.carrier == Carrier::Gram;
    if gram && cut < GRAM_RESOLUTION * largest {
        let carried = (weighted.log_unit + (GRAM_RESOLUTION * largest).ln()).exp();
        return Err(Error::BelowGramResolution { what: "rank_epsilon", asked: rank_epsilon, carried });
    }
    // However small the user's cut, singular values below the rounding of the SVD do not count.
    let threshold = cut.max(RowPrecision::F64.unit_roundoff() * largest);
    let rank = svd.values.iter().take_while(|s| **s > threshold).count();
    let error = CUT_ROUNDOFFS * largest_of(&weighted.log_errors(probabilities, tangent, cut)?).exp();
    let mut ambiguous = svd.values.iter().any(|s| (s - threshold).abs() < error);
    if rank == 0 {
        return Ok(Outcome::zero(classes, 0, ambiguous));
    }
    // FI = (gradient factor)^2 sum_i q_iy^2 over the kept directions; the shares q_iy and the
    // factor carry their logarithms separately until the end.
    let left = reflection.lift(svd.left.get(.., ..rank));
    let (shares, log_share) = weighted.shares(&svd, &left, class);
    let log_errors = weighted.log_errors(probabilities, tangent, svd.values[rank - 1])?;
    let loss = loss(&svd.values, &left, &shares, (class, log_share), &log_errors);
    ambiguous |= loss > tangent.precision().ambiguous_error();
    let squared: f64 = shares.iter().map(|share| share * share).sum();
    let log_gradient = log_gradient_factor(probabilities.logs()[class], epsilon);
    Ok(Outcome {
        log_value: (squared > 0.0).then(|| 2.0 * (log_gradient + log_share) + squared.ln()),
        rank,
        ambiguous,
        coefficients: weighted.coefficients(probabilities, &svd, &left, &shares),
        log_scale: log_gradient + log_share + weighted.log_heaviest - 2.0 * weighted.log_unit,
    })
}

/// ln n_k = ln(sqrt P_k + epsilon).
pub(crate) fn null_logs(probabilities: &Probabilities, epsilon: f64) -> Vec<f64> {
    probabilities.logs().iter().map(|l| log_add(0.5 * l, epsilon.ln())).collect()
}

/// ln((sqrt P_y + epsilon) / (P_y + epsilon)), the ratio of (df . v_i) / s_i to q_iy.
pub(crate) fn log_gradient_factor(log_y: f64, epsilon: f64) -> f64 {
    log_add(0.5 * log_y, epsilon.ln()) - log_add(log_y, epsilon.ln())
}

/// T scaled by e^-`log_unit` to a largest entry of one, as the parts from which it is computed.
struct Weighted {
    /// d_k = (X_k - P^T X) / sigma_1: K x m.
    deviations: Mat<f64>,
    /// rho_k = ln(P_k / n_k) minus the largest of these.
    log_weights: Vec<f64>,
    /// n_k = sqrt P_k + epsilon, divided by the largest of these.
    null: Vec<f64>,
    /// The largest ln(P_k / n_k).
    log_heaviest: f64,
    /// ln of the largest e^rho_k |d_kj|.
    log_largest: f64,
    /// ln of the largest entry of T.
    log_unit: f64,
}

impl Weighted {
    /// The weighted tangent of X = V Sigma; `None` where it is zero.
    fn new(probabilities: &Probabilities, tangent: &Tangent, epsilon: f64) -> Option<Self> {
        if tangent.largest() == 0.0 {
            return None;
        }
        let deviations = deviations(probabilities, tangent);
        let log_null = null_logs(probabilities, epsilon);
        // Row k of T is e^(ln P_k - ln n_k) d_k sigma_1. Weights, entries of T and the null
        // direction are each relative to their largest, and the logarithms of those are kept apart.
        let mut log_weights: Vec<f64> =
            probabilities.logs().iter().zip(&log_null).map(|(l, n)| l - n).collect();
        let log_heaviest = largest_of(&log_weights);
        log_weights.iter_mut().for_each(|weight| *weight -= log_heaviest);
        let longest = largest_of(&log_null);
        let null = log_null.iter().map(|n| (n - longest).exp()).collect();
        let row =
            |k: usize| (0..deviations.ncols()).fold(0.0_f64, |most, j| most.max(deviations[(k, j)].abs()));
        let sizes: Vec<f64> =
            log_weights.iter().enumerate().map(|(k, weight)| weight + row(k).ln()).collect();
        let log_largest = largest_of(&sizes);
        let log_unit = log_heaviest + tangent.largest().ln() + log_largest;
        let weighted = Self { deviations, log_weights, null, log_heaviest, log_largest, log_unit };
        log_largest.is_finite().then_some(weighted)
    }

    /// T e^-`log_unit`: K x m.
    fn rows(&self) -> Mat<f64> {
        Mat::from_fn(self.deviations.nrows(), self.deviations.ncols(), |k, j| {
            let entry = self.deviations[(k, j)];
            let size = (self.log_weights[k] + entry.abs().ln() - self.log_largest).exp();
            if entry < 0.0 { -size } else { size }
        })
    }

    /// The logarithm of the error of each row of T, as it appears in a singular value s.
    ///
    /// T = A X, where row k of A is P_k / n_k (e_k - P), of the size P_k (1 - P_k) / n_k. From
    /// rows, the error of T is u |A| sigma_1. From a Gram matrix, the error of T T^T is u_64 (|A|
    /// sigma_1)^2, and that of a singular value s is this divided by s.
    fn log_errors(
        &self,
        probabilities: &Probabilities,
        tangent: &Tangent,
        s: f64,
    ) -> Result<Vec<f64>, Error> {
        let mut sizes = Vec::with_capacity(self.log_weights.len());
        for (k, weight) in self.log_weights.iter().enumerate() {
            sizes.push(weight + probabilities.log_complement(k)? - self.log_largest);
        }
        let rows = tangent.row_error();
        let relative = match tangent.noise.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => {
                let (own, size) = (RowPrecision::F64.unit_roundoff(), largest_of(&sizes).exp());
                let grown = rows / tangent.precision().unit_roundoff();
                rows.max(own * grown * grown * size / s)
            }
        };
        Ok(sizes.into_iter().map(|size| size + relative.ln()).collect())
    }

    /// The entries q_iy of the kept directions, divided by e^(the second result).
    ///
    /// Computed as T_y . v_i / s_i where the row T_y is shorter than s_i, which preserves the
    /// digits of an unlikely class, and taken from q_i where it is longer, which is better
    /// conditioned.
    fn shares(&self, svd: &Svd, left: &Mat<f64>, y: usize) -> (Vec<f64>, f64) {
        let columns = 0..self.deviations.ncols();
        let norm = columns.clone().fold(0.0_f64, |norm, j| norm.hypot(self.deviations[(y, j)]));
        if norm == 0.0 {
            return (vec![0.0; left.ncols()], 0.0);
        }
        let log_length = self.log_weights[y] + norm.ln() - self.log_largest;
        let length = log_length.exp();
        let product = |i: usize| {
            let dot =
                columns.clone().map(|j| self.deviations[(y, j)] / norm * svd.right[(j, i)]).sum::<f64>();
            dot / svd.values[i]
        };
        let kept = 0..left.ncols();
        if length < LIGHT_ROW {
            return (kept.map(product).collect(), log_length);
        }
        let share = |i: usize| if length > svd.values[i] { left[(y, i)] } else { length * product(i) };
        (kept.map(share).collect(), 0.0)
    }

    /// c = -(diag P - P P^T) diag(1 / n) sum_i q_i q_iy / s_i^2, without the factor of the gradient
    /// and its scales.
    fn coefficients(
        &self,
        probabilities: &Probabilities,
        svd: &Svd,
        left: &Mat<f64>,
        shares: &[f64],
    ) -> Vec<f64> {
        let mut sum = vec![0.0; left.nrows()];
        for (i, share) in shares.iter().enumerate() {
            let factor = -share / (svd.values[i] * svd.values[i]);
            sum.iter_mut().zip(left.col_as_slice(i)).for_each(|(sum, q)| *sum += factor * q);
        }
        let weighted: Vec<f64> = sum.iter().zip(&self.log_weights).map(|(x, w)| x * w.exp()).collect();
        let total: f64 = weighted.iter().sum();
        weighted.iter().zip(probabilities.values()).map(|(x, p)| x - p * total).collect()
    }
}

/// Relative error of the sum of the squared shares q_iy e^-`log_share`, from the errors of the rows
/// of T.
///
/// As for the exact measure (`graded/loss.rs`): with r = e_y - sum_i q_i q_iy it is 2 r^T E T^+ e_y
/// to first order, and the squares of |r^T E| / s_r and |E| |T^+ e_y| to second. The closer the
/// largest dropped singular value is to the smallest kept one, the further errors rotate the kept
/// directions into dropped ones; the last factor accounts for that.
fn loss(
    values: &[f64],
    left: &Mat<f64>,
    shares: &[f64],
    (y, log_share): (usize, f64),
    log_errors: &[f64],
) -> f64 {
    let squared: f64 = shares.iter().map(|share| share * share).sum();
    if squared == 0.0 {
        return 0.0;
    }
    let smallest = values[shares.len() - 1];
    let dropped = values.get(shares.len()).copied().unwrap_or(0.0);
    let fitted = |k: usize| shares.iter().enumerate().map(|(i, share)| share * left[(k, i)]).sum::<f64>();
    let errors: Vec<f64> = log_errors.iter().map(|log| log.exp()).collect();
    // r_y = 1 - q_y . q_y. The error of row y is taken relative to the shares: for an unlikely
    // class both are tiny. `rest` is |r^T E|: |E| |r| summed over the rows. `solution` is |T^+ e_y|
    // and `size` is |E|.
    let own = (log_errors[y] - log_share).exp() * (1.0 - fitted(y) * log_share.exp()).clamp(0.0, 1.0);
    let others = (0..errors.len()).filter(|k| *k != y).map(|k| errors[k] * fitted(k).abs());
    let rest = own + others.sum::<f64>();
    let solution = shares.iter().zip(values).map(|(share, s)| (share / s).powi(2)).sum::<f64>().sqrt();
    let size = errors.iter().map(|error| error * error).sum::<f64>().sqrt();
    let turned = (2.0 * rest * solution + (rest / smallest).powi(2) + (size * solution).powi(2)) / squared;
    turned * smallest / (smallest - dropped)
}

/// The largest of some logarithms.
fn largest_of(logs: &[f64]) -> f64 {
    logs.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
