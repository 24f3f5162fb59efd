//! A tensor whose rank is known only at run time, on any Burn device.
//!
//! Burn's `Tensor<D>` carries its rank in its type, but the ranks of a graph's values are data.
//! [`Array`] wraps Burn's dispatch tensor, which has no static rank, and offers the operations in
//! which the rules of [`crate::ops`] are written.

use burn::backend::ops::{BoolTensorOps, FloatTensorOps, IntTensorOps, TransactionOps, TransactionPrimitive};
use burn::backend::{Dispatch, DispatchDevice, DispatchTensor, Scalar, TensorMetadata};
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Shape, Slice, TensorData, try_read_sync};

use crate::capture::quietly;
use crate::error::{Error, Result};

/// A tensor of any rank on any device. Its elements are floats unless it is a mask or holds
/// indices.
///
/// Cloning is cheap: the storage is shared, and Burn overwrites only storage that is not shared.
#[derive(Debug, Clone)]
pub(crate) struct Array(pub(crate) DispatchTensor);

/// Operations on floats, whose result has the element type and device of `self`; comparisons, whose
/// result is a mask.
impl Array {
    /// The elements under another shape of the same size.
    #[must_use]
    pub(crate) fn reshape(self, shape: &[usize]) -> Self {
        if self.shape() == shape {
            self
        } else {
            Self(Dispatch::float_reshape(self.0, Shape::from(shape.to_vec())))
        }
    }

    pub(crate) fn expand(self, shape: &[usize]) -> Self {
        Self(Dispatch::float_expand(self.0, Shape::from(shape.to_vec())))
    }

    pub(crate) fn permute(self, axes: &[usize]) -> Self {
        Self(Dispatch::float_permute(self.0, axes))
    }

    pub(crate) fn flip(self, axes: &[usize]) -> Self {
        Self(Dispatch::float_flip(self.0, axes))
    }

    pub(crate) fn slice(self, slices: &[Slice]) -> Self {
        Self(Dispatch::float_slice(self.0, slices))
    }

    /// Rows `start..end` of the first axis.
    #[must_use]
    pub(crate) fn rows(self, start: usize, end: usize) -> Self {
        let mut slices: Vec<Slice> = self.shape().into_iter().map(|size| Slice::from(0..size)).collect();
        slices[0] = Slice::from(start..end);
        self.slice(&slices)
    }

    pub(crate) fn slice_assign(self, slices: &[Slice], value: Self) -> Self {
        Self(Dispatch::float_slice_assign(self.0, slices, value.0))
    }

    pub(crate) fn cat(parts: Vec<Self>, axis: usize) -> Self {
        Self(Dispatch::float_cat(parts.into_iter().map(|part| part.0).collect(), axis))
    }

    pub(crate) fn add(self, other: Self) -> Self {
        Self(Dispatch::float_add(self.0, other.0))
    }

    pub(crate) fn sub(self, other: Self) -> Self {
        Self(Dispatch::float_sub(self.0, other.0))
    }

    pub(crate) fn mul(self, other: Self) -> Self {
        Self(Dispatch::float_mul(self.0, other.0))
    }

    pub(crate) fn div(self, other: Self) -> Self {
        Self(Dispatch::float_div(self.0, other.0))
    }

    pub(crate) fn add_scalar(self, value: f64) -> Self {
        Self(Dispatch::float_add_scalar(self.0, Scalar::Float(value)))
    }

    pub(crate) fn mul_scalar(self, value: f64) -> Self {
        Self(Dispatch::float_mul_scalar(self.0, Scalar::Float(value)))
    }

    pub(crate) fn div_scalar(self, value: f64) -> Self {
        Self(Dispatch::float_div_scalar(self.0, Scalar::Float(value)))
    }

    pub(crate) fn recip(self) -> Self {
        Self(Dispatch::float_recip(self.0))
    }

    pub(crate) fn neg(self) -> Self {
        Self(Dispatch::float_neg(self.0))
    }

    /// The elements in another float type.
    pub(crate) fn cast(self, dtype: FloatDType) -> Self {
        if FloatDType::from(self.dtype()) == dtype { self } else { Self(Dispatch::float_cast(self.0, dtype)) }
    }

    pub(crate) fn exp(self) -> Self {
        Self(Dispatch::float_exp(self.0))
    }

    pub(crate) fn sqrt(self) -> Self {
        Self(Dispatch::float_sqrt(self.0))
    }

    pub(crate) fn erf(self) -> Self {
        Self(Dispatch::float_erf(self.0))
    }

    pub(crate) fn log(self) -> Self {
        Self(Dispatch::float_log(self.0))
    }

    pub(crate) fn log1p(self) -> Self {
        Self(Dispatch::float_log1p(self.0))
    }

    pub(crate) fn sin(self) -> Self {
        Self(Dispatch::float_sin(self.0))
    }

    pub(crate) fn cos(self) -> Self {
        Self(Dispatch::float_cos(self.0))
    }

    pub(crate) fn abs(self) -> Self {
        Self(Dispatch::float_abs(self.0))
    }

    /// The sign of each element: -1, 0 or 1.
    pub(crate) fn sign(self) -> Self {
        Self(Dispatch::float_sign(self.0))
    }

    /// The largest whole number that is not above each element.
    pub(crate) fn floor(self) -> Self {
        Self(Dispatch::float_floor(self.0))
    }

    /// The nearest whole number to each element; halves go to the even one.
    pub(crate) fn round(self) -> Self {
        Self(Dispatch::float_round(self.0))
    }

    /// Elements that are whole numbers, as indices.
    pub(crate) fn into_indices(self) -> Self {
        let kind = int_dtype(&self.device());
        Self(Dispatch::float_into_int(self.0, kind))
    }

    /// Each element to a power; whole exponents take negative bases.
    pub(crate) fn power(self, exponent: f64) -> Self {
        Self(Dispatch::float_powf_scalar(self.0, Scalar::Float(exponent)))
    }

    /// Each element cut to the bounds; NaN stays.
    pub(crate) fn clamp(self, min: Option<f64>, max: Option<f64>) -> Self {
        let low = min.into_iter().fold(self.0, |x, min| Dispatch::float_clamp_min(x, Scalar::Float(min)));
        Self(max.into_iter().fold(low, |x, max| Dispatch::float_clamp_max(x, Scalar::Float(max))))
    }

    /// Each element to the power of the other array's.
    pub(crate) fn power_of(self, exponent: Self) -> Self {
        Self(Dispatch::float_powf(self.0, exponent.0))
    }

    /// The sums of the elements up to each along an axis.
    pub(crate) fn sums_along(self, axis: usize) -> Self {
        Self(Dispatch::float_cumsum(self.0, axis))
    }

    pub(crate) fn tanh(self) -> Self {
        Self(Dispatch::float_tanh(self.0))
    }

    /// The largest element along one axis, which stays with size 1.
    pub(crate) fn max_axis(self, axis: usize) -> Self {
        Self(Dispatch::float_max_dim(self.0, axis))
    }

    /// The sum over one axis, which stays with size 1.
    pub(crate) fn sum_axis(self, axis: usize) -> Self {
        Self(Dispatch::float_sum_dim(self.0, axis))
    }

    /// True where the value exceeds `bound`; a mask of the device's own boolean type.
    pub(crate) fn above(&self, bound: f64) -> Self {
        Self(Dispatch::float_greater_elem(self.0.clone(), Scalar::Float(bound), bool_dtype(&self.device())))
    }

    /// True where the value is not below `bound`.
    pub(crate) fn at_least(&self, bound: f64) -> Self {
        let kind = bool_dtype(&self.device());
        Self(Dispatch::float_greater_equal_elem(self.0.clone(), Scalar::Float(bound), kind))
    }

    /// True where the value is below `bound`.
    pub(crate) fn below(&self, bound: f64) -> Self {
        Self(Dispatch::float_lower_elem(self.0.clone(), Scalar::Float(bound), bool_dtype(&self.device())))
    }

    /// True where the value is not above `bound`.
    pub(crate) fn at_most(&self, bound: f64) -> Self {
        let kind = bool_dtype(&self.device());
        Self(Dispatch::float_lower_equal_elem(self.0.clone(), Scalar::Float(bound), kind))
    }

    /// True where both masks are.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(Dispatch::bool_and(self.0, other.0))
    }

    /// True where the mask is false.
    pub(crate) fn not(self) -> Self {
        Self(Dispatch::bool_not(self.0))
    }

    /// True where the value is below the other array's, of the same shape.
    pub(crate) fn lower(self, other: Self) -> Self {
        let kind = bool_dtype(&self.device());
        Self(Dispatch::float_lower(self.0, other.0, kind))
    }

    /// True where the value is not above the other array's, of the same shape.
    pub(crate) fn lower_equal(self, other: Self) -> Self {
        let kind = bool_dtype(&self.device());
        Self(Dispatch::float_lower_equal(self.0, other.0, kind))
    }

    /// True where the value is that of the other array, of the same shape.
    pub(crate) fn equals(self, other: Self) -> Self {
        let kind = bool_dtype(&self.device());
        Self(Dispatch::float_equal(self.0, other.0, kind))
    }

    /// True where the value is `bound`.
    pub(crate) fn equal_to(&self, bound: f64) -> Self {
        Self(Dispatch::float_equal_elem(self.0.clone(), Scalar::Float(bound), bool_dtype(&self.device())))
    }

    /// A mask as floats: 1 where it is true, and 0 elsewhere.
    pub(crate) fn mask_as_numbers(self, place: &Placement) -> Self {
        Self(Dispatch::bool_into_float(self.0, place.dtype))
    }

    /// The mask under another shape of as many elements.
    pub(crate) fn reshape_mask(self, shape: &[usize]) -> Self {
        Self(Dispatch::bool_reshape(self.0, Shape::from(shape.to_vec())))
    }

    /// Integer indices repeated along axes of size 1.
    pub(crate) fn expand_indices(self, shape: &[usize]) -> Self {
        Self(Dispatch::int_expand(self.0, Shape::from(shape.to_vec())))
    }

    /// Integer indices under another shape of as many elements.
    pub(crate) fn reshape_indices(self, shape: &[usize]) -> Self {
        Self(Dispatch::int_reshape(self.0, Shape::from(shape.to_vec())))
    }
}

/// Integer indices.
impl Array {
    /// The index of the first maximum along an axis, which stays with size 1.
    pub(crate) fn argmax(&self, axis: usize) -> Self {
        Self(Dispatch::float_argmax(self.0.clone(), axis, int_dtype(&self.device())))
    }

    /// The elements along an axis in order, and the index from which each came.
    pub(crate) fn sorted(self, axis: usize, descending: bool) -> (Self, Self) {
        let kind = int_dtype(&self.device());
        let (values, indices) = Dispatch::float_sort_with_indices(self.0, axis, descending, kind);
        (Self(values), Self(indices))
    }

    /// The first `count` indices along an axis.
    pub(crate) fn first_indices(self, axis: usize, count: usize) -> Self {
        let mut slices: Vec<Slice> = self.shape().into_iter().map(|size| Slice::from(0..size)).collect();
        slices[axis] = Slice::from(0..count);
        Self(Dispatch::int_slice(self.0, &slices))
    }

    /// The elements at `indices` along an axis.
    pub(crate) fn gather(self, axis: usize, indices: Self) -> Self {
        Self(Dispatch::float_gather(axis, self.0, indices.0))
    }

    /// The slices at a list of indices along an axis.
    pub(crate) fn select(self, axis: usize, indices: Self) -> Self {
        Self(Dispatch::float_select(self.0, axis, indices.0))
    }

    /// The array with the slices of `values` added at a list of indices along an axis.
    pub(crate) fn select_add(self, axis: usize, indices: Self, values: Self) -> Self {
        Self(Dispatch::float_select_assign(self.0, axis, indices.0, values.0, IndexingUpdateOp::Add))
    }

    /// The array with `values` added at `indices` along an axis.
    pub(crate) fn scatter_add(self, axis: usize, indices: Self, values: Self) -> Self {
        Self(Dispatch::float_scatter(axis, self.0, indices.0, values.0, IndexingUpdateOp::Add))
    }
}

/// Masks and selections by them.
impl Array {
    /// The array with `value` where the mask is true; both have one shape, or the mask has axes of
    /// size 1.
    pub(crate) fn fill(self, mask: Self, value: f64) -> Self {
        let mask = mask.expand_mask(&self.shape());
        Self(Dispatch::float_mask_fill(self.0, mask.0, Scalar::Float(value)))
    }

    /// The array with the elements of `other` where the mask is true; all three have one shape.
    pub(crate) fn choose(self, mask: Self, other: Self) -> Self {
        Self(Dispatch::float_mask_where(self.0, mask.0, other.0))
    }

    /// The mask repeated along axes of size 1.
    pub(crate) fn expand_mask(self, shape: &[usize]) -> Self {
        if self.shape() == shape {
            self
        } else {
            Self(Dispatch::bool_expand(self.0, Shape::from(shape.to_vec())))
        }
    }

    /// Host data as a mask.
    pub(crate) fn mask(data: TensorData, place: &Placement) -> Self {
        let data = data.convert_dtype(bool_dtype(&place.device).into());
        Self(Dispatch::bool_from_data(data, &place.device))
    }

    /// Host data as indices.
    pub(crate) fn indices(data: TensorData, place: &Placement) -> Self {
        let data = data.convert_dtype(int_dtype(&place.device).into());
        Self(Dispatch::int_from_data(data, &place.device))
    }
}

/// Creation, transfer and reading.
impl Array {
    /// The number of elements along each axis.
    #[must_use]
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.0.shape().iter().copied().collect()
    }

    /// The element type.
    #[must_use]
    pub(crate) fn dtype(&self) -> DType {
        self.0.dtype()
    }

    pub(crate) fn device(&self) -> DispatchDevice {
        self.0.device()
    }

    /// An array whose elements are all `value`, with the element type and device of `like`.
    pub(crate) fn full(shape: &[usize], value: f64, like: &Placement) -> Self {
        let shape = Shape::from(shape.to_vec());
        Self(Dispatch::float_full(shape, Scalar::Float(value), &like.device, like.dtype))
    }

    /// An array of zeros, with the element type and device of `self`.
    pub(crate) fn zeros_like(&self, shape: &[usize]) -> Self {
        Self::full(shape, 0.0, &self.place())
    }

    /// The device and element type of this array.
    pub(crate) fn place(&self) -> Placement {
        Placement { device: self.device(), dtype: self.dtype().into() }
    }

    /// Host data, converted to the element type of `place` and moved to its device.
    pub(crate) fn from_data(data: TensorData, place: &Placement) -> Self {
        let data = data.convert_dtype(place.dtype.into());
        Self(Dispatch::float_from_data(data, &place.device))
    }

    /// All elements, row-major, read back to the host.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails to deliver them.
    pub(crate) fn into_data(self) -> Result<TensorData> {
        delivered(|| try_read_sync(Dispatch::float_into_data(self.0)))
    }

    /// Two arrays of one device read back to the host, with one wait for both.
    ///
    /// # Errors
    /// [`Error::Device`] when the device fails to deliver them.
    pub(crate) fn into_data_together(first: Self, second: Self) -> Result<(TensorData, TensorData)> {
        let both = TransactionPrimitive::<Dispatch>::new(vec![first.0, second.0], vec![], vec![], vec![]);
        let read = delivered(|| try_read_sync(Dispatch::tr_execute(both)))?;
        match <[TensorData; 2]>::try_from(read.read_floats) {
            Ok([first, second]) => Ok((first, second)),
            Err(read) => {
                Err(Error::Device(format!("the device delivered {} arrays instead of two", read.len())))
            }
        }
    }
}

/// What `read` brings back from a device. A device may compute only when results are read, so a
/// panic here is one of its kernels.
fn delivered<T, E: std::fmt::Debug>(read: impl FnOnce() -> Option<std::result::Result<T, E>>) -> Result<T> {
    let failed = |why: &dyn std::fmt::Debug| Error::Device(format!("the run on the device failed: {why:?}"));
    let read = quietly(read).map_err(|message| failed(&message))?;
    let read =
        read.ok_or_else(|| Error::Device("the device cannot be read synchronously on this platform".into()))?;
    read.map_err(|error| failed(&error))
}

/// Where arrays live: a device, and the float type to use there.
#[derive(Debug, Clone)]
pub(crate) struct Placement {
    pub(crate) device: DispatchDevice,
    pub(crate) dtype: FloatDType,
}

/// The type in which `device` stores booleans.
fn bool_dtype(device: &DispatchDevice) -> burn::tensor::BoolDType {
    burn::tensor::Device::new(device.clone()).settings().bool_dtype
}

/// The type in which `device` stores indices.
pub(crate) fn int_dtype(device: &DispatchDevice) -> burn::tensor::IntDType {
    burn::tensor::Device::new(device.clone()).settings().int_dtype
}
