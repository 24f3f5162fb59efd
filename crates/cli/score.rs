//! `influence score`: runs a job batch by batch and sends its rows to the file or the table.

use std::io::Write;
use std::path::PathBuf;

use influence::Family;

use crate::arguments::ScoreArguments;
use crate::direction;
use crate::failure::{Failure, Result};
use crate::family::{self, Words};
use crate::job::{Job, in_split};
use crate::output::{self, Format};
use crate::progress::Progress;
use crate::row::{Row, Setting};
use crate::table;
use crate::terminal;

/// A job, what it perturbs, and where its rows go.
#[derive(Debug)]
pub(crate) struct Scoring {
    pub(crate) job: Job,
    /// The whole input where there is none.
    pub(crate) family: Option<(String, Family)>,
    pub(crate) out: Option<(PathBuf, Format)>,
}

/// Understands the arguments and runs.
pub(crate) fn command(arguments: &ScoreArguments) -> Result<()> {
    let (perturbation, family) = family::words(arguments.perturb.as_deref())?;
    let out = arguments.out.as_deref().map(output::check).transpose()?;
    let direction = arguments
        .direction
        .as_deref()
        .map(|path| direction::check(path, &perturbation, arguments.out.as_deref()))
        .transpose()?;
    let mut job = Job::new(&arguments.run, perturbation)?;
    if let Some(Words::File { path, .. }) = &family {
        job.inputs.add(path.as_ref());
    }
    for (flag, path) in [("--out", &arguments.out), ("--direction", &arguments.direction)] {
        path.as_deref().map_or(Ok(()), |path| job.inputs.spare(flag, path))?;
    }
    if let Some(file) = direction {
        return direction::run(&job, file);
    }
    let family = family.map(|words| words.family(job.data.shape())).transpose()?;
    run(&Scoring { job, family, out })
}

/// Runs the job to its end.
fn run(scoring: &Scoring) -> Result<()> {
    let job = &scoring.job;
    let mut bar = job.progress();
    let mut rows = Vec::with_capacity(job.images.len());
    for batch in job.images.chunks(job.at_a_time()) {
        match &scoring.family {
            None => score_batch(job, batch, &mut bar, &mut rows)?,
            Some((name, family)) => score_family(job, name, family, batch, &mut bar, &mut rows)?,
        }
    }
    bar.finish();
    let file = scoring.out.as_ref().map(|(path, format)| output::write(path, *format, &rows)).transpose()?;
    // Before the file has its name: where nobody can be told, there is no result either. A reader who has seen enough is no such case.
    match if job.quiet { Ok(()) } else { tell(scoring, &rows) } {
        Ok(()) | Err(Failure::BrokenPipe) => file.map_or(Ok(()), output::Finished::name),
        Err(failure) => Err(failure),
    }
}

/// What a person is told on standard output.
fn tell(scoring: &Scoring, rows: &[Row]) -> Result<()> {
    let mut out = terminal::output();
    table::heading(&mut out, scoring)?;
    if scoring.out.is_none() {
        table::print(&mut out, rows)?;
    }
    table::summary(&mut out, scoring, rows)?;
    out.flush()?;
    Ok(())
}

/// Scores images of the split, in order.
pub(crate) fn score_batch(
    job: &Job,
    indices: &[usize],
    bar: &mut Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let labels: Vec<_> = indices.iter().map(|&index| job.data.label(index)).collect();
    let objective = job.target.objective(labels);
    let scores = job.scorer.scores(job.pixels(indices), &objective)?;
    let groups = job.scorer.groups().len();
    for (place, score) in scores.enumerate() {
        let index = indices[place / groups];
        let score = score.map_err(|error| in_split(error, index))?;
        let perturbation = job.scorer.perturbation().to_string();
        let words = (objective.to_string(), perturbation, score.group.to_string());
        rows.push(Row::new(index, job.data.label(index), words, &score));
        if (place + 1) % groups == 0 {
            bar.add(1);
        }
    }
    Ok(())
}

/// Scores a family at images of the split, in order.
fn score_family(
    job: &Job,
    name: &str,
    family: &Family,
    indices: &[usize],
    bar: &mut Progress,
    rows: &mut Vec<Row>,
) -> Result<()> {
    for (&index, at) in indices.iter().zip(job.scorer.linearize(job.pixels(indices))?) {
        let at = at.map_err(|error| in_split(error, index))?;
        let label = job.data.label(index);
        let image = job.data.batch::<f64>(&[index]);
        let basis = family.basis(&image, job.data.shape())?;
        let found = at.family(&basis, &job.target.of(label), &job.filter);
        let found = found.map_err(|error| in_split(error, index))?;
        let words = (job.target.to_string(), format!("family:{name}"), name.to_owned());
        let direction = Setting::all(basis.members(), &found.direction);
        rows.push(Row { direction: Some(direction), ..Row::new(index, label, words, &found.score) });
        bar.add(1);
    }
    Ok(())
}
