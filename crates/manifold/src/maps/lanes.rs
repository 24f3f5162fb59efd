//! Linear algebra on small symmetric matrices, `LANES` windows at a time: every step of an
//! algorithm is applied to all of them, and the compiler turns such loops into vector instructions.
//!
//! A packed matrix stores its lower half row by row: entry (i, j), j <= i, at i (i + 1) / 2 + j.

/// Windows that are processed together: one vector of AVX-512, two of AVX2.
pub(super) const LANES: usize = 8;

/// One value per window, L windows: [`LANES`], or 1 for a single matrix.
pub(super) type Lane<const L: usize> = [f64; L];

/// Length of a packed n x n matrix.
pub(super) const fn packed(n: usize) -> usize {
    n * (n + 1) / 2
}

/// A lane from a function of the index of the window.
pub(super) fn map<const L: usize>(f: impl Fn(usize) -> f64) -> Lane<L> {
    std::array::from_fn(f)
}

/// `sum` -= a b.
fn subtract_product<const L: usize>(sum: &mut Lane<L>, a: &Lane<L>, b: &Lane<L>) {
    for l in 0..L {
        sum[l] -= a[l] * b[l];
    }
}

/// Factorises A = L L^T in place, with 1 / l_ii on the diagonal: NaN or infinity there where A is
/// not positive definite.
pub(super) fn cholesky<const L: usize>(a: &mut [Lane<L>], n: usize) {
    for i in 0..n {
        let (above, row) = a.split_at_mut(packed(i));
        for j in 0..=i {
            let other = if j < i { &above[packed(j)..] } else { &[] };
            let mut sum = row[j];
            for k in 0..j {
                let factor = if j < i { other[k] } else { row[k] };
                subtract_product(&mut sum, &row[k], &factor);
            }
            row[j] = if j < i { map(|l| sum[l] * other[j][l]) } else { map(|l| 1.0 / sum[l].sqrt()) };
        }
    }
}

/// tr A^-1 = |L^-1|^2 from the factor of [`cholesky`]: an upper bound of 1 over the smallest
/// eigenvalue.
pub(super) fn inverse_trace<const L: usize>(
    factor: &[Lane<L>],
    n: usize,
    column: &mut Vec<Lane<L>>,
) -> Lane<L> {
    let mut trace = [0.0; L];
    for j in 0..n {
        // Column j of L^-1, by forward substitution; it begins at row j.
        column.clear();
        for i in j..n {
            let row = &factor[packed(i)..];
            let mut sum = if i == j { [1.0; L] } else { [0.0; L] };
            for (k, x) in column.iter().enumerate() {
                subtract_product(&mut sum, &row[j + k], x);
            }
            let x = map(|l| sum[l] * row[i][l]);
            for l in 0..L {
                trace[l] += x[l] * x[l];
            }
            column.push(x);
        }
    }
    trace
}

/// (L L^T)^-1 b in place.
pub(super) fn solve<const L: usize>(factor: &[Lane<L>], n: usize, b: &mut [Lane<L>]) {
    for i in 0..n {
        let row = &factor[packed(i)..];
        let mut sum = b[i];
        for k in 0..i {
            subtract_product(&mut sum, &row[k], &b[k]);
        }
        b[i] = map(|l| sum[l] * row[i][l]);
    }
    for i in (0..n).rev() {
        let mut sum = b[i];
        for k in i + 1..n {
            subtract_product(&mut sum, &factor[packed(k) + i], &b[k]);
        }
        b[i] = map(|l| sum[l] * factor[packed(i) + i][l]);
    }
}

/// A u, with the same u in every lane.
pub(super) fn product<const L: usize>(a: &[Lane<L>], n: usize, u: &[f64], image: &mut [Lane<L>]) {
    image.fill([0.0; L]);
    for i in 0..n {
        for j in 0..=i {
            let entry = &a[packed(i) + j];
            for l in 0..L {
                image[i][l] += entry[l] * u[j];
            }
            if j < i {
                for l in 0..L {
                    image[j][l] += entry[l] * u[i];
                }
            }
        }
    }
}

/// The sum of the diagonal.
pub(super) fn trace<const L: usize>(a: &[Lane<L>], n: usize) -> Lane<L> {
    map(|l| (0..n).map(|i| a[packed(i) + i][l]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDING: f64 = 1e-12;

    /// B B^T + I, packed, with different entries in every lane.
    fn matrix(n: usize) -> Vec<Lane<LANES>> {
        let b = |i: usize, k: usize, l: usize| ((i * 7 + k * 3 + l) as f64 * 0.61).sin();
        let mut a = Vec::new();
        for i in 0..n {
            for j in 0..=i {
                let own = if i == j { 1.0 } else { 0.0 };
                a.push(map(|l| (0..n).map(|k| b(i, k, l) * b(j, k, l)).sum::<f64>() + own));
            }
        }
        a
    }

    #[test]
    fn solutions_solve_and_traces_are_those_of_the_inverse() {
        for n in [1, 2, 3, 9, 12] {
            let a = matrix(n);
            let mut factor = a.clone();
            cholesky(&mut factor, n);
            let mut sum = [0.0; LANES];
            for j in 0..n {
                let mut x: Vec<Lane<LANES>> =
                    (0..n).map(|i| if i == j { [1.0; LANES] } else { [0.0; LANES] }).collect();
                solve(&factor, n, &mut x);
                for l in 0..LANES {
                    sum[l] += x[j][l];
                    let column: Vec<f64> = x.iter().map(|x| x[l]).collect();
                    let mut image = vec![[0.0; LANES]; n];
                    product(&a, n, &column, &mut image);
                    for (i, image) in image.iter().enumerate() {
                        let expected = if i == j { 1.0 } else { 0.0 };
                        assert!((image[l] - expected).abs() < ROUNDING, "{n} {i} {j}");
                    }
                }
            }
            let traces = inverse_trace(&factor, n, &mut Vec::new());
            assert!((0..LANES).all(|l| (traces[l] / sum[l] - 1.0).abs() < ROUNDING), "{n}");
        }
    }

    #[test]
    fn a_singular_matrix_is_not_certified() {
        // Two equal rows, and a zero matrix.
        for mut a in [vec![[1.0; LANES]; 3], vec![[0.0; LANES]; 3]] {
            cholesky(&mut a, 2);
            assert!(!inverse_trace(&a, 2, &mut Vec::new())[0].is_finite());
        }
    }
}
