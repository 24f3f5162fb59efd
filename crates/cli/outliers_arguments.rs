//! The grammar of `influence outliers`.

use std::path::PathBuf;

use clap::Args;
use influence::Filter;

use crate::arguments::{OutArguments, RunArguments};
use crate::failure::{Failure, Result};

pub(crate) const EXAMPLES: &str = "\
Examples:
  influence outliers --top 10
      the images of the embedded sample whose labels the network doubts most
  influence outliers --dataset mnist --data data/mnist --weights w.safetensors \\
      --out outliers.csv --sheet outliers.png
      a table for cleaning the data, and the first 60 images on one sheet
  influence outliers --dataset cifar10 --data data/cifar-10-batches-bin \\
      --weights w.safetensors --truth label_errors.json --plot curves.png
      which score finds the known bad labels: ROC and precision-recall curves
  influence outliers --plant 200
      the same for planted outliers: two images laid over each other, each moved
      by up to 4 pixels; the label is that of the first, which the network gets
      right

The measure is the influence of the whole input on -log P(label). It is listed
with the influence under other filters and with the classical measures. Areas
have 95 % intervals from 1000 resamples of the bad and of the good images.

Columns: index, label, predicted, suggested (the predicted class if it is not
the label), probability (of the label), influence, log10_influence, rank,
bound, reach, jacobian_norm, odds, entropy, margin, cross_entropy, ambiguous,
fisher_norm, fisher_trace, place (1 for the most influential), bad (with
--truth or --plant), log10_FILTER for each of --filters, p0, p1, ... (the
probability of each class), and the settings of the run. --truth takes a list
of indices as JSON, an object of lists with one for the data set (mnist_test),
or a CSV file with a column index. Planted images are numbered after those of
the files.";

/// The filters whose areas are compared.
const FILTERS: &str = "exact,paper,tikhonov:1,tikhonov:100,tikhonov:10000";

#[derive(Debug, Args)]
pub(crate) struct OutliersArguments {
    #[command(flatten)]
    pub(crate) run: RunArguments,
    #[command(flatten)]
    pub(crate) out: OutArguments,
    /// Indices of images known to be bad: FILE.json or FILE.csv
    #[arg(long, value_name = "FILE", conflicts_with = "plant")]
    pub(crate) truth: Option<PathBuf>,
    /// Add N synthetic outliers to the images, evenly over the classes
    #[arg(long, value_name = "N")]
    pub(crate) plant: Option<usize>,
    /// Random seed of planted images and intervals [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Filters to compare with --filter
    ///
    /// [default: exact,paper,tikhonov:1,tikhonov:100,tikhonov:10000]
    #[arg(long, value_name = "LIST")]
    pub(crate) filters: Option<String>,
    /// Draw the most influential images on one sheet, FILE.png or FILE.svg
    #[arg(long, value_name = "FILE")]
    pub(crate) sheet: Option<PathBuf>,
    /// Plot the ROC and precision-recall curves to FILE.png or FILE.svg
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

impl OutliersArguments {
    /// The filters, that of the run first, without duplicates.
    pub(crate) fn filters(&self, own: Filter) -> Result<Vec<Filter>> {
        let mut filters = vec![own];
        let merges = self.run.tail.as_deref().is_some_and(|tail| tail != "off");
        for word in self.filters.as_deref().unwrap_or(FILTERS).split(',') {
            let filter = word.trim().parse::<Filter>();
            let filter = filter.map_err(|error| Failure::new(format!("--filters: {error}")))?;
            if merges && matches!(filter, Filter::Paper { .. }) {
                if self.filters.is_none() {
                    continue;
                }
                return Err(Failure::new(
                    "--filters paper has no bounds where --tail merges classes: leave one out",
                ));
            }
            if !filters.contains(&filter) {
                filters.push(filter);
            }
        }
        Ok(filters)
    }
}
