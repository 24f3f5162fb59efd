//! The grammar of the command line, as text: what the words mean is decided in [`crate::job`].

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::jacobian::JacobianArguments;
use crate::layers_arguments::LayersArguments;
use crate::map_arguments::MapArguments;

/// How sensitive is a trained deep network? First-order influence (Shu & Zhu, AAAI-19).
///
/// Without a command: scores the embedded sample, 100 MNIST test images with a small trained ResNet50, and shows a table.
#[derive(Debug, Parser)]
#[command(name = "influence", version, max_term_width = 110)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Influence of every image: a table on the terminal, or a row an image in a file.
    #[command(after_help = EXAMPLES)]
    Score(Box<ScoreArguments>),
    /// Which layers of the network an answer hangs on: the influence of each, over the images, as a table and a plot.
    #[command(after_help = crate::layers_arguments::EXAMPLES)]
    Layers(Box<LayersArguments>),
    /// Where an image is sensitive: the influence of every small window, as files and pictures; or whether it holds, as a table.
    #[command(after_help = crate::map_arguments::EXAMPLES)]
    Map(Box<MapArguments>),
    /// What the measure is made of: the Jacobian of the logits at every image, or its Gram matrices, in a file.
    #[command(after_help = crate::jacobian::EXAMPLES)]
    Jacobian(Box<JacobianArguments>),
}

const EXAMPLES: &str = "\
Examples:
  influence score
      the embedded network on the embedded images
  influence score --network densenet121 --weights densenet121-mnist.safetensors \\
      --dataset mnist --data data/mnist --images 0..100 --out scores.csv
  influence score --network resnet50 --width 8 --weights w8.pt --dataset mnist --data data/mnist \\
      --objective predicted --filter tikhonov:100 --precision f64 --out scores.jsonl
  influence score --objective margin
      how easily the gap between the two likeliest classes changes
  influence score --perturb family:rotation
      how sensitive to turning the image, and at which angle
  influence score --perturb layers --images 0..10 --filter tikhonov:1:relative --out layers.csv
      how sensitive to each layer's weights: a row a layer and image, group being the layer
  influence score --network net.onnx --dataset arrays --data samples.npz --precision f64
      any network, and samples of any shape
  influence score --perturb parameters --images 7 --direction worst.safetensors
      the change of the weights that changes the answer to image 7 most

Columns of the files: index, label, predicted, probability (of the objective's class; of the predicted one for entropy
and margin), objective, perturbation, group, influence, log10_influence (empty for 0), rank, bound, reach,
jacobian_norm, odds, entropy, margin, cross_entropy, ambiguous, fisher_norm, fisher_trace, direction (of a family: the
most influential setting, in the units of its members, at Fisher length 1). A whole input at full rank
has influence = bound, which is (1 - P) / P for -log P: look at reach and rank first.";

#[derive(Debug, Default, Args)]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// What is perturbed: input; parameters (the whole network), layers or tensors (each by itself), both (input and parameters); or family:NAME, of affine, translation, rotation, zoom, shear, brightness, contrast, gamma, blur
    /// and channels, or family:FILE.safetensors with directions of your own [default: input]
    #[arg(long, value_name = "WHAT")]
    pub(crate) perturb: Option<String>,
    /// Write all rows to FILE.csv or FILE.jsonl instead of a table to the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Of one image, with --perturb parameters: no scores, but the most influential direction in parameter space, to FILE.safetensors
    /// with the network's names
    #[arg(long, value_name = "FILE")]
    pub(crate) direction: Option<PathBuf>,
}

/// What every command takes: the network, the images, and how to run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArguments {
    /// resnet50, densenet121 or cnn, or FILE.onnx [default: what the weights are of; without weights the embedded resnet50 of
    /// width 8]
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Width of the network, growth for densenet121 [default: the paper's; without --network that of the weights]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    /// Trained weights with PyTorch's names: .safetensors, or a state_dict in .pt or .pth (no code in it is run)
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Of an ONNX file with several outputs, the name of the logits; any inner result will do
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// mnist or cifar10; or arrays, samples of any shape in a file [default: the embedded images]
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Folder with the data set's official files; of arrays FILE.npz or .safetensors with images [N, ...] and labels [N], or FILE.npy
    /// with images
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// train or test [default: test]
    #[arg(long, value_name = "SPLIT")]
    pub(crate) split: Option<String>,
    /// Which images of the split, from 0, ranges half-open: 0..8,12 or ..8 or 5.. or all [default: all]
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    pub(crate) images: Option<String>,
    /// -log P of: label, predicted, or class:N; or of the prediction its entropy or margin [default: label]
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Option<String>,
    /// exact[:TOL], paper[:EPS[:RANK_EPS]], tikhonov:LAMBDA, or of parameters tikhonov:LAMBDA:relative, whose budget is on the
    /// perturbation's size by that of what is perturbed [default: exact]
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// cpu (our own kernels) or flex (Burn), on the processor; in builds with the cargo feature also ndarray, wgpu[:cpu|:N], vulkan[:cpu|:N], cuda[:N]
    /// [default: cpu]
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// f32 or f64 [default: f32]
    #[arg(long, value_name = "TYPE")]
    pub(crate) precision: Option<String>,
    /// Images that may run together on a GPU; on a processor all threads are kept busy whatever it is [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// What a run may take, such as 2GiB: bounds the batch on a GPU, and on a processor the images that run side by side
    /// [default: 2GiB on a GPU]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Threads; results do not depend on it [default: one a core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}
