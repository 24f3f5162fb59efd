//! A dense check for the examples' tests: compares the engine's Jacobian with central differences
//! of the model's own forward pass in f64.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Graph, Options, Precision, Program, Rows};

/// Step of the differences: rounding costs about 1e-10, truncation about the square of the step.
const STEP: f64 = 1e-6;

/// Allowed error, relative to the larger of 1 and the largest entry of the Jacobian.
const TOLERANCE: f64 = 1e-7;

/// Weights in double precision.
struct Double;

impl ModuleMapper for Double {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(DType::F64))
    }
}

/// The model with weights in double precision.
pub(crate) fn double<M: Module>(model: M) -> M {
    model.map(&mut Double)
}

/// The rows of z_k - z_K in f64, `[K-1, p]`, of a model in double precision at `point`, a sample of
/// shape `sample`.
pub(crate) fn rows<M: Module, const D: usize>(
    model: &M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    point: Vec<f64>,
    sample: &[usize],
) -> Vec<f64> {
    let device = Device::flex();
    let graph = Graph::capture(model, forward, sample, &device).unwrap();
    let program =
        Program::new(graph, &device, &Options { precision: Precision::F64, ..Options::default() }).unwrap();
    let shape: Vec<_> = std::iter::once(1).chain(sample.iter().copied()).collect();
    let mut all = program.jacobians(TensorData::new(point, shape)).unwrap();
    let Rows::F64(rows) = all.next().unwrap().unwrap().rows else { panic!("a run in f64") };
    rows
}

/// Compares the engine's rows of z_k - z_K at one sample of shape `sample` with the differences.
pub(crate) fn assert_dense<M: Module, const D: usize>(
    model: M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    sample: &[usize],
) {
    let device = Device::flex();
    let model = double(model);
    let shape: Vec<_> = std::iter::once(1).chain(sample.iter().copied()).collect();
    let point: Vec<f64> = (0..shape.iter().product()).map(|i: usize| (i as f64 * 1.7).sin()).collect();
    let rows = rows(&model, &forward, point.clone(), sample);
    let logits = |i: usize, by: f64| {
        let mut moved = point.clone();
        moved[i] += by;
        let data = TensorData::new(moved, shape.clone());
        let logits = forward(&model, Tensor::from_data(data, (&device, DType::F64)));
        logits.into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let scale = rows.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    for i in 0..point.len() {
        let (plus, minus) = (logits(i, STEP), logits(i, -STEP));
        let last = plus.len() - 1;
        for k in 0..last {
            let expected = ((plus[k] - plus[last]) - (minus[k] - minus[last])) / (2.0 * STEP);
            let error = (rows[k * point.len() + i] - expected).abs() / scale;
            assert!(error < TOLERANCE, "class {k}, input {i}: {error:e}");
        }
    }
}
