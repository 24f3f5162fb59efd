//! What is perturbed for: the functions f of the network's output whose sensitivity is measured, over a batch.

use std::fmt;

use influence_manifold::Objective as Single;

use crate::error::{Error, Result};

/// The objective of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objective {
    /// f = -log P of each sample's own label: how easily the evidence for the label changes.
    Label(Vec<usize>),
    /// f = -log P of the class that the network predicts: needs no labels.
    Predicted,
    /// f = -log P of one class for all samples.
    Class(usize),
}

impl Objective {
    /// -log P of the label, one label a sample.
    pub fn label(labels: impl IntoIterator<Item = usize>) -> Self {
        Self::Label(labels.into_iter().collect())
    }

    /// -log P of the predicted class.
    #[must_use]
    pub fn predicted() -> Self {
        Self::Predicted
    }

    /// -log P of class `class`, from 0.
    #[must_use]
    pub fn class(class: usize) -> Self {
        Self::Class(class)
    }

    /// What can be wrong without a network: no samples, or not one label a sample.
    pub(crate) fn check(&self, samples: usize) -> Result<()> {
        match self {
            _ if samples == 0 => Err(Error::NoSamples),
            Self::Label(labels) if labels.len() != samples => {
                Err(Error::LabelCount { labels: labels.len(), samples })
            }
            _ => Ok(()),
        }
    }

    /// The objective of each of `samples` samples, for a network of `classes` classes.
    pub(crate) fn resolve(&self, samples: usize, classes: usize) -> Result<Vec<Single>> {
        let single = |class: usize, what: &dyn Fn() -> String| {
            if class < classes {
                Ok(Single::class(class))
            } else {
                Err(Error::ClassOutOfRange { what: what(), class, classes })
            }
        };
        self.check(samples)?;
        match self {
            Self::Label(labels) => labels
                .iter()
                .enumerate()
                .map(|(sample, &class)| single(class, &|| format!("the label of sample {sample}")))
                .collect(),
            Self::Predicted => Ok(vec![Single::Predicted; samples]),
            Self::Class(class) => Ok(vec![single(*class, &|| "the objective".into())?; samples]),
        }
    }
}

/// `label`, `predicted` or `class:3`.
impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(_) => f.write_str("label"),
            Self::Predicted => f.write_str("predicted"),
            Self::Class(class) => write!(f, "class:{class}"),
        }
    }
}
