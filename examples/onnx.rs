//! The Jacobian of a network in an ONNX file at inference, without a training framework or training
//! artifacts.
//!
//!     cargo run --example onnx -- net.onnx
//!
//! Without arguments it reads a small file of the tests.

#![allow(clippy::print_stdout, reason = "an example shows what it finds")]

use burn::tensor::{Device, TensorData};
use influence::{Combinations, Graph, Objective, Rows, Scorer};
use influence_onnx::FromOnnx;

const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/onnx/tests/files/attention_dynamo.onnx");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| SMALL.into());
    let graph = Graph::from_onnx(&file)?;
    let sample = graph.sample_shape();
    println!("{file}: samples {sample:?}, {} classes", graph.classes());

    // Two synthetic samples; yours are [N, ...sample] in the layout that the network was trained
    // with.
    let size: usize = sample.iter().product();
    let values: Vec<f32> = (0..2 * size).map(|i| (i as f32 * 0.37).sin()).collect();
    let samples = TensorData::new(values, [&[2], &sample[..]].concat());

    let scorer = Scorer::builder().device(&Device::flex()).load(graph)?;
    // All K rows dz_k / dx of every sample, row-major [K, ...sample].
    for jacobian in scorer.program().jacobians(samples.clone())?.combining(|_, _| Combinations::Logits) {
        let jacobian = jacobian?;
        let Rows::F32(rows) = &jacobian.rows else { continue };
        let norm = rows.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        println!("sample {}: logits {:?}, |J| = {norm:.4}", jacobian.sample, jacobian.logits);
    }
    // The influence computed from these rows.
    for score in scorer.scores(samples, &Objective::predicted())? {
        let score = score?;
        println!("influence {:.4} of at most {:.4}", score.value, score.bound);
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}
