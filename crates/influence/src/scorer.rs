//! The scorer and its builder: a model is captured, checked and loaded once, then scored on many
//! batches.

use std::collections::VecDeque;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{
    Check, Combinations, GPU_BATCH, Graph, Jacobians, Memory, Options, Plan, Precision, Program, check,
};
use influence_cpu::Engine;
use influence_manifold::{Filter, SampleObjective, Tail};

use crate::error::{Error, Result};
use crate::linearization::Linearizations;
use crate::objective::{Objective, Resolved};
use crate::parameters::{ParameterLinearizations, cheap, needed};
use crate::perturbation::{Budget, Perturbation, ResolvedGroup, ResolvedGroups, refused};
use crate::samples::{IntoSamples, each_sample, square_norms};
use crate::score::Score;
use crate::scores::{ScoreSource, Scores};
use crate::tail::Classes;

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

    /// Which directions of the spectrum count (default: [`Filter::Exact`] with the tolerance of the
    /// precision).
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// The unit of a perturbation's size, for [`Filter::Tikhonov`] of parameters (default: its
    /// Euclidean length).
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Merges the least likely classes, which together have at most `epsilon` of a sample's
    /// probability, into one (default: off). For networks of hundreds of classes: instead of K - 1
    /// cotangents a sample then takes one per kept class. A value is then an upper bound of the
    /// influence over all classes and never above [`Score::bound`]; [`Score::tail`] has a lower
    /// bound. The class of the objective, the predicted class and its runner-up are always kept.
    /// Available for -log P of a class and margins, with the exact filter or Tikhonov's.
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

    /// The largest number of samples that run together on a GPU (default 32; fewer if memory
    /// requires it). Results on a GPU depend on it within rounding. On a CPU the engine uses its
    /// own fixed number on all threads, and results do not depend on it: pass many samples in one
    /// call to keep the threads busy.
    #[must_use]
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = Some(batch);
        self
    }

    /// The engine that runs the model (default: our own kernels if the device is a CPU, else Burn's
    /// operations on the device).
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Skips the comparison of the engine with the model; every report shows the reason with the
    /// engine.
    ///
    /// By default, [`compile`](Self::compile) runs the model's own forward function on five
    /// synthetic samples, and once more on one of them by itself, on the model's own device, and
    /// fails if the engine's logits differ.
    #[must_use]
    pub fn unchecked(mut self, reason: impl Into<String>) -> Self {
        self.check = Check::Off(reason.into());
        self
    }

    /// The memory that a run may use, as the plan estimates it beforehand (default: 2 GiB on a GPU,
    /// no limit on a CPU). On a GPU it limits the batch, on a CPU the number of samples that run
    /// side by side.
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

    /// Captures and checks the model and loads it onto the device, ready for samples of shape
    /// `sample` (without the batch axis).
    ///
    /// # Errors
    /// [`Error::Model`] with everything that is wrong with the model, or if one sample exceeds the
    /// memory limit; [`Error::Filter`] for a filter argument out of range; [`Error::Perturbation`]
    /// for groups that the model does not have, for no families, for windows larger than the image,
    /// for labels of regions that are not one per pixel, and for a relative budget without
    /// parameters; [`Error::NotAnImage`] for families, windows or regions
    /// of samples that are not images.
    pub fn compile<M, F, const D: usize>(self, model: &M, forward: F, sample: &[usize]) -> Result<Scorer>
    where
        M: Module,
        F: Fn(&M, Tensor<D>) -> Tensor<2>,
    {
        // First, because capturing the model takes longer.
        self.checked_filter()?;
        let device = self.device.clone().or_else(|| model.devices().into_iter().next());
        let device = device.ok_or_else(|| nowhere("the model has no tensors, hence no device"))?;
        let graph = match self.check {
            Check::On => Graph::capture(model, forward, sample, &device)?,
            Check::Off(_) => Graph::record(model, forward, sample, &device)?,
        };
        self.device(&device).load(graph)
    }

    /// Checks an existing graph (read from a file, or built) and loads it onto the device, which
    /// must have been set.
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
                "a relative budget is for parameters: perturb parameters, or leave it out".into(),
            ));
        }
        let ResolvedGroups { resolved_groups, leaves } =
            ResolvedGroups::new(&self.perturbation, self.budget, &graph)?;
        let program = engine.load(graph, leaves, &device, &options)?;
        let engine = program.engine().into();
        let Self { perturbation, budget, tail, .. } = self;
        Ok(Scorer { program, device, perturbation, resolved_groups, filter, budget, tail, engine })
    }

    /// The filter, if its arguments are in range and, with a tail, if it has bounds there.
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

/// The error if there is no device to run on.
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
    resolved_groups: Vec<ResolvedGroup>,
    filter: Filter,
    budget: Budget,
    tail: Option<f64>,
    engine: Arc<str>,
}

impl Scorer {
    /// A builder with default settings; finish with [`compile`](ScorerBuilder::compile).
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

    /// The names of the layers, tensors, groups, families, windows or regions: every image has one
    /// score for each. A single empty name where the perturbation is not divided.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.resolved_groups.iter().map(|resolved| resolved.name.as_ref())
    }

    pub(crate) fn resolved_groups(&self) -> &[ResolvedGroup] {
        &self.resolved_groups
    }

    /// Which directions of the spectrum count.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The largest probability of the merged classes, if classes are merged.
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

    /// Whether scores of parameters may use the shortcuts of `parameters.rs`: for the exact measure
    /// only.
    pub(crate) fn is_short(&self) -> bool {
        matches!(self.filter, Filter::Exact { .. }) && self.perturbation.has_parameters()
    }

    /// Whether a group contains a free bias of the logits, and counts.
    pub(crate) fn moves_logits(&self, resolved: &ResolvedGroup) -> bool {
        if !resolved.moves() {
            return false;
        }
        let bias = self.plan().graph().output_bias();
        let places = self.plan().leaves().indices();
        bias.is_some_and(|bias| resolved.tensors.iter().any(|&tensor| places[tensor] == bias))
    }

    /// Which engine computes the scores, and where.
    #[must_use]
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The engine's plan, step by step, as text for people.
    #[must_use]
    pub fn describe(&self) -> String {
        self.program.describe()
    }

    /// The plan of a run by Burn's operations: graph, lifetimes, bytes. It can be printed.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        self.program.plan()
    }

    /// The engine's program, which gives Jacobians and Gram matrices before any measure.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Scores `images` `[N, ...sample]`, from any device and of any float type. The result has one
    /// score per image and group ([`Scorer::groups`]), ordered by image, then by group.
    ///
    /// # Errors
    /// [`Error::NoSamples`], [`Error::LabelCount`], [`Error::ObjectiveCount`],
    /// [`Error::ClassOutOfRange`], [`Error::GradientShape`]; [`Error::Filter`] for a filter that is
    /// not defined for the objective; [`Error::Perturbation`] for [`Objective::Rows`] under any
    /// perturbation but that of the whole input; [`Error::Model`] for NaN, infinity or a wrong
    /// shape of the input; [`Error::Family`] for a family that is not defined at an image;
    /// [`Error::Measure`] where the measure is not defined.
    pub fn score(&self, images: impl IntoSamples, objective: &Objective) -> Result<Vec<Score>> {
        self.scores(images, objective)?.collect()
    }

    /// Scores `images` as [`Scorer::score`] does, one by one as the iterator is advanced.
    ///
    /// # Errors
    /// As [`Scorer::score`]. Errors of the call are returned at once, errors of a sample by the
    /// iterator.
    pub fn scores(&self, images: impl IntoSamples, objective: &Objective) -> Result<Scores<'_>> {
        objective.check_filter(&self.filter)?;
        let images = images.into_samples()?;
        let samples = check::first_axis(&images);
        let shape = self.program.plan().graph().sample_shape();
        let objectives: Arc<[Resolved]> = objective.resolve(samples, self.classes(), &shape)?.into();
        self.check_tail(&objectives)?;
        let rows = objectives.iter().any(|objective| matches!(objective, Resolved::Row(..)));
        if rows && self.perturbation != Perturbation::Input {
            return Err(refused(format!(
                "an objective that is given by its gradient in the input is not defined for {}: give a function of the probabilities or of the logits",
                self.perturbation
            )));
        }
        // Perturbations of the input are measured from rows of the Jacobian, those of parameters
        // from Gram matrices. Where every group has a free bias of the logits, the exact scores
        // follow from the logits.
        let source = if !self.perturbation.has_parameters() {
            ScoreSource::Input(self.input_scores(images, &objectives)?)
        } else {
            let short = self.is_short() && !objectives.iter().any(Resolved::may_see_common_shift);
            if short && self.resolved_groups.iter().all(|resolved| self.moves_logits(resolved)) {
                ScoreSource::Logits(self.logits(images)?.into_iter(), 0)
            } else {
                ScoreSource::Parameters(self.parameter_linearizations(images, &objectives, short)?)
            }
        };
        Ok(Scores { scorer: self, source, objectives, ready: VecDeque::new() })
    }

    /// The scores of perturbations of the input: of all of it, or of each family, window or region.
    fn input_scores(
        &self,
        images: TensorData,
        objectives: &Arc<[Resolved]>,
    ) -> Result<Jacobians<'_, Vec<Score>, Error>> {
        // A family's basis depends on the image. With a tail, the lower bound over all classes
        // needs forward passes near each image, for the velocities of the merged logits.
        let families = matches!(self.perturbation, Perturbation::Families(_));
        let kept = (families || self.tail.is_some()).then(|| each_sample(&images));
        let jacobians = self.combined(self.jacobians(images)?, objectives);
        let objectives = Arc::clone(objectives);
        Ok(jacobians.each(move |jacobian| {
            let objective = objectives[jacobian.sample].at(&jacobian, self.classes())?;
            let at = self.linearization(jacobian, &objective)?;
            let image = kept.as_ref().map(|images| &images[at.sample()]);
            match (&self.perturbation, image) {
                (Perturbation::Families(families), Some(image)) => {
                    at.families(families, image, &objective, &self.filter)
                }
                (Perturbation::Windows { half_width, channels }, _) => {
                    at.windows(*half_width, *channels, &objective, &self.filter)
                }
                (Perturbation::Regions { labels, channels }, _) => {
                    at.region_scores(labels, *channels, &objective, &self.filter)
                }
                (_, image) => {
                    let score = at.score(&objective, &self.filter)?;
                    let Some(image) = image else { return Ok(vec![score]) };
                    Ok(vec![score.at_least(at.at_least(image, &objective, &self.filter)?)])
                }
            }
        }))
    }

    /// Refuses objectives that depend on every class, if there is a tail.
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

    /// Makes the Jacobians give the rows that each sample's objective needs.
    fn combined<'a>(&'a self, jacobians: Jacobians<'a>, objectives: &Arc<[Resolved]>) -> Jacobians<'a> {
        if !self.combines(objectives) {
            return jacobians;
        }
        let objectives = Arc::clone(objectives);
        jacobians.combining(move |sample, logits| self.combinations(&objectives[sample], logits))
    }

    /// Whether some objectives may need rows other than the differences of the logits.
    fn combines(&self, objectives: &[Resolved]) -> bool {
        self.tail.is_some() || objectives.iter().any(Resolved::may_see_common_shift)
    }

    /// The combinations of the logits whose rows the measure of the objective needs.
    fn combinations(&self, objective: &Resolved, logits: &[f64]) -> Combinations {
        match objective {
            of if of.sees_common_shift(logits) => Combinations::Logits,
            Resolved::Known(single) => {
                // Logits without probabilities are reported later, by the measure, with the
                // sample's index.
                let classes = Classes::new(0, logits.to_vec(), single, self.tail);
                classes.map_or(Combinations::Differences, |classes| classes.combinations())
            }
            Resolved::Row(..) => Combinations::Differences,
        }
    }

    /// Linearises the network in its parameters at `images` `[N, ...sample]`, one by one. One set
    /// of Gram matrices then serves several objectives and filters. With a tail, only objectives of
    /// kept classes can be measured, see [`Scorer::linearize`].
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Perturbation`] for a scorer that perturbs only the input;
    /// [`Error::Model`] for NaN, infinity or a wrong shape.
    pub fn linearize_parameters(&self, images: impl IntoSamples) -> Result<ParameterLinearizations<'_>> {
        let images = images.into_samples()?;
        // The predicted class is always kept by a tail.
        let samples = check::first_axis(&images);
        let any = vec![Resolved::Known(SampleObjective::Predicted); samples].into();
        self.parameter_linearizations(images, &any, false)
    }

    /// Linearises as [`Scorer::linearize_parameters`] does, for one objective per sample. With
    /// `short`, Gram matrices that exact scores do not need are skipped.
    pub(crate) fn parameter_linearizations(
        &self,
        images: TensorData,
        objectives: &Arc<[Resolved]>,
        short: bool,
    ) -> Result<ParameterLinearizations<'_>> {
        if !self.perturbation.has_parameters() {
            return Err(refused("this scorer perturbs only the input: build it with parameters".into()));
        }
        if objectives.is_empty() {
            return Err(Error::NoSamples);
        }
        // |x|^2 of each sample, where the input has a relative budget too.
        let scaled =
            self.budget == Budget::Relative && self.resolved_groups.iter().any(|resolved| resolved.input);
        let scales = if scaled { square_norms(&images) } else { Vec::new() };
        let mut grams = self.program.grams(images)?;
        if self.combines(objectives) {
            let of = Arc::clone(objectives);
            grams = grams.combining(move |sample, logits| self.combinations(&of[sample], logits));
        }
        // Cheap tensors first, if that can save the others: `needed` then says which of them are
        // left.
        let first = if short { cheap(self) } else { None };
        let short = first.is_some();
        if let Some(first) = first {
            let of = Arc::clone(objectives);
            grams = grams.in_turn(first, move |found| needed(self, found, &of[found.sample]));
        }
        Ok(ParameterLinearizations { scorer: self, grams, scales, objectives: Arc::clone(objectives), short })
    }

    /// Linearises the network at `images` `[N, ...sample]`, one by one. One Jacobian then serves
    /// several objectives and filters.
    ///
    /// Its rows are the differences z_k - z_K. An objective on the logits that changes when a
    /// constant is added to all of them cannot be measured from these; [`Scorer::scores`] computes
    /// the rows that it needs. With a tail, only objectives of kept classes can be measured; for
    /// others use [`Scorer::linearize_for`].
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Perturbation`] for a scorer that perturbs parameters;
    /// [`Error::Model`] for NaN, infinity or a wrong shape.
    pub fn linearize(&self, images: impl IntoSamples) -> Result<Linearizations<'_>> {
        self.linearize_for(images, &Objective::predicted())
    }

    /// Linearises the network as [`Scorer::linearize`] does, but keeps the classes that `objective`
    /// names, however small their probability.
    ///
    /// # Errors
    /// As [`Scorer::linearize`] and, for the objective, [`Scorer::scores`].
    pub fn linearize_for(
        &self,
        images: impl IntoSamples,
        objective: &Objective,
    ) -> Result<Linearizations<'_>> {
        let images = images.into_samples()?;
        if self.perturbation.has_parameters() {
            return Err(refused(
                "this scorer perturbs parameters, whose rows are not stored: build it with the input".into(),
            ));
        }
        if self.tail.is_none() {
            let predicted = SampleObjective::Predicted;
            let work = move |jacobian| self.linearization(jacobian, &predicted);
            return Ok(Linearizations(self.jacobians(images)?.each(work)));
        }
        let samples = check::first_axis(&images);
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
        if check::first_axis(&images) == 0 {
            return Err(Error::NoSamples);
        }
        Ok(self.program.jacobians(images)?)
    }

    /// The logits of `images` `[N, ...sample]`, `[K]` each: forward passes only.
    ///
    /// # Errors
    /// [`Error::NoSamples`]; [`Error::Model`] for NaN, infinity or a wrong shape.
    pub fn logits(&self, images: impl IntoSamples) -> Result<Vec<Vec<f64>>> {
        let images = images.into_samples()?;
        if check::first_axis(&images) == 0 {
            return Err(Error::NoSamples);
        }
        Ok(self.program.logits(images)?)
    }

    /// The precision of a run.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.program.plan().precision()
    }
}
