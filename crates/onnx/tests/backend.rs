//! The ONNX project's own node tests: each gives equal results or is refused.
//!
//! `backend_cases.py` writes them into a folder, which the variable `INFLUENCE_ONNX_BACKEND` names.
//! Without the variable the test is skipped, and says so.

#![allow(clippy::print_stdout, reason = "the counts are for docs/onnx.md, and a skipped test says so")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorData};
use influence_autodiff::{Options, Precision, Program};
use influence_onnx::{Error, ImportOptions, Model};
use safetensors::SafeTensors;

/// The references are computed by NumPy in float32, some in float16.
const TOLERANCE: f64 = 1e-3;

/// The outcome of one model.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone)]
enum Outcome {
    Equal,
    Refused(String),
    Wrong(String),
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).expect("the script writes it");
    let values = view.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    (view.shape().to_vec(), values)
}

/// The operators whose import is tested: those of the file, without what the script adds.
fn operator(model: &Path) -> String {
    let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    name.trim_start_matches("test_").to_owned()
}

fn outcome(model: &Path) -> Outcome {
    let import = Model::open(model).and_then(|model| model.graph(&ImportOptions::default()));
    let graph = match import {
        Ok(import) => import.graph,
        Err(Error::Unsupported(problems)) => return Outcome::Refused(problems[0].to_string()),
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let bytes = std::fs::read(model.with_extension("safetensors")).expect("it is next to the model");
    let file = SafeTensors::deserialize(&bytes).expect("the script writes it");
    let (shape, input) = numbers(&file, "input");
    let (expected_shape, expected) = numbers(&file, "expected");
    let options = Options { precision: Precision::F64, ..Options::default() };
    let program = match Program::new(graph, &Device::flex(), &options) {
        Ok(program) => program,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let logits = match program.logits(TensorData::new(input, shape)) {
        Ok(logits) => logits,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let found: Vec<f64> = logits.into_iter().flatten().collect();
    if found.len() != expected.len() {
        return Outcome::Wrong(format!("{} numbers, not {expected_shape:?}", found.len()));
    }
    let far = |(a, b): (&f64, &f64)| {
        let same = a == b || a.is_nan() && b.is_nan();
        let near = (a - b).abs() <= TOLERANCE * (1.0 + b.abs());
        !same && !near
    };
    match found.iter().zip(&expected).position(far) {
        None => Outcome::Equal,
        Some(at) => Outcome::Wrong(format!("element {at} is {}, not {}", found[at], expected[at])),
    }
}

#[test]
fn node_tests_are_equal_or_refused() {
    let Some(folder) = std::env::var_os("INFLUENCE_ONNX_BACKEND").map(PathBuf::from) else {
        println!(
            "SKIPPED: write the node tests with backend_cases.py and name their folder in INFLUENCE_ONNX_BACKEND"
        );
        return;
    };
    let mut models: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "onnx"))
        .collect();
    models.sort();
    assert!(!models.is_empty(), "{} holds no models", folder.display());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for model in &models {
        let (name, outcome) = (operator(model), outcome(model));
        match outcome {
            Outcome::Equal => *counts.entry("equal").or_default() += 1,
            Outcome::Refused(why) => {
                *counts.entry("refused").or_default() += 1;
                println!("refused {name}: {}", why.lines().next().unwrap_or_default());
            }
            Outcome::Wrong(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!("{} models: {counts:?}, {} wrong", models.len(), wrong.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
