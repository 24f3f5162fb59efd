//! The order of a tensor's elements in a file, and their conversion to row-major, little-endian
//! order.

use super::Dtype;

/// The order of a tensor's elements; by default row-major and little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ElementOrder {
    /// The step in elements along each axis; `None` if row-major.
    strides: Option<Vec<usize>>,
    big_endian: bool,
}

impl ElementOrder {
    /// The layout of a view with these strides. Strides of axes of length 1 do not matter.
    pub(super) fn new(shape: &[usize], strides: &[usize], big_endian: bool) -> Self {
        let mut step = 1;
        let mut row_major = true;
        for (&length, &stride) in shape.iter().zip(strides).rev() {
            row_major &= length == 1 || stride == step;
            // Saturating, because an empty tensor may have other axes of any length.
            step = length.saturating_mul(step);
        }
        let effective = || shape.iter().zip(strides).map(|(&n, &stride)| if n > 1 { stride } else { 0 });
        Self { strides: (!row_major).then(|| effective().collect()), big_endian }
    }

    /// Converts the bytes of a tensor, from its first element to its last, to row-major,
    /// little-endian order.
    pub(super) fn settle(&self, shape: &[usize], dtype: Dtype, bytes: &mut Vec<u8>) {
        let size = (dtype.bits() / 8) as usize;
        if self.big_endian {
            bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        }
        if let Some(strides) = &self.strides {
            *bytes = gather(shape, strides, size, bytes);
        }
    }
}

/// The elements of a view, each of `size` bytes, in row-major order.
fn gather(shape: &[usize], strides: &[usize], size: usize, bytes: &[u8]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(count * size);
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    for _ in 0..count {
        // Copy one element, then advance the multi-index like an odometer: `at` follows by adding
        // a stride, or subtracting a whole axis when it wraps.
        gathered.extend_from_slice(&bytes[at * size..][..size]);
        for axis in (0..shape.len()).rev() {
            if index[axis] + 1 < shape[axis] {
                index[axis] += 1;
                at += strides[axis];
                break;
            }
            at -= strides[axis] * index[axis];
            index[axis] = 0;
        }
    }
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(shape: &[usize], strides: &[usize], bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        ElementOrder::new(shape, strides, false).settle(shape, Dtype::parse("U8").unwrap(), &mut bytes);
        bytes
    }

    #[test]
    fn views_are_gathered() {
        assert_eq!(settled(&[2, 3], &[3, 1], &[0, 1, 2, 3, 4, 5]), [0, 1, 2, 3, 4, 5]);
        assert_eq!(settled(&[3, 2], &[1, 3], &[0, 1, 2, 3, 4, 5]), [0, 3, 1, 4, 2, 5]);
        assert_eq!(settled(&[3], &[2], &[0, 1, 2, 3, 4]), [0, 2, 4]);
        assert_eq!(settled(&[2, 1, 2], &[4, 99, 3], &[0, 1, 2, 3, 4, 5, 6, 7]), [0, 3, 4, 7]);
        assert_eq!(settled(&[2, 2], &[0, 1], &[8, 9]), [8, 9, 8, 9]);
        assert_eq!(settled(&[], &[], &[7]), [7]);
        assert_eq!(settled(&[0, 2], &[5, 3], &[]), [0; 0]);
    }

    #[test]
    fn big_endian_elements_are_turned() {
        let mut bytes = [1.5f32.to_be_bytes(), (-2f32).to_be_bytes()].concat();
        ElementOrder::new(&[2], &[1], true).settle(&[2], Dtype::F32, &mut bytes);
        assert_eq!(bytes, [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat());
    }
}
