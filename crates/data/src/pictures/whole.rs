//! Checks that a picture's file is complete. JPEG decoders fill the missing part of a truncated
//! file with grey, without an error.

/// An error if the file is incomplete, as far as its format shows.
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    if bytes.starts_with(&[0xff, SOI]) {
        jpeg(bytes).ok_or_else(|| "the JPEG data are cut short: they end before their end marker".to_owned())
    } else if let [b'R', b'I', b'F', b'F', length @ .., b'W', b'E', b'B', b'P'] = start(bytes) {
        let length = length.iter().rev().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        let missing = (length + 8).saturating_sub(bytes.len() as u64);
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("the WebP data are cut short: {missing} bytes are missing"))
        }
    } else {
        Ok(())
    }
}

/// The first 12 bytes, which identify WebP.
fn start(bytes: &[u8]) -> &[u8] {
    bytes.get(..12).unwrap_or_default()
}

/// Start of the image.
const SOI: u8 = 0xd8;
/// End of the image.
const EOI: u8 = 0xd9;
/// Start of a scan: compressed data follow its header.
const SOS: u8 = 0xda;

/// Walks the segments up to the end marker; anything after it is ignored. `None` if there is no end
/// marker.
fn jpeg(bytes: &[u8]) -> Option<()> {
    let mut at = 2;
    loop {
        // Any number of 0xff may precede the marker byte.
        let marker = at + bytes.get(at..)?.iter().position(|&byte| byte != 0xff)?;
        at = marker + 1;
        match bytes[marker] {
            EOI => return Some(()),
            // Stuffed zeros, restart markers and other standalone markers have no length field.
            0x00 | 0x01 | 0xd0..=SOI => {}
            _ => {
                let length = bytes.get(at..at + 2)?;
                at += usize::from(length[0]) << 8 | usize::from(length[1]);
            }
        }
        if matches!(bytes[marker], SOS | 0x00 | 0xd0..=0xd7) {
            // Skip compressed data up to the next 0xff. If a zero follows, that 0xff was data (byte
            // stuffing), and the next round skips on from there.
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_behind_segments_and_data() {
        let head = [0xff, SOI, 0xff, 0xe1, 0, 4, 0xff, EOI];
        let scan = [0xff, 0xff, SOS, 0, 3, 9, 1, 2, 0xff, 0, 3, 0xff, 0xd1, 4, 5];
        let whole = [&head[..], &scan, &[0xff, EOI, 7, 7]].concat();
        assert_eq!(check(&whole), Ok(()));
        for length in 2..whole.len() - 2 {
            let cut = check(&whole[..length]);
            assert!(cut.is_err_and(|why| why.contains("cut short")), "{length}");
        }
    }

    #[test]
    fn webp_says_how_long_it_is() {
        let mut file = b"RIFF\x08\0\0\0WEBPabcd".to_vec();
        assert_eq!(check(&file), Ok(()));
        file.pop();
        assert!(check(&file).is_err_and(|why| why.contains("1 bytes are missing")));
        assert_eq!(check(b"RIFF"), Ok(()));
    }
}
