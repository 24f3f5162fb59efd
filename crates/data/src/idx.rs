//! IDX, the format of MNIST: an array of unsigned bytes behind a big-endian header.
//!
//! | bytes | holds |
//! |---|---|
//! | 0, 1 | zero |
//! | 2 | the type of the elements; 8 is the unsigned byte, the only one read here |
//! | 3 | the number D of dimensions: 3 for images (count, height, width), 1 for labels |
//! | 4 .. 4 + 4 D | the dimensions, 32 bits each |
//! | 4 + 4 D .. | the elements, the last dimension fastest |

use crate::error::{Error, counted, grouped};
use crate::foreign;
use crate::source::{MAX_DECOMPRESSED, Source};

/// The type code of unsigned bytes.
const UNSIGNED_BYTE: u8 = 8;
/// How much is read at a time where the length of the contents is not known before.
const CHUNK: u64 = 1 << 18;

/// An array of `D` dimensions, none of them 0, with `data.len()` their product.
pub(crate) struct Array<const D: usize> {
    pub(crate) dims: [usize; D],
    pub(crate) data: Vec<u8>,
}

/// The length of the header of an array of `dims` dimensions.
pub(crate) const fn header_length(dims: usize) -> usize {
    4 + 4 * dims
}

/// The dimensions in a header of unsigned bytes, or none where `bytes` do not begin with such a header: [`fault`] says why not.
pub(crate) const fn parse_header<const D: usize>(bytes: &[u8]) -> Option<[u32; D]> {
    if bytes.len() < header_length(D) || bytes[0] != 0 || bytes[1] != 0 {
        return None;
    }
    if bytes[2] != UNSIGNED_BYTE || bytes[3] as usize != D {
        return None;
    }
    let (mut dims, mut at) = ([0; D], 0);
    while at < D {
        let byte = header_length(at);
        dims[at] = u32::from_be_bytes([bytes[byte], bytes[byte + 1], bytes[byte + 2], bytes[byte + 3]]);
        at += 1;
    }
    Some(dims)
}

/// Reads the whole of `source` as an array of `D` dimensions: images where `D` is 3, labels where it is 1.
///
/// # Errors
/// [`Error::Corrupt`] unless the header is that of unsigned bytes and exactly the elements that it promises follow.
pub(crate) fn read<const D: usize>(mut source: Source<'_>) -> Result<Array<D>, Error> {
    let mut header = [0; 16];
    let wanted = header_length(D).min(header.len());
    let found = source.fill(&mut header[..wanted])?;
    let Some(dims) = parse_header::<D>(&header[..found]) else {
        let (offset, why) = fault::<D>(&header[..found]);
        return Err(source.corrupt(offset as u64, why));
    };
    let promised = size(&source, dims)?;
    check_length(&source, dims, promised)?;
    let data = elements(&mut source, dims, promised)?;
    let surplus = source.fill(&mut [0])?;
    if surplus > 0 {
        let why = format!("bytes follow after the {} that the header promises", quantity(dims));
        return Err(source.corrupt(source.offset() - 1, why));
    }
    Ok(Array { dims: dims.map(|extent| extent as usize), data })
}

/// Where and why `bytes`, the first of a file, are no header of unsigned bytes in `D` dimensions.
fn fault<const D: usize>(bytes: &[u8]) -> (usize, String) {
    let cut = |at: usize| {
        (at, format!("cut short inside the header of {} bytes: no {}", header_length(D), nouns(D).1))
    };
    match *bytes {
        [] => (0, format!("the file is empty: no {}", nouns(D).1)),
        [_, _, 0, 0, ..] if usize::from(bytes[0]) == D && bytes[1] == UNSIGNED_BYTE => {
            (0, "the header is in reversed byte order (little-endian); IDX is big-endian".to_owned())
        }
        [0] | [0, 0] => cut(bytes.len()),
        [0, 0, UNSIGNED_BYTE] => cut(3),
        [0, 0, UNSIGNED_BYTE, dims, ..] if usize::from(dims) != D => (3, wrong_dims(usize::from(dims), D)),
        [0, 0, UNSIGNED_BYTE, ..] => cut(bytes.len()),
        [0, 0, code, ..] => (2, wrong_type(code)),
        _ => {
            let at = usize::from(bytes[0] == 0);
            let what = foreign::recognise(bytes).map_or_else(String::new, |what| format!("; it is {what}"));
            (at, format!("not an IDX file: it does not begin with two zero bytes{what}"))
        }
    }
}

fn wrong_type(code: u8) -> String {
    let name = match code {
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        0x0e => "64-bit floats",
        _ => "a type that IDX does not know",
    };
    format!("the elements are {name} (type code {code:#04x}); only unsigned bytes (0x08) are read")
}

fn wrong_dims(found: usize, wanted: usize) -> String {
    let what = match found {
        1 => "; it is a file of labels",
        3 => "; it is a file of images",
        _ => "",
    };
    format!("{found} dimensions where {} have {wanted}{what}", nouns(wanted).1)
}

/// The number of elements, at least 1.
fn size<const D: usize>(source: &Source<'_>, dims: [u32; D]) -> Result<u64, Error> {
    if let Some(at) = dims.iter().position(|&extent| extent == 0) {
        return Err(source.corrupt(
            header_length(at) as u64,
            format!("the header says {}: nothing to read", quantity(dims)),
        ));
    }
    let product = dims.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent.into()));
    product.filter(|&size| size <= i64::MAX as u64).ok_or_else(|| {
        let why = format!("the header promises {}: more than any file holds", quantity(dims));
        source.corrupt(4, why)
    })
}

/// Refuses, before anything is read or set aside, a header that does not agree with the length of the file.
fn check_length<const D: usize>(source: &Source<'_>, dims: [u32; D], promised: u64) -> Result<(), Error> {
    let header = header_length(D) as u64;
    let Some(length) = source.length() else {
        if source.is_compressed() && header + promised > MAX_DECOMPRESSED {
            let most = grouped(MAX_DECOMPRESSED);
            let why = format!(
                "the header promises {}: out of gzip at most {most} bytes are read; decompress it first",
                quantity(dims)
            );
            return Err(source.corrupt(4, why));
        }
        return Ok(());
    };
    let found = length.saturating_sub(header);
    if found == promised {
        return Ok(());
    }
    let offset = length.min(header + promised);
    Err(source.corrupt(offset, miscounted(dims, promised, found)))
}

fn miscounted<const D: usize>(dims: [u32; D], promised: u64, found: u64) -> String {
    let whole = found / (promised / u64::from(dims[0])).max(1);
    let (one, many) = nouns(D);
    let there = counted(whole, one, many);
    let (promise, promised, found) = (quantity(dims), grouped(promised), grouped(found));
    format!("the header promises {promise}, {promised} bytes, but {found} bytes follow it: {there}")
}

/// The elements. Where the length of the contents is unknown they are gathered in chunks as they come, so that what is set aside is
/// at most twice what was there, and only once it is all there.
fn elements<const D: usize>(
    source: &mut Source<'_>,
    dims: [u32; D],
    promised: u64,
) -> Result<Vec<u8>, Error> {
    let chunk = if source.length().is_some() { promised } else { CHUNK };
    let (mut chunks, mut total) = (Vec::new(), 0);
    while total < promised {
        let step = chunk.min(promised - total);
        let mut data = source.room(step)?;
        data.resize(step as usize, 0);
        let count = source.fill(&mut data).map_err(|error| with_count(error, dims, promised))?;
        total += count as u64;
        if count < data.len() {
            return Err(source.corrupt(source.offset(), miscounted(dims, promised, total)));
        }
        chunks.push(data);
    }
    if chunks.len() == 1 {
        return Ok(chunks.swap_remove(0));
    }
    let mut whole = source.room(promised)?;
    chunks.iter().for_each(|data| whole.extend_from_slice(data));
    Ok(whole)
}

/// Says of damaged gzip data how many images came out of it.
fn with_count<const D: usize>(error: Error, dims: [u32; D], promised: u64) -> Error {
    match error {
        Error::Corrupt { file, offset, why } => {
            let found = offset.saturating_sub(header_length(D) as u64);
            let (one, many) = nouns(D);
            let whole = counted(found / (promised / u64::from(dims[0])).max(1), one, many);
            Error::Corrupt { file, offset, why: format!("{why}: {whole} of {}", grouped(dims[0])) }
        }
        other => other,
    }
}

/// One and many of what an array of `dims` dimensions holds.
const fn nouns(dims: usize) -> (&'static str, &'static str) {
    if dims == 1 { ("label", "labels") } else { ("image", "images") }
}

/// "10 000 images of 28 x 28", "10 000 labels".
fn quantity<const D: usize>(dims: [u32; D]) -> String {
    let (one, many) = nouns(D);
    let count = counted(dims[0], one, many);
    let sides: Vec<String> = dims[1..].iter().map(u32::to_string).collect();
    if sides.is_empty() { count } else { format!("{count} of {}", sides.join(" x ")) }
}
