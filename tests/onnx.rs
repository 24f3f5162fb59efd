//! Compares six exported networks with float64 reference values from PyTorch, from the file to the
//! scores.
//!
//! The files are in a folder next to the project, with inputs and references. Without them the
//! tests print that they are skipped.

#![expect(clippy::print_stdout, reason = "the differences found are worth reading")]

mod common;

use burn::tensor::{Device, TensorData};
use common::{Golden, shared};
use influence::{Engine, Filter, Graph, Linearization, Precision, SampleObjective, Score, Scorer};
use influence_data::Arrays;
use influence_onnx::FromOnnx;

/// Each network with its tolerance in f64: 1e-6, or 1e-4 if its exporter folded normalisations or
/// constants in f32.
const NETWORKS: [(&str, f64); 6] = [
    ("mobilenetv3", 1e-4),
    ("vit", 1e-6),
    ("efficientnet", 1e-4),
    ("convnext", 1e-6),
    ("resnet_timm", 1e-4),
    ("series", 1e-6),
];
/// Tolerance of all networks in f32.
const SINGLE: f64 = 1e-3;

fn scorer(name: &str, engine: Engine, precision: Precision) -> Option<Scorer> {
    let graph = Graph::from_onnx(shared(&format!("onnx/{name}.onnx"))?).unwrap();
    let builder = Scorer::builder().engine(engine).precision(precision).device(&Device::flex());
    Some(builder.load(graph).unwrap())
}

fn check(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1e-3 * scale));
    let worst = far.fold(0.0, f64::max);
    println!("{what}: {worst:.1e}");
    assert!(worst <= tolerance, "{what}: relative difference {worst:e} > {tolerance:e}");
}

fn values(at: &[Linearization<'_>], labels: &[usize], filter: &str) -> Vec<f64> {
    let filter: Filter = filter.parse().unwrap();
    let score =
        |at: &Linearization<'_>| at.score(&SampleObjective::class(labels[at.sample()]), &filter).unwrap();
    at.iter().map(score).map(|score: Score| score.value).collect()
}

fn network(name: &str, engine: Engine, precision: Precision, tolerance: f64) {
    let (Some(scorer), Some(inputs), Some(golden)) = (
        scorer(name, engine, precision),
        shared(&format!("onnx/{name}.npz")),
        shared(&format!("onnx/{name}.safetensors")),
    ) else {
        return;
    };
    let (inputs, golden) = (Arrays::open(&inputs).unwrap(), Golden::open(&golden));
    let all: Vec<_> = (0..inputs.len()).collect();
    let shape: Vec<_> = [all.len()].into_iter().chain(inputs.shape().iter().copied()).collect();
    let images = TensorData::new(inputs.batch::<f64>(&all), shape);
    let at: Vec<_> = scorer.linearize(images).unwrap().collect::<Result<_, _>>().unwrap();
    let labels = inputs.labels().unwrap();
    let what = |part: &str| format!("{name} {precision} on {}: {part}", scorer.engine());
    let logits: Vec<f64> = at.iter().flat_map(|at| at.logits().to_vec()).collect();
    check(&what("logits"), &logits, &golden.floats("logits"), tolerance);
    for (filter, key) in [("exact", "fi_exact"), ("paper", "fi_paper")] {
        check(&what(filter), &values(&at, labels, filter), &golden.floats(key), tolerance);
    }
    let tikhonov = golden.floats("fi_tikhonov");
    for (column, filter) in ["tikhonov:1", "tikhonov:100"].into_iter().enumerate() {
        let expected: Vec<_> = tikhonov.chunks(2).map(|row| row[column]).collect();
        check(&what(filter), &values(&at, labels, filter), &expected, tolerance);
    }
}

#[test]
fn scores_in_f64() {
    for (name, tolerance) in NETWORKS {
        for engine in [Engine::Cpu(None), Engine::Burn] {
            network(name, engine, Precision::F64, tolerance);
        }
    }
}

#[test]
fn scores_in_f32() {
    for (name, _) in NETWORKS {
        for engine in [Engine::Cpu(None), Engine::Burn] {
            network(name, engine, Precision::F32, SINGLE);
        }
    }
}
