//! The builder and what it builds: a model captured, checked and loaded once, scored on many batches.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{
    Engine, GPU_BATCH, Graph, Jacobian, Jacobians, Memory, Options, Plan, Precision, Program, Rows,
};
use influence_manifold::{Filter, Objective as SampleObjective, Tangent};

use crate::error::{Error, Result};
use crate::objective::{Objective, Resolved};
use crate::score::Score;

/// What is perturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Perturbation {
    /// Every element of the input, freely: x + omega.
    #[default]
    Input,
}

impl std::fmt::Display for Perturbation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input => f.write_str("input"),
        }
    }
}

/// Settings of a [`Scorer`], each with a default.
#[derive(Debug, Clone, Default)]
pub struct ScorerBuilder {
    perturbation: Perturbation,
    filter: Filter,
    precision: Option<Precision>,
    batch: Option<usize>,
    memory: Option<Memory>,
    device: Option<Device>,
    engine: Option<Engine>,
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
    /// [`Error::Model`] with everything that is wrong with the model, or for memory that one sample exceeds; [`Error::Filter`] for a filter's argument out of range.
    pub fn compile<M, F, const D: usize>(self, model: &M, forward: F, sample: &[usize]) -> Result<Scorer>
    where
        M: Module,
        F: Fn(&M, Tensor<D>) -> Tensor<2>,
    {
        let filter = self.filter.validated().map_err(Error::Filter)?;
        let device = self.device.or_else(|| model.devices().into_iter().next()).ok_or_else(|| {
            influence_autodiff::Error::InvalidArgument(
                "the model has no tensors, hence no device: name one".into(),
            )
        })?;
        let graph = Graph::capture(model, forward, sample, &device)?;
        let own = if graph.dtype() == DType::F64 { Precision::F64 } else { Precision::F32 };
        let precision = self.precision.unwrap_or(own);
        let engine = self.engine.unwrap_or_else(|| Engine::of(&device));
        let batch = self.batch.unwrap_or(GPU_BATCH);
        let options = Options { engine, precision, batch, memory: self.memory };
        let program = Program::new(graph, &device, &options)?;
        let engine = program.engine().into();
        Ok(Scorer { program, perturbation: self.perturbation, filter, engine })
    }
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
    perturbation: Perturbation,
    filter: Filter,
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
    pub fn perturbation(&self) -> Perturbation {
        self.perturbation
    }

    /// Which engine computes the scores, and where.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The plan of a run: graph, lifetimes, bytes; printable.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.program.plan()
    }

    /// Scores `images` `[N, ...sample]`, from any device and of any float type.
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
        let mut jacobians = self.jacobians(images)?;
        if objectives.iter().any(Resolved::may_see_common_shift) {
            let of = Arc::clone(&objectives);
            let wanted = move |sample: usize, logits: &[f64]| of[sample].sees_common_shift(logits);
            jacobians = jacobians.whole_where(wanted);
        }
        Ok(Scores(jacobians.each(move |jacobian| {
            let objective = objectives[jacobian.sample].at(&jacobian, self.classes())?;
            self.linearization(jacobian)?.score_for(&objective, &self.filter)
        })))
    }

    /// Linearises the network at `images` `[N, ...sample]`, one after the other: for several objectives and filters at the price of one
    /// Jacobian. Its rows are the differences z_k - z_K, which an objective on the logits that changes with a constant added to all of
    /// them cannot be measured from: [`Scorer::scores`] sees to that.
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Model`] for NaN, infinity or another shape.
    pub fn linearize(&self, images: TensorData) -> Result<Linearizations<'_>> {
        Ok(Linearizations(self.jacobians(images)?.each(|jacobian| self.linearization(jacobian))))
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
    fn linearization(&self, jacobian: Jacobian) -> Result<Linearization<'_>> {
        let Jacobian { sample, logits, rows } = jacobian;
        let columns = self.program.plan().graph().sample_shape().iter().product();
        let tangent = match &rows {
            Rows::F64(rows) => Tangent::from_rows(rows, self.classes(), columns),
            Rows::F32(rows) => Tangent::from_rows(rows, self.classes(), columns),
            other => unreachable!("rows in a precision that no plan has: {other:?}"),
        };
        let tangent = tangent.map_err(|source| Error::Measure { sample, source })?;
        Ok(Linearization { scorer: self, sample, logits, rows, tangent })
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
    logits: Vec<f64>,
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
        &self.logits
    }

    /// The metric's data: what `influence_manifold` takes.
    #[must_use]
    pub fn tangent(&self) -> &Tangent {
        &self.tangent
    }

    /// The rows d(z_k - z_K) / dx of its Jacobian.
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
        Score::new(&self.logits, tangent, objective, filter, &self.scorer.engine)
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
        let classes = self.logits.len();
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

/// The iterator of [`Scorer::scores`].
#[derive(Debug)]
pub struct Scores<'a>(Jacobians<'a, Score, Error>);

impl Iterator for Scores<'_> {
    type Item = Result<Score>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}
