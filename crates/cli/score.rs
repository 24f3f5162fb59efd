//! `influence score`: runs a job batch by batch and sends its rows to the file or the table.

use std::io::{self, Write};

use burn::tensor::TensorData;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use influence::Precision;

use crate::failure::{Failure, Result};
use crate::job::Job;
use crate::output;
use crate::row::Row;
use crate::table;

/// How many images each thread is given in one call.
const IMAGES_PER_THREAD: usize = 8;

/// Runs the job to its end.
pub(crate) fn run(job: Job) -> Result<()> {
    let bar = progress(&job);
    let mut rows = Vec::with_capacity(job.images.len());
    // Images of one call run side by side: enough of them for every thread in whole batches, and few enough to be held at once.
    let at_a_time =
        (IMAGES_PER_THREAD * rayon::current_num_threads()).next_multiple_of(job.scorer.plan().batch());
    for batch in job.images.chunks(at_a_time) {
        score_batch(&job, batch, &bar, &mut rows)?;
    }
    bar.finish_and_clear();
    let file = job.out.as_ref().map(|(path, format)| output::write(path, *format, &rows)).transpose()?;
    // Before the file has its name: where nobody can be told, there is no result either. A reader who has seen enough is no such case.
    match if job.quiet { Ok(()) } else { tell(&job, &rows) } {
        Ok(()) | Err(Failure::BrokenPipe) => file.map_or(Ok(()), output::Finished::name),
        Err(failure) => Err(failure),
    }
}

/// What a person is told on standard output.
fn tell(job: &Job, rows: &[Row]) -> Result<()> {
    let mut out = io::stdout().lock();
    table::heading(&mut out, job, rows)?;
    if job.out.is_none() {
        table::print(&mut out, rows)?;
    }
    table::summary(&mut out, job, rows)?;
    out.flush()?;
    Ok(())
}

/// Scores images of the split, in order.
fn score_batch(job: &Job, indices: &[usize], bar: &ProgressBar, rows: &mut Vec<Row>) -> Result<()> {
    let labels: Vec<_> = indices.iter().map(|&index| job.data.label(index)).collect();
    let objective = job.target.objective(labels);
    let scores = job.scorer.scores(pixels(job, indices), &objective)?;
    for (&index, score) in indices.iter().zip(scores) {
        let score = score.map_err(|error| in_split(error, index))?;
        let perturbation = job.scorer.perturbation().to_string();
        rows.push(Row::new(index, job.data.label(index), objective.to_string(), perturbation, &score));
        bar.inc(1);
    }
    Ok(())
}

/// An error about a sample of the batch, with the image's number in the split.
fn in_split(error: influence::Error, index: usize) -> Failure {
    match error {
        influence::Error::Measure { source, .. } => Failure::new(format!("image {index}: {source}")),
        other => Failure::new(format!("image {index}: {other}")),
    }
}

/// Images `[N, C, H, W]` as numbers in [0, 1], divided in the precision of the run.
fn pixels(job: &Job, indices: &[usize]) -> TensorData {
    let [c, h, w] = job.data.shape();
    let shape = [indices.len(), c, h, w];
    match job.precision {
        Precision::F32 => TensorData::new(job.data.batch::<f32>(indices), shape),
        Precision::F64 => TensorData::new(job.data.batch::<f64>(indices), shape),
    }
}

/// A bar on the terminal's error stream; nothing where that is no terminal, or with --quiet.
fn progress(job: &Job) -> ProgressBar {
    let target = if job.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(job.images.len() as u64), target);
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} images, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
