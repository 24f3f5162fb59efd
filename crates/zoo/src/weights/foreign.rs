//! Recognises, by their first bytes, files that are often given in place of weights, and names the
//! remedy.

/// What the file is, and what to do.
pub(super) type Stranger = (&'static str, &'static str);

/// Number of bytes at the start of a file that [`recognise`] needs.
pub(super) const START: u64 = 1 << 10;

/// The usual remedies.
const SAVE: &str = "in Python, save a state_dict: torch.save(model.state_dict(), \"weights.pt\")";
const CONVERT: &str = "load the model in Python and save its weights with safetensors";

/// What kind of file begins with `start`, if that is a common mistake.
pub(super) fn recognise(start: &[u8]) -> Option<Stranger> {
    // A 64-bit length below 2^32 followed by `{` is a safetensors header, even if the bytes of the
    // length resemble another format.
    if matches!(start, [_, _, _, _, 0, 0, 0, 0, b'{', ..]) {
        return None;
    }
    // Fewer than 4 bytes may be a truncated file of torch.save.
    let pickle = if start.len() < 4 { &[] } else { start };
    let known: [(&[u8], &[u8], &str, &str); 9] = [
        (start, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras, for instance)", CONVERT),
        (start, b"\x93NUMPY", "a NumPy array", CONVERT),
        (start, b"GGUF", "a GGUF file", CONVERT),
        (start, b"\x1f\x8b", "compressed by gzip", "unpack it"),
        (start, b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself: git lfs pull"),
        (start.get(4..).unwrap_or_default(), b"TFL3", "a TensorFlow Lite model", CONVERT),
        (start.trim_ascii_start(), b"<", "an HTML page", "it may be an error page: download the file again"),
        (pickle, b"\x80\x02", "a Python pickle, but not one of torch.save", SAVE),
        (pickle, b"\x80\x04", "a Python pickle, but not one of torch.save", SAVE),
    ];
    let found = known.into_iter().find(|(bytes, sign, ..)| bytes.starts_with(sign));
    found.map(|(_, _, what, remedy)| (what, remedy)).or_else(|| json(start)).or_else(|| onnx(start))
}

/// Recognises JSON. A safetensors file begins with the length of its header, so it cannot begin
/// like a JSON text.
fn json(start: &[u8]) -> Option<Stranger> {
    const PARTS: &str = "join them: in Python, safetensors.torch.save_file({name: tensor for part in parts for \
                         name, tensor in safetensors.torch.load_file(part).items()}, \"weights.safetensors\")";
    let text = std::str::from_utf8(start).or_else(|error| std::str::from_utf8(&start[..error.valid_up_to()]));
    let text = text.ok()?.trim_start();
    let rest = text.strip_prefix('{')?.trim_start();
    match rest.contains("\"weight_map\"") || rest.contains("total_size") {
        true => Some(("the index of weights that are in several files next to it", PARTS)),
        false => (rest.starts_with('"') || rest.starts_with('}'))
            .then_some(("a JSON text", "the weights themselves are in a .safetensors or .pt file")),
    }
}

/// Recognises ONNX, a Protocol Buffers message: the version of the format (field 1, a small
/// number), followed by the producer's name (2), its version (3), a domain (4), the model's version
/// (5), a text (6) or the graph (7).
fn onnx(start: &[u8]) -> Option<Stranger> {
    const NETWORK: &str =
        "the weights of an ONNX model come with its network: name it with --network FILE.onnx";
    match start {
        [0x08, 1..=0x20, 0x12 | 0x1a | 0x22 | 0x28 | 0x32 | 0x3a, ..] => Some(("an ONNX model", NETWORK)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_recognised() {
        let cases: [(&[u8], &str); 12] = [
            (b"\x08\x08\x12\x07pytorch\x1a\x062.10.0", "ONNX"),
            (b"\x08\x0a:\x95\xc4\x01\x0a", "ONNX"),
            (b"\x89HDF\r\n\x1a\n\0\0\0", "HDF5"),
            (b"{\n  \"metadata\": {\n    \"total_size\": 12\n  },\n  \"weight_map\": {", "several files"),
            (b"{\"model_type\": \"resnet\"}", "JSON"),
            (b"\x93NUMPY\x01\0v\0{'descr'", "NumPy"),
            (b"GGUF\x03\0\0\0", "GGUF"),
            (b"\x20\0\0\0TFL3", "TensorFlow Lite"),
            (b"\x80\x02}q\0.", "pickle"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"\n <!DOCTYPE html>", "HTML"),
            (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ];
        for (start, word) in cases {
            assert!(recognise(start).is_some_and(|(what, _)| what.contains(word)), "{word}");
        }
    }

    #[test]
    fn weights_and_nothing_are_not() {
        for start in [
            &b""[..],
            b"\x08\x03\x12\0\0\0\0\0{\"a\":",
            b"\x10\0\0\0\0\0\0\0{\"a\":",
            b"\x7b\0\0\0\0\0\0\0{}",
            b"\x08\x03\0\0\0\0\0\0{",
        ] {
            assert_eq!(recognise(start), None, "{start:?}");
        }
    }
}
