//! Folders without the wanted files: the error names all missing files at once, what was found
//! instead, and what to do.

use crate::common::*;
use influence_data::{Dataset, DatasetKind, Error, Split};
use std::path::Path;

/// Asserts [`Error::Missing`] with all of `words` in the message.
#[track_caller]
fn assert_missing(kind: DatasetKind, split: Split, folder: &Path, words: &[&str]) {
    let found = Dataset::open(kind, folder, split);
    assert!(matches!(found, Err(Error::Missing { .. })), "{found:?}");
    let message = found.map_err(|error| error.to_string()).err().unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn an_empty_folder_tells_what_was_looked_for_and_where_to_get_it() -> TestResult {
    let empty = folder(&[])?;
    let folder = format!(" in {}; ", empty.path().display());
    let spellings = "looked for t10k-images-idx3-ubyte[.gz] or t10k-images.idx3-ubyte[.gz], t10k-labels-idx1-ubyte[.gz] or";
    let words = [
        "not found: MNIST test images, labels; ",
        spellings,
        &folder,
        "download the four files from https://",
    ];
    assert_missing(DatasetKind::Mnist, Split::Test, empty.path(), &words);
    assert_missing(
        DatasetKind::Mnist,
        Split::Train,
        empty.path(),
        &["MNIST training images", "train-images-idx3-ubyte"],
    );
    let words =
        ["CIFAR-10 test batch; looked for test_batch.bin in", "download and unpack the binary version"];
    assert_missing(DatasetKind::Cifar10, Split::Test, empty.path(), &words);
    Ok(())
}

#[test]
fn one_missing_file_is_named_alone() -> TestResult {
    let only_images = folder(&[(IMAGES, &images(5))])?;
    let words = ["not found: MNIST test labels; looked for t10k-labels", "found t10k-images-idx3-ubyte; "];
    assert_missing(DatasetKind::Mnist, Split::Test, only_images.path(), &words);
    Ok(())
}

#[test]
fn a_missing_batch_is_named_with_the_images_that_are_there() -> TestResult {
    let files = ["data_batch_1.bin", "data_batch_2.bin", "data_batch_4.bin", "data_batch_5.bin"];
    let batch = batch(3);
    let folder = folder(&files.map(|name| (name, batch.as_slice())))?;
    let words = [
        "not found: CIFAR-10 training batch 3; looked for data_batch_3.bin in",
        "found data_batch_1.bin, data_batch_2.bin, data_batch_4.bin, data_batch_5.bin with 12 images",
    ];
    assert_missing(DatasetKind::Cifar10, Split::Train, folder.path(), &words);
    Ok(())
}

#[test]
fn the_folder_above_or_below_is_pointed_out() -> TestResult {
    let data = folder(&[
        ("mnist/t10k-images-idx3-ubyte", &images(5)),
        ("mnist/t10k-labels-idx1-ubyte", &labels(5)),
        ("cifar-10-batches-bin/test_batch.bin", &batch(1)),
        ("mnist/deeper/nothing", b""),
    ])?;
    let mnist = data.path().join("mnist");
    let pointed = |folder: &Path| format!("they are in {}: name that folder", folder.display());
    assert_missing(DatasetKind::Mnist, Split::Test, data.path(), &[&pointed(&mnist)]);
    assert_missing(
        DatasetKind::Mnist,
        Split::Test,
        &mnist.join("deeper"),
        &[&pointed(&mnist.join("deeper/.."))],
    );
    let cifar = data.path().join("cifar-10-batches-bin");
    assert_missing(DatasetKind::Cifar10, Split::Test, data.path(), &[&pointed(&cifar)]);
    Ok(())
}

#[test]
fn other_contents_are_pointed_out() -> TestResult {
    let mnist = folder(&[(IMAGES, &images(5)), (LABELS, &labels(5))])?;
    assert_missing(DatasetKind::Mnist, Split::Train, mnist.path(), &["the folder holds only the test split"]);
    assert_missing(
        DatasetKind::Cifar10,
        Split::Test,
        mnist.path(),
        &["the folder holds MNIST: its data set is called mnist"],
    );
    let pickles = folder(&[("data_batch_1", b"\x80"), ("test_batch", b"\x80")])?;
    assert_missing(DatasetKind::Cifar10, Split::Train, pickles.path(), &["Python version"]);
    let archive = folder(&[("cifar-10-binary.tar.gz", b"\x1f\x8b")])?;
    assert_missing(DatasetKind::Cifar10, Split::Train, archive.path(), &["unpack it (tar xzf)"]);
    Ok(())
}

#[test]
fn no_folder_and_a_file_for_a_folder_are_reported() -> TestResult {
    let data = folder(&[(IMAGES, &images(5)), (LABELS, &labels(5))])?;
    assert_missing(
        DatasetKind::Mnist,
        Split::Test,
        &data.path().join("nowhere"),
        &["there is no such folder"],
    );
    assert_missing(
        DatasetKind::Mnist,
        Split::Test,
        &data.path().join(IMAGES),
        &["that is a file: name the folder that holds it"],
    );
    Ok(())
}
