//! Cotangents times a factor for each element of the rows that they come from: through functions of
//! one variable, products, quotients, and the repeats before them.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::combine::Repetition;
use crate::kernels::layout::cotangent::{Cotangents, LineLayout, Lines};
use crate::kernels::layout::rows::{Chunk, DenseRows, chunks, tasks};
use crate::kernels::layout::table::Links;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// The factors of a row's channels.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowFactor<'a, T> {
    /// One factor for all rows and channels.
    Number(T),
    /// A factor for each channel of a row, or a single one for all. A sample has `count` such rows;
    /// `repeat` says which of them belongs to a row of the source, if not the same one.
    Rows { rows: DenseRows<'a, T>, count: usize, repeat: Option<&'a Repetition> },
    /// A factor for each channel of a row, the same for all samples.
    Fixed(DenseRows<'a, T>),
}

/// target(s, v, c) += sum over the rows r that read s of source(r, v, c) factor(r, c); where the
/// target has one channel of several that are read, the sum over these too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScaledPullback<'a, T> {
    /// Which rows read each row of the target; none where each reads its own.
    pub(crate) links: Option<&'a Links>,
    pub(crate) source: Cotangents<'a, T>,
    /// Rows of a sample of the source.
    pub(crate) positions: usize,
    pub(crate) factor: RowFactor<'a, T>,
    /// Further factors for each row of the target: the derivatives of a function through which the
    /// results are pulled back, too.
    pub(crate) slopes: Option<DenseRows<'a, T>>,
    /// Elements from one line of the target to the next.
    pub(crate) pitch: usize,
    /// The target's first channel in a line.
    pub(crate) offset: usize,
    /// How many channels the target has: one where it was repeated to all that are read.
    pub(crate) channels: usize,
    /// Whether the results are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

/// Rows that a task should read at least ([`tasks`]). A row of the target may be read by many, and
/// takes as long as all of them.
const LEAST_ROWS: usize = 32;

impl<T: SimdFloat> ScaledPullback<'_, T> {
    /// Fills all rows of `samples` samples of the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        let targets = self.links.map_or(self.positions, Links::targets);
        let rows = samples * targets;
        let read = self.positions.div_ceil(targets.max(1)).max(1);
        let block = self.lines * self.pitch;
        let parts = tasks(rows, LEAST_ROWS.div_ceil(read));
        chunks(out, rows, parts, |row| row * block).into_par_iter().for_each(|chunk| {
            set.run(ScaledRows { scaled: self, set, chunk, targets });
        });
    }
}

/// The rows of one chunk.
struct ScaledRows<'a, 'b, T> {
    scaled: &'a ScaledPullback<'a, T>,
    set: InstructionSet,
    chunk: Chunk<'b, T>,
    /// Rows of a sample of the target.
    targets: usize,
}

impl<T: SimdFloat> WithSimd for ScaledRows<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { scaled, set, chunk, targets } = self;
        let block = scaled.lines * scaled.pitch;
        let mut full = vec![T::default(); scaled.lines * scaled.source.layout.channels()];
        for row in chunk.rows {
            let out = &mut chunk.values[row * block - chunk.start..][..block];
            let (sample, position) = (row / targets, row % targets);
            let slopes = scaled.slopes.map(|slopes| slopes.row(row));
            let Some(links) = scaled.links else {
                let lines = scaled.lines_of(set, sample, position, &mut full);
                scaled.read(lines, [sample, position], (slopes, scaled.add), out);
                continue;
            };
            let mut add = scaled.add;
            for link in links.of(position) {
                let lines = scaled.lines_of(set, sample, link.row, &mut full);
                scaled.read(lines, [sample, link.row], (slopes, add), out);
                add = true;
            }
            // A row that nothing reads: zeros, if nothing was there.
            if !add {
                out.chunks_exact_mut(scaled.pitch)
                    .for_each(|line| line[scaled.offset..][..scaled.channels].fill(T::default()));
            }
        }
    }
}

impl<T: SimdFloat> ScaledPullback<'_, T> {
    /// The lines of one row of the source in full, and from one to the next.
    #[inline(always)]
    fn lines_of<'b>(
        &'b self,
        set: InstructionSet,
        sample: usize,
        position: usize,
        full: &'b mut [T],
    ) -> (&'b [T], usize) {
        let (row, channels) = (sample * self.positions + position, self.source.layout.channels());
        match self.source.layout {
            LineLayout::Dense { .. } => {
                let Lines { values, stride, .. } = self.source.row(row, self.lines);
                (values, stride)
            }
            LineLayout::Compressed(_) => {
                self.source.expand(set, row, self.lines, 0..channels, full);
                (full, channels)
            }
        }
    }

    /// Adds, or writes, what comes from the lines of one row.
    #[inline(always)]
    fn read(
        &self,
        (values, stride): (&[T], usize),
        [sample, position]: [usize; 2],
        (slopes, add): (Option<&[T]>, bool),
        out: &mut [T],
    ) {
        // Factors of the row that was read: one for each channel, or a single one.
        let wide = self.source.layout.channels();
        let number;
        let factors: &[T] = match self.factor {
            RowFactor::Number(one) => {
                number = [one];
                &number
            }
            RowFactor::Rows { rows, count, repeat } => {
                rows.row(sample * count + repeat.map_or(position, |repeat| repeat.row(position)))
            }
            RowFactor::Fixed(rows) => rows.row(position),
        };
        for (line, out) in values.chunks_exact(stride).zip(out.chunks_exact_mut(self.pitch)) {
            let (line, out) = (&line[..wide], &mut out[self.offset..][..self.channels]);
            // A broadcast operand: one channel of the target was read as all channels of the
            // source, so that its cotangent is the sum over these.
            if self.channels < wide {
                let sum = inner(line, factors) * slopes.map_or(T::from_f64(1.0), |slopes| slopes[0]);
                out[0] = if add { out[0] + sum } else { sum };
                continue;
            }
            // Else channel by channel. A loop for each case, so that none has a branch inside.
            if let Some(slopes) = slopes {
                let terms = line.iter().zip(slopes);
                match factors {
                    &[one] => write(out, add, terms.map(|(x, slope)| *x * one * *slope)),
                    _ => write(out, add, terms.zip(factors).map(|((x, slope), f)| *x * *slope * *f)),
                }
                continue;
            }
            match factors {
                &[one] => write(out, add, line.iter().map(|x| *x * one)),
                _ => write(out, add, line.iter().zip(factors).map(|(x, f)| *x * *f)),
            }
        }
    }
}

/// Adds elements to a line, or writes them.
#[inline(always)]
fn write<T: SimdFloat>(out: &mut [T], add: bool, numbers: impl Iterator<Item = T>) {
    if add {
        out.iter_mut().zip(numbers).for_each(|(out, x)| *out = *out + x);
    } else {
        out.iter_mut().zip(numbers).for_each(|(out, x)| *out = x);
    }
}

/// Sums that run side by side: as many as the widest vector has elements, on all instruction sets,
/// so that the order of summation is the same.
const SUMS: usize = 16;

/// The sum over all indices of the product of these rows' elements there.
#[inline(always)]
pub(crate) fn total<T: SimdFloat, const N: usize>(rows: [&[T]; N]) -> T {
    let product =
        |at: usize, rows: &[&[T]; N]| rows[1..].iter().fold(rows[0][at], |product, row| product * row[at]);
    let count = rows[0].len();
    let mut sums = [T::default(); SUMS];
    for first in (0..count / SUMS).map(|block| block * SUMS) {
        let rows = rows.map(|row| &row[first..first + SUMS]);
        sums.iter_mut().enumerate().for_each(|(at, sum)| *sum = *sum + product(at, &rows));
    }
    let rest = rows.map(|row| &row[count / SUMS * SUMS..]);
    for (at, sum) in (0..count % SUMS).zip(&mut sums) {
        *sum = *sum + product(at, &rest);
    }
    sums.into_iter().fold(T::default(), |a, b| a + b)
}

/// The inner product of two rows, of which the second may be a single factor.
#[inline(always)]
fn inner<T: SimdFloat>(a: &[T], b: &[T]) -> T {
    match *b {
        [one] => total([a]) * one,
        _ => total([a, &b[..a.len()]]),
    }
}
