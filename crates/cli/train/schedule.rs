//! What the words of `influence train` mean: how long, how fast, on which images.

use crate::arguments::RunArguments;
use crate::failure::{Failure, Result};
use crate::train_arguments::{Preset, TrainArguments};

/// Everything that determines the weights, except the images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) epochs: usize,
    pub(crate) batch: usize,
    pub(crate) rate: f64,
    pub(crate) seed: u64,
}

impl Preset {
    fn epochs(self, dataset: Option<&str>) -> usize {
        match (self, dataset) {
            (Self::Quick, _) => 3,
            (Self::Paper, Some("mnist" | "fashion-mnist")) => 200,
            (Self::Paper, _) => 500,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Paper => "paper",
        }
    }
}

impl TrainArguments {
    /// The preset with what was said otherwise.
    pub(crate) fn schedule(&self) -> Result<Schedule> {
        let schedule = Schedule {
            epochs: self.epochs.unwrap_or(self.preset.epochs(self.dataset.as_deref())),
            batch: self.batch.unwrap_or(64),
            rate: self.rate.unwrap_or(1e-3),
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

    /// The words that choose images, as other commands have them.
    pub(crate) fn samples(&self) -> RunArguments {
        // Official files have a training split; the embedded images are of the test split alone.
        let official = !matches!(self.dataset.as_deref(), None | Some("folder" | "parquet" | "arrays"));
        RunArguments {
            dataset: self.dataset.clone(),
            data: self.data.clone(),
            labels: self.labels.clone(),
            resize: self.resize.clone(),
            crop: self.crop.clone(),
            grey: self.grey,
            own: self.own,
            images: self.images.clone(),
            split: official.then(|| "train".to_owned()),
            threads: self.threads,
            quiet: self.quiet,
            ..RunArguments::default()
        }
    }
}
