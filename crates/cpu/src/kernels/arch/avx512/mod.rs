//! AVX-512: what its permutations, expansions and compressions do faster than any generic loop.
//!
//! | module | what |
//! |---|---|
//! | [`windows`] | pullbacks into only the active channels |
//! | [`row_buffer`] | results of a row on their way to dense lines |
//! | [`expand`] | compressed lines in full, and lines in full compressed |
//! | [`masks`] | masks and lists of positive elements |
//! | [`wide_sums`] | sums over rows of compressed lines |
//! | [`wide`] | the instructions, for both float types |

pub(crate) mod expand;
pub(crate) mod masks;
mod row_buffer;
pub(crate) mod wide;
pub(crate) mod wide_sums;
pub(crate) mod windows;
