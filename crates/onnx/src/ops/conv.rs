//! Convolutions and transposed convolutions.

use burn::tensor::TensorData;
use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::conv::Conv2d;
use influence_autodiff::ops::layout::Slice;
use influence_autodiff::ops::row::AsImage;
use influence_autodiff::ops::transposed::ConvTranspose2d;
use influence_autodiff::ops::volume::Conv3d;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::window::{NodeWindow, extent, lifted};

pub(super) fn conv(call: &mut Call<'_, '_>) -> Results {
    let (x, weight) = (call.value(0)?, call.value(1)?);
    let taps: Vec<usize> = call.shape(weight).iter().skip(2).map(|size| size.fixed).collect();
    let sizes = call.sample(x)?;
    if taps.is_empty() || sizes.len() != taps.len() + 1 {
        return Err(format!("a kernel of {} axes does not fit its input", taps.len()).into());
    }
    let groups = usize::try_from(call.attributes().int("group", 1)).map_err(|_| "no such group")?;
    let window = NodeWindow::of(call.attributes(), &taps, &sizes[1..])?;
    let mut operands = vec![x, weight];
    if call.has(2) {
        operands.push(call.value(2)?);
    }
    let Some(axes) = lifted(&window) else { return volume(call, &window, groups, &operands) };
    let conv = Conv2d { stride: axes.stride, padding: axes.padding, dilation: axes.dilation, groups };
    let op = if taps.len() == 1 { Op::Conv1d(AsImage(conv)) } else { Op::Conv2d(conv) };
    one(call.emit(op, &operands)?)
}

/// A convolution over three axes.
fn volume(call: &mut Call<'_, '_>, window: &NodeWindow, groups: usize, operands: &[ValueId]) -> Results {
    let (stride, padding, dilation) =
        (window.stride.as_array(), window.padding.as_array(), window.dilation.as_array());
    let (Some(&stride), Some(&padding), Some(&dilation)) = (stride, padding, dilation) else {
        return Err(Refusal::new(
            format!("it runs over {} axes", window.taps.len()),
            "convolutions run over one to three axes here",
        ));
    };
    one(call.emit(Op::Conv3d(Conv3d { stride, padding, dilation, groups }), operands)?)
}

pub(super) fn transposed(call: &mut Call<'_, '_>) -> Results {
    let (x, weight) = (call.value(0)?, call.value(1)?);
    let taps: Vec<usize> = call.shape(weight).iter().skip(2).map(|size| size.fixed).collect();
    let sizes = call.sample(x)?;
    if taps.is_empty() || taps.len() > 2 || sizes.len() != taps.len() + 1 {
        return Err(Refusal::new(
            format!("a kernel of {} axes does not fit its input", taps.len()),
            "transposed convolutions run over one or two axes here: upsample (Resize) and convolve over three",
        ));
    }
    let groups = usize::try_from(call.attributes().int("group", 1)).map_err(|_| "no such group")?;
    let cut = KeptRegion::of(call, &taps, &sizes[1..])?;
    let pair = |values: &[usize], one: usize| match *values {
        [width] => [one, width],
        _ => [values[0], values[1]],
    };
    let mut operands = vec![x, weight];
    if call.has(2) {
        operands.push(call.value(2)?);
    }
    // The engine gives the whole result without padding, of which a part is kept.
    let op = ConvTranspose2d {
        stride: pair(&cut.window.stride, 1),
        padding: [0, 0],
        padding_out: pair(&cut.beyond, 0),
        dilation: pair(&cut.window.dilation, 1),
        groups,
    };
    let op = if taps.len() == 1 { Op::ConvTranspose1d(AsImage(op)) } else { Op::ConvTranspose2d(op) };
    let whole = call.emit(op, &operands)?;
    one(cut.apply(call, whole)?)
}

/// Windows `[n, C taps, positions]`, added up at their positions in the image: a transposed
/// convolution in which each channel of the operand is one tap of a channel of the result.
pub(super) fn fold(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let pair = |call: &Call<'_, '_>, position: usize, what: &str| -> Result<[usize; 2], Refusal> {
        let given = call.ints(position)?.ok_or_else(|| format!("it has no {what}"))?;
        let sizes: Option<Vec<_>> = given.iter().map(|&x| extent(x).filter(|&x| x > 0)).collect();
        let sizes = sizes.and_then(|sizes| sizes.as_array().copied());
        sizes.ok_or_else(|| {
            let why = format!("its {what} is {given:?}");
            Refusal::new(why, "two positive numbers below 2^31 are supported: windows of images")
        })
    };
    let (image, taps) = (pair(call, 1, "image_shape")?, pair(call, 2, "block_shape")?);
    let window = NodeWindow::of(call.attributes(), &taps, &image)?;
    let (shape, count) = (call.shape(x), taps[0].saturating_mul(taps[1]));
    let &[n, rows, _] = &shape[..] else { return Err("it takes windows side by side".into()) };
    if !rows.fixed.is_multiple_of(count) {
        return Err(format!("{} rows are not a multiple of {count} taps", rows.fixed).into());
    }
    let channels = rows.fixed / count;
    // The number of windows along each axis of the padded image.
    let positions = [0, 1].map(|axis| {
        let (before, after) = window.padding[axis];
        (image[axis] + before + after).saturating_sub(window.reach(axis)) / window.stride[axis] + 1
    });
    let apart = call.reshape(x, &[n, rows, fixed(positions[0]), fixed(positions[1])])?;
    crate::known::elements(&[rows.fixed, count])?;
    // One group for each channel of the image. Of its operand channel for tap t, the kernel is 1 at
    // t and 0 elsewhere.
    let ones = (0..rows.fixed * count).map(|i| f64::from(u8::from(i / count % count == i % count))).collect();
    let weight = call.literal(TensorData::new::<f64, _>(ones, [rows.fixed, 1, taps[0], taps[1]]));
    // The padding is cut off. Where no window reaches the end of the image, the rest is added as
    // zeros.
    let kept = [0, 1].map(|axis| [window.padding[axis].0, image[axis]]);
    let beyond = [0, 1].map(|axis| {
        let spread = (positions[axis] - 1) * window.stride[axis] + window.reach(axis);
        (kept[axis][0] + image[axis]).saturating_sub(spread)
    });
    let op = ConvTranspose2d {
        stride: [window.stride[0], window.stride[1]],
        padding: [0, 0],
        padding_out: beyond,
        dilation: [window.dilation[0], window.dilation[1]],
        groups: channels,
    };
    let whole = call.emit(Op::ConvTranspose2d(op), &[apart, weight])?;
    one(KeptRegion { window, beyond: beyond.to_vec(), kept: kept.to_vec() }.apply(call, whole)?)
}

/// The part of a transposed convolution without padding that is the result.
#[derive(Debug)]
struct KeptRegion {
    window: NodeWindow,
    /// Along each axis, the number of elements after the last one that a tap reaches.
    beyond: Vec<usize>,
    /// Along each axis, the first element of the result and their number.
    kept: Vec<[usize; 2]>,
}

impl KeptRegion {
    fn of(call: &Call<'_, '_>, taps: &[usize], sizes: &[usize]) -> Result<Self, Refusal> {
        let attributes = call.attributes();
        let count = taps.len();
        let naturals = |name: &str, default: Vec<i64>| -> Result<Vec<usize>, Refusal> {
            let given = attributes.ints(name).unwrap_or(default);
            let all: Option<Vec<_>> = given.iter().map(|&x| extent(x)).collect();
            all.filter(|all| all.len() == count)
                .ok_or_else(|| format!("its {name} {given:?} do not fit").into())
        };
        let more = naturals("output_padding", vec![0; count])?;
        let wanted = match attributes.ints("output_shape") {
            // Older files list all axes.
            Some(shape) if shape.len() > count => Some(shape[shape.len() - count..].to_vec()),
            other => other,
        };
        let wanted: Option<Vec<usize>> =
            wanted.map(|shape| shape.iter().map(|&x| extent(x).unwrap_or(0)).collect());
        let auto = attributes.word("auto_pad", "NOTSET").to_owned();
        // Only taps, strides and explicit pads are used of this window: automatic padding is
        // defined on the result, below.
        let window = NodeWindow::of(attributes, taps, sizes)?;
        let (mut beyond, mut kept) = (Vec::new(), Vec::new());
        for axis in 0..count {
            let stride = window.stride[axis];
            // What the taps reach without padding.
            let spread =
                stride.saturating_mul(sizes[axis].saturating_sub(1)).saturating_add(window.reach(axis));
            let full = spread.saturating_add(more[axis]);
            let target = match &wanted {
                Some(shape) => Some(shape[axis]),
                None if auto.starts_with("SAME") => Some(sizes[axis].saturating_mul(stride)),
                None => None,
            };
            let [start, size] = match target {
                // The total padding is divided between both sides; an odd element goes to one of
                // them.
                Some(size) => {
                    let total = full.saturating_sub(size);
                    [if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 }, size]
                }
                None => {
                    let (before, after) = window.padding[axis];
                    let size = full.checked_sub(before + after).filter(|&size| size > 0);
                    [before, size.ok_or("its pads cut everything off")?]
                }
            };
            beyond.push((start + size).saturating_sub(spread));
            kept.push([start, size]);
        }
        Ok(Self { window, beyond, kept })
    }

    fn apply(&self, call: &mut Call<'_, '_>, whole: ValueId) -> Result<ValueId, Refusal> {
        let shape = call.shape(whole);
        let mut ranges = vec![None; shape.len()];
        for (axis, &[start, size]) in self.kept.iter().enumerate() {
            if shape[axis + 2].fixed != size {
                ranges[axis + 2] = Some([start, start + size, 1]);
            }
        }
        match ranges.iter().all(Option::is_none) {
            true => Ok(whole),
            false => call.emit(Op::Slice(Slice { ranges }), &[whole]),
        }
    }
}
