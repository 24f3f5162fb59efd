//! Progress of a training on standard error, and one line per epoch.

use std::collections::HashMap;
use std::io::Write;

use burn::train::Interrupter;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricEntry, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

use crate::out::stop;
use crate::progress::Progress;
use crate::terminal;

/// Means over the images of the current epoch, by metric.
#[derive(Debug, Default)]
struct Means(HashMap<MetricId, RunningMean>);

#[derive(Debug, Default, Clone, Copy)]
struct RunningMean {
    sum: f64,
    count: usize,
}

impl Means {
    fn add(&mut self, state: MetricState) {
        let MetricState::Numeric(MetricEntry { metric_id, .. }, Some(entry)) = state else { return };
        let mean = self.0.entry(metric_id).or_default();
        match entry {
            NumericEntry::Value(value) => (mean.sum, mean.count) = (mean.sum + value, mean.count + 1),
            NumericEntry::Aggregated { aggregated_value, count } => {
                (mean.sum, mean.count) = (mean.sum + aggregated_value * count as f64, mean.count + count);
            }
            NumericEntry::Final(value) => *mean = RunningMean { sum: value, count: 1 },
        }
    }
}

/// Receives the reports of Burn's learner.
pub(super) struct Watch {
    /// `None` when everything is done.
    progress: Option<Progress>,
    epochs: usize,
    quiet: bool,
    interrupter: Interrupter,
    names: Vec<(MetricId, String)>,
    training: Means,
    validation: Means,
    /// Number of images of the current split that have been counted.
    seen: usize,
    counts: bool,
}

impl Watch {
    pub(super) fn new(
        images: usize,
        epochs: usize,
        done: usize,
        quiet: bool,
        interrupter: Interrupter,
    ) -> Self {
        Self {
            progress: Some(Progress::new(images * epochs, images * done, quiet)),
            epochs,
            quiet,
            interrupter,
            names: Vec::new(),
            training: Means::default(),
            validation: Means::default(),
            seen: 0,
            counts: false,
        }
    }

    /// "loss 0.123, accuracy 97.2".
    fn words(&self, means: &Means) -> String {
        let word = |(id, name): &(MetricId, String)| {
            let mean = means.0.get(id)?;
            let unit = if name == "Accuracy" { " %" } else { "" };
            Some(format!("{} {:.4}{unit}", name.to_lowercase(), mean.sum / mean.count.max(1) as f64))
        };
        self.names.iter().filter_map(word).collect::<Vec<_>>().join(", ")
    }
}

impl MetricsRendererTraining for Watch {
    fn update_train(&mut self, state: MetricState) {
        self.training.add(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.validation.add(state);
    }
}

impl TrainingProgressLogger for Watch {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}

    fn start_split(&mut self, split: &str, _: usize) {
        (self.seen, self.counts) = (0, split.eq_ignore_ascii_case("train"));
    }

    fn update_split(&mut self, images: usize) {
        if let (Some(progress), true) = (&mut self.progress, self.counts) {
            progress.add(images.saturating_sub(self.seen));
            self.seen = images;
        }
        if stop::requested().is_some() {
            self.interrupter.stop(Some("a signal"));
        }
    }

    fn end_split(&mut self) {}

    fn update_epoch(&mut self, epoch: usize) {
        let (training, validation) = (self.words(&self.training), self.words(&self.validation));
        if !self.quiet {
            let of = self.epochs;
            // A closed standard error is no reason to stop.
            let _ = writeln!(
                terminal::errors(),
                "influence: epoch {epoch} of {of}: {training}; of the images held out: {validation}"
            );
        }
        (self.training, self.validation) = (Means::default(), Means::default());
    }

    fn end(&mut self) {
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
    }

    fn log_event_training(&mut self, _: String) {}
}

// The learner does no evaluation; the program's own engine does that.
impl EvaluationProgressLogger for Watch {
    fn start_global_progress(&mut self, _: usize) {}

    fn start_test(&mut self, _: &str, _: usize) {}

    fn update_test_progress(&mut self, _: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRendererEvaluation for Watch {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl MetricsRenderer for Watch {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        let known = (definition.metric_id, definition.name.to_string());
        if !self.names.contains(&known) {
            self.names.push(known);
        }
    }
}
