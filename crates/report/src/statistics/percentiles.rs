//! Percentiles of sorted numbers by linear interpolation between neighbours (type 7 of Hyndman &
//! Fan, the default of NumPy and R).

/// The `q`-th percentile, `q` in [0, 100], of numbers in ascending order; NaN of an empty list.
#[must_use]
pub fn percentile(sorted: &[f64], q: f64) -> f64 {
    let position = sorted.len().saturating_sub(1) as f64 * q.clamp(0.0, 100.0) / 100.0;
    let (first, part) = (position.floor() as usize, position.fract());
    match (sorted.get(first), sorted.get(first + 1)) {
        // Equal neighbours are not interpolated: for infinite ones the difference would be NaN.
        (Some(low), Some(high)) if part > 0.0 && low < high => low + (high - low) * part,
        (low, _) => low.copied().unwrap_or(f64::NAN),
    }
}

/// The quartiles of numbers in ascending order.
#[must_use]
pub fn quartiles(sorted: &[f64]) -> [f64; 3] {
    [25.0, 50.0, 75.0].map(|q| percentile(sorted, q))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        assert_eq!(quartiles(&[1.0, 2.0, 4.0, 8.0]), [1.75, 3.0, 5.0]);
        assert_eq!(quartiles(&[3.0]), [3.0; 3]);
        assert_eq!(quartiles(&[1.0, f64::INFINITY, f64::INFINITY]), [f64::INFINITY; 3]);
        assert!(quartiles(&[]).iter().all(|x| x.is_nan()));
        assert_eq!([0.0, 100.0].map(|q| percentile(&[1.0, 5.0], q)), [1.0, 5.0]);
    }
}
