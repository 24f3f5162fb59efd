//! User-supplied networks and samples: ONNX files and arrays, through the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};

fn influence(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn said(arguments: &[&str]) -> String {
    let output = influence(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn refused(arguments: &[&str]) -> String {
    let output = influence(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stdout));
    text(&output.stderr)
}

/// A network from the importer's tests, with PyTorch's logits and Jacobian at three samples.
struct ImportedNetwork {
    folder: tempfile::TempDir,
    network: String,
    logits: Vec<f64>,
    jacobian: Vec<f64>,
    classes: usize,
}

fn doubles(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F64);
    view.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

impl ImportedNetwork {
    /// Writes the samples to samples.safetensors as `images`, with labels if they are given.
    fn new(name: &str, labels: Option<[i64; 3]>) -> Self {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/onnx/tests/files");
        let bytes = fs::read(files.join(format!("{name}.safetensors"))).unwrap();
        let golden = SafeTensors::deserialize(&bytes).unwrap();
        let input = golden.tensor("input").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let labels: Option<Vec<u8>> =
            labels.map(|labels| labels.iter().flat_map(|label| label.to_le_bytes()).collect());
        let mut tensors = vec![("images", input)];
        if let Some(bytes) = &labels {
            tensors.push(("labels", TensorView::new(Dtype::I64, vec![3], bytes).unwrap()));
        }
        fs::write(folder.path().join("samples.safetensors"), serialize(tensors, None).unwrap()).unwrap();
        let logits = doubles(&golden, "logits");
        let classes = logits.len() / 3;
        let network = files.join(format!("{name}.onnx")).to_str().unwrap().to_owned();
        Self { network, logits, jacobian: doubles(&golden, "jacobian"), classes, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        let samples = self.path("samples.safetensors").to_str().unwrap().to_owned();
        let own = [command, "--network", &self.network, "--dataset", "arrays", "--data", &samples];
        own.iter().chain(more).map(ToString::to_string).collect()
    }

    fn run(&self, command: &str, more: &[&str]) -> String {
        let arguments = self.arguments(command, more);
        said(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn refused(&self, command: &str, more: &[&str]) -> String {
        let arguments = self.arguments(command, more);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The probability of a class at a sample, from PyTorch's logits.
    fn probability(&self, sample: usize, class: usize) -> f64 {
        let logits = &self.logits[sample * self.classes..][..self.classes];
        logits[class].exp() / logits.iter().map(|z| z.exp()).sum::<f64>()
    }
}

/// The cells of one column of a CSV file.
fn column(csv: &str, name: &str) -> Vec<String> {
    let at = csv.lines().next().unwrap().split(',').position(|head| head == name).unwrap();
    csv.lines().skip(1).map(|line| line.split(',').nth(at).unwrap().to_owned()).collect()
}

fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "{worst:e} of {scale:e}");
}

#[test]
fn scores_of_a_network_in_a_file() {
    let case = ImportedNetwork::new("attention_opset14", Some([1, 0, 3]));
    let out = case.path("scores.csv");
    case.run("score", &["--precision", "f64", "--out", out.to_str().unwrap()]);
    let csv = fs::read_to_string(&out).unwrap();
    assert_eq!(column(&csv, "label"), ["1", "0", "3"]);
    let probabilities: Vec<f64> =
        column(&csv, "probability").iter().map(|cell| cell.parse().unwrap()).collect();
    let expected: Vec<f64> =
        [1, 0, 3].iter().enumerate().map(|(sample, &label)| case.probability(sample, label)).collect();
    near(&probabilities, &expected, 1e-6);
    assert!(column(&csv, "network").iter().all(|cell| cell == "attention_opset14.onnx"));
}

#[test]
fn samples_without_labels_have_an_empty_label() {
    let case = ImportedNetwork::new("attention_opset14", None);
    let message = case.refused("score", &[]);
    assert!(message.contains("has no labels: add --objective predicted"), "{message}");
    let shown = case.run("score", &["--objective", "predicted"]);
    assert!(!shown.contains("predicted otherwise"), "{shown}");
    let csv = case.run("score", &["--objective", "entropy", "--out", "-"]);
    assert_eq!(column(&csv, "label"), ["", "", ""]);
}

#[test]
fn one_logit_is_two_classes() {
    let case = ImportedNetwork::new("binary", Some([0, 1, 0]));
    let csv = case.run("score", &["--precision", "f64", "--out", "-"]);
    let found: Vec<f64> = column(&csv, "probability").iter().map(|cell| cell.parse().unwrap()).collect();
    // The references hold the logits [z, 0].
    let z: Vec<f64> = case.logits.chunks(2).map(|row| row[0]).collect();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    near(&found, &[sigmoid(z[0]), sigmoid(-z[1]), sigmoid(z[2])], 1e-6);
}

#[test]
fn jacobians_are_pytorchs() {
    let case = ImportedNetwork::new("small_opset17", None);
    let out = case.path("J.safetensors");
    case.run("jacobian", &["--precision", "f64", "--out", out.to_str().unwrap()]);
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("jacobian").unwrap().shape(), [3, case.classes, 2, 4, 4]);
    near(&doubles(&file, "jacobian"), &case.jacobian, 1e-5);
    near(&doubles(&file, "logits"), &case.logits, 1e-5);
    // The Gram matrices are the inner products of those rows.
    let gram = case.path("G.safetensors");
    case.run("jacobian", &["--gram", "--precision", "f64", "--out", gram.to_str().unwrap()]);
    let bytes = fs::read(&gram).unwrap();
    let rows: Vec<&[f64]> = case.jacobian.chunks(32).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let products: Vec<f64> = rows
        .chunks(case.classes)
        .flat_map(|own| own.iter().flat_map(|a| own.iter().map(|b| dot(a, b))).collect::<Vec<_>>())
        .collect();
    near(&doubles(&SafeTensors::deserialize(&bytes).unwrap(), "gram"), &products, 1e-5);
}

#[test]
fn of_several_outputs_one_is_named() {
    let case = ImportedNetwork::new("two_outputs", None);
    let message = case.refused("score", &["--objective", "predicted"]);
    assert!(message.contains("outputs") && message.contains("name"), "{message}");
    assert!(message.contains("10, 11"), "{message}");
    let shown = case.run("score", &["--objective", "predicted", "--output", "11"]);
    assert!(shown.contains("two_outputs.onnx"), "{shown}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let case = ImportedNetwork::new("small_opset17", Some([0, 7, 1]));
    let message = case.refused("score", &[]);
    assert!(message.contains("the label of image 1 is 7, and the network has 3 classes"), "{message}");
    let message = case.refused("score", &["--objective", "class:3"]);
    assert!(message.contains("class:3: there are 3 classes"), "{message}");
    let message = case.refused("score", &["--width", "8"]);
    assert!(message.contains("--width"), "{message}");
    let case = ImportedNetwork::new("small_opset17", Some([0, 2, 1]));
    let samples = case.path("samples.safetensors");
    let message = case.refused("jacobian", &["--out", samples.to_str().unwrap()]);
    assert!(message.contains("would be lost"), "{message}");
    let out = case.path("J.safetensors");
    let message = case.refused("jacobian", &["--shard", "1/2", "--out", out.to_str().unwrap()]);
    assert!(message.contains("--images"), "{message}");
    let message = refused(&["score", "--output", "y"]);
    assert!(message.contains("--network FILE.onnx"), "{message}");
    assert!(!out.exists());
}

#[test]
fn a_direction_lies_as_the_file_has_its_weights() {
    let case = ImportedNetwork::new("small_opset17", Some([0, 1, 2]));
    let out = case.path("worst.safetensors");
    let more = ["--perturb", "parameters", "--images", "1", "--direction", out.to_str().unwrap()];
    case.run("score", &more);
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // PyTorch writes linear layers as [out, in], and Gemm reads them transposed.
    assert_eq!(file.tensor("head.weight").unwrap().shape(), [3, 16]);
}

#[test]
fn what_is_missing_is_named() {
    // Colour images of a size that no embedded network takes.
    let folder = tempfile::tempdir().unwrap();
    let record = [vec![3_u8], vec![128; 3072]].concat();
    fs::write(folder.path().join("test_batch.bin"), record.repeat(2)).unwrap();
    let data = folder.path().to_str().unwrap();
    let message = refused(&["score", "--dataset", "cifar10", "--own", "--data", data]);
    assert!(message.contains("3 x 32 x 32") && message.contains("add --weights FILE"), "{message}");
    let message = refused(&["score", "--dataset", "imagenet", "--data", data]);
    assert!(message.contains("folder, parquet and arrays"), "{message}");
}

#[test]
fn two_sets_of_arrays_are_compared() {
    let case = ImportedNetwork::new("small_opset17", Some([0, 2, 1]));
    let message = case.refused("compare", &[]);
    assert!(message.contains("--against-data"), "{message}");
    let other = case.path("other.safetensors");
    fs::copy(case.path("samples.safetensors"), &other).unwrap();
    let shown = case.run("compare", &["--against-data", other.to_str().unwrap()]);
    assert!(shown.contains("samples.safetensors") && shown.contains("other.safetensors"), "{shown}");
    let message = case.refused("score", &["--split", "train"]);
    assert!(message.contains("--split"), "{message}");
}
