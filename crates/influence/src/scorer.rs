//! The builder and what it builds: a model captured, checked and loaded once, scored on many batches.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{
    Check, Combinations, GPU_BATCH, Graph, Jacobian, Jacobians, Memory, Options, Plan, Precision, Program,
    Rows,
};
use influence_cpu::Engine;
use influence_manifold::{Filter, Objective as SampleObjective, Tail, Tangent};

use crate::error::{Error, Result};
use crate::objective::{Objective, Resolved};
use crate::parameters::{ParameterLinearizations, cheap, needed, square_norms};
use crate::perturbation::{Block, Blocks, Budget, Perturbation, refused};
use crate::score::Score;
use crate::scores::{Scores, Source};
use crate::tail::{Classes, sample_of};

/// Settings of a [`Scorer`], each with a default.
#[derive(Debug, Clone, Default)]
pub struct ScorerBuilder {
    perturbation: Perturbation,
    filter: Filter,
    budget: Budget,
    precision: Option<Precision>,
    tail: Option<f64>,
    batch: Option<usize>,
    memory: Option<Memory>,
    device: Option<Device>,
    engine: Option<Engine>,
    check: Check,
}

impl ScorerBuilder {
    /// What is perturbed (default: the input).
    #[must_use]
    pub fn perturbation(mut self, perturbation: Perturbation) -> Self {
        self.perturbation = perturbation;
        self
    }

    /// What counts of the spectrum (default: [`Filter::Exact`] with the tolerance of the precision).
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// What a perturbation's size is measured in, for [`Filter::Tikhonov`] of parameters (default: its Euclidean length).
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Merges the classes that together carry at most `epsilon` of a sample's probability into one (default: off): for networks of
    /// hundreds of classes, whose K - 1 reverse passes become as many as classes are kept. A value is then an upper bound of the
    /// influence over all classes and never above [`Score::bound`]; [`Score::tail`] has a lower one beside it. The class of the
    /// objective, the predicted class and its runner-up are always kept. For -log P of a class and margins, by the exact filter or
    /// Tikhonov's.
    #[must_use]
    pub fn tail(mut self, epsilon: impl Into<Option<f64>>) -> Self {
        self.tail = epsilon.into();
        self
    }

    /// The float type of the run (default: f64 for an f64 model, else f32).
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = Some(precision);
        self
    }

    /// How many samples may run together on a GPU (default 32; fewer where the memory asks for it), where results depend on it within
    /// rounding. On a CPU the engine runs a fixed number of its own side by side on all threads, and results do not depend on it: pass
    /// many samples in one call to keep them busy.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = Some(batch);
        self
    }

    /// Which executor runs it (default: our own kernels when the device is a CPU, else Burn's operations on the device).
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Leaves the model unrun when it is compiled, and the engine uncompared with it; the reason stands beside the engine in every report.
    ///
    /// Unless told so, [`compile`](Self::compile) runs the model's own forward function at six made-up samples on its own device, and
    /// refuses an engine whose logits are others.
    #[must_use]
    pub fn unchecked(mut self, reason: impl Into<String>) -> Self {
        self.check = Check::Off(reason.into());
        self
    }

    /// What a run may take, as far as the plan can tell beforehand (default: 2 GiB on a GPU, no limit on a CPU). On a GPU it bounds the
    /// batch, on a CPU how many samples run side by side.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<Option<Memory>>) -> Self {
        self.memory = memory.into();
        self
    }

    /// Where to run (default: the model's own device).
    #[must_use]
    pub fn device(mut self, device: &Device) -> Self {
        self.device = Some(device.clone());
        self
    }

    /// Captures and checks the model and loads it onto the device, ready for samples of shape `sample` (without the batch axis).
    ///
    /// # Errors
    /// [`Error::Model`] with everything that is wrong with the model, or for memory that one sample exceeds; [`Error::Filter`] for a filter's
    /// argument out of range; [`Error::Perturbation`] for groups that the model does not have.
    pub fn compile<M, F, const D: usize>(self, model: &M, forward: F, sample: &[usize]) -> Result<Scorer>
    where
        M: Module,
        F: Fn(&M, Tensor<D>) -> Tensor<2>,
    {
        // Before the model is captured, which takes longer.
        self.checked_filter()?;
        let device = self.device.clone().or_else(|| model.devices().into_iter().next());
        let device = device.ok_or_else(|| nowhere("the model has no tensors, hence no device"))?;
        let graph = match self.check {
            Check::On => Graph::capture(model, forward, sample, &device)?,
            Check::Off(_) => Graph::record(model, forward, sample, &device)?,
        };
        self.device(&device).load(graph)
    }

    /// Checks a graph that is already there (read from a file, or built) and loads it onto the device,
    /// which has to be named.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn load(self, graph: Graph) -> Result<Scorer> {
        let filter = self.checked_filter()?;
        let device = self.device.ok_or_else(|| nowhere("a graph has no device"))?;
        let own = if graph.dtype() == DType::F64 { Precision::F64 } else { Precision::F32 };
        let precision = self.precision.unwrap_or(own);
        let engine = self.engine.unwrap_or_else(|| Engine::of(&device));
        let batch = self.batch.unwrap_or(GPU_BATCH);
        let options = Options { precision, batch, memory: self.memory, check: self.check };
        if self.budget == Budget::Relative && !self.perturbation.has_parameters() {
            return Err(refused(
                "a relative budget is one of parameters: perturb parameters, or leave it out".into(),
            ));
        }
        let Blocks { blocks, leaves } = Blocks::new(&self.perturbation, self.budget, &graph)?;
        let program = engine.load(graph, leaves, &device, &options)?;
        let engine = program.engine().into();
        let Self { perturbation, budget, tail, .. } = self;
        Ok(Scorer { program, device, perturbation, blocks, filter, budget, tail, engine })
    }

    /// The filter, if its arguments are in range, and with a tail one that has bounds there.
    fn checked_filter(&self) -> Result<Filter> {
        if let Some(epsilon) = self.tail {
            Tail::check(epsilon).map_err(Error::Filter)?;
            if matches!(self.filter, Filter::Paper { .. }) {
                return Err(Error::Filter(influence_manifold::Error::TailFilter));
            }
        }
        self.filter.validated().map_err(Error::Filter)
    }
}

/// There is no device to run on.
fn nowhere(why: &str) -> influence_autodiff::Error {
    influence_autodiff::Error::InvalidArgument(format!("{why}: name one"))
}

/// A model ready to be scored on any number of batches.
///
/// ```no_run
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::tensor::{Device, Tensor};
/// # #[derive(Module, Debug)]
/// # struct Net { head: Linear }
/// # impl Net { fn forward(&self, x: Tensor<4>) -> Tensor<2> { self.head.forward(x.flatten(1, 3)) } }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let device = Device::default();
/// # let net = Net { head: LinearConfig::new(784, 10).init(&device) };
/// use influence::{Filter, Objective, Precision, Scorer};
///
/// let scorer = Scorer::builder()
///     .filter(Filter::tikhonov(100.0)?)
///     .precision(Precision::F64)
///     .compile(&net, Net::forward, &[1, 28, 28])?;
/// # let batches: Vec<Tensor<4>> = vec![];
/// for images in batches {
///     let scores = scorer.score(images, &Objective::predicted())?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Scorer {
    program: Program,
    device: Device,
    perturbation: Perturbation,
    blocks: Vec<Block>,
    filter: Filter,
    budget: Budget,
    tail: Option<f64>,
    engine: Arc<str>,
}

impl Scorer {
    /// The defaults, to change and [`compile`](ScorerBuilder::compile).
    #[must_use]
    pub fn builder() -> ScorerBuilder {
        ScorerBuilder::default()
    }

    /// Number of classes K.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.program.plan().graph().classes()
    }

    /// What is perturbed.
    #[must_use]
    pub fn perturbation(&self) -> &Perturbation {
        &self.perturbation
    }

    /// The names of the groups, one score each an image; one without a name where the perturbation is not divided.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.blocks.iter().map(|block| block.name.as_ref())
    }

    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// What counts of the spectrum.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// How much probability the classes carry that are merged into one, if some are.
    #[must_use]
    pub fn tail(&self) -> Option<f64> {
        self.tail
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    pub(crate) fn shared_engine(&self) -> &Arc<str> {
        &self.engine
    }

    /// Whether scores of parameters take the short ways: only the exact measure is asked for, which they do not change.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.filter, Filter::Exact { .. }) && self.perturbation.has_parameters()
    }

    /// Whether a group holds a free bias of the logits that counts.
    pub(crate) fn moves_logits(&self, block: &Block) -> bool {
        if !block.moves() {
            return false;
        }
        let bias = self.plan().graph().output_bias();
        let places = self.plan().leaves().places();
        bias.is_some_and(|bias| block.tensors.iter().any(|&tensor| places[tensor] == bias))
    }

    /// Which engine computes the scores, and where.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// What runs, step by step, as the engine has planned it: for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.program.describe()
    }

    /// The plan of a run by Burn's operations: graph, lifetimes, bytes; printable.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.program.plan()
    }

    /// The engine's program: Jacobians and Gram matrices as they are, before any measure.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Scores `images` `[N, ...sample]`, from any device and of any float type: N times as many as there are [`Scorer::groups`], images in
    /// their order, and for each the groups in theirs.
    ///
    /// # Errors
    /// [`Error::NoSamples`], [`Error::LabelCount`], [`Error::ObjectiveCount`], [`Error::ClassOutOfRange`], [`Error::GradientShape`];
    /// [`Error::Filter`] for a filter that is not defined for the objective; [`Error::Model`] for NaN, infinity or another shape in the
    /// input; [`Error::Measure`] where the measure is not defined.
    pub fn score<const D: usize>(&self, images: Tensor<D>, objective: &Objective) -> Result<Vec<Score>> {
        let data = images.try_to_data().map_err(|error| {
            influence_autodiff::Error::Device(format!(
                "reading the images from their device failed: {error:?}"
            ))
        })?;
        self.scores(data, objective)?.collect()
    }

    /// Scores `images` `[N, ...sample]` that are on the host, one after the other as the iterator is advanced.
    ///
    /// # Errors
    /// As [`Scorer::score`]: what is wrong with the call at once, what goes wrong with a sample when its turn comes.
    pub fn scores(&self, images: TensorData, objective: &Objective) -> Result<Scores<'_>> {
        objective.check_filter(&self.filter)?;
        let samples = images.shape().first().copied().unwrap_or(0);
        let shape = self.program.plan().graph().sample_shape();
        let objectives: Arc<[Resolved]> = objective.resolve(samples, self.classes(), &shape)?.into();
        self.check_tail(&objectives)?;
        let source = if !self.perturbation.has_parameters() {
            let kept = self.tail.is_some().then(|| images.clone());
            let jacobians = self.combined(self.jacobians(images)?, &objectives);
            let objectives = Arc::clone(&objectives);
            Source::Input(jacobians.each(move |jacobian| {
                let sample = jacobian.sample;
                let objective = objectives[sample].at(&jacobian, self.classes())?;
                let at = self.linearization(jacobian, &objective)?;
                let score = at.score_for(&objective, &self.filter)?;
                let Some(images) = &kept else { return Ok(score) };
                Ok(score.at_least(at.at_least(&sample_of(images, sample), &objective, &self.filter)?))
            }))
        } else if objectives.iter().any(|objective| matches!(objective, Resolved::Row(..))) {
            return Err(refused(
                "an objective that is given by its gradient in the input says nothing of parameters: give one of the probabilities or the logits"
                    .into(),
            ));
        } else {
            let short = self.is_short() && !objectives.iter().any(Resolved::may_see_common_shift);
            if short && self.blocks.iter().all(|block| self.moves_logits(block)) {
                Source::Logits(self.logits(images)?.into_iter(), 0)
            } else {
                Source::Parameters(self.parameter_linearizations(images, &objectives, short)?)
            }
        };
        Ok(Scores { scorer: self, source, objectives, ready: VecDeque::new() })
    }

    /// Refuses objectives that a scorer with a tail cannot measure.
    fn check_tail(&self, objectives: &[Resolved]) -> Result<()> {
        let unfit = |of: &&Resolved| match of {
            Resolved::Known(single) => !single.names_its_classes(),
            Resolved::Row(..) => true,
        };
        match objectives.iter().find(unfit) {
            Some(of) if self.tail.is_some() => {
                let objective = of.to_string();
                Err(Error::Filter(influence_manifold::Error::TailObjective { objective }))
            }
            _ => Ok(()),
        }
    }

    /// With the rows that the objectives need, at each sample.
    fn combined<'a>(&'a self, jacobians: Jacobians<'a>, objectives: &Arc<[Resolved]>) -> Jacobians<'a> {
        if !self.combines(objectives) {
            return jacobians;
        }
        let objectives = Arc::clone(objectives);
        jacobians.combining(move |sample, logits| self.combinations(&objectives[sample], logits))
    }

    /// Whether some of the objectives may need other rows than the differences of the logits.
    fn combines(&self, objectives: &[Resolved]) -> bool {
        self.tail.is_some() || objectives.iter().any(Resolved::may_see_common_shift)
    }

    /// The combinations of these logits that a measure of the objective needs.
    fn combinations(&self, objective: &Resolved, logits: &[f64]) -> Combinations {
        match objective {
            of if of.sees_common_shift(logits) => Combinations::Logits,
            Resolved::Known(single) => {
                // Logits that have no probabilities are an error of the measure, which names the sample.
                let classes = Classes::new(logits.to_vec(), single, self.tail);
                classes.map_or(Combinations::Differences, |classes| classes.combinations())
            }
            Resolved::Row(..) => Combinations::Differences,
        }
    }

    /// Linearises the network in its parameters at `images` `[N, ...sample]`, one after the other: for several objectives and filters at
    /// the price of one set of Gram matrices. With a tail, for objectives of classes that carry more: [`Scorer::linearize`].
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Perturbation`] for a scorer that perturbs the input alone; [`Error::Model`] for NaN, infinity or
    /// another shape.
    pub fn linearize_parameters(&self, images: TensorData) -> Result<ParameterLinearizations<'_>> {
        // Names no class that a tail would not keep anyway.
        let samples = images.shape().first().copied().unwrap_or(0);
        let any = vec![Resolved::Known(SampleObjective::Predicted); samples].into();
        self.parameter_linearizations(images, &any, false)
    }

    /// The same for one objective per sample; `short` without Gram matrices that exact scores for it do not need.
    pub(crate) fn parameter_linearizations(
        &self,
        images: TensorData,
        objectives: &Arc<[Resolved]>,
        short: bool,
    ) -> Result<ParameterLinearizations<'_>> {
        if !self.perturbation.has_parameters() {
            return Err(refused("this scorer perturbs the input alone: build it with parameters".into()));
        }
        if objectives.is_empty() {
            return Err(Error::NoSamples);
        }
        let scaled = self.budget == Budget::Relative && self.blocks.iter().any(|block| block.input);
        let scales = if scaled { square_norms(&images) } else { Vec::new() };
        let mut grams = self.program.grams(images)?;
        if self.combines(objectives) {
            let of = Arc::clone(objectives);
            grams = grams.combining(move |sample, logits| self.combinations(&of[sample], logits));
        }
        let first = if short { cheap(self) } else { None };
        let short = first.is_some();
        if let Some(first) = first {
            let of = Arc::clone(objectives);
            grams = grams.in_turn(first, move |found| needed(self, found, &of[found.sample]));
        }
        Ok(ParameterLinearizations { scorer: self, grams, scales, objectives: Arc::clone(objectives), short })
    }

    /// Linearises the network at `images` `[N, ...sample]`, one after the other: for several objectives and filters at the price of one
    /// Jacobian. Its rows are the differences z_k - z_K, which an objective on the logits that changes with a constant added to all of
    /// them cannot be measured from: [`Scorer::scores`] sees to that. With a tail only objectives of classes that carry more can be
    /// measured: for others there is [`Scorer::linearize_for`].
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Perturbation`] for a scorer that perturbs parameters; [`Error::Model`] for NaN, infinity or another
    /// shape.
    pub fn linearize(&self, images: TensorData) -> Result<Linearizations<'_>> {
        self.linearize_for(images, &Objective::predicted())
    }

    /// The same, where the classes that `objective` names are kept, however little probability they carry.
    ///
    /// # Errors
    /// As [`Scorer::linearize`] and, for the objective, [`Scorer::scores`].
    pub fn linearize_for(&self, images: TensorData, objective: &Objective) -> Result<Linearizations<'_>> {
        if self.perturbation.has_parameters() {
            return Err(refused(
                "this scorer perturbs parameters, whose rows are never held: build it with the input".into(),
            ));
        }
        if self.tail.is_none() {
            let predicted = SampleObjective::Predicted;
            let work = move |jacobian| self.linearization(jacobian, &predicted);
            return Ok(Linearizations(self.jacobians(images)?.each(work)));
        }
        let samples = images.shape().first().copied().unwrap_or(0);
        let shape = self.program.plan().graph().sample_shape();
        let objectives: Arc<[Resolved]> = objective.resolve(samples, self.classes(), &shape)?.into();
        self.check_tail(&objectives)?;
        let jacobians = self.combined(self.jacobians(images)?, &objectives);
        Ok(Linearizations(jacobians.each(move |jacobian| {
            let objective = objectives[jacobian.sample].at(&jacobian, self.classes())?;
            self.linearization(jacobian, &objective)
        })))
    }

    /// Jacobians of at least one sample.
    fn jacobians(&self, images: TensorData) -> Result<Jacobians<'_>> {
        if images.shape().first().is_none_or(|samples| *samples == 0) {
            return Err(Error::NoSamples);
        }
        Ok(self.program.jacobians(images)?)
    }

    /// The logits of `images` `[N, ...sample]`, `[K]` each: forward passes alone.
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Model`] for NaN, infinity or another shape.
    pub fn logits(&self, images: TensorData) -> Result<Vec<Vec<f64>>> {
        if images.shape().first().is_none_or(|samples| *samples == 0) {
            return Err(Error::NoSamples);
        }
        Ok(self.program.logits(images)?)
    }

    /// The precision of a run.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.program.plan().precision()
    }

    /// The metric of one sample, out of the rows of its Jacobian.
    fn linearization(&self, jacobian: Jacobian, objective: &SampleObjective) -> Result<Linearization<'_>> {
        let Jacobian { sample, logits, rows } = jacobian;
        let fault = |source| Error::Measure { sample, source };
        let classes = Classes::new(logits, objective, self.tail).map_err(fault)?;
        let (count, columns) =
            (classes.measured().len(), self.program.plan().graph().sample_shape().iter().product());
        let tangent = match &rows {
            Rows::F64(rows) => Tangent::from_rows(rows, count, columns),
            Rows::F32(rows) => Tangent::from_rows(rows, count, columns),
        };
        Ok(Linearization { scorer: self, sample, classes, tangent: tangent.map_err(fault)?, rows })
    }
}

/// The iterator of [`Scorer::linearize`].
#[derive(Debug)]
pub struct Linearizations<'a>(Jacobians<'a, Linearization<'a>, Error>);

impl<'a> Iterator for Linearizations<'a> {
    type Item = Result<Linearization<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The network's first-order behaviour at one sample.
#[derive(Debug, Clone)]
pub struct Linearization<'a> {
    scorer: &'a Scorer,
    sample: usize,
    classes: Classes,
    rows: Rows,
    tangent: Tangent,
}

impl Linearization<'_> {
    /// Which sample of the call, from 0.
    #[must_use]
    pub fn sample(&self) -> usize {
        self.sample
    }

    /// The logits `[K]`.
    #[must_use]
    pub fn logits(&self) -> &[f64] {
        self.classes.logits()
    }

    /// The classes that are merged, if some are.
    #[must_use]
    pub fn tail(&self) -> Option<&Tail> {
        self.classes.tail()
    }

    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    pub(crate) fn scorer(&self) -> &Scorer {
        self.scorer
    }

    /// An objective as the measured classes have it.
    pub(crate) fn objective<'o>(&self, objective: &'o SampleObjective) -> Result<Cow<'o, SampleObjective>> {
        self.classes.objective(objective).map_err(|source| self.fault(source))
    }

    /// The metric's data, of the classes that are measured: what `influence_manifold` takes.
    #[must_use]
    pub fn tangent(&self) -> &Tangent {
        &self.tangent
    }

    /// The rows d(z_k - z_K) / dx of its Jacobian, z_K being the last of the logits that are measured.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The shape of a sample.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.scorer.program.plan().graph().sample_shape()
    }

    /// A score of other tangent data of the same sample.
    pub(crate) fn score_of(
        &self,
        tangent: &Tangent,
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Score> {
        if self.tail().is_some() && matches!(filter, Filter::Paper { .. }) {
            return Err(self.fault(influence_manifold::Error::TailFilter));
        }
        Score::new(&self.classes, tangent, objective, filter, &self.scorer.engine)
            .map_err(|source| self.fault(source))
    }

    /// An error of the measure at this sample.
    pub(crate) fn fault(&self, source: influence_manifold::Error) -> Error {
        Error::Measure { sample: self.sample, source }
    }

    /// The score for -log P of `class` (of the predicted class for `None`) under `filter`, whatever the scorer's own are.
    ///
    /// # Errors
    /// [`Error::ClassOutOfRange`]; [`Error::Measure`] where the measure is not defined or the filter's argument is out of its range.
    pub fn score(&self, class: Option<usize>, filter: &Filter) -> Result<Score> {
        let classes = self.logits().len();
        match class {
            Some(class) if class >= classes => {
                Err(Error::ClassOutOfRange { what: "the objective".into(), class, classes })
            }
            Some(class) => self.score_for(&SampleObjective::class(class), filter),
            None => self.score_for(&SampleObjective::Predicted, filter),
        }
    }

    /// The score for any objective of one sample under `filter`.
    ///
    /// # Errors
    /// [`Error::Measure`] where the measure is not defined, not for this objective, or the filter's argument is out of its range.
    pub fn score_for(&self, objective: &SampleObjective, filter: &Filter) -> Result<Score> {
        self.score_of(&self.tangent, objective, filter)
    }
}
