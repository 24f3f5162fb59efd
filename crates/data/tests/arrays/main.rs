//! Array files as NumPy writes them, and the errors for faulty ones. `arrays.py` makes the files.

use std::path::PathBuf;

use influence_data::{Arrays, Error};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/arrays").join(name)
}

fn open(name: &str) -> Arrays {
    Arrays::open(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn refused(name: &str) -> String {
    let error = Arrays::open(&file(name)).expect_err(name);
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error}");
    error.to_string()
}

/// The elements that all files contain.
fn numbers() -> Vec<f64> {
    (0..12).map(|i| (f64::from(i) - 4.0) / 8.0).collect()
}

#[test]
fn every_form_holds_the_same_numbers() {
    for name in ["stored.npz", "deflated.npz", "unlabelled.npz", "half.npy", "big.npy"] {
        let arrays = open(name);
        assert_eq!((arrays.len(), arrays.shape()), (2, &[2, 3][..]), "{name}");
        assert_eq!(arrays.batch::<f64>(&[0, 1]), numbers(), "{name}");
        assert_eq!(arrays.batch::<f64>(&[1]), numbers()[6..], "{name}");
        let labels = matches!(name, "stored.npz" | "deflated.npz").then_some(&[3, 1][..]);
        assert_eq!(arrays.labels(), labels, "{name}");
    }
}

#[test]
fn bytes_are_parts_of_255() {
    assert_eq!(open("bytes.npy").batch::<f64>(&[1, 0]), [1.0, 0.4, 0.0, 0.2]);
}

#[test]
fn what_is_left_out_is_gone() {
    let mut arrays = open("stored.npz");
    arrays.truncate(1);
    assert_eq!((arrays.len(), arrays.labels()), (1, Some(&[3][..])));
    arrays.truncate(0);
    assert_eq!(arrays.len(), 1, "one sample stays");
}

#[test]
fn files_that_do_not_fit_are_named_with_the_reason() {
    let cases = [
        ("nothing.npz", "no array \"images\", but pictures"),
        ("negative.npz", "the label of sample 1 is negative"),
        ("fewer.npz", "1 label for 2 samples"),
        ("real.npz", "whole numbers from 0"),
        ("fortran.npy", "numpy.ascontiguousarray"),
        ("complex.npy", "not real numbers"),
    ];
    for (name, words) in cases {
        let message = refused(name);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn every_cut_of_a_file_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["stored.npz", "deflated.npz", "half.npy"] {
        let whole = std::fs::read(file(name)).expect("it is there");
        for length in 0..whole.len() {
            let cut = folder.path().join(name);
            std::fs::write(&cut, &whole[..length]).expect("there is room");
            assert!(Arrays::open(&cut).is_err(), "{name} cut at {length} of {}", whole.len());
        }
    }
}
