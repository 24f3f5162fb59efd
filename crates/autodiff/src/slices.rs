//! Slices with negative steps, as flips and slices with positive steps.
//!
//! Where a step is negative, Burn takes the elements `start..end` of an axis from the last to the
//! first. Here a flip of such axes is put before the slice, whose bounds are then counted from the
//! other end.

use burn::backend::ir::{BaseOperationIr, FlipOpIr, OperationIr, SliceOpIr, TensorId, TensorIr};
use burn::tensor::Slice;

use crate::capture::Recording;

/// Puts a flip before every slice of floats with a negative step.
pub(crate) fn turn(recording: &mut Recording) {
    let mut turned = Vec::new();
    for op in std::mem::take(&mut recording.operations) {
        match op {
            OperationIr::BaseFloat(BaseOperationIr::Slice(slice)) if is_backwards(&slice) => {
                turned.extend(forwards(slice));
            }
            op => turned.push(op),
        }
    }
    recording.operations = turned;
}

fn is_backwards(slice: &SliceOpIr) -> bool {
    slice.ranges.iter().any(|range| range.step < 0)
}

/// A flip and a slice with the same result.
fn forwards(slice: SliceOpIr) -> [OperationIr; 2] {
    let SliceOpIr { tensor, ranges, out } = slice;
    // The flip reverses the axes with negative steps. The slice then takes the same elements from
    // the flipped tensor, which has the operand's shape and an identity of its own.
    let flipped = TensorIr { id: beside(out.id), ..tensor.clone() };
    let axes = (0..ranges.len()).filter(|&axis| ranges[axis].step < 0).collect();
    let sizes = tensor.shape.to_vec();
    let ranges = ranges.iter().zip(sizes).map(|(range, size)| mirrored(range, size)).collect();
    let flip = FlipOpIr { input: tensor, out: flipped.clone(), axes };
    let slice = SliceOpIr { tensor: flipped, ranges, out };
    [
        OperationIr::BaseFloat(BaseOperationIr::Flip(flip)),
        OperationIr::BaseFloat(BaseOperationIr::Slice(slice)),
    ]
}

/// An identity that no tensor of a recording has: Burn numbers tensors upwards from 0.
fn beside(id: TensorId) -> TensorId {
    TensorId::new(u64::MAX - id.value())
}

/// The range that takes the same elements from the reversed axis of `size`, for a negative step;
/// other ranges stay.
fn mirrored(range: &Slice, size: usize) -> Slice {
    if range.step > 0 {
        return *range;
    }
    // Element i is element size - 1 - i of the reversed axis: the last one, which the range takes
    // first, comes first there too.
    let plain = range.to_range(size);
    let (start, end) = (size - plain.end, size - plain.start);
    Slice::new(start as isize, Some(end as isize), -range.step)
}
