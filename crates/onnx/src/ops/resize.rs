//! Resizing. All modes but the nearest are products with weights that are computed here.
//!
//! Along each axis that changes, y = A x, with A `[new, old]` from the operator's definition: the
//! position of each new element among the old ones (the transformation of coordinates), and the
//! weights of its neighbours there (the mode). The nearest neighbour is a selection at constant
//! indices.

use burn::tensor::TensorData;
use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::indexing::Select;
use influence_autodiff::ops::linear::Linear;

use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::host::BatchId;
use crate::import::Binding;
use crate::known::axis;
use crate::node::{Attributes, shortest};

/// The sizes of one axis, and the factor between them as given by the node.
#[derive(Debug, Clone, Copy)]
struct AxisSizes {
    old: usize,
    new: usize,
    scale: f64,
}

pub(super) fn resize(call: &mut Call<'_, '_>) -> Results {
    // In opset 10 the scales are the second operand, later the third.
    let (scales, sizes) = if call.opset < 11 { (1, 9) } else { (2, 3) };
    let sizes = sizes_of(call, sizes)?.filter(|sizes| !sizes.is_empty());
    let scales = if sizes.is_some() { None } else { scales_of(call, scales)? };
    resized(call, scales.filter(|scales| !scales.is_empty()), sizes)
}

/// The scale factors, which are f32 in the file, as the decimals that were written.
fn scales_of(call: &Call<'_, '_>, position: usize) -> Result<Option<Vec<f64>>, Refusal> {
    let tensor = call.constant(position)?;
    Ok(tensor.map(|tensor| tensor.values.iter().map(|&scale| shortest(scale as f32)).collect()))
}

/// The requested sizes, at the first of the followed batch sizes; an axis may grow with the batch
/// where the operand's does.
fn sizes_of(call: &Call<'_, '_>, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
    let Some(host) = call.host(position)? else { return Ok(None) };
    let [first, second, _] = BatchId::ALL.map(|batch| host.at(batch).ints());
    match call.operand(0) {
        Some(Binding::Value(x)) => {
            let shape = call.shape(*x);
            let batched = |axis: usize| shape.get(axis).is_some_and(|size| size.per_sample > 0);
            let fits = (0..first.len()).all(|axis| first[axis] == second[axis] || batched(axis));
            if fits { Ok(Some(first)) } else { Err("its sizes depend on the batch".into()) }
        }
        _ => Ok(Some(first)),
    }
}

pub(super) fn upsample(call: &mut Call<'_, '_>) -> Results {
    let scales = match call.attributes().floats("scales") {
        Some(scales) => Some(scales),
        None => scales_of(call, 1)?,
    };
    resized(call, scales, None)
}

fn resized(call: &mut Call<'_, '_>, scales: Option<Vec<f64>>, sizes: Option<Vec<i64>>) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let attributes = call.attributes();
    if attributes.word("keep_aspect_ratio_policy", "stretch") != "stretch" {
        return Err(Refusal::new("it keeps the aspect ratio", "export with the sizes written out"));
    }
    let axes: Vec<usize> = match attributes.ints("axes") {
        Some(axes) => axes.into_iter().map(|given| axis(given, shape.len())).collect::<Result<_, _>>()?,
        None => (0..shape.len()).collect(),
    };
    let old = call.shape_at(x, BatchId::FIRST);
    let count = scales.as_ref().map(Vec::len).or(sizes.as_ref().map(Vec::len));
    if count != Some(axes.len()) {
        return Err("its scales or sizes are not one per axis".into());
    }
    // The axes are resized one after the other.
    let mut result = x;
    for (position, &along) in axes.iter().enumerate() {
        let old = old[along];
        let given = |new: i64| usize::try_from(new).ok().filter(|&new| new > 0 && old > 0);
        let (new, scale) = match (&sizes, &scales) {
            (Some(sizes), _) => (given(sizes[position]), sizes[position] as f64 / old as f64),
            (None, Some(scales)) => {
                // In single precision, as in every runtime: there 10 x 0.7 is 7.
                let new = (old as f32 * scales[position] as f32).floor();
                (given(new as i64).filter(|_| new < 1e9), scales[position])
            }
            (None, None) => (None, 1.0),
        };
        let new = new.ok_or("it asks for an axis of no size")?;
        // The batch axis may be listed with its own size, which is 1 in a file with a batch of 1.
        let batched = shape[along].per_sample > 0;
        if new == old && (scale == 1.0 || batched) || batched && new == 1 && call.importer.batch_of_one {
            continue;
        }
        if shape[along].per_sample > 0 {
            return Err("it resizes the axis of samples".into());
        }
        result = along_axis(call, result, along, AxisSizes { old, new, scale })?;
    }
    one(result)
}

fn along_axis(
    call: &mut Call<'_, '_>,
    x: ValueId,
    along: usize,
    sizes: AxisSizes,
) -> Result<ValueId, Refusal> {
    let attributes = call.attributes();
    // Upsample, and Resize of opset 10, have one transformation.
    let old = call.opset < 11 || call.node.op_type == "Upsample";
    let default = if old { "asymmetric" } else { "half_pixel" };
    let at = positions(attributes.word("coordinate_transformation_mode", default), sizes)?;
    match attributes.word("mode", "nearest") {
        "nearest" => {
            let default = if old { "floor" } else { "round_prefer_floor" };
            let round = rounding(attributes.word("nearest_mode", default))?;
            let last = sizes.old as f64 - 1.0;
            // Positions are rounded to single precision first, so that ties are those of every
            // runtime.
            let index = |at: &f64| round(f64::from(*at as f32)).clamp(0.0, last) as i64;
            let indices: Vec<_> = at.iter().map(index).collect();
            let indices = call.literal(TensorData::new(indices, [sizes.new]));
            call.emit(Op::Select(Select { axis: along }), &[x, indices])
        }
        mode => {
            let weights = weights(attributes, mode, &at, sizes)?;
            let weights = call.literal(TensorData::new(weights, [sizes.old, sizes.new]));
            let rank = call.shape(x).len();
            let mut order: Vec<_> = (0..rank).collect();
            order.swap(along, rank - 1);
            let last = call.permute(x, order.clone())?;
            let product = call.emit(Op::Linear(Linear), &[last, weights])?;
            call.permute(product, order)
        }
    }
}

/// The position of each new element among the old ones.
fn positions(mode: &str, sizes: AxisSizes) -> Result<Vec<f64>, Refusal> {
    let AxisSizes { old, new, scale } = sizes;
    let (old, count) = (old as f64, new as f64);
    let half = move |i: f64| (i + 0.5) / scale - 0.5;
    let at: Box<dyn Fn(f64) -> f64> = match mode {
        "half_pixel" => Box::new(half),
        "pytorch_half_pixel" => Box::new(move |i| if count > 1.0 { half(i) } else { 0.0 }),
        "align_corners" => {
            // The new length by the factor, before rounding.
            let length = scale * old;
            Box::new(move |i| if length == 1.0 { 0.0 } else { i * (old - 1.0) / (length - 1.0) })
        }
        "asymmetric" => Box::new(move |i| i / scale),
        "tf_half_pixel_for_nn" => Box::new(move |i| (i + 0.5) / scale),
        "half_pixel_symmetric" => {
            let offset = old / 2.0 * (1.0 - count / (scale * old));
            Box::new(move |i| offset + half(i))
        }
        other => {
            let why = format!("its transformation of coordinates is \"{other}\"");
            return Err(Refusal::new(why, "resize whole images, without a region of interest"));
        }
    };
    Ok((0..new).map(|i| at(i as f64)).collect())
}

/// The rounding of a position to an index.
fn rounding(mode: &str) -> Result<fn(f64) -> f64, Refusal> {
    Ok(match mode {
        "round_prefer_floor" => |at| (at - 0.5).ceil(),
        "round_prefer_ceil" => |at| (at + 0.5).floor(),
        "floor" => f64::floor,
        "ceil" => f64::ceil,
        other => return Err(format!("there is no nearest_mode \"{other}\"").into()),
    })
}

/// The weights `[old, new]` of the old elements in the new ones.
fn weights(
    attributes: Attributes<'_>,
    mode: &str,
    at: &[f64],
    sizes: AxisSizes,
) -> Result<Vec<f64>, Refusal> {
    let a = attributes.float("cubic_coeff_a", -0.75);
    let (kernel, reach): (Box<dyn Fn(f64) -> f64>, f64) = match mode {
        "linear" | "bilinear" => (Box::new(|d: f64| (1.0 - d.abs()).max(0.0)), 1.0),
        "cubic" | "bicubic" => (Box::new(move |d: f64| cubic(a, d.abs())), 2.0),
        other => return Err(format!("there is no mode \"{other}\"").into()),
    };
    // Against aliasing, the kernel for a smaller image is widened to the size of the new pixels.
    let narrow = attributes.int("antialias", 0) != 0 && sizes.scale < 1.0;
    let width = if narrow { sizes.scale } else { 1.0 };
    let inside_only = attributes.int("exclude_outside", 0) != 0;
    let mut weights = vec![0.0; sizes.old * sizes.new];
    for (column, &at) in at.iter().enumerate() {
        let taps = (at - reach / width).floor() as i64..=(at + reach / width).ceil() as i64;
        let weight = |tap: i64| kernel((at - tap as f64) * width);
        let inside = |tap: &i64| (0..sizes.old as i64).contains(tap);
        let all = taps.filter(|tap| !inside_only || inside(tap));
        let sum: f64 = all.clone().map(weight).sum();
        for tap in all {
            // Outside the axis, the outermost element is used.
            let row = tap.clamp(0, sizes.old as i64 - 1) as usize;
            weights[row * sizes.new + column] += weight(tap) / sum;
        }
    }
    Ok(weights)
}

/// The weight of cubic convolution (Keys 1981) at a distance.
fn cubic(a: f64, d: f64) -> f64 {
    if d <= 1.0 {
        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    } else if d < 2.0 {
        (((d - 5.0) * d + 8.0) * d - 4.0) * a
    } else {
        0.0
    }
}
