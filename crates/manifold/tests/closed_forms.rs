//! Values known in closed form: the bound, two classes, one direction, a linear model, and logits
//! beyond the range of f64.

mod common;

use common::{
    Dense, Random, assert_close, close, fisher, gradient, pseudo_inverse_quadratic, run, softmax, tangent,
};
use influence_manifold::{Probabilities, RowPrecision, SampleObjective, Tangent, baselines};
use proptest::prelude::*;

const CLOSED: f64 = 1e-10;
const ROUNDING: f64 = 1e-13;
/// Tolerance against the dense pseudo-inverse, which squares the condition.
const DENSE: f64 = 1e-7;
const LN_10: f64 = std::f64::consts::LN_10;

#[test]
fn bounds_have_the_check_values() {
    let probabilities = Probabilities::new(&[800.0, 810.0, 0.0]).expect("probabilities");
    for (y, expected) in [(1, -10.0), (0, 10.0), (2, 810.000_045_398_899_2)] {
        assert_close(probabilities.log_odds_against(y).expect("class"), expected, 1e-14);
    }
    let jacobian = Dense::new(2, 1, vec![1.0, 0.0]);
    let found = run(&[40.0, 0.0], &tangent(&jacobian), 0, "exact");
    assert_close(found.value, 4.248_354_255_291_589e-18, ROUNDING);
    assert_eq!(found.reach, 1.0);
}

#[test]
fn values_beyond_f64_come_with_their_logarithm() {
    let tangent = tangent(&Dense::new(3, 2, vec![1.0, 0.5, 0.0, -1.0, 2.0, 0.25]));
    let found = run(&[800.0, 810.0, 0.0], &tangent, 2, "exact");
    assert_eq!((found.value, found.bound, found.reach), (f64::INFINITY, f64::INFINITY, 1.0));
    assert_close(found.log10.expect("above 0"), 810.000_045_398_899_2 / LN_10, ROUNDING);
    let tiny = run(&[0.0, 900.0, 10.0], &tangent, 1, "exact");
    assert_eq!((tiny.value, tiny.rank), (0.0, 2));
    assert_close(tiny.log10.expect("above 0"), -889.999_954_601_100_8 / LN_10, 1e-12);
    assert!(tiny.coefficients.iter().all(|c| c.is_finite()) && tiny.coefficients_log_scale == 0.0);
    assert!(found.coefficients.iter().all(|c| c.abs() <= 1.0) && found.coefficients_log_scale > 800.0);
}

/// One direction a: FI = (a . dh)^2 / (a^T (diag P - P P^T) a), at logit gaps at which plain
/// probabilities underflow.
#[test]
fn one_direction_by_hand_at_any_gap() {
    let a = [0.5, -0.25, 1.5];
    let tangent = tangent(&Dense::new(3, 1, a.to_vec()));
    for gap in [50.0, 800.0, 2_000.0, 1e6] {
        // P_0 = 1; class y = 2 is negligible, and the variance is that of class 1.
        let least = run(&[0.0, -gap, -2.5 * gap], &tangent, 2, "exact");
        let expected = gap / LN_10 + 2.0 * ((a[0] - a[2]) / (a[0] - a[1])).abs().log10();
        assert_close(least.log10.expect("above 0"), expected, ROUNDING);
        // y = 0: both are of the order of P_1.
        let top = run(&[0.0, -gap, -2.5 * gap], &tangent, 0, "exact");
        assert_close(top.log10.expect("above 0"), -gap / LN_10, ROUNDING);
        assert_close(top.reach, 1.0, CLOSED);
        assert!(least.reach < 1e-20 && !least.ambiguous && !top.ambiguous);
        // lambda far above the spectrum: lambda FI = |df|^2.
        let damped = run(&[0.0, -gap, -2.5 * gap], &tangent, 2, "tikhonov:1e8");
        assert_close(damped.value * 1e8, 1.0, 1e-7);
        let paper = run(&[0.0, -gap, -2.5 * gap], &tangent, 0, "paper");
        assert!(paper.value == 0.0 && paper.rank == 0 && paper.log10.is_none());
    }
}

#[test]
fn two_classes_by_hand() {
    for (logits, y) in [([0.3, -1.2], 0), ([0.3, -1.2], 1), ([-20.0, 15.0], 0)] {
        let expected = (f64::exp(logits[1 - y] - logits[y])).abs();
        for row in [vec![1.0, 2.0, 0.0, 1.0], vec![0.0, 1e-9, 0.0, 0.0]] {
            let found = run(&logits, &tangent(&Dense::new(2, 2, row)), y, "exact");
            assert_close(found.value, expected, ROUNDING);
            assert_eq!(found.rank, 1);
        }
        // Both logits move together: the probabilities do not change.
        let found = run(&logits, &tangent(&Dense::new(2, 2, vec![0.7, 0.1, 0.7, 0.1])), y, "exact");
        assert_eq!((found.value, found.rank, found.reach, found.log10), (0.0, 0, 0.0, None));
    }
}

#[test]
fn nothing_moves_where_the_jacobian_is_zero() {
    let flat = Dense::new(4, 3, vec![0.0; 12]);
    let gram = Tangent::from_gram(&[0.0; 16], 4, RowPrecision::F64).expect("tangent");
    for tangent in [tangent(&flat), gram] {
        for filter in ["exact", "paper", "tikhonov:1"] {
            let found = run(&[1.0, 2.0, 3.0, 4.0], &tangent, 0, filter);
            assert_eq!((found.value, found.log10, found.rank, found.reach), (0.0, None, 0, 0.0), "{filter}");
            assert!(!found.ambiguous && found.spectrum == [0.0; 4] && found.coefficients == [0.0; 4]);
        }
        let measures =
            baselines(&[1.0, 2.0, 3.0, 4.0], &tangent, &SampleObjective::Predicted).expect("baselines");
        assert_eq!(
            (measures.jacobian_norm, measures.fisher_norm, measures.fisher_trace),
            (Some(0.0), Some(0.0), Some(0.0))
        );
    }
}

#[test]
fn baselines_have_their_plain_values() {
    let (logits, y) = ([0.5, -1.0, 2.0, 0.25], 0);
    let mut random = Random(3);
    let jacobian = random.planted(4, 6, 2);
    let found = baselines(&logits, &tangent(&jacobian), &SampleObjective::class(y)).expect("baselines");
    let p = softmax(&logits);
    let norm = gradient(&logits, &jacobian, y).iter().map(|x| x * x).sum::<f64>().sqrt();
    let (eigenvalues, _) = fisher(&logits, &jacobian).eigen();
    assert_close(found.jacobian_norm.expect("known"), norm, ROUNDING);
    assert_close(found.odds, 1.0 / p[y] - 1.0, ROUNDING);
    assert_close(found.entropy, -p.iter().map(|p| p * p.ln()).sum::<f64>(), ROUNDING);
    assert_close(found.margin, -1.5, ROUNDING);
    assert_close(found.cross_entropy, -p[y].ln(), ROUNDING);
    assert_close(found.fisher_norm.expect("known"), eigenvalues.iter().copied().fold(0.0, f64::max), 1e-12);
    assert_close(found.fisher_trace.expect("known"), eigenvalues.iter().sum(), 1e-12);
    let predicted = baselines(&logits, &tangent(&jacobian), &SampleObjective::Predicted).expect("baselines");
    assert_close(predicted.margin, 1.5, ROUNDING);
}

#[test]
fn damping_lies_between_the_influence_and_the_gradient() {
    let mut random = Random(23);
    let jacobian = random.planted(5, 7, 3);
    let (logits, tangent) = (random.vector(5, 3.0), tangent(&jacobian));
    let exact = run(&logits, &tangent, 1, "exact").value;
    let norm = baselines(&logits, &tangent, &SampleObjective::class(1))
        .expect("baselines")
        .jacobian_norm
        .expect("known");
    assert_close(run(&logits, &tangent, 1, "tikhonov:1e-14").value, exact, CLOSED);
    assert_close(run(&logits, &tangent, 1, "tikhonov:1e14").value * 1e14, norm * norm, CLOSED);
    let steps: Vec<f64> =
        (-8..8).map(|power| run(&logits, &tangent, 1, &format!("tikhonov:1e{power}")).value).collect();
    assert!(steps.windows(2).all(|pair| pair[0] > pair[1]) && steps[0] < exact);
}

/// The value of a family of q directions depends only on their span, not on their lengths.
#[test]
fn small_families_are_free_of_scale() {
    let mut random = Random(29);
    let (jacobian, basis) = (random.matrix(10, 20), random.matrix(20, 4));
    let logits = random.vector(10, 4.0);
    let family = jacobian.times(&basis);
    let sizes = [1e-1, 5.0, 1e3, 0.3];
    let scaled = Dense::from_fn(10, 4, |k, i| family.at(k, i) * sizes[i]);
    let (before, after) =
        (run(&logits, &tangent(&family), 3, "exact"), run(&logits, &tangent(&scaled), 3, "exact"));
    assert_eq!((before.rank, after.rank), (4, 4));
    assert_close(before.value, after.value, 1e-8);
    assert!(before.reach < 1.0);
}

proptest! {
    #![proptest_config(common::cases(48))]

    /// z = W x: J = W whatever x is; at rank K-1 the influence is (1 - P_y) / P_y.
    #[test]
    fn linear_softmax_models_are_saturated(seed in any::<u64>(), classes in 2..12_usize) {
        let mut random = Random(seed);
        let weights = random.matrix(classes, classes + 3);
        let logits = weights.apply(&random.vector(classes + 3, 8.0));
        let y = random.below(classes);
        let found = run(&logits, &tangent(&weights), y, "exact");
        prop_assume!(!found.ambiguous);
        prop_assert_eq!(found.rank, classes - 1);
        let p = softmax(&logits);
        let others: f64 = (0..classes).filter(|k| *k != y).map(|k| p[k]).sum();
        prop_assert!(close(found.value, others / p[y], CLOSED));
        prop_assert_eq!(found.reach, 1.0);
    }

    #[test]
    fn planted_ranks_meet_the_dense_pseudo_inverse(seed in any::<u64>(), rank in 1..6_usize) {
        let mut random = Random(seed);
        let jacobian = random.planted(7, 8, rank);
        let logits = random.vector(7, 3.0);
        let y = random.below(7);
        let tangent = tangent(&jacobian);
        let singular = tangent.singular_values();
        prop_assume!(singular[0] < 30.0 * singular[rank - 1]);
        let found = run(&logits, &tangent, y, "exact");
        let df = gradient(&logits, &jacobian, y);
        let expected = pseudo_inverse_quadratic(&fisher(&logits, &jacobian), &df, 1e-11);
        prop_assert_eq!(found.rank, rank);
        prop_assert!(close(found.value, expected, DENSE), "{} {}", found.value, expected);
        prop_assert!(found.value <= found.bound);
    }
}
