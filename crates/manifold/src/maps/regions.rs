//! Regions of any shape, given by a plane of labels: superpixels, a segmentation, a mask.

use std::collections::BTreeMap;

use super::{Channels, PixelTangent};
use crate::error::wrong_length;
use crate::{Error, Filter, Influence, SampleObjective, Scalar, Tangent};

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
        self.checked(objective, filter)?;
        let region = |region: RegionColumns| {
            let RegionColumns { label, channel, pixels, columns } = region;
            let influence = self.of_columns(&columns, objective, filter)?;
            Ok(Region { label, channel, pixels, influence })
        };
        self.columns_by_region(labels, channels)?.into_iter().map(region).collect()
    }

    /// What `work` makes of the tangent of each region's perturbations, which has only the region's
    /// own columns of J. One after the other, in the order of [`PixelTangent::regions`].
    ///
    /// # Shapes
    ///
    /// `labels`: [H, W].
    ///
    /// # Errors
    ///
    /// A number of labels that differs from the number of pixels.
    pub fn region_tangents<R>(
        &self,
        labels: &[u32],
        channels: Channels,
        mut work: impl FnMut(Tangent) -> R,
    ) -> Result<Vec<R>, Error> {
        let regions = self.columns_by_region(labels, channels)?;
        regions.iter().map(|region| self.tangent_of(&region.columns).map(&mut work)).collect()
    }

    /// The regions and their columns, ordered by channel, then by label.
    fn columns_by_region(&self, labels: &[u32], channels: Channels) -> Result<Vec<RegionColumns>, Error> {
        let [count, height, width] = self.shape;
        let plane = height * width;
        if labels.len() != plane {
            return Err(wrong_length(
                "the plane of labels",
                format!("{height} x {width} pixels"),
                labels.len(),
            ));
        }
        // The pixels of each label; a BTreeMap, so that labels come out in ascending order.
        let mut pixels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, label) in labels.iter().enumerate() {
            pixels.entry(*label).or_default().push(at);
        }
        let groups: Vec<(Option<usize>, Vec<usize>)> = match channels {
            Channels::Joint => vec![(None, (0..count).collect())],
            Channels::Separate => (0..count).map(|channel| (Some(channel), vec![channel])).collect(),
        };
        let of_group = |(channel, members): &(Option<usize>, Vec<usize>)| -> Vec<RegionColumns> {
            let region = |(&label, pixels): (&u32, &Vec<usize>)| RegionColumns {
                label,
                channel: *channel,
                pixels: pixels.len(),
                columns: members.iter().flat_map(|c| pixels.iter().map(move |at| c * plane + at)).collect(),
            };
            pixels.iter().map(region).collect()
        };
        Ok(groups.iter().flat_map(of_group).collect())
    }
}

/// A region and the columns of J that belong to it.
struct RegionColumns {
    label: u32,
    channel: Option<usize>,
    pixels: usize,
    columns: Vec<usize>,
}
