//! A small EEGNet (Lawhern et al., arXiv 1611.08024): a convolution over the whole width of an
//! image, whose axis is then squeezed, and a convolution along the remaining axis. Its influence is
//! also computed without an engine and compared.

use burn::module::Module;
use burn::nn::Linear;
use burn::nn::conv::{Conv1d, Conv2d};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence::{Filter, Objective, Scorer};

use super::{conv1d, conv2d, linear};
use crate::attack::differences::{STEPS, rows};
use crate::attack::engines::engine;
use crate::attack::weights::numbers;
use crate::harness::{agrees, filled};

#[derive(Module, Debug)]
struct EegNet {
    spatial: Conv2d,
    temporal: Conv1d,
    head: Linear,
}

/// Time steps and electrodes.
const SAMPLE: [usize; 3] = [1, 8, 4];

impl EegNet {
    fn new() -> Self {
        Self { spatial: conv2d([1, 3], [1, 4], [0, 0]), temporal: conv1d(3, 2, 3), head: linear(16, 3) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let along_time: Tensor<3> = self.spatial.forward(x).squeeze_dim(3);
        self.head.forward(relu(self.temporal.forward(along_time)).flatten(1, 2))
    }
}

#[test]
fn a_convolution_over_the_whole_width() {
    agrees(EegNet::new(), EegNet::forward, &SAMPLE);
}

/// df^T (G + lambda I)^-1 df in the space of the input, from the rows d(z_k - z_K) / dx and the
/// logits, for f = -log P of a class.
fn damped(rows: &[f64], logits: &[f64], class: usize, lambda: f64) -> f64 {
    let (k, p) = (logits.len(), rows.len() / (logits.len() - 1));
    let most = logits.iter().copied().fold(f64::MIN, f64::max);
    let exp: Vec<f64> = logits.iter().map(|z| (z - most).exp()).collect();
    let sum: f64 = exp.iter().sum();
    let prob: Vec<f64> = exp.iter().map(|e| e / sum).collect();
    let row = |a: usize, i: usize| if a + 1 < k { rows[a * p + i] } else { 0.0 };
    let mean: Vec<f64> = (0..p).map(|i| (0..k).map(|a| prob[a] * row(a, i)).sum()).collect();
    let df: Vec<f64> = (0..p).map(|i| mean[i] - row(class, i)).collect();
    let entry = |i: usize, j: usize| -> f64 {
        (0..k).map(|a| prob[a] * (row(a, i) - mean[i]) * (row(a, j) - mean[j])).sum()
    };
    let mut matrix: Vec<Vec<f64>> = (0..p).map(|i| (0..p).map(|j| entry(i, j)).collect()).collect();
    (0..p).for_each(|i| matrix[i][i] += lambda);
    let solution = solved(matrix, df.clone());
    df.iter().zip(solution).map(|(a, b)| a * b).sum()
}

/// Solves a positive definite system by elimination.
fn solved(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let p = right.len();
    for pivot in 0..p {
        for below in pivot + 1..p {
            let factor = matrix[below][pivot] / matrix[pivot][pivot];
            let own = matrix[pivot].clone();
            matrix[below].iter_mut().zip(own).skip(pivot).for_each(|(x, y)| *x -= factor * y);
            right[below] -= factor * right[pivot];
        }
    }
    for pivot in (0..p).rev() {
        let known: f64 = (pivot + 1..p).map(|column| matrix[pivot][column] * right[column]).sum();
        right[pivot] = (right[pivot] - known) / matrix[pivot][pivot];
    }
    right
}

#[test]
fn its_damped_influence() {
    let (net, device) = (filled(EegNet::new()), Device::flex());
    let sample = numbers(&[32], 5);
    let batch = |samples: &[f64]| {
        let data = TensorData::new(samples.to_vec(), [samples.len() / 32, 1, 8, 4]);
        Tensor::<4>::from_data(data, (&device, DType::F64))
    };
    let logits = |samples: &[f64]| net.forward(batch(samples)).into_data().iter::<f64>().collect::<Vec<_>>();
    let own = logits(&sample);
    let expected = damped(&rows(logits, &sample, 3, STEPS[1]), &own, 1, 1.0);
    for name in ["flex", "cpu"] {
        let builder =
            Scorer::builder().filter(Filter::Tikhonov { lambda: 1.0 }).engine(engine(name, u64::MAX));
        let scorer = builder.compile(&net, EegNet::forward, &SAMPLE).expect("it is loaded");
        let score = scorer.score(batch(&sample), &Objective::class(1)).expect("it is scored").remove(0);
        let apart = (score.value - expected).abs() / expected;
        assert!(apart < 1e-6, "{name}: {} instead of {expected}", score.value);
    }
}
