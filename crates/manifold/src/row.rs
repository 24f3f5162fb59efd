//! Rows of perturbation space: the gradient df of any function of omega, reduced to what the
//! measure needs.
//!
//! With C J = V Sigma W^T, the component of df in the row space of C J is W a, a = W^T df =
//! Sigma^-1 V^T C (J df); so only J df (K values) and |df| are kept. On that component f behaves
//! like a function of the logits with the gradient dh = V Sigma^-1 a, because J^T dh = W a. The
//! remainder |df|^2 - |a|^2 is `outside`: along it f changes and the distribution does not.

use std::hash::{Hash, Hasher};

use crate::error::{check_finite, wrong_length};
use crate::{Error, Scalar, Tangent};

/// `outside` / |df|^2 below this many times the error of the weakest direction counts as 0: it is
/// then within the error of that direction's coordinate of df.
const OUTSIDE_ROUNDOFFS: f64 = 100.0;

/// A gradient df in perturbation space, kept as C J df / |df| and |df|.
#[derive(Debug, Clone)]
pub struct Row {
    /// C J df / |df|: K values that add up to zero.
    pub(crate) product: Vec<f64>,
    /// The norm |df|.
    pub(crate) norm: f64,
}

/// The component of a row along which the distribution changes.
#[derive(Debug)]
pub(crate) struct Inside {
    /// V Sigma^-1 a, divided by e^`log_scale`: K values that add up to zero.
    pub(crate) gradient: Vec<f64>,
    pub(crate) log_scale: f64,
    /// Absolute error of the entries of `gradient`.
    pub(crate) error: f64,
    /// 1 - |a|^2 / |df|^2; 0 where it could be only rounding.
    pub(crate) outside: f64,
}

impl Row {
    /// The row of df, by its products with the rows of J: all K, or the K-1 differences z_k - z_K.
    /// The length decides which.
    ///
    /// # Shapes
    ///
    /// `rows`: [K, p] or [K-1, p], K = `classes`, p = `columns`; `gradient`: `[p]`.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, no columns, another length, NaN or infinity.
    pub fn from_rows<T: Scalar>(
        rows: &[T],
        classes: usize,
        columns: usize,
        gradient: &[f64],
    ) -> Result<Self, Error> {
        if columns == 0 {
            return Err(Error::NoColumns);
        }
        if gradient.len() != columns {
            return Err(wrong_length("the gradient df", columns, gradient.len()));
        }
        if !rows.len().is_multiple_of(columns) {
            return Err(wrong_length("the Jacobian", format!("rows of {columns}"), rows.len()));
        }
        check_finite("the gradient df", gradient.iter().copied())?;
        let norm = norm(gradient);
        let unit = |i: usize| if norm > 0.0 { gradient[i] / norm } else { 0.0 };
        let unit: Vec<f64> = (0..columns).map(unit).collect();
        let product = |row: &[T]| row.iter().zip(&unit).map(|(x, u)| x.to_f64() * u).sum::<f64>();
        Self::new(rows.chunks_exact(columns).map(product).collect(), classes, norm)
    }

    /// The row of df from J df and |df|, where J itself is not available (a Gram matrix): K
    /// products, or the K-1 products with the rows z_k - z_K.
    ///
    /// # Errors
    ///
    /// Fewer than two classes, another length, NaN or infinity, a negative norm.
    pub fn from_products(products: &[f64], classes: usize, norm: f64) -> Result<Self, Error> {
        check_finite("the norm of df", [if norm >= 0.0 { norm } else { f64::NAN }])?;
        check_finite("the products J df", products.iter().copied())?;
        let unit = if norm > 0.0 { 1.0 / norm } else { 0.0 };
        Self::new(products.iter().map(|x| x * unit).collect(), classes, norm)
    }

    /// Centres the products over the classes. Of K-1 differences the missing last product is 0.
    fn new(mut product: Vec<f64>, classes: usize, norm: f64) -> Result<Self, Error> {
        if classes < 2 {
            return Err(Error::TooFewClasses { classes });
        }
        if product.len() != classes && product.len() + 1 != classes {
            let expected = format!("{classes} or {}", classes - 1);
            return Err(wrong_length("the product J df", expected, product.len()));
        }
        product.resize(classes, 0.0);
        let mean = product.iter().map(|x| x / classes as f64).sum::<f64>();
        product.iter_mut().for_each(|x| *x -= mean);
        check_finite("the product J df", product.iter().copied())?;
        check_finite("the norm of df", [norm])?;
        Ok(Self { product, norm })
    }

    /// The norm |df|.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// Refuses a row of another number of classes.
    pub(crate) fn check_classes(&self, expected: usize) -> Result<(), Error> {
        let found = self.product.len();
        if found == expected { Ok(()) } else { Err(Error::ClassMismatch { what: "a row", found, expected }) }
    }

    /// The row of df times `factor`.
    pub(crate) fn times(&self, factor: f64) -> Self {
        Self {
            product: self.product.iter().map(|x| x * factor.signum()).collect(),
            norm: self.norm * factor.abs(),
        }
    }

    /// This row when both J and df are multiplied by `unit`.
    pub(crate) fn in_units(&self, unit: f64) -> Self {
        Self { product: self.product.iter().map(|x| x * unit).collect(), norm: self.norm * unit }
    }

    /// The rows of several blocks of coordinates side by side: the products J df add, and so do the
    /// squares of |df|.
    pub(crate) fn concatenated(rows: &[&Self]) -> Self {
        let norm = rows.iter().fold(0.0_f64, |norm, row| norm.hypot(row.norm));
        let mut product = vec![0.0; rows.first().map_or(0, |row| row.product.len())];
        for row in rows.iter().filter(|row| row.norm > 0.0) {
            let share = row.norm / norm;
            product.iter_mut().zip(&row.product).for_each(|(sum, x)| *sum += x * share);
        }
        Self { product, norm }
    }

    /// The component in the row space of the first `rank` directions of the tangent.
    pub(crate) fn inside(&self, tangent: &Tangent, rank: usize) -> Inside {
        let classes = tangent.classes();
        if rank == 0 || self.norm == 0.0 {
            let outside = if self.norm > 0.0 { 1.0 } else { 0.0 };
            return Inside { gradient: vec![0.0; classes], log_scale: 0.0, error: 0.0, outside };
        }
        let largest = tangent.largest();
        let mut gradient = vec![0.0; classes];
        let mut square = 0.0;
        for j in 0..rank {
            let (column, ratio) = (tangent.basis.col_as_slice(j), tangent.singular[j] / largest);
            let dot = column.iter().zip(&self.product).map(|(v, x)| v * (x / largest)).sum::<f64>();
            // A cosine in exact arithmetic; rounding may exceed 1.
            let a = (dot / ratio).clamp(-1.0, 1.0);
            square += a * a;
            gradient.iter_mut().zip(column).for_each(|(sum, v)| *sum += a / ratio * v);
        }
        let smallest = tangent.singular[rank - 1] / largest;
        let error = tangent.direction_error(rank - 1);
        let left = 1.0 - square;
        let outside = if left > OUTSIDE_ROUNDOFFS * error { left } else { 0.0 };
        Inside { gradient, log_scale: self.norm.ln() - largest.ln(), error: error / smallest, outside }
    }
}

impl PartialEq for Row {
    /// Whether the bits are equal.
    fn eq(&self, other: &Self) -> bool {
        let bits = |row: &Self| row.product.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        self.norm.to_bits() == other.norm.to_bits() && bits(self) == bits(other)
    }
}

impl Eq for Row {}

impl Hash for Row {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.norm.to_bits().hash(state);
        self.product.iter().for_each(|x| x.to_bits().hash(state));
    }
}

/// The Euclidean norm, without overflow of squares.
fn norm(values: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    largest * values.iter().map(|x| (x / largest).powi(2)).sum::<f64>().sqrt()
}
