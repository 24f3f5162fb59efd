//! The errors between a Burn module and its Jacobian: one type, whose variants name the node or
//! tensor and the remedy.

use std::fmt;

use crate::memory::Memory;

/// Errors of capture, planning and execution.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's own code panicked, or Burn refused what it did, while it was being recorded.
    #[error(
        "the model could not be captured: its forward function was recorded on a synthetic batch of samples of the given shape \
         and failed: {message} (last operation recorded: {last})"
    )]
    CaptureFailed {
        /// The panic message or Burn's reason.
        message: String,
        /// The last operation that was recorded.
        last: String,
    },
    /// The model has operations that this engine cannot differentiate; all are listed at once.
    #[error("the model cannot be differentiated:{}", ProblemList(.0))]
    Unsupported(Vec<Problem>),
    /// One sample's result depends on another sample of its batch.
    #[error(
        "samples are coupled across the batch at {node}: its result for one sample depends on other samples, or on their number; \
         use operations that treat each sample on its own (for example batch normalisation in evaluation)"
    )]
    BatchCoupled {
        /// The first node at which it shows.
        node: String,
    },
    /// The model can be recorded, but fails when it is run on its own device.
    #[error(
        "the model's own forward function failed on synthetic samples of the given shape: {message}; \
         `Graph::record` records a graph without running the model, and without the comparison"
    )]
    ForwardFailed {
        /// The panic message.
        message: String,
    },
    /// The model's logits of a sample depend on whether it comes alone or in a batch.
    #[error(
        "the model's own forward function gives class {class} of a synthetic sample the logit {alone} when the sample comes alone, and \
         {together} in a batch of {samples}: make the logits of a sample independent of the other samples and of their number"
    )]
    BatchDependent {
        /// The class.
        class: usize,
        /// The logit when the sample comes alone.
        alone: f64,
        /// The number of samples in the batch.
        samples: usize,
        /// The logit of the same sample in the batch.
        together: f64,
    },
    /// The engine's logits are not those of the model.
    #[error(
        "{engine} gives {found} where the model's own forward function gives {expected} (synthetic sample {sample}, class {class}), \
         first at {node}; {remedy}; `Check::Off` with a reason leaves the comparison out"
    )]
    Disagrees {
        /// The engine.
        engine: String,
        /// The first node that differs.
        node: String,
        /// The synthetic sample.
        sample: usize,
        /// The class.
        class: usize,
        /// The model's logit.
        expected: f64,
        /// The engine's logit.
        found: f64,
        /// What to do.
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
    /// The network ends in a softmax: its outputs are probabilities, for which the measure would be
    /// wrong.
    #[error(
        "the network's outputs are probabilities (rows >= 0 that sum to 1), not logits; remove the final softmax \
         (a final log_softmax is fine: it gives the same influence)"
    )]
    Probabilities,
    /// The network's outputs lie in [0, 1] by construction, one class independently of the others.
    #[error(
        "the network's outputs lie in [0, 1] for every input, because of {node}: they are probabilities of one class each, not \
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
    /// The device lacks a type or a function, or failed.
    #[error("{0}")]
    Device(String),
    /// One sample needs more memory than a run may take.
    #[error(
        "one sample takes {needed} with the weights, but the run may take {limit}: give at least {needed}"
    )]
    Memory {
        /// The memory that one sample takes, with the weights.
        needed: Memory,
        /// The memory that the run may take.
        limit: Memory,
    },
    /// A kernel of the backend failed at run time.
    #[error("{node}: the backend failed: {message}")]
    Execution {
        /// The node and its operation.
        node: String,
        /// The backend's message.
        message: String,
    },
}

/// One reason why a model cannot be differentiated, with the node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The operation, as Burn names it (`Float::ArcTan2`, `Module::Conv3d`, ...).
    pub op: String,
    /// The operation's number in the recording, or the node's in the graph, and the path of the
    /// module that was last entered before it.
    pub node: String,
    /// Why it is refused.
    pub why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.op, self.node, self.why)
    }
}

/// A list of problems, one per line where there are several.
struct ProblemList<'a>(&'a [Problem]);

impl fmt::Display for ProblemList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => write!(f, " {only}"),
            all => all.iter().try_for_each(|problem| write!(f, "\n  - {problem}")),
        }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
