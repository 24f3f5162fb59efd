//! Decodes one picture: from the bytes of its file to the values of a sample.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, GenericImageView, ImageDecoder, ImageReader, Limits};

use super::{EncodedPicture, Pixels, Recipe, Resize, whole};

/// The longest side that is accepted, in pixels. (A square colour picture of this side exceeds
/// [`MEMORY`].)
const LONGEST: u32 = 1 << 14;
/// The most memory that decoding one picture may take, 512 MiB. Without this limit, a small file
/// could ask for 2 GiB: the longest sides with four channels of 16 bits.
const MEMORY: u64 = 1 << 29;
/// The largest encoded picture, 256 MiB: its bytes are read into memory before they are decoded.
const ENCODED: u64 = 1 << 28;
/// A picture that would be enlarged by more than this factor has too little content to be a sample,
/// e.g. a placeholder of one pixel.
const ENLARGED: usize = 16;

/// The shape and the values of a picture, or why it cannot be a sample.
pub(super) fn sample(origin: &EncodedPicture, recipe: &Recipe) -> Result<([usize; 3], Pixels), String> {
    let picture = match origin {
        EncodedPicture::File(path) => decoded(&bytes(path)?)?,
        EncodedPicture::Bytes(bytes) => decoded(bytes)?,
    };
    let picture = match recipe.resize {
        Some(resize) => resized(&picture, resize)?,
        None => picture,
    };
    let picture = match recipe.crop {
        Some(crop) => cropped(&picture, crop)?,
        None => picture,
    };
    Ok(planes(&picture, recipe.grey))
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > ENCODED {
        return Err(format!("a file of {length} bytes: pictures may have at most {ENCODED}"));
    }
    fs::read(path).map_err(|error| error.to_string())
}

/// Decodes a picture and turns it as its EXIF data state.
fn decoded(bytes: &[u8]) -> Result<DynamicImage, String> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let words = |error: image::ImageError| error.to_string();
    // Before a byte is decoded: limits of sides and memory, a known format, a complete file.
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST);
    limits.max_image_height = Some(LONGEST);
    limits.max_alloc = Some(MEMORY);
    let mut reader = ImageReader::new(Cursor::new(bytes));
    reader.limits(limits);
    let reader = reader.with_guessed_format().map_err(|error| error.to_string())?;
    if reader.format().is_none() {
        return Err("not a PNG, JPEG or WebP picture".into());
    }
    whole::check(bytes)?;
    // The orientation is read before the pixels, since decoding consumes the decoder.
    let mut decoder = reader.into_decoder().map_err(words)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(words)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Resizes a picture with the triangle filter. The longer side of [`Resize::Shorter`] is rounded
/// down.
fn resized(picture: &DynamicImage, resize: Resize) -> Result<DynamicImage, String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let [to_height, to_width] = match resize {
        Resize::To(size) => size,
        Resize::Shorter(side) if height <= width => [side, side * width / height],
        Resize::Shorter(side) => [side * height / width, side],
    };
    if to_height > ENLARGED * height || to_width > ENLARGED * width {
        return Err(format!(
            "{height} x {width} pixels, which would be made {to_height} x {to_width}: more than {ENLARGED} times larger"
        ));
    }
    let (to_width, to_height) = (side(to_width)?, side(to_height)?);
    // Alpha is dropped before resizing: the resize filter expects premultiplied alpha, which these
    // pixels do not have.
    let opaque = opaque(picture);
    Ok(opaque.resize_exact(to_width, to_height, FilterType::Triangle))
}

/// A side in pixels, if it is possible.
fn side(pixels: usize) -> Result<u32, String> {
    let fits = u32::try_from(pixels).ok().filter(|side| (1..=LONGEST).contains(side));
    fits.ok_or_else(|| format!("a side of {pixels} pixels: 1 to {LONGEST} are possible"))
}

/// The centre crop. An odd margin is rounded as in torchvision's `CenterCrop`: half to even.
fn cropped(picture: &DynamicImage, [to_height, to_width]: [usize; 2]) -> Result<DynamicImage, String> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if to_height > height || to_width > width {
        return Err(format!(
            "{height} x {width} pixels, from which {to_height} x {to_width} cannot be cropped: resize it first"
        ));
    }
    let start = |from: usize, to: usize| ((from - to) as f64 / 2.0).round_ties_even() as u32;
    let (x, y) = (start(width, to_width), start(height, to_height));
    Ok(picture.crop_imm(x, y, side(to_width)?, side(to_height)?))
}

/// The picture without its alpha channel, which is dropped and not blended, like PIL does.
fn opaque(picture: &DynamicImage) -> DynamicImage {
    match picture.color() {
        ColorType::La8 => DynamicImage::ImageLuma8(picture.to_luma8()),
        ColorType::La16 => DynamicImage::ImageLuma16(picture.to_luma16()),
        ColorType::Rgba8 => DynamicImage::ImageRgb8(picture.to_rgb8()),
        ColorType::Rgba16 => DynamicImage::ImageRgb16(picture.to_rgb16()),
        _ => picture.clone(),
    }
}

/// The values `[C, H, W]`: three channels, which are equal for a grey picture; or one, if `grey`.
fn planes(picture: &DynamicImage, grey: bool) -> ([usize; 3], Pixels) {
    let (width, height) = picture.dimensions();
    let shape = [if grey { 1 } else { 3 }, height as usize, width as usize];
    // Pictures of more than 8 bits per channel keep 16.
    let deep = picture.color().bytes_per_pixel() / picture.color().channel_count() > 1;
    let pixels = if deep {
        let words = picture.to_rgb16().into_raw();
        Pixels::Words(separated(&words, grey, |sum| (sum >> 16) as u16))
    } else {
        let bytes = picture.to_rgb8().into_raw();
        Pixels::Bytes(separated(&bytes, grey, |sum| (sum >> 16) as u8))
    };
    (shape, pixels)
}

/// Converts interleaved RGB pixels to one plane per channel, or to one plane of their weighted
/// mean.
fn separated<T: Copy + Into<u64>>(pixels: &[T], grey: bool, mean: impl Fn(u64) -> T) -> Vec<T> {
    let (pixels, _) = pixels.as_chunks::<3>();
    if grey {
        // PIL's weights: 0.299, 0.587 and 0.114 in units of 1/65 536, rounded. They add up to
        // 65 536, so grey pixels do not change.
        let weighted = |[r, g, b]: &[T; 3]| {
            19_595 * (*r).into() + 38_470 * (*g).into() + 7_471 * (*b).into() + (1 << 15)
        };
        return pixels.iter().map(|pixel| mean(weighted(pixel))).collect();
    }
    (0..3).flat_map(|channel| pixels.iter().map(move |pixel| pixel[channel])).collect()
}
