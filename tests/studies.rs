//! The studies as a user runs them: compares the tables and numbers of `influence outliers` and
//! `influence compare` with plain counting over the files that they write.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::root;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_influence")).args(arguments).current_dir(root()).output().unwrap()
}

/// The output of a run, which must succeed.
fn shown(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], says: &str) {
    let output = run(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(message.contains(says), "{arguments:?}: {says:?} is not in {message}");
}

/// The rows of a CSV file by the names of its columns.
fn table(path: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.split(','));
    let names: Vec<&str> = lines.next().unwrap().collect();
    lines.map(|cells| names.iter().map(ToString::to_string).zip(cells.map(str::to_owned)).collect()).collect()
}

fn number(row: &HashMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap_or(f64::NEG_INFINITY)
}

/// The area under the ROC curve by counting: the share of (bad, good) pairs in which the bad image
/// has the larger value.
fn area(bad: &[f64], good: &[f64]) -> f64 {
    let pair = |a: f64, b: f64| if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
    bad.iter().flat_map(|a| good.iter().map(move |b| pair(*a, *b))).sum::<f64>()
        / (bad.len() * good.len()) as f64
}

/// The numbers of the line that begins with `name`.
fn line(shown: &str, name: &str) -> Vec<f64> {
    let line =
        shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {shown}"));
    let words = line[name.len()..].split(['[', ']', ',', ' ']);
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn planted_outliers_are_ranked_and_the_areas_are_those_of_counting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("planted.csv");
    let shown = shown(&["outliers", "--plant", "40", "--seed", "3", "--out", path.to_str().unwrap()]);
    let rows = table(&path);
    assert_eq!(rows.len(), 140);
    let bad = |row: &HashMap<String, String>| row["bad"] == "true";
    // The planted images follow the 100 of the sample, the same number of each class.
    assert!(rows.iter().all(|row| bad(row) == (number(row, "index") >= 100.0)));
    let planted: Vec<_> = rows.iter().filter(|row| bad(row)).collect();
    for class in 0..10 {
        assert_eq!(planted.iter().filter(|row| row["label"] == class.to_string()).count(), 4);
    }
    for row in &rows {
        let p: f64 = (0..10).map(|class| number(row, &format!("p{class}"))).sum();
        assert!((p - 1.0).abs() < 1e-12, "probabilities of image {}: {p}", row["index"]);
        assert_eq!(row["suggested"].is_empty(), row["label"] == row["predicted"]);
        assert!((number(row, &format!("p{}", row["label"])) / number(row, "probability") - 1.0).abs() < 1e-9);
    }
    // Places follow the influence.
    let mut by_place = rows.clone();
    by_place.sort_by_key(|row| row["place"].parse::<usize>().unwrap());
    assert!(by_place.iter().enumerate().all(|(at, row)| row["place"] == (at + 1).to_string()));
    assert!(by_place.is_sorted_by(|a, b| number(a, "log10_influence") >= number(b, "log10_influence")));
    // The areas on the terminal against counting over the rows.
    for (name, column) in [
        ("influence, exact", "log10_exact"),
        ("influence, tikhonov:100 ", "log10_tikhonov:100"),
        ("Jacobian norm", "jacobian_norm"),
        ("odds", "odds"),
        ("Fisher trace", "fisher_trace"),
    ] {
        let of = |kind: bool| -> Vec<f64> {
            rows.iter().filter(|row| bad(row) == kind).map(|row| number(row, column)).collect()
        };
        let found = line(&shown, name);
        assert!((found[0] - area(&of(true), &of(false))).abs() <= 5.1e-4, "{name}: {found:?}");
        assert!(found[1] <= found[0] && found[0] <= found[2] && found[1] < found[2], "{name}: {found:?}");
    }
}

#[test]
fn another_seed_plants_other_outliers_and_the_same_seed_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str, seed: &str| -> PathBuf {
        let path = folder.path().join(name);
        shown(&["outliers", "--plant", "10", "--seed", seed, "--quiet", "--out", path.to_str().unwrap()]);
        path
    };
    let [first, again, other] =
        [("a.csv", "1"), ("b.csv", "1"), ("c.csv", "2")].map(|(name, seed)| of(name, seed));
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(text(&first), text(&again));
    assert_ne!(text(&first), text(&other));
}

/// Takes the two images of which the network is least sure as the bad ones.
#[test]
fn known_bad_images_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.json");
    for (text, name) in [("[95, 87]", "bad.json"), ("index\n95\n87\n5000\n", "bad.csv")] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let shown = shown(&["outliers", "--top", "2", "--truth", path.to_str().unwrap()]);
        assert_eq!(line(&shown, "odds")[..2], [1.0, 1.0], "{shown}");
        assert!(shown.contains("2 of these images are known to be"), "{shown}");
        let ranked: Vec<&str> =
            shown.lines().filter(|line| line.ends_with(" bad") && !line.contains("place")).collect();
        assert_eq!(ranked.len(), 2, "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
    fs::write(&path, r#"{"a": [1], "b": [2]}"#).unwrap();
    refused(&["outliers", "--truth", path.to_str().unwrap()], "no list mnist_test; lists there: a, b");
    refused(&["outliers", "--truth", "nowhere.json"], "nowhere.json");
    refused(&["outliers", "--plant", "0"], "at least 1");
    refused(&["outliers", "--objective", "margin"], "leave it out");
    refused(&["outliers", "--filters", "exact,cut"], "--filters");
    refused(&["outliers", "--shard", "1/2"], "--shard");
    refused(&["outliers", "--sort", "odds"], "place");
}

/// Writes MNIST's files from the embedded sample: the first `train` images as the training split,
/// the rest as the test split.
fn split_sample(folder: &Path, train: usize) {
    let sample = root().join("crates/data/sample");
    let read = |name: &str| fs::read(sample.join(name)).unwrap();
    let (images, labels) = (read("t10k-images-idx3-ubyte"), read("t10k-labels-idx1-ubyte"));
    for (half, range) in [("train", 0..train), ("t10k", train..100)] {
        let count = (range.len() as u32).to_be_bytes();
        let part = |head: &[u8], bytes: &[u8], size: usize| {
            [&head[..4], &count, &head[8..], &bytes[range.start * size..range.end * size]].concat()
        };
        fs::write(folder.join(format!("{half}-images-idx3-ubyte")), part(&images[..16], &images[16..], 784))
            .unwrap();
        fs::write(folder.join(format!("{half}-labels-idx1-ubyte")), part(&labels[..8], &labels[8..], 1))
            .unwrap();
    }
}

#[test]
fn training_and_test_images_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    split_sample(folder.path(), 60);
    let path = folder.path().join("sets.csv");
    let data = folder.path().to_str().unwrap();
    let arguments = ["compare", "--dataset", "mnist", "--data", data, "--own"];
    let shown = shown(&[&arguments[..], &["--out", path.to_str().unwrap()]].concat());
    let rows = table(&path);
    let set = |name: &str, column: &str| -> Vec<f64> {
        let mut values: Vec<f64> =
            rows.iter().filter(|row| row["set"] == name).map(|row| number(row, column)).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (train, test) = (set("training", "influence"), set("test", "influence"));
    assert_eq!((train.len(), test.len()), (60, 40));
    assert!(rows.iter().all(|row| row["objective"] == "predicted"));
    let median = |of: &[f64]| (of[(of.len() - 1) / 2] + of[of.len() / 2]) / 2.0;
    let found = line(&shown, "        50");
    for (found, expected) in found.iter().zip([median(&train), median(&test)]) {
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }
    let below = |of: &[f64], x: f64| of.iter().filter(|y| **y <= x).count() as f64 / of.len() as f64;
    let apart = train.iter().chain(&test).map(|x| (below(&train, *x) - below(&test, *x)).abs());
    let distance = apart.fold(0.0, f64::max);
    let found = line(&shown, "influence, exact");
    assert!((found[0] - distance).abs() < 1e-4, "{found:?} {distance}");
    assert!((found[2] - area(&test, &train)).abs() < 1e-4, "{found:?}");
    assert!(
        shown.contains("accuracy 100.00 %") && shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    refused(&[&arguments[..], &["--split", "test"]].concat(), "leave --split out");
    refused(&["compare"], "no training images");
}

#[test]
fn two_networks_are_distinguished_by_their_weights() {
    let weights = "crates/data/sample/resnet50w8-mnist.safetensors";
    let shown = shown(&["compare", "--against", weights, "--images", "0..20"]);
    let found = line(&shown, "influence, exact");
    assert_eq!((found[0], found[2], found[4]), (0.0, 0.5, 1.0), "the same network twice: {shown}");
    assert!(shown.contains("embedded weights") && shown.contains("resnet50w8-mnist.safetensors"), "{shown}");
}
