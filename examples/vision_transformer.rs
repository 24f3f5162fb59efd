//! A small vision transformer (patches, class token, positions, multi-head attention) and the
//! influence of eight images.
//!
//!     cargo run --example vision_transformer
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::module::{Module, Param};
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Distribution, Tensor, TensorData};
use influence::Objective;
use influence_data::Dataset;

#[cfg(test)]
#[path = "common/dense.rs"]
mod dense;

const WIDTH: usize = 16;

#[derive(Module, Debug)]
struct Block {
    before: LayerNorm,
    attention: MultiHeadAttention,
    after: LayerNorm,
    wide: Linear,
    narrow: Linear,
}

impl Block {
    fn new(device: &Device) -> Self {
        Self {
            before: LayerNormConfig::new(WIDTH).init(device),
            attention: MultiHeadAttentionConfig::new(WIDTH, 4).init(device),
            after: LayerNormConfig::new(WIDTH).init(device),
            wide: LinearConfig::new(WIDTH, 2 * WIDTH).init(device),
            narrow: LinearConfig::new(2 * WIDTH, WIDTH).init(device),
        }
    }

    fn forward(&self, tokens: Tensor<3>) -> Tensor<3> {
        let input = MhaInput::self_attn(self.before.forward(tokens.clone()));
        let tokens = tokens + self.attention.forward(input).context;
        let hidden = gelu(self.wide.forward(self.after.forward(tokens.clone())));
        tokens + self.narrow.forward(hidden)
    }
}

#[derive(Module, Debug)]
struct Transformer {
    patches: Conv2d,
    token: Param<Tensor<3>>,
    positions: Param<Tensor<3>>,
    blocks: Vec<Block>,
    norm: LayerNorm,
    head: Linear,
}

impl Transformer {
    /// For images of `size` x `size` pixels in patches of `patch` x `patch`.
    fn new(size: usize, patch: usize, device: &Device) -> Self {
        let random = |count| {
            let values = Tensor::random([1, count, WIDTH], Distribution::Normal(0.0, 0.02), device);
            Param::from_tensor(values)
        };
        Self {
            patches: Conv2dConfig::new([1, WIDTH], [patch; 2]).with_stride([patch; 2]).init(device),
            token: random(1),
            positions: random(1 + (size / patch) * (size / patch)),
            blocks: (0..2).map(|_| Block::new(device)).collect(),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 10).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let patches = self.patches.forward(images).flatten::<3>(2, 3).swap_dims(1, 2);
        let n = patches.dims()[0];
        let token = self.token.val().expand([n, 1, WIDTH]);
        let tokens = Tensor::cat(vec![token, patches], 1) + self.positions.val();
        let tokens = self.blocks.iter().fold(tokens, |tokens, block| block.forward(tokens));
        let first = tokens.narrow(1, 0, 1).reshape([n, WIDTH]);
        self.head.forward(self.norm.forward(first))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let network = Transformer::new(28, 7, &device);
    let data = Dataset::embedded();
    let first = [0, 1, 2, 3, 4, 5, 6, 7];
    let pixels = TensorData::new(data.batch::<f32>(&first), [8, 1, 28, 28]);
    let labels = first.map(|index| data.label(index));
    let images = Tensor::<4>::from_data(pixels, &device);
    for score in influence::fi_score(&network, Transformer::forward, images, &Objective::label(labels))? {
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
    dense::assert_dense(Transformer::new(8, 4, &Device::flex()), Transformer::forward, &[1, 8, 8]);
}
