//! Networks linearised on the processor, by kernels that skip what the ReLUs have switched off.
//!
//! [`CpuExecutor`] is an [`Executor`](influence_autodiff::Executor) like that of Burn's operations:
//! a forward pass gives logits, a reverse pass pulls cotangents back to the input and takes the
//! Gram matrices of parameters on its way. All cotangents of a sample share its masks, so the
//! reverse pass keeps them compressed, and reads and computes active channels alone, up to nine
//! cotangents at once.
//!
//! A graph is compiled in passes over plain data (`compile`), run in memory that is planned before
//! (`run`), on kernels for every instruction set (`kernels`). Operations without a kernel run as
//! segments on Burn's operations, between the others. All of it is one crate so that the build can
//! leave overflow checks out of its inner loops, wherever they are instantiated.

mod compile;
mod engine;
mod kernels;
mod run;

pub use self::engine::Engine;
pub use self::kernels::InstructionSet;
pub use self::run::{CPU_BATCH, CpuExecutor, NotCompiled, Work};
