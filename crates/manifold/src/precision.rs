//! The precision of tangent data: unit roundoff u = 2^-b for b significant bits, and the tolerances
//! that follow from it.
//!
//! Rows of a Jacobian resolve singular values down to about u sigma_1. A Gram matrix J J^T contains
//! their squares, so in `f64` it resolves them only down to sqrt(u) sigma_1, whatever the precision
//! of the rows. The constants and their reasons are in the repository, in `docs/numerics.md`.

/// Default relative tolerance of the rank for rows in `f64`. Nine digits above the rounding of the
/// factorisation, which leaves room for the rounding of a deep network.
pub const TOLERANCE_F64: f64 = 1e-7;
/// Default relative tolerance of the rank for rows in `f32` with sums in `f64`: 170 roundoffs,
/// above the noise of such rows, 1e-7 to 1e-6 sigma_1.
pub const TOLERANCE_F32: f64 = 1e-5;
/// Default relative tolerance of the rank for rows in `f16`: 100 roundoffs. A rank from `f16` is a
/// rough one.
pub const TOLERANCE_F16: f64 = 5e-2;
/// Default relative tolerance of the rank for a Gram matrix of `f64` rows. The rounding of the
/// matrix looks like singular values of 2e-8 to 1e-7 sigma_1; a smaller tolerance counts them.
pub const TOLERANCE_GRAM_F64: f64 = 1e-6;
/// Smallest singular value, relative to the largest, that a Gram matrix in `f64` resolves: a little
/// above sqrt(2 u).
pub const GRAM_RESOLUTION: f64 = 2e-8;
/// Roundoffs, relative to the largest singular value, below which singular values of rows are
/// noise: the rounding of a K x p factorisation for K up to 1000.
pub const NOISE_ROUNDOFFS: f64 = 100.0;
/// Roundoffs, relative to the norm of J before centring, that centring can turn into a singular
/// value. Without this floor, rows that differ only in rounding would have rank 1 instead of 0.
const CENTRING_ROUNDOFFS: f64 = 4.0;
/// Roundings that an entry is assumed to contain, of decomposition and elimination together. With
/// one instead of four, 2 of 10 590 adversarial cases passed with up to 2.6 times the allowed
/// error.
pub(crate) const ROUNDINGS: f64 = 4.0;
/// A singular value within this factor of the tolerance makes the rank ambiguous.
pub const AMBIGUOUS_FACTOR: f64 = 10.0;

/// The precision in which the rows of a Jacobian were computed. From it follow the tolerance of the
/// rank and what counts as noise.
///
/// Sums of their products are in `f64` whatever the rows are: a Gram matrix summed in `f32` decides
/// no rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowPrecision {
    /// IEEE half precision, 11 bits.
    F16,
    /// IEEE single precision, 24 bits.
    F32,
    /// IEEE double precision, 53 bits.
    F64,
}

impl RowPrecision {
    /// The unit roundoff u = 2^-b, the largest relative error of one rounding.
    pub const fn unit_roundoff(self) -> f64 {
        match self {
            Self::F16 => 1.0 / 2_048.0,
            Self::F32 => 1.0 / 16_777_216.0,
            Self::F64 => f64::EPSILON / 2.0,
        }
    }

    /// Default relative tolerance of the rank for rows of this precision.
    pub const fn tolerance(self) -> f64 {
        match self {
            Self::F16 => TOLERANCE_F16,
            Self::F32 => TOLERANCE_F32,
            Self::F64 => TOLERANCE_F64,
        }
    }

    /// Relative error from which a value counts as ambiguous: six digits are required of `f64`,
    /// three of `f32`, one of `f16`.
    pub const fn ambiguous_error(self) -> f64 {
        match self {
            Self::F16 => 1e-1,
            Self::F32 => 1e-3,
            Self::F64 => 1e-6,
        }
    }
}

/// A type in which rows may be given: `f32` or `f64`.
pub trait Scalar: Copy + sealed::Sealed {
    /// The precision of rows of this type.
    const PRECISION: RowPrecision;

    /// The value in `f64`, without rounding.
    fn to_f64(self) -> f64;
}

impl Scalar for f32 {
    const PRECISION: RowPrecision = RowPrecision::F32;

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    const PRECISION: RowPrecision = RowPrecision::F64;

    fn to_f64(self) -> f64 {
        self
    }
}

mod sealed {
    /// Restricts [`Scalar`](super::Scalar) to the types whose precision is defined here.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The form in which tangent data were given, which limits the singular values they resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The rows themselves.
    Rows,
    /// The matrix of their inner products.
    Gram,
}

/// Precision and carrier together: the noise of tangent data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noise {
    pub(crate) precision: RowPrecision,
    pub(crate) carrier: Carrier,
}

impl Noise {
    /// The noise of two blocks together: the lower precision, and a Gram matrix if either is one.
    pub(crate) fn worse(self, other: Self) -> Self {
        let carrier = if self.carrier == Carrier::Gram { self.carrier } else { other.carrier };
        Self { precision: self.precision.min(other.precision), carrier }
    }

    /// Default relative tolerance of the rank.
    pub(crate) fn tolerance(self) -> f64 {
        match (self.carrier, self.precision) {
            (Carrier::Gram, RowPrecision::F64) => TOLERANCE_GRAM_F64,
            (_, precision) => precision.tolerance(),
        }
    }

    /// Singular values below this fraction of the largest are noise: 100 roundoffs for rows,
    /// sqrt(u) for a Gram matrix.
    pub(crate) fn resolution(self) -> f64 {
        let rows = NOISE_ROUNDOFFS * self.precision.unit_roundoff();
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max(GRAM_RESOLUTION),
        }
    }

    /// The largest singular value that only rounding can produce when all rows are nearly equal,
    /// relative to the norm of J before centring.
    pub(crate) fn floor(self) -> f64 {
        let rows = CENTRING_ROUNDOFFS * self.precision.unit_roundoff();
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max((CENTRING_ROUNDOFFS * RowPrecision::F64.unit_roundoff()).sqrt()),
        }
    }

    /// Error of a direction with the singular value sigma = `ratio` sigma_1: u / ratio from rows,
    /// and also u_64 / ratio^2 from a Gram matrix.
    pub(crate) fn direction_error(self, ratio: f64) -> f64 {
        let rows = self.precision.unit_roundoff() / ratio;
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max(RowPrecision::F64.unit_roundoff() / (ratio * ratio)),
        }
    }
}
