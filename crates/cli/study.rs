//! What the studies (`compare`, `outliers`) share: images are scored under a journal, and one
//! result is made from all of them.

use std::path::Path;

use influence_report::statistics::spearman;

use crate::failure::{Failure, Result};
use crate::job::{Job, in_split};
use crate::judged::Judged;
use crate::map;
use crate::out::{
    Format, JournalHeader, Keeper, RowDestination, RunState, Unit, check_signals, hash_of, read_spool,
};
use crate::record::Record;
use crate::row::ScoreRow;

/// Receives one image.
pub(crate) type AddImage<'a> = &'a mut dyn FnMut(Judged) -> Result<()>;

/// Scores the images from the given one on.
pub(crate) type ScoreFrom<'a> = &'a dyn Fn(usize, AddImage<'_>) -> Result<()>;

/// Makes the result from all images, in a file if one is given.
pub(crate) type Writing<'a> = &'a dyn Fn(&[Judged], Option<(&Path, Format)>) -> Result<()>;

/// Scores the remaining images with `score`, which receives the number of those done, and makes the
/// result from all with `write`, which receives the file. `None` if the run is already complete.
pub(crate) fn gather(
    out: &RowDestination,
    header: JournalHeader,
    resume: bool,
    score: ScoreFrom<'_>,
    write: Writing<'_>,
) -> Result<Option<Vec<Judged>>> {
    let mut all = Vec::new();
    let RowDestination::File(path, format) = out else {
        score(0, &mut |judged| {
            all.push(judged);
            check_signals()
        })?;
        write(&all, None)?;
        return Ok(Some(all));
    };
    // Each image is appended to a spool next to the result. The result depends on all images, so it
    // is written from the whole spool at the end, including rows from before a resume.
    let spool = Format::KEPT;
    let mut keeper = match Keeper::open(path, header, &spool.head(Judged::COLUMNS, &[]), resume)? {
        RunState::Open(keeper) => keeper,
        RunState::Complete => return Ok(None),
    };
    let outcome = score(keeper.done(), &mut |judged| {
        let bytes = spool.line(Judged::COLUMNS, &judged.cells(), &[]);
        keeper.add(Unit { bytes, note: serde_json::Value::Null })?;
        check_signals()
    });
    if let Err(failure) = outcome {
        return Err(keeper.end(failure));
    }
    keeper.finish(|spooled, path| {
        read_spool(spooled, Judged::COLUMNS, &mut |cells| {
            let judged = Judged::read(&cells);
            all.push(judged.ok_or_else(|| Failure::new("the kept rows are not those of a study"))?);
            Ok(())
        })?;
        write(&all, Some((path, *format)))?;
        hash_of(path).map(Some)
    })?;
    Ok(Some(all))
}

/// Scores the images of a job from the one at `done` on, under each filter; the first filter is the
/// run's.
pub(crate) fn score(job: &Job, done: usize, filters: &[influence::Filter], add: AddImage<'_>) -> Result<()> {
    let mut progress = job.progress(done);
    let words = || (job.target.to_string(), "input".to_owned(), String::new());
    for indices in job.images.get(done..).unwrap_or_default().chunks(job.at_a_time()) {
        let found = map::each(job, indices, |index, at| {
            let objective = job.objective(index);
            let scores = filters.iter().map(|filter| at.score(&objective, filter));
            let scores =
                scores.collect::<influence::Result<Vec<_>>>().map_err(|error| in_split(error, index))?;
            let own = scores.first().ok_or_else(|| Failure::new("a study needs a filter"))?;
            let row = ScoreRow::new(index, job.data.label(index), words(), own);
            Judged::new(row, &scores, at.logits())
                .ok_or_else(|| Failure::new(format!("image {index}: the logits are not finite")))
        })?;
        for judged in found {
            add(judged)?;
            progress.add(1);
        }
    }
    progress.finish();
    Ok(())
}

/// A score of all images; larger means more suspicious.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
}

impl Measure {
    /// Its rank correlation with the odds.
    pub(crate) fn correlation(&self, odds: &[f64]) -> Option<f64> {
        spearman(&self.values, odds)
    }
}

/// A classical measure: its name, and its value for a row.
type Classical = (&'static str, fn(&ScoreRow) -> Option<f64>);

/// The influence under each filter and the classical measures, over the same images.
pub(crate) fn measures(all: &[Judged], filters: &[String]) -> Vec<Measure> {
    let influences = filters.iter().enumerate().map(|(at, filter)| Measure {
        name: format!("influence, {filter}"),
        values: all.iter().map(|judged| judged.log10.get(at).copied().unwrap_or(f64::NEG_INFINITY)).collect(),
    });
    let classical: [Classical; 7] = [
        ("Jacobian norm", |row| row.jacobian_norm),
        ("odds", |row| row.odds),
        ("entropy", |row| row.entropy),
        ("- margin", |row| row.margin.map(|margin| -margin)),
        ("cross-entropy", |row| row.cross_entropy),
        ("Fisher norm", |row| row.fisher_norm),
        ("Fisher trace", |row| row.fisher_trace),
    ];
    // A value beyond f64 counts as infinite. A measure that no image has is left out, e.g. those of
    // the metric if classes are merged.
    let known = classical.into_iter().filter(|(_, of)| all.iter().any(|judged| of(&judged.row).is_some()));
    let classical = known.map(|(name, of)| Measure {
        name: name.to_owned(),
        values: all.iter().map(|judged| of(&judged.row).unwrap_or(f64::INFINITY)).collect(),
    });
    influences.chain(classical).collect()
}

/// The odds of every image.
pub(crate) fn odds(all: &[Judged]) -> Vec<f64> {
    all.iter().map(|judged| judged.row.odds.unwrap_or(f64::INFINITY)).collect()
}
