//! A report of what loading did, for the user.

use std::collections::BTreeMap;
use std::fmt;

use burn::tensor::{DType, FloatDType};

use super::Dtype;
use super::checkpoint::Checkpoint;
use super::fit::Fit;
use crate::error::quoted;
use crate::names::{Entry, TensorRole};

/// How weights were loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The file.
    pub file: String,
    /// Number of tensors loaded, including buffers.
    pub tensors: usize,
    /// Number of trainable values.
    pub parameters: usize,
    /// The element types in the file, with the number of tensors of each.
    pub source: BTreeMap<Dtype, usize>,
    /// The precision in which the network computes.
    pub precision: FloatDType,
    /// The file's tensors that the network does not use, without `num_batches_tracked`.
    pub extra: Vec<String>,
    /// Number of names from which a prefix of `DataParallel`, a trainer or `torch.compile` was
    /// removed.
    pub stripped: usize,
    /// The removed prefixes: `module.`, `model.`, `_orig_mod.`.
    pub prefixes: Vec<&'static str>,
    /// Number of names of torchvision's DenseNet, whose BatchNorm has an epsilon that differs from
    /// that of the paper's network into which they were loaded.
    pub torchvision: usize,
    /// The file's own metadata.
    pub metadata: BTreeMap<String, String>,
}

impl LoadReport {
    pub(super) fn new(
        checkpoint: &Checkpoint<'_>,
        fit: Fit,
        wanted: &[Entry],
        precision: FloatDType,
    ) -> Self {
        let mut source = BTreeMap::new();
        for &index in fit.slots.values() {
            *source.entry(checkpoint.tensors()[index].dtype).or_default() += 1;
        }
        let parameters = wanted.iter().filter(|entry| entry.role == TensorRole::Parameter);
        Self {
            file: checkpoint.file().to_owned(),
            tensors: fit.slots.len(),
            parameters: parameters.map(|entry| entry.shape.iter().product::<usize>()).sum(),
            source,
            precision,
            extra: fit.extra,
            stripped: fit.stripped,
            prefixes: fit.prefixes,
            torchvision: fit.torchvision,
            metadata: checkpoint.metadata().clone(),
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source: Vec<&str> = self.source.keys().map(|dtype| dtype.name()).collect();
        write!(f, "{}: {} tensors, {} parameters, ", self.file, self.tensors, self.parameters)?;
        write!(f, "{} in the file, {} here", source.join(" and "), DType::from(self.precision).name())?;
        if self.stripped > 0 {
            let prefixes: Vec<String> = self.prefixes.iter().map(|prefix| format!("`{prefix}`")).collect();
            write!(f, "; {} stripped from {} names", prefixes.join(" and "), self.stripped)?;
        }
        if self.torchvision > 0 {
            write!(
                f,
                "; {} of torchvision's names, run with the paper's BatchNorm epsilon",
                self.torchvision
            )?;
        }
        if !self.extra.is_empty() {
            let extra: Vec<String> = self.extra.iter().map(|name| quoted(name)).collect();
            write!(f, "; not used: {}", extra.join(", "))?;
        }
        Ok(())
    }
}
