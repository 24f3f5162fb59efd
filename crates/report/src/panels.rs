//! The layout: the image, then one panel a layer with its colour bar; one row a channel where a layer has channels.

use crate::canvas::Canvas;
use crate::colours::{Colour, diverging, sequential};
use crate::error::Error;
use crate::font;

/// How wide or high an image is drawn at least.
const PANEL: usize = 252;
/// A dot of the image is drawn in squares of at least this size.
const DOTTED: usize = 6;
const GAP: usize = 12;
const BAR: usize = 12;
const TITLE: usize = font::HEIGHT + 6;
/// Room for the numbers of a colour bar.
const NUMBERS: usize = 9 * font::ADVANCE;
const TICKS: usize = 5;
const INK: Colour = [0, 0, 0];
/// Values over this many times the smallest are drawn on a logarithmic scale, of at most so many decades.
const LOGARITHMIC: f64 = 100.0;
const DECADES: f64 = 6.0;

/// How the numbers of a layer become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From the smallest to the largest, by their logarithms where these are more than two decades apart.
    Sequential,
    /// Blue below zero, orange above it.
    Diverging,
}

/// A map over the pixels of an image.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// What stands above its panel.
    pub title: &'a str,
    /// `[C, H, W]` or `[1, H, W]`.
    pub values: &'a [f64],
    /// How they become colours.
    pub scale: Scale,
}

/// From values to shares of the colour bar.
struct Range {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Range {
    fn of(values: &[f64], scale: Scale) -> Self {
        let finite = || values.iter().copied().filter(|x| x.is_finite());
        let high = finite().fold(f64::NEG_INFINITY, f64::max);
        if scale == Scale::Diverging {
            let most = finite().fold(0.0_f64, |most, x| most.max(x.abs()));
            return Self { low: -most, high: most, logarithmic: false };
        }
        let low = finite().fold(f64::INFINITY, f64::min);
        if high > LOGARITHMIC * low && high > 0.0 {
            let positive = finite().filter(|x| *x > 0.0).fold(f64::INFINITY, f64::min);
            return Self { low: positive.max(high / 10.0_f64.powf(DECADES)), high, logarithmic: true };
        }
        Self { low: low.min(high), high, logarithmic: false }
    }

    fn share(&self, value: f64) -> f64 {
        if !value.is_finite() {
            return if value > 0.0 { 1.0 } else { 0.0 };
        }
        let span = |value: f64| match self.logarithmic {
            true => (value.max(self.low) / self.low).ln(),
            false => value - self.low,
        };
        let whole = span(self.high);
        if whole > 0.0 { span(value) / whole } else { 0.5 }
    }

    fn value(&self, share: f64) -> f64 {
        match self.logarithmic {
            true => self.low * (self.high / self.low).powf(share),
            false => self.low + share * (self.high - self.low),
        }
    }
}

/// The image and its layers side by side, as a PNG file.
///
/// # Shapes
/// `image`: `[C, H, W]` with pixels in [0, 1]; C = 3 is drawn in colours, other numbers of channels by their mean.
///
/// # Errors
/// A layer of another size; an encoder that refuses.
pub fn picture(
    title: &str,
    image: &[f64],
    shape: [usize; 3],
    layers: &[Layer<'_>],
) -> Result<Vec<u8>, Error> {
    let [channels, height, width] = shape;
    let plane = height * width;
    for layer in layers {
        if layer.values.len() != plane && layer.values.len() != channels * plane {
            let (found, expected) = (layer.values.len(), channels * plane);
            return Err(Error::Layer { title: layer.title.into(), found, expected });
        }
    }
    let rows = if layers.iter().any(|layer| layer.values.len() > plane) { channels } else { 1 };
    let cell = PANEL.div_ceil(height.max(width).max(1));
    let (panel, high) = (cell * width, cell * height);
    let wide = panel + 4 + BAR + 4 + NUMBERS + GAP;
    let top = GAP + TITLE;
    let full = GAP + panel + GAP + layers.len() * wide;
    let mut canvas = Canvas::new(full.max(2 * GAP + font::width(title)), top + rows * (TITLE + high + GAP));
    canvas.text([GAP, GAP], title, INK);
    for row in 0..rows {
        let y = top + row * (TITLE + high + GAP);
        let name = if rows == 1 { "image".to_owned() } else { format!("channel {row}") };
        let dot = |at: usize| pixel(image, shape, at, (rows > 1).then_some(row));
        draw(&mut canvas, [GAP, y], &name, [height, width], cell, dot);
        for (at, layer) in layers.iter().enumerate() {
            let x = GAP + panel + GAP + at * wide;
            let values = layer.values.get(row * plane..(row + 1) * plane);
            let Some(values) = values else { continue };
            let range = Range::of(values, layer.scale);
            let colour = |share: f64| match layer.scale {
                Scale::Sequential => sequential(share),
                Scale::Diverging => diverging(share),
            };
            draw(&mut canvas, [x, y], layer.title, [height, width], cell, |at| {
                colour(range.share(values[at]))
            });
            if layer.scale == Scale::Sequential {
                dots(&mut canvas, [x, y + TITLE], [height, width], cell, dot);
            }
            bar(&mut canvas, [x + panel + 4, y + TITLE], high, &range, colour);
        }
    }
    canvas.png()
}

/// The colour of a pixel: its own, or the grey of one channel.
fn pixel(image: &[f64], [channels, height, width]: [usize; 3], at: usize, channel: Option<usize>) -> Colour {
    let value = |c: usize| image.get(c * height * width + at).copied().unwrap_or(0.0);
    let byte = |x: f64| (x.clamp(0.0, 1.0) * 255.0).round() as u8;
    match channel {
        Some(channel) => [byte(value(channel)); 3],
        None if channels == 3 => [0, 1, 2].map(|c| byte(value(c))),
        None => [byte((0..channels).map(value).sum::<f64>() / channels as f64); 3],
    }
}

/// A panel of squares under its title.
fn draw(
    canvas: &mut Canvas,
    [x, y]: [usize; 2],
    title: &str,
    [height, width]: [usize; 2],
    cell: usize,
    colour: impl Fn(usize) -> Colour,
) {
    canvas.text([x, y], title, INK);
    canvas.fill([x.saturating_sub(1), y + TITLE - 1], [cell * width + 2, cell * height + 2], INK);
    for at in 0..height * width {
        let corner = [x + at % width * cell, y + TITLE + at / width * cell];
        canvas.fill(corner, [cell, cell], colour(at));
    }
}

/// The image as dots in the middle of the squares.
fn dots(
    canvas: &mut Canvas,
    [x, y]: [usize; 2],
    [height, width]: [usize; 2],
    cell: usize,
    colour: impl Fn(usize) -> Colour,
) {
    if cell < DOTTED {
        return;
    }
    let (size, inset) = (cell / 3, cell.div_ceil(3));
    for at in 0..height * width {
        let corner = [x + at % width * cell + inset, y + at / width * cell + inset];
        canvas.fill(corner, [size, size], colour(at));
    }
}

/// The colour bar with its numbers.
fn bar(canvas: &mut Canvas, [x, y]: [usize; 2], high: usize, range: &Range, colour: impl Fn(f64) -> Colour) {
    let last = high.saturating_sub(1).max(1) as f64;
    for row in 0..high {
        canvas.fill([x, y + row], [BAR, 1], colour(1.0 - row as f64 / last));
    }
    for tick in 0..TICKS {
        let share = tick as f64 / (TICKS - 1) as f64;
        let row = ((1.0 - share) * last).round() as usize;
        canvas.fill([x + BAR, y + row], [3, 1], INK);
        let text = (row + y).saturating_sub(font::HEIGHT / 2).clamp(y, y + high.saturating_sub(font::HEIGHT));
        canvas.text([x + BAR + 5, text], &number(range.value(share)), INK);
    }
}

/// Three digits.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if (1e-3..1e4).contains(&size) => {
            let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> (png::OutputInfo, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut data = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut data).expect("an image");
        (info, data)
    }

    #[test]
    fn the_largest_value_has_the_lightest_colour_and_the_image_its_dot() {
        let image = vec![0.0, 1.0, 0.5, 0.25];
        let values = [1.0, 2.0, 3.0, 4.0];
        let layer = Layer { title: "scale 0", values: &values, scale: Scale::Sequential };
        let (info, data) = decoded(&picture("title", &image, [1, 2, 2], &[layer]).expect("a picture"));
        let cell = PANEL / 2;
        let dot = |x: usize, y: usize| &data[(y * info.width as usize + x) * 3..][..3];
        let (x, y) = (GAP + 2 * cell + GAP, GAP + TITLE + TITLE);
        assert_eq!(dot(x + 2, y + 2), sequential(0.0));
        assert_eq!(dot(x + 2 * cell - 3, y + 2 * cell - 3), sequential(1.0));
        assert_eq!(dot(x + cell + cell / 2, y + cell / 2), [255; 3], "the white pixel's dot");
        assert_eq!(dot(GAP + cell / 2, y + cell + cell / 2), [128; 3]);
    }

    #[test]
    fn any_numbers_can_be_drawn() {
        let image = vec![0.5; 2 * 3 * 3];
        for values in [
            vec![0.0; 9],
            vec![f64::INFINITY; 9],
            vec![1e-300; 18],
            (0..18).map(|i| 10.0_f64.powi(i * 20 - 200)).collect(),
        ] {
            for scale in [Scale::Sequential, Scale::Diverging] {
                let layer = Layer { title: "a", values: &values, scale };
                assert!(picture("t", &image, [2, 3, 3], &[layer, layer]).is_ok());
            }
        }
        let layer = Layer { title: "a", values: &[1.0], scale: Scale::Sequential };
        assert!(matches!(picture("t", &image, [2, 3, 3], &[layer]), Err(Error::Layer { .. })));
    }

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 1.0, 0.123456, -12.345, 9999.0, 12345.0, 1.2345e-7].map(number);
        assert_eq!(shown, ["0", "1.00", "0.123", "-12.3", "9999", "1.23e4", "1.23e-7"]);
    }
}
