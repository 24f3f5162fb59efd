//! Invalid safetensors files: whatever the bytes, a typed error and no panic.

use burn::tensor::{Device, FloatDType};
use influence_zoo::weights::{self, Checkpoint};
use influence_zoo::{Architecture, Error};

use crate::common::{file, made, tiny};

/// A file of a few kilobytes.
fn sound() -> Vec<u8> {
    file(&made(&tiny(&Device::flex())))
}

/// A file with this header, followed by this many bytes.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// The offset and reason of [`Error::Corrupt`] for these bytes.
fn corrupt(bytes: &[u8]) -> (u64, String) {
    match Checkpoint::open(bytes) {
        Err(Error::Corrupt { offset, why, .. }) => (offset, why),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_truncation() {
    let network = Architecture::Cnn { width: 4 }.init(1, 8, 3, &Device::flex()).unwrap();
    let bytes = file(&made(&network));
    assert!(bytes.len() > 4096);
    for length in (0..1024).chain((1024..bytes.len()).step_by(37)) {
        let (offset, why) = corrupt(&bytes[..length]);
        assert!(offset <= bytes.len() as u64, "{length}: {why}");
    }
}

#[test]
fn every_flipped_bit_of_the_header() {
    let device = Device::flex();
    let network = tiny(&device);
    let mut bytes = sound();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for at in 0..header {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            let outcome = weights::load(network.clone(), &bytes[..], FloatDType::F32, &device);
            refused += usize::from(outcome.is_err());
            bytes[at] ^= 1 << bit;
        }
    }
    // Some flips are harmless, e.g. a space that becomes another white space.
    assert!(refused > 7 * header, "{refused} of {}", 8 * header);
}

#[test]
fn every_overwritten_byte_of_the_data() {
    let device = Device::flex();
    let network = tiny(&device);
    let mut bytes = sound();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for at in header..bytes.len() {
        let byte = std::mem::replace(&mut bytes[at], 0xff);
        match weights::load(network.clone(), &bytes[..], FloatDType::F32, &device) {
            Ok(_) | Err(Error::NonFinite { .. } | Error::NegativeVariance { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        bytes[at] = byte;
    }
}

#[test]
fn announced_lengths_that_cannot_be() {
    let mut bytes = sound();
    for (length, part) in [
        (0, "the header is empty"),
        (1, "the header ends"),
        (100_000_001, "at most 100000000"),
        (u64::MAX, "at most 100000000"),
        (99_999_999, "the file has"),
        (bytes.len() as u64 - 7, "the file has"),
    ] {
        bytes[..8].copy_from_slice(&length.to_le_bytes());
        let (_, why) = corrupt(&bytes);
        assert!(why.contains(part), "{length}: {why}");
    }
    bytes.truncate(5);
    assert_eq!(corrupt(&bytes).0, 5);
    assert_eq!(corrupt(&[]).0, 0);
}

#[test]
fn bytes_behind_the_last_tensor() {
    let mut bytes = sound();
    bytes.extend([0; 3]);
    assert!(corrupt(&bytes).1.contains("the last 3 bytes of the file belong to no tensor"));
}

#[test]
fn headers_with_faults_of_their_own() {
    let good = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let cases = [
        (" {}".to_owned(), "does not begin with `{`"),
        ("[]".to_owned(), "does not begin with `{`"),
        (format!("{{{good},{good}}}"), "`a` is there twice"),
        (format!("{{{good}}}x"), "continues after"),
        (format!("{{{good}"), "the header ends"),
        (format!("{{{good},}}"), "expected `\"`"),
        (r#"{"a":1}"#.to_owned(), "expected `{`"),
        (r#"{"a":{}}"#.to_owned(), "lacks dtype"),
        (r#"{"a":{"dtype":"F32","shape":[2]}}"#.to_owned(), "lacks dtype"),
        (
            r#"{"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}"#.to_owned(),
            "no element type is called `F31`",
        ),
        (r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#.to_owned(), "unsigned"),
        (r#"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#.to_owned(), "whole number"),
        (r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#.to_owned(), "does not fill 8 bytes"),
        (r#"{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}}"#.to_owned(), "does not fill 8 bytes"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#.to_owned(), "backwards"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8]}}"#.to_owned(), "not two numbers"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4,8]}}"#.to_owned(), "more than 2 numbers"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}"#.to_owned(), "has no `x`"),
        (
            r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#.to_owned(),
            "`dtype` is there twice",
        ),
        (r#"{"__metadata__":{"k":1}}"#.to_owned(), "expected `\"`"),
        (r#"{"__metadata__":{"k":"1","k":"2"}}"#.to_owned(), "metadata is there twice"),
        ("{\"a\n\":{}}".to_owned(), "control character"),
        (format!("{{{}}}", "[".repeat(100_000)), "expected `\"`"),
    ];
    for (header, part) in cases {
        let (offset, why) = corrupt(&with_header(&header, 8));
        assert!(why.contains(part), "{header:.80}: {why}");
        assert!(offset <= 8 + header.len() as u64);
    }
}

#[test]
fn shapes_that_overflow() {
    for shape in [
        format!("[{0},{0}]", u64::MAX),
        format!("[{}]", u64::MAX),
        format!("[{},2]", 1u64 << 63),
        format!("[0,{0},{0}]", u64::MAX),
        format!("[{}]", ["1"; 17].join(",")),
        "[18446744073709551616]".to_owned(),
    ] {
        let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#);
        corrupt(&with_header(&header, 8));
    }
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{0}],"data_offsets":[0,{0}]}}}}"#, u64::MAX);
    corrupt(&with_header(&header, 8));
}

#[test]
fn holes_and_overlaps() {
    let two = |first: [u64; 2], second: [u64; 2]| {
        let tensor = |name: &str, [start, end]: [u64; 2]| {
            let length = end - start;
            format!(r#""{name}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#)
        };
        with_header(&format!("{{{},{}}}", tensor("first", first), tensor("second", second)), 8)
    };
    assert!(Checkpoint::open(&two([0, 4], [4, 8])[..]).is_ok());
    assert!(Checkpoint::open(&two([4, 8], [0, 4])[..]).is_ok(), "any order of keys will do");
    assert!(Checkpoint::open(&two([0, 0], [0, 8])[..]).is_ok(), "a tensor may be empty");
    let (offset, why) = corrupt(&two([0, 4], [5, 8]));
    assert_eq!(why, "tensor `second` follows a hole of 1 bytes");
    assert!(offset > 8);
    assert_eq!(corrupt(&two([1, 4], [4, 8])).1, "tensor `first` follows a hole of 1 bytes");
    assert_eq!(corrupt(&two([0, 5], [4, 8])).1, "tensor `second` overlaps another");
    assert_eq!(corrupt(&two([0, 8], [0, 8])).1, "tensor `second` overlaps another");
    let cut = two([0, 4], [4, 9]);
    assert_eq!(
        corrupt(&cut),
        (cut.len() as u64, "the file is cut short: its tensors need 1 more bytes".to_owned())
    );
}

#[test]
fn other_kinds_of_files_are_recognised() {
    for (start, part) in
        [(&b"PK\x03\x04 and more"[..], "zip archive"), (b"\x80\x02\x8a\x0al\xfc\x9cF", "pickle")]
    {
        assert!(corrupt(start).1.contains(part), "{}", corrupt(start).1);
    }
    for (start, what, remedy) in [
        (&b"\x1f\x8b\x08\x00\x00\x00\x00\x00"[..], "gzip", "unpack it"),
        (b"<!DOCTYPE html>", "HTML", "download the file again"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS", "git lfs pull"),
        (b"\x08\x08\x12\x07pytorch\x1a\x062.10.0", "an ONNX model", "--network FILE.onnx"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "an HDF5 file", "safetensors"),
        (b"{\"metadata\": {\"total_size\": 1}, \"weight_map\": {}}", "index of weights", "join them"),
        (b"\x80\x04}q\0.", "a Python pickle, but not one of torch.save", "torch.save(model.state_dict()"),
    ] {
        let error = Checkpoint::open(start).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::NotWeights { .. }), "{message}");
        assert!(message.contains(what) && message.contains(remedy), "{message}");
    }
}

#[test]
fn too_many_tensors() {
    let tensors: Vec<String> =
        (0..70_000).map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    assert!(corrupt(&with_header(&format!("{{{}}}", tensors.join(",")), 0)).1.contains("more than 65536"));
}

#[test]
fn a_file_that_shrinks_after_it_was_opened() {
    let path = std::env::temp_dir().join(format!("influence-zoo-shrinks-{}", std::process::id()));
    let bytes = sound();
    std::fs::write(&path, &bytes).unwrap();
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let faults = ["conv1.weight", "fc.weight", "fc.bias", "bn3.running_var"]
        .map(|name| checkpoint.read(name, FloatDType::F32).is_err());
    std::fs::remove_file(&path).unwrap();
    assert!(faults.contains(&true));
}
