//! Vectorised reverse-mode autodiff for captured Burn modules.

mod array;
mod burn_executor;
mod capture;
mod check;
mod error;
mod executor;
pub mod graph;
mod lower;
pub mod ops;
mod plan;
mod program;

pub use burn_executor::BurnExecutor;
pub use error::{Error, Problem, Result};
pub use executor::{Executor, Linearized};
pub use graph::Graph;
pub use plan::{Bytes, Plan, Precision};
pub use program::{CPU_BATCH, Jacobian, Jacobians, Options, Program, Rows};
