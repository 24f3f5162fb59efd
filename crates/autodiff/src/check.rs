//! Checks that run before results are believed: finite numbers, shapes, independence of the samples, logits that are no probabilities.

use std::collections::HashMap;

use burn::tensor::{DType, FloatDType, TensorData};

use crate::array::Array;
use crate::burn_executor::BurnExecutor;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::graph::{Constant, Graph, Kind, Role, Value};
use crate::ops::with_leading;

/// The first element that is NaN or infinite: its flat index and its name.
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

/// The first element for which `good` does not hold, looked for in blocks so that the common case is a plain sweep.
fn position<T: Copy>(values: &[T], good: impl Fn(T) -> bool) -> Option<usize> {
    const BLOCK: usize = 4096;
    let block = values.chunks(BLOCK).position(|block| !block.iter().fold(true, |all, &x| all & good(x)))?;
    let start = block * BLOCK;
    values[start..].iter().position(|&x| !good(x)).map(|offset| start + offset)
}

/// A weight in the type of a run: finite as it was captured, and finite still.
///
/// # Errors
/// [`Error::NonFinite`] with its name; [`Error::InvalidArgument`] when it cannot be converted.
pub fn weight(constant: &Constant, dtype: FloatDType) -> Result<TensorData> {
    let finite = |what: String, data: &TensorData| match first_non_finite(data) {
        None => Ok(()),
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

/// Every sample of `[N, ...]` holds finite numbers only.
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

/// Floats of the type of a run. Whole numbers are refused: pixels of 0..255 would be taken for inputs in [0, 1].
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

/// `found` is `expected`.
///
/// # Errors
/// [`Error::Shape`] where it is not.
pub fn shape(what: &'static str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { what, expected: format!("{expected:?}"), found: found.to_vec() })
}

/// How many rounds of three made-up batches look for samples that influence one another.
const ROUNDS: usize = 2;

/// How far, relative to the largest logit, a sample's logits may move when another sample changes, on a device whose kernels may sum in
/// any order. On a CPU they may not move at all: the shapes are the same, and so is the order of summation.
pub(crate) const PROBE_TOLERANCE: f64 = 1e-5;

/// Runs a few made-up batches of two samples through the network and looks at the logits.
///
/// Of two batches in a row, one sample is the same, first in the first place and then in the second: every sample may hang on the first
/// (`x - x[0]`), which itself then hangs on none.
///
/// # Errors
/// [`Error::BatchCoupled`] with the first node at which one sample changed by more than `tolerance` when only the other did;
/// [`Error::Probabilities`] when every row of logits is non-negative and sums to 1.
pub(crate) fn probe(executor: &BurnExecutor, tolerance: f64) -> Result<()> {
    let executor = executor.at_batch(2)?;
    let graph = executor.plan().graph();
    let (sample, classes) = (graph.sample_shape(), graph.classes());
    let mut rows = Vec::new();
    for round in 0..ROUNDS {
        let [a, b, c, d] = [0, 1, 2, 3].map(|draw| draw_sample(&sample, 5 * round + draw));
        let batches = [[&a, &b], [&a, &c], [&d, &c]].map(|[x, y]| batch_of(&sample, &[x, y]));
        let logits = batches.iter().map(|batch| logits(&executor, batch)).collect::<Result<Vec<_>>>()?;
        for place in [0, 1] {
            let own = place * classes..(place + 1) * classes;
            if differ(&logits[place][own.clone()], &logits[place + 1][own], tolerance) {
                let pair = [&batches[place], &batches[place + 1]];
                return Err(Error::BatchCoupled { node: first_coupled(&executor, pair, place, tolerance)? });
            }
        }
        rows.extend(logits);
    }
    probabilities(&rows, classes)
}

/// Refuses a network that ends in a softmax, by the made-up samples of [`probe`]; for an executor that keeps samples apart by construction.
///
/// # Errors
/// [`Error::Probabilities`] when every row of logits is non-negative and sums to 1.
pub(crate) fn outputs(executor: &dyn Executor, graph: &Graph) -> Result<()> {
    let sample = graph.sample_shape();
    let mut rows = Vec::new();
    // One at a time: there may be memory for no more.
    for draw in 0..2 * ROUNDS {
        rows.push(logits(executor, &batch_of(&sample, &[&draw_sample(&sample, draw)]))?);
    }
    probabilities(&rows, graph.classes())
}

/// Rows that overflow on made-up samples tell nothing.
fn probabilities(batches: &[Vec<f64>], classes: usize) -> Result<()> {
    let mut rows = batches
        .iter()
        .flat_map(|batch| batch.chunks(classes))
        .filter(|row| row.iter().all(|x| x.is_finite()))
        .peekable();
    let is_probabilities = rows.peek().is_some() && rows.all(is_distribution);
    if is_probabilities { Err(Error::Probabilities) } else { Ok(()) }
}

fn logits(executor: &dyn Executor, batch: &TensorData) -> Result<Vec<f64>> {
    Ok(executor.logits(batch.clone())?.iter::<f64>().collect())
}

fn batch_of(sample: &[usize], samples: &[&[f32]]) -> TensorData {
    TensorData::new(samples.concat(), with_leading(samples.len(), sample))
}

/// The first node whose part for the sample at `place` differs between two batches that share only that sample.
fn first_coupled(
    executor: &BurnExecutor,
    pair: [&TensorData; 2],
    place: usize,
    tolerance: f64,
) -> Result<String> {
    let graph = executor.plan().graph();
    let part = |node: usize, value: &Array| -> Option<Result<Vec<f64>>> {
        let Value { shape, kind, .. } = &graph.values[graph.nodes[node].output];
        // A mask is looked at through what it chooses.
        if *kind != Kind::Float {
            return None;
        }
        // What follows the input and belongs to no sample belongs to all: any change of it couples them.
        let common = shape.iter().all(|size| size.per_sample == 0);
        let own = shape.first().filter(|size| size.fixed == 0).map(|size| size.per_sample);
        let value = value.clone();
        let part = if common { value } else { own.map(|own| value.rows(place * own, (place + 1) * own))? };
        Some(part.into_data().map(|data| data.iter::<f64>().collect()))
    };
    let mut before = HashMap::new();
    executor.observe(pair[0].clone(), |node, value| {
        before.extend(part(node, value).map(|part| (node, part)));
    })?;
    let mut found = None;
    executor.observe(pair[1].clone(), |node, value| {
        if let (None, Some(Ok(after)), Some(Ok(before))) = (found, part(node, value), before.get(&node))
            && differ(before, &after, tolerance)
        {
            found = Some(node);
        }
    })?;
    Ok(found.map_or_else(|| "the output".to_owned(), |node| graph.describe(node)))
}

/// Whether two runs of one sample differ by more than `tolerance`, relative to the largest number of both.
fn differ(a: &[f64], b: &[f64], tolerance: f64) -> bool {
    let scale = a.iter().chain(b).filter(|x| x.is_finite()).fold(0.0_f64, |max, x| max.max(x.abs()));
    let unlike = |a: f64, b: f64| {
        if a.is_finite() && b.is_finite() {
            (a - b).abs() > tolerance * scale
        } else {
            a.to_bits() != b.to_bits()
        }
    };
    a.iter().zip(b).any(|(&a, &b)| unlike(a, b))
}

/// How far from 1 a sum of probabilities in single precision may be.
const DISTRIBUTION_TOLERANCE: f64 = 1e-4;

fn is_distribution(row: &[f64]) -> bool {
    row.iter().all(|&p| p >= 0.0) && (row.iter().sum::<f64>() - 1.0).abs() < DISTRIBUTION_TOLERANCE
}

/// A made-up sample: numbers in [0, 1) in even draws, in [-3, 3) in odd ones, from a fixed sequence.
fn draw_sample(shape: &[usize], draw: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(draw as u64 + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 24) as f32
    };
    let wide = draw % 2 == 1;
    (0..shape.iter().product()).map(|_| if wide { 6.0 * next() - 3.0 } else { next() }).collect()
}

#[cfg(test)]
mod tests {
    //! Where the first bad number is, and what counts as the same or as a distribution.

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
    fn numbers_differ_beyond_the_tolerance_and_nan_only_from_numbers() {
        assert!(!differ(&[1.0, 100.0], &[1.0, 100.0], 0.0));
        assert!(differ(&[1.0, 100.0], &[1.0, 100.00000000000001], 0.0));
        assert!(!differ(&[1.0, 100.0], &[1.0009, 100.0], PROBE_TOLERANCE));
        assert!(differ(&[1.0, 100.0], &[1.0011, 100.0], PROBE_TOLERANCE));
        assert!(!differ(&[f64::NAN, f64::INFINITY], &[f64::NAN, f64::INFINITY], 0.0));
        assert!(differ(&[f64::NAN], &[0.0], 1.0) && differ(&[f64::INFINITY], &[f64::NEG_INFINITY], 1.0));
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
