//! Convolutions.

use influence_autodiff::ops::Op;
use influence_autodiff::ops::conv::Conv2d;
use influence_autodiff::ops::row::Row;

use crate::call::{Call, Results, one};
use crate::error::Refusal;
use crate::window::{Window, lifted};

pub(super) fn conv(call: &mut Call<'_, '_>) -> Results {
    let (x, weight) = (call.value(0)?, call.value(1)?);
    let taps: Vec<usize> = call.shape(weight).iter().skip(2).map(|size| size.fixed).collect();
    let sizes = call.sample(x)?;
    if taps.is_empty() || sizes.len() != taps.len() + 1 {
        return Err(format!("a kernel of {} axes does not fit its input", taps.len()).into());
    }
    let groups = usize::try_from(call.attributes().int("group", 1)).map_err(|_| "no such group")?;
    let window = Window::of(call.attributes(), &taps, &sizes[1..])?;
    let mut operands = vec![x, weight];
    if call.has(2) {
        operands.push(call.value(2)?);
    }
    let Some(axes) = lifted(&window) else {
        return Err(Refusal::new(
            format!("it runs over {} axes", taps.len()),
            "convolutions run over one or two axes here",
        ));
    };
    let conv = Conv2d { stride: axes.stride, padding: axes.padding, dilation: axes.dilation, groups };
    let op = if taps.len() == 1 { Op::Conv1d(Row(conv)) } else { Op::Conv2d(conv) };
    one(call.emit(op, &operands)?)
}
