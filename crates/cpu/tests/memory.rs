//! The memory that the CPU executor takes is what it promises.
//!
//! One test in a binary of its own, since the allocator counts for the whole process.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::{adaptive_avg_pool2d, conv2d, linear, max_pool2d};
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{Graph, Leaves, Memory, Options, Precision};
use influence_cpu::{CpuExecutor, Engine};
use peak_alloc::PeakAlloc;
use std::sync::Arc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One image.
const SAMPLE: [usize; 3] = [3, 32, 32];

#[derive(Module, Debug)]
struct NoWeights {
    nothing: Option<Linear>,
}

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f64 * 12.9898).sin() * 43_758.545_3 % 0.1) as f32).collect()
}

fn weights<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(noise(shape.iter().product()), shape), device)
}

/// A residual block, a pool, a depthwise layer, concatenations, one of which a layer reads and
/// writes, and a given number of classes.
fn graph(classes: usize) -> Graph {
    let forward = move |_: &NoWeights, x: Tensor<4>| {
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
    Graph::capture(&NoWeights { nothing: None }, forward, &SAMPLE, &Device::flex()).expect("it is captured")
}

fn samples(count: usize) -> TensorData {
    let size: usize = SAMPLE.iter().product();
    TensorData::new(noise(count * size), [&[count], SAMPLE.as_slice()].concat())
}

/// A residual block and a concatenation, a depthwise convolution and one in groups, an embedding
/// and a layer normalisation, whose tensors may be perturbed.
#[derive(Module, Debug)]
struct PerturbedNet {
    convs: Vec<Conv2d>,
    embedding: Param<Tensor<4>>,
    norm: LayerNorm,
    head: Linear,
}

impl PerturbedNet {
    fn new(classes: usize) -> Self {
        let device = Device::flex();
        let conv = |[inputs, outputs, groups]: [usize; 3]| {
            let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
            let config = Conv2dConfig::new([inputs, outputs], [3, 3]).with_groups(groups);
            let mut conv = config.with_padding(padding).init(&device);
            conv.weight = Param::from_tensor(weights([outputs, inputs / groups, 3, 3], &device));
            conv
        };
        let convs = [[3, 32, 1], [32, 32, 1], [32, 32, 1], [32, 32, 1], [64, 64, 64], [64, 64, 4]];
        let mut head = LinearConfig::new(64, classes).init(&device);
        head.weight = Param::from_tensor(weights([64, classes], &device));
        let embedding = Param::from_tensor(weights([1, 64, 16, 16], &device));
        let norm = LayerNormConfig::new(64).init(&device);
        Self { convs: convs.map(conv).to_vec(), embedding, norm, head }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let conv = |at: usize, x: Tensor<4>| self.convs[at].forward(x);
        let stem = relu(conv(0, x));
        let block = relu(conv(2, relu(conv(1, stem.clone()))) + stem);
        let pooled = max_pool2d(block, MaxPoolOptions::new([2, 2]));
        let all = relu(Tensor::cat(vec![pooled.clone(), conv(3, pooled)], 1));
        let all = relu(conv(5, conv(4, all))) + self.embedding.val();
        let all = self.norm.forward(all.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]);
        self.head.forward(adaptive_avg_pool2d(all, [1, 1]).flatten::<2>(1, 3))
    }
}

/// The share of the promised memory that a run may take.
const PROMISED: f64 = 1.05;
/// How far the rounds of one thread may differ. (With several it is chance which of their
/// short-lived buffers are there at once.)
const ROUNDS: f64 = 1.02;

#[test]
fn a_run_takes_what_it_promises_and_later_batches_nothing_new() {
    for classes in [3, 10, 40] {
        let graph = graph(classes);
        for (threads, batch) in [(1, 1), (1, 2), (2, 2)] {
            check(&graph, &Leaves::input(), threads, batch);
        }
        let net = PerturbedNet::new(classes);
        let graph =
            Graph::capture(&net, PerturbedNet::forward, &SAMPLE, &Device::flex()).expect("it is captured");
        for threads in [1, 2] {
            check(&graph, &Leaves::parameters(&graph), threads, 1);
            check(&graph, &Leaves::parameters(&graph).and_input(), threads, 1);
        }
    }
}

/// Several rounds on all threads, in memory for `batch` samples each.
fn check(graph: &Graph, leaves: &Leaves, threads: usize, batch: usize) {
    let own = (Arc::new(graph.clone()), leaves.clone());
    let executor =
        CpuExecutor::perturbing(own.0, own.1, Precision::F32, None, &Device::flex()).expect("supported");
    let (fixed, sample) = (executor.fixed_bytes(), executor.sample_bytes());
    let together = threads * batch;
    let promised = fixed + together * sample;
    let memory = Some(Memory::new(promised));
    let options = Options { batch: 32, memory, ..Options::default() };
    let (own, leaves, images) = (graph.clone(), leaves.clone(), samples(6 * together));
    let trains = !leaves.indices().is_empty();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    let peaks: Vec<usize> = pool.install(|| {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let program = Engine::Cpu(None).load(own, leaves, &Device::flex(), &options).expect("it loads");
        assert_eq!(program.plan().batch(), batch);
        let rounds = |next: &mut dyn FnMut()| {
            let mut round = || {
                (0..together).for_each(|_| next());
                let peak = MEMORY.peak_usage() - before;
                MEMORY.reset_peak_usage();
                peak
            };
            (0..6).map(|_| round()).collect()
        };
        if trains {
            let mut grams = program.grams(images).expect("they fit");
            rounds(&mut || drop(grams.next().expect("there are more").expect("it runs")))
        } else {
            let mut jacobians = program.jacobians(images).expect("they fit");
            rounds(&mut || drop(jacobians.next().expect("there are more").expect("it runs")))
        }
    });
    let (most, second) = (peaks.iter().copied().max().unwrap_or(0) as f64, peaks[1] as f64);
    let what = format!("{threads} threads, batch {batch}, {}, {peaks:?} of {promised}", graph.classes());
    assert!(most < PROMISED * promised as f64, "{what}");
    assert!(threads > 1 || most < ROUNDS * second, "{what}");
    // The promise is what is taken, not a multiple of it.
    assert!(most > 0.5 * promised as f64, "{what}");
}
