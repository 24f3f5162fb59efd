//! The geometry of Winograd's form: which rows a patch reads, and which it writes.

use std::ops::Range;

use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::table::RowTable;
use crate::kernels::simd::SimdFloat;
use crate::kernels::winograd::form::{MOST_SIDE, WinogradForm};

/// The patches of a convolution over 3 x 3 neighbours, of one sample, line by line of patches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patches {
    form: WinogradForm,
    /// What each patch reads, row by row.
    reads: RowTable,
    /// What each patch writes; across the image's edge fewer rows than it has results.
    writes: RowTable,
    /// Patches in one line of patches.
    across: usize,
    /// Width of the image that is written.
    width: usize,
}

impl Patches {
    /// The patches of an image of `to` positions (height and width), each of which reads its
    /// neighbours among `from` positions: position (y, x) by tap (i, j) the position (y + i -
    /// before, x + j - before), if there is one.
    #[must_use]
    pub(crate) fn new(form: WinogradForm, from: [usize; 2], to: [usize; 2], before: [usize; 2]) -> Self {
        let (results, reads) = (form.results(), form.reads());
        let [down, across] = to.map(|extent| extent.div_ceil(results));
        // Where element `at` of a patch's square of `side` x `side` is in the image. Patches
        // advance by as many positions as they have results.
        let pixel = |patch: usize, at: usize, side: usize| {
            [patch / across * results + at / side, patch % across * results + at % side]
        };
        let within = |[y, x]: [usize; 2], extent: [usize; 2]| {
            (y < extent[0] && x < extent[1]).then_some(y * extent[1] + x)
        };
        let read = |patch: usize, at: usize| {
            let [y, x] = pixel(patch, at, reads);
            within([y.checked_sub(before[0])?, x.checked_sub(before[1])?], from)
        };
        let written = |patch: usize, at: usize| within(pixel(patch, at, results), to);
        Self {
            form,
            reads: RowTable::new(down * across, reads * reads, from[0] * from[1], read),
            writes: RowTable::new(down * across, results * results, to[0] * to[1], written),
            across,
            width: to[1],
        }
    }

    /// Packs `weight(tap, input, output)`, tap by tap of the 3 x 3, as frequencies G w G^T, in f64.
    #[must_use]
    pub(crate) fn panels<T: SimdFloat>(
        &self,
        inputs: usize,
        outputs: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Panels<T> {
        let (side, count) = (self.form.reads(), self.frequencies());
        let mut all = Vec::with_capacity(inputs * outputs * count);
        for (input, o) in (0..inputs).flat_map(|input| (0..outputs).map(move |o| (input, o))) {
            let lines = [0, 1, 2].map(|i| self.form.values([0, 1, 2].map(|j| weight(3 * i + j, input, o))));
            let columns: [_; MOST_SIDE] =
                std::array::from_fn(|j| self.form.values([0, 1, 2].map(|i| lines[i][j])));
            all.extend((0..count).map(|at| columns[at % side][at / side]));
        }
        Panels::forward(count, inputs, outputs, 1, |at, input, o| all[(input * outputs + o) * count + at])
    }

    /// How many patches a sample has.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.reads.rows()
    }

    /// How many results all patches of a sample have, those across the edge counted.
    #[must_use]
    pub(crate) fn results(&self) -> usize {
        self.writes.rows() * self.writes.taps()
    }

    /// How many rows of a sample are written.
    #[must_use]
    pub(crate) fn rows(&self) -> usize {
        self.writes.source_rows()
    }

    /// How many frequencies a patch has.
    #[must_use]
    pub(crate) fn frequencies(&self) -> usize {
        self.form.reads().pow(2)
    }

    /// Bytes that the tables take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.reads.bytes() + self.writes.bytes()
    }

    pub(crate) fn form(&self) -> WinogradForm {
        self.form
    }

    /// Which row a patch of a batch reads.
    #[inline(always)]
    pub(crate) fn read(&self, patch: usize, at: usize) -> Option<usize> {
        Self::row(&self.reads, patch, at)
    }

    /// Which row a patch of a batch writes, if the result is not beyond the edge.
    #[inline(always)]
    pub(crate) fn written(&self, patch: usize, at: usize) -> Option<usize> {
        Self::row(&self.writes, patch, at)
    }

    #[inline(always)]
    fn row(table: &RowTable, patch: usize, at: usize) -> Option<usize> {
        let found = table.source(patch % table.rows(), at)?;
        Some(patch / table.rows() * table.source_rows() + found)
    }

    /// The patch of a sample that writes a position, and which of its results the position is.
    #[inline(always)]
    pub(crate) fn result_of(&self, position: usize) -> (usize, usize) {
        let (side, [y, x]) = (self.form.results(), [position / self.width, position % self.width]);
        (y / side * self.across + x / side, y % side * side + x % side)
    }

    /// How many lines of patches a sample has: one of them writes neighbouring rows, which are a
    /// part of a buffer.
    pub(crate) fn bands(&self) -> usize {
        self.count() / self.across.max(1)
    }

    /// The patches of some lines of a batch.
    pub(crate) fn of_bands(&self, bands: Range<usize>) -> Range<usize> {
        bands.start * self.across..bands.end * self.across
    }

    /// The first row that a line of a batch writes.
    pub(crate) fn first_row(&self, band: usize) -> usize {
        let (sample, line) = (band / self.bands(), band % self.bands());
        sample * self.writes.source_rows() + line * self.form.results() * self.width
    }
}
