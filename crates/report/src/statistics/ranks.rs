//! Ranks, and Spearman's rank correlation of two scores.

/// The rank of each value, from 1; equal values share the mean of their ranks.
#[must_use]
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // `==` and not `total_cmp`, for which 0 and -0 would be different scores.
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let mean = before as f64 + (tied.len() + 1) as f64 / 2.0;
        tied.iter().for_each(|at| ranks[*at] = mean);
        before += tied.len();
    }
    ranks
}

/// Spearman's rank correlation: the correlation of the ranks, in [-1, 1].
///
/// `None` where it is not defined: fewer than two pairs, lists of different lengths, or a constant
/// score.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 2 {
        return None;
    }
    let middle = (x.len() + 1) as f64 / 2.0;
    let (x, y) = (ranks(x), ranks(y));
    let sum =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - middle) * (b - middle)).sum() };
    let spread = (sum(&x, &x) * sum(&y, &y)).sqrt();
    (spread > 0.0).then(|| (sum(&x, &y) / spread).clamp(-1.0, 1.0))
}
