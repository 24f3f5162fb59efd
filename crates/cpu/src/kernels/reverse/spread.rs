//! Cotangents of a row handed on to the same row of another map: through a sum, a mask, or a scale
//! of each channel.
//!
//! The first of these paths that fits is taken:
//!
//! | path | when | what it does |
//! |---|---|---|
//! | lanes ([`LaneSteps`]) | rows that are `[channel][line]` | one channel after the other |
//! | expansion ([`arch::spread`]) | AVX-512, compressed to dense | expands a vector at a time |
//! | as they lie | a dense source, no scale | delivers the lines from where they are |
//! | scatter | compressed to dense | adds or writes active channels one by one |
//! | in full | all else | writes all channels to a buffer, scales and delivers them |
//!
//! "To dense" means to dense lines without a mask.

use rayon::prelude::*;

use crate::kernels::arch;
use crate::kernels::layout::cotangent::{
    CotangentTarget, Cotangents, LineLayout, Lines, RowTile, scale_lines,
};
use crate::kernels::layout::lanes::{by_lanes, in_lanes};
use crate::kernels::layout::rows::{chunks, tasks};
use crate::kernels::reverse::lanes::LaneSteps;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// target(row, v, c) += source(row, v, c) scale(c).
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpreadPullback<'a, T> {
    /// The cotangents that are handed on.
    pub(crate) source: Cotangents<'a, T>,
    /// Where they go: to as many channels.
    pub(crate) target: CotangentTarget<'a>,
    /// One factor for each channel.
    pub(crate) scale: Option<&'a [T]>,
    /// Whether they are added to what is there.
    pub(crate) add: bool,
    /// V.
    pub(crate) lines: usize,
}

/// Rows that a task should have at least ([`tasks`]): many, since a row is only copied, times a
/// scale.
const LEAST_ROWS: usize = 64;

impl<T: SimdFloat> SpreadPullback<'_, T> {
    /// Hands on `rows` rows into `out`, the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, rows: usize, out: &mut [T]) {
        let channels = self.source.layout.channels();
        let begin = |row: usize| self.target.block(row, self.lines);
        chunks(out, rows, tasks(rows, LEAST_ROWS), begin).into_par_iter().for_each(|mut chunk| {
            if in_lanes(self.lines) {
                let chunk = &mut chunk;
                return by_lanes!(self.lines, |L| set
                    .run(LaneSteps::<'_, '_, '_, _, _, L> { step: self, chunk }));
            }
            if arch::spread(set, self, &mut chunk) {
                return;
            }
            let mut full = vec![T::default(); self.lines * channels];
            for row in chunk.rows.clone() {
                let block = &mut chunk.values[begin(row) - chunk.start..];
                // Two cases need no buffer in between.
                match (self.source.layout, self.target) {
                    (LineLayout::Dense { .. }, _) if self.scale.is_none() => {
                        let Lines { values, stride, .. } = self.source.row(row, self.lines);
                        let tile = RowTile { row, first: 0, width: channels, values, stride };
                        self.target.deliver(set, tile, self.add, block);
                        continue;
                    }
                    (
                        LineLayout::Compressed(_),
                        CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. }),
                    ) => {
                        self.scatter(row, &mut block[offset..], pitch);
                        continue;
                    }
                    _ => {}
                }
                // In full: the target keeps what its mask has on.
                self.source.expand(set, row, self.lines, 0..channels, &mut full);
                if let Some(scale) = self.scale {
                    scale_lines(&mut full, scale);
                }
                let tile = RowTile { row, first: 0, width: channels, values: &full, stride: channels };
                self.target.deliver(set, tile, self.add, block);
            }
        });
    }

    /// Hands on the active channels of a row to dense lines `pitch` apart.
    fn scatter(&self, row: usize, block: &mut [T], pitch: usize) {
        let Lines { ids, values, stride } = self.source.row(row, self.lines);
        for line in 0..self.lines {
            let out = &mut block[line * pitch..][..self.source.layout.channels()];
            if !self.add {
                out.fill(T::default());
            }
            let values = &values[line * stride..][..ids.len()];
            for (&id, value) in ids.iter().zip(values) {
                // (Adds to zeros where `add` is false.)
                let factor = self.scale.map_or(T::from_f64(1.0), |scale| scale[id as usize]);
                out[id as usize] = out[id as usize] + *value * factor;
            }
        }
    }
}
