//! Interprets the arguments of `influence train`: how long, how fast, on which images.

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};
use crate::train_arguments::{Preset, TrainArguments};

/// Everything that determines the weights, except the images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TrainingSchedule {
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

/// How many images the quick preset shows to the network, and how often each at most.
const QUICK_IMAGES: usize = 50_000;
const QUICK_EPOCHS: usize = 30;

impl Preset {
    fn epochs(self, dataset: Option<&str>, images: usize) -> usize {
        match (self, dataset) {
            (Self::Quick, _) => (QUICK_IMAGES / images.max(1)).clamp(1, QUICK_EPOCHS),
            (Self::Paper, Some("mnist" | "fashion-mnist")) => 200,
            (Self::Paper, _) => 500,
        }
    }

    /// Batch and first rate. The paper gives the rate, not the batch.
    fn pace(self) -> (usize, f64) {
        match self {
            Self::Quick => (32, 2e-3),
            Self::Paper => (64, 1e-3),
        }
    }

    /// Whether the network's dropout is on. One epoch is too short for it: ResNet50 of width 8 has
    /// 83 % of MNIST right after one with dropout, and 99 % without.
    pub(crate) fn drops(self) -> bool {
        self == Self::Paper
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
        }
    }
}

impl TrainArguments {
    /// The schedule of the preset, with what the arguments change.
    pub(crate) fn schedule(&self, images: usize) -> Result<TrainingSchedule> {
        let (batch, rate) = self.preset.pace();
        let schedule = TrainingSchedule {
            epochs: self.epochs.unwrap_or_else(|| self.preset.epochs(self.source.dataset.as_deref(), images)),
            batch: self.batch.unwrap_or(batch),
            rate: self.rate.unwrap_or(rate),
            seed: self.seed.unwrap_or(0),
        };
        if schedule.epochs == 0 || schedule.batch == 0 {
            return Err(Failure::new("--epochs and --batch: at least 1 is needed"));
        }
        if !(schedule.rate > 0.0 && schedule.rate <= 1.0) {
            return Err(Failure::new(format!("--rate {}: give a number above 0, at most 1", schedule.rate)));
        }
        Ok(schedule)
    }

    /// The arguments of other commands that select the same images.
    pub(crate) fn samples(&self) -> RunArguments {
        // Official files have a training split; the embedded images belong to the test split.
        let official =
            !matches!(self.source.dataset.as_deref(), None | Some("folder" | "parquet" | "arrays"));
        RunArguments {
            source: self.source.clone(),
            images: self.images.clone(),
            split: official.then(|| "train".to_owned()),
            threads: self.threads,
            quiet: self.quiet,
            ..RunArguments::default()
        }
    }
}
