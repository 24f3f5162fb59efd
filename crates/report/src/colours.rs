//! Colour maps. Lightness is monotonic along each branch, so they can be read without seeing hue.

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

/// Nine points of viridis (S. van der Walt and N. Smith, CC0), dark to light.
const SEQUENTIAL: [Colour; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];
/// Blue for negative, white for zero, orange for positive.
const DIVERGING: [Colour; 5] = [[5, 70, 140], [120, 170, 210], [250, 250, 250], [240, 165, 95], [170, 70, 0]];

/// The colour at `share` in [0, 1].
pub(crate) fn sequential(share: f64) -> Colour {
    between(&SEQUENTIAL, share)
}

/// The colour at `share` in [0, 1], where 1/2 stands for zero.
pub(crate) fn diverging(share: f64) -> Colour {
    between(&DIVERGING, share)
}

/// The colour at `share` between the first and the last anchor, linear from one to the next.
fn between(anchors: &[Colour], share: f64) -> Colour {
    let position = share.clamp(0.0, 1.0) * (anchors.len() - 1) as f64;
    let first = (position as usize).min(anchors.len() - 2);
    let t = position - first as f64;
    std::array::from_fn(|i| {
        let (a, b) = (f64::from(anchors[first][i]), f64::from(anchors[first + 1][i]));
        (a + t * (b - a)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of an sRGB colour.
    fn luminance(colour: Colour) -> f64 {
        let linear = |x: u8| (f64::from(x) / 255.0).powf(2.2);
        0.2126 * linear(colour[0]) + 0.7152 * linear(colour[1]) + 0.0722 * linear(colour[2])
    }

    #[test]
    fn lightness_tells_the_order() {
        let steps: Vec<f64> = (0..=40).map(|i| luminance(sequential(f64::from(i) / 40.0))).collect();
        assert!(steps.is_sorted(), "{steps:?}");
        let half: Vec<f64> = (0..=20).map(|i| luminance(diverging(f64::from(i) / 40.0))).collect();
        assert!(half.is_sorted(), "{half:?}");
        let half: Vec<f64> = (20..=40).map(|i| luminance(diverging(f64::from(40 + 20 - i) / 40.0))).collect();
        assert!(half.is_sorted(), "{half:?}");
        assert_eq!((sequential(-1.0), sequential(2.0)), (SEQUENTIAL[0], SEQUENTIAL[8]));
    }
}
