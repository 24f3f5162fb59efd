//! Bars by depth: one panel a network, one bar a layer from its lowest to its highest quartile, on a logarithmic scale.

use crate::canvas::Canvas;
use crate::colours::{Colour, sequential};
use crate::error::Error;
use crate::font;

/// One bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What stands below it.
    pub name: String,
    /// The first quartile; nothing beyond f64, as the others.
    pub low: Option<f64>,
    /// The median.
    pub middle: Option<f64>,
    /// The third quartile.
    pub high: Option<f64>,
    /// Whether it is drawn pale: most of what it is of is saturated.
    pub full: bool,
}

/// The bars of one network.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What stands above the panel.
    pub title: String,
    /// From the input to the output.
    pub bars: Vec<Bar>,
}

const GAP: usize = 12;
const TITLE: usize = font::HEIGHT + 6;
/// Height of a panel.
const HIGH: usize = 240;
/// Width of all bars of a panel, about.
const WIDE: usize = 960;
/// A bar is at least so wide, with its gap, and at most.
const BAR: [usize; 2] = [4, 24];
/// Room for the numbers of the scale.
const NUMBERS: usize = 7 * font::ADVANCE;
/// How many decades are drawn at most.
const DECADES: i32 = 12;
/// Names stand below every so many dots.
const NAMED: usize = font::HEIGHT + 2;
const INK: Colour = [0, 0, 0];
const LINE: Colour = [225, 225, 225];
const PALE: Colour = [190, 190, 190];

/// Decimal logarithms between whole ones.
struct Decades {
    low: i32,
    high: i32,
}

impl Decades {
    /// Those that hold all bars of all panels.
    fn of(series: &[Series]) -> Self {
        let bars = || series.iter().flat_map(|series| &series.bars);
        let values = || bars().flat_map(|bar| [bar.low, bar.middle, bar.high]).flatten();
        let logs = || values().filter(|x| *x > 0.0 && x.is_finite()).map(f64::log10);
        let high = logs().fold(f64::NEG_INFINITY, f64::max);
        let low = logs().fold(f64::INFINITY, f64::min);
        if !high.is_finite() {
            return Self { low: 0, high: 1 };
        }
        let high = high.ceil() as i32;
        Self { low: (low.floor() as i32).max(high - DECADES).min(high - 1), high }
    }

    /// How many dots above the foot of a panel a value lies.
    fn dots(&self, value: Option<f64>) -> usize {
        let share = match value {
            Some(value) if value <= 0.0 => 0.0,
            Some(value) => (value.log10() - f64::from(self.low)) / f64::from(self.high - self.low),
            None => 1.0,
        };
        (share.clamp(0.0, 1.0) * HIGH as f64).round() as usize
    }
}

/// The panels of all networks below each other, as a PNG file: grey lines a decade apart, a dark mark at each median.
///
/// # Errors
/// No bars; an encoder that refuses.
pub fn bars(title: &str, series: &[Series]) -> Result<Vec<u8>, Error> {
    let most = series.iter().map(|series| series.bars.len()).max().unwrap_or(0);
    if most == 0 {
        return Err(Error::NoBars);
    }
    let pitch = (WIDE / most).clamp(BAR[0], BAR[1]);
    let longest = |series: &Series| series.bars.iter().map(|bar| font::width(&bar.name)).max().unwrap_or(0);
    let names = series.iter().map(longest).max().unwrap_or(0);
    let panel = TITLE + HIGH + 4 + names + GAP;
    let text = series.iter().map(|series| font::width(&series.title)).chain([font::width(title)]).max();
    let width = (NUMBERS + most * pitch).max(text.unwrap_or(0)) + 3 * GAP;
    let mut canvas = Canvas::new(width, GAP + TITLE + series.len() * panel);
    canvas.text([GAP, GAP], title, INK);
    let decades = Decades::of(series);
    for (at, series) in series.iter().enumerate() {
        draw(&mut canvas, [GAP, GAP + TITLE + at * panel], series, &decades, [pitch, most * pitch]);
    }
    canvas.png()
}

/// One panel.
fn draw(
    canvas: &mut Canvas,
    [x, y]: [usize; 2],
    series: &Series,
    decades: &Decades,
    [pitch, width]: [usize; 2],
) {
    canvas.text([x, y], &series.title, INK);
    let (left, foot) = (x + NUMBERS, y + TITLE + HIGH);
    for decade in decades.low..=decades.high {
        let line = foot - decades.dots(Some(10.0_f64.powi(decade)));
        canvas.fill([left, line], [width, 1], LINE);
        canvas.text([x, line.saturating_sub(font::HEIGHT / 2)], &format!("1e{decade}"), INK);
    }
    for (at, bar) in series.bars.iter().enumerate() {
        let corner = left + at * pitch;
        let [low, middle, high] = [bar.low, bar.middle, bar.high].map(|value| decades.dots(value));
        let colour = if bar.full { PALE } else { sequential(0.35) };
        canvas.fill([corner, foot - high], [pitch - 1, (high - low.min(high)).max(1)], colour);
        canvas.fill([corner, foot - middle], [pitch - 1, 2], INK);
        // Names need more room than bars: every so many.
        if at % NAMED.div_ceil(pitch) == 0 {
            canvas.upright([corner, foot + 4], &bar.name, INK);
        }
    }
    canvas.fill([left, foot], [width, 1], INK);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, values: [Option<f64>; 3]) -> Bar {
        Bar { name: name.into(), low: values[0], middle: values[1], high: values[2], full: false }
    }

    #[test]
    fn a_decade_has_its_place() {
        let series =
            [Series { title: "net".into(), bars: vec![bar("a", [Some(0.02), Some(0.5), Some(3.0)])] }];
        let decades = Decades::of(&series);
        assert_eq!((decades.low, decades.high), (-2, 1));
        assert_eq!(decades.dots(Some(0.1)), HIGH / 3);
        assert_eq!([Some(0.0), None, Some(1e300)].map(|x| decades.dots(x)), [0, HIGH, HIGH]);
        assert!(decades.dots(Some(0.5)) < decades.dots(Some(3.0)));
    }

    #[test]
    fn any_numbers_can_be_drawn_and_none_cannot() {
        for values in [
            [Some(0.0); 3],
            [None; 3],
            [Some(1e-300), Some(1.0), Some(1e300)],
            [Some(5e-324), Some(5e-324), None],
        ] {
            let all = (0..250).map(|i| bar(&format!("stages.{i}.conv"), values)).collect();
            let series = Series { title: "a network".into(), bars: all };
            let picture = bars("title", &[series.clone(), series]).expect("a picture");
            let reader = png::Decoder::new(std::io::Cursor::new(picture)).read_info().expect("a PNG");
            assert!(reader.info().width > 1_000 && reader.info().height > 600);
        }
        assert!(matches!(bars("title", &[]), Err(Error::NoBars)));
    }
}
