//! All filters against the float64 reference values of trained networks: whole inputs, layers, all
//! parameters, and maps.
//!
//! The files are next to the repository, in shared/golden. Without them the tests print that they
//! were skipped and check only the file in tests/golden.
#![allow(clippy::print_stdout, reason = "the differences from the reference are worth seeing")]

mod common;

use common::{Golden, golden_files};
use influence_manifold::{
    Baselines, Filter, Influence, RowPrecision, SampleObjective, Tangent, baselines, influence,
};

/// Tolerance of exact values: the files computed 1 - P by subtraction in float64, which leaves an
/// error of up to 3.5e-9.
const EXACT: f64 = 1e-8;
const PAPER: f64 = 1e-9;
const TIKHONOV: f64 = 1e-9;
const NORM: f64 = 1e-9;
const EXACT_SINGLE: f64 = 1e-4;
const TIKHONOV_SINGLE: f64 = 1e-5;
/// Tolerance of the values of layers, which are computed through Gram matrices in float64.
const LAYERS_PAPER: f64 = 5e-9;
const MAPS_EXACT: f64 = 1e-7;
const MAPS_PAPER: f64 = 1e-7;

/// Largest relative difference seen, by name.
#[derive(Default)]
struct Worst(std::collections::BTreeMap<String, f64>);

impl Worst {
    fn record(&mut self, name: &str, found: f64, expected: f64) {
        let scale = expected.abs().max(1e-300);
        let difference = if found == expected { 0.0 } else { (found - expected).abs() / scale };
        let entry = self.0.entry(name.to_owned()).or_default();
        *entry = entry.max(difference);
    }

    fn print(&self, file: &str) {
        for (name, difference) in &self.0 {
            println!("{file:32} {name:28} {difference:.2e}");
        }
    }

    fn check(&self, name: &str, tolerance: f64) {
        let difference = self.0.get(name).copied().unwrap_or(f64::INFINITY);
        assert!(difference <= tolerance, "{name}: {difference:e} > {tolerance:e}");
    }
}

fn run(logits: &[f64], tangent: &Tangent, objective: &SampleObjective, filter: &str) -> Influence {
    influence(logits, tangent, objective, &filter.parse().expect("filter")).expect("influence")
}

/// The K-1 rows J_k - J_K.
fn differences(rows: &[f64], classes: usize, columns: usize) -> Vec<f64> {
    let last = &rows[(classes - 1) * columns..];
    rows[..(classes - 1) * columns].iter().enumerate().map(|(i, v)| v - last[i % columns]).collect()
}

fn gram(rows: &[f64], columns: usize) -> Vec<f64> {
    let rows: Vec<&[f64]> = rows.chunks_exact(columns).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    rows.iter().flat_map(|a| rows.iter().map(move |b| dot(a, b))).collect()
}

#[test]
fn whole_inputs_meet_the_golden_values() {
    for (name, golden) in golden_files() {
        let mut worst = Worst::default();
        let classes = golden.shape("logits")[1];
        let columns = golden.values("jacobian_input").len() / golden.values("logits").len();
        for i in 0..golden.shape("logits")[0] {
            let rows = golden.sample("jacobian_input", i);
            let routes = [
                ("rows", Tangent::from_rows(rows, classes, columns).expect("tangent")),
                (
                    "differences",
                    Tangent::from_rows(&differences(rows, classes, columns), classes, columns)
                        .expect("tangent"),
                ),
                (
                    "gram",
                    Tangent::from_gram(&gram(rows, columns), classes, RowPrecision::F64).expect("tangent"),
                ),
            ];
            for (route, tangent) in routes {
                whole_input(&golden, i, route, &tangent, &mut worst);
            }
        }
        worst.print(&name);
        for route in ["rows", "differences", "gram"] {
            for quantity in ["paper", "paper_raw255", "paper_predicted"] {
                worst.check(&format!("{quantity} {route}"), PAPER);
            }
            worst.check(&format!("exact {route}"), EXACT);
            worst.check(&format!("tikhonov {route}"), TIKHONOV);
            worst.check(&format!("jacobian_norm {route}"), NORM);
        }
    }
}

fn whole_input(golden: &Golden, i: usize, route: &str, tangent: &Tangent, worst: &mut Worst) {
    let logits = golden.sample("logits", i);
    let objective = SampleObjective::class(golden.label(i));
    let exact = run(logits, tangent, &objective, "exact");
    worst.record(&format!("exact {route}"), exact.value, golden.values("fi_exact")[i]);
    assert_eq!(exact.rank as i64, golden.integers("rank_exact")[i]);
    assert!(!exact.ambiguous);
    let paper = run(logits, tangent, &objective, "paper");
    worst.record(&format!("paper {route}"), paper.value, golden.values("fi_paper")[i]);
    assert_eq!(paper.rank as i64, golden.integers("rank_paper")[i]);
    let raw = run(logits, tangent, &objective, "paper:1e-3:0.255");
    worst.record(&format!("paper_raw255 {route}"), raw.value, golden.values("fi_paper_raw255")[i]);
    assert_eq!(raw.rank as i64, golden.integers("rank_paper_raw255")[i]);
    let predicted = run(logits, tangent, &SampleObjective::Predicted, "paper");
    worst.record(
        &format!("paper_predicted {route}"),
        predicted.value,
        golden.values("fi_paper_predicted")[i],
    );
    for (j, filter) in ["tikhonov:1", "tikhonov:1e2", "tikhonov:1e4"].iter().enumerate() {
        let damped = run(logits, tangent, &objective, filter);
        worst.record(&format!("tikhonov {route}"), damped.value, golden.values("fi_tikhonov")[3 * i + j]);
        assert_eq!(damped.rank, exact.rank);
    }
    let Baselines { jacobian_norm, .. } = baselines(logits, tangent, &objective).expect("baselines");
    worst.record(
        &format!("jacobian_norm {route}"),
        jacobian_norm.expect("known"),
        golden.values("jacobian_norm")[i],
    );
}

/// Rows rounded to f32: exact and damped influence within `EXACT_SINGLE` and `TIKHONOV_SINGLE`,
/// equal ranks.
#[test]
fn rows_in_single_precision_meet_the_golden_values() {
    for (name, golden) in golden_files() {
        let mut worst = Worst::default();
        let classes = golden.shape("logits")[1];
        let columns = golden.values("jacobian_input").len() / golden.values("logits").len();
        for i in 0..golden.shape("logits")[0] {
            let rows: Vec<f32> =
                golden.sample("jacobian_input", i).iter().map(|value| *value as f32).collect();
            let tangent = Tangent::from_rows(&rows, classes, columns).expect("tangent");
            let (logits, objective) = (golden.sample("logits", i), SampleObjective::class(golden.label(i)));
            let exact = run(logits, &tangent, &objective, "exact");
            assert_eq!(exact.rank as i64, golden.integers("rank_exact")[i]);
            worst.record("exact f32", exact.value, golden.values("fi_exact")[i]);
            let damped = run(logits, &tangent, &objective, "tikhonov:100");
            worst.record("tikhonov:100 f32", damped.value, golden.values("fi_tikhonov")[3 * i + 1]);
        }
        worst.print(&name);
        worst.check("exact f32", EXACT_SINGLE);
        worst.check("tikhonov:100 f32", TIKHONOV_SINGLE);
    }
}

#[test]
fn layers_meet_the_golden_values() {
    for (name, golden) in golden_files() {
        let mut worst = Worst::default();
        let shape = golden.shape("gram_layers");
        let classes = shape[2];
        for i in 0..shape[0] {
            let logits = golden.sample("logits", i);
            let objective = SampleObjective::class(golden.label(i));
            let grams = golden.sample("gram_layers", i);
            let mut sum = vec![0.0; classes * classes];
            for (layer, gram) in grams.chunks_exact(classes * classes).enumerate() {
                sum.iter_mut().zip(gram).for_each(|(sum, value)| *sum += value);
                let tangent = Tangent::from_gram(gram, classes, RowPrecision::F64).expect("tangent");
                let exact = run(logits, &tangent, &objective, "exact");
                worst.record("layers exact", exact.value, golden.sample("fi_layers_exact", i)[layer]);
                let paper = run(logits, &tangent, &objective, "paper");
                let expected = golden.sample("fi_layers_paper", i)[layer];
                worst.record("layers paper", paper.value, expected);
            }
            // All parameters together, from the sum of the Gram matrices and by merging the
            // tangents.
            let tangent = Tangent::from_gram(&sum, classes, RowPrecision::F64).expect("tangent");
            let all = run(logits, &tangent, &objective, "paper");
            worst.record("all parameters paper", all.value, golden.values("fi_all_parameters_paper")[i]);
            let blocks: Vec<Tangent> = grams
                .chunks_exact(classes * classes)
                .map(|gram| Tangent::from_gram(gram, classes, RowPrecision::F64).expect("tangent"))
                .collect();
            let merged = run(logits, &Tangent::merged(&blocks).expect("merged"), &objective, "paper");
            worst.record("all parameters merged", merged.value, golden.values("fi_all_parameters_paper")[i]);
        }
        worst.print(&name);
        worst.check("layers exact", EXACT);
        for name in ["layers paper", "all parameters paper", "all parameters merged"] {
            worst.check(name, LAYERS_PAPER);
        }
    }
}

/// The columns of a K x C x H x W Jacobian in a window of half-width `s` around (y, x), clipped at
/// the border.
fn window(
    rows: &[f64],
    shape: &[usize],
    channels: std::ops::Range<usize>,
    at: (usize, usize),
    s: usize,
) -> Vec<f64> {
    let (c, h, w) = (shape[0], shape[1], shape[2]);
    let mut columns = Vec::new();
    for row in rows.chunks_exact(c * h * w) {
        for channel in channels.clone() {
            for y in at.0.saturating_sub(s)..(at.0 + s + 1).min(h) {
                for x in at.1.saturating_sub(s)..(at.1 + s + 1).min(w) {
                    columns.push(row[(channel * h + y) * w + x]);
                }
            }
        }
    }
    columns
}

#[test]
fn maps_meet_the_golden_values() {
    for (name, golden) in golden_files() {
        let mut worst = Worst::default();
        let shape = &golden.shape("jacobian_input")[2..];
        for i in 0..golden.shape("map_exact_joint_scale0")[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    map_point(&golden, i, (y, x), &mut worst);
                }
            }
        }
        worst.print(&name);
        for scale in 0..4 {
            worst.check(&format!("map_paper_scale{scale}"), MAPS_PAPER);
        }
        for scale in 0..2 {
            worst.check(&format!("map_exact_joint_scale{scale}"), MAPS_EXACT);
            worst.check(&format!("rank_map_exact_joint_scale{scale}"), 0.0);
        }
    }
}

fn map_point(golden: &Golden, i: usize, at: (usize, usize), worst: &mut Worst) {
    let classes = golden.shape("logits")[1];
    let shape = &golden.shape("jacobian_input")[2..];
    let (logits, rows) = (golden.sample("logits", i), golden.sample("jacobian_input", i));
    let (y, x) = at;
    let tangent = |channels, s| {
        let window = window(rows, shape, channels, at, s);
        Tangent::from_rows(&window, classes, window.len() / classes).expect("tangent")
    };
    for s in 0..2 {
        let name = format!("map_exact_joint_scale{s}");
        let exact =
            influence(logits, &tangent(0..shape[0], s), &SampleObjective::Predicted, &Filter::default())
                .expect("fi");
        let place = y * shape[2] + x;
        worst.record(&name, exact.value, golden.sample(&name, i)[place]);
        let rank = golden.sample_integers(&format!("rank_{name}"), i)[place];
        worst.record(&format!("rank_{name}"), exact.rank as f64, rank as f64);
        if exact.ambiguous {
            worst.record("ambiguous (differs from rank)", 1.0, 1.0 + 1.0);
        }
    }
    for s in 0..4 {
        let name = format!("map_paper_scale{s}");
        for channel in 0..shape[0] {
            let found = run(logits, &tangent(channel..channel + 1, s), &SampleObjective::Predicted, "paper");
            worst.record(
                &name,
                found.value,
                golden.sample(&name, i)[(channel * shape[1] + y) * shape[2] + x],
            );
        }
    }
}
