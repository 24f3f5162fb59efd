//! Compressed lines written among zeros, or added, on AVX-512: one vector of neighbours at a time.

use std::ops::Range;

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use crate::active::Active;
use crate::cotangent::{Cotangents, Layout, Target};
use crate::rows::Chunk;
use crate::spread::Spread;
use crate::wide::Wide;

/// Where the active channels of a row are, worked out once for all its lines.
#[derive(Default)]
pub(crate) struct Expand {
    /// For each vector of neighbours its mask, and the place of its first active channel in the lines.
    parts: Vec<(u32, usize)>,
}

/// Dense lines to write, which begin with the first of some channels.
pub(crate) struct Destination<'a, T> {
    pub(crate) lines: usize,
    pub(crate) values: &'a mut [T],
    /// From one line to the next.
    pub(crate) pitch: usize,
    /// Whether to add to what is there.
    pub(crate) add: bool,
}

impl<'a, T> Destination<'a, T> {
    /// Lines side by side, to be written over.
    pub(crate) fn written(lines: usize, values: &'a mut [T]) -> Self {
        let pitch = values.len() / lines.max(1);
        Self { lines, values, pitch, add: false }
    }
}

impl Expand {
    /// Some channels of a row: each line of `values`, which begin with the first of these that is active, `stride` apart, goes to one of `out`,
    /// zeros where the mask is off, times a factor for each channel if there are any. A vector behind the last number is read.
    #[inline(always)]
    pub(crate) fn row<T: Wide>(
        &mut self,
        simd: V4,
        (active, row): (&Active, usize),
        channels: Range<usize>,
        (values, stride): (&[T], usize),
        scale: Option<&[T]>,
        out: Destination<'_, T>,
    ) {
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
                let value = T::among_zeros(simd, bits, T::read(&own[at..]));
                let factor = match &mut factors {
                    Some(factors) => factors.next().map_or(one, |factor| T::read(factor)),
                    None => one,
                };
                let old = if out.add { T::read(to) } else { zero };
                T::write(T::fused(simd, value, factor, old), to);
            }
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

/// Writes some channels of a row's lines in full, where the processor has the instructions and the lines are compressed.
pub(crate) fn part<T: Wide>(
    source: &Cotangents<'_, T>,
    row: usize,
    channels: Range<usize>,
    out: Destination<'_, T>,
) -> bool {
    let (Some(simd), Layout::Compressed(active)) = (V4::try_new(), source.layout) else { return false };
    let values = &source.values[active.block(row, out.lines) + active.before(row, channels.start)..];
    simd.vectorize(Part { simd, active, row, channels, values, out });
    true
}

struct Part<'a, T> {
    simd: V4,
    active: &'a Active,
    row: usize,
    channels: Range<usize>,
    values: &'a [T],
    out: Destination<'a, T>,
}

impl<T: Wide> NullaryFnOnce for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Part { simd, active, row, channels, values, out } = self;
        let stride = active.stride(row);
        Expand::default().row(simd, (active, row), channels, (values, stride), None, out);
    }
}

/// Hands on the rows of a chunk, where the processor has the instructions and compressed lines go to dense ones.
pub(crate) fn spread<T: Wide>(spread: &Spread<'_, T>, chunk: &mut Chunk<'_, T>) -> bool {
    let (Some(simd), Layout::Compressed(active), Target::Lines(Layout::Dense { pitch, offset, .. })) =
        (V4::try_new(), spread.source.layout, spread.target)
    else {
        return false;
    };
    simd.vectorize(Rows { simd, spread, active, pitch, offset, chunk });
    true
}

struct Rows<'a, 'b, 'c, T> {
    simd: V4,
    spread: &'a Spread<'a, T>,
    active: &'a Active,
    pitch: usize,
    offset: usize,
    chunk: &'b mut Chunk<'c, T>,
}

impl<T: Wide> NullaryFnOnce for Rows<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Rows { simd, spread, active, pitch, offset, chunk } = self;
        let Spread { source, target, scale, add, lines } = *spread;
        let mut expand = Expand::default();
        for row in chunk.rows.clone() {
            let from = &source.values[active.block(row, lines)..];
            let values = &mut chunk.values[target.block(row, lines) - chunk.start + offset..];
            let out = Destination { lines, values, pitch, add };
            let all = 0..active.channels();
            expand.row(simd, (active, row), all, (from, active.stride(row)), scale, out);
        }
    }
}
