//! Your own model instead of one from the zoo: a residual branch, a concatenation, and its
//! influence in ten lines.
//!
//!     cargo run --example own_model
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use influence::Objective;
use influence_data::Dataset;

#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    branch: Conv2d,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let same = PaddingConfig2d::Same;
        Self {
            stem: Conv2dConfig::new([1, 8], [3, 3]).with_stride([2, 2]).init(device),
            norm: BatchNormConfig::new(8).init(device),
            branch: Conv2dConfig::new([8, 8], [3, 3]).with_padding(same).init(device),
            head: LinearConfig::new(16 * 13 * 13, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let stem = relu(self.norm.forward(self.stem.forward(images)));
        let residual = self.branch.forward(stem.clone()) + stem.clone();
        let both = Tensor::cat(vec![relu(residual), stem], 1);
        self.head.forward(both.flatten(1, 3))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let net = Net::new(&device);
    let data = Dataset::embedded();
    let first = [0, 1, 2, 3, 4, 5, 6, 7];
    let pixels = TensorData::new(data.batch::<f32>(&first), [8, 1, 28, 28]);
    let images = Tensor::<4>::from_data(pixels, &device);
    let labels = first.map(|index| data.label(index));

    let scores = influence::fi_score(&net, Net::forward, images, &Objective::label(labels))?;
    for (index, score) in scores.iter().enumerate() {
        println!(
            "image {index}: influence {:.4} of at most {:.4}, rank {}",
            score.value, score.bound, score.rank
        );
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}
