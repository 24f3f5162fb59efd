//! The Gram matrix of every window: the sum of the outer products of its pixels' columns.

use super::Channels;
use super::frame::FrameRows;
use super::lanes::{LANES, Lane, map, packed};
use super::sums::WindowSums;

/// Packed m x m matrices of all windows of one half-width, stored as one plane (over windows) per
/// matrix entry.
#[derive(Debug)]
pub(super) struct WindowGrams {
    values: Vec<f64>,
    /// Length of a plane: the number of windows, rounded up to a multiple of [`LANES`].
    stride: usize,
    entries: usize,
}

/// The shape of a map: C (1 if joint), H, W.
pub(super) fn map_shape([channels, height, width]: [usize; 3], along: Channels) -> [usize; 3] {
    match along {
        Channels::Joint => [1, height, width],
        Channels::Separate => [channels, height, width],
    }
}

/// Sums over windows of one value per column of J: C x H x W to C (1 if joint) x H x W.
pub(super) fn window_sums(values: &[f64], shape: [usize; 3], along: Channels, s: usize, sums: &mut [f64]) {
    add_up(&mut WindowSums::default(), &mut values.to_vec(), shape, along, s, sums);
}

/// As [`window_sums`], but overwrites `values`.
fn add_up(
    work: &mut WindowSums,
    values: &mut [f64],
    [_, height, width]: [usize; 3],
    along: Channels,
    s: usize,
    sums: &mut [f64],
) {
    let plane = height * width;
    let planes = match along {
        Channels::Separate => values,
        Channels::Joint => {
            let (first, others) = values.split_at_mut(plane);
            for other in others.chunks_exact(plane) {
                first.iter_mut().zip(other).for_each(|(sum, x)| *sum += x);
            }
            first
        }
    };
    for (values, sums) in planes.chunks_exact(plane).zip(sums.chunks_exact_mut(plane)) {
        work.of(values, [height, width], s, sums);
    }
}

impl WindowGrams {
    /// The inner products, per window, of the first `count` rows.
    pub(super) fn new(rows: &FrameRows, count: usize, shape: [usize; 3], along: Channels, s: usize) -> Self {
        let size: usize = map_shape(shape, along).iter().product();
        let stride = size.next_multiple_of(LANES);
        let entries = packed(count);
        let mut values = vec![0.0; entries * stride];
        let (mut work, mut product) = (WindowSums::default(), vec![0.0; rows.columns]);
        let mut targets = values.chunks_exact_mut(stride);
        for i in 0..count {
            for j in 0..=i {
                let Some(target) = targets.next() else { break };
                let pairs = rows.row(i).iter().zip(rows.row(j));
                product.iter_mut().zip(pairs).for_each(|(product, (a, b))| *product = a * b);
                add_up(&mut work, &mut product, shape, along, s, &mut target[..size]);
            }
        }
        Self { values, stride, entries }
    }

    /// Loads the matrices of `LANES` windows starting at window `at`, a multiple of `LANES`.
    pub(super) fn load(&self, at: usize, matrices: &mut Vec<Lane<LANES>>) {
        matrices.clear();
        for entry in 0..self.entries {
            let values = &self.values[entry * self.stride + at..][..LANES];
            matrices.push(map(|l| values[l]));
        }
    }

    /// Entry (i, j), j <= i, of one window's matrix.
    pub(super) fn entry(&self, at: usize, i: usize, j: usize) -> f64 {
        self.values[(packed(i) + j) * self.stride + at]
    }
}
