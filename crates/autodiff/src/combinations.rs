//! The combinations of the logits whose gradients are computed at each sample.

use std::fmt;

use burn::tensor::TensorData;

use crate::error::{Error, Result};

/// The combinations of the logits whose gradients are asked for at one sample.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Combinations {
    /// z_k - z_K for k = 1 .. K-1: every function of the probabilities depends only on these.
    #[default]
    Differences,
    /// z_k for k = 1 .. K: needed for functions that change when a constant is added to all logits.
    Logits,
    /// sum_k c_vk z_k for v = 1 .. V, as the rows c_v of a matrix, row-major `[V, K]`.
    Rows(Vec<f64>),
}

impl Combinations {
    /// V, the number of combinations of `classes` logits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no rows, or rows that do not have K coefficients each.
    pub(crate) fn count(&self, classes: usize) -> Result<usize> {
        match self {
            Self::Differences => Ok(classes - 1),
            Self::Logits => Ok(classes),
            Self::Rows(rows) if !rows.is_empty() && rows.len().is_multiple_of(classes) => {
                Ok(rows.len() / classes)
            }
            Self::Rows(rows) => Err(Error::InvalidArgument(format!(
                "{} numbers are not combinations of {classes} logits: give rows of {classes}",
                rows.len()
            ))),
        }
    }

    /// The coefficient of class j in combination v.
    fn entry(&self, classes: usize, v: usize, j: usize) -> f64 {
        let unit = |k: usize| f64::from(u8::from(j == k));
        match self {
            Self::Differences => unit(v) - unit(classes - 1),
            Self::Logits => unit(v),
            Self::Rows(rows) => rows[v * classes + j],
        }
    }

    /// The cotangents `[V, n, K]` for the samples of a batch, where V is the largest of their
    /// counts; samples with fewer combinations have zeros at the end.
    ///
    /// # Errors
    /// As [`Combinations::count`].
    pub(crate) fn cotangents(each: &[Self], classes: usize) -> Result<TensorData> {
        let counts: Vec<usize> = each.iter().map(|of| of.count(classes)).collect::<Result<_>>()?;
        let most = counts.iter().copied().max().unwrap_or(0);
        let mut values = Vec::with_capacity(most * each.len() * classes);
        for v in 0..most {
            for (of, &count) in each.iter().zip(&counts) {
                let entry = |j| if v < count { of.entry(classes, v, j) } else { 0.0 };
                values.extend((0..classes).map(entry));
            }
        }
        Ok(TensorData::new(values, vec![most, each.len(), classes]))
    }
}

/// The caller's function that chooses the combinations for a sample, from its index in the call and
/// its logits.
pub(crate) struct Chooser<'a>(Box<Choose<'a>>);

type Choose<'a> = dyn Fn(usize, &[f64]) -> Combinations + Send + Sync + 'a;

impl<'a> Chooser<'a> {
    pub(crate) fn new(choose: impl Fn(usize, &[f64]) -> Combinations + Send + Sync + 'a) -> Self {
        Self(Box::new(choose))
    }

    /// The combinations for one sample.
    pub(crate) fn at(&self, sample: usize, logits: &[f64]) -> Combinations {
        (self.0)(sample, logits)
    }
}

impl fmt::Debug for Chooser<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chooser")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_batch_have_combinations_of_their_own() {
        let each =
            [Combinations::Differences, Combinations::Rows(vec![0.0, 0.25, 0.75]), Combinations::Logits];
        let cotangents = Combinations::cotangents(&each, 3).expect("they fit");
        assert_eq!(cotangents.shape().to_vec(), [3, 3, 3]);
        let values: Vec<f64> = cotangents.iter().collect();
        #[rustfmt::skip]
        let expected = [
            1.0, 0.0, -1.0,  0.0, 0.25, 0.75,  1.0, 0.0, 0.0,
            0.0, 1.0, -1.0,  0.0, 0.0, 0.0,    0.0, 1.0, 0.0,
            0.0, 0.0, 0.0,   0.0, 0.0, 0.0,    0.0, 0.0, 1.0,
        ];
        assert_eq!(values, expected);
        for rows in [vec![], vec![1.0; 4]] {
            let refused = Combinations::cotangents(&[Combinations::Rows(rows)], 3);
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
        }
    }
}
