//! Cubic convolution, as R. Keys (IEEE Transactions on Acoustics, Speech, and Signal Processing,
//! 1981) has it: the weight of a pixel is a polynomial of its distance up to one pixel, and another
//! one between one pixel and two. Coefficients are those of the powers of the distance, the
//! constant first.

/// The parameter a, with PyTorch's value.
const A: f64 = -0.75;
/// The weight at distances up to one pixel.
pub(super) const NEAR: [f64; 4] = [1.0, 0.0, -(A + 3.0), A + 2.0];
/// The weight at distances between one pixel and two.
pub(super) const FAR: [f64; 4] = [-4.0 * A, 8.0 * A, -5.0 * A, A];

/// The weight at a distance in pixels.
pub(super) fn weight(distance: f64) -> f64 {
    let distance = distance.abs();
    let coefficients = match distance {
        _ if distance < 1.0 => NEAR,
        _ if distance < 2.0 => FAR,
        _ => return 0.0,
    };
    coefficients.iter().rev().fold(0.0, |sum, coefficient| sum * distance + coefficient)
}
