//! The grammar of the command line. Values remain text here; [`crate::job`] interprets them.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::compare_arguments::CompareArguments;
use crate::failure::{Failure, Result};
use crate::jacobian::JacobianArguments;
use crate::layers_arguments::LayersArguments;
use crate::logits::CheckArguments;
use crate::map_arguments::MapArguments;
use crate::onnx;
use crate::out::RowDestination;
use crate::outliers_arguments::OutliersArguments;
use crate::tally::Top;
use crate::train_arguments::TrainArguments;

/// How sensitive is a trained deep network? First-order influence (Shu & Zhu, AAAI-19)
///
/// Without a command: scores the embedded sample, 100 MNIST test images with a small trained
/// ResNet50, and shows a table.
#[derive(Debug, Parser)]
#[command(name = "influence", version, max_term_width = 80)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Influence of every image: a table on the terminal, or one row per image in a file.
    #[command(after_long_help = EXAMPLES)]
    Score(Box<ScoreArguments>),
    /// Which layers of the network a prediction depends on: the influence of each layer, over the
    /// images, as a table and a plot.
    #[command(after_long_help = crate::layers_arguments::EXAMPLES)]
    Layers(Box<LayersArguments>),
    /// Where an image is sensitive: the influence of every small window, as files and pictures; or,
    /// with --check, a test of such maps, as a table.
    #[command(after_long_help = crate::map_arguments::EXAMPLES)]
    Map(Box<MapArguments>),
    /// Compares two sets of values: of training and test images, or of two networks.
    #[command(after_long_help = crate::compare_arguments::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    Compare(Box<CompareArguments>),
    /// Which images do not match their label: a ranking, files for cleaning data, and how well each
    /// score finds images known to be bad.
    #[command(after_long_help = crate::outliers_arguments::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("objective", hidden))]
    Outliers(Box<OutliersArguments>),
    /// Writes what the measure is computed from: the Jacobian of the logits at every image, or its
    /// Gram matrices.
    #[command(after_long_help = crate::jacobian::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("tail", hidden))]
    #[command(mut_arg("filter", hidden))]
    #[command(mut_arg("objective", hidden))]
    Jacobian(Box<JacobianArguments>),
    /// Checks that the network is the intended one: compares its logits with logits from PyTorch.
    #[command(after_long_help = crate::logits::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("tail", hidden))]
    #[command(mut_arg("filter", hidden))]
    #[command(mut_arg("objective", hidden))]
    Check(Box<CheckArguments>),
    /// Trains one of the known networks (in builds with the feature train) and writes its weights.
    #[command(after_long_help = crate::train_arguments::EXAMPLES)]
    #[command(mut_arg("dataset", brief))]
    #[command(mut_arg("data", brief))]
    #[command(mut_arg("labels", brief))]
    #[command(mut_arg("own", brief))]
    Train(Box<TrainArguments>),
    /// Merges the parts of a run made with --shard, to the same bytes as one whole run.
    Merge(MergeArguments),
    /// Prints command-line completions for a shell.
    Completions(CompletionsArguments),
    /// Prints the manual page.
    Man,
}

/// Hides an argument that a command has no use for and refuses with the reason.
fn hidden(argument: clap::Arg) -> clap::Arg {
    argument.hide(true)
}

/// Shows only the first line of an argument's help.
fn brief(argument: clap::Arg) -> clap::Arg {
    argument.long_help(None)
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The parts, in any order: files, or folders of maps
    #[arg(required = true, value_name = "SHARD")]
    pub(crate) shards: Vec<PathBuf>,
    /// The result: a file in the parts' format, or a new folder for maps
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    pub(crate) shell: clap_complete::Shell,
}

const EXAMPLES: &str = "\
Examples:
  influence score
      the embedded network on the embedded images
  influence score --network densenet121 \\
      --weights densenet121-mnist.safetensors \\
      --dataset mnist --data data/mnist --images 0..100 --out scores.csv
  influence score --weights w8.pt --dataset mnist --data data/mnist \\
      --filter tikhonov:100 --precision f64 --out scores.parquet
  influence score --objective margin
      how easily the gap between the two most likely classes changes
  influence score --perturb family:rotation --top 5
      how sensitive to rotating the image, and in which direction
  influence score --perturb layers --images 0..10 \\
      --filter tikhonov:1:relative --out layers.csv
      how sensitive to each layer's weights: one row per layer and image
  influence score --weights resnet18.pt --dataset folder --data val \\
      --resize 256 --crop 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      torchvision's weights, a folder of pictures: docs/from-pytorch.md
  influence score --network net.onnx --dataset arrays --data samples.npz
      any network, and samples of any shape
  influence score --weights resnet50.pt --dataset folder --data val --crop 224 \\
      --tail 0.001
      1000 classes: the least likely, with 0.001 or less in total, are merged
  influence score --perturb parameters --images 7 --direction worst.safetensors
      the change of the weights that changes the prediction of image 7 most
  influence score --dataset cifar10 --data data/cifar-10-batches-bin \\
      --weights w.safetensors --out part-2.csv --shard 2/8 --resume
      part 2 of 8, resumed where it stopped; influence merge joins the parts
  influence score --perturb family:rotation --report rotation.html
      a page with every value, the odds, and what the numbers mean
  influence score --out - | head -3

Columns: index, label, predicted, probability (of the objective's class; of the
predicted one for entropy and margin), objective, perturbation, group (the
layer, tensor or family), influence, log10_influence (empty for 0), rank,
bound, reach, jacobian_norm, odds, entropy, margin, cross_entropy, ambiguous,
fisher_norm, fisher_trace, direction (for a family: its most influential
setting as JSON, in the units of its members, at Fisher length 1); with --tail
at_least (a lower bound where influence is an upper one), merged_classes,
merged_probability; and the settings of the run: filter, network, weights,
dataset, split, precision, engine, and how the images were prepared, if they
were (in Parquet the settings are in the metadata). At full rank the influence
of the whole input equals the bound, which is (1 - P) / P for -log P: look at
reach and rank first.

A run keeps FILE.partial and FILE.journal until FILE is complete; --resume
continues from them.";

#[derive(Debug, Default, Args)]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// input, parameters, layers, tensors, both or family:NAME [default: input]
    ///
    /// What is perturbed: input; parameters (the whole network); layers or tensors (each
    /// separately); both (input and parameters); family:NAME, where NAME is affine, translation,
    /// rotation, zoom, shear, brightness, contrast, gamma, blur or channels; or
    /// family:FILE.safetensors with your own directions.
    #[arg(long, value_name = "WHAT")]
    pub(crate) perturb: Option<String>,
    #[command(flatten)]
    pub(crate) out: OutArguments,
    /// Write the most influential change of the weights instead of scores
    ///
    /// For one image, with --perturb parameters: writes the most influential direction in parameter
    /// space to FILE.safetensors, under the network's names, and no scores.
    #[arg(long, value_name = "FILE")]
    pub(crate) direction: Option<PathBuf>,
}

/// Where rows are written, for every command that makes rows.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OutArguments {
    /// FILE.csv, .jsonl or .parquet, or - for standard output, instead of a table
    ///
    /// Rows are written as they are computed. A pipe or a device takes csv or jsonl.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Format of the rows [default: by the file's extension; csv in a pipe]
    #[arg(long, value_name = "FORMAT", value_parser = ["csv", "jsonl", "parquet"])]
    pub(crate) format: Option<String>,
    /// Resume this run where it was stopped
    ///
    /// Resumes the stopped run that was writing this output. The result has the same bytes as an
    /// uninterrupted run. Starts from the beginning if there is no stopped run.
    #[arg(long)]
    pub(crate) resume: bool,
    /// Write an HTML page: what was run, plots, tables, and what the numbers mean
    ///
    /// A single self-contained file that loads nothing from elsewhere.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Number of rows in the table [default: 20; all for layers]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// Column by which to sort the table, largest first [default: influence; depth for layers]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) sort: Option<String>,
}

impl OutArguments {
    /// The destination, if it can be written.
    pub(crate) fn destination(&self) -> Result<RowDestination> {
        let destination = RowDestination::parse(self.out.as_deref(), self.format.as_deref())?;
        if self.resume && !matches!(destination, RowDestination::File(..)) {
            return Err(Failure::new("--resume continues a file: add --out FILE"));
        }
        Ok(destination)
    }

    /// Which rows a table shows; `None` if there is no table.
    pub(crate) fn top(&self, destination: &RowDestination, most: usize) -> Result<Option<Top>> {
        if !destination.is_table() {
            let flag = self.top.map(|_| "--top").or(self.sort.as_ref().map(|_| "--sort"));
            return flag.map_or(Ok(None), |flag| {
                Err(Failure::new(format!(
                    "{flag} is for the table: files have all rows in the order of the images"
                )))
            });
        }
        let column = self.sort.as_deref().unwrap_or("influence");
        let top = Top::new(column, self.top.unwrap_or(most));
        top.map(Some).ok_or_else(|| Failure::new(format!("--sort {column}: there is no such column")))
    }
}

/// Where the samples come from, for every command that reads some, `influence train` too.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SourceArguments {
    /// mnist, fashion-mnist, cifar10, cifar100, folder, parquet or arrays [default: embedded]
    ///
    /// cifar100-coarse has CIFAR-100's coarse labels. folder: pictures (PNG, JPEG, WebP), with a
    /// sub-folder for each class. parquet: tables with encoded pictures and labels. arrays: samples
    /// of any shape in one file.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Folder with the data set's official files or with pictures, or a file
    ///
    /// Arrays: FILE.npz or FILE.safetensors with images [N, ...] and, for objectives of the label,
    /// labels [N]; or FILE.npy with images. Elements are float64, float32, float16 or uint8.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Labels of a folder's pictures: a .csv with columns path and label
    ///
    /// Paths are relative to the folder. Labels are numbers from 0, or names, which are numbered in
    /// alphabetical order.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Resize pictures: N for the shorter side, or HxW
    #[arg(long, value_name = "SIZE")]
    pub(crate) resize: Option<String>,
    /// Crop the centre of pictures: N for a square, or HxW
    #[arg(long, value_name = "SIZE")]
    pub(crate) crop: Option<String>,
    /// Convert pictures to one grey channel
    #[arg(long)]
    pub(crate) grey: bool,
    /// The files are your own, in the data set's format but of other sizes
    ///
    /// CIFAR-10 batches of any number of images, IDX images of any height and width. Without this
    /// flag only the official sizes are accepted, because images could get wrong numbers.
    #[arg(long)]
    pub(crate) own: bool,
}

/// The arguments of every command: the network, the images, and how to run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArguments {
    /// resnet50, densenet121 or cnn, or FILE.onnx [default: inferred from the weights]
    ///
    /// Without weights, the embedded resnet50 of width 8. For weights with torchvision's or timm's
    /// names, resnet18 to resnet152 and densenet121 to densenet201, the network is inferred.
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Width of the network, growth for densenet121 [default: the weights' or paper's]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    /// Trained weights: .safetensors, or a state_dict in .pt or .pth
    ///
    /// With PyTorch's names. No code in a .pt file is executed.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Epsilon of BatchNorm, for torchvision's and timm's weights [default: 1e-5]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) bn_eps: Option<f64>,
    /// Name of the logits in an ONNX file with several outputs
    ///
    /// It may also be an intermediate result of shape [N, K].
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// Initializers of an ONNX file that were not trained and are not perturbed, by comma
    ///
    /// A * stands for any letters: --frozen 'pos_embed,*.table'.
    #[arg(long, value_name = "NAMES")]
    pub(crate) frozen: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArguments,
    /// Normalisation of the network's training: mean per channel, as 0.485,0.456,0.406
    ///
    /// (x - mean) / std becomes the network's first layer, so that pixels in [0, 1] are perturbed.
    /// A single number applies to all channels.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) mean: Option<String>,
    /// Normalisation of the network's training: standard deviation per channel
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) std: Option<String>,
    /// If a picture cannot be read: stop, or skip it and print its name [default: stop]
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "skip"])]
    pub(crate) on_error: Option<String>,
    /// Split of the data set [default: test]
    #[arg(long, value_name = "SPLIT", value_parser = ["train", "test"])]
    pub(crate) split: Option<String>,
    /// Images of the split: 0..8,12 or 5.. or all or @FILE [default: all]
    ///
    /// Images are numbered from 0 and ranges are half-open. Parts form a union in the given order,
    /// in which an image counts once. @FILE stands for the list in a text file, with spaces, commas
    /// or newlines between its parts and comments after #.
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    pub(crate) images: Option<String>,
    /// Part I of N of these images, from 1, for influence merge
    ///
    /// auto/N takes I from SLURM_ARRAY_TASK_ID (from 1) or JOB_COMPLETION_INDEX (from 0). auto also
    /// takes N, from a Slurm array with tasks 1 to N.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,
    /// label, predicted, class:N, entropy or margin [default: label]
    ///
    /// -log P of the label, of the predicted class or of class N; or entropy or margin of the
    /// prediction.
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Option<String>,
    /// exact[:TOL], paper[:EPS[:RANK_EPS]] or tikhonov:LAMBDA[:relative] [default: exact]
    ///
    /// For parameters, tikhonov:LAMBDA:relative measures the size of a perturbation relative to
    /// that of the perturbed weights.
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Merge classes with a total probability of at most EPS: EPS or off [default: off]
    ///
    /// For networks of hundreds of classes: reverse passes are needed only for the classes that are
    /// kept. The influence is then an upper bound, never above bound, and at_least is a lower
    /// bound. For objectives of a class and for margin, with the filters exact and tikhonov.
    #[arg(long, value_name = "EPS")]
    pub(crate) tail: Option<String>,
    /// cpu, flex, ndarray, wgpu[:cpu|:N], vulkan[:cpu|:N] or cuda[:N] [default: cpu]
    ///
    /// cpu (our own kernels) and flex (Burn's) run on the CPU and are in every build; the others
    /// come with the cargo feature of their name.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// Precision of the computation [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f64"])]
    pub(crate) precision: Option<String>,
    /// Largest number of images that run together on a GPU [default: 32]
    ///
    /// On a CPU it has no effect: all threads are kept busy.
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Memory limit of the run, such as 2GiB [default: 2GiB on a GPU]
    ///
    /// Limits the batch on a GPU, and on a CPU the number of images that run in parallel.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Number of threads; results do not depend on it [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl RunArguments {
    /// These arguments for another network: an ONNX file, or weights from which the network is
    /// inferred. `threads` is unset, because the thread pool exists already.
    pub(crate) fn against(&self, path: &Path) -> Self {
        let file = path.to_str().filter(|name| onnx::is_file(name));
        Self {
            network: file.map(str::to_owned),
            weights: if file.is_some() { None } else { Some(path.to_owned()) },
            output: if file.is_some() { self.output.clone() } else { None },
            frozen: if file.is_some() { self.frozen.clone() } else { None },
            width: None,
            threads: None,
            ..self.clone()
        }
    }

    /// The ONNX file of the network, if it is one.
    pub(crate) fn onnx_file(&self) -> Option<&Path> {
        self.network.as_deref().filter(|name| onnx::is_file(name)).map(Path::new)
    }

    /// The file of the network or of its weights.
    pub(crate) fn network_file(&self) -> Option<&Path> {
        self.onnx_file().or(self.weights.as_deref())
    }
}
