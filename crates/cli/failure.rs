//! Errors of the program: one message for people, one exit code for scripts.

use std::fmt;
use std::io;

/// The exit code of every error, the same as clap's for usage errors.
pub(crate) const EXIT_CODE: u8 = 2;

/// Why the program stops.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The reader of our output closed the pipe; not an error.
    BrokenPipe,
    /// A message that the user can act on.
    Message(String),
    /// A signal has stopped the run.
    Stopped {
        /// The number of the signal.
        signal: u8,
        /// What was kept of the run, in words; empty if nothing was.
        kept: String,
    },
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Message(message.into())
    }

    /// This failure with a remark appended.
    pub(crate) fn with(self, remark: &str) -> Self {
        match self {
            Self::BrokenPipe => Self::BrokenPipe,
            Self::Message(message) => Self::Message(format!("{message}; {remark}")),
            Self::Stopped { signal, .. } => Self::Stopped { signal, kept: format!("; {remark}") },
        }
    }

    /// The exit code of the program; for signals, the code that shells use.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BrokenPipe => 0,
            Self::Message(_) => EXIT_CODE,
            Self::Stopped { signal, .. } => 128 + signal,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenPipe => f.write_str("the output pipe was closed"),
            Self::Message(message) => f.write_str(message),
            Self::Stopped { kept, .. } => write!(f, "stopped by a signal{kept}"),
        }
    }
}

/// Errors while writing to the terminal or a pipe.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::Message(format!("standard output: {error}"))
        }
    }
}

macro_rules! with_own_words {
    ($($error:ty),+) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Message(error.to_string())
            }
        }
    )+};
}

with_own_words!(influence::Error, influence_data::Error, influence_onnx::Error, influence_zoo::Error);

pub(crate) type Result<T> = std::result::Result<T, Failure>;
