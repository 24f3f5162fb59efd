//! The grammar of `influence compare`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{OutArguments, RunArguments};

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence compare --dataset mnist --data data/mnist --weights w.safetensors \\
      --images 0..2000 --plot compare.png
      the first 2000 training images and the first 2000 test images
  influence compare --against densenet121-mnist.safetensors \\
      --weights resnet50-mnist.safetensors --dataset mnist --data data/mnist
      two networks on the same test images

Without --against the training set is compared with the test set. The objective
is -log P(predicted) unless another is given, as in the paper. For the
influence and for the classical measures: percentiles, Kolmogorov and Smirnov's
D, the probability that a value of the second set is larger (AUROC, by Mann and
Whitney's U), both with p, and the difference of the medians with an interval
of 95 %. If a measure of the confidence separates the sets as well, the
influence adds nothing. Training images that a network has memorised differ
from test images in every such measure.

Columns: index, label, predicted, probability, influence, log10_influence, rank,
bound, reach, jacobian_norm, odds, entropy, margin, cross_entropy, ambiguous,
fisher_norm, fisher_trace, set, objective, and the settings of the run.";

#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    #[command(flatten)]
    pub(crate) out: OutArguments,
    /// Weights of a second network (inferred from the file), for the same images
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// A second set of images of the same kind, for the same network
    ///
    /// For data sets without splits: arrays, folder and parquet.
    #[arg(long, value_name = "PATH", conflicts_with = "against")]
    pub(crate) against_data: Option<PathBuf>,
    /// Random seed of the intervals [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Plot the values of both sets by class to FILE.png or FILE.svg
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}
