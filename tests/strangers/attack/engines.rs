//! The engines under test, and running a model on them.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{Error, Graph, Jacobian, Leaves, Options, Precision, Program, Rows, SampleGrams};
use influence_cpu::{Engine, InstructionSet};

use crate::attack::quietly;

/// Why there is no result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NoResult {
    /// A typed error.
    Refused(Error),
    Panic(String),
}

/// The engine of a name: Burn's operations on flex, or our own kernels with one of the CPU's
/// instruction sets, selected by `choice`.
pub(crate) fn engine(name: &str, choice: u64) -> Engine {
    if name == "flex" {
        return Engine::Burn;
    }
    let sets: Vec<_> = InstructionSet::ALL.into_iter().filter(|set| set.is_available()).collect();
    Engine::Cpu(Some(sets[choice as usize % sets.len()]))
}

/// Runs work that may return an error or, if there is a fault, panic.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, NoResult> {
    quietly(work).map_err(NoResult::Panic)?.map_err(NoResult::Refused)
}

/// The graph of a module.
pub(crate) fn captured<M: Module, const D: usize>(
    model: &M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    sample: &[usize],
) -> Result<Graph, NoResult> {
    guarded(|| Graph::capture(model, &forward, sample, &Device::flex()))
}

/// Loads a graph in f64.
pub(crate) fn loaded(graph: &Graph, leaves: Leaves, engine: Engine) -> Result<Program, NoResult> {
    loaded_in(graph, leaves, engine, Precision::F64)
}

/// Loads a graph.
pub(crate) fn loaded_in(
    graph: &Graph,
    leaves: Leaves,
    engine: Engine,
    precision: Precision,
) -> Result<Program, NoResult> {
    let options = Options { precision, ..Options::default() };
    guarded(|| engine.load(graph.clone(), leaves, &Device::flex(), &options))
}

/// Logits and rows of all samples.
pub(crate) fn jacobians(program: &Program, samples: &TensorData) -> Result<Vec<Jacobian>, NoResult> {
    guarded(|| program.jacobians(samples.clone())?.collect())
}

/// Gram matrices of all samples.
pub(crate) fn grams(program: &Program, samples: &TensorData) -> Result<Vec<SampleGrams>, NoResult> {
    guarded(|| program.grams(samples.clone())?.collect())
}

/// The rows of a run in either precision.
pub(crate) fn numbers(jacobian: &Jacobian) -> Vec<f64> {
    match &jacobian.rows {
        Rows::F32(rows) => rows.iter().map(|&x| f64::from(x)).collect(),
        _ => rows(jacobian).to_vec(),
    }
}

/// The rows of a run in f64.
pub(crate) fn rows(jacobian: &Jacobian) -> &[f64] {
    match &jacobian.rows {
        Rows::F64(rows) => rows,
        other => panic!("a run in f64, not {other:?}"),
    }
}
