//! The errors between a file and its graph; the variants name the file or node, and the remedy.

use std::fmt;
use std::path::PathBuf;

/// Why a file gives no graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be read.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The file is not an ONNX file, or is damaged.
    #[error("{}: {why}{}", file.display(), AtByte(*offset))]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// The offset of the byte at which the fault shows, where it is known.
        offset: Option<u64>,
        /// What is wrong there.
        why: String,
    },
    /// The file uses a version of the operator set that is not supported.
    #[error(
        "{}: it uses ONNX operator set {found}, and {oldest} to {newest} are known here; \
         export it with opset_version={newest}, or convert it with onnx.version_converter",
        file.display()
    )]
    Opset {
        /// The file.
        file: PathBuf,
        /// The version that it uses.
        found: i64,
        /// The oldest version that is known.
        oldest: i64,
        /// The newest version that is known.
        newest: i64,
    },
    /// The network does not have exactly one input of floats with the samples on its first axis.
    #[error("the network's input: {why}; {remedy}")]
    Input {
        /// What the network has instead.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// It is ambiguous which output holds the logits, or there is none of the given name.
    #[error("{why}; {remedy}")]
    Output {
        /// What the network has.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A name to be frozen matches no initializer that would be perturbed.
    #[error("no trainable initializer is called {pattern}; {}", Near(near))]
    Frozen {
        /// The name that was given.
        pattern: String,
        /// Names that begin like it.
        near: Vec<String>,
    },
    /// The network has nodes that cannot be imported; all are listed at once.
    #[error("the network cannot be imported:{}", ProblemList(.0))]
    Unsupported(Vec<Problem>),
    /// The graph is not one of a classifier.
    #[error(transparent)]
    Graph(#[from] influence_autodiff::Error),
}

/// A node that cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The node's name; for a node without a name, that of its first result.
    pub node: String,
    /// The operator, with its domain where that is not ONNX's own.
    pub op: String,
    /// The version of the operator set that the file uses.
    pub opset: i64,
    /// Why it is refused.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, op, opset, why, remedy } = self;
        write!(f, "{op} (opset {opset}) at \"{node}\": {why}; {remedy}")
    }
}

/// The offset of a byte, in brackets.
struct AtByte(Option<u64>);

impl fmt::Display for AtByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " (offset {offset})"))
    }
}

/// Names to suggest instead of one that does not exist.
struct Near<'a>(&'a [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("the network has none"),
            names => write!(f, "the nearest are {}", names.join(", ")),
        }
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

/// The remedy for a node that does not fit its operands.
const CHECK: &str = "check the file with onnx.checker.check_model, or export it again";

/// Why one node is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl Refusal {
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }

    /// The refusal in a file with a batch of 1: a mismatch may be due to that batch, and gets
    /// another remedy.
    pub(crate) fn of_one_sample(self) -> Self {
        let remedy = "the file has a batch of 1 that cannot be read as any batch there: export with a \
                      dynamic first axis (dynamic_axes or dynamic_shapes)";
        if self.remedy == CHECK { Self::new(self.why, remedy) } else { self }
    }
}

/// Operands that do not fit are a fault of the file: an exporter would not write them.
impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::new(why, CHECK)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::from(why.to_owned())
    }
}

impl From<influence_autodiff::Error> for Refusal {
    fn from(error: influence_autodiff::Error) -> Self {
        let why = match error {
            influence_autodiff::Error::Unsupported(problems) => {
                problems.into_iter().map(|problem| problem.why).collect::<Vec<_>>().join("; ")
            }
            other => other.to_string(),
        };
        Self::from(why)
    }
}
