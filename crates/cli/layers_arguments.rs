//! The grammar of `influence layers`.

use std::path::PathBuf;

use clap::Args;

use crate::arguments::{OutArguments, RunArguments};
use crate::failure::{Failure, Result};

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence layers --filter tikhonov:1:relative
      the embedded network on the embedded images
  influence layers --weights densenet121-mnist.safetensors --dataset mnist \\
      --data data/mnist --images 0..50 --filter tikhonov:1:relative \\
      --plot layers.png --out layers.csv
  influence layers --weights densenet121-mnist.safetensors \\
      --against resnet50-mnist.safetensors --dataset mnist --data data/mnist \\
      --images 0..50 --filter tikhonov:1:relative --plot both.png
      two networks on the same images

A layer is the parameters of one module, weight and bias together, named by its
path in PyTorch. Exact influence is saturated for nearly every layer and then
does not distinguish layers. Use a filter with a budget: tikhonov:LAMBDA, or
tikhonov:LAMBDA:relative, which makes layers comparable whose weights are of
different sizes.

Columns of the files, one row per layer: network, group (the layer), depth (its
position in the network, from 0), parameters, images, objective, filter,
influence_q1, influence_median, influence_q3, saturated (the share of the
images whose influence is its bound), reach_median, rank_median,
jacobian_norm_median, weights, dataset, split, precision, engine, near_bound
(the share of the images whose reach exceeds 0.9), odds_correlation (of the
ranks of the images by influence and by odds: at 1 the layer orders them as the
confidence does). influence score --perturb layers writes one row per layer and
image. A part of a run (--shard) holds the rows from which influence merge
makes the table.";

#[derive(Debug, Args)]
pub(crate) struct LayersArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    #[command(flatten)]
    pub(crate) out: OutArguments,
    /// Weights of a second network (inferred from the file), to compare with the first
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// Plot the influence of the layers by depth to FILE.png or FILE.svg
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// The order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LayerOrder {
    Depth,
    Influence,
}

impl LayersArguments {
    pub(crate) fn sort(&self) -> Result<LayerOrder> {
        if self.out.top.is_some() && self.out.out.is_some() {
            return Err(Failure::new("--top applies to the table only: files have all layers"));
        }
        match self.out.sort.as_deref() {
            None | Some("depth") => Ok(LayerOrder::Depth),
            Some("influence") => Ok(LayerOrder::Influence),
            Some(other) => Err(Failure::new(format!("--sort {other}: give depth or influence"))),
        }
    }
}
