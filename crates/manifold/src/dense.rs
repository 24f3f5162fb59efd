//! Dense factorisations A = Q R, A = U Sigma V^T and A = Q Lambda Q^T, on one thread.
//!
//! faer's high-level calls follow a global thread setting. The last bits of a result may depend on
//! it, and a caller may have disabled it; the calls here therefore pass their parallelism
//! explicitly.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Mat, MatRef, Par};

use crate::Error;

/// One thread per matrix, so that results do not depend on the number of threads.
const PAR: Par = Par::Seq;

/// R of A = Q R by Householder reflections; min(m, n) x n, upper trapezoidal.
pub(crate) fn qr_factor(mut a: Mat<f64>) -> Mat<f64> {
    let (rows, columns) = a.shape();
    let size = rows.min(columns);
    if size == 0 {
        return Mat::zeros(size, columns);
    }
    let block = recommended_block_size::<f64>(rows, columns);
    let mut coefficients = Mat::zeros(block, size);
    let scratch = qr_in_place_scratch::<f64>(rows, columns, block, PAR, Default::default());
    let mut memory = MemBuffer::new(scratch);
    qr_in_place(a.as_mut(), coefficients.as_mut(), PAR, MemStack::new(&mut memory), Default::default());
    Mat::from_fn(size, columns, |i, j| if i <= j { a[(i, j)] } else { 0.0 })
}

/// The thin decomposition A = U Sigma V^T.
pub(crate) struct Svd {
    /// m x min(m, n), orthonormal columns.
    pub(crate) left: Mat<f64>,
    /// Singular values, descending.
    pub(crate) values: Vec<f64>,
    /// n x min(m, n), orthonormal columns.
    pub(crate) right: Mat<f64>,
}

/// The thin decomposition A = U Sigma V^T with the vectors of both sides.
pub(crate) fn thin_svd(a: MatRef<'_, f64>) -> Result<Svd, Error> {
    let (m, n) = a.shape();
    let size = m.min(n);
    let (mut left, mut right) = (Mat::zeros(m, size), Mat::zeros(n, size));
    let mut values = Diag::zeros(size);
    if size > 0 {
        let thin = ComputeSvdVectors::Thin;
        let mut memory = MemBuffer::new(svd_scratch::<f64>(m, n, thin, thin, PAR, Default::default()));
        svd(
            a,
            values.as_mut(),
            Some(left.as_mut()),
            Some(right.as_mut()),
            PAR,
            MemStack::new(&mut memory),
            Default::default(),
        )
        .map_err(|_| Error::NoConvergence { what: "singular value decomposition" })?;
    }
    Ok(Svd { left, values: values.column_vector().iter().copied().collect(), right })
}

/// Only the singular values of A, descending.
pub(crate) fn singular_values(a: MatRef<'_, f64>) -> Result<Vec<f64>, Error> {
    let (m, n) = a.shape();
    let mut values = Diag::zeros(m.min(n));
    if m.min(n) > 0 {
        let no = ComputeSvdVectors::No;
        let mut memory = MemBuffer::new(svd_scratch::<f64>(m, n, no, no, PAR, Default::default()));
        svd(a, values.as_mut(), None, None, PAR, MemStack::new(&mut memory), Default::default())
            .map_err(|_| Error::NoConvergence { what: "singular value decomposition" })?;
    }
    Ok(values.column_vector().iter().copied().collect())
}

/// The decomposition A = Q Lambda Q^T of a symmetric matrix: eigenvalues descending, eigenvectors
/// as columns in their order.
pub(crate) fn symmetric_eigen(a: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let n = a.nrows();
    let mut vectors = Mat::zeros(n, n);
    let mut values = Diag::zeros(n);
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, PAR, Default::default());
    let mut memory = MemBuffer::new(scratch);
    self_adjoint_evd(
        a,
        values.as_mut(),
        Some(vectors.as_mut()),
        PAR,
        MemStack::new(&mut memory),
        Default::default(),
    )
    .map_err(|_| Error::NoConvergence { what: "symmetric eigendecomposition" })?;
    // faer returns ascending eigenvalues; reverse both values and columns.
    let values: Vec<f64> = values.column_vector().iter().copied().collect();
    let vectors = Mat::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)]);
    Ok((values.into_iter().rev().collect(), vectors))
}
