//! Products with matrices.

use influence_autodiff::graph::{Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::Add;
use influence_autodiff::ops::linear::{Linear, Matmul};

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::import::Binding;

/// alpha A' B' + beta C, where A' and B' are A and B or their transposes; a linear layer where B is
/// constant.
pub(super) fn gemm(call: &mut Call<'_, '_>) -> Results {
    let attributes = call.attributes();
    let (alpha, beta) = (attributes.float("alpha", 1.0), attributes.float("beta", 1.0));
    let mut a = call.value(0)?;
    if attributes.int("transA", 0) != 0 {
        a = call.permute(a, vec![1, 0])?;
    }
    let turn = attributes.int("transB", 0) != 0;
    let (b, constant) = matrix(call, turn)?;
    // With a matrix that depends on the input it is no linear layer.
    if !constant {
        let product = call.emit(Op::Matmul(Matmul), &[a, b])?;
        let product = call.times(product, alpha)?;
        return one(added(call, product, beta)?);
    }
    // A constant vector of one element per output is the layer's bias, where nothing is scaled.
    // Else the operand is added.
    let bias = match call.operand(2) {
        Some(Binding::Weight(_) | Binding::Known(_)) if alpha == 1.0 && beta == 1.0 => {
            let bias = call.value(2)?;
            (call.shape(bias).as_slice() == &call.shape(b)[1..]).then_some(bias)
        }
        _ => None,
    };
    if let Some(bias) = bias {
        return one(call.emit(Op::Linear(Linear), &[a, b, bias])?);
    }
    let product = call.emit(Op::Linear(Linear), &[a, b])?;
    let product = call.times(product, alpha)?;
    one(added(call, product, beta)?)
}

/// The second operand as `[in, out]`, and whether it is constant. A weight matrix with no other use
/// is stored transposed: this does not change its Gram matrices, and saves the node that would
/// transpose it.
fn matrix(call: &mut Call<'_, '_>, turn: bool) -> Result<(ValueId, bool), Refusal> {
    let once = call.importer.uses.get(call.node.input[1].as_str()) == Some(&1);
    match call.operand(1) {
        Some(&Binding::Weight(id)) if turn && once && call.rank(1)? == 2 => {
            Ok((call.importer.turned(id), true))
        }
        operand => {
            let constant = matches!(operand, Some(Binding::Weight(_) | Binding::Known(_)));
            let b = call.value(1)?;
            Ok((if turn { call.permute(b, vec![1, 0])? } else { b }, constant))
        }
    }
}

/// `product` + beta C.
fn added(call: &mut Call<'_, '_>, product: ValueId, beta: f64) -> Result<ValueId, Refusal> {
    if !call.has(2) || beta == 0.0 {
        return Ok(product);
    }
    let bias = call.value(2)?;
    let bias = call.times(bias, beta)?;
    let pair = call.alike([product, bias])?;
    call.emit(Op::Add(Add), &pair)
}

pub(super) fn matmul(call: &mut Call<'_, '_>) -> Results {
    let ranks = [call.rank(0)?, call.rank(1)?];
    if ranks.contains(&0) {
        return Err("a single number is not a matrix".into());
    }
    let constant = matches!(call.operand(1), Some(Binding::Weight(_) | Binding::Known(_)));
    let (a, b) = (call.value(0)?, call.value(1)?);
    if constant && ranks[1] == 2 && ranks[0] >= 2 {
        return one(call.emit(Op::Linear(Linear), &[a, b])?);
    }
    one(product(call, a, b)?)
}

/// A matrix product of operands of any ranks. A vector is a row on the left and a column on the
/// right, and its axis is dropped from the result.
pub(super) fn product(call: &mut Call<'_, '_>, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
    let (row, column) = (call.shape(a).len() == 1, call.shape(b).len() == 1);
    let (mut left, mut right) = (call.shape(a), call.shape(b));
    if row {
        left.insert(0, fixed(1));
    }
    if column {
        right.push(fixed(1));
    }
    let rank = left.len().max(right.len());
    let padded = |shape: Vec<Size>| -> Vec<Size> {
        std::iter::repeat_n(fixed(1), rank - shape.len()).chain(shape).collect()
    };
    let (left, right) = (call.reshape(a, &padded(left))?, call.reshape(b, &padded(right))?);
    let product = call.emit(Op::Matmul(Matmul), &[left, right])?;
    let shape = call.shape(product);
    let own = |axis: &usize| !(row && *axis + 2 == rank || column && *axis + 1 == rank);
    let shape: Vec<_> = (0..rank).filter(own).map(|axis| shape[axis]).collect();
    call.reshape(product, &shape)
}
