//! What the integration tests share: golden files, small dense matrices by plain loops, random
//! numbers.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, reason = "a module of several test binaries")]

mod dense;
mod golden;

pub use dense::{Dense, Random, conjugate_gradients, pseudo_inverse_quadratic};
pub use golden::{Golden, golden_files};

use proptest::test_runner::{Config as ProptestConfig, RngSeed};

use influence_manifold::{Filter, Influence, SampleObjective, Tangent, influence};

/// This many random cases, the same in every run.
pub fn cases(count: u32) -> ProptestConfig {
    ProptestConfig {
        cases: count,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1901),
        ..ProptestConfig::default()
    }
}

/// A Jacobian of K rows as a tangent.
pub fn tangent(jacobian: &Dense) -> Tangent {
    Tangent::from_rows(&jacobian.values, jacobian.rows, jacobian.columns).expect("tangent")
}

/// The influence on -log P_y by the filter written as `filter`.
pub fn run(logits: &[f64], tangent: &Tangent, y: usize, filter: &str) -> Influence {
    let filter: Filter = filter.parse().expect("filter");
    influence(logits, tangent, &SampleObjective::class(y), &filter).expect("influence")
}

/// The influence on any objective by the filter written as `filter`.
pub fn measure(logits: &[f64], tangent: &Tangent, objective: &SampleObjective, filter: &str) -> Influence {
    influence(logits, tangent, objective, &filter.parse().expect("filter")).expect("influence")
}

/// Whether a and b differ by at most `tolerance` of the larger.
pub fn close(a: f64, b: f64, tolerance: f64) -> bool {
    a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs())
}

/// Asserts `close`, naming both.
#[track_caller]
pub fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!(close(a, b, tolerance), "{a:e} and {b:e} differ by more than {tolerance:e}");
}

/// P by the plain formula.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|z| (z - top).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.iter().map(|power| power / total).collect()
}

/// G = J^T (diag P - P P^T) J, the whole p x p matrix.
pub fn fisher(logits: &[f64], jacobian: &Dense) -> Dense {
    let p = softmax(logits);
    let weighted = Dense::from_fn(jacobian.rows, jacobian.columns, |k, i| {
        let mean: f64 = (0..jacobian.rows).map(|j| p[j] * jacobian.at(j, i)).sum();
        p[k].sqrt() * (jacobian.at(k, i) - mean)
    });
    weighted.transpose().times(&weighted)
}

/// df = J^T (P - e_y).
pub fn gradient(logits: &[f64], jacobian: &Dense, y: usize) -> Vec<f64> {
    let p = softmax(logits);
    let weight = |k: usize| p[k] - if k == y { 1.0 } else { 0.0 };
    (0..jacobian.columns).map(|i| (0..jacobian.rows).map(|k| weight(k) * jacobian.at(k, i)).sum()).collect()
}
