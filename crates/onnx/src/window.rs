//! Windows of convolutions and pools: sizes, strides, dilations and padding, in all the ways in
//! which nodes give them.

use crate::error::Refusal;
use crate::node::Attributes;

/// A size that a file gives as a number, such as a stride or a margin, if it is below 2^31: sums of
/// some of them and products of two do not overflow.
pub(crate) fn extent(size: i64) -> Option<usize> {
    i32::try_from(size).ok().and_then(|size| usize::try_from(size).ok())
}

/// A window on each of some axes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeWindow {
    pub(crate) taps: Vec<usize>,
    pub(crate) stride: Vec<usize>,
    pub(crate) dilation: Vec<usize>,
    /// Before and after each axis.
    pub(crate) padding: Vec<(usize, usize)>,
}

impl NodeWindow {
    /// Reads a window of `taps` over axes of these sizes.
    pub(crate) fn of(attributes: Attributes<'_>, taps: &[usize], sizes: &[usize]) -> Result<Self, Refusal> {
        let count = taps.len();
        let each = |name: &str| -> Result<Vec<usize>, Refusal> {
            let given = attributes.ints(name).unwrap_or_else(|| vec![1; count]);
            let sizes: Option<Vec<_>> = given.iter().map(|&x| extent(x).filter(|&x| x > 0)).collect();
            sizes.filter(|sizes| sizes.len() == count).ok_or_else(|| {
                format!("its {name} {given:?} are not {count} positive numbers below 2^31").into()
            })
        };
        let (stride, dilation) = (each("strides")?, each("dilations")?);
        let mut window = Self { taps: taps.to_vec(), stride, dilation, padding: vec![] };
        window.padding = window.padded(attributes, sizes)?;
        Ok(window)
    }

    /// The extent of a window along an axis.
    pub(crate) fn reach(&self, axis: usize) -> usize {
        self.taps[axis].saturating_sub(1).saturating_mul(self.dilation[axis]).saturating_add(1)
    }

    /// The window over some of the axes.
    pub(crate) fn part(&self, axes: std::ops::Range<usize>) -> Self {
        Self {
            taps: self.taps[axes.clone()].to_vec(),
            stride: self.stride[axes.clone()].to_vec(),
            dilation: self.dilation[axes.clone()].to_vec(),
            padding: self.padding[axes].to_vec(),
        }
    }

    /// The window of one axis as a window over H of images.
    pub(crate) fn down(mut self) -> Self {
        self.taps.push(1);
        self.stride.push(1);
        self.dilation.push(1);
        self.padding.push((0, 0));
        self
    }

    fn padded(&self, attributes: Attributes<'_>, sizes: &[usize]) -> Result<Vec<(usize, usize)>, Refusal> {
        let count = self.taps.len();
        let upper = match attributes.word("auto_pad", "NOTSET") {
            "NOTSET" | "" => {
                let given = attributes.ints("pads").unwrap_or_else(|| vec![0; 2 * count]);
                let pads: Option<Vec<_>> = given.iter().map(|&x| extent(x)).collect();
                let pads = pads.filter(|pads| pads.len() == 2 * count);
                let pads = pads.ok_or_else(|| {
                    format!("its pads {given:?} are not two numbers below 2^31 for each of {count} axes")
                })?;
                return Ok((0..count).map(|axis| (pads[axis], pads[axis + count])).collect());
            }
            "VALID" => return Ok(vec![(0, 0); count]),
            "SAME_UPPER" => true,
            "SAME_LOWER" => false,
            other => return Err(format!("there is no auto_pad \"{other}\"").into()),
        };
        // As many results as strides fit into the axis, rounded up; an odd element goes to one
        // side.
        let both = |axis: usize| {
            let results = sizes[axis].div_ceil(self.stride[axis]);
            let span = results.saturating_sub(1).saturating_mul(self.stride[axis]);
            let total = span.saturating_add(self.reach(axis)).saturating_sub(sizes[axis]);
            let (less, more) = (total / 2, total - total / 2);
            if upper { (less, more) } else { (more, less) }
        };
        Ok((0..count).map(both).collect())
    }
}

/// A window over H and W; a window of one axis is one over W, in images of height 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane {
    pub(crate) taps: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    pub(crate) padding: [(usize, usize); 2],
}

/// A window of one or two axes as one over H and W; `None` for more axes.
pub(crate) fn lifted(window: &NodeWindow) -> Option<Plane> {
    fn pair<T: Copy>(values: &[T], one: T) -> Option<[T; 2]> {
        match *values {
            [width] => Some([one, width]),
            [height, width] => Some([height, width]),
            _ => None,
        }
    }
    Some(Plane {
        taps: pair(&window.taps, 1)?,
        stride: pair(&window.stride, 1)?,
        dilation: pair(&window.dilation, 1)?,
        padding: pair(&window.padding, (0, 0))?,
    })
}
