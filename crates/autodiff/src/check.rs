//! Checks of inputs, weights and outputs: finite numbers, shapes, logits that are not
//! probabilities.

use burn::tensor::{DType, FloatDType, TensorData};

use crate::error::{Error, Result};
use crate::graph::{Constant, Graph, Node, Origin, Role, ValueId};
use crate::ops::Op;

/// The first element that is NaN or infinite: its flat index, and its value in words.
pub(crate) fn first_non_finite(data: &TensorData) -> Option<(usize, String)> {
    let found = match data.dtype() {
        DType::F32 => position(data.as_slice::<f32>().ok()?, |x| x.is_finite()),
        DType::F64 => position(data.as_slice::<f64>().ok()?, |x| x.is_finite()),
        dtype if dtype.is_float() => data.iter::<f32>().position(|x| !x.is_finite()),
        _ => None,
    }?;
    let value = data.iter::<f64>().nth(found).unwrap_or(f64::NAN);
    Some((found, value.to_string()))
}

/// The first element for which `good` does not hold. Whole blocks are tested without early exit,
/// which the compiler vectorises; usually all are good.
fn position<T: Copy>(values: &[T], good: impl Fn(T) -> bool) -> Option<usize> {
    /// Elements that are tested together. The number does not matter much: long for a vector, and
    /// short for the one block that is read twice.
    const BLOCK: usize = 4096;
    let block = values.chunks(BLOCK).position(|block| !block.iter().fold(true, |all, &x| all & good(x)))?;
    let start = block * BLOCK;
    values[start..].iter().position(|&x| !good(x)).map(|offset| start + offset)
}

/// A weight in the float type of a run, which must be finite before and after the conversion. A
/// literal of the model's code may be infinite (but not NaN): masks are added to scores as minus
/// infinity.
///
/// # Errors
/// [`Error::NonFinite`] with its name; [`Error::InvalidArgument`] when it cannot be converted.
pub fn weight(constant: &Constant, dtype: FloatDType) -> Result<TensorData> {
    let literal = constant.role == Role::Literal;
    let is_nan = |data: &TensorData| data.iter::<f64>().any(f64::is_nan);
    let finite = |what: String, data: &TensorData| match first_non_finite(data) {
        None => Ok(()),
        Some(_) if literal && !is_nan(data) => Ok(()),
        Some((index, value)) => Err(Error::NonFinite { what, value, index }),
    };
    let name = match constant.role {
        Role::Literal => "a tensor made in the forward function".to_owned(),
        Role::Parameter(_) | Role::Buffer => format!("weight {}", constant.name),
    };
    finite(name.clone(), &constant.data)?;
    let data = constant.data.clone().try_cast(dtype.into());
    let data =
        data.map_err(|error| Error::InvalidArgument(format!("{name} cannot be converted: {error:?}")))?;
    finite(format!("{name}, converted to {:?}", data.dtype()), &data)?;
    Ok(data)
}

/// Checks that every sample of `[N, ...]` is finite.
pub(crate) fn finite_samples(what: &str, data: &TensorData) -> Result<()> {
    match first_non_finite(data) {
        None => Ok(()),
        Some((flat, value)) => {
            let size = data.num_elements() / data.shape()[0];
            Err(Error::NonFinite {
                what: format!("{what} of sample {}", flat / size),
                value,
                index: flat % size,
            })
        }
    }
}

/// Converts floats to the type of a run. Integers are refused: pixels of 0..255 would be taken for
/// inputs in [0, 1].
pub(crate) fn as_float(data: TensorData, dtype: FloatDType) -> Result<TensorData> {
    if !data.dtype().is_float() {
        return Err(Error::InvalidArgument(format!(
            "the input holds {:?}, but a network takes floats: convert and scale it first (pixels / 255)",
            data.dtype()
        )));
    }
    data.try_cast(dtype.into())
        .map_err(|error| Error::InvalidArgument(format!("the input cannot be converted: {error:?}")))
}

/// The size of the first axis: samples of a batch, or cotangents; 0 where there is no axis.
#[must_use]
pub fn first_axis(data: &TensorData) -> usize {
    data.shape().first().copied().unwrap_or(0)
}

/// The most elements that a value of a graph may have: more than any memory holds, and so few that
/// sizes can be added and multiplied.
const MOST_ELEMENTS: usize = 1 << 40;

/// The number of elements of a shape.
///
/// # Errors
/// The reason, where no value has so many.
pub(crate) fn elements(shape: &[usize]) -> std::result::Result<usize, String> {
    let count = shape.iter().try_fold(1_usize, |count, &size| count.checked_mul(size));
    let count = count.filter(|&count| count <= MOST_ELEMENTS);
    count.ok_or_else(|| format!("shape {shape:?} has more elements than memory can hold"))
}

/// Checks that `found` is `expected`.
///
/// # Errors
/// [`Error::Shape`] otherwise.
pub fn shape(what: &'static str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what, expected: format!("{expected:?}"), found: found.to_vec() })
}

/// Refuses rows of logits `[n, K]` if every one is non-negative and sums to 1. Rows that overflow
/// on the synthetic samples are ignored.
///
/// # Errors
/// [`Error::Probabilities`].
pub(crate) fn distribution(logits: &[f64], classes: usize) -> Result<()> {
    let finite = |row: &&[f64]| row.iter().all(|x| x.is_finite());
    let mut rows = logits.chunks(classes).filter(finite).peekable();
    let is_probabilities = rows.peek().is_some() && rows.all(is_distribution);
    if is_probabilities { Err(Error::Probabilities) } else { Ok(()) }
}

/// Refuses outputs that lie in [0, 1] for every input, because the last operation bounds them;
/// operations after it that only move elements are ignored.
///
/// # Errors
/// [`Error::Probabilities`] after a softmax over the classes; [`Error::Bounded`] after any other
/// such operation.
pub(crate) fn unbounded(graph: &Graph) -> Result<()> {
    let producer = |id: ValueId| match graph.values[id].origin {
        Origin::Node(node) => Some(node),
        Origin::Input | Origin::Constant(_) => None,
    };
    // From the output back to the operation that computes its elements.
    let mut id = graph.output;
    while let Some(node) = producer(id) {
        let Node { op, inputs, output, .. } = &graph.nodes[node];
        match op {
            Op::Reshape(_) | Op::Permute(_) | Op::Flip(_) | Op::Slice(_) | Op::Cast(_) | Op::Expand(_) => {
                id = inputs[0];
            }
            // For a single logit z: the operation that gives z, before it becomes [z, 0].
            Op::Linear(_) if graph.one_logit && *output == graph.output => id = inputs[0],
            Op::Softmax(softmax) if *output == graph.output && softmax.axis == 1 => {
                return Err(Error::Probabilities);
            }
            Op::Softmax(_) | Op::Sigmoid(_) | Op::HardSigmoid(_) => {
                return Err(Error::Bounded { node: graph.describe(node) });
            }
            Op::Clamp(clamp) if clamp.min >= Some(0.0) && clamp.max.is_some_and(|max| max <= 1.0) => {
                return Err(Error::Bounded { node: graph.describe(node) });
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// How far from 1 a sum of probabilities may be: more than single precision rounds the sum of a
/// thousand of them. With less, probabilities would pass as logits.
const DISTRIBUTION_TOLERANCE: f64 = 1e-4;

fn is_distribution(row: &[f64]) -> bool {
    row.iter().all(|&p| p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < DISTRIBUTION_TOLERANCE
}

/// A synthetic sample from a fixed pseudo-random sequence: elements in [0, 1) in even draws,
/// elements in (-3, 3) with alternating signs in odd ones.
pub(crate) fn draw_sample(shape: &[usize], draw: usize) -> Vec<f32> {
    // Xorshift (Marsaglia 2003) from a seed of the draw. The upper 24 bits are the digits of an
    // f32.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(draw as u64 + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    let number = |i: usize| match (draw % 2, i % 2) {
        (0, _) => next(),
        (_, 0) => -3.0 * next(),
        _ => 3.0 * next(),
    };
    (0..shape.iter().product()).map(number).collect()
}

#[cfg(test)]
mod tests {
    //! The position of the first bad number, what counts as a distribution, and synthetic samples.

    use burn::tensor::f16;

    use super::*;

    #[test]
    fn the_first_bad_number_is_found_in_every_type_and_block() {
        for at in [0, 1, 4_095, 4_096, 9_999] {
            let mut values = vec![1.0_f64; 10_000];
            values[at] = f64::NEG_INFINITY;
            values[9_999] = f64::NAN;
            let data = TensorData::new(values, [10_000]);
            let expected = if at == 9_999 { "NaN" } else { "-inf" };
            for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
                let found = first_non_finite(&data.clone().convert_dtype(dtype));
                assert_eq!(found, Some((at, expected.to_owned())), "{dtype:?}");
            }
        }
        assert_eq!(first_non_finite(&TensorData::new(vec![f64::MAX, -0.0, 5e-324], [3])), None);
        assert_eq!(first_non_finite(&TensorData::new(vec![f16::MAX, f16::MIN], [2])), None);
        assert_eq!(first_non_finite(&TensorData::new(Vec::<f32>::new(), [0])), None);
    }

    #[test]
    fn a_sample_is_named_with_its_own_index() {
        let data = TensorData::new(vec![0.0, 1.0, 2.0, 3.0, f32::NAN, 5.0], [3, 2]);
        let expected =
            Error::NonFinite { what: "the input of sample 2".into(), value: "NaN".into(), index: 0 };
        assert_eq!(finite_samples("the input", &data), Err(expected));
    }

    #[test]
    fn a_distribution_is_not_negative_and_sums_to_1() {
        assert!(is_distribution(&[0.25, 0.75]) && is_distribution(&[0.0, 1.00001]));
        assert!(!is_distribution(&[-0.1, 1.1]) && !is_distribution(&[0.5, 0.51]));
        assert!(!is_distribution(&[f64::NAN, 1.0]));
    }

    #[test]
    fn draws_are_reproducible_and_differ() {
        let draws: Vec<_> = (0..9).map(|draw| draw_sample(&[2, 3], draw)).collect();
        assert_eq!(draws[4], draw_sample(&[2, 3], 4));
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[..i].iter().all(|b| a != b), "draw {i}");
            let range = if i % 2 == 1 { -3.0..3.0 } else { 0.0..1.0 };
            assert!(a.iter().all(|x| range.contains(x)), "draw {i}: {a:?}");
        }
    }
}
