//! The memory that the CPU executor takes is what it promises.
//!
//! One test in a binary of its own, since the allocator counts for the whole process.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::module::{adaptive_avg_pool2d, conv2d, linear, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{CpuExecutor, Engine, Graph, Memory, Options, Precision, Program};
use peak_alloc::PeakAlloc;
use std::sync::Arc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One image.
const SAMPLE: [usize; 3] = [3, 32, 32];

#[derive(Module, Debug)]
struct Empty {
    nothing: Option<Linear>,
}

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f64 * 12.9898).sin() * 43_758.545_3 % 0.1) as f32).collect()
}

fn weights<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(noise(shape.iter().product()), shape), device)
}

/// A residual block, a pool, a depthwise layer, concatenations, one of which a layer reads and writes, and so many classes.
fn graph(classes: usize) -> Graph {
    let forward = move |_: &Empty, x: Tensor<4>| {
        let device = x.device();
        let conv = |x: Tensor<4>, outputs: usize, kernel: usize, groups: usize| {
            let weight = weights([outputs, x.dims()[1] / groups, kernel, kernel], &device);
            conv2d(x, weight, None, ConvOptions::new([1, 1], [kernel / 2, kernel / 2], [1, 1], groups))
        };
        let stem = relu(conv(x, 32, 3, 1));
        let block = relu(conv(relu(conv(stem.clone(), 32, 3, 1)), 32, 3, 1) + stem);
        let pooled = max_pool2d(block, MaxPoolOptions::new([2, 2]));
        let alone = relu(conv(pooled.clone(), 32, 3, 32));
        let all = Tensor::cat(vec![pooled, alone], 1);
        let all = Tensor::cat(vec![all.clone(), conv(all, 16, 3, 1)], 1);
        let all = relu(conv(all, 64, 3, 1));
        linear(adaptive_avg_pool2d(all, [1, 1]).flatten::<2>(1, 3), weights([64, classes], &device), None)
    };
    Graph::capture(&Empty { nothing: None }, forward, &SAMPLE, &Device::flex()).expect("it is captured")
}

fn samples(count: usize) -> TensorData {
    let size: usize = SAMPLE.iter().product();
    TensorData::new(noise(count * size), [&[count], SAMPLE.as_slice()].concat())
}

/// Of what a run promises, how much it may take.
const PROMISED: f64 = 1.05;
/// How far rounds may differ: by the order in which threads take what they give back a moment later.
const ROUNDS: f64 = 1.05;

#[test]
fn a_run_takes_what_it_promises_and_later_batches_nothing_new() {
    for classes in [3, 10, 40] {
        check(&graph(classes));
    }
}

fn check(graph: &Graph) {
    let executor = CpuExecutor::new(Arc::new(graph.clone()), Precision::F32, None).expect("finite");
    let (fixed, sample) = executor.map(|own| (own.fixed_bytes(), own.sample_bytes())).expect("all is known");
    for (threads, batch) in [(1, 1), (1, 3), (2, 2)] {
        let together = threads * batch;
        let memory = Memory::new(fixed + together * sample);
        let options =
            Options { engine: Engine::Cpu(None), precision: Precision::F32, batch: 32, memory: Some(memory) };
        let (own, images) = (graph.clone(), samples(6 * together));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let peaks: Vec<f64> = pool.install(|| {
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let program = Program::new(own, &Device::flex(), &options).expect("it loads");
            assert_eq!(program.plan().batch(), batch);
            let mut jacobians = program.jacobians(images).expect("they fit");
            let mut round = || {
                for _ in 0..together {
                    jacobians.next().expect("there are more").expect("it runs");
                }
                let peak = MEMORY.peak_usage() - before;
                MEMORY.reset_peak_usage();
                peak as f64
            };
            (0..6).map(|_| round()).collect()
        });
        let promised = (fixed + together * sample) as f64;
        let most = peaks.iter().copied().fold(0.0, f64::max);
        assert!(
            most < PROMISED * promised,
            "{threads} threads, batch {batch}: {peaks:?}, promised {promised}"
        );
        assert!(most < ROUNDS * peaks[1], "{threads} threads, batch {batch}: {peaks:?}");
        // The promise is what is taken, not a multiple of it.
        assert!(most > 0.5 * promised, "{threads} threads, batch {batch}: {peaks:?}, promised {promised}");
    }
}
