//! What the tests of the engine share: weights, engines, and the comparison with Burn's operations.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Executor, Graph, Jacobian, Leaves, Options, Precision, Program, Rows};
use influence_cpu::{CpuExecutor, Engine, InstructionSet};

use crate::models::{EMPTY, Empty, Weights, jacobians, noise};

/// Rounding of f64 along a dozen layers, relative to the largest entry (at least 1).
pub(super) const DOUBLE: f64 = 1e-11;

/// Rounding of f32 against f64 along a dozen layers.
pub(super) const SINGLE: f64 = 1e-4;

/// One image.
pub(super) const SAMPLE: [usize; 3] = [2, 6, 5];

/// Most channels of any value: concatenation stops there.
pub(super) const MOST: usize = 40;

/// Batch normalisations for every number of channels.
#[derive(Module, Debug)]
pub(super) struct Norms {
    pub(super) norms: Vec<BatchNorm>,
}

impl Norms {
    pub(super) fn new(device: &Device) -> Self {
        let norms = (1..=MOST).map(|channels| BatchNormConfig::new(channels).init(device)).collect();
        Self { norms }.map(&mut Weights::new(device, DType::F32))
    }
}

/// Synthetic weights.
pub(super) fn weights<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let scale = (shape[1..].iter().product::<usize>() as f64).sqrt();
    let values: Vec<f32> = (0..count).map(|i| (noise(i + 31 * seed) * 1.5 / scale) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(super) fn program(graph: &Graph, engine: Engine, precision: Precision) -> Program {
    let options = Options { precision, batch: 3, ..Options::default() };
    engine.load(graph.clone(), Leaves::input(), &Device::flex(), &options).expect("it loads")
}

/// The largest difference of logits and rows, relative to the largest entry (at least 1).
pub(super) fn difference(found: &[Jacobian], expected: &[Jacobian]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let numbers = |jacobian: &Jacobian| {
        let rows: Vec<f64> = match &jacobian.rows {
            Rows::F64(rows) => rows.clone(),
            Rows::F32(rows) => rows.iter().map(|x| f64::from(*x)).collect(),
        };
        [jacobian.logits.clone(), rows].concat()
    };
    let mut worst = 0.0_f64;
    for (found, expected) in found.iter().zip(expected) {
        let (found, expected) = (numbers(found), numbers(expected));
        assert_eq!(found.len(), expected.len());
        let scale = expected.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
        worst = found.iter().zip(&expected).fold(worst, |worst, (a, b)| worst.max((a - b).abs() / scale));
    }
    worst
}

pub(super) fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The Jacobians of all instruction sets are those of Burn's operations, in double precision.
pub(super) fn agrees_with_burn(graph: &Graph, samples: &TensorData) {
    let expected = jacobians(&program(graph, Engine::Burn, Precision::F64), samples);
    for set in sets() {
        let found = jacobians(&program(graph, Engine::Cpu(Some(set)), Precision::F64), samples);
        let difference = difference(&found, &expected);
        assert!(difference < DOUBLE, "{set}: {difference:e}");
    }
}

/// Cotangents that are pulled back together, in lanes where there are many, give the same rows as
/// in blocks of few.
pub(super) fn many_give_what_few_give(graph: &Graph, samples: &TensorData, set: InstructionSet) {
    let device = Device::flex();
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, Some(set), &device);
    let executor = executor.expect("supported");
    let linearized = executor.linearize(samples.clone()).expect("it runs");
    let (count, size) = (45, samples.shape()[0] * graph.classes());
    let cotangents: Vec<f64> = (0..count * size).map(noise).collect();
    let pulled = |part: &[f64]| -> Vec<f64> {
        let shape = [part.len() / size, samples.shape()[0], graph.classes()];
        let rows = linearized.pullback(TensorData::new(part.to_vec(), shape)).expect("it runs");
        rows.try_to_vec().expect("double precision")
    };
    let few: Vec<f64> = cotangents.chunks(3 * size).flat_map(pulled).collect();
    let many = pulled(&cotangents);
    let first = many.iter().zip(&few).position(|(a, b)| a != b);
    assert!(first.is_none() && many.len() == few.len(), "{set}: number {first:?}\n{executor}");
}

/// A network without weights.
pub(super) fn capture_one(forward: impl Fn(Tensor<4>) -> Tensor<2>) -> Graph {
    Graph::capture(&EMPTY, |_: &Empty, x| forward(x), &SAMPLE, &Device::flex()).expect("it can be captured")
}
