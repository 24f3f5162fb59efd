//! Models that the tests share, with weights that are the same in every run.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Error, Graph, Jacobian, Options, Precision, Program, Rows};

/// A small residual network: stem, normalisation, a branch that is added and concatenated, mean
/// over positions, head.
#[derive(Module, Debug)]
pub(crate) struct Net {
    pub(crate) stem: Conv2d,
    pub(crate) norm: BatchNorm,
    pub(crate) branch: Conv2d,
    pub(crate) head: Linear,
}

/// One sample of [`Net`].
pub(crate) const SAMPLE: [usize; 3] = [2, 5, 5];

impl Net {
    pub(crate) fn new(device: &Device) -> Self {
        Self::lazy(device).map(&mut Weights::new(device, DType::F32))
    }

    /// Burn's own initialisation, which is delayed until the weights are needed.
    pub(crate) fn lazy(device: &Device) -> Self {
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            stem: Conv2dConfig::new([2, 4], [3, 3]).with_padding(padding.clone()).init(device),
            norm: BatchNormConfig::new(4).init(device),
            branch: Conv2dConfig::new([4, 4], [3, 3]).with_padding(padding).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let stem = relu(self.norm.forward(self.stem.forward(x)));
        let sum = self.branch.forward(stem.clone()) + stem.clone();
        let both = Tensor::cat(vec![sum, stem], 1);
        let [n, c, _, _] = both.dims();
        self.head.forward(both.mean_dim(2).mean_dim(3).reshape([n, c]))
    }
}

/// A network wide enough that matrix products and convolutions are divided among several threads.
#[derive(Module, Debug)]
pub(crate) struct Wide {
    stem: Conv2d,
    norm: BatchNorm,
    depthwise: Conv2d,
    pointwise: Conv2d,
    hidden: Linear,
    head: Linear,
}

/// One sample of [`Wide`].
pub(crate) const WIDE_SAMPLE: [usize; 3] = [3, 16, 16];

/// Classes of [`Wide`].
pub(crate) const CLASSES: usize = 10;

impl Wide {
    fn new(device: &Device) -> Self {
        let same = || PaddingConfig2d::Explicit(1, 1, 1, 1);
        let net = Self {
            stem: Conv2dConfig::new([3, 48], [3, 3]).with_padding(same()).init(device),
            norm: BatchNormConfig::new(48).init(device),
            depthwise: Conv2dConfig::new([48, 48], [3, 3]).with_padding(same()).with_groups(48).init(device),
            pointwise: Conv2dConfig::new([48, 96], [1, 1]).with_stride([2, 2]).init(device),
            hidden: LinearConfig::new(96 * 16, 130).init(device),
            head: LinearConfig::new(130, CLASSES).init(device),
        };
        net.map(&mut Weights::new(device, DType::F32))
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let [n, ..] = x.dims();
        let stem = relu(self.norm.forward(self.stem.forward(x)));
        let mixed = gelu(self.depthwise.forward(stem.clone())) + stem;
        let pooled = max_pool2d(self.pointwise.forward(mixed), MaxPoolOptions::new([2, 2]));
        self.head.forward(gelu(self.hidden.forward(pooled.reshape([n, 96 * 16]))))
    }
}

/// [`Wide`], captured.
pub(crate) fn wide() -> Graph {
    let device = Device::flex();
    Graph::capture(&Wide::new(&device), Wide::forward, &WIDE_SAMPLE, &device).expect("it is captured")
}

/// Fills a model with fixed values: variances around 1, all others in (-0.5, 0.5).
pub(crate) struct Weights {
    device: Device,
    dtype: DType,
    path: Vec<String>,
    count: usize,
}

impl Weights {
    pub(crate) fn new(device: &Device, dtype: DType) -> Self {
        Self { device: device.clone(), dtype, path: vec![], count: 0 }
    }
}

impl ModuleMapper for Weights {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.val().dims();
        let centre = if self.path.last().is_some_and(|name| name == "running_var") { 1.0 } else { 0.0 };
        self.count += 1;
        let start = self.count * 1_000;
        let values = (0..shape.iter().product()).map(|i| centre + 0.5 * noise(start + i)).collect();
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        let trained = param.is_require_grad();
        param.map(|_| Tensor::from_data(data, (&self.device, self.dtype)).set_require_grad(trained))
    }
}

/// Pseudo-random numbers in (-1, 1).
pub(crate) fn noise(i: usize) -> f64 {
    (i as f64 * 12.9898).sin() * 43_758.545_3 % 1.0
}

/// Samples of [`Net`], all different.
pub(crate) fn samples(count: usize) -> TensorData {
    batch(count, &SAMPLE)
}

pub(crate) fn batch(count: usize, sample: &[usize]) -> TensorData {
    let shape: Vec<_> = std::iter::once(count).chain(sample.iter().copied()).collect();
    let values = (0..shape.iter().product()).map(|i| noise(i + 7)).collect();
    TensorData::new(values, shape)
}

/// A model without weights.
#[derive(Module, Debug)]
pub(crate) struct Empty {
    nothing: Option<Linear>,
}

pub(crate) const EMPTY: Empty = Empty { nothing: None };

/// Captures a function of `[n, ...sample]` that has no weights.
pub(crate) fn capture<const D: usize>(
    sample: &[usize],
    forward: impl Fn(Tensor<D>) -> Tensor<2>,
) -> Result<Graph, Error> {
    Graph::capture(&EMPTY, |_: &Empty, x: Tensor<D>| forward(x), sample, &Device::flex())
}

/// Captures and loads a function of `[n, ...sample]` that has no weights.
pub(crate) fn load<const D: usize>(
    sample: &[usize],
    forward: impl Fn(Tensor<D>) -> Tensor<2>,
) -> Result<Program, Error> {
    program(capture(sample, forward)?, Precision::F64)
}

pub(crate) fn program(graph: Graph, precision: Precision) -> Result<Program, Error> {
    Program::new(graph, &Device::flex(), &Options { precision, ..Options::default() })
}

pub(crate) fn net_program(net: &Net, precision: Precision) -> Program {
    let graph = Graph::capture(net, Net::forward, &SAMPLE, &Device::flex()).expect("it can be captured");
    program(graph, precision).expect("it can be loaded")
}

/// All Jacobians of a call.
pub(crate) fn jacobians(program: &Program, samples: &TensorData) -> Vec<Jacobian> {
    let all = program.jacobians(samples.clone()).expect("the samples fit");
    all.collect::<Result<_, _>>().expect("it runs")
}

/// The rows of a run in f64.
pub(crate) fn rows(jacobian: &Jacobian) -> &[f64] {
    let Rows::F64(rows) = &jacobian.rows else { panic!("a run in f64") };
    rows
}

/// The largest difference between the rows and central differences of the logits, relative to the
/// largest entry (at least 1).
pub(crate) fn error_of_rows(program: &Program, sample: &[usize], step: f64) -> f64 {
    let x = batch(1, sample);
    let jacobian = jacobians(program, &x).remove(0);
    let (rows, values) = (rows(&jacobian), x.as_slice::<f64>().expect("f64"));
    let (inputs, last) = (values.len(), jacobian.logits.len() - 1);
    let logits = |i: usize, by: f64| {
        let mut moved = values.to_vec();
        moved[i] += by;
        jacobians(program, &TensorData::new(moved, x.shape().clone())).remove(0).logits
    };
    let scale = rows.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    let mut worst = 0.0_f64;
    for i in 0..inputs {
        let (plus, minus) = (logits(i, step), logits(i, -step));
        for k in 0..last {
            let difference = ((plus[k] - plus[last]) - (minus[k] - minus[last])) / (2.0 * step);
            worst = worst.max((difference - rows[k * inputs + i]).abs() / scale);
        }
    }
    worst
}
