//! The text table of layers: a bar for each, the quartiles over the images, and what the numbers
//! mean.

use std::io::{self, Write};

use crate::layers::{LayerRow, MeasuredNetwork, in_order, title};
use crate::layers_arguments::LayerOrder;
use crate::table::{bound, four_digits};
use crate::terminal::{self, name};
use crate::verdict::Verdict;

/// Length of the longest bar, in characters.
const BAR: usize = 24;
/// Number of decades that a bar shows. A layer further below the largest has no bar.
const DECADES: f64 = 6.0;

/// Prints what was measured, for which networks and images.
pub(crate) fn heading(out: &mut impl Write, networks: &[MeasuredNetwork]) -> io::Result<()> {
    for (at, MeasuredNetwork { job, .. }) in networks.iter().enumerate() {
        if at == 0 {
            terminal::hanging(out, 4, &format!("{} of {}", title(job), job.data.name()))?;
        }
        terminal::hanging(out, 9, &format!("Network: {}", job.network))?;
        terminal::hanging(out, 9, &format!("Engine:  {}, {}", job.scorer.engine(), job.precision))?;
    }
    writeln!(out)
}

/// Prints every layer: two networks with the same layers side by side, others one after the other.
pub(crate) fn print(
    out: &mut impl Write,
    networks: &[MeasuredNetwork],
    sort: LayerOrder,
    top: Option<usize>,
) -> io::Result<()> {
    let most = top.unwrap_or(usize::MAX);
    let scale = Scale::of(networks);
    match networks {
        [first, second] if same_layers(first, second) => beside(out, first, second, sort, most, &scale),
        _ => networks.iter().try_for_each(|network| one(out, network, sort, most, &scale)),
    }
}

/// Whether two networks have layers of the same names in the same order.
fn same_layers(first: &MeasuredNetwork, second: &MeasuredNetwork) -> bool {
    let names = |of: &MeasuredNetwork| of.rows.iter().map(|row| row.group.clone()).collect::<Vec<_>>();
    names(first) == names(second)
}

/// Width of the column of names.
fn width<'a>(rows: impl IntoIterator<Item = &'a LayerRow>) -> usize {
    rows.into_iter().map(|row| name(&row.group).chars().count()).max().unwrap_or(0).max("layer".len())
}

/// A column between the names and the bars: title, width, and a function for the cell.
type Middle = (&'static str, usize, fn(&LayerRow) -> String);

/// The columns, in the order of display.
const COLUMNS: [Middle; 7] = [
    ("parameters", 10, |row| row.parameters.to_string()),
    ("quartile 1", 11, |row| cell(row.influence_q1)),
    ("median", 11, |row| cell(row.influence_median)),
    ("quartile 3", 11, |row| cell(row.influence_q3)),
    ("rank", 5, |row| row.rank_median.to_string()),
    ("reach", 9, |row| cell(row.reach_median)),
    ("saturated", 9, |row| format!("{:.0}%", 100.0 * row.saturated)),
];
/// The columns, by priority if there is no room for all.
const FIRST: [&str; 7] = ["median", "saturated", "reach", "rank", "quartile 1", "quartile 3", "parameters"];
/// Width of the depth column and of the gaps around names and bars.
const FRAME: usize = 5 + 1 + 2;

/// The columns for which a line has room next to the bars.
fn fitting(names: usize, width: usize) -> Vec<&'static Middle> {
    let mut room = width.saturating_sub(FRAME + names + BAR);
    let mut chosen = Vec::new();
    for (at, title) in FIRST.iter().enumerate() {
        let Some(column) = COLUMNS.iter().find(|(name, ..)| name == title) else { continue };
        // The first two are always shown.
        if at >= 2 && column.1 + 1 > room {
            break;
        }
        room = room.saturating_sub(column.1 + 1);
        chosen.push(*title);
    }
    COLUMNS.iter().filter(|(title, ..)| chosen.contains(title)).collect()
}

/// Prints one network, a line per layer.
fn one(
    out: &mut impl Write,
    network: &MeasuredNetwork,
    sort: LayerOrder,
    most: usize,
    scale: &Scale,
) -> io::Result<()> {
    let wide = width(&network.rows);
    let columns = fitting(wide, terminal::width());
    let middle = |of: &dyn Fn(&Middle) -> String| {
        columns.iter().map(|column| format!(" {:>1$}", of(column), column.1)).collect::<String>()
    };
    let titles = middle(&|column| column.0.to_owned());
    writeln!(out, "{:>5} {:<wide$}{titles}  {scale}", "depth", "layer")?;
    for row in in_order(&network.rows, sort).into_iter().take(most) {
        let cells = middle(&|column| (column.2)(row));
        let bar = scale.bar(row.influence_median, BAR);
        writeln!(out, "{:>5} {:<wide$}{cells}  {bar}", row.depth, name(&row.group))?;
    }
    writeln!(out)
}

/// Width of the cells of one network in a line of two, without the bar.
const HALF: usize = 2 + 11 + 1 + 9 + 1;

/// Prints two networks with the same layers, both in one line per layer.
fn beside(
    out: &mut impl Write,
    first: &MeasuredNetwork,
    second: &MeasuredNetwork,
    sort: LayerOrder,
    most: usize,
    scale: &Scale,
) -> io::Result<()> {
    let wide = width(&first.rows);
    let long = (terminal::width().saturating_sub(6 + wide + 2 * HALF) / 2).clamp(4, BAR);
    let half =
        |median: &str, saturated: &str, bar: &str| format!("  {median:<11} {saturated:>9} {bar:<long$}");
    let title = half("median", "saturated", "");
    writeln!(out, "{:>5} {:<wide$}{title}{}", "depth", "layer", title.trim_end())?;
    for row in in_order(&first.rows, sort).into_iter().take(most) {
        let of = |row: &LayerRow| {
            let bar = scale.bar(row.influence_median, long);
            half(&cell(row.influence_median), &format!("{:.0}%", 100.0 * row.saturated), &bar)
        };
        let other = of(&second.rows[row.depth]);
        writeln!(out, "{:>5} {:<wide$}{}{}", row.depth, name(&row.group), of(row), other.trim_end())?;
    }
    writeln!(out, "Bars: {scale}\n")
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "beyond f64".into(), four_digits)
}

/// The logarithmic scale of all bars.
#[derive(Debug)]
struct Scale {
    /// Decimal logarithms.
    low: f64,
    high: f64,
}

impl Scale {
    /// The scale from the smallest to the largest positive median, in whole decades: at least one
    /// and at most `DECADES`.
    fn of(networks: &[MeasuredNetwork]) -> Self {
        let medians =
            networks.iter().flat_map(|network| &network.rows).filter_map(|row| row.influence_median);
        let logs: Vec<f64> = medians.filter(|x| *x > 0.0).map(f64::log10).collect();
        let high = logs.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x)).ceil();
        let low = logs.iter().fold(f64::INFINITY, |least, x| least.min(*x)).floor().max(high - DECADES);
        Self { low: low.min(high - 1.0), high }
    }

    /// The bar of a value, at most `long` characters.
    fn bar(&self, value: Option<f64>, long: usize) -> String {
        let share = match value {
            None => 1.0,
            Some(value) if value <= 0.0 => 0.0,
            Some(value) => ((value.log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0),
        };
        "#".repeat((share * long as f64).round() as usize)
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.high.is_finite() {
            true => f.pad(&format!("1e{:.0} to 1e{:.0}", self.low, self.high)),
            false => f.pad("all 0"),
        }
    }
}

/// Prints what the numbers show about each network.
pub(crate) fn summary(out: &mut impl Write, networks: &[MeasuredNetwork]) -> io::Result<()> {
    for MeasuredNetwork { job, rows } in networks {
        let full = rows.iter().filter(|row| row.saturated == 1.0).count();
        let network = rows.first().map_or("".into(), |row| name(&row.network));
        let remedy = "give a filter with a budget, such as --filter tikhonov:1:relative";
        let said = match full {
            _ if full == rows.len() => format!("all saturated in every image; {remedy}."),
            _ => {
                let largest = in_order(rows, LayerOrder::Influence);
                let names: Vec<_> = largest.iter().take(3).map(|row| name(&row.group)).collect();
                let (images, names) = (job.images.len(), names.join(", "));
                format!(
                    "{full} of them saturated in every image; most influential over {images} images: {names}."
                )
            }
        };
        let layers = rows.len();
        let verdict = verdict(rows).sentences(bound(job.target));
        terminal::paragraph(out, 0, &format!("{network}: {layers} layers, {said} {verdict}"))?;
    }
    Ok(())
}

/// What the values of all layers and images add to the confidence.
pub(crate) fn verdict(rows: &[LayerRow]) -> Verdict {
    let counted = |share: fn(&LayerRow) -> f64| -> usize {
        rows.iter().map(|row| (share(row) * row.images as f64).round() as usize).sum()
    };
    let mut correlations: Vec<f64> = rows.iter().filter_map(|row| row.odds_correlation).collect();
    correlations.sort_by(f64::total_cmp);
    let values = rows.iter().map(|row| row.images).sum();
    Verdict {
        values,
        images: rows.iter().map(|row| row.images).max().unwrap_or(0),
        saturated: counted(|row| row.saturated),
        near: counted(|row| row.near_bound),
        reached: values,
        still: rows.iter().all(|row| row.influence_q3 == Some(0.0)),
        correlations,
    }
}
