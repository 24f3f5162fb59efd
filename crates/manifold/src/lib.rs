//! The perturbation manifold of a classifier: Fisher metric, spectral filters and first-order
//! influence.
//!
//! # Notation
//!
//! A classifier gives logits z(omega) in R^K and P = softmax(z) for a perturbation omega; omega = 0
//! means no perturbation.
//!
//! * J = dz / domega, K x p: the Jacobian of one sample; C = I - 1 1^T / K; C J = V Sigma W^T,
//!   sigma_1 the largest.
//! * G = J^T (diag P - P P^T) J, p x p: the Fisher information, metric of the manifold {P(omega)}.
//!   Never formed.
//! * Gamma = S (J J^T) S^T, K x K, S = diag(sqrt P)(I - 1 P^T): the same non-zero eigenvalues
//!   gamma_i, eigenvectors q_i.
//! * f = h(z): the objective, dh its gradient in the logits, df = J^T dh, w = dh / sqrt P.
//! * FI = df^T G^+ df = |Pi w|^2, Pi the projector onto range(Gamma): the influence
//!   (Shu & Zhu, *Sensitivity Analysis of Deep Neural Networks*, AAAI 2019, arXiv 1901.07152).
//! * h = G^+ df = J^T c: the most influential direction.
//! * `outside` = |df|^2 minus its projection on the row space of C J: 0 for every f that is a
//!   function of P.
//!
//! The crate depends on no network and no data set: it takes logits with a Jacobian or a Gram
//! matrix, as slices or as Burn tensors.
//!
//! ```
//! use influence_manifold::{Filter, SampleObjective, Tangent, influence};
//!
//! # fn main() -> Result<(), influence_manifold::Error> {
//! // Three classes, one perturbed coordinate.
//! let tangent = Tangent::from_rows(&[1.0, -0.5, 0.2], 3, 1)?;
//! let found = influence(&[2.0, 1.0, 0.0], &tangent, &SampleObjective::class(1), &Filter::default())?;
//! assert_eq!(found.rank, 1);
//! assert!(found.value < found.bound);
//! # Ok(())
//! # }
//! ```

mod baselines;
pub mod batch;
mod dense;
mod error;
mod filter;
mod filters;
mod function;
mod graded;
mod gradient;
mod influence;
mod maps;
mod objective;
mod precision;
mod probabilities;
mod reflection;
mod row;
mod spectrum;
mod tail;
mod tangent;

pub use baselines::{Baselines, baselines};
pub use error::Error;
pub use filter::{Filter, PAPER_EPSILON};
pub use function::{Costs, GradientFunction};
pub use gradient::ZERO_SUM;
pub use influence::{Influence, influence, measure};
pub use maps::{Channels, Map, PixelTangent, Region};
pub use objective::SampleObjective;
pub use precision::{
    AMBIGUOUS_FACTOR, GRAM_RESOLUTION, NOISE_ROUNDOFFS, RowPrecision, Scalar, TOLERANCE_F16, TOLERANCE_F32,
    TOLERANCE_F64, TOLERANCE_GRAM_F64,
};
pub use probabilities::Probabilities;
pub use row::Row;
pub use tail::Tail;
pub use tangent::{GRAM_ASYMMETRY, GRAM_INDEFINITENESS, Tangent};
