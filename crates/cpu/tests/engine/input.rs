//! The CPU executor against the Burn executor: random networks of what it knows, on every instruction set of this processor, forward and
//! pullback.
//!
//! A network is a list of instructions on a stack of images, so that any list is a valid network.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::activation::{gelu, leaky_relu, relu, sigmoid, softmax, tanh};
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, conv2d, linear, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{
    Error, Executor, Graph, Jacobian, Leaves, Memory, Options, Precision, Program, Rows,
};
use influence_cpu::{CpuExecutor, Engine, InstructionSet};
use proptest::prelude::*;

use crate::models::{EMPTY, Empty, Weights, batch, jacobians, noise};

/// Rounding of f64 along a dozen layers, relative to the largest entry (at least 1).
const DOUBLE: f64 = 1e-11;

/// The same in f32 against f64.
const SINGLE: f64 = 1e-4;

/// One image.
const SAMPLE: [usize; 3] = [2, 6, 5];

/// One image of a random network: enough patches for Winograd's form.
const RANDOM: [usize; 3] = [2, 14, 14];

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

const KINDS: u8 = 30;

/// Made-up weights.
pub(super) fn weights<const D: usize>(shape: [usize; D], seed: usize, device: &Device) -> Tensor<D> {
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
        13 => grouped(a, second, channels, [1, 1], options([1, 1], [0, 0], [1, 1])),
        14 => grouped(a, second, channels, [3, 3], options([1, 1], [1, 1], [1, 1])),
        15 if h > 2 && w > 2 => grouped(a, second, channels, [3, 2], options([2, 2], [1, 0], [1, 1])),
        16 if h > 2 && w > 2 => grouped(a, 0, 0, [2, 3], options([1, 2], [1, 2], [2, 1])),
        // Enough channels on both sides for Winograd's form.
        18 if c >= 16 && h > 2 && w > 2 => conv2d(
            a,
            weights([16 + channels, c, 3, 3], second, &device),
            None,
            options([1, 1], [first % 2, second % 3], [1, 1]),
        ),
        // A mean that alone reads a convolution of single positions.
        19 if h > 1 && w > 1 => means(conv([1, 1], options([1, 1], [0, 0], [1, 1])), second),
        17 => relu(norms.norms[c - 1].forward(grouped(a, 0, 0, [3, 3], options([1, 1], [1, 1], [1, 1])))),
        20 => a.clone() * sigmoid(a),
        21 => gelu(a),
        22 => leaky_relu(a, 0.1),
        23 => (a.clone() + 3.0).clamp(0.0, 6.0) * a / 6.0,
        24 if a.dims() == b.dims() => a * b,
        25 => a.clone() * sigmoid(squeezed(a, c)),
        26 => softmax(a, 1 + first % 3),
        27 => normalised(a, 1 + first % 3),
        // An attention of each channel's rows.
        28 if a.dims() == b.dims() => softmax(a.clone().matmul(b.clone().swap_dims(2, 3)) * 0.5, 3).matmul(b),
        // Parts of the channels, and a constant for each number.
        29 if c > 1 => {
            let [low, high] = [a.clone().narrow(1, 0, c / 2), a.narrow(1, c - c / 2, c / 2)];
            let shift = weights([1, c / 2, h, w], second, &device);
            tanh(low + shift) * high.square()
        }
        _ => return None,
    })
}

/// One number for each channel, of all positions.
fn squeezed(x: Tensor<4>, channels: usize) -> Tensor<4> {
    let (c, device) = (x.dims()[1], x.device());
    let mean = x.mean_dim(2).mean_dim(3);
    let options = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
    conv2d(mean, weights([channels, c, 1, 1], 7, &device), None, options)
}

/// Without its mean along an axis, over its deviation.
fn normalised(x: Tensor<4>, axis: usize) -> Tensor<4> {
    let centred = x.clone() - x.mean_dim(axis);
    let variance = centred.clone().square().mean_dim(axis);
    centred / (variance + 0.1).sqrt()
}

/// A convolution in groups, of which `choice` picks the number, 0 one a channel; each group has up to four outputs.
fn grouped(
    x: Tensor<4>,
    choice: usize,
    channels: usize,
    kernel: [usize; 2],
    options: ConvOptions<2>,
) -> Tensor<4> {
    let ([_, c, ..], device) = (x.dims(), x.device());
    let divisors: Vec<_> = (1..=c).rev().filter(|groups| c.is_multiple_of(*groups)).collect();
    let groups = divisors[choice % divisors.len()];
    let outputs = groups * (1 + channels % (MOST / groups).min(4));
    let weight = weights([outputs, c / groups, kernel[0], kernel[1]], outputs + choice, &device);
    conv2d(x, weight, Some(weights([outputs], c, &device)), ConvOptions { groups, ..options })
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

pub(super) fn means(x: Tensor<4>, choice: usize) -> Tensor<4> {
    let (padding, count_include_pad) = ([(choice % 2, choice % 2), (0, 0)], choice.is_multiple_of(3));
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
    let options = Options { precision, batch: 3, ..Options::default() };
    engine.load(graph.clone(), Leaves::input(), &Device::flex(), &options).expect("it loads")
}

/// The largest difference of logits and rows, relative to the largest entry (at least 1).
fn difference(found: &[Jacobian], expected: &[Jacobian]) -> f64 {
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

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The Jacobians of all instruction sets are those of Burn's operations, in double precision.
fn agrees_with_burn(graph: &Graph, samples: &TensorData) {
    let expected = jacobians(&program(graph, Engine::Burn, Precision::F64), samples);
    for set in sets() {
        let found = jacobians(&program(graph, Engine::Cpu(Some(set)), Precision::F64), samples);
        let difference = difference(&found, &expected);
        assert!(difference < DOUBLE, "{set}: {difference:e}");
    }
}

fn capture(norms: &Norms, network: &[Instruction]) -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| run(norms, network, x);
    Graph::capture(norms, forward, &RANDOM, &Device::flex()).expect("it can be captured")
}

fn compare(norms: &Norms, network: &[Instruction]) -> Result<(), TestCaseError> {
    let graph = capture(norms, network);
    let samples = batch(4, &RANDOM);
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

/// Enough rows and channels that the work is cut up for several threads, and that Winograd's form is taken both ways.
fn large() -> Graph {
    let forward = |_: &Empty, x: Tensor<4>| {
        let device = x.device();
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let stem = relu(conv2d(x, weights([40, 2, 3, 3], 1, &device), None, options.clone()));
        let block = bottleneck(bottleneck(stem.clone(), 24, [1, 1]), 33, [2, 2]);
        let more = relu(conv2d(block.clone(), weights([8, 66, 3, 3], 4, &device), None, options.clone()));
        let all = relu(Tensor::cat(vec![block, more], 1));
        let pointwise = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let inner = relu(conv2d(stem, weights([22, 40, 1, 1], 5, &device), None, pointwise));
        // No ReLU behind it: its cotangents are dense.
        let plain = conv2d(inner, weights([19, 22, 3, 3], 6, &device), None, options);
        let pooled = [all, plain].map(|x| adaptive_avg_pool2d(x, [2, 2])).to_vec();
        let flat = Tensor::cat(pooled, 1).flatten::<2>(1, 3);
        let features = flat.dims()[1];
        linear(flat, weights([features, 13], 3, &device), None)
    };
    Graph::capture(&EMPTY, forward, &LARGE, &Device::flex()).expect("it can be captured")
}

/// Layers that each read all that the ones before have made, as in DenseNet, with a layer of another width in their midst.
fn dense() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize, kernel: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs, kernel, kernel], inputs + outputs, &device);
            let padding = [kernel / 2, kernel / 2];
            conv2d(x, weight, None, ConvOptions::new([1, 1], padding, [1, 1], 1))
        };
        let mut all = conv(x, 3, 3);
        for layer in 0..7 {
            let read = relu(norms.norms[all.dims()[1] - 1].forward(all.clone()));
            let inner = relu(conv(read, if layer == 3 { 9 } else { 11 }, 1));
            all = Tensor::cat(vec![all, conv(inner, 5, 3)], 1);
        }
        let features = relu(norms.norms[all.dims()[1] - 1].forward(all));
        let flat = adaptive_avg_pool2d(features, [1, 1]).flatten::<2>(1, 3);
        linear(flat, weights([38, 4], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &SAMPLE, &Device::flex())
        .expect("it can be captured")
}

/// One image of [`mobile`].
const MOBILE: [usize; 3] = [3, 12, 10];

/// Blocks of depthwise and pointwise convolutions with normalisation and ReLUs, one of them residual, and a block of 16 groups whose panels
/// hold several of them.
fn mobile() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize, kernel: usize, stride: usize, groups: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs / groups, kernel, kernel], inputs + outputs, &device);
            let padding = [kernel / 2, kernel / 2];
            conv2d(x, weight, None, ConvOptions::new([stride, stride], padding, [1, 1], groups))
        };
        let on = |x: Tensor<4>| relu(norms.norms[x.dims()[1] - 1].forward(x));
        let mut x = on(conv(x, 36, 3, 1, 1));
        for (outputs, stride) in [(36, 1), (40, 2)] {
            let channels = x.dims()[1];
            let inner = conv(on(conv(x.clone(), channels, 3, stride, channels)), outputs, 1, 1, 1);
            x = if stride == 1 { x + inner } else { on(inner) };
        }
        let wide = relu(conv(x.clone(), 96, 1, 1, 1));
        let wide = relu(conv(wide, 80, 3, 1, 16));
        let x = relu(conv(wide, 40, 1, 1, 1) + x);
        linear(adaptive_avg_pool2d(x, [1, 1]).flatten::<2>(1, 3), weights([40, 7], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &MOBILE, &Device::flex())
        .expect("it can be captured")
}

#[test]
fn depthwise_and_grouped_convolutions_run_on_our_own_kernels() {
    let (graph, samples) = (mobile(), batch(4, &MOBILE));
    let expected = jacobians(&program(&graph, Engine::Burn, Precision::F64), &samples);
    for set in sets() {
        for (precision, tolerance) in [(Precision::F64, DOUBLE), (Precision::F32, SINGLE)] {
            let program = program(&graph, Engine::Cpu(Some(set)), precision);
            assert_eq!(program.engine(), format!("cpu ({set})"));
            let difference = difference(&jacobians(&program, &samples), &expected);
            assert!(difference < tolerance, "{set}, {precision}: {difference:e}");
        }
    }
}

#[test]
fn some_channels_of_a_concatenation_are_read_where_they_lie() {
    // Two convolutions of several taps into one sum, which has few of the channels.
    let graph = capture_one(|x| {
        let device = x.device();
        let conv = |outputs: usize, seed: usize| {
            let weight = weights([outputs, 2, 3, 3], seed, &device);
            conv2d(x.clone(), weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
        };
        let all = Tensor::cat(vec![conv(3, 1) + conv(3, 2), conv(9, 3)], 1);
        linear(all.flatten::<2>(1, 3), weights([12 * 30, 4], 3, &device), None)
    });
    agrees_with_burn(&graph, &batch(2, &SAMPLE));
}

#[test]
fn dense_blocks_are_pulled_back_together() {
    let (graph, samples) = (dense(), batch(4, &SAMPLE));
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, None, &Device::flex());
    let text = executor.expect("finite").expect("known").to_string();
    let together: Vec<_> = text.lines().filter_map(|line| line.split_once(" + through")).collect();
    // Of seven layers the three behind the one of another width, and the three before it.
    assert_eq!(together.len(), 2, "{text}");
    assert!(together.iter().all(|(_, rest)| rest.matches("through").count() == 1), "{text}");
    agrees_with_burn(&graph, &samples);
}

/// Layers without bottlenecks that read all that the ones before have made and write behind it, some of them with a ReLU of their own.
fn plain() -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize| {
            let inputs = x.dims()[1];
            let weight = weights([outputs, inputs, 3, 3], inputs + outputs, &device);
            conv2d(x, weight, None, ConvOptions::new([1, 1], [1, 1], [1, 1], 1))
        };
        let mut all = conv(x, 5);
        for layer in 0..6 {
            let next = conv(relu(norms.norms[all.dims()[1] - 1].forward(all.clone())), 5);
            all = Tensor::cat(vec![all, if layer % 2 == 0 { relu(next) } else { next }], 1);
        }
        let features = relu(norms.norms[all.dims()[1] - 1].forward(all));
        linear(features.flatten::<2>(1, 3), weights([35 * 30, 4], 3, &device), None)
    };
    Graph::capture(&Norms::new(&Device::flex()), forward, &SAMPLE, &Device::flex())
        .expect("it can be captured")
}

#[test]
fn layers_that_read_and_write_one_buffer_agree_with_burn() {
    let (graph, samples) = (plain(), batch(4, &SAMPLE));
    agrees_with_burn(&graph, &samples);
}

#[test]
fn what_is_no_number_stays_none() {
    // Infinity minus infinity, through the ReLUs of dense, depthwise and normalised channels, and a maximum.
    let forward = |norms: &Norms, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, values: &[f32], [outputs, inputs]: [usize; 2], groups: usize| {
            let data = TensorData::new(values.to_vec(), [outputs, inputs, 1, 1]);
            let options = ConvOptions::new([1, 1], [0, 0], [1, 1], groups);
            conv2d(x, Tensor::from_data(data, &device), None, options)
        };
        let huge = relu(conv(x, &[3e38; 4], [2, 2], 1));
        let none = relu(conv(huge, &[1.0, -1.0], [1, 2], 1));
        let two = relu(conv(none.clone(), &[1.0, 2.0], [2, 1], 1));
        let alone = relu(conv(two, &[1.0, 1.0], [2, 1], 2));
        let all = relu(norms.norms[2].forward(Tensor::cat(vec![none, alone], 1)));
        let most = max_pool2d(all, MaxPoolOptions::new([2, 2]));
        linear(adaptive_avg_pool2d(most, [1, 1]).flatten::<2>(1, 3), weights([3, 4], 3, &device), None)
    };
    let graph = Graph::capture(&Norms::new(&Device::flex()), forward, &SAMPLE, &Device::flex())
        .expect("it can be captured");
    let samples = TensorData::new(vec![1.0_f32; 60], [1, 2, 6, 5]);
    for engine in sets().map(|set| Engine::Cpu(Some(set))).chain([Engine::Burn]) {
        let logits = program(&graph, engine, Precision::F32).logits(samples.clone()).expect("it runs");
        assert!(logits[0].iter().all(|x| x.is_nan()), "{engine:?}: {logits:?}");
    }
}

#[test]
fn a_batch_without_samples_is_refused() {
    let executor = CpuExecutor::new(Arc::new(plain()), Precision::F32, None, &Device::flex())
        .expect("finite")
        .expect("known");
    let none = TensorData::new(Vec::<f32>::new(), [0, 2, 6, 5]);
    let error = executor.linearize(none).expect_err("there is nothing to do");
    assert!(error.to_string().contains("at least one sample"), "{error}");
}

/// One image of [`large`].
const LARGE: [usize; 3] = [2, 24, 20];

/// The bits of all logits and rows of the samples, in their order.
fn bits(program: &Program, samples: &TensorData) -> Vec<u64> {
    let each = |jacobian: Jacobian| {
        let rows: Vec<u64> = match &jacobian.rows {
            Rows::F64(rows) => rows.iter().map(|x| x.to_bits()).collect(),
            Rows::F32(rows) => rows.iter().map(|x| u64::from(x.to_bits())).collect(),
        };
        jacobian.logits.iter().map(|x| x.to_bits()).chain(rows).collect::<Vec<_>>()
    };
    jacobians(program, samples).into_iter().flat_map(each).collect()
}

/// Without a mask: gates, normalisation, attention, functions of each number.
fn smooth() -> Graph {
    let forward = |_: &Empty, x: Tensor<4>| {
        let device = x.device();
        let options = ConvOptions::new([1, 1], [1, 1], [1, 1], 1);
        let stem = conv2d(x, weights([40, 2, 3, 3], 1, &device), None, options.clone());
        let stem = stem.clone() * sigmoid(stem);
        let deep = grouped(stem.clone(), 0, 0, [3, 3], options);
        let gated = normalised(deep.clone() * sigmoid(squeezed(deep, 40)), 1);
        let tokens = gelu(gated + stem).narrow(2, 0, 5).flatten::<3>(2, 3).swap_dims(1, 2);
        let heads = |seed: usize| {
            let all = linear(tokens.clone(), weights([40, 24], seed, &device), None);
            all.reshape([0, 100, 3, 8]).swap_dims(1, 2)
        };
        let scores = softmax(heads(5).matmul(heads(6).swap_dims(2, 3)) * 0.4, 3);
        let mixed = scores.matmul(heads(7)).swap_dims(1, 2).flatten::<3>(2, 3);
        linear(mixed.narrow(1, 0, 1).flatten::<2>(1, 2), weights([24, 4], 3, &device), None)
    };
    Graph::capture(&EMPTY, forward, &LARGE, &Device::flex()).expect("it can be captured")
}

#[test]
fn smooth_networks_run_on_kernels_of_ours() {
    let (graph, samples) = (smooth(), batch(3, &LARGE));
    let text = program(&graph, Engine::Cpu(None), Precision::F64).describe();
    assert!(!text.contains("segment"), "{text}");
    agrees_with_burn(&graph, &samples);
}

#[test]
fn threads_and_batches_do_not_show() {
    let samples = batch(5, &LARGE);
    for graph in [large(), smooth()] {
        bits_are_the_same(&graph, &samples);
    }
}

#[test]
fn patches_are_taken_both_ways() {
    let graph = large();
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, None, &Device::flex());
    let text = executor.expect("finite").expect("known").to_string();
    assert!(
        text.contains("product over 9 taps by patches of") && text.contains("product by patches of"),
        "{text}"
    );
}

/// Whatever the threads and the batches.
fn bits_are_the_same(graph: &Graph, samples: &TensorData) {
    for (precision, set) in
        [Precision::F32, Precision::F64].into_iter().flat_map(|p| sets().map(move |s| (p, s)))
    {
        let run = |threads: usize, batch: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            let options = Options { precision, batch, ..Options::default() };
            pool.install(|| {
                let engine = Engine::Cpu(Some(set));
                let program = engine.load(graph.clone(), Leaves::input(), &Device::flex(), &options);
                let program = program.expect("it loads");
                bits(&program, samples)
            })
        };
        let expected = run(1, 1);
        for (threads, batch) in [(1, 5), (2, 1), (2, 8), (3, 2), (7, 3)] {
            assert!(
                run(threads, batch) == expected,
                "{set}, {precision}, {threads} threads, batches of {batch}"
            );
        }
    }
}

#[test]
fn single_precision_agrees_with_burn() {
    // Far from kinks: of 5 samples none has a ReLU that falls on the other side.
    let (graph, samples) = (large(), batch(5, &LARGE));
    let expected = jacobians(&program(&graph, Engine::Burn, Precision::F64), &samples);
    for set in sets() {
        let found = jacobians(&program(&graph, Engine::Cpu(Some(set)), Precision::F32), &samples);
        let difference = difference(&found, &expected);
        assert!(difference < SINGLE, "{set}: {difference:e}");
    }
}

#[test]
fn what_it_lacks_runs_on_burn_between_the_rest_and_it_says_so() {
    let graph = capture_one(|x| relu(relu(x - 0.5).cumsum(2) - 0.25).flatten::<2>(1, 3));
    let program = program(&graph, Engine::Cpu(None), Precision::F64);
    let engine = program.engine();
    assert!(engine.starts_with("cpu") && engine.contains("1 segment on Burn's operations"), "{engine}");
    assert!(program.describe().contains("(CumSum)"), "{}", program.describe());
    let expected = jacobians(&self::program(&graph, Engine::Burn, Precision::F64), &batch(2, &SAMPLE));
    let found = jacobians(&program, &batch(2, &SAMPLE));
    assert!(difference(&found, &expected) < DOUBLE);
}

#[test]
fn memory_bounds_the_batch_and_is_refused_when_one_sample_does_not_fit() {
    let executor = CpuExecutor::new(Arc::new(large()), Precision::F32, None, &Device::flex())
        .expect("finite")
        .expect("known");
    let (fixed, sample) = (executor.fixed_bytes(), executor.sample_bytes());
    let run = |bytes: usize, threads: usize| {
        let memory = Some(Memory::new(bytes));
        let options = Options { batch: 8, memory, ..Options::default() };
        let program = || Engine::Cpu(None).load(large(), Leaves::input(), &Device::flex(), &options);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(program).map(|program| program.plan().batch())
    };
    assert_eq!(run(fixed + 3 * sample, 1), Ok(3));
    assert_eq!(run(fixed + 7 * sample, 2), Ok(3), "each of two threads");
    assert_eq!(run(fixed + 2 * sample, 7), Ok(1), "no more threads than fit");
    assert_eq!(run(fixed + 100 * sample, 1), Ok(executor.batch()));
    assert!(executor.batch() > 3, "a small network runs more at a time");
    let refused = run(fixed + sample - 1, 1).expect_err("one sample does not fit");
    assert!(
        matches!(refused, Error::Memory { needed, .. } if needed == Memory::new(fixed + sample)),
        "{refused}"
    );
}

/// A network without weights.
pub(super) fn capture_one(forward: impl Fn(Tensor<4>) -> Tensor<2>) -> Graph {
    Graph::capture(&EMPTY, |_: &Empty, x| forward(x), &SAMPLE, &Device::flex()).expect("it can be captured")
}
