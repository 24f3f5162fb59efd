//! The arguments of `influence train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::arguments::SourceArguments;

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence train --dataset mnist --data data/mnist \\
      --network resnet50 --width 8 --out w8.safetensors
      some minutes on two cores; then influence score --weights w8.safetensors
  influence train --dataset folder --data pictures --resize 64 --crop 64 \\
      --network cnn --classes 3 --out cnn.safetensors
      one class per sub-folder
  influence train --dataset cifar10 --data data/cifar-10-batches-bin \\
      --network densenet121 --preset paper --out d121.safetensors
      as Shu & Zhu (2019) did, 500 epochs: days on a CPU

A run keeps the folder FILE.training, with a checkpoint after each epoch, until
FILE is complete; --resume continues from it.";

/// A training schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// About 50 000 images, without dropout
    Quick,
    /// As Shu & Zhu (2019): 200 epochs on MNIST, 500 on others
    Paper,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TrainArguments {
    /// resnet50, densenet121 or cnn
    #[arg(long, value_name = "NAME")]
    pub(crate) network: String,
    /// Width of the network, growth for densenet121 [default: the paper's]
    #[arg(long, value_name = "N")]
    pub(crate) width: Option<usize>,
    #[command(flatten)]
    pub(crate) source: SourceArguments,
    /// Images of the training split: 0..8,12 or 5.. or all or @FILE [default: all]
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    pub(crate) images: Option<String>,
    /// Number of classes [default: the data set's, or the largest label plus one]
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Training schedule
    ///
    /// Both use Adam with L2 1e-4 and a cosine schedule that ends at a tenth of the first rate, and
    /// hold out 10 % of the images for validation. quick: about 50 000 images seen (one epoch of
    /// MNIST; at most 30 epochs) in batches of 32 from rate 2e-3, without dropout. paper: 200
    /// epochs of MNIST or 500 of others in batches of 64 from rate 1e-3, with dropout 0.2.
    #[arg(long, value_enum, default_value_t = Preset::Quick, value_name = "PRESET")]
    pub(crate) preset: Preset,
    /// Number of passes over the images [default: the preset's]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Images per step [default: the preset's]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// Initial learning rate; the final one is a tenth of it [default: the preset's]
    #[arg(long, value_name = "X")]
    pub(crate) rate: Option<f64>,
    /// Random seed of initial weights, order of the images and dropout [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Number of threads [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Where to write the weights: FILE.safetensors, with PyTorch's names
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Resume a stopped training after its last complete epoch
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}
