//! Random small networks: the pullback against central differences.
//!
//! 256 of them in each run (more with the variable `PROPTEST_CASES`).
//!
//! A network is a list of instructions on a stack of values that all have the input's shape, so that any list is a valid network.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, leaky_relu, log_softmax, relu, sigmoid, softmax, tanh};
use proptest::prelude::*;

use crate::models::{error_of_rows, load};

/// Step of central differences in f64.
const STEP: f64 = 1e-5;

/// Error of rows at [`STEP`], relative to the largest entry (at least 1): compositions of a dozen operations, whose third derivatives
/// may be thousands of times the first.
const RANDOM: f64 = 1e-7;

const SAMPLE: [usize; 2] = [3, 4];

/// One instruction: what is done, and to which earlier values.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    kind: u8,
    first: usize,
    second: usize,
}

const UNARY: u8 = 18;
const KINDS: u8 = 26;

fn unary(kind: u8, x: Tensor<3>) -> Tensor<3> {
    let [n, c, w] = x.dims();
    match kind {
        0 => relu(x + 0.123),
        1 => leaky_relu(x - 0.071, 0.2),
        2 => sigmoid(x),
        3 => tanh(x),
        4 => gelu(x),
        5 => softmax(x, 2),
        6 => log_softmax(x, 1),
        7 => x.flip([1, 2]),
        8 => x.reshape([n, w, c]).swap_dims(1, 2),
        9 => Tensor::cat(vec![x.clone().narrow(2, 1, w - 1), x.narrow(2, 0, 1)], 2),
        10 => x.clone() - x.mean_dim(2),
        11 => x.clone() * 0.5 + x.sum_dim(1) * 0.25,
        12 => x.mean_dim(1).expand([n, c, w]),
        13 => (x.clone() * x + 1.0).recip(),
        14 => x / 1.7,
        15 => -x,
        16 => Tensor::cat(vec![x.clone().slice_dim(1, 0..1), x.clone(), x], 1).narrow(1, 2, 3),
        _ => x * 0.9 - 0.3,
    }
}

fn binary(kind: u8, a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    match kind {
        0 => a + b,
        1 => a - b,
        2 => tanh(a) * tanh(b),
        3 => tanh(a) / (b.clone() * b + 1.5),
        4 => tanh(a.clone()).matmul(tanh(b).swap_dims(1, 2)).matmul(a) * 0.2,
        5 => Tensor::cat(vec![b.narrow(1, 1, 1), a.narrow(1, 0, 2)], 1),
        6 => a * sigmoid(b.mean_dim(2)),
        _ => a.slice_dim(2, 0..2).sum_dim(2) - b,
    }
}

fn run(program: &[Instruction], x: Tensor<3>) -> Tensor<2> {
    let mut values = vec![x];
    for instruction in program {
        let value = |at: usize| values[at % values.len()].clone();
        let (a, b) = (value(instruction.first), value(instruction.second));
        values.push(match instruction.kind {
            kind if kind < UNARY => unary(kind, a),
            kind => binary(kind - UNARY, a, b),
        });
    }
    let last = values.pop().expect("there is always the input");
    let [n, c, w] = last.dims();
    // Not quite the last value alone: so that a network is never empty, nor its logits probabilities.
    (last + values.remove(0) * 0.5).reshape([n, c * w])
}

fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
    let one = (0..KINDS, 0..16_usize, 0..16_usize);
    prop::collection::vec(one.prop_map(|(kind, first, second)| Instruction { kind, first, second }), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pullback_of_a_random_network_is_its_derivative(network in instructions()) {
        let program = load(&SAMPLE, |x: Tensor<3>| run(&network, x)).expect("every instruction is supported");
        let error = error_of_rows(&program, &SAMPLE, STEP);
        prop_assert!(error < RANDOM, "{error:e}\n{}", program.plan().graph());
    }
}

#[test]
fn every_instruction_alone() {
    for kind in 0..KINDS {
        let network =
            [Instruction { kind: 3, first: 0, second: 0 }, Instruction { kind, first: 1, second: 0 }];
        let program = load(&SAMPLE, |x: Tensor<3>| run(&network, x)).expect("every instruction is supported");
        let error = error_of_rows(&program, &SAMPLE, STEP);
        assert!(error < RANDOM, "instruction {kind}: {error:e}");
    }
}
