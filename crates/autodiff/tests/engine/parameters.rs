//! Gram matrices of parameters against dense Jacobians by central differences in the parameters
//! themselves, in f64.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::conv::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, GroupNorm, GroupNormConfig, LayerNorm,
    LayerNormConfig, Linear, LinearConfig, PRelu, PReluConfig, PaddingConfig1d, PaddingConfig2d,
};
use burn::tensor::activation::{gelu, sigmoid, softmax, tanh};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use influence_autodiff::{
    Error, Executor, Graph, Leaves, Memory, Options, Plan, Precision, Program, SampleGrams, gradients,
};

/// Step of the differences: rounding costs 2^-53 / step = 1e-10, truncation step^2 = 1e-12, of
/// values near 1.
const STEP: f64 = 1e-6;
/// Tolerance of Gram entries, relative to the largest.
const DIFFERENCES: f64 = 1e-7;
/// Tolerance for two orders of summation of the same products.
const ROUNDING: f64 = 1e-12;

/// Adds a step to one element of one parameter, counted in the order of visits; running statistics
/// are skipped.
struct Nudge {
    tensor: usize,
    element: usize,
    step: f64,
    names: Vec<String>,
    seen: usize,
}

impl ModuleMapper for Nudge {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.names.last().is_some_and(|name| name.starts_with("running_")) {
            return param;
        }
        self.seen += 1;
        if self.seen != self.tensor + 1 {
            return param;
        }
        let (element, step) = (self.element, self.step);
        param.map(|tensor| {
            let (shape, device) = (tensor.shape(), tensor.device());
            let mut values: Vec<f64> = tensor.into_data().iter().collect();
            values[element] += step;
            Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
        })
    }
}

/// The number of elements of each parameter, in the order of visits.
#[derive(Default)]
struct Sizes {
    names: Vec<String>,
    found: Vec<usize>,
}

impl ModuleVisitor for Sizes {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.names.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.names.last().is_some_and(|name| name.starts_with("running_")) {
            self.found.push(param.val().shape().num_elements());
        }
    }
}

/// The model in f64, with every parameter changed a little, so that none is 0 or 1 throughout.
struct Doubled(u64);

impl ModuleMapper for Doubled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0 += 1;
        let seed = self.0;
        param.map(|tensor| {
            let (shape, device) = (tensor.shape(), tensor.device());
            let old: Vec<f64> = tensor.into_data().iter().collect();
            let wave = |i: usize| 0.3 * ((i as f64 + 1.0) * 1.7 + seed as f64 * 0.9).sin();
            let values: Vec<f64> = old.iter().enumerate().map(|(i, x)| x + wave(i)).collect();
            Tensor::from_data(TensorData::new(values, shape), (&device, DType::F64))
        })
    }
}

fn double<M: Module>(model: M) -> M {
    model.map(&mut Doubled(0))
}

fn sample(shape: &[usize], seed: usize) -> TensorData {
    let count: usize = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i + 7 * seed) as f64 * 0.83 + 0.4).sin()).collect();
    TensorData::new(values, [&[1], shape].concat())
}

/// The Gram matrices for the differences z_k - z_K, from dense central differences, for each
/// parameter in the order of visits.
fn dense<M: Module, const D: usize>(
    model: &M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    x: &TensorData,
    tied: &[Vec<usize>],
) -> Vec<Vec<f64>> {
    let device = Device::flex();
    let mut sizes = Sizes::default();
    model.visit(&mut sizes);
    let logits = |model: &M| -> Vec<f64> {
        let x = Tensor::<D>::from_data(x.clone(), (&device, DType::F64));
        let z: Vec<f64> = forward(model, x).into_data().iter().collect();
        z[..z.len() - 1].iter().map(|zk| zk - z[z.len() - 1]).collect()
    };
    let nudged = |tensors: &[usize], element: usize, step: f64| {
        let nudge = |model: M, &tensor: &usize| {
            model.map(&mut Nudge { tensor, element, step, names: vec![], seen: 0 })
        };
        logits(&tensors.iter().fold(model.clone(), nudge))
    };
    let gram = |tensors: &Vec<usize>| {
        // A column of the Jacobian for each element, moved in all tensors that share it.
        let columns: Vec<Vec<f64>> = (0..sizes.found[tensors[0]])
            .map(|element| {
                let (up, down) = (nudged(tensors, element, STEP), nudged(tensors, element, -STEP));
                up.iter().zip(down).map(|(up, down)| (up - down) / (2.0 * STEP)).collect()
            })
            .collect();
        let v = columns[0].len();
        let product = |i: usize, j: usize| columns.iter().map(|column| column[i] * column[j]).sum();
        (0..v * v).map(|at| product(at / v, at % v)).collect()
    };
    tied.iter().map(gram).collect()
}

fn alone(count: usize) -> Vec<Vec<usize>> {
    (0..count).map(|tensor| vec![tensor]).collect()
}

fn options() -> Options {
    Options { precision: Precision::F64, ..Options::default() }
}

fn captured<M: Module, const D: usize>(
    model: &M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    x: &TensorData,
) -> Graph {
    Graph::capture(model, forward, &x.shape()[1..], &Device::flex()).expect("it is captured")
}

fn measured(graph: &Graph, x: &TensorData) -> SampleGrams {
    let leaves = Leaves::parameters(graph).and_input();
    let program = Program::perturbing(graph.clone(), leaves, &Device::flex(), &options()).expect("it loads");
    let mut all = program.grams(x.clone()).expect("it fits");
    all.next().expect("one sample").expect("it runs")
}

fn assert_near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(1e-12_f64, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * largest, "{what}: {:e} of the largest entry", worst / largest);
}

/// Compares all parameters of a model; `tied` groups the tensors that share a parameter.
fn check<M: Module, const D: usize>(
    model: &M,
    forward: impl Fn(&M, Tensor<D>) -> Tensor<2>,
    shape: &[usize],
    tied: &[Vec<usize>],
) {
    let x = sample(shape, 1);
    let graph = captured(model, &forward, &x);
    let expected = dense(model, &forward, &x, tied);
    let found = measured(&graph, &x);
    assert_eq!(graph.parameters().len(), tied.len());
    for ((parameter, found), expected) in graph.parameters().iter().zip(&found.tensors).zip(&expected) {
        assert!(
            expected.iter().any(|x| x.abs() > 1e-9),
            "{} has no influence: the test is blind",
            parameter.name
        );
        assert_near(&parameter.name, found, expected, DIFFERENCES);
    }
    gradients_agree(&graph, &x, &found);
}

/// Checks c^T G c of each tensor against the gradients of one reverse pass.
fn gradients_agree(graph: &Graph, x: &TensorData, found: &SampleGrams) {
    let v = graph.classes() - 1;
    let mut c: Vec<f64> = (0..v).map(|k| 0.5 + (k as f64).cos()).collect();
    c.push(-c.iter().sum::<f64>());
    let plan = Plan::new(graph.clone().into(), Leaves::parameters(graph), 1, v, Precision::F64);
    let all: Vec<usize> = (0..graph.parameters().len()).collect();
    let pulled = gradients(&plan.expect("a plan"), &all, &Device::flex(), x.clone(), &c).expect("it runs");
    for ((parameter, gram), gradient) in graph.parameters().iter().zip(&found.tensors).zip(pulled) {
        assert_eq!(&gradient.shape()[..], parameter.shape.as_slice());
        let own: f64 = gradient.iter::<f64>().map(|x| x * x).sum();
        let by_gram: f64 = (0..v * v).map(|at| c[at / v] * gram[at] * c[at % v]).sum();
        assert!((own - by_gram).abs() <= ROUNDING * own.max(1e-12), "{}: {own} {by_gram}", parameter.name);
    }
}

#[derive(Module, Debug)]
struct Images {
    stem: Conv2d,
    norm: BatchNorm,
    grouped: Conv2d,
    dilated: Conv2d,
    groups: GroupNorm,
    depthwise: Conv2d,
    slopes: PRelu,
    head: Linear,
}

impl Images {
    fn new() -> Self {
        let device = Device::flex();
        let pad = |n: usize| PaddingConfig2d::Explicit(n, n, n, n);
        double(Self {
            stem: Conv2dConfig::new([2, 4], [3, 3]).with_padding(pad(1)).init(&device),
            norm: BatchNormConfig::new(4).init(&device),
            grouped: Conv2dConfig::new([4, 6], [3, 2]).with_groups(2).with_stride([2, 1]).init(&device),
            dilated: Conv2dConfig::new([6, 4], [2, 2])
                .with_dilation([1, 2])
                .with_padding(pad(1))
                .init(&device),
            groups: GroupNormConfig::new(2, 4).init(&device),
            depthwise: Conv2dConfig::new([4, 4], [3, 3]).with_groups(4).with_bias(false).init(&device),
            slopes: PReluConfig::new().with_num_parameters(4).init(&device),
            head: LinearConfig::new(4, 5).init(&device),
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = tanh(self.norm.forward(self.stem.forward(x)));
        let x = self.groups.forward(self.dilated.forward(self.grouped.forward(x)));
        let x = self.slopes.forward(self.depthwise.forward(x));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

#[test]
fn convolutions_norms_and_slopes() {
    let model = Images::new();
    let count = {
        let mut sizes = Sizes::default();
        model.visit(&mut sizes);
        sizes.found.len()
    };
    check(&model, Images::forward, &[2, 7, 6], &alone(count));
}

#[derive(Module, Debug)]
struct Sequences {
    along: Conv1d,
    positions: Embedding,
    token: Param<Tensor<3>>,
    norm: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    scale: Param<Tensor<1>>,
    head: Linear,
}

impl Sequences {
    fn new() -> Self {
        let device = Device::flex();
        let linear = |bias| LinearConfig::new(4, 4).with_bias(bias).init(&device);
        let padding = PaddingConfig1d::Explicit(1, 1);
        double(Self {
            along: Conv1dConfig::new(2, 4, 3).with_padding(padding).with_stride(2).init(&device),
            positions: EmbeddingConfig::new(6, 4).init(&device),
            token: Param::from_tensor(Tensor::ones([1, 1, 4], &device)),
            norm: LayerNormConfig::new(4).init(&device),
            query: linear(true),
            key: linear(false),
            value: linear(true),
            scale: Param::from_tensor(Tensor::ones([4], &device)),
            head: LinearConfig::new(4, 3).init(&device),
        })
    }

    /// A small transformer: a class token, positions, attention, a scaled residual.
    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let x = self.along.forward(x).swap_dims(1, 2);
        let [n, s, d] = x.dims();
        let x = Tensor::cat(vec![self.token.val().expand([n, 1, d]), x], 1);
        let indices = Tensor::<1, Int>::arange(0..s as i64 + 1, &x.device()).unsqueeze::<2>();
        let x = x + self.positions.forward(indices);
        let h = self.norm.forward(x.clone());
        let (q, k, v) = (self.query.forward(h.clone()), self.key.forward(h.clone()), self.value.forward(h));
        let mixed = softmax(q.matmul(k.swap_dims(1, 2)) / 2.0, 2).matmul(v);
        let x = x + gelu(mixed) * self.scale.val().unsqueeze::<3>();
        self.head.forward(x.narrow(1, 0, 1).squeeze_dim::<2>(1))
    }
}

#[test]
fn sequences_positions_attention_and_scales() {
    let model = Sequences::new();
    // Only x[.., 0] of the class token reaches the head, but through attention it depends on every
    // position.
    check(&model, Sequences::forward, &[2, 7], &alone(14));
}

/// A model with a weight that is used as it is and transposed, and a layer that is used twice.
#[derive(Module, Debug)]
struct Tied {
    first: Param<Tensor<2>>,
    second: Param<Tensor<2>>,
    twice: Linear,
    bias: Param<Tensor<1>>,
}

impl Tied {
    fn new() -> Self {
        let device = Device::flex();
        let square = double(Param::from_tensor(Tensor::<2>::ones([4, 4], &device)));
        Self {
            first: square.clone(),
            second: square,
            twice: double(LinearConfig::new(4, 4).init(&device)),
            bias: double(Param::from_tensor(Tensor::<1>::zeros([4], &device))),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = tanh(x.matmul(self.first.val()));
        let x = tanh(self.twice.forward(tanh(self.twice.forward(x))));
        x.matmul(self.second.val().transpose()) + self.bias.val().unsqueeze::<2>()
    }
}

#[test]
fn shared_parameters_are_summed_over_their_uses() {
    // `first` and `second` are one parameter.
    let model = Tied::new();
    check(&model, Tied::forward, &[4], &[vec![0, 1], vec![2], vec![3], vec![4]]);
}

/// Parameters that reach their use through other operations: a normalised weight, a gate, a part, a
/// power.
#[derive(Module, Debug)]
struct Chained {
    direction: Param<Tensor<2>>,
    length: Param<Tensor<2>>,
    gate: Param<Tensor<1>>,
    wide: Param<Tensor<2>>,
}

impl Chained {
    fn new() -> Self {
        let device = Device::flex();
        double(Self {
            direction: Param::from_tensor(Tensor::ones([3, 4], &device)),
            length: Param::from_tensor(Tensor::ones([1, 4], &device)),
            gate: Param::from_tensor(Tensor::ones([4], &device)),
            wide: Param::from_tensor(Tensor::ones([4, 6], &device)),
        })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let direction = self.direction.val();
        let norm = direction.clone().powf_scalar(2.0).sum_dim(0).sqrt();
        let weight = direction / norm * self.length.val();
        let gate = sigmoid(self.gate.val()).unsqueeze::<2>();
        let part = self.wide.val().narrow(1, 1, 4);
        (tanh(x.matmul(weight)) * gate).matmul(part)
    }
}

#[test]
fn parameters_are_traced_through_what_is_computed_from_them() {
    check(&Chained::new(), Chained::forward, &[3], &alone(4));
}

#[test]
fn all_ways_of_cutting_the_cotangents_give_the_same() {
    let model = Images::new();
    let x = sample(&[2, 7, 6], 2);
    let graph = captured(&model, Images::forward, &x);
    let whole = measured(&graph, &x);
    let leaves = Leaves::parameters(&graph).and_input();
    for block in 2..=4 {
        let plan = Plan::new(graph.clone().into(), leaves.clone(), 1, block, Precision::F64);
        let plan = std::sync::Arc::new(plan.expect("a plan"));
        let executor =
            influence_autodiff::BurnExecutor::new(plan.clone(), &Device::flex()).expect("it loads");
        assert_eq!(executor.most_cotangents(), block);
        let program = Program::with_executor(plan, Box::new(executor));
        let found = program.grams(x.clone()).expect("it fits").next().expect("one").expect("it runs");
        let pairs = found.tensors.iter().chain(&found.input).zip(whole.tensors.iter().chain(&whole.input));
        for (found, whole) in pairs {
            assert_near(&format!("blocks of {block}"), found, whole, ROUNDING);
        }
    }
}

#[test]
fn the_inputs_gram_matrix_is_that_of_its_jacobian() {
    let model = Images::new();
    let x = sample(&[2, 7, 6], 3);
    let graph = captured(&model, Images::forward, &x);
    let found = measured(&graph, &x).input.expect("it was asked for");
    let program = Program::new(graph, &Device::flex(), &options()).expect("it loads");
    let jacobian = program.jacobians(x).expect("it fits").next().expect("one").expect("it runs");
    let influence_autodiff::Rows::F64(rows) = jacobian.rows else { panic!("an f64 run") };
    let row = |k: usize| &rows[k * 84..(k + 1) * 84];
    let product = |at: usize| row(at / 4).iter().zip(row(at % 4)).map(|(a, b)| a * b).sum();
    assert_near("input", &found, &(0..16).map(product).collect::<Vec<f64>>(), ROUNDING);
}

#[test]
fn only_what_is_wanted_is_computed_and_the_same_bits_come_alone() {
    let model = Images::new();
    let shape = [2, 7, 6];
    let x = sample(&shape, 1);
    let graph = captured(&model, Images::forward, &x);
    let all = measured(&graph, &x);
    for index in [0, 3, graph.parameters().len() - 1] {
        let leaves = Leaves::tensors([index]);
        let program =
            Program::perturbing(graph.clone(), leaves, &Device::flex(), &options()).expect("it loads");
        let kept = program.plan().bytes();
        assert!(kept.peak() > 0);
        let five: Vec<f64> = [2, 3, 1, 4]
            .iter()
            .flat_map(|&seed| sample(&shape, seed).iter::<f64>().collect::<Vec<_>>())
            .collect();
        let five = TensorData::new(five, [4, 2, 7, 6]);
        let found: Vec<SampleGrams> =
            program.grams(five).expect("they fit").map(|found| found.expect("it runs")).collect();
        assert_eq!((found.len(), found[2].tensors.len()), (4, 1));
        assert_eq!(found[2].tensors[0], all.tensors[index], "the same bits, whatever else is asked for");
        assert_eq!(found[2].logits, all.logits);
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let model = Images::new();
    let shape = [2, 7, 6];
    let graph = captured(&model, Images::forward, &sample(&shape, 1));
    let leaves = Leaves::parameters(&graph);
    let program = Program::perturbing(graph, leaves, &Device::flex(), &options()).expect("it loads");
    let samples: Vec<f64> =
        (0..5).flat_map(|seed| sample(&shape, seed).iter::<f64>().collect::<Vec<_>>()).collect();
    let samples = TensorData::new(samples, [5, 2, 7, 6]);
    let run = |threads: usize| -> Vec<SampleGrams> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        let all = || program.grams(samples.clone()).expect("they fit").collect::<Result<_, _>>();
        pool.install(all).expect("it runs")
    };
    let one = run(1);
    assert_eq!(one.len(), 5);
    assert!(one == run(2) && one == run(4));
}

#[test]
fn bytes_are_known_beforehand_and_bound_the_cotangents() {
    let model = Images::new();
    let graph = captured(&model, Images::forward, &sample(&[2, 7, 6], 1));
    let leaves = || Leaves::parameters(&graph);
    let program = |memory: Option<Memory>| {
        let options = Options { memory, ..options() };
        Program::perturbing(graph.clone(), leaves(), &Device::flex(), &options)
    };
    let peak = program(None).expect("plenty").plan().bytes().peak();
    assert!(program(Some(Memory::new(peak))).is_ok());
    let fewer = program(Some(Memory::new(peak - 1))).expect("pairs of blocks fit");
    assert!(fewer.plan().bytes().peak() < peak);
    assert!(matches!(program(Some(Memory::new(1_000))), Err(Error::Memory { .. })));
}

#[test]
fn what_cannot_be_had_is_refused() {
    let model = Images::new();
    let x = sample(&[2, 7, 6], 1);
    let graph = captured(&model, Images::forward, &x);
    let input = Program::new(graph.clone(), &Device::flex(), &options()).expect("it loads");
    assert!(
        matches!(input.grams(x.clone()), Err(Error::InvalidArgument(why)) if why.contains("no parameters"))
    );
    let beyond = Leaves::tensors([99]);
    let refused = Program::perturbing(graph.clone(), beyond, &Device::flex(), &options());
    assert!(matches!(refused, Err(Error::InvalidArgument(_))));
    let nothing = Program::perturbing(graph, Leaves::tensors([]), &Device::flex(), &options());
    assert!(matches!(nothing, Err(Error::InvalidArgument(_))));
}

/// Statistics that are computed from parameters.
#[derive(Module, Debug)]
struct Odd {
    spread: Param<Tensor<1>>,
    weight: Param<Tensor<1>>,
}

#[test]
fn a_place_without_a_derivative_is_named_with_its_parameter() {
    let device = Device::flex();
    let one = || Param::from_tensor(Tensor::ones([3], &device));
    let model = Odd { spread: one(), weight: one() };
    let forward = |odd: &Odd, x: Tensor<2>| {
        let (weight, zeros) = (odd.weight.val(), Tensor::zeros([3], &x.device()));
        let variance = odd.spread.val().exp();
        burn::tensor::module::batch_norm(x, weight, zeros.clone(), zeros, variance, 1e-5)
    };
    let graph = captured(&model, forward, &sample(&[3], 1));
    let names: Vec<&str> = graph.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
    assert_eq!(names, ["spread", "weight"]);
    let planned = |leaves| Plan::new(graph.clone().into(), leaves, 1, 2, Precision::F64);
    let Err(Error::Unsupported(problems)) = planned(Leaves::parameters(&graph)) else {
        panic!("it is refused")
    };
    assert_eq!(problems.len(), 1);
    assert!(problems[0].why.contains("depends on spread") && problems[0].why.contains("leave its group out"));
    assert!(planned(Leaves::tensors([1])).is_ok(), "the other one has a derivative");
}
