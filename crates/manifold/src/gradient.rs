//! The gradient dh of an objective in the logits, as logarithms with signs: its entries range from
//! 1 to below the smallest `f64`.
//!
//! Every function of the probabilities has sum_k dh_k = 0. Expected costs are the general case:
//! with g_k = dg / dP_k, dh_k = P_k (g_k - E g), and the entropy has g_k = -z_k up to a constant,
//! because - sum_k P_k d ln P_k = 0. The deviation of the predicted class is computed as E (g_top -
//! g), a sum over the other classes. The difference g_top - E g would cancel: for a confident
//! sample E g rounds to g_top.

use crate::row::Row;
use crate::{Error, Probabilities, RowPrecision, SampleObjective, Tangent};

/// Largest |sum_k dh_k| / sum_k |dh_k| that counts as zero: above the rounding of sums over many
/// classes in `f64`, and far below any real dependence on a common shift.
pub const ZERO_SUM: f64 = 1e-10;
/// Roundings of numbers of the order of one, per class, that a sum of probabilities may contain.
const SUM_ROUNDOFFS: f64 = 4.0;

/// The gradient dh of the objective in the logits: dh_k = sign_k exp(log_abs_k), K entries with the
/// sum zero.
#[derive(Debug, Clone)]
pub(crate) struct LogitGradient {
    pub(crate) log_abs: Vec<f64>,
    pub(crate) signs: Vec<f64>,
    /// ln |w|^2 = ln sum_k dh_k^2 / P_k.
    pub(crate) log_bound: f64,
    /// ln of the absolute error of every entry; -infinity where each entry is accurate relative to
    /// its own size.
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
    pub(crate) fn entropy(probabilities: &Probabilities) -> Self {
        let costs: Vec<f64> = probabilities.logits().iter().map(|z| -z).collect();
        Self::costs(probabilities, &costs)
    }

    /// h = E c = sum_k P_k c_k: dh_k = P_k (c_k - E c), |w|^2 = Var c.
    pub(crate) fn costs(probabilities: &Probabilities, costs: &[f64]) -> Self {
        let classes = probabilities.classes();
        let logs = probabilities.logs();
        // c_k - E c = (c_k - c_top) + (c_top - E c). Where c_k = c_top the second term is used as a
        // logarithm, since its exponential may underflow.
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
        Self::bounded(probabilities, log_abs, signs, f64::NEG_INFINITY)
    }

    /// The gradient whose entries are plain numbers that add up to zero, times e^`log_scale`, each
    /// with an error of `error` e^`log_scale`. The entry of the predicted class is recomputed as
    /// minus the sum of the others, so that the sum is zero exactly.
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

    /// The slope dh . v as its sign and ln of its size; `None` where it is 0.
    ///
    /// Because sum_k dh_k = 0, the velocity of the predicted class may be subtracted from all. That
    /// removes the term with the largest dh, which would cancel against the others.
    pub(crate) fn log_slope(&self, velocity: &[f64], predicted: usize) -> Option<(f64, f64)> {
        let above = velocity.iter().map(|v| v - velocity[predicted]).zip(&self.signs).zip(&self.log_abs);
        let terms: Vec<(f64, f64)> =
            above.map(|((v, sign), log)| (sign * v.signum(), log + v.abs().ln())).collect();
        let largest = terms.iter().map(|term| term.1).fold(f64::NEG_INFINITY, f64::max);
        if largest == f64::NEG_INFINITY {
            return None;
        }
        let sum: f64 = terms.iter().map(|(sign, log)| sign * (log - largest).exp()).sum();
        (sum != 0.0).then(|| (sum.signum(), sum.abs().ln() + largest))
    }

    /// Adds the bound sum_k dh_k^2 / P_k.
    fn bounded(probabilities: &Probabilities, log_abs: Vec<f64>, signs: Vec<f64>, log_error: f64) -> Self {
        // Not 2 d - l: 2 d may overflow where the result does not.
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

/// ln sum_k e^v_k; -infinity where every v_k is.
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

/// A gradient that may have a component along which the distribution does not change.
#[derive(Debug)]
pub(crate) struct FreeGradient {
    /// C dh: K entries that add up to zero.
    pub(crate) dh: Vec<f64>,
    /// The row e.
    pub(crate) row: Row,
}

/// How h changes when a constant is added to all logits: by sum_k dh_k per unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum CommonShift {
    /// Not at all: the sum is 0 up to rounding.
    None,
    /// By this sum.
    Sum(f64),
    /// Unknown: the sum is not small relative to the entries, but it is no larger than the rounding
    /// of probabilities.
    Unknown(f64),
}

impl CommonShift {
    /// Classifies sum_k dh_k.
    pub(crate) fn of(dh: &[f64]) -> Self {
        let largest = dh.iter().fold(0.0_f64, |largest, d| largest.max(d.abs()));
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let sum: f64 = dh.iter().map(|d| d / unit).sum();
        let magnitudes: f64 = dh.iter().map(|d| (d / unit).abs()).sum();
        if sum.abs() <= ZERO_SUM * magnitudes {
            return Self::None;
        }
        // E.g. P - e_y of a confident sample, computed from plain probabilities: all entries are
        // tiny, and so is the rounding of 1 - P_y that keeps them from adding up to zero.
        let rounding = SUM_ROUNDOFFS * dh.len() as f64 * RowPrecision::F64.unit_roundoff();
        let sum = sum * unit;
        if sum.abs() <= rounding { Self::Unknown(sum) } else { Self::Sum(sum) }
    }
}

impl Gradient {
    /// The gradient of h(z) with sum_k dh_k = s not zero: e = s J^T 1 / K is the contribution of a
    /// common shift of the logits.
    pub(crate) fn of_logits(
        tangent: &Tangent,
        dh: &[f64],
        objective: &SampleObjective,
    ) -> Result<Self, Error> {
        let sum: f64 = dh.iter().sum();
        let common =
            tangent.common().ok_or_else(|| Error::CommonShift { objective: objective.to_string(), sum })?;
        let mean = sum / dh.len() as f64;
        let row = common.times(sum);
        crate::error::check_finite("the gradient of a common shift", [row.norm, mean])?;
        Ok(Self::Free(FreeGradient { dh: dh.iter().map(|d| d - mean).collect(), row }))
    }

    /// The gradient of any function of omega, given by its row df.
    pub(crate) fn of_row(row: &Row, tangent: &Tangent) -> Result<Self, Error> {
        row.check_classes(tangent.classes())?;
        Ok(Self::Free(FreeGradient { dh: vec![0.0; row.product.len()], row: row.clone() }))
    }
}

impl FreeGradient {
    /// The gradient in the logits of the part of df that lies in the first `rank` directions, and
    /// ln `outside`: |df|^2 minus the squared length of that part.
    pub(crate) fn reduced(
        &self,
        probabilities: &Probabilities,
        tangent: &Tangent,
        rank: usize,
    ) -> Result<(LogitGradient, f64), Error> {
        let inside = self.row.inside(tangent, rank);
        let log_outside = inside.outside.ln() + 2.0 * self.row.norm.ln();
        let log_outside = if inside.outside > 0.0 { log_outside } else { f64::NEG_INFINITY };
        // Without a part of its own, the gradient keeps its scale as a logarithm. Else the two
        // parts are added as plain numbers.
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
