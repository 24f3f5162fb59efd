//! Planes of labels (superpixels or a mask) from a PNG of any kind. Pixels of the same colour form
//! one region.

use std::collections::BTreeMap;
use std::io::Cursor;

use crate::error::Error;

/// Largest image that is decoded, in pixels and in bytes: a small file may announce any size.
const MOST_PIXELS: u64 = 1 << 24;
const MOST_BYTES: usize = 1 << 28;

/// A plane of labels, one per pixel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Height and width.
    pub shape: [usize; 2],
    /// Row by row: the grey value or palette index itself; for coloured pixels the number of the
    /// colour, in ascending order.
    pub labels: Vec<u32>,
}

/// Reads a PNG. Grey values of 1 to 16 bits and palette indices are used as labels directly;
/// colours are numbered.
///
/// # Errors
/// [`Error::Labels`] for anything that is not a complete PNG, or a very large one.
pub fn read_labels(bytes: &[u8]) -> Result<Labels, Error> {
    let fail = |error: png::DecodingError| Error::Labels(error.to_string());
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: MOST_BYTES });
    // Samples stay as they are in the file: neither palettes nor low bit depths are expanded.
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(fail)?;
    let (width, height) = (reader.info().width, reader.info().height);
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(Error::Labels(format!("{width} x {height} pixels are more than any map has")));
    }
    let size = reader.output_buffer_size().ok_or_else(|| Error::Labels("too large".into()))?;
    let mut data = vec![0; size];
    let info = reader.next_frame(&mut data).map_err(fail)?;
    let bits = info.bit_depth as usize * info.color_type.samples();
    let samples: Vec<u64> = data
        .chunks_exact(info.line_size)
        .take(height as usize)
        .flat_map(|line| (0..width as usize).map(move |x| sample(line, x * bits, bits)))
        .collect();
    // One sample per pixel is the label. Colours are numbered in ascending order.
    let plain = info.color_type.samples() == 1;
    let numbers: BTreeMap<u64, u32> = {
        let mut distinct = samples.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let number = |(at, value): (usize, u64)| (value, if plain { value as u32 } else { at as u32 });
        distinct.into_iter().enumerate().map(number).collect()
    };
    let labels = samples.iter().map(|value| numbers[value]).collect();
    Ok(Labels { shape: [height as usize, width as usize], labels })
}

/// The `bits` bits of a line from bit `start` on, most significant first.
fn sample(line: &[u8], start: usize, bits: usize) -> u64 {
    if bits < 8 {
        let shift = 8 - bits - start % 8;
        return u64::from(line[start / 8] >> shift) & ((1 << bits) - 1);
    }
    line[start / 8..][..bits / 8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(
        colour: png::ColorType,
        depth: png::BitDepth,
        [width, height]: [u32; 2],
        data: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(data).expect("data");
        writer.finish().expect("an end");
        bytes
    }

    #[test]
    fn grey_values_are_labels_and_colours_are_numbered() {
        use png::{BitDepth, ColorType};
        let grey = encoded(ColorType::Grayscale, BitDepth::Eight, [3, 2], &[0, 5, 5, 9, 0, 200]);
        let labels = read_labels(&grey).expect("labels");
        assert_eq!((labels.shape, labels.labels), ([2, 3], vec![0, 5, 5, 9, 0, 200]));
        let mask = encoded(ColorType::Grayscale, BitDepth::One, [3, 2], &[0b1010_0000, 0b0110_0000]);
        assert_eq!(read_labels(&mask).expect("labels").labels, [1, 0, 1, 0, 1, 1]);
        let deep = encoded(ColorType::Grayscale, BitDepth::Sixteen, [2, 1], &[1, 2, 0, 7]);
        assert_eq!(read_labels(&deep).expect("labels").labels, [258, 7]);
        let colours = encoded(ColorType::Rgb, BitDepth::Eight, [3, 1], &[9, 9, 9, 1, 2, 3, 9, 9, 9]);
        assert_eq!(read_labels(&colours).expect("labels").labels, [1, 0, 1]);
    }

    #[test]
    fn broken_files_are_refused() {
        let whole = encoded(png::ColorType::Grayscale, png::BitDepth::Eight, [3, 2], &[0, 5, 5, 9, 0, 200]);
        for length in 0..whole.len() - 12 {
            assert!(read_labels(&whole[..length]).is_err(), "{length}");
        }
        assert!(read_labels(b"no picture").is_err());
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0x40;
            let _ = read_labels(&broken);
        }
    }
}
