//! The iterator over scores, ordered by image, then by group.

use std::collections::VecDeque;
use std::sync::Arc;

use influence_autodiff::Jacobians;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::objective::{Resolved, known};
use crate::parameters::{ParameterLinearizations, saturated};
use crate::score::Score;
use crate::scorer::Scorer;
use crate::tail::Classes;

/// The iterator of [`Scorer::scores`]: for each image one score per group of [`Scorer::groups`].
#[derive(Debug)]
pub struct Scores<'a> {
    pub(crate) scorer: &'a Scorer,
    pub(crate) source: ScoreSource<'a>,
    pub(crate) objectives: Arc<[Resolved]>,
    /// Scores of the current image that have not been returned yet.
    pub(crate) ready: VecDeque<Score>,
}

/// What the scores are computed from.
#[derive(Debug)]
pub(crate) enum ScoreSource<'a> {
    Input(Jacobians<'a, Vec<Score>, Error>),
    Parameters(ParameterLinearizations<'a>),
    /// Only the logits, with the index of the next sample: every group contains a free bias, and
    /// its exact score is the bound.
    Logits(std::vec::IntoIter<Vec<f64>>, usize),
}

impl Scores<'_> {
    /// All scores of the next image.
    fn image(&mut self) -> Option<Result<Vec<Score>>> {
        let (scorer, objectives) = (self.scorer, &self.objectives);
        let filter = scorer.filter();
        match &mut self.source {
            ScoreSource::Input(scores) => scores.next(),
            ScoreSource::Parameters(linearizations) => {
                let at = linearizations.next()?;
                Some(at.and_then(|at| {
                    let objective = known(&objectives[at.sample()])?;
                    (0..scorer.resolved_groups().len())
                        .into_par_iter()
                        .map(|group| at.score(group, objective, filter))
                        .collect()
                }))
            }
            ScoreSource::Logits(logits, sample) => {
                let (logits, at) = (logits.next()?, *sample);
                *sample += 1;
                Some(known(&objectives[at]).and_then(|objective| {
                    let classes = Classes::new(at, logits, objective, scorer.tail())?;
                    let each = scorer.resolved_groups().iter().map(|resolved| {
                        saturated(&classes, objective, filter, scorer.shared_engine(), &resolved.name, None)
                    });
                    each.collect()
                }))
            }
        }
    }
}

impl Iterator for Scores<'_> {
    type Item = Result<Score>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            match self.image()? {
                Ok(scores) => self.ready.extend(scores),
                Err(error) => return Some(Err(error)),
            }
        }
        self.ready.pop_front().map(Ok)
    }
}
