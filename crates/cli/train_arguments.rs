//! The words of `influence train`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence train --dataset mnist --data data/mnist --network resnet50 --width 8 \\
      --out w8.safetensors
      some minutes on two cores; then influence score --weights w8.safetensors
  influence train --dataset folder --data pictures --resize 64 --crop 64 \\
      --network cnn --classes 3 --out cnn.safetensors
      a class for each sub-folder
  influence train --dataset cifar10 --data data/cifar-10-batches-bin \\
      --network densenet121 --preset paper --out d121.safetensors
      as Shu & Zhu (2019) did, 500 epochs: days on a processor

A run keeps the folder FILE.training, with a checkpoint after each epoch, until
FILE is there; --resume goes on with it.";

/// How long and how is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// A few epochs
    Quick,
    /// Those of Shu & Zhu (2019): 200 epochs on MNIST, 500 on others
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
    /// mnist, fashion-mnist, cifar10, cifar100, folder, parquet or arrays [default: embedded]
    #[arg(long, value_name = "NAME")]
    pub(crate) dataset: Option<String>,
    /// Folder with the data set's official files or with pictures, or a file
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Labels of a folder's pictures: a .csv with columns path and label
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
    /// The files are your own, in the data set's format but of other sizes
    #[arg(long)]
    pub(crate) own: bool,
    /// Images of the training split: 0..8,12 or 5.. or all or @FILE [default: all]
    #[arg(long, value_name = "RANGES", allow_hyphen_values = true)]
    pub(crate) images: Option<String>,
    /// Number of classes [default: the data set's, or the largest label and one]
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// How long and how is trained
    ///
    /// Both by Adam from 1e-3 to 1e-4 along a cosine, in batches of 64, L2 1e-4, with 10 % of the
    /// images kept back for validation; dropout is the network's, 0.2 in residual and dense blocks.
    #[arg(long, value_enum, default_value_t = Preset::Quick, value_name = "PRESET")]
    pub(crate) preset: Preset,
    /// How often every image is seen [default: the preset's]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Images in a step [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<usize>,
    /// The learning rate at the beginning; at the end it is a tenth [default: 0.001]
    #[arg(long, value_name = "X")]
    pub(crate) rate: Option<f64>,
    /// What decides first weights, order of the images and dropout [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Where the weights go: FILE.safetensors, with PyTorch's names
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Go on with the training that was stopped, from its last epoch
    #[arg(long)]
    pub(crate) resume: bool,
    /// Print errors only
    #[arg(long)]
    pub(crate) quiet: bool,
}
