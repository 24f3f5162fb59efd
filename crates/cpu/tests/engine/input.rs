//! Input Jacobians of named networks on the CPU executor against the Burn executor, on every
//! instruction set of this CPU, forward and pullback.

use std::sync::Arc;

use burn::tensor::activation::relu;
use burn::tensor::module::{adaptive_avg_pool2d, conv2d, linear, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{
    Error, Executor, Graph, Jacobian, Leaves, Memory, Options, Precision, Program, Rows,
};
use influence_cpu::{CpuExecutor, Engine, InstructionSet};

use crate::common::{
    DOUBLE, Norms, SAMPLE, SINGLE, agrees_with_burn, capture_one, difference, many_give_what_few_give,
    program, sets, weights,
};
use crate::models::{batch, jacobians};
use crate::networks::{LARGE, MOBILE, dense, large, many, mobile, plain, smooth};

#[test]
fn depthwise_and_grouped_convolutions() {
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
fn sum_in_some_channels_of_a_concatenation() {
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
fn pullbacks_of_a_dense_block_together() {
    let (graph, samples) = (dense(), batch(4, &SAMPLE));
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, None, &Device::flex());
    let text = executor.expect("supported").to_string();
    let together: Vec<_> = text.lines().filter_map(|line| line.split_once(" + through")).collect();
    // Of seven layers, the three after the one of another width and the three before it.
    assert_eq!(together.len(), 2, "{text}");
    assert!(together.iter().all(|(_, rest)| rest.matches("through").count() == 1), "{text}");
    agrees_with_burn(&graph, &samples);
}

#[test]
fn layers_that_read_and_write_one_buffer() {
    let (graph, samples) = (plain(), batch(4, &SAMPLE));
    agrees_with_burn(&graph, &samples);
}

#[test]
fn nan_through_relu_and_maximum() {
    // Infinity minus infinity, through the ReLUs of dense, depthwise and normalised channels, and a
    // maximum.
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
    let executor =
        CpuExecutor::new(Arc::new(plain()), Precision::F32, None, &Device::flex()).expect("supported");
    let none = TensorData::new(Vec::<f32>::new(), [0, 2, 6, 5]);
    let error = executor.linearize(none).expect_err("there is nothing to do");
    assert!(error.to_string().contains("at least one sample"), "{error}");
}

#[test]
fn smooth_network_without_segments() {
    let (graph, samples) = (smooth(), batch(3, &LARGE));
    let text = program(&graph, Engine::Cpu(None), Precision::F64).describe();
    assert!(!text.contains("segment"), "{text}");
    agrees_with_burn(&graph, &samples);
}

#[test]
fn winograd_forward_and_reverse_are_taken() {
    let graph = large();
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, None, &Device::flex());
    let text = executor.expect("supported").to_string();
    assert!(
        text.contains("product over 9 taps by patches of") && text.contains("product by patches of"),
        "{text}"
    );
}

#[test]
fn single_precision() {
    // Far from kinks: of 5 samples none has a ReLU that falls on the other side.
    let (graph, samples) = (large(), batch(5, &LARGE));
    let expected = jacobians(&program(&graph, Engine::Burn, Precision::F64), &samples);
    for set in sets() {
        let found = jacobians(&program(&graph, Engine::Cpu(Some(set)), Precision::F32), &samples);
        let difference = difference(&found, &expected);
        assert!(difference < SINGLE, "{set}: {difference:e}");
    }
}

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

/// Asserts that a network's Jacobians are bit-identical for every batch and number of threads.
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
fn same_bits_for_every_batch_and_number_of_threads() {
    let samples = batch(5, &LARGE);
    for graph in [large(), smooth()] {
        bits_are_the_same(&graph, &samples);
    }
}

#[test]
fn many_cotangents_in_lanes() {
    let (graph, samples) = (many(), batch(3, &LARGE));
    let executor = |memory: Option<usize>| {
        let options =
            Options { precision: Precision::F64, memory: memory.map(Memory::new), ..Options::default() };
        Engine::Cpu(None).load(graph.clone(), Leaves::input(), &Device::flex(), &options).expect("it loads")
    };
    let lanes = executor(None);
    assert!(lanes.describe().contains("up to 32 cotangents at once, in lanes"), "{}", lanes.describe());
    agrees_with_burn(&graph, &samples);
    bits_are_the_same(&graph, &samples);
    sets().for_each(|set| many_give_what_few_give(&graph, &samples, set));
    // Not where fewer samples would fit: nine in lanes, on sets that have kernels for them.
    let own = CpuExecutor::new(Arc::new(graph.clone()), Precision::F64, None, &Device::flex());
    let own = own.expect("supported");
    let little = executor(Some(own.fixed_bytes() + own.sample_bytes() / 2));
    let nine = InstructionSet::detect() != InstructionSet::Avx512;
    let in_lanes =
        little.describe().lines().filter(|line| line.ends_with("in lanes")).collect::<Vec<_>>().join("; ");
    assert_eq!(in_lanes, if nine { "up to 9 cotangents at once, in lanes" } else { "" });
    let difference = difference(&jacobians(&little, &samples), &jacobians(&lanes, &samples));
    assert!(difference == 0.0, "{difference:e}");
}

#[test]
fn segment_on_burn_between_kernels() {
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
    let executor =
        CpuExecutor::new(Arc::new(large()), Precision::F32, None, &Device::flex()).expect("supported");
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
