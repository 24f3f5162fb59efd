//! Which positions a window reads: convolutions and pools as tables.

use influence_autodiff::ops::conv::Conv2d;
use influence_autodiff::ops::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};
use influence_autodiff::ops::transposed::ConvTranspose2d;

use crate::kernels::{Patches, RowTable, WinogradForm};

/// Height and width.
pub(crate) type Extent = [usize; 2];

/// A window that slides over an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlidingWindow {
    pub(crate) kernel: Extent,
    pub(crate) stride: Extent,
    /// Rows above and columns to the left of the image.
    pub(crate) before: Extent,
    pub(crate) dilation: Extent,
}

impl SlidingWindow {
    pub(crate) fn of_conv(conv: &Conv2d, kernel: Extent) -> Self {
        let before = conv.padding.map(|(before, _)| before);
        Self { kernel, stride: conv.stride, before, dilation: conv.dilation }
    }

    pub(crate) fn of_max(pool: &MaxPool2d) -> Self {
        Self { kernel: pool.kernel, stride: pool.stride, before: pool.padding, dilation: pool.dilation }
    }

    pub(crate) fn of_average(pool: &AvgPool2d) -> Self {
        Self { kernel: pool.kernel, stride: pool.stride, before: pool.padding, dilation: [1, 1] }
    }

    /// Whether it reads the 3 x 3 neighbours of each position.
    pub(crate) fn neighbours(&self, from: Extent, to: Extent) -> Option<Neighbours> {
        let Self { kernel, stride, before, dilation } = *self;
        let is_plain = (kernel, stride, dilation) == ([3, 3], [1, 1], [1, 1]);
        (is_plain && before.iter().all(|&before| before <= 2)).then_some(Neighbours { from, to, before })
    }

    /// For each position of the result and tap, the position that is read.
    pub(crate) fn table(&self, from: Extent, to: Extent) -> RowTable {
        let along = |axis: usize, at: usize, tap: usize| {
            let padded = at * self.stride[axis] + tap * self.dilation[axis];
            padded.checked_sub(self.before[axis]).filter(|&found| found < from[axis])
        };
        table(self.kernel, from, to, along)
    }
}

/// A convolution over the 3 x 3 neighbours of each position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours {
    pub(crate) from: Extent,
    pub(crate) to: Extent,
    pub(crate) before: Extent,
}

impl Neighbours {
    /// The patches of the forward pass.
    pub(crate) fn patches(&self) -> Patches {
        // Patches of 4 x 4 results would take 0.56 times the products, but round more, and rounding
        // decides the masks of ReLUs at their kinks (see `kernels::winograd::form`).
        Patches::new(WinogradForm::Two, self.from, self.to, self.before)
    }

    /// The patches of the gradient of the weights.
    pub(crate) fn gradient(&self) -> Patches {
        Patches::new(WinogradForm::Four, self.from, self.to, self.before)
    }

    /// The patches of the reverse pass, which lead from the result to the operand.
    pub(crate) fn reversed(&self) -> Patches {
        Patches::new(WinogradForm::Four, self.to, self.from, self.before.map(|before| 2 - before))
    }
}

/// Positions of an image.
pub(crate) fn area(extent: Extent) -> usize {
    extent[0] * extent[1]
}

/// For each position of a transposed convolution's result and tap, the position that is read.
pub(crate) fn transposed(conv: &ConvTranspose2d, kernel: Extent, from: Extent, to: Extent) -> RowTable {
    let along = |axis: usize, at: usize, tap: usize| {
        let padded = (at + conv.padding[axis]).checked_sub(tap * conv.dilation[axis])?;
        let found = padded / conv.stride[axis];
        (padded % conv.stride[axis] == 0 && found < from[axis]).then_some(found)
    };
    table(kernel, from, to, along)
}

/// The positions that windows of an extent read, from what is read along each axis: at an index of
/// the result and by a tap of the window.
fn table(
    kernel: Extent,
    from: Extent,
    to: Extent,
    along: impl Fn(usize, usize, usize) -> Option<usize>,
) -> RowTable {
    RowTable::new(area(to), area(kernel), area(from), |row, tap| {
        let y = along(0, row / to[1], tap / kernel[1])?;
        let x = along(1, row % to[1], tap % kernel[1])?;
        Some(y * from[1] + x)
    })
}

/// The divisor of each window of an average: its elements, with the padding where that counts.
pub(crate) fn counts(pool: &AvgPool2d, from: Extent, to: Extent) -> Vec<usize> {
    let along = |axis: usize, at: usize| {
        let first = at * pool.stride[axis];
        let (padding, size) = (pool.padding[axis], from[axis]);
        // Where the window ends, ceil_mode's margin not counted.
        let end = (first + pool.kernel[axis]).min(size + 2 * padding);
        if pool.count_include_pad { end - first } else { end.min(size + padding) - first.max(padding) }
    };
    (0..area(to)).map(|row| along(0, row / to[1]) * along(1, row % to[1])).collect()
}

/// The windows that divide an image evenly, and how many positions each holds.
pub(crate) fn adaptive(pool: &AdaptiveAvgPool2d, from: Extent) -> (RowTable, Vec<usize>) {
    let to = pool.output;
    let span = |axis: usize, at: usize| {
        let first = at * from[axis] / to[axis];
        (first, ((at + 1) * from[axis]).div_ceil(to[axis]) - first)
    };
    let largest = |axis: usize| (0..to[axis]).map(|at| span(axis, at).1).max().unwrap_or(1);
    let kernel = [largest(0), largest(1)];
    let table = table(kernel, from, to, |axis, at, tap| {
        let (first, count) = span(axis, at);
        (tap < count).then_some(first + tap)
    });
    let counts = (0..area(to)).map(|row| span(0, row / to[1]).1 * span(1, row % to[1]).1).collect();
    (table, counts)
}
