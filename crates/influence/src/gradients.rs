//! User-supplied gradients df of any function f, one per sample, in the space of the perturbation.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};

use crate::error::{Error, Result, unreadable};

/// What is read, as errors name it.
const WHAT: &str = "gradients of the objective";

/// The gradients df of N samples, in f64.
///
/// # Shapes
/// `[N, ...sample]`: one derivative per perturbed element.
#[derive(Debug, Clone)]
pub struct Gradients {
    values: Arc<[f64]>,
    shape: Vec<usize>,
}

impl Gradients {
    /// Takes the gradients `[N, ...sample]` from a tensor of any float type on any device.
    ///
    /// # Errors
    /// [`Error::Model`] for a device that fails.
    pub fn new<const D: usize>(gradients: Tensor<D>) -> Result<Self> {
        let data = gradients.try_to_data();
        Self::from_data(data.map_err(|error| unreadable(WHAT, &error))?)
    }

    /// Takes the gradients `[N, ...sample]` from data on the host, of any float type.
    ///
    /// # Errors
    /// [`Error::Model`] for data that are not numbers.
    pub fn from_data(data: TensorData) -> Result<Self> {
        let shape = data.shape().to_vec();
        let values: Vec<f64> = data.try_into_vec_as().map_err(|error| unreadable(WHAT, &error))?;
        Ok(Self { values: values.into(), shape })
    }

    /// `[N, ...sample]`.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// df of one sample, flattened.
    pub(crate) fn of(&self, sample: usize) -> &[f64] {
        let length = self.values.len() / self.shape.first().copied().unwrap_or(1).max(1);
        self.values.get(sample * length..(sample + 1) * length).unwrap_or_default()
    }

    /// Checks that the gradients have the shape of the samples.
    pub(crate) fn check(&self, samples: usize, sample: &[usize]) -> Result<()> {
        let expected = [&[samples], sample].concat();
        if self.shape == expected {
            return Ok(());
        }
        Err(Error::GradientShape { found: self.shape.clone(), expected })
    }
}

impl PartialEq for Gradients {
    /// Whether shapes and bits are equal.
    fn eq(&self, other: &Self) -> bool {
        let bits = |of: &Self| of.values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        self.shape == other.shape && bits(self) == bits(other)
    }
}

impl Eq for Gradients {}
