//! Tests whether two samples of a score come from the same distribution.

use super::normal::upper_tail;
use super::percentiles::percentile;
use super::random::Random;
use super::ranks::ranks;
use super::{Estimate, RESAMPLES};

/// The two-sample Kolmogorov-Smirnov statistic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Smirnov {
    /// The largest distance between the two empirical distribution functions, in [0, 1].
    pub distance: f64,
    /// The probability of a larger distance if both samples came from one distribution without
    /// ties. It is the asymptotic one, accurate to a few per cent from 50 values per sample on.
    pub p: f64,
}

/// The two-sample Kolmogorov-Smirnov statistic; `None` if a sample is empty.
#[must_use]
pub fn smirnov(first: &[f64], second: &[f64]) -> Option<Smirnov> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (n, m) = (first.len() as f64, second.len() as f64);
    // Walk through both samples in order. The difference of the distribution functions goes up by
    // 1/n at a value of the first and down by 1/m at one of the second; ties are one step.
    let mut all: Vec<(f64, f64)> = first.iter().map(|x| (*x, 1.0 / n)).collect();
    all.extend(second.iter().map(|x| (*x, -1.0 / m)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut apart, mut distance) = (0.0_f64, 0.0_f64);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        apart += tied.iter().map(|(_, step)| step).sum::<f64>();
        distance = distance.max(apart.abs());
    }
    let distance = distance.min(1.0);
    Some(Smirnov { distance, p: kolmogorov(distance * (n * m / (n + m)).sqrt()) })
}

/// The tail of Kolmogorov's distribution, 2 sum_k (-1)^(k-1) exp(-2 k^2 x^2).
fn kolmogorov(x: f64) -> f64 {
    /// Below this x the tail is 1 to within 1e-14, and the alternating sum would need more and more
    /// terms.
    const SURE: f64 = 0.18;
    if x < SURE {
        return 1.0;
    }
    let term = |k: i32| if k % 2 == 1 { 2.0 } else { -2.0 } * (-2.0 * f64::from(k * k) * x * x).exp();
    (1..40).map(term).sum::<f64>().clamp(0.0, 1.0)
}

/// The Mann-Whitney statistic of two samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MannWhitney {
    /// The number of pairs with the larger value in the first sample; ties count half.
    pub u: f64,
    /// `u` divided by the number of pairs: the area under the ROC curve of the first sample against
    /// the second.
    pub area: f64,
    /// Two-sided p-value under equal distributions, by the normal approximation with corrections
    /// for ties and continuity.
    pub p: f64,
}

/// The Mann-Whitney statistic; `None` if a sample is empty.
#[must_use]
pub fn mann_whitney(first: &[f64], second: &[f64]) -> Option<MannWhitney> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let (n, m) = (first.len() as f64, second.len() as f64);
    let all: Vec<f64> = first.iter().chain(second).copied().collect();
    let ranks = ranks(&all);
    // U is the rank sum of the first sample less the smallest that it can be.
    let u = ranks.iter().take(first.len()).sum::<f64>() - n * (n + 1.0) / 2.0;
    let mut sorted = all;
    sorted.sort_by(f64::total_cmp);
    // Each run of t equal values lowers the variance of U in proportion to t^3 - t.
    let ties: f64 =
        sorted.chunk_by(|a, b| a == b).map(|tied| (tied.len() as f64).powi(3) - tied.len() as f64).sum();
    let size = n + m;
    let variance = n * m / 12.0 * (size + 1.0 - ties / (size * (size - 1.0).max(1.0)));
    // If all values are equal, the variance is 0 and the samples cannot be distinguished: p = 1.
    let p = if variance > 0.0 {
        let z = ((u - n * m / 2.0).abs() - 0.5) / variance.sqrt();
        (2.0 * upper_tail(z)).min(1.0)
    } else {
        1.0
    };
    Some(MannWhitney { u, area: u / (n * m), p })
}

/// The median of the first sample minus that of the second, with a bootstrap interval; `None` if a
/// sample is empty.
#[must_use]
pub fn median_difference(first: &[f64], second: &[f64], seed: u64) -> Option<Estimate> {
    if first.is_empty() || second.is_empty() {
        return None;
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        percentile(&values, 50.0)
    };
    let mut random = Random::new(seed);
    let mut again = |of: &[f64]| median(of.iter().map(|_| of[random.below(of.len())]).collect());
    let resampled = (0..RESAMPLES).map(|_| again(first) - again(second)).collect();
    Some(Estimate::new(median(first.to_vec()) - median(second.to_vec()), resampled))
}
