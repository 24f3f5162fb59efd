//! dh, the gradient of an objective in the logits, as logarithms with signs: its entries reach from 1 to below the smallest `f64`.
//!
//! Every function of the probabilities has sum_k dh_k = 0. Expected costs are the general case: with g_k = dg / dP_k,
//! dh_k = P_k (g_k - E g), and the entropy has g_k = -z_k up to a constant, for - sum_k P_k d ln P_k = 0. The deviation
//! of the predicted class is E (g_top - g), a sum over the others, and never a difference of g_top and a mean that equals it.

use crate::row::Row;
use crate::{Error, Objective, Probabilities, Tangent};

/// Largest |sum_k dh_k| / sum_k |dh_k| that counts as zero.
pub const ZERO_SUM: f64 = 1e-10;

/// dh, the gradient of the objective in the logits: dh_k = sign_k exp(log_abs_k), its sum zero.
#[derive(Debug, Clone)]
pub(crate) struct LogitGradient {
    pub(crate) log_abs: Vec<f64>,
    pub(crate) signs: Vec<f64>,
    /// ln |w|^2 = ln sum_k dh_k^2 / P_k.
    pub(crate) log_bound: f64,
    /// ln of the absolute error of every entry; -infinity where each has its own digits.
    pub(crate) log_error: f64,
}

impl LogitGradient {
    /// h = -ln P_y: dh = P - e_y, |w|^2 = (1 - P_y) / P_y.
    pub(crate) fn neg_log_probability(probabilities: &Probabilities, class: usize) -> Result<Self, Error> {
        let mut log_abs = probabilities.logs().to_vec();
        let mut signs = vec![1.0; log_abs.len()];
        log_abs[class] = probabilities.log_complement(class)?;
        signs[class] = -1.0;
        let log_bound = probabilities.log_odds_against(class)?;
        Ok(Self { log_abs, signs, log_bound, log_error: f64::NEG_INFINITY })
    }

    /// h = z_y - z_j, j the likeliest other class: dh = e_y - e_j, |w|^2 = 1 / P_y + 1 / P_j.
    pub(crate) fn margin(probabilities: &Probabilities, class: usize) -> Self {
        let mut log_abs = vec![f64::NEG_INFINITY; probabilities.classes()];
        let mut signs = vec![1.0; log_abs.len()];
        let rival = probabilities.rival(class);
        (log_abs[class], log_abs[rival]) = (0.0, 0.0);
        signs[rival] = -1.0;
        Self::bounded(probabilities, log_abs, signs, f64::NEG_INFINITY)
    }

    /// h = - sum_k P_k ln P_k: dh_k = -P_k (ln P_k + H), |w|^2 = Var ln P.
    pub(crate) fn entropy(probabilities: &Probabilities) -> Result<Self, Error> {
        let costs: Vec<f64> = probabilities.logits().iter().map(|z| -z).collect();
        Self::costs(probabilities, &costs)
    }

    /// h = E c = sum_k P_k c_k: dh_k = P_k (c_k - E c), |w|^2 = Var c.
    pub(crate) fn costs(probabilities: &Probabilities, costs: &[f64]) -> Result<Self, Error> {
        let classes = probabilities.classes();
        if costs.len() != classes {
            return Err(crate::error::wrong_length("the list of costs", classes, costs.len()));
        }
        let logs = probabilities.logs();
        let (above, log_above) = deviation_of_predicted(probabilities, costs);
        let level = costs[probabilities.predicted()];
        let (mut log_abs, mut signs) = (Vec::with_capacity(classes), Vec::with_capacity(classes));
        for (cost, log) in costs.iter().zip(logs) {
            let difference = cost - level;
            let (sign, log_deviation) = if difference == 0.0 {
                (above, log_above)
            } else {
                let deviation = difference + above * log_above.exp();
                (deviation.signum(), deviation.abs().ln())
            };
            log_abs.push(log + log_deviation);
            signs.push(sign);
        }
        Ok(Self::bounded(probabilities, log_abs, signs, f64::NEG_INFINITY))
    }

    /// From numbers that add up to zero, times e^`log_scale`: that of the predicted class is taken from the others.
    pub(crate) fn plain(probabilities: &Probabilities, dh: &[f64], log_scale: f64, error: f64) -> Self {
        let top = probabilities.predicted();
        let largest = dh.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let others: f64 = dh.iter().enumerate().filter(|(k, _)| *k != top).map(|(_, d)| d / unit).sum();
        let entry = |k: usize| if k == top { -others } else { dh[k] / unit };
        let log_abs = (0..dh.len()).map(|k| entry(k).abs().ln() + unit.ln() + log_scale).collect();
        let signs = (0..dh.len()).map(|k| entry(k).signum()).collect();
        Self::bounded(probabilities, log_abs, signs, error.ln() + log_scale)
    }

    /// With its bound sum_k dh_k^2 / P_k.
    fn bounded(probabilities: &Probabilities, log_abs: Vec<f64>, signs: Vec<f64>, log_error: f64) -> Self {
        // Not 2 d - l: the double may leave the range where the difference does not.
        let terms: Vec<f64> = log_abs.iter().zip(probabilities.logs()).map(|(d, l)| d + (d - l)).collect();
        let log_bound = log_sum(&terms);
        Self { log_abs, signs, log_bound, log_error }
    }
}

/// Sign and logarithm of c_top - E c = sum_j P_j (c_top - c_j).
fn deviation_of_predicted(probabilities: &Probabilities, costs: &[f64]) -> (f64, f64) {
    let level = costs[probabilities.predicted()];
    let terms: Vec<(f64, f64)> = costs
        .iter()
        .zip(probabilities.logs())
        .map(|(cost, log)| ((level - cost).signum(), log + (level - cost).abs().ln()))
        .collect();
    let scale = terms.iter().map(|term| term.1).fold(f64::NEG_INFINITY, f64::max);
    if scale == f64::NEG_INFINITY {
        return (1.0, scale);
    }
    let sum: f64 = terms.iter().map(|(sign, log)| sign * (log - scale).exp()).sum();
    (sum.signum(), sum.abs().ln() + scale)
}

/// ln sum_k e^v_k; -infinity where every v is.
fn log_sum(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        return largest;
    }
    largest + values.iter().map(|v| (v - largest).exp()).sum::<f64>().ln()
}

/// The gradient of any objective.
#[derive(Debug)]
pub(crate) enum Gradient {
    /// f is a function of the probabilities.
    OfProbabilities(LogitGradient),
    /// df = J^T C dh + e.
    Free(FreeGradient),
}

/// A gradient that may have a part along which the distribution stays.
#[derive(Debug)]
pub(crate) struct FreeGradient {
    /// C dh: K numbers that add up to zero.
    pub(crate) dh: Vec<f64>,
    /// e.
    pub(crate) row: Row,
}

/// sum_k dh_k, what a constant added to all logits does to h; nothing where it is 0 but for rounding.
pub(crate) fn common_shift(dh: &[f64]) -> Option<f64> {
    let largest = dh.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
    let unit = if largest > 0.0 { largest } else { 1.0 };
    let sum: f64 = dh.iter().map(|d| d / unit).sum();
    let magnitudes: f64 = dh.iter().map(|d| (d / unit).abs()).sum();
    (sum.abs() > ZERO_SUM * magnitudes).then_some(sum * unit)
}

impl Gradient {
    /// Of h(z): where sum_k dh_k = s is not zero, e = s J^T 1 / K, what a common shift of the logits contributes.
    pub(crate) fn of_logits(
        probabilities: &Probabilities,
        tangent: &Tangent,
        dh: &[f64],
        objective: &Objective,
    ) -> Result<Self, Error> {
        let Some(sum) = common_shift(dh) else {
            return Ok(Self::OfProbabilities(LogitGradient::plain(probabilities, dh, 0.0, 0.0)));
        };
        let common =
            tangent.common().ok_or_else(|| Error::CommonShift { objective: objective.to_string(), sum })?;
        let mean = sum / dh.len() as f64;
        let row = common.times(sum);
        crate::error::check_finite("the gradient of a common shift", [row.norm, mean])?;
        Ok(Self::Free(FreeGradient { dh: dh.iter().map(|d| d - mean).collect(), row }))
    }

    /// Of any function of omega.
    pub(crate) fn of_row(row: &Row, tangent: &Tangent) -> Result<Self, Error> {
        let (found, expected) = (row.product.len(), tangent.classes());
        if found != expected {
            return Err(Error::ClassMismatch { what: "a row", found, expected });
        }
        Ok(Self::Free(FreeGradient { dh: vec![0.0; found], row: row.clone() }))
    }
}

impl FreeGradient {
    /// The gradient in the logits of what the first `rank` directions see, and ln `outside`, |df|^2 less its projection.
    pub(crate) fn reduced(
        &self,
        probabilities: &Probabilities,
        tangent: &Tangent,
        rank: usize,
    ) -> Result<(LogitGradient, f64), Error> {
        let inside = self.row.inside(tangent, rank);
        let log_outside = inside.outside.ln() + 2.0 * self.row.norm.ln();
        let log_outside = if inside.outside > 0.0 { log_outside } else { f64::NEG_INFINITY };
        if self.dh.iter().all(|d| *d == 0.0) {
            let gradient =
                LogitGradient::plain(probabilities, &inside.gradient, inside.log_scale, inside.error);
            return Ok((gradient, log_outside));
        }
        let scale = inside.log_scale.exp();
        let dh: Vec<f64> = self.dh.iter().zip(&inside.gradient).map(|(d, x)| d + x * scale).collect();
        crate::error::check_finite("the gradient of the objective", dh.iter().copied())?;
        Ok((LogitGradient::plain(probabilities, &dh, 0.0, inside.error * scale), log_outside))
    }
}
