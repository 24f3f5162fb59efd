//! The error type of this crate. Every error names the sample, operation or module path at fault.

/// Why a score could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be captured, differentiated or run, or the input is not finite or has the
    /// wrong shape.
    #[error(transparent)]
    Model(#[from] influence_autodiff::Error),
    /// The measure is not defined for one sample's logits or Jacobian, or its filter's argument is
    /// out of range.
    #[error("sample {sample}: {source}")]
    Measure {
        /// Which sample of the call, from 0.
        sample: usize,
        /// What is wrong with it.
        source: influence_manifold::Error,
    },
    /// A filter with an argument out of range, or one that is not defined for the objective.
    #[error(transparent)]
    Filter(influence_manifold::Error),
    /// The number of labels differs from the number of samples.
    #[error("{labels} labels for {samples} samples: give one label per sample")]
    LabelCount {
        /// Number of labels.
        labels: usize,
        /// Number of samples.
        samples: usize,
    },
    /// A label below 0, such as the -1 that marks an unlabelled sample.
    #[error(
        "the label of sample {sample} is {label}: classes are counted from 0; leave unlabelled samples out, or use the predicted class"
    )]
    NegativeLabel {
        /// Which sample of the call, from 0.
        sample: usize,
        /// Its label.
        label: i64,
    },
    /// Costs of an objective are not finite.
    #[error(transparent)]
    Objective(influence_manifold::Error),
    /// The number of objectives differs from the number of samples.
    #[error("{objectives} objectives for {samples} samples: give one objective per sample")]
    ObjectiveCount {
        /// Number of objectives.
        objectives: usize,
        /// Number of samples.
        samples: usize,
    },
    /// The gradients of an objective do not have the shape of the samples.
    #[error(
        "the objective's gradients have the shape {found:?}, but the samples have {expected:?}: give one derivative per perturbed element"
    )]
    GradientShape {
        /// The shape of the gradients.
        found: Vec<usize>,
        /// The shape of the samples.
        expected: Vec<usize>,
    },
    /// A sample or a direction does not have as many elements as the network's samples.
    #[error("{what} has {found} elements, but the network's samples have {expected}")]
    SampleLength {
        /// "the sample" or "the direction".
        what: &'static str,
        /// Its number of elements.
        found: usize,
        /// Number of elements of a sample.
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
    /// A class index beyond the classes of the network.
    #[error("{what} is class {class}, but the network has {classes} classes (0 to {})", classes - 1)]
    ClassOutOfRange {
        /// What names the class: "the label of sample 3", "the objective".
        what: String,
        /// The class.
        class: usize,
        /// Number of classes of the network.
        classes: usize,
    },
    /// Windows, regions or a family of image transformations were requested for samples that are
    /// not images.
    #[error(
        "samples of the shape {shape:?} are not images: windows, regions and families need [channels, height, width]"
    )]
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
    /// A perturbation that the network does not have, or for which the requested result is not
    /// available.
    #[error("{reason}")]
    Perturbation {
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// The objective is known only by its derivatives and has no value.
    #[error("the objective '{objective}' is known only by its gradient: its change cannot be computed")]
    NoValue {
        /// The objective.
        objective: String,
    },
    /// An empty batch.
    #[error("there are no samples: the first axis of the input is 0")]
    NoSamples,
}

/// The error for data that cannot be read; `what` says which, and where they are.
pub(crate) fn unreadable(what: &str, error: &dyn std::fmt::Debug) -> Error {
    influence_autodiff::Error::Device(format!("reading the {what} failed: {error:?}")).into()
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
