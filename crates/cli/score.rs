//! `influence score`: runs a job image by image and writes its rows to a file, a pipe or the table.

use std::io::Write;

use influence::{Basis, Family};

use crate::arguments::ScoreArguments;
use crate::direction;
use crate::failure::{Failure, Result};
use crate::family::{self, Words};
use crate::job::{Job, in_split};
use crate::out::{RowDestination, RowWriter};
use crate::pages;
use crate::record::Record;
use crate::report::ReportFile;
use crate::row::{KnobSetting, ScoreRow};
use crate::table;
use crate::tally::{Tally, Top};
use crate::terminal;
use crate::verdict::{self, VerdictValues};

/// Number of images in the table on the terminal.
const SHOWN: usize = 20;

/// A job, what it perturbs, and where its rows go.
#[derive(Debug)]
pub(crate) struct Scoring {
    pub(crate) job: Job,
    /// The family, or `None` for the whole input.
    pub(crate) family: Option<(String, Family)>,
    pub(crate) out: RowDestination,
    pub(crate) report: Option<ReportFile>,
}

/// What is shown at the end.
#[derive(Debug)]
pub(crate) struct ScoreSummary {
    pub(crate) tally: Tally,
    /// The rows of the table, if there is one.
    pub(crate) top: Option<Top>,
    /// All values, for the verdict.
    pub(crate) spread: VerdictValues,
    /// Every row, if there is a report.
    pub(crate) rows: Option<Vec<ScoreRow>>,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &ScoreArguments) -> Result<()> {
    let (perturbation, family) = family::words(arguments.perturb.as_deref())?;
    let direction = arguments
        .direction
        .as_deref()
        .map(|path| direction::check(path, &perturbation, arguments.out.out.as_deref()))
        .transpose()?;
    let out = arguments.out.destination()?;
    let top = arguments.out.top(&out, SHOWN)?;
    let report = ReportFile::new(arguments.out.report.as_deref())?;
    // Refusals that need only the arguments come before data and network are read.
    if out.is_table() && direction.is_none() && report.is_none() && arguments.run.quiet {
        return Err(Failure::new("--quiet without --out does nothing: add --out FILE, or leave out --quiet"));
    }
    if report.is_some() && (direction.is_some() || arguments.run.shard.is_some()) {
        return Err(Failure::new(
            "--report covers the scores of all images: leave out --direction and --shard",
        ));
    }
    let mut job = Job::new(&arguments.run, perturbation)?;
    if let Some(Words::File { path, .. }) = &family {
        job.inputs.add(path.as_ref());
    }
    // No result may overwrite a file that the job reads.
    for (flag, path) in [
        ("--out", &arguments.out.out),
        ("--direction", &arguments.direction),
        ("--report", &arguments.out.report),
    ] {
        path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
    }
    if let Some(file) = direction {
        return direction::run(&job, file);
    }
    let file = family.as_ref().and_then(Words::hash);
    let family = family.map(|words| words.family(&job.data.sample())).transpose()?;
    let scoring = Scoring { job, family, out, report };
    run(&scoring, file, top, arguments.out.resume)
}

/// Runs the job to its end.
fn run(scoring: &Scoring, file: Option<String>, top: Option<Top>, resume: bool) -> Result<()> {
    let Scoring { job, family, out, report } = scoring;
    // The journal's header has everything that determines the bytes of the rows.
    let mut more = vec![("format", format!("{:?}", out.format()))];
    more.extend(family.iter().map(|(name, _)| ("family", name.clone())));
    more.extend(file.map(|hash| ("hash of the family", hash)));
    let header = job.header("score", &more);
    let Some(mut rows) = RowWriter::open::<ScoreRow>(out, header, job.provenance.columns(), resume)? else {
        return table::complete(job, out);
    };
    // A resumed run continues its counts, which the journal has, and the values of the verdict and
    // of the report, which are read back from the kept rows.
    let (done, note) = rows.done();
    let tally = note.and_then(|note| serde_json::from_value(note.clone()).ok()).unwrap_or_default();
    let mut seen = ScoreSummary {
        tally,
        top,
        spread: VerdictValues::default(),
        rows: report.as_ref().map(|_| Vec::new()),
    };
    rows.kept(&["group", "log10_influence", "reach", "odds"], &mut |cells| seen.spread.add_kept(cells))?;
    if let Some(kept) = &mut seen.rows {
        let names: Vec<&str> = ScoreRow::COLUMNS.iter().map(|(name, _)| *name).collect();
        rows.kept(&names, &mut |cells| kept.extend(ScoreRow::read(cells)))?;
    }
    match all(scoring, done, &mut rows, &mut seen) {
        Err(failure) => Err(rows.end(failure)),
        Ok(()) => {
            rows.finish()?;
            if let (Some(file), Some(rows)) = (report, &seen.rows) {
                file.write(pages::score(scoring, rows, &seen.spread)?)?;
            }
            if job.quiet || out.is_standard_output() { Ok(()) } else { tell(scoring, seen) }
        }
    }
}

/// Scores all images that are not done.
fn all(scoring: &Scoring, done: usize, rows: &mut RowWriter, seen: &mut ScoreSummary) -> Result<()> {
    let Scoring { job, family, .. } = scoring;
    let mut progress = job.progress(done);
    for batch in job.images[done..].chunks(job.at_a_time()) {
        let add = &mut |found: Vec<ScoreRow>| {
            found.iter().for_each(|row| seen.add(row));
            rows.add(&found, || serde_json::json!(seen.tally))?;
            progress.add(1);
            Ok(())
        };
        match family {
            None => score_batch(job, batch, add)?,
            Some((name, family)) => score_family(job, name, family, batch, add)?,
        }
    }
    progress.finish();
    Ok(())
}

impl ScoreSummary {
    /// Adds a row to everything that is shown.
    fn add(&mut self, row: &ScoreRow) {
        self.tally.add(row);
        self.spread.add(&row.group, verdict::VerdictValue::of(row));
        if let Some(top) = &mut self.top {
            top.add(row);
        }
        if let Some(rows) = &mut self.rows {
            rows.push(row.clone());
        }
    }
}

/// Prints the text output. A closed pipe is not an error.
fn tell(scoring: &Scoring, seen: ScoreSummary) -> Result<()> {
    let mut out = terminal::output();
    table::heading(&mut out, scoring)?;
    let ScoreSummary { tally, top, spread, .. } = seen;
    if let Some(top) = top {
        table::print(&mut out, &scoring.job.data, &top.rows(), tally.rows)?;
    }
    table::summary(&mut out, scoring, &tally, &spread)?;
    out.flush()?;
    Ok(())
}

/// Takes all rows of an image.
pub(crate) type AddRows<'a> = &'a mut dyn FnMut(Vec<ScoreRow>) -> Result<()>;

/// Scores images of the split, in order.
pub(crate) fn score_batch(job: &Job, indices: &[usize], add: AddRows<'_>) -> Result<()> {
    let objective = job.objectives(indices);
    let mut scores = job.scorer.scores(job.pixels(indices), &objective)?;
    let groups = job.scorer.groups().len();
    let perturbation = job.scorer.perturbation().to_string();
    for &index in indices {
        let mut rows = Vec::with_capacity(groups);
        for score in scores.by_ref().take(groups) {
            let score = score.map_err(|error| in_split(error, index))?;
            let words = (objective.to_string(), perturbation.clone(), score.group.to_string());
            rows.push(ScoreRow::new(index, job.data.label(index), words, &score));
        }
        add(rows)?;
    }
    Ok(())
}

/// Scores a family at images of the split, in order.
fn score_family(job: &Job, name: &str, family: &Family, indices: &[usize], add: AddRows<'_>) -> Result<()> {
    let found = job.scorer.linearize_for(job.pixels(indices), &job.objectives(indices))?;
    for (&index, at) in indices.iter().zip(found) {
        let at = at.map_err(|error| in_split(error, index))?;
        let label = job.data.label(index);
        let image = job.data.batch::<f64>(&[index]);
        let basis: Basis = family.basis(&image, job.data.shape())?;
        let found = at.family(&basis, &job.objective(index), &job.filter);
        let found = found.map_err(|error| in_split(error, index))?;
        let words = (job.target.to_string(), format!("family:{name}"), name.to_owned());
        // If probabilities underflow, the setting has a separate power of ten.
        let settings = found.setting.as_ref().map(|setting| {
            let scale = 10_f64.powf(setting.log10);
            let knobs: Vec<f64> = setting.knobs.iter().map(|knob| knob * scale).collect();
            KnobSetting::all(basis.members(), &knobs)
        });
        add(vec![ScoreRow { direction: settings, ..ScoreRow::new(index, label, words, &found) }])?;
    }
    Ok(())
}
