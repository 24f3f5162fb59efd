//! From words to a job: every argument is understood and every file opened before anything is computed.

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
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::network;
use crate::normalisation::Normalisation;
use crate::onnx::{self, Transposed};
use crate::origin::{self, Origin};
use crate::out::shard::Shard;
use crate::places::Inputs;
use crate::progress::Progress;
use crate::samples::{self, Samples};

/// How many images each thread is given in one call.
const IMAGES_PER_THREAD: usize = 8;

/// All that is needed to run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) data: Data,
    /// Indices in the split, in the order asked for; of a part of a run its own.
    pub(crate) images: Vec<usize>,
    pub(crate) shard: Option<Shard>,
    pub(crate) scorer: Scorer,
    pub(crate) target: Target,
    pub(crate) precision: Precision,
    pub(crate) filter: Filter,
    pub(crate) budget: Budget,
    pub(crate) quiet: bool,
    /// The network in words, with what its weights were.
    pub(crate) network: String,
    /// The network alone.
    pub(crate) architecture: String,
    /// Which matrices of weights lie otherwise here than in their file.
    pub(crate) transposed: Transposed,
    /// The files that it has read.
    pub(crate) inputs: Inputs,
    /// What the results are of, for the files.
    pub(crate) origin: Origin,
}

impl Job {
    /// Understands the arguments, cheapest checks first.
    pub(crate) fn new(arguments: &RunArguments, perturbation: Perturbation) -> Result<Self> {
        let target: Target = arguments.objective.as_deref().map(str::parse).transpose()?.unwrap_or_default();
        let (filter, budget) = filter(arguments.filter.as_deref())?;
        target.objective([]).check_filter(&filter)?;
        let tail = tail(arguments.tail.as_deref())?;
        let precision: Precision = match &arguments.precision {
            Some(text) => text.parse().map_err(|error: ModelError| Failure::new(error.to_string()))?,
            None => Precision::F32,
        };
        let mut inputs = Inputs::default();
        let selection = selection(arguments.images.as_deref(), &mut inputs)?;
        let shard = arguments.shard.as_deref().map(Shard::parse).transpose()?;
        let engine: Engine = arguments
            .engine
            .as_deref()
            .map_or_else(|| Ok(Engine::default()), str::parse)
            .map_err(Failure::new)?;
        let device = engine.device().map_err(Failure::new)?;
        let memory = memory(arguments.memory.as_deref())?;
        let batch = positive("--batch", arguments.batch)?;
        set_threads(positive("--threads", arguments.threads)?)?;
        onnx::check(arguments)?;
        let Samples { data, mut images, mut preparation } =
            samples::open(arguments, &target, &selection, &mut inputs)?;
        let channels = data.sample().first().copied().unwrap_or(1);
        let normalisation =
            Normalisation::parse(arguments.mean.as_deref(), arguments.std.as_deref(), channels)?;
        if let Some(normalisation) = &normalisation {
            let comma = if preparation.is_empty() { "" } else { ", " };
            preparation.push_str(&format!("{comma}{normalisation} as the first layer"));
        }
        check_class(&target, data.classes())?;
        let file = arguments.network_file();
        file.into_iter().for_each(|file| inputs.add(file));
        let mut hashes = origin::hashes(file, &data, &images)?;
        let own = [("output", &arguments.output), ("frozen", &arguments.frozen)];
        hashes.extend(own.into_iter().filter_map(|(name, given)| Some((name, given.clone()?))));
        if engine.is_graphics() {
            // The batch may change the last digits there.
            hashes.push(("batch", batch.unwrap_or(GPU_BATCH).to_string()));
        }
        images = part(images, shard)?;
        // A batch is padded to its full size: no more of it than there are images.
        let batch = batch.unwrap_or(GPU_BATCH).min(images.len());
        let scorer = Scorer::builder().perturbation(perturbation).filter(filter).budget(budget).tail(tail);
        let scorer =
            scorer.precision(precision).device(&device).engine(engine.executor()).batch(batch).memory(memory);
        let Ready { scorer, report, described, transposed } =
            ready(scorer, arguments, &data, precision, normalisation.as_ref())?;
        check_class(&target, Some(scorer.classes()))?;
        if target == Target::Label {
            data.check_names(scorer.classes())?;
        }
        data.check_labels(&images, scorer.classes())?;
        let quiet = arguments.quiet;
        let words = if budget == Budget::Relative { RELATIVE } else { "" };
        let origin = Origin {
            filter: format!("{filter}{words}"),
            tail,
            network: described.clone(),
            weights: file.map_or_else(|| "embedded".into(), file_name),
            dataset: arguments.dataset.clone().unwrap_or_else(|| "embedded".into()),
            split: match (&arguments.split, &data) {
                (Some(split), _) => split.clone(),
                // What a folder or a table holds is divided by nobody.
                (None, Data::Pictures(_)) => "all".into(),
                (None, _) => Split::Test.to_string(),
            },
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
            origin,
        })
    }

    /// Samples `[N, ...]` as the network takes them (images as numbers in [0, 1]), in the precision of the run.
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

    /// The label; any class where there are none, since then no objective asks for it.
    fn label(&self, index: usize) -> usize {
        self.data.label(index).unwrap_or(0)
    }

    /// How many images are given to the engine at once: enough for every thread in whole batches, and few enough to be held at once.
    pub(crate) fn at_a_time(&self) -> usize {
        (IMAGES_PER_THREAD * rayon::current_num_threads()).next_multiple_of(self.scorer.plan().batch())
    }

    /// Of all its images, some of which are done.
    pub(crate) fn progress(&self, done: usize) -> Progress {
        Progress::new(self.images.len(), done, self.quiet)
    }
}

/// An error about a sample of the batch, with the image's number in the split.
pub(crate) fn in_split(error: influence::Error, index: usize) -> Failure {
    match error {
        influence::Error::Measure { source, .. } => Failure::new(format!("image {index}: {source}")),
        other => Failure::new(format!("image {index}: {other}")),
    }
}

/// What follows a filter whose budget is relative.
const RELATIVE: &str = ":relative";

/// The filter, and what its budget is measured in.
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
    /// The filter in words, with the tail where classes are merged.
    pub(crate) fn filter_words(&self) -> String {
        let budget = if self.budget == Budget::Relative { RELATIVE } else { "" };
        let tail = self.scorer.tail().map_or_else(String::new, |epsilon| format!(", tail {epsilon}"));
        format!("{}{budget}{tail}", self.filter)
    }
}

/// How much probability the classes may carry that are merged.
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

/// The images asked for: a list of ranges, in which @FILE stands for the list in a file.
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

/// The part of the images that this process does.
fn part(images: Vec<usize>, shard: Option<Shard>) -> Result<Vec<usize>> {
    let Some(shard) = shard else { return Ok(images) };
    if shard.of > images.len() {
        let message = format!("--shard {shard}: there are {} images, fewer than parts", images.len());
        return Err(Failure::new(message));
    }
    Ok(images[shard.range(images.len())].to_vec())
}

fn positive(flag: &str, value: Option<usize>) -> Result<Option<usize>> {
    match value {
        Some(0) => Err(Failure::new(format!("{flag} 0: at least 1 is needed"))),
        other => Ok(other),
    }
}

fn memory(text: Option<&str>) -> Result<Option<Memory>> {
    let parsed =
        text.map(|text| text.parse().map_err(|error: ModelError| Failure::new(format!("--memory: {error}"))));
    parsed.transpose()
}

/// Threads beyond this many a core help nobody and stall the machine.
const MOST_THREADS_PER_CORE: usize = 16;

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

/// A network that is loaded, and what is told of it.
struct Ready {
    scorer: Scorer,
    /// How it was read, in one line for people.
    report: String,
    /// What it is, for the files.
    described: String,
    transposed: Transposed,
}

/// Loads the network: that of an ONNX file, or one that is known by name, with its weights.
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

/// What a file is called: its own name, wherever it lies.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Refuses the objective of a class that there is not.
fn check_class(target: &Target, classes: Option<usize>) -> Result<()> {
    match (target, classes) {
        (Target::Class(class), Some(classes)) if *class >= classes => Err(Failure::new(format!(
            "--objective class:{class}: there are {classes} classes, 0 to {}",
            classes.saturating_sub(1)
        ))),
        _ => Ok(()),
    }
}
