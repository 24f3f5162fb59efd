//! The interface of executors: a plan says what to compute, an executor computes it.
//!
//! An executor linearises the network at a batch: one forward pass gives the logits, and reverse
//! passes pull cotangents of the logits back to the input, as often as asked. Arguments and results
//! are host data, because every consumer (the K x K algebra, files) is on the host, and they are
//! small compared with the values inside the network.

use std::fmt;

use burn::tensor::TensorData;

use crate::error::{Error, Result};
use crate::parameters::Grams;

/// Runs one plan on one device.
pub trait Executor: fmt::Debug + Send + Sync {
    /// The executor's name and device, for reports: "burn on flex", ...
    fn name(&self) -> String;

    /// The plan, step by step, in words.
    fn describe(&self) -> String {
        self.name()
    }

    /// Runs the forward pass on `batch`, of shape `[n, ...sample]`, where n is the plan's batch
    /// size.
    ///
    /// # Errors
    /// The errors of the backend.
    fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>>;

    /// The logits `[n, K]` of a batch, when no reverse pass will follow.
    ///
    /// # Errors
    /// As [`Executor::linearize`] and [`Linearized::logits`].
    fn logits(&self, batch: TensorData) -> Result<TensorData> {
        self.linearize(batch)?.logits()
    }

    /// Runs the forward pass on `batch` and gives `look` the result of each node (by its index in
    /// the graph) when it is computed: row-major, in the shape that the graph has for it. Masks,
    /// indices and results that the executor computes only as part of a larger step are left out.
    /// The default shows nothing.
    ///
    /// # Errors
    /// As [`Executor::linearize`].
    fn observe(&self, _batch: TensorData, _look: &mut dyn FnMut(usize, TensorData)) -> Result<()> {
        Ok(())
    }

    /// The largest number of cotangents that one call of [`Linearized::grams`] takes; more are
    /// given to it as pairs of blocks.
    fn most_cotangents(&self) -> usize {
        usize::MAX
    }
}

/// A network linearised at a batch.
pub trait Linearized: fmt::Debug {
    /// The logits `[n, K]`.
    ///
    /// # Errors
    /// The errors of the backend: a device may compute in the background, and its errors show when
    /// results are read.
    fn logits(&self) -> Result<TensorData>;

    /// The pullback: cotangents `[V, n, K]` of the logits (any V) to cotangents `[V, n, ...sample]`
    /// of the input. A cotangent's result has the same bits whether it comes by itself or with
    /// others: they run in blocks of fixed size.
    ///
    /// # Errors
    /// [`Error::Shape`] for cotangents of another shape, and the errors of the backend.
    fn pullback(&self, cotangents: TensorData) -> Result<TensorData>;

    /// Logits and pullback together, so that an executor on another device has to wait for it only
    /// once.
    ///
    /// # Errors
    /// As [`Linearized::pullback`].
    fn logits_and_pullback(&self, cotangents: TensorData) -> Result<(TensorData, TensorData)> {
        let pulled = self.pullback(cotangents)?;
        Ok((self.logits()?, pulled))
    }

    /// The Gram matrices of the gradients that cotangents `[V, n, K]` of the logits have in some of
    /// the perturbed tensors, given by their indices in
    /// [`Graph::parameters`](crate::Graph::parameters), ascending, and in the input where it is
    /// perturbed. V is at most [`Executor::most_cotangents`]. It takes one reverse pass, and never
    /// holds the gradients of all tensors at once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for tensors that are not perturbed, or an executor without Gram
    /// matrices; as [`Linearized::pullback`].
    fn grams(&self, _cotangents: TensorData, _tensors: &[usize]) -> Result<Grams> {
        Err(Error::InvalidArgument("this executor computes no Gram matrices of parameters".into()))
    }
}
