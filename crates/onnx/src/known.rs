//! Tensors whose elements are known at import: shapes, axes, bounds, masks, literals.
//!
//! Elements of every type are held as f64, which is exact for all floats of networks and for
//! integers up to 2^53. Larger integers occur only in slices, where they mean "to the end", and
//! still do.

use burn::tensor::TensorData;

use crate::error::Refusal;

/// The kind of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElementKind {
    Float,
    Int,
    Bool,
}

/// The largest number of elements of a known tensor: far more than shapes and masks need, and few
/// enough that a damaged file cannot demand much memory.
pub(crate) const MOST_ELEMENTS: usize = 1 << 24;

/// A tensor of known elements, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KnownTensor {
    pub(crate) shape: Vec<usize>,
    pub(crate) element: ElementKind,
    pub(crate) values: Vec<f64>,
}

impl KnownTensor {
    /// A single number.
    pub(crate) fn scalar(element: ElementKind, value: f64) -> Self {
        Self { shape: vec![], element, values: vec![value] }
    }

    /// A list of integers.
    pub(crate) fn list(values: impl IntoIterator<Item = usize>) -> Self {
        let values: Vec<_> = values.into_iter().map(|value| value as f64).collect();
        Self { shape: vec![values.len()], element: ElementKind::Int, values }
    }

    /// The tensor of this shape with the element `at(index)` at each index.
    pub(crate) fn build(
        shape: &[usize],
        element: ElementKind,
        mut at: impl FnMut(&[usize]) -> f64,
    ) -> Result<Self, Refusal> {
        let count = elements(shape)?;
        let mut index = vec![0; shape.len()];
        let values = (0..count)
            .map(|flat| {
                // The index of a flat position, from the last axis, which runs fastest.
                let mut rest = flat;
                for axis in (0..shape.len()).rev() {
                    index[axis] = rest % shape[axis];
                    rest /= shape[axis];
                }
                at(&index)
            })
            .collect();
        Ok(Self { shape: shape.to_vec(), element, values })
    }

    /// The element at an index, broadcast: leading axes that this tensor lacks are ignored, and
    /// axes of size 1 repeat.
    pub(crate) fn at(&self, index: &[usize]) -> f64 {
        let own = &index[index.len() - self.shape.len()..];
        let flat = |flat, (&i, &size): (&usize, &usize)| flat * size + i.min(size - 1);
        self.values[own.iter().zip(&self.shape).fold(0, flat)]
    }

    /// The element, if there is exactly one.
    pub(crate) fn only(&self) -> Option<f64> {
        if let [only] = self.values[..] { Some(only) } else { None }
    }

    /// All elements as integers.
    pub(crate) fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|&value| value as i64).collect()
    }

    /// The same elements under another shape.
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Result<Self, Refusal> {
        if elements(&shape)? != self.values.len() {
            let count = self.values.len();
            return Err(format!("{count} elements do not fill shape {shape:?}").into());
        }
        Ok(Self { shape, ..self.clone() })
    }

    /// The tensor as a constant for arithmetic: floats in f64, or a mask.
    pub(crate) fn numbers(&self) -> TensorData {
        match self.element {
            ElementKind::Int => TensorData::new(self.values.clone(), self.shape.clone()),
            ElementKind::Float | ElementKind::Bool => self.data(),
        }
    }

    /// The tensor as a constant of the graph: floats in f64, indices or a mask.
    pub(crate) fn data(&self) -> TensorData {
        let shape = self.shape.clone();
        match self.element {
            ElementKind::Float => TensorData::new(self.values.clone(), shape),
            ElementKind::Int => TensorData::new(self.ints(), shape),
            ElementKind::Bool => {
                let values: Vec<bool> = self.values.iter().map(|&value| value != 0.0).collect();
                TensorData::new(values, shape)
            }
        }
    }
}

/// The number of elements of a shape, if a known tensor may have that many.
pub(crate) fn elements(shape: &[usize]) -> Result<usize, Refusal> {
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    count
        .filter(|&count| count <= MOST_ELEMENTS)
        .ok_or_else(|| Refusal::from(format!("a constant of shape {shape:?} would have too many elements")))
}

/// The shape to which two shapes broadcast, as in NumPy.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, Refusal> {
    let rank = a.len().max(b.len());
    let size =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            _ => Err(format!("shapes {a:?} and {b:?} do not broadcast").into()),
        })
        .collect()
}

/// An axis, which may be counted from the end, counted from the front.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let found = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(found)
        .ok()
        .filter(|&found| found < rank)
        .ok_or_else(|| format!("there is no axis {axis} among {rank}").into())
}
