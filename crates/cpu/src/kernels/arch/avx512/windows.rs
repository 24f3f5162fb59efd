//! The write side of the pullback on AVX-512: channels whose cotangent a mask switches off are not
//! computed.
//!
//! The active channels of a row are taken in *windows*: up to one vector of them that lie within
//! four vectors of neighbours. For f32 a window has up to 16 channels among 64 neighbours, for f64
//! 8 among 32. From a row of weights, one two-source permutation, or two, pick the window's columns
//! side by side; the index vector of the permutation is made once for a window and serves every row
//! of weights. What is summed up is compressed already: one vector of active channels.
//!
//! ```text
//! channels of the row     0  1  2  3  4  5  6  7  8 ...       active: 1 2 5 7 8 ...
//! a window of 4 lanes        1  2        5     7              distances 0 1 4 6 from its first
//! a row of weights          [w1 w2 w3 w4 w5 w6 w7 w8] -> [w1 w2 w5 w7]
//! ```
//!
//! There are two kinds of windows:
//! - *Narrow* ones lie within two vectors, from their first channel on, and take one permutation.
//!   They are taken where the panel then needs no more windows.
//! - *Wide* ones lie within four vectors and take two permutations, whose results are added (each
//!   has zeros in the lanes of the other). They begin where a cache line does: loads across lines
//!   cost twice, and four of them would take longer than the products.
//!
//! Two windows are computed at a time, so that a broadcast cotangent serves two vectors of sums.

use std::arch::x86_64::__m512i;
use std::marker::PhantomData;
use std::ops::Range;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use crate::kernels::arch::avx512::expand::{ExpandedLines, Expander};
use crate::kernels::arch::avx512::row_buffer::RowBuffer;
use crate::kernels::arch::avx512::wide::Vector;
use crate::kernels::layout::active::{Active, PAD};
use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, LineLayout};
use crate::kernels::layout::lines::by_lines;
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::{Chunk, fetch};
use crate::kernels::reverse::pullback::{Pullback, Read, Start, panels_at_a_time};
use crate::kernels::simd::SimdFloat;

/// Runs the rows of a chunk.
pub(crate) fn pull<T: SimdFloat>(pullbacks: &[Pullback<'_, T>], chunk: &mut Chunk<'_, T>) {
    let Some(simd) = V4::try_new() else { return };
    simd.vectorize(WindowRows { simd, pullbacks, chunk });
}

/// Up to one vector of active channels that lie within four vectors of neighbours.
#[derive(Clone, Copy)]
struct ChannelWindow {
    /// The first neighbour.
    first: usize,
    /// The index of the first active channel in the row's list.
    at: usize,
    /// The lanes that hold a channel of the first two vectors, and of the other two: of a narrow
    /// window none.
    keep: [u32; 2],
    /// How far each channel lies after the first neighbour. Permutations take an index modulo two
    /// vectors, so that the same distances serve the first two vectors and the other two.
    distances: __m512i,
}

/// The rows of one chunk.
struct WindowRows<'a, 'b, 'c, T> {
    simd: V4,
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
        let (mut reads, mut expand) = (Vec::new(), Expander::default());
        let mut buffer = RowBuffer::new(V, step * panels.width);
        // Where the weights stay in a core's cache together, each row takes all panels; else all
        // rows pass by one panel after the other.
        for first in (0..panels.count()).step_by(step) {
            let panels = first..panels.count().min(first + step);
            for row in self.chunk.rows.clone() {
                if row + 1 < self.chunk.rows.end {
                    for pullback in self.pullbacks {
                        self.fetch(pullback, row + 1, V, pullback.panels.channels(panels.clone()));
                    }
                }
                // Several pullbacks take a row in turn, while it is in a core's L1 cache.
                for pullback in self.pullbacks {
                    self.row::<V>(pullback, row, panels.clone(), &mut reads, &mut buffer, &mut expand);
                }
            }
        }
    }

    /// Fetches into the L2 cache what a row will need that the rows before it did not. The CPU does
    /// not foresee it: the lines of a row are read side by side, each a little at a time.
    #[inline(always)]
    fn fetch(&self, pullback: &Pullback<'a, T>, row: usize, lines: usize, channels: Range<usize>) {
        let Pullback { links, source, target, start, .. } = pullback;
        // Of the rows that are read, the last is new; the others were mostly read for the row
        // before.
        if let Some((_, from)) = links.readers(row).next_back() {
            source.fetch(from, lines, 0..source.layout.channels());
        }
        let block = &self.chunk.values[target.block(row, lines) - self.chunk.start..];
        match target {
            CotangentTarget::Masked { pitch, offset, .. } => {
                for line in 0..lines {
                    fetch(&block[line * pitch + offset + channels.start..][..channels.len()]);
                }
            }
            CotangentTarget::Lines(layout) => fetch(&block[..lines * layout.stride(row)]),
        }
        if let Start::Identity(other) = start {
            other.fetch(row, lines, 0..other.layout.channels());
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
        buffer: &mut RowBuffer<T>,
        expand: &mut Expander,
    ) {
        let Pullback { panels, target, start, .. } = pullback;
        let Some(active) = target.active() else { return };
        let add = matches!(start, Start::Sum);
        let channels = panels.channels(range.clone());
        // Where the panels' channels begin in the row's list of active ones; `at` goes through it
        // panel by panel.
        let from = active.before(row, channels.start);
        let mut at = from;
        let block = target.block(row, V) - self.chunk.start;
        let block = &mut self.chunk.values[block..];
        let identity = match start {
            Start::Identity(other) => Some(IdentityLines::of(other, row, V)),
            Start::Empty | Start::Sum => None,
        };
        for panel in range.clone() {
            if panel == range.start || panels.begins_block(panel) {
                pullback.reads(row, panel, reads);
            }
            let own = RowProducts { simd: self.simd, panels, reads, row, identity };
            let mut windows = PanelWindows::<T>::of(self.simd, panels, active, row, panel, at);
            at = windows.till;
            // Results go to compressed lines at once, to dense ones by way of the buffer (see
            // `row_buffer`).
            let mut lines = match target {
                CotangentTarget::Lines(_) => {
                    let end = active.list(row).len();
                    ResultLines { values: block, stride: end, from: 0, end, add }
                }
                CotangentTarget::Masked { .. } => buffer.written(from),
            };
            // Two windows at a time; the last by itself where their number is odd.
            while let Some(window) = windows.next() {
                match windows.next() {
                    Some(other) => own.run::<V, 2>(panel, [window, other], &mut lines),
                    None => own.run::<V, 1>(panel, [window], &mut lines),
                }
            }
        }
        if let CotangentTarget::Masked { pitch, offset, .. } = *target {
            let block = &mut block[offset + channels.start..];
            let out = ExpandedLines { lines: V, values: block, pitch, add };
            expand.row(self.simd, (active, row), channels, buffer.lines(), None, out);
        }
    }
}

/// The windows of one panel of a row, from left to right.
struct PanelWindows<'a, T> {
    simd: V4,
    list: &'a [u16],
    /// The index in the list with which the next window begins.
    at: usize,
    /// Where the panel's channels end in the list.
    till: usize,
    /// The panel's first channel.
    start: usize,
    element: PhantomData<T>,
}

impl<'a, T: SimdFloat> PanelWindows<'a, T> {
    /// The windows of a panel whose channels begin `at` in the row's list.
    #[inline(always)]
    fn of(simd: V4, panels: &Panels<T>, active: &'a Active, row: usize, panel: usize, at: usize) -> Self {
        let Range { start, end } = panels.channels(panel..panel + 1);
        let list = active.padded_list(row);
        let till = if end == active.channels() { list.len() - PAD } else { active.before(row, end) };
        Self { simd, list, at, till, start, element: PhantomData }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<ChannelWindow> {
        if self.at >= self.till {
            return None;
        }
        let at = self.at;
        let (list, left) = (&self.list[at..], self.till - at);
        // A bit for each lane that is still this panel's: the list goes on with other panels'
        // channels, or zeros.
        let rest = u32::MAX.checked_shr(32_u32.saturating_sub(left as u32)).unwrap_or(0);
        let first = list[0] as usize;
        let distances = T::distances(self.simd, list, first);
        let near = T::below(self.simd, distances, 2 * T::LANES) & rest;
        let count = near.count_ones() as usize;
        // A narrow window, if what it leaves takes fewer full windows than what there is now: no
        // wide one could do better than that.
        if (left - count).div_ceil(T::LANES) < left.div_ceil(T::LANES) {
            self.at += count;
            return Some(ChannelWindow { first, at, keep: [near, 0], distances });
        }
        // A wide window, from the last cache line that begins at or before the first channel. (Rows
        // of weights begin with a cache line, and a vector is as long as one.)
        let first = self.start + (first - self.start) / T::LANES * T::LANES;
        let distances = T::distances(self.simd, list, first);
        let near = T::below(self.simd, distances, 2 * T::LANES) & rest;
        let all = T::below(self.simd, distances, 4 * T::LANES) & rest;
        self.at += all.count_ones() as usize;
        Some(ChannelWindow { first, at, keep: [near, all & !near], distances })
    }
}

/// Lines of compressed results while they are written.
pub(crate) struct ResultLines<'a, T> {
    pub(crate) values: &'a mut [T],
    /// Elements from one line to the next.
    pub(crate) stride: usize,
    /// The index in the row's list with which the lines begin.
    pub(crate) from: usize,
    /// The index in the row's list with which the lines end: what follows must not change.
    pub(crate) end: usize,
    /// Whether results are added to what is there.
    pub(crate) add: bool,
}

impl<T: SimdFloat> ResultLines<'_, T> {
    /// A vector of a line, from an index in the row's list on.
    #[inline(always)]
    fn at(&mut self, line: usize, index: usize) -> &mut [T] {
        &mut self.values[line * self.stride + index - self.from..][..T::LANES]
    }
}

/// What the windows of a row share.
struct RowProducts<'a, T> {
    simd: V4,
    panels: &'a Panels<T>,
    reads: &'a [Read<'a, T>],
    row: usize,
    identity: Option<IdentityLines<'a, T>>,
}

impl<T: SimdFloat> RowProducts<'_, T> {
    /// All lines of G windows.
    #[inline(always)]
    fn run<const V: usize, const G: usize>(
        &self,
        panel: usize,
        windows: [ChannelWindow; G],
        out: &mut ResultLines<'_, T>,
    ) {
        let RowProducts { simd, panels, reads, .. } = *self;
        // A bit for each wide window. As a constant of the product it leaves the innermost loop no
        // branches.
        let wide = windows.iter().rev().fold(0, |wide, window| 2 * wide + usize::from(window.keep[1] != 0));
        let sums: [[Vector<T>; G]; V] = match wide {
            0 => product::<T, V, G, 0>(simd, panels, panel, &windows, reads),
            1 => product::<T, V, G, 1>(simd, panels, panel, &windows, reads),
            2 => product::<T, V, G, 2>(simd, panels, panel, &windows, reads),
            _ => product::<T, V, G, 3>(simd, panels, panel, &windows, reads),
        };
        // Each window stores a whole vector. Lanes that hold none of its channels are zero and fall
        // on elements that later windows write. Where the lines end there are none, and the vector
        // is blended with what is there.
        let ends = windows[G - 1].at + T::LANES > out.end;
        // Three loops, each short enough to be unrolled: the sums are then stored from their
        // registers.
        if out.add {
            for (line, sums) in sums.iter().enumerate() {
                for (sum, window) in sums.iter().zip(&windows) {
                    let old = out.at(line, window.at);
                    T::write(T::sum_of(simd, *sum, T::read(old)), old);
                }
            }
        } else if ends {
            for (line, sums) in sums.iter().enumerate() {
                for (sum, window) in sums.iter().zip(&windows) {
                    let old = out.at(line, window.at);
                    let keep = window.keep[0] | window.keep[1];
                    T::write(T::blend(simd, keep, *sum, T::read(old)), old);
                }
            }
        } else {
            for (line, sums) in sums.iter().enumerate() {
                for (sum, window) in sums.iter().zip(&windows) {
                    T::write(*sum, out.at(line, window.at));
                }
            }
        }
        if let Some(identity) = &self.identity {
            for window in windows {
                identity.add::<V>(simd, self.row, window, 0, out);
                identity.add::<V>(simd, self.row, window, 1, out);
            }
        }
    }
}

/// Other cotangents of a row, of the same channels, which are added to the results: those of a
/// residual connection.
#[derive(Clone, Copy)]
struct IdentityLines<'a, T> {
    layout: LineLayout<'a>,
    /// From the row's first element on.
    values: &'a [T],
    /// Elements from one line to the next.
    stride: usize,
}

impl<'a, T: SimdFloat> IdentityLines<'a, T> {
    #[inline(always)]
    fn of(other: &Cotangents<'a, T>, row: usize, lines: usize) -> Self {
        let Cotangents { values, layout } = *other;
        Self { layout, values: &values[layout.begin(row, lines)..], stride: layout.stride(row) }
    }

    /// Adds the identity's part of a window's channels, in its first two vectors or in the others.
    #[inline(always)]
    fn add<const V: usize>(
        &self,
        simd: V4,
        row: usize,
        window: ChannelWindow,
        half: usize,
        out: &mut ResultLines<'_, T>,
    ) {
        let (first, keep) = (window.first + 2 * half * T::LANES, window.keep[half]);
        if keep == 0 {
            return;
        }
        // In dense lines the neighbours lie as in a row of weights, and are picked by the same
        // index. (It counts from the pair's first channel: permutations ignore its higher bits.) In
        // compressed lines a channel is picked by its rank among the active ones, if it is active
        // in that mask at all.
        let (keep, index, at) = match self.layout {
            LineLayout::Dense { .. } => (keep, window.distances, first),
            LineLayout::Compressed(active) => {
                let (on, index) = T::ranks(simd, active.bits(row, first), window.distances);
                (on & keep, index, active.before(row, first))
            }
        };
        for line in 0..V {
            // The two vectors may reach past the end of the row.
            let pair = &self.values[line * self.stride + at..][..2 * T::LANES];
            let own = T::pick(simd, keep, T::read(pair), index, T::read(&pair[T::LANES..]));
            let sum = out.at(line, window.at);
            T::write(T::sum_of(simd, T::read(sum), own), sum);
        }
    }
}

/// For each line v, the sum over the active channels a that are read of value(v, a) w(a), for only
/// the windows' columns. Of the windows whose bit is set in WIDE two pairs of vectors are read, of
/// the others one.
///
/// The V x G sums stay in registers: at most 9 x 2 of 32, beside the picked weights and the index
/// vectors.
#[inline(always)]
fn product<T: SimdFloat, const V: usize, const G: usize, const WIDE: usize>(
    simd: V4,
    panels: &Panels<T>,
    panel: usize,
    windows: &[ChannelWindow; G],
    reads: &[Read<'_, T>],
) -> [[Vector<T>; G]; V] {
    let zero = T::every(simd, T::default());
    let mut sums = [[zero; G]; V];
    let mut columns = [0; G];
    for g in 0..G {
        columns[g] = windows[g].first - panels.channels(panel..panel).start;
    }
    for read in reads {
        let weights = panels.tap(panel, read.tap);
        let lines = read.lines.each::<V>();
        for (a, &id) in read.lines.ids.iter().enumerate() {
            // A row of weights, the windows' columns side by side: picked once, used by all V
            // lines.
            let row = panels.row(id);
            // Loops instead of closures: a closure would be compiled without the instruction set.
            let mut picked = [zero; G];
            for g in 0..G {
                let pairs = 1 + (WIDE >> g & 1);
                let near = &weights[row + columns[g]..][..2 * pairs * T::LANES];
                for p in 0..pairs {
                    let pair = &near[2 * p * T::LANES..][..2 * T::LANES];
                    let (low, high) = (T::read(&pair[..T::LANES]), T::read(&pair[T::LANES..]));
                    let own = T::pick(simd, windows[g].keep[p], low, windows[g].distances, high);
                    picked[g] = if p == 0 { own } else { T::sum_of(simd, picked[g], own) };
                }
            }
            for (sums, line) in sums.iter_mut().zip(&lines) {
                let value = T::every(simd, line[a]);
                for (sum, weight) in sums.iter_mut().zip(picked) {
                    *sum = T::fused(simd, value, weight, *sum);
                }
            }
        }
    }
    sums
}
