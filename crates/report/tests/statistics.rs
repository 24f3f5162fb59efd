//! The statistics against SciPy and scikit-learn: `reference.py` prints these values.

use influence_report::statistics::{
    Estimate, Random, Ranking, mann_whitney, median_difference, percentile, smirnov, spearman,
};

/// The values of the other libraries for one pair of samples.
struct OtherLibraries {
    count: usize,
    kinds: usize,
    areas: [f64; 2],
    spearman: f64,
    smirnov: [f64; 2],
    whitney: [f64; 2],
    percentiles: [f64; 5],
    /// Intervals from 5000 resamples: AUROC, average precision, difference of medians.
    intervals: [[f64; 2]; 3],
}

const REFERENCES: [OtherLibraries; 2] = [
    OtherLibraries {
        count: 60,
        kinds: 12,
        areas: [0.899_782_135_076_252_7, 0.685_570_987_654_321],
        spearman: -0.036_160_980_375_979_34,
        smirnov: [0.2, 0.660_386_020_029_969_2],
        whitney: [508.5, 0.088_851_249_769_607_2],
        percentiles: [0.0, 6.0, 11.0, 12.525, 13.41],
        intervals: [[0.784_3, 0.980_4], [0.452_6, 0.898_3], [-1.0, 5.5]],
    },
    OtherLibraries {
        count: 200,
        kinds: 1000,
        areas: [0.693_834_160_170_092_1, 0.456_899_959_132_479_27],
        spearman: 0.108_957_315_010_617_34,
        smirnov: [0.135_006_784_260_515_6, 0.395_817_443_098_770_5],
        whitney: [4846.0, 0.271_187_297_165_846_2],
        percentiles: [44.775, 534.0, 950.4, 1172.125, 1232.08],
        intervals: [[0.598_3, 0.784_0], [0.323_5, 0.599_3], [-40.0, 252.0]],
    },
];

fn sample(seed: u64, count: usize, kinds: usize) -> Vec<f64> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(kinds) as f64).collect()
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{found} is not {expected}");
}

/// The ends of an interval from 1000 resamples vary by some hundredths of its width.
fn about(found: Estimate, [low, high]: [f64; 2]) {
    let slack = 0.08 * (high - low);
    assert!((found.low - low).abs() <= slack && (found.high - high).abs() <= slack, "{found:?} {low} {high}");
}

#[test]
fn statistics_are_those_of_other_libraries() {
    for of in REFERENCES {
        let (mut x, y) = (sample(1, of.count, of.kinds), sample(2, of.count, of.kinds));
        let bad: Vec<bool> = sample(3, of.count, 5).iter().map(|kind| *kind == 0.0).collect();
        x.iter_mut().zip(&bad).filter(|(_, bad)| **bad).for_each(|(x, _)| *x += of.kinds as f64 / 4.0);
        let areas = Ranking::new(&x, &bad).unwrap().areas(7);
        near(areas.roc.value, of.areas[0]);
        near(areas.precision.value, of.areas[1]);
        about(areas.roc, of.intervals[0]);
        about(areas.precision, of.intervals[1]);
        near(spearman(&x, &y).unwrap(), of.spearman);
        let (a, b) = (&x[..of.count / 3], &y[of.count / 3..]);
        let found = smirnov(a, b).unwrap();
        near(found.distance, of.smirnov[0]);
        near(found.p, of.smirnov[1]);
        let found = mann_whitney(a, b).unwrap();
        near(found.u, of.whitney[0]);
        near(found.p, of.whitney[1]);
        near(found.area, found.u / (a.len() * b.len()) as f64);
        about(median_difference(a, b, 7).unwrap(), of.intervals[2]);
        let mut sorted = x.clone();
        sorted.sort_by(f64::total_cmp);
        [2.5, 50.0, 90.0, 97.5, 99.0]
            .iter()
            .zip(of.percentiles)
            .for_each(|(q, p)| near(percentile(&sorted, *q), p));
    }
}

#[test]
fn intervals_are_the_same_in_every_run_and_those_of_their_seed() {
    let scores = sample(1, 100, 50);
    let bad: Vec<bool> = sample(3, 100, 5).iter().map(|kind| *kind == 0.0).collect();
    let ranking = Ranking::new(&scores, &bad).unwrap();
    assert_eq!(ranking.areas(1), ranking.areas(1));
    assert_ne!(ranking.areas(1).roc.low, ranking.areas(2).roc.low);
}

#[test]
fn the_area_is_the_share_of_pairs() {
    let scores = sample(5, 80, 9);
    let bad: Vec<bool> = sample(6, 80, 3).iter().map(|kind| *kind == 0.0).collect();
    let of = |kind: bool| -> Vec<f64> {
        scores.iter().zip(&bad).filter(|(_, bad)| **bad == kind).map(|(score, _)| *score).collect()
    };
    let area = Ranking::new(&scores, &bad).unwrap().areas(0).roc.value;
    near(area, mann_whitney(&of(true), &of(false)).unwrap().area);
}

#[test]
fn what_is_not_defined_is_nothing() {
    assert_eq!(spearman(&[1.0], &[2.0]), None);
    assert_eq!(spearman(&[1.0, 2.0], &[2.0]), None);
    assert_eq!(spearman(&[1.0, 2.0], &[3.0, 3.0]), None);
    assert!(smirnov(&[], &[1.0]).is_none() && mann_whitney(&[1.0], &[]).is_none());
    assert!(median_difference(&[], &[1.0], 0).is_none());
    let same = mann_whitney(&[2.0; 4], &[2.0; 5]).unwrap();
    assert_eq!((same.area, same.p), (0.5, 1.0));
    let infinite = [1.0, f64::INFINITY, f64::INFINITY];
    assert_eq!(spearman(&infinite, &[0.0, 5.0, 5.0]), Some(1.0));
    assert_eq!(smirnov(&infinite, &infinite).unwrap().distance, 0.0);
}
