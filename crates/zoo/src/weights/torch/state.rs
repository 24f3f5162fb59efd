//! Finds the dict of a pickle that contains the weights, and the position of each of its tensors in
//! the file.

use std::collections::HashSet;
use std::ops::Range;

use super::pickle::Pickle;
use super::value::{Body, PickleValue, Tensor};
use crate::error::quoted;
use crate::weights::checkpoint::TensorInfo;
use crate::weights::json::FormatFault;
use crate::weights::layout::ElementOrder;

/// Number of keys that a message names.
const EXAMPLES: usize = 8;

/// The names and tensors of the dict of tensors. It is the pickle's root, or nested in it under a
/// text key (`{"epoch": 3, "model": {...}}`). The search is breadth-first: the shallowest one is
/// taken, and two at the same depth are an error.
pub(super) fn state_dict<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<Vec<(&'a str, &'p Tensor<'a>)>, String> {
    let PickleValue::Dict(root) = pickle.root else {
        return Err(format!("it holds {}, not a dict of tensors", pickle.root.kind()));
    };
    let (mut level, mut seen) = (vec![("", root)], HashSet::from([root]));
    while !level.is_empty() {
        let found: Vec<_> =
            level.iter().filter_map(|&(key, dict)| Some((key, tensors(pickle, dict)?))).collect();
        if found.len() > 1 {
            let keys = found.iter().map(|(key, _)| format!("`{}`", quoted(key)));
            return Err(format!("several dicts of tensors are in it, under {}", listed(keys)));
        }
        if let Some((_, tensors)) = found.into_iter().next() {
            return Ok(tensors);
        }
        level = level
            .iter()
            .flat_map(|&(_, dict)| &pickle.objects.dicts[dict])
            .filter_map(|&(key, value)| match (key, value) {
                (PickleValue::Text(key), PickleValue::Dict(dict)) if seen.insert(dict) => Some((key, dict)),
                _ => None,
            })
            .collect();
    }
    Err(format!("no dict of tensors is in it, but {}", contents(pickle, root)))
}

/// The contents of a dict of tensors; `None` if it is empty or contains anything else.
fn tensors<'p, 'a>(pickle: &'p Pickle<'a>, dict: usize) -> Option<Vec<(&'a str, &'p Tensor<'a>)>> {
    let entries = pickle.objects.dicts[dict].iter().map(|&(key, value)| match (key, value) {
        (PickleValue::Text(key), PickleValue::Tensor(tensor)) => Some((key, &pickle.objects.tensors[tensor])),
        _ => None,
    });
    entries.collect::<Option<Vec<_>>>().filter(|tensors| !tensors.is_empty())
}

fn contents(pickle: &Pickle<'_>, dict: usize) -> String {
    let entries = &pickle.objects.dicts[dict];
    if entries.is_empty() {
        return "an empty dict".to_owned();
    }
    listed(entries.iter().map(|&(key, value)| match key {
        PickleValue::Text(key) => format!("`{}` ({})", quoted(key), value.kind()),
        _ => format!("{} under {}", value.kind(), key.kind()),
    }))
}

/// The first items, and the number of the others.
fn listed(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(EXAMPLES);
    let mut list = items.take(EXAMPLES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    list
}

/// The description of a tensor whose storage, if it has one, occupies `bytes` of the file.
pub(super) fn locate(
    name: &str,
    tensor: &Tensor<'_>,
    bytes: Range<u64>,
    big_endian: bool,
) -> Result<TensorInfo, FormatFault> {
    let Tensor { at, shape, body } = tensor;
    let (storage, offset, strides) = match body {
        Body::Stored { storage, offset, strides } => (storage, offset, strides),
        &Body::Odd(dtype) => {
            let (name, shape) = (name.to_owned(), shape.clone());
            return Ok(TensorInfo { name, dtype, shape, bytes: 0..0, layout: ElementOrder::default() });
        }
    };
    let fault =
        |why: String| Err(FormatFault { offset: *at, why: format!("tensor `{}` {why}", quoted(name)) });
    // The claims of the pickle are checked against the bytes that really exist: the size of the
    // storage, the number of elements (which must not repeat some, or a small file could expand to
    // any size), and the last element that the view reaches.
    let size = storage.dtype.bits() / 8;
    let held = (bytes.end - bytes.start) / size;
    if held != storage.count {
        return fault(format!("has a storage of {} elements, and the file has {held}", storage.count));
    }
    let (Some(count), Some(span)) = (elements(shape), span(shape, strides)) else {
        return fault(format!("has a shape or strides beyond 64 bits, {shape:?} and {strides:?}"));
    };
    if count > held {
        return fault(format!("repeats elements, {count} from {held}: save a copy of it, made by clone()"));
    }
    let end = offset.checked_add(span).filter(|&end| end <= held);
    let Some(end) = end else {
        return fault(format!("spans {span} elements from element {offset} of {held}"));
    };
    let bytes = bytes.start + offset * size..bytes.start + end * size;
    let layout = ElementOrder::new(shape, strides, big_endian);
    Ok(TensorInfo { name: name.to_owned(), dtype: storage.dtype, shape: shape.clone(), bytes, layout })
}

/// The number of elements of a shape, `None` beyond 64 bits.
fn elements(shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(1u64, |count, &length| count.checked_mul(length as u64))
}

/// The number of elements of the storage from the first to the last of a view, both included;
/// `None` beyond 64 bits.
fn span(shape: &[usize], strides: &[usize]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let axes = shape.iter().zip(strides);
    axes.map(|(&length, &stride)| (length as u64 - 1).checked_mul(stride as u64))
        .try_fold(1u64, |span, axis| span.checked_add(axis?))
}
