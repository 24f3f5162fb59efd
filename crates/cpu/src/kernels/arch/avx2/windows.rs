//! The write side of the pullback on AVX2: channels whose cotangent a mask switches off are not
//! computed.
//!
//! As on AVX-512 (`arch::avx512::windows`), the active channels of a row are taken in *windows*: up
//! to one vector of them that lie within two vectors of neighbours. For f32 a window has up to 8
//! channels among 16 neighbours, for f64 4 among 8. From a row of weights two permutations and a
//! blend pick the window's columns side by side; which columns these are is worked out once for a
//! window and serves every row of weights.
//!
//! What differs from AVX-512:
//! - There are no wide windows: bringing four vectors of neighbours together would take seven
//!   instructions.
//! - Windows are computed one by one: of 16 registers nine hold the sums of one window's lines.
//! - No instruction spreads elements among zeros: dense lines are cleared first, and then written
//!   element by element.

use std::ops::Range;

use pulp::NullaryFnOnce;
use pulp::x86::V3;

use crate::kernels::arch::avx2::pairs::Choice;
use crate::kernels::layout::active::Active;
use crate::kernels::layout::cotangent::{CotangentTarget, LineLayout};
use crate::kernels::layout::lines::by_lines;
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::Chunk;
use crate::kernels::reverse::pullback::{Pullback, Read, Start, panels_at_a_time};
use crate::kernels::simd::SimdFloat;

/// Runs the rows of a chunk.
pub(crate) fn pull<T: SimdFloat>(pullbacks: &[Pullback<'_, T>], chunk: &mut Chunk<'_, T>) {
    let Some(simd) = V3::try_new() else { return };
    simd.vectorize(WindowRows { simd, pullbacks, chunk });
}

/// Up to one vector of active channels that lie within two vectors of neighbours.
#[derive(Clone, Copy)]
struct ChannelWindow {
    /// The first neighbour, which is the first active channel.
    first: usize,
    /// The index of the first active channel in the row's list.
    at: usize,
    /// How many channels it has.
    count: usize,
    /// Where they lie among the neighbours; for the lanes after them any place.
    choice: Choice,
}

impl ChannelWindow {
    /// The window that begins at index `at` of the row's list, in which the panel's channels end
    /// before index `till`.
    #[inline(always)]
    fn new<T: SimdFloat>(list: &[u16], at: usize, till: usize) -> Self {
        let first = usize::from(list[at]);
        // There are always eight ids: the list is padded.
        let ids: &[u16; 8] = list[at..].first_chunk().unwrap_or(&[0; 8]);
        // After the panel's channels come those of other panels and rows, or zeros; channels before
        // `first` have large distances, as unsigned integers.
        let distances = ids.map(|id| u32::from(id).wrapping_sub(first as u32));
        let most = T::LANES256.min(till - at);
        // The panel's channels ascend: those that are near come first.
        let near = |distance: &&u32| **distance < 2 * T::LANES256 as u32;
        let count = distances[..most].iter().filter(near).count();
        Self { first, at, count, choice: T::choice256(distances) }
    }
}

/// The rows of one chunk.
struct WindowRows<'a, 'b, 'c, T> {
    simd: V3,
    pullbacks: &'a [Pullback<'a, T>],
    chunk: &'b mut Chunk<'c, T>,
}

impl<T: SimdFloat> NullaryFnOnce for WindowRows<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let Some(one) = self.pullbacks.first() else { return };
        by_lines!(one.lines, |V| self.rows::<V>());
    }
}

impl<'a, T: SimdFloat> WindowRows<'a, '_, '_, T> {
    #[inline(always)]
    fn rows<const V: usize>(&mut self) {
        let (step, panels) = (panels_at_a_time(self.pullbacks), self.pullbacks[0].panels);
        let mut reads = Vec::new();
        // Where the weights stay in a core's cache together, each row takes all panels; else all
        // rows pass by one panel after the other.
        for first in (0..panels.count()).step_by(step) {
            let panels = first..panels.count().min(first + step);
            for row in self.chunk.rows.clone() {
                // Several pullbacks take a row in turn, while it is in a core's L1 cache.
                for pullback in self.pullbacks {
                    self.row::<V>(pullback, row, panels.clone(), &mut reads);
                }
            }
        }
    }

    /// Some panels of one row.
    #[inline(always)]
    fn row<const V: usize>(
        &mut self,
        pullback: &'a Pullback<'a, T>,
        row: usize,
        range: Range<usize>,
        reads: &mut Vec<Read<'a, T>>,
    ) {
        let Pullback { panels, target, start, .. } = pullback;
        let Some(active) = target.active() else { return };
        let list = active.padded_list(row);
        let begin = target.block(row, V) - self.chunk.start;
        let channels = panels.channels(range.clone());
        // Where the panels' channels begin in the row's list of active ones; `at` goes through it
        // window by window.
        let (mut at, last) = (active.before(row, channels.start), active.list(row).len());
        let add = matches!(start, Start::Sum);
        let mut lines = ResultLines::of(*target, active, row, &mut self.chunk.values[begin..]);
        if !add {
            lines.clear(channels, V);
        }
        for panel in range.clone() {
            if panel == range.start || panels.begins_block(panel) {
                pullback.reads(row, panel, reads);
            }
            let end = panels.channels(panel..panel + 1).end;
            let till = if end == active.channels() { last } else { active.before(row, end) };
            while at < till {
                let window = ChannelWindow::new::<T>(list, at, till);
                let sums = product::<T, V>(self.simd, panels, panel, window, reads);
                for (line, sum) in sums.into_iter().enumerate() {
                    lines.write(self.simd, line, window, &list[at..], sum, add);
                }
                at += window.count;
            }
        }
    }
}

/// The lines of one row of the target, compressed or dense.
struct ResultLines<'a, T> {
    values: &'a mut [T],
    /// Elements from one line to the next.
    stride: usize,
    /// Whether a line holds only the active channels.
    compressed: bool,
}

impl<'a, T: SimdFloat> ResultLines<'a, T> {
    /// The lines of a row whose elements begin with `block`.
    #[inline(always)]
    fn of(target: CotangentTarget<'_>, active: &Active, row: usize, block: &'a mut [T]) -> Self {
        match target {
            CotangentTarget::Masked { pitch, offset, .. } => {
                Self { values: &mut block[offset..], stride: pitch, compressed: false }
            }
            CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. }) => {
                Self { values: &mut block[offset..], stride: pitch, compressed: false }
            }
            CotangentTarget::Lines(LineLayout::Compressed(_)) => {
                Self { values: block, stride: active.stride(row), compressed: true }
            }
        }
    }

    /// Sets dense lines to zero, since only their active channels are written.
    #[inline(always)]
    fn clear(&mut self, channels: Range<usize>, lines: usize) {
        if !self.compressed {
            for line in 0..lines {
                self.values[line * self.stride..][channels.clone()].fill(T::default());
            }
        }
    }

    /// Writes a window's results of one line, or adds them; `ids` begins with the window's
    /// channels.
    #[inline(always)]
    fn write(
        &mut self,
        simd: V3,
        line: usize,
        window: ChannelWindow,
        ids: &[u16],
        sum: T::Register256,
        add: bool,
    ) {
        let ChannelWindow { at, count, .. } = window;
        let line = &mut self.values[line * self.stride..];
        // A full window is one vector of a compressed line.
        if self.compressed && count == T::LANES256 {
            let out = &mut line[at..];
            T::write256(if add { T::sum_of256(simd, sum, T::read256(out)) } else { sum }, out);
            return;
        }
        // Element by element: what lies after a window must not change, nor what lies between its
        // channels in a dense line.
        let mut own = [T::default(); 8];
        T::write256(sum, &mut own);
        for (index, new) in ids[..count]
            .iter()
            .zip(own)
            .enumerate()
            .map(|(i, (id, new))| (if self.compressed { at + i } else { usize::from(*id) }, new))
        {
            line[index] = if add { line[index] + new } else { new };
        }
    }
}

/// For each line v, the sum over the active channels a that are read of value(v, a) w(a), for only
/// the window's columns.
///
/// The V sums stay in registers: at most 9 of 16, beside the picked weights, their choice and the
/// broadcast value.
#[inline(always)]
fn product<T: SimdFloat, const V: usize>(
    simd: V3,
    panels: &Panels<T>,
    panel: usize,
    window: ChannelWindow,
    reads: &[Read<'_, T>],
) -> [T::Register256; V] {
    let mut sums = [T::every256(simd, T::default()); V];
    let column = window.first - panels.channels(panel..panel).start;
    for read in reads {
        let weights = &panels.tap(panel, read.tap)[column..];
        let lines = read.lines.each::<V>();
        for (a, &id) in read.lines.ids.iter().enumerate() {
            // A row of weights, the window's columns side by side: picked once, used by all V
            // lines.
            let near = &weights[panels.row(id)..][..2 * T::LANES256];
            let (low, high) = near.split_at(T::LANES256);
            let weight = T::pick256(simd, window.choice, T::read256(low), T::read256(high));
            // A loop instead of closures: a closure would be compiled without the instruction set.
            for (sum, line) in sums.iter_mut().zip(&lines) {
                *sum = T::fused256(simd, T::every256(simd, line[a]), weight, *sum);
            }
        }
    }
    sums
}
