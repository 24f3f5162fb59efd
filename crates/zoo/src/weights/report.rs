//! What loading did, to be told to the user.

use std::collections::BTreeMap;
use std::fmt;

use super::checkpoint::Checkpoint;
use super::fit::Fit;
use super::{Dtype, Precision};
use crate::error::quoted;
use crate::names::{Entry, Kind};

/// How weights were loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The file.
    pub file: String,
    /// How many tensors were loaded, buffers among them.
    pub tensors: usize,
    /// How many trainable values they hold.
    pub parameters: usize,
    /// The types that the file has them in, and how many tensors are of each.
    pub source: BTreeMap<Dtype, usize>,
    /// What the network computes in.
    pub precision: Precision,
    /// The file's tensors that the network has no use for, `num_batches_tracked` apart.
    pub extra: Vec<String>,
    /// How many names lost a prefix that `DataParallel`, a trainer or `torch.compile` had put before them.
    pub stripped: usize,
    /// Which prefixes those are: `module.`, `model.`, `_orig_mod.`.
    pub prefixes: Vec<&'static str>,
    /// How many names are those of torchvision's DenseNet, whose BatchNorm has another epsilon than the
    /// paper's network that they were loaded into.
    pub torchvision: usize,
    /// The file's own metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Report {
    pub(super) fn new(checkpoint: &Checkpoint<'_>, fit: Fit, wanted: &[Entry], precision: Precision) -> Self {
        let mut source = BTreeMap::new();
        for &index in fit.slots.values() {
            *source.entry(checkpoint.tensors()[index].dtype).or_default() += 1;
        }
        let parameters = wanted.iter().filter(|entry| entry.kind == Kind::Parameter);
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source: Vec<&str> = self.source.keys().map(|dtype| dtype.name()).collect();
        write!(f, "{}: {} tensors, {} parameters, ", self.file, self.tensors, self.parameters)?;
        write!(f, "{} in the file, {} here", source.join(" and "), self.precision)?;
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
