//! Families of perturbations: image transformations of few dimensions, as a tangent basis T of the
//! image.
//!
//! A family has q members, each with its own unit (a pixel, a degree, a percent). The value given
//! to a member is its *knob*, and a *setting* is one knob for each member. At the setting a the
//! image changes by `T a` to first order. The family's Jacobian is therefore J T (K x q), and its
//! measure costs next to nothing once J is known. With q < K - 1 the rank stays below K - 1. The
//! exact value depends only on the family, not on the units of its members. The formulas are in the
//! repository, in `docs/perturbations.md`.
//!
//! [`Family::apply`] applies the transformation itself, by resampling; the basis is its derivative
//! at the setting 0.

mod basis;
mod transform;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use influence_autodiff::Rows;
use influence_manifold::{Filter, Probabilities, RowPrecision, SampleObjective, Scalar, Tangent};

use crate::error::{Error, Result};
use crate::linearization::Linearization;
use crate::perturbation::ResolvedGroup;
use crate::score::{Score, Setting};

/// A family of perturbations of images.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// The six affine transformations of the plane: translation (two), rotation, zoom, stretch and
    /// shear.
    Affine,
    /// Shifts to the right and down, in pixels.
    Translation,
    /// Rotation about the centre, anticlockwise, in degrees.
    Rotation,
    /// Zoom about the centre by e^(a / 100), a in percent.
    Zoom,
    /// Rows shifted to the right in proportion to y, columns shifted down in proportion to x, in
    /// percent.
    Shear,
    /// A value added to all pixels, in percent of white: x + a / 100.
    Brightness,
    /// Distances of pixels from the image's mean m, in percent: m + (1 + a / 100) (x - m).
    Contrast,
    /// The exponent of the pixels, in percent: x^(1 + a / 100).
    Gamma,
    /// Gaussian blur, in square pixels of variance.
    Blur,
    /// The gain of each channel, in percent: (1 + a_c / 100) x.
    Channels,
    /// User-defined directions, the same for every image.
    Own(Arc<Basis>),
}

/// A tangent basis T of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Basis {
    /// Name and unit of each member.
    pub(crate) members: Vec<(String, String)>,
    /// T^T: one row per member.
    pub(crate) tangents: Vec<f64>,
    /// [C, H, W].
    pub(crate) shape: [usize; 3],
}

/// Largest |ln| of a setting that is returned as it is: e^709 is the end of the range of f64.
/// Beyond this, a power of 10 is returned apart.
const LARGEST_EXPONENT: f64 = 690.0;

/// The families by name, in the order of the help.
const NAMES: [(&str, Family); 10] = [
    ("affine", Family::Affine),
    ("translation", Family::Translation),
    ("rotation", Family::Rotation),
    ("zoom", Family::Zoom),
    ("shear", Family::Shear),
    ("brightness", Family::Brightness),
    ("contrast", Family::Contrast),
    ("gamma", Family::Gamma),
    ("blur", Family::Blur),
    ("channels", Family::Channels),
];

impl Family {
    /// Every named family.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, family)| family)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMES.iter().find(|(_, family)| family == self);
        f.write_str(named.map_or("own", |(name, _)| name))
    }
}

impl FromStr for Family {
    type Err = Error;

    /// Reads the name of a family. A user-defined family is made by [`Basis::new`].
    fn from_str(text: &str) -> Result<Self> {
        let named = NAMES.into_iter().find(|(name, _)| *name == text);
        named.map(|(_, family)| family).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            let reason = format!("there is no such family; known are {}", names.join(", "));
            Error::Family { name: text.to_owned(), reason }
        })
    }
}

impl Basis {
    /// User-defined directions: `names` of the members, and their directions [C, H, W],
    /// concatenated.
    ///
    /// # Errors
    /// [`Error::Family`] for no members, a number of elements that does not match names and shape,
    /// NaN or infinity.
    pub fn new(names: Vec<String>, tangents: Vec<f64>, shape: [usize; 3]) -> Result<Self> {
        let fail = |reason: String| Err(Error::Family { name: "own".into(), reason });
        let elements = shape.iter().try_fold(1_usize, |product, n| product.checked_mul(*n)).unwrap_or(0);
        if names.is_empty() || elements == 0 {
            return fail("the basis is empty: give at least one direction of the image's shape".into());
        }
        if Some(tangents.len()) != names.len().checked_mul(elements) {
            return fail(format!(
                "{} directions of the shape {shape:?} have {elements} elements each, but there are {} in all",
                names.len(),
                tangents.len()
            ));
        }
        if let Some(at) = tangents.iter().position(|x| !x.is_finite()) {
            return fail(format!(
                "{} holds {} at element {}: directions must be finite",
                names[at / elements],
                tangents[at],
                at % elements
            ));
        }
        let members = names.into_iter().map(|name| (name, String::new())).collect();
        Ok(Self { members, tangents, shape })
    }

    /// Name and unit of each member: ("rotation", "degrees"). User-defined members have no unit.
    #[must_use]
    pub fn members(&self) -> &[(String, String)] {
        &self.members
    }

    /// One direction [C, H, W] per member.
    #[must_use]
    pub fn tangents(&self) -> &[f64] {
        &self.tangents
    }

    /// q, the number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Always false: a basis has at least one member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A setting as text: "right 0.31 pixels; rotation -2.5 degrees".
    #[must_use]
    pub fn describe(&self, setting: &[f64]) -> String {
        let word = |((name, unit), x): (&(String, String), &f64)| {
            format!("{name} {x:.4} {unit}").trim_end().to_owned()
        };
        self.members.iter().zip(setting).map(word).collect::<Vec<_>>().join("; ")
    }
}

impl Linearization<'_> {
    /// The scores of several families at this sample, whose pixels are `image`.
    pub(crate) fn families(
        &self,
        families: &[Family],
        image: &[f64],
        objective: &SampleObjective,
        filter: &Filter,
    ) -> Result<Vec<Score>> {
        let shape = self.image_shape()?;
        let score = |(family, resolved): (&Family, &ResolvedGroup)| {
            let basis = family.basis(image, shape)?;
            Ok(self.family(&basis, objective, filter)?.of_group(&resolved.name))
        };
        families.iter().zip(self.scorer().resolved_groups()).map(score).collect()
    }

    /// The influence of a family, from J T with the stored Jacobian. [`Score::setting`] is its most
    /// influential setting. The budget of [`Filter::Tikhonov`] is on the setting, each knob in the
    /// unit of its member.
    ///
    /// # Errors
    /// [`Error::Family`] for a basis of another shape than the images; [`Error::Measure`] as
    /// [`Linearization::score`].
    pub fn family(&self, basis: &Basis, objective: &SampleObjective, filter: &Filter) -> Result<Score> {
        let shape = self.shape();
        if basis.shape.as_slice() != shape {
            let reason = format!("directions of the shape {:?} for images of {shape:?}", basis.shape);
            return Err(Error::Family { name: "own".into(), reason });
        }
        let (rows, precision) = match self.rows() {
            Rows::F32(rows) => (products(rows, basis), RowPrecision::F32),
            Rows::F64(rows) => (products(rows, basis), RowPrecision::F64),
        };
        let (classes, q) = (self.classes(), basis.len());
        let fault = |source| classes.fault(source);
        let tangent = Tangent::from_rows(&rows, classes.measured().len(), q).map_err(fault)?;
        // J T is summed in f64, but from rows that carry the rounding of the run.
        let tangent = tangent.with_precision(precision);
        let (score, found) = self.score_of(&tangent, objective, filter)?;
        // G^+ df in the space of the members is the most influential setting. Its Fisher length,
        // from the velocities J T a, scales it to length 1.
        let knobs = found.direction(&rows, q).map_err(fault)?;
        let mut velocity: Vec<f64> =
            rows.chunks_exact(q).map(|row| row.iter().zip(&knobs).map(|(x, a)| x * a).sum()).collect();
        velocity.push(0.0);
        let probabilities = Probabilities::new(classes.measured()).map_err(fault)?;
        let length = probabilities.log_fisher_length(&velocity).map_err(fault)?;
        Ok(Score { setting: Some(scaled(knobs, length)), ..score })
    }
}

/// A setting of Fisher length e^`log_length`, scaled to Fisher length 1; zero where it moves
/// nothing.
fn scaled(knobs: Vec<f64>, log_length: Option<f64>) -> Setting {
    let largest = knobs.iter().fold(0.0_f64, |most, a| most.max(a.abs()));
    let (Some(log_length), true) = (log_length, largest > 0.0) else {
        return Setting { knobs: vec![0.0; knobs.len()], log10: 0.0 };
    };
    // Computed as a logarithm, since the scaled knobs may leave the range of f64. `rest` is what is
    // then left to the power of 10.
    let log_largest = largest.ln() - log_length;
    let rest = if log_largest.abs() < LARGEST_EXPONENT { 0.0 } else { log_largest };
    let factor = (log_largest - rest).exp();
    let knobs = knobs.into_iter().map(|a| a / largest * factor).collect();
    Setting { knobs, log10: rest / std::f64::consts::LN_10 }
}

/// J T, row by row, summed in f64.
fn products<T: Scalar>(rows: &[T], basis: &Basis) -> Vec<f64> {
    let columns: usize = basis.shape.iter().product();
    let product =
        |row: &[T], tangent: &[f64]| row.iter().zip(tangent).map(|(x, t)| x.to_f64() * t).sum::<f64>();
    let tangents = || basis.tangents.chunks_exact(columns);
    rows.chunks_exact(columns).flat_map(|row| tangents().map(move |tangent| product(row, tangent))).collect()
}
