//! Files of `torch.save`: those that `tests/fixtures/make.py` made with PyTorch, and variants made
//! in the tests.

use std::path::PathBuf;

use burn::tensor::{Device, FloatDType};
use influence_zoo::Error;
use influence_zoo::names::entries;
use influence_zoo::weights::{self, Checkpoint, Values};

use crate::archive::{archive, dict, pickle, tensor, torch_file, widened};
use crate::common::{file, made, tiny};

/// A file next to `make.py`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(checkpoint: &mut Checkpoint<'_>, name: &str) -> Vec<f64> {
    match checkpoint.read(name, FloatDType::F64) {
        Ok(Values::F64(values)) => values,
        other => panic!("{other:?}"),
    }
}

/// The error of opening these bytes.
pub(crate) fn refusal(bytes: &[u8]) -> String {
    Checkpoint::open(bytes).unwrap_err().to_string()
}

#[test]
fn networks_of_every_format_have_the_values_that_were_saved() {
    let device = Device::flex();
    let network = tiny(&device);
    for (name, prefix) in [("cnn.pt", ""), ("cnn-before-1.6.pt", ""), ("cnn-nested.pth", "module.")] {
        let path = fixture(name);
        let (_, report) = weights::load(network.clone(), &path, FloatDType::F32, &device).unwrap();
        let stripped = if prefix.is_empty() { 0 } else { 20 };
        assert_eq!((report.tensors, report.parameters, report.stripped), (20, 135, stripped), "{name}");
        assert!(report.extra.is_empty() && report.metadata.is_empty(), "{report}");
        assert!(report.to_string().contains("F32 in the file, f32 here"), "{report}");
        let mut checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors().len(), 23, "with three counts of batches");
        assert_eq!(checkpoint.describe().unwrap().to_string(), "cnn, width 1, 1 channel(s), 3 classes");
        for (n, entry) in entries(&network).into_iter().enumerate() {
            let values = read(&mut checkpoint, &format!("{prefix}{}", entry.name));
            assert_eq!(values.len(), entry.shape.iter().product::<usize>());
            for (i, value) in values.into_iter().enumerate() {
                let expected = (((7 * i + 3 * n) % 101) as f64 / 100.0 + 0.01) as f32;
                assert_eq!(value, f64::from(expected), "{name}, {}, {i}", entry.name);
            }
        }
    }
}

#[test]
fn the_same_network_from_pytorch_and_from_safetensors() {
    let device = Device::flex();
    let network = tiny(&device);
    let bytes = file(&made(&network));
    let path = fixture("cnn.pt");
    let (mut ours, mut theirs) = (Checkpoint::open(&bytes[..]).unwrap(), Checkpoint::open(&path).unwrap());
    for entry in entries(&network) {
        let read = |checkpoint: &mut Checkpoint<'_>| checkpoint.read(&entry.name, FloatDType::F32).unwrap();
        let (Values::F32(ours), Values::F32(theirs)) = (read(&mut ours), read(&mut theirs)) else { panic!() };
        // The rule of `made` includes one more rounding.
        let near = ours.iter().zip(&theirs).all(|(ours, theirs)| (ours - theirs).abs() <= f32::EPSILON);
        assert!(near && ours.len() == theirs.len(), "{}", entry.name);
    }
}

#[test]
fn views_are_read_in_their_own_order() {
    let path = fixture("views.pt");
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    let base = |indices: &[usize]| indices.iter().map(|&i| i as f64 / 8.0).collect::<Vec<_>>();
    let by_column: Vec<usize> = (0..6).flat_map(|column| (0..4).map(move |row| 6 * row + column)).collect();
    let third = |i: f64| i / 8.0 / 3.0;
    for (name, shape, expected) in [
        ("transposed", &[6, 4][..], base(&by_column)),
        ("slice", &[4], base(&[5, 8, 11, 14])),
        ("window", &[2, 2, 2], base(&[4, 6, 8, 10, 16, 18, 20, 22])),
        ("scalar", &[], base(&[7])),
        ("empty", &[0, 5], vec![]),
        ("parameter", &[2, 6], base(&[6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17])),
        ("half", &[4], vec![-1.0, -0.875, -0.75, -0.625]),
        ("brain", &[4], vec![-1.0, -0.875, -0.75, -0.625]),
        ("double", &[3, 2], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0].map(third).to_vec()),
    ] {
        let info = checkpoint.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(info.shape, shape, "{name}");
        assert_eq!(read(&mut checkpoint, name), expected, "{name}");
    }
    let error = checkpoint.read("count", FloatDType::F64).unwrap_err();
    assert!(error.to_string().contains("`count` has type I64"), "{error}");
}

/// Tensors without plain numbers are no error until they are needed.
#[test]
fn tensors_of_other_kinds_are_reported_by_what_they_are() {
    let path = fixture("odd.pt");
    let mut checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(read(&mut checkpoint, "plain"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    for (name, kind) in [
        ("float8", "F8_E4M3"),
        ("float8_wide", "F8_E5M2"),
        ("int8", "I8"),
        ("quantised", "quantised"),
        ("per_channel", "quantised"),
        ("sparse", "sparse"),
        ("rows", "sparse"),
        ("meta", "without values"),
        ("complex", "C128"),
        ("typed", "U16"),
    ] {
        let info = checkpoint.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        assert_eq!(info.shape, [2, 3], "{name}");
        let message = checkpoint.read(name, FloatDType::F32).unwrap_err().to_string();
        assert!(message.contains(&format!("`{name}` has type {kind}")), "{message}");
        assert!(message.contains("dequantize()") && message.contains("to_dense()"), "{message}");
    }
    let (device, beside) = (Device::flex(), fixture("cnn-beside.pt"));
    let (_, report) = weights::load(tiny(&device), &beside, FloatDType::F32, &device).unwrap();
    assert_eq!(report.tensors, 20, "with a float8 next to them");
}

#[test]
fn a_torchscript_program_is_refused_with_its_own_remedy() {
    let error = Checkpoint::open(&fixture("script.pt")).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::TorchScript { .. }), "{message}");
    assert!(message.contains("torch.jit.load(\"model.pt\").state_dict()"), "{message}");
}

#[test]
fn a_whole_model_is_refused_by_its_class() {
    let error = Checkpoint::open(&fixture("model.pt")).unwrap_err();
    let Error::Foreign { class, .. } = &error else { panic!("{error}") };
    assert_eq!(class, "torch.nn.modules.container.Sequential");
    let message = error.to_string();
    assert!(message.contains("model.pt: at byte ") && message.contains("nothing of it was run"), "{message}");
    assert!(message.contains("torch.save(model.state_dict(), \"weights.pt\")"), "{message}");
    // The classic attack: a call of `os.system`, with both instructions that can name a function.
    for attack in [&b"cos\nsystem\n(X\x02\0\0\0idtR"[..], b"\x8c\x02os\x8c\x06system\x93(X\x02\0\0\0idtR"] {
        let message = refusal(&torch_file(&pickle(attack), &[]));
        assert!(message.contains("asks for Python's `os.system`"), "{message}");
    }
}

#[test]
fn the_one_dict_of_tensors_is_found_or_the_keys_are_reported() {
    let one = tensor("0", 2, 0, &[2], &[1]);
    let weights = dict(&[("w", &one)]);
    let opened = |value: &[u8]| {
        Checkpoint::open(&torch_file(&pickle(value), &[1.0, 2.0])[..]).map(|it| it.tensors().len())
    };
    for sound in [
        weights.clone(),
        dict(&[("state_dict", &weights), ("epoch", b"K\x03")]),
        dict(&[("mean", &one), ("net", &dict(&[("model", &weights), ("arch", b"X\x01\0\0\0r")]))]),
    ] {
        assert_eq!(opened(&sound).unwrap(), 1);
    }
    for (value, part) in [
        (
            dict(&[("model", &weights), ("ema", &weights)]),
            "several dicts of tensors are in it, under `model`, `ema`",
        ),
        (dict(&[("w", &one), ("epoch", b"K\x03")]), "is in it, but `w` (a tensor), `epoch` (a number)"),
        (dict(&[]), "but an empty dict"),
        (b"}K\x01Ns".to_vec(), "but None under a number"),
        (one.clone(), "it holds a tensor"),
        (b"]".to_vec(), "it holds a list"),
        (dict(&[("w", &one), ("w", &one)]), "the key `w` is there twice"),
    ] {
        let message = opened(&value).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn archives_in_their_variants() {
    let pickle = pickle(&dict(&[("w", &tensor("0", 2, 0, &[2], &[1]))]));
    let [little, big] = [1.5f32.to_le_bytes(), 1.5f32.to_be_bytes()].map(|bytes| bytes.repeat(2));
    let records = |order, data| [("x/data.pkl", &pickle[..]), ("x/byteorder", order), ("x/data/0", data)];
    let commented = {
        let mut file = archive(&records(b"little", &little));
        let end = file.len();
        file[end - 2] = 5;
        [&file[..], b"hello"].concat()
    };
    for file in [
        archive(&records(b"big", &big)),
        archive(&[("x/data.pkl", &pickle), ("x/data/0", &little)]),
        archive(&[("x/data/0", &little), ("x/data.pkl", &pickle), ("x/code/data.pkl", b"")]),
        widened(&records(b"little", &little)),
        commented,
    ] {
        let mut checkpoint = Checkpoint::open(&file[..]).unwrap();
        assert_eq!(read(&mut checkpoint, "w"), [1.5, 1.5]);
    }
}
