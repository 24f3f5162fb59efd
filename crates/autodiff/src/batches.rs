//! Samples given to an executor batch by batch, and results given back in the order of the samples.

use std::collections::VecDeque;

use burn::tensor::TensorData;
use rayon::prelude::*;

use crate::check;
use crate::combinations::{Chooser, Combinations};
use crate::error::{Error, Result};
use crate::ops::with_leading;
use crate::program::Program;

/// The samples of one call, after their checks.
#[derive(Debug)]
pub(crate) struct CheckedSamples<'a> {
    pub(crate) program: &'a Program,
    data: TensorData,
    pub(crate) count: usize,
}

impl<'a> CheckedSamples<'a> {
    /// Checks that samples `[N, ...sample]` are finite floats of the program's shape, and converts
    /// them to its type.
    pub(crate) fn new(program: &'a Program, samples: TensorData) -> Result<Self> {
        let plan = program.plan();
        let count = check::first_axis(&samples);
        check::shape("samples", samples.shape(), &with_leading(count, &plan.graph().sample_shape()))?;
        let data = check::as_float(samples, plan.precision().dtype())?;
        if count > 0 {
            check::finite_samples("the input", &data)?;
        }
        Ok(Self { program, data, count })
    }

    /// The size of the batch that starts with sample `first`, padding included.
    pub(crate) fn size(&self, first: usize) -> usize {
        let batch = self.program.plan().batch();
        if self.program.schedule.padded { batch } else { batch.min(self.count - first) }
    }

    /// The batch that starts with sample `first`, padded with copies of that sample.
    pub(crate) fn batch(&self, first: usize) -> Result<TensorData> {
        let (batch, shape) = (self.size(first), self.data.shape());
        // Samples are copied as bytes, whatever their float type.
        let size = self.data.num_elements() / self.count * self.program.plan().precision().bytes();
        let bytes = self.data.as_bytes();
        let sample = |index: usize| {
            let index = if index < self.count { index } else { first };
            &bytes[index * size..(index + 1) * size]
        };
        let joined: Vec<u8> =
            (first..first + batch).flat_map(|index| sample(index).iter().copied()).collect();
        TensorData::try_from_bytes_vec(joined, with_leading(batch, &shape[1..]), self.data.dtype())
            .map_err(unreadable)
    }

    /// The combinations asked for at each sample of the batch that starts with `first`, from their
    /// logits; padding repeats those of the first sample.
    pub(crate) fn chosen(&self, choice: &Chooser<'_>, first: usize, logits: &[f64]) -> Vec<Combinations> {
        let each = logits.chunks_exact(self.program.plan().graph().classes());
        let real = each.zip(first..self.count).map(|(logits, sample)| choice.at(sample, logits));
        let mut all: Vec<Combinations> = real.collect();
        all.resize(self.size(first), all.first().cloned().unwrap_or_default());
        all
    }

    /// The results of all samples; `run` gives those of the batch that starts with a given sample.
    pub(crate) fn all<T: Send>(&self, run: impl Fn(usize) -> Result<Vec<T>> + Sync) -> Result<Vec<T>> {
        let mut queue = Queue::default();
        std::iter::from_fn(|| queue.next(self, &run)).collect()
    }
}

/// The next sample of a call, and the results that were computed but not given out yet.
#[derive(Debug)]
pub(crate) struct Queue<T, E = Error> {
    next: usize,
    ready: VecDeque<Result<T, E>>,
}

impl<T, E> Default for Queue<T, E> {
    fn default() -> Self {
        Self { next: 0, ready: VecDeque::new() }
    }
}

impl<T: Send, E: Send> Queue<T, E> {
    /// The next result, if there is one; `run` gives those of the batch that starts with a given
    /// sample.
    pub(crate) fn next(
        &mut self,
        samples: &CheckedSamples<'_>,
        run: impl Fn(usize) -> Result<Vec<T>, E> + Sync,
    ) -> Option<Result<T, E>> {
        if self.ready.is_empty() && self.next < samples.count {
            self.advance(samples, run);
        }
        self.ready.pop_front()
    }

    /// Runs the next batch, or the next ones side by side: the same batches in the same order, so
    /// with the same bits.
    fn advance(&mut self, samples: &CheckedSamples<'_>, run: impl Fn(usize) -> Result<Vec<T>, E> + Sync) {
        let (batch, lanes) = (samples.program.plan().batch(), samples.program.lanes());
        let firsts: Vec<_> = (self.next..samples.count).step_by(batch).take(lanes).collect();
        let results: Vec<_> = match firsts.as_slice() {
            [only] => vec![run(*only)],
            several => several.par_iter().map(|&first| run(first)).collect(),
        };
        self.next = samples.count.min(self.next + firsts.len() * batch);
        for result in results {
            match result {
                Ok(results) => self.ready.extend(results.into_iter().map(Ok)),
                // The first failure is the last result.
                Err(error) => {
                    self.ready.push_back(Err(error));
                    self.next = samples.count;
                    return;
                }
            }
        }
    }
}

/// The error for host data that does not have the expected type or size.
pub(crate) fn unreadable(error: burn::tensor::DataError) -> Error {
    Error::Device(format!("{error:?}"))
}
