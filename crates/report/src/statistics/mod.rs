//! Statistics: how well a score ranks bad images first, whether two samples differ, and whether two
//! scores order images in the same way.
//!
//! All functions take slices and return numbers. Scores may be infinite, which ranks first or last;
//! NaN is not a score, and passing it is an error of the caller.

mod curves;
mod normal;
mod percentiles;
mod random;
mod ranks;
mod samples;

pub use curves::{Areas, CurvePoint, Ranking};
pub use percentiles::{percentile, quartiles};
pub use random::Random;
pub use ranks::{ranks, spearman};
pub use samples::{MannWhitney, Smirnov, mann_whitney, median_difference, smirnov};

/// A number with its bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value of the sample itself.
    pub value: f64,
    /// The 2.5th percentile over the resamples.
    pub low: f64,
    /// The 97.5th percentile over the resamples.
    pub high: f64,
}

/// Resamples per interval; its ends are then accurate to about a tenth of its width.
pub const RESAMPLES: usize = 1000;

impl Estimate {
    /// The central 95 % of the resampled values.
    pub(crate) fn new(value: f64, mut resampled: Vec<f64>) -> Self {
        resampled.sort_by(f64::total_cmp);
        Self { value, low: percentile(&resampled, 2.5), high: percentile(&resampled, 97.5) }
    }
}
