//! Normalisation.

use burn::tensor::TensorData;
use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Div, Mul, Sub};
use influence_autodiff::ops::elementwise::{Abs, Clamp, Power, Sqrt};
use influence_autodiff::ops::layout::Slice;
use influence_autodiff::ops::norm::{BatchNorm, LayerNorm};
use influence_autodiff::ops::reduce::{Mean, Sum};

use super::activation::difference;
use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Binding;
use crate::known::axis;
use crate::node::shortest;

/// (x - offset) scale, of `ai.onnx.ml`, with one element per feature or one for all.
pub(super) fn scaler(call: &mut Call<'_, '_>) -> Results {
    let mut x = call.value(0)?;
    for (name, op) in [("offset", Op::Sub(Sub)), ("scale", Op::Mul(Mul))] {
        let numbers = call.attributes().floats(name).ok_or_else(|| format!("it has no {name}"))?;
        let numbers: Vec<_> = numbers.into_iter().map(|x| shortest(x as f32)).collect();
        let shape = [1, numbers.len()];
        let numbers = call.literal(TensorData::new(numbers, shape));
        x = call.emit(op, &[x, numbers])?;
    }
    one(x)
}

/// Batch normalisation with stored statistics, which are state and not trained.
pub(super) fn batch(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let training = attributes.int("training_mode", 0) != 0
        || call.node.output.iter().skip(1).any(|output| !output.is_empty());
    let x = call.value(0)?;
    let shape = call.shape(x);
    if training && shape.len() > 1 && !call.uses_result(1) && shape.iter().all(|size| size.per_sample == 0) {
        // Standardised weights: a constant, normalised by its own statistics.
        let axes = (0..shape.len()).filter(|&axis| axis != 1).collect();
        let h = standardised(call, x, axes, attributes.float("epsilon", 1e-5))?;
        return one(affine(call, h)?);
    }
    if training {
        return Err(Refusal::new(
            "it normalises with the statistics of the batch, which couples the samples",
            "export the network in evaluation (model.eval())",
        ));
    }
    if attributes.int("spatial", 1) == 0 {
        return Err(Refusal::new("its statistics are not those of channels", "export with spatial=1"));
    }
    let epsilon = attributes.float("epsilon", 1e-5);
    let mut operands = vec![x, call.value(1)?, call.value(2)?];
    for position in [3, 4] {
        operands.push(match call.operand(position) {
            Some(&Binding::Weight(id)) => call.importer.buffer(id),
            _ => call.value(position)?,
        });
    }
    one(call.emit(Op::BatchNorm(BatchNorm { epsilon }), &operands)?)
}

/// Each row normalised by its own mean and variance, over the last axes, from `axis` on.
pub(super) fn layer(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let from = axis(call.attributes().int("axis", -1), shape.len())?;
    let epsilon = call.attributes().float("epsilon", 1e-5);
    let (rows, count) = flattened(&shape, from)?;
    let inner = call.reshape(x, &rows)?;
    let mut operands = vec![inner, lined(call, 1, count)?];
    if call.has(2) {
        operands.push(lined(call, 2, count)?);
    }
    let result = call.emit(Op::LayerNorm(LayerNorm { epsilon }), &operands)?;
    one(call.reshape(result, &shape)?)
}

/// A shape with the axes from `from` on merged, and their number of elements.
fn flattened(shape: &[Size], from: usize) -> Result<(Vec<Size>, usize), Refusal> {
    if shape[from..].iter().any(|size| size.per_sample > 0) {
        return Err("it normalises over the batch".into());
    }
    let count = shape[from..].iter().map(|size| size.fixed).product();
    Ok((shape[..from].iter().copied().chain([fixed(count)]).collect(), count))
}

/// Scale or shift, reshaped to a vector of `count`.
fn lined(call: &mut Call<'_, '_>, position: usize, count: usize) -> Result<ValueId, Refusal> {
    let value = call.value(position)?;
    call.reshape(value, &[fixed(count)])
}

/// h = (x - mean) / sqrt(variance + epsilon) over some axes.
fn standardised(
    call: &mut Call<'_, '_>,
    x: ValueId,
    axes: Vec<usize>,
    epsilon: f64,
) -> Result<ValueId, Refusal> {
    let mean = call.emit(Op::Mean(Mean { axes: axes.clone() }), &[x])?;
    let centred = difference(call, x, mean)?;
    let square = call.mul(centred, centred)?;
    let variance = call.emit(Op::Mean(Mean { axes }), &[square])?;
    let shifted = call.plus(variance, epsilon)?;
    let root = call.emit(Op::Sqrt(Sqrt), &[shifted])?;
    call.emit(Op::Div(Div), &[centred, root])
}

/// (x - mean) / (deviation + 1e-9), with ONNX's constant, over named axes, which by default include
/// the batch axis.
pub(super) fn mean_variance(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let given = call.attributes().ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
    let rank = call.shape(x).len();
    let axes: Vec<_> = given.into_iter().map(|given| axis(given, rank)).collect::<Result<_, _>>()?;
    let mean = call.emit(Op::Mean(Mean { axes: axes.clone() }), &[x])?;
    let centred = difference(call, x, mean)?;
    let square = call.mul(centred, centred)?;
    let variance = call.emit(Op::Mean(Mean { axes }), &[square])?;
    let deviation = call.emit(Op::Sqrt(Sqrt), &[variance])?;
    let below = call.plus(deviation, 1e-9)?;
    one(call.emit(Op::Div(Div), &[centred, below])?)
}

/// h scale + shift, per channel.
fn affine(call: &mut Call<'_, '_>, h: ValueId) -> Result<ValueId, Refusal> {
    let rank = call.shape(h).len();
    let channels = call.shape(h).get(1).map_or(1, |size| size.fixed);
    let mut along = vec![fixed(1); rank];
    along[1] = fixed(channels);
    let (scale, shift) = (call.value(1)?, call.value(2)?);
    let (scale, shift) = (call.reshape(scale, &along)?, call.reshape(shift, &along)?);
    let scaled = call.emit(Op::Mul(Mul), &[h, scale])?;
    call.add(scaled, shift)
}

/// Each channel of a sample normalised by its own mean and variance.
pub(super) fn instance(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let rank = call.shape(x).len();
    if rank < 3 {
        return Err("it takes channels with positions".into());
    }
    let epsilon = call.attributes().float("epsilon", 1e-5);
    let h = standardised(call, x, (2..rank).collect(), epsilon)?;
    one(affine(call, h)?)
}

/// Each group of channels of a sample normalised by its own mean and variance.
pub(super) fn group(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let (shape, sizes) = (call.shape(x), call.sample(x)?);
    let groups = usize::try_from(call.attributes().int("num_groups", 1)).unwrap_or(0);
    let channels = sizes.first().copied().unwrap_or(0);
    if groups == 0 || channels == 0 || channels % groups != 0 {
        return Err(format!("{channels} channels do not fall into {groups} groups").into());
    }
    let epsilon = call.attributes().float("epsilon", 1e-5);
    let count = sizes.iter().product::<usize>() / groups;
    let grouped = call.reshape(x, &[shape[0], fixed(groups), fixed(count)])?;
    let h = standardised(call, grouped, vec![2], epsilon)?;
    // Before opset 21, scale and shift are per group.
    if call.shape_of(1)? == [groups] && groups != channels {
        let scaled = affine(call, h)?;
        return one(call.reshape(scaled, &shape)?);
    }
    let h = call.reshape(h, &shape)?;
    one(affine(call, h)?)
}

/// x scale / sqrt(mean of x^2 + epsilon) over the last axes.
pub(super) fn root_mean_square(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let from = axis(call.attributes().int("axis", -1), shape.len())?;
    let epsilon = call.attributes().float("epsilon", 1e-5);
    let (rows, count) = flattened(&shape, from)?;
    let inner = call.reshape(x, &rows)?;
    let square = call.mul(inner, inner)?;
    let mean = call.emit(Op::Mean(Mean { axes: vec![from] }), &[square])?;
    let shifted = call.plus(mean, epsilon)?;
    let root = call.emit(Op::Sqrt(Sqrt), &[shifted])?;
    let h = call.emit(Op::Div(Div), &[inner, root])?;
    let scale = lined(call, 1, count)?;
    let pair = call.alike([h, scale])?;
    let scaled = call.emit(Op::Mul(Mul), &pair)?;
    one(call.reshape(scaled, &shape)?)
}

/// x divided by its length along an axis.
pub(super) fn length(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let along = axis(call.attributes().int("axis", -1), call.shape(x).len())?;
    let sum = Op::Sum(Sum { axes: vec![along] });
    let length = match call.attributes().int("p", 2) {
        1 => {
            let sizes = call.emit(Op::Abs(Abs), &[x])?;
            call.emit(sum, &[sizes])?
        }
        2 => {
            let squares = call.mul(x, x)?;
            let sum = call.emit(sum, &[squares])?;
            call.emit(Op::Sqrt(Sqrt), &[sum])?
        }
        p => return Err(format!("there is no length of p = {p}").into()),
    };
    // A row of zeros stays a row of zeros.
    let least = Clamp { min: Some(f64::from(f32::MIN_POSITIVE)), max: None };
    let length = call.emit(Op::Clamp(least), &[length])?;
    one(call.emit(Op::Div(Div), &[x, length])?)
}

/// x / (bias + alpha / size times the sum of x^2 over `size` neighbouring channels)^beta.
pub(super) fn local_response(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let size = usize::try_from(attributes.int("size", 1)).unwrap_or(0);
    let (alpha, beta) = (attributes.float("alpha", 1e-4), attributes.float("beta", 0.75));
    let bias = attributes.float("bias", 1.0);
    let x = call.value(0)?;
    let (rank, sizes) = (call.shape(x).len(), call.sample(x)?);
    let channels = sizes.first().copied().unwrap_or(0);
    if size == 0 || channels == 0 || size > channels.saturating_mul(2) {
        return Err(format!("{size} neighbours among {channels} channels").into());
    }
    let square = call.mul(x, x)?;
    // The sum over neighbours is that of shifted parts, of squares with zeros before the first
    // channel and after the last.
    let (before, after) = ((size - 1) / 2, size / 2);
    let padded = super::layout::margin(call, square, 1, before, after)?;
    let mut sum = None;
    for shift in 0..size {
        let mut ranges = vec![None; rank];
        ranges[1] = Some([shift, shift + channels, 1]);
        let part = call.emit(Op::Slice(Slice { ranges }), &[padded])?;
        sum = Some(match sum {
            None => part,
            Some(sum) => call.add(sum, part)?,
        });
    }
    let sum = sum.ok_or("it has no neighbours")?;
    let sum = call.times(sum, alpha / size as f64)?;
    let base = call.plus(sum, bias)?;
    let factor = call.emit(Op::Power(Power { exponent: -beta }), &[base])?;
    one(call.mul(x, factor)?)
}
