//! Damaged files: a real file, cut at every byte or with any one bit flipped, gives a graph or an
//! error, and nothing panics.

use std::path::Path;

use influence_onnx::{Ending, Error, ImportOptions, Model};

/// A convolution, a normalisation, a pool and a linear layer, written by PyTorch's older exporter
/// (opset 11).
const SMALL: &[u8] = include_bytes!("files/small_opset11.onnx");

#[test]
fn every_cut_is_an_error_that_names_the_byte_or_what_is_missing() {
    let mut offsets = 0;
    for length in 0..SMALL.len() {
        let Err(error) =
            Model::read(&SMALL[..length]).and_then(|model| model.graph(&ImportOptions::default()))
        else {
            continue;
        };
        assert!(!error.to_string().is_empty());
        if let Error::Corrupt { offset: Some(offset), .. } = error {
            assert!(offset <= length as u64);
            offsets += 1;
        }
    }
    assert!(offsets * 2 > SMALL.len(), "only {offsets} of {} cuts are reported with an offset", SMALL.len());
}

#[test]
fn flipped_bits_do_not_panic() {
    let mut read = 0;
    for at in 0..SMALL.len() {
        for bit in 0..8 {
            let mut bytes = SMALL.to_vec();
            bytes[at] ^= 1 << bit;
            read += usize::from(
                Model::read(&bytes).and_then(|model| model.graph(&ImportOptions::default())).is_ok(),
            );
        }
    }
    assert!(read > 0, "a changed weight is still a weight");
}

#[test]
fn lengths_beyond_the_file_allocate_no_memory() {
    // Field 7 (the graph) with a length of 2^62, and one of 2^31 in a tensor inside.
    for bytes in [
        &[0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40][..],
        &[0x3a, 0x08, 0x2a, 0x06, 0x4a, 0x80, 0x80, 0x80, 0x80, 0x08],
    ] {
        let error = Model::read(bytes).expect_err("it is no model");
        assert!(error.to_string().contains("offset"), "{error}");
    }
}

#[test]
fn bytes_that_are_not_a_model_are_refused() {
    for bytes in [&b""[..], b"PK\x03\x04", b"<html>", b"version https://git-lfs"] {
        let error = Model::read(bytes).expect_err("it is no model");
        assert!(error.to_string().contains("not an ONNX model"), "{error}");
    }
    let error = Model::open(Path::new("not/there.onnx")).expect_err("it is not there");
    assert!(matches!(error, Error::Io { .. }));
}

#[test]
fn sizes_that_no_tensor_has_are_refused() {
    for (bytes, reason) in [
        (&include_bytes!("files/taps_beyond_memory.onnx")[..], "two positive numbers below 2^31"),
        (include_bytes!("files/taps_that_do_not_divide.onnx"), "6 rows are not a multiple of 4 taps"),
        (include_bytes!("files/pads_beyond_memory.onnx"), "larger than a tensor may be"),
        (include_bytes!("files/image_beyond_memory.onnx"), "more elements than memory can hold"),
        (include_bytes!("files/margins_beyond_memory.onnx"), "more elements than memory can hold"),
    ] {
        let refused = Model::read(bytes).and_then(|model| model.graph(&ImportOptions::default()));
        let error = refused.expect_err("it has no graph");
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_softmax_of_the_named_domain_is_taken_off() {
    let model = Model::read(include_bytes!("files/named_domain.onnx")).unwrap();
    let import = model.graph(&ImportOptions::default()).unwrap();
    assert!(matches!(import.ending, Ending::Softmax { .. }), "{:?}", import.ending);
}
