//! Objectives f(omega), by their gradient dh in the logits or by the row df.
//!
//! | objective | f | gradient |
//! |---|---|---|
//! | [`NegLogProbability`], [`Predicted`] | -ln P_y | dh = P - e_y |
//! | [`Entropy`] | H = - sum_k P_k ln P_k | dh_k = -P_k (ln P_k + H) |
//! | [`Margin`], [`MarginOf`] | z_y - z_j, j the likeliest other class | dh = e_y - e_j |
//! | [`ExpectedCost`] | E c = sum_k P_k c_k | dh_k = P_k (c_k - E c) |
//! | [`Probabilities`] | g(P) | dh_k = P_k (g_k - E g), g_k = dg / dP_k |
//! | [`Logits`] | h(z) | dh, as the function gives it |
//! | [`Row`] | any function of omega | the row df itself |
//!
//! All but the last two are functions of the probabilities: sum_k dh_k = 0, and |w|^2 bounds the
//! measure.
//!
//! [`NegLogProbability`]: SampleObjective::NegLogProbability
//! [`Predicted`]: SampleObjective::Predicted
//! [`Entropy`]: SampleObjective::Entropy
//! [`Margin`]: SampleObjective::Margin
//! [`MarginOf`]: SampleObjective::MarginOf
//! [`ExpectedCost`]: SampleObjective::ExpectedCost
//! [`Probabilities`]: SampleObjective::Probabilities
//! [`Logits`]: SampleObjective::Logits
//! [`Row`]: SampleObjective::Row

use std::fmt;

use crate::error::wrong_length;
use crate::gradient::{CommonShift, Gradient, LogitGradient};
use crate::{Costs, Error, GradientFunction, Probabilities, Row, Tangent};

/// The function of the output whose change is measured.
///
/// ```
/// use influence_manifold::{Filter, SampleObjective, Tangent, influence};
///
/// # fn main() -> Result<(), influence_manifold::Error> {
/// let tangent = Tangent::from_rows(&[1.0, -0.5, 0.2], 3, 1)?;
/// // Gini impurity g(P) = 1 - sum_k P_k^2, by its derivatives in P.
/// let gini = SampleObjective::probabilities("gini", |p| p.values().iter().map(|p| -2.0 * p).collect());
/// for objective in [SampleObjective::Entropy, SampleObjective::Margin, SampleObjective::expected_cost([0.0, 1.0, 5.0])?, gini] {
///     let found = influence(&[2.0, 1.0, 0.0], &tangent, &objective, &Filter::default())?;
///     assert!(found.value <= found.bound && found.outside == 0.0, "{objective}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SampleObjective {
    /// f = -log P_class: the cross-entropy where the class is the label (Shu & Zhu 2019, section
    /// 3).
    NegLogProbability {
        /// The class, counted from 0.
        class: usize,
    },
    /// f = -log P of the class with the largest logit; the lowest index on ties.
    Predicted,
    /// f = - sum_k P_k ln P_k, the entropy of the prediction in nats.
    Entropy,
    /// f = the largest logit minus the second: the margin of the prediction. On ties the lowest
    /// indices.
    Margin,
    /// f = z_class minus the largest other logit: negative where the class is not the predicted
    /// one.
    MarginOf {
        /// The class, counted from 0.
        class: usize,
    },
    /// f = sum_k P_k c_k, the expected cost of the prediction.
    ExpectedCost(Costs),
    /// f = g(P), any function of the probabilities, by its partial derivatives dg / dP_k.
    Probabilities(GradientFunction),
    /// f = h(z), any function of the logits, by its partial derivatives dh_k. Where they do not add
    /// up to zero, f changes with a constant added to all logits, which leaves the distribution as
    /// it is: see [`Influence::outside`](crate::Influence::outside).
    Logits(GradientFunction),
    /// Any function of omega, by its gradient df.
    Row(Row),
}

impl SampleObjective {
    /// -log P of the class `class`, counted from 0.
    pub const fn class(class: usize) -> Self {
        Self::NegLogProbability { class }
    }

    /// The logit of the class `class` minus the largest other logit.
    pub const fn margin_of(class: usize) -> Self {
        Self::MarginOf { class }
    }

    /// Expected cost sum_k P_k c_k, with one cost per class.
    ///
    /// # Errors
    ///
    /// Costs that are not finite or span more than the range of `f64`.
    pub fn expected_cost(costs: impl Into<Vec<f64>>) -> Result<Self, Error> {
        Costs::new(costs).map(Self::ExpectedCost)
    }

    /// A function g of the probabilities: `gradient` returns the K partial derivatives dg / dP_k.
    /// Adding a constant to all of them changes nothing. `name` is used in messages and tables.
    pub fn probabilities(
        name: &str,
        gradient: impl Fn(&Probabilities) -> Vec<f64> + Send + Sync + 'static,
    ) -> Self {
        Self::Probabilities(GradientFunction::new(name, gradient))
    }

    /// A function h of the logits: `gradient` returns the K partial derivatives dh_k. Each must be
    /// accurate relative to its own size, because for a confident sample the small ones decide. A
    /// function of the probabilities is better given as [`probabilities`](Self::probabilities),
    /// which takes care of that.
    pub fn logits(name: &str, gradient: impl Fn(&Probabilities) -> Vec<f64> + Send + Sync + 'static) -> Self {
        Self::Logits(GradientFunction::new(name, gradient))
    }

    /// The class that the objective names, or the predicted class if it names none.
    ///
    /// # Errors
    ///
    /// No such class among the logits.
    pub fn class_of(&self, probabilities: &Probabilities) -> Result<usize, Error> {
        match self {
            Self::NegLogProbability { class } | Self::MarginOf { class } => {
                probabilities.check_class(*class).map(|()| *class)
            }
            _ => Ok(probabilities.predicted()),
        }
    }

    /// Checks that the objective fits a network of `classes` classes, before any sample is read.
    ///
    /// # Errors
    ///
    /// No such class; costs or a row for a different number of classes.
    pub fn check_classes(&self, classes: usize) -> Result<(), Error> {
        match self {
            Self::NegLogProbability { class } | Self::MarginOf { class } if *class >= classes => {
                Err(Error::ClassOutOfRange { class: *class, classes })
            }
            Self::ExpectedCost(costs) => costs.check_classes(classes),
            Self::Row(row) => row.check_classes(classes),
            _ => Ok(()),
        }
    }

    /// Whether f is -log P of a class, which [`Filter::Paper`](crate::Filter::Paper) requires.
    pub const fn is_neg_log_probability(&self) -> bool {
        matches!(self, Self::NegLogProbability { .. } | Self::Predicted)
    }

    /// Whether f depends only on the probabilities of one or two classes, so that the others may be
    /// merged into one: [`Tail`](crate::Tail).
    pub const fn names_its_classes(&self) -> bool {
        matches!(
            self,
            Self::NegLogProbability { .. } | Self::Predicted | Self::Margin | Self::MarginOf { .. }
        )
    }

    /// Whether f changes when a constant is added to all logits. The K-1 differences of the logits
    /// then do not determine df; the Jacobian's K rows do. Only [`Logits`](Self::Logits) can be
    /// such an f. False where the gradient itself is faulty, which
    /// [`influence`](crate::influence()) reports as an error.
    pub fn sees_common_shift(&self, logits: &[f64]) -> bool {
        let Self::Logits(function) = self else { return false };
        let dh = Probabilities::new(logits).and_then(|probabilities| function.at(&probabilities));
        dh.is_ok_and(|dh| matches!(CommonShift::of(&dh), CommonShift::Sum(_)))
    }

    /// The slope df / dt where the logits move by `velocity` per unit of t, as its sign and ln of
    /// its size (the size may exceed the range of `f64`). `None` where it is 0.
    ///
    /// # Shapes
    ///
    /// `velocity`: `[K]`.
    ///
    /// # Errors
    ///
    /// A velocity of the wrong length; as [`influence`](crate::influence()) for the objective,
    /// which must be a function of the probabilities.
    pub fn log_slope(
        &self,
        probabilities: &Probabilities,
        velocity: &[f64],
    ) -> Result<Option<(f64, f64)>, Error> {
        if velocity.len() != probabilities.classes() {
            let what = "the velocity of the logits";
            return Err(wrong_length(what, probabilities.classes(), velocity.len()));
        }
        let gradient = self.logit_gradient(probabilities)?;
        let gradient = gradient.ok_or_else(|| Error::NoWindows { objective: self.to_string() })?;
        Ok(gradient.log_slope(velocity, probabilities.predicted()))
    }

    /// The value of f at the logits of `at`, for the comparison of an actual change of f with the
    /// first-order prediction: in nats for -log P and the entropy, in units of the logits for
    /// margins, in those of the costs for an expected cost. Predicted class and rival are those at
    /// `base`, where f was differentiated, even if they change along the way. `None` for an
    /// objective that is known only by its derivatives.
    ///
    /// # Errors
    ///
    /// No such class; costs, a row or logits `at` of another number of classes than `base`.
    pub fn value(&self, base: &Probabilities, at: &Probabilities) -> Result<Option<f64>, Error> {
        let (found, expected) = (at.classes(), base.classes());
        if found != expected {
            return Err(Error::ClassMismatch { what: "logits", found, expected });
        }
        self.check_classes(expected)?;
        let class = self.class_of(base)?;
        Ok(match self {
            Self::NegLogProbability { .. } | Self::Predicted => Some(-at.logs()[class]),
            Self::Entropy => Some(at.entropy()),
            Self::Margin | Self::MarginOf { .. } => Some(at.logits()[class] - at.logits()[base.rival(class)]),
            Self::ExpectedCost(costs) => {
                Some(at.values().iter().zip(costs.values()).map(|(p, cost)| p * cost).sum())
            }
            Self::Probabilities(_) | Self::Logits(_) | Self::Row(_) => None,
        })
    }

    /// The gradient dh in the logits, where f is a function of the probabilities.
    pub(crate) fn logit_gradient(
        &self,
        probabilities: &Probabilities,
    ) -> Result<Option<LogitGradient>, Error> {
        let class = self.class_of(probabilities)?;
        self.check_classes(probabilities.classes())?;
        Ok(Some(match self {
            Self::NegLogProbability { .. } | Self::Predicted => {
                LogitGradient::neg_log_probability(probabilities, class)?
            }
            Self::Entropy => LogitGradient::entropy(probabilities),
            Self::Margin | Self::MarginOf { .. } => LogitGradient::margin(probabilities, class),
            Self::ExpectedCost(costs) => LogitGradient::costs(probabilities, costs.values()),
            Self::Probabilities(function) => {
                let derivatives = Costs::new(function.at(probabilities)?)?;
                LogitGradient::costs(probabilities, derivatives.values())
            }
            Self::Logits(function) => {
                let dh = function.at(probabilities)?;
                match CommonShift::of(&dh) {
                    CommonShift::None => LogitGradient::plain(probabilities, &dh, 0.0, 0.0),
                    CommonShift::Sum(_) => return Ok(None),
                    CommonShift::Unknown(sum) => {
                        return Err(Error::RoundedGradient { objective: self.to_string(), sum });
                    }
                }
            }
            Self::Row(_) => return Ok(None),
        }))
    }

    /// The gradient at these probabilities. The tangent is needed for the effect of a common shift
    /// of the logits.
    pub(crate) fn gradient(
        &self,
        probabilities: &Probabilities,
        tangent: &Tangent,
    ) -> Result<Gradient, Error> {
        if let Some(gradient) = self.logit_gradient(probabilities)? {
            return Ok(Gradient::OfProbabilities(gradient));
        }
        match self {
            Self::Row(row) => Gradient::of_row(row, tangent),
            Self::Logits(function) => Gradient::of_logits(tangent, &function.at(probabilities)?, self),
            _ => Err(Error::NoWindows { objective: self.to_string() }),
        }
    }
}

impl fmt::Display for SampleObjective {
    /// The command line's form where there is one, otherwise the name of the function, or `row`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NegLogProbability { class } => write!(formatter, "class:{class}"),
            Self::Predicted => formatter.write_str("predicted"),
            Self::Entropy => formatter.write_str("entropy"),
            Self::Margin => formatter.write_str("margin"),
            Self::MarginOf { class } => write!(formatter, "margin:{class}"),
            Self::ExpectedCost(_) => formatter.write_str("cost"),
            Self::Probabilities(function) | Self::Logits(function) => formatter.write_str(function.name()),
            Self::Row(_) => formatter.write_str("row"),
        }
    }
}
