//! Small networks from both of PyTorch's exporters and with several operator sets, against
//! PyTorch's own float64 Jacobians.
//!
//! `files/make.py` makes the files.

use std::path::PathBuf;

use burn::tensor::{Device, TensorData};
use influence_autodiff::{Options, Precision, Program, Rows};
use influence_onnx::{Ending, Error, ImportOptions, Model};
use safetensors::SafeTensors;

/// The weights are f32 on both sides; folded normalisations and constants differ in their last
/// digit.
const TOLERANCE: f64 = 1e-5;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(name)
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).expect("the script writes it");
    let read = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes);
    (view.shape().to_vec(), view.data().as_chunks().0.iter().map(read).collect())
}

/// The rows minus the last one: differences that a constant added to all logits does not change.
fn differences(rows: &[f64], classes: usize) -> Vec<f64> {
    let width = rows.len() / classes;
    let last = &rows[(classes - 1) * width..];
    let row = |k: usize| rows[k * width..(k + 1) * width].iter().zip(last).map(|(a, b)| a - b);
    (0..classes - 1).flat_map(row).collect()
}

fn close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    let far = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(far <= TOLERANCE * scale, "{what}: {far:e} of {scale:e}");
}

/// Logits and Jacobians of a file against its references.
fn check(name: &str, choice: &ImportOptions) -> Ending {
    let import = Model::open(file(&format!("{name}.onnx"))).and_then(|model| model.graph(choice));
    let import = import.unwrap_or_else(|error| panic!("{name}: {error}"));
    let bytes = std::fs::read(file(&format!("{name}.safetensors"))).expect("it is next to the model");
    let golden = SafeTensors::deserialize(&bytes).expect("the script writes it");
    let (shape, input) = numbers(&golden, "input");
    let (logits, jacobian) = (numbers(&golden, "logits").1, numbers(&golden, "jacobian").1);
    let options = Options { precision: Precision::F64, ..Options::default() };
    let classes = import.graph.classes();
    let program = Program::new(import.graph, &Device::flex(), &options).expect("it runs");
    let found = program.jacobians(TensorData::new(input, shape)).expect("samples fit");
    let mut samples = 0;
    for at in found {
        let at = at.expect("it runs");
        let Rows::F64(rows) = at.rows else { panic!("the run is in f64") };
        let (s, size) = (at.sample, jacobian.len() / 3);
        let expected = differences(&jacobian[s * size..(s + 1) * size], classes);
        close(&format!("{name}: rows of sample {s}"), &rows, &expected);
        let expected = differences(&logits[s * classes..(s + 1) * classes], classes);
        close(&format!("{name}: logits of sample {s}"), &differences(&at.logits, classes), &expected);
        samples += 1;
    }
    assert_eq!(samples, 3);
    import.ending
}

#[test]
fn networks_of_both_exporters_have_pytorchs_jacobians() {
    let names = [
        "small_opset11",
        "small_opset13",
        "small_opset17",
        "small_dynamo",
        "attention_opset14",
        "attention_dynamo",
        "attention_opset23",
    ];
    for name in names {
        assert_eq!(check(name, &ImportOptions::default()), Ending::Logits);
    }
}

#[test]
fn recurrent_transposed_named_and_binary_networks() {
    let names = [
        "recurrent",
        "up",
        "named",
        "chained",
        "binary",
        "scaled",
        "scaled_dynamo",
        "last_dynamo",
        "last_batch1",
    ];
    for name in names {
        assert_eq!(check(name, &ImportOptions::default()), Ending::Logits, "{name}");
    }
}

#[test]
fn volumes_grids_and_elements_that_are_named() {
    for name in ["volume", "sampled", "sampled_dynamo", "written", "written_dynamo"] {
        assert_eq!(check(name, &ImportOptions::default()), Ending::Logits, "{name}");
    }
}

#[test]
fn sigmoid_and_pair_of_two_classes_are_removed_at_the_end() {
    assert!(matches!(check("gated", &ImportOptions::default()), Ending::Sigmoid { .. }));
    assert!(matches!(check("pair", &ImportOptions::default()), Ending::Pair { .. }));
    // The nodes for labels and dictionaries are ignored.
    assert!(matches!(check("zipped", &ImportOptions::default()), Ending::Pair { .. }));
}

#[test]
fn initializers_that_were_not_trained_are_frozen() {
    let model = Model::open(file("attention_opset14.onnx")).expect("it is a model");
    let frozen = |names: &[&str]| {
        let frozen = names.iter().map(|name| (*name).to_owned()).collect();
        model.graph(&ImportOptions { frozen, ..ImportOptions::default() })
    };
    let all = frozen(&[]).expect("it is imported").graph.parameters().len();
    let import = frozen(&["cls", "*.bias", "onnx::MatMul_*"]).expect("it is imported");
    assert!(import.frozen.contains(&"cls".to_owned()), "{:?}", import.frozen);
    assert_eq!(import.graph.parameters().len() + import.frozen.len(), all);
    let left: Vec<_> = import.graph.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(left, ["norm.weight", "head.weight"]);
    let error = frozen(&["norm.wieght"]).expect_err("there is none").to_string();
    assert!(error.contains("norm.wieght") && error.contains("the nearest are norm."), "{error}");
}

/// PyTorch's newer exporter writes the scale of an attention as a tensor of one element.
#[test]
fn single_numbers_with_generated_names_are_literals() {
    let model = Model::open(file("attention_dynamo.onnx")).expect("it is a model");
    let graph = model.graph(&ImportOptions::default()).expect("it is imported").graph;
    let names: Vec<_> = graph.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    assert!(names.contains(&"val_10") && !names.contains(&"val_55"), "{names:?}");
    for parameter in graph.parameters() {
        let shape = graph.values()[parameter.values[0]].shape_at(1);
        assert!(shape.iter().product::<usize>() > 1, "{}: {shape:?}", parameter.name);
    }
}

#[test]
fn a_batch_of_one_is_read_as_any_batch() {
    for name in ["small", "attention", "volume", "written", "first"] {
        check(&format!("{name}_batch1"), &ImportOptions::default());
    }
}

#[test]
fn a_softmax_at_the_end_is_removed() {
    let ending = check("probabilities", &ImportOptions::default());
    assert!(matches!(&ending, Ending::Softmax { node, .. } if node.contains("Softmax")), "{ending:?}");
}

#[test]
fn of_several_outputs_one_is_named() {
    let model = Model::open(file("two_outputs.onnx")).expect("it is a model");
    let error = model.graph(&ImportOptions::default()).expect_err("there are two");
    assert!(matches!(error, Error::Output { .. }));
    let outputs = model.outputs();
    assert!(outputs.iter().all(|name| error.to_string().contains(name)), "{error}");
    check("two_outputs", &ImportOptions { output: Some(outputs[1].to_owned()), ..ImportOptions::default() });
    let absent = model.graph(&ImportOptions { output: Some("absent".into()), ..ImportOptions::default() });
    assert!(absent.is_err_and(|error| error.to_string().contains("no result \"absent\"")));
    let other = model.graph(&ImportOptions { sample: Some(vec![5]), ..ImportOptions::default() });
    assert!(other.is_err_and(|error| error.to_string().contains("takes samples of shape [4], not [5]")));
}

#[test]
fn parameters_have_the_files_names_and_layers() {
    let graph = |name: &str| {
        let model = Model::open(file(&format!("{name}.onnx"))).expect("it is a model");
        model.graph(&ImportOptions::default()).expect("it is imported").graph
    };
    let names = |name: &str| -> Vec<(String, String)> {
        let parameters = graph(name).parameters().to_vec();
        parameters.iter().map(|p| (p.name.clone(), p.layer().to_owned())).collect()
    };
    let small = names("small_opset17");
    let own = [("head.weight", "head"), ("head.bias", "head")];
    assert!(own.iter().all(|(name, layer)| small.contains(&((*name).into(), (*layer).into()))), "{small:?}");
    // The transposed weights of linear layers lose their names; they stay in the layer of their
    // biases.
    let attention = names("attention_opset14");
    let layers: Vec<_> = attention.iter().map(|(_, layer)| layer.as_str()).collect();
    for layer in ["embed", "qkv", "out", "norm", "head"] {
        assert_eq!(layers.iter().filter(|found| **found == layer).count(), 2, "{layer}: {attention:?}");
    }
}
