//! The grammar of the command line, as text: what the words mean is decided in [`crate::job`].

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::compare_arguments::CompareArguments;
use crate::failure::{Failure, Result};
use crate::jacobian::JacobianArguments;
use crate::layers_arguments::LayersArguments;
use crate::logits::CheckArguments;
use crate::map_arguments::MapArguments;
use crate::onnx;
use crate::out::Destination;
use crate::outliers_arguments::OutliersArguments;
use crate::tally::Top;
use crate::train_arguments::TrainArguments;

/// How sensitive is a trained deep network? First-order influence (Shu & Zhu, AAAI-19)
///
/// Without a command: scores the embedded sample, 100 MNIST test images with a small trained
/// ResNet50, and shows a table.
#[derive(Debug, Parser)]
#[command(name = "influence", version, max_term_width = 80)]
pub(crate) struct Program {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Influence of every image: a table on the terminal, or a row an image in a file.
    #[command(after_long_help = EXAMPLES)]
    Score(Box<ScoreArguments>),
    /// Which layers of the network an answer hangs on: the influence of each, over the images, as a
    /// table and a plot.
    #[command(after_long_help = crate::layers_arguments::EXAMPLES)]
    Layers(Box<LayersArguments>),
    /// Where an image is sensitive: the influence of every small window, as files and pictures; or
    /// whether it holds, as a table.
    #[command(after_long_help = crate::map_arguments::EXAMPLES)]
    Map(Box<MapArguments>),
    /// Two sets of values beside each other: of the training and the test images, or of two networks.
    #[command(after_long_help = crate::compare_arguments::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    Compare(Box<CompareArguments>),
    /// Which images do not go with their label: a ranking, files for cleaning data, and how well each
    /// score finds those that are known to be bad.
    #[command(after_long_help = crate::outliers_arguments::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("objective", hidden))]
    Outliers(Box<OutliersArguments>),
    /// What the measure is made of: the Jacobian of the logits at every image, or its Gram matrices,
    /// in a file.
    #[command(after_long_help = crate::jacobian::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("tail", hidden))]
    #[command(mut_arg("filter", hidden))]
    #[command(mut_arg("objective", hidden))]
    Jacobian(Box<JacobianArguments>),
    /// Whether the network is the one you know: its logits against those saved from PyTorch.
    #[command(after_long_help = crate::logits::EXAMPLES)]
    #[command(mut_arg("shard", hidden))]
    #[command(mut_arg("tail", hidden))]
    #[command(mut_arg("filter", hidden))]
    #[command(mut_arg("objective", hidden))]
    Check(Box<CheckArguments>),
    /// Trains one of the known networks, in builds with the feature train: weights that every command reads.
    #[command(after_long_help = crate::train_arguments::EXAMPLES)]
    Train(Box<TrainArguments>),
    /// Puts the parts of a run together that --shard has made: the bytes of the run in one piece.
    Merge(MergeArguments),
    /// Completions of the command line for a shell, on standard output.
    Completions(CompletionsArguments),
    /// The manual page, on standard output.
    Man,
}

/// Of an argument that a command has no use for, and refuses with the reason.
fn hidden(argument: clap::Arg) -> clap::Arg {
    argument.hide(true)
}

#[derive(Debug, Args)]
pub(crate) struct MergeArguments {
    /// The parts, in any order: files, or folders of maps
    #[arg(required = true, value_name = "SHARD")]
    pub(crate) shards: Vec<PathBuf>,
    /// The whole: a file of the parts' format, or a new folder for maps
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
  influence score --network densenet121 --weights densenet121-mnist.safetensors \
      --dataset mnist --data data/mnist --images 0..100 --out scores.csv
  influence score --weights w8.pt --dataset mnist --data data/mnist \
      --filter tikhonov:100 --precision f64 --out scores.parquet
  influence score --objective margin
      how easily the gap between the two likeliest classes changes
  influence score --perturb family:rotation --top 5
      how sensitive to turning the image, and at which angle
  influence score --perturb layers --images 0..10 \
      --filter tikhonov:1:relative --out layers.csv
      how sensitive to each layer's weights: a row a layer and image
  influence score --weights resnet18.pt --dataset folder --data val --resize 256 \
      --crop 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
      torchvision's weights, a folder of pictures: docs/from-pytorch.md
  influence score --network net.onnx --dataset arrays --data samples.npz
      any network, and samples of any shape
  influence score --weights resnet50.pt --dataset folder --data val --crop 224 \
      --tail 0.001
      1000 classes: those that together carry 0.001 or less count as one
  influence score --perturb parameters --images 7 --direction worst.safetensors
      the change of the weights that changes the answer to image 7 most
  influence score --dataset cifar10 --data data/cifar-10-batches-bin \
      --weights w.safetensors --out part-2.csv --shard 2/8 --resume
      part 2 of 8, from where it was stopped; influence merge puts parts together
  influence score --perturb family:rotation --report rotation.html
      a page with every value beside the odds, and what the numbers mean
  influence score --out - | head -3

Columns: index, label, predicted, probability (of the objective's class; of the
predicted one for entropy and margin), objective, perturbation, group (the
layer, tensor or family), influence, log10_influence (empty for 0), rank,
bound, reach, jacobian_norm, odds, entropy, margin, cross_entropy, ambiguous,
fisher_norm, fisher_trace, direction (of a family: the most influential
setting, JSON, in the units of its members, at Fisher length 1); with --tail
at_least (a lower bound where influence is an upper one), merged_classes,
merged_probability; and what made them: filter, network, weights, dataset, split, precision, engine, and the
preparation of images where there was one (of Parquet in the metadata). A whole
input at full rank has influence = bound, which is (1 - P) / P for -log P: look
at reach and rank first.

A run keeps FILE.partial and FILE.journal until FILE is complete; --resume goes
on with them.";

#[derive(Debug, Default, Args)]
pub(crate) struct ScoreArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    /// input, parameters, layers, tensors, both or family:NAME [default: input]
    ///
    /// What is perturbed: input; parameters (the whole network), layers or tensors (each by
    /// itself), both (input and parameters); or family:NAME, of affine, translation, rotation,
    /// zoom, shear, brightness, contrast, gamma, blur and channels, or family:FILE.safetensors with
    /// directions of your own.
    #[arg(long, value_name = "WHAT")]
    pub(crate) perturb: Option<String>,
    #[command(flatten)]
    pub(crate) out: OutArguments,
    /// No scores: the most influential change of the weights, as a file
    ///
    /// Of one image, with --perturb parameters: no scores, but the most influential direction in
    /// parameter space, to FILE.safetensors with the network's names.
    #[arg(long, value_name = "FILE")]
    pub(crate) direction: Option<PathBuf>,
}

/// Where rows go, of every command that makes rows.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct OutArguments {
    /// FILE.csv, .jsonl or .parquet, or - for standard output, instead of a table
    ///
    /// Rows are written as they come. A pipe or a device takes csv or jsonl as well.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The rows' format, whatever the name [default: by its ending; csv in a pipe]
    #[arg(long, value_name = "FORMAT", value_parser = ["csv", "jsonl", "parquet"])]
    pub(crate) format: Option<String>,
    /// Go on where this run was stopped
    ///
    /// Goes on with the run that was stopped in writing this output, to the same bytes as one in
    /// one piece; from the beginning where there is none.
    #[arg(long)]
    pub(crate) resume: bool,
    /// A page for a browser: what was run, plots, tables, and what the numbers mean
    ///
    /// One file that holds everything and fetches nothing.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// How many rows the table shows [default: 20; of layers all]
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// The column by which the table is sorted, largest first [default: influence; of layers depth]
    #[arg(long, value_name = "COLUMN")]
    pub(crate) sort: Option<String>,
}

impl OutArguments {
    /// The place, if something can be written there.
    pub(crate) fn destination(&self) -> Result<Destination> {
        let destination = Destination::parse(self.out.as_deref(), self.format.as_deref())?;
        if self.resume && !matches!(destination, Destination::File(..)) {
            return Err(Failure::new("--resume goes on with a file: add --out FILE"));
        }
        Ok(destination)
    }

    /// Which rows a table shows; nothing where there is none.
    pub(crate) fn top(&self, destination: &Destination, most: usize) -> Result<Option<Top>> {
        if !destination.is_table() {
            let flag = self.top.map(|_| "--top").or(self.sort.as_ref().map(|_| "--sort"));
            return flag.map_or(Ok(None), |flag| {
                Err(Failure::new(format!(
                    "{flag} is of the table: files have all rows in the order of the images"
                )))
            });
        }
        let column = self.sort.as_deref().unwrap_or("influence");
        let top = Top::new(column, self.top.unwrap_or(most));
        top.map(Some).ok_or_else(|| Failure::new(format!("--sort {column}: there is no such column")))
    }
}

/// What every command takes: the network, the images, and how to run.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArguments {
    /// resnet50, densenet121 or cnn, or FILE.onnx [default: what the weights are of]
    ///
    /// Without weights the embedded resnet50 of width 8. Weights with torchvision's or timm's names
    /// tell their network themselves, resnet18 to resnet152 and densenet121 to densenet201.
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Width of the network, growth for densenet121 [default: the weights' or paper's]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    /// Trained weights: .safetensors, or a state_dict in .pt or .pth
    ///
    /// With PyTorch's names. No code in a .pt file is run.
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// What BatchNorm adds to the variance, of torchvision's and timm's weights [default: 1e-5]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) bn_eps: Option<f64>,
    /// Of an ONNX file with several outputs, the name of the logits
    ///
    /// Any inner result of shape [N, K] will do.
    #[arg(long, value_name = "NAME")]
    pub(crate) output: Option<String>,
    /// Of an ONNX file, initializers that were not trained and are not perturbed, by comma
    ///
    /// A * stands for any letters: --frozen 'pos_embed,*.table'.
    #[arg(long, value_name = "NAMES")]
    pub(crate) frozen: Option<String>,
    /// mnist, fashion-mnist, cifar10, cifar100, folder, parquet or arrays [default: embedded]
    ///
    /// cifar100-coarse has CIFAR-100's coarse labels. folder is pictures (PNG, JPEG, WebP), with a
    /// sub-folder for each class; parquet is tables with encoded pictures and labels; arrays are
    /// samples of any shape in one file.
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Folder with the data set's official files or with pictures, or a file
    ///
    /// Arrays: FILE.npz or FILE.safetensors with images [N, ...] and, for objectives of the label,
    /// labels [N]; or FILE.npy with images. Numbers are float64, float32, float16 or uint8.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Labels of a folder's pictures: a .csv with columns path and label
    ///
    /// Paths are below the folder. Labels are numbers from 0, or names, numbered in their order.
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Size to which pictures are brought: N for the shorter side, or HxW
    #[arg(long, value_name = "SIZE")]
    pub(crate) resize: Option<String>,
    /// What is kept of the middle of pictures: N for a square, or HxW
    #[arg(long, value_name = "SIZE")]
    pub(crate) crop: Option<String>,
    /// Pictures have one channel instead of red, green and blue
    #[arg(long)]
    pub(crate) grey: bool,
    /// What the network is used to: the mean of each channel, as 0.485,0.456,0.406
    ///
    /// (x - mean) / std becomes the network's first layer, so that perturbations are those of pixels
    /// in [0, 1]. One number is of all channels.
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) mean: Option<String>,
    /// What it is used to: the standard deviation of each channel
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub(crate) std: Option<String>,
    /// Of a picture that cannot be read: stop, or skip it by name [default: stop]
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "skip"])]
    pub(crate) on_error: Option<String>,
    /// The files are your own, in the data set's format but of other sizes
    ///
    /// CIFAR-10 batches of any number of images, IDX images of any height and width. Without this
    /// flag other sizes than the official ones are refused, since images would get wrong numbers.
    #[arg(long)]
    pub(crate) own: bool,
    /// Which half of the data set [default: test]
    #[arg(long, value_name = "SPLIT", value_parser = ["train", "test"])]
    pub(crate) split: Option<String>,
    /// Images of the split: 0..8,12 or 5.. or all or @FILE [default: all]
    ///
    /// Numbers count from 0 and ranges are half-open; parts are a union, in their order, in which
    /// an image counts once. @FILE stands for the list in a text file, with spaces, commas or line
    /// ends between its parts and comments behind #.
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    pub(crate) images: Option<String>,
    /// Part I of N of these images, from 1, for influence merge
    ///
    /// auto/N takes I from SLURM_ARRAY_TASK_ID (from 1) or JOB_COMPLETION_INDEX (from 0). auto
    /// takes N as well, from a Slurm array that is 1 to N.
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<String>,
    /// label, predicted, class:N, entropy or margin [default: label]
    ///
    /// -log P of the label, of the class predicted or of class N; or of the prediction its entropy
    /// or margin.
    #[arg(long, value_name = "OBJECTIVE")]
    pub(crate) objective: Option<String>,
    /// exact[:TOL], paper[:EPS[:RANK_EPS]] or tikhonov:LAMBDA[:relative] [default: exact]
    ///
    /// Of parameters, tikhonov:LAMBDA:relative has its budget on the perturbation's size by that of
    /// what is perturbed.
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Merge classes that carry at most EPS together: EPS or off [default: off]
    ///
    /// For networks of hundreds of classes: as many reverse passes as classes are kept. The
    /// influence is then an upper bound, never above bound, and at_least a lower one. For
    /// objectives of a class and margin, by the filters exact and tikhonov.
    #[arg(long, value_name = "EPS")]
    pub(crate) tail: Option<String>,
    /// cpu, flex, ndarray, wgpu[:cpu|:N], vulkan[:cpu|:N] or cuda[:N] [default: cpu]
    ///
    /// cpu (our own kernels) and flex (Burn's) run on the processor and are in every build; the
    /// others come with the cargo feature of their name.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) engine: Option<String>,
    /// What the network computes in [default: f32]
    #[arg(long, value_name = "TYPE", value_parser = ["f32", "f64"])]
    pub(crate) precision: Option<String>,
    /// Images that may run together on a GPU [default: 32]
    ///
    /// On a processor all threads are kept busy whatever it is.
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// What a run may take, such as 2GiB [default: 2GiB on a GPU]
    ///
    /// Bounds the batch on a GPU, and on a processor the images that run side by side.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Threads; results do not depend on it [default: one a core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl RunArguments {
    /// The same for another network: an ONNX file, or weights that tell theirs. The pool of threads is
    /// there already.
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

    /// The ONNX file that is the network, if one is.
    pub(crate) fn onnx_file(&self) -> Option<&Path> {
        self.network.as_deref().filter(|name| onnx::is_file(name)).map(Path::new)
    }

    /// The file that the network or its weights are in.
    pub(crate) fn network_file(&self) -> Option<&Path> {
        self.onnx_file().or(self.weights.as_deref())
    }
}
