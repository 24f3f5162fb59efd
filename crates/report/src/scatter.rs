//! Scatter plot of two logarithms of many images, for a page: each dot shows a description.

use crate::axes::{PlotFrame, SMALL, TITLE, kind, legend};
use crate::points::{HoverPoint, RING};
use crate::scale::AxisSpan;
use crate::svg::{Anchor, Drawing, Picture, Text};

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// Decimal logarithm on the horizontal axis; -infinity for 0.
    pub x: f64,
    /// Decimal logarithm on the vertical axis.
    pub y: f64,
    /// Index of its group.
    pub group: usize,
    /// Its description, in lines.
    pub words: String,
    /// A small image, as a `data:` URL.
    pub image: Option<String>,
}

/// A plot of dots.
#[derive(Debug, Clone, PartialEq)]
pub struct Scatter {
    /// The title above it.
    pub title: String,
    /// Titles of the horizontal and the vertical axis.
    pub axes: [String; 2],
    /// The groups, each with a colour.
    pub groups: Vec<String>,
    /// Whether a dashed line is drawn where both values are equal.
    pub equal: bool,
    /// The dots; later ones are drawn over earlier ones.
    pub dots: Vec<Dot>,
}

// Margin, room for the numbers on the left, width and height of the plot, in pixels.
const GAP: f64 = 16.0;
const LEFT: f64 = 62.0;
const WIDE: f64 = 640.0;
const HIGH: f64 = 380.0;

impl Scatter {
    /// The picture, and its dots as points of it.
    pub(crate) fn drawn(&self) -> (Picture, Vec<HoverPoint>) {
        let mut drawing = Drawing::new(GAP + LEFT + WIDE + GAP, GAP + 50.0 + HIGH + 46.0);
        drawing.text([GAP, GAP + 8.0], &self.title, Text::new(TITLE, Anchor::Start));
        let items: Vec<(String, String)> =
            self.groups.iter().enumerate().map(|(at, name)| (name.clone(), kind(at).to_owned())).collect();
        legend(&mut drawing, [GAP, GAP + 22.0], WIDE, &items);
        let frame = PlotFrame { left: GAP + LEFT, top: GAP + 50.0, width: WIDE, height: HIGH };
        let [across, up] = [
            AxisSpan::of_dots(self.dots.iter().map(|dot| dot.x)),
            AxisSpan::of_dots(self.dots.iter().map(|dot| dot.y)),
        ];
        frame.decades(&mut drawing, &up, &self.axes[1]);
        self.across(&mut drawing, &frame, &across);
        // A small margin, so that no dot lies on the frame.
        let inside = |share: f64| 0.012 + 0.976 * share;
        let position = |dot: &Dot| [frame.x(inside(across.share(dot.x))), frame.y(inside(up.share(dot.y)))];
        let (low, high) = (across.low.max(up.low), across.high.min(up.high));
        if self.equal && low < high {
            let end = |log10: f64| [frame.x(inside(across.share(log10))), frame.y(inside(up.share(log10)))];
            drawing.path(&[end(low), end(high)], "currentColor", true);
        }
        // One path per group, as in `manhattan.rs`: one element for each dot would be a slow page.
        for group in 0..self.groups.len() {
            let own = self.dots.iter().filter(|dot| dot.group == group);
            let d: String = own.map(position).map(|[x, y]| format!("M{x:.1} {y:.1}h0")).collect();
            let stroke = kind(group);
            drawing.raw(&format!(
                r#"<path d="{d}" fill="none" stroke="{stroke}" stroke-width="4" stroke-linecap="round" stroke-opacity="0.7"/>"#
            ));
        }
        drawing.raw(RING);
        let point = |dot: &Dot| HoverPoint {
            position: position(dot),
            words: dot.words.clone(),
            image: dot.image.clone(),
        };
        (drawing.finish(&self.title), self.dots.iter().map(point).collect())
    }

    /// Draws grid lines, numbers and the title of the horizontal axis.
    fn across(&self, drawing: &mut Drawing, frame: &PlotFrame, span: &AxisSpan) {
        let foot = frame.top + frame.height;
        for decade in span.decades() {
            let x = frame.x(0.012 + 0.976 * span.share(f64::from(decade)));
            drawing.line([x, frame.top], [x, foot], 0.14);
            drawing.text([x, foot + 16.0], &format!("1e{decade}"), Text::new(SMALL, Anchor::Middle));
        }
        drawing.text(
            [frame.left + frame.width / 2.0, foot + 36.0],
            &self.axes[0],
            Text::new(SMALL, Anchor::Middle),
        );
    }
}
