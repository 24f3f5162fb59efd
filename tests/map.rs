//! `influence map` and `--perturb family:NAME`, run as a user would run them.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use common::{Golden, root};
use safetensors::{Dtype, SafeTensors};

/// Tolerance against the golden maps.
const GOLDEN: f64 = 1e-7;

fn influence(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs `influence map` into a folder that does not exist yet.
fn mapped(folder: &Path, arguments: &[&str]) -> std::path::PathBuf {
    let out = folder.join("maps");
    let output = influence(&[&["map", "--out", out.to_str().unwrap()], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    out
}

fn tensor(bytes: &[u8], name: &str, dtype: Dtype) -> (Vec<usize>, Vec<f64>) {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let view = file.tensor(name).unwrap();
    assert_eq!(view.dtype(), dtype);
    let words = view.data().as_chunks::<8>().0.iter();
    let values = match dtype {
        Dtype::F64 => words.map(|word| f64::from_le_bytes(*word)).collect(),
        _ => words.map(|word| i64::from_le_bytes(*word) as f64).collect(),
    };
    (view.shape().to_vec(), values)
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let relative = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() / b.abs().max(1e-300) };
    found.iter().zip(expected).map(relative).fold(0.0, f64::max)
}

#[test]
fn files_hold_the_golden_maps() {
    // First separate channels under the authors' filter, with the pictures; then joint channels
    // under the exact filter, with ranks and reach.
    let golden = Golden::open(&root().join("tests/golden/resnet50w8-mnist.safetensors"));
    let usual = ["--objective", "predicted", "--precision", "f64", "--images", "0..2"];
    let folder = tempfile::tempdir().unwrap();
    let paper = ["--filter", "paper:1e-3", "--channels", "separate", "--scales", "0,1,2,3"];
    let out = mapped(folder.path(), &[&usual[..], &paper].concat());
    assert_eq!(fs::read_dir(&out).unwrap().count(), 4);
    for image in 0..2 {
        let bytes = fs::read(out.join(format!("map-{image}.safetensors"))).unwrap();
        for scale in 0..4 {
            let (shape, found) = tensor(&bytes, &format!("scale{scale}"), Dtype::F64);
            assert_eq!(shape, [1, 28, 28]);
            let expected = golden.floats(&format!("map_paper_scale{scale}"));
            assert!(worst(&found, &expected[image * 784..][..784]) <= GOLDEN, "{image} {scale}");
        }
        let png = fs::read(out.join(format!("map-{image}.png"))).unwrap();
        let info = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        assert!(info.info().width > 1000 && info.info().height > 252);
    }
    let exact = ["--filter", "exact", "--channels", "joint", "--scales", "1,0"];
    fs::remove_dir_all(out).unwrap();
    let out = mapped(folder.path(), &[&usual[..], &exact].concat());
    for image in 0..2 {
        let bytes = fs::read(out.join(format!("map-{image}.safetensors"))).unwrap();
        for scale in 0..2 {
            let (shape, found) = tensor(&bytes, &format!("scale{scale}"), Dtype::F64);
            assert_eq!(shape, [28, 28]);
            let name = format!("map_exact_joint_scale{scale}");
            let expected = golden.floats(&name);
            assert!(worst(&found, &expected[image * 784..][..784]) <= GOLDEN, "{image} {scale}");
            let ranks = golden.ranks(&format!("rank_{name}"));
            let (_, found) = tensor(&bytes, &format!("rank{scale}"), Dtype::I64);
            assert!(found.iter().zip(&ranks[image * 784..]).all(|(a, b)| *a == *b as f64));
            let (_, reach) = tensor(&bytes, &format!("reach{scale}"), Dtype::F64);
            assert!(reach.iter().all(|reach| (0.0..=1.0 + 1e-12).contains(reach)));
        }
    }
}

/// A PNG of labels, 28 x 28: the upper half 0, the lower half 9.
fn halves(height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 28, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    let data: Vec<u8> = (0..28 * height).map(|at| if at / 28 < 14 { 0 } else { 9 }).collect();
    writer.write_image_data(&data).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn regions_and_directions_have_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let windows = folder.path().join("halves.png");
    fs::write(&windows, halves(28)).unwrap();
    let filter = ["--filter", "tikhonov:10", "--images", "3", "--direction"];
    let out = mapped(folder.path(), &[&filter[..], &["--windows", windows.to_str().unwrap()]].concat());
    let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["direction-3.png", "map-3.png", "map-3.safetensors"]);
    let bytes = fs::read(out.join("map-3.safetensors")).unwrap();
    let (shape, values) = tensor(&bytes, "windows", Dtype::F64);
    assert_eq!(shape, [28, 28]);
    let distinct: std::collections::BTreeSet<u64> = values.iter().map(|x| x.to_bits()).collect();
    assert_eq!(distinct.len(), 2);
    assert_eq!((values[0], values[783]), (values[13 * 28], values[14 * 28]));
    let (shape, direction) = tensor(&bytes, "direction", Dtype::F64);
    assert_eq!(shape, [1, 28, 28]);
    assert!((direction.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-9);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert!(file.tensor("scale0").is_err(), "windows take the place of scales");
}

#[test]
fn the_check_prints_a_table_and_writes_nothing() {
    let run = || influence(&["map", "--check", "--images", "0..3", "--scales", "0,2", "--fill", "mean"]);
    let output = run();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in
        ["largest influence", "largest Jacobian norm", "random", "half-width 0", "half-width 2", "3 of MNIST"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(shown, text(&run().stdout), "the same windows in every run");
}

/// Runs `influence` in a folder and asserts exit code 2, these words in the message, and an empty
/// folder.
fn refused(arguments: &[&str], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("maps");
    let whole = match arguments.first() {
        Some(&"score") => arguments.to_vec(),
        _ => [&["map", "--images", "0", "--out", out.to_str().unwrap()], arguments].concat(),
    };
    let output = influence(&whole);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    for part in says {
        assert!(message.contains(part), "{arguments:?}: {part:?} is not in {message:?}");
    }
    assert!(output.stdout.is_empty() && !message.contains("panicked"), "{arguments:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?} left something");
}

#[test]
fn wrong_words_are_refused_and_leave_nothing() {
    refused(&["--scales", "0,1,0"], &["0,1,0", "twice"]);
    refused(&["--scales", "14"], &["29 x 29", "28 x 28", "up to 13"]);
    refused(&["--scales", "1,99999999999999999"], &["larger than the images"]);
    refused(&["--scales", "-1"], &["-1", "0,1,3"]);
    refused(&["--scales", ""], &["not a half-width"]);
    refused(&["--scales", "1.5"], &["1.5"]);
    refused(&["--channels", "each"], &["each", "joint, separate"]);
    refused(&["--fill", "zero"], &["--check"]);
    refused(&["--check"], &["leave out --out"]);
    refused(&["--windows", "no-such.png"], &["no-such.png"]);
    refused(&["--objective", "entropy", "--filter", "paper"], &["entropy", "take exact or tikhonov"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    refused(&["--windows", &file("low.png", &halves(27))], &["27 x 28", "28 x 28"]);
    refused(&["--windows", &file("text.png", b"no picture")], &["text.png", "not a PNG"]);
    let output = influence(&["map", "--images", "0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--out DIR"));
    for (out, says) in
        [(file("a-file", b""), "not a folder"), ("no/such/folder".into(), "there is no folder no/such")]
    {
        let output = influence(&["map", "--images", "0", "--out", &out]);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
    let output = influence(&["map", "--images", "0", "--out", "/proc/maps"]);
    assert_eq!(output.status.code(), Some(2), "a place where nothing can be written");
    assert!(text(&output.stderr).contains("/proc/maps"), "{}", text(&output.stderr));
}

/// The columns of a CSV file by name.
fn rows(arguments: &[&str]) -> Vec<std::collections::BTreeMap<String, String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let whole =
        [&["score", "--images", "0..3", "--quiet", "--out", path.to_str().unwrap()], arguments].concat();
    let output = influence(&whole);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[test]
fn families_are_scored_with_their_direction() {
    let input = rows(&[]);
    for (name, members) in [
        ("affine", 6),
        ("translation", 2),
        ("rotation", 1),
        ("zoom", 1),
        ("shear", 2),
        ("brightness", 1),
        ("contrast", 1),
        ("gamma", 1),
        ("blur", 1),
        ("channels", 1),
    ] {
        for (row, whole) in rows(&["--perturb", &format!("family:{name}")]).iter().zip(&input) {
            assert_eq!(
                (row["perturbation"].as_str(), row["group"].as_str()),
                (format!("family:{name}").as_str(), name)
            );
            assert_eq!(row["bound"], whole["bound"], "the bound knows nothing of the family");
            assert!(row["rank"].parse::<usize>().unwrap() <= members);
            let reach: f64 = row["reach"].parse().unwrap();
            assert!((0.0..1.0).contains(&reach), "{name} {reach}");
            let knobs: serde_json::Value = serde_json::from_str(&row["direction"]).unwrap();
            assert_eq!(knobs.as_array().unwrap().len(), members, "{knobs}");
        }
    }
}

/// A safetensors file with one tensor of f64.
fn directions(shape: &[usize], values: &[f64]) -> Vec<u8> {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(Dtype::F64, shape.to_vec(), &bytes).unwrap();
    safetensors::serialize([("mine", view)], None).unwrap()
}

#[test]
fn directions_of_ones_own_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        format!("family:{}", path.to_str().unwrap())
    };
    // Brightness in other units has the same exact measure.
    let own = file("mine.safetensors", &directions(&[1, 1, 28, 28], &[3.0; 784]));
    for (row, named) in rows(&["--perturb", &own]).iter().zip(rows(&["--perturb", "family:brightness"])) {
        let value =
            |row: &std::collections::BTreeMap<String, String>| row["influence"].parse::<f64>().unwrap();
        assert!((value(row) / value(&named) - 1.0).abs() < 1e-5);
        assert_eq!(row["group"], "mine");
    }
    let refuse = |words: &str, says: &[&str]| refused(&["score", "--images", "0", "--perturb", words], says);
    refuse(
        &file("wide.safetensors", &directions(&[1, 28, 29], &[1.0; 812])),
        &["[1, 28, 29]", "[1, 28, 28]"],
    );
    let mut broken = [1.0; 784];
    broken[5] = f64::NAN;
    refuse(&file("nan.safetensors", &directions(&[1, 28, 28], &broken)), &["mine", "NaN", "element 5"]);
    refuse(&file("none.safetensors", &directions(&[0, 1, 28, 28], &[])), &["empty"]);
    refuse(&file("cut.safetensors", b"cut"), &["cut.safetensors", "not a safetensors file"]);
    refuse("family:no-such.safetensors", &["no-such.safetensors"]);
    refuse("family:weather", &["weather", "affine"]);
    refuse("weather", &["weather", "family:NAME"]);
}
