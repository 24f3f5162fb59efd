//! First-order influence of perturbations on trained deep networks (Shu & Zhu, *Sensitivity
//! Analysis of Deep Neural Networks*, AAAI 2019, arXiv 1901.07152), on the Burn framework.
//!
//! ```no_run
//! # use burn::module::Module;
//! # use burn::nn::{Linear, LinearConfig};
//! # use burn::tensor::{Device, Tensor};
//! # use influence::Objective;
//! # #[derive(Module, Debug)]
//! # struct Net { head: Linear }
//! # impl Net { fn forward(&self, x: Tensor<4>) -> Tensor<2> { self.head.forward(x.flatten(1, 3)) } }
//! # fn main() -> Result<(), influence::Error> {
//! # let device = Device::default();
//! # let net = Net { head: LinearConfig::new(784, 10).init(&device) };
//! # let images = Tensor::<4>::zeros([2, 1, 28, 28], &device);
//! # let labels = [7, 2];
//! // Any Burn module; images [N, ...], its forward function gives logits [N, K].
//! let scores = influence::fi_score(&net, Net::forward, images, &Objective::label(labels))?;
//! println!("{} of at most {} at rank {}", scores[0].value, scores[0].bound, scores[0].rank);
//! # Ok(())
//! # }
//! ```
//!
//! [`fi_score`] measures the perturbation of the whole input with the exact filter, in the
//! precision of the model, on the model's own device. [`Scorer`] covers everything else; it
//! captures and checks the model once and runs on many batches. A [`Perturbation`] says what is
//! perturbed: the whole input, families of image transformations ([`Perturbation::Families`]),
//! every window ([`Perturbation::Windows`]) or region of an image ([`Perturbation::Regions`]), or
//! parameters.
//!
//! How to read the numbers, and what they cannot show, is described in the repository, in
//! `docs/reading-the-numbers.md`. In short: for a whole input the exact measure equals (1 - P_y) /
//! P_y whenever the Jacobian has rank K - 1. [`Score::value`] then contains no more than the
//! confidence; [`Score::reach`] and [`Score::rank`] show whether that is the case.

mod direction;
mod error;
pub mod family;
mod gradients;
mod linearization;
mod maps;
mod objective;
mod parameter_direction;
mod parameters;
mod perturbation;
mod rates;
mod samples;
mod score;
mod scorer;
mod scores;
mod tail;
mod target;

use burn::module::Module;
use burn::tensor::Tensor;

pub use direction::{Direction, Step};
pub use error::{Error, Result};
pub use family::{Basis, Family};
pub use gradients::Gradients;
pub use influence_autodiff::{
    Combinations, Error as ModelError, GPU_BATCH, Graph, Jacobian, Memory, Parameter, Plan, Precision,
    Problem, Program, Rows, SampleGrams,
};
pub use influence_cpu::{Engine, InstructionSet};
pub use influence_manifold::{
    Baselines, Channels, Costs, Error as MeasureError, Filter, GradientFunction, Influence, Map,
    Probabilities, Region, SampleObjective, Tail, Tangent,
};
pub use linearization::{Linearization, Linearizations};
pub use objective::Objective;
pub use parameter_direction::{DirectionTensor, ParameterDirection};
pub use parameters::{ParameterLinearization, ParameterLinearizations};
pub use perturbation::{Budget, Group, Perturbation};
pub use rates::Rates;
pub use samples::IntoSamples;
pub use score::{Score, Setting, is_saturated};
pub use scorer::{Scorer, ScorerBuilder};
pub use scores::Scores;
pub use tail::MergedTail;
pub use target::Target;

/// The influence of perturbing each whole image on the objective: one [`Score`] per image.
///
/// `forward` is the model's own forward function, or a closure around it. It is captured by running
/// it on a recording device, and the model itself is not changed. Other tensors that `forward`
/// uses, such as a mean to subtract, must therefore be created inside it, as by
/// `Tensor::from_data(mean, &x.device())`, or be fields of the module. Every call repeats capture
/// and checks: to score many batches use [`Scorer`].
///
/// # Shapes
/// - `images`: `[N, ...]`, as `forward` takes them;
/// - `forward`: to logits `[N, K]`, K >= 2;
/// - result: `[N]`.
///
/// # Errors
/// Everything that is wrong with the model (operations without a derivative, samples coupled across
/// the batch, a final softmax, NaN in the weights), the images (NaN, wrong shape, an empty batch)
/// or the labels (wrong number, out of range), by name or index.
pub fn fi_score<M, F, const D: usize>(
    model: &M,
    forward: F,
    images: Tensor<D>,
    objective: &Objective,
) -> Result<Vec<Score>>
where
    M: Module,
    F: Fn(&M, Tensor<D>) -> Tensor<2>,
{
    let sample: [usize; D] = images.dims();
    let own = model.devices().into_iter().next();
    let device = own.unwrap_or_else(|| images.device());
    objective.check(sample[0])?;
    Scorer::builder().device(&device).compile(model, forward, &sample[1..])?.score(images, objective)
}
