//! The numerics of Shu & Zhu's own code, for f = -log P_y: absolute epsilons in three places.
//!
//! dP = (diag P - P P^T) J;  T = diag(1 / (sqrt P + epsilon)) dP, whose singular values up to rank_epsilon are dropped;
//! df = -dP_y / (P_y + epsilon). With T = sum_i s_i q_i v_i^T
//!
//! FI = sum_{s_i > rank_epsilon} (df . v_i)^2 / s_i^2,  h = sum_i v_i (v_i . df) / s_i^2.
//!
//! (df . v_i) / s_i = -(sqrt P_y + epsilon) / (P_y + epsilon) q_iy. T has the null direction n = sqrt P + epsilon on its
//! left, which rounding would turn into a singular value: the decomposition is that of the complement of n.

use faer::Mat;

use super::Outcome;
use crate::dense::{Svd, thin_svd};
use crate::objective::LogitGradient;
use crate::precision::{Carrier, GRAM_RESOLUTION, Precision};
use crate::reflection::Reflection;
use crate::{Error, Probabilities, Tangent};

/// Roundings of the weighted tangent that may decide on which side of the cut a singular value lies.
const CUT_ROUNDOFFS: f64 = 10.0;

/// The weighted tangent and its weights.
struct Weighted {
    /// d_k = X_k - P^T X: K x m.
    deviations: Mat<f64>,
    /// ln P_k - ln(sqrt P_k + epsilon).
    log_weights: Vec<f64>,
    /// sqrt P_k + epsilon.
    null: Vec<f64>,
}

/// The influence by the authors' numerics.
pub(crate) fn paper(
    probabilities: &Probabilities,
    tangent: &Tangent,
    gradient: &LogitGradient,
    epsilon: f64,
    rank_epsilon: f64,
) -> Result<Outcome, Error> {
    let (classes, y) = (tangent.classes(), gradient.class);
    let weighted = Weighted::new(probabilities, tangent, epsilon);
    let reflection = Reflection::of(&weighted.null);
    let svd = thin_svd(reflection.complement(weighted.rows().as_ref()).as_ref())?;
    let largest = svd.values.first().copied().unwrap_or(0.0);
    let carried = GRAM_RESOLUTION * largest;
    if tangent.noise.carrier == Carrier::Gram && rank_epsilon < carried {
        return Err(Error::BelowGramResolution { what: "rank_epsilon", asked: rank_epsilon, carried });
    }
    let rank = svd.values.iter().take_while(|s| **s > rank_epsilon).count();
    let ambiguous = cut_is_noise(tangent, &weighted, &svd.values, rank_epsilon);
    if rank == 0 {
        return Ok(Outcome::zero(classes, 0, ambiguous));
    }
    let left = reflection.lift(svd.left.get(.., ..rank));
    let shares = weighted.shares(&svd, &left, y);
    let squared: f64 = shares.iter().map(|share| share * share).sum();
    let log_y = probabilities.logs()[y];
    let log_gradient = log_add(0.5 * log_y, epsilon.ln()) - log_add(log_y, epsilon.ln());
    let log_share = weighted.log_share(y);
    Ok(Outcome {
        log_value: (squared > 0.0).then(|| 2.0 * (log_gradient + log_share) + squared.ln()),
        rank,
        ambiguous,
        coefficients: weighted.coefficients(probabilities, &svd, &left, &shares),
        log_scale: log_gradient + log_share,
    })
}

impl Weighted {
    /// The weighted tangent of X = V Sigma. The heaviest row is taken off before the mean P^T X, which is then small.
    fn new(probabilities: &Probabilities, tangent: &Tangent, epsilon: f64) -> Self {
        let values = probabilities.values();
        let top = probabilities.predicted();
        let mut deviations = Mat::from_fn(tangent.classes(), tangent.singular.len(), |k, j| {
            (tangent.basis[(k, j)] - tangent.basis[(top, j)]) * tangent.singular[j]
        });
        for j in 0..deviations.ncols() {
            let column = deviations.col_as_slice_mut(j);
            let mean: f64 = column.iter().zip(&values).map(|(x, p)| x * p).sum();
            column.iter_mut().for_each(|x| *x -= mean);
        }
        let log_epsilon = epsilon.ln();
        let log_null = probabilities.logs().iter().map(|l| log_add(0.5 * l, log_epsilon));
        let log_weights = probabilities.logs().iter().zip(log_null).map(|(l, null)| l - null).collect();
        let null = values.iter().map(|p| p.sqrt() + epsilon).collect();
        Self { deviations, log_weights, null }
    }

    /// T: K x m.
    fn rows(&self) -> Mat<f64> {
        Mat::from_fn(self.deviations.nrows(), self.deviations.ncols(), |k, j| {
            self.log_weights[k].exp() * self.deviations[(k, j)]
        })
    }

    /// q_iy e^-`log_share` of the kept directions.
    ///
    /// From d_y . v_i / s_i where the row y is light, which keeps its digits; from q_i where it is heavy, which is better
    /// conditioned.
    fn shares(&self, svd: &Svd, left: &Mat<f64>, y: usize) -> Vec<f64> {
        let columns = 0..svd.right.nrows();
        let norm = columns.clone().fold(0.0_f64, |norm, j| norm.hypot(self.deviations[(y, j)]));
        let product =
            |i: usize| columns.clone().map(|j| self.deviations[(y, j)] * svd.right[(j, i)]).sum::<f64>();
        let rank = left.ncols();
        if self.is_light(y) {
            return (0..rank).map(|i| product(i) / svd.values[i]).collect();
        }
        let weight = self.log_weights[y].exp();
        let heavy = |i: usize| norm * weight > svd.values[i];
        (0..rank).map(|i| if heavy(i) { left[(y, i)] } else { weight * product(i) / svd.values[i] }).collect()
    }

    /// Whether the weight of the row y leaves the range in which its square is a number.
    fn is_light(&self, y: usize) -> bool {
        self.log_weights[y] < -300.0
    }

    /// The logarithm which [`shares`](Self::shares) leaves out.
    fn log_share(&self, y: usize) -> f64 {
        if self.is_light(y) { self.log_weights[y] } else { 0.0 }
    }

    /// c = -(diag P - P P^T) diag(1 / n) sum_i q_i q_iy / s_i^2, up to the factor of the gradient.
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

/// Whether rounding decides on which side of the cut some singular value lies.
///
/// T = A X has the error u |A| sigma_1 from rows; from a Gram matrix its square has u (|A| sigma_1)^2.
fn cut_is_noise(tangent: &Tangent, weighted: &Weighted, values: &[f64], rank_epsilon: f64) -> bool {
    let heaviest = weighted.log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max).exp();
    let size = heaviest * tangent.largest();
    let rows = tangent.precision().unit_roundoff() * size;
    let error = match tangent.noise.carrier {
        Carrier::Rows => rows,
        Carrier::Gram => rows.max(Precision::F64.unit_roundoff() * size * size / rank_epsilon),
    };
    values.iter().any(|s| (s - rank_epsilon).abs() < CUT_ROUNDOFFS * error)
}

/// ln(e^a + e^b).
fn log_add(a: f64, b: f64) -> f64 {
    let (larger, smaller) = if a > b { (a, b) } else { (b, a) };
    larger + (smaller - larger).exp().ln_1p()
}
