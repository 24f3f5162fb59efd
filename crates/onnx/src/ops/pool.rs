//! Pools.
//!
//! The engine's pools have the same padding on both sides. Uneven padding is put around the operand
//! first: of the least number for a maximum, of zeros for a mean.

use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::assembly::{Margin, Pad};
use influence_autodiff::ops::pool::{AvgPool2d, MaxPool2d};
use influence_autodiff::ops::reduce::{Extremum, Mean};
use influence_autodiff::ops::row::Row;

use burn::tensor::TensorData;

use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::window::{Plane, Window, lifted};

/// A pool's operand with its window.
struct Pool {
    x: ValueId,
    window: Window,
    plane: Plane,
    ceil: bool,
}

impl Pool {
    fn of(call: &mut Call<'_, '_>) -> Result<Self, Refusal> {
        let attributes = call.attributes();
        if call.node.output.iter().skip(1).any(|output| !output.is_empty()) {
            return Err(Refusal::new(
                "its indices are asked for, which have no derivative",
                "unpool by another operator, or export without indices",
            ));
        }
        let given = attributes.ints("kernel_shape").ok_or("it has no kernel_shape")?;
        let taps: Option<Vec<_>> =
            given.iter().map(|&x| usize::try_from(x).ok().filter(|&x| x > 0)).collect();
        let taps = taps.ok_or_else(|| format!("its kernel_shape {given:?} is none"))?;
        let x = call.value(0)?;
        let sizes = call.sample(x)?;
        if sizes.len() != taps.len() + 1 {
            return Err(format!("a window of {} axes does not fit its input", taps.len()).into());
        }
        let window = Window::of(attributes, &taps, &sizes[1..])?;
        let plane = lifted(&window).ok_or_else(|| {
            let why = format!("it runs over {} axes", taps.len());
            Refusal::new(why, "pools run over one or two axes here")
        })?;
        Ok(Self { x, window, plane, ceil: attributes.int("ceil_mode", 0) != 0 })
    }

    /// The padding as the engine's pools have it: the same on both sides, at most half a window.
    fn even(&self) -> Option<[usize; 2]> {
        let axis = |axis: usize| {
            let (before, after) = self.plane.padding[axis];
            (before == after && before <= self.plane.taps[axis] / 2).then_some(before)
        };
        Some([axis(0)?, axis(1)?])
    }

    /// The operand with its padding put around it, holding `value`.
    fn padded(&self, call: &mut Call<'_, '_>, value: f64) -> Result<ValueId, Refusal> {
        let padding = [(0, 0); 2].into_iter().chain(self.window.padding.iter().copied());
        let pad = Pad { padding: padding.collect(), margin: Margin::Constant(value) };
        call.emit(Op::Pad(pad), &[self.x])
    }

    /// How many results there are along an axis.
    fn results(&self, axis: usize, size: usize) -> usize {
        let (before, after) = self.window.padding[axis];
        let stride = self.window.stride[axis];
        let span = (size + before + after).saturating_sub(self.window.reach(axis));
        match self.ceil {
            false => span / stride + 1,
            // A last window must begin before the padding behind the operand.
            true => {
                let results = span.div_ceil(stride) + 1;
                results - usize::from((results - 1) * stride >= size + before)
            }
        }
    }
}

pub(super) fn max(call: &mut Call<'_, '_>) -> Results {
    let pool = Pool::of(call)?;
    let Plane { taps: kernel, stride, dilation, .. } = pool.plane;
    let (x, padding, ceil_mode) = match pool.even() {
        Some(padding) => (pool.x, padding, pool.ceil),
        // Less than any number that a network works with, and finite in every precision.
        None => (pool.padded(call, f64::from(f32::MIN))?, [0, 0], pool.ceil),
    };
    let rule = MaxPool2d { kernel, stride, padding, dilation, ceil_mode };
    let row = pool.window.taps.len() == 1;
    let op = if row { Op::MaxPool1d(Row(rule)) } else { Op::MaxPool2d(rule) };
    let result = call.emit(op, &[x])?;
    counted(call, &pool, result)
}

/// Refuses a pool whose results are not as many as ONNX says.
fn counted(call: &mut Call<'_, '_>, pool: &Pool, result: ValueId) -> Results {
    let (sizes, found) = (call.sample(pool.x)?, call.sample(result)?);
    let expected: Vec<_> =
        sizes[1..].iter().enumerate().map(|(axis, &size)| pool.results(axis, size)).collect();
    match found[1..] == expected {
        true => one(result),
        false => Err(Refusal::new(
            format!("rounded up, it has {expected:?} results, and {:?} are known here", &found[1..]),
            "export with ceil_mode=0",
        )),
    }
}

pub(super) fn average(call: &mut Call<'_, '_>) -> Results {
    let pool = Pool::of(call)?;
    if pool.plane.dilation != [1, 1] {
        return Err(Refusal::new("its window has gaps", "average without dilations"));
    }
    let includes = call.attributes().int("count_include_pad", 0) != 0;
    let Plane { taps: kernel, stride, .. } = pool.plane;
    let row = pool.window.taps.len() == 1;
    let mean = |padding, count_include_pad, ceil_mode| {
        let rule = AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode };
        if row { Op::AvgPool1d(Row(rule)) } else { Op::AvgPool2d(rule) }
    };
    if let Some(padding) = pool.even() {
        let result = call.emit(mean(padding, includes, pool.ceil), &[pool.x])?;
        return counted(call, &pool, result);
    }
    if pool.ceil {
        return Err(Refusal::new("it rounds up over uneven padding", "export with ceil_mode=0"));
    }
    let padded = pool.padded(call, 0.0)?;
    let result = call.emit(mean([0, 0], true, false), &[padded])?;
    if includes {
        return counted(call, &pool, result);
    }
    // The mean over a window with zeros, times its size by how many of its elements are no padding.
    let sizes = call.sample(pool.x)?;
    let factors = factors(&pool.window, &sizes[1..]);
    let factors = call.literal(factors);
    let pair = call.alike([result, factors])?;
    let result = call.mul(pair[0], pair[1])?;
    counted(call, &pool, result)
}

/// For each result, the size of its window by the number of its elements inside the operand.
fn factors(window: &Window, sizes: &[usize]) -> TensorData {
    let along = |axis: usize| -> Vec<f64> {
        let (before, after) = window.padding[axis];
        let (taps, size) = (window.taps[axis], sizes[axis]);
        let starts = (0..=size + before + after - taps).step_by(window.stride[axis]);
        let inside = |start: usize| (start + taps).min(before + size) - start.max(before);
        starts.map(|start| taps as f64 / inside(start) as f64).collect()
    };
    let axes: Vec<_> = (0..sizes.len()).map(along).collect();
    let shape: Vec<_> = axes.iter().map(Vec::len).collect();
    let values = axes.iter().fold(vec![1.0], |all: Vec<f64>, axis| {
        all.iter().flat_map(|outer| axis.iter().map(move |inner| outer * inner)).collect()
    });
    TensorData::new(values, shape)
}

/// The axes of positions.
fn positions(call: &mut Call<'_, '_>) -> Result<(ValueId, Vec<usize>), Refusal> {
    let x = call.value(0)?;
    match call.shape(x).len() {
        0..3 => Err("it takes channels with positions".into()),
        rank => Ok((x, (2..rank).collect())),
    }
}

pub(super) fn global_average(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = positions(call)?;
    one(call.emit(Op::Mean(Mean { axes }), &[x])?)
}

pub(super) fn global_max(call: &mut Call<'_, '_>) -> Results {
    let (x, axes) = positions(call)?;
    let result = axes
        .into_iter()
        .try_fold(x, |x, axis| call.emit(Op::Extremum(Extremum { axis, smallest: false }), &[x]))?;
    one(result)
}
