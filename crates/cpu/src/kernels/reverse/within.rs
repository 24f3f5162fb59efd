//! Dense cotangents through a function of all channels of a row: softmax, and layer normalisation.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::within::WithinRow;
use crate::kernels::layout::cotangent::{Cotangents, Lines};
use crate::kernels::layout::rows::{Chunk, DenseRows, chunks, tasks};
use crate::kernels::reverse::scaled::total;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// target(r, v) += the pullback of source(r, v), row by row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WithinPullback<'a, T> {
    pub(crate) row: &'a WithinRow<T>,
    /// What the forward pass has kept: the result of a softmax, or h and one over the standard
    /// deviation.
    pub(crate) kept: DenseRows<'a, T>,
    /// Dense lines.
    pub(crate) source: Cotangents<'a, T>,
    /// Elements from one line of the target to the next.
    pub(crate) pitch: usize,
    /// The target's first channel in a line.
    pub(crate) offset: usize,
    /// Whether the results are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

/// Rows that a task should have at least ([`tasks`]): fewer than forward, since a row has V lines.
const LEAST_ROWS: usize = 16;

impl<T: SimdFloat> WithinPullback<'_, T> {
    /// Fills `rows` rows of the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, rows: usize, out: &mut [T]) {
        let block = self.lines * self.pitch;
        chunks(out, rows, tasks(rows, LEAST_ROWS), |row| row * block).into_par_iter().for_each(|chunk| {
            set.run(WithinRows { pulled: self, chunk });
        });
    }
}

/// The rows of one chunk.
struct WithinRows<'a, 'b, T> {
    pulled: &'a WithinPullback<'a, T>,
    chunk: Chunk<'b, T>,
}

impl<T: SimdFloat> WithSimd for WithinRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { pulled, chunk } = self;
        let block = pulled.lines * pulled.pitch;
        for row in chunk.rows {
            let out = &mut chunk.values[row * block - chunk.start..][..block];
            let Lines { ids, values, stride } = pulled.source.row(row, pulled.lines);
            let kept = pulled.kept.row(row);
            for (line, out) in values.chunks_exact(stride).zip(out.chunks_exact_mut(pulled.pitch)) {
                let (g, out) = (&line[..ids.len()], &mut out[pulled.offset..][..ids.len()]);
                match pulled.row {
                    WithinRow::Softmax => softmax(kept, g, pulled.add, out),
                    WithinRow::Standard { gamma, .. } => standard(kept, gamma, g, pulled.add, out),
                }
            }
        }
    }
}

/// The pullback of softmax: y (g - sum g y).
#[inline(always)]
fn softmax<T: SimdFloat>(y: &[T], g: &[T], add: bool, out: &mut [T]) {
    let y = &y[..g.len()];
    let minus = T::from_f64(-1.0) * total([g, y]);
    for (out, (g, y)) in out.iter_mut().zip(g.iter().zip(y)) {
        let pulled = *y * (*g + minus);
        *out = if add { *out + pulled } else { pulled };
    }
}

/// The pullback of layer normalisation: r (u - mean u - h mean(u h)), u = g gamma, r one over the
/// standard deviation, which stands after h in `kept`.
#[inline(always)]
fn standard<T: SimdFloat>(kept: &[T], gamma: &[T], g: &[T], add: bool, out: &mut [T]) {
    let count = g.len();
    let (h, gamma, inverse) = (&kept[..count], &gamma[..count], kept[count]);
    let share = T::from_f64(-1.0 / count as f64) * inverse;
    let mean = total([g, gamma]) * share;
    let along = total([g, gamma, h]) * share;
    for (out, ((g, gamma), h)) in out.iter_mut().zip(g.iter().zip(gamma).zip(h)) {
        let pulled = *g * *gamma * inverse + mean + *h * along;
        *out = if add { *out + pulled } else { pulled };
    }
}
