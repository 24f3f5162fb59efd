//! Elementwise functions, and softmax with its logarithm.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::activation::{Gelu, LeakyRelu, PRelu, Relu, Sigmoid, Tanh};
use influence_autodiff::ops::arithmetic::{AddScalar, Div, Recip, Sub};
use influence_autodiff::ops::elementwise::{
    Abs, Clamp, Cos, Erf, Exp, HardSigmoid, Log, Log1p, LogSigmoid, Sin, Sqrt,
};
use influence_autodiff::ops::mask::{Compare, MaskFill, MaskWhere, Relation};
use influence_autodiff::ops::softmax::{LogSoftmax, Softmax};
use influence_autodiff::ops::step::StepFunction;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::known::axis;

macro_rules! as_they_are {
    ($($name:ident => $op:expr;)+) => {$(
        pub(super) fn $name(call: &mut Call<'_, '_>) -> Results {
            let x = call.value(0)?;
            one(call.emit($op, &[x])?)
        }
    )+};
}

as_they_are! {
    relu => Op::Relu(Relu);
    sigmoid => Op::Sigmoid(Sigmoid);
    tanh => Op::Tanh(Tanh);
    exp => Op::Exp(Exp);
    log => Op::Log(Log);
    sqrt => Op::Sqrt(Sqrt);
    sin => Op::Sin(Sin);
    cos => Op::Cos(Cos);
    erf => Op::Erf(Erf);
    abs => Op::Abs(Abs);
    reciprocal => Op::Recip(Recip);
    sign => Op::Step(StepFunction::Sign);
    round => Op::Step(StepFunction::Round);
    floor => Op::Step(StepFunction::Floor);
    ceil => Op::Step(StepFunction::Ceil);
}

pub(super) fn neg(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    one(call.times(x, -1.0)?)
}

/// 1 - erf x: not an operator of ONNX, but tf2onnx writes it.
pub(super) fn erfc(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let erf = call.emit(Op::Erf(Erf), &[x])?;
    let negative = call.times(erf, -1.0)?;
    one(call.plus(negative, 1.0)?)
}

/// sin x / cos x.
pub(super) fn tan(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let (sin, cos) = (call.emit(Op::Sin(Sin), &[x])?, call.emit(Op::Cos(Cos), &[x])?);
    one(call.emit(Op::Div(Div), &[sin, cos])?)
}

/// (exp x + sign exp(-x)) / 2.
fn exponentials(call: &mut Call<'_, '_>, sign: f64) -> Results {
    let x = call.value(0)?;
    let up = call.emit(Op::Exp(Exp), &[x])?;
    let negative = call.times(x, -1.0)?;
    let down = call.emit(Op::Exp(Exp), &[negative])?;
    let down = call.times(down, sign)?;
    let sum = call.add(up, down)?;
    one(call.times(sum, 0.5)?)
}

pub(super) fn sinh(call: &mut Call<'_, '_>) -> Results {
    exponentials(call, -1.0)
}

pub(super) fn cosh(call: &mut Call<'_, '_>) -> Results {
    exponentials(call, 1.0)
}

/// ln(a + sqrt(a^2 + one)): the inverse of a hyperbolic function at a.
fn area(call: &mut Call<'_, '_>, a: ValueId, one: f64) -> Result<ValueId, Refusal> {
    let square = call.mul(a, a)?;
    let shifted = call.plus(square, one)?;
    let root = call.emit(Op::Sqrt(Sqrt), &[shifted])?;
    let sum = call.add(a, root)?;
    call.emit(Op::Log(Log), &[sum])
}

/// ln(x + sqrt(x^2 + 1)); for x < 0 the negative of the value at -x, because there the sum would
/// cancel.
pub(super) fn asinh(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let size = call.emit(Op::Abs(Abs), &[x])?;
    let mirrored = area(call, size, 1.0)?;
    let mirrored = call.times(mirrored, -1.0)?;
    // Where this branch is not chosen, its operand is kept away from the logarithm's singularity.
    let near = call.emit(Op::Clamp(Clamp { min: Some(-1.0), max: None }), &[x])?;
    let plain = area(call, near, 1.0)?;
    let below = call.emit(Op::Compare(Compare { relation: Relation::Below, bound: 0.0 }), &[x])?;
    one(call.emit(Op::MaskWhere(MaskWhere), &[plain, below, mirrored])?)
}

/// ln(x + sqrt(x^2 - 1)).
pub(super) fn acosh(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    one(area(call, x, -1.0)?)
}

/// (ln(1 + x) - ln(1 - x)) / 2.
pub(super) fn atanh(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let negative = call.times(x, -1.0)?;
    let up = call.emit(Op::Log1p(Log1p), &[x])?;
    let down = call.emit(Op::Log1p(Log1p), &[negative])?;
    let sum = difference(call, up, down)?;
    one(call.times(sum, 0.5)?)
}

/// x + bias below -lambd, x - bias above lambd, else 0.
pub(super) fn shrink(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let (bias, bound) = (attributes.float("bias", 0.0), attributes.float("lambd", 0.5));
    let x = call.value(0)?;
    let none = call.times(x, 0.0)?;
    let [raised, lowered] = [call.plus(x, bias)?, call.plus(x, -bias)?];
    let below = call.emit(Op::Compare(Compare { relation: Relation::Below, bound: -bound }), &[x])?;
    let above = call.emit(Op::Compare(Compare { relation: Relation::Above, bound }), &[x])?;
    let result = call.emit(Op::MaskWhere(MaskWhere), &[none, below, raised])?;
    one(call.emit(Op::MaskWhere(MaskWhere), &[result, above, lowered])?)
}

/// a sigmoid(alpha a) b.
pub(super) fn gated(call: &mut Call<'_, '_>) -> Results {
    let (a, b, alpha) = (call.value(0)?, call.value(1)?, call.attributes().float("alpha", 1.0));
    let scaled = call.times(a, alpha)?;
    let gate = call.emit(Op::Sigmoid(Sigmoid), &[scaled])?;
    let gated = call.mul(a, gate)?;
    one(call.mul(gated, b)?)
}

pub(super) fn leaky_relu(call: &mut Call<'_, '_>) -> Results {
    let (x, slope) = (call.value(0)?, call.attributes().float("alpha", 0.01));
    one(call.emit(Op::LeakyRelu(LeakyRelu { slope }), &[x])?)
}

pub(super) fn prelu(call: &mut Call<'_, '_>) -> Results {
    let pair = [call.value(0)?, call.value(1)?];
    let pair = call.alike(pair)?;
    one(call.emit(Op::PRelu(PRelu), &pair)?)
}

/// x cut to bounds. Bounds that are the extreme values of f32 cut nothing, and are left out.
pub(super) fn clip(call: &mut Call<'_, '_>) -> Results {
    let bound = |position: usize, name: &str, none: f64| {
        let given = match call.attributes().get(name).and_then(|attribute| attribute.f) {
            Some(bound) => Some(f64::from(bound)),
            None => call.number(position)?,
        };
        Ok::<_, Refusal>(given.filter(|&bound| bound != none && bound.is_finite()))
    };
    let min = bound(1, "min", f64::from(f32::MIN))?;
    let max = bound(2, "max", f64::from(f32::MAX))?;
    let x = call.value(0)?;
    match (min, max) {
        (None, None) => one(x),
        // Where the lower bound exceeds the upper one, ONNX defines the result as the upper one.
        (Some(low), Some(high)) if low > high => {
            let none = call.times(x, 0.0)?;
            one(call.plus(none, high)?)
        }
        _ => one(call.emit(Op::Clamp(Clamp { min, max }), &[x])?),
    }
}

fn gate(call: &mut Call<'_, '_>, alpha: f64, beta: f64) -> Result<[ValueId; 2], Refusal> {
    let x = call.value(0)?;
    Ok([x, call.emit(Op::HardSigmoid(HardSigmoid { alpha, beta }), &[x])?])
}

/// 1/6 in double precision, where the file has its f32 value.
fn sixth(alpha: f64) -> f64 {
    const SIXTH: f64 = 1.0 / 6.0;
    if (alpha - SIXTH).abs() < f64::from(f32::EPSILON) { SIXTH } else { alpha }
}

pub(super) fn hard_sigmoid(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let (alpha, beta) = (sixth(attributes.float("alpha", 0.2)), attributes.float("beta", 0.5));
    let [_, gate] = gate(call, alpha, beta)?;
    one(gate)
}

/// x (x / 6 + 1 / 2 cut to [0, 1]).
pub(super) fn hard_swish(call: &mut Call<'_, '_>) -> Results {
    let [x, gate] = gate(call, 1.0 / 6.0, 0.5)?;
    one(call.mul(x, gate)?)
}

/// x sigmoid(alpha x).
pub(super) fn swish(call: &mut Call<'_, '_>) -> Results {
    let (x, alpha) = (call.value(0)?, call.attributes().float("alpha", 1.0));
    let scaled = call.times(x, alpha)?;
    let gate = call.emit(Op::Sigmoid(Sigmoid), &[scaled])?;
    one(call.mul(x, gate)?)
}

/// ln(1 + exp x) = -logsigmoid(-x).
fn soft_plus(call: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Refusal> {
    let negative = call.times(x, -1.0)?;
    let log = call.emit(Op::LogSigmoid(LogSigmoid), &[negative])?;
    call.times(log, -1.0)
}

pub(super) fn softplus(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    one(soft_plus(call, x)?)
}

/// x tanh(ln(1 + exp x)).
pub(super) fn mish(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let plus = soft_plus(call, x)?;
    let gate = call.emit(Op::Tanh(Tanh), &[plus])?;
    one(call.mul(x, gate)?)
}

/// x / (1 + |x|).
pub(super) fn softsign(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    let size = call.emit(Op::Abs(Abs), &[x])?;
    let below = call.emit(Op::AddScalar(AddScalar { value: 1.0 }), &[size])?;
    one(call.emit(Op::Div(Div), &[x, below])?)
}

/// `scale` x above 0, `depth` (exp(x / `width`) - 1) below. The exponential takes only the negative
/// part, so that it does not overflow.
fn bent(call: &mut Call<'_, '_>, scale: f64, depth: f64, width: f64) -> Result<ValueId, Refusal> {
    let x = call.value(0)?;
    let above = call.emit(Op::Relu(Relu), &[x])?;
    let above = call.times(above, scale)?;
    let below = call.emit(Op::Clamp(Clamp { min: None, max: Some(0.0) }), &[x])?;
    let below = call.times(below, 1.0 / width)?;
    let below = call.emit(Op::Exp(Exp), &[below])?;
    let below = call.plus(below, -1.0)?;
    let below = call.times(below, depth)?;
    call.add(above, below)
}

pub(super) fn elu(call: &mut Call<'_, '_>) -> Results {
    let alpha = call.attributes().float("alpha", 1.0);
    one(bent(call, 1.0, alpha, 1.0)?)
}

pub(super) fn celu(call: &mut Call<'_, '_>) -> Results {
    let alpha = call.attributes().float("alpha", 1.0);
    one(bent(call, 1.0, alpha, alpha)?)
}

/// SELU, with the constants of Klambauer et al. (2017) in double precision where the file has their
/// f32 values.
pub(super) fn selu(call: &mut Call<'_, '_>) -> Results {
    const ALPHA: f64 = 1.673_263_242_354_377_2;
    const GAMMA: f64 = 1.050_700_987_355_480_5;
    let exact = |given: f64, exact: f64| if given as f32 == exact as f32 { exact } else { given };
    let alpha = exact(call.attributes().float("alpha", ALPHA), ALPHA);
    let gamma = exact(call.attributes().float("gamma", GAMMA), GAMMA);
    one(bent(call, gamma, gamma * alpha, 1.0)?)
}

/// x where x > alpha, else 0.
pub(super) fn thresholded_relu(call: &mut Call<'_, '_>) -> Results {
    let (x, bound) = (call.value(0)?, call.attributes().float("alpha", 1.0));
    let below = call.emit(Op::Compare(Compare { relation: Relation::AtMost, bound }), &[x])?;
    one(call.emit(Op::MaskFill(MaskFill { value: 0.0 }), &[x, below])?)
}

/// x Phi(x), or its approximation x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
pub(super) fn gelu(call: &mut Call<'_, '_>) -> Results {
    let x = call.value(0)?;
    match call.attributes().word("approximate", "none") {
        "none" => one(call.emit(Op::Gelu(Gelu), &[x])?),
        "tanh" => {
            let square = call.mul(x, x)?;
            let cubic = call.times(square, 0.044_715)?;
            let factor = call.plus(cubic, 1.0)?;
            let inner = call.mul(x, factor)?;
            let inner = call.times(inner, (2.0 / std::f64::consts::PI).sqrt())?;
            let tanh = call.emit(Op::Tanh(Tanh), &[inner])?;
            let gate = call.plus(tanh, 1.0)?;
            let half = call.times(x, 0.5)?;
            one(call.mul(half, gate)?)
        }
        other => Err(format!("its approximation is \"{other}\", neither none nor tanh").into()),
    }
}

/// Softmax or its logarithm along one axis; before opset 13, over all axes from that one on.
fn normalised(call: &mut Call<'_, '_>, op: fn(usize) -> Op) -> Results {
    let x = call.value(0)?;
    let shape = call.shape(x);
    let default = if call.opset < 13 { 1 } else { -1 };
    let along = axis(call.attributes().int("axis", default), shape.len())?;
    if call.opset >= 13 || along + 1 == shape.len() {
        return one(call.emit(op(along), &[x])?);
    }
    // The axes from `along` on as one, which is normalised.
    let rest: usize = shape[along..].iter().map(|size| size.fixed).product();
    if shape[along..].iter().any(|size| size.per_sample > 0) {
        return Err("it sums over the batch".into());
    }
    let flat: Vec<Size> = shape[..along].iter().copied().chain([fixed(rest)]).collect();
    let rows = call.reshape(x, &flat)?;
    let rows = call.emit(op(along), &[rows])?;
    one(call.reshape(rows, &shape)?)
}

pub(super) fn softmax(call: &mut Call<'_, '_>) -> Results {
    normalised(call, |axis| Op::Softmax(Softmax { axis }))
}

pub(super) fn log_softmax(call: &mut Call<'_, '_>) -> Results {
    normalised(call, |axis| Op::LogSoftmax(LogSoftmax { axis }))
}

/// a - b.
pub(super) fn difference(call: &mut Call<'_, '_>, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
    call.emit(Op::Sub(Sub), &[a, b])
}
