//! The samples of a job: images of a data set, or arrays of any shape.

use burn::tensor::TensorData;
use influence::Precision;
use influence_data::{Arrays, Dataset, Pictures, Pixel};

use crate::failure::{Failure, Result};

/// Samples with a number each, counted from 0.
#[derive(Debug)]
pub(crate) enum Data {
    /// Images of one of the known data sets.
    Images(Dataset),
    /// What a file of arrays holds.
    Arrays(Arrays),
    /// Pictures in files of their own.
    Pictures(Pictures),
}

impl Data {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Images(data) => data.name(),
            Self::Arrays(data) => data.name(),
            Self::Pictures(data) => data.name(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Images(data) => data.len(),
            Self::Arrays(data) => data.len(),
            Self::Pictures(data) => data.len(),
        }
    }

    /// Lets go of what lies behind the first `len`; pictures are decoded only where they are asked for.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Self::Images(data) => data.truncate(len),
            Self::Arrays(data) => data.truncate(len),
            Self::Pictures(_) => {}
        }
    }

    /// The number of classes, where the data know it.
    pub(crate) fn classes(&self) -> Option<usize> {
        match self {
            Self::Images(data) => Some(data.classes()),
            Self::Arrays(_) => None,
            // A folder may lack a class that the network knows.
            Self::Pictures(_) => None,
        }
    }

    /// Whether the samples are pictures that a person can look at: arrays may be anything.
    pub(crate) fn are_images(&self) -> bool {
        !matches!(self, Self::Arrays(_))
    }

    /// What a class is called: its number where it has no other name.
    pub(crate) fn class_name(&self, class: usize) -> String {
        match self {
            Self::Images(data) => data.class_names().get(class).cloned(),
            Self::Pictures(data) => data.class_names().get(class).cloned(),
            Self::Arrays(_) => None,
        }
        .unwrap_or_else(|| class.to_string())
    }

    /// Whether every sample has a label.
    pub(crate) fn is_labelled(&self) -> bool {
        match self {
            Self::Images(_) => true,
            Self::Arrays(data) => data.labels().is_some(),
            Self::Pictures(data) => (0..data.len()).all(|index| data.label(index).is_some()),
        }
    }

    /// The label of a sample, where there are labels.
    pub(crate) fn label(&self, index: usize) -> Option<usize> {
        match self {
            Self::Images(data) => Some(data.label(index)),
            Self::Arrays(data) => data.labels().map(|labels| labels[index]),
            Self::Pictures(data) => data.label(index),
        }
    }

    /// The shape of a sample.
    pub(crate) fn sample(&self) -> Vec<usize> {
        match self {
            Self::Images(data) => data.shape().to_vec(),
            Self::Arrays(data) => data.shape().to_vec(),
            Self::Pictures(data) => data.shape().to_vec(),
        }
    }

    /// Channels, height and width: of a series height 1, of a list of numbers one channel for each.
    pub(crate) fn shape(&self) -> [usize; 3] {
        match self.sample()[..] {
            [] => [1, 1, 1],
            [numbers] => [numbers, 1, 1],
            [channels, length] => [channels, 1, length],
            [ref channels @ .., height, width] => [channels.iter().product(), height, width],
        }
    }

    /// Samples one after the other, as the network takes them.
    pub(crate) fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        match self {
            Self::Images(data) => data.batch(indices),
            Self::Arrays(data) => data.batch(indices),
            Self::Pictures(data) => data.batch(indices),
        }
    }

    /// What decides the bytes of a result, for a run that goes on where it was stopped: a sample's
    /// label and the numbers of its elements.
    pub(crate) fn hash(&self, index: usize, hasher: &mut blake3::Hasher) {
        hasher.update(&self.label(index).map_or(-1, |label| label as i64).to_le_bytes());
        match self {
            Self::Images(data) => {
                hasher.update(data.image(index));
            }
            Self::Arrays(_) | Self::Pictures(_) => self.batch::<f64>(&[index]).iter().for_each(|number| {
                hasher.update(&number.to_le_bytes());
            }),
        }
    }

    /// Samples `[N, ...]` in the precision of a run.
    pub(crate) fn tensor(&self, indices: &[usize], precision: Precision) -> TensorData {
        let mut shape = self.sample();
        shape.insert(0, indices.len());
        match precision {
            Precision::F32 => TensorData::new(self.batch::<f32>(indices), shape),
            Precision::F64 => TensorData::new(self.batch::<f64>(indices), shape),
        }
    }

    /// Refuses labels that stand for the places of names, of which the network has more or fewer: they would
    /// be other classes than the network's.
    pub(crate) fn check_names(&self, classes: usize) -> Result<()> {
        let Self::Pictures(data) = self else { return Ok(()) };
        let named = data.class_names().len();
        match named == 0 || named == classes {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "{} has {named} classes by name, the network {classes}: labels are numbered in the order of the names, \
                 and would be other classes than the network's; make a folder for each class, give the numbers by \
                 --labels, or add --objective predicted",
                data.name()
            ))),
        }
    }

    /// Refuses labels that a network of `classes` classes has not, among the chosen samples.
    pub(crate) fn check_labels(&self, images: &[usize], classes: usize) -> Result<()> {
        let wrong = images.iter().find_map(|&index| {
            self.label(index).filter(|&label| label >= classes).map(|label| (index, label))
        });
        match wrong {
            None => Ok(()),
            Some((index, label)) => Err(Failure::new(format!(
                "the label of image {index} is {label}, and the network has {classes} classes, 0 to {}",
                classes.saturating_sub(1)
            ))),
        }
    }
}
