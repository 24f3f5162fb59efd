//! P = softmax(z) in log space: l_k = z_k - ln sum_j exp(z_j), and ln(1 - P_k) from the other
//! classes.
//!
//! Nothing here is computed as 1 - P: with 1 - P_y = 1e-18, P_y rounds to exactly 1 and the
//! difference to 0.

use crate::Error;
use crate::error::{check_finite, wrong_length};
use crate::filters::log_add;

/// The softmax of one sample's logits, kept as logarithms.
#[derive(Debug, Clone, PartialEq)]
pub struct Probabilities {
    logits: Vec<f64>,
    logs: Vec<f64>,
    predicted: usize,
    runner_up: usize,
}

impl Probabilities {
    /// P = softmax(z) of K logits.
    ///
    /// # Errors
    ///
    /// Fewer than two classes; NaN or infinity; logits that span more than the range of `f64`.
    pub fn new(logits: &[f64]) -> Result<Self, Error> {
        let classes = logits.len();
        if classes < 2 {
            return Err(Error::TooFewClasses { classes });
        }
        check_finite("the logits", logits.iter().copied())?;
        let predicted = largest_except(logits, None);
        let runner_up = largest_except(logits, Some(predicted));
        let top = logits[predicted];
        let smallest = logits.iter().copied().fold(top, f64::min);
        if !(top - smallest).is_finite() {
            return Err(Error::LogitSpread { smallest, largest: top });
        }
        let others: f64 = others(logits, predicted).map(|z| (z - top).exp()).sum();
        let normaliser = others.ln_1p();
        let logs = logits.iter().map(|z| (z - top) - normaliser).collect();
        Ok(Self { logits: logits.to_vec(), logs, predicted, runner_up })
    }

    /// The number of classes, K.
    pub fn classes(&self) -> usize {
        self.logs.len()
    }

    /// The logits z, as given.
    pub fn logits(&self) -> &[f64] {
        &self.logits
    }

    /// The logarithms l_k = ln P_k: `[K]`.
    pub fn logs(&self) -> &[f64] {
        &self.logs
    }

    /// The probabilities P_k: `[K]`; 0 where one underflows `f64`.
    pub fn values(&self) -> Vec<f64> {
        self.logs.iter().map(|l| l.exp()).collect()
    }

    /// The class with the largest logit; the lowest index on ties.
    pub fn predicted(&self) -> usize {
        self.predicted
    }

    /// The probability P_k of one class.
    ///
    /// # Errors
    ///
    /// No such class.
    pub fn of(&self, class: usize) -> Result<f64, Error> {
        self.check_class(class).map(|()| self.logs[class].exp())
    }

    /// ln(1 - P_k) = ln sum_{j != k} P_j, from the other classes.
    ///
    /// # Errors
    ///
    /// No such class.
    pub fn log_complement(&self, class: usize) -> Result<f64, Error> {
        self.check_class(class)?;
        let rival = self.rival(class);
        Ok(self.logs[rival] + log_excess(&self.logs, class, rival))
    }

    /// ln((1 - P_k) / P_k) = ln sum_{j != k} exp(z_j) - z_k, free of the normaliser.
    ///
    /// # Errors
    ///
    /// No such class.
    pub fn log_odds_against(&self, class: usize) -> Result<f64, Error> {
        self.check_class(class)?;
        let rival = self.rival(class);
        Ok((self.logits[rival] - self.logits[class]) + log_excess(&self.logits, class, rival))
    }

    /// z_k minus the largest other logit: negative where the class is not the predicted one.
    ///
    /// # Errors
    ///
    /// No such class.
    pub fn margin(&self, class: usize) -> Result<f64, Error> {
        self.check_class(class)?;
        Ok(self.logits[class] - self.logits[self.rival(class)])
    }

    /// The entropy H = - sum_k P_k ln P_k in nats; a class with P = 0 adds nothing.
    pub fn entropy(&self) -> f64 {
        self.logs.iter().map(|l| -l * l.exp()).sum()
    }

    /// ln sqrt(v^T (diag P - P P^T) v): the Fisher length of the velocity v of the logits, i.e. how
    /// fast the distribution moves. `None` where it does not move. Classes whose P underflows `f64`
    /// are counted too.
    ///
    /// # Shapes
    ///
    /// `velocity`: `[K]`.
    ///
    /// # Errors
    ///
    /// Another length.
    pub fn log_fisher_length(&self, velocity: &[f64]) -> Result<Option<f64>, Error> {
        if velocity.len() != self.classes() {
            return Err(wrong_length("the velocity of the logits", self.classes(), velocity.len()));
        }
        // Velocities relative to the predicted class: its deviation from the mean is then the mean
        // itself, and no digits cancel. Positive and negative terms of the mean are summed as
        // logarithms separately, because either may underflow.
        let above: Vec<f64> = velocity.iter().map(|v| v - velocity[self.predicted]).collect();
        let part = |sign: f64| {
            let terms = above.iter().zip(&self.logs).filter(move |(v, _)| **v * sign > 0.0);
            terms.map(|(v, l)| l + v.abs().ln()).fold(f64::NEG_INFINITY, log_add)
        };
        let (more, less) = (part(1.0), part(-1.0));
        let larger = more.max(less);
        if larger == f64::NEG_INFINITY {
            return Ok(None);
        }
        let mean = (more - larger).exp() - (less - larger).exp();
        let log_mean = larger + mean.abs().ln();
        let deviation = |v: f64| {
            if v == 0.0 { log_mean } else { (v - mean * larger.exp()).abs().ln() }
        };
        let squares = above.iter().zip(&self.logs).map(|(v, l)| l + 2.0 * deviation(*v));
        Ok(Some(0.5 * squares.fold(f64::NEG_INFINITY, log_add)))
    }

    /// Refuses a class beyond the number of logits.
    pub(crate) fn check_class(&self, class: usize) -> Result<(), Error> {
        let classes = self.classes();
        if class < classes { Ok(()) } else { Err(Error::ClassOutOfRange { class, classes }) }
    }

    /// The likeliest class other than this one.
    pub(crate) fn rival(&self, class: usize) -> usize {
        if class == self.predicted { self.runner_up } else { self.predicted }
    }
}

/// All values but one.
fn others(values: &[f64], except: usize) -> impl Iterator<Item = f64> + '_ {
    values.iter().enumerate().filter(move |(k, _)| *k != except).map(|(_, value)| *value)
}

/// Index of the largest value, the lowest on ties; 0 of an empty list.
fn largest_except(values: &[f64], except: Option<usize>) -> usize {
    let candidates = values.iter().enumerate().filter(|(k, _)| Some(*k) != except);
    candidates.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(k, _)| k)
}

/// ln sum_{k != except} exp(v_k - v_top), where `top` is the index of the largest of these v_k.
fn log_excess(values: &[f64], except: usize, top: usize) -> f64 {
    let rest = values.iter().enumerate().filter(|(k, _)| *k != except && *k != top);
    rest.map(|(_, v)| (v - values[top]).exp()).sum::<f64>().ln_1p()
}
