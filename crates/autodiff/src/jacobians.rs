//! Input Jacobians at each sample of a call.

use std::fmt;

use burn::tensor::{DType, TensorData};

use crate::batches::{CheckedSamples, Queue, unreadable};
use crate::combinations::{Chooser, Combinations};
use crate::error::{Error, Result};
use crate::program::Program;

impl Program {
    /// Logits and input Jacobians at `samples` `[N, ...sample]`: an iterator over the samples in
    /// their order.
    ///
    /// # Errors
    /// Before anything runs: [`Error::Shape`] when the samples do not have the shape for which
    /// the graph was captured, [`Error::InvalidArgument`] when they are not floats,
    /// [`Error::NonFinite`] with the index of a sample that holds NaN or infinity. An item is an
    /// error when the run of its batch fails.
    pub fn jacobians(&self, samples: TensorData) -> Result<Jacobians<'_>> {
        let (samples, consumer) = (CheckedSamples::new(self, samples)?, Consumer(Box::new(Ok)));
        Ok(Jacobians { samples, queue: Queue::default(), choice: None, consumer })
    }
}

/// A network's linearisation at one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Jacobian {
    /// The sample's index in the call.
    pub sample: usize,
    /// The logits, K of them.
    pub logits: Vec<f64>,
    /// The rows d(z_k - z_K) / dx for k = 1 .. K-1, row-major `[K-1, p]`, in the precision of the
    /// run; where [`Jacobians::combining`] asks for other combinations of the logits, their
    /// gradients.
    pub rows: Rows,
}

/// Elements in the precision in which they were computed.
#[derive(Debug, Clone, PartialEq)]
pub enum Rows {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// The iterator of [`Program::jacobians`], or of the results of [`Jacobians::each`].
#[derive(Debug)]
pub struct Jacobians<'a, R = Jacobian, E = Error> {
    samples: CheckedSamples<'a>,
    queue: Queue<R, E>,
    choice: Option<Chooser<'a>>,
    consumer: Consumer<'a, R, E>,
}

/// The function to which each Jacobian is handed.
struct Consumer<'a, R, E>(Box<dyn Fn(Jacobian) -> Result<R, E> + Send + Sync + 'a>);

impl<R, E> fmt::Debug for Consumer<'_, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consumer")
    }
}

impl<'a> Jacobians<'a> {
    /// Gives the rows for other combinations of the logits than their differences: `choose` names
    /// them for each sample, from its index in the call and its logits. Where K - 1 cotangents fill
    /// their passes evenly, one more costs another pass.
    #[must_use]
    pub fn combining(self, choose: impl Fn(usize, &[f64]) -> Combinations + Send + Sync + 'a) -> Self {
        Self { choice: Some(Chooser::new(choose)), ..self }
    }

    /// Gives the results of `work` on each Jacobian. It runs on the thread that computed the
    /// Jacobian, so on all threads.
    #[must_use]
    pub fn each<R, E>(
        self,
        work: impl Fn(Jacobian) -> Result<R, E> + Send + Sync + 'a,
    ) -> Jacobians<'a, R, E> {
        let Self { samples, choice, .. } = self;
        Jacobians { samples, queue: Queue::default(), choice, consumer: Consumer(Box::new(work)) }
    }

    /// Logits `[n, K]`, rows `[V, n, p]` and the combinations asked for at each sample, for the
    /// batch that starts with sample `first`. The values that the forward pass keeps are freed on
    /// return, before rows are copied.
    fn pulled(
        samples: &CheckedSamples<'_>,
        choice: Option<&Chooser<'_>>,
        first: usize,
    ) -> Result<(Vec<f64>, TensorData, Vec<Combinations>)> {
        let program = samples.program;
        let (batch, classes) = (samples.size(first), program.plan().graph().classes());
        let linearized = program.executor().linearize(samples.batch(first)?)?;
        let Some(choice) = choice else {
            let each = vec![Combinations::Differences; batch];
            let cotangents = Combinations::cotangents(&each, classes)?;
            let (logits, rows) = linearized.logits_and_pullback(cotangents)?;
            return Ok((logits.iter().collect(), rows, each));
        };
        let logits: Vec<f64> = linearized.logits()?.iter().collect();
        let each = samples.chosen(choice, first, &logits);
        let rows = linearized.pullback(Combinations::cotangents(&each, classes)?)?;
        Ok((logits, rows, each))
    }

    /// The Jacobians of the batch that starts with sample `first`, without its padding.
    fn run(
        samples: &CheckedSamples<'_>,
        choice: Option<&Chooser<'_>>,
        first: usize,
    ) -> Result<Vec<Jacobian>> {
        let (batch, classes) = (samples.size(first), samples.program.plan().graph().classes());
        let (logits, rows, each) = Self::pulled(samples, choice, first)?;
        let one = |position: usize| {
            let own = each[position].count(classes)?;
            let gathered = [own, batch, position];
            let rows = match rows.dtype() {
                DType::F64 => {
                    Rows::F64(gather(rows.as_slice().map_err(unreadable)?, rows.shape()[0], gathered))
                }
                _ => Rows::F32(gather(rows.as_slice().map_err(unreadable)?, rows.shape()[0], gathered)),
            };
            let logits = logits[position * classes..(position + 1) * classes].to_vec();
            Ok(Jacobian { sample: first + position, logits, rows })
        };
        (0..batch.min(samples.count - first)).map(one).collect()
    }
}

impl<R: Send, E: From<Error> + Send> Iterator for Jacobians<'_, R, E> {
    type Item = Result<R, E>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { samples, queue, choice, consumer } = self;
        queue.next(samples, |first| {
            Jacobians::run(samples, choice.as_ref(), first)?.into_iter().map(&consumer.0).collect()
        })
    }
}

/// The first `own` rows of the sample at `position`, out of `[V, n, p]`.
fn gather<T: Copy>(values: &[T], cotangents: usize, [own, batch, position]: [usize; 3]) -> Vec<T> {
    let size = values.len() / (cotangents * batch);
    (0..own).flat_map(|v| &values[(v * batch + position) * size..][..size]).copied().collect()
}
