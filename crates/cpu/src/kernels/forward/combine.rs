//! Two values number by number, one of them repeated where it has fewer rows or a single channel: gates
//! of channels, and what a normalisation divides by.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::forward::product::Place;
use crate::kernels::layout::rows::{Dense, LiveRows, tasks};
use crate::kernels::layout::table::Table;
use crate::kernels::simd::{Element, InstructionSet};

/// What is done with the numbers x of the one and o of the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum How {
    /// The sum with these signs.
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
pub(crate) struct Repeat {
    /// For each row of the result the row that is read; none where each reads its own.
    pub(crate) rows: Option<Table>,
    /// The first channel that is read.
    pub(crate) first: usize,
    /// Whether it stands for all channels.
    pub(crate) single: bool,
}

impl Repeat {
    /// Whether nothing is repeated or left out.
    pub(crate) fn is_plain(&self) -> bool {
        self.rows.is_none() && self.first == 0 && !self.single
    }

    /// The row that a row of the result reads, within a sample.
    pub(crate) fn row(&self, row: usize) -> usize {
        self.rows.as_ref().map_or(row, |rows| rows.source(row, 0).unwrap_or(0))
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, Table::bytes)
    }
}

/// y = x how o.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Combine<'a, T> {
    pub(crate) how: How,
    pub(crate) source: Dense<'a, T>,
    /// The channels that are read: one where that stands for all.
    pub(crate) other: Dense<'a, T>,
    pub(crate) repeat: &'a Repeat,
    /// Rows of a sample of the result, and those that are computed.
    pub(crate) positions: usize,
    pub(crate) live: &'a [usize],
    pub(crate) samples: usize,
    /// Rows of a sample of the other.
    pub(crate) other_rows: usize,
}

/// Rows that a task should have at least.
const LEAST_ROWS: usize = 64;

impl<T: Element> Combine<'_, T> {
    /// Writes the live rows to their place, and the derivatives of a quotient, if there are buffers for
    /// them, side by side.
    pub(crate) fn run(
        &self,
        set: InstructionSet,
        out: &mut [T],
        place: Place,
        slopes: Option<[&mut [T]; 2]>,
    ) {
        let Self { positions, live, samples, .. } = *self;
        let rows = LiveRows { positions, live, samples };
        let (parts, channels) = (tasks(rows.count(), LEAST_ROWS), self.source.channels);
        rows.chunks(out, parts, place.pitch).into_par_iter().for_each(|chunk| {
            for row in chunk.rows.map(|number| rows.row(number)) {
                let first = row * place.pitch + place.offset - chunk.start;
                let own = &mut chunk.values[first..first + channels];
                set.run(Row { how: self.how, x: self.source.row(row), other: self.other(row), out: own });
            }
        });
        let Some(slopes) = slopes else { return };
        for (operand, slopes) in slopes.into_iter().enumerate() {
            rows.chunks(slopes, parts, channels).into_par_iter().for_each(|chunk| {
                for row in chunk.rows.map(|number| rows.row(number)) {
                    let first = row * channels - chunk.start;
                    let out = &mut chunk.values[first..first + channels];
                    let (x, other) = (self.source.row(row), self.other(row));
                    set.run(Slope { how: self.how, operand, x, other, out });
                }
            });
        }
    }

    /// What a row is combined with.
    fn other(&self, row: usize) -> &[T] {
        let (sample, position) = (row / self.positions, row % self.positions);
        self.other.row(sample * self.other_rows + self.repeat.row(position))
    }
}

/// Calls `one` with each number of a row and of another that may be a single one.
#[inline(always)]
fn each<T: Element>(x: &[T], other: &[T], out: &mut [T], one: impl Fn(T, T) -> T) {
    match *other {
        [single] => out.iter_mut().zip(x).for_each(|(y, x)| *y = one(*x, single)),
        _ => out.iter_mut().zip(x.iter().zip(other)).for_each(|(y, (x, o))| *y = one(*x, *o)),
    }
}

/// One row of the result.
struct Row<'a, 'b, T> {
    how: How,
    x: &'a [T],
    other: &'a [T],
    out: &'b mut [T],
}

impl<T: Element> WithSimd for Row<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { how, x, other, out } = self;
        match how {
            How::Sum(signs) => {
                let [a, b] = signs.map(T::from_f64);
                each(x, other, out, |x, o| x * a + o * b);
            }
            How::Product => each(x, other, out, |x, o| x * o),
            How::Quotient => each(x, other, out, |x, o| x / o),
            How::Inverse => each(x, other, out, |x, o| o / x),
        }
    }
}

/// One row of the derivatives of a quotient by x (operand 0) or by o (operand 1).
struct Slope<'a, 'b, T> {
    how: How,
    operand: usize,
    x: &'a [T],
    other: &'a [T],
    out: &'b mut [T],
}

impl<T: Element> WithSimd for Slope<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { how, operand, x, other, out } = self;
        let (one, minus) = (T::from_f64(1.0), T::from_f64(-1.0));
        match (how, operand) {
            (How::Inverse, 0) => each(x, other, out, |x, o| minus * (o / x) / x),
            (How::Inverse, _) => each(x, other, out, |x, _| one / x),
            (_, 0) => each(x, other, out, |_, o| one / o),
            _ => each(x, other, out, |x, o| minus * (x / o) / o),
        }
    }
}
