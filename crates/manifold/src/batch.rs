//! A batch of samples as Burn tensors of any device: logits [N, K] with Jacobians [N, K or K-1, p]
//! or with Gram matrices.
//!
//! Both tensors are read back in one transaction; the K x K work is done on the host in `f64`. The
//! element type of the Jacobian sets the precision of its rows, and with it the default tolerance
//! of the rank.

use burn::tensor::{DType, Tensor, TensorData, Transaction, f16};

use crate::error::wrong_length;
use crate::{Baselines, Error, Filter, Influence, RowPrecision, SampleObjective, Tangent};

/// Tangent data of a batch.
#[derive(Debug, Clone)]
pub enum BatchTangent {
    /// Rows of the Jacobians: [N, K, p] of the logits or [N, K-1, p] of the differences z_k - z_K,
    /// in f64, f32 or f16.
    Jacobian(Tensor<3>),
    /// Gram matrices J J^T: [N, K, K] or [N, K-1, K-1], in f64.
    Gram {
        /// The matrices.
        gram: Tensor<3>,
        /// The precision of the rows from which they were summed.
        rows: RowPrecision,
    },
}

/// One sample on the host: its logits and its tangent.
#[derive(Debug, Clone)]
pub struct Sample {
    /// z: `[K]`.
    pub logits: Vec<f64>,
    /// C J, reduced to V and Sigma.
    pub tangent: Tangent,
}

impl Sample {
    /// The influence on one objective.
    ///
    /// # Errors
    ///
    /// As [`influence`](crate::influence()).
    pub fn influence(&self, objective: &SampleObjective, filter: &Filter) -> Result<Influence, Error> {
        crate::influence(&self.logits, &self.tangent, objective, filter)
    }

    /// The classical measures.
    ///
    /// # Errors
    ///
    /// As [`baselines`](crate::baselines()).
    pub fn baselines(&self, objective: &SampleObjective) -> Result<Baselines, Error> {
        crate::baselines(&self.logits, &self.tangent, objective)
    }
}

/// Reads a batch back and reduces each sample to its tangent.
///
/// # Errors
///
/// A device that fails; axes that do not match; an element type in which no rank can be decided;
/// the error of a sample, with its index in the batch.
pub fn samples(logits: Tensor<2>, tangent: BatchTangent) -> Result<Vec<Sample>, Error> {
    let [count, classes] = logits.dims();
    let (tensor, what) = match &tangent {
        BatchTangent::Jacobian(rows) => (rows.clone(), "the Jacobian tensor"),
        BatchTangent::Gram { gram, .. } => (gram.clone(), "the Gram tensor"),
    };
    let [found, rows, columns] = tensor.dims();
    if found != count {
        return Err(wrong_length(what, format!("{count} samples"), found));
    }
    if rows != classes && rows + 1 != classes {
        return Err(wrong_length(
            "the class axis",
            format!("{classes} or {}", classes.saturating_sub(1)),
            rows,
        ));
    }
    // One transaction, so that the device is waited for once.
    let read = Transaction::default().register(logits).register(tensor).try_execute();
    let data = read.map_err(|error| Error::ReadBack { what, message: error.to_string() })?;
    let Ok([logits, data]) = <[TensorData; 2]>::try_from(data) else {
        return Err(Error::ReadBack { what, message: "not both tensors came back".to_owned() });
    };
    let logits = f64s(logits, "the logits")?;
    let tangents = match tangent {
        BatchTangent::Jacobian(_) => jacobians(data, count, classes, columns)?,
        BatchTangent::Gram { rows: precision, .. } => grams(data, count, classes, rows, precision)?,
    };
    let rows = logits.chunks_exact(classes.max(1));
    Ok(rows.zip(tangents).map(|(row, tangent)| Sample { logits: row.to_vec(), tangent }).collect())
}

/// The influence of every sample of a batch, with one objective per sample.
///
/// # Errors
///
/// As [`samples`]; a number of objectives that differs from the number of samples; the error of a
/// sample.
pub fn influences(
    logits: Tensor<2>,
    tangent: BatchTangent,
    objectives: &[SampleObjective],
    filter: &Filter,
) -> Result<Vec<Influence>, Error> {
    each(logits, tangent, objectives, |sample, objective| sample.influence(objective, filter))
}

/// The classical measures of every sample of a batch, with one objective per sample.
///
/// # Errors
///
/// As [`samples`]; a number of objectives that differs from the number of samples; the error of a
/// sample.
pub fn baselines(
    logits: Tensor<2>,
    tangent: BatchTangent,
    objectives: &[SampleObjective],
) -> Result<Vec<Baselines>, Error> {
    each(logits, tangent, objectives, Sample::baselines)
}

/// Runs `measure` on every sample with its objective.
fn each<R>(
    logits: Tensor<2>,
    tangent: BatchTangent,
    objectives: &[SampleObjective],
    measure: impl Fn(&Sample, &SampleObjective) -> Result<R, Error>,
) -> Result<Vec<R>, Error> {
    let [count, _] = logits.dims();
    if objectives.len() != count {
        return Err(wrong_length("the list of objectives", count, objectives.len()));
    }
    let samples = samples(logits, tangent)?;
    let pairs = samples.iter().zip(objectives).enumerate();
    pairs.map(|(index, (sample, objective))| measure(sample, objective).map_err(at(index))).collect()
}

/// Wraps a sample's error with the index of the sample.
fn at(index: usize) -> impl FnOnce(Error) -> Error {
    move |error| Error::Sample { index, source: Box::new(error) }
}

/// Tangents from Jacobian rows in f64, f32 or f16; any other type is refused.
fn jacobians(data: TensorData, count: usize, classes: usize, columns: usize) -> Result<Vec<Tangent>, Error> {
    let what = "the Jacobian";
    match data.dtype() {
        DType::F64 => {
            let rows: Vec<f64> = values(data, what)?;
            split(&rows, count, |rows| Tangent::from_rows(rows, classes, columns))
        }
        DType::F32 | DType::Flex32 => {
            let rows: Vec<f32> = values(data, what)?;
            split(&rows, count, |rows| Tangent::from_rows(rows, classes, columns))
        }
        DType::F16 => {
            // Widening to f32 is exact, but the rows still carry the rounding of f16: the tangent
            // is marked so, which loosens its tolerances.
            let rows: Vec<f32> = values::<f16>(data, what)?.into_iter().map(f32::from).collect();
            let half = |tangent: Tangent| tangent.with_precision(RowPrecision::F16);
            split(&rows, count, |rows| Tangent::from_rows(rows, classes, columns).map(half))
        }
        other => {
            let remedy = "no rank can be decided in it, run the network in f32 or f64";
            Err(Error::UnsupportedType { what, dtype: format!("{other:?}"), remedy })
        }
    }
}

/// Tangents from Gram matrices, which must have been summed in `f64`.
fn grams(
    data: TensorData,
    count: usize,
    classes: usize,
    size: usize,
    rows: RowPrecision,
) -> Result<Vec<Tangent>, Error> {
    let (what, dtype) = ("the Gram tensor", data.dtype());
    if dtype != DType::F64 {
        let remedy = "a Gram matrix summed in less than f64 decides no rank, read the Jacobian's rows back or sum in f64";
        return Err(Error::UnsupportedType { what, dtype: format!("{dtype:?}"), remedy });
    }
    let values: Vec<f64> = values(data, what)?;
    if values.len() != count * size * size {
        return Err(wrong_length(what, format!("{count} matrices of {size} x {size}"), values.len()));
    }
    split(&values, count, |gram| Tangent::from_gram(gram, classes, rows))
}

/// Cuts `values` into `count` equal pieces and makes one tangent from each.
fn split<T>(
    values: &[T],
    count: usize,
    make: impl Fn(&[T]) -> Result<Tangent, Error>,
) -> Result<Vec<Tangent>, Error> {
    let length = values.len().checked_div(count).unwrap_or(0);
    (0..count).map(|i| make(&values[i * length..][..length]).map_err(at(i))).collect()
}

/// The values of a tensor in its own element type.
fn values<E: burn::tensor::Element>(data: TensorData, what: &'static str) -> Result<Vec<E>, Error> {
    data.try_into_vec().map_err(|error| Error::ReadBack { what, message: error.to_string() })
}

/// The values of a tensor of any float type as `f64`; this widening is exact.
fn f64s(data: TensorData, what: &'static str) -> Result<Vec<f64>, Error> {
    data.try_into_vec_as().map_err(|error| Error::ReadBack { what, message: error.to_string() })
}
