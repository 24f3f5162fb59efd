//! From words to a job: every argument is understood and every file opened before anything is computed.

use std::path::Path;

use burn::tensor::{Device, TensorData};
use influence::{Budget, Filter, GPU_BATCH, Memory, ModelError, Perturbation, Precision, Scorer, Target};
use influence_data::{Dataset, Kind, Selection, Split, files, sample};
use influence_zoo::weights::{self, Checkpoint, Report};
use influence_zoo::{Architecture, Network};

use crate::arguments::RunArguments;
use crate::engine::Engine;
use crate::failure::{Failure, Result};
use crate::origin::{self, Origin};
use crate::out::shard::Shard;
use crate::places::Inputs;
use crate::progress::Progress;

/// The width of the embedded network.
const EMBEDDED_WIDTH: usize = 8;
/// How many images each thread is given in one call.
const IMAGES_PER_THREAD: usize = 8;

/// All that is needed to run.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) data: Dataset,
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
        let mut data = dataset(arguments, &mut inputs)?;
        let mut images = selection.resolve(data.len())?;
        // A training set takes as much memory as a network: what nobody has asked for is let go.
        data.truncate(images.iter().max().map_or(0, |last| last + 1));
        if let Target::Class(class) = target
            && class >= data.classes()
        {
            let classes = data.classes();
            return Err(Failure::new(format!(
                "--objective class:{class}: there are {classes} classes, 0 to {}",
                classes - 1
            )));
        }
        if let Some(weights) = &arguments.weights {
            inputs.add(weights);
        }
        let mut hashes = origin::hashes(arguments, &data, &images)?;
        if engine.is_graphics() {
            // The batch may change the last digits there.
            hashes.push(("batch", batch.unwrap_or(GPU_BATCH).to_string()));
        }
        images = part(images, shard)?;
        let (network, report, described) = network(arguments, &data, precision)?;
        // A batch is padded to its full size: no more of it than there are images.
        let batch = batch.unwrap_or(GPU_BATCH).min(images.len());
        let scorer = Scorer::builder().perturbation(perturbation).filter(filter).budget(budget);
        let scorer =
            scorer.precision(precision).device(&device).engine(engine.executor()).batch(batch).memory(memory);
        let scorer = scorer.compile(&network, Network::forward, &data.shape())?;
        let quiet = arguments.quiet;
        let words = if budget == Budget::Relative { RELATIVE } else { "" };
        let origin = Origin {
            filter: format!("{filter}{words}"),
            network: described.clone(),
            weights: origin::weights_name(arguments),
            dataset: arguments.dataset.clone().unwrap_or_else(|| "embedded".into()),
            split: arguments.split.clone().unwrap_or_else(|| Split::Test.to_string()),
            precision: precision.to_string(),
            engine: scorer.engine().to_owned(),
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
            network: format!("{described}; {report}"),
            architecture: described,
            inputs,
            origin,
        })
    }

    /// Images `[N, C, H, W]` of the split as numbers in [0, 1], divided in the precision of the run.
    pub(crate) fn pixels(&self, indices: &[usize]) -> TensorData {
        let [c, h, w] = self.data.shape();
        let shape = [indices.len(), c, h, w];
        match self.precision {
            Precision::F32 => TensorData::new(self.data.batch::<f32>(indices), shape),
            Precision::F64 => TensorData::new(self.data.batch::<f64>(indices), shape),
        }
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
    /// The filter in words.
    pub(crate) fn filter_words(&self) -> String {
        let budget = if self.budget == Budget::Relative { RELATIVE } else { "" };
        format!("{}{budget}", self.filter)
    }
}

/// The images asked for: a list of ranges, in which @FILE stands for the list in a file.
fn selection(text: Option<&str>, inputs: &mut Inputs) -> Result<Selection> {
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

fn set_threads(threads: Option<usize>) -> Result<()> {
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

/// The images asked for, or the embedded ones.
fn dataset(arguments: &RunArguments, inputs: &mut Inputs) -> Result<Dataset> {
    let split = arguments.split.as_deref().map(str::parse::<Split>).transpose()?.unwrap_or(Split::Test);
    match (&arguments.dataset, &arguments.data) {
        (None, None) if split == Split::Test => Ok(Dataset::embedded()),
        (None, None) => Err(Failure::new(
            "--split train: the embedded sample is of the test split; name --dataset and --data",
        )),
        (None, Some(_)) => {
            Err(Failure::new("--data names a folder, but of which data set? Add --dataset mnist or cifar10"))
        }
        (Some(kind), folder) => {
            let kind: Kind = kind.parse()?;
            let Some(folder) = folder else {
                return Err(Failure::new(format!(
                    "--dataset {kind}: where is it? Add --data DIR, the folder with its files"
                )));
            };
            files(kind, folder, split)?.iter().for_each(|file| inputs.add(file));
            let open = if arguments.own { Dataset::open_own } else { Dataset::open };
            Ok(open(kind, folder, split)?)
        }
    }
}

/// The network with its weights, and what both are in words; on the processor, from where it is captured whatever the engine.
fn network(
    arguments: &RunArguments,
    data: &Dataset,
    precision: Precision,
) -> Result<(Network, Report, String)> {
    let device = &Device::flex();
    let architecture = architecture(arguments)?;
    let [channels, height, width] = data.shape();
    if height != width {
        return Err(Failure::new(format!(
            "images of {height} x {width} pixels: the networks take square ones"
        )));
    }
    let network = architecture.init(channels, height, data.classes(), device)?;
    let precision = match precision {
        Precision::F32 => weights::Precision::F32,
        Precision::F64 => weights::Precision::F64,
    };
    let (network, report) = match &arguments.weights {
        Some(path) => weights::load(network, path.as_path(), precision, device)?,
        None => weights::load(network, sample::RESNET50W8_MNIST, precision, device)?,
    };
    Ok((network, report, architecture.to_string()))
}

/// The network asked for; the embedded one with its own weights; or what a file of weights says of itself.
fn architecture(arguments: &RunArguments) -> Result<Architecture> {
    let embedded = Architecture::ResNet50 { width: EMBEDDED_WIDTH };
    let named = arguments.network.as_deref().map(str::parse::<Architecture>).transpose()?;
    let named = named.map(|named| arguments.width.map_or(named, |width| named.with_width(width)));
    match (named, &arguments.weights) {
        (Some(named), Some(_)) => Ok(named),
        (Some(named), None) if named == embedded => Ok(embedded),
        (Some(named), None) => {
            Err(Failure::new(format!("{named} needs its trained weights: add --weights FILE.safetensors")))
        }
        (None, None) if arguments.width.is_none_or(|width| width == EMBEDDED_WIDTH) => Ok(embedded),
        (None, None) => Err(Failure::new("--width without --network: name the network and its weights")),
        (None, Some(path)) => described(path, arguments.width),
    }
}

/// The network that the names and shapes in a file of weights belong to.
fn described(path: &Path, width: Option<usize>) -> Result<Architecture> {
    let checkpoint = Checkpoint::open(path)?;
    let found = checkpoint.describe().and_then(|description| description.architecture());
    let found = found.ok_or_else(|| {
        Failure::new(format!(
            "{}: the weights of no network that is known here; add --network",
            path.display()
        ))
    })?;
    Ok(width.map_or(found, |width| found.with_width(width)))
}
