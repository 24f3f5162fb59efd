//! Planted ranks and logit gaps of 0 to 600 against multi-precision reference values
//! (tests/reference/make.py).
#![allow(clippy::print_stdout, reason = "the differences from the reference are worth seeing")]

use std::collections::BTreeMap;

use influence_manifold::{
    Filter, Probabilities, RowPrecision, SampleObjective, Tangent, baselines, influence,
};

const REFERENCE: &str = include_str!("reference/planted.csv");
/// Tolerance of log10 of the influence: its relative error divided by ln 10.
const LOG10: f64 = 1e-10;
const VALUE: f64 = 1e-10;
const TIKHONOV: f64 = 1e-10;
const PAPER: f64 = 1e-9;
/// Tolerances of values not marked ambiguous: six digits from a Gram matrix in f64, three from rows
/// in f32.
const GRAM: f64 = 1e-6;
const SINGLE: f64 = 1e-3;
const NORM: f64 = 1e-11;
const PROBABILITY: f64 = 1e-12;
const SPECTRUM: f64 = 1e-12;
/// Tolerance of the direction, relative to its length.
const DIRECTION: f64 = 1e-9;

/// An exact Jacobian of known rank.
struct Planted {
    classes: usize,
    columns: usize,
    rank: usize,
    rows: Vec<f64>,
}

/// Reference values of one sample.
struct Case {
    name: String,
    y: usize,
    logits: Vec<f64>,
    values: BTreeMap<String, String>,
}

impl Case {
    fn value(&self, key: &str) -> f64 {
        self.values[key].parse().unwrap_or_else(|_| panic!("{}: {key}", self.name))
    }
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Vec<f64> {
    words.map(|word| word.parse().expect("a number")).collect()
}

/// All cases with their Jacobians.
fn cases() -> Vec<(Case, std::rc::Rc<Planted>)> {
    let mut matrices = BTreeMap::new();
    let mut cases = Vec::new();
    for line in REFERENCE.lines() {
        let mut parts = line.split(';');
        let mut head = parts.next().unwrap_or_default().split(',');
        let kind = head.next();
        let mut take = || head.next().expect("a field");
        if kind == Some("matrix") {
            let name = take();
            let size = [take(), take(), take()].map(|word| word.parse::<usize>().expect("a size"));
            let [classes, columns, rank] = size;
            let planted = Planted { classes, columns, rank, rows: numbers(head) };
            matrices.insert(name, std::rc::Rc::new(planted));
        } else {
            let [matrix, position, gap, y] = [take(), take(), take(), take()];
            let values =
                parts.filter_map(|part| part.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
            let name = format!("{matrix} {position} gap {gap}");
            let y = y.parse().expect("a class");
            cases.push((
                Case { name, y, logits: numbers(head), values: values.collect() },
                matrices[matrix].clone(),
            ));
        }
    }
    cases
}

/// The worst relative difference of each quantity, checked at the end so that all are seen.
#[derive(Default)]
struct Worst(BTreeMap<&'static str, (f64, String, f64)>);

impl Worst {
    fn record(&mut self, quantity: &'static str, case: &Case, found: f64, expected: f64, tolerance: f64) {
        let scale = expected.abs().max(f64::MIN_POSITIVE);
        let difference = if found == expected { 0.0 } else { (found - expected).abs() / scale };
        self.absolute(quantity, case, difference, tolerance);
    }

    fn absolute(&mut self, quantity: &'static str, case: &Case, difference: f64, tolerance: f64) {
        let entry = self.0.entry(quantity).or_insert((0.0, String::new(), tolerance));
        if difference > entry.0 || difference.is_nan() {
            *entry = (difference, case.name.clone(), tolerance);
        }
    }

    fn check(&self) {
        for (quantity, (difference, name, _)) in &self.0 {
            println!("{quantity:16} {difference:.2e} at {name}");
        }
        for (quantity, (difference, name, tolerance)) in &self.0 {
            assert!(difference <= tolerance, "{quantity} differs by {difference:e} at {name}");
        }
    }
}

#[test]
fn exact_influence_meets_the_multi_precision_values() {
    let mut worst = Worst::default();
    for (case, planted) in cases() {
        let tangent = Tangent::from_rows(&planted.rows, planted.classes, planted.columns).expect("tangent");
        let found = influence(&case.logits, &tangent, &SampleObjective::class(case.y), &Filter::default())
            .expect("influence");
        assert_eq!(found.rank, planted.rank, "{}", case.name);
        assert!(!found.ambiguous, "{}", case.name);
        worst.record("exact", &case, found.value, case.value("exact"), VALUE);
        let log10 = found.log10.expect("an influence above 0");
        worst.absolute("log10", &case, (log10 - case.value("log10")).abs(), LOG10);
        worst.record("bound", &case, found.bound, case.value("bound"), PROBABILITY);
        worst.record("reach", &case, found.reach, case.value("exact") / case.value("bound"), VALUE);
        let expected = numbers(case.values["h"].split(' '));
        let direction = found.direction(&planted.rows, planted.columns).expect("direction");
        worst.absolute("direction", &case, relative_distance(&direction, &expected), DIRECTION);
    }
    worst.check();
}

/// |a - b| / |b|, computed without overflow.
fn relative_distance(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0_f64, f64::hypot);
    norm(&mut a.iter().zip(b).map(|(x, y)| x - y)) / norm(&mut b.iter().copied())
}

/// Gram matrices and rows in single precision: every value is accurate to its tolerance or marked
/// ambiguous.
#[test]
fn lesser_data_are_right_or_ambiguous() {
    let mut worst = Worst::default();
    let mut clear = [0; 2];
    for (case, planted) in cases() {
        let (classes, columns) = (planted.classes, planted.columns);
        let rows: Vec<&[f64]> = planted.rows.chunks_exact(columns).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let gram: Vec<f64> = rows.iter().flat_map(|a| rows.iter().map(|b| dot(a, b))).collect();
        // Divided by three, so that every entry is rounded in f32.
        let single: Vec<f32> = planted.rows.iter().map(|value| (*value / 3.0) as f32).collect();
        let routes = [
            ("gram", Tangent::from_gram(&gram, classes, RowPrecision::F64), GRAM),
            ("single", Tangent::from_rows(&single, classes, columns), SINGLE),
        ];
        for (i, (name, tangent, tolerance)) in routes.into_iter().enumerate() {
            let tangent = tangent.expect("tangent");
            let found =
                influence(&case.logits, &tangent, &SampleObjective::class(case.y), &Filter::default());
            let found = found.expect("influence");
            if !found.ambiguous {
                clear[i] += 1;
                assert_eq!(found.rank, planted.rank, "{} {name}", case.name);
                worst.record(name, &case, found.value, case.value("exact"), tolerance);
            }
        }
    }
    println!("{} and {} of {} clear", clear[0], clear[1], cases().len());
    worst.check();
    assert!(clear.iter().all(|count| 2 * count > cases().len()));
}

#[test]
fn damped_influence_meets_the_multi_precision_values() {
    let mut worst = Worst::default();
    for (case, planted) in cases() {
        let tangent = Tangent::from_rows(&planted.rows, planted.classes, planted.columns).expect("tangent");
        for filter in ["tikhonov:1e-6", "tikhonov:1", "tikhonov:1e3"] {
            let parsed = filter.parse().expect("filter");
            let found = influence(&case.logits, &tangent, &SampleObjective::class(case.y), &parsed)
                .expect("influence");
            assert_eq!(found.rank, planted.rank, "{}", case.name);
            assert!(!found.ambiguous, "{}", case.name);
            worst.record("tikhonov", &case, found.value, case.value(filter), TIKHONOV);
        }
    }
    worst.check();
}

#[test]
fn the_authors_numerics_meet_the_multi_precision_values() {
    let mut worst = Worst::default();
    for (case, planted) in cases() {
        let tangent = Tangent::from_rows(&planted.rows, planted.classes, planted.columns).expect("tangent");
        for filter in ["paper:1e-3:1e-3", "paper:1e-3:0.255", "paper:1e-8:1e-8"] {
            let Some(text) = case.values.get(filter) else { continue };
            let (value, rank) = text.split_once(' ').expect("value and rank");
            let parsed = filter.parse().expect("filter");
            let found = influence(&case.logits, &tangent, &SampleObjective::class(case.y), &parsed)
                .expect("influence");
            assert_eq!(found.rank.to_string(), rank, "{} {filter}", case.name);
            worst.record("paper", &case, found.value, value.parse().expect("a number"), PAPER);
        }
    }
    worst.check();
}

#[test]
fn other_objectives_meet_the_multi_precision_values() {
    let mut worst = Worst::default();
    for (case, planted) in cases() {
        let tangent = Tangent::from_rows(&planted.rows, planted.classes, planted.columns).expect("tangent");
        let costs: Vec<f64> = (0..planted.classes).map(|k| ((7 * k + 3) % 11) as f64 / 4.0).collect();
        for (name, objective) in [
            ("entropy", SampleObjective::Entropy),
            ("margin", SampleObjective::Margin),
            ("margin_y", SampleObjective::margin_of(case.y)),
            ("cost", SampleObjective::expected_cost(costs).expect("costs")),
        ] {
            let value = |key: &str| case.value(&format!("{name}_{key}"));
            let run = |filter: &str| {
                influence(&case.logits, &tangent, &objective, &filter.parse().expect("filter"))
            };
            let exact = run("exact").expect("influence");
            assert!(
                exact.rank == planted.rank && !exact.ambiguous && exact.outside == 0.0,
                "{} {name}",
                case.name
            );
            assert!(exact.reach <= 1.0, "{} {name}", case.name);
            worst.record(name, &case, exact.value, value("exact"), VALUE);
            worst.record("bound", &case, exact.bound, value("bound"), PROBABILITY);
            let damped = run("tikhonov:1").expect("influence");
            worst.record("tikhonov", &case, damped.value, value("tikhonov"), TIKHONOV);
            let norm = baselines(&case.logits, &tangent, &objective)
                .expect("baselines")
                .jacobian_norm
                .expect("known");
            worst.record("jacobian norm", &case, norm, value("norm"), NORM);
        }
    }
    worst.check();
}

#[test]
fn baselines_meet_the_multi_precision_values() {
    let mut worst = Worst::default();
    for (case, planted) in cases() {
        let tangent = Tangent::from_rows(&planted.rows, planted.classes, planted.columns).expect("tangent");
        let found = baselines(&case.logits, &tangent, &SampleObjective::class(case.y)).expect("baselines");
        worst.record("jacobian norm", &case, found.jacobian_norm.expect("known"), case.value("norm"), NORM);
        worst.record("odds", &case, found.odds, case.value("bound"), PROBABILITY);
        worst.record("entropy", &case, found.entropy, case.value("entropy"), PROBABILITY);
        worst.record("cross-entropy", &case, found.cross_entropy, case.value("cross_entropy"), PROBABILITY);
        if case.values.contains_key("fisher_norm") {
            worst.record(
                "fisher norm",
                &case,
                found.fisher_norm.expect("known"),
                case.value("fisher_norm"),
                SPECTRUM,
            );
            worst.record(
                "fisher trace",
                &case,
                found.fisher_trace.expect("known"),
                case.value("fisher_trace"),
                SPECTRUM,
            );
        }
        let probabilities = Probabilities::new(&case.logits).expect("probabilities");
        let total: f64 = probabilities.values().iter().sum();
        worst.absolute("sum of P", &case, (total - 1.0).abs(), PROBABILITY);
    }
    worst.check();
}
