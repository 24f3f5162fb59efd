//! The text output of `influence compare`: percentiles side by side, two-sample statistics, and
//! conclusions.

use std::io::{self, Write};

use influence_report::statistics::percentile;

use crate::compare::{MeasureComparison, SetComparison, quality};
use crate::judged::Judged;
use crate::table::{bound, four_digits, function, power};
use crate::terminal;

/// The percentiles that are shown.
pub(crate) const PERCENTILES: [f64; 11] = [50.0, 60.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 99.0, 99.9, 100.0];
/// If D of a measure exceeds that of the odds by this much, it distinguishes the sets better than
/// the odds.
const MORE: f64 = 0.02;

/// Prints everything.
pub(crate) fn print(out: &mut impl Write, study: &SetComparison, all: &[Judged]) -> io::Result<()> {
    heading(out, study)?;
    let beside = study.beside(all);
    percentiles(out, study, &beside)?;
    qualities(out, study, all)?;
    samples(out, study, &beside)?;
    for said in conclusions(study, all, &beside) {
        terminal::paragraph(out, 0, &said)?;
    }
    Ok(())
}

/// Prints the objective, the filter, and for each set its images, network and engine.
fn heading(out: &mut impl Write, study: &SetComparison) -> io::Result<()> {
    let first = &study.jobs[0];
    let words = format!(
        "Influence of the whole input, f = {}, filter {}",
        function(first.target),
        first.filter_words()
    );
    terminal::hanging(out, 0, &words)?;
    for (job, name) in study.jobs.iter().zip(&study.names) {
        let (count, data) = (job.images.len(), job.data.name());
        let engine = format!("engine {}, {}", job.scorer.engine(), job.precision);
        let words = format!("{name}: {count} images of {data}; {}; {engine}", job.network);
        terminal::hanging(out, 4, &words)?;
    }
    writeln!(out)
}

/// A percentile of influences given by their logarithms. It is computed on the values themselves
/// where f64 can hold them, because interpolation between logarithms would give another number.
pub(crate) fn influence_percentile(logs: &[f64], q: f64) -> String {
    let values: Vec<f64> = logs.iter().map(|log10| 10.0_f64.powf(*log10)).collect();
    match percentile(&values, q) {
        value if value == 0.0 || value.is_infinite() => from_log(percentile(logs, q)),
        value => four_digits(value),
    }
}

/// Prints the percentiles of the influence and of the odds.
fn percentiles(out: &mut impl Write, study: &SetComparison, beside: &[MeasureComparison]) -> io::Result<()> {
    let odds = beside.iter().find(|beside| beside.name == "odds");
    let [first, second] = study.names.clone().map(|name| shortened(&name));
    writeln!(out, "{:>10} {:^31}   {:^31}", "percentile", "influence", "odds")?;
    writeln!(out, "{:>10} {first:>15} {second:>15}   {first:>15} {second:>15}", "")?;
    for q in PERCENTILES {
        let influence =
            |at: usize| beside.first().map_or_else(String::new, |of| influence_percentile(&of.sorted[at], q));
        let plain = |at: usize| odds.map_or(f64::NAN, |of| percentile(&of.sorted[at], q));
        let cells = [influence(0), influence(1), four_digits(plain(0)), four_digits(plain(1))];
        writeln!(out, "{q:>10} {:>15} {:>15}   {:>15} {:>15}", cells[0], cells[1], cells[2], cells[3])?;
    }
    writeln!(out)
}

/// A name cut to its column: the end is kept.
fn shortened(name: &str) -> String {
    const MOST: usize = 15;
    let letters: Vec<char> = terminal::name(name).chars().collect();
    match letters.len() {
        0..=MOST => letters.into_iter().collect(),
        count => format!("..{}", letters[count + 2 - MOST..].iter().collect::<String>()),
    }
}

/// An influence from its logarithm, also beyond f64.
fn from_log(log10: f64) -> String {
    if log10 == f64::NEG_INFINITY { "0".into() } else { power(log10) }
}

/// Prints the accuracy and the cross-entropy of each set that has labels.
fn qualities(out: &mut impl Write, study: &SetComparison, all: &[Judged]) -> io::Result<()> {
    for (set, name) in study.sets(all).into_iter().zip(&study.names) {
        let Some(found) = quality(set) else { continue };
        let (accuracy, loss) = (100.0 * found.accuracy, four_digits(found.loss));
        terminal::hanging(out, 4, &format!("{name}: accuracy {accuracy:.2} %, mean cross-entropy {loss}"))?;
    }
    writeln!(out)
}

/// Prints the two-sample statistics, one line per measure.
fn samples(out: &mut impl Write, study: &SetComparison, beside: &[MeasureComparison]) -> io::Result<()> {
    let paired = if study.paired { format!(" {:>8}", "rho") } else { String::new() };
    writeln!(out, "{:<24} {:>7} {:>10} {:>7} {:>10}{paired}", "measure", "D", "p", "AUROC", "p")?;
    for of in beside {
        let (Some(smirnov), Some(whitney)) = (of.smirnov, of.whitney) else { continue };
        let rho = of.correlation.map_or_else(String::new, |rho| format!(" {rho:>8.3}"));
        writeln!(
            out,
            "{:<24} {:>7.4} {:>10} {:>7.4} {:>10}{rho}",
            of.name,
            smirnov.distance,
            chance(smirnov.p),
            whitney.area,
            chance(whitney.p)
        )?;
    }
    Ok(())
}

/// A p-value; never shown as 0.
pub(crate) fn chance(p: f64) -> String {
    if p < 1e-300 { "< 1e-300".into() } else { four_digits(p) }
}

/// The conclusions, as sentences.
pub(crate) fn conclusions(
    study: &SetComparison,
    all: &[Judged],
    beside: &[MeasureComparison],
) -> Vec<String> {
    let [first, second] = &study.names;
    let mut said = vec![format!(
        "D is the largest distance between the two distribution functions, AUROC the chance that a value of {second} is \
         larger than one of {first}{}.",
        if study.paired { "; rho is the rank correlation over the same images" } else { "" }
    )];
    let influence = beside.first();
    if let Some(median) = influence.and_then(|of| of.median) {
        said.push(format!(
            "Median log10 influence of {second} minus that of {first}: {:.3}, 95 % interval {:.3} to {:.3}.",
            median.value, median.low, median.high
        ));
    }
    // The influence is worth its Jacobian only if it distinguishes the sets better than the odds.
    let distance = |of: Option<&MeasureComparison>| of.and_then(|of| of.smirnov).map(|found| found.distance);
    let odds = beside.iter().find(|of| of.name == "odds");
    if let (Some(own), Some(plain)) = (distance(influence), distance(odds)) {
        said.push(if own > plain + MORE {
            format!(
                "The influence distinguishes the two sets better than the odds do: D {own:.3} against \
                 {plain:.3}."
            )
        } else {
            format!(
                "The influence distinguishes the two sets no better than the odds do: D {own:.3} against \
                 {plain:.3}."
            )
        });
    }
    for (set, name) in study.sets(all).into_iter().zip(&study.names) {
        let verdict = SetComparison::verdict(set).sentences(bound(study.jobs[0].target));
        said.push(format!("{name}: {verdict}"));
    }
    said
}
