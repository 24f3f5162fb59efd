//! Random networks of what the CPU executor has kernels for, against Burn's operations, on every
//! instruction set of this CPU.
//!
//! A network is a list of instructions on a stack of images, so that any list is a valid network.

use burn::tensor::activation::{gelu, leaky_relu, relu, sigmoid, softmax, tanh};
use burn::tensor::module::{adaptive_avg_pool2d, conv2d, linear};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor};
use influence_autodiff::{Graph, Precision};
use influence_cpu::Engine;
use proptest::prelude::*;

use crate::common::{DOUBLE, MOST, Norms, difference, many_give_what_few_give, program, sets, weights};
use crate::layers::{bottleneck, grouped, maxima, means, normalised, resized, squeezed, transposed};
use crate::models::{batch, jacobians};

/// One image of a random network: enough patches for Winograd's form.
const RANDOM: [usize; 3] = [2, 14, 14];

/// One instruction: what is done, and to which earlier values.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    kind: u8,
    first: usize,
    second: usize,
    channels: usize,
}

const KINDS: u8 = 32;

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
        // A mean that is the only reader of a convolution of single positions.
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
        // Parts of the channels, and a constant for each element.
        29 if c > 1 => {
            let [low, high] = [a.clone().narrow(1, 0, c / 2), a.narrow(1, c - c / 2, c / 2)];
            let shift = weights([1, c / 2, h, w], second, &device);
            tanh(low + shift) * high.square()
        }
        30 if h * w < 200 => transposed(a, first, second, channels),
        31 => resized(a, first, second, channels),
        _ => return None,
    })
}

/// Runs a network, whose last image is flattened or averaged before the last layer.
fn run(norms: &Norms, network: &[Instruction], classes: usize, x: Tensor<4>) -> Tensor<2> {
    let mut values = vec![x];
    for instruction in network {
        values.extend(apply(norms, *instruction, &values));
    }
    let last = values.pop().expect("there is always the input");
    let last = if network.len().is_multiple_of(2) { last } else { adaptive_avg_pool2d(last, [2, 1]) };
    let (flat, device) = (last.flatten::<2>(1, 3), values.first().map(Tensor::device));
    let features = flat.dims()[1];
    let device = device.unwrap_or_else(|| flat.device());
    linear(flat, weights([features, classes], 3, &device), Some(weights([classes], 9, &device)))
}

fn instructions(kinds: Vec<u8>) -> impl Strategy<Value = Vec<Instruction>> {
    let one = (prop::sample::select(kinds), 0..16_usize, 0..16_usize, 1..20_usize);
    let one = one.prop_map(|(kind, first, second, channels)| Instruction { kind, first, second, channels });
    prop::collection::vec(one, 1..14)
}

/// What has kernels for rows in lanes: all but functions of each element, products and matrices.
fn kinds_in_lanes() -> Vec<u8> {
    (0..20).chain([30, 31]).collect()
}

fn capture(norms: &Norms, network: &[Instruction], classes: usize) -> Graph {
    let forward = |norms: &Norms, x: Tensor<4>| run(norms, network, classes, x);
    Graph::capture(norms, forward, &RANDOM, &Device::flex()).expect("it can be captured")
}

fn compare(norms: &Norms, network: &[Instruction], classes: usize) -> Result<(), TestCaseError> {
    let graph = capture(norms, network, classes);
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
    fn random_networks_against_burn(network in instructions((0..KINDS).collect())) {
        compare(&Norms::new(&Device::flex()), &network, 4)?;
    }

    // Blocks of 32 cotangents, and of few after them.
    #[test]
    fn random_networks_of_many_classes(network in instructions(kinds_in_lanes()), more in 0..40_usize) {
        let norms = Norms::new(&Device::flex());
        compare(&norms, &network, 25 + more)?;
        let (graph, samples) = (capture(&norms, &network, 25 + more), batch(2, &RANDOM));
        sets().for_each(|set| many_give_what_few_give(&graph, &samples, set));
    }
}
