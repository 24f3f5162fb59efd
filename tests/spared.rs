//! What a run must not do: overwrite its own inputs, number images wrongly, print control sequences
//! that a terminal would interpret, or report NaN where the value is known.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::root;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

fn influence(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Asserts that the run exits with code 2 and that stderr contains these words.
fn refused(arguments: &[&str], says: &[&str]) {
    let output = influence(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    for part in says {
        assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message:?}");
    }
}

fn embedded() -> Vec<u8> {
    fs::read(root().join("crates/data/sample/resnet50w8-mnist.safetensors")).unwrap()
}

#[cfg(unix)]
#[test]
fn no_output_is_an_input() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let weights = at("w.safetensors");
    fs::write(&weights, embedded()).unwrap();
    let run = |command: &[&str], rest: &[&str]| {
        let run = [command, &["--weights", &weights, "--images", "0"], rest].concat();
        refused(&run, &["w.safetensors", "would be lost"]);
        assert_eq!(fs::read(&weights).unwrap(), embedded(), "{rest:?}");
    };
    let direction = ["score", "--perturb", "parameters"];
    symlink(&weights, at("soft.safetensors")).unwrap();
    fs::hard_link(&weights, at("hard.safetensors")).unwrap();
    for name in ["w.safetensors", "./w.safetensors", "soft.safetensors", "hard.safetensors"] {
        run(&direction, &["--direction", &format!("{}/{name}", folder.path().display())]);
    }
    for (command, flag, name) in
        [("score", "--out", "rows.csv"), ("layers", "--out", "l.jsonl"), ("layers", "--plot", "l.png")]
    {
        fs::hard_link(&weights, at(name)).unwrap();
        run(&[command], &[flag, &at(name)]);
    }
    fs::hard_link(&weights, at("map-0.safetensors")).unwrap();
    run(&["map"], &["--out", folder.path().to_str().unwrap()]);
    let against = ["layers", "--images", "0", "--against", &weights, "--plot", &at("l.png")];
    refused(&against, &["--plot", "would be lost"]);
    let family = format!("family:{weights}");
    let own = ["score", "--images", "0", "--perturb", &family, "--out", &at("rows.csv")];
    refused(&own, &["--out", "would be lost"]);
    assert_eq!(fs::read(&weights).unwrap(), embedded());
}

#[cfg(unix)]
#[test]
fn data_sets_are_inputs_too() {
    let sample = root().join("crates/data/sample");
    let folder = tempfile::tempdir().unwrap();
    for name in ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        fs::copy(sample.join(name), folder.path().join(name)).unwrap();
    }
    let labels = folder.path().join("t10k-labels-idx1-ubyte");
    let out = folder.path().join("out.csv");
    fs::hard_link(&labels, &out).unwrap();
    let data = ["score", "--dataset", "mnist", "--data", folder.path().to_str().unwrap(), "--images", "0"];
    refused(
        &[&data[..], &["--out", out.to_str().unwrap()]].concat(),
        &["t10k-labels-idx1-ubyte", "would be lost"],
    );
    assert_eq!(fs::read(&labels).unwrap(), fs::read(sample.join("t10k-labels-idx1-ubyte")).unwrap());
    fs::remove_file(&out).unwrap();
    let output = influence(&[&data[..], &["--quiet", "--out", out.to_str().unwrap()]].concat());
    assert!(output.status.success(), "next to the inputs a result may be written: {}", text(&output.stderr));
}

#[test]
fn data_of_other_sizes_has_to_be_called_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let data = ["--data", folder.path().to_str().unwrap()];
    fs::write(folder.path().join("test_batch.bin"), vec![0; 100 * 3073]).unwrap();
    let cifar = [&["score", "--dataset", "cifar10"], &data[..]].concat();
    refused(&cifar, &["test_batch.bin", "100 images where a batch of CIFAR-10 has 10 000", "--own"]);
    // With --own the file is read; what fails then is that the network expects other images.
    refused(&[&cifar[..], &["--own"]].concat(), &["for grey images", "add --weights FILE"]);
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 32, 0, 0, 0, 32][..], &[0; 2048]].concat();
    fs::write(folder.path().join("t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(folder.path().join("t10k-labels-idx1-ubyte"), [0, 0, 8, 1, 0, 0, 0, 2, 3, 4]).unwrap();
    let mnist = [&["score", "--dataset", "mnist"], &data[..]].concat();
    refused(&mnist, &["t10k-images-idx3-ubyte", "images of 32 x 32", "28 x 28", "--own"]);
    let output = influence(&[&mnist[..], &["--own"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A safetensors file with two directions: brightness times 1e8, under a name with control
/// characters, and a ramp.
fn wicked(path: &Path, name: &str) {
    let bright: Vec<u8> = [1e8_f64; 784].iter().flat_map(|x| x.to_le_bytes()).collect();
    let ramp: Vec<u8> = (0..784).flat_map(|at| f64::from(at % 28).to_le_bytes()).collect();
    let view = |bytes| TensorView::new(Dtype::F64, vec![1, 28, 28], bytes).unwrap();
    let tensors = [(name, view(&bright)), ("zzz", view(&ramp))];
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn directions_are_data_and_names_reach_no_terminal() {
    let name = "\u{1b}]0;gotcha\u{7}\u{1b}[31m; a,\"b\"\nindex";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.safetensors");
    wicked(&file, name);
    let family = format!("family:{}", file.display());
    let score = ["score", "--images", "0..2", "--perturb", &family];
    let shown = influence(&score);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let table = text(&shown.stdout);
    assert!(!table.contains(['\u{1b}', '\u{7}']), "{table:?}");
    assert!(table.contains("\\u{1b}]0;gotcha\\u{7}") && table.contains("\\nindex"), "{table}");
    let rows = |ending: &str| {
        let out = folder.path().join(format!("rows.{ending}"));
        let output = influence(&[&score[..], &["--quiet", "--out", out.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        fs::read(out).unwrap()
    };
    let mut found = Vec::new();
    for line in text(&rows("jsonl")).lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let knobs = row["direction"].as_array().unwrap();
        assert_eq!(knobs.len(), 2);
        assert_eq!((knobs[0]["name"].as_str(), knobs[1]["name"].as_str()), (Some(name), Some("zzz")));
        let value = knobs[0]["value"].as_f64().unwrap();
        assert!(
            value != 0.0 && value.abs() < 1e-5 && value.to_string().len() > 12,
            "all digits of a small number: {value}"
        );
        found.push(row["direction"].clone());
    }
    let csv = rows("csv");
    let mut reader = csv::Reader::from_reader(&csv[..]);
    let at = reader.headers().unwrap().iter().position(|column| column == "direction").unwrap();
    for (row, expected) in reader.records().zip(&found) {
        let cell: serde_json::Value = serde_json::from_str(&row.unwrap()[at]).unwrap();
        assert_eq!(cell, *expected);
    }
    assert_eq!(found.len(), 2);
    // Error messages quote names as well (of a tensor, a file, a flag) and must escape them.
    let shapes = TensorView::new(Dtype::F64, vec![1], &[0; 8]).unwrap();
    fs::write(&file, safetensors::serialize([(name, shapes)], None).unwrap()).unwrap();
    for arguments in [&score[..], &["score", "--weights", name], &["score", "--perturb", name]] {
        let output = influence(arguments);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{7}']) && said.contains("gotcha"), "{said:?}");
    }
}

/// The embedded network with the weights of its last layer times 100. Its logits then lie so far
/// apart that the influence exceeds the range of f64.
fn steep(path: &Path) {
    let bytes = embedded();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, view) in file.tensors() {
        let halves = view.data().as_chunks::<2>().0.iter();
        let data = match name.as_str() {
            "fc.weight" | "fc.bias" => halves
                .flat_map(|x| (burn::tensor::f16::from_le_bytes(*x).to_f32() * 100.0).to_le_bytes())
                .collect(),
            _ => view.data().to_vec(),
        };
        let dtype = if name.starts_with("fc.") { Dtype::F32 } else { view.dtype() };
        tensors.insert(name, (dtype, view.shape().to_vec(), data));
    }
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}

#[test]
fn maps_beyond_f64_have_their_logarithms() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, rows) = (folder.path().join("steep.safetensors"), folder.path().join("rows.csv"));
    steep(&weights);
    let usual = ["--weights", weights.to_str().unwrap(), "--images", "0", "--objective", "class:3"];
    let run = |command: &[&str]| {
        let output = influence(&[command, &usual, &["--precision", "f64"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown = run(&["score"]);
    run(&["score", "--quiet", "--out", rows.to_str().unwrap()]);
    let csv = fs::read_to_string(rows).unwrap();
    let cells: Vec<&str> = csv.lines().nth(1).unwrap().split(',').collect();
    let whole: f64 = cells[8].parse().unwrap();
    assert!(cells[7].is_empty() && whole > 400.0, "{csv}");
    assert!(shown.contains(&format!("1e{whole:.1}")), "{shown}");
    let maps = folder.path().join("maps");
    run(&["map", "--scales", "0,13", "--quiet", "--out", maps.to_str().unwrap()]);
    let bytes = fs::read(maps.join("map-0.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let data = file.tensor(name).unwrap().data().as_chunks::<8>().0.to_vec();
        data.into_iter().map(f64::from_le_bytes).collect()
    };
    let (large, log10) = (floats("scale13"), floats("log10_scale13"));
    // A window that covers the image has full rank, so its value is that of the whole image.
    assert!((log10[14 * 28 + 14] - whole).abs() < 1e-9 && large[14 * 28 + 14] == f64::INFINITY);
    for (value, log10) in floats("scale0").iter().zip(floats("log10_scale0")) {
        assert!(!value.is_nan() && log10 <= whole + 1e-9);
        assert!(value.is_infinite() == (log10 > 308.3), "{value} {log10}");
    }
    assert!(floats("log10_scale0").iter().any(|log10| *log10 > 308.3));
}
