//! Manhattan plot: the values of many images, grouped by class, one dot per image.

use crate::axes::{PlotFrame, SMALL, TITLE, kind};
use crate::points::RING;
use crate::scale::AxisSpan;
use crate::svg::{Anchor, Drawing, Picture, Text, wide};

/// One set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Skyline {
    /// The title above its panel.
    pub title: String,
    /// The class of each image and the decimal logarithm of its value, -infinity for 0.
    pub images: Vec<(usize, f64)>,
    /// Decimal logarithm of a value at which a line is drawn, and its name.
    pub mark: Option<(f64, String)>,
}

// Margin, width and height of a panel, and room for the numbers on its left, in pixels.
const GAP: f64 = 16.0;
const WIDE: f64 = 820.0;
const HIGH: f64 = 220.0;
const LEFT: f64 = 62.0;

/// A plot, and where in it every image is.
#[derive(Debug, Clone, PartialEq)]
pub struct Manhattan {
    /// The plot.
    pub picture: Picture,
    /// The position of each image of each set, in their order.
    pub positions: Vec<Vec<[f64; 2]>>,
}

/// Draws the panels below each other on one scale; `name` says what the values are.
#[must_use]
pub fn manhattan(title: &str, name: &str, skylines: &[Skyline], classes: &[String]) -> Manhattan {
    let values = || skylines.iter().flat_map(|of| of.images.iter().map(|(_, log10)| *log10));
    let span = AxisSpan::of_dots(values());
    let panel = 24.0 + HIGH + 44.0;
    let width = (LEFT + WIDE + 2.0 * GAP).max(wide(title, TITLE) + 2.0 * GAP);
    let mut drawing = Drawing::new(width, GAP + 24.0 + skylines.len() as f64 * panel + GAP);
    drawing.text([GAP, GAP + 12.0], title, Text::new(TITLE, Anchor::Start));
    let mut positions = Vec::with_capacity(skylines.len());
    for (at, skyline) in skylines.iter().enumerate() {
        let top = GAP + 24.0 + at as f64 * panel;
        drawing.text([GAP, top + 14.0], &skyline.title, Text::new(12.0, Anchor::Start));
        let frame = PlotFrame { left: GAP + LEFT, top: top + 24.0, width: WIDE, height: HIGH };
        frame.decades(&mut drawing, &span, name);
        positions.push(dots(&mut drawing, &frame, skyline, &span, classes));
        if let Some((log10, name)) = &skyline.mark {
            let y = frame.y(span.share(*log10));
            drawing.path(&[[frame.left, y], [frame.left + WIDE, y]], "currentColor", true);
            drawing.text([frame.left + WIDE - 4.0, y - 4.0], name, Text::new(SMALL, Anchor::End));
        }
    }
    drawing.raw(RING);
    Manhattan { picture: drawing.finish(title), positions }
}

/// Draws the dots of one set, one path per class: ten thousand dots in as many elements would be a
/// slow page. Returns the position of each image.
fn dots(
    drawing: &mut Drawing,
    frame: &PlotFrame,
    skyline: &Skyline,
    span: &AxisSpan,
    classes: &[String],
) -> Vec<[f64; 2]> {
    let room = frame.width / classes.len().max(1) as f64;
    let mut positions = vec![[frame.left, frame.top]; skyline.images.len()];
    for (class, name) in classes.iter().enumerate() {
        let own = skyline.images.iter().enumerate().filter(|(_, (of, _))| *of == class);
        let own: Vec<(usize, f64)> = own.map(|(image, (_, log10))| (image, *log10)).collect();
        let left = frame.left + class as f64 * room;
        let mut d = String::new();
        for (at, &(image, log10)) in own.iter().enumerate() {
            let x = left + room * (0.06 + 0.88 * (at as f64 + 0.5) / own.len() as f64);
            positions[image] = [x, frame.y(span.share(log10))];
            d.push_str(&format!("M{:.1} {:.1}h0", x, positions[image][1]));
        }
        let stroke = kind(class % 2);
        drawing.raw(&format!(
            r#"<path d="{d}" fill="none" stroke="{stroke}" stroke-width="2.6" stroke-linecap="round" stroke-opacity="0.7"/>"#
        ));
        let middle = [left + room / 2.0, frame.top + frame.height + 16.0];
        drawing.text(middle, &shortened(name, room), Text::new(SMALL, Anchor::Middle));
    }
    positions
}

/// The name, cut to the available width.
fn shortened(name: &str, room: f64) -> String {
    if wide(name, SMALL) <= room {
        return name.to_owned();
    }
    let letters = (room / wide("x", SMALL)) as usize;
    name.chars().take(letters.saturating_sub(1)).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_is_where_its_dot_is_drawn() {
        let images = vec![(1, -2.0), (0, 1.0), (1, f64::NEG_INFINITY), (0, 0.0)];
        let skyline = |title: &str| Skyline { title: title.into(), images: images.clone(), mark: None };
        let plot = manhattan("t", "n", &[skyline("a"), skyline("b")], &["zero".into(), "one".into()]);
        let svg = plot.picture.inline();
        let [first, second] = plot.positions.as_slice() else { panic!("two sets") };
        for [x, y] in first.iter().chain(second) {
            assert!(svg.contains(&format!("M{x:.1} {y:.1}h0")), "{x} {y}");
        }
        // Class 0 is left of class 1, the larger value above, and 0 at the foot of its panel.
        assert!(first[3][0] < first[0][0] && first[1][1] < first[3][1] && first[2][1] >= first[0][1]);
        let apart = second[0][1] - first[0][1];
        assert!(apart > HIGH && first.iter().zip(second).all(|(a, b)| (b[1] - a[1] - apart).abs() < 1e-9));
    }
}
