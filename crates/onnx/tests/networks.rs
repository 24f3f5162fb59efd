//! Whole networks against the frameworks that exported them: logits and Jacobians in f64.
//!
//! `networks.py` writes some. The variable `INFLUENCE_ONNX_NETWORKS` names a folder with, for each
//! network, NAME.FORM.onnx files (a form that begins with f64 was exported in double precision),
//! and NAME.ref.safetensors with `images`, `logits` and, for as many of the images as it has,
//! `jacobian` `[images, K, elements]`, all in f64. Without the variable the test is skipped, and
//! says so.

#![allow(clippy::print_stdout, reason = "the differences are what the test is run for")]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use influence_autodiff::{Options, Precision, Program, Rows};
use influence_onnx::{ImportOptions, Model};
use safetensors::SafeTensors;

/// Tolerance for weights in f64, with some literals in f32 (as the newer exporter writes them).
const DOUBLE: f64 = 1e-6;
/// Tolerance for weights, or values folded into them, in f32.
const SINGLE: f64 = 1e-4;

fn numbers(file: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f64>), String> {
    let view = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    let values = view.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    Ok((view.shape().to_vec(), values))
}

/// The largest difference, relative to the largest element, at least `least`.
fn apart(found: &[f64], expected: &[f64], least: f64) -> f64 {
    let scale = expected.iter().fold(least, |scale, x| scale.max(x.abs()));
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / scale);
    differences.fold(0.0, |worst: f64, x| if x <= worst { worst } else { x })
}

/// The differences with the last class, of logits or of a Jacobian: the measure depends only on
/// these.
fn centred(jacobian: &[f64], classes: usize) -> Vec<f64> {
    let size = jacobian.len() / classes;
    let last = &jacobian[(classes - 1) * size..];
    let rows = jacobian[..(classes - 1) * size].chunks_exact(size);
    rows.flat_map(|row| row.iter().zip(last).map(|(a, b)| a - b)).collect()
}

/// Differences of logits and of Jacobians.
fn compared(file: &Path, stem: &Path) -> Result<[f64; 2], String> {
    let model = Model::open(file).map_err(|error| error.to_string())?;
    let graph = model.graph(&ImportOptions::default()).map_err(|error| error.to_string())?.graph;
    let bytes = std::fs::read(stem.with_extension("ref.safetensors")).map_err(|error| error.to_string())?;
    let reference = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let (_, images) = numbers(&reference, "images")?;
    let (shape, logits) = numbers(&reference, "logits")?;
    let (of_jacobian, jacobian) = numbers(&reference, "jacobian").unwrap_or((vec![0, 2, 0], vec![]));
    let sample = graph.sample_shape();
    let options = Options { precision: Precision::F64, batch: 3, ..Options::default() };
    let program = Program::new(graph, &Device::flex(), &options).map_err(|error| error.to_string())?;
    // All images have logits, but only the first ones a Jacobian.
    let count = of_jacobian[0];
    let size: usize = sample.iter().product();
    let data =
        |count: usize| TensorData::new(images[..count * size].to_vec(), [&[count], &sample[..]].concat());
    let found = program.logits(data(shape[0])).map_err(|error| error.to_string())?;
    let found: Vec<f64> = found.into_iter().flatten().collect();
    let mut worst = 0.0_f64;
    let rows = match count {
        0 => None,
        _ => Some(program.jacobians(data(count)).map_err(|error| error.to_string())?),
    };
    for (row, expected) in
        rows.into_iter().flatten().zip(jacobian.chunks_exact((jacobian.len() / count.max(1)).max(1)))
    {
        let row = row.map_err(|error| error.to_string())?;
        let Rows::F64(found) = &row.rows else { return Err("rows in f32".into()) };
        worst = worst.max(apart(found, &centred(expected, of_jacobian[1]), f64::MIN_POSITIVE));
    }
    let classes = shape[1];
    let differences = |logits: &[f64]| -> Vec<f64> {
        logits.chunks_exact(classes).flat_map(|row| centred(row, classes)).collect()
    };
    Ok([apart(&differences(&found), &differences(&logits), 1.0), worst])
}

#[test]
fn networks_are_those_of_their_frameworks() {
    let Some(folder) = std::env::var_os("INFLUENCE_ONNX_NETWORKS").map(PathBuf::from) else {
        println!("SKIPPED: name a folder of exported networks in INFLUENCE_ONNX_NETWORKS");
        return;
    };
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "onnx"));
    files.sort();
    let mut wrong = Vec::new();
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let (stem, form) = name.split_once('.').unwrap_or((&name, ""));
        let allowed = if form.starts_with("f64") { DOUBLE } else { SINGLE };
        match compared(file, &folder.join(stem)) {
            Ok([logits, jacobian]) => {
                println!("{name}: logits {logits:.1e}, Jacobian {jacobian:.1e}");
                if !(logits <= allowed && jacobian <= allowed) {
                    wrong.push(format!("{name}: logits {logits:e}, Jacobian {jacobian:e}"));
                }
            }
            Err(why) => println!("{name}: refused: {why}"),
        }
    }
    println!("{} networks, {} wrong", files.len(), wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
