//! AVX2: what its permutations and blends do faster than any generic loop.
//!
//! | module | what |
//! |---|---|
//! | [`windows`] | pullbacks into active channels alone |
//! | [`pairs`] | the instructions, for both float types: numbers of two vectors, side by side |

pub(crate) mod pairs;
pub(crate) mod windows;
