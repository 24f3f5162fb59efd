//! From a graph to what the executor runs, in passes, each over plain data:
//!
//! 1. [`lower`]: each node becomes another [`view`] of a value, a stage of ours, or part of a
//!    segment that runs on Burn's operations, as [`support`] says: the stage graph ([`stage`]).
//! 2. [`fuse`]: rewrites of the stage graph; normalisation, sums and ReLUs join the products before
//!    them.
//! 3. [`nesting`]: which buffer each value lies in; the parts of a concatenation lie in the result.
//! 4. [`build`]: weights packed, rows that nothing reads left out, Winograd's form where it pays.
//! 5. [`adjoint`]: where each cotangent lies, and the steps of the reverse pass that fill it.
//! 6. [`together`]: products into the same channels of a dense block become one step.
//!
//! What comes out is a [`program`] of kernel calls and reverse [`steps`]. Only the first pass knows
//! the graph and can fail. The lists of all passes have indices of their own types ([`ids`]).

mod adjoint;
mod build;
mod bytes;
pub(crate) mod constants;
mod fuse;
mod geometry;
pub(crate) mod ids;
mod lower;
mod nesting;
mod perturbed;
mod print;
pub(crate) mod program;
mod stage;
pub(crate) mod steps;
mod support;
mod together;
mod view;
pub(crate) mod weights;

use influence_autodiff::graph::Graph;

use self::build::ProgramBuilder;
use self::constants::Constants;
use self::ids::LeafId;
use self::perturbed::Perturbed;
use self::program::Compiled;
pub(crate) use self::support::Reason;
use crate::kernels::SimdFloat;

/// Compiles a graph for perturbations of some of its parameters, or of only the input.
///
/// # Errors
/// The reason why the executor cannot run it at all: see [`lower::lower`].
pub(crate) fn compile<T: SimdFloat>(
    graph: &Graph,
    constants: &Constants<'_>,
    tensors: &[LeafId],
) -> Result<Compiled<T>, Reason> {
    let perturbed = Perturbed::of(graph, constants, tensors);
    let mut stages = lower::lower(graph, constants, &perturbed)?;
    fuse::fuse(&mut stages);
    let nesting = nesting::nesting(&stages);
    let builder = ProgramBuilder::new(graph, stages, nesting, &perturbed);
    let steps = adjoint::steps(&builder);
    Ok(builder.finish(steps))
}
