//! Eigenvalues of one small symmetric matrix A = Q Lambda Q^T, and products t^T Q of a few vectors
//! with its eigenvectors. The eigenvectors are not formed: Householder reflections reduce A to a
//! tridiagonal matrix, the implicit QL iteration diagonalises it (Golub & Welsch, Math. Comp. 23,
//! 1969; Dubrulle, Martin & Wilkinson, Numer. Math. 12, 1968), and every transformation is applied
//! to the vectors t as well.

/// The number of vectors t.
pub(super) const TRACKED: usize = 2;
/// Limit of QL steps per eigenvalue; two are usual. Only NaN, which never becomes small, reaches
/// it.
const MOST_STEPS: usize = 60;

/// The decomposition and its memory, reused from one matrix to the next.
#[derive(Debug, Default)]
pub(super) struct SmallEigen {
    /// A, row-major, n x n: filled by the caller, overwritten by the decomposition.
    pub(super) matrix: Vec<f64>,
    /// Entry i of every t; after the decomposition t^T q_i.
    pub(super) tracked: Vec<[f64; TRACKED]>,
    /// The eigenvalues, in no order; the diagonal of the tridiagonal matrix before.
    pub(super) values: Vec<f64>,
    /// The entries below the diagonal of the tridiagonal matrix.
    below: Vec<f64>,
    /// v of the current reflection.
    reflector: Vec<f64>,
    /// w of the current reflection.
    image: Vec<f64>,
}

impl SmallEigen {
    /// Decomposes; false where the iteration does not converge, which only NaN causes.
    pub(super) fn decompose(&mut self) -> bool {
        let n = self.tracked.len();
        self.values.clear();
        self.values.resize(n, 0.0);
        self.below.clear();
        self.below.resize(n, 0.0);
        for k in 0..n.saturating_sub(1) {
            self.reflect(k, n);
        }
        if let Some(last) = n.checked_sub(1) {
            self.values[last] = self.matrix[last * n + last];
        }
        (0..n).all(|first| self.iterate(first, n))
    }

    /// Makes column k tridiagonal by H = I - f v v^T on the coordinates after k.
    fn reflect(&mut self, k: usize, n: usize) {
        self.values[k] = self.matrix[k * n + k];
        let tail: f64 = (k + 2..n).map(|i| self.matrix[i * n + k].powi(2)).sum();
        let first = self.matrix[(k + 1) * n + k];
        if tail == 0.0 {
            self.below[k] = first;
            return;
        }
        // v = column + sign(first) norm e_0, so that the sum does not cancel; f = 2 / |v|^2.
        let norm = (first * first + tail).sqrt().copysign(first);
        self.below[k] = -norm;
        self.reflector.clear();
        self.reflector.extend((k + 1..n).map(|i| self.matrix[i * n + k]));
        self.reflector[0] += norm;
        let factor = 1.0 / (norm * self.reflector[0]);
        let v = &self.reflector;
        for t in 0..TRACKED {
            let rest = &mut self.tracked[k + 1..];
            let dot: f64 = factor * rest.iter().zip(v).map(|(x, v)| x[t] * v).sum::<f64>();
            rest.iter_mut().zip(v).for_each(|(x, v)| x[t] -= dot * v);
        }
        // A - v w^T - w v^T with w = f A v - (f / 2) (v^T f A v) v.
        let start = k + 1;
        self.image.clear();
        for i in start..n {
            let row = &self.matrix[i * n + start..(i + 1) * n];
            self.image.push(factor * row.iter().zip(v).map(|(a, v)| a * v).sum::<f64>());
        }
        let half: f64 = 0.5 * factor * self.image.iter().zip(v).map(|(p, v)| p * v).sum::<f64>();
        self.image.iter_mut().zip(v).for_each(|(p, v)| *p -= half * v);
        for i in 0..v.len() {
            let row = &mut self.matrix[(start + i) * n + start..(start + i + 1) * n];
            for (j, a) in row.iter_mut().enumerate() {
                *a -= v[i] * self.image[j] + self.image[i] * v[j];
            }
        }
    }

    /// QL with implicit shifts until the off-diagonal entry next to `first` is negligible.
    fn iterate(&mut self, first: usize, n: usize) -> bool {
        for _ in 0..MOST_STEPS {
            let small = |m: usize| {
                let size = self.values[m].abs() + self.values[m + 1].abs();
                self.below[m].abs() <= f64::EPSILON * size
            };
            // The block that is not yet split: from `first` to the next negligible entry.
            let end = (first..n - 1).find(|m| small(*m)).unwrap_or(n - 1);
            if end == first {
                return true;
            }
            self.sweep(first, end);
        }
        false
    }

    /// One implicit QL sweep from `end` up to `first`.
    fn sweep(&mut self, first: usize, end: usize) {
        let (d, e) = (&mut self.values, &mut self.below);
        // Wilkinson's shift, from the leading 2 x 2 block.
        let mut g = (d[first + 1] - d[first]) / (2.0 * e[first]);
        let root = (g * g + 1.0).sqrt();
        g = d[end] - d[first] + e[first] / (g + root.copysign(g));
        // Plane rotations (c, s) from the bottom up chase the entry that the shift has put outside
        // the three diagonals; the vectors t are rotated with the matrix. `p` is still to be
        // subtracted from the next diagonal entry.
        let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
        for i in (first..end).rev() {
            let (f, b) = (s * e[i], c * e[i]);
            let root = (f * f + g * g).sqrt();
            e[i + 1] = root;
            // The matrix has split here: undo the pending shift and start again on the parts.
            if root == 0.0 {
                d[i + 1] -= p;
                e[end] = 0.0;
                return;
            }
            (s, c) = (f / root, g / root);
            g = d[i + 1] - p;
            let turned = (d[i] - g) * s + 2.0 * c * b;
            p = s * turned;
            d[i + 1] = g + p;
            g = c * turned - b;
            for t in 0..TRACKED {
                let upper = self.tracked[i + 1][t];
                self.tracked[i + 1][t] = s * self.tracked[i][t] + c * upper;
                self.tracked[i][t] = c * self.tracked[i][t] - s * upper;
            }
        }
        d[first] -= p;
        e[first] = g;
        e[end] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dense::symmetric_eigen;
    use faer::Mat;

    const ROUNDING: f64 = 1e-12;

    /// Random, low-rank, diagonal and zero matrices, compared with faer.
    #[test]
    fn values_and_products_are_those_of_another_library() {
        for n in [1, 2, 3, 9, 16] {
            for kind in 0..4 {
                let b = |i: usize, k: usize| ((i * 13 + k * 5 + kind) as f64 * 0.83).sin();
                let entry = |i: usize, j: usize| match kind {
                    0 => (0..n).map(|k| b(i, k) * b(j, k)).sum::<f64>(),
                    1 => (0..n / 2).map(|k| b(i, k) * b(j, k)).sum::<f64>(),
                    2 => f64::from(u8::from(i == j)) * (1.0 + i as f64),
                    _ => 0.0,
                };
                let t = |i: usize| [(i as f64 + 1.0).sqrt(), if i == n / 2 { 1.0 } else { 0.0 }];
                let (values, vectors) =
                    symmetric_eigen(Mat::from_fn(n, n, entry).as_ref()).expect("it converges");
                let mut eigen = SmallEigen {
                    matrix: (0..n * n).map(|at| entry(at / n, at % n)).collect(),
                    tracked: (0..n).map(t).collect(),
                    ..Default::default()
                };
                assert!(eigen.decompose());
                // Eigenvalues are compared in descending order; products with eigenvectors up to
                // their sign, and only where the eigenvalue is simple.
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| eigen.values[*b].total_cmp(&eigen.values[*a]));
                let size = values[0].abs().max(1.0);
                for (i, &at) in order.iter().enumerate() {
                    assert!((eigen.values[at] - values[i]).abs() < ROUNDING * size, "{n} {kind}");
                    let apart = |j: usize| j >= n || (values[j] - values[i]).abs() > 1e-3 * size;
                    if apart(i + 1) && (i == 0 || apart(i - 1)) {
                        for track in 0..TRACKED {
                            let dot: f64 = (0..n).map(|k| t(k)[track] * vectors[(k, i)]).sum();
                            let found = eigen.tracked[at][track];
                            assert!((found.abs() - dot.abs()).abs() < 1e-9, "{n} {kind}: {found} {dot}");
                        }
                    }
                }
            }
        }
    }
}
