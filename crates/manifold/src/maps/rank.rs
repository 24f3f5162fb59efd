//! A certificate of full rank: a window of c columns has rank min(c, K-1), with no singular value
//! near the tolerance. 1 / tr M^-1 is a lower bound of the smallest eigenvalue of the Gram matrix
//! M, and tr M an upper bound of the largest.
//!
//! The rank of a window without the certificate is decided by its own singular values.

use super::frame::{Frame, FrameRows};
use super::grams::{WindowGrams, window_sums};
use super::lanes::{LANES, cholesky, inverse_trace, packed, trace};
use super::{Layout, Windows};
use crate::precision::{AMBIGUOUS_FACTOR, Noise};

/// Smallest ratio of eigenvalues that a Gram matrix in `f64` can certify: several thousand
/// roundings. It is the square of a relative singular value of 1e-6.
const GRAM_LIMIT: f64 = 1e-12;

/// The lower limit of the smallest eigenvalue in a certificate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threshold {
    /// Fraction of the largest eigenvalue.
    relative: f64,
    /// Fraction of the squared norm before centring.
    floor: f64,
}

impl Threshold {
    /// The limit for a relative tolerance of the rank and the noise of the rows. The margin
    /// [`AMBIGUOUS_FACTOR`] keeps a certified window from being ambiguous.
    pub(super) fn new(tolerance: f64, noise: Noise) -> Self {
        let relative = (AMBIGUOUS_FACTOR * tolerance).max(noise.resolution());
        let floor = (AMBIGUOUS_FACTOR * noise.floor()).max(noise.resolution());
        Self { relative: (relative * relative).max(GRAM_LIMIT), floor: floor * floor }
    }

    fn passed(&self, trace: f64, inverse_trace: f64, norm: f64) -> bool {
        inverse_trace.recip() > self.relative * trace + self.floor * norm
    }
}

/// Whether each window is certified to have full rank.
pub(super) fn certified(frame: &Frame, layout: Layout, s: usize, threshold: Threshold) -> Vec<bool> {
    let (centred, n) = (frame.centred(), frame.size());
    let windows = Windows::new(layout, s);
    let mut norms = vec![0.0; windows.count()];
    window_sums(&frame.given_squares(), layout.shape, layout.channels, s, &mut norms);
    let mut certified = vec![false; windows.count()];
    let wide = |at: usize| windows.columns(at) >= n;
    // Windows of K-1 columns or more: M is the n x n Gram matrix of the centred rows.
    if (0..windows.count()).any(wide) {
        let grams = WindowGrams::new(&centred, n, layout.shape, layout.channels, s);
        let (mut matrices, mut column) = (Vec::new(), Vec::new());
        for at in (0..windows.count()).step_by(LANES) {
            grams.load(at, &mut matrices);
            let traces = trace(&matrices, n);
            cholesky(&mut matrices, n);
            let inverses = inverse_trace(&matrices, n, &mut column);
            for at in at..(at + LANES).min(windows.count()) {
                certified[at] = threshold.passed(traces[at % LANES], inverses[at % LANES], norms[at]);
            }
        }
    }
    // Windows of fewer columns: M is the c x c Gram matrix of the columns, which has the same
    // non-zero eigenvalues.
    let mut indices = Vec::new();
    for at in (0..windows.count()).filter(|at| !wide(*at)) {
        windows.indices(at, &mut indices);
        certified[at] = narrow(&centred, &indices, threshold, norms[at]);
    }
    certified
}

/// The certificate for a window of fewer than K-1 columns, from the Gram matrix of its columns.
fn narrow(centred: &FrameRows, indices: &[usize], threshold: Threshold, norm: f64) -> bool {
    let c = indices.len();
    let mut gram = vec![[0.0]; packed(c)];
    for row in centred.values.chunks_exact(centred.columns) {
        for (i, &a) in indices.iter().enumerate() {
            for (j, &b) in indices[..=i].iter().enumerate() {
                gram[packed(i) + j][0] += row[a] * row[b];
            }
        }
    }
    let sum = trace(&gram, c);
    cholesky(&mut gram, c);
    threshold.passed(sum[0], inverse_trace(&gram, c, &mut Vec::new())[0], norm)
}
