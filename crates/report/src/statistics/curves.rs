//! How well a score ranks bad samples before good ones: ROC and precision-recall curves with their
//! areas.
//!
//! Equal scores share one threshold: the curves have one point per distinct score. The area under
//! the ROC curve is the probability that a bad sample has a larger score than a good one, ties
//! counting half. Average precision is sum_n (R_n - R_(n-1)) P_n, without interpolation, like
//! scikit-learn's; the trapezoidal rule would overestimate it.

use super::random::Random;
use super::{Estimate, RESAMPLES};

/// Samples in the order of their scores, largest first, each known to be good or bad.
#[derive(Debug, Clone)]
pub struct Ranking {
    /// Whether each is bad.
    bad: Vec<bool>,
    /// The end index of each run of equal scores.
    ends: Vec<usize>,
}

/// The rates at a threshold: every sample with a score at least as large is classified as bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// The fraction of the good samples that are classified as bad.
    pub false_positives: f64,
    /// The fraction of the bad samples that are classified as bad.
    pub recall: f64,
    /// The fraction of the samples classified as bad that are bad.
    pub precision: f64,
}

/// The areas under both curves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Areas {
    /// Under the ROC curve; a random score has 1/2.
    pub roc: Estimate,
    /// Average precision; a random score has the fraction of bad samples.
    pub precision: Estimate,
}

impl Ranking {
    /// Orders samples by their scores. `None` unless there are good and bad samples, as many flags
    /// as scores, and no NaN.
    #[must_use]
    pub fn new(scores: &[f64], bad: &[bool]) -> Option<Self> {
        let mixed = bad.contains(&true) && bad.contains(&false);
        if scores.len() != bad.len() || !mixed || scores.iter().any(|score| score.is_nan()) {
            return None;
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        let mut at = 0;
        let ends = order.chunk_by(|a, b| scores[*a] == scores[*b]).map(|tied| {
            at += tied.len();
            at
        });
        Some(Self { ends: ends.collect(), bad: order.iter().map(|at| bad[*at]).collect() })
    }

    /// The points of both curves, from the strictest threshold to the one that classifies every
    /// sample as bad.
    #[must_use]
    pub fn points(&self) -> Vec<CurvePoint> {
        let once = vec![1; self.bad.len()];
        let [good, bad] = self.sizes();
        let point = |[false_ones, true_ones]: [f64; 2]| CurvePoint {
            false_positives: false_ones / good,
            recall: true_ones / bad,
            precision: true_ones / (true_ones + false_ones),
        };
        self.counted(&once).map(point).collect()
    }

    /// Both areas, with intervals from a stratified bootstrap: good and bad samples are resampled
    /// separately, each to their original number.
    #[must_use]
    pub fn areas(&self, seed: u64) -> Areas {
        let [roc, precision] = self.areas_of(&vec![1; self.bad.len()]);
        let samples =
            |kind: bool| -> Vec<usize> { (0..self.bad.len()).filter(|at| self.bad[*at] == kind).collect() };
        let strata = [samples(false), samples(true)];
        let mut random = Random::new(seed);
        let (mut rocs, mut precisions) = (Vec::new(), Vec::new());
        for _ in 0..RESAMPLES {
            // A resample is a multiplicity per sample: the order of the scores, and hence the runs
            // of ties, stay as they are and nothing is sorted again.
            let mut times = vec![0; self.bad.len()];
            for samples in &strata {
                (0..samples.len()).for_each(|_| times[samples[random.below(samples.len())]] += 1);
            }
            let [roc, precision] = self.areas_of(&times);
            rocs.push(roc);
            precisions.push(precision);
        }
        Areas { roc: Estimate::new(roc, rocs), precision: Estimate::new(precision, precisions) }
    }

    /// The numbers of good and of bad samples.
    fn sizes(&self) -> [f64; 2] {
        let bad = self.bad.iter().filter(|bad| **bad).count();
        [(self.bad.len() - bad) as f64, bad as f64]
    }

    /// The numbers of good and of bad samples above each threshold, where each sample counts
    /// `times`[i] times.
    fn counted<'a>(&'a self, times: &'a [u32]) -> impl Iterator<Item = [f64; 2]> + 'a {
        let (mut from, mut counts) = (0, [0_u64; 2]);
        self.ends.iter().map(move |&end| {
            for at in from..end {
                counts[usize::from(self.bad[at])] += u64::from(times[at]);
            }
            from = end;
            counts.map(|count| count as f64)
        })
    }

    /// The areas under the ROC curve and average precision.
    fn areas_of(&self, times: &[u32]) -> [f64; 2] {
        let [good, bad] = self.sizes();
        let (mut roc, mut precision, mut before) = (0.0, 0.0, [0.0; 2]);
        for now in self.counted(times) {
            // A run of ties is one diagonal step: trapezoid for the ROC curve (ties count half),
            // and a rectangle at the precision after the step.
            let [false_ones, true_ones] = now;
            roc += (false_ones - before[0]) * (true_ones + before[1]) / 2.0;
            if true_ones > before[1] {
                precision += (true_ones - before[1]) * true_ones / (true_ones + false_ones);
            }
            before = now;
        }
        [roc / (good * bad), precision / bad]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_score_and_a_constant_one() {
        let bad = [false, true, true, false, false];
        let perfect = Ranking::new(&[0.0, f64::INFINITY, 3.0, -1.0, 2.0], &bad).expect("a ranking");
        let areas = perfect.areas(0);
        assert_eq!([areas.roc.value, areas.roc.low, areas.precision.value], [1.0; 3]);
        let points = perfect.points();
        assert_eq!(points[1], CurvePoint { false_positives: 0.0, recall: 1.0, precision: 1.0 });
        assert_eq!(points.last().map(|p| (p.false_positives, p.precision)), Some((1.0, 0.4)));
        let constant = Ranking::new(&[7.0; 5], &bad).expect("a ranking");
        assert_eq!(constant.points().len(), 1, "no threshold lies between equals");
        let areas = constant.areas(0);
        assert_eq!([areas.roc.value, areas.precision.value], [0.5, 0.4]);
    }

    #[test]
    fn what_cannot_be_ranked_is_no_ranking() {
        for (scores, bad) in [
            (&[][..], &[][..]),
            (&[1.0, 2.0], &[true]),
            (&[1.0, 2.0], &[true, true]),
            (&[1.0, f64::NAN], &[true, false]),
        ] {
            assert!(Ranking::new(scores, bad).is_none());
        }
    }
}
