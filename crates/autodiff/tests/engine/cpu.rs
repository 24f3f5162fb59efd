//! The CPU executor against the Burn executor: random networks of what it knows, on every instruction set of this processor, forward and
//! pullback.
//!
//! A network is a list of instructions on a stack of images, so that any list is a valid network.

use burn::module::{Module, ModuleMapper};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, conv2d, linear, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Engine, Graph, InstructionSet, Jacobian, Options, Precision, Program, Rows};
use proptest::prelude::*;

use crate::models::{Weights, batch, jacobians, noise};

/// Rounding of f64 along a dozen layers, relative to the largest entry (at least 1).
const DOUBLE: f64 = 1e-11;

/// One image.
const SAMPLE: [usize; 3] = [2, 6, 5];

/// Most channels of any value: concatenation stops there.
const MOST: usize = 40;

/// Batch normalisations of every number of channels.
#[derive(Module, Debug)]
struct Norms {
    norms: Vec<BatchNorm>,
}

impl Norms {
    fn new(device: &Device) -> Self {
        let norms = (1..=MOST).map(|channels| BatchNormConfig::new(channels).init(device)).collect();
        Self { norms }.map(&mut Weights::new(device, DType::F32))
    }
}

/// One instruction: what is done, and to which earlier values.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    kind: u8,
    first: usize,
    second: usize,
    channels: usize,
}

const KINDS: u8 = 13;

/// Made-up weights.
fn weights<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
    let count = shape.iter().product::<usize>();
    let scale = (shape[1..].iter().product::<usize>() as f64).sqrt();
    let values: Vec<f32> = (0..count).map(|i| (noise(i + 31 * seed) * 1.5 / scale) as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// One instruction's value; `None` where it does not fit.
fn apply(norms: &Norms, instruction: Instruction, values: &[Tensor<4>]) -> Option<Tensor<4>> {
    let Instruction { kind, first, second, channels } = instruction;
    let (a, b) = (values[first % values.len()].clone(), values[second % values.len()].clone());
    let [_, c, h, w] = a.dims();
    let device = a.device();
    let options = |stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2]| {
        ConvOptions::new(stride, padding, dilation, 1)
    };
    let conv = |kernel: [usize; 2], options: ConvOptions<2>| {
        let weight = weights([channels, c, kernel[0], kernel[1]], first + channels, &device);
        conv2d(a.clone(), weight, Some(weights([channels], second, &device)), options)
    };
    Some(match kind {
        0 => conv([1, 1], options([1, 1], [0, 0], [1, 1])),
        1 => conv([3, 3], options([1, 1], [1, 1], [1, 1])),
        2 if h > 2 && w > 2 => conv([3, 2], options([2, 2], [1, 0], [1, 1])),
        3 if h > 2 && w > 2 => conv([2, 3], options([1, 2], [1, 2], [2, 1])),
        4 | 5 => relu(a),
        6 => norms.norms[c - 1].forward(a),
        7 if a.dims() == b.dims() => a + b,
        8 if a.dims()[2..] == b.dims()[2..] && c + b.dims()[1] <= MOST => Tensor::cat(vec![a, b], 1),
        9 if h > 1 && w > 1 => means(a, second),
        10 if h > 1 && w > 1 => maxima(a, second),
        11 => bottleneck(a, channels, [1, 1]),
        12 if h > 1 && w > 1 => bottleneck(a, channels, [2, 2]),
        _ => return None,
    })
}

/// A residual block with its ReLUs; with a stride, or other channels, behind a convolution of the shortcut.
fn bottleneck(x: Tensor<4>, channels: usize, stride: [usize; 2]) -> Tensor<4> {
    let ([_, c, ..], device) = (x.dims(), x.device());
    let conv = |x: Tensor<4>, outputs: usize, kernel: usize, stride: [usize; 2]| {
        let inputs = x.dims()[1];
        let weight = weights([outputs, inputs, kernel, kernel], outputs + kernel, &device);
        let padding = [kernel / 2, kernel / 2];
        conv2d(
            x,
            weight,
            Some(weights([outputs], inputs, &device)),
            ConvOptions::new(stride, padding, [1, 1], 1),
        )
    };
    let outputs = if stride == [1, 1] { c } else { 2 * channels };
    let inner = relu(conv(relu(conv(x.clone(), channels, 1, stride)), channels, 3, [1, 1]));
    let shortcut = if stride == [1, 1] { x } else { conv(x, outputs, 1, stride) };
    relu(conv(inner, outputs, 1, [1, 1]) + shortcut)
}

/// Strides and paddings of a pool, chosen by a number.
fn maxima(x: Tensor<4>, choice: usize) -> Tensor<4> {
    let (stride, before) = ([1 + choice % 2, 2], choice % 2);
    let padding = [(before, before), (0, 0)];
    max_pool2d(x, MaxPoolOptions { kernel_size: [2, 2], stride, padding, dilation: [1, 1], ceil_mode: false })
}

fn means(x: Tensor<4>, choice: usize) -> Tensor<4> {
    let (padding, count_include_pad) = ([(choice % 2, choice % 2), (0, 0)], choice % 3 == 0);
    avg_pool2d(
        x,
        AvgPoolOptions { kernel_size: [2, 2], stride: [2, 1], padding, count_include_pad, ceil_mode: false },
    )
}

/// Runs a network, whose last image is flattened or averaged before the last layer.
fn run(norms: &Norms, network: &[Instruction], x: Tensor<4>) -> Tensor<2> {
    let mut values = vec![x];
    for instruction in network {
        values.extend(apply(norms, *instruction, &values));
    }
    let last = values.pop().expect("there is always the input");
    let last = if network.len().is_multiple_of(2) { last } else { adaptive_avg_pool2d(last, [2, 1]) };
    let (flat, device) = (last.flatten::<2>(1, 3), values.first().map(Tensor::device));
    let features = flat.dims()[1];
    let device = device.unwrap_or_else(|| flat.device());
    linear(flat, weights([features, 4], 3, &device), Some(weights([4], 9, &device)))
}

fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
    let one = (0..KINDS, 0..16_usize, 0..16_usize, 1..20_usize);
    let one = one.prop_map(|(kind, first, second, channels)| Instruction { kind, first, second, channels });
    prop::collection::vec(one, 1..14)
}

fn program(graph: &Graph, engine: Engine, precision: Precision) -> Program {
    let options = Options { engine, precision, batch: 3, memory: None };
    Program::new(graph.clone(), &Device::flex(), &options).expect("it loads")
}

/// The largest difference of logits and rows, relative to the largest entry (at least 1).
fn difference(found: &[Jacobian], expected: &[Jacobian]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let numbers = |jacobian: &Jacobian| {
        let rows: Vec<f64> = match &jacobian.rows {
            Rows::F64(rows) => rows.clone(),
            Rows::F32(rows) => rows.iter().map(|x| f64::from(*x)).collect(),
            _ => panic!("rows of another type"),
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

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

fn capture(norms: &Norms, network: &[Instruction]) -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| run(norms, network, x);
    Graph::capture(norms, forward, &SAMPLE, &Device::flex()).expect("it can be captured")
}

fn compare(norms: &Norms, network: &[Instruction]) -> Result<(), TestCaseError> {
    let graph = capture(norms, network);
    let samples = batch(4, &SAMPLE);
    let expected = jacobians(&program(&graph, Engine::Burn, Precision::F64), &samples);
    for set in sets() {
        let program = program(&graph, Engine::Cpu(Some(set)), Precision::F64);
        prop_assert!(program.engine() == format!("cpu ({set})"), "{}", program.engine());
        let difference = difference(&jacobians(&program, &samples), &expected);
        prop_assert!(difference < DOUBLE, "{set}: {difference:e}\n{graph}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_networks_agree_with_burn(network in instructions()) {
        compare(&Norms::new(&Device::flex()), &network)?;
    }
}
