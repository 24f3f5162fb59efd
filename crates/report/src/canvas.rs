//! A plane of coloured dots that becomes a PNG.

use crate::colours::Colour;
use crate::error::Error;
use crate::font;

/// White, on which everything is drawn.
const PAPER: u8 = 255;

/// Dots, row by row.
#[derive(Debug)]
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    dots: Vec<u8>,
}

impl Canvas {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, height, dots: vec![PAPER; 3 * width * height] }
    }

    /// A filled rectangle; what lies outside the canvas is left out.
    pub(crate) fn fill(&mut self, [x, y]: [usize; 2], [width, height]: [usize; 2], colour: Colour) {
        for row in y..(y + height).min(self.height) {
            let ends = [x, x + width].map(|x| 3 * (row * self.width + x.min(self.width)));
            for dot in self.dots[ends[0]..ends[1]].chunks_exact_mut(3) {
                dot.copy_from_slice(&colour);
            }
        }
    }

    /// Text whose upper left corner is here.
    pub(crate) fn text(&mut self, [x, y]: [usize; 2], text: &str, colour: Colour) {
        for (place, letter) in text.chars().enumerate() {
            for (row, bits) in font::glyph(letter).into_iter().enumerate() {
                for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                    self.fill([x + place * font::ADVANCE + column, y + row], [1, 1], colour);
                }
            }
        }
    }

    /// Text that is read from the top downwards, whose upper left corner is here.
    pub(crate) fn upright(&mut self, [x, y]: [usize; 2], text: &str, colour: Colour) {
        for (place, letter) in text.chars().enumerate() {
            for (row, bits) in font::glyph(letter).into_iter().enumerate() {
                for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                    let dot = [x + font::HEIGHT - 1 - row, y + place * font::ADVANCE + column];
                    self.fill(dot, [1, 1], colour);
                }
            }
        }
    }

    /// The canvas as a PNG file.
    pub(crate) fn png(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.dots)?;
        writer.finish()?;
        Ok(bytes)
    }
}
