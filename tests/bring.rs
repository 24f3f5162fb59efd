//! User-supplied weights and pictures: weight files with torchvision's names, logits saved
//! elsewhere, folders and tables of pictures, and normalisations as the first layer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn influence(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    // Messages are wrapped to the terminal width; join their lines before searching.
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn assert_fails(arguments: &[&str], words: &[&str]) {
    let output = influence(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message}");
    }
}

/// A folder for the files of a test.
struct TestFolder(TempDir);

impl TestFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A safetensors file of f64 tensors.
    fn tensors(&self, name: &str, tensors: &[(&str, &[usize], &[f64])]) -> String {
        let bytes = |values: &[f64]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensors: Vec<_> =
            tensors.iter().map(|(name, shape, values)| (*name, shape.to_vec(), bytes(values))).collect();
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap()));
        fs::write(self.path(name), safetensors::serialize(views, None).unwrap()).unwrap();
        self.path(name)
    }

    /// Weights of a small ResNet with torchvision's names, for 3 channels and 4 classes.
    fn resnet(&self) -> String {
        let shapes: [(&str, &[usize]); 4] = [
            ("conv1.weight", &[4, 3, 3, 3]),
            ("layer1.0.conv1.weight", &[4, 4, 3, 3]),
            ("layer1.0.conv2.weight", &[4, 4, 3, 3]),
            ("fc.weight", &[4, 4]),
        ];
        let norms = ["bn1", "layer1.0.bn1", "layer1.0.bn2"].iter().flat_map(|norm| {
            ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("{norm}.{part}"), vec![4]))
        });
        let tensors = shapes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
        let made: Vec<_> = tensors
            .chain(norms)
            .chain([("fc.bias".to_owned(), vec![4])])
            .enumerate()
            .map(|(at, (name, shape))| {
                let wave = |i: usize| ((i * 7 + at * 3) as f64).sin() / 2.0;
                let lift = if name.ends_with("var") { 1.0 } else { 0.1 };
                let values: Vec<f64> = (0..shape.iter().product()).map(|i| lift + wave(i)).collect();
                (name, shape, values)
            })
            .collect();
        let tensors: Vec<_> =
            made.iter().map(|(name, shape, values)| (name.as_str(), &shape[..], &values[..])).collect();
        self.tensors("resnet.safetensors", &tensors)
    }

    /// Copies fixtures of the data crate to other paths.
    fn pictures(&self, files: &[(&str, &str)]) -> String {
        for (fixture, name) in files {
            let to = PathBuf::from(self.path("pictures")).join(name);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(root().join("crates/data/tests/fixtures").join(fixture), to).unwrap();
        }
        self.path("pictures")
    }
}

/// Reads an f64 tensor from a file.
fn tensor(file: &str, name: &str) -> (Vec<usize>, Vec<f64>) {
    let bytes = fs::read(root().join(file)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F64);
    let values = view.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes));
    (view.shape().to_vec(), values.collect())
}

#[track_caller]
fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let off = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest > 0.0 && off <= tolerance * largest, "{off} of {largest}");
}

const GOLDEN: &str = "tests/golden/resnet50w8-mnist.safetensors";

#[test]
fn saved_logits_agree_or_the_exit_code_is_2() {
    let (shape, logits) = tensor(GOLDEN, "logits");
    let images = format!("0..{}", shape[0]);
    let output = influence(&[
        "check",
        "--images",
        &images,
        "--logits",
        GOLDEN,
        "--precision",
        "f64",
        "--tolerance",
        "1e-9",
    ]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let words = format!("the predicted class is the same at {0} of {0}", shape[0]);
    assert!(shown.contains("Largest difference") && shown.contains(&words), "{shown}");

    let temporary = TestFolder::new();
    let mut off = logits.clone();
    off[13] += 2.0;
    let file = temporary.tensors("off.safetensors", &[("logits", &shape, &off)]);
    assert_fails(
        &["check", "--images", &images, "--logits", &file],
        &["image 1 and class 3", "--bn-eps", "--mean"],
    );
    // The rows cover the whole split, so the row number is the image number.
    let rows: Vec<f64> = logits.iter().copied().cycle().take(100 * shape[1]).collect();
    let file = temporary.tensors("all.safetensors", &[("logits", &[100, shape[1]], &rows)]);
    assert!(influence(&["check", "--images", "2..4", "--logits", &file, "--quiet"]).status.success());
}

#[test]
fn logits_that_cannot_be_compared_say_why() {
    let temporary = TestFolder::new();
    let file = |name: &str, shape: &[usize], value: f64| {
        let values = vec![value; shape.iter().product()];
        temporary.tensors(name, &[("logits", shape, &values)])
    };
    let probabilities = file("probabilities.safetensors", &[3, 10], 0.1);
    assert_fails(&["check", "--logits", &probabilities], &["sum to 1", "before the softmax"]);
    let classes = file("classes.safetensors", &[100, 7], 1.0);
    assert_fails(&["check", "--logits", &classes], &["7 classes", "has 10"]);
    let few = file("few.safetensors", &[3, 10], 1.0);
    assert_fails(&["check", "--logits", &few], &["3 rows", "100 images", "--images 0..3"]);
    assert_fails(&["check", "--logits", &few, "--tolerance", "0"], &["--tolerance 0"]);
    let shape = file("shape.safetensors", &[10], 1.0);
    assert_fails(&["check", "--logits", &shape], &["[10]", "[N, K]"]);
    let two = temporary.tensors("two.safetensors", &[("a", &[1], &[1.0]), ("b", &[1], &[1.0])]);
    assert_fails(&["check", "--logits", &two], &["no array \"logits\"", "a, b"]);
}

#[test]
fn folders_score_their_good_pictures_and_name_the_others() {
    let temporary = TestFolder::new();
    let weights = temporary.resnet();
    let folder = temporary.pictures(&[
        ("plain.png", "cat/plain.png"),
        ("deep.png", "cat/deep.png"),
        ("cmyk.jpg", "dog/cmyk.jpg"),
        ("cut.jpg", "dog/cut.jpg"),
        ("one.png", "eel/one.png"),
    ]);
    let usual = [
        "score",
        "--weights",
        &weights,
        "--dataset",
        "folder",
        "--data",
        &folder,
        "--resize",
        "20x20",
        "--quiet",
    ];
    fs::create_dir(Path::new(&folder).join("fox")).unwrap();
    let out = temporary.path("scores.jsonl");
    let output = influence(&[&usual[..], &["--on-error", "skip", "--out", &out]].concat());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(!message.contains("cmyk"), "{message}");
    assert!(message.contains("image 3 is left out: dog/cut.jpg: "), "{message}");
    assert!(message.contains("image 4 is left out: eel/one.png: 1 x 1 pixels"), "{message}");
    let rows: Vec<serde_json::Value> =
        fs::read_to_string(&out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let labelled: Vec<_> = rows.iter().map(|row| (row["index"].as_u64(), row["label"].as_u64())).collect();
    assert_eq!(labelled, [(Some(0), Some(0)), (Some(1), Some(0)), (Some(2), Some(1))]);
    assert!(
        rows.iter().all(|row| row["influence"].as_f64().is_some() && row["preparation"] == "resize 20x20")
    );
    assert!(rows.iter().all(|row| row["split"] == "all" && row["dataset"] == "folder"));
    assert_fails(
        &[&usual[..], &["--out", &temporary.path("none.csv")]].concat(),
        &["dog/cut.jpg: ", "--on-error skip"],
    );
    // Three folders for a network of four classes are refused: "dog" could be another class there.
    fs::remove_dir(Path::new(&folder).join("fox")).unwrap();
    let usual = [&usual[..], &["--on-error", "skip", "--out", &out]].concat();
    assert_fails(&usual, &["3 named classes, the network 4", "--labels"]);
    assert!(influence(&[&usual[..], &["--objective", "predicted"]].concat()).status.success());
}

#[test]
fn labels_may_come_from_a_table() {
    let temporary = TestFolder::new();
    let weights = temporary.resnet();
    let folder = temporary.pictures(&[("plain.png", "a.png"), ("grey.png", "b.png")]);
    fs::write(temporary.path("labels.csv"), "label,path\n3,b.png\n1,a.png\n").unwrap();
    let (labels, out) = (temporary.path("labels.csv"), temporary.path("scores.csv"));
    let usual =
        ["score", "--weights", &weights, "--dataset", "folder", "--data", &folder, "--quiet", "--out", &out];
    let output = influence(&[&usual[..], &["--labels", &labels]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let csv = fs::read_to_string(&out).unwrap();
    let starts: Vec<_> = csv.lines().skip(1).map(|line| &line[..3]).collect();
    assert_eq!(starts, ["0,3", "1,1"]);
    assert_fails(&usual, &["pictures has no labels", "--objective predicted"]);
    fs::write(temporary.path("labels.csv"), "file,label\nb.png,1\n").unwrap();
    assert_fails(&[&usual[..], &["--labels", &labels]].concat(), &["no column `path`"]);
}

#[cfg(feature = "parquet")]
#[test]
fn tables_of_the_hubs_are_read_with_their_labels() {
    let temporary = TestFolder::new();
    let (weights, out) = (temporary.resnet(), temporary.path("scores.csv"));
    let usual = [
        "score",
        "--weights",
        &weights,
        "--dataset",
        "parquet",
        "--quiet",
        "--on-error",
        "skip",
        "--out",
        &out,
    ];
    let scored = |name: &str| {
        let output = influence(&[&usual[..], &["--data", &format!("tests/bring/{name}.parquet")]].concat());
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert!(message.contains("image 1 is left out: row 1 (cut.jpg): "), "{message}");
        fs::read_to_string(&out).unwrap()
    };
    let csv = scored("hub");
    let starts: Vec<_> = csv.lines().skip(1).map(|line| &line[..3]).collect();
    assert_eq!(starts, ["0,1", "2,0"]);
    // Compressed, in pages of either version, with a dictionary and without, in several row groups.
    assert_eq!(scored("hub-snappy"), csv);
    assert_eq!(scored("hub-snappy-v2"), csv);
    let zstd = ["--data", "tests/bring/hub-zstd.parquet"];
    assert_fails(&[&usual[..], &zstd].concat(), &["hub-zstd.parquet", "ZSTD", "compression=\"snappy\""]);
}

/// Pixels in [0, 1] that are not all equal.
fn pixels(count: usize) -> Vec<f64> {
    (0..count).map(|i| (i * 37 % 101) as f64 / 101.0).collect()
}

/// `values` `[N, C, H, W]` with a function applied per channel.
fn by_channel(values: &[f64], channels: usize, plane: usize, change: impl Fn(f64, usize) -> f64) -> Vec<f64> {
    values.iter().enumerate().map(|(at, &x)| change(x, at / plane % channels)).collect()
}

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

#[test]
fn a_normalisation_is_the_first_layer_of_a_named_network() {
    let temporary = TestFolder::new();
    let weights = temporary.resnet();
    let raw = pixels(2 * 3 * 36);
    let normal = by_channel(&raw, 3, 36, |x, channel| (x - MEAN[channel]) / STD[channel]);
    let jacobian = |name: &str, images: &[f64], more: &[&str]| {
        let data = temporary.tensors(&format!("{name}.safetensors"), &[("images", &[2, 3, 6, 6], images)]);
        let out = temporary.path(&format!("{name}-jacobian.safetensors"));
        let usual = [
            "jacobian",
            "--weights",
            &weights,
            "--dataset",
            "arrays",
            "--data",
            &data,
            "--objective",
            "predicted",
        ];
        let output = influence(&[&usual[..], &["--precision", "f64", "--out", &out], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        (tensor(&out, "logits").1, tensor(&out, "jacobian").1)
    };
    let flags = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"];
    let (logits, rows) = jacobian("raw", &raw, &flags);
    let (expected, before) = jacobian("normal", &normal, &[]);
    assert_close(&logits, &expected, 1e-13);
    // d z / d x = (d z / d y) / std.
    assert_close(&rows, &by_channel(&before, 3, 36, |x, channel| x / STD[channel]), 1e-12);
}

#[test]
fn influence_of_pixels_is_that_of_the_network_with_its_normalisation() {
    let temporary = TestFolder::new();
    let weights = temporary.resnet();
    let raw = pixels(2 * 3 * 36);
    let normal = by_channel(&raw, 3, 36, |x, _| (x - 0.5) / 0.25);
    let score = |name: &str, images: &[f64], more: &[&str]| -> Vec<[f64; 3]> {
        let data = temporary.tensors(&format!("{name}.safetensors"), &[("images", &[2, 3, 6, 6], images)]);
        let out = temporary.path(&format!("{name}.jsonl"));
        let usual = [
            "score",
            "--weights",
            &weights,
            "--dataset",
            "arrays",
            "--data",
            &data,
            "--objective",
            "predicted",
        ];
        let output =
            influence(&[&usual[..], &["--precision", "f64", "--quiet", "--out", &out], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = fs::read_to_string(&out).unwrap();
        let row = |line: &str| {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            ["influence", "probability", "jacobian_norm"].map(|name| row[name].as_f64().unwrap())
        };
        lines.lines().map(row).collect()
    };
    // G is 16 times as large in pixel units, so lambda = 16 there corresponds to 1 in units of the
    // standard deviation.
    let here = score("raw", &raw, &["--mean", "0.5", "--std", "0.25", "--filter", "tikhonov:16"]);
    let there = score("normal", &normal, &["--filter", "tikhonov:1"]);
    for (here, there) in here.iter().zip(&there) {
        assert_close(&here[..2], &there[..2], 1e-12);
        assert_close(&here[2..], &[4.0 * there[2]], 1e-12);
    }
}

#[test]
fn a_normalisation_is_the_first_layer_of_an_onnx_network() {
    const REFERENCE: &str = "crates/onnx/tests/files/small_opset17.safetensors";
    let temporary = TestFolder::new();
    let (shape, input) = tensor(REFERENCE, "input");
    let (mean, std) = ([0.5, 0.25], [0.25, 2.0]);
    let raw = by_channel(&input, 2, 16, |x, channel| x * std[channel] + mean[channel]);
    let data = temporary.tensors("raw.safetensors", &[("images", &shape, &raw)]);
    let out = temporary.path("jacobian.safetensors");
    let output = influence(&[
        "jacobian",
        "--network",
        "crates/onnx/tests/files/small_opset17.onnx",
        "--dataset",
        "arrays",
        "--data",
        &data,
        "--objective",
        "predicted",
        "--mean",
        "0.5,0.25",
        "--std",
        "0.25,2",
        "--precision",
        "f64",
        "--out",
        &out,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // The exporter folded BatchNorm into the convolution in f32, which by itself causes a
    // difference of 2.2e-8 from the reference, also without a normalisation layer.
    assert_close(&tensor(&out, "logits").1, &tensor(REFERENCE, "logits").1, 1e-7);
    let expected = by_channel(&tensor(REFERENCE, "jacobian").1, 2, 16, |x, channel| x / std[channel]);
    assert_close(&tensor(&out, "jacobian").1, &expected, 1e-7);
}

#[test]
fn networks_of_onnx_are_checked_too() {
    const NETWORK: &str = "crates/onnx/tests/files/small_opset17.onnx";
    const REFERENCE: &str = "crates/onnx/tests/files/small_opset17.safetensors";
    let temporary = TestFolder::new();
    let (shape, input) = tensor(REFERENCE, "input");
    let data = temporary.tensors("input.safetensors", &[("images", &shape, &input)]);
    let (shape, logits) = tensor(REFERENCE, "logits");
    let file = temporary.tensors("logits.safetensors", &[("of_any_name", &shape, &logits)]);
    let usual = ["check", "--network", NETWORK, "--dataset", "arrays", "--logits", &file];
    let with = |data: &str, tolerance: &str| {
        influence(&[&usual[..], &["--data", data, "--precision", "f64", "--tolerance", tolerance]].concat())
    };
    assert!(with(&data, "1e-7").status.success());
    assert_eq!(with(&data, "1e-9").status.code(), Some(2));
    let larger = temporary.tensors("larger.safetensors", &[("images", &[1, 3, 6, 6], &pixels(108))]);
    let message = text(&with(&larger, "1").stderr);
    assert!(message.contains("[3, 6, 6]") && message.contains("[2, 4, 4]"), "{message}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let temporary = TestFolder::new();
    let weights = temporary.resnet();
    let folder = temporary.pictures(&[("plain.png", "a/a.png")]);
    let with = |more: &[&str]| -> Vec<String> {
        let usual = ["score", "--weights", &weights, "--dataset", "folder", "--data", &folder];
        usual.iter().chain(more).map(|&word| word.to_owned()).collect()
    };
    let refused = |more: &[&str], words: &[&str]| {
        let arguments = with(more);
        assert_fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    refused(&["--network", "resnet50"], &["--network resnet50", "basic blocks"]);
    refused(&["--width", "8"], &["--width", "leave it out"]);
    refused(&["--bn-eps", "-1"], &["--bn-eps"]);
    refused(&["--mean", "1,2"], &["--mean 1,2", "3 channel(s)"]);
    refused(&["--std", "0"], &["above 0"]);
    refused(&["--resize", "big"], &["--resize big", "224x320"]);
    refused(&["--crop", "400"], &["18 x 24 pixels", "cannot be cropped"]);
    refused(&["--split", "train"], &["--split"]);
    refused(&["--grey"], &["images of 1x18x24", "3 channel(s)"]);
    assert_fails(&["score", "--resize", "20"], &["--resize is for --dataset folder"]);
    assert_fails(&["score", "--labels", "x.csv"], &["--labels is for --dataset folder"]);
    assert_fails(&["score", "--bn-eps", "1e-3"], &["--bn-eps", "the paper's epsilon"]);
    let strange = temporary.tensors("strange.safetensors", &[("blocks.0.attn.qkv.weight", &[1], &[1.0])]);
    assert_fails(
        &["score", "--weights", &strange],
        &["1 tensors (blocks.0.attn.qkv.weight", "torch.onnx.export"],
    );
}
