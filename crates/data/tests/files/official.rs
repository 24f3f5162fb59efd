//! Tests on the official files, if they are available: in the folder named by INFLUENCE_DATA, or in
//! data or ../data, relative to the workspace.

use crate::common::TestResult;
use influence_data::{Dataset, DatasetKind, Split};
use std::path::PathBuf;

/// The folder with the files of `kind`. If there is none, a line says that the test is skipped.
fn official(kind: DatasetKind) -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("INFLUENCE_DATA").map(PathBuf::from);
    let below = match kind {
        DatasetKind::Cifar10 => "cifar-10-batches-bin",
        _ => "mnist",
    };
    let folders = named.into_iter().chain([workspace.join("data"), workspace.join("../data")]);
    let found = folders.map(|folder| folder.join(below)).find(|folder| folder.is_dir());
    if found.is_none() {
        skip(below);
    }
    found
}

#[allow(clippy::print_stderr, reason = "the reader of a test's output should know that it looked at nothing")]
fn skip(what: &str) {
    eprintln!("skipped: no {what} in data, in ../data or in the folder that INFLUENCE_DATA names");
}

/// How often each label occurs.
fn frequencies(set: &Dataset) -> [usize; 10] {
    let mut counts = [0; 10];
    set.labels().iter().for_each(|&label| counts[usize::from(label)] += 1);
    counts
}

#[test]
fn mnist() -> TestResult {
    let Some(folder) = official(DatasetKind::Mnist) else { return Ok(()) };
    let train = Dataset::open(DatasetKind::Mnist, &folder, Split::Train)?;
    assert_eq!((train.len(), train.shape()), (60_000, [1, 28, 28]));
    assert_eq!(frequencies(&train), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    assert_eq!(train.labels()[..5], [5, 0, 4, 1, 9]);

    let test = Dataset::open(DatasetKind::Mnist, &folder, Split::Test)?;
    assert_eq!((test.len(), test.shape()), (10_000, [1, 28, 28]));
    assert_eq!(frequencies(&test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    let sample = Dataset::embedded();
    assert_eq!(test.labels()[..100], *sample.labels());
    assert!((0..100).all(|index| test.image(index) == sample.image(index)));
    Ok(())
}

#[test]
fn cifar10() -> TestResult {
    let Some(folder) = official(DatasetKind::Cifar10) else { return Ok(()) };
    let train = Dataset::open(DatasetKind::Cifar10, &folder, Split::Train)?;
    assert_eq!((train.len(), train.shape(), frequencies(&train)), (50_000, [3, 32, 32], [5000; 10]));
    assert_eq!(train.labels()[..5], [6, 9, 9, 4, 1]);

    let test = Dataset::open(DatasetKind::Cifar10, &folder, Split::Test)?;
    assert_eq!((test.len(), test.shape(), frequencies(&test)), (10_000, [3, 32, 32], [1000; 10]));
    assert_eq!(test.labels()[..5], [3, 8, 8, 0, 6]);
    // The upper left pixel of the first test image, a cat: red, green and blue of the three planes.
    let cat = test.image(0);
    assert_eq!([cat[0], cat[1024], cat[2048]], [158, 112, 49]);
    assert_eq!(test.class_names()[3], "cat");
    Ok(())
}
