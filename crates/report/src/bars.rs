//! Layers by depth: one panel per network and one bar per layer, from the first to the third
//! quartile on a logarithmic axis, with the layer's name below the bar.

use crate::axes::{PlotFrame, SMALL, TITLE, kind, legend};
use crate::error::Error;
use crate::scale::{AxisSpan, power};
use crate::svg::{Anchor, Drawing, Picture, Text, escaped, wide};

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The label below it.
    pub name: String,
    /// Its category: bars of one kind have the same colour.
    pub kind: String,
    /// The first quartile; `None` if it overflows f64, and likewise for the other two.
    pub low: Option<f64>,
    /// The median.
    pub middle: Option<f64>,
    /// The third quartile.
    pub high: Option<f64>,
    /// Whether it is drawn pale, because most of its values are saturated.
    pub full: bool,
}

/// The bars of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// The title above the panel.
    pub title: String,
    /// The bars, in the order of the layers.
    pub bars: Vec<Bar>,
}

/// Margin around the plot and between panels, in pixels like all lengths here.
const GAP: f64 = 16.0;
/// Height of a panel.
const HIGH: f64 = 260.0;
/// Approximate width of all bars of a panel.
const WIDE: f64 = 900.0;
/// Smallest and largest width of a bar with its gap. The smallest leaves room for the name below
/// it.
const PITCH: [f64; 2] = [10.5, 26.0];
/// Width of the axis numbers and the axis title.
const NUMBERS: f64 = 62.0;
/// Font size of the names of layers.
const NAME: f64 = 9.0;

/// Draws the panels of all networks below each other, with a dark mark at each median.
///
/// # Errors
/// No bars.
pub fn bars(title: &str, series: &[Series]) -> Result<Picture, Error> {
    let most = series.iter().map(|series| series.bars.len()).max().unwrap_or(0);
    if most == 0 {
        return Err(Error::NoBars);
    }
    // All panels share one pitch, one scale and one legend, so that their bars can be compared. The
    // longest name and the longest title decide on height and width.
    let pitch = (WIDE / most as f64).clamp(PITCH[0], PITCH[1]);
    let all = || series.iter().flat_map(|series| &series.bars);
    let names = all().map(|bar| wide(&bar.name, NAME)).fold(0.0, f64::max);
    let span = span(all());
    let kinds = kinds(all());
    let panel = 26.0 + HIGH + 8.0 + names + GAP;
    let text = series.iter().map(|of| wide(&of.title, SMALL)).fold(wide(title, TITLE), f64::max);
    let width = (NUMBERS + most as f64 * pitch).max(text).max(420.0) + 2.0 * GAP;
    let mut items: Vec<(String, String)> =
        kinds.iter().enumerate().map(|(at, name)| (name.clone(), kind(at).to_owned())).collect();
    items.push(("pale: saturated in most images".into(), "#b8b8b8".into()));
    items.push(("bar: quartiles; mark: median".into(), "currentColor".into()));
    // 44 pixels are reserved for the legend, i.e. two lines: its height is known only once drawn.
    let mut drawing = Drawing::new(width, GAP + 24.0 + 44.0 + series.len() as f64 * panel + 18.0);
    drawing.text([GAP, GAP + 12.0], title, Text::new(TITLE, Anchor::Start));
    legend(&mut drawing, [GAP, GAP + 24.0], width - 2.0 * GAP, &items);
    for (at, series) in series.iter().enumerate() {
        let top = GAP + 68.0 + at as f64 * panel;
        drawing.text([GAP, top + 12.0], &series.title, Text::new(12.0, Anchor::Start));
        let wide = series.bars.len() as f64 * pitch;
        let frame = PlotFrame { left: GAP + NUMBERS, top: top + 26.0, width: wide, height: HIGH };
        frame.decades(&mut drawing, &span, "influence, log scale");
        for (index, bar) in series.bars.iter().enumerate() {
            draw(&mut drawing, &frame, index as f64 * pitch, pitch, bar, &span, &kinds);
        }
    }
    let foot = GAP + 68.0 + series.len() as f64 * panel + 4.0;
    let axis = "layers in the order of the network's modules, the first on the left";
    drawing.text([GAP + NUMBERS, foot], axis, Text { pale: true, ..Text::new(SMALL, Anchor::Start) });
    Ok(drawing.finish(title))
}

/// The span of all bars, rounded outwards to whole decades.
fn span<'a>(bars: impl Iterator<Item = &'a Bar>) -> AxisSpan {
    let values: Vec<f64> = bars.flat_map(|bar| [bar.low, bar.middle, bar.high]).flatten().collect();
    let span = AxisSpan::of_logs(values.iter().map(|value| value.log10()));
    AxisSpan { low: span.low.floor(), high: span.high.ceil().max(span.low.floor() + 1.0), ..span }
}

/// The distinct kinds, in the order of their first occurrence.
fn kinds<'a>(bars: impl Iterator<Item = &'a Bar>) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    for bar in bars {
        if !kinds.contains(&bar.kind) {
            kinds.push(bar.kind.clone());
        }
    }
    kinds
}

/// Draws one bar with its median, its name and a description under the pointer.
fn draw(
    drawing: &mut Drawing,
    frame: &PlotFrame,
    offset: f64,
    pitch: f64,
    bar: &Bar,
    span: &AxisSpan,
    kinds: &[String],
) {
    // A value beyond f64 is drawn at the upper end.
    let height = |value: Option<f64>| frame.y(value.map_or(1.0, |value| span.share(value.log10())));
    let [low, middle, high] = [bar.low, bar.middle, bar.high].map(height);
    let left = frame.left + offset + 1.0;
    let at = kinds.iter().position(|kind| *kind == bar.kind).unwrap_or(0);
    let shown = |value: Option<f64>| value.map_or_else(|| "beyond f64".into(), |value| power(value.log10()));
    let [q1, q2, q3] = [bar.low, bar.middle, bar.high].map(shown);
    let said = format!("{} ({}): median {q2}, quartiles {q1} to {q3}", bar.name, bar.kind);
    drawing.raw(&format!("<g><title>{}</title>", escaped(&said)));
    let fill = if bar.full { "#b8b8b8" } else { kind(at) };
    drawing.rect([left, high], [pitch - 2.0, (low - high).max(1.0)], fill);
    drawing.rect([left - 0.5, middle - 1.0], [pitch - 1.0, 2.0], "currentColor");
    let text = Text { turned: -90.0, ..Text::new(NAME, Anchor::End) };
    drawing.text([left + pitch / 2.0 + 2.0, frame.top + frame.height + 6.0], &bar.name, text);
    drawing.raw("</g>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, values: [Option<f64>; 3]) -> Bar {
        let [low, middle, high] = values;
        Bar { name: name.into(), kind: "convolution".into(), low, middle, high, full: false }
    }

    #[test]
    fn the_axis_has_whole_decades() {
        let bars = [bar("a", [Some(0.02), Some(0.5), Some(3.0)])];
        assert_eq!(span(bars.iter()), AxisSpan { low: -2.0, high: 1.0, clipped: false });
    }

    #[test]
    fn any_numbers_can_be_drawn_and_every_layer_is_named() {
        for values in [
            [Some(0.0); 3],
            [None; 3],
            [Some(1e-300), Some(1.0), Some(1e300)],
            [Some(5e-324), Some(5e-324), None],
        ] {
            let all = (0..250).map(|i| bar(&format!("stages.{i}.conv"), values)).collect();
            let series = Series { title: "a network".into(), bars: all };
            let picture = bars("title", &[series.clone(), series]).expect("a picture");
            assert_eq!(picture.inline().matches(">stages.249.conv<").count(), 2);
            assert!(picture.png().is_ok());
        }
        assert!(matches!(bars("title", &[]), Err(Error::NoBars)));
    }
}
