//! The samples of a call, wherever the caller has them.

use burn::tensor::{Tensor, TensorData};

use crate::error::{Result, unreadable};

/// Samples `[N, ...sample]` as the methods of [`Scorer`](crate::Scorer) take them: a [`Tensor`] on
/// any device, or [`TensorData`] on the host, of any float type.
pub trait IntoSamples {
    /// The samples on the host, `[N, ...sample]`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for a device that fails.
    fn into_samples(self) -> Result<TensorData>;
}

impl IntoSamples for TensorData {
    fn into_samples(self) -> Result<TensorData> {
        Ok(self)
    }
}

impl<const D: usize> IntoSamples for Tensor<D> {
    fn into_samples(self) -> Result<TensorData> {
        self.try_to_data().map_err(|error| unreadable("samples from their device", &error))
    }
}

/// Each of the samples `[N, ...sample]`, in f64.
pub(crate) fn each_sample(samples: &TensorData) -> Vec<Vec<f64>> {
    let size: usize = samples.shape()[1..].iter().product();
    let values: Vec<f64> = samples.iter().collect();
    values.chunks(size.max(1)).map(<[f64]>::to_vec).collect()
}

/// The squared norm |x|^2 of each sample.
pub(crate) fn square_norms(samples: &TensorData) -> Vec<f64> {
    each_sample(samples).iter().map(|sample| sample.iter().map(|x| x * x).sum()).collect()
}
