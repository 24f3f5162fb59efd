//! Layers and functions of Burn: logits and Jacobians against the model's own forward pass in f64
//! and its differences, which share no code with the engine.

use burn::module::{Module, Param};
use burn::nn::attention::{
    MhaInput, MultiHeadAttention, MultiHeadAttentionConfig, generate_autoregressive_mask,
};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, ConvTranspose1d, ConvTranspose1dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, Gru, GruConfig, InstanceNorm, InstanceNormConfig,
    LayerNorm, LayerNormConfig, Linear, LinearConfig, Lstm, LstmConfig, PRelu, PReluConfig, RmsNormConfig,
};
use burn::tensor::ops::{
    AttentionModuleOptions, AvgPoolOptions, InterpolateMode, InterpolateOptions, MaxPoolOptions, PadMode,
};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData, activation, module};
use influence_autodiff::{Error, Graph, Precision};

use crate::models::{EMPTY, Empty, Weights, batch, error_of_rows, jacobians, program, rows};

/// Step of central differences of whole networks in f64.
const STEP: f64 = 1e-6;

/// Error of Jacobian rows at [`STEP`], relative to the largest entry (at least 1).
const NETWORK: f64 = 1e-7;

/// Logits against Burn's own, both in f64: the order of summation may differ.
const LOGITS: f64 = 1e-12;

/// Tolerance for f32 against Burn's own f32, a few hundred operations deep.
const SINGLE: f64 = 1e-5;

/// Checks a model that Burn runs only in f32, because the tensors that it makes have the device's
/// default type: logits against the model's own, and rows against central differences of the
/// engine's logits in f64.
fn agrees_in_single<M: Module, const D: usize>(
    what: &str,
    model: M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    sample: &[usize],
) {
    let device = Device::flex();
    let model = model.map(&mut Weights::new(&device, DType::F32));
    let graph = Graph::capture(&model, &forward, sample, &device).unwrap_or_else(|e| panic!("{what}: {e}"));
    let program = program(graph, Precision::F64).unwrap_or_else(|error| panic!("{what}: {error}"));
    let x = batch(1, sample);
    let own = forward(&model, Tensor::from_data(x.clone().convert_dtype(DType::F32), &device)).into_data();
    let jacobian = jacobians(&program, &x).remove(0);
    for (expected, found) in own.iter::<f64>().zip(&jacobian.logits) {
        assert!((expected - found).abs() <= SINGLE * expected.abs().max(1.0), "{what}: {expected} {found}");
    }
    let (rows, last) = (rows(&jacobian), jacobian.logits.len() - 1);
    let point: Vec<f64> = x.iter().collect();
    for i in 0..point.len() {
        let moved = |by: f64| {
            let mut moved = point.clone();
            moved[i] += by;
            program.logits(TensorData::new(moved, x.shape().clone())).expect("it runs").remove(0)
        };
        let (plus, minus) = (moved(STEP), moved(-STEP));
        for k in 0..last {
            let slope = ((plus[k] - plus[last]) - (minus[k] - minus[last])) / (2.0 * STEP);
            let found = rows[k * point.len() + i];
            assert!((slope - found).abs() <= SINGLE * slope.abs().max(1.0), "{what}: {slope} {found}");
        }
    }
}

/// Checks the engine's logits and rows at one sample against the model's own f64 forward pass and
/// its central differences.
pub(crate) fn agrees<M: Module, const D: usize>(
    what: &str,
    model: M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    sample: &[usize],
) {
    let device = Device::flex();
    let model = model.map(&mut Weights::new(&device, DType::F64));
    let x = batch(1, sample);
    let point = x.as_slice::<f64>().expect("f64").to_vec();
    let logits = |values: Vec<f64>| {
        let data = TensorData::new(values, x.shape().clone());
        let y = forward(&model, Tensor::from_data(data, (&device, DType::F64)));
        y.into_data().iter::<f64>().collect::<Vec<_>>()
    };
    let graph = Graph::capture(&model, &forward, sample, &device).unwrap_or_else(|e| panic!("{what}: {e}"));
    let program = program(graph, Precision::F64).unwrap_or_else(|error| panic!("{what}: {error}"));
    let jacobian = jacobians(&program, &x).remove(0);
    for (expected, found) in logits(point.clone()).iter().zip(&jacobian.logits) {
        let error = (expected - found).abs();
        assert!(error <= LOGITS * expected.abs().max(1.0), "{what}: {expected} {found}");
    }
    let (rows, last) = (rows(&jacobian), jacobian.logits.len() - 1);
    let scale = rows.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    // Each input is moved by itself: a column of differences z_k - z_K.
    for i in 0..point.len() {
        let moved = |by: f64| {
            let mut moved = point.clone();
            moved[i] += by;
            logits(moved)
        };
        let (plus, minus) = (moved(STEP), moved(-STEP));
        for k in 0..last {
            let expected = ((plus[k] - plus[last]) - (minus[k] - minus[last])) / (2.0 * STEP);
            let error = (expected - rows[k * point.len() + i]).abs() / scale;
            assert!(error < NETWORK, "{what}: class {k}, input {i}: {error:e}");
        }
    }
}

/// Patches by a convolution, a class token, positions, one block of attention, a GELU head.
#[derive(Module, Debug)]
struct Vit {
    patches: Conv2d,
    token: Param<Tensor<3>>,
    positions: Param<Tensor<3>>,
    before: LayerNorm,
    attention: MultiHeadAttention,
    after: LayerNorm,
    wide: Linear,
    narrow: Linear,
    head: Linear,
}

impl Vit {
    fn new(device: &Device) -> Self {
        let zeros = |shape| Param::from_tensor(Tensor::<3>::zeros(shape, device));
        Self {
            patches: Conv2dConfig::new([2, 8], [3, 3]).with_stride([3, 3]).init(device),
            token: zeros([1, 1, 8]),
            positions: zeros([1, 5, 8]),
            before: LayerNormConfig::new(8).init(device),
            attention: MultiHeadAttentionConfig::new(8, 2).init(device),
            after: LayerNormConfig::new(8).init(device),
            wide: LinearConfig::new(8, 12).init(device),
            narrow: LinearConfig::new(12, 8).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    fn tokens(&self, x: Tensor<4>) -> Tensor<3> {
        let patches = self.patches.forward(x).flatten::<3>(2, 3).swap_dims(1, 2);
        let [n, _, width] = patches.dims();
        let token = self.token.val().expand([n, 1, width]);
        Tensor::cat(vec![token, patches], 1) + self.positions.val()
    }

    fn rest(&self, x: Tensor<3>, input: impl Fn(Tensor<3>) -> MhaInput) -> Tensor<2> {
        let x = x.clone() + self.attention.forward(input(self.before.forward(x))).context;
        let mixed = self.narrow.forward(activation::gelu(self.wide.forward(self.after.forward(x.clone()))));
        let [n, _, width] = x.dims();
        self.head.forward((x + mixed).narrow(1, 0, 1).reshape([n, width]))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.rest(self.tokens(x), MhaInput::self_attn)
    }

    /// The forward pass with a mask of the last position, and a causal one.
    fn masked(&self, x: Tensor<4>) -> Tensor<2> {
        let (n, device) = (x.dims()[0], x.device());
        let tokens = self.tokens(x);
        self.rest(tokens, |x| {
            let last = Tensor::<2, Bool>::from_data([[false, false, false, false, true]], &device);
            let causal = generate_autoregressive_mask(n, 5, &device);
            MhaInput::self_attn(x).mask_pad(last.expand([n, 5])).mask_attn(causal)
        })
    }
}

#[test]
fn a_vision_transformer() {
    let device = Device::flex();
    agrees("plain", Vit::new(&device), Vit::forward, &[2, 6, 6]);
    agrees("masked", Vit::new(&device), Vit::masked, &[2, 6, 6]);
}

/// Convolutions, pools and all normalisations along one axis.
#[derive(Module, Debug)]
struct Waves {
    stem: Conv1d,
    batch: BatchNorm,
    grouped: Conv1d,
    group: GroupNorm,
    instance: InstanceNorm,
    slopes: PRelu,
    head: Linear,
}

impl Waves {
    fn new(device: &Device) -> Self {
        Self {
            stem: Conv1dConfig::new(2, 4, 5).with_stride(2).init(device),
            batch: BatchNormConfig::new(4).init(device),
            grouped: Conv1dConfig::new(4, 4, 3).with_groups(2).with_dilation(2).init(device),
            group: GroupNormConfig::new(2, 4).init(device),
            instance: InstanceNormConfig::new(4).init(device),
            slopes: PReluConfig::new().with_num_parameters(4).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let x = activation::silu(self.batch.forward(self.stem.forward(x)));
        let x = module::max_pool1d(x, MaxPoolOptions::new([2]).with_stride([1]).with_padding([1]));
        let x = activation::hard_swish(self.group.forward(self.grouped.forward(x)));
        let x = self.slopes.forward(self.instance.forward(x));
        let x = module::avg_pool1d(x, AvgPoolOptions::new([2]).with_stride([1]));
        self.head.forward(module::adaptive_avg_pool1d(x, 2).flatten(1, 2))
    }
}

#[test]
fn a_one_dimensional_network() {
    agrees("waves", Waves::new(&Device::flex()), Waves::forward, &[2, 25]);
}

/// Tabular features, some of them logarithmic, through two layers.
#[derive(Module, Debug)]
struct Tabular {
    first: Linear,
    norm: LayerNorm,
    head: Linear,
}

impl Tabular {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let order = Tensor::<1, Int>::from_data([4, 0, 2], &x.device());
        let chosen = x.clone().select(1, order).abs().log1p();
        let x = Tensor::cat(vec![x.clamp(-0.9, 0.8), chosen], 1);
        self.head.forward(activation::mish(self.norm.forward(self.first.forward(x))))
    }
}

#[test]
fn a_network_on_tabular_data() {
    let device = Device::flex();
    let model = Tabular {
        first: LinearConfig::new(8, 6).init(&device),
        norm: LayerNormConfig::new(6).init(&device),
        head: LinearConfig::new(6, 3).init(&device),
    };
    agrees("tabular", model, Tabular::forward, &[5]);
}

type Function = fn(Tensor<3>) -> Tensor<3>;

/// Functions of `[n, 3, 4]`.
const FUNCTIONS: &[(&str, Function)] = &[
    ("silu", |x| activation::silu(x)),
    ("hard_swish", |x| activation::hard_swish(x * 5.0)),
    ("hard_sigmoid", |x| activation::hard_sigmoid(x * 4.0, 0.2, 0.5) * 2.0),
    ("log_sigmoid", |x| activation::log_sigmoid(x)),
    ("softplus", |x| activation::softplus(x * 9.0, 2.0)),
    ("softplus beyond its threshold", |x| activation::softplus(x * 90.0, 2.0)),
    ("mish", |x| activation::mish(x)),
    ("elu", |x| activation::elu(x, 0.7)),
    ("elu that overflows", |x| activation::elu(x * 2000.0, 0.7)),
    ("celu", |x| activation::celu(x, 0.7)),
    ("selu", |x| activation::selu(x)),
    ("softsign", |x| activation::softsign(x)),
    ("tanhshrink", |x| activation::tanhshrink(x)),
    ("hard_shrink", |x| activation::hard_shrink(x, 0.3)),
    ("threshold", |x| activation::threshold(x, 0.1, -3.0)),
    ("gelu by tanh", |x| activation::gelu_approximate(x)),
    ("relu6", |x| activation::relu6(x * 10.0)),
    ("glu", |x| activation::glu(x, 2)),
    ("powers", |x| x.clone().powi_scalar(3) + x.clone().powf_scalar(2.0) + x.abs().powf_scalar(1.7)),
    ("roots and logarithms", |x| (x.clone() * x + 0.5).sqrt().log().exp()),
    ("circle", |x| x.clone().sin() * x.cos()),
    ("clamps", |x| x.clone().clamp_min(-0.3) * x.clamp_max(0.4)),
    ("maximum", |x| x.clone().max_dim(2) * x.min_dim(1)),
    ("stack", |x| Tensor::stack::<4>(vec![x.clone(), x.clone() * x], 1).flatten(1, 2)),
    ("repeat", |x| x.repeat(&[1, 2, 3]).sin()),
    ("pad", |x| x.pad((1, 2, 0, 1), 0.5)),
    ("reflected", |x| x.pad((1, 2, 0, 1), PadMode::Reflect)),
    ("edges", |x| x.pad((1, 2, 0, 1), PadMode::Edge)),
    ("variance", |x| x.var(2)),
    ("soft shrink", |x| activation::soft_shrink(x, 0.3)),
    ("softmin", |x| activation::softmin(x, 2)),
    ("quiet softmax", |x| activation::quiet_softmax(x, 2)),
    ("cumulative sums", |x| x.sin().cumsum(1)),
    ("the larger of two", |x| {
        x.clone().max_pair(x.clone().flip([2]) * 0.7) + x.clone().min_pair(x.neg() + 0.3)
    }),
    ("powers of tensors", |x| (x.clone() * x.clone() + 0.5).powf(x.sin())),
    ("sorted", |x| x.clone().sort(2) * x.sort_descending(1)),
    ("the largest", |x| x.clone().topk(2, 2) + x.topk_with_indices(2, 2).0.sin()),
    ("windows", |x| x.sin().unfold::<4, _>(2, 3, 1).flatten(2, 3)),
    ("masks as numbers", |x| {
        let inside = x.clone().greater_scalar(-0.5).bool_and(x.clone().lower_scalar(0.5));
        let outside = inside.clone().bool_not().bool_or(x.clone().equal_scalar(0.0));
        x.clone() * inside.float().cast(x.dtype()) + x.clone().sin() * outside.float().cast(x.dtype())
    }),
    ("whole parts", |x| x.clone() - (x.clone() * 3.0).floor() + x.clone() * (x * 2.0).round()),
    ("minus infinity added", |x| {
        let mask = [[0.0, f32::NEG_INFINITY, 0.0, 0.0], [0.0, 0.0, 0.0, f32::NEG_INFINITY], [0.0; 4]];
        let mask = Tensor::<2>::from_data(mask, &x.device()).cast(x.dtype());
        activation::softmax(x + mask.unsqueeze(), 2).sin()
    }),
];

#[test]
fn functions_of_burn() {
    for (name, function) in FUNCTIONS {
        let flat = |_: &Empty, x: Tensor<3>| {
            let y = function(x);
            let [n, c, w] = y.dims();
            y.reshape([n, c * w])
        };
        agrees(name, EMPTY, flat, &[3, 4]);
    }
}

#[test]
fn chosen_elements() {
    let forward = |_: &Empty, x: Tensor<2>| {
        let (device, n) = (x.device(), x.dims()[0]);
        let index = Tensor::<2, Int>::from_data([[3, 0, 3, 1]], &device).expand([n, 4]);
        let even = (Tensor::<1, Int>::arange(0..4, &device) * 3 - 2).equal_scalar(1).float().cast(x.dtype());
        let upper = Tensor::<2, Bool>::triu_mask([1, 4], 1, &device);
        let table = Tensor::<2>::from_floats([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]], &device).cast(x.dtype());
        let rows = Tensor::<2, Int>::from_data([[2, 0]], &device).expand([n, 2]);
        let embedded = module::embedding(table, rows).reshape([n, 4]);
        x.gather(1, index).sin() * even.unsqueeze::<2>() + embedded.mask_fill(upper, 0.25)
    };
    let constant = |_: &Empty, x: Tensor<2>| forward(&EMPTY, x.clone()) * x;
    agrees("gather, select, embedding", EMPTY, constant, &[4]);
}

#[test]
fn interpolations() {
    let modes = [
        InterpolateMode::Nearest,
        InterpolateMode::Bilinear,
        InterpolateMode::Bicubic,
        InterpolateMode::Lanczos3,
    ];
    for (mode, corners) in modes.into_iter().flat_map(|mode| [(mode.clone(), true), (mode, false)]) {
        let options = InterpolateOptions::new(mode).with_output_size([5, 3]).with_align_corners(corners);
        let forward = |_: &Empty, x: Tensor<4>| module::interpolate(x.sin(), options.clone()).flatten(1, 3);
        agrees(&format!("{options:?}"), EMPTY, forward, &[2, 3, 4]);
    }
}

#[test]
fn attention_in_one_operation() {
    for (causal, masked) in [(false, false), (true, false), (false, true)] {
        let forward = |_: &Empty, x: Tensor<4>| {
            let mask = Tensor::<4, Bool>::from_data([[[[false, true, false]; 3]]], &x.device());
            let mask = masked.then(|| mask.expand([x.dims()[0], 2, 3, 3]));
            let options = AttentionModuleOptions { is_causal: causal, ..Default::default() };
            module::attention(x.clone(), x.clone().sin(), x, mask, None, options).flatten(1, 3)
        };
        agrees("attention", EMPTY, forward, &[2, 3, 4]);
    }
}

#[test]
fn normalisation_by_the_root_of_the_mean_square() {
    // Burn's own forward pass casts to f32: the engine's is compared with itself.
    let device = Device::flex();
    let norm = RmsNormConfig::new(4).init(&device);
    let graph = Graph::capture(&norm, |norm, x: Tensor<2>| norm.forward(x), &[4], &device);
    let program = program(graph.expect("it is captured"), Precision::F64).expect("it loads");
    let error = error_of_rows(&program, &[4], STEP);
    assert!(error < NETWORK, "{error:e}");
}

/// Recurrent layers, whose results are assigned part by part to unwritten memory.
#[derive(Module, Debug)]
struct Recurrent {
    long: Lstm,
    gated: Gru,
    up: ConvTranspose1d,
    head: Linear,
}

#[test]
fn recurrent_layers_and_transposed_convolutions() {
    let device = Device::flex();
    let model = Recurrent {
        long: LstmConfig::new(3, 4, true).init(&device),
        gated: GruConfig::new(4, 3, true).init(&device),
        up: ConvTranspose1dConfig::new([5, 2], 3).with_stride(2).with_padding(1).init(&device),
        head: LinearConfig::new(10, 3).init(&device),
    };
    let forward = |model: &Recurrent, x: Tensor<3>| {
        let (y, state) = model.long.forward(x, None);
        let y = model.gated.forward(y + state.hidden.unsqueeze_dim(1), None);
        model.head.forward(activation::relu(model.up.forward(y)).flatten(1, 2))
    };
    agrees_in_single("recurrent", model, forward, &[5, 3]);
}

#[test]
fn one_logit_is_two_classes() {
    let device = Device::flex();
    let head = LinearConfig::new(3, 1).init(&device).map(&mut Weights::new(&device, DType::F64));
    let forward = |head: &Linear, x: Tensor<2>| head.forward(activation::tanh(x));
    let graph = Graph::capture(&head, forward, &[3], &device).expect("it is captured");
    assert!(graph.is_of_one_logit() && graph.classes() == 2);
    let program = program(graph, Precision::F64).expect("it loads");
    let x = batch(1, &[3]);
    let z = forward(&head, Tensor::from_data(x.clone(), (&device, DType::F64))).into_data();
    let z: f64 = z.iter().next().expect("one logit");
    let found = jacobians(&program, &x).remove(0);
    assert!((found.logits[0] - z).abs() < LOGITS && found.logits[1] == 0.0, "{:?}", found.logits);
    // d(z - 0) / dx.
    let weight: Vec<f64> = head.weight.val().into_data().iter().collect();
    let expected = x.iter::<f64>().zip(weight).map(|(x, w)| w * (1.0 - x.tanh().powi(2)));
    assert!(rows(&found).iter().zip(expected).all(|(a, b)| (a - b).abs() < LOGITS));
    // A probability of one class is not a logit.
    let bounded = |head: &Linear, x: Tensor<2>| activation::sigmoid(head.forward(x));
    let graph = Graph::capture(&head, bounded, &[3], &device).expect("it is captured");
    assert!(matches!(self::program(graph, Precision::F64), Err(Error::Bounded { .. })));
}

#[test]
fn integers_are_computed_on_the_host() {
    let forward = |_: &Empty, x: Tensor<2>| {
        let device = x.device();
        let count = Tensor::<1, Int>::arange(0..6, &device);
        let order =
            Tensor::cat(vec![count.clone() % 3, (count.clone() / 2).flip([0])], 0) + count.repeat(&[2]) / 3;
        let chosen = order.clone().select(0, Tensor::from_data([11, 0, 5, 7], &device));
        x.clone().select(1, order).sin().narrow(1, 2, 4) * x.select(1, chosen)
    };
    agrees("integers", EMPTY, forward, &[5]);
}
