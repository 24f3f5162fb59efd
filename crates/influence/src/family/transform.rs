//! Applies a family to an image. Geometric families follow their flow and resample by Catmull-Rom
//! interpolation. The others change pixel values. Pixels are not clipped to [0, 1].

use std::ops::RangeInclusive;

use crate::error::{Error, Result};
use crate::family::basis::{diffusion, mean};
use crate::family::{Basis, Family};

/// Largest step of the diffusion, in square pixels of variance: half of the stability limit of this
/// explicit scheme. Larger steps oscillate.
const DIFFUSION_STEP: f64 = 0.25;
/// Allowed knobs, by the unit of their member. Beyond these, an image shows nothing but its border,
/// or pixel values that no network was trained on.
const PIXELS: RangeInclusive<f64> = -1e4..=1e4;
const DEGREES: RangeInclusive<f64> = -3600.0..=3600.0;
/// Zoom, stretch and shear are exponents in percent: 500 is a zoom of e^5 = 148.
const FLOW_PERCENT: RangeInclusive<f64> = -500.0..=500.0;
/// The exponent 1 + gamma / 100 must not be negative.
const GAMMA_PERCENT: RangeInclusive<f64> = -100.0..=1000.0;
const PERCENT: RangeInclusive<f64> = -1000.0..=1000.0;
/// A negative variance sharpens: the finest pattern grows by e^4 per square pixel of variance. The
/// run time of blur grows with its variance.
const VARIANCE: RangeInclusive<f64> = -1.0..=100.0;
/// Terms of the exponential series of a matrix of norm at most 1/2: the rest is far below rounding.
const TERMS: i32 = 20;

impl Family {
    /// The image `[C, H, W]` at a setting, one knob per member in its unit: the transformation
    /// itself, not its first order.
    ///
    /// # Errors
    /// As [`Family::basis`]; a number of knobs that differs from the number of members; a result
    /// that is not finite; a knob out of range. Ranges by unit: pixels -1e4 to 1e4, degrees -3600
    /// to 3600, square pixels of blur -1 to 100, percent of zoom, stretch and shear -500 to 500, of
    /// gamma -100 to 1000, of all others -1000 to 1000. User-defined knobs, which have no unit,
    /// must be finite.
    pub fn apply(&self, image: &[f64], shape: [usize; 3], setting: &[f64]) -> Result<Vec<f64>> {
        let basis = self.basis(image, shape)?;
        let refused = |reason: String| Error::Family { name: self.to_string(), reason };
        if setting.len() != basis.len() {
            return Err(refused(format!("{} knobs for {} members", setting.len(), basis.len())));
        }
        for ((name, unit), x) in basis.members().iter().zip(setting) {
            let range = self.range(unit);
            if !range.contains(x) {
                let (least, most) = range.into_inner();
                return Err(refused(format!("{name} = {x}: give {least} to {most} {unit}")));
            }
        }
        let moved = self.moved(image, shape, setting, &basis);
        match moved.iter().position(|x| !x.is_finite()) {
            Some(at) => {
                Err(refused(format!("element {at} of the image leaves the range of f64: give smaller knobs")))
            }
            None => Ok(moved),
        }
    }

    /// The allowed knobs of a member with this unit.
    fn range(&self, unit: &str) -> RangeInclusive<f64> {
        match (self, unit) {
            (Self::Own(_), _) => f64::MIN..=f64::MAX,
            (_, "pixels") => PIXELS,
            (_, "degrees") => DEGREES,
            (Self::Blur, _) => VARIANCE,
            (Self::Gamma, _) => GAMMA_PERCENT,
            (Self::Affine | Self::Zoom | Self::Shear, _) => FLOW_PERCENT,
            _ => PERCENT,
        }
    }

    /// The image at a setting that has been checked.
    fn moved(&self, image: &[f64], shape: [usize; 3], setting: &[f64], basis: &Basis) -> Vec<f64> {
        let share = setting[0] / 100.0;
        match self {
            Self::Brightness => image.iter().map(|x| x + share).collect(),
            Self::Contrast => {
                let mean = mean(image);
                image.iter().map(|x| mean + (1.0 + share) * (x - mean)).collect()
            }
            Self::Gamma => image.iter().map(|x| x.powf(1.0 + share)).collect(),
            Self::Blur => blurred(image, shape, setting[0]),
            // Linear in their knobs: the tangents are the transformation.
            Self::Channels | Self::Own(_) => {
                let mut moved = image.to_vec();
                for (tangent, a) in basis.tangents.chunks_exact(image.len()).zip(setting) {
                    moved.iter_mut().zip(tangent).for_each(|(x, t)| *x += a * t);
                }
                moved
            }
            _ => warped(image, shape, &self.generator(setting)),
        }
    }

    /// The 3 x 3 generator X in homogeneous coordinates, with a zero last row: the sum of the
    /// fields times their knobs. Its exponential is the affine map that moves the content.
    fn generator(&self, setting: &[f64]) -> [f64; 9] {
        let mut sum = [0.0; 9];
        for ((_, _, m), a) in self.fields().iter().zip(setting) {
            sum.iter_mut().zip(m).for_each(|(sum, m)| *sum += a * m);
        }
        sum
    }
}

/// The blurred image: the heat equation, whose solution is a Gaussian blur, in equal steps of at
/// most [`DIFFUSION_STEP`].
fn blurred(image: &[f64], shape: [usize; 3], variance: f64) -> Vec<f64> {
    let steps = (variance.abs() / DIFFUSION_STEP).ceil().max(1.0);
    let mut blurred = image.to_vec();
    for _ in 0..steps as usize {
        let flow = diffusion(&blurred, shape, 0.5 * variance / steps);
        blurred.iter_mut().zip(flow).for_each(|(x, f)| *x += f);
    }
    blurred
}

/// The moved image: its pixel at p is the old image at exp(-X) p, where X is the generator. So
/// every new pixel is looked up once, and none is left out.
fn warped(image: &[f64], [_, height, width]: [usize; 3], generator: &[f64; 9]) -> Vec<f64> {
    let back = exponential(&generator.map(|x| -x));
    let centre = [(width as f64 - 1.0) / 2.0, (height as f64 - 1.0) / 2.0];
    let mut warped = Vec::with_capacity(image.len());
    for plane in image.chunks_exact(height * width) {
        for y in 0..height {
            for x in 0..width {
                let (u, v) = (x as f64 - centre[0], y as f64 - centre[1]);
                // Homogeneous coordinates (u, v, 1) from the centre, and back to rows and columns.
                let column = back[0] * u + back[1] * v + back[2] + centre[0];
                let row = back[3] * u + back[4] * v + back[5] + centre[1];
                warped.push(interpolated(plane, [height, width], row, column));
            }
        }
    }
    warped
}

/// exp(X) by scaling and squaring: the series of X / 2^k, which has a norm of at most 1/2, squared
/// k times.
fn exponential(x: &[f64; 9]) -> [f64; 9] {
    let size: f64 = x.iter().map(|x| x.abs()).sum();
    let halvings = if size > 0.5 { (2.0 * size).log2().ceil().min(60.0) as i32 } else { 0 };
    let small = x.map(|x| x / f64::from(halvings).exp2());
    let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let (mut sum, mut term) = (identity, identity);
    for k in 1..=TERMS {
        term = product(&term, &small).map(|x| x / f64::from(k));
        sum.iter_mut().zip(term).for_each(|(sum, x)| *sum += x);
    }
    (0..halvings).fold(sum, |power, _| product(&power, &power))
}

fn product(a: &[f64; 9], b: &[f64; 9]) -> [f64; 9] {
    std::array::from_fn(|at| (0..3).map(|k| a[at / 3 * 3 + k] * b[k * 3 + at % 3]).sum())
}

/// Catmull-Rom interpolation with border pixels repeated (Keys, IEEE Trans. ASSP 29, 1981, a =
/// -1/2).
fn interpolated(plane: &[f64], [height, width]: [usize; 2], row: f64, column: f64) -> f64 {
    let (rows, down) = neighbours(row, height);
    let (columns, across) = neighbours(column, width);
    let line = |y: usize| columns.iter().zip(&across).map(|(x, w)| w * plane[y * width + x]).sum::<f64>();
    rows.iter().zip(&down).map(|(y, w)| w * line(*y)).sum()
}

/// The four pixels around a coordinate along one axis, and their weights.
fn neighbours(place: f64, size: usize) -> ([usize; 4], [f64; 4]) {
    let last = (size - 1) as f64;
    // From two pixels outside on, all four are the border pixel: clamping changes nothing there and
    // keeps the indices in range.
    let place = place.clamp(-2.0, last + 2.0);
    let (first, t) = (place.floor(), place - place.floor());
    let index = |offset: f64| (first + offset).clamp(0.0, last) as usize;
    let (t2, t3) = (t * t, t * t * t);
    // Keys' kernel at the distances 1 + t, t, 1 - t and 2 - t; the weights add up to 1.
    let weights = [
        0.5 * (-t + 2.0 * t2 - t3),
        0.5 * (2.0 - 5.0 * t2 + 3.0 * t3),
        0.5 * (t + 4.0 * t2 - 3.0 * t3),
        0.5 * (-t2 + t3),
    ];
    ([index(-1.0), index(0.0), index(1.0), index(2.0)], weights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Step and tolerance of central differences. The tolerance is loose because the second
    /// derivative of the interpolation jumps at the pixels.
    const STEP: f64 = 1e-6;
    const TOLERANCE: f64 = 1e-5;

    fn image([c, h, w]: [usize; 3]) -> Vec<f64> {
        (0..c * h * w).map(|i| 0.5 + 0.45 * (i as f64 * 1.7).sin()).collect()
    }

    #[test]
    fn bases_are_the_derivatives_of_the_transformations() {
        for shape in [[1, 6, 7], [3, 8, 5], [2, 1, 4], [1, 1, 1]] {
            let image = image(shape);
            let own =
                Basis::new(vec!["a".into(), "b".into()], vec![0.25; 2 * image.len()], shape).expect("sound");
            for family in Family::all().chain([Family::Own(Arc::new(own))]) {
                let basis = family.basis(&image, shape).expect("a basis");
                assert_eq!(basis.tangents.len(), basis.len() * image.len());
                for (m, tangent) in basis.tangents.chunks_exact(image.len()).enumerate() {
                    let moved = |step: f64| {
                        let setting: Vec<f64> =
                            (0..basis.len()).map(|k| if k == m { step } else { 0.0 }).collect();
                        family.apply(&image, shape, &setting).expect("it applies")
                    };
                    for ((more, less), t) in moved(STEP).iter().zip(moved(-STEP)).zip(tangent) {
                        let difference = (more - less) / (2.0 * STEP);
                        assert!((difference - t).abs() < TOLERANCE, "{family} {m}: {difference} {t}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_directions_are_those_of_their_names() {
        // A bright pixel right of the centre of 5 x 5.
        let mut image = vec![0.0; 25];
        image[2 * 5 + 3] = 1.0;
        let brightest = |family: Family, setting: &[f64]| {
            let moved = family.apply(&image, [1, 5, 5], setting).expect("it applies");
            (0..25).max_by(|a, b| moved[*a].total_cmp(&moved[*b])).map(|at| (at / 5, at % 5))
        };
        assert_eq!(brightest(Family::Translation, &[1.0, 0.0]), Some((2, 4)));
        assert_eq!(brightest(Family::Translation, &[0.0, 1.0]), Some((3, 3)));
        assert_eq!(
            brightest(Family::Rotation, &[90.0]),
            Some((1, 2)),
            "anticlockwise: from the right to the top"
        );
        assert_eq!(brightest(Family::Zoom, &[100.0 * 2.0_f64.ln()]), Some((2, 4)));
        // Shifts by whole pixels are exact, and a full turn is the identity.
        let moved = Family::Translation.apply(&image, [1, 5, 5], &[1.0, 0.0]).expect("it applies");
        assert_eq!(moved[2 * 5 + 4], 1.0);
        let turned = Family::Rotation.apply(&image, [1, 5, 5], &[360.0]).expect("it applies");
        assert!(turned.iter().zip(&image).all(|(a, b)| (a - b).abs() < 1e-12));
    }

    #[test]
    fn blur_keeps_the_sum_and_spreads_by_its_variance() {
        let mut image = vec![0.0; 21 * 21];
        image[10 * 21 + 10] = 1.0;
        let blurred = Family::Blur.apply(&image, [1, 21, 21], &[2.0]).expect("it applies");
        let variance: f64 = (0..21 * 21).map(|at| blurred[at] * (at as f64 % 21.0 - 10.0).powi(2)).sum();
        assert!((blurred.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((variance - 2.0).abs() < 1e-6, "{variance}");
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_at_once() {
        let image = vec![0.5; 12];
        let refused = |family: &Family, setting: &[f64]| {
            let error = family.apply(&image, [1, 3, 4], setting).expect_err("refused").to_string();
            assert!(error.contains("give") && error.contains(&family.to_string()), "{error}");
        };
        for family in Family::all() {
            let knobs = family.basis(&image, [1, 3, 4]).expect("a basis").len();
            for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e6, -1e6] {
                for knob in 0..knobs {
                    let setting: Vec<f64> = (0..knobs).map(|k| if k == knob { wrong } else { 0.0 }).collect();
                    refused(&family, &setting);
                }
            }
        }
        refused(&Family::Blur, &[-30.0]);
        refused(&Family::Gamma, &[-101.0]);
        let own = Basis::new(vec!["a".into()], vec![1e300; 12], [1, 3, 4]).expect("sound");
        let error = Family::Own(Arc::new(own)).apply(&image, [1, 3, 4], &[1e300]).expect_err("beyond f64");
        assert!(error.to_string().contains("leaves the range of f64"));
    }

    #[test]
    fn what_is_no_basis_or_no_image_is_refused() {
        let names = || vec!["a".to_owned()];
        let fault = |result: Result<Basis>| result.expect_err("refused").to_string();
        assert!(fault(Basis::new(vec![], vec![], [1, 2, 2])).contains("empty"));
        assert!(fault(Basis::new(names(), vec![1.0; 5], [1, 2, 2])).contains("4 elements each"));
        assert!(
            fault(Basis::new(names(), vec![1.0, f64::NAN, 0.0, 0.0], [1, 2, 2]))
                .contains("a holds NaN at element 1")
        );
        let own = Family::Own(Arc::new(Basis::new(names(), vec![1.0; 4], [1, 2, 2]).expect("sound")));
        assert!(fault(own.basis(&[0.0; 6], [1, 2, 3])).contains("[1, 2, 2]"));
        assert!(fault(Family::Gamma.basis(&[-0.1], [1, 1, 1])).contains("negative"));
        assert!(fault(Family::Zoom.basis(&[0.1], [1, 1, 2])).contains("[1, 1, 2]"));
        assert!(Family::Zoom.apply(&[0.1], [1, 1, 1], &[]).is_err());
        assert!(
            "wobble".parse::<Family>().is_err_and(|error| error.to_string().contains("affine, translation"))
        );
        for family in Family::all() {
            assert_eq!(family.to_string().parse::<Family>().expect("its own name"), family);
        }
    }
}
