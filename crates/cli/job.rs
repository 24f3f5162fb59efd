//! Makes a job from the arguments: every argument is checked and every file opened before anything
//! is computed.

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use influence::{
    Budget, Filter, GPU_BATCH, Memory, ModelError, Objective, Perturbation, Precision, SampleObjective,
    Scorer, ScorerBuilder, Tail, Target,
};
use influence_data::{Selection, Split};
use influence_zoo::Network;

use crate::arguments::RunArguments;
use crate::data::Data;
use crate::engine::EngineChoice;
use crate::failure::{Failure, Result};
use crate::inputs::Inputs;
use crate::network;
use crate::normalisation::Normalisation;
use crate::onnx::{self, Transposed};
use crate::out::shard::Shard;
use crate::progress::Progress;
use crate::provenance::{self, Provenance};
use crate::samples::{self, JobSamples};

/// Number of images per thread in one call. With one, all threads would wait for the slowest image
/// of every call.
const IMAGES_PER_THREAD: usize = 8;

/// Everything that is needed to run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) data: Data,
    /// Indices in the split, in the requested order; for a part of a run, only its own.
    pub(crate) images: Vec<usize>,
    pub(crate) shard: Option<Shard>,
    pub(crate) scorer: Scorer,
    pub(crate) target: Target,
    pub(crate) precision: Precision,
    pub(crate) filter: Filter,
    pub(crate) budget: Budget,
    pub(crate) quiet: bool,
    /// Description of the network, including its weights.
    pub(crate) network: String,
    /// Description of the network without its weights.
    pub(crate) architecture: String,
    /// The weight matrices that are transposed relative to their file.
    pub(crate) transposed: Transposed,
    /// The files that it has read.
    pub(crate) inputs: Inputs,
    /// What the results were made from, for the output files.
    pub(crate) provenance: Provenance,
}

impl Job {
    /// Interprets the arguments, with the cheapest checks first: a wrong word is refused before
    /// data are read, and wrong data before the network is compiled.
    pub(crate) fn new(arguments: &RunArguments, perturbation: Perturbation) -> Result<Self> {
        let target: Target = arguments.objective.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        let (filter, budget) = filter(arguments.filter.as_deref())?;
        target.objective([]).check_filter(&filter)?;
        let tail = tail(arguments.tail.as_deref())?;
        let precision = precision(arguments.precision.as_deref())?;
        let mut inputs = Inputs::default();
        let selection = selection(arguments.images.as_deref(), &mut inputs)?;
        let shard = arguments.shard.as_deref().map(Shard::parse).transpose()?;
        let engine = arguments.engine.as_deref().map(str::parse).transpose();
        let engine: EngineChoice = engine.map_err(Failure::new)?.unwrap_or_default();
        let device = engine.device().map_err(Failure::new)?;
        let memory = memory(arguments.memory.as_deref())?;
        let batch = positive("--batch", arguments.batch)?;
        set_threads(positive("--threads", arguments.threads)?)?;
        onnx::check(arguments)?;
        let JobSamples { data, mut images, mut preparation } =
            samples::open(arguments, &target, &selection, &mut inputs)?;
        let channels = data.sample().first().copied().unwrap_or(1);
        let normalisation =
            Normalisation::parse(arguments.mean.as_deref(), arguments.std.as_deref(), channels)?;
        if let Some(normalisation) = &normalisation {
            let comma = if preparation.is_empty() { "" } else { ", " };
            preparation.push_str(&format!("{comma}{normalisation} as the first layer"));
        }
        check_class(&target, data.classes())?;
        // The hashes cover all requested images, so that parts of one run are recognised.
        let file = arguments.network_file();
        file.into_iter().for_each(|file| inputs.add(file));
        let mut hashes = provenance::hashes(file, &data, &images)?;
        hashes.extend(settings(arguments, &engine, batch));
        images = part(images, shard)?;
        // Batches are padded to their full size, so that more than the images would waste work.
        let batch = batch.unwrap_or(GPU_BATCH).min(images.len());
        let scorer = Scorer::builder().perturbation(perturbation).filter(filter).budget(budget).tail(tail);
        let scorer =
            scorer.precision(precision).device(&device).engine(engine.executor()).batch(batch).memory(memory);
        // Compiling is the slow step. The network's number of classes is known after it.
        let Ready { scorer, report, described, transposed } =
            ready(scorer, arguments, &data, precision, normalisation.as_ref())?;
        check_class(&target, Some(scorer.classes()))?;
        if target == Target::Label {
            data.check_names(scorer.classes())?;
        }
        data.check_labels(&images, scorer.classes())?;
        let quiet = arguments.quiet;
        let words = if budget == Budget::Relative { RELATIVE } else { "" };
        let provenance = Provenance {
            filter: format!("{filter}{words}"),
            tail,
            network: described.clone(),
            weights: file.map_or_else(|| "embedded".into(), file_name),
            dataset: arguments.source.dataset.clone().unwrap_or_else(|| "embedded".into()),
            split: split(arguments.split.as_deref(), &data),
            precision: precision.to_string(),
            engine: scorer.engine().to_owned(),
            preparation: preparation.clone(),
            hashes,
        };
        Ok(Self {
            data,
            images,
            shard,
            scorer,
            target,
            precision,
            filter,
            budget,
            quiet,
            network: match preparation.as_str() {
                "" => format!("{described}; {report}"),
                words => format!("{described}; {report}; images: {words}"),
            },
            architecture: described,
            transposed,
            inputs,
            provenance,
        })
    }

    /// Samples `[N, ...]` as input of the network (images as pixels in [0, 1]), in the precision of
    /// the run.
    pub(crate) fn pixels(&self, indices: &[usize]) -> TensorData {
        self.data.tensor(indices, self.precision)
    }

    /// The objective of a sample.
    pub(crate) fn objective(&self, index: usize) -> SampleObjective {
        self.target.of(self.label(index))
    }

    /// The objective of several samples.
    pub(crate) fn objectives(&self, indices: &[usize]) -> Objective {
        self.target.objective(indices.iter().map(|&index| self.label(index)).collect::<Vec<_>>())
    }

    /// The label. Without labels any class will do, because then no objective uses it.
    fn label(&self, index: usize) -> usize {
        self.data.label(index).unwrap_or(0)
    }

    /// Number of images passed to the engine at once: whole batches, enough for every thread, but
    /// few enough for memory.
    pub(crate) fn at_a_time(&self) -> usize {
        (IMAGES_PER_THREAD * rayon::current_num_threads()).next_multiple_of(self.scorer.plan().batch())
    }

    /// The progress over all images, of which `done` are done already.
    pub(crate) fn progress(&self, done: usize) -> Progress {
        Progress::new(self.images.len(), done, self.quiet)
    }
}

/// The precision of the run.
fn precision(given: Option<&str>) -> Result<Precision> {
    match given {
        Some(text) => text.parse().map_err(|error: ModelError| Failure::new(error.to_string())),
        None => Ok(Precision::F32),
    }
}

/// Settings on which results depend, other than the files.
fn settings(
    arguments: &RunArguments,
    engine: &EngineChoice,
    batch: Option<usize>,
) -> Vec<(&'static str, String)> {
    let own = [("output", &arguments.output), ("frozen", &arguments.frozen)];
    let own = own.into_iter().filter_map(|(name, given)| Some((name, given.clone()?)));
    // On a GPU the batch may change the last digits.
    let batch = engine.is_graphics().then(|| ("batch", batch.unwrap_or(GPU_BATCH).to_string()));
    own.chain(batch).collect()
}

/// The part of the dataset that is run.
fn split(given: Option<&str>, data: &Data) -> String {
    match (given, data) {
        (Some(split), _) => split.to_owned(),
        // Folders and tables have no splits.
        (None, Data::Pictures(_)) => "all".into(),
        (None, _) => Split::Test.to_string(),
    }
}

/// An error about a sample of the batch, with the image's number in the split.
pub(crate) fn in_split(error: influence::Error, index: usize) -> Failure {
    match error {
        influence::Error::Measure { source, .. } => Failure::new(format!("image {index}: {source}")),
        other => Failure::new(format!("image {index}: {other}")),
    }
}

/// The suffix of a filter with a relative budget.
const RELATIVE: &str = ":relative";

/// The filter, and the unit of its budget.
fn filter(text: Option<&str>) -> Result<(Filter, Budget)> {
    let Some(text) = text else { return Ok((Filter::default(), Budget::default())) };
    let (words, budget) = match text.strip_suffix(RELATIVE) {
        Some(words) => (words, Budget::Relative),
        None => (text, Budget::Absolute),
    };
    let filter = words.parse().map_err(|error: influence::MeasureError| Failure::new(error.to_string()))?;
    if budget == Budget::Relative && !matches!(filter, Filter::Tikhonov { .. }) {
        let message = format!("filter '{text}': only tikhonov has a budget, as in tikhonov:100{RELATIVE}");
        return Err(Failure::new(message));
    }
    Ok((filter, budget))
}

impl Job {
    /// The filter as text, with the tail where classes are merged.
    pub(crate) fn filter_words(&self) -> String {
        let budget = if self.budget == Budget::Relative { RELATIVE } else { "" };
        let tail = self.scorer.tail().map_or_else(String::new, |epsilon| format!(", tail {epsilon}"));
        format!("{}{budget}{tail}", self.filter)
    }
}

/// The largest total probability of merged classes.
fn tail(text: Option<&str>) -> Result<Option<f64>> {
    match text {
        None | Some("off") => Ok(None),
        Some(text) => {
            let epsilon = text.parse().ok().filter(|epsilon| Tail::check(*epsilon).is_ok());
            let message =
                || format!("--tail {text}: give the probability that may be merged, as in 0.001, or off");
            epsilon.map(Some).ok_or_else(|| Failure::new(message()))
        }
    }
}

/// The requested images: a list of ranges, where @FILE stands for the list in a file.
pub(crate) fn selection(text: Option<&str>, inputs: &mut Inputs) -> Result<Selection> {
    let Some(text) = text else { return Ok(Selection::all()) };
    let mut parts = Vec::new();
    for part in text.split(',') {
        match part.trim().strip_prefix('@') {
            None => parts.push(part.to_owned()),
            Some(path) => {
                let fail = |why: String| Failure::new(format!("--images @{path}: {why}"));
                let list = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
                inputs.add(path.as_ref());
                let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default());
                let words = lines.flat_map(|line| line.split([',', ' ', '\t'])).map(str::trim);
                let before = parts.len();
                parts.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
                if parts.len() == before {
                    return Err(fail("no images are in it; write numbers and ranges as in 0..8, 12".into()));
                }
            }
        }
    }
    Ok(parts.join(",").parse()?)
}

/// The images of this process's part.
fn part(images: Vec<usize>, shard: Option<Shard>) -> Result<Vec<usize>> {
    let Some(shard) = shard else { return Ok(images) };
    if shard.of > images.len() {
        let message = format!("--shard {shard}: there are {} images, fewer than parts", images.len());
        return Err(Failure::new(message));
    }
    Ok(images[shard.range(images.len())].to_vec())
}

/// Refuses 0.
fn positive(flag: &str, value: Option<usize>) -> Result<Option<usize>> {
    match value {
        Some(0) => Err(Failure::new(format!("{flag} 0: at least 1 is needed"))),
        other => Ok(other),
    }
}

/// The memory limit of the run.
fn memory(text: Option<&str>) -> Result<Option<Memory>> {
    let parsed =
        text.map(|text| text.parse().map_err(|error: ModelError| Failure::new(format!("--memory: {error}"))));
    parsed.transpose()
}

/// The most threads per core. More give no speed and can stall the machine.
const MOST_THREADS_PER_CORE: usize = 16;

/// Creates the thread pool; without a number, it is created on first use with one thread per core.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let most = cores * MOST_THREADS_PER_CORE;
    if threads > most {
        return Err(Failure::new(format!(
            "--threads {threads}: this machine has {cores} cores; give at most {most}"
        )));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| Failure::new(format!("--threads {threads}: {error}")))
}

/// A loaded network, with its descriptions.
struct Ready {
    scorer: Scorer,
    /// How it was read, as one line for people.
    report: String,
    /// Its description for output files.
    described: String,
    transposed: Transposed,
}

/// Loads the network: from an ONNX file, or a known network with its weights.
fn ready(
    scorer: ScorerBuilder,
    arguments: &RunArguments,
    data: &Data,
    precision: Precision,
    normalisation: Option<&Normalisation>,
) -> Result<Ready> {
    if let Some(file) = arguments.onnx_file() {
        let (graph, report, transposed) = onnx::graph(file, arguments, data, normalisation)?;
        return Ok(Ready { scorer: scorer.load(graph)?, report, described: file_name(file), transposed });
    }
    let loaded = network::load(arguments, data, precision)?;
    let forward = |network: &Network, images: Tensor<4>| match normalisation {
        Some(first) => network.forward(first.forward(images)),
        None => network.forward(images),
    };
    let scorer = scorer.compile(&loaded.network, forward, &data.shape())?;
    let (report, described) = (loaded.report, loaded.architecture);
    Ok(Ready { scorer, report, described, transposed: Transposed::All })
}

/// The name of a file without its folder.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Refuses an objective that names a class beyond the network's.
fn check_class(target: &Target, classes: Option<usize>) -> Result<()> {
    match (target, classes) {
        (Target::Class(class), Some(classes)) if *class >= classes => Err(Failure::new(format!(
            "--objective class:{class}: there are {classes} classes, 0 to {}",
            classes.saturating_sub(1)
        ))),
        _ => Ok(()),
    }
}
