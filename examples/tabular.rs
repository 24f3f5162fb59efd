//! A network on rows of a table. Some columns also enter as logarithms; the influence is that of
//! the original row.
//!
//!     cargo run --example tabular
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::mish;
use burn::tensor::{Device, Int, Tensor, TensorData};
use influence::Objective;

#[cfg(test)]
#[path = "common/dense.rs"]
mod dense;

const COLUMNS: usize = 6;

#[derive(Module, Debug)]
struct Network {
    first: Linear,
    norm: LayerNorm,
    second: Linear,
    head: Linear,
}

impl Network {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(COLUMNS + 2, 12).init(device),
            norm: LayerNormConfig::new(12).init(device),
            second: LinearConfig::new(12, 12).init(device),
            head: LinearConfig::new(12, 3).init(device),
        }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        let skewed = Tensor::<1, Int>::from_data([1, 4], &rows.device());
        let logarithms = rows.clone().select(1, skewed).powi_scalar(2).log1p();
        let x = Tensor::cat(vec![rows, logarithms], 1);
        let x = mish(self.norm.forward(self.first.forward(x)));
        self.head.forward(x.clone() + mish(self.second.forward(x)))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = Network::new(&device);
    let cells: Vec<f32> = (0..5 * COLUMNS).map(|i| (i as f32 * 0.7).cos()).collect();
    let rows = Tensor::<2>::from_data(TensorData::new(cells, [5, COLUMNS]), &device);
    for score in influence::fi_score(&network, Network::forward, rows, &Objective::predicted())? {
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
    dense::assert_dense(Network::new(&Device::flex()), Network::forward, &[COLUMNS]);
}
