//! Pooling.
//!
//! The engine's pools run over one or two axes and have the same padding on both sides. A pool over
//! three axes is one over H and W, followed by one along D. For a maximum with uneven padding, the
//! operand is first padded with the lowest number. Means over windows that the engine does not have
//! are sums by a convolution with ones, divided by the number of elements that count.

use burn::tensor::TensorData;
use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::assembly::{Margin, Pad};
use influence_autodiff::ops::conv::Conv2d;
use influence_autodiff::ops::elementwise::{Abs, Power};
use influence_autodiff::ops::pool::{AvgPool2d, MaxPool2d};
use influence_autodiff::ops::reduce::{Extremum, Mean};
use influence_autodiff::ops::row::AsImage;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::window::{NodeWindow, Plane, lifted};

/// A pool's operand with its window.
struct Pool {
    x: ValueId,
    window: NodeWindow,
    ceil: bool,
}

/// Computes a pool over one or two axes.
type Flat = fn(&mut Call<'_, '_>, &Pool) -> Result<ValueId, Refusal>;

impl Pool {
    fn of(call: &mut Call<'_, '_>) -> Result<Self, Refusal> {
        let attributes = call.attributes();
        if call.uses_result(1) {
            return Err(Refusal::new(
                "its indices are used, which have no derivative",
                "unpool by another operator, or export without indices",
            ));
        }
        let given = attributes.ints("kernel_shape").ok_or("it has no kernel_shape")?;
        let taps: Option<Vec<_>> =
            given.iter().map(|&x| usize::try_from(x).ok().filter(|&x| x > 0)).collect();
        let taps = taps.ok_or_else(|| format!("its kernel_shape {given:?} is not valid"))?;
        let x = call.value(0)?;
        let sizes = call.sample(x)?;
        if sizes.len() != taps.len() + 1 {
            return Err(format!("a window of {} axes does not fit its input", taps.len()).into());
        }
        let window = NodeWindow::of(attributes, &taps, &sizes[1..])?;
        Ok(Self { x, window, ceil: attributes.int("ceil_mode", 0) != 0 })
    }

    /// The pool's result; a pool over three axes is computed in two stages.
    fn run(self, call: &mut Call<'_, '_>, flat: Flat) -> Results {
        let Self { x, window, ceil } = self;
        if window.taps.len() < 3 {
            return one(flat(call, &Self { x, window, ceil })?);
        }
        let shape = call.shape(x);
        let (&[n, _, _, _, _], 3) = (&shape[..], window.taps.len()) else {
            let why = format!("it runs over {} axes", window.taps.len());
            return Err(Refusal::new(why, "pools run over one to three axes here"));
        };
        let [c, d, h, w] = [1, 2, 3, 4].map(|axis| shape[axis].fixed);
        // Over H and W of every slice, then along D with all positions as columns.
        let slices = call.reshape(x, &[n, fixed(c * d), fixed(h), fixed(w)])?;
        let planes = flat(call, &Self { x: slices, window: window.part(1..3), ceil })?;
        let [h, w] = last_two(call, planes);
        let deep = call.reshape(planes, &[n, fixed(c), fixed(d), fixed(h * w)])?;
        let pooled = flat(call, &Self { x: deep, window: window.part(0..1).down(), ceil })?;
        let [d, _] = last_two(call, pooled);
        one(call.reshape(pooled, &[n, fixed(c), fixed(d), fixed(h), fixed(w)])?)
    }

    fn plane(&self) -> Result<Plane, Refusal> {
        lifted(&self.window).ok_or_else(|| "it has no axes".into())
    }

    fn is_row(&self) -> bool {
        self.window.taps.len() == 1
    }

    /// The padding, if the engine's pools can have it: the same on both sides, and at most half a
    /// window.
    fn even(&self) -> Result<Option<[usize; 2]>, Refusal> {
        let plane = self.plane()?;
        let axis = |axis: usize| {
            let (before, after) = plane.padding[axis];
            (before == after && before <= plane.taps[axis] / 2).then_some(before)
        };
        Ok(axis(0).zip(axis(1)).map(|(rows, columns)| [rows, columns]))
    }

    /// The operand, padded with `value`.
    fn padded(&self, call: &mut Call<'_, '_>, value: f64) -> Result<ValueId, Refusal> {
        let padding = [(0, 0); 2].into_iter().chain(self.window.padding.iter().copied());
        let pad = Pad { padding: padding.collect(), margin: Margin::Constant(value) };
        call.emit(Op::Pad(pad), &[self.x])
    }

    /// The number of results along an axis.
    fn results(&self, axis: usize, size: usize) -> usize {
        let (before, after) = self.window.padding[axis];
        let stride = self.window.stride[axis];
        let span = (size + before + after).saturating_sub(self.window.reach(axis));
        match self.ceil {
            false => span / stride + 1,
            // The last window must begin before the padding after the operand.
            true => {
                let results = span.div_ceil(stride) + 1;
                results - usize::from((results - 1) * stride >= size + before)
            }
        }
    }

    /// The sum over each window, by a convolution with ones.
    fn summed(&self, call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Refusal> {
        let sizes = call.sample(x)?;
        let (channels, plane, row) = (sizes[0], self.plane()?, self.is_row());
        let mut padding = plane.padding;
        for axis in 0..self.window.taps.len() {
            // A last window that ends after the padding reads zeros there.
            let (before, after) = self.window.padding[axis];
            let end = (self.results(axis, sizes[axis + 1]) - 1) * self.window.stride[axis]
                + self.window.reach(axis);
            padding[axis + usize::from(row)].1 = after.max(end.saturating_sub(sizes[axis + 1] + before));
        }
        let shape: Vec<_> = [channels, 1].into_iter().chain(self.window.taps.iter().copied()).collect();
        let ones = call.literal(TensorData::new(vec![1.0; shape.iter().product()], shape));
        let conv = Conv2d { stride: plane.stride, padding, dilation: plane.dilation, groups: channels };
        call.emit(if row { Op::Conv1d(AsImage(conv)) } else { Op::Conv2d(conv) }, &[x, ones])
    }

    /// For each result, 1 / the number of elements of its window that count: those inside the
    /// operand, or inside operand and padding.
    fn shares(&self, sizes: &[usize], with_padding: bool) -> TensorData {
        let window = &self.window;
        let along = |axis: usize| -> Vec<f64> {
            let ((before, after), size) = (window.padding[axis], sizes[axis]);
            let counts = if with_padding { 0..before + size + after } else { before..before + size };
            let tap = |i: usize, tap: usize| i * window.stride[axis] + tap * window.dilation[axis];
            let count = |i: usize| (0..window.taps[axis]).filter(|&k| counts.contains(&tap(i, k))).count();
            (0..self.results(axis, size)).map(|i| 1.0 / count(i) as f64).collect()
        };
        let axes: Vec<_> = (0..sizes.len()).map(along).collect();
        let shape: Vec<_> = [1, 1].into_iter().chain(axes.iter().map(Vec::len)).collect();
        let values = axes.iter().fold(vec![1.0], |all: Vec<f64>, axis| {
            all.iter().flat_map(|outer| axis.iter().map(move |inner| outer * inner)).collect()
        });
        TensorData::new(values, shape)
    }

    /// Refuses a pool whose number of results is not ONNX's.
    fn counted(&self, call: &mut Call<'_, '_>, result: ValueId) -> Result<ValueId, Refusal> {
        let (sizes, found) = (call.sample(self.x)?, call.sample(result)?);
        let expected: Vec<_> =
            sizes[1..].iter().enumerate().map(|(axis, &size)| self.results(axis, size)).collect();
        match found[1..] == expected {
            true => Ok(result),
            false => Err(Refusal::new(
                format!("rounded up, it has {expected:?} results, of which {:?} are supported", &found[1..]),
                "export with ceil_mode=0",
            )),
        }
    }
}

fn last_two(call: &Call<'_, '_>, x: ValueId) -> [usize; 2] {
    let shape: Vec<Size> = call.shape(x);
    [shape.len() - 2, shape.len() - 1].map(|axis| shape[axis].fixed)
}

pub(super) fn max(call: &mut Call<'_, '_>) -> Results {
    Pool::of(call)?.run(call, |call, pool| {
        let Plane { taps: kernel, stride, dilation, .. } = pool.plane()?;
        let (x, padding) = match pool.even()? {
            Some(padding) => (pool.x, padding),
            // Below all values that occur in networks, and finite in both precisions.
            None => (pool.padded(call, f64::from(f32::MIN))?, [0, 0]),
        };
        let rule = MaxPool2d { kernel, stride, padding, dilation, ceil_mode: pool.ceil };
        let op = if pool.is_row() { Op::MaxPool1d(AsImage(rule)) } else { Op::MaxPool2d(rule) };
        let result = call.emit(op, &[x])?;
        pool.counted(call, result)
    })
}

pub(super) fn average(call: &mut Call<'_, '_>) -> Results {
    Pool::of(call)?.run(call, |call, pool| {
        let count_include_pad = call.attributes().int("count_include_pad", 0) != 0;
        let Plane { taps: kernel, stride, dilation, .. } = pool.plane()?;
        if let (Some(padding), [1, 1]) = (pool.even()?, dilation) {
            let rule = AvgPool2d { kernel, stride, padding, count_include_pad, ceil_mode: pool.ceil };
            let op = if pool.is_row() { Op::AvgPool1d(AsImage(rule)) } else { Op::AvgPool2d(rule) };
            let result = call.emit(op, &[pool.x])?;
            return pool.counted(call, result);
        }
        let sizes = call.sample(pool.x)?;
        let sum = pool.summed(call, pool.x)?;
        let shares = call.literal(pool.shares(&sizes[1..], count_include_pad));
        call.mul(sum, shares)
    })
}

/// The p-th root of the sum of |x|^p over windows.
pub(super) fn length(call: &mut Call<'_, '_>) -> Results {
    let exponent = call.attributes().int("p", 2) as f64;
    let mut pool = Pool::of(call)?;
    let size = call.emit(Op::Abs(Abs), &[pool.x])?;
    pool.x = call.emit(Op::Power(Power { exponent }), &[size])?;
    let sum = pool.run(call, |call, pool| pool.summed(call, pool.x))?;
    match sum[..] {
        [crate::import::Binding::Value(sum)] => {
            one(call.emit(Op::Power(Power { exponent: 1.0 / exponent }), &[sum])?)
        }
        _ => Err("it has no sum".into()),
    }
}

/// The operand, and its axes after the channels.
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
