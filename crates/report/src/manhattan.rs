//! Manhattan plot: the values of many images, grouped by class, one dot per image.

use crate::axes::{Frame, SMALL, TITLE, kind};
use crate::scale::Span;
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

const GAP: f64 = 16.0;
const WIDE: f64 = 820.0;
const HIGH: f64 = 220.0;
const LEFT: f64 = 62.0;

/// Draws the panels below each other on one scale; `name` is the title of the axis of values.
#[must_use]
pub fn manhattan(title: &str, name: &str, skylines: &[Skyline], classes: &[String]) -> Picture {
    let values = || skylines.iter().flat_map(|of| of.images.iter().map(|(_, log10)| *log10));
    let span = Span::of_dots(values());
    let panel = 24.0 + HIGH + 44.0;
    let width = (LEFT + WIDE + 2.0 * GAP).max(wide(title, TITLE) + 2.0 * GAP);
    let mut drawing = Drawing::new(width, GAP + 24.0 + skylines.len() as f64 * panel + GAP);
    drawing.text([GAP, GAP + 12.0], title, Text::new(TITLE, Anchor::Start));
    for (at, skyline) in skylines.iter().enumerate() {
        let top = GAP + 24.0 + at as f64 * panel;
        drawing.text([GAP, top + 14.0], &skyline.title, Text::new(12.0, Anchor::Start));
        let frame = Frame { left: GAP + LEFT, top: top + 24.0, width: WIDE, height: HIGH };
        frame.decades(&mut drawing, &span, name);
        dots(&mut drawing, &frame, skyline, &span, classes);
        if let Some((log10, name)) = &skyline.mark {
            let y = frame.y(span.share(*log10));
            drawing.path(&[[frame.left, y], [frame.left + WIDE, y]], "currentColor", true);
            drawing.text([frame.left + WIDE - 4.0, y - 4.0], name, Text::new(SMALL, Anchor::End));
        }
    }
    drawing.finish(title)
}

/// Draws the dots, as one path per class: ten thousand separate elements would make a page slow.
fn dots(drawing: &mut Drawing, frame: &Frame, skyline: &Skyline, span: &Span, classes: &[String]) {
    let room = frame.width / classes.len().max(1) as f64;
    for (class, name) in classes.iter().enumerate() {
        let own: Vec<f64> = skyline.images.iter().filter(|(of, _)| *of == class).map(|(_, x)| *x).collect();
        let left = frame.left + class as f64 * room;
        let place = |at: usize| left + room * (0.06 + 0.88 * (at as f64 + 0.5) / own.len() as f64);
        let d: String = own
            .iter()
            .enumerate()
            .map(|(at, log10)| format!("M{:.1} {:.1}h0", place(at), frame.y(span.share(*log10))))
            .collect();
        let stroke = kind(class % 2);
        drawing.raw(&format!(
            r#"<path d="{d}" fill="none" stroke="{stroke}" stroke-width="2.6" stroke-linecap="round" stroke-opacity="0.7"/>"#
        ));
        let middle = [left + room / 2.0, frame.top + frame.height + 16.0];
        drawing.text(middle, &shortened(name, room), Text::new(SMALL, Anchor::Middle));
    }
}

/// The name, cut to the available width.
fn shortened(name: &str, room: f64) -> String {
    if wide(name, SMALL) <= room {
        return name.to_owned();
    }
    let letters = (room / wide("x", SMALL)) as usize;
    name.chars().take(letters.saturating_sub(1)).chain(['.']).collect()
}
