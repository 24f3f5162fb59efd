//! IDX, the format of MNIST: a big-endian header followed by an array of unsigned bytes.
//!
//! | bytes | contents |
//! |---|---|
//! | 0, 1 | zero |
//! | 2 | the type of the elements; 8 is the unsigned byte, the only one read here |
//! | 3 | the number D of dimensions: 3 for images (count, height, width), 1 for labels |
//! | 4 .. 4 + 4 D | the dimensions, 32 bits each |
//! | 4 + 4 D .. | the elements, the last dimension fastest |

use crate::error::{Error, counted, grouped};
use crate::foreign;
use crate::source::{FileStream, MAX_DECOMPRESSED};
use std::fmt;

/// The type code of unsigned bytes.
const UNSIGNED_BYTE: u8 = 8;
/// How many bytes are read at a time if the length of the contents is not known in advance: a false
/// header can make one chunk be allocated for nothing.
const CHUNK: u64 = 1 << 16;

/// An array of `D` dimensions, none of them 0, with `data.len()` their product.
pub(crate) struct IdxArray<const D: usize> {
    pub(crate) dims: [usize; D],
    pub(crate) data: Vec<u8>,
}

/// The length of the header of an array of `dims` dimensions.
pub(crate) const fn header_length(dims: usize) -> usize {
    4 + 4 * dims
}

/// The dimensions in a header of unsigned bytes, or `None` if `bytes` do not begin with such a
/// header; [`fault`] then gives the reason.
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

/// Reads the whole of `source` as an array of `D` dimensions: images where `D` is 3, labels where
/// it is 1.
///
/// # Errors
/// [`Error::Corrupt`] unless the header is that of unsigned bytes and exactly the elements that it
/// states follow.
pub(crate) fn read<const D: usize>(source: &mut FileStream<'_>) -> Result<IdxArray<D>, Error> {
    let mut start = [0; header_length(3)];
    let found = source.fill(&mut start[..header_length(D)])?;
    let Some(dims) = parse_header::<D>(&start[..found]) else {
        let (offset, why) = fault::<D>(&start[..found]);
        return Err(source.corrupt(offset as u64, why));
    };
    let header = IdxHeader::new(source, dims)?;
    header.check_length(source)?;
    let data = header.elements(source)?;
    if source.fill(&mut [0])? > 0 {
        let why = format!("bytes follow after the {header} that the header announces");
        return Err(source.corrupt(source.offset() - 1, why));
    }
    Ok(IdxArray { dims: dims.map(|extent| extent as usize), data })
}

/// The dimensions in a header, none of them 0, and their product.
struct IdxHeader<const D: usize> {
    dims: [u32; D],
    elements: u64,
}

impl<const D: usize> IdxHeader<D> {
    const LENGTH: u64 = header_length(D) as u64;

    fn new(source: &FileStream<'_>, dims: [u32; D]) -> Result<Self, Error> {
        let product = dims.iter().try_fold(1_u64, |product, &extent| product.checked_mul(extent.into()));
        let header = Self { dims, elements: product.unwrap_or(u64::MAX) };
        if let Some(at) = dims.iter().position(|&extent| extent == 0) {
            return Err(source
                .corrupt(header_length(at) as u64, format!("the header says {header}: nothing to read")));
        }
        // File lengths are signed 64-bit numbers.
        if header.elements > i64::MAX as u64 - Self::LENGTH {
            return Err(source.corrupt(4, format!("the header announces {header}: more than any file holds")));
        }
        Ok(header)
    }

    /// Checks the header against the length of the file, before anything is read or allocated.
    fn check_length(&self, source: &FileStream<'_>) -> Result<(), Error> {
        let promised = Self::LENGTH + self.elements;
        match source.length() {
            Some(length) if length != promised => {
                let found = length.saturating_sub(Self::LENGTH);
                Err(source.corrupt(length.min(promised), self.miscounted(found)))
            }
            None if source.is_compressed() && promised > MAX_DECOMPRESSED => {
                let most = grouped(MAX_DECOMPRESSED);
                let why = format!(
                    "the header announces {self}; of gzip at most {most} bytes are read: decompress it first"
                );
                Err(source.corrupt(4, why))
            }
            _ => Ok(()),
        }
    }

    /// Reads the elements. If the length of the contents is unknown (gzip), they are collected in
    /// chunks, and the final array is allocated only when all are there. So a false header cannot
    /// cause an allocation of more than twice what the file contains, and one chunk.
    fn elements(&self, source: &mut FileStream<'_>) -> Result<Vec<u8>, Error> {
        let chunk = if source.length().is_some() { self.elements } else { CHUNK };
        let (mut chunks, mut total) = (Vec::new(), 0);
        while total < self.elements {
            let step = chunk.min(self.elements - total);
            let mut data = source.room(step)?;
            data.resize(step as usize, 0);
            let count = source.fill(&mut data).map_err(|error| self.with_count(error))? as u64;
            total += count;
            if count < step {
                return Err(source.corrupt(source.offset(), self.miscounted(total)));
            }
            chunks.push(data);
        }
        if chunks.len() == 1 {
            return Ok(chunks.swap_remove(0));
        }
        let mut whole = source.room(self.elements)?;
        chunks.iter().for_each(|data| whole.extend_from_slice(data));
        Ok(whole)
    }

    /// The message for `found` bytes where the header states another number.
    fn miscounted(&self, found: u64) -> String {
        let (promised, bytes, whole) = (grouped(self.elements), grouped(found), self.whole(found));
        format!("the header announces {self}, {promised} bytes, but {bytes} bytes follow it: {whole}")
    }

    /// Adds to an error about damaged gzip data how many images were decompressed.
    fn with_count(&self, error: Error) -> Error {
        match error {
            Error::Corrupt { file, offset, why } => {
                let whole = self.whole(offset.saturating_sub(Self::LENGTH));
                Error::Corrupt { file, offset, why: format!("{why}: {whole} of {}", grouped(self.dims[0])) }
            }
            other => other,
        }
    }

    /// The number of complete images in `bytes` bytes of elements: "9 999 images".
    fn whole(&self, bytes: u64) -> String {
        let (one, many) = nouns(D);
        counted(bytes / (self.elements / u64::from(self.dims[0])), one, many)
    }
}

/// What the header announces: "10 000 images of 28 x 28", "10 000 labels".
impl<const D: usize> fmt::Display for IdxHeader<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (one, many) = nouns(D);
        f.write_str(&counted(self.dims[0], one, many))?;
        for (axis, extent) in self.dims[1..].iter().enumerate() {
            write!(f, "{}{extent}", if axis == 0 { " of " } else { " x " })?;
        }
        Ok(())
    }
}

/// The offset at which the first `bytes` of a file fail to be a header of unsigned bytes in `D`
/// dimensions, and why.
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
    format!("{} where {} have {wanted}{what}", counted(found, "dimension", "dimensions"), nouns(wanted).1)
}

/// Singular and plural of the elements of an array of `dims` dimensions.
const fn nouns(dims: usize) -> (&'static str, &'static str) {
    if dims == 1 { ("label", "labels") } else { ("image", "images") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trickle::Trickle;
    use std::path::Path;

    /// Reads a file of two images of 2 x 3 that is cut after `bytes` bytes, with `length` as its
    /// known length.
    fn read_images(bytes: usize, length: Option<u64>) -> Result<Vec<u8>, String> {
        let file =
            [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        let source = FileStream::new(Path::new("two"), Trickle::new(&file[..bytes]), length);
        let array =
            source.and_then(|mut source| read::<3>(&mut source)).map_err(|error| error.to_string())?;
        assert_eq!(array.dims, [2, 2, 3]);
        Ok(array.data)
    }

    #[test]
    fn bytes_may_come_one_by_one_and_the_length_be_unknown() {
        for length in [None, Some(28)] {
            assert_eq!(read_images(28, length), Ok((1..=12).collect()));
        }
    }

    #[test]
    fn a_length_that_turns_out_wrong_is_reported() {
        let short = "two: the header announces 2 images of 2 x 3, 12 bytes, but 11 bytes follow it: 1 image (offset 27)";
        let long = "two: bytes follow after the 2 images of 2 x 3 that the header announces (offset 28)";
        for length in [None, Some(28)] {
            assert_eq!(read_images(27, length), Err(short.to_owned()));
            assert_eq!(read_images(29, length), Err(long.to_owned()));
        }
    }
}
