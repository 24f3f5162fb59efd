//! Functions of all channels of a row: softmax, and normalisation by the row's own mean and
//! variance.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::rows::{DenseRows, LiveRows, tasks};
use crate::kernels::reverse::scaled::total;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// y = f(x), row by row.
#[derive(Debug, Clone)]
pub(crate) enum WithinRow<T> {
    /// exp x / sum exp x.
    Softmax,
    /// gamma h + beta, h = (x - mean) / sqrt(variance + epsilon).
    Standard { epsilon: f64, gamma: Vec<T>, beta: Vec<T> },
}

/// All rows of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Within<'a, T> {
    pub(crate) row: &'a WithinRow<T>,
    pub(crate) source: DenseRows<'a, T>,
    /// Rows of a sample.
    pub(crate) positions: usize,
    /// The positions that are computed, ascending.
    pub(crate) live: &'a [usize],
    pub(crate) samples: usize,
}

/// Rows that a task should have at least ([`tasks`]): fewer than for pools, since a row is read
/// several times.
const LEAST_ROWS: usize = 32;

impl<T: SimdFloat> WithinRow<T> {
    /// The same function, rounded to another type.
    pub(crate) fn rounded<U: SimdFloat>(&self) -> WithinRow<U> {
        let numbers = |all: &[T]| all.iter().map(|x| U::from_f64(x.to_f64())).collect();
        match self {
            Self::Softmax => WithinRow::Softmax,
            Self::Standard { epsilon, gamma, beta } => {
                WithinRow::Standard { epsilon: *epsilon, gamma: numbers(gamma), beta: numbers(beta) }
            }
        }
    }

    /// Bytes that its vectors take.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Softmax => 0,
            Self::Standard { gamma, beta, .. } => {
                size_of_val(gamma.as_slice()) + size_of_val(beta.as_slice())
            }
        }
    }

    /// Elements that a row of so many channels keeps besides its result: h, and one over the
    /// standard deviation.
    pub(crate) fn kept(&self, channels: usize) -> Option<usize> {
        match self {
            Self::Softmax => None,
            Self::Standard { .. } => Some(channels + 1),
        }
    }
}

impl<T: SimdFloat> Within<'_, T> {
    /// Writes the live rows as `layout` says, and what the reverse pass needs, if there is a buffer
    /// for it.
    pub(crate) fn run(&self, set: InstructionSet, out: &mut [T], layout: RowLayout, kept: Option<&mut [T]>) {
        let Self { positions, live, samples, .. } = *self;
        let rows = LiveRows { positions, live, samples };
        let parts = tasks(rows.count(), LEAST_ROWS);
        let (values, channels) = (rows.chunks(out, parts, layout.pitch), self.source.channels);
        let width = self.row.kept(channels).unwrap_or(0);
        // What is kept is cut into the same rows as the values, so that a task has both.
        let kept = match kept {
            Some(kept) => rows.chunks(kept, parts, width).into_iter().map(Some).collect(),
            None => values.iter().map(|_| None).collect::<Vec<_>>(),
        };
        values.into_par_iter().zip(kept).for_each(|(out, mut kept)| {
            for row in out.rows.clone().map(|number| rows.row(number)) {
                let first = row * layout.pitch + layout.offset - out.start;
                let own = kept.as_mut().map(|kept| {
                    let first = row * width - kept.start;
                    &mut kept.values[first..first + width]
                });
                let y = &mut out.values[first..first + channels];
                set.run(OneRow { row: self.row, x: self.source.row(row), y, kept: own });
            }
        });
    }
}

/// One row.
struct OneRow<'a, 'b, T> {
    row: &'a WithinRow<T>,
    x: &'a [T],
    y: &'b mut [T],
    kept: Option<&'b mut [T]>,
}

impl<T: SimdFloat> WithSimd for OneRow<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { row, x, y, kept } = self;
        match row {
            WithinRow::Softmax => softmax(x, y),
            WithinRow::Standard { epsilon, gamma, beta } => {
                let deviation = standardize(*epsilon, x, y);
                if let Some(kept) = kept {
                    kept[..y.len()].copy_from_slice(y);
                    kept[y.len()] = deviation;
                }
                let terms = gamma.iter().zip(beta);
                y.iter_mut().zip(terms).for_each(|(y, (gamma, beta))| *y = *y * *gamma + *beta);
            }
        }
    }
}

#[inline(always)]
fn softmax<T: SimdFloat>(x: &[T], y: &mut [T]) {
    // NaN is never the largest, but makes the sum NaN, and with it all of the row.
    let largest = x.iter().fold(T::from_f64(f64::NEG_INFINITY), |a, b| if *b > a { *b } else { a });
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - largest).power_of_e());
    let sum = total([&*y]);
    y.iter_mut().for_each(|y| *y = *y / sum);
}

/// Writes h, and gives one over the standard deviation.
#[inline(always)]
fn standardize<T: SimdFloat>(epsilon: f64, x: &[T], h: &mut [T]) -> T {
    let count = x.len() as f64;
    let mean = T::from_f64(total([x]).to_f64() / count);
    let minus = T::from_f64(-1.0);
    h.iter_mut().zip(x).for_each(|(h, x)| *h = *x + mean * minus);
    let variance = total([&*h, &*h]).to_f64() / count;
    let inverse = T::from_f64(1.0 / (variance + epsilon).sqrt());
    h.iter_mut().for_each(|h| *h = *h * inverse);
    inverse
}
