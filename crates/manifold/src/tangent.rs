//! Tangent data of one sample: C J = V Sigma W^T, the centred Jacobian of the logits, C = I - 1 1^T
//! / K.
//!
//! Every filter needs only V (K x m) and Sigma. W is never formed: M = J J^T determines V and
//! Sigma, and the direction in omega is J^T c with a K-vector c. From rows, V and Sigma come from a
//! QR factorisation of J^T, which preserves small singular values; from a Gram matrix, from its
//! symmetric eigendecomposition, which preserves them down to sqrt(u) sigma_1.
//!
//! Only differences of logits matter: K-1 rows z_k - z_K are treated as K rows of which the last is
//! zero. The decompositions are computed in the complement of 1, so V is orthogonal to 1 even where
//! a singular value is mere rounding.

use faer::{Mat, MatRef};

use crate::dense::{qr_factor, symmetric_eigen, thin_svd};
use crate::error::{check_finite, wrong_length};
use crate::precision::{AMBIGUOUS_FACTOR, Carrier, Noise};
use crate::reflection::Reflection;
use crate::{Error, Row, RowPrecision, Scalar};

/// Columns of J that are factorised at once: 32 KiB of memory per class, however wide J is. Each
/// block is stacked on K rows that are factorised again, so that it must be several times as large.
const BLOCK_COLUMNS: usize = 4096;
/// Largest asymmetry of a Gram matrix, relative to its largest entry. Sums in `f64` are symmetric
/// to 1e-13; a larger difference is a mistake of the caller.
pub const GRAM_ASYMMETRY: f64 = 1e-8;
/// Largest negative eigenvalue of a Gram matrix, relative to its largest one, that counts as
/// rounding and is set to 0.
pub const GRAM_INDEFINITENESS: f64 = 1e-8;

/// The tangent data of one sample, reduced to V and Sigma.
///
/// # Shapes
///
/// J = dz / domega is K x p: one row per class, one column per perturbed coordinate. Only V (K x m)
/// and Sigma (m), m <= min(p, K-1), are kept.
#[derive(Debug, Clone)]
pub struct Tangent {
    /// V: orthonormal columns, all orthogonal to 1.
    pub(crate) basis: Mat<f64>,
    /// Sigma, descending.
    pub(crate) singular: Vec<f64>,
    /// |J|, the Frobenius norm before centring.
    norm: f64,
    pub(crate) noise: Noise,
    /// m = J^T 1 / K, which centring subtracts: known from K rows, not from K-1 differences.
    common: Option<Row>,
}

/// The rank of the centred Jacobian, and whether a nearby tolerance would give another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RankDecision {
    pub(crate) rank: usize,
    /// The rank at ten times the tolerance, or without the directions below the noise if that is
    /// fewer.
    pub(crate) fewer: usize,
    /// The rank at a tenth of the tolerance.
    pub(crate) more: usize,
    pub(crate) ambiguous: bool,
}

impl Tangent {
    /// The tangent of the rows of J, row-major: K rows dz_k, or K-1 rows d(z_k - z_K). The length
    /// decides which.
    ///
    /// Rows in `f32` are summed in `f64`.
    ///
    /// # Shapes
    ///
    /// `rows`: [K, p] or [K-1, p], K = `classes`, p = `columns`.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, no columns, another length, NaN or infinity.
    pub fn from_rows<T: Scalar>(rows: &[T], classes: usize, columns: usize) -> Result<Self, Error> {
        check_classes(classes)?;
        if columns == 0 {
            return Err(Error::NoColumns);
        }
        check_rows(rows.len(), classes, columns)?;
        check_finite("the Jacobian", rows.iter().map(|value| value.to_f64()))?;
        // In units of a power of two: squares of the largest entries stay in range, and nothing is
        // rounded.
        let scale = power_of_two_below(rows.iter().fold(0.0, |largest, v| v.to_f64().abs().max(largest)));
        let (factor, norm) = centred_factor(rows, classes, columns, 1.0 / scale);
        let noise = Noise { precision: T::PRECISION, carrier: Carrier::Rows };
        let mut tangent = Self::from_factor(factor.as_ref(), scale, norm, noise, columns)?;
        // K rows also say how a common shift of all logits moves, which centring subtracts.
        if rows.len() == classes * columns {
            let mut means = vec![0.0; columns];
            for row in rows.chunks_exact(columns) {
                means.iter_mut().zip(row).for_each(|(mean, x)| *mean += x.to_f64() / classes as f64);
            }
            tangent.common = Row::from_rows(rows, classes, columns, &means).ok();
        }
        Ok(tangent)
    }

    /// The tangent of a Gram matrix M = J J^T, summed in `f64`: K x K, or (K-1) x (K-1) of the rows
    /// d(z_k - z_K). The length decides which.
    ///
    /// `rows` is the precision of the rows from which it was summed.
    ///
    /// # Shapes
    ///
    /// `gram`: [K, K] or [K-1, K-1], K = `classes`.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, another length, NaN or infinity, a matrix that is not symmetric or
    /// has a negative eigenvalue beyond rounding.
    pub fn from_gram(gram: &[f64], classes: usize, rows: RowPrecision) -> Result<Self, Error> {
        check_classes(classes)?;
        let size = gram_size(gram.len(), classes)?;
        check_finite("the Gram matrix", gram.iter().copied())?;
        let largest = gram.iter().fold(0.0_f64, |largest, v| v.abs().max(largest));
        check_symmetric(gram, size, largest)?;
        let root = power_of_two_below(largest.sqrt());
        let (centred, means, trace) = centred_gram(gram, size, classes, 1.0 / root);
        let common = if size == classes { common_of_gram(&means, root).ok() } else { None };
        let reflection = Reflection::of(&vec![1.0; classes]);
        // H (C M C) H^T without its first row and column: C M C on the complement of 1.
        let half = reflection.complement(centred.as_ref());
        let (values, vectors) = symmetric_eigen(reflection.complement(half.transpose()).as_ref())?;
        let (first, last) = (values[0], values[classes - 2]);
        if last < -GRAM_INDEFINITENESS * first.abs().max(trace) {
            return Err(Error::Indefinite { eigenvalue: last * root * root, largest: first * root * root });
        }
        let noise = Noise { precision: rows, carrier: Carrier::Gram };
        let singular = values.iter().map(|v| v.max(0.0).sqrt() * root).collect();
        let basis = reflection.lift(vectors.as_ref());
        Ok(Self { basis, singular, norm: trace.sqrt() * root, noise, common })
    }

    /// The tangent of several blocks of coordinates together: their columns side by side, their
    /// Gram matrices added.
    ///
    /// # Errors
    ///
    /// No blocks; blocks of different numbers of classes.
    pub fn merged(blocks: &[Self]) -> Result<Self, Error> {
        let [first, others @ ..] = blocks else { return Err(Error::NoBlocks) };
        let classes = first.classes();
        if let Some(other) = others.iter().find(|other| other.classes() != classes) {
            return Err(Error::ClassMismatch { what: "a block", found: other.classes(), expected: classes });
        }
        let largest = blocks.iter().map(Self::largest).fold(0.0, f64::max);
        let scale = power_of_two_below(largest);
        // V Sigma of a block spans the same Gram matrix as its Jacobian, so the m columns of each
        // block, stacked, stand in for its p columns.
        let columns: Vec<(&Self, usize)> =
            blocks.iter().flat_map(|block| (0..block.singular.len()).map(move |j| (block, j))).collect();
        let stacked = Mat::from_fn(columns.len(), classes, |i, k| {
            let (block, j) = columns[i];
            block.basis[(k, j)] * (block.singular[j] / scale)
        });
        let noise = others.iter().fold(first.noise, |noise, block| noise.worse(block.noise));
        let norm = blocks.iter().fold(0.0_f64, |sum, block| sum.hypot(block.norm / scale));
        let merged = Self::from_factor(qr_factor(stacked).as_ref(), scale, norm, noise, columns.len())?;
        let rows: Option<Vec<&Row>> = blocks.iter().map(Self::common).collect();
        Ok(Self { common: rows.map(|rows| Row::concatenated(&rows)), ..merged })
    }

    /// These data with another precision, e.g. for rows passed as `f64` that a network computed in
    /// `f32`.
    #[must_use]
    pub fn with_precision(mut self, rows: RowPrecision) -> Self {
        self.noise.precision = rows;
        self
    }

    /// The number of classes, K.
    pub fn classes(&self) -> usize {
        self.basis.nrows()
    }

    /// The precision of the rows from which these data come.
    pub fn precision(&self) -> RowPrecision {
        self.noise.precision
    }

    /// Singular values of the centred Jacobian C J, descending; at most min(p, K-1) of them.
    pub fn singular_values(&self) -> &[f64] {
        &self.singular
    }

    /// Default relative tolerance by which [`Filter::Exact`](crate::Filter::Exact) decides the
    /// rank.
    pub fn default_tolerance(&self) -> f64 {
        self.noise.tolerance()
    }

    /// The gradient m = J^T 1 / K of the mean logit, if these data contain it.
    pub(crate) fn common(&self) -> Option<&Row> {
        self.common.as_ref()
    }

    /// The largest singular value sigma_1, or 0 if there are none.
    pub(crate) fn largest(&self) -> f64 {
        self.singular.first().copied().unwrap_or(0.0)
    }

    /// The size of what was rounded: sigma_1 and the common part that centring subtracted.
    fn rounded(&self) -> f64 {
        self.common().map_or(0.0, Row::norm).hypot(self.largest())
    }

    /// Whether a rank of 0 may be wrong: directions may have been lost in the rounding of the part
    /// that all rows have in common.
    pub(crate) fn may_be_drowned(&self) -> bool {
        self.rounded() > 0.0
    }

    /// Absolute error of the entries of the j-th column of V.
    pub(crate) fn direction_error(&self, j: usize) -> f64 {
        self.noise.direction_error(self.singular[j] / self.rounded())
    }

    /// The error of X = V Sigma from rows, divided by sigma_1.
    pub(crate) fn row_error(&self) -> f64 {
        self.precision().unit_roundoff() * (self.rounded() / self.largest())
    }

    /// How many singular values exceed `tolerance` sigma_1, or the rounding of centring if that is
    /// larger.
    pub(crate) fn rank(&self, tolerance: f64) -> RankDecision {
        let threshold = (tolerance * self.largest()).max(self.noise.floor() * self.norm);
        let above = |limit: f64| self.singular.iter().take_while(|s| **s > limit).count();
        let noise = self.noise.resolution() * self.rounded();
        let rank = above(threshold);
        let more = above(threshold / AMBIGUOUS_FACTOR);
        let fewer = above((threshold * AMBIGUOUS_FACTOR).max(noise));
        let drowned = rank == 0 && self.may_be_drowned();
        RankDecision { rank, fewer, more, ambiguous: fewer < rank || rank < more || drowned }
    }

    /// V and Sigma of `scale` R^T, where R is upper trapezoidal with K columns.
    fn from_factor(
        factor: MatRef<'_, f64>,
        scale: f64,
        norm: f64,
        noise: Noise,
        columns: usize,
    ) -> Result<Self, Error> {
        let reflection = Reflection::of(&vec![1.0; factor.ncols()]);
        let svd = thin_svd(reflection.complement(factor.transpose()).as_ref())?;
        let kept = columns.min(svd.values.len());
        let basis = reflection.lift(svd.left.get(.., ..kept));
        let singular: Vec<f64> = svd.values[..kept].iter().map(|s| s * scale).collect();
        check_finite("the singular values of the Jacobian", singular.iter().copied())?;
        Ok(Self { basis, singular, norm: norm * scale, noise, common: None })
    }
}

/// R (min(p, K) x K) with R^T R = s^2 C J J^T C, and the Frobenius norm of s J.
///
/// The columns of J are processed in blocks: R of the blocks so far is stacked on the transposed,
/// centred next block, and the QR of the stack gives the new R. So the p x K matrix is never in
/// memory as a whole.
fn centred_factor<T: Scalar>(rows: &[T], classes: usize, columns: usize, s: f64) -> (Mat<f64>, f64) {
    let given = rows.len() / columns;
    let block = BLOCK_COLUMNS.max(4 * classes);
    let mut factor = Mat::<f64>::zeros(0, classes);
    let mut squares = 0.0;
    for start in (0..columns).step_by(block) {
        let width = block.min(columns - start);
        let above = factor.nrows();
        let mut stacked = Mat::zeros(above + width, classes);
        stacked.get_mut(..above, ..).copy_from(&factor);
        let mut means = vec![0.0; width];
        // The missing K-th row of differences stays zero, but counts in the mean over K classes.
        for k in 0..given {
            let row = &rows[k * columns + start..][..width];
            let target = &mut stacked.col_as_slice_mut(k)[above..];
            for ((value, target), mean) in row.iter().zip(target).zip(&mut means) {
                *target = value.to_f64() * s;
                squares += *target * *target;
                *mean += *target;
            }
        }
        means.iter_mut().for_each(|mean| *mean /= classes as f64);
        for k in 0..classes {
            let target = &mut stacked.col_as_slice_mut(k)[above..];
            target.iter_mut().zip(&means).for_each(|(target, mean)| *target -= mean);
        }
        factor = qr_factor(stacked);
    }
    (factor, squares.sqrt())
}

/// C M C s^2, the means of the rows of M s^2, and the trace of M s^2. A (K-1) x (K-1) matrix is
/// extended by a last row and column of zeros.
fn centred_gram(gram: &[f64], size: usize, classes: usize, s: f64) -> (Mat<f64>, Vec<f64>, f64) {
    let entry = |i: usize, j: usize| {
        if i < size && j < size {
            0.5 * (gram[i * size + j] * s * s + gram[j * size + i] * s * s)
        } else {
            0.0
        }
    };
    let count = classes as f64;
    let means: Vec<f64> =
        (0..classes).map(|i| (0..classes).map(|j| entry(i, j)).sum::<f64>() / count).collect();
    let mean = means.iter().sum::<f64>() / count;
    let centred = Mat::from_fn(classes, classes, |i, j| entry(i, j) - means[i] - means[j] + mean);
    (centred, means, (0..size).map(|i| entry(i, i)).sum::<f64>().max(0.0))
}

/// The row m = J^T 1 / K from the means of the rows of M / `root`^2: J m is these means, |m|^2
/// their mean.
fn common_of_gram(means: &[f64], root: f64) -> Result<Row, Error> {
    let classes = means.len();
    let norm = (means.iter().sum::<f64>() / classes as f64).max(0.0).sqrt();
    let unit = Row::from_products(means, classes, norm)?;
    Ok(unit.in_units(root))
}

/// The largest power of two up to `value`, within 2^-1000 .. 2^1000; 1 for 0. Multiplying by it or
/// its inverse is exact.
fn power_of_two_below(value: f64) -> f64 {
    if value > 0.0 { value.log2().floor().clamp(-1000.0, 1000.0).exp2() } else { 1.0 }
}

/// Refuses fewer than two classes.
fn check_classes(classes: usize) -> Result<(), Error> {
    if classes < 2 { Err(Error::TooFewClasses { classes }) } else { Ok(()) }
}

/// Checks that the length is K p or (K-1) p.
fn check_rows(found: usize, classes: usize, columns: usize) -> Result<(), Error> {
    let (all, differences) = (classes.checked_mul(columns), (classes - 1).checked_mul(columns));
    if Some(found) == all || Some(found) == differences {
        return Ok(());
    }
    Err(wrong_length("the Jacobian", format!("{classes} or {} rows of {columns}", classes - 1), found))
}

/// K or K-1, whichever has this length as its square.
fn gram_size(found: usize, classes: usize) -> Result<usize, Error> {
    let fits = |size: &usize| size.checked_mul(*size) == Some(found);
    let expected = || format!("{classes} x {classes} or {0} x {0}", classes - 1);
    [classes, classes - 1]
        .into_iter()
        .find(fits)
        .ok_or_else(|| wrong_length("the Gram matrix", expected(), found))
}

/// Checks that the two halves of the matrix agree up to rounding.
fn check_symmetric(gram: &[f64], size: usize, largest: f64) -> Result<(), Error> {
    for row in 0..size {
        for column in 0..row {
            let difference =
                (gram[row * size + column] / largest - gram[column * size + row] / largest).abs();
            if difference > GRAM_ASYMMETRY {
                return Err(Error::Asymmetric { row, column, difference });
            }
        }
    }
    Ok(())
}
