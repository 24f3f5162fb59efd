//! The error type of this crate.

/// Why a picture could not be drawn or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is nothing to plot.
    #[error("there is nothing to draw: the networks have no layers")]
    NoBars,
    /// The number of values of a layer does not match its shape.
    #[error("the layer '{title}' has {found} values, but its shape needs {expected}")]
    Layer {
        /// Its title.
        title: String,
        /// Number of values given.
        found: usize,
        /// Number of values expected.
        expected: usize,
    },
    /// A drawing could not be rendered to pixels.
    #[error("the picture could not be drawn: {0}")]
    Drawing(String),
    /// An error of the PNG encoder.
    #[error("the picture could not be encoded: {0}")]
    Encoding(#[from] png::EncodingError),
    /// The bytes are not a PNG of labels.
    #[error("not a PNG of labels: {0}")]
    Labels(String),
}
