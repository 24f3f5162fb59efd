//! Files with a fixed batch of 1, read as files for any batch.
//!
//! An exporter that was given one sample writes 1 for the batch: in the targets of reshapes, and in
//! constants that are concatenated with samples. Here a reshape's target is read at batch size 1,
//! and the axis of the target that holds the samples is multiplied by the batch size.
//!
//! Elements are row-major, so the samples lie on an axis before which there are as many elements as
//! before the samples in the operand (the boundary). Where axes meet at the boundary, the choice is
//! an axis of size 1. Else it is the axis before the boundary, if only the last axis comes after
//! it, or the same sizes as after the samples in the operand. Else it is the first axis after the
//! boundary. Where the boundary lies within an axis, that axis holds the samples. Where no axis
//! fits, the target is kept as it is. The shapes that follow must then hold for every batch size,
//! or the network is refused.

use influence_autodiff::graph::{Size, ValueId};

use crate::call::{Call, fixed};
use crate::error::Refusal;
use crate::shapes;

/// The axis that grows with the batch, if exactly one does.
fn batch_axis(shape: &[Size]) -> Option<usize> {
    let mut following = (0..shape.len()).filter(|&axis| shape[axis].per_sample > 0);
    let axis = following.next()?;
    (following.next().is_none() && shape[axis].fixed == 0).then_some(axis)
}

/// The shape, for any batch, of a reshape whose target was written for a batch of 1; `None` where
/// the operand does not grow with the batch, or no axis of the target can hold the samples.
/// `neighbours` is the number of elements per sample along the operand's batch axis.
pub(crate) fn target(
    from: &[Size],
    neighbours: usize,
    target: &[i64],
    zero: bool,
) -> Result<Option<Vec<Size>>, Refusal> {
    let Some(batch) = batch_axis(from) else { return Ok(None) };
    let alone: Vec<usize> = from.iter().map(|size| size.at(1)).collect();
    let Ok(sizes) = shapes::target(&alone, target, zero) else { return Ok(None) };
    // The number of elements before the samples in row-major order, and the sizes after them.
    let before = alone[..batch].iter().product::<usize>() * alone[batch] / neighbours.max(1);
    let own = (neighbours > 1).then_some(neighbours);
    let behind: Vec<usize> = own.into_iter().chain(alone[batch + 1..].iter().copied()).collect();
    let axis = axis_of(&sizes, before, &behind);
    Ok(axis.map(|axis| {
        let mut shape: Vec<_> = sizes.iter().map(|&size| fixed(size)).collect();
        shape[axis] = Size { per_sample: sizes[axis], fixed: 0 };
        shape
    }))
}

/// The axis that holds the samples, for `before` elements before them and the sizes `behind` after
/// them in the operand.
fn axis_of(sizes: &[usize], before: usize, behind: &[usize]) -> Option<usize> {
    let product = |axis: usize| sizes[..axis].iter().product::<usize>();
    let boundary = (0..sizes.len()).find(|&axis| product(axis) == before);
    let alone = (0..sizes.len()).find(|&axis| product(axis) == before && sizes[axis] == 1);
    if let Some(axis) = alone {
        return Some(axis);
    }
    match boundary {
        // The last axis holds the features of one sample, so the samples are on the axis before it.
        Some(axis) if axis > 0 && (axis + 1 == sizes.len() || sizes[axis..] == *behind) => Some(axis - 1),
        Some(axis) => Some(axis),
        // The boundary lies within an axis, which holds elements before the samples together with
        // the samples.
        None => (0..sizes.len()).find(|&axis| {
            let outer = before / product(axis).max(1);
            outer > 1 && product(axis) * outer == before && sizes[axis].is_multiple_of(outer)
        }),
    }
}

/// Repeats operands of a concatenation that have one sample, where others have all of them.
pub(crate) fn together(call: &mut Call<'_, '_>, values: &mut [ValueId], along: usize) -> Result<(), Refusal> {
    let shapes: Vec<_> = values.iter().map(|&value| call.shape(value)).collect();
    let following = shapes.iter().find_map(|shape| Some((shape.clone(), batch_axis(shape)?)));
    let Some((like, axis)) = following.filter(|(_, axis)| *axis != along) else { return Ok(()) };
    for (value, shape) in values.iter_mut().zip(shapes) {
        if shape.get(axis) == Some(&fixed(1)) {
            let mut repeated = shape;
            repeated[axis] = like[axis];
            *value = call.expand(*value, &repeated)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shape, its number of neighbours per sample, a target, and the shape that this is for any
    /// batch.
    type ReshapeCase<'a> = (&'a [Size], usize, &'a [i64], &'a [Size]);

    fn n(per_sample: usize) -> Size {
        Size { per_sample, fixed: 0 }
    }

    #[test]
    fn reshape_target_for_one_sample_becomes_a_shape_for_any_batch() {
        let cases: [ReshapeCase<'_>; 10] = [
            (&[n(1), fixed(4), fixed(6)], 1, &[1, -1], &[n(1), fixed(24)]),
            (&[n(1), fixed(4), fixed(6)], 1, &[1, 2, 12], &[n(1), fixed(2), fixed(12)]),
            // Windows merged into the batch, and apart again.
            (&[n(1), fixed(4), fixed(6)], 1, &[4, 6], &[n(4), fixed(6)]),
            (&[n(4), fixed(6)], 4, &[1, 4, 6], &[n(1), fixed(4), fixed(6)]),
            (&[n(4), fixed(6)], 4, &[2, 2, 6], &[n(2), fixed(2), fixed(6)]),
            // Positions before the batch: heads merged into it.
            (&[fixed(5), n(1), fixed(6)], 1, &[5, 2, 3], &[fixed(5), n(2), fixed(3)]),
            (&[fixed(5), n(2), fixed(3)], 2, &[5, 1, 6], &[fixed(5), n(1), fixed(6)]),
            // Rows of all positions, the samples of each side by side, and apart again.
            (&[fixed(5), n(1), fixed(6)], 1, &[5, 6], &[n(5), fixed(6)]),
            (&[n(5), fixed(6)], 1, &[5, 1, 6], &[fixed(5), n(1), fixed(6)]),
            (&[n(5), fixed(6)], 1, &[5, 1, 2, 3], &[fixed(5), n(1), fixed(2), fixed(3)]),
        ];
        for (from, neighbours, to, expected) in cases {
            let found = target(from, neighbours, to, false);
            assert_eq!(found, Ok(Some(expected.to_vec())), "{from:?} {to:?}");
        }
        // The batch would fall between the axes of the target.
        assert_eq!(target(&[fixed(5), n(1), fixed(6)], 1, &[3, 10], false), Ok(None));
        assert_eq!(target(&[fixed(2), fixed(3)], 1, &[6], false), Ok(None));
    }
}
