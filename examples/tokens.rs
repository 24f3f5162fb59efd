//! A text classifier, and which tokens matter. The perturbation acts on the embedding of the
//! tokens, a continuous matrix [T, D] per text.
//!
//!     cargo run --example tokens
//!
//! Token ids are discrete and have no small perturbations. So the model is split after its
//! embedding: the caller looks the tokens up, and the engine captures the rest, `classify`, whose
//! samples are embeddings.
#![expect(clippy::print_stdout, reason = "an example shows its results")]

use burn::module::{Module, Param};
use burn::nn::attention::{MhaInput, MultiHeadAttention, MultiHeadAttentionConfig};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Distribution, Int, Tensor};
use influence::{Channels, Filter, SampleObjective, Scorer};

#[cfg(test)]
#[path = "common/dense.rs"]
mod dense;

const WORDS: usize = 11;
const LENGTH: usize = 5;
const WIDTH: usize = 8;

#[derive(Module, Debug)]
struct Classifier {
    words: Embedding,
    positions: Param<Tensor<3>>,
    attention: MultiHeadAttention,
    norm: LayerNorm,
    head: Linear,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        let positions = Tensor::random([1, LENGTH, WIDTH], Distribution::Normal(0.0, 0.1), device);
        Self {
            words: EmbeddingConfig::new(WORDS, WIDTH).init(device),
            positions: Param::from_tensor(positions),
            attention: MultiHeadAttentionConfig::new(WIDTH, 2).init(device),
            norm: LayerNormConfig::new(WIDTH).init(device),
            head: LinearConfig::new(WIDTH, 4).init(device),
        }
    }

    /// Tokens `[N, T]` to embeddings `[N, 1, T, D]`: an image of one channel with one row per
    /// token.
    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<4> {
        self.words.forward(tokens).unsqueeze_dim(1)
    }

    /// Embeddings `[N, 1, T, D]` to logits.
    fn classify(&self, embedded: Tensor<4>) -> Tensor<2> {
        let x = embedded.squeeze_dim::<3>(1) + self.positions.val();
        let x = self.norm.forward(x.clone() + self.attention.forward(MhaInput::self_attn(x)).context);
        self.head.forward(x.mean_dim(1).squeeze_dim(1))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex();
    let model = Classifier::new(&device);
    let tokens = Tensor::<2, Int>::from_data([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], &device);
    let embedded = model.embed(tokens.clone());
    let scorer = Scorer::builder().compile(&model, Classifier::classify, &[1, LENGTH, WIDTH])?;
    // The region of a token is its row of the embedding.
    let regions: Vec<u32> = (0..LENGTH * WIDTH).map(|i| (i / WIDTH) as u32).collect();
    let filter = Filter::tikhonov(1.0)?;
    for (at, tokens) in scorer.linearize(embedded.into_data())?.zip(tokens.iter_dim(0)) {
        let at = at?;
        let whole = at.score(&SampleObjective::Predicted, &filter)?;
        println!("text {}: influence {:.4} of at most {:.4}", tokens.into_data(), whole.value, whole.bound);
        for token in at.regions(&SampleObjective::Predicted, &filter, &regions, Channels::Joint)? {
            println!(
                "    token {}: {:.4}, rank {}",
                token.label, token.influence.value, token.influence.rank
            );
        }
    }
    Ok(())
}

#[test]
fn runs_to_the_end() {
    main().unwrap();
}

#[test]
fn agrees_with_central_differences() {
    dense::assert_dense(Classifier::new(&Device::flex()), Classifier::classify, &[1, LENGTH, WIDTH]);
}

/// A dense check of the same numbers: one-hot rows are a continuous input of the whole model,
/// embedding included, and their Jacobian is that of the embeddings times the embedding table.
#[test]
fn agrees_with_one_hot_rows_through_the_whole_model() {
    let model = dense::double(Classifier::new(&Device::flex()));
    let tokens = [7, 0, 10, 3, 7];
    let one_hot = |model: &Classifier, rows: Tensor<4>| {
        model.classify(rows.matmul(model.words.weight.val().unsqueeze()))
    };
    let rows = |point, forward: &dyn Fn(&Classifier, Tensor<4>) -> Tensor<2>, width| {
        dense::rows(&model, forward, point, &[1, LENGTH, width])
    };
    let matrix: Vec<f64> = model.words.weight.val().into_data().try_to_vec().unwrap();
    let looked_up = tokens.iter().flat_map(|&word| matrix[word * WIDTH..][..WIDTH].to_vec()).collect();
    let hot = tokens.iter().flat_map(|&word| (0..WORDS).map(move |other| f64::from(u8::from(word == other))));
    let embedded = rows(looked_up, &Classifier::classify, WIDTH);
    let found = rows(hot.collect(), &one_hot, WORDS);
    let scale = found.iter().fold(0.0_f64, |max, x| max.max(x.abs()));
    assert_eq!(found.len() * WIDTH, embedded.len() * WORDS);
    for (at, found) in found.iter().enumerate() {
        let (row, word) = (at / WORDS, at % WORDS);
        let pairs = embedded[row * WIDTH..][..WIDTH].iter().zip(&matrix[word * WIDTH..][..WIDTH]);
        let expected: f64 = pairs.map(|(g, w)| g * w).sum();
        assert!((found - expected).abs() < 1e-12 * scale, "{found} instead of {expected}");
    }
}
