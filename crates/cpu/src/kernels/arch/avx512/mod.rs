//! AVX-512: what its permutations and compressions do quicker than any generic loop.

pub(crate) mod expand;
pub(crate) mod masks;
mod row_buffer;
pub(crate) mod wide;
pub(crate) mod wide_sums;
pub(crate) mod windows;
