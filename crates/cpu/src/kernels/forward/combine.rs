//! Two values combined element by element. One of them is repeated where it has fewer rows or a
//! single channel: gates of channels, and what a normalisation divides by.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::RowLayout;
use crate::kernels::layout::rows::{DenseRows, LiveRows, tasks};
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// What is done with the elements x of the one and o of the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum How {
    /// The sum of both with these signs.
    Sum([f64; 2]),
    /// x o.
    Product,
    /// x / o.
    Quotient,
    /// o / x.
    Inverse,
}

/// How rows of the one are repeated beside those of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repetition {
    /// For each row of the result the row that is read; none where each row reads its own.
    pub(crate) rows: Option<RowTable>,
    /// The first channel that is read.
    pub(crate) first: usize,
    /// Whether that channel stands for all channels.
    pub(crate) single: bool,
}

impl Repetition {
    /// Whether nothing is repeated or left out.
    pub(crate) fn is_plain(&self) -> bool {
        self.rows.is_none() && self.first == 0 && !self.single
    }

    /// The row that a row of the result reads, within a sample.
    pub(crate) fn row(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |rows| rows.source(row, 0).unwrap_or(0))
    }

    /// Bytes that the repetition takes.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, RowTable::bytes)
    }
}

/// y = x how o.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Combine<'a, T> {
    pub(crate) how: How,
    pub(crate) source: DenseRows<'a, T>,
    /// The channels that are read: one where it stands for all.
    pub(crate) other: DenseRows<'a, T>,
    pub(crate) repeat: &'a Repetition,
    /// Rows of a sample of the result.
    pub(crate) positions: usize,
    /// The positions that are computed, ascending.
    pub(crate) live: &'a [usize],
    pub(crate) samples: usize,
    /// Rows of a sample of the other operand.
    pub(crate) other_rows: usize,
}

/// Rows that a task should have at least ([`tasks`]): many, since a row takes one operation for
/// each element.
const LEAST_ROWS: usize = 64;

/// What is computed of a combination y = x how o.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CombineWanted {
    /// y itself.
    Value,
    /// dy/dx, of a quotient.
    ByFirst,
    /// dy/do, of a quotient.
    ByOther,
}

impl<T: SimdFloat> Combine<'_, T> {
    /// Writes the live rows of the result as `layout` says, and the derivatives of a quotient by
    /// both operands, if there are buffers for them, row after row without gaps.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        out: &mut [T],
        layout: RowLayout,
        slopes: Option<[&mut [T]; 2]>,
    ) {
        self.write(set, CombineWanted::Value, out, layout);
        let Some([by_first, by_other]) = slopes else { return };
        let layout = RowLayout { pitch: self.source.channels, offset: 0 };
        self.write(set, CombineWanted::ByFirst, by_first, layout);
        self.write(set, CombineWanted::ByOther, by_other, layout);
    }

    /// Writes all live rows of the result or of a derivative.
    fn write(&self, set: InstructionSet, wanted: CombineWanted, out: &mut [T], layout: RowLayout) {
        let Self { how, positions, live, samples, .. } = *self;
        let rows = LiveRows { positions, live, samples };
        let (parts, channels) = (tasks(rows.count(), LEAST_ROWS), self.source.channels);
        rows.chunks(out, parts, layout.pitch).into_par_iter().for_each(|chunk| {
            for row in chunk.rows.map(|number| rows.row(number)) {
                let first = row * layout.pitch + layout.offset - chunk.start;
                let out = &mut chunk.values[first..first + channels];
                let (x, other) = (self.source.row(row), self.other(row));
                set.run(CombineRow { how, wanted, x, other, out });
            }
        });
    }

    /// What a row is combined with.
    fn other(&self, row: usize) -> &[T] {
        let (sample, position) = (row / self.positions, row % self.positions);
        self.other.row(sample * self.other_rows + self.repeat.row(position))
    }
}

/// Calls `one` with each element of a row and of another that may be a single one.
#[inline(always)]
fn each<T: SimdFloat>(x: &[T], other: &[T], out: &mut [T], one: impl Fn(T, T) -> T) {
    match *other {
        [single] => out.iter_mut().zip(x).for_each(|(y, x)| *y = one(*x, single)),
        _ => out.iter_mut().zip(x.iter().zip(other)).for_each(|(y, (x, o))| *y = one(*x, *o)),
    }
}

/// One row of the result, or of a derivative.
struct CombineRow<'a, 'b, T> {
    how: How,
    wanted: CombineWanted,
    x: &'a [T],
    other: &'a [T],
    out: &'b mut [T],
}

impl<T: SimdFloat> WithSimd for CombineRow<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { how, wanted, x, other, out } = self;
        let (one, minus) = (T::from_f64(1.0), T::from_f64(-1.0));
        match (wanted, how) {
            (CombineWanted::Value, How::Sum(signs)) => {
                let [a, b] = signs.map(T::from_f64);
                each(x, other, out, |x, o| x * a + o * b);
            }
            (CombineWanted::Value, How::Product) => each(x, other, out, |x, o| x * o),
            (CombineWanted::Value, How::Quotient) => each(x, other, out, |x, o| x / o),
            (CombineWanted::Value, How::Inverse) => each(x, other, out, |x, o| o / x),
            // Derivatives are kept only of quotients: those of sums and products are constants and
            // the operands themselves.
            (CombineWanted::ByFirst, How::Inverse) => each(x, other, out, |x, o| minus * (o / x) / x),
            (CombineWanted::ByOther, How::Inverse) => each(x, other, out, |x, _| one / x),
            (CombineWanted::ByFirst, _) => each(x, other, out, |_, o| one / o),
            (CombineWanted::ByOther, _) => each(x, other, out, |x, o| minus * (x / o) / o),
        }
    }
}
