//! Shapes that nodes specify, computed here for both known tensors and values of the graph.

use crate::error::Refusal;
use crate::known::axis;
use crate::node::Attributes;

/// The order of axes of a transposition: reversed by default.
pub(crate) fn order(given: Option<Vec<i64>>, rank: usize) -> Result<Vec<usize>, Refusal> {
    let Some(given) = given else { return Ok((0..rank).rev().collect()) };
    let axes: Vec<_> = given.into_iter().map(|given| axis(given, rank)).collect::<Result<_, _>>()?;
    let all = axes.len() == rank && (0..rank).all(|axis| axes.contains(&axis));
    if all { Ok(axes) } else { Err(format!("{axes:?} is not an order of {rank} axes").into()) }
}

/// A shape with axes of size `one` inserted at the given positions.
pub(crate) fn unsqueezed<S: Copy>(shape: &[S], axes: &[i64], one: S) -> Result<Vec<S>, Refusal> {
    let rank = shape.len() + axes.len();
    let axes: Vec<_> = axes.iter().map(|&given| axis(given, rank)).collect::<Result<_, _>>()?;
    let mut rest = shape.iter();
    let sizes =
        (0..rank).filter_map(|axis| if axes.contains(&axis) { Some(one) } else { rest.next().copied() });
    let sizes: Vec<_> = sizes.collect();
    if sizes.len() == rank { Ok(sizes) } else { Err("it names an axis twice".into()) }
}

/// The shape that a reshape specifies: 0 keeps the operand's size of the same axis (unless `zero`:
/// then it means size 0), and -1 takes the elements that are left.
pub(crate) fn target(from: &[usize], target: &[i64], zero: bool) -> Result<Vec<usize>, Refusal> {
    let sizes: Vec<Option<usize>> = target
        .iter()
        .enumerate()
        .map(|(axis, &size)| match size {
            0 if !zero => from.get(axis).copied().map(Some).ok_or_else(|| axis.to_string()),
            -1 => Ok(None),
            size => usize::try_from(size).map(Some).map_err(|_| size.to_string()),
        })
        .collect::<Result<_, _>>()
        .map_err(|what| format!("the target {target:?} cannot be read at {what}"))?;
    let times = |product: usize, &size: &usize| product.checked_mul(size);
    let known = sizes.iter().flatten().try_fold(1, times);
    let all = from.iter().try_fold(1, times);
    let (Some(known), Some(all)) = (known, all) else {
        return Err(format!("the target {target:?} is too large").into());
    };
    // The open axis takes what the others leave, without a rest.
    let open = sizes.iter().filter(|size| size.is_none()).count();
    let rest = match open {
        0 if known == all => 0,
        1 if known > 0 && all % known == 0 => all / known,
        _ => return Err(format!("shape {from:?} does not take the shape {target:?}").into()),
    };
    Ok(sizes.into_iter().map(|size| size.unwrap_or(rest)).collect())
}

/// A regular part of an axis: `start`, then every `step`-th, `count` in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Range {
    /// The index from which element `i` comes.
    pub(crate) fn at(self, i: usize) -> usize {
        (self.start as i64 + i as i64 * self.step) as usize
    }

    /// A whole axis.
    fn whole(size: usize) -> Self {
        Self { start: 0, step: 1, count: size }
    }
}

/// The part that the operator `Slice` takes, for an operand of any sizes: axis, start, end and step
/// of each entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceBounds(Vec<(usize, i64, i64, i64)>);

impl SliceBounds {
    /// Reads the bounds from the node's attributes (opset 1) or its operands (opset 10 and newer).
    pub(crate) fn of(
        attributes: Attributes<'_>,
        operand: impl Fn(usize) -> Option<Vec<i64>>,
        rank: usize,
    ) -> Result<Self, Refusal> {
        let given = |name: &str, position: usize| attributes.ints(name).or_else(|| operand(position));
        let starts = given("starts", 1).ok_or("it has no starts")?;
        let ends = given("ends", 2).ok_or("it has no ends")?;
        let axes = given("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = operand(4).unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || steps.contains(&0) {
            return Err("its starts, ends, axes and steps do not fit together".into());
        }
        let all = starts.into_iter().zip(ends).zip(axes).zip(steps);
        let one = |(((start, end), along), step)| Ok((axis(along, rank)?, start, end, step));
        Ok(Self(all.map(one).collect::<Result<_, Refusal>>()?))
    }

    /// The range along each axis of an operand of this shape.
    pub(crate) fn ranges(&self, shape: &[usize]) -> Vec<Range> {
        let mut ranges: Vec<_> = shape.iter().map(|&size| Range::whole(size)).collect();
        for &(axis, start, end, step) in &self.0 {
            let size = shape[axis] as i64;
            let from_front = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
            // As in NumPy, bounds are cut to the axis. A negative step may end before the first
            // element.
            let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
            let start = from_front(start).clamp(low.max(0), high.max(0));
            let end = from_front(end).clamp(low, high);
            let span = if step > 0 { end - start } else { start - end };
            let count = if size == 0 { 0 } else { span.max(0) as u64 }.div_ceil(step.unsigned_abs());
            ranges[axis] = Range { start: start as usize, step, count: count as usize };
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_follow_0_and_minus_1() {
        assert_eq!(target(&[2, 3, 4], &[0, -1], false), Ok(vec![2, 12]));
        assert_eq!(target(&[2, 3, 4], &[-1, 0, 2], false), Ok(vec![4, 3, 2]));
        assert_eq!(target(&[0, 3], &[3, 0], true), Ok(vec![3, 0]));
        for (from, to) in [(&[2, 3][..], &[4, -1][..]), (&[2], &[-1, -1]), (&[6], &[2, 2]), (&[2], &[-3])] {
            assert!(target(from, to, false).is_err(), "{from:?} {to:?}");
        }
        assert!(target(&[2], &[0, 0], false).is_err(), "there is no axis 1");
        assert!(target(&[2], &[i64::MAX, i64::MAX], false).is_err());
    }

    #[test]
    fn unsqueeze_inserts_axes_and_transpose_reverses_them() {
        assert_eq!(unsqueezed(&[3, 4], &[0, -1], 1), Ok(vec![1, 3, 4, 1]));
        assert!(unsqueezed(&[3], &[0, 0], 1).is_err());
        assert_eq!(order(None, 3), Ok(vec![2, 1, 0]));
        assert!(order(Some(vec![0, 0]), 2).is_err());
    }

    #[test]
    fn slices_are_those_of_numpy() {
        let part = |start, end, step| SliceBounds(vec![(0, start, end, step)]).ranges(&[5])[0];
        let taken = |range: Range| (0..range.count).map(|i| range.at(i)).collect::<Vec<_>>();
        assert_eq!(taken(part(1, i64::MAX, 2)), [1, 3]);
        assert_eq!(taken(part(-2, 99, 1)), [3, 4]);
        assert_eq!(taken(part(-1, i64::MIN, -1)), [4, 3, 2, 1, 0]);
        assert_eq!(taken(part(3, 0, -2)), [3, 1]);
        assert_eq!(taken(part(3, 3, 1)), [] as [usize; 0]);
        assert_eq!(taken(part(9, 2, 1)), [] as [usize; 0]);
    }
}
