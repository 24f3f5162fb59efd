//! Plain loops in f64 for the tests, with a rounding bound for each result.

use super::conv::Conv2d;
use super::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};

/// Sums of products, with the quantities that bound their rounding errors.
#[derive(Debug)]
pub(super) struct NaiveSums {
    pub(super) values: Vec<f64>,
    /// For each element of the result, the sum of the magnitudes of its products.
    pub(super) magnitudes: Vec<f64>,
    /// For each element of the result, the number of its products.
    pub(super) terms: Vec<f64>,
}

impl NaiveSums {
    pub(super) fn zeros(count: usize) -> Self {
        Self { values: vec![0.0; count], magnitudes: vec![0.0; count], terms: vec![0.0; count] }
    }

    pub(super) fn add(&mut self, index: usize, product: f64) {
        self.values[index] += product;
        self.magnitudes[index] += product.abs();
        self.terms[index] += 1.0;
    }
}

fn row_major(shape: [usize; 4], index: [usize; 4]) -> usize {
    index.into_iter().zip(shape).fold(0, |flat, (index, size)| flat * size + index)
}

/// Every index of a shape, in order.
fn indices(shape: [usize; 4]) -> impl Iterator<Item = [usize; 4]> {
    let [a, b, c, d] = shape;
    (0..a * b * c * d).map(move |i| [i / (b * c * d), i / (c * d) % b, i / d % c, i % d])
}

/// The index in the input under tap `k` of the window at `i`, unless that lies in the padding.
fn under(i: usize, stride: usize, k: usize, dilation: usize, padding: usize, size: usize) -> Option<usize> {
    (i * stride + k * dilation).checked_sub(padding).filter(|&position| position < size)
}

/// Calls `visit` for every product of a convolution, with the flat indices of result, input and
/// weight.
pub(super) fn convolution(
    op: &Conv2d,
    x: [usize; 4],
    w: [usize; 4],
    y: [usize; 4],
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (per_group, outputs) = (w[1], w[0] / op.groups);
    for [b, o, i, j] in indices(y) {
        for [c, k, l, _] in indices([per_group, w[2], w[3], 1]) {
            let row = under(i, op.stride[0], k, op.dilation[0], op.padding[0].0, x[2]);
            let column = under(j, op.stride[1], l, op.dilation[1], op.padding[1].0, x[3]);
            if let (Some(row), Some(column)) = (row, column) {
                let channel = o / outputs * per_group + c;
                visit(
                    row_major(y, [b, o, i, j]),
                    row_major(x, [b, channel, row, column]),
                    row_major(w, [o, c, k, l]),
                );
            }
        }
    }
}

/// The input elements in each window of a maximum pool, in row-major order.
pub(super) fn max_windows(op: &MaxPool2d, x: [usize; 4], y: [usize; 4]) -> Vec<Vec<usize>> {
    let window = |[b, c, i, j]: [usize; 4]| {
        indices([1, 1, op.kernel[0], op.kernel[1]])
            .filter_map(|[_, _, k, l]| {
                let row = under(i, op.stride[0], k, op.dilation[0], op.padding[0], x[2])?;
                let column = under(j, op.stride[1], l, op.dilation[1], op.padding[1], x[3])?;
                Some(row_major(x, [b, c, row, column]))
            })
            .collect()
    };
    indices(y).map(window).collect()
}

/// The input elements in each window of an average pool, with the divisor.
pub(super) fn mean_windows(op: &AvgPool2d, x: [usize; 4], y: [usize; 4]) -> Vec<(Vec<usize>, f64)> {
    let AvgPool2d { kernel, stride, padding, .. } = *op;
    let cover = MaxPool2d { kernel, stride, padding, dilation: [1, 1], ceil_mode: op.ceil_mode };
    // Padding counts, but not the elements that ceil mode adds beyond it.
    let padded = |axis: usize, i: usize| {
        let start = i * stride[axis];
        (start + kernel[axis]).min(x[2 + axis] + 2 * padding[axis]) - start
    };
    let divisor = |[_, _, i, j]: [usize; 4], inside: usize| {
        (if op.count_include_pad { padded(0, i) * padded(1, j) } else { inside }) as f64
    };
    let windows = max_windows(&cover, x, y);
    indices(y).zip(windows).map(|(at, window)| (window.clone(), divisor(at, window.len()))).collect()
}

/// The input elements in each window of an adaptive average pool.
pub(super) fn adaptive_windows(op: &AdaptiveAvgPool2d, x: [usize; 4], y: [usize; 4]) -> Vec<Vec<usize>> {
    let span = |axis: usize, i: usize| {
        let (size, count) = (x[2 + axis], op.output[axis]);
        i * size / count..((i + 1) * size).div_ceil(count)
    };
    let window = |[b, c, i, j]: [usize; 4]| {
        let columns = move || span(1, j);
        span(0, i).flat_map(|row| columns().map(move |column| row_major(x, [b, c, row, column]))).collect()
    };
    indices(y).map(window).collect()
}
