//! Gram matrices of the parameters' gradients at each sample of a call.

use std::sync::Arc;

use burn::tensor::{Device, TensorData};

use crate::batches::{CheckedSamples, Queue};
use crate::burn_executor::BurnExecutor;
use crate::check;
use crate::combinations::{Chooser, Combinations};
use crate::error::{Error, Result};
use crate::executor::Linearized;
use crate::parameters::{Grams, LeafId, Leaves};
use crate::plan::Plan;
use crate::program::Program;

/// The first-order effect of the perturbed parameters on the logits of one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleGrams {
    /// The sample's index in the call.
    pub sample: usize,
    /// The logits, K of them.
    pub logits: Vec<f64>,
    /// For each tensor of [`Leaves::indices`], the inner products of the gradients of z_k - z_K for
    /// k = 1 .. K-1, row-major `[K-1, K-1]`; where [`ParameterGrams::combining`] asks for other
    /// combinations of the logits, those of these combinations. Empty for a tensor that
    /// [`ParameterGrams::in_turn`] has found unnecessary.
    pub tensors: Vec<Vec<f64>>,
    /// The inner products `[K-1, K-1]` of the input's gradients, where the input is perturbed.
    pub input: Option<Vec<f64>>,
}

/// The iterator of [`Program::grams`].
#[derive(Debug)]
pub struct ParameterGrams<'a> {
    samples: CheckedSamples<'a>,
    queue: Queue<SampleGrams>,
    asked: GramRequest<'a>,
}

/// Which matrices are asked for: for which combinations of the logits, and of which tensors.
#[derive(Debug, Default)]
struct GramRequest<'a> {
    choice: Option<Chooser<'a>>,
    turns: Option<TwoStages<'a>>,
}

/// Which of the perturbed tensors come first, and what chooses among the others.
struct TwoStages<'a> {
    first: Vec<bool>,
    then: Box<Then<'a>>,
}

/// Chooses the tensors that are needed, from the matrices of the first ones: one flag per perturbed
/// tensor.
type Then<'a> = dyn Fn(&SampleGrams) -> Vec<bool> + Send + Sync + 'a;

impl std::fmt::Debug for TwoStages<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TwoStages").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Program {
    /// Logits, and Gram matrices of the perturbed parameters, at `samples` `[N, ...sample]`: an
    /// iterator over the samples in their order.
    ///
    /// # Errors
    /// As [`Program::jacobians`]; [`Error::InvalidArgument`] for a program that perturbs no
    /// parameters.
    pub fn grams(&self, samples: TensorData) -> Result<ParameterGrams<'_>> {
        if self.plan().leaves().indices().is_empty() {
            let message = "this program perturbs no parameters, so there are no Gram matrices of them";
            return Err(Error::InvalidArgument(message.into()));
        }
        Ok(ParameterGrams {
            samples: CheckedSamples::new(self, samples)?,
            queue: Queue::default(),
            asked: GramRequest::default(),
        })
    }
}

impl<'a> ParameterGrams<'a> {
    /// Gives the matrices for other combinations of the logits than their differences, as
    /// [`Jacobians::combining`](crate::Jacobians::combining) does for rows.
    #[must_use]
    pub fn combining(self, choose: impl Fn(usize, &[f64]) -> Combinations + Send + Sync + 'a) -> Self {
        Self { asked: GramRequest { choice: Some(Chooser::new(choose)), ..self.asked }, ..self }
    }

    /// Computes the matrices of the `first` tensors, and in a second reverse pass those that `then`
    /// asks for at a sample. This pays where the matrices of a few small tensors may suffice. Both
    /// name tensors by one flag per perturbed tensor.
    #[must_use]
    pub fn in_turn(
        self,
        first: Vec<bool>,
        then: impl Fn(&SampleGrams) -> Vec<bool> + Send + Sync + 'a,
    ) -> Self {
        let turns = Some(TwoStages { first, then: Box::new(then) });
        Self { asked: GramRequest { turns, ..self.asked }, ..self }
    }

    /// Runs one batch.
    fn run(samples: &CheckedSamples<'_>, asked: &GramRequest<'_>, first: usize) -> Result<Vec<SampleGrams>> {
        let (program, batch) = (samples.program, samples.size(first));
        let linearized = program.executor().linearize(samples.batch(first)?)?;
        let logits: Vec<f64> = linearized.logits()?.iter().collect();
        let graph = program.plan().graph();
        let mut found: Vec<SampleGrams> = (first..samples.count)
            .zip(logits.chunks_exact(graph.classes()))
            .map(|(sample, logits)| SampleGrams::new(sample, logits, program.plan().leaves()))
            .collect();
        // Each sample may need other combinations of the logits, and another number of them: the
        // batch takes as many cotangents as the sample with most, and each sample keeps its own.
        let each = match &asked.choice {
            Some(choice) => samples.chosen(choice, first, &logits),
            None => vec![Combinations::Differences; batch],
        };
        let counts: Vec<usize> = each.iter().map(|of| of.count(graph.classes())).collect::<Result<_>>()?;
        let most = program.executor().most_cotangents();
        // One reverse pass for the wanted tensors.
        let compute = |found: &mut [SampleGrams], wanted: &[bool]| {
            let leaves = program.plan().leaves().indices().iter().zip(wanted);
            let tensors: Vec<usize> =
                leaves.filter(|(_, wanted)| **wanted).map(|(&tensor, _)| tensor).collect();
            let cotangents = Combinations::cotangents(&each, graph.classes())?;
            let grams = tiled(linearized.as_ref(), cotangents, &tensors, most)?;
            let each = found.iter_mut().zip(&counts).enumerate();
            each.for_each(|(at, (found, &own))| found.take(&grams, [at, own], wanted));
            Ok(())
        };
        let Some(TwoStages { first, then }) = &asked.turns else {
            let all = vec![true; program.plan().leaves().indices().len()];
            compute(&mut found, &all)?;
            return Ok(found);
        };
        // Two stages. A reverse pass is one of the whole batch, so the second computes what any of
        // its samples needs, and no matrix that the first has given.
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
    /// A sample's results without matrices.
    fn new(sample: usize, logits: &[f64], leaves: &Leaves) -> Self {
        let tensors = vec![Vec::new(); leaves.indices().len()];
        Self { sample, logits: logits.to_vec(), tensors, input: None }
    }

    /// Takes the matrices of the sample at `position` of the batch, for its first `own` cotangents.
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

/// Gram matrices of any number of cotangents `[V, n, K]`. Where there are more than `most`, they
/// are cut into blocks, and the matrices of all pairs of blocks are put together.
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
    // Two blocks are as many cotangents as one call takes. The calls for all pairs give the inner
    // products of each two cotangents; those within a block come with each of its pairs.
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
            grams.get_or_insert_with(|| pair.wider(count)).insert(&pair, &both);
        }
    }
    grams.ok_or_else(|| Error::InvalidArgument("this executor takes no pair of cotangents".into()))
}

impl Grams {
    /// Matrices of zeros for as many tensors and samples, and more cotangents.
    fn wider(&self, cotangents: usize) -> Self {
        let size = |of: &[f64]| of.len() / self.cotangents.pow(2) * cotangents.pow(2);
        let tensors = vec![0.0; size(&self.tensors)];
        let input = self.input.as_ref().map(|input| vec![0.0; size(input)]);
        Self { samples: self.samples, cotangents, tensors, input }
    }

    /// Writes the inner products of the cotangents with these indices.
    fn insert(&mut self, part: &Self, cotangents: &[usize]) {
        let (wide, narrow) = (self.cotangents, part.cotangents);
        let into = |target: &mut [f64], source: &[f64]| {
            let matrices = source.chunks_exact(narrow * narrow).zip(target.chunks_exact_mut(wide * wide));
            for (source, target) in matrices {
                for (at, value) in source.iter().enumerate() {
                    // Row and column of the part, by the cotangents that they stand for.
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

/// The gradients `J_t^T c` of c . z at one sample `[1, ...sample]` in some trainable tensors, given
/// by their indices in [`Graph::parameters`](crate::Graph::parameters). Each has the shape that
/// Burn has for the tensor, in the plan's precision. It takes one reverse pass on `device`, and is
/// the only computation of this crate whose result is as large as the network.
///
/// # Errors
/// [`Error::Shape`] for another shape of sample or cotangent `[K]`; as [`Plan::new`] and
/// [`Program::new`].
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
    let tensors: Vec<LeafId> = tensors.iter().copied().map(LeafId::new).collect();
    BurnExecutor::new(Arc::new(plan), device)?.gradients(sample, cotangent, &tensors)
}
