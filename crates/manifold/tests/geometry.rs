//! Invariances of the measure: reparameterised omega, relabelled and split classes, shifted logits.

mod common;

use common::{Dense, Random, assert_close, close, fisher, run, tangent};
use influence_manifold::{Filter, Influence, RowPrecision, SampleObjective, Tangent, influence};
use proptest::prelude::*;

const CLASSES: usize = 6;
const COLUMNS: usize = 8;
/// Tolerance of values from rows in float64, whose condition is up to 1e4 times that of the planted
/// Jacobian.
const ROWS: f64 = 1e-8;
/// Tolerance of values through a Gram matrix at condition 1e4.
const GRAM: f64 = 1e-5;
/// Tolerance of values from central differences of a nonlinear map.
const DIFFERENCES: f64 = 1e-6;
const CASES: u32 = 48;

/// Logits, a planted Jacobian, and a class.
struct Sample {
    logits: Vec<f64>,
    jacobian: Dense,
    y: usize,
}

impl Sample {
    fn new(random: &mut Random, rank: usize) -> Self {
        let logits = random.vector(CLASSES, 6.0);
        Self { logits, jacobian: random.planted(CLASSES, COLUMNS, rank), y: random.below(CLASSES) }
    }

    fn influence(&self, filter: &str) -> Influence {
        run(&self.logits, &tangent(&self.jacobian), self.y, filter)
    }

    /// This sample in other coordinates of omega.
    fn moved(&self, jacobian: Dense) -> Self {
        Self { logits: self.logits.clone(), jacobian, y: self.y }
    }

    /// Condition of the Jacobian on its rank.
    fn condition(&self) -> f64 {
        let tangent = tangent(&self.jacobian);
        let rank = self.influence("exact").rank;
        tangent.singular_values()[0] / tangent.singular_values()[rank - 1]
    }
}

fn seeds() -> impl Strategy<Value = (u64, usize)> {
    (any::<u64>(), 1..CLASSES)
}

proptest! {
    #![proptest_config(common::cases(CASES))]

    #[test]
    fn linear_maps_of_omega_change_nothing((seed, rank) in seeds(), exponent in 0.0..4.0_f64) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 30.0);
        let map = random.conditioned(COLUMNS, 10_f64.powf(exponent));
        let moved = sample.moved(sample.jacobian.times(&map));
        let (before, after) = (sample.influence("exact"), moved.influence("exact"));
        prop_assert_eq!(before.rank, after.rank);
        prop_assert!(close(before.value, after.value, ROWS), "{} {}", before.value, after.value);
        let gram = Tangent::from_gram(&moved.jacobian.gram().values, CLASSES, RowPrecision::F64).expect("tangent");
        let through = run(&sample.logits, &gram, sample.y, "exact");
        prop_assert_eq!(before.rank, through.rank);
        prop_assert!(close(before.value, through.value, GRAM), "{} {}", before.value, through.value);
    }

    #[test]
    fn units_order_and_unused_coordinates_change_nothing((seed, rank) in seeds()) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 1e3);
        let before = sample.influence("exact");
        let order = random.permutation(COLUMNS);
        let scaled = Dense::from_fn(CLASSES, COLUMNS, |k, i| sample.jacobian.at(k, i) / 255.0);
        let padded = Dense::from_fn(CLASSES, COLUMNS + 5, |k, i| if i < COLUMNS { sample.jacobian.at(k, i) } else { 0.0 });
        for jacobian in [scaled, sample.jacobian.select(&order), padded] {
            let after = sample.moved(jacobian).influence("exact");
            prop_assert_eq!(before.rank, after.rank);
            prop_assert!(close(before.value, after.value, ROWS));
        }
    }

    #[test]
    fn differences_of_logits_are_enough((seed, rank) in seeds()) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 1e3);
        let rows = sample.jacobian.differences();
        let short = Tangent::from_rows(&rows.values, CLASSES, COLUMNS).expect("tangent");
        let gram = Tangent::from_gram(&rows.gram().values, CLASSES, RowPrecision::F64).expect("tangent");
        for filter in ["exact", "paper", "tikhonov:0.1"] {
            let before = sample.influence(filter);
            let after = run(&sample.logits, &short, sample.y, filter);
            prop_assert!(close(before.value, after.value, ROWS));
            prop_assert!(close(before.value, run(&sample.logits, &gram, sample.y, filter).value, GRAM));
            let (long, short) = (before.direction(&sample.jacobian.values, COLUMNS), after.direction(&rows.values, COLUMNS));
            let (long, short) = (long.expect("direction"), short.expect("direction"));
            let scale = long.iter().fold(0.0_f64, |scale, x| scale.max(x.abs()));
            prop_assert!(long.iter().zip(&short).all(|(x, y)| (x - y).abs() <= ROWS * scale));
        }
    }

    #[test]
    fn names_of_classes_and_a_common_shift_change_nothing((seed, rank) in seeds(), shift in -500.0..500.0_f64) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 1e3);
        let order = random.permutation(CLASSES);
        let renamed = Sample {
            logits: order.iter().map(|k| sample.logits[*k] + shift).collect(),
            jacobian: sample.jacobian.select_rows(&order),
            y: order.iter().position(|k| *k == sample.y).expect("a class"),
        };
        for filter in ["exact", "paper", "tikhonov:0.1"] {
            let (before, after) = (sample.influence(filter), renamed.influence(filter));
            prop_assert_eq!(before.rank, after.rank);
            prop_assert!(close(before.value, after.value, ROWS));
            prop_assert!(close(before.bound, after.bound, ROWS));
        }
    }

    #[test]
    fn a_class_split_in_two_changes_nothing((seed, rank) in seeds()) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 1e3);
        let split = (sample.y + 1 + random.below(CLASSES - 1)) % CLASSES;
        let mut order: Vec<usize> = (0..CLASSES).collect();
        order.push(split);
        let mut logits: Vec<f64> = order.iter().map(|k| sample.logits[*k]).collect();
        logits[split] -= std::f64::consts::LN_2;
        logits[CLASSES] -= std::f64::consts::LN_2;
        let halves = Sample { logits, jacobian: sample.jacobian.select_rows(&order), y: sample.y };
        let (whole, parts) = (fisher(&sample.logits, &sample.jacobian), fisher(&halves.logits, &halves.jacobian));
        let scale = whole.values.iter().fold(0.0_f64, |scale, x| scale.max(x.abs()));
        prop_assert!(whole.values.iter().zip(&parts.values).all(|(x, y)| (x - y).abs() <= ROWS * scale));
        for filter in ["exact", "tikhonov:0.1"] {
            let (before, after) = (sample.influence(filter), halves.influence(filter));
            prop_assert_eq!(before.rank, after.rank);
            prop_assert!(close(before.value, after.value, ROWS), "{} {}", before.value, after.value);
            prop_assert!(close(before.bound, after.bound, ROWS));
        }
    }

    #[test]
    fn a_vanishing_class_leaves_the_measure_of_the_others((seed, _) in seeds(), rank in 1..CLASSES - 2) {
        let mut random = Random(seed);
        let sample = Sample::new(&mut random, rank);
        prop_assume!(sample.condition() < 30.0);
        let gone = (sample.y + 1) % CLASSES;
        let rest: Vec<usize> = (0..CLASSES).filter(|k| *k != gone).collect();
        let without = Sample {
            logits: rest.iter().map(|k| sample.logits[*k]).collect(),
            jacobian: sample.jacobian.select_rows(&rest),
            y: rest.iter().position(|k| *k == sample.y).expect("a class"),
        };
        prop_assume!(without.condition() < 1e3);
        let expected = without.influence("exact").value;
        for depth in [100.0, 400.0, 1000.0, 1e5, 1e100] {
            let mut logits = sample.logits.clone();
            logits[gone] = -depth;
            let found = Sample { logits, jacobian: sample.jacobian.clone(), y: sample.y }.influence("exact");
            prop_assert!(close(found.value, expected, ROWS), "{} {expected}", found.value);
        }
    }
}

/// z(omega) = V tanh(U omega + b), a smooth model.
struct Model {
    inner: Dense,
    bias: Vec<f64>,
    outer: Dense,
}

impl Model {
    fn logits(&self, omega: &[f64]) -> Vec<f64> {
        let hidden: Vec<f64> =
            self.inner.apply(omega).iter().zip(&self.bias).map(|(x, b)| (x + b).tanh()).collect();
        self.outer.apply(&hidden)
    }

    fn jacobian(&self) -> Dense {
        let slopes: Vec<f64> = self.bias.iter().map(|b| 1.0 - b.tanh().powi(2)).collect();
        let scaled =
            Dense::from_fn(self.inner.rows, self.inner.columns, |i, j| slopes[i] * self.inner.at(i, j));
        self.outer.times(&scaled)
    }
}

#[test]
fn nonlinear_maps_of_omega_change_nothing() {
    let mut random = Random(11);
    for rank in 1..=4 {
        let model = Model {
            inner: random.matrix(rank, COLUMNS),
            bias: random.vector(rank, 1.0),
            outer: random.matrix(CLASSES, rank),
        };
        let (map, bend) = (random.conditioned(COLUMNS, 20.0), random.matrix(COLUMNS, COLUMNS));
        // omega(nu) = M (nu + 0.3 sin(B nu)): invertible near 0, where omega = 0.
        let moved = |nu: &[f64]| {
            let bent = bend.apply(nu);
            let sum: Vec<f64> = nu.iter().zip(&bent).map(|(x, b)| x + 0.3 * b.sin()).collect();
            model.logits(&map.apply(&sum))
        };
        let step = 1e-4;
        let column = |i: usize| {
            let at =
                |size: f64| moved(&(0..COLUMNS).map(|j| if j == i { size } else { 0.0 }).collect::<Vec<_>>());
            let (up, down) = (at(step), at(-step));
            up.iter().zip(&down).map(|(u, d)| (u - d) / (2.0 * step)).collect::<Vec<f64>>()
        };
        let columns: Vec<Vec<f64>> = (0..COLUMNS).map(column).collect();
        let jacobian = Dense::from_fn(CLASSES, COLUMNS, |k, i| columns[i][k]);
        let logits = model.logits(&[0.0; COLUMNS]);
        let before = run(&logits, &tangent(&model.jacobian()), 2, "exact");
        let after = run(&logits, &tangent(&jacobian), 2, "exact:1e-4");
        assert_eq!(before.rank, after.rank);
        assert_close(before.value, after.value, DIFFERENCES);
    }
}

#[test]
fn blocks_add_up() {
    let mut random = Random(5);
    let (a, b) = (random.planted(CLASSES, 5, 2), random.planted(CLASSES, 7, 1));
    let side_by_side = Dense::from_fn(CLASSES, 12, |k, i| if i < 5 { a.at(k, i) } else { b.at(k, i - 5) });
    let logits = random.vector(CLASSES, 6.0);
    let gram = |m: &Dense| Tangent::from_gram(&m.gram().values, CLASSES, RowPrecision::F64).expect("tangent");
    for filter in ["exact", "paper", "tikhonov:0.3"] {
        let whole = run(&logits, &tangent(&side_by_side), 0, filter);
        let rows = Tangent::merged(&[tangent(&a), tangent(&b)]).expect("merged");
        let grams = Tangent::merged(&[gram(&a), gram(&b)]).expect("merged");
        let mixed = Tangent::merged(&[tangent(&a), gram(&b)]).expect("merged");
        assert_close(whole.value, run(&logits, &rows, 0, filter).value, ROWS);
        assert_close(whole.value, run(&logits, &grams, 0, filter).value, GRAM);
        assert_close(whole.value, run(&logits, &mixed, 0, filter).value, GRAM);
        assert_eq!(whole.rank, run(&logits, &mixed, 0, filter).rank);
    }
}

#[test]
fn the_predicted_class_is_the_lowest_of_the_likeliest() {
    let mut random = Random(7);
    let jacobian = random.planted(4, 5, 2);
    let logits = [1.0, 3.0, 3.0, 0.0];
    let found = influence(&logits, &tangent(&jacobian), &SampleObjective::Predicted, &Filter::default())
        .expect("influence");
    assert_eq!(found, run(&logits, &tangent(&jacobian), 1, "exact"));
}
