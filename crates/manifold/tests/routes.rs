//! Three routes to the same value: the p x p pseudo-inverse, the K x K tangent, conjugate
//! gradients; and relations between them.

mod common;

use common::{
    Dense, Random, assert_close, close, conjugate_gradients, fisher, gradient, pseudo_inverse_quadratic, run,
    tangent,
};
use influence_manifold::{Influence, RowPrecision, Tangent};
use proptest::prelude::*;

const CLASSES: usize = 6;
const COLUMNS: usize = 8;
/// Tolerance of routes through G, which square the condition.
const ROUTES: f64 = 1e-7;
const SPECTRA: f64 = 1e-12;
const DIRECTION: f64 = 1e-9;

/// A sample with a planted rank and a condition of at most 30.
struct Sample {
    logits: Vec<f64>,
    jacobian: Dense,
    y: usize,
}

fn sample(seed: u64, rank: usize) -> Option<Sample> {
    let mut random = Random(seed);
    let jacobian = random.planted(CLASSES, COLUMNS, rank);
    let tangent = tangent(&jacobian);
    let well = tangent.singular_values()[0] < 30.0 * tangent.singular_values()[rank - 1];
    well.then(|| Sample { logits: random.vector(CLASSES, 3.0), jacobian, y: random.below(CLASSES) })
}

impl Sample {
    fn influence(&self, filter: &str) -> Influence {
        run(&self.logits, &tangent(&self.jacobian), self.y, filter)
    }

    fn direction(&self, influence: &Influence) -> Vec<f64> {
        influence.direction(&self.jacobian.values, COLUMNS).expect("direction")
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

proptest! {
    #![proptest_config(common::cases(48))]

    #[test]
    fn three_routes_agree(seed in any::<u64>(), rank in 1..CLASSES) {
        let Some(sample) = sample(seed, rank) else { return Ok(()) };
        let (g, df) = (fisher(&sample.logits, &sample.jacobian), gradient(&sample.logits, &sample.jacobian, sample.y));
        let found = sample.influence("exact");
        let dense = pseudo_inverse_quadratic(&g, &df, 1e-11);
        let krylov = dot(&df, &conjugate_gradients(&g, &df, 50 * CLASSES));
        let gram = Tangent::from_gram(&sample.jacobian.gram().values, CLASSES, RowPrecision::F64).expect("tangent");
        prop_assert!(close(found.value, dense, ROUTES), "{} {dense}", found.value);
        prop_assert!(close(found.value, krylov, ROUTES), "{} {krylov}", found.value);
        prop_assert!(close(found.value, run(&sample.logits, &gram, sample.y, "exact").value, ROUTES));
    }

    #[test]
    fn damped_routes_agree(seed in any::<u64>(), rank in 1..CLASSES, exponent in -4.0..4.0_f64) {
        let Some(sample) = sample(seed, rank) else { return Ok(()) };
        let lambda = 10_f64.powf(exponent);
        let g = fisher(&sample.logits, &sample.jacobian);
        let df = gradient(&sample.logits, &sample.jacobian, sample.y);
        let damped = Dense::from_fn(COLUMNS, COLUMNS, |i, j| g.at(i, j) + if i == j { lambda } else { 0.0 });
        let found = sample.influence(&format!("tikhonov:{lambda:e}"));
        prop_assert!(close(found.value, pseudo_inverse_quadratic(&damped, &df, 0.0), ROUTES));
        // (G + lambda I) h = df.
        let image = damped.apply(&sample.direction(&found));
        let norm = dot(&df, &df).sqrt();
        prop_assert!(image.iter().zip(&df).all(|(x, y)| (x - y).abs() <= DIRECTION * norm));
    }

    #[test]
    fn spectra_of_both_sides_match(seed in any::<u64>(), rank in 1..CLASSES) {
        let Some(sample) = sample(seed, rank) else { return Ok(()) };
        let (mut expected, _) = fisher(&sample.logits, &sample.jacobian).eigen();
        expected.sort_by(|a, b| b.total_cmp(a));
        let spectrum = sample.influence("exact").spectrum;
        prop_assert_eq!(spectrum.len(), CLASSES);
        prop_assert!(spectrum.windows(2).all(|pair| pair[0] >= pair[1]));
        prop_assert!(spectrum.iter().zip(&expected).all(|(x, y)| (x - y).abs() <= SPECTRA * spectrum[0]));
        let gram = Tangent::from_gram(&sample.jacobian.gram().values, CLASSES, RowPrecision::F64).expect("tangent");
        let through = run(&sample.logits, &gram, sample.y, "exact").spectrum;
        prop_assert!(spectrum.iter().zip(&through).all(|(x, y)| (x - y).abs() <= SPECTRA * spectrum[0]));
    }

    /// h = G^+ df: G h = df on the range of G, to which df belongs; df . h = h^T G h = FI;
    /// projecting twice changes nothing.
    #[test]
    fn the_direction_solves_its_equation(seed in any::<u64>(), rank in 1..CLASSES) {
        let Some(sample) = sample(seed, rank) else { return Ok(()) };
        let g = fisher(&sample.logits, &sample.jacobian);
        let df = gradient(&sample.logits, &sample.jacobian, sample.y);
        let found = sample.influence("exact");
        let h = sample.direction(&found);
        let image = g.apply(&h);
        let norm = dot(&df, &df).sqrt();
        prop_assert!(image.iter().zip(&df).all(|(x, y)| (x - y).abs() <= DIRECTION * norm));
        prop_assert!(close(dot(&df, &h), found.value, DIRECTION));
        prop_assert!(close(dot(&image, &h), found.value, DIRECTION));
        prop_assert!(found.coefficients.iter().sum::<f64>().abs() <= DIRECTION * norm.max(found.value));
        // In a family of only h the influence is the same: the most influential direction carries
        // all of it.
        let along = Dense::new(CLASSES, 1, sample.jacobian.apply(&h));
        prop_assert!(close(run(&sample.logits, &tangent(&along), sample.y, "exact").value, found.value, DIRECTION));
        // Along any other direction it is no larger.
        let other = Random(seed ^ 1).vector(COLUMNS, 1.0);
        let along = Dense::new(CLASSES, 1, sample.jacobian.apply(&other));
        prop_assert!(run(&sample.logits, &tangent(&along), sample.y, "exact").value <= found.value * (1.0 + DIRECTION));
    }

    /// A rank that another tolerance within a factor of ten would change is reported as ambiguous.
    #[test]
    fn ranks_are_stable_or_ambiguous(seed in any::<u64>(), small in -12.0..0.0_f64) {
        let mut random = Random(seed);
        let (left, right) = (random.matrix(CLASSES, 3), random.matrix(3, COLUMNS));
        let sizes = [1.0, 10_f64.powf(small / 2.0), 10_f64.powf(small)];
        let scaled = Dense::from_fn(3, COLUMNS, |i, j| sizes[i] * right.at(i, j));
        let sample = Sample { logits: random.vector(CLASSES, 3.0), jacobian: left.times(&scaled), y: 0 };
        let found = sample.influence("exact:1e-7");
        let ranks = [sample.influence("exact:1e-6").rank, sample.influence("exact:1e-8").rank];
        prop_assert!(found.ambiguous || ranks == [found.rank; 2]);
    }
}

/// The authors' numerics as in their code: a p x K matrix and its singular values.
#[test]
fn the_authors_code_gives_the_same() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let jacobian = random.planted(CLASSES, COLUMNS, 1 + (seed as usize) % 5);
        let (logits, y) = (random.vector(CLASSES, 3.0), random.below(CLASSES));
        for (epsilon, rank_epsilon) in [(1e-3, 1e-3), (1e-3, 0.255), (1e-8, 1e-6)] {
            let p = common::softmax(&logits);
            let mean = |i: usize| (0..CLASSES).map(|k| p[k] * jacobian.at(k, i)).sum::<f64>();
            let change = Dense::from_fn(CLASSES, COLUMNS, |k, i| p[k] * (jacobian.at(k, i) - mean(i)));
            let weighted = Dense::from_fn(CLASSES, COLUMNS, |k, i| change.at(k, i) / (p[k].sqrt() + epsilon));
            let (squares, vectors) = weighted.transpose().times(&weighted).eigen();
            let df: Vec<f64> = (0..COLUMNS).map(|i| -change.at(y, i) / (p[y] + epsilon)).collect();
            let share =
                |i: usize| (0..COLUMNS).map(|j| vectors.at(j, i) * df[j]).sum::<f64>().powi(2) / squares[i];
            let kept: Vec<usize> =
                (0..COLUMNS).filter(|i| squares[*i] > rank_epsilon * rank_epsilon).collect();
            let found = run(&logits, &tangent(&jacobian), y, &format!("paper:{epsilon}:{rank_epsilon}"));
            assert_eq!(found.rank, kept.len());
            assert_close(found.value, kept.iter().map(|i| share(*i)).sum(), 1e-6);
            let h = found.direction(&jacobian.values, COLUMNS).expect("direction");
            assert_close(dot(&h, &df), found.value, 1e-6);
        }
    }
}

/// Two likely classes whose gradients differ only by rounding: that noise, times their large
/// weight, must not drown the other classes unnoticed.
#[test]
fn digits_lost_to_rounding_are_reported() {
    let mut random = Random(41);
    let mut jacobian = random.planted(5, 6, 2);
    for i in 0..6 {
        jacobian.values[6 + i] = jacobian.values[i];
    }
    for (gap, lost) in [(5.0, false), (12.0, false), (40.0, true), (300.0, true)] {
        let logits = [0.0, -0.5, -gap, -gap - 1.0, -gap - 2.0];
        let found = run(&logits, &tangent(&jacobian), 0, "exact");
        assert_eq!(found.ambiguous, lost, "gap {gap}");
    }
}
