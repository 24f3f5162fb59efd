//! A contact sheet: many small images with two lines of text each.

use crate::axes::TITLE;
use crate::error::Error;
use crate::panels::pixel;
use crate::svg::{Anchor, Drawing, Picture, Text, image_address, wide};

/// One image of the sheet.
#[derive(Debug, Clone, PartialEq)]
pub struct SheetTile {
    /// The image `[C, H, W]` with pixels in [0, 1].
    pub image: Vec<f64>,
    /// The text below it.
    pub lines: [String; 2],
    /// Whether it is framed in red.
    pub marked: bool,
}

// Margin, side of an image, images in a row, and height of a line of text, in pixels.
const GAP: f64 = 16.0;
const SIDE: f64 = 84.0;
const COLUMNS: usize = 10;
const LINE: f64 = 13.0;

/// Draws the images in rows of ten; all have the shape `[C, H, W]`.
///
/// # Errors
/// An error of the encoder.
pub fn sheet(title: &str, shape: [usize; 3], tiles: &[SheetTile]) -> Result<Picture, Error> {
    let columns = COLUMNS.min(tiles.len().max(1));
    let rows = tiles.len().div_ceil(columns);
    let [step, deep] = [SIDE + GAP, SIDE + 2.0 * LINE + GAP];
    let width = (GAP + columns as f64 * step).max(wide(title, TITLE) + 2.0 * GAP);
    let mut drawing = Drawing::new(width, GAP + 24.0 + rows as f64 * deep);
    drawing.text([GAP, GAP + 10.0], title, Text::new(TITLE, Anchor::Start));
    for (at, tile) in tiles.iter().enumerate() {
        let corner = [GAP + (at % columns) as f64 * step, GAP + 24.0 + (at / columns) as f64 * deep];
        drawing.image(corner, [SIDE, SIDE], &thumbnail(&tile.image, shape)?);
        let (stroke, thick) = if tile.marked { ("#d4002a", 3.0) } else { ("currentColor", 0.5) };
        drawing.frame(corner, [SIDE, SIDE], stroke, thick);
        for (line, text) in tile.lines.iter().enumerate() {
            let position = [corner[0], corner[1] + SIDE + (line + 1) as f64 * LINE];
            drawing.text(position, text, Text { pale: line == 1, ..Text::new(10.0, Anchor::Start) });
        }
    }
    Ok(drawing.finish(title))
}

/// Largest side of a thumbnail, in pixels. A page may hold hundreds of them.
const THUMBNAIL: usize = 64;

/// An image `[C, H, W]` as a `data:` URL. Large images are subsampled.
///
/// # Errors
/// An error of the encoder.
pub fn thumbnail(image: &[f64], shape: [usize; 3]) -> Result<String, Error> {
    let [_, height, width] = shape;
    let step = height.max(width).div_ceil(THUMBNAIL).max(1);
    let size = [width.div_ceil(step), height.div_ceil(step)];
    image_address(size, |[x, y]| pixel(image, shape, y * step * width + x * step, None))
}
