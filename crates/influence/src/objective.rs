//! Objectives of a batch: the functions f of the network's output whose sensitivity is measured.

use std::fmt;

use burn::tensor::{Int, Tensor};
use influence_autodiff::{Jacobian, Rows};
use influence_manifold::{Costs, Filter, Probabilities, Row, SampleObjective};

use crate::error::{Error, Result, unreadable};
use crate::gradients::Gradients;

/// The objective of a batch.
///
/// ```
/// use influence::Objective;
///
/// # fn main() -> Result<(), influence::Error> {
/// // What wrong predictions cost, one row per label.
/// let costs = vec![vec![0.0, 1.0, 10.0], vec![1.0, 0.0, 1.0], vec![10.0, 1.0, 0.0]];
/// let objective = Objective::label_cost(&costs, [2, 0])?;
/// // Gini impurity g(P) = 1 - sum_k P_k^2, by its derivatives in P.
/// let gini = Objective::probabilities("gini", |p| p.values().iter().map(|p| -2.0 * p).collect());
/// // A difference of two logits, by its derivatives in the logits.
/// let gap = Objective::logits("z_3 - z_5", |p| {
///     (0..p.classes()).map(|k| if k == 3 { 1.0 } else if k == 5 { -1.0 } else { 0.0 }).collect()
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objective {
    /// f = -log P of each sample's own label: how easily the evidence for the label changes.
    Label(Vec<usize>),
    /// f = -log P of the class that the network predicts: needs no labels.
    Predicted,
    /// f = -log P of one class for all samples.
    Class(usize),
    /// f = - sum_k P_k ln P_k: how easily the network's uncertainty changes.
    Entropy,
    /// f = the largest logit minus the second: how easily the decision changes.
    Margin,
    /// One objective for all samples.
    All(SampleObjective),
    /// One objective per sample.
    Each(Vec<SampleObjective>),
    /// Any function of a perturbation of the whole input, by its gradient df at each sample.
    Rows(Gradients),
}

impl Objective {
    /// -log P of the label, one label per sample, classes counted from 0.
    pub fn label(labels: impl IntoIterator<Item = usize>) -> Self {
        Self::Label(labels.into_iter().collect())
    }

    /// -log P of the label, one label per sample, from a tensor on any device.
    ///
    /// # Shapes
    /// `labels`: `[N]`, classes counted from 0.
    ///
    /// # Errors
    /// [`Error::NegativeLabel`]; [`Error::Model`] for a device that fails. Labels beyond the
    /// network's classes are found when samples are scored.
    pub fn labels(labels: Tensor<1, Int>) -> Result<Self> {
        let data = labels.try_to_data();
        let data = data.map_err(|error| unreadable("labels from their device", &error))?;
        let class = |(sample, label): (usize, i64)| {
            usize::try_from(label).map_err(|_| Error::NegativeLabel { sample, label })
        };
        data.iter::<i64>().enumerate().map(class).collect::<Result<_>>().map(Self::Label)
    }

    /// -log P of the predicted class, the one with the largest logit.
    #[must_use]
    pub fn predicted() -> Self {
        Self::Predicted
    }

    /// -log P of class `class`, from 0.
    #[must_use]
    pub fn class(class: usize) -> Self {
        Self::Class(class)
    }

    /// Checks what needs no network: that there are samples, and one label or objective for each.
    pub(crate) fn check(&self, samples: usize) -> Result<()> {
        match self {
            _ if samples == 0 => Err(Error::NoSamples),
            Self::Label(labels) if labels.len() != samples => {
                Err(Error::LabelCount { labels: labels.len(), samples })
            }
            Self::Each(singles) if singles.len() != samples => {
                Err(Error::ObjectiveCount { objectives: singles.len(), samples })
            }
            _ => Ok(()),
        }
    }

    /// Entropy of the prediction: - sum_k P_k ln P_k, in nats.
    #[must_use]
    pub fn entropy() -> Self {
        Self::Entropy
    }

    /// The largest logit minus the second.
    #[must_use]
    pub fn margin() -> Self {
        Self::Margin
    }

    /// The label's logit minus the largest other one, one label per sample: negative where the
    /// network is wrong.
    pub fn label_margin(labels: impl IntoIterator<Item = usize>) -> Self {
        Self::Each(labels.into_iter().map(SampleObjective::margin_of).collect())
    }

    /// Expected cost sum_k P_k c_k, one cost per class.
    ///
    /// # Errors
    /// [`Error::Objective`] for costs that are not finite.
    pub fn expected_cost(costs: impl Into<Vec<f64>>) -> Result<Self> {
        SampleObjective::expected_cost(costs).map(Self::All).map_err(Error::Objective)
    }

    /// Expected cost sum_k P_k c_yk, where y is each sample's label: row y of the cost matrix has
    /// one cost per predicted class.
    ///
    /// # Errors
    /// [`Error::ClassOutOfRange`] for a label without a row; [`Error::Objective`] for costs that
    /// are not finite.
    pub fn label_cost(matrix: &[Vec<f64>], labels: impl IntoIterator<Item = usize>) -> Result<Self> {
        let rows = matrix.iter().map(|row| Costs::new(row.as_slice()).map_err(Error::Objective));
        let rows: Vec<Costs> = rows.collect::<Result<_>>()?;
        let cost = |(sample, class): (usize, usize)| {
            let row = rows.get(class).cloned().map(SampleObjective::ExpectedCost);
            let what = || format!("the label of sample {sample}");
            row.ok_or_else(|| Error::ClassOutOfRange { what: what(), class, classes: rows.len() })
        };
        labels.into_iter().enumerate().map(cost).collect::<Result<_>>().map(Self::Each)
    }

    /// A function g of the probabilities: `gradient` returns its partial derivatives dg / dP_k;
    /// `name` is used in tables.
    pub fn probabilities(
        name: &str,
        gradient: impl Fn(&Probabilities) -> Vec<f64> + Send + Sync + 'static,
    ) -> Self {
        Self::All(SampleObjective::probabilities(name, gradient))
    }

    /// A function h of the logits: `gradient` returns its partial derivatives dh_k, each accurate
    /// relative to its own size. Where they do not add up to zero, h changes when a constant is
    /// added to all logits, which leaves the distribution unchanged. That component is returned as
    /// [`Score::outside`](crate::Score::outside), and takes one more cotangent in the reverse pass.
    pub fn logits(name: &str, gradient: impl Fn(&Probabilities) -> Vec<f64> + Send + Sync + 'static) -> Self {
        Self::All(SampleObjective::logits(name, gradient))
    }

    /// One objective per sample.
    pub fn each(objectives: impl IntoIterator<Item = SampleObjective>) -> Self {
        Self::Each(objectives.into_iter().collect())
    }

    /// Any function of the perturbation, by its gradient df in the perturbed elements. The
    /// component of df along directions that leave the distribution unchanged is returned as
    /// [`Score::outside`](crate::Score::outside): where it is not 0, the measure is unbounded. Only
    /// for [`Perturbation::Input`](crate::Perturbation::Input).
    ///
    /// # Shapes
    /// `gradients`: `[N, ...sample]`, like the images.
    ///
    /// # Errors
    /// [`Error::Model`] for a device that fails.
    pub fn rows<const D: usize>(gradients: Tensor<D>) -> Result<Self> {
        Gradients::new(gradients).map(Self::Rows)
    }

    /// Checks that the filter is defined for this objective.
    ///
    /// # Errors
    /// [`Error::Filter`] for [`Filter::Paper`] with anything but -log P of a class.
    pub fn check_filter(&self, filter: &Filter) -> Result<()> {
        let checked = match self {
            Self::Label(_) | Self::Predicted | Self::Class(_) => Ok(()),
            Self::Entropy => filter.check_objective(&SampleObjective::Entropy),
            Self::Margin => filter.check_objective(&SampleObjective::Margin),
            Self::All(single) => filter.check_objective(single),
            Self::Each(singles) => singles.iter().try_for_each(|single| filter.check_objective(single)),
            Self::Rows(_) if matches!(filter, Filter::Paper { .. }) => {
                Err(influence_manifold::Error::PaperObjective { objective: "row".into() })
            }
            Self::Rows(_) => Ok(()),
        };
        checked.map_err(Error::Filter)
    }

    /// The objective of each of `samples` samples, for a network of `classes` classes and samples
    /// of shape `shape`.
    pub(crate) fn resolve(&self, samples: usize, classes: usize, shape: &[usize]) -> Result<Vec<Resolved>> {
        self.check(samples)?;
        let known = |single: SampleObjective| Ok(vec![Resolved::Known(single); samples]);
        match self {
            Self::Label(labels) => labels
                .iter()
                .enumerate()
                .map(|(sample, &class)| of_class(class, classes, || format!("the label of sample {sample}")))
                .collect(),
            Self::Predicted => known(SampleObjective::Predicted),
            Self::Class(class) => Ok(vec![of_class(*class, classes, || "the objective".into())?; samples]),
            Self::Entropy => known(SampleObjective::Entropy),
            Self::Margin => known(SampleObjective::Margin),
            Self::All(single) => {
                single.check_classes(classes).map_err(|source| unfit("the objective".into(), 0, source))?;
                known(single.clone())
            }
            Self::Each(singles) => {
                for (sample, single) in singles.iter().enumerate() {
                    let what = || format!("the objective of sample {sample}");
                    single.check_classes(classes).map_err(|source| unfit(what(), sample, source))?;
                }
                Ok(singles.iter().cloned().map(Resolved::Known).collect())
            }
            Self::Rows(gradients) => {
                gradients.check(samples, shape)?;
                Ok((0..samples).map(|sample| Resolved::Row(gradients.clone(), sample)).collect())
            }
        }
    }
}

/// The error for an objective that does not fit the network.
fn unfit(what: String, sample: usize, source: influence_manifold::Error) -> Error {
    match source {
        influence_manifold::Error::ClassOutOfRange { class, classes } => {
            Error::ClassOutOfRange { what, class, classes }
        }
        source => Error::Measure { sample, source },
    }
}

/// -log P of a class, if the network has it.
fn of_class(class: usize, classes: usize, what: impl Fn() -> String) -> Result<Resolved> {
    if class < classes {
        Ok(Resolved::Known(SampleObjective::class(class)))
    } else {
        Err(Error::ClassOutOfRange { what: what(), class, classes })
    }
}

/// The objective, which for parameters is never a row: [`Scorer::scores`](crate::Scorer::scores)
/// refuses rows there.
pub(crate) fn known(objective: &Resolved) -> Result<&SampleObjective> {
    match objective {
        Resolved::Known(objective) => Ok(objective),
        Resolved::Row(..) => unreachable!("refused before anything was computed"),
    }
}

/// The objective of one sample.
#[derive(Debug, Clone)]
pub(crate) enum Resolved {
    /// Known without the Jacobian.
    Known(SampleObjective),
    /// The gradients of the batch and the index of the sample: complete only with its Jacobian.
    Row(Gradients, usize),
}

impl Resolved {
    /// Whether [`Resolved::sees_common_shift`] can be true for some logits.
    pub(crate) fn may_see_common_shift(&self) -> bool {
        matches!(self, Self::Known(SampleObjective::Logits(_)))
    }

    /// Whether the objective changes when a constant is added to all of these logits.
    pub(crate) fn sees_common_shift(&self, logits: &[f64]) -> bool {
        matches!(self, Self::Known(single) if single.sees_common_shift(logits))
    }

    /// The objective at one sample, given its Jacobian of `classes` classes.
    pub(crate) fn at(&self, jacobian: &Jacobian, classes: usize) -> Result<SampleObjective> {
        let (gradients, sample) = match self {
            Self::Known(single) => return Ok(single.clone()),
            Self::Row(gradients, sample) => (gradients, *sample),
        };
        let df = gradients.of(sample);
        let row = match &jacobian.rows {
            Rows::F64(rows) => Row::from_rows(rows, classes, df.len(), df),
            Rows::F32(rows) => Row::from_rows(rows, classes, df.len(), df),
        };
        row.map(SampleObjective::Row).map_err(|source| Error::Measure { sample, source })
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(single) => single.fmt(f),
            Self::Row(..) => f.write_str("row"),
        }
    }
}

/// The command line's form where there is one (`label`, `predicted`, `class:3`, `entropy`,
/// `margin`), otherwise the name of the function, `each` or `row`.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(_) => f.write_str("label"),
            Self::Predicted => f.write_str("predicted"),
            Self::Class(class) => write!(f, "class:{class}"),
            Self::Entropy => f.write_str("entropy"),
            Self::Margin => f.write_str("margin"),
            Self::All(single) => single.fmt(f),
            Self::Each(_) => f.write_str("each"),
            Self::Rows(_) => f.write_str("row"),
        }
    }
}
