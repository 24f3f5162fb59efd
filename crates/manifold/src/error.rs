//! The error type of this crate: what can be wrong with logits, tangent data, objectives and
//! filters. Every message names where the fault is and what to do about it.

/// Why an influence could not be computed.
///
/// Every message names what was wrong, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A probability distribution over fewer than two classes cannot be perturbed.
    #[error("{classes} class(es): the perturbation manifold needs at least 2")]
    TooFewClasses {
        /// Number of classes given.
        classes: usize,
    },
    /// A Jacobian without columns: there is nothing to perturb.
    #[error("the Jacobian has no columns: give at least one coordinate to perturb")]
    NoColumns,
    /// The length of a slice or tensor axis does not match the other arguments.
    #[error("{what} has length {found}, expected {expected}")]
    WrongLength {
        /// The argument.
        what: &'static str,
        /// The accepted lengths.
        expected: String,
        /// The length given.
        found: usize,
    },
    /// NaN or infinity in the data.
    #[error(
        "{value} at index {index} of {what}: no influence is defined there; a network that overflows in single precision may not in double"
    )]
    NonFinite {
        /// The argument.
        what: &'static str,
        /// Index of the first such value in the flat, row-major argument.
        index: usize,
        /// The value.
        value: f64,
    },
    /// The largest logit less the smallest exceeds the range of `f64`.
    #[error(
        "the logits span more than the range of f64 (from {smallest:e} to {largest:e}): rescale the head"
    )]
    LogitSpread {
        /// Smallest logit.
        smallest: f64,
        /// Largest logit.
        largest: f64,
    },
    /// A Gram matrix whose halves differ by more than rounding.
    #[error(
        "the Gram matrix is not symmetric: entries ({row}, {column}) and ({column}, {row}) differ by {difference:e} \
         of the largest entry; give J J^T itself"
    )]
    Asymmetric {
        /// Row of the first such entry.
        row: usize,
        /// Its column.
        column: usize,
        /// Difference relative to the largest entry.
        difference: f64,
    },
    /// A Gram matrix with an eigenvalue below zero by more than rounding.
    #[error(
        "the Gram matrix is not positive semidefinite: its centred form has the eigenvalues {eigenvalue:e} and {largest:e}; \
         give J J^T itself, summed in f64"
    )]
    Indefinite {
        /// Smallest eigenvalue of the centred matrix.
        eigenvalue: f64,
        /// Largest eigenvalue.
        largest: f64,
    },
    /// The objective names a class beyond the number of logits.
    #[error("class {class} of {classes}: classes are counted from 0")]
    ClassOutOfRange {
        /// The class asked for.
        class: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Logits and tangent data, or two blocks of tangent data, have different numbers of classes.
    #[error("{what}: {found} classes, but the tangent data has {expected}")]
    ClassMismatch {
        /// The argument that differs.
        what: &'static str,
        /// Its number of classes.
        found: usize,
        /// The number of classes of the tangent data, or of the first block.
        expected: usize,
    },
    /// A filter argument out of its range.
    #[error("filter argument {name} = {value:e}: it must be {range}")]
    FilterArgument {
        /// Name of the argument.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The range it must lie in.
        range: &'static str,
    },
    /// The authors' numerics were requested for an objective other than -log P of a class.
    #[error(
        "filter paper is the authors' numerics, for -log P objectives only and not for '{objective}': take exact or tikhonov:LAMBDA, \
         or the objective -log P of a class"
    )]
    PaperObjective {
        /// The objective.
        objective: String,
    },
    /// Classes cannot be merged for an objective that depends on all of them.
    #[error(
        "'{objective}' depends on the probability of every class: no classes can be merged for it; leave the tail off, or take \
         -log P of a class or a margin"
    )]
    TailObjective {
        /// The objective.
        objective: String,
    },
    /// The authors' numerics give no bounds when classes are merged.
    #[error(
        "filter paper has no bounds where classes are merged: take exact or tikhonov:LAMBDA, or leave the tail off"
    )]
    TailFilter,
    /// The probability that may be merged is outside [0, 1).
    #[error("a tail of {epsilon}: give the probability that may be merged, at least 0 and below 1")]
    TailShare {
        /// The share given.
        epsilon: f64,
    },
    /// The objective names a class that is merged with others.
    #[error(
        "class {class} is merged with other classes of little probability: linearise for the objective that names it"
    )]
    MergedClass {
        /// The class.
        class: usize,
    },
    /// The objective changes when a constant is added to all logits, but the tangent data do not
    /// contain the derivative of such a common shift.
    #[error(
        "the gradient of '{objective}' in the logits adds up to {sum:e}: a constant added to all logits changes it, and the \
         differences z_k - z_K do not say what perturbations do to that constant; give the Jacobian's K rows (or their Gram \
         matrix), the objective's own gradient as a row, or an objective of the differences of logits; a function of the \
         probabilities is given as SampleObjective::probabilities"
    )]
    CommonShift {
        /// The objective.
        objective: String,
        /// sum_k dh_k.
        sum: f64,
    },
    /// A gradient in the logits whose entries are so small that their sum may be nothing but the
    /// rounding of probabilities.
    #[error(
        "the gradient of '{objective}' in the logits adds up to {sum:e}, which is no more than the rounding of probabilities: whether \
         a constant added to all logits changes it is unknown; give a function of the probabilities as \
         SampleObjective::probabilities, which keeps its digits where the network is confident, or multiply a function of the logits by \
         a number that makes its gradient of the order of one"
    )]
    RoundedGradient {
        /// The objective.
        objective: String,
        /// sum_k dh_k.
        sum: f64,
    },
    /// Text that is not a filter.
    #[error("filter '{text}': {reason}; write exact[:TOL], paper[:EPS[:RANK_EPS]] or tikhonov:LAMBDA")]
    FilterSyntax {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cut on the spectrum that is finer than a Gram matrix resolves.
    #[error(
        "{what} {asked:e} is below {carried:e}, the smallest singular value that a Gram matrix in f64 resolves here: \
         give the Jacobian's rows instead of its Gram matrix, or a larger {what}"
    )]
    BelowGramResolution {
        /// The argument of the filter.
        what: &'static str,
        /// Its value.
        asked: f64,
        /// Smallest value that the Gram matrix resolves.
        carried: f64,
    },
    /// Tensor data of a type in which no rank can be decided.
    #[error("{what} has the type {dtype}: {remedy}")]
    UnsupportedType {
        /// The tensor.
        what: &'static str,
        /// Its type.
        dtype: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// An iterative decomposition did not converge.
    #[error(
        "the {what} did not converge: the data may exceed the range of f64 when squared; rescale the perturbation"
    )]
    NoConvergence {
        /// The decomposition.
        what: &'static str,
    },
    /// An empty list of blocks to merge.
    #[error("no blocks to merge: give at least one")]
    NoBlocks,
    /// An empty list of half-widths.
    #[error("the list of half-widths is empty: give at least one, 0 for single pixels")]
    NoHalfWidths,
    /// A half-width twice in a list.
    #[error("the half-width {half_width} is listed twice: give each once")]
    RepeatedHalfWidth {
        /// The half-width.
        half_width: usize,
    },
    /// A window larger than the image.
    #[error(
        "a window of half-width {half_width} is {0} x {0} pixels, more than the image of {height} x {width}: give half-widths up to \
         {1}, or score the whole image",
        half_width.saturating_mul(2).saturating_add(1),
        (height.max(width) - 1) / 2
    )]
    WindowTooLarge {
        /// The half-width.
        half_width: usize,
        /// Height of the image.
        height: usize,
        /// Width of the image.
        width: usize,
    },
    /// A window position outside the map.
    #[error("there is no window at channel, row, column {centre:?}: the map has {map:?}")]
    NoSuchWindow {
        /// Channel, row, column.
        centre: [usize; 3],
        /// Number of channels, rows and columns of the map.
        map: [usize; 3],
    },
    /// The objective is given by its gradient over the whole perturbation, which says nothing about
    /// a part of the image.
    #[error(
        "the objective '{objective}' has no gradient in the logits, which a part of the image needs: take a function of the probabilities"
    )]
    NoWindows {
        /// The objective.
        objective: String,
    },
    /// A device could not return its data.
    #[error("reading {what} from the device failed: {message}")]
    ReadBack {
        /// The tensors.
        what: &'static str,
        /// The device's error message.
        message: String,
    },
    /// The error of one sample of a batch.
    #[error("sample {index}: {source}")]
    Sample {
        /// Index of the sample in the batch.
        index: usize,
        /// What is wrong with it.
        source: Box<Self>,
    },
}

/// The error for a slice or axis of the wrong length.
pub(crate) fn wrong_length(what: &'static str, expected: impl ToString, found: usize) -> Error {
    Error::WrongLength { what, expected: expected.to_string(), found }
}

/// Refuses NaN and infinity, naming the first.
pub(crate) fn check_finite(what: &'static str, values: impl IntoIterator<Item = f64>) -> Result<(), Error> {
    match values.into_iter().enumerate().find(|(_, value)| !value.is_finite()) {
        Some((index, value)) => Err(Error::NonFinite { what, index, value }),
        None => Ok(()),
    }
}
