//! What the three filters share: their outcome, and the rows that they weight and decompose.

pub(crate) mod exact;
pub(crate) mod paper;
pub(crate) mod tikhonov;

use faer::Mat;

use crate::{Probabilities, Tangent};

/// The result of a filter, with its scales as logarithms.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// ln FI; `None` where FI = 0.
    pub(crate) log_value: Option<f64>,
    pub(crate) rank: usize,
    pub(crate) ambiguous: bool,
    /// The coefficients c of the most influential direction, times e^-`log_scale`.
    pub(crate) coefficients: Vec<f64>,
    pub(crate) log_scale: f64,
}

impl Outcome {
    /// The outcome FI = 0: no perturbation moves the probabilities, or f does not change with them.
    pub(crate) fn zero(classes: usize, rank: usize, ambiguous: bool) -> Self {
        Self { log_value: None, rank, ambiguous, coefficients: vec![0.0; classes], log_scale: 0.0 }
    }

    /// Adds e^`log_more` to FI.
    pub(crate) fn add(&mut self, log_more: f64) {
        if log_more > f64::NEG_INFINITY {
            self.log_value = Some(match self.log_value {
                Some(log_value) => log_add(log_value, log_more),
                None => log_more,
            });
        }
    }
}

/// ln(e^a + e^b).
pub(crate) fn log_add(a: f64, b: f64) -> f64 {
    let (larger, smaller) = if a > b { (a, b) } else { (b, a) };
    if smaller == f64::NEG_INFINITY { larger } else { larger + (smaller - larger).exp().ln_1p() }
}

/// V diag(s) V^T zeta, where `s` covers only the first columns of V: K values.
pub(crate) fn filtered(tangent: &Tangent, s: &[f64], zeta: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; zeta.len()];
    for (j, s) in s.iter().enumerate() {
        let column = tangent.basis.col_as_slice(j);
        let product: f64 = s * column.iter().zip(zeta).map(|(v, z)| v * z).sum::<f64>();
        sum.iter_mut().zip(column).for_each(|(sum, v)| *sum += product * v);
    }
    sum
}

/// V Sigma / sigma_1 of the first `count` columns: K x `count`.
pub(crate) fn scaled_factor(tangent: &Tangent, count: usize) -> Mat<f64> {
    let largest = tangent.largest();
    Mat::from_fn(tangent.classes(), count, |k, j| tangent.basis[(k, j)] * (tangent.singular[j] / largest))
}

/// (X_k - X_top) / sigma_1, where X = V Sigma and X_top is the row of the predicted class: K x m.
pub(crate) fn above_predicted(probabilities: &Probabilities, tangent: &Tangent) -> Mat<f64> {
    let mut rows = scaled_factor(tangent, tangent.singular.len());
    for j in 0..rows.ncols() {
        let column = rows.col_as_slice_mut(j);
        let level = column[probabilities.predicted()];
        column.iter_mut().for_each(|x| *x -= level);
    }
    rows
}

/// (X_k - P^T X) / sigma_1: K x m.
///
/// The predicted class's row is subtracted first. Its own deviation is of the order of the second
/// probability, and would be lost in the rounding of X_top - P^T X.
pub(crate) fn deviations(probabilities: &Probabilities, tangent: &Tangent) -> Mat<f64> {
    let mut rows = above_predicted(probabilities, tangent);
    let values = probabilities.values();
    for j in 0..rows.ncols() {
        let column = rows.col_as_slice_mut(j);
        let mean: f64 = column.iter().zip(&values).map(|(x, p)| x * p).sum();
        column.iter_mut().for_each(|x| *x -= mean);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::gradient::LogitGradient;

    const ROUNDING: f64 = 1e-12;

    /// c f has c^2 FI and c h, by every filter that takes a gradient.
    #[test]
    fn a_multiple_of_the_objective_has_its_square() -> Result<(), Error> {
        let rows = [0.5, 1.0, -0.25, 2.0, 0.75, -1.0, 0.0, 1.5];
        let tangent = Tangent::from_rows(&rows, 4, 2)?;
        let probabilities = Probabilities::new(&[0.0, 1.0, -3.0, 2.0])?;
        for class in 0..4 {
            let once = LogitGradient::neg_log_probability(&probabilities, class)?;
            let log_c = 7.0_f64.ln();
            let log_abs = once.log_abs.iter().map(|d| d + log_c).collect();
            let signs = once.signs.iter().map(|sign| -sign).collect();
            let often = LogitGradient {
                log_abs,
                signs,
                log_bound: once.log_bound + 2.0 * log_c,
                log_error: once.log_error,
            };
            let both = |run: &dyn Fn(&LogitGradient) -> Result<Outcome, Error>| {
                Ok::<_, Error>((run(&once)?, run(&often)?))
            };
            for (one, more) in [
                both(&|gradient| exact::exact(&probabilities, &tangent, gradient, None))?,
                both(&|gradient| Ok(tikhonov::tikhonov(&probabilities, &tangent, gradient, 0.1)))?,
            ] {
                let values = (one.log_value.unwrap_or(f64::NAN), more.log_value.unwrap_or(f64::NAN));
                assert!((values.1 - values.0 - 2.0 * log_c).abs() < ROUNDING);
                for (c, multiple) in one.coefficients.iter().zip(&more.coefficients) {
                    let (c, multiple) = (c * one.log_scale.exp(), multiple * more.log_scale.exp());
                    assert!((multiple + 7.0 * c).abs() < ROUNDING * (1.0 + multiple.abs()));
                }
            }
        }
        Ok(())
    }
}
