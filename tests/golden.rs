//! End-to-end tests, from weights and images to scores, against float64 reference values computed
//! with PyTorch.
//!
//! Tolerances are those that the project promises; docs/numerics.md explains where they come from.

#![expect(clippy::print_stdout, reason = "the differences found are worth reading")]

mod common;

use burn::tensor::{Device, TensorData};
use common::{GoldenCase, cases};
use influence::{Engine, Filter, Linearization, Precision, SampleObjective, Score, Scorer};
use influence_autodiff::{Graph, Leaves, Options, Rows};
use influence_zoo::Network;

/// Our own kernels, and Burn's on the CPU.
const ENGINES: [Engine; 2] = [Engine::Cpu(None), Engine::Burn];

/// Every case on every engine.
fn runs() -> Vec<(GoldenCase, Engine)> {
    ENGINES.into_iter().flat_map(|engine| cases().into_iter().map(move |case| (case, engine))).collect()
}

/// The network of a case, compiled for scoring.
fn scorer(case: &GoldenCase, engine: Engine, precision: Precision) -> Scorer {
    let device = Device::flex();
    let network = case.network(precision);
    let scorer = Scorer::builder().engine(engine).precision(precision).device(&device);
    scorer.compile(&network, Network::forward, &case.golden.image_shape()).unwrap()
}

/// Every image of a case linearised once, for all filters.
fn linearizations<'a>(case: &GoldenCase, scorer: &'a Scorer) -> Vec<Linearization<'a>> {
    scorer.linearize(images(case)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The scores for the labels, or for the predicted classes if there are no labels.
fn scores(at: &[Linearization<'_>], labels: Option<&[usize]>, filter: &str) -> Vec<Score> {
    let filter: Filter = filter.parse().unwrap();
    let objective = |at: &Linearization<'_>| match labels {
        Some(labels) => SampleObjective::class(labels[at.sample()]),
        None => SampleObjective::Predicted,
    };
    at.iter().map(|at| at.score(&objective(at), &filter).unwrap()).collect()
}

fn images(case: &GoldenCase) -> TensorData {
    TensorData::new(case.golden.images(), case.golden.shape("images"))
}

fn values(scores: &[Score]) -> Vec<f64> {
    scores.iter().map(|score| score.value).collect()
}

fn ranks(scores: &[Score]) -> Vec<usize> {
    scores.iter().map(|score| score.rank).collect()
}

/// The largest relative difference; for a reference of 0, the computed value itself.
fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let relative = |(&a, &b): (&f64, &f64)| (a - b).abs() / if b == 0.0 { 1.0 } else { b.abs() };
    found.iter().zip(expected).map(relative).fold(0.0, f64::max)
}

fn check(case: &GoldenCase, what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    let worst = worst(found, expected);
    println!("{} {what}: {worst:.1e}", case.name);
    assert!(worst <= tolerance, "{} {what}: relative difference {worst:e} > {tolerance:e}", case.name);
}

/// Column `column` of the Tikhonov values, for lambda 1, 100, 10 000.
fn tikhonov(case: &GoldenCase, column: usize) -> Vec<f64> {
    case.golden.floats("fi_tikhonov").chunks(3).map(|row| row[column]).collect()
}

#[test]
fn logits_and_jacobians_in_f64() {
    for (case, engine) in runs() {
        let device = Device::flex();
        let network = case.network(Precision::F64);
        let graph = Graph::capture(&network, Network::forward, &case.golden.image_shape(), &device).unwrap();
        let options = Options { precision: Precision::F64, ..Options::default() };
        let program = engine.load(graph, Leaves::input(), &device, &options).unwrap();
        let (logits, jacobians) = (case.golden.floats("logits"), case.golden.floats("jacobian_input"));
        let largest = jacobians.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
        let size = jacobians.len() / logits.len();
        let (mut worst_logit, mut worst_row) = (0.0_f64, 0.0_f64);
        for jacobian in program.jacobians(images(&case)).unwrap() {
            let jacobian = jacobian.unwrap();
            let Rows::F64(rows) = &jacobian.rows else { panic!("an f64 run gives f64 rows") };
            let base = jacobian.sample * 10;
            for k in 0..10 {
                worst_logit = worst_logit.max((jacobian.logits[k] - logits[base + k]).abs());
            }
            let reference =
                |k: usize, i: usize| jacobians[(base + k) * size + i] - jacobians[(base + 9) * size + i];
            for (at, row) in rows.iter().enumerate() {
                worst_row = worst_row.max((row - reference(at / size, at % size)).abs());
            }
        }
        println!(
            "{} {engine:?} logits {worst_logit:.1e}, rows {:.1e} of the largest",
            case.name,
            worst_row / largest
        );
        assert!(worst_logit <= 1e-9 && worst_row <= 1e-9 * largest, "{}", case.name);
    }
}

#[test]
fn measures_in_f64() {
    for (case, engine) in runs() {
        let golden = &case.golden;
        let (scorer, labels) = (scorer(&case, engine, Precision::F64), golden.integers("labels"));
        let at = linearizations(&case, &scorer);
        let exact = scores(&at, Some(&labels), "exact");
        check(&case, "exact", &values(&exact), &golden.floats("fi_exact"), 1e-8);
        assert_eq!(ranks(&exact), golden.ranks("rank_exact"), "{}", case.name);
        let norms: Vec<_> = exact.iter().map(|score| score.baselines.jacobian_norm.unwrap()).collect();
        check(&case, "jacobian_norm", &norms, &golden.floats("jacobian_norm"), 1e-8);
        for (filter, value, rank) in [
            ("paper:1e-3", "fi_paper", "rank_paper"),
            ("paper:1e-3:0.255", "fi_paper_raw255", "rank_paper_raw255"),
        ] {
            let found = scores(&at, Some(&labels), filter);
            check(&case, filter, &values(&found), &golden.floats(value), 1e-7);
            assert_eq!(ranks(&found), golden.ranks(rank), "{}", case.name);
        }
        let predicted = scores(&at, None, "paper:1e-3");
        check(&case, "paper, predicted", &values(&predicted), &golden.floats("fi_paper_predicted"), 1e-7);
        for (column, lambda) in ["1", "100", "10000"].into_iter().enumerate() {
            let found = scores(&at, Some(&labels), &format!("tikhonov:{lambda}"));
            check(&case, &format!("tikhonov:{lambda}"), &values(&found), &tikhonov(&case, column), 1e-7);
        }
    }
}

#[test]
fn measures_in_f32() {
    for (case, engine) in runs() {
        let (scorer, labels) = (scorer(&case, engine, Precision::F32), case.golden.integers("labels"));
        let at = linearizations(&case, &scorer);
        let exact = scores(&at, Some(&labels), "exact");
        check(&case, "exact in f32", &values(&exact), &case.golden.floats("fi_exact"), 1e-4);
        assert_eq!(ranks(&exact), case.golden.ranks("rank_exact"), "{}", case.name);
        let found = scores(&at, Some(&labels), "tikhonov:100");
        check(&case, "tikhonov:100 in f32", &values(&found), &tikhonov(&case, 1), 1e-3);
    }
}
