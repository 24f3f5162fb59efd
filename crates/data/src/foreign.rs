//! Recognises, by their first bytes, files that are often found in place of a data file, and names
//! the remedy.

/// What kind of file begins with `start`, if that is a common mistake; 8 bytes are enough.
///
/// `None` for a file that may be data: an IDX file begins with 0, a CIFAR-10 batch with a label of
/// at most 9.
pub(crate) fn recognise(start: &[u8]) -> Option<&'static str> {
    if start.first().is_none_or(|&first| first <= 9) {
        return None;
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let known: [(&[u8], &[u8], &str); 6] = [
        (text, b"<", "a web page (HTML or XML), not data: the download got an error page; download it again"),
        (text, b"version ", "a Git LFS pointer, not the data itself: run `git lfs pull`"),
        (start, b"\x1f\x8b", "a gzip file: decompress it first"),
        (start, b"PK\x03\x04", "a zip archive: unpack it first"),
        (start, b"BZh", "a bzip2 file: decompress it first"),
        (start, b"\x80", "a Python pickle: the binary version of the data set is needed"),
    ];
    known.into_iter().find(|(bytes, sign, _)| bytes.starts_with(sign)).map(|(_, _, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_are_recognised() {
        let cases: [(&[u8], &str); 6] = [
            (b"<!DOCTYP", "web page"),
            (b"\xef\xbb\xbf\r\n<ht", "web page"),
            (b"version https", "Git LFS"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"PK\x03\x04", "zip"),
            (b"\x80\x04\x95", "pickle"),
        ];
        for (start, word) in cases {
            assert!(recognise(start).is_some_and(|text| text.contains(word)), "{start:?}");
        }
    }

    #[test]
    fn data_and_nothing_are_not() {
        for start in [&b""[..], b"\0\0\x08\x03", b"\0\0\x08\x01\0\0\x27\x10", b"\x06<html"] {
            assert_eq!(recognise(start), None, "{start:?}");
        }
    }
}
