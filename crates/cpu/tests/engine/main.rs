//! Our own kernels from outside: the same networks as on Burn's operations, and the caller's own numbers.

mod input;
#[path = "../../../autodiff/tests/engine/models.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod models;
mod parameters;
mod plan;
