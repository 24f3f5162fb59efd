//! What can go wrong between a Burn module and its Jacobian: one error type, every variant with the place and the remedy.

use std::fmt;

use crate::memory::Memory;

/// Errors of capture, planning and execution.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's own code panicked, or Burn refused what it did, while it was being recorded.
    #[error(
        "the model could not be captured: its forward function was recorded on a made-up batch of 2 or 3 samples of the given shape \
         and failed: {message} (last operation recorded: {last})"
    )]
    CaptureFailed {
        /// The panic message or Burn's reason.
        message: String,
        /// The last operation that was recorded, with its place.
        last: String,
    },
    /// The model uses what this engine cannot differentiate; all problems are listed at once.
    #[error("the model cannot be differentiated:{}", Listed(.0))]
    Unsupported(Vec<Problem>),
    /// One sample's result depends on another sample of its batch.
    #[error(
        "samples influence one another at {node}: what it computes for one sample takes in other samples, or how many there are; \
         use operations that treat each sample on its own (for example batch normalisation in evaluation)"
    )]
    BatchCoupled {
        /// The first node at which it shows.
        node: String,
    },
    /// The model runs while it is recorded, and fails as it is.
    #[error(
        "the model's own forward function failed on made-up samples of the given shape, {message}; \
         a graph recorded without running it (`Graph::record`) is not compared with it"
    )]
    ForwardFailed {
        /// The panic message.
        message: String,
    },
    /// The model gives a sample other logits alone than in a batch.
    #[error(
        "the model's own forward function gives a made-up sample {alone} for class {class} when it comes alone, and {together} in a \
         batch of {samples}: make each sample's logits its own, whatever the size of the batch"
    )]
    BatchDependent {
        /// The class.
        class: usize,
        /// Its logit for the sample alone.
        alone: f64,
        /// How many samples the batch has.
        samples: usize,
        /// Its logit for the same sample in the batch.
        together: f64,
    },
    /// The engine's logits are not those of the model.
    #[error(
        "{engine} gives {found} where the model's own forward function gives {expected} (made-up sample {sample}, class {class}), \
         first at {node}; {remedy}; `Check::Off` with a reason leaves the comparison out"
    )]
    Disagrees {
        /// The engine.
        engine: String,
        /// The first node that differs.
        node: String,
        /// The made-up sample.
        sample: usize,
        /// The class.
        class: usize,
        /// The model's logit.
        expected: f64,
        /// The engine's.
        found: f64,
        /// What can be done.
        remedy: &'static str,
    },
    /// NaN or infinity where a finite number is needed.
    #[error("{what} holds {value} at flat index {index}; every value must be finite")]
    NonFinite {
        /// The tensor by name, or the sample by its index in the call.
        what: String,
        /// `NaN`, `inf` or `-inf`.
        value: String,
        /// Row-major index of the first such element, within the tensor or sample.
        index: usize,
    },
    /// The network ends in a softmax: its outputs are probabilities, for which the measure would be wrong.
    #[error(
        "the network's outputs are probabilities (rows >= 0 that sum to 1), not logits; remove the final softmax \
         (a final log_softmax is fine: it gives the same influence)"
    )]
    Probabilities,
    /// The network's outputs lie in [0, 1] by construction, but each on its own.
    #[error(
        "the network's outputs lie in [0, 1] whatever the input is, because of {node}: they are probabilities of one class each, not \
         logits of a softmax, and would be scored as such; remove that operation (where they are meant as logits, add 0 to them)"
    )]
    Bounded {
        /// The operation that bounds them.
        node: String,
    },
    /// A shape that does not fit.
    #[error("{what}: expected shape {expected}, found {found:?}")]
    Shape {
        /// What has the shape.
        what: &'static str,
        /// The shape that would fit.
        expected: String,
        /// The shape that was found.
        found: Vec<usize>,
    },
    /// An argument outside its domain.
    #[error("{0}")]
    InvalidArgument(String),
    /// The device cannot do what was asked of it.
    #[error("{0}")]
    Device(String),
    /// Not even one sample fits into the memory that a run may take.
    #[error(
        "one sample takes {needed} with the weights, but the run may take {limit}: give at least {needed}"
    )]
    Memory {
        /// What one sample takes.
        needed: Memory,
        /// What the run may take.
        limit: Memory,
    },
    /// A kernel of the backend failed at run time.
    #[error("{node}: the backend failed: {message}")]
    Execution {
        /// The operation and its place.
        node: String,
        /// The backend's message.
        message: String,
    },
}

/// One reason why a model cannot be differentiated, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The operation, as Burn names it (`Float::ArcTan2`, `Module::Conv3d`, ...).
    pub op: String,
    /// Where: the operation's number in the recording and the module path nearest to it.
    pub node: String,
    /// Why it is refused.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.op, self.node, self.why)
    }
}

/// A list of problems, one a line when there are several.
struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => write!(f, " {only}"),
            all => all.iter().try_for_each(|problem| write!(f, "\n  - {problem}")),
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
