//! Converts a byte of an image to a number in `[0, 1]`: byte / 255, divided in the requested type.

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A float type of pixels: `f32` or `f64`.
///
/// The division is done in that type, so that an `f64` pixel is the double nearest to `byte / 255`
/// and not a widened `f32`.
pub trait Pixel: sealed::Sealed + Copy + Send + Sync + 'static {
    /// `byte / 255`, in `[0, 1]`, correctly rounded.
    fn scaled(byte: u8) -> Self;

    /// The value of this type nearest to `value`.
    fn of(value: f64) -> Self;
}

impl Pixel for f32 {
    fn scaled(byte: u8) -> Self {
        Self::from(byte) / 255.0
    }

    fn of(value: f64) -> Self {
        value as Self
    }
}

impl Pixel for f64 {
    fn scaled(byte: u8) -> Self {
        Self::from(byte) / 255.0
    }

    fn of(value: f64) -> Self {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_middle_are_exact() {
        assert_eq!((f32::scaled(0), f32::scaled(255)), (0.0, 1.0));
        assert_eq!((f64::scaled(0), f64::scaled(51), f64::scaled(255)), (0.0, 0.2, 1.0));
        assert_ne!(f64::scaled(1), f64::from(f32::scaled(1)));
    }
}
