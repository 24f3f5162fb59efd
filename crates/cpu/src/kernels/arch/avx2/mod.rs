//! AVX2: permutations within a vector, and blends.

pub(crate) mod pairs;
pub(crate) mod windows;
