//! Gram matrices of the parameters' gradients at each sample of a call.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};

use crate::batches::{Queue, Samples};
use crate::burn_executor::BurnExecutor;
use crate::check;
use crate::combinations::{Choice, Combinations};
use crate::error::{Error, Result};
use crate::executor::Linearized;
use crate::parameters::{Grams, Leaves};
use crate::plan::Plan;
use crate::program::Program;

/// What perturbed parameters do to the logits of one sample, in the first order.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleGrams {
    /// Which sample of the call.
    pub sample: usize,
    /// The logits, K of them.
    pub logits: Vec<f64>,
    /// For each tensor of [`Leaves::places`](crate::Leaves::places) the inner products of the gradients of z_k - z_K, k = 1 .. K-1, row-major
    /// `[K-1, K-1]`; where [`ParameterGrams::combining`] asks for other combinations of the logits, of these. Empty for a tensor that
    /// [`ParameterGrams::in_turn`] has found dispensable.
    pub tensors: Vec<Vec<f64>>,
    /// The same of the input, where that is perturbed.
    pub input: Option<Vec<f64>>,
}

/// The iterator of [`Program::grams`].
#[derive(Debug)]
pub struct ParameterGrams<'a> {
    samples: Samples<'a>,
    queue: Queue<SampleGrams>,
    asked: Asked<'a>,
}

/// What is asked for.
#[derive(Debug, Default)]
struct Asked<'a> {
    choice: Option<Choice<'a>>,
    turns: Option<Turns<'a>>,
}

/// Which tensors come first, by their places among the perturbed ones, and which then.
struct Turns<'a> {
    first: Vec<bool>,
    then: Box<Then<'a>>,
}

/// Which of the other tensors are needed, from what the first ones tell.
type Then<'a> = dyn Fn(&SampleGrams) -> Vec<bool> + Send + Sync + 'a;

impl std::fmt::Debug for Turns<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turns").field("first", &self.first).finish_non_exhaustive()
    }
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
        Ok(ParameterGrams {
            samples: Samples::new(self, samples)?,
            queue: Queue::default(),
            asked: Asked::default(),
        })
    }
}

impl<'a> ParameterGrams<'a> {
    /// Gives the matrices of other combinations of the logits than their differences: as
    /// [`Jacobians::combining`](crate::Jacobians::combining).
    #[must_use]
    pub fn combining(self, choose: impl Fn(usize, &[f64]) -> Combinations + Send + Sync + 'a) -> Self {
        Self { asked: Asked { choice: Some(Choice::new(choose)), ..self.asked }, ..self }
    }

    /// Computes the matrices of some tensors first, and in a second reverse pass those that `then` says of a sample, both by their places
    /// among the perturbed ones: where what is cheap may tell all.
    #[must_use]
    pub fn in_turn(
        self,
        first: Vec<bool>,
        then: impl Fn(&SampleGrams) -> Vec<bool> + Send + Sync + 'a,
    ) -> Self {
        let turns = Some(Turns { first, then: Box::new(then) });
        Self { asked: Asked { turns, ..self.asked }, ..self }
    }

    /// Runs one batch.
    fn run(samples: &Samples<'_>, asked: &Asked<'_>, first: usize) -> Result<Vec<SampleGrams>> {
        let (program, batch) = (samples.program, samples.size(first));
        let linearized = program.executor().linearize(samples.batch(first)?)?;
        let logits: Vec<f64> = linearized.logits()?.iter().collect();
        let graph = program.plan().graph();
        let mut found: Vec<SampleGrams> = (first..samples.count)
            .zip(logits.chunks_exact(graph.classes()))
            .map(|(sample, logits)| SampleGrams::new(sample, logits, program.plan().leaves()))
            .collect();
        let each = match &asked.choice {
            Some(choice) => samples.chosen(choice, first, &logits),
            None => vec![Combinations::Differences; batch],
        };
        let counts: Vec<usize> = each.iter().map(|of| of.count(graph.classes())).collect::<Result<_>>()?;
        let most = program.executor().most_cotangents();
        let compute = |found: &mut [SampleGrams], wanted: &[bool]| {
            let leaves = program.plan().leaves().places().iter().zip(wanted);
            let tensors: Vec<usize> =
                leaves.filter(|(_, wanted)| **wanted).map(|(&tensor, _)| tensor).collect();
            let cotangents = Combinations::cotangents(&each, graph.classes())?;
            let grams = tiled(linearized.as_ref(), cotangents, &tensors, most)?;
            let each = found.iter_mut().zip(&counts).enumerate();
            each.for_each(|(at, (found, &own))| found.take(&grams, [at, own], wanted));
            Ok(())
        };
        let Some(Turns { first, then }) = &asked.turns else {
            let all = vec![true; program.plan().leaves().places().len()];
            compute(&mut found, &all)?;
            return Ok(found);
        };
        compute(&mut found, first)?;
        let missing = |of: &SampleGrams, then: &[bool], at: usize| then[at] && of.tensors[at].is_empty();
        let needed = found.iter().fold(vec![false; first.len()], |needed, of| {
            let then = then(of);
            (0..needed.len()).map(|at| needed[at] || missing(of, &then, at)).collect()
        });
        if needed.contains(&true) {
            compute(&mut found, &needed)?;
        }
        Ok(found)
    }
}

impl SampleGrams {
    /// No matrices yet.
    fn new(sample: usize, logits: &[f64], leaves: &Leaves) -> Self {
        let tensors = vec![Vec::new(); leaves.places().len()];
        Self { sample, logits: logits.to_vec(), tensors, input: None }
    }

    /// Those at one place of the batch, of its first `own` cotangents.
    fn take(&mut self, grams: &Grams, [position, own]: [usize; 2], wanted: &[bool]) {
        let leading = |matrix: &[f64]| {
            matrix.chunks_exact(grams.cotangents).take(own).flat_map(|row| &row[..own]).copied().collect()
        };
        let tensors = self.tensors.iter_mut().zip(wanted).filter(|(_, wanted)| **wanted);
        for (at, (tensor, _)) in tensors.enumerate() {
            *tensor = leading(grams.tensor(at, position));
        }
        self.input = grams.of_input(position).map(leading);
    }
}

impl Iterator for ParameterGrams<'_> {
    type Item = Result<SampleGrams>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { samples, queue, asked } = self;
        queue.next(samples, |first| Self::run(samples, asked, first))
    }
}

/// Gram matrices of any number of cotangents `[V, n, K]`: of pairs of blocks where they are more than `most`.
fn tiled(
    linearized: &dyn Linearized,
    cotangents: TensorData,
    tensors: &[usize],
    most: usize,
) -> Result<Grams> {
    let count = cotangents.shape()[0];
    if count <= most {
        return linearized.grams(cotangents, tensors);
    }
    let (block, shape) = ((most / 2).max(1), cotangents.shape().to_vec());
    let all: Vec<f64> = cotangents.iter().collect();
    let row = all.len() / count;
    let blocks: Vec<Vec<usize>> =
        (0..count).step_by(block).map(|start| (start..count.min(start + block)).collect()).collect();
    let mut grams: Option<Grams> = None;
    for (at, a) in blocks.iter().enumerate() {
        for b in &blocks[at + 1..] {
            let both: Vec<usize> = a.iter().chain(b).copied().collect();
            let values: Vec<f64> = both.iter().flat_map(|&v| &all[v * row..(v + 1) * row]).copied().collect();
            let pair = TensorData::new(values, vec![both.len(), shape[1], shape[2]]);
            let pair = linearized.grams(pair, tensors)?;
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

/// The gradients `J_t^T c` of c . z at one sample `[1, ...sample]` in some trainable tensors, by their places in
/// [`Graph::parameters`](crate::Graph::parameters): of each its elements as Burn has them, in the plan's precision. One reverse pass on `device`; the one
/// computation here whose size is that of the network.
///
/// # Errors
/// [`Error::Shape`] for another shape of sample or cotangent `[K]`; as [`Plan::new`] and [`Program::new`].
pub fn gradients(
    plan: &Plan,
    tensors: &[usize],
    device: &Device,
    sample: TensorData,
    cotangent: &[f64],
) -> Result<Vec<TensorData>> {
    let leaves = Leaves::tensors(tensors.iter().copied());
    let plan = Plan::of_gradients(Arc::clone(&plan.graph), leaves, plan.precision())?;
    let sample = check::as_float(sample, plan.precision().dtype())?;
    check::finite_samples("the input", &sample)?;
    let cotangent = TensorData::new(cotangent.to_vec(), [1, 1, cotangent.len()]);
    BurnExecutor::new(Arc::new(plan), device)?.gradients(sample, cotangent, tensors)
}
