//! The training: Burn's learner, optimiser, metrics and checkpoints on the program's images.

use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::AdamConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Interrupter, Learner, SupervisedTraining, TrainOutput, TrainStep,
};
use influence::Precision;
use influence_zoo::Network;

use super::Training;
use super::watch::Watch;
use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::out::stop;

/// Adam's L2 term, from Shu & Zhu (2019).
const WEIGHT_DECAY: f32 = 1e-4;

/// The final learning rate, relative to the initial one.
const LAST_RATE: f64 = 0.1;

/// The data with the indices of the training images and of those held out for validation.
#[derive(Debug)]
pub(super) struct TrainingImages {
    pub(super) data: Arc<Data>,
    pub(super) trained: Vec<usize>,
    pub(super) held_out: Vec<usize>,
}

impl TrainingImages {
    /// The number of classes.
    pub(super) fn classes(&self, asked: Option<usize>) -> usize {
        let all = || self.trained.iter().chain(&self.held_out).filter_map(|&index| self.data.label(index));
        asked.or_else(|| self.data.classes()).unwrap_or_else(|| all().max().map_or(2, |last| last + 1).max(2))
    }

    /// A hash that identifies these images.
    pub(super) fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for &index in self.trained.iter().chain(&self.held_out) {
            self.data.hash(index, hasher.update(&index.to_le_bytes()));
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// Shuffles by Fisher-Yates with SplitMix64: the same order for the same seed.
pub(super) fn shuffle(images: &mut [usize], seed: u64) {
    let mut state = seed;
    for last in (1..images.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        images.swap(last, ((z ^ (z >> 31)) % (last as u64 + 1)) as usize);
    }
}

/// Images `[n, C, H, W]` and labels `[n]`.
#[derive(Debug, Clone)]
struct ImageBatch {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
}

/// Reads images by their indices.
#[derive(Debug, Clone)]
struct ImageBatcher(Arc<Data>);

impl Batcher<usize, ImageBatch> for ImageBatcher {
    fn batch(&self, indices: Vec<usize>, device: &Device) -> ImageBatch {
        let labels: Vec<i64> =
            indices.iter().map(|&index| self.0.label(index).map_or(0, |label| label as i64)).collect();
        let shape = [indices.len()];
        let [channels, height, width] = self.0.shape();
        let images = self.0.tensor(&indices, Precision::F32);
        let images = Tensor::<4>::from_data(images, device).reshape([shape[0], channels, height, width]);
        ImageBatch { images, labels: Tensor::from_data(TensorData::new(labels, shape), device) }
    }
}

/// A network that learns from its cross-entropy.
#[derive(Module, Debug)]
struct TrainableNetwork {
    network: Network,
}

impl TrainableNetwork {
    /// The logits of a batch and their loss.
    fn classified(&self, batch: ImageBatch) -> ClassificationOutput {
        let ImageBatch { images, labels } = batch;
        let logits = self.network.forward(images);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        ClassificationOutput::new(loss.forward(logits.clone(), labels.clone()), logits, labels)
    }
}

impl TrainStep for TrainableNetwork {
    type Input = ImageBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: ImageBatch) -> TrainOutput<ClassificationOutput> {
        let output = self.classified(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for TrainableNetwork {
    type Input = ImageBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: ImageBatch) -> ClassificationOutput {
        self.classified(batch)
    }
}

/// Trains to the end, or until stopped.
pub(super) fn run(training: &Training, quiet: bool) -> Result<Network> {
    let Training { images, network, schedule, folder, done } = training;
    let loader = |indices: &[usize], shuffled: bool| -> Arc<dyn DataLoader<ImageBatch>> {
        let builder =
            DataLoaderBuilder::new(ImageBatcher(Arc::clone(&images.data))).batch_size(schedule.batch);
        // After a checkpoint the seed differs, so that the order of the first epochs is not
        // repeated.
        let seed = schedule.seed.wrapping_add(done.unwrap_or(0) as u64);
        let builder = if shuffled { builder.shuffle(seed) } else { builder };
        builder.build(InMemDataset::new(indices.to_vec()))
    };
    let steps = images.trained.len().div_ceil(schedule.batch) * schedule.epochs;
    let scheduler = CosineAnnealingLrSchedulerConfig::new(schedule.rate, steps);
    let scheduler = scheduler.with_min_lr(LAST_RATE * schedule.rate).init().map_err(Failure::new)?;
    let optimiser = AdamConfig::new().with_weight_decay(Some(WeightDecayConfig::new(WEIGHT_DECAY))).init();
    let learner = Learner::new(TrainableNetwork { network: network.clone() }, optimiser, scheduler);
    let interrupter = Interrupter::new();
    let watch =
        Watch::new(images.trained.len(), schedule.epochs, done.unwrap_or(0), quiet, interrupter.clone());
    let metrics = (LossMetric::new(), AccuracyMetric::new());
    let mut supervised =
        SupervisedTraining::new(folder, loader(&images.trained, true), loader(&images.held_out, false))
            .metrics(metrics)
            .with_metric_logger(InMemoryMetricLogger::new())
            .with_application_logger(None)
            .with_default_checkpointers()
            .with_checkpointing_strategy(KeepLastNCheckpoints::new(2))
            .with_interrupter(interrupter)
            .renderer(Box::new(watch))
            .num_epochs(schedule.epochs);
    if let Some(epoch) = done {
        supervised = supervised.checkpoint(*epoch);
    }
    let result = supervised.launch(learner);
    if let Some(error) = result.error {
        return Err(Failure::new(format!("the training failed: {error}")));
    }
    match stop::requested() {
        Some(signal) => {
            let kept =
                format!("; {} has the epochs that are done: add --resume to continue", folder.display());
            Err(Failure::Stopped { signal, kept })
        }
        None => Ok(result.model.network.valid()),
    }
}
