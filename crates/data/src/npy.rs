//! NumPy's array files: a header that is a Python dictionary, then the elements.
//!
//! Format: `\x93NUMPY`, two bytes of version, the header's length (2 bytes, 4 from version 2 on),
//! the header, and the elements, little- or big-endian, in C or Fortran order. Supported here:
//! floats and integers of 1 to 8 bytes and booleans, in C order.

use std::io::Read;

/// The bytes with which every file begins.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Bytes of the longest header that is accepted. That of an array of numbers is far shorter.
const LONGEST_HEADER: usize = 1 << 16;

/// The elements of an array as bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RawArray {
    pub(crate) shape: Vec<usize>,
    /// The letter of the type (`f`, `i`, `u`, `b`) and the bytes of an element.
    pub(crate) kind: (char, usize),
    /// The elements, little-endian.
    pub(crate) bytes: Vec<u8>,
}

/// The byte offset of a fault, and what is wrong.
pub(crate) type OffsetFault = (u64, String);

/// Reads an array. Memory is allocated as data arrive from `source`, not by the shape in the
/// header.
pub(crate) fn read(mut source: impl Read) -> Result<RawArray, OffsetFault> {
    let io = |offset: u64| move |error: std::io::Error| (offset, error.to_string());
    let mut start = [0; 8];
    source.read_exact(&mut start).map_err(io(0))?;
    if !start.starts_with(MAGIC) {
        return Err((0, "this is not a .npy array".into()));
    }
    // The header's length is a little-endian number of 2 bytes, 4 from version 2 on; `length` has
    // room for both.
    let width: usize = if start[6] < 2 { 2 } else { 4 };
    let mut length = [0; 4];
    source.read_exact(&mut length[..width]).map_err(io(8))?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST_HEADER {
        return Err((8, format!("a header of {length} bytes is too long for an array of numbers")));
    }
    let mut header = vec![0; length];
    source.read_exact(&mut header).map_err(io(8 + width as u64))?;
    let header = String::from_utf8_lossy(&header);
    let Described { kind, big, shape } = described(&header).map_err(|why| (8 + width as u64, why))?;
    // The bytes that the shape announces. They are read as far as they come, and then counted.
    let count = shape.iter().try_fold(kind.1, |product, &size| product.checked_mul(size));
    let data_start = (8 + width + length) as u64;
    let Some(count) = count else { return Err((data_start, format!("shape {shape:?} is too large"))) };
    let mut bytes = Vec::new();
    source.by_ref().take(count as u64).read_to_end(&mut bytes).map_err(io(data_start))?;
    if bytes.len() != count {
        let found = bytes.len();
        return Err((data_start + found as u64, format!("the elements end after {found} of {count} bytes")));
    }
    // Read on to the end: nothing may follow, and a reader with a checksum verifies it only there.
    if source.read(&mut [0]).map_err(io(data_start))? > 0 {
        return Err((data_start + count as u64, "there are more bytes than the shape has elements".into()));
    }
    if big {
        bytes.chunks_exact_mut(kind.1).for_each(<[u8]>::reverse);
    }
    Ok(RawArray { shape, kind, bytes })
}

/// The description of the elements in a header.
struct Described {
    kind: (char, usize),
    /// Whether they are big-endian.
    big: bool,
    shape: Vec<usize>,
}

/// Parses a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`. Each
/// value is looked up by its key; the rest of the dictionary is not parsed.
fn described(header: &str) -> Result<Described, String> {
    let entry = |key: &str| {
        let (_, rest) = header.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let missing = |key: &str| format!("the header has no '{key}': {}", header.trim());
    if !entry("fortran_order").ok_or_else(|| missing("fortran_order"))?.starts_with("False") {
        return Err("its elements are in Fortran order: save numpy.ascontiguousarray of it".into());
    }
    let descr = entry("descr").ok_or_else(|| missing("descr"))?;
    let name: String = descr.trim_start_matches('\'').chars().take_while(|c| *c != '\'').collect();
    // The first character is the byte order: '<' little-endian, '>' big-endian, '|' not applicable
    // (one byte), '=' native. The rest is the kind and the number of bytes.
    let kind = match name.trim_start_matches(['<', '>', '|', '=']) {
        "f4" => ('f', 4),
        "f8" => ('f', 8),
        "f2" => ('f', 2),
        "u1" => ('u', 1),
        "u2" => ('u', 2),
        "u4" => ('u', 4),
        "u8" => ('u', 8),
        "i1" => ('i', 1),
        "i2" => ('i', 2),
        "i4" => ('i', 4),
        "i8" => ('i', 8),
        "b1" => ('b', 1),
        _ => return Err(format!("its elements have type '{name}': not real numbers")),
    };
    // Empty parts are dropped, because a tuple of one element ends in a comma: "(3,)".
    let shape = entry("shape").ok_or_else(|| missing("shape"))?;
    let inside = shape.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (sizes, _) = inside.ok_or_else(|| missing("shape"))?;
    let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
    let sizes: Result<Vec<usize>, _> = sizes.map(str::parse).collect();
    Ok(Described { kind, big: name.starts_with('>'), shape: sizes.map_err(|_| missing("shape"))? })
}
