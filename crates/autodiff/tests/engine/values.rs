//! A small network with everything at once, against central differences and against its own forward pass.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Graph, Options, Precision, Program, Rows};

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    branch: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
        Self {
            stem: Conv2dConfig::new([2, 4], [3, 3]).with_padding(padding.clone()).init(device),
            norm: BatchNormConfig::new(4).init(device),
            branch: Conv2dConfig::new([4, 4], [3, 3]).with_padding(padding).init(device),
            head: LinearConfig::new(8, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let stem = relu(self.norm.forward(self.stem.forward(x)));
        let sum = self.branch.forward(stem.clone()) + stem.clone();
        let both = Tensor::cat(vec![sum, stem], 1);
        let [n, c, _, _] = both.dims();
        self.head.forward(both.mean_dim(2).mean_dim(3).reshape([n, c]))
    }
}

fn samples(count: usize) -> TensorData {
    let values = (0..count * 2 * 5 * 5).map(|i| ((i * 7919 % 1009) as f64) / 1009.0).collect();
    TensorData::new(values, [count, 2, 5, 5])
}

fn program(net: &Net, precision: Precision) -> Program {
    let device = Device::flex();
    let graph = Graph::capture(net, Net::forward, &[2, 5, 5], &device).unwrap();
    println!("{graph}");
    Program::new(graph, &device, &Options { precision, batch: 1 }).unwrap()
}

fn logits(program: &Program, x: TensorData) -> Vec<f64> {
    program.jacobians(x).unwrap().next().unwrap().unwrap().logits
}

#[test]
fn jacobian_agrees_with_central_differences() {
    let net = Net::new(&Device::flex());
    let program = program(&net, Precision::F64);
    println!("{}", program.plan());
    let x = samples(1);
    let jacobian = program.jacobians(x.clone()).unwrap().next().unwrap().unwrap();
    let Rows::F64(rows) = jacobian.rows else { panic!("f64 run") };
    let (step, columns) = (1e-6, 50);
    let values: Vec<f64> = x.to_vec().unwrap();
    for i in 0..columns {
        let moved = |by: f64| {
            let mut moved = values.clone();
            moved[i] += by;
            logits(&program, TensorData::new(moved, [1, 2, 5, 5]))
        };
        let (plus, minus) = (moved(step), moved(-step));
        for k in 0..2 {
            let difference = ((plus[k] - plus[2]) - (minus[k] - minus[2])) / (2.0 * step);
            assert!(
                (difference - rows[k * columns + i]).abs() < 1e-8,
                "{k} {i}: {difference} {}",
                rows[k * columns + i]
            );
        }
    }
}

#[test]
fn logits_are_those_of_the_model() {
    let device = Device::flex();
    let net = Net::new(&device);
    let program = program(&net, Precision::F32);
    let x = samples(3).convert_dtype(DType::F32);
    let expected: Vec<f32> = net.forward(Tensor::from_data(x.clone(), &device)).into_data().to_vec().unwrap();
    let found: Vec<f64> = program.jacobians(x).unwrap().flat_map(|j| j.unwrap().logits).collect();
    for (a, b) in expected.iter().zip(found) {
        assert!((f64::from(*a) - b).abs() < 1e-6);
    }
}
