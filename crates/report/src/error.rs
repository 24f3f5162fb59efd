//! What can go wrong with pictures.

/// Why a picture could not be drawn or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A plot of nothing.
    #[error("there is nothing to draw: the networks have no layers")]
    NoBars,
    /// A layer of another size than its shape.
    #[error("the layer '{title}' has {found} numbers, its shape asks for {expected}")]
    Layer {
        /// Its title.
        title: String,
        /// How many numbers there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A drawing that could not become dots.
    #[error("the picture could not be drawn: {0}")]
    Drawing(String),
    /// The encoder refused.
    #[error("the picture could not be encoded: {0}")]
    Encoding(#[from] png::EncodingError),
    /// Bytes that are no PNG of labels.
    #[error("no PNG of labels: {0}")]
    Labels(String),
}
