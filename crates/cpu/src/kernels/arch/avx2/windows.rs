//! The write side of the pullback on AVX2: channels whose cotangent a mask switches off are not
//! computed.
//!
//! As on AVX-512, the active channels of a row are taken in *windows*: up to one vector of them
//! that lie within two vectors of neighbours, i.e. 8 among 16 for f32 and 4 among 8 for f64.
//! Sixteen registers hold the sums of one window of nine lines, no more, so windows are taken one
//! by one; and four vectors of neighbours would take eight instructions to bring together.

use std::ops::Range;

use pulp::NullaryFnOnce;
use pulp::x86::V3;

use crate::kernels::arch::avx2::pairs::Choice;
use crate::kernels::layout::active::Active;
use crate::kernels::layout::cotangent::{CotangentTarget, LineLayout, Lines};
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::Chunk;
use crate::kernels::reverse::pullback::{Pullback, Read, Start, by_lines, panels_at_a_time};
use crate::kernels::simd::SimdFloat;

/// Runs the rows of a chunk.
pub(crate) fn pull<T: SimdFloat>(pullbacks: &[Pullback<'_, T>], chunk: &mut Chunk<'_, T>) {
    let Some(simd) = V3::try_new() else { return };
    simd.vectorize(WindowRows { simd, pullbacks, chunk });
}

/// Up to one vector of active channels that lie within two vectors of neighbours.
#[derive(Clone, Copy)]
struct Window {
    /// The first neighbour.
    first: usize,
    /// Where in the row's list the window begins.
    at: usize,
    /// How many channels it has.
    count: usize,
    /// Where they lie among the neighbours.
    choice: Choice,
}

impl Window {
    /// The window that begins `at` a place of the row's list, of which `till` bounds the panel.
    #[inline(always)]
    fn new<T: SimdFloat>(list: &[u16], at: usize, till: usize) -> Self {
        let first = usize::from(list[at]);
        let ids: &[u16; 8] = list[at..].first_chunk().unwrap_or(&[0; 8]);
        let distances = ids.map(|id| u32::from(id).wrapping_sub(first as u32));
        let most = T::LANES256.min(till - at);
        // The list ascends: the channels that are near come first.
        let near = |distance: &&u32| **distance < 2 * T::LANES256 as u32;
        let count = distances[..most].iter().filter(near).count();
        Self { first, at, count, choice: T::choice(distances) }
    }
}

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
        for first in (0..panels.count()).step_by(step) {
            let panels = first..panels.count().min(first + step);
            for row in self.chunk.rows.clone() {
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
        let (mut at, last) = (active.before(row, channels.start), active.list(row).len());
        let add = matches!(start, Start::Sum);
        let mut out = Written::new::<V>(*target, active, row, &mut self.chunk.values[begin..]);
        if !add {
            out.clear(channels, V);
        }
        for panel in range.clone() {
            if panel == range.start || panels.begins_block(panel) {
                pullback.reads(row, panel, reads);
            }
            let end = panels.channels(panel..panel + 1).end;
            let till = if end == active.channels() { last } else { active.before(row, end) };
            while at < till {
                let window = Window::new::<T>(list, at, till);
                let sums = product::<T, V>(self.simd, panels, panel, window, reads);
                for (line, sum) in sums.into_iter().enumerate() {
                    out.write(self.simd, line, window, &list[at..], sum, add);
                }
                at += window.count;
            }
        }
    }
}

/// The lines of one row of the target.
struct Written<'a, T> {
    values: &'a mut [T],
    /// From one line to the next.
    stride: usize,
    /// Whether a line holds the active channels alone.
    compressed: bool,
}

impl<'a, T: SimdFloat> Written<'a, T> {
    #[inline(always)]
    fn new<const V: usize>(
        target: CotangentTarget<'_>,
        active: &Active,
        row: usize,
        block: &'a mut [T],
    ) -> Self {
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

    /// Zeros where nothing active will be written.
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
    fn write(&mut self, simd: V3, line: usize, window: Window, ids: &[u16], sum: T::Register256, add: bool) {
        let Window { at, count, .. } = window;
        let line = &mut self.values[line * self.stride..];
        if self.compressed && count == T::LANES256 {
            let out = &mut line[at..];
            T::write256(if add { T::sum256(simd, sum, T::read256(out)) } else { sum }, out);
            return;
        }
        // What lies behind the window must not change, and dense lines are written number by
        // number.
        let mut own = [T::default(); 8];
        T::write256(sum, &mut own);
        for (id, new) in ids[..count]
            .iter()
            .zip(own)
            .enumerate()
            .map(|(i, (id, new))| (if self.compressed { at + i } else { usize::from(*id) }, new))
        {
            line[id] = if add { line[id] + new } else { new };
        }
    }
}

/// For each line, the sum over what is read of value(v, a) w(a), the window's columns alone.
#[inline(always)]
fn product<T: SimdFloat, const V: usize>(
    simd: V3,
    panels: &Panels<T>,
    panel: usize,
    window: Window,
    reads: &[Read<'_, T>],
) -> [T::Register256; V] {
    let mut sums = [T::every256(simd, T::default()); V];
    let column = window.first - panels.channels(panel..panel).start;
    for read in reads {
        let weights = &panels.tap(panel, read.tap)[column..];
        let Lines { ids, values, stride } = read.lines;
        let lines: [&[T]; V] = std::array::from_fn(|line| &values[line * stride..][..ids.len()]);
        for (a, &id) in ids.iter().enumerate() {
            let near = &weights[usize::from(id) * panels.width..][..2 * T::LANES256];
            let (first, second) = near.split_at(T::LANES256);
            let weight = T::chosen(simd, window.choice, T::read256(first), T::read256(second));
            // A loop, not closures: a closure would be compiled without the instruction set.
            for (sum, line) in sums.iter_mut().zip(&lines) {
                *sum = T::fused256(simd, T::every256(simd, line[a]), weight, *sum);
            }
        }
    }
    sums
}
