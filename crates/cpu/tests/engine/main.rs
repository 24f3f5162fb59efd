//! Our own kernels from outside: the same networks as on Burn's operations, and the caller's own
//! numbers.

mod common;
mod input;
mod layers;
#[expect(dead_code, reason = "other tests use the rest")]
mod models;
mod networks;
mod parameters;
mod plan;
mod random;
