//! Invalid files of `torch.save`: whatever the bytes, a typed error and no panic.

use burn::tensor::FloatDType;
use influence_zoo::Error;
use influence_zoo::weights::Checkpoint;
use proptest::prelude::*;

use crate::archive::{archive, dict, pickle, tensor, text, torch_file};
use crate::torch::{fixture, refusal};

/// Files of both formats.
const FILES: [&str; 4] = ["cnn.pt", "cnn-before-1.6.pt", "cnn-nested.pth", "views.pt"];

/// Opens the file and reads every tensor, ignoring the results.
fn read_all(bytes: &[u8]) -> Result<(), Error> {
    let mut checkpoint = Checkpoint::open(bytes)?;
    let names: Vec<String> = checkpoint.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    for name in names {
        match checkpoint.read(&name, FloatDType::F32) {
            Ok(_) | Err(Error::NonFinite { .. } | Error::NotFloat { .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

#[test]
fn every_truncation() {
    for name in FILES {
        let bytes = bytes(name);
        for length in 0..bytes.len() {
            match read_all(&bytes[..length]) {
                Err(Error::Corrupt { offset, .. }) => assert!(offset <= bytes.len() as u64),
                other => panic!("{name} cut to {length}: {other:?}"),
            }
        }
    }
}

#[test]
fn every_byte_changed() {
    for name in FILES {
        let mut bytes = bytes(name);
        for at in 0..bytes.len() {
            let byte = bytes[at];
            for other in [byte ^ 1, byte ^ 0x80, !byte, 0] {
                bytes[at] = other;
                let _ = read_all(&bytes);
            }
            bytes[at] = byte;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_changes_and_cuts(
        file in 0..FILES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = bytes(FILES[file]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_all(&bytes);
    }

    #[test]
    fn random_pickles(instructions in prop::collection::vec(instruction(), 0..40)) {
        let _ = read_all(&torch_file(&pickle(&instructions.concat()), &[0.0; 8]));
    }
}

/// An instruction that weight files use, with some operand.
fn instruction() -> impl Strategy<Value = Vec<u8>> {
    let plain =
        prop::sample::select(&b"()tRQbsuea}]N0\x85\x86\x87\x88\x89\x93\x94"[..]).prop_map(|byte| vec![byte]);
    let memo = (prop::sample::select(&b"qhK"[..]), 0..6u8).prop_map(|(opcode, at)| vec![opcode, at]);
    let global = prop::sample::select(
        &["ccollections\nOrderedDict\n", "ctorch\nFloatStorage\n", "ctorch._utils\n_rebuild_tensor_v2\n"][..],
    );
    let whole =
        (0..9i32, 0..9i32, 0..9i32).prop_map(|(offset, n, step)| tensor("0", 8, offset, &[n], &[step]));
    let word = prop::sample::select(&["storage", "0", "w"][..]).prop_map(text);
    prop_oneof![4 => plain, 2 => memo, 1 => global.prop_map(|name| name.as_bytes().to_vec()), 1 => whole, 1 => word]
}

#[test]
fn pickles_with_faults_of_their_own() {
    for (code, part) in [
        (b".".to_vec(), "the stack is empty"),
        (b"(.".to_vec(), "the stack is empty"),
        (b"K\x01(\x85.".to_vec(), "fewer values"),
        (b"t.".to_vec(), "a mark is needed"),
        (b"h\x07.".to_vec(), "no value is stored in the memo as 7"),
        (b"K\x01)R.".to_vec(), "not a function"),
        (b"ctorch\nFloatStorage\n)R.".to_vec(), "other arguments"),
        (b"ccollections\nOrderedDict\nK\x01\x85R.".to_vec(), "other arguments"),
        (b"K\x01K\x02s.".to_vec(), "where there is none"),
        (b"NK\x01K\x02s.".to_vec(), "where there is none"),
        (b"}(K\x01u.".to_vec(), "a key without a value"),
        (b"N(K\x01e.".to_vec(), "where there is none"),
        (b"NNb.".to_vec(), "attributes of"),
        (b"NQ.".to_vec(), "not a plain storage"),
        (b"NN\x93.".to_vec(), "not text"),
        (b"X\xff\xff\xff\xffa.".to_vec(), "ends within"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.".to_vec(), "ends within"),
        (b"X\x01\0\0\0\xff.".to_vec(), "not UTF-8"),
        (b"ctorch\n".to_vec(), "ends within a name"),
        (b"\x8a\x08\0".to_vec(), "ends within"),
        (b"\x80\x01.".to_vec(), "protocol 1"),
        (b"\x80\x06.".to_vec(), "protocol 6"),
        (b"}\x81.".to_vec(), "instruction 0x81, which no file of weights needs"),
        (b"".to_vec(), "ends within"),
        (b"N".repeat(1 << 20), "more than 1048576 instructions"),
    ] {
        let message = refusal(&torch_file(&code, &[]));
        assert!(message.contains(part), "{message}");
        assert!(message.contains("not a valid PyTorch file: at byte "), "{message}");
    }
}

#[test]
fn depth_and_circles_are_harmless() {
    let nested = b"}X\x01\0\0\0k".repeat(200_000);
    let code = [&b"\x80\x02"[..], &nested, b"N", &b"s".repeat(200_000), b"."].concat();
    assert!(refusal(&torch_file(&code, &[])).contains("but `k` (a dict)"));
    let code = pickle(b"}q\0X\x01\0\0\0kh\0s");
    assert!(refusal(&torch_file(&code, &[])).contains("but `k` (a dict)"));
    let marks = [&b"\x80\x02"[..], &b"(".repeat(500_000), &b"t".repeat(500_000), b"."].concat();
    assert!(refusal(&torch_file(&marks, &[])).contains("it holds a tuple"));
}

#[test]
fn tensors_that_do_not_lie_in_their_storage() {
    let axes = [1; 17];
    for (value, part) in [
        (tensor("1", 4, 0, &[4], &[1]), "the storage `1` is not in the file"),
        (tensor("0", 5, 0, &[4], &[1]), "has a storage of 5 elements, and the file has 4"),
        (tensor("0", 3, 0, &[3], &[1]), "has a storage of 3 elements, and the file has 4"),
        (tensor("0", -4, 0, &[4], &[1]), "not a plain storage"),
        (tensor("0", 4, 1, &[4], &[1]), "spans 4 elements from element 1 of 4"),
        (tensor("0", 4, 5, &[0], &[1]), "spans 0 elements from element 5 of 4"),
        (tensor("0", 4, 0, &[2, 2], &[3, 1]), "spans 5 elements"),
        (tensor("0", 4, -1, &[4], &[1]), "begins before its storage"),
        (tensor("0", 4, 0, &[-4], &[1]), "not a size"),
        (tensor("0", 4, 0, &[4], &[-1]), "not a size"),
        (tensor("0", 4, 0, &[4], &[1, 1]), "more axes than strides"),
        (tensor("0", 4, 0, &[5], &[0]), "repeats elements, 5 from 4"),
        (tensor("0", 4, 0, &[i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0]), "beyond 64 bits"),
        (tensor("0", 4, 0, &[2, 2], &[i32::MAX, i32::MAX]), "spans"),
        (tensor("0", 4, 0, &axes, &axes), "17 axes"),
    ] {
        let message = refusal(&torch_file(&pickle(&dict(&[("w", &value)])), &[1.0; 4]));
        assert!(message.contains(part), "{message}");
    }
    let longest = [0, i32::MAX, i32::MAX, i32::MAX];
    let empty = torch_file(&pickle(&dict(&[("w", &tensor("0", 1, 0, &longest, &[1; 4]))])), &[1.0]);
    assert!(read_all(&empty).is_ok(), "an empty tensor may have axes of any length");
}

#[test]
fn archives_with_faults_of_their_own() {
    let code = pickle(b"}");
    let sound = archive(&[("x/data.pkl", &code)]);
    let with = |at: usize, byte: u8| {
        let mut file = sound.clone();
        let directory = file.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
        file[directory + at] = byte;
        file
    };
    let program = archive(&[("x/data.pkl", &code), ("x/constants.pkl", b"")]);
    let doubled = archive(&[("x/data.pkl", &code), ("x/data.pkl", &code)]);
    for (file, part) in [
        (archive(&[("x/y", b"")]), "without a pickle NAME/data.pkl"),
        (archive(&[("data.pkl", &code)]), "without a pickle NAME/data.pkl"),
        (doubled, "`x/data.pkl` is there twice"),
        (program, "torch.save(torch.jit.load(\"model.pt\").state_dict()"),
        (with(8, 1), "is encrypted"),
        (with(10, 8), "is compressed"),
        (with(20, 9), "two lengths"),
        (with(42, 1), "no header"),
        (with(45, 1), "does not lie before the directory"),
        (with(46, 0xff), "not UTF-8"),
        (with(28, 0xff), "cut short"),
        (with(0, 0), "no entry"),
        ([&sound[..], b"x"].concat(), "a zip archive without its end"),
    ] {
        let message = refusal(&file);
        assert!(message.contains(part), "{message}");
    }
    let whole =
        [b"PK\x03\x04".to_vec(), b"PK\x06\x07".to_vec(), vec![0xff; 18], b"PK\x05\x06".to_vec()].concat();
    let end_64 = [&whole[..], &[0; 8], &[0xff; 8], &[0; 2]].concat();
    assert!(refusal(&end_64).contains("64-bit archive without its end record"));
}
