//! Running what was compiled: memory, the two passes, Gram matrices, segments, and the executor
//! around these.

mod arena;
mod executor;
mod forward;
mod gram_costs;
mod grams;
mod memory;
mod reverse;
mod segments;
mod work;

pub use self::executor::{CPU_BATCH, CpuExecutor, NotCompiled};
pub use self::work::Work;
