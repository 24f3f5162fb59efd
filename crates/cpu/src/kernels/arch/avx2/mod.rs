//! AVX2: what its permutations and blends do faster than any generic loop.
//!
//! | module | what |
//! |---|---|
//! | [`windows`] | pullbacks into only the active channels |
//! | [`pairs`] | the instructions, for both float types: elements of two vectors, side by side |

pub(crate) mod pairs;
pub(crate) mod windows;
