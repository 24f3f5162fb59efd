//! The samples of a job: images of a data set, or arrays of any shape.

use burn::tensor::TensorData;
use influence::Precision;
use influence_data::{Arrays, Dataset, Pictures, Pixel};

use crate::failure::{Failure, Result};

/// Numbered samples, counted from 0.
#[derive(Debug)]
pub(crate) enum Data {
    /// Images of one of the known data sets.
    Images(Dataset),
    /// Samples of an array file.
    Arrays(Arrays),
    /// Picture files.
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

    /// Keeps only the first `len` samples. Pictures are not affected: only requested ones are
    /// decoded.
    pub(crate) fn truncate(&mut self, len: usize) {
        match self {
            Self::Images(data) => data.truncate(len),
            Self::Arrays(data) => data.truncate(len),
            Self::Pictures(_) => {}
        }
    }

    /// The number of classes, if the data define it.
    pub(crate) fn classes(&self) -> Option<usize> {
        match self {
            Self::Images(data) => Some(data.classes()),
            Self::Arrays(_) => None,
            // A folder may lack a class that the network has.
            Self::Pictures(_) => None,
        }
    }

    /// Whether the samples can be shown as pictures; arrays may be anything.
    pub(crate) fn are_images(&self) -> bool {
        !matches!(self, Self::Arrays(_))
    }

    /// The name of a class, or its number if it has none.
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

    /// The label of a sample, if there are labels.
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

    /// Channels, height and width. A series has height 1; a vector has one channel per element.
    pub(crate) fn shape(&self) -> [usize; 3] {
        match self.sample()[..] {
            [] => [1, 1, 1],
            [numbers] => [numbers, 1, 1],
            [channels, length] => [channels, 1, length],
            [ref channels @ .., height, width] => [channels.iter().product(), height, width],
        }
    }

    /// Concatenated samples, as input of the network.
    pub(crate) fn batch<T: Pixel>(&self, indices: &[usize]) -> Vec<T> {
        match self {
            Self::Images(data) => data.batch(indices),
            Self::Arrays(data) => data.batch(indices),
            Self::Pictures(data) => data.batch(indices),
        }
    }

    /// Hashes what determines a result (the sample's label and elements), so that a resumed run can
    /// detect changed data.
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

    /// Refuses class names whose number differs from the network's classes. Labels are indices into
    /// these names, so they would mean other classes than the network's.
    pub(crate) fn check_names(&self, classes: usize) -> Result<()> {
        let Self::Pictures(data) = self else { return Ok(()) };
        let named = data.class_names().len();
        match named == 0 || named == classes {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "{} has {named} named classes, the network {classes}: labels are numbered in the order of \
                 the names, so they would not be the network's classes; make a folder for each class, give \
                 the numbers with --labels, or add --objective predicted",
                data.name()
            ))),
        }
    }

    /// Refuses labels beyond a network's `classes` classes among the chosen samples.
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
