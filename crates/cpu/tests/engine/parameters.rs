//! Gram matrices of parameters on the CPU executor against those on the Burn executor, which are
//! held against dense differences.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::activation::{gelu, relu, sigmoid, softmax};
use burn::tensor::module::{adaptive_avg_pool2d, avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Combinations, Graph, Leaves, Options, Precision, SampleGrams};
use influence_cpu::{Engine, InstructionSet};

use crate::common::difference;
use crate::models::{Weights, batch, jacobians};

/// Rounding of f64 along a dozen layers, relative to the largest entry of a matrix.
const DOUBLE: f64 = 1e-11;

/// Rounding of f32 along a dozen layers, relative to the largest entry of a matrix.
const SINGLE: f64 = 1e-4;

/// One image: enough positions at first that weights go by tiles, few enough at last that they go
/// by positions.
const SAMPLE: [usize; 3] = [2, 20, 14];

/// Convolutions of several geometries, batch normalisation before and after them, sums,
/// concatenation, pools, a linear layer of a flattened image.
#[derive(Module, Debug)]
struct GramNet {
    stem: Conv2d,
    /// Its gradient goes by patches in Winograd's form.
    mix: Conv2d,
    blocks: Vec<Conv2d>,
    shortcut: Conv2d,
    grow: Conv2d,
    /// Only a mean reads it, which is taken first.
    pooled: Conv2d,
    norms: Vec<BatchNorm>,
    hidden: Linear,
    head: Linear,
}

impl GramNet {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels: [usize; 2], kernel: [usize; 2], stride: usize, dilation: usize, bias: bool| {
            let padding = [0, 1].map(|axis| dilation * (kernel[axis] / 2));
            Conv2dConfig::new(channels, kernel)
                .with_stride([stride, stride])
                .with_dilation([dilation, dilation])
                .with_padding(PaddingConfig2d::Explicit(padding[0], padding[1], padding[0], padding[1]))
                .with_bias(bias)
                .init(&device)
        };
        let norms = [18, 7, 7, 21, 21, 30].map(|channels| BatchNormConfig::new(channels).init(&device));
        let net = Self {
            stem: conv([2, 18], [3, 3], 1, 1, true),
            mix: conv([18, 18], [3, 3], 1, 1, true),
            blocks: vec![
                conv([18, 7], [1, 1], 2, 1, false),
                conv([7, 7], [3, 1], 1, 1, true),
                conv([7, 21], [1, 1], 1, 1, true),
            ],
            shortcut: conv([18, 21], [1, 1], 2, 1, true),
            grow: conv([21, 9], [3, 3], 1, 2, true),
            pooled: conv([30, 30], [1, 1], 1, 1, true),
            norms: norms.to_vec(),
            hidden: LinearConfig::new(48 * 5 * 3, 11).init(&device),
            head: LinearConfig::new(11, 6).init(&device),
        };
        net.map(&mut Weights::new(&device, DType::F32))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let norm = |at: usize, x: Tensor<4>| self.norms[at].forward(x);
        let x = relu(norm(0, self.stem.forward(x)));
        let y = relu(norm(1, self.blocks[0].forward(x.clone())));
        let y = relu(norm(2, self.blocks[1].forward(y)));
        let y = relu(norm(3, self.blocks[2].forward(y)) + self.shortcut.forward(x.clone()));
        let grown = self.grow.forward(relu(norm(4, y.clone())));
        let y = relu(norm(5, Tensor::cat(vec![y, grown], 1)));
        let (kernel_size, stride, dilation) = ([2, 2], [2, 2], [1, 1]);
        let padding = [(0, 0), (0, 0)];
        let most = MaxPoolOptions { kernel_size, stride, padding, dilation, ceil_mode: false };
        let mean = AvgPoolOptions { kernel_size, stride, padding, count_include_pad: true, ceil_mode: false };
        let y = max_pool2d(y.clone(), most) + avg_pool2d(self.pooled.forward(y), mean);
        // Every position of it is read, and no ReLU follows: its cotangents are dense.
        let y = Tensor::cat(vec![y, adaptive_avg_pool2d(self.mix.forward(x), [5, 3])], 1);
        self.head.forward(relu(self.hidden.forward(y.flatten::<2>(1, 3))))
    }
}

fn captured() -> Graph {
    Graph::capture(&GramNet::new(), GramNet::forward, &SAMPLE, &Device::flex()).expect("it can be captured")
}

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The matrices of all parameters and of the input.
fn grams(engine: Engine, precision: Precision, batch: usize, samples: &TensorData) -> Vec<SampleGrams> {
    let (graph, options) = (captured(), Options { precision, batch, ..Options::default() });
    let leaves = Leaves::parameters(&graph).and_input();
    let program = engine.load(graph, leaves, &Device::flex(), &options).expect("it loads");
    assert_eq!(program.engine().starts_with("cpu"), engine != Engine::Burn, "{}", program.engine());
    program.grams(samples.clone()).expect("they fit").collect::<Result<_, _>>().expect("it runs")
}

fn assert_agree(found: &[SampleGrams], expected: &[SampleGrams], tolerance: f64, what: &str) {
    let names: Vec<_> = captured().parameters().iter().map(|parameter| parameter.name.clone()).collect();
    assert_eq!(names.len(), 31);
    for (found, expected) in found.iter().zip(expected) {
        let (own, other) = (found.input.iter(), expected.input.iter());
        let all = found.tensors.iter().chain(own).zip(expected.tensors.iter().chain(other));
        assert_eq!(all.clone().count(), names.len() + 1);
        for ((found, expected), name) in all.zip(names.iter().map(String::as_str).chain(["input"])) {
            assert_eq!(found.len(), 25, "{what}: {name}");
            let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
            assert!(largest > 1e-12, "{name} has no influence: the test is blind");
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= tolerance * largest, "{what}: {name}: {:e}", worst / largest);
        }
    }
}

#[test]
fn grams_of_products_and_normalisations() {
    let samples = batch(3, &SAMPLE);
    let expected = grams(Engine::Burn, Precision::F64, 1, &samples);
    for set in sets() {
        let engine = Engine::Cpu(Some(set));
        let found = grams(engine, Precision::F64, 3, &samples);
        assert_agree(&found, &expected, DOUBLE, &format!("{set} in f64"));
        let found = grams(engine, Precision::F32, 3, &samples);
        assert_agree(&found, &expected, SINGLE, &format!("{set} in f32"));
    }
}

#[test]
fn grams_have_the_same_bits_for_every_batch_and_number_of_threads() {
    let samples = batch(5, &SAMPLE);
    for (set, precision) in sets().flat_map(|set| [(set, Precision::F32), (set, Precision::F64)]) {
        let run = |threads: usize, batch: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| grams(Engine::Cpu(Some(set)), precision, batch, &samples))
        };
        let expected = run(1, 1);
        for (threads, batch) in [(1, 5), (2, 8), (3, 2), (7, 3)] {
            assert!(
                run(threads, batch) == expected,
                "{set}, {precision}, {threads} threads, batches of {batch}"
            );
        }
    }
}

/// A convolution whose results are pooled without a ReLU, so that their cotangents are dense, and
/// as many classes as the head has.
#[derive(Module, Debug)]
struct PooledConv {
    conv: Conv2d,
    head: Linear,
}

#[test]
fn any_number_of_classes_fits_its_memory() {
    let (device, shape) = (Device::flex(), [2, 6, 4]);
    // Between the numbers of lines that there are kernels for, and past the largest.
    for (classes, set) in (2..=11).chain([15, 20]).flat_map(|classes| sets().map(move |set| (classes, set))) {
        let net = PooledConv {
            conv: Conv2dConfig::new([2, 8], [3, 3]).init(&device),
            head: LinearConfig::new(8, classes).init(&device),
        };
        let net = net.map(&mut Weights::new(&device, DType::F32));
        let forward = |net: &PooledConv, x: Tensor<4>| {
            let y = net.conv.forward(x);
            net.head.forward(y.mean_dim(3).mean_dim(2).flatten::<2>(1, 3))
        };
        let run = |engine: Engine, whole: bool| {
            let graph = Graph::capture(&net, forward, &shape, &device).expect("captured");
            let leaves = Leaves::parameters(&graph).and_input();
            let options = Options { precision: Precision::F64, ..Options::default() };
            let program = engine.load(graph, leaves, &device, &options).expect("it loads");
            assert_eq!(program.engine().starts_with("cpu"), engine != Engine::Burn, "{}", program.engine());
            let grams = program
                .grams(batch(2, &shape))
                .expect("they fit")
                .combining(move |_, _| if whole { Combinations::Logits } else { Combinations::Differences });
            grams.collect::<Result<Vec<_>, _>>().expect("it runs")
        };
        for whole in [false, true] {
            let pairs = run(Engine::Cpu(Some(set)), whole).into_iter().zip(run(Engine::Burn, whole));
            for (found, expected) in pairs {
                let all = found.tensors.iter().chain(&found.input);
                for (found, expected) in all.zip(expected.tensors.iter().chain(&expected.input)) {
                    let size = classes - usize::from(!whole);
                    assert_eq!((found.len(), expected.len()), (size * size, size * size));
                    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                    assert!(
                        worst <= DOUBLE * largest,
                        "{classes} classes, {whole}, {set}: {:e}",
                        worst / largest
                    );
                }
            }
        }
    }
}

/// What uses a tensor twice runs as one segment, and gives what Burn's operations give.
fn added_in_a_segment(graph: &Graph) {
    let options = Options { precision: Precision::F64, ..Options::default() };
    let samples =
        TensorData::new((0..32).map(|i| (f64::from(i) * 0.7).sin()).collect::<Vec<_>>(), [1, 2, 4, 4]);
    let [own, burn] = [Engine::Cpu(None), Engine::Burn].map(|engine| {
        let leaves = Leaves::parameters(graph);
        let program = engine.load(graph.clone(), leaves, &Device::flex(), &options).expect("it loads");
        let grams = program.grams(samples.clone()).expect("they fit").next().expect("one").expect("it runs");
        (program.engine(), grams)
    });
    assert!(own.0.contains("1 segment"), "{}", own.0);
    for (own, burn) in own.1.tensors.iter().flatten().zip(burn.1.tensors.iter().flatten()) {
        assert!((own - burn).abs() < 1e-12, "{own} and {burn}");
    }
}

/// Functions of each element, a gate of channels, layer normalisation and attention between
/// parameters.
#[derive(Module, Debug)]
struct Smooth {
    stem: Conv2d,
    norm: BatchNorm,
    gate: Conv2d,
    layer: LayerNorm,
    heads: Vec<Linear>,
    head: Linear,
}

impl Smooth {
    fn new() -> Self {
        let device = Device::flex();
        let linear = |outputs: usize| LinearConfig::new(12, outputs).init(&device);
        let net = Self {
            stem: Conv2dConfig::new([2, 12], [3, 3]).init(&device),
            norm: BatchNormConfig::new(12).init(&device),
            gate: Conv2dConfig::new([12, 12], [1, 1]).init(&device),
            layer: LayerNormConfig::new(12).init(&device),
            heads: vec![linear(12), linear(12), linear(12)],
            head: linear(4),
        };
        net.map(&mut Weights::new(&device, DType::F32))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.stem.forward(x));
        let x = x.clone() * sigmoid(x);
        let gate = sigmoid(self.gate.forward(x.clone().mean_dim(2).mean_dim(3)));
        let tokens = self.layer.forward((x * gate).flatten::<3>(2, 3).swap_dims(1, 2));
        let [q, k, v] = [0, 1, 2].map(|at| {
            let all = self.heads[at].forward(tokens.clone());
            let [n, count, width] = all.dims();
            all.reshape([n, count, 3, width / 3]).swap_dims(1, 2)
        });
        let mixed = softmax(q.matmul(k.swap_dims(2, 3)), 3).matmul(v);
        let all = gelu(mixed.swap_dims(1, 2).flatten::<3>(2, 3)) + tokens;
        self.head.forward(all.mean_dim(1).flatten::<2>(1, 2))
    }
}

/// The matrices of all parameters and of the input in f64, on every instruction set, against Burn's
/// operations; the network has to run only on our kernels.
fn assert_grams_are_those_of_burn(graph: &Graph, shape: &[usize], what: &str) {
    let all: Vec<_> = (0..graph.parameters().len()).collect();
    assert_grams_of(graph, &all, shape, what);
}

/// Compares the matrices of some of the parameters with those of Burn's operations.
fn assert_grams_of(graph: &Graph, tensors: &[usize], shape: &[usize], what: &str) {
    let run = |engine: Engine| {
        let leaves = Leaves::tensors(tensors.iter().copied()).and_input();
        let options = Options { precision: Precision::F64, ..Options::default() };
        let program = engine.load(graph.clone(), leaves, &Device::flex(), &options).expect("it loads");
        if let Engine::Cpu(Some(set)) = engine {
            assert_eq!(program.engine(), format!("cpu ({set})"), "{what}");
        }
        let grams = program.grams(batch(3, shape)).expect("they fit");
        grams.collect::<Result<Vec<_>, _>>().expect("it runs")
    };
    let names: Vec<_> = tensors.iter().map(|&tensor| graph.parameters()[tensor].name.as_str()).collect();
    let expected = run(Engine::Burn);
    for set in sets() {
        for (found, expected) in run(Engine::Cpu(Some(set))).iter().zip(&expected) {
            let all = found.tensors.iter().chain(&found.input);
            let all = all.zip(expected.tensors.iter().chain(&expected.input));
            for ((found, expected), name) in all.zip(names.iter().copied().chain(["input"])) {
                let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let bound = DOUBLE * largest.max(1e-12);
                assert!(worst <= bound, "{what}, {set}: {name}: {worst:e} of {largest:e}");
            }
        }
    }
}

#[test]
fn grams_around_smooth_kernels() {
    let shape = [2, 7, 6];
    let graph = Graph::capture(&Smooth::new(), Smooth::forward, &shape, &Device::flex()).expect("captured");
    assert_grams_are_those_of_burn(&graph, &shape, "smooth");
}

/// Depthwise convolutions, with normalisation and ReLU and with only a bias; groups of few and of
/// many channels; a transposed convolution; a factor of each channel; a layer normalisation.
#[derive(Module, Debug)]
struct Grouped {
    stem: Conv2d,
    depthwise: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    groups: Vec<Conv2d>,
    wider: ConvTranspose2d,
    factor: Param<Tensor<1>>,
    layer: LayerNorm,
    head: Linear,
}

impl Grouped {
    fn new() -> Self {
        let device = Device::flex();
        let conv = |channels: [usize; 2], groups: usize, stride: usize| {
            let config = Conv2dConfig::new(channels, [3, 3]).with_groups(groups);
            config
                .with_stride([stride, stride])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device)
        };
        let wider = ConvTranspose2dConfig::new([40, 6], [3, 2]).with_stride([2, 1]).with_groups(2);
        let net = Self {
            stem: conv([2, 40], 1, 1),
            depthwise: vec![conv([40, 40], 40, 1), conv([40, 40], 40, 2)],
            norms: vec![BatchNormConfig::new(40).init(&device), BatchNormConfig::new(40).init(&device)],
            // 10 and 20 channels per group, and two results for each channel.
            groups: vec![conv([40, 20], 4, 1), conv([20, 40], 20, 1), conv([40, 40], 2, 1)],
            wider: wider.init(&device),
            factor: Param::from_tensor(Tensor::ones([40], &device)),
            layer: LayerNormConfig::new(6).init(&device),
            head: LinearConfig::new(6, 4).init(&device),
        };
        net.map(&mut Weights::new(&device, DType::F32))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.stem.forward(x));
        let x = relu(self.norms[0].forward(self.depthwise[0].forward(x)));
        let y = self.depthwise[1].forward(x.clone());
        let y = relu(self.groups[0].forward(y));
        let y = relu(self.norms[1].forward(self.groups[1].forward(y)));
        let y = self.groups[2].forward(y.clone()) * self.factor.val().reshape([1, 40, 1, 1]) + y;
        let y = self.wider.forward(gelu(y));
        let y = self.layer.forward(y.permute([0, 2, 3, 1])).flatten::<3>(1, 2);
        self.head.forward(y.square().mean_dim(1).flatten::<2>(1, 2))
    }
}

#[test]
fn grams_of_groups_factors_and_layer_normalisation() {
    let shape = [2, 9, 7];
    let graph = Graph::capture(&Grouped::new(), Grouped::forward, &shape, &Device::flex()).expect("captured");
    assert_grams_are_those_of_burn(&graph, &shape, "grouped");
    // Only normalisations after convolutions whose weights are not perturbed, and the reverse.
    for part in ["norms", "depthwise", "groups", "layer"] {
        let own = graph.parameters().iter().enumerate();
        let own = own.filter(|(_, parameter)| parameter.name.starts_with(part));
        let own: Vec<_> = own.map(|(tensor, _)| tensor).collect();
        assert!(!own.is_empty(), "{part}");
        assert_grams_of(&graph, &own, &shape, part);
    }
}

/// The largest entry that is left of a matrix when so many pivots are eliminated, relative to the
/// largest entry at first. It is rounding if that is the rank.
fn left_after(gram: &[f64], rank: usize) -> f64 {
    let size = gram.len().isqrt();
    let (mut left, largest) = (gram.to_vec(), gram.iter().fold(0.0_f64, |most, x| most.max(x.abs())));
    for _ in 0..rank {
        let pivot = (0..size).max_by(|&a, &b| left[a * size + a].total_cmp(&left[b * size + b]));
        let pivot = pivot.expect("there are rows");
        let row: Vec<f64> = left[pivot * size..][..size].to_vec();
        for (i, j) in (0..size).flat_map(|i| (0..size).map(move |j| (i, j))) {
            left[i * size + j] -= row[i] * row[j] / row[pivot];
        }
    }
    left.iter().fold(0.0_f64, |most, x| most.max(x.abs())) / largest
}

/// A gate computed from two channels: the weight between them and the mean of all positions, or of
/// both halves, has gradients of rank two, or four.
#[derive(Module, Debug)]
struct Gated {
    stem: Conv2d,
    reduce: Conv2d,
    expand: Conv2d,
    head: Linear,
}

/// In f32 the matrices are those of gradients that differ by rounding, so that a rank below K - 1
/// is kept: a direction that rounding has made counts as much as any other.
#[test]
fn grams_in_single_precision_keep_their_rank() {
    let (device, shape) = (Device::flex(), [2, 6, 6]);
    for (classes, halves) in [(10, 1), (10, 2), (24, 1), (24, 2)] {
        let conv = |channels: [usize; 2]| Conv2dConfig::new(channels, [1, 1]).init(&device);
        let net = Gated {
            stem: conv([2, 32]),
            reduce: conv([32, 2]),
            expand: conv([2, 32]),
            head: LinearConfig::new(32, classes).init(&device),
        };
        let net = net.map(&mut Weights::new(&device, DType::F32));
        let forward = |net: &Gated, x: Tensor<4>| {
            let x = net.stem.forward(x);
            let x = x.clone() * sigmoid(x);
            let gate = net.reduce.forward(adaptive_avg_pool2d(x.clone(), [halves, 1]));
            let gate = sigmoid(net.expand.forward(gate.clone() * sigmoid(gate)));
            let x = x.mean_dim(3).reshape([0, 32, halves as i32, 6 / halves as i32]) * gate;
            net.head.forward(x.mean_dim(3).mean_dim(2).flatten::<2>(1, 3))
        };
        let graph = Graph::capture(&net, forward, &shape, &device).expect("captured");
        let weight = graph.parameters().iter().position(|parameter| parameter.name == "reduce.weight");
        let weight = weight.expect("it is a parameter");
        for set in sets() {
            let options = Options { precision: Precision::F32, ..Options::default() };
            let program =
                Engine::Cpu(Some(set)).load(graph.clone(), Leaves::parameters(&graph), &device, &options);
            let program = program.expect("it loads");
            assert_eq!(program.engine(), format!("cpu ({set})"));
            for grams in program.grams(batch(3, &shape)).expect("they fit") {
                let gram = &grams.expect("it runs").tensors[weight];
                let (full, left) = (left_after(gram, 2 * halves - 1), left_after(gram, 2 * halves));
                assert!(full > 1e-9 && left < 1e-12, "{set}, {classes}, {halves}: {full:e}, {left:e}");
            }
        }
    }
}

/// Tensors whose elements are added to tokens, or are tokens: one value for each row, zero at
/// first, where there are as many rows as channels; one for all; class tokens before and after; one
/// for each element, after layer normalisation and after a ReLU.
#[derive(Module, Debug)]
struct Tokens {
    rows: Param<Tensor<2>>,
    all: Param<Tensor<1>>,
    classes: Vec<Param<Tensor<3>>>,
    positions: Vec<Param<Tensor<3>>>,
    layer: LayerNorm,
    hidden: Vec<Linear>,
    head: Linear,
}

impl Tokens {
    fn new() -> Self {
        let device = Device::flex();
        let tensor = |shape: [usize; 3]| Param::from_tensor(Tensor::ones(shape, &device));
        let linear = |outputs: usize| LinearConfig::new(8, outputs).init(&device);
        let net = Self {
            rows: Param::from_tensor(Tensor::ones([8, 1], &device)),
            all: Param::from_tensor(Tensor::ones([1], &device)),
            classes: vec![tensor([1, 1, 8]), tensor([1, 2, 8])],
            positions: vec![tensor([1, 11, 8]), tensor([1, 11, 8])],
            layer: LayerNormConfig::new(8).init(&device),
            hidden: vec![linear(8), linear(8)],
            head: linear(5),
        };
        let net = net.map(&mut Weights::new(&device, DType::F32));
        Self { rows: Param::from_tensor(Tensor::zeros([8, 1], &device)), ..net }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let [n, _, _] = x.dims();
        let x = x + self.rows.val().unsqueeze() + self.all.val().unsqueeze();
        let [class, ends] = [0, 1].map(|at| self.classes[at].val());
        let x = Tensor::cat(vec![class.expand([n, 1, 8]), x, ends.expand([n, 2, 8])], 1);
        let x = x - self.positions[0].val();
        let x = relu(self.hidden[0].forward(self.layer.forward(x)));
        let x = self.hidden[1].forward(x.clone() + self.positions[1].val()) + x;
        self.head.forward(gelu(x).mean_dim(1).flatten::<2>(1, 2))
    }
}

#[test]
fn grams_of_embeddings_and_class_tokens() {
    let shape = [8, 8];
    let graph = Graph::capture(&Tokens::new(), Tokens::forward, &shape, &Device::flex()).expect("captured");
    assert_grams_are_those_of_burn(&graph, &shape, "tokens");
}

/// A convolution over several images of each sample, whose axis is folded into the batch. It is
/// wide enough for Winograd's form, which takes one image per sample.
#[derive(Module, Debug)]
struct Frames {
    conv: Conv2d,
    head: Linear,
}

#[test]
fn several_images_of_a_sample() {
    let device = Device::flex();
    // Enough patches for the forward pass, and only for the gradient.
    for side in [8, 5] {
        let shape = [2, 16, side, side];
        let net = Frames {
            conv: Conv2dConfig::new([16, 16], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(&device),
            head: LinearConfig::new(2 * 16 * side * side, 5).init(&device),
        };
        let net = net.map(&mut Weights::new(&device, DType::F32));
        let forward = |net: &Frames, x: Tensor<5>| {
            let [n, frames, channels, height, width] = x.dims();
            let x = net.conv.forward(x.reshape([n * frames, channels, height, width]));
            net.head.forward(gelu(x).reshape([n, frames * channels * height * width]))
        };
        let graph = Graph::capture(&net, forward, &shape, &device).expect("captured");
        assert_grams_are_those_of_burn(&graph, &shape, &format!("frames of {side}"));
        let [own, burn] = [Engine::Cpu(None), Engine::Burn].map(|engine| {
            let options = Options { precision: Precision::F64, ..Options::default() };
            let program = engine.load(graph.clone(), Leaves::input(), &device, &options).expect("it loads");
            jacobians(&program, &batch(3, &shape))
        });
        assert!(difference(&own, &burn) < DOUBLE);
    }
}

/// One weight under another shape, which two convolutions read.
#[derive(Module, Debug)]
struct Reshaped {
    weight: Param<Tensor<2>>,
}

#[test]
fn gradients_of_a_reshaped_tensor_used_twice_are_added() {
    let weight = Param::from_tensor(Tensor::ones([2, 2], &Device::flex()));
    let forward = |net: &Reshaped, x: Tensor<4>| {
        let weight = net.weight.val().reshape([2, 2, 1, 1]);
        let conv = |x, weight| conv2d(x, weight, None, ConvOptions::new([1, 1], [0, 0], [1, 1], 1));
        conv(relu(conv(x, weight.clone())), weight).mean_dim(3).mean_dim(2).flatten::<2>(1, 3)
    };
    let graph = Graph::capture(&Reshaped { weight }, forward, &[2, 4, 4], &Device::flex()).expect("captured");
    added_in_a_segment(&graph);
}

/// One convolution twice.
#[derive(Module, Debug)]
struct Twice {
    conv: Conv2d,
}

#[test]
fn gradients_of_a_tensor_used_twice_are_added() {
    let conv = Conv2dConfig::new([2, 2], [1, 1]).init(&Device::flex());
    let forward = |net: &Twice, x: Tensor<4>| {
        net.conv.forward(relu(net.conv.forward(x))).mean_dim(3).mean_dim(2).flatten::<2>(1, 3)
    };
    let graph = Graph::capture(&Twice { conv }, forward, &[2, 4, 4], &Device::flex()).expect("captured");
    added_in_a_segment(&graph);
}

/// A constant scale, with and without a shift, between a convolution and its normalisation.
#[derive(Module, Debug)]
struct ScaledConv {
    conv: Conv2d,
    norm: BatchNorm,
    head: Linear,
}

#[test]
fn gram_behind_a_constant_scale() {
    let (device, shape) = (Device::flex(), [2, 5, 5]);
    let net = ScaledConv {
        conv: Conv2dConfig::new([2, 6], [3, 3]).init(&device),
        norm: BatchNormConfig::new(6).init(&device),
        head: LinearConfig::new(6, 3).init(&device),
    };
    let net = net.map(&mut Weights::new(&device, DType::F32));
    for shift in [0.0, 0.4] {
        let forward = |net: &ScaledConv, x: Tensor<4>| {
            let x = net.conv.forward(x) * 1.7;
            let x = if shift == 0.0 { x } else { x + shift };
            net.head.forward(relu(net.norm.forward(x)).mean_dim(2).mean_dim(3).flatten::<2>(1, 3))
        };
        let graph = Graph::capture(&net, forward, &shape, &device).expect("captured");
        assert_grams_are_those_of_burn(&graph, &shape, &format!("shift {shift}"));
    }
}
