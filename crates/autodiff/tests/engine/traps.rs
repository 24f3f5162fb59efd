//! Networks in which reuse of storage could go wrong: Burn overwrites storage that is not shared,
//! and views share storage.
//!
//! Each network is small and has a value with several readers, or a kept value under another shape.
//! Its rows are compared with central differences, and two pullbacks must give the same bits: the
//! first reverse pass must not overwrite what the second reads.

use std::sync::Arc;

use burn::tensor::activation::{gelu, log_softmax, relu, sigmoid, softmax, tanh};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{BurnExecutor, Executor, Plan, Precision};

use crate::models::{batch, capture, error_of_rows, noise, program};

/// Step and tolerance of central differences, as for whole networks.
const STEP: f64 = 1e-6;
const TRAPS: f64 = 1e-7;

/// Tolerance for several samples in one plan against one at a time: products of other shapes may be
/// summed in another order.
const BATCHED: f64 = 1e-13;

fn check<const D: usize>(sample: &[usize], forward: impl Fn(Tensor<D>) -> Tensor<2>) {
    let graph = Arc::new(capture(sample, forward).expect("it is captured"));
    let alone = program((*graph).clone(), Precision::F64).expect("it loads");
    let error = error_of_rows(&alone, sample, STEP);
    assert!(error < TRAPS, "{error:e}\n{}", alone.plan());
    let (n, v) = (3, 4);
    let (g, classes) = (noise_of(&[v, n, graph.classes()]), graph.classes());
    // Two pullbacks of one linearisation, with more cotangents than a block has.
    let run = |n: usize, x: TensorData, g: TensorData| {
        let plan = Plan::input(Arc::clone(&graph), n, 3, Precision::F64).expect("it is planned");
        let executor = BurnExecutor::new(Arc::new(plan), &Device::flex()).expect("it loads");
        let linearized = executor.linearize(x).expect("it runs");
        let first = linearized.pullback(g.clone()).expect("it pulls");
        let second = linearized.pullback(g).expect("it pulls");
        assert!(first == second, "the first reverse pass damaged what the second reads");
        first
    };
    // All samples together, against each by itself.
    let x = batch(n, sample);
    let together = values(&run(n, x.clone(), g.clone()));
    let (size, all, g) = (together.len() / (v * n), values(&x), values(&g));
    for i in 0..n {
        let one = TensorData::new(all[i * size..][..size].to_vec(), shape(1, sample));
        let own = (0..v).flat_map(|v| g[(v * n + i) * classes..][..classes].to_vec()).collect();
        let found = values(&run(1, one, TensorData::new(own, [v, 1, classes])));
        for (at, found) in found.iter().enumerate() {
            let expected = together[(at / size * n + i) * size + at % size];
            let error = (expected - found).abs() / expected.abs().max(1.0);
            assert!(error < BATCHED, "sample {i}, element {at}: {error:e}");
        }
    }
}

fn shape(n: usize, sample: &[usize]) -> Vec<usize> {
    std::iter::once(n).chain(sample.iter().copied()).collect()
}

fn noise_of(shape: &[usize]) -> TensorData {
    TensorData::new((0..shape.iter().product()).map(noise).collect::<Vec<_>>(), shape.to_vec())
}

fn values(data: &TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

#[test]
fn an_operand_used_twice_by_one_node() {
    check(&[4], |x: Tensor<2>| x.clone() * x);
    check(&[4], |x: Tensor<2>| {
        let y = tanh(x);
        y.clone() + y
    });
    check(&[4], |x: Tensor<2>| {
        let y = sigmoid(x);
        y.clone() / (y.clone() * y)
    });
    check(&[2, 2], |x: Tensor<3>| {
        let [n, ..] = x.dims();
        let y = tanh(x);
        y.clone().matmul(y).reshape([n, 4])
    });
    check(&[4], |x: Tensor<2>| Tensor::cat(vec![x.clone(), x.clone(), x], 1));
}

#[test]
fn fan_out_and_fan_in() {
    check(&[4], |x: Tensor<2>| {
        let y = x * 2.0;
        relu(y.clone()) * 3.0 + sigmoid(y.clone()) - tanh(y.clone()) * gelu(y)
    });
    // A long chain of residuals.
    check(&[3], |x: Tensor<2>| (0..20).fold(x, |x, i| x.clone() + tanh(x * (0.1 + 0.05 * f64::from(i)))));
}

#[test]
fn a_kept_value_whose_last_reader_may_write() {
    // exp(y) of log-softmax reads its result, which the scaling would overwrite.
    check(&[4], |x: Tensor<2>| log_softmax(x, 1) * 2.0 + 1.0);
    check(&[4], |x: Tensor<2>| softmax(x, 1) * 2.0 - 1.0);
    check(&[4], |x: Tensor<2>| tanh(sigmoid(x) * 3.0) * 0.5);
    check(&[4], |x: Tensor<2>| ((x * 0.1 + 2.0).recip() + 1.0) * 3.0);
    // GELU keeps its operand, whose storage would otherwise be reused.
    check(&[4], |x: Tensor<2>| gelu(gelu(x * 2.0) * 3.0));
    // ReLU keeps a mask, made before its operand may be overwritten.
    check(&[4], |x: Tensor<2>| relu(x * 2.0) * 3.0);
}

#[test]
fn a_view_of_a_kept_value_is_written_to() {
    check(&[2, 3], |x: Tensor<3>| {
        let [n, ..] = x.dims();
        let y = sigmoid(x);
        y.reshape([n, 6]) * 2.0 + 1.0
    });
    check(&[2, 3], |x: Tensor<3>| {
        let [n, ..] = x.dims();
        let y = tanh(x);
        let view = y.clone().swap_dims(1, 2) * 3.0;
        relu(view).reshape([n, 6]) + y.reshape([n, 6])
    });
    check(&[2, 3], |x: Tensor<3>| {
        let y = tanh(x);
        (y.clone().narrow(1, 0, 1) * 5.0 + y.narrow(1, 1, 1).flip([2])).squeeze_dim::<2>(1)
    });
}

#[test]
fn expanded_cotangents_meet_rules_that_write() {
    // The cotangent of a mean is one number, expanded; ReLU's mask must not be written into it.
    check(&[2, 3, 3], |x: Tensor<4>| {
        let [n, ..] = x.dims();
        relu(x).mean_dim(3).mean_dim(2).reshape([n, 2])
    });
    check(&[2, 3], |x: Tensor<3>| {
        let [n, ..] = x.dims();
        let y = tanh(x);
        (y.clone().sum_dim(2) + (y.clone() * y).mean_dim(2)).reshape([n, 2])
    });
    check(&[2, 4, 4], |x: Tensor<4>| {
        let [n, ..] = x.dims();
        let pooled = max_pool2d(x.clone(), MaxPoolOptions::new([2, 2]));
        (pooled.mean_dim(3).mean_dim(2) + x.clone().sum_dim(3).sum_dim(2) * x.mean_dim(2).mean_dim(3))
            .reshape([n, 2])
    });
    check(&[1, 3], |x: Tensor<3>| {
        let [n, ..] = x.dims();
        let wide = tanh(x).expand([n, 4, 3]);
        (wide.clone() * wide).sum_dim(2).reshape([n, 4])
    });
}

#[test]
fn constants_are_never_written_to() {
    // Literals and folded constants as operands of operations that overwrite their operands, in
    // several runs.
    check(&[3], |x: Tensor<2>| {
        let device = x.device();
        let one = Tensor::<1>::from_floats([1.0, 2.0, 3.0], &device);
        let folded = (one.clone() * 2.0 + 1.0).unsqueeze::<2>();
        let y = one.unsqueeze::<2>() - tanh(x);
        y * folded.clone() + folded
    });
}
