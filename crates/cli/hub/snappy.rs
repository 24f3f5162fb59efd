//! Decompression of Snappy, in which the hubs' tables are compressed: a length, then literals and
//! copies of earlier output
//! ([format](https://github.com/google/snappy/blob/main/format_description.txt)).
//!
//! The low two bits of a tag give the kind of element: 0 is a literal, 1 to 3 are copies with an
//! offset of 11, 16 or 32 bits.

/// The decompressed contents; `None` if the data are not valid or not of `length` bytes.
pub(super) fn decompress(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let (announced, mut rest) = announced(bytes)?;
    if announced != length {
        return None;
    }
    let mut contents = Vec::new();
    while let Some((&tag, behind)) = rest.split_first() {
        rest = behind;
        let size = usize::from(tag >> 2);
        if tag & 3 == 0 {
            // 60 to 63 mean that the size is in the next one to four bytes.
            let size = if size < 60 { size } else { little(&mut rest, size - 59)? };
            let (literal, behind) = rest.split_at_checked(size.checked_add(1)?)?;
            contents.extend_from_slice(literal);
            rest = behind;
        } else {
            let (offset, size) = match tag & 3 {
                1 => (usize::from(tag >> 5) << 8 | little(&mut rest, 1)?, (size & 7) + 4),
                2 => (little(&mut rest, 2)?, size + 1),
                _ => (little(&mut rest, 4)?, size + 1),
            };
            let start = contents.len().checked_sub(offset).filter(|_| offset > 0)?;
            // The source may overlap the output being written (a run), so copy byte by byte.
            for at in start..start + size {
                contents.push(*contents.get(at)?);
            }
        }
        // Checked in every step, so that a small input cannot expand beyond the stated length.
        if contents.len() > length {
            return None;
        }
    }
    (contents.len() == length).then_some(contents)
}

/// The length at the beginning of the data, with seven bits per byte, and the rest of the data.
fn announced(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((length, &bytes[index + 1..]));
        }
    }
    None
}

/// A little-endian number of `bytes` bytes.
fn little(rest: &mut &[u8], bytes: usize) -> Option<usize> {
    let (number, behind) = rest.split_at_checked(bytes)?;
    *rest = behind;
    Some(number.iter().rev().fold(0, |value, &byte| value << 8 | usize::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies_by_hand() {
        // "ab", then eight from two before, overlapping: "ababababab".
        let copy = [10, 1 << 2, b'a', b'b', 0b0001_0001, 2];
        assert_eq!(decompress(&copy, 10).as_deref(), Some(&b"ababababab"[..]));
        let wide = [6, 1 << 2, b'a', b'b', 3 << 2 | 2, 2, 0];
        assert_eq!(decompress(&wide, 6).as_deref(), Some(&b"ababab"[..]));
        let long: Vec<u8> = (0..200).collect();
        let literal = [&[200, 1, 60 << 2, 199][..], &long].concat();
        assert_eq!(decompress(&literal, 200), Some(long));
        assert_eq!(decompress(&[0], 0), Some(vec![]));
    }

    #[test]
    fn what_is_no_snappy_is_nothing() {
        let sound = [10, 1 << 2, b'a', b'b', 0b0001_0001, 2];
        for cut in 0..sound.len() {
            assert_eq!(decompress(&sound[..cut], 10), None, "{cut}");
        }
        assert_eq!(decompress(&sound, 9), None);
        // Copies from before the start, and from nowhere.
        assert_eq!(decompress(&[4, 0b0000_0001, 1], 4), None);
        assert_eq!(decompress(&[5, 0, b'a', 0b0000_0001, 0], 5), None);
        // More than the stated length.
        assert_eq!(decompress(&[2, 2 << 2, 1, 2, 3], 2), None);
        assert_eq!(decompress(&[0xff; 9], 9), None);
    }
}
