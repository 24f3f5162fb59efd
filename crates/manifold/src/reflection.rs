//! The Householder reflection H = I - 2 u u^T / |u|^2 that takes a positive vector n to the first
//! axis.
//!
//! Rows 1 .. K of H A are A on the K-1 dimensional orthogonal complement of n. This removes a
//! direction that A, or a weighted form of it, cannot have in exact arithmetic, before rounding can
//! turn it into a singular value.

use faer::{Mat, MatRef};

/// The reflection of one vector n.
#[derive(Debug)]
pub(crate) struct Reflection {
    u: Vec<f64>,
    /// 2 / |u|^2.
    factor: f64,
}

impl Reflection {
    /// The reflection by u = n / |n| + e_0; the sum does not cancel because n is positive.
    pub(crate) fn of(n: &[f64]) -> Self {
        let norm = n.iter().fold(0.0_f64, |norm, x| norm.hypot(*x));
        let u: Vec<f64> =
            n.iter().enumerate().map(|(k, x)| x / norm + if k == 0 { 1.0 } else { 0.0 }).collect();
        let factor = 2.0 / u.iter().map(|x| x * x).sum::<f64>();
        Self { u, factor }
    }

    /// A on the complement of n: K x m to (K-1) x m.
    pub(crate) fn complement(&self, a: MatRef<'_, f64>) -> Mat<f64> {
        self.reflect(a).get(1.., ..).to_owned()
    }

    /// Takes rows back from the complement: (K-1) x m to K x m, orthogonal to n.
    pub(crate) fn lift(&self, a: MatRef<'_, f64>) -> Mat<f64> {
        let below = Mat::from_fn(a.nrows() + 1, a.ncols(), |k, j| if k == 0 { 0.0 } else { a[(k - 1, j)] });
        self.reflect(below.as_ref())
    }

    /// u and 2 / |u|^2.
    pub(crate) fn parts(&self) -> (&[f64], f64) {
        (&self.u, self.factor)
    }

    /// H A.
    fn reflect(&self, a: MatRef<'_, f64>) -> Mat<f64> {
        let mut reflected = a.to_owned();
        for j in 0..a.ncols() {
            let column = reflected.col_as_slice_mut(j);
            let dot = self.factor * column.iter().zip(&self.u).map(|(x, u)| x * u).sum::<f64>();
            column.iter_mut().zip(&self.u).for_each(|(x, u)| *x -= dot * u);
        }
        reflected
    }
}
