//! The seam between what to compute and how: one trait for every executor of a plan.
//!
//! An executor linearises the network at a batch: one forward pass gives the logits, and the reverse pass pulls cotangents of the
//! logits back to the input, as often as asked. Data crosses the seam as host data, since every consumer (the K x K algebra, files)
//! is on the host and the data is small beside what is computed.

use std::fmt;

use burn::tensor::TensorData;

use crate::error::{Error, Result};
use crate::parameters::Grams;

/// Runs one plan on one device.
pub trait Executor: fmt::Debug + Send + Sync {
    /// What it is, for reports: "burn on flex", ...
    fn name(&self) -> String;

    /// What it runs, step by step, for people.
    fn describe(&self) -> String {
        self.name()
    }

    /// Runs the forward pass on `batch`, of shape `[n, ...sample]` where n is the plan's batch size.
    ///
    /// # Errors
    /// What the backend refuses or fails to do.
    fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>>;

    /// The logits `[n, K]` of a batch, where no reverse pass will follow.
    ///
    /// # Errors
    /// As [`Executor::linearize`] and [`Linearized::logits`].
    fn logits(&self, batch: TensorData) -> Result<TensorData> {
        self.linearize(batch)?.logits()
    }

    /// Runs the forward pass on `batch` and shows the results of nodes, by their numbers in the graph, as they are computed: row-major, of
    /// the shape that the graph tells. Masks and indices are not shown, nor what an executor computes as a part of something else; one
    /// that can show nothing does nothing.
    ///
    /// # Errors
    /// As [`Executor::linearize`].
    fn observe(&self, _batch: TensorData, _look: &mut dyn FnMut(usize, TensorData)) -> Result<()> {
        Ok(())
    }

    /// How many cotangents one call of [`Linearized::grams`] takes; of more, pairs of blocks are given to it.
    fn most_cotangents(&self) -> usize {
        usize::MAX
    }
}

/// A network linearised at a batch.
pub trait Linearized: fmt::Debug {
    /// The logits `[n, K]`.
    ///
    /// # Errors
    /// What the backend fails to do: a device computes while its results are not asked for, and this asks.
    fn logits(&self) -> Result<TensorData>;

    /// The pullback: cotangents `[V, n, K]` of the logits (any V) to cotangents `[V, n, ...sample]` of the input.
    ///
    /// The same bits whether cotangents come alone or stacked: they run in blocks of fixed size.
    ///
    /// # Errors
    /// [`Error::Shape`] for cotangents of another shape, and what the backend fails to do.
    fn pullback(&self, cotangents: TensorData) -> Result<TensorData>;

    /// Both together; an executor on another device waits for it once.
    ///
    /// # Errors
    /// As [`Linearized::pullback`].
    fn logits_and_pullback(&self, cotangents: TensorData) -> Result<(TensorData, TensorData)> {
        let pulled = self.pullback(cotangents)?;
        Ok((self.logits()?, pulled))
    }

    /// The Gram matrices of the gradients that cotangents `[V, n, K]` of the logits give, V being at most
    /// [`Executor::most_cotangents`], in some of the perturbed tensors, by their places in [`Graph::parameters`](crate::Graph::parameters),
    /// ascending, and in the input where that is perturbed: one reverse pass, in which no gradient of a whole network is ever held.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for tensors that are not perturbed, or an executor that has none of this; as [`Linearized::pullback`].
    fn grams(&self, _cotangents: TensorData, _tensors: &[usize]) -> Result<Grams> {
        Err(Error::InvalidArgument("this executor computes no Gram matrices of parameters".into()))
    }
}
