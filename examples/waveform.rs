//! A convolutional network along one axis, for signals of two channels, and the influence of four
//! signals.
//!
//!     cargo run --example waveform
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::module::Module;
use burn::nn::conv::{Conv1d, Conv1dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::module::{adaptive_avg_pool1d, avg_pool1d};
use burn::tensor::ops::AvgPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};
use influence::Objective;

#[cfg(test)]
#[path = "common/dense.rs"]
mod dense;

#[derive(Module, Debug)]
struct Network {
    stem: Conv1d,
    first: BatchNorm,
    middle: Conv1d,
    second: GroupNorm,
    head: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            stem: Conv1dConfig::new(2, 8, 5).with_stride(2).init(device),
            first: BatchNormConfig::new(8).init(device),
            middle: Conv1dConfig::new(8, 8, 3).with_groups(4).with_dilation(2).init(device),
            second: GroupNormConfig::new(2, 8).init(device),
            head: LinearConfig::new(16, 4).init(device),
        }
    }

    fn forward(&self, signals: Tensor<3>) -> Tensor<2> {
        let x = silu(self.first.forward(self.stem.forward(signals)));
        let x = avg_pool1d(x, AvgPoolOptions::new([2]).with_stride([2]));
        let x = silu(self.second.forward(self.middle.forward(x)));
        self.head.forward(adaptive_avg_pool1d(x, 2).flatten(1, 2))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = Network::new(&device);
    let waves: Vec<f32> = (0..4 * 2 * 64).map(|i| (i as f32 * 0.3).sin()).collect();
    let signals = Tensor::<3>::from_data(TensorData::new(waves, [4, 2, 64]), &device);
    for score in influence::fi_score(&network, Network::forward, signals, &Objective::predicted())? {
        println!("influence {:.4} of at most {:.4}, rank {}", score.value, score.bound, score.rank);
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}

#[test]
fn agrees_with_central_differences() {
    dense::assert_dense(Network::new(&Device::flex()), Network::forward, &[2, 25]);
}
