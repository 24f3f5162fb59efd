//! Many classes: the classes of small probability are merged into one.
//!
//! The classes T of the tail become one class with P_T = sum_T P_j, whose logit is ln sum_T
//! exp(z_j) and moves by sum_T (P_j / P_T) dz_j; the m other classes are kept. This is a classifier
//! of m + 1 classes with its own Jacobian. It takes m cotangents instead of K - 1, and every
//! measure of this crate applies to it.
//!
//! Merging discards what happens inside the tail: G = G' + D with D = P_T Cov_T(dz). So the merged
//! metric G' is the smaller one, and the influence of a function of the kept probabilities is an
//! **upper bound** of the influence over all classes: FI <= FI'. The bound |w|^2 is the same.
//!
//! A lower bound: FI is the largest squared slope of f per squared Fisher length, so any single
//! perturbation bounds it from below. Along x = G'^+ df, (df x)^2 / (x^T G' x + x^T D x) <= FI <=
//! FI'. This needs the velocities of the tail's logits along x, and no further reverse pass:
//! [`Tail::log_at_least`].

use std::borrow::Cow;

use crate::error::wrong_length;
use crate::filters::log_add;
use crate::{Error, Probabilities, SampleObjective};

/// Which classes of one sample are merged into one.
///
/// ```
/// use influence_manifold::{SampleObjective, Tail};
///
/// # fn main() -> Result<(), influence_manifold::Error> {
/// let logits = [9.0, 1.0, 8.0, 0.0, 2.0];
/// let tail = Tail::new(&logits, &SampleObjective::class(3), 0.01)?.expect("two classes carry less");
/// assert_eq!(tail.kept(), [0, 2, 3]);
/// assert_eq!(tail.merged(), [1, 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    classes: usize,
    kept: Vec<usize>,
    merged: Vec<usize>,
    /// P_j / P_T of the merged classes.
    shares: Vec<f64>,
    log_mass: f64,
    /// The logits of the kept classes in their order; the last is that of the merged class.
    logits: Vec<f64>,
}

impl Tail {
    /// Merges the least likely classes that together have at most `epsilon` of the probability. The
    /// classes that the objective names, the predicted class and its runner-up are always kept.
    /// `None` where fewer than two classes would be merged.
    ///
    /// # Shapes
    ///
    /// `logits`: `[K]`.
    ///
    /// # Errors
    ///
    /// As [`Probabilities::new`]; an epsilon outside [0, 1); an objective that depends on every
    /// class ([`SampleObjective::names_its_classes`]); no such class.
    pub fn new(logits: &[f64], objective: &SampleObjective, epsilon: f64) -> Result<Option<Self>, Error> {
        Self::check(epsilon)?;
        let probabilities = Probabilities::new(logits)?;
        let (predicted, runner_up) =
            (probabilities.predicted(), probabilities.rival(probabilities.predicted()));
        let class = objective.class_of(&probabilities)?;
        let rival = probabilities.rival(class);
        let margin = matches!(objective, SampleObjective::Margin | SampleObjective::MarginOf { .. });
        if !objective.names_its_classes() {
            return Err(Error::TailObjective { objective: objective.to_string() });
        }
        // A margin compares with the likeliest other class: the merged class must stay less likely
        // than that rival, or it would become the rival itself.
        let below = if margin { probabilities.of(rival)? } else { f64::INFINITY };
        let named = [predicted, runner_up, class, rival];
        let mut others: Vec<usize> = (0..logits.len()).filter(|k| !named.contains(k)).collect();
        others.sort_by(|&a, &b| logits[a].total_cmp(&logits[b]));
        // From the least likely class up, as long as both limits hold.
        let mut mass = 0.0;
        let fits = |&class: &usize| {
            mass += probabilities.logs()[class].exp();
            mass <= epsilon && mass < below
        };
        let mut merged: Vec<usize> = others.into_iter().take_while(fits).collect();
        if merged.len() < 2 {
            return Ok(None);
        }
        merged.sort_unstable();
        let kept = (0..logits.len()).filter(|k| merged.binary_search(k).is_err()).collect();
        Ok(Some(Self::of(&probabilities, kept, merged)))
    }

    /// Checks the probability that may be merged.
    ///
    /// # Errors
    ///
    /// An epsilon outside [0, 1).
    pub fn check(epsilon: f64) -> Result<(), Error> {
        if (0.0..1.0).contains(&epsilon) { Ok(()) } else { Err(Error::TailShare { epsilon }) }
    }

    /// The tail of these merged classes, with all sums as logarithms.
    fn of(probabilities: &Probabilities, kept: Vec<usize>, merged: Vec<usize>) -> Self {
        let (logits, logs) = (probabilities.logits(), probabilities.logs());
        let log_sum = |values: &[f64]| merged.iter().map(|&k| values[k]).fold(f64::NEG_INFINITY, log_add);
        let (log_mass, logit) = (log_sum(logs), log_sum(logits));
        let shares = merged.iter().map(|&k| (logits[k] - logit).exp()).collect();
        let logits = kept.iter().map(|&k| logits[k]).chain([logit]).collect();
        Self { classes: probabilities.classes(), kept, merged, shares, log_mass, logits }
    }

    /// The classes that are kept, ascending: m of them.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// The classes that are merged into one, ascending.
    pub fn merged(&self) -> &[usize] {
        &self.merged
    }

    /// The total probability P_T of the merged classes.
    pub fn probability(&self) -> f64 {
        self.log_mass.exp()
    }

    /// The logits `[m + 1]` of the network with the merged class, which is the last.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// The combinations of the K logits whose derivatives are the Jacobian of the network with the
    /// merged class, as differences to that class: row-major `[m, K]`, e_k - sum_T (P_j / P_T) e_j
    /// for each kept class k.
    pub fn combinations(&self) -> Vec<f64> {
        let mut rows = vec![0.0; self.kept.len() * self.classes];
        for (row, &class) in rows.chunks_exact_mut(self.classes).zip(&self.kept) {
            row[class] = 1.0;
            self.merged.iter().zip(&self.shares).for_each(|(&k, share)| row[k] = -share);
        }
        rows
    }

    /// Converts a combination of the m + 1 logits of the merged network into the same combination
    /// of the K logits: `[m + 1]` to `[K]`.
    ///
    /// # Errors
    ///
    /// Another length.
    pub fn spread(&self, combination: &[f64]) -> Result<Vec<f64>, Error> {
        if combination.len() != self.logits.len() {
            return Err(wrong_length("the combination", self.logits.len(), combination.len()));
        }
        let mut all = vec![0.0; self.classes];
        self.kept.iter().zip(combination).for_each(|(&k, c)| all[k] = *c);
        let last = combination[self.kept.len()];
        self.merged.iter().zip(&self.shares).for_each(|(&k, share)| all[k] = last * share);
        Ok(all)
    }

    /// The objective in the class numbers of the network with the merged class.
    ///
    /// # Errors
    ///
    /// An objective that depends on every class, or names one that is merged.
    pub fn objective<'o>(&self, objective: &'o SampleObjective) -> Result<Cow<'o, SampleObjective>, Error> {
        let kept = |class: usize| {
            self.kept.binary_search(&class).map_err(|_| {
                if class < self.classes {
                    Error::MergedClass { class }
                } else {
                    Error::ClassOutOfRange { class, classes: self.classes }
                }
            })
        };
        match objective {
            // Named explicitly: the merged class may be likelier than any kept one, and must not
            // count as predicted.
            SampleObjective::Predicted => {
                kept(self.predicted()).map(|class| Cow::Owned(SampleObjective::class(class)))
            }
            SampleObjective::NegLogProbability { class } => {
                kept(*class).map(|class| Cow::Owned(SampleObjective::class(class)))
            }
            SampleObjective::Margin => {
                kept(self.predicted()).map(|class| Cow::Owned(SampleObjective::margin_of(class)))
            }
            SampleObjective::MarginOf { class } => {
                kept(*class).map(|class| Cow::Owned(SampleObjective::margin_of(class)))
            }
            other => Err(Error::TailObjective { objective: other.to_string() }),
        }
    }

    /// The likeliest of the kept classes.
    fn predicted(&self) -> usize {
        let kept = self.kept.iter().zip(&self.logits);
        kept.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(class, _)| *class)
    }

    /// ln of a lower bound of the influence over all classes, from one perturbation x: its squared
    /// slope divided by its squared Fisher length plus `penalty`. The penalty is lambda |x|^2 for a
    /// damped measure. `None` where the slope is 0.
    ///
    /// `kept` `[m]` are the velocities of z_k - z_T along x. `merged` are the velocities of the
    /// merged logits, in the order of [`merged`](Self::merged) and up to a common shift, each with
    /// an error of at most `error`.
    ///
    /// # Errors
    ///
    /// Other lengths; as [`objective`](Self::objective).
    pub fn log_at_least(
        &self,
        objective: &SampleObjective,
        kept: &[f64],
        merged: &[f64],
        error: f64,
        penalty: f64,
    ) -> Result<Option<f64>, Error> {
        if merged.len() != self.merged.len() || kept.len() != self.kept.len() {
            let expected = format!("{} and {}", self.kept.len(), self.merged.len());
            return Err(wrong_length("the velocities of kept and merged logits", expected, merged.len()));
        }
        let probabilities = Probabilities::new(&self.logits)?;
        let velocity: Vec<f64> = kept.iter().copied().chain([0.0]).collect();
        let Some((_, log_slope)) = self.objective(objective)?.log_slope(&probabilities, &velocity)? else {
            return Ok(None);
        };
        let log_length = probabilities.log_fisher_length(&velocity)?.unwrap_or(f64::NEG_INFINITY);
        let mean: f64 = merged.iter().zip(&self.shares).map(|(v, share)| v * share).sum();
        let variance: f64 =
            merged.iter().zip(&self.shares).map(|(v, share)| share * (v - mean).powi(2)).sum();
        // x^T D x = P_T Var_T. An error of at most `error` in each velocity changes a deviation
        // from the mean by at most twice that, hence also the root mean square. Adding it keeps the
        // result a lower bound.
        let log_inside = self.log_mass + 2.0 * (variance.sqrt() + 2.0 * error).ln();
        let log_square = log_add(log_add(2.0 * log_length, log_inside), penalty.ln());
        Ok(Some(2.0 * log_slope - log_square))
    }
}
