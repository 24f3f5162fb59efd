//! The layout of maps: the image, then one panel per map with its colour bar; one row per channel
//! if a map has channels.

use crate::colours::{Colour, diverging, sequential};
use crate::error::Error;
use crate::scale::{AxisSpan, number, power};
use crate::svg::{Anchor, Drawing, Picture, Text, colour, image_address, wide};

/// Smallest size of the longer side of an image in the drawing.
const PANEL: usize = 224;
/// Squares of at least this size contain a dot of the image's colour.
const DOTTED: usize = 6;
// Margin around panels, in pixels like all lengths here.
const GAP: f64 = 16.0;
/// Widths of the colour bar and of its numbers.
const BAR: f64 = 12.0;
const NUMBERS: f64 = 76.0;
/// Numbers at a colour bar: the ends, and evenly spaced ones between.
const TICKS: usize = 5;
/// Decimal logarithms within this distance belong to values that are equal up to rounding (1e-6
/// relative).
const ALIKE: f64 = 4e-7;
const TITLE: Text = Text::new(14.0, Anchor::Start);
const CAPTION: Text = Text::new(12.0, Anchor::Start);
const SMALL: Text = Text::new(11.0, Anchor::Start);

/// How the values of a map become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// The values are decimal logarithms, -infinity for 0: from dark to light.
    Logarithms,
    /// A linear scale: blue below zero, orange above it.
    Diverging,
}

/// Whether panels share one colour scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// One scale for all panels: colours may be compared between them.
    #[default]
    Shared,
    /// Each panel has its own scale.
    Own,
}

/// A map over the pixels of an image.
#[derive(Debug, Clone, Copy)]
pub struct MapLayer<'a> {
    /// The title above its panel.
    pub title: &'a str,
    /// The values, `[C, H, W]` or `[1, H, W]`.
    pub values: &'a [f64],
    /// How the values become colours.
    pub colours: Colours,
    /// The half-width of its windows; the window with the largest value is framed.
    pub window: Option<usize>,
}

impl MapLayer<'_> {
    fn span(&self) -> AxisSpan {
        match self.colours {
            Colours::Logarithms => AxisSpan::of_logs(self.values.iter().copied()),
            Colours::Diverging => AxisSpan::around_zero(self.values.iter().copied()),
        }
    }

    fn colour(&self, share: f64) -> Colour {
        match self.colours {
            Colours::Logarithms => sequential(share),
            Colours::Diverging => diverging(share),
        }
    }

    /// The index of the largest value, or `None` if others are equal up to rounding: the choice
    /// between them would be arbitrary.
    fn best(&self) -> Option<usize> {
        let indices = 0..self.values.len();
        let most = indices.max_by(|a, b| self.values[*a].total_cmp(&self.values[*b]))?;
        let largest = self.values[most];
        let alike = self.values.iter().filter(|value| **value >= largest - ALIKE).count();
        (alike == 1).then_some(most)
    }
}

/// Draws the image and its maps side by side, below lines of text.
///
/// # Shapes
/// `image`: `[C, H, W]` with pixels in [0, 1]; C = 3 is drawn in colour, other numbers of channels
/// by their mean.
///
/// # Errors
/// A layer of the wrong size; an error of the encoder.
pub fn picture(
    title: &[String],
    image: &[f64],
    shape: [usize; 3],
    layers: &[MapLayer<'_>],
    sharing: Sharing,
) -> Result<Picture, Error> {
    let [channels, height, width] = shape;
    let plane = height * width;
    for layer in layers {
        if layer.values.len() != plane && layer.values.len() != channels * plane {
            let (found, expected) = (layer.values.len(), channels * plane);
            return Err(Error::Layer { title: layer.title.into(), found, expected });
        }
    }
    let rows = if layers.iter().any(|layer| layer.values.len() > plane) { channels } else { 1 };
    let layout = PanelLayout::new(shape, rows, title, layers, sharing);
    let mut drawing = Drawing::new(layout.width, layout.height);
    for (at, line) in title.iter().enumerate() {
        let text = if at == 0 { TITLE } else { CAPTION };
        drawing.text([GAP, GAP + 12.0 + at as f64 * 18.0], line, text);
    }
    for row in 0..rows {
        layout.row(&mut drawing, row, image)?;
    }
    Ok(drawing.finish(&title.join(". ")))
}

/// The layout: positions and sizes of all parts.
struct PanelLayout<'a> {
    shape: [usize; 3],
    rows: usize,
    layers: &'a [MapLayer<'a>],
    /// One span per layer.
    spans: Vec<AxisSpan>,
    sharing: Sharing,
    /// Pixels of the drawing per pixel of the image.
    cell: usize,
    top: f64,
    width: f64,
    height: f64,
}

impl<'a> PanelLayout<'a> {
    fn new(
        shape: [usize; 3],
        rows: usize,
        title: &[String],
        layers: &'a [MapLayer<'a>],
        sharing: Sharing,
    ) -> Self {
        let [_, height, width] = shape;
        let cell = PANEL.div_ceil(height.max(width).max(1));
        let mut spans: Vec<AxisSpan> = layers.iter().map(MapLayer::span).collect();
        if sharing == Sharing::Shared {
            let logs = layers.iter().filter(|layer| layer.colours == Colours::Logarithms);
            let shared = AxisSpan::of_logs(logs.flat_map(|layer| layer.values.iter().copied()));
            let own = layers.iter().zip(&mut spans).filter(|(layer, _)| layer.colours == Colours::Logarithms);
            own.for_each(|(_, span)| *span = shared);
        }
        let top = GAP + 18.0 * title.len() as f64 + 10.0;
        let text = title.iter().map(|line| wide(line, TITLE.size)).fold(0.0, f64::max);
        // Width and height follow from the positions of the parts.
        let mut layout = Self { shape, rows, layers, spans, sharing, cell, top, width: 0.0, height: 0.0 };
        layout.width = layout.left(layers.len()).max(text + 2.0 * GAP);
        layout.height = layout.above(rows);
        layout
    }

    /// Width and height of a panel.
    fn panel(&self) -> [f64; 2] {
        [self.cell * self.shape[2], self.cell * self.shape[1]].map(|size| size as f64)
    }

    /// Whether a layer is followed by a colour bar: only the last one is if all share a scale.
    fn has_bar(&self, at: usize) -> bool {
        self.sharing == Sharing::Own || at + 1 == self.layers.len()
    }

    /// The left edge of a layer.
    fn left(&self, at: usize) -> f64 {
        let bars = (0..at).filter(|at| self.has_bar(*at)).count() as f64;
        GAP + (at + 1) as f64 * (self.panel()[0] + GAP) + bars * (BAR + NUMBERS)
    }

    /// The top edge of a row of panels, including its captions.
    fn above(&self, row: usize) -> f64 {
        self.top + row as f64 * (self.panel()[1] + 2.0 * GAP + 18.0)
    }

    /// Draws a row: the image, or one of its channels, and the map of each layer.
    fn row(&self, drawing: &mut Drawing, row: usize, image: &[f64]) -> Result<(), Error> {
        let [_, height, width] = self.shape;
        let (plane, y) = (height * width, self.above(row) + 18.0);
        let own = |at: usize| pixel(image, self.shape, at, (self.rows > 1).then_some(row));
        let name = if self.rows == 1 { "image".to_owned() } else { format!("channel {row}") };
        drawing.text([GAP, y - 6.0], &name, CAPTION);
        let address = image_address([width, height], |[x, y]| own(y * width + x))?;
        drawing.image([GAP, y], self.panel(), &address);
        drawing.frame([GAP, y], self.panel(), "currentColor", 0.5);
        for (at, (layer, span)) in self.layers.iter().zip(&self.spans).enumerate() {
            // A map of all channels together is only in the first row.
            let Some(values) = layer.values.get(row * plane..(row + 1) * plane) else { continue };
            let corner = [self.left(at), y];
            drawing.text([corner[0], y - 6.0], layer.title, CAPTION);
            let cell = self.cell;
            // Each pixel of the image is a square of the map's colour, with a dot of its own if
            // there is room.
            let address = image_address([cell * width, cell * height], |[x, y]| {
                let pixel_index = y / cell * width + x / cell;
                let dotted = layer.colours == Colours::Logarithms
                    && cell >= DOTTED
                    && in_dot(x % cell, y % cell, cell);
                if dotted { own(pixel_index) } else { layer.colour(span.share(values[pixel_index])) }
            })?;
            drawing.image(corner, self.panel(), &address);
            drawing.frame(corner, self.panel(), "currentColor", 0.5);
            if let Some((best, half)) = layer.best().zip(layer.window).filter(|(best, _)| best / plane == row)
            {
                self.mark(drawing, corner, best % plane, half);
            }
            if self.has_bar(at) {
                bar(drawing, [corner[0] + self.panel()[0] + 6.0, y], self.panel()[1], layer, span);
            }
        }
        Ok(())
    }

    /// Draws a frame around a window: red on white, visible on every colour.
    fn mark(&self, drawing: &mut Drawing, [x, y]: [f64; 2], at: usize, half: usize) {
        let [_, height, width] = self.shape;
        let range = |centre: usize, size: usize| {
            let (from, to) = (centre.saturating_sub(half), (centre + half + 1).min(size));
            [from * self.cell, (to - from) * self.cell].map(|size| size as f64)
        };
        let ([left, wide], [above, high]) = (range(at % width, width), range(at / width, height));
        drawing.frame([x + left, y + above], [wide, high], "#ffffff", 4.0);
        drawing.frame([x + left, y + above], [wide, high], "#d4002a", 2.0);
    }
}

/// Whether a position within a square lies in the dot at its centre.
fn in_dot(x: usize, y: usize, cell: usize) -> bool {
    let (inset, size) = (cell.div_ceil(3), cell / 3);
    (inset..inset + size).contains(&x) && (inset..inset + size).contains(&y)
}

/// The colour of a pixel of the image, or the grey of one channel.
pub(crate) fn pixel(
    image: &[f64],
    [channels, height, width]: [usize; 3],
    at: usize,
    channel: Option<usize>,
) -> Colour {
    let value = |c: usize| image.get(c * height * width + at).copied().unwrap_or(0.0);
    let byte = |x: f64| (x.clamp(0.0, 1.0) * 255.0).round() as u8;
    match channel {
        Some(channel) => [byte(value(channel)); 3],
        None if channels == 3 => [0, 1, 2].map(|c| byte(value(c))),
        None => [byte((0..channels).map(value).sum::<f64>() / channels as f64); 3],
    }
}

/// Draws the colour bar with its numbers and the kind of scale.
fn bar(drawing: &mut Drawing, [x, y]: [f64; 2], high: f64, layer: &MapLayer<'_>, span: &AxisSpan) {
    // The bar is drawn as this many rectangles of one colour each.
    const STEPS: usize = 64;
    let step = high / STEPS as f64;
    for at in 0..STEPS {
        let fill = colour(layer.colour(1.0 - (at as f64 + 0.5) / STEPS as f64));
        // Slightly higher than its step, so that no gap shows between neighbours.
        drawing.rect([x, y + at as f64 * step], [BAR, step + 0.3], &fill);
    }
    let logarithmic = layer.colours == Colours::Logarithms;
    drawing.text([x, y - 6.0], if logarithmic { "log scale" } else { "linear scale" }, SMALL);
    for tick in 0..TICKS {
        let share = tick as f64 / (TICKS - 1) as f64;
        let row = y + high * (1.0 - share);
        let shown = if logarithmic { power(span.at(share)) } else { number(span.at(share)) };
        let shown = if tick == 0 && span.clipped { format!("≤ {shown}") } else { shown };
        drawing.line([x + BAR, row], [x + BAR + 3.0, row], 0.7);
        drawing.text([x + BAR + 6.0, (row + 4.0).clamp(y + 9.0, y + high)], &shown, SMALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer<'a>(values: &'a [f64], window: Option<usize>) -> MapLayer<'a> {
        MapLayer { title: "half-width 0", values, colours: Colours::Logarithms, window }
    }

    fn decoded(picture: &Picture) -> (png::OutputInfo, Vec<u8>) {
        let bytes = picture.png().expect("a picture");
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().expect("a PNG");
        let mut data = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut data).expect("an image");
        (info, data)
    }

    #[test]
    fn the_largest_value_has_the_lightest_colour_and_the_image_its_dot() {
        let image = vec![0.0, 1.0, 0.5, 0.25];
        let values = [1.0, 2.0, 3.0, 4.0];
        let title = ["title".to_owned()];
        let drawn = picture(&title, &image, [1, 2, 2], &[layer(&values, None)], Sharing::Shared);
        let (info, data) = decoded(&drawn.expect("a picture"));
        let cell = PANEL as f64 / 2.0;
        // Two dots per pixel of the drawing, four bytes per dot.
        let dot = |x: f64, y: f64| {
            &data[4 * ((2.0 * y) as usize * info.width as usize + (2.0 * x) as usize)..][..3]
        };
        let (x, y) = (GAP + 2.0 * cell + GAP, GAP + 18.0 + 10.0 + 18.0);
        assert_eq!(dot(x + 4.0, y + 4.0), sequential(0.0));
        assert_eq!(dot(x + 2.0 * cell - 4.0, y + 2.0 * cell - 4.0), sequential(1.0));
        assert_eq!(dot(x + 1.5 * cell, y + cell / 2.0), [255; 3], "the white pixel's dot");
        assert_eq!(dot(GAP + cell / 2.0, y + 1.5 * cell), [128; 3]);
    }

    #[test]
    fn one_scale_or_one_each_is_said_at_the_bars() {
        let (image, small, large) =
            (vec![0.5; 4], [-3.0, -2.0, -2.5, f64::NEG_INFINITY], [1.0, 2.0, 2.0, 1.0]);
        let layers = [layer(&small, Some(0)), layer(&large, Some(1))];
        let drawn = |sharing| {
            let title = ["t".to_owned()];
            picture(&title, &image, [1, 2, 2], &layers, sharing).expect("a picture").inline().to_owned()
        };
        let (shared, own) = (drawn(Sharing::Shared), drawn(Sharing::Own));
        assert_eq!([&shared, &own].map(|svg| svg.matches("log scale").count()), [1, 2]);
        assert!(shared.contains("≤ 0.00100") && shared.contains(">100<"), "{shared}");
        assert_eq!(shared.matches("#d4002a").count(), 1, "the best window is framed, where there is one");
    }

    #[test]
    fn any_numbers_can_be_drawn() {
        let image = vec![0.5; 2 * 3 * 3];
        for values in [
            vec![0.0; 9],
            vec![f64::INFINITY; 9],
            vec![f64::NEG_INFINITY; 18],
            vec![f64::NAN; 9],
            (0..18).map(|i| f64::from(i) * 20.0 - 200.0).collect(),
        ] {
            for colours in [Colours::Logarithms, Colours::Diverging] {
                let layer = MapLayer { title: "a", values: &values, colours, window: Some(1) };
                for sharing in [Sharing::Shared, Sharing::Own] {
                    let drawn = picture(&[], &image, [2, 3, 3], &[layer, layer], sharing);
                    assert!(drawn.is_ok_and(|drawn| drawn.png().is_ok()));
                }
            }
        }
        let wrong = layer(&[1.0], None);
        assert!(matches!(picture(&[], &image, [2, 3, 3], &[wrong], Sharing::Own), Err(Error::Layer { .. })));
    }
}
