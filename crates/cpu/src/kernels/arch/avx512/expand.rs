//! Compressed lines written among zeros, or added to dense lines, and the way back; one vector of
//! neighbours at a time, on AVX-512.
//!
//! | function | from | to |
//! |---|---|---|
//! | [`part`] | some channels of compressed lines | the same in full, side by side |
//! | [`spread`] | compressed lines, times a scale | dense lines, written or added |
//! | [`deliver`] | lines in full | dense lines where a mask is on, or compressed lines |
//!
//! The CPU's expansion (`among_zeros`) puts the next elements of a compressed line where a mask has
//! bits, its compression (`together`) does the reverse. Which bits a vector of neighbours has, and
//! how many active channels come before it, is worked out once for all V lines of a row.

use std::ops::Range;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use crate::kernels::layout::active::Active;
use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, LineLayout, RowTile};
use crate::kernels::layout::rows::Chunk;
use crate::kernels::reverse::spread::SpreadPullback;
use crate::kernels::simd::SimdFloat;

/// Writes compressed lines in full. Its list is kept from row to row, so that it is allocated once.
#[derive(Default)]
pub(crate) struct Expander {
    /// For each vector of neighbours its mask, and the index of its first active channel in the
    /// lines.
    parts: Vec<(u32, usize)>,
}

/// Dense lines to write, which begin with the first of some channels.
pub(crate) struct ExpandedLines<'a, T> {
    pub(crate) lines: usize,
    pub(crate) values: &'a mut [T],
    /// Elements from one line to the next.
    pub(crate) pitch: usize,
    /// Whether to add to what is there.
    pub(crate) add: bool,
}

impl<'a, T> ExpandedLines<'a, T> {
    /// Lines side by side, to be written over.
    pub(crate) fn written(lines: usize, values: &'a mut [T]) -> Self {
        let pitch = values.len() / lines.max(1);
        Self { lines, values, pitch, add: false }
    }
}

impl Expander {
    /// Some channels of a row: each line of `values` goes to one of `out`, with zeros where the
    /// mask is off, times a factor for each channel if there are any. The lines are `stride` apart
    /// and begin with the first of these channels that is active. A vector after their last element
    /// is read, too.
    #[inline(always)]
    pub(crate) fn row<T: SimdFloat>(
        &mut self,
        simd: V4,
        (active, row): (&Active, usize),
        channels: Range<usize>,
        (values, stride): (&[T], usize),
        scale: Option<&[T]>,
        out: ExpandedLines<'_, T>,
    ) {
        // The mask of each vector, once for all lines.
        self.parts.clear();
        let mut at = 0;
        for channel in channels.clone().step_by(T::LANES) {
            let bits = active.bits(row, channel) & (u32::MAX >> (32 - T::LANES));
            self.parts.push((bits, at));
            at += bits.count_ones() as usize;
        }
        let zero = T::every(simd, T::default());
        let one = T::every(simd, T::from_f64(1.0));
        for line in 0..out.lines {
            let own = &values[line * stride..];
            let to = &mut out.values[line * out.pitch..][..channels.len()];
            let mut parts = self.parts.iter();
            let mut vectors = to.chunks_exact_mut(T::LANES);
            let mut factors = scale.map(|scale| scale[channels.clone()].chunks_exact(T::LANES));
            for (to, &(bits, at)) in (&mut vectors).zip(&mut parts) {
                // A whole vector is read; of its elements the expansion takes as many as the mask
                // has bits.
                let value = T::among_zeros(simd, bits, T::read(&own[at..]));
                let factor = match &mut factors {
                    Some(factors) => factors.next().map_or(one, |factor| T::read(factor)),
                    None => one,
                };
                let old = if out.add { T::read(to) } else { zero };
                T::write(T::sum_of(simd, old, T::fused(simd, value, factor, zero)), to);
            }
            // The channels after the last full vector, one by one: what follows them may belong to
            // other values.
            let Some(&(bits, mut at)) = parts.next() else { continue };
            let rest = channels.end - channels.len() % T::LANES;
            for (bit, to) in vectors.into_remainder().iter_mut().enumerate() {
                let mut value = T::default();
                if bits >> bit & 1 == 1 {
                    value = own[at] * scale.map_or(T::from_f64(1.0), |scale| scale[rest + bit]);
                    at += 1;
                }
                *to = if out.add { *to + value } else { value };
            }
        }
    }
}

/// Writes some channels of a row's lines in full, where the CPU has the instructions and the lines
/// are compressed.
pub(crate) fn part<T: SimdFloat>(
    source: &Cotangents<'_, T>,
    row: usize,
    channels: Range<usize>,
    out: ExpandedLines<'_, T>,
) -> bool {
    let (Some(simd), LineLayout::Compressed(active)) = (V4::try_new(), source.layout) else { return false };
    let values = &source.values[active.block(row, out.lines) + active.before(row, channels.start)..];
    simd.vectorize(ExpandPart { simd, active, row, channels, values, out });
    true
}

struct ExpandPart<'a, T> {
    simd: V4,
    active: &'a Active,
    row: usize,
    channels: Range<usize>,
    values: &'a [T],
    out: ExpandedLines<'a, T>,
}

impl<T: SimdFloat> NullaryFnOnce for ExpandPart<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let ExpandPart { simd, active, row, channels, values, out } = self;
        let stride = active.stride(row);
        Expander::default().row(simd, (active, row), channels, (values, stride), None, out);
    }
}

/// Delivers some channels of a row through a mask, where the CPU has the instructions.
pub(crate) fn deliver<T: SimdFloat>(
    target: CotangentTarget<'_>,
    tile: RowTile<'_, T>,
    add: bool,
    block: &mut [T],
) -> bool {
    let (Some(simd), Some(active)) = (V4::try_new(), target.active()) else { return false };
    simd.vectorize(Delivery { simd, target, active, tile, add, block });
    true
}

struct Delivery<'a, T> {
    simd: V4,
    target: CotangentTarget<'a>,
    active: &'a Active,
    tile: RowTile<'a, T>,
    add: bool,
    block: &'a mut [T],
}

impl<T: SimdFloat> NullaryFnOnce for Delivery<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let Delivery { target, active, tile, .. } = self;
        let mut parts = [(0, 0); PARTS];
        // The index of the next active channel in the row's list. A row may have any number of
        // channels and the array is on the stack, so its parts are worked out some at a time.
        let mut rank = active.before(tile.row, tile.first);
        for start in (0..tile.width).step_by(PARTS * T::LANES) {
            let channels = start..tile.width.min(start + PARTS * T::LANES);
            let columns = channels.clone().step_by(T::LANES);
            let count = columns.len();
            for (part, column) in parts.iter_mut().zip(columns) {
                let width = T::LANES.min(channels.end - column);
                let bits = active.bits(tile.row, tile.first + column) & (u32::MAX >> (32 - width));
                *part = (bits, rank);
                rank += bits.count_ones() as usize;
            }
            match target {
                CotangentTarget::Masked { pitch, offset, .. } => {
                    self.masked(pitch, offset, channels, &parts[..count]);
                }
                CotangentTarget::Lines(layout) => {
                    self.compressed(layout.stride(tile.row), channels, &parts[..count]);
                }
            }
        }
    }
}

/// Vectors of a row whose masks are worked out at a time. More would make the array on the stack
/// larger, which is cleared for each tile. With fewer, wide rows are delivered in more pieces, and
/// rows that are no longer one piece are blended with what is there ([`Delivery::compressed`]).
const PARTS: usize = 64;

impl<T: SimdFloat> Delivery<'_, T> {
    /// Delivers channels to dense lines.
    #[inline(always)]
    fn masked(&mut self, pitch: usize, offset: usize, channels: Range<usize>, parts: &[(u32, usize)]) {
        let (simd, zero, begin) = (self.simd, T::every(self.simd, T::default()), offset + self.tile.first);
        for (line, values) in self.tile.values.chunks_exact(self.tile.stride).enumerate() {
            let out = &mut self.block[line * pitch + begin..][channels.clone()];
            let vectors = values[channels.clone()].chunks(T::LANES).zip(out.chunks_mut(T::LANES));
            for ((values, out), (bits, _)) in vectors.zip(parts) {
                let old = if self.add { read(out) } else { zero };
                write(T::sum_of(simd, T::blend(simd, *bits, read(values), zero), old), out);
            }
        }
    }

    /// Delivers channels to compressed lines.
    #[inline(always)]
    fn compressed(&mut self, stride: usize, channels: Range<usize>, parts: &[(u32, usize)]) {
        let (simd, tile) = (self.simd, self.tile);
        let whole = tile.first == 0 && channels == (0..self.active.channels());
        for (line, values) in tile.values.chunks_exact(tile.stride).enumerate() {
            let line = &mut self.block[line * stride..];
            for (values, (bits, rank)) in values[channels.clone()].chunks(T::LANES).zip(parts) {
                let to = &mut line[*rank..][..T::LANES];
                let own = T::together(simd, *bits, read(values));
                if self.add {
                    T::write(T::sum_of(simd, own, T::read(to)), to);
                } else if whole {
                    // What a whole vector overwrites after its active channels is written next: by
                    // the next vector of the line, or by the next line. After the last line there
                    // is room.
                    T::write(own, to);
                } else {
                    // Other tiles of the row may have written what lies after.
                    let keep = (1 << bits.count_ones()) - 1;
                    T::write(T::blend(simd, keep, own, T::read(to)), to);
                }
            }
        }
    }
}

/// Hands on the cotangents of a chunk's rows, where the CPU has the instructions and compressed
/// lines go to dense ones.
pub(crate) fn spread<T: SimdFloat>(spread: &SpreadPullback<'_, T>, chunk: &mut Chunk<'_, T>) -> bool {
    let (
        Some(simd),
        LineLayout::Compressed(active),
        CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. }),
    ) = (V4::try_new(), spread.source.layout, spread.target)
    else {
        return false;
    };
    simd.vectorize(SpreadRows { simd, spread, active, pitch, offset, chunk });
    true
}

struct SpreadRows<'a, 'b, 'c, T> {
    simd: V4,
    spread: &'a SpreadPullback<'a, T>,
    active: &'a Active,
    pitch: usize,
    offset: usize,
    chunk: &'b mut Chunk<'c, T>,
}

impl<T: SimdFloat> NullaryFnOnce for SpreadRows<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let SpreadRows { simd, spread, active, pitch, offset, chunk } = self;
        let SpreadPullback { source, target, scale, add, lines } = *spread;
        let mut expand = Expander::default();
        for row in chunk.rows.clone() {
            let from = &source.values[active.block(row, lines)..];
            let values = &mut chunk.values[target.block(row, lines) - chunk.start + offset..];
            let out = ExpandedLines { lines, values, pitch, add };
            let all = 0..active.channels();
            expand.row(simd, (active, row), all, (from, active.stride(row)), scale, out);
        }
    }
}

/// A vector from elements that may be too few to fill it.
#[inline(always)]
fn read<T: SimdFloat>(from: &[T]) -> T::Register {
    if from.len() >= T::LANES {
        return T::read(from);
    }
    let mut full = [T::default(); 16];
    full[..from.len()].copy_from_slice(from);
    T::read(&full)
}

/// A vector to elements that may be too few to hold it.
#[inline(always)]
fn write<T: SimdFloat>(value: T::Register, to: &mut [T]) {
    if to.len() >= T::LANES {
        return T::write(value, to);
    }
    let mut full = [T::default(); 16];
    T::write(value, &mut full);
    let count = to.len();
    to.copy_from_slice(&full[..count]);
}
