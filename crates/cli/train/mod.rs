//! `influence train`: trains one of the known networks with Burn's own learner, and writes its
//! weights.

mod learner;
mod schedule;
mod watch;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, TensorData};
use influence::{Precision, Scorer, Target as Objective};
use influence_data::{Dataset, DatasetKind, Split};
use influence_zoo::{
    Architecture, DROPOUT, DenseNet121Config, Network, NetworkFamily, ResNet50Config, weights,
};
use serde_json::json;

use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::inputs::Inputs;
use crate::job::{selection, set_threads};
use crate::out::OutputFile;
use crate::samples::{self, JobSamples};
use crate::terminal;
use crate::train_arguments::TrainArguments;
use learner::TrainingImages;
use schedule::TrainingSchedule;

/// One in this many images is held out for validation: the last ones of a shuffled order.
const HELD_OUT: usize = 10;

/// A network and the data on which it is trained.
struct Training {
    images: TrainingImages,
    network: Network,
    schedule: TrainingSchedule,
    folder: PathBuf,
    /// The epoch after which it resumes.
    done: Option<usize>,
}

/// Interprets the arguments and runs.
pub(crate) fn command(arguments: &TrainArguments) -> Result<()> {
    // What is wrong with the arguments is said before any file is read.
    arguments.schedule(1)?;
    let file = OutputFile::new("--out", &arguments.out, "safetensors")?;
    set_threads(arguments.threads)?;
    let mut inputs = Inputs::default();
    let selection = selection(arguments.images.as_deref(), &mut inputs)?;
    let JobSamples { data, images, .. } =
        samples::open(&arguments.samples(), &Objective::Label, &selection, &mut inputs)?;
    inputs.spare("--out", &arguments.out)?;
    let schedule = arguments.schedule(images.len())?;
    let images = divided(data, images, schedule.seed)?;
    let device = Device::flex().autodiff();
    device.seed(schedule.seed);
    let architecture = architecture(arguments)?;
    let network = network(architecture, arguments, &images, &device)?;
    let described = architecture.to_string();
    let folder = PathBuf::from(format!("{}.training", file.path().display()));
    // Checkpoints are continued only by a training with the same settings and images.
    let settings = json!({
        "network": described,
        "classes": images.classes(arguments.classes),
        "preset": arguments.preset.name(),
        "epochs": schedule.epochs,
        "batch": schedule.batch,
        "rate": schedule.rate,
        "seed": schedule.seed,
        "images": images.hash(),
    });
    let done = prepared(&folder, &settings, arguments.resume)?;
    let training = Training { images, network, schedule, folder, done };
    if !arguments.quiet {
        training.tell(&described)?;
    }
    let trained = learner::run(&training, arguments.quiet)?;
    let accuracy = test_accuracy(arguments, &trained)?;
    let metadata = metadata(arguments, &schedule, accuracy);
    weights::save_with(&trained, file.path(), &metadata)?;
    // The checkpoints are no longer needed.
    let _ = std::fs::remove_dir_all(&training.folder);
    if !arguments.quiet {
        let mut out = terminal::output();
        if let Some((right, of)) = accuracy {
            let share = 100.0 * right as f64 / of as f64;
            writeln!(out, "Test split: {right} of {of} images right, {share:.2} %")?;
        }
        writeln!(out, "Weights: {}", arguments.out.display())?;
        out.flush()?;
    }
    Ok(())
}

/// Divides the images: a tenth is held out.
fn divided(data: Data, mut images: Vec<usize>, seed: u64) -> Result<TrainingImages> {
    if let Some(index) = images.iter().find(|index| data.label(**index).is_none()) {
        return Err(Failure::new(format!("image {index} has no label, and training needs one for each")));
    }
    if images.len() < 2 {
        return Err(Failure::new("training needs at least 2 images: one is held out for validation"));
    }
    learner::shuffle(&mut images, seed);
    let held_out = images.split_off(images.len() - (images.len() / HELD_OUT).max(1));
    Ok(TrainingImages { data: Arc::new(data), trained: images, held_out })
}

/// The requested network.
fn architecture(arguments: &TrainArguments) -> Result<Architecture> {
    let family: NetworkFamily = arguments.network.parse()?;
    let paper = match family {
        NetworkFamily::ResNet50 => family.at(64),
        NetworkFamily::DenseNet121 | NetworkFamily::Cnn => family.at(32),
    };
    Ok(arguments.width.map_or(paper, |width| family.at(width)))
}

/// The network with its initial weights.
fn network(
    architecture: Architecture,
    arguments: &TrainArguments,
    images: &TrainingImages,
    device: &Device,
) -> Result<Network> {
    let [channels, height, width] = images.data.shape();
    if height != width {
        return Err(Failure::new(format!(
            "images of {height}x{width} pixels: {architecture} takes square ones; add --resize and --crop"
        )));
    }
    let classes = images.classes(arguments.classes);
    let dropout = if arguments.preset.drops() { DROPOUT } else { 0.0 };
    Ok(match architecture {
        Architecture::ResNet50 { width } => {
            let config = ResNet50Config::new(channels, height, classes).with_width(width);
            Network::ResNet50(config.with_dropout(dropout).init(device)?)
        }
        Architecture::DenseNet121 { growth } => {
            let config = DenseNet121Config::new(channels, height, classes).with_growth(growth);
            Network::DenseNet121(config.with_dropout(dropout).init(device)?)
        }
        Architecture::Cnn { .. } => architecture.init(channels, height, classes, device)?,
    })
}

/// Prepares the folder of the run, and returns the epoch of the checkpoint in it, if there is one.
fn prepared(folder: &Path, settings: &serde_json::Value, resume: bool) -> Result<Option<usize>> {
    let (name, file) = (folder.display(), folder.join("settings.json"));
    let fail = |why: String| Failure::new(format!("{name}: {why}"));
    if folder.exists() {
        if !resume {
            return Err(fail("a stopped training is kept here: add --resume, or remove the folder".into()));
        }
        let text = std::fs::read_to_string(&file).map_err(|error| fail(error.to_string()))?;
        let found: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| fail(format!("settings.json: {error}")))?;
        let differs = |(key, value): &(&String, &serde_json::Value)| found.get(key.as_str()) != Some(*value);
        if let Some((key, value)) = settings.as_object().and_then(|all| all.iter().find(differs)) {
            let was = found.get(key).cloned().unwrap_or_default();
            return Err(fail(format!(
                "the training that was stopped here has another setting: {key} was {was} and is {value}"
            )));
        }
        return Ok(last_checkpoint(folder));
    }
    std::fs::create_dir_all(folder).map_err(|error| fail(error.to_string()))?;
    std::fs::write(&file, settings.to_string()).map_err(|error| fail(error.to_string()))?;
    Ok(None)
}

/// The last epoch for which the files of model, optimizer and scheduler all exist.
fn last_checkpoint(folder: &Path) -> Option<usize> {
    let files = std::fs::read_dir(folder.join("checkpoint")).ok()?;
    let names: Vec<String> = files.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
    let epoch = |name: &String| name.strip_prefix("model-")?.strip_suffix(".bpk")?.parse().ok();
    let whole = |epoch: &usize| {
        ["optim", "scheduler"].iter().all(|part| names.contains(&format!("{part}-{epoch}.bpk")))
    };
    names.iter().filter_map(epoch).filter(whole).max()
}

impl Training {
    /// Prints what is about to happen.
    fn tell(&self, described: &str) -> Result<()> {
        let Self { images, schedule, done, .. } = self;
        let mut out = terminal::output();
        let words = format!(
            "{described}, {} images of {} and {} held out; epochs: {}, batch: {}, rate: {}, seed: {}",
            images.trained.len(),
            images.data.name(),
            images.held_out.len(),
            schedule.epochs,
            schedule.batch,
            schedule.rate,
            schedule.seed
        );
        terminal::hanging(&mut out, 2, &format!("Training: {words}"))?;
        if let Some(epoch) = done {
            writeln!(out, "Continues after epoch {epoch}")?;
        }
        out.flush()?;
        Ok(())
    }
}

/// The number of correctly classified images of the test split, for data sets that have one.
fn test_accuracy(arguments: &TrainArguments, network: &Network) -> Result<Option<(usize, usize)>> {
    let kind = arguments.source.dataset.as_deref().and_then(|name| name.parse::<DatasetKind>().ok());
    let (Some(kind), Some(folder), false) = (kind, &arguments.source.data, arguments.source.own) else {
        return Ok(None);
    };
    let test = Data::Images(Dataset::open(kind, folder, Split::Test)?);
    let forward = |network: &Network, images| network.forward(images);
    let scorer = Scorer::builder().device(&Device::flex()).precision(Precision::F32);
    let scorer = scorer.compile(network, forward, &test.shape())?;
    let mut right = 0;
    let all: Vec<usize> = (0..test.len()).collect();
    for indices in all.chunks(256) {
        let images: TensorData = test.tensor(indices, Precision::F32);
        for (logits, &index) in scorer.logits(images)?.iter().zip(indices) {
            let best = (0..logits.len()).fold(0, |best, k| if logits[k] > logits[best] { k } else { best });
            right += usize::from(test.label(index) == Some(best));
        }
    }
    Ok(Some((right, test.len())))
}

/// Metadata that describe how the weights were made.
fn metadata(
    arguments: &TrainArguments,
    schedule: &TrainingSchedule,
    accuracy: Option<(usize, usize)>,
) -> BTreeMap<String, String> {
    let dataset = arguments.source.dataset.clone().unwrap_or_else(|| "embedded".into());
    let mut all = BTreeMap::from([
        ("dataset".to_owned(), dataset),
        ("preset".to_owned(), arguments.preset.name().to_owned()),
        ("epochs".to_owned(), schedule.epochs.to_string()),
        ("batch".to_owned(), schedule.batch.to_string()),
        ("rate".to_owned(), schedule.rate.to_string()),
        ("seed".to_owned(), schedule.seed.to_string()),
    ]);
    if let Some((right, of)) = accuracy {
        all.insert("test accuracy".to_owned(), format!("{right} of {of}"));
    }
    all
}
