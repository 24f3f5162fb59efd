//! What an instruction set does faster than the generic loops, in a folder for each set that has
//! such code.
//!
//! Every function here returns whether it has done the work; where it has not, the caller does it
//! with its generic loops.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use self::avx2::pairs::Avx2Float;
#[cfg(target_arch = "x86_64")]
use self::avx512::wide::Avx512Float;
use crate::kernels::gram::sums::RowBlock;
use crate::kernels::layout::active::Positive;
use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, RowTile};
use crate::kernels::layout::rows::Chunk;
use crate::kernels::reverse::pullback::Pullback;
use crate::kernels::reverse::spread::SpreadPullback;
use crate::kernels::simd::{InstructionSet, SimdFloat};

/// What an element type needs for the sets of this CPU.
#[cfg(target_arch = "x86_64")]
pub(crate) trait ArchElement: Avx512Float + Avx2Float {}

#[cfg(target_arch = "x86_64")]
impl<T: Avx512Float + Avx2Float> ArchElement for T {}

/// Nothing, on CPUs whose sets have no code of their own.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) trait ArchElement {}

#[cfg(not(target_arch = "x86_64"))]
impl<T> ArchElement for T {}

/// Returns `$work` if the set is AVX-512, on CPUs for which that is compiled.
macro_rules! avx512 {
    ($set:expr, $work:expr) => {{
        #[cfg(target_arch = "x86_64")]
        if $set == InstructionSet::Avx512 {
            return $work;
        }
        let _ = $set;
    }};
}

/// Looks for positive elements in some rows.
pub(crate) fn positive<T: SimdFloat, F: Fn(usize) -> bool>(
    set: InstructionSet,
    positive: &mut Positive<'_, T, F>,
) -> bool {
    avx512!(set, avx512::masks::positive(positive));
    let _ = positive;
    false
}

/// Writes the indices of all set bits within their row of `pitch` words, ascending, row by row.
pub(crate) fn list(set: InstructionSet, words: &[u32], pitch: usize, ids: &mut [u16]) -> bool {
    avx512!(set, avx512::masks::list(words, pitch, ids));
    let _ = (words, pitch, ids);
    false
}

/// Writes some channels of a row's lines in full.
pub(crate) fn expand<T: SimdFloat>(
    set: InstructionSet,
    source: &Cotangents<'_, T>,
    row: usize,
    lines: usize,
    channels: Range<usize>,
    out: &mut [T],
) -> bool {
    avx512!(
        set,
        avx512::expand::part(source, row, channels, avx512::expand::ExpandedLines::written(lines, out))
    );
    let _ = (source, row, lines, channels, out);
    false
}

/// Delivers some channels of a row.
pub(crate) fn deliver<T: SimdFloat>(
    set: InstructionSet,
    target: CotangentTarget<'_>,
    tile: RowTile<'_, T>,
    add: bool,
    block: &mut [T],
) -> bool {
    avx512!(set, avx512::expand::deliver(target, tile, add, block));
    let _ = (target, tile, add, block);
    false
}

/// Hands on the cotangents of a chunk's rows.
pub(crate) fn spread<T: SimdFloat>(
    set: InstructionSet,
    spread: &SpreadPullback<'_, T>,
    chunk: &mut Chunk<'_, T>,
) -> bool {
    avx512!(set, avx512::expand::spread(spread, chunk));
    let _ = (spread, chunk);
    false
}

/// Adds up some rows' cotangents.
pub(crate) fn sum_rows<T: SimdFloat>(
    set: InstructionSet,
    block: &RowBlock<'_, T>,
    sums: &mut [Vec<f64>; 2],
) -> bool {
    avx512!(set, avx512::wide_sums::sum(block, sums));
    let _ = (block, sums);
    false
}

/// Pulls back the rows of a chunk, leaving out what the target's mask has switched off.
pub(crate) fn pull_windows<T: SimdFloat>(
    set: InstructionSet,
    pullbacks: &[Pullback<'_, T>],
    chunk: &mut Chunk<'_, T>,
) -> bool {
    #[cfg(target_arch = "x86_64")]
    match set {
        InstructionSet::Avx512 => {
            avx512::windows::pull(pullbacks, chunk);
            return true;
        }
        InstructionSet::Avx2 => {
            avx2::windows::pull(pullbacks, chunk);
            return true;
        }
        InstructionSet::Neon | InstructionSet::Scalar => {}
    }
    let _ = (set, pullbacks, chunk);
    false
}
