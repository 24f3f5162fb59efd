//! The text output of `influence outliers`: the ranking, what each score finds, and conclusions.

use std::io::{self, Write};

use influence_report::statistics::Estimate;

use crate::judged::Judged;
use crate::outliers::{MeasureQuality, Outliers};
use crate::table::influence;
use crate::terminal;

/// Prints what is studied.
pub(crate) fn heading(out: &mut impl Write, study: &Outliers) -> io::Result<()> {
    let job = &study.job;
    let mut say = |indent: usize, text: String| terminal::hanging(out, indent, &text);
    say(
        0,
        format!("Images that do not match their label: f = -log P(label), filter {}", job.filter_words()),
    )?;
    say(9, format!("Network: {}", job.network))?;
    let (images, data, engine) = (job.images.len(), job.data.name(), job.scorer.engine());
    say(9, format!("Images:  {images} of {data}; engine {engine}, {}", job.precision))?;
    if let Some(bad) = &study.bad {
        let among = job.images.iter().filter(|index| bad.contains(*index)).count();
        let others = if among < bad.len() {
            format!("; {} are not among these", bad.len() - among)
        } else {
            String::new()
        };
        say(9, format!("Bad:     {among} of these images are known to be{others}"))?;
    }
    writeln!(out)
}

/// Prints the most influential images.
pub(crate) fn ranking(out: &mut impl Write, study: &Outliers, all: &[Judged], most: usize) -> io::Result<()> {
    writeln!(
        out,
        "{:>5} {:>8} {:>6} {:>10} {:>10} {:>10} {:>11} {:>5}",
        "place", "index", "label", "suggested", "P(label)", "P(other)", "influence", "bad"
    )?;
    let order = Outliers::order(all);
    for (place, judged) in order.iter().take(most).filter_map(|at| all.get(*at)).enumerate() {
        let row = &judged.row;
        let label = row.label.map_or_else(String::new, |label| label.to_string());
        let suggested = judged.suggested().map_or_else(|| "-".into(), |class| class.to_string());
        let other = judged.logs.iter().enumerate().filter(|(class, _)| row.label != Some(*class));
        let other = other.map(|(_, log)| log.exp()).fold(0.0, f64::max);
        let bad = study.is_bad(judged).map_or("", |bad| if bad { "bad" } else { "" });
        let cells = format!(
            "{:>5} {:>8} {label:>6} {suggested:>10} {:>10.6} {other:>10.6} {:>11} {bad:>5}",
            place + 1,
            row.index,
            row.probability,
            influence(row)
        );
        writeln!(out, "{}", cells.trim_end())?;
    }
    if all.len() > most {
        writeln!(out, "... and {} more; --out FILE.csv writes them all", all.len() - most)?;
    }
    writeln!(out)
}

/// Prints what each score finds, and how its order of the images compares with that of the odds.
pub(crate) fn scores(out: &mut impl Write, study: &Outliers, found: &[MeasureQuality]) -> io::Result<()> {
    let known = found.iter().any(|found| found.ranking.is_some());
    let areas = if known { format!("{:>23} {:>24}", "AUROC", "average precision") } else { String::new() };
    writeln!(out, "{:<26}{areas} {:>5}", "score", "rho")?;
    for MeasureQuality { measure, ranking, correlation } in found {
        let areas = ranking
            .as_ref()
            .map(|(_, areas)| format!("{:>23} {:>24}", interval(areas.roc), interval(areas.precision)));
        let rho = correlation.map_or_else(|| "-".into(), |rho| format!("{rho:.3}"));
        writeln!(out, "{:<26}{} {rho:>5}", measure.name, areas.unwrap_or_default())?;
    }
    conclusions(study, found).iter().try_for_each(|said| terminal::paragraph(out, 0, said))
}

/// A value with its interval.
pub(crate) fn interval(of: Estimate) -> String {
    format!("{:.3} [{:.3}, {:.3}]", of.value, of.low, of.high)
}

/// The conclusions from the scores, as sentences.
pub(crate) fn conclusions(study: &Outliers, found: &[MeasureQuality]) -> Vec<String> {
    let mut said = Vec::new();
    let area = |of: &MeasureQuality| of.ranking.as_ref().map(|(_, areas)| areas.roc);
    let odds = found.iter().find(|found| found.measure.name == "odds");
    let best = found.iter().max_by(|a, b| {
        let value = |of: &MeasureQuality| area(of).map_or(0.0, |area| area.value);
        value(a).total_cmp(&value(b))
    });
    // A score is said to be better than the odds only if the odds' area is below its interval.
    match (best.and_then(area), odds.and_then(area), best) {
        (Some(most), Some(plain), Some(best)) => {
            let name = &best.measure.name;
            said.push(if most.value <= plain.value {
                "No score finds the bad images better than the odds, which need no Jacobian.".into()
            } else if most.low <= plain.value {
                format!(
                    "{name} has the largest area, by {:.4} more than the odds, which is within its interval.",
                    most.value - plain.value
                )
            } else {
                format!(
                    "{name} finds the bad images better than the odds do, by {:.4} of area.",
                    most.value - plain.value
                )
            });
            said.push("Intervals of 95 %, by 1000 resamples of the bad and of the good images.".into());
        }
        _ if study.bad.is_some() => {
            said.push("There is no AUROC: none, or all, of these images are known to be bad.".into());
        }
        _ => said
            .push("A high rank is a reason to look at an image, not a proof that its label is wrong.".into()),
    }
    said.push(
        "rho is the rank correlation with the odds (1 - P) / P of the label: at 1 a score puts the images in the order \
         of the confidence, whatever its name."
            .into(),
    );
    said
}
