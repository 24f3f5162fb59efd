//! Small dense matrices by plain loops, slow reference routes to the measure, and random numbers.

/// A row-major matrix.
#[derive(Clone, Debug)]
pub struct Dense {
    pub rows: usize,
    pub columns: usize,
    pub values: Vec<f64>,
}

impl Dense {
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self { rows, columns, values }
    }

    pub fn from_fn(rows: usize, columns: usize, entry: impl Fn(usize, usize) -> f64) -> Self {
        let values =
            (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| entry(i, j)).collect();
        Self::new(rows, columns, values)
    }

    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.columns + j]
    }

    pub fn transpose(&self) -> Self {
        Self::from_fn(self.columns, self.rows, |i, j| self.at(j, i))
    }

    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows);
        Self::from_fn(self.rows, other.columns, |i, j| {
            (0..self.columns).map(|k| self.at(i, k) * other.at(k, j)).sum()
        })
    }

    pub fn apply(&self, x: &[f64]) -> Vec<f64> {
        (0..self.rows).map(|i| (0..self.columns).map(|j| self.at(i, j) * x[j]).sum()).collect()
    }

    /// J J^T.
    pub fn gram(&self) -> Self {
        self.times(&self.transpose())
    }

    /// The rows z_k - z_K of the K rows z_k.
    pub fn differences(&self) -> Self {
        let last = self.rows - 1;
        Self::from_fn(last, self.columns, |k, i| self.at(k, i) - self.at(last, i))
    }

    /// The columns in this order, which may leave some out.
    pub fn select(&self, columns: &[usize]) -> Self {
        Self::from_fn(self.rows, columns.len(), |i, j| self.at(i, columns[j]))
    }

    /// The rows in this order, which may repeat some.
    pub fn select_rows(&self, rows: &[usize]) -> Self {
        Self::from_fn(rows.len(), self.columns, |i, j| self.at(rows[i], j))
    }

    /// Eigenvalues and eigenvectors (columns) of a symmetric matrix by Jacobi rotations.
    pub fn eigen(&self) -> (Vec<f64>, Self) {
        let n = self.rows;
        let mut a = self.clone();
        let mut q = Self::from_fn(n, n, |i, j| if i == j { 1.0 } else { 0.0 });
        for _ in 0..60 {
            for i in 0..n {
                for j in i + 1..n {
                    rotate(&mut a, &mut q, i, j);
                }
            }
        }
        ((0..n).map(|i| a.at(i, i)).collect(), q)
    }
}

/// One Jacobi rotation, which makes a_ij zero.
fn rotate(a: &mut Dense, q: &mut Dense, i: usize, j: usize) {
    let n = a.rows;
    if a.at(i, j) == 0.0 {
        return;
    }
    let theta = (a.at(j, j) - a.at(i, i)) / (2.0 * a.at(i, j));
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a.at(k, i), a.at(k, j));
        a.values[k * n + i] = c * x - s * y;
        a.values[k * n + j] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (a.at(i, k), a.at(j, k));
        a.values[i * n + k] = c * x - s * y;
        a.values[j * n + k] = s * x + c * y;
        let (x, y) = (q.at(k, i), q.at(k, j));
        q.values[k * n + i] = c * x - s * y;
        q.values[k * n + j] = s * x + c * y;
    }
}

/// b^T A^+ b, A symmetric, its eigenvalues cut at `tolerance` of the largest.
pub fn pseudo_inverse_quadratic(a: &Dense, b: &[f64], tolerance: f64) -> f64 {
    let (values, vectors) = a.eigen();
    let largest = values.iter().copied().fold(0.0, f64::max);
    let product = |i: usize| (0..a.rows).map(|k| vectors.at(k, i) * b[k]).sum::<f64>();
    (0..a.rows).filter(|i| values[*i] > tolerance * largest).map(|i| product(i).powi(2) / values[i]).sum()
}

/// The solution of A x = b by conjugate gradients, b in the range of A.
pub fn conjugate_gradients(a: &Dense, b: &[f64], steps: usize) -> Vec<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (mut x, mut residual, mut direction) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    let mut square = dot(&residual, &residual);
    let start = square;
    for _ in 0..steps {
        if square <= 1e-24 * start {
            break;
        }
        let image = a.apply(&direction);
        let step = square / dot(&direction, &image);
        x.iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
        residual.iter_mut().zip(&image).for_each(|(r, i)| *r -= step * i);
        let next = dot(&residual, &residual);
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + next / square * *d);
        square = next;
    }
    x
}

/// SplitMix64: random numbers from a seed, the same on every machine.
pub struct Random(pub u64);

impl Random {
    /// Uniform in -1 .. 1.
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Uniform in 0 .. n.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.uniform() + 1.0) / 2.0 * n as f64) as usize).min(n - 1)
    }

    pub fn vector(&mut self, n: usize, size: f64) -> Vec<f64> {
        (0..n).map(|_| size * self.uniform()).collect()
    }

    pub fn matrix(&mut self, rows: usize, columns: usize) -> Dense {
        Dense::new(rows, columns, self.vector(rows * columns, 1.0))
    }

    /// A matrix of this rank: a product of two random ones.
    pub fn planted(&mut self, rows: usize, columns: usize, rank: usize) -> Dense {
        self.matrix(rows, rank).times(&self.matrix(rank, columns))
    }

    /// Orthonormal columns, by Gram-Schmidt twice.
    pub fn orthogonal(&mut self, n: usize) -> Dense {
        let mut columns: Vec<Vec<f64>> = Vec::new();
        while columns.len() < n {
            let mut next = self.vector(n, 1.0);
            for _ in 0..2 {
                for column in &columns {
                    let dot: f64 = column.iter().zip(&next).map(|(a, b)| a * b).sum();
                    next.iter_mut().zip(column).for_each(|(x, c)| *x -= dot * c);
                }
            }
            let norm = next.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 1e-3 {
                columns.push(next.iter().map(|x| x / norm).collect());
            }
        }
        Dense::from_fn(n, n, |i, j| columns[j][i])
    }

    /// An n x n matrix of this condition.
    pub fn conditioned(&mut self, n: usize, condition: f64) -> Dense {
        let (left, right) = (self.orthogonal(n), self.orthogonal(n));
        let value = |i: usize| condition.powf(-(i as f64) / (n as f64 - 1.0));
        Dense::from_fn(n, n, |i, j| left.at(i, j) * value(j)).times(&right)
    }

    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
