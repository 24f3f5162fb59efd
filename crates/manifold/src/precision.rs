//! The precision of tangent data: unit roundoff u = 2^-b for b significant bits, and what it lets one decide.
//!
//! Rows of a Jacobian carry singular values down to about u sigma_1. A Gram matrix J J^T holds their squares, so in `f64`
//! it carries them down to sqrt(u) sigma_1 alone, whatever the rows were. The constants are explained in docs/numerics.md.

/// Default relative tolerance of the rank for rows in `f64`.
pub const TOLERANCE_F64: f64 = 1e-7;
/// Default relative tolerance of the rank for rows in `f32`, their sums in `f64`.
pub const TOLERANCE_F32: f64 = 1e-5;
/// Default relative tolerance of the rank for rows in `f16`: a hundred roundoffs.
pub const TOLERANCE_F16: f64 = 5e-2;
/// Default relative tolerance of the rank for a Gram matrix of `f64` rows.
pub const TOLERANCE_GRAM_F64: f64 = 1e-6;
/// Finest singular value, relative to the largest, which a Gram matrix in `f64` carries.
pub const GRAM_RESOLUTION: f64 = 2e-8;
/// Roundoffs, relative to the largest singular value, below which singular values of rows are noise.
pub const NOISE_ROUNDOFFS: f64 = 100.0;
/// Roundoffs, relative to the norm of J before centring, which centring can turn into a singular value.
const CENTRING_ROUNDOFFS: f64 = 4.0;
/// Roundings that an entry may hold, of the decomposition and the elimination together. Fewer let
/// values pass whose error is up to three times the one allowed.
pub(crate) const ROUNDINGS: f64 = 4.0;
/// A singular value within this factor of the tolerance makes the rank ambiguous.
pub const AMBIGUOUS_FACTOR: f64 = 10.0;

/// The precision in which the rows of a Jacobian were computed.
///
/// Sums of their products are in `f64` whatever the rows are: a Gram matrix summed in `f32` decides no rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// IEEE half precision, 11 bits.
    F16,
    /// IEEE single precision, 24 bits.
    F32,
    /// IEEE double precision, 53 bits.
    F64,
}

impl Precision {
    /// u = 2^-b, the largest relative error of one rounding.
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

    /// Relative error from which a value counts as ambiguous: six digits are asked of `f64`, three of `f32`, one of `f16`.
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
    /// The precision which rows of this type carry.
    const PRECISION: Precision;

    /// The same value in `f64`.
    fn to_f64(self) -> f64;
}

impl Scalar for f32 {
    const PRECISION: Precision = Precision::F32;

    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

impl Scalar for f64 {
    const PRECISION: Precision = Precision::F64;

    fn to_f64(self) -> f64 {
        self
    }
}

mod sealed {
    /// Keeps [`Scalar`](super::Scalar) to the types whose precision is known here.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// How tangent data reached us, which says what it still carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// The rows themselves.
    Rows,
    /// A matrix of their inner products.
    Gram,
}

/// Precision and carrier together: the noise of tangent data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noise {
    pub(crate) precision: Precision,
    pub(crate) carrier: Carrier,
}

impl Noise {
    /// The worse of two.
    pub(crate) fn worse(self, other: Self) -> Self {
        let carrier = if self.carrier == Carrier::Gram { self.carrier } else { other.carrier };
        Self { precision: self.precision.min(other.precision), carrier }
    }

    /// Default relative tolerance of the rank.
    pub(crate) fn tolerance(self) -> f64 {
        match (self.carrier, self.precision) {
            (Carrier::Gram, Precision::F64) => TOLERANCE_GRAM_F64,
            (_, precision) => precision.tolerance(),
        }
    }

    /// Singular values below this share of the largest are noise: a hundred roundoffs of rows, sqrt(u) of a
    /// Gram matrix.
    pub(crate) fn resolution(self) -> f64 {
        let rows = NOISE_ROUNDOFFS * self.precision.unit_roundoff();
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max(GRAM_RESOLUTION),
        }
    }

    /// What rounding alone can make a singular value when all rows are nearly alike, over the norm of J before centring.
    pub(crate) fn floor(self) -> f64 {
        let rows = CENTRING_ROUNDOFFS * self.precision.unit_roundoff();
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max((CENTRING_ROUNDOFFS * Precision::F64.unit_roundoff()).sqrt()),
        }
    }

    /// Error of a direction with the singular value sigma = `ratio` sigma_1: u / ratio from rows, and also
    /// u_64 / ratio^2 from a Gram matrix.
    pub(crate) fn direction_error(self, ratio: f64) -> f64 {
        let rows = self.precision.unit_roundoff() / ratio;
        match self.carrier {
            Carrier::Rows => rows,
            Carrier::Gram => rows.max(Precision::F64.unit_roundoff() / (ratio * ratio)),
        }
    }
}
