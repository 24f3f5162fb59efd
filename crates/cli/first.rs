//! `influence` without arguments: the embedded sample, and what the measure adds to the confidence.
//!
//! The influence of a whole image equals its bound, a function of the probability. Therefore the
//! first screen also shows how much of it a few perturbations reach: the families and small
//! windows.

use std::io::{self, Write};

use influence::{Channels, Family, Linearization, Perturbation};
use rayon::prelude::*;

use crate::arguments::{RunArguments, ScoreArguments};
use crate::failure::{Failure, Result};
use crate::folder::WindowsSummary;
use crate::job::{Job, in_split};
use crate::map;
use crate::out::RowDestination;
use crate::row::ScoreRow;
use crate::score::Scoring;
use crate::table::{self, four_digits};
use crate::tally::{Tally, Top};
use crate::terminal;
use crate::verdict::{Verdict, VerdictValue, VerdictValues, percent};
use crate::windows;

/// Number of images in the first table; the whole screen should fit in 40 lines.
const SHOWN: usize = 8;
/// Half-widths of the windows.
const SCALES: [usize; 2] = [0, 1];

/// All results for one image.
struct Looked {
    whole: ScoreRow,
    /// One row per family.
    families: Vec<ScoreRow>,
    windows: Vec<WindowsSummary>,
}

/// Runs on the embedded sample and prints one screen.
pub(crate) fn command() -> Result<()> {
    let arguments = ScoreArguments::default();
    let run: &RunArguments = &arguments.run;
    let job = Job::new(run, Perturbation::Input)?;
    let mut progress = job.progress(0);
    let mut all = Vec::new();
    for indices in job.images.chunks(job.at_a_time()) {
        let found = map::each(&job, indices, |index, at| look(&job, index, at))?;
        progress.add(found.len());
        all.extend(found);
    }
    progress.finish();
    let scoring = Scoring { job, family: None, out: RowDestination::Table, report: None };
    let mut out = terminal::output();
    table::heading(&mut out, &scoring)?;
    whole(&mut out, &scoring, &all)?;
    parts(&mut out, &all)?;
    out.flush()?;
    Ok(())
}

/// Scores one image: the whole image, every family, and the windows of `SCALES`.
fn look(job: &Job, index: usize, at: &Linearization<'_>) -> Result<Looked> {
    let fault = |error| in_split(error, index);
    let (objective, label) = (job.objective(index), job.data.label(index));
    let words = |group: String| (job.target.to_string(), "input".to_owned(), group);
    let score = at.score(&objective, &job.filter).map_err(fault)?;
    let image = job.data.batch::<f64>(&[index]);
    let families: Vec<Family> = Family::all().collect();
    let family = |family: &Family| -> Result<ScoreRow> {
        let basis = family.basis(&image, job.data.shape())?;
        let found = at.family(&basis, &objective, &job.filter).map_err(fault)?;
        Ok(ScoreRow::new(index, label, words(family.to_string()), &found))
    };
    let maps = at.maps(&objective, &job.filter, &SCALES, Channels::Joint).map_err(fault)?;
    Ok(Looked {
        whole: ScoreRow::new(index, label, words(String::new()), &score),
        families: families.par_iter().map(family).collect::<Result<_>>()?,
        windows: maps.iter().map(|found| windows::of(found, score.baselines.odds)).collect(),
    })
}

/// Prints the table of whole images.
fn whole(out: &mut impl Write, scoring: &Scoring, all: &[Looked]) -> Result<()> {
    let mut top = Top::new("influence", SHOWN).ok_or_else(|| Failure::new("there is no influence"))?;
    let (mut tally, mut spread) = (Tally::default(), VerdictValues::default());
    for Looked { whole, .. } in all {
        tally.add(whole);
        top.add(whole);
        spread.add("", VerdictValue::of(whole));
    }
    table::print(out, &scoring.job.data, &top.rows(), tally.rows)?;
    table::summary(out, scoring, &tally, &spread)?;
    Ok(())
}

/// Prints one line per family and per size of windows.
fn parts(out: &mut impl Write, all: &[Looked]) -> io::Result<()> {
    let title = "What the confidence does not say: how much of it each family and window reaches";
    writeln!(out, "\n{title}\n{:<24} {:>12} {:>12} {:>16}", "", "median", "reach", "rank correlation")?;
    writeln!(out, "{:<24} {:>12} {:>12} {:>16}", "perturbation", "reach", "above 0.9", "with the odds")?;
    let families = all.first().map_or(0, |looked| looked.families.len());
    for family in 0..families {
        let mut spread = VerdictValues::default();
        let rows = all.iter().filter_map(|looked| looked.families.get(family));
        rows.for_each(|row| spread.add(&row.group, VerdictValue::of(row)));
        let name = all.first().and_then(|looked| looked.families.get(family)).map_or("", |row| &row.group);
        let [_, median, _] = influence_report::statistics::quartiles(&spread.reach());
        line(out, name, median, &spread.verdict())?;
    }
    for (scale, half_width) in SCALES.iter().enumerate() {
        let windows: Vec<&WindowsSummary> =
            all.iter().filter_map(|looked| looked.windows.get(scale)).collect();
        let mut medians: Vec<f64> = windows.iter().map(|windows| windows.reach[1]).collect();
        medians.sort_by(f64::total_cmp);
        let [_, median, _] = influence_report::statistics::quartiles(&medians);
        let size = 2 * half_width + 1;
        line(out, &format!("windows of {size} x {size} pixels"), median, &windows::verdict_of(&windows))?;
    }
    writeln!(out, "See more: influence score --perturb family:rotation; influence map --help")
}

/// Prints the line of one family or size of windows.
fn line(out: &mut impl Write, name: &str, median: f64, verdict: &Verdict) -> io::Result<()> {
    let rho = verdict.correlation().map_or_else(|| "-".into(), |rho| format!("{rho:.3}"));
    let (median, near) = (four_digits(median), percent(verdict.near_share()));
    writeln!(out, "{name:<24} {median:>12} {near:>12} {rho:>16}")
}
