//! Gram matrices of the parameters' gradients at each sample of a call.

use burn::tensor::TensorData;

use crate::batches::{Queue, Samples};
use crate::error::{Error, Result};
use crate::executor::Linearized;
use crate::parameters::Grams;
use crate::program::{Program, Whole};

/// What perturbed parameters do to the logits of one sample, in the first order.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleGrams {
    /// Which sample of the call.
    pub sample: usize,
    /// The logits, K of them.
    pub logits: Vec<f64>,
    /// For each tensor of [`Leaves::places`](crate::Leaves::places) the inner products of the gradients of z_k - z_K, k = 1 .. K-1, row-major
    /// `[K-1, K-1]`; where [`ParameterGrams::whole_where`] asks for them, those of the z_k, `[K, K]`.
    pub tensors: Vec<Vec<f64>>,
    /// The same of the input, where that is perturbed.
    pub input: Option<Vec<f64>>,
}

/// The iterator of [`Program::grams`].
#[derive(Debug)]
pub struct ParameterGrams<'a> {
    samples: Samples<'a>,
    queue: Queue<SampleGrams>,
    whole: Option<Whole<'a>>,
}

impl Program {
    /// Logits and Gram matrices of the perturbed parameters at `samples` `[N, ...sample]`, one sample after the other, in their order.
    ///
    /// # Errors
    /// As [`Program::jacobians`]; [`Error::InvalidArgument`] for a program that perturbs no parameters.
    pub fn grams(&self, samples: TensorData) -> Result<ParameterGrams<'_>> {
        if self.plan().leaves().places().is_empty() {
            let message = "this program perturbs no parameters: there are no Gram matrices of them";
            return Err(Error::InvalidArgument(message.into()));
        }
        Ok(ParameterGrams { samples: Samples::new(self, samples)?, queue: Queue::default(), whole: None })
    }
}

impl<'a> ParameterGrams<'a> {
    /// Gives the K x K matrices of the logits instead of those of their differences where `wanted` says so of a sample's place in the call
    /// and its logits, and to all samples that run together with one: as [`Jacobians::whole_where`](crate::Jacobians::whole_where).
    #[must_use]
    pub fn whole_where(self, wanted: impl Fn(usize, &[f64]) -> bool + Send + Sync + 'a) -> Self {
        Self { whole: Some(Whole::new(wanted)), ..self }
    }

    /// Runs one batch.
    fn run(samples: &Samples<'_>, whole: Option<&Whole<'_>>, first: usize) -> Result<Vec<SampleGrams>> {
        let (program, batch) = (samples.program, samples.size(first));
        let linearized = program.executor().linearize(samples.batch(first)?)?;
        let logits: Vec<f64> = linearized.logits()?.iter().collect();
        let classes = program.plan().graph().classes();
        let each = || logits.chunks_exact(classes).take(samples.count - first);
        let wanted = whole.is_some_and(|whole| (first..).zip(each()).any(|(at, z)| whole.wants(at, z)));
        let cotangents = if wanted { program.units(batch) } else { program.differences(batch) };
        let grams = tiled(linearized.as_ref(), cotangents, program.executor().most_cotangents())?;
        let one = |(position, logits): (usize, &[f64])| SampleGrams {
            sample: first + position,
            logits: logits.to_vec(),
            tensors: program
                .plan()
                .leaves()
                .places()
                .iter()
                .enumerate()
                .map(|(place, _)| grams.tensor(place, position).to_vec())
                .collect(),
            input: grams.of_input(position).map(<[f64]>::to_vec),
        };
        Ok(each().enumerate().map(one).collect())
    }
}

impl Iterator for ParameterGrams<'_> {
    type Item = Result<SampleGrams>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { samples, queue, whole } = self;
        queue.next(samples, |first| Self::run(samples, whole.as_ref(), first))
    }
}

/// Gram matrices of any number of cotangents `[V, n, K]`: of pairs of blocks where they are more than `most`.
fn tiled(linearized: &dyn Linearized, cotangents: TensorData, most: usize) -> Result<Grams> {
    let count = cotangents.shape()[0];
    if count <= most {
        return linearized.grams(cotangents);
    }
    let (block, shape) = ((most / 2).max(1), cotangents.shape().to_vec());
    let all: Vec<f32> = cotangents.iter().collect();
    let row = all.len() / count;
    let blocks: Vec<Vec<usize>> =
        (0..count).step_by(block).map(|start| (start..count.min(start + block)).collect()).collect();
    let mut grams: Option<Grams> = None;
    for (at, a) in blocks.iter().enumerate() {
        for b in &blocks[at + 1..] {
            let both: Vec<usize> = a.iter().chain(b).copied().collect();
            let values: Vec<f32> = both.iter().flat_map(|&v| &all[v * row..(v + 1) * row]).copied().collect();
            let pair = TensorData::new(values, vec![both.len(), shape[1], shape[2]]);
            let pair = linearized.grams(pair)?;
            grams.get_or_insert_with(|| pair.wider(count)).place(&pair, &both);
        }
    }
    grams.ok_or_else(|| Error::InvalidArgument("this executor takes no pair of cotangents".into()))
}

impl Grams {
    /// Zeros of as many tensors and samples, of more cotangents.
    fn wider(&self, cotangents: usize) -> Self {
        let size = |of: &[f64]| of.len() / self.cotangents.pow(2) * cotangents.pow(2);
        let tensors = vec![0.0; size(&self.tensors)];
        let input = self.input.as_ref().map(|input| vec![0.0; size(input)]);
        Self { samples: self.samples, cotangents, tensors, input }
    }

    /// Writes the inner products of some cotangents.
    fn place(&mut self, part: &Self, cotangents: &[usize]) {
        let (wide, narrow) = (self.cotangents, part.cotangents);
        let into = |target: &mut [f64], source: &[f64]| {
            let matrices = source.chunks_exact(narrow * narrow).zip(target.chunks_exact_mut(wide * wide));
            for (source, target) in matrices {
                for (at, value) in source.iter().enumerate() {
                    target[cotangents[at / narrow] * wide + cotangents[at % narrow]] = *value;
                }
            }
        };
        into(&mut self.tensors, &part.tensors);
        if let (Some(target), Some(source)) = (&mut self.input, &part.input) {
            into(target, source);
        }
    }
}
