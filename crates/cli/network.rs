//! The network of a job, unless it is an ONNX file: its architecture and weights.

use std::path::Path;

use burn::tensor::Device;
use influence::Precision;
use influence_data::sample;
use influence_zoo::torchvision::{Published, TORCH_EPSILON, published};
use influence_zoo::weights::{self, Checkpoint};
use influence_zoo::{Architecture, Network};

use crate::arguments::RunArguments;
use crate::data::Data;
use crate::failure::{Failure, Result};

/// The width of the embedded network.
const EMBEDDED_WIDTH: usize = 8;

/// The number of channels of its images (grey).
const EMBEDDED_CHANNELS: usize = 1;

/// A network with its weights.
#[derive(Debug)]
pub(crate) struct LoadedNetwork {
    pub(crate) network: Network,
    /// Its description for output files.
    pub(crate) architecture: String,
    /// How it was read, as one line for people.
    pub(crate) report: String,
}

/// The requested network, on the CPU; it is captured there for every engine. If the names in the
/// weight file are torchvision's, the network is built to match the file.
pub(crate) fn load(arguments: &RunArguments, data: &Data, precision: Precision) -> Result<LoadedNetwork> {
    let device = &Device::flex();
    let precision = precision.dtype();
    let checkpoint = arguments.weights.as_deref().map(Checkpoint::open).transpose()?;
    let epsilon = epsilon(arguments.bn_eps)?;
    // Torchvision's and timm's networks, whose form the file determines.
    if let (Some(checkpoint), Some(path)) = (&checkpoint, &arguments.weights)
        && let Some(found) = published(checkpoint, data.shape(), epsilon, device)?
    {
        check_name(arguments, &found)?;
        let Published { network, name, form } = found;
        let (network, report) = weights::load(network, path.as_path(), precision, device)?;
        let architecture = format!("{name} in torchvision's form, BatchNorm epsilon {epsilon:e}");
        return Ok(LoadedNetwork { network, architecture, report: format!("{form}; {report}") });
    }
    // The networks known by name.
    if arguments.bn_eps.is_some() {
        return Err(Failure::new(
            "--bn-eps is for weights with torchvision's or timm's names: the networks known by name have the paper's \
             epsilon, 1e-3; leave it out",
        ));
    }
    let architecture = architecture(arguments, checkpoint.as_ref())?;
    let [channels, height, width] = data.shape();
    if checkpoint.is_none() && channels != EMBEDDED_CHANNELS {
        return Err(Failure::new(format!(
            "the embedded network is for grey images, and those of {} have {channels} x {height} x {width}: add \
             --weights FILE, or --network FILE.onnx",
            data.name()
        )));
    }
    if height != width {
        return Err(Failure::new(format!(
            "images of {height} x {width} pixels: the networks known by name take square ones"
        )));
    }
    // The number of classes comes from the data set if it defines one, otherwise from the last
    // layer of the weights.
    let own = || match &checkpoint {
        Some(checkpoint) => checkpoint.describe()?.classes,
        None => Checkpoint::open(sample::RESNET50W8_MNIST).ok()?.describe()?.classes,
    };
    let Some(classes) = data.classes().or_else(own) else {
        return Err(Failure::new(format!(
            "{} does not determine the number of classes, nor do the weights; name the network's file, as in \
             --network FILE.onnx",
            data.name()
        )));
    };
    let network = architecture.init(channels, height, classes, device)?;
    let (network, report) = match &arguments.weights {
        Some(path) => weights::load(network, path.as_path(), precision, device)?,
        None => weights::load(network, sample::RESNET50W8_MNIST, precision, device)?,
    };
    Ok(LoadedNetwork { network, architecture: architecture.to_string(), report: report.to_string() })
}

/// The epsilon that BatchNorm adds to the variance; weight files do not contain it.
fn epsilon(given: Option<f64>) -> Result<f64> {
    match given {
        Some(epsilon) if !(0.0..1.0).contains(&epsilon) => {
            Err(Failure::new(format!("--bn-eps {epsilon}: a number from 0 to 1 is needed, such as 1e-5")))
        }
        other => Ok(other.unwrap_or(TORCH_EPSILON)),
    }
}

/// Refuses a name or width that contradicts the file.
fn check_name(arguments: &RunArguments, found: &Published) -> Result<()> {
    if let Some(name) = arguments.network.as_deref().filter(|name| *name != found.name) {
        return Err(Failure::new(format!(
            "--network {name}: the file has the weights of a {} ({}): leave --network out, or name that one",
            found.name, found.form
        )));
    }
    match arguments.width {
        Some(_) => Err(Failure::new(
            "--width: weights with torchvision's or timm's names determine the width; leave it out",
        )),
        None => Ok(()),
    }
}

/// The requested network; without weights the embedded one; otherwise the network that the weight
/// file implies.
fn architecture(arguments: &RunArguments, checkpoint: Option<&Checkpoint<'_>>) -> Result<Architecture> {
    let embedded = Architecture::ResNet50 { width: EMBEDDED_WIDTH };
    let named = arguments.network.as_deref().map(str::parse::<Architecture>).transpose()?;
    let named = named.map(|named| arguments.width.map_or(named, |width| named.with_width(width)));
    match (named, checkpoint) {
        (Some(named), Some(_)) => Ok(named),
        (Some(named), None) if named == embedded => Ok(embedded),
        (Some(named), None) => {
            Err(Failure::new(format!("{named} needs its trained weights: add --weights FILE.safetensors")))
        }
        (None, None) if arguments.width.is_none_or(|width| width == EMBEDDED_WIDTH) => Ok(embedded),
        (None, None) => Err(Failure::new("--width without --network: name the network and its weights")),
        (None, Some(checkpoint)) => described(checkpoint, arguments.width),
    }
}

/// The network to which the names and shapes in a weight file belong.
fn described(checkpoint: &Checkpoint<'_>, width: Option<usize>) -> Result<Architecture> {
    let found = checkpoint.describe().and_then(|description| description.architecture());
    let found = found.ok_or_else(|| unknown(checkpoint))?;
    Ok(width.map_or(found, |width| found.with_width(width)))
}

/// The known networks, with prefixes of names that are characteristic of their files.
const KNOWN: [(&str, &[&str]); 4] = [
    ("torchvision's resnets", &["conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.", "fc."]),
    (
        "torchvision's densenets",
        &["features.conv0", "features.norm", "features.denseblock", "features.transition"],
    ),
    ("the paper's resnet50", &["stages.0.0.conv", "stages.0.0.bn", "stages.0.0.short"]),
    ("the paper's densenet121", &["body."]),
];

/// The error for a file that matches no network: some of its names, the most similar network, and
/// the remedy.
fn unknown(checkpoint: &Checkpoint<'_>) -> Failure {
    const SEEN: usize = 3;
    let tensors = checkpoint.tensors();
    let names = tensors.iter().map(|tensor| tensor.name.as_str());
    let seen: Vec<&str> = names.filter(|name| !name.ends_with("num_batches_tracked")).take(SEEN).collect();
    let shared = |starts: &[&str]| {
        tensors.iter().filter(|tensor| starts.iter().any(|start| tensor.name.starts_with(start))).count()
    };
    let nearest =
        KNOWN.into_iter().map(|(name, starts)| (shared(starts), name)).max_by_key(|(shared, _)| *shared);
    let nearest = match nearest {
        Some((shared, name)) if shared > 0 => {
            format!("the most similar are {name}, with {shared} of its names")
        }
        _ => "none of its names is like those of a known network".to_owned(),
    };
    Failure::new(format!(
        "{}: the weights of an unknown network: {} tensors ({}, ...); {nearest}; export the network as an \
         ONNX file (torch.onnx.export) and name it with --network FILE.onnx",
        Path::new(checkpoint.file()).display(),
        tensors.len(),
        seen.join(", ")
    ))
}
