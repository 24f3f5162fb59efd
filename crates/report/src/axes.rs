//! Frames of plots: a box with ticks, axis titles, and a legend; and the colours of categories.

use crate::scale::{AxisSpan, power};
use crate::svg::{Anchor, Drawing, Text, wide};

/// Colours of categories (Okabe and Ito, 2008): distinguishable with colour blindness, and visible
/// on white and on black.
pub(crate) const KINDS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a7a00", "#3a9bd9", "#b3741e", "#7a7a7a"];

/// The colour of a category by its number.
pub(crate) fn kind(at: usize) -> &'static str {
    KINDS.get(at % KINDS.len()).copied().unwrap_or("#7a7a7a")
}

// Font sizes of labels and of titles, in pixels of the drawing.
pub(crate) const SMALL: f64 = 11.0;
pub(crate) const TITLE: f64 = 14.0;

/// The plotting area, in pixels of the drawing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlotFrame {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

impl PlotFrame {
    /// The vertical coordinate at `share`, from 0 at the bottom to 1 at the top.
    pub(crate) fn y(&self, share: f64) -> f64 {
        self.top + self.height * (1.0 - share)
    }

    /// The horizontal coordinate at `share`, from 0 on the left to 1 on the right.
    pub(crate) fn x(&self, share: f64) -> f64 {
        self.left + self.width * share
    }

    /// Draws grid lines and numbers of a logarithmic vertical axis, with its title rotated on its
    /// left.
    pub(crate) fn decades(&self, drawing: &mut Drawing, span: &AxisSpan, name: &str) {
        for decade in span.decades() {
            let y = self.y(span.share(f64::from(decade)));
            drawing.line([self.left, y], [self.left + self.width, y], 0.14);
            let text = Text::new(SMALL, Anchor::End);
            drawing.text([self.left - 6.0, y + 4.0], &format!("1e{decade}"), text);
        }
        if span.clipped {
            let text = Text { pale: true, ..Text::new(SMALL, Anchor::Start) };
            let words = format!("at the lower edge: ≤ {}", power(span.low));
            drawing.text([self.left + 6.0, self.top + self.height - 6.0], &words, text);
        }
        self.upright(drawing, name);
        self.border(drawing);
    }

    /// Draws grid lines and numbers of two axes from 0 to 1, with their titles.
    pub(crate) fn unit(&self, drawing: &mut Drawing, [across, up]: [&str; 2]) {
        for tick in 0..=5 {
            let share = f64::from(tick) / 5.0;
            let shown = format!("{share:.1}");
            let (x, y) = (self.x(share), self.y(share));
            drawing.line([self.left, y], [self.left + self.width, y], 0.14);
            drawing.line([x, self.top], [x, self.top + self.height], 0.14);
            drawing.text([self.left - 6.0, y + 4.0], &shown, Text::new(SMALL, Anchor::End));
            drawing.text([x, self.top + self.height + 15.0], &shown, Text::new(SMALL, Anchor::Middle));
        }
        let middle = [self.left + self.width / 2.0, self.top + self.height + 32.0];
        drawing.text(middle, across, Text::new(SMALL, Anchor::Middle));
        self.upright(drawing, up);
        self.border(drawing);
    }

    /// Draws the title of the vertical axis, rotated.
    fn upright(&self, drawing: &mut Drawing, name: &str) {
        let text = Text { turned: -90.0, ..Text::new(SMALL, Anchor::Middle) };
        drawing.text([self.left - 42.0, self.top + self.height / 2.0], name, text);
    }

    /// Draws the box around the area.
    pub(crate) fn border(&self, drawing: &mut Drawing) {
        drawing.frame([self.left, self.top], [self.width, self.height], "currentColor", 0.6);
    }
}

/// Draws a legend of coloured squares with names, wrapped to `width`; returns its height.
pub(crate) fn legend(drawing: &mut Drawing, [x, y]: [f64; 2], width: f64, items: &[(String, String)]) -> f64 {
    let (mut left, mut top) = (x, y);
    for (name, fill) in items {
        let long = 16.0 + wide(name, SMALL) + 14.0;
        if left > x && left + long > x + width {
            (left, top) = (x, top + 18.0);
        }
        drawing.rect([left, top], [10.0, 10.0], fill);
        drawing.text([left + 16.0, top + 9.0], name, Text::new(SMALL, Anchor::Start));
        left += long;
    }
    top + 18.0 - y
}
