//! The numbers of lines that kernels have: how many cotangents of a row are pulled back together.
//!
//! A kernel keeps a sum for each line in registers, so the number of lines is a constant of it.
//! Each number adds a copy of all kernels to the build, for all types and instruction sets. That is
//! why there are only a few ([`LINE_COUNTS`]). Other numbers of cotangents take the next larger
//! one, with lines of zeros after them.

use crate::kernels::simd::{InstructionSet, WIDEST};

/// The most lines that one pass carries outside of [lanes](super::lanes): more would not fit into
/// registers.
pub(crate) const MOST_LINES: usize = 9;

/// The numbers of lines that there are kernels for, ascending.
pub(crate) const LINE_COUNTS: [usize; 6] = [1, 2, 3, 5, 7, MOST_LINES];

/// Whether a set whose vectors hold `lanes` elements of f32 has kernels for a number of lines. The
/// scalar set, which no CPU of the last ten years needs, has half of them.
pub(crate) const fn has_lines(lanes: usize, lines: usize) -> bool {
    lanes > 1 || matches!(lines, 1 | 3 | MOST_LINES)
}

/// How many lines a row has for so many cotangents, at most [`MOST_LINES`], on a set.
pub(crate) fn lines_for(set: InstructionSet, cotangents: usize) -> usize {
    let lanes = if set == InstructionSet::Scalar { 1 } else { WIDEST };
    let fits = |lines: &usize| *lines >= cotangents && has_lines(lanes, *lines);
    LINE_COUNTS.into_iter().find(fits).unwrap_or(MOST_LINES)
}

/// Evaluates an expression with the number of lines as a constant: for vectors of a set S, or
/// without S on a set that has kernels for all numbers. `@among` gives other numbers than
/// [`LINE_COUNTS`].
macro_rules! by_lines {
    ($lines:expr, |$count:ident| $call:expr) => {
        by_lines!(@arms $crate::kernels::simd::WIDEST, $lines, $count, $call, 1 2 3 5 7 9)
    };
    ($set:ident, $lines:expr, |$count:ident| $call:expr) => {
        by_lines!(@arms $set::F32_LANES, $lines, $count, $call, 1 2 3 5 7 9)
    };
    (@among [$($number:literal)*] $set:ident, $lines:expr, |$count:ident| $call:expr) => {
        by_lines!(@arms $set::F32_LANES, $lines, $count, $call, $($number)*)
    };
    (@arms $lanes:expr, $lines:expr, $count:ident, $call:expr, $($number:literal)*) => {
        match $lines {
            $($number if const { $crate::kernels::layout::lines::has_lines($lanes, $number) } => {
                const $count: usize = $number;
                $call
            })*
            other => unreachable!("no kernel takes {other} lines"),
        }
    };
}
pub(crate) use by_lines;
