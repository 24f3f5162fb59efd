//! The table of layers for a person: a bar for each, the quartiles over the images, and what the numbers mean.

use std::io::{self, Write};

use crate::layers::{LayerRow, Measured, in_order, title};
use crate::layers_arguments::Sort;
use crate::table::four_digits;
use crate::terminal::name;

/// How many letters the longest bar has.
const BAR: usize = 24;
/// How many decades a bar shows.
const DECADES: f64 = 6.0;

/// Prints what was measured, of which networks, and on which images.
pub(crate) fn heading(out: &mut impl Write, networks: &[Measured]) -> io::Result<()> {
    for (at, Measured { job, .. }) in networks.iter().enumerate() {
        if at == 0 {
            writeln!(out, "{} of {}", title(job), job.data.name())?;
        }
        writeln!(out, "Network: {}", job.network)?;
        writeln!(out, "Engine:  {}, {}", job.scorer.engine(), job.precision)?;
    }
    writeln!(out)
}

/// Prints every layer: of two networks with the same layers side by side, else one network after the other.
pub(crate) fn print(out: &mut impl Write, networks: &[Measured], sort: Sort) -> io::Result<()> {
    let scale = Scale::of(networks);
    match networks {
        [first, second] if same_layers(first, second) => beside(out, first, second, sort, &scale),
        _ => networks.iter().try_for_each(|network| one(out, network, sort, &scale)),
    }
}

fn same_layers(first: &Measured, second: &Measured) -> bool {
    let names = |of: &Measured| of.rows.iter().map(|row| row.group.clone()).collect::<Vec<_>>();
    names(first) == names(second)
}

fn width<'a>(rows: impl IntoIterator<Item = &'a LayerRow>) -> usize {
    rows.into_iter().map(|row| name(&row.group).chars().count()).max().unwrap_or(0).max("layer".len())
}

fn one(out: &mut impl Write, network: &Measured, sort: Sort, scale: &Scale) -> io::Result<()> {
    let wide = width(&network.rows);
    writeln!(
        out,
        "{:>5} {:<wide$} {:>10} {:>11} {:>11} {:>11} {:>5} {:>9} {:>9}  {}",
        "depth",
        "layer",
        "parameters",
        "quartile 1",
        "median",
        "quartile 3",
        "rank",
        "reach",
        "saturated",
        scale
    )?;
    for row in in_order(&network.rows, sort) {
        writeln!(
            out,
            "{:>5} {:<wide$} {:>10} {:>11} {:>11} {:>11} {:>5} {:>9} {:>8.0}%  {}",
            row.depth,
            name(&row.group),
            row.parameters,
            cell(row.influence_q1),
            cell(row.influence_median),
            cell(row.influence_q3),
            row.rank_median,
            cell(row.reach_median),
            100.0 * row.saturated,
            scale.bar(row.influence_median)
        )?;
    }
    writeln!(out)
}

fn beside(
    out: &mut impl Write,
    first: &Measured,
    second: &Measured,
    sort: Sort,
    scale: &Scale,
) -> io::Result<()> {
    let wide = width(&first.rows);
    let head = format!("{:<9} {:<9} {:<BAR$}", "median", "saturated", scale.to_string());
    writeln!(out, "{:>5} {:<wide$}  {head}  {}", "depth", "layer", head.trim_end())?;
    for row in in_order(&first.rows, sort) {
        let half = |row: &LayerRow| {
            let bar = scale.bar(row.influence_median);
            format!("{:<9} {:>8.0}% {bar:<BAR$}", cell(row.influence_median), 100.0 * row.saturated)
        };
        let other = half(&second.rows[row.depth]);
        writeln!(out, "{:>5} {:<wide$}  {}  {}", row.depth, name(&row.group), half(row), other.trim_end())?;
    }
    writeln!(out)
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
    fn of(networks: &[Measured]) -> Self {
        let medians =
            networks.iter().flat_map(|network| &network.rows).filter_map(|row| row.influence_median);
        let logs: Vec<f64> = medians.filter(|x| *x > 0.0).map(f64::log10).collect();
        let high = logs.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x)).ceil();
        let low = logs.iter().fold(f64::INFINITY, |least, x| least.min(*x)).floor().max(high - DECADES);
        Self { low: low.min(high - 1.0), high }
    }

    fn bar(&self, value: Option<f64>) -> String {
        let share = match value {
            None => 1.0,
            Some(value) if value <= 0.0 => 0.0,
            Some(value) => ((value.log10() - self.low) / (self.high - self.low)).clamp(0.0, 1.0),
        };
        "#".repeat((share * BAR as f64).round() as usize)
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

/// What the numbers say of each network.
pub(crate) fn summary(out: &mut impl Write, networks: &[Measured]) -> io::Result<()> {
    for Measured { job, rows } in networks {
        let full = rows.iter().filter(|row| row.saturated == 1.0).count();
        write!(out, "{}: {} layers, ", rows.first().map_or("".into(), |row| name(&row.network)), rows.len())?;
        if full == rows.len() {
            writeln!(
                out,
                "all saturated in every image: influence says no more of a layer than the confidence does; give a filter with a budget, such as --filter tikhonov:1:relative"
            )?;
        } else {
            let largest = in_order(rows, Sort::Influence);
            let names: Vec<String> =
                largest.iter().take(3).map(|row| name(&row.group).into_owned()).collect();
            writeln!(
                out,
                "{full} of them saturated in every image; most influential over {} images: {}",
                job.images.len(),
                names.join(", ")
            )?;
        }
    }
    Ok(())
}
