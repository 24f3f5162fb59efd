//! The network's first-order behaviour under perturbed parameters, at each sample, and shortcuts to
//! exact scores.
//!
//! The Gram matrix of a group is the sum of the Gram matrices of its tensors. Where only the exact
//! measure is asked for there are two shortcuts:
//!
//! * A free bias of the logits moves them in every direction. A group that contains one has
//!   influence = bound, and no reverse pass is needed.
//! * The same holds for a group whose one-dimensional tensors (biases, scales) have rank K - 1 by
//!   themselves. Their Gram matrices are cheap and are computed first; the others only where
//!   needed.

use std::sync::Arc;

use influence_autodiff::{ParameterGrams, Precision, SampleGrams};
use influence_manifold::{Baselines, Filter, RowPrecision, SampleObjective, Tangent, influence};

use crate::error::{Error, Result};
use crate::objective::{Resolved, known};
use crate::perturbation::{ResolvedGroup, refused};
use crate::score::Score;
use crate::scorer::Scorer;
use crate::tail::Classes;

/// The iterator of [`Scorer::linearize_parameters`].
#[derive(Debug)]
pub struct ParameterLinearizations<'a> {
    pub(crate) scorer: &'a Scorer,
    pub(crate) grams: ParameterGrams<'a>,
    /// Factors of the input's Gram matrix, one per sample: |x|^2 for a relative budget; empty if
    /// there are none.
    pub(crate) scales: Vec<f64>,
    /// The objective of each sample, which decides which classes a tail keeps.
    pub(crate) objectives: Arc<[Resolved]>,
    /// Whether Gram matrices that exact scores do not need are skipped.
    pub(crate) short: bool,
}

/// The network's first-order behaviour at one sample, for each group of parameters.
#[derive(Debug, Clone)]
pub struct ParameterLinearization<'a> {
    scorer: &'a Scorer,
    grams: SampleGrams,
    classes: Classes,
    /// The factor of the input's Gram matrix.
    input: f64,
    short: bool,
}

impl<'a> Iterator for ParameterLinearizations<'a> {
    type Item = Result<ParameterLinearization<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let grams = self.grams.next()?;
        Some(grams.map_err(Error::from).and_then(|grams| {
            let input = self.scales.get(grams.sample).copied().unwrap_or(1.0);
            let classes = classes_of(self.scorer, &grams, &self.objectives[grams.sample])?;
            Ok(ParameterLinearization { scorer: self.scorer, grams, classes, input, short: self.short })
        }))
    }
}

/// The classes of a sample's Gram matrices: all, or the kept ones and the tail.
fn classes_of(scorer: &Scorer, grams: &SampleGrams, objective: &Resolved) -> Result<Classes> {
    Classes::new(grams.sample, grams.logits.clone(), known(objective)?, scorer.tail())
}

impl ParameterLinearization<'_> {
    /// Which sample of the call, from 0.
    #[must_use]
    pub fn sample(&self) -> usize {
        self.grams.sample
    }

    /// The logits `[K]`.
    #[must_use]
    pub fn logits(&self) -> &[f64] {
        &self.grams.logits
    }

    /// The classes of its Gram matrices.
    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    /// The Gram matrix `J J^T` of one group, `[K-1, K-1]`, of the differences z_k - z_K of the
    /// measured classes and in the units of the scorer's [`Budget`](crate::Budget). `group` is an
    /// index into [`Scorer::groups`]. `None` where a shortcut made the matrix unnecessary.
    #[must_use]
    pub fn gram(&self, group: usize) -> Option<Vec<f64>> {
        let resolved = self.scorer.resolved_groups().get(group)?;
        let tensors = resolved.tensors.iter().map(|&tensor| self.grams.tensors[tensor].as_slice());
        // A group that cannot move has a Gram matrix of zeros, whether its tensors' were computed
        // or not.
        let still = || (!resolved.moves()).then(|| vec![0.0; (self.classes.measured().len() - 1).pow(2)]);
        let mut sum = added(tensors).or_else(still)?;
        sum.iter_mut().for_each(|x| *x *= resolved.scale);
        if let Some(of_input) = self.grams.input.as_ref().filter(|_| resolved.input) {
            sum.iter_mut().zip(of_input).for_each(|(sum, x)| *sum += x * self.input);
        }
        Some(sum)
    }

    /// The Gram matrix `J J^T` of the parameters of one group without the scale of the budget, and
    /// its tangent.
    pub(crate) fn plain(&self, group: usize) -> Result<(Vec<f64>, Tangent)> {
        let missing = || refused(format!("there is no group {group}, or it includes the input"));
        let resolved = self
            .scorer
            .resolved_groups()
            .get(group)
            .filter(|resolved| !resolved.input)
            .ok_or_else(missing)?;
        let tensors = resolved.tensors.iter().map(|&tensor| self.grams.tensors[tensor].as_slice());
        let gram = added(tensors).ok_or_else(missing)?;
        let tangent = tangent(&gram, self.classes.measured().len(), self.scorer.precision());
        Ok((gram, tangent.map_err(|source| self.classes.fault(source))?))
    }

    /// The score of one group for any objective of one sample under `filter`. `group` is an index
    /// into [`Scorer::groups`].
    ///
    /// # Errors
    /// [`Error::Measure`] where the measure is not defined, or not for this objective, or the
    /// filter's argument is out of range; [`Error::Perturbation`] for a group that does not exist.
    pub fn score(&self, group: usize, objective: &SampleObjective, filter: &Filter) -> Result<Score> {
        let Some(resolved) = self.scorer.resolved_groups().get(group) else {
            return Err(refused(format!(
                "there are {} groups, but no group {group}",
                self.scorer.resolved_groups().len()
            )));
        };
        let (engine, classes) = (self.scorer.shared_engine(), &self.classes);
        // Tested even if the whole Gram matrix is known, so that a score depends neither on the
        // route nor on what other samples of the batch needed. Tensors that reach every direction
        // by themselves still do so together with others that are larger by any factor, although
        // the sum of their Gram matrices may no longer show it.
        let full = !objective.sees_common_shift(classes.logits())
            && is_full(self.scorer, resolved, &self.grams, classes, filter);
        let at_its_bound =
            |of: Option<Baselines>| saturated(classes, objective, filter, engine, &resolved.name, of);
        if full && self.short {
            return at_its_bound(None);
        }
        let gram = self.gram(group).ok_or_else(|| refused("its Gram matrix was not asked for".into()))?;
        let tangent = tangent(&gram, classes.measured().len(), self.scorer.precision())
            .map_err(|source| classes.fault(source))?;
        let (score, _) = Score::new(classes, &tangent, objective, filter, engine)?;
        if full { at_its_bound(Some(score.baselines)) } else { Ok(score.of_group(&resolved.name)) }
    }
}

/// The sum of matrices; `None` if one is missing (empty) or there are none.
fn added<'a>(mut matrices: impl Iterator<Item = &'a [f64]>) -> Option<Vec<f64>> {
    let mut sum = matrices.next()?.to_vec();
    for matrix in matrices {
        if matrix.len() != sum.len() {
            return None;
        }
        sum.iter_mut().zip(matrix).for_each(|(sum, x)| *sum += x);
    }
    (!sum.is_empty()).then_some(sum)
}

/// The tangent of a Gram matrix of `classes` - 1 differences, computed in this precision.
fn tangent(gram: &[f64], classes: usize, precision: Precision) -> Result<Tangent, influence_manifold::Error> {
    let rows = match precision {
        Precision::F32 => RowPrecision::F32,
        Precision::F64 => RowPrecision::F64,
    };
    Tangent::from_gram(gram, classes, rows)
}

/// Which tensors to compute first, by index among the perturbed ones: the cheap ones, biases and
/// scales with one element per channel. `None` where that saves nothing: some group has no cheap
/// tensor, or no group has any other. For exact scores of functions of the probabilities only.
pub(crate) fn cheap(scorer: &Scorer) -> Option<Vec<bool>> {
    let tensors = 0..scorer.plan().leaves().indices().len();
    let cheap: Vec<bool> = tensors.map(|tensor| is_cheap(scorer, tensor)).collect();
    let every = |resolved: &ResolvedGroup| resolved.tensors.iter().any(|&tensor| cheap[tensor]);
    let spared = |resolved: &ResolvedGroup| resolved.tensors.iter().any(|&tensor| !cheap[tensor]);
    let resolved_groups = scorer.resolved_groups();
    (resolved_groups.iter().all(every) && resolved_groups.iter().any(spared)).then_some(cheap)
}

/// Whether a tensor, by index among the perturbed ones, has one element per channel.
fn is_cheap(scorer: &Scorer, tensor: usize) -> bool {
    let plan = scorer.plan();
    plan.graph().parameters()[plan.leaves().indices()[tensor]].shape.len() == 1
}

/// Which tensors are still needed once the cheap ones are known, by index among the perturbed ones.
pub(crate) fn needed(scorer: &Scorer, found: &SampleGrams, objective: &Resolved) -> Vec<bool> {
    let mut needed = vec![false; found.tensors.len()];
    // Faulty logits are reported when the sample is scored.
    let Ok(classes) = classes_of(scorer, found, objective) else { return needed };
    let open = |resolved: &&ResolvedGroup| {
        resolved.moves() && !is_full(scorer, resolved, found, &classes, scorer.filter())
    };
    for resolved in scorer.resolved_groups().iter().filter(open) {
        resolved.tensors.iter().for_each(|&tensor| needed[tensor] = true);
    }
    needed
}

/// Whether the exact score of a group is its bound: the group contains a free bias of the logits,
/// or its cheap tensors together have rank K - 1 without ambiguity.
fn is_full(
    scorer: &Scorer,
    resolved: &ResolvedGroup,
    found: &SampleGrams,
    classes: &Classes,
    filter: &Filter,
) -> bool {
    if !matches!(filter, Filter::Exact { .. }) || !resolved.moves() {
        return false;
    }
    if scorer.moves_logits(resolved) {
        return true;
    }
    let cheap = resolved.tensors.iter().filter(|&&tensor| is_cheap(scorer, tensor));
    let Some(sum) = added(cheap.map(|&tensor| found.tensors[tensor].as_slice())) else { return false };
    // The rank is the same for every objective: any one will do.
    let (logits, objective) = (classes.measured(), SampleObjective::Predicted);
    let found = tangent(&sum, logits.len(), scorer.precision())
        .and_then(|tangent| influence(logits, &tangent, &objective, filter));
    found.is_ok_and(|found| found.rank == logits.len() - 1 && !found.ambiguous)
}

/// The score of a group that moves the logits in every direction, computed as that of a free bias.
/// `of` has the baselines of the group's own Jacobian, if they are known.
pub(crate) fn saturated(
    classes: &Classes,
    objective: &SampleObjective,
    filter: &Filter,
    engine: &Arc<str>,
    group: &Arc<str>,
    of: Option<Baselines>,
) -> Result<Score> {
    let (count, size) = (classes.measured().len(), classes.measured().len() - 1);
    // A free bias has J = I, so its differences z_k - z_K have the Gram matrix I + 1 1^T.
    let entry = |at: usize| 1.0 + f64::from(u8::from(at / size == at % size));
    let gram: Vec<f64> = (0..size * size).map(entry).collect();
    let tangent = Tangent::from_gram(&gram, count, RowPrecision::F64);
    let tangent = tangent.map_err(|source| classes.fault(source))?;
    let (score, _) = Score::new(classes, &tangent, objective, filter, engine)?;
    Ok(score.of_group(group).at_its_bound(of))
}
