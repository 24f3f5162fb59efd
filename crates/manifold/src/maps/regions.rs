//! Regions of any shape, given by a plane of labels: superpixels, a segmentation, a mask.

use std::collections::BTreeMap;

use super::{Channels, PixelTangent};
use crate::error::wrong_length;
use crate::{Error, Filter, Influence, SampleObjective, Scalar};

/// The influence of all pixels with the same label.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Region {
    /// The label.
    pub label: u32,
    /// The channel; `None` where the channels are joint.
    pub channel: Option<usize>,
    /// The number of pixels with the label.
    pub pixels: usize,
    /// Their influence.
    pub influence: Influence,
}

impl<T: Scalar> PixelTangent<'_, T> {
    /// The influence of each region: all pixels with one label, connected or not. Ordered by
    /// channel, then by label, ascending.
    ///
    /// # Shapes
    ///
    /// `labels`: [H, W].
    ///
    /// # Errors
    ///
    /// A number of labels that differs from the number of pixels; as [`PixelTangent::maps`] for
    /// objective and filter.
    pub fn regions(
        &self,
        objective: &SampleObjective,
        filter: &Filter,
        labels: &[u32],
        channels: Channels,
    ) -> Result<Vec<Region>, Error> {
        let [count, height, width] = self.shape;
        let plane = height * width;
        if labels.len() != plane {
            return Err(wrong_length(
                "the plane of labels",
                format!("{height} x {width} pixels"),
                labels.len(),
            ));
        }
        self.checked(objective, filter)?;
        // The pixels of each label; a BTreeMap, so that labels come out in ascending order.
        let mut places: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, label) in labels.iter().enumerate() {
            places.entry(*label).or_default().push(at);
        }
        let groups: Vec<(Option<usize>, Vec<usize>)> = match channels {
            Channels::Joint => vec![(None, (0..count).collect())],
            Channels::Separate => (0..count).map(|channel| (Some(channel), vec![channel])).collect(),
        };
        let mut regions = Vec::with_capacity(groups.len() * places.len());
        for (channel, members) in groups {
            for (&label, places) in &places {
                let columns: Vec<usize> =
                    members.iter().flat_map(|c| places.iter().map(move |at| c * plane + at)).collect();
                let influence = self.of_columns(&columns, objective, filter)?;
                regions.push(Region { label, channel, pixels: places.len(), influence });
            }
        }
        Ok(regions)
    }
}
