//! Vectorised reverse-mode autodiff for captured Burn modules.
//!
//! A module's forward pass is recorded once ([`Graph::capture`]), planned and loaded onto a device
//! ([`Program::new`]), and then linearised at any number of samples ([`Program::jacobians`]): one
//! forward pass and one reverse pass per block of cotangents give all K - 1 rows of a sample's
//! input Jacobian. An operation that the engine cannot differentiate is refused with an error that
//! names its node; no operation is skipped.
//!
//! # Notation
//!
//! | letter | meaning |
//! |---|---|
//! | N, n | samples of a call; samples that run together (the batch, always the first axis) |
//! | C, H, W | channels, height and width of an image, in this order |
//! | K | classes: the network gives logits z of shape `[n, K]` |
//! | V | cotangents that one reverse pass carries, stacked on an axis before all others: `[V, n, ...]` |
//! | p | elements of one sample; a Jacobian's rows have p entries |
//! | g | a cotangent of a result; the pullback of y = f(x) takes g to (dy/dx)^T g |
//!
//! # Accuracy
//!
//! On a CPU, a sample's result has the same bits whether the sample comes by itself or with others,
//! in any order, on any number of threads. At kinks the derivative is one-sided (ReLU's at 0 is 0),
//! and of several equal maxima the first in row-major order receives the whole cotangent; see
//! [`ops`].

mod array;
mod batches;
mod builder;
mod burn_executor;
mod capture;
pub mod check;
mod combinations;
mod confirm;
mod coupling;
mod device;
mod direct;
mod error;
mod executor;
mod grams;
pub mod graph;
mod integers;
mod jacobians;
mod linears;
mod lower;
mod memory;
pub mod ops;
mod parameter_grams;
mod parameters;
mod plan;
mod precision;
mod program;
mod reference;
mod segment;
mod slices;

pub use builder::GraphBuilder;
pub use burn_executor::BurnExecutor;
pub use capture::quietly;
pub use combinations::Combinations;
pub use device::is_processor;
pub use error::{Error, Problem, Result};
pub use executor::{Executor, Linearized};
pub use graph::Graph;
pub use jacobians::{Jacobian, Jacobians, Rows};
pub use memory::Memory;
pub use parameter_grams::{ParameterGrams, SampleGrams, gradients};
pub use parameters::{Grams, LeafId, Leaves, Parameter};
pub use plan::{Bytes, Plan};
pub use precision::Precision;
pub use program::{Footprint, GPU_BATCH, Options, Program, even_block};
pub use reference::Check;
pub use segment::{Pulled, Segment, Trace, folded};
