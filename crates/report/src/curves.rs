//! ROC and precision-recall curves of several scores, side by side.

use crate::axes::{PlotFrame, SMALL, TITLE, kind, legend};
use crate::statistics::{Areas, CurvePoint};
use crate::svg::{Anchor, Drawing, Picture, Text, wide};

/// The curves of one score.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// The name of the score.
    pub name: String,
    /// The points, from the strictest threshold on.
    pub points: Vec<CurvePoint>,
    /// The areas under both curves.
    pub areas: Areas,
    /// Whether it is drawn dashed, as a baseline.
    pub dashed: bool,
}

// Margin, side of a plot, and room for the numbers on its left, in pixels.
const GAP: f64 = 16.0;
const SIDE: f64 = 320.0;
const LEFT: f64 = 58.0;
/// Points closer than this fraction of the axis, less than a pixel, are left out.
const FINE: f64 = 1.0 / 400.0;

/// Draws both plots above a legend with the areas. `share` is the fraction of bad images: the
/// precision of a random score.
#[must_use]
pub fn curves(title: &str, curves: &[Curve], share: f64) -> Picture {
    let width = (2.0 * (LEFT + SIDE + 2.0 * GAP)).max(wide(title, TITLE) + 2.0 * GAP);
    let height = GAP + 28.0 + SIDE + 56.0 + curves.len() as f64 * 18.0 + GAP;
    let mut drawing = Drawing::new(width, height);
    drawing.text([GAP, GAP + 12.0], title, Text::new(TITLE, Anchor::Start));
    let frames = [0.0, 1.0].map(|at| PlotFrame {
        left: LEFT + GAP + at * (LEFT + SIDE + 2.0 * GAP),
        top: GAP + 28.0,
        width: SIDE,
        height: SIDE,
    });
    let [roc, precision] = &frames;
    roc.unit(&mut drawing, ["good images called bad (false positive rate)", "bad images found (recall)"]);
    precision
        .unit(&mut drawing, ["bad images found (recall)", "share of those called bad that are (precision)"]);
    drawing.line([roc.x(0.0), roc.y(0.0)], [roc.x(1.0), roc.y(1.0)], 0.4);
    drawing.line([precision.x(0.0), precision.y(share)], [precision.x(1.0), precision.y(share)], 0.4);
    let mut items = Vec::new();
    for (index, curve) in curves.iter().enumerate() {
        // Solid and dashed curves use the same colours, each group from the first one on.
        let at = curves.iter().take(index).filter(|other| other.dashed == curve.dashed).count();
        // The ROC curve begins at the origin. Precision is not defined without an image called bad,
        // so its curve begins at the first threshold.
        let mut ends = vec![[roc.x(0.0), roc.y(0.0)]];
        ends.extend(
            thinned(&curve.points, |point| [point.false_positives, point.recall])
                .map(|[x, y]| [roc.x(x), roc.y(y)]),
        );
        drawing.path(&ends, kind(at), curve.dashed);
        let found: Vec<[f64; 2]> = thinned(&curve.points, |point| [point.recall, point.precision])
            .map(|[x, y]| [precision.x(x), precision.y(y)])
            .collect();
        drawing.path(&found, kind(at), curve.dashed);
        let (areas, dashed) = (curve.areas, if curve.dashed { " (dashed)" } else { "" });
        items.push((
            format!(
                "{}{dashed}: AUROC {:.3} [{:.3}, {:.3}], average precision {:.3} [{:.3}, {:.3}]",
                curve.name,
                areas.roc.value,
                areas.roc.low,
                areas.roc.high,
                areas.precision.value,
                areas.precision.low,
                areas.precision.high
            ),
            kind(at).to_owned(),
        ));
    }
    // A legend narrower than two items puts each on its own line.
    items.iter().enumerate().for_each(|(at, item)| {
        let corner = [LEFT + GAP, GAP + 28.0 + SIDE + 48.0 + at as f64 * 18.0];
        legend(&mut drawing, corner, SMALL, std::slice::from_ref(item));
    });
    drawing.finish(title)
}

/// Drops points that are closer than `FINE` to the previous one: a curve of ten thousand images
/// would otherwise make a large file of invisible steps. The last point is kept.
fn thinned<'a>(
    points: &'a [CurvePoint],
    of: impl Fn(&CurvePoint) -> [f64; 2] + 'a,
) -> impl Iterator<Item = [f64; 2]> + 'a {
    let mut last = [f64::INFINITY; 2];
    let count = points.len();
    points.iter().enumerate().filter_map(move |(at, point)| {
        let now = of(point);
        let far = (0..2).any(|axis| (now[axis] - last[axis]).abs() >= FINE);
        (far || at + 1 == count).then(|| {
            last = now;
            now
        })
    })
}
