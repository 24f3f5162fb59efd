//! The tangent bases, by derivative filters on the image.
//!
//! Coordinates are in pixels from the centre of the image, x to the right and y down. Content that
//! moves with the velocity v = (v_x, v_y) changes a pixel by -dI/dx v_x - dI/dy v_y. Derivatives
//! are central differences (I(x + 1) - I(x - 1)) / 2 with border pixels repeated. These are the
//! derivatives of the Catmull-Rom interpolation with which [`Family::apply`] resamples.

use crate::error::{Error, Result};
use crate::family::{Basis, Family};

/// A linear vector field with its name and unit: v = ([m_0, m_1, m_2] . (x, y, 1), [m_3, m_4, m_5]
/// . (x, y, 1)) per unit.
pub(super) type Field = (&'static str, &'static str, [f64; 6]);

// Units of the knobs: a degree in radians, and a hundredth.
const DEGREE: f64 = std::f64::consts::PI / 180.0;
const PERCENT: f64 = 0.01;

// Translations, which move all pixels alike. The fields after these are linear in (x, y).
const RIGHT: Field = ("right", "pixels", [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
const DOWN: Field = ("down", "pixels", [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
/// Anticlockwise on the screen, where y points down.
const ROTATION: Field = ("rotation", "degrees", [0.0, DEGREE, 0.0, -DEGREE, 0.0, 0.0]);
const ZOOM: Field = ("zoom", "percent", [PERCENT, 0.0, 0.0, 0.0, PERCENT, 0.0]);
const STRETCH: Field = ("stretch", "percent", [PERCENT, 0.0, 0.0, 0.0, -PERCENT, 0.0]);
const SHEAR_RIGHT: Field = ("shear right", "percent", [0.0, PERCENT, 0.0, 0.0, 0.0, 0.0]);
const SHEAR_DOWN: Field = ("shear down", "percent", [0.0, 0.0, 0.0, PERCENT, 0.0, 0.0]);

impl Family {
    /// The vector fields of a geometric family; empty for other families.
    pub(super) fn fields(&self) -> &'static [Field] {
        match self {
            Self::Affine => &[RIGHT, DOWN, ROTATION, ZOOM, STRETCH, SHEAR_RIGHT],
            Self::Translation => &[RIGHT, DOWN],
            Self::Rotation => &[ROTATION],
            Self::Zoom => &[ZOOM],
            Self::Shear => &[SHEAR_RIGHT, SHEAR_DOWN],
            _ => &[],
        }
    }

    /// The tangent basis at `image` [C, H, W], pixels in [0, 1].
    ///
    /// # Errors
    /// [`Error::Family`] for an image whose length does not match `shape`, NaN or infinity,
    /// negative pixels with [`Family::Gamma`], and a user's basis of another shape.
    pub fn basis(&self, image: &[f64], shape: [usize; 3]) -> Result<Basis> {
        self.check(image, shape)?;
        let one = |name: &str, unit: &str, tangent: Vec<f64>| (vec![(name.into(), unit.into())], tangent);
        let (members, tangents) = match self {
            Self::Brightness => one("brightness", "percent", vec![PERCENT; image.len()]),
            Self::Contrast => {
                let mean = mean(image);
                one("contrast", "percent", image.iter().map(|x| PERCENT * (x - mean)).collect())
            }
            Self::Gamma => {
                // x ln x, which tends to 0 at 0.
                let log = |x: &f64| if *x > 0.0 { PERCENT * x * x.ln() } else { 0.0 };
                one("gamma", "percent", image.iter().map(log).collect())
            }
            Self::Blur => one("blur", "square pixels", diffusion(image, shape, 0.5)),
            Self::Channels => gains(image, shape),
            Self::Own(basis) => return Ok(Basis::clone(basis)),
            _ => geometric(self.fields(), image, shape),
        };
        Ok(Basis { members, tangents, shape })
    }

    /// Checks the image: shape, finite values, and no negative pixels for gamma.
    pub(super) fn check(&self, image: &[f64], shape: [usize; 3]) -> Result<()> {
        let fail = |reason: String| Err(Error::Family { name: self.to_string(), reason });
        if image.is_empty() || image.len() != shape.iter().product::<usize>() {
            return fail(format!("an image of {} elements does not have the shape {shape:?}", image.len()));
        }
        if let Some(at) = image.iter().position(|x| !x.is_finite()) {
            return fail(format!("the image holds {} at element {at}", image[at]));
        }
        if *self == Self::Gamma && image.iter().any(|x| *x < 0.0) {
            return fail("negative pixels have no power: give images in [0, 1]".into());
        }
        match self {
            Self::Own(basis) if basis.shape != shape => {
                fail(format!("directions of the shape {:?} for images of {shape:?}", basis.shape))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn mean(image: &[f64]) -> f64 {
    image.iter().sum::<f64>() / image.len() as f64
}

/// Members and tangents of channel gains: one member per channel, with that channel's pixels.
fn gains(image: &[f64], [channels, height, width]: [usize; 3]) -> (Vec<(String, String)>, Vec<f64>) {
    let plane = height * width;
    let name = |c: usize| match (channels, c) {
        (1, _) => "gain".to_owned(),
        (3, 0) => "red".to_owned(),
        (3, 1) => "green".to_owned(),
        (3, _) => "blue".to_owned(),
        _ => format!("channel {c}"),
    };
    let mut tangents = vec![0.0; channels * image.len()];
    for c in 0..channels {
        let target = &mut tangents[c * image.len() + c * plane..][..plane];
        target.iter_mut().zip(&image[c * plane..]).for_each(|(t, x)| *t = PERCENT * x);
    }
    ((0..channels).map(|c| (name(c), "percent".to_owned())).collect(), tangents)
}

/// Members and tangents of vector fields: -dI/dx v_x - dI/dy v_y for each field.
fn geometric(
    fields: &[Field],
    image: &[f64],
    [_, height, width]: [usize; 3],
) -> (Vec<(String, String)>, Vec<f64>) {
    let centre = [(width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0];
    let mut tangents = Vec::with_capacity(fields.len() * image.len());
    for (_, _, m) in fields {
        for plane in image.chunks_exact(height * width) {
            let at = |y: usize, x: usize| plane[y * width + x];
            for y in 0..height {
                for x in 0..width {
                    // At the border the pixel itself stands for the neighbour that is missing.
                    let across = (at(y, (x + 1).min(width - 1)) - at(y, x.saturating_sub(1))) / 2.0;
                    let down = (at((y + 1).min(height - 1), x) - at(y.saturating_sub(1), x)) / 2.0;
                    let (u, v) = (x as f64 - centre[0], y as f64 - centre[1]);
                    let velocity = [m[0] * u + m[1] * v + m[2], m[3] * u + m[4] * v + m[5]];
                    tangents.push(-across * velocity[0] - down * velocity[1]);
                }
            }
        }
    }
    (fields.iter().map(|(name, unit, _)| ((*name).into(), (*unit).into())).collect(), tangents)
}

/// `rate` times the five-point Laplacian of each plane, with border pixels repeated.
pub(super) fn diffusion(image: &[f64], [_, height, width]: [usize; 3], rate: f64) -> Vec<f64> {
    let mut flow = Vec::with_capacity(image.len());
    for plane in image.chunks_exact(height * width) {
        let at = |y: usize, x: usize| plane[y * width + x];
        for y in 0..height {
            for x in 0..width {
                let across = at(y, x.saturating_sub(1)) + at(y, (x + 1).min(width - 1));
                let down = at(y.saturating_sub(1), x) + at((y + 1).min(height - 1), x);
                flow.push(rate * (across + down - 4.0 * at(y, x)));
            }
        }
    }
    flow
}
