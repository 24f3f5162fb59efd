//! Everything that can go wrong between a model and its scores, with the sample, operation or module path at fault.

/// Why a score could not be had.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be captured, differentiated or run, or the input is not finite or of another shape.
    #[error(transparent)]
    Model(#[from] influence_autodiff::Error),
    /// The measure is not defined for one sample's logits or Jacobian, or its filter's argument is out of range.
    #[error("sample {sample}: {source}")]
    Measure {
        /// Which sample of the call, from 0.
        sample: usize,
        /// What is wrong with it.
        source: influence_manifold::Error,
    },
    /// A filter with an argument out of its range, or one that is not defined for the objective.
    #[error(transparent)]
    Filter(influence_manifold::Error),
    /// Not one label a sample.
    #[error("{labels} labels for {samples} samples: give one label a sample")]
    LabelCount {
        /// How many labels there are.
        labels: usize,
        /// How many samples.
        samples: usize,
    },
    /// Costs or other numbers of an objective that are not finite.
    #[error(transparent)]
    Objective(influence_manifold::Error),
    /// Not one objective a sample.
    #[error("{objectives} objectives for {samples} samples: give one objective a sample")]
    ObjectiveCount {
        /// How many objectives there are.
        objectives: usize,
        /// How many samples.
        samples: usize,
    },
    /// Gradients of an objective of another shape than the samples.
    #[error(
        "the objective's gradients have the shape {found:?}, but the samples {expected:?}: give one number a perturbed element"
    )]
    GradientShape {
        /// The shape of the gradients.
        found: Vec<usize>,
        /// That of the samples.
        expected: Vec<usize>,
    },
    /// A sample or a direction that does not have one number an element of the network's samples.
    #[error("{what} has {found} numbers, but the samples {expected}: give one number an element")]
    SampleLength {
        /// Which of them.
        what: &'static str,
        /// How many numbers it has.
        found: usize,
        /// How many elements a sample has.
        expected: usize,
    },
    /// Text that is no objective.
    #[error("objective '{text}': {reason}; give label, predicted, class:N, entropy or margin")]
    ObjectiveSyntax {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A class that the network does not have.
    #[error("{what} is class {class}, but the network has {classes} classes (0 to {})", classes - 1)]
    ClassOutOfRange {
        /// Whose class: "the label of sample 3", "the objective".
        what: String,
        /// The class.
        class: usize,
        /// How many the network has.
        classes: usize,
    },
    /// Samples that are no images, of which a map or a family of image transformations was asked for.
    #[error("samples of the shape {shape:?} are no images: maps and families need [channels, height, width]")]
    NotAnImage {
        /// Shape of one sample.
        shape: Vec<usize>,
    },
    /// A family or a basis that cannot be used.
    #[error("family {name}: {reason}")]
    Family {
        /// Its name.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A perturbation that the network does not have, or of which what was asked for cannot be had.
    #[error("{reason}")]
    Perturbation {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// An objective that is known by its derivatives alone has no value.
    #[error("the objective '{objective}' is known by its gradient alone: its change cannot be computed")]
    NoValue {
        /// The objective.
        objective: String,
    },
    /// There is nothing to score.
    #[error("there are no samples: the first axis of the input is 0")]
    NoSamples,
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
