//! The text table: the most sensitive images first, the influence with the classical measures, and
//! what the numbers mean.

use std::io::{self, Write};

use influence::{Channels, Perturbation, Target};
use influence_report::statistics::quartiles;

use crate::data::Data;
use crate::failure::Result;
use crate::job::Job;
use crate::out::RowDestination;
use crate::report::ReportFile;
use crate::row::{KnobSetting, ScoreRow};
use crate::score::Scoring;
use crate::tally::Tally;
use crate::terminal::{self, name};
use crate::verdict::VerdictValues;

/// The largest exponent that is shown; beyond it only that the value is larger or smaller.
const MOST_POWER: f64 = 99_999.0;

/// Prints what was measured, the network and how its weights were read, and the images.
pub(crate) fn heading(out: &mut impl Write, scoring: &Scoring) -> io::Result<()> {
    let job = &scoring.job;
    let what = match &scoring.family {
        Some((family, _)) => format!("the family {}", name(family)),
        None => whole(job.scorer.perturbation()).to_owned(),
    };
    let mut say = |indent: usize, text: String| terminal::hanging(out, indent, &text);
    say(0, format!("Influence of {what}, f = {}, filter {}", function(job.target), job.filter_words()))?;
    say(9, format!("Network: {}", job.network))?;
    let (images, data, engine) = (job.images.len(), job.data.name(), job.scorer.engine());
    say(9, format!("Images:  {images} of {data}; engine {engine}, {}", job.precision))?;
    writeln!(out)
}

/// What is perturbed, in words.
fn whole(perturbation: &Perturbation) -> &'static str {
    match perturbation {
        Perturbation::Parameters => "all parameters together",
        Perturbation::Layers => "the parameters of each layer",
        Perturbation::Tensors => "each tensor of parameters",
        Perturbation::Groups(_) => "groups of parameters",
        Perturbation::InputAndParameters => "the whole input and all parameters together",
        _ => "the whole input",
    }
}

/// A column of the table: title, width, and a function for the cell.
type TableColumn = (&'static str, usize, fn(&ScoreRow) -> String);

/// The columns of the table. As many are shown, from the left, as fit the line.
const COLUMNS: [TableColumn; 11] = [
    ("index", 7, |row| row.index.to_string()),
    ("label", 6, |row| row.label.map_or_else(|| "-".into(), |label| label.to_string())),
    ("pred", 6, |row| format!("{}{}", row.predicted, if row.is_as_labelled() { ' ' } else { '*' })),
    ("P", 11, |row| probability(row.probability)),
    ("influence", 11, influence),
    ("rank", 5, |row| format!("{}{}", row.rank, if row.ambiguous { '?' } else { ' ' })),
    ("reach", 9, |row| row.reach.map_or_else(String::new, four_digits)),
    ("|df|", 11, norm),
    ("odds", 11, |row| cell(row.odds)),
    ("entropy", 9, |row| row.entropy.map_or_else(String::new, four_digits)),
    ("margin", 9, |row| row.margin.map_or_else(String::new, margin)),
];

/// Prints some of `all` rows.
pub(crate) fn print(out: &mut impl Write, data: &Data, rows: &[ScoreRow], all: usize) -> io::Result<()> {
    let width = terminal::width();
    let mut used = 0;
    let shown = COLUMNS.iter().take_while(|(_, wide, _)| {
        used += wide + 1;
        used <= width + 1
    });
    let columns: Vec<_> = shown.collect();
    let line = |of: &dyn Fn(&TableColumn) -> String| {
        let cells: Vec<String> =
            columns.iter().map(|column| format!("{:>1$}", of(column), column.1)).collect();
        cells.join(" ")
    };
    writeln!(out, "{}", line(&|column| column.0.to_owned()))?;
    for row in rows {
        writeln!(out, "{}", line(&|column| (column.2)(row)).trim_end())?;
        for note in notes(row, data) {
            terminal::paragraph(out, 16, &note)?;
        }
    }
    if all > rows.len() {
        writeln!(out, "... and {} more; --out FILE.csv writes them all", all - rows.len())?;
    }
    let hidden: Vec<&str> = COLUMNS[columns.len()..].iter().map(|(title, ..)| *title).collect();
    if !hidden.is_empty() {
        writeln!(out, "In files and wider terminals also: {}", hidden.join(", "))?;
    }
    writeln!(out)
}

/// The lines below a row: what was perturbed, classes by their names where they differ, what a
/// merged tail leaves open.
fn notes(row: &ScoreRow, data: &Data) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(at) = at(row) {
        notes.push(at);
    } else if !row.group.is_empty() {
        notes.push(format!("of {}", name(&row.group)));
    }
    let [label, predicted] =
        [row.label, Some(row.predicted)].map(|class| class.map(|class| data.class_name(class)));
    let named = predicted.as_ref().is_some_and(|name| *name != row.predicted.to_string());
    if let (Some(label), Some(predicted), true, false) = (&label, &predicted, named, row.is_as_labelled()) {
        notes.push(format!("labelled {}, predicted {}", name(label), name(predicted)));
    }
    if let Some(classes) = row.merged_classes {
        let least =
            row.at_least.map_or_else(String::new, |least| format!("at least {}; ", four_digits(least)));
        let mass = row.merged_probability.map_or_else(String::new, four_digits);
        notes.push(format!("{least}{classes} classes merged, P {mass}"));
    }
    notes
}

/// The most influential setting of a family, as text; `None` for other perturbations.
pub(crate) fn at(row: &ScoreRow) -> Option<String> {
    let settings: Vec<String> = row.direction.as_ref()?.iter().map(setting).collect();
    Some(format!("at {}", settings.join("; ")))
}

/// One knob as text: "rotation -2.500 degrees". More than half a turn has no number, because the
/// first order does not reach that far.
fn setting(setting: &KnobSetting) -> String {
    let KnobSetting { name: of, value, unit } = setting;
    match value {
        None => format!("{} beyond f64", name(of)),
        Some(value) if unit == "degrees" && value.abs() > 180.0 => {
            format!("{} of more than half a turn", name(of))
        }
        Some(value) => format!("{} {} {unit}", name(of), four_digits(*value)).trim_end().to_owned(),
    }
}

/// f in words.
pub(crate) fn function(target: Target) -> String {
    match target {
        Target::Entropy => "entropy of the prediction".into(),
        Target::Margin => "margin of the prediction".into(),
        _ => format!("-log P({target})"),
    }
}

/// The bound in words; a saturated value equals it.
pub(crate) fn bound(target: Target) -> &'static str {
    match target {
        Target::Entropy => "the variance of log P, which is the confidence",
        Target::Margin => "1 / P of the likeliest class + 1 / P of the next, which is the confidence",
        _ => "(1 - P) / P, which is the confidence",
    }
}

/// The influence: four digits, or a power of ten where f64 overflows or underflows.
pub(crate) fn influence(row: &ScoreRow) -> String {
    match (row.influence, row.log10_influence) {
        (Some(0.0), Some(log10)) | (None, Some(log10)) => power(log10),
        (Some(value), _) => four_digits(value),
        (None, None) => "beyond f64".into(),
    }
}

/// The Jacobian norm; empty if it was not computed, for an exact score known to be saturated.
fn norm(row: &ScoreRow) -> String {
    if row.jacobian_norm.is_none() && row.saturated { String::new() } else { cell(row.jacobian_norm) }
}

/// Four digits; `None` is beyond f64.
fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "beyond f64".into(), four_digits)
}

/// 10 to a power, also beyond f64. Beyond `MOST_POWER` only a limit is shown, with `<` or `>`.
pub(crate) fn power(log10: f64) -> String {
    match log10 {
        _ if log10 > MOST_POWER => format!(">1e{MOST_POWER:.0}"),
        _ if log10 < -MOST_POWER => format!("<1e-{MOST_POWER:.0}"),
        _ => format!("1e{log10:.1}"),
    }
}

/// Six decimals, or an exponent if they would all be zero.
pub(crate) fn probability(value: f64) -> String {
    if value > 0.0 && value < 5e-7 { format!("{value:.3e}") } else { format!("{value:.6}") }
}

/// Three decimals, or an exponent if the number is too long.
fn margin(value: f64) -> String {
    if value.abs() < 1e5 { format!("{value:.3}") } else { format!("{value:.2e}") }
}

/// The handling of channels, as a word.
pub(crate) fn channels_word(channels: Channels) -> &'static str {
    match channels {
        Channels::Joint => "joint",
        Channels::Separate => "separate",
    }
}

/// Four significant digits, plain near 1 and with an exponent elsewhere.
pub(crate) fn four_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let exponent = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(3 - exponent).unwrap_or(0);
    if (-3..5).contains(&exponent) { format!("{value:.decimals$}") } else { format!("{value:.3e}") }
}

/// Prints what the values add to the confidence, what is doubtful in them, and where the rows are.
pub(crate) fn summary(
    out: &mut impl Write,
    scoring: &Scoring,
    tally: &Tally,
    spread: &VerdictValues,
) -> io::Result<()> {
    let Tally { rows: all, still, wrong, above, ambiguous, merged, loosest } = *tally;
    let mut say = |text: String| terminal::paragraph(out, 0, &text);
    // What the values say, then one sentence for each reason to doubt some of them.
    say(spread.verdict().sentences(bound(scoring.job.target)))?;
    if scoring.family.is_some() {
        let reach = quartiles(&spread.reach()).map(four_digits).join(", ");
        let setting = "A setting after \"at\" is the most influential one, at Fisher length 1.";
        say(format!("Quartiles of reach: {reach}. {setting}"))?;
    }
    if merged > 0 {
        let least = loosest.map_or_else(String::new, |share| {
            format!(
                " It is at least {} of it in every image with such a bound: at_least in files.",
                four_digits(share)
            )
        });
        say(format!(
            "{merged} of {all} values have merged classes: upper bounds of the influence over all classes.{least}"
        ))?;
    }
    if still > 0 {
        say(format!(
            "{still} have rank 0: none of their singular values passes the filter's cut, so the influence is 0."
        ))?;
    }
    if wrong > 0 && scoring.out.is_table() {
        say(format!("{wrong} are predicted as a class other than their label (*)."))?;
    }
    if above > 0 {
        say(format!(
            "{above} exceed the bound of the exact measure: the authors' numerics (filter paper) allow that."
        ))?;
    }
    if ambiguous > 0 {
        say(format!(
            "{ambiguous} are ambiguous (?): another tolerance, or f64, may give another rank and value."
        ))?;
    }
    let report = scoring.report.as_ref().map(ReportFile::path);
    terminal::written(out, &[("Report", report)], scoring.out.path().map(|path| (all, path)))
}

/// Reports that a resumed run is already complete.
pub(crate) fn complete(job: &Job, out: &RowDestination) -> Result<()> {
    if let (false, RowDestination::File(path, _)) = (job.quiet, out) {
        writeln!(
            terminal::output(),
            "{} is complete; pictures and reports are not made again",
            path.display()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{four_digits, power};

    #[test]
    fn powers_that_nobody_reads_are_cut_with_a_sign() {
        let shown = [738.65, -400.04, 99_998.96, 3.06e37, -1e10].map(power);
        assert_eq!(shown, ["1e738.6", "1e-400.0", "1e99999.0", ">1e99999", "<1e-99999"]);
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        let shown = [0.0, 1.0, 0.00131, -2.80921, 27453.6915, 0.1, 123_456.0, 7.5e-7, 999.96];
        let expected =
            ["0", "1.000", "0.001310", "-2.809", "27454", "0.1000", "1.235e5", "7.500e-7", "1000.0"];
        assert_eq!(shown.map(four_digits), expected);
    }
}
