//! Networks linearised on the CPU, by kernels that skip what the ReLUs have switched off.
//!
//! [`CpuExecutor`] is an [`Executor`](influence_autodiff::Executor) like that of Burn's operations:
//! a forward pass gives logits, a reverse pass pulls cotangents back to the input and takes the
//! Gram matrices of parameters on its way. All cotangents of a sample share its masks, so the
//! reverse pass keeps them compressed, and reads and computes only active channels. It takes up to
//! nine cotangents at once in rows `[line][channel]`. In the lane layout
//! (`kernels/layout/lanes.rs`) it takes 32, or nine in ten lines on AVX2, NEON and scalar.
//!
//! A graph is compiled in passes over plain data (`compile`), run in memory that is planned
//! beforehand (`run`), on kernels for every instruction set (`kernels`). Operations without a
//! kernel run as segments on Burn's operations, between the others. All of it is one crate, so that
//! the build can leave overflow checks out of its inner loops wherever they are instantiated.

mod compile;
mod engine;
mod kernels;
mod run;

pub use self::engine::Engine;
pub use self::kernels::InstructionSet;
pub use self::run::{CPU_BATCH, CpuExecutor, NotCompiled, Work};
