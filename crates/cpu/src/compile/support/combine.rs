//! Sums, differences, products and quotients of two values that both depend on the input.

use influence_autodiff::graph::{Node, ValueId};
use influence_autodiff::ops::Op;

use super::{Answer, Arrangement, NewStage, Reason, StageOperand, Support};
use crate::compile::stage::StageOp;
use crate::compile::view::{Reading, SampleShape, Store, StoreView};
use crate::kernels::{How, Repetition, RowTable};

impl<'g> Support<'_, 'g> {
    /// The result has the arrangement of an operand that fills its store, the first one if both do.
    /// The other operand is repeated where it lies if a table of rows can say how, else copied.
    pub(super) fn combined(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        let [a, b] = [self.repeated(node.inputs[0], &shape)?, self.repeated(node.inputs[1], &shape)?];
        let fills = |view: &StoreView| view.covers(self.store(view.store));
        let swapped = !fills(&a) && fills(&b);
        let how = match (&node.op, swapped) {
            (Op::Add(_), _) => How::Sum([1.0, 1.0]),
            (Op::Sub(_), false) => How::Sum([1.0, -1.0]),
            (Op::Sub(_), true) => How::Sum([-1.0, 1.0]),
            (Op::Mul(_), _) => How::Product,
            (Op::Div(_), false) => How::Quotient,
            (Op::Div(_), true) => How::Inverse,
            _ => return Err("two values that depend on the input".into()),
        };
        let [x, other] = if swapped { [b, a] } else { [a, b] };
        let (first, result) = self.whole(&x);
        let store = self.store(other.store);
        let (other, repeat, whole) = match repeat(&other, store, &result) {
            Some(repeat) => {
                let reading = Reading::whole(store);
                (StageOperand { from: other, copy: None, reading }, repeat, store == result.store)
            }
            None => {
                (self.arranged(&other, &result), Repetition { rows: None, first: 0, single: false }, true)
            }
        };
        let op = match how {
            // A plain sum hands its cotangents on to all channels of both operands' stores. Where
            // an operand is some channels of a larger store, the others must not get any.
            How::Sum([1.0, 1.0]) if repeat.is_plain() && whole => StageOp::Sum,
            _ => StageOp::Combine { how, repeat },
        };
        Ok(Answer::Stage(Box::new(NewStage::new(op, vec![first, other], result))))
    }

    /// A value repeated to a shape.
    pub(super) fn repeated(&self, id: ValueId, shape: &SampleShape) -> Result<StoreView, Reason> {
        self.view(id)?.expand(shape.clone()).ok_or_else(|| "operands that do not line up".into())
    }
}

/// How the rows of an operand are repeated beside those of the result, if they are repeated as
/// whole rows or as single channels. The operand's view has the shape of the result already.
pub(super) fn repeat(operand: &StoreView, store: Store, result: &Arrangement) -> Option<Repetition> {
    let Store { rows, channels } = result.store;
    let (read, written) = (operand.elements(), result.view.elements());
    // Either all elements are in one channel, or each is as many channels after the first as in the
    // result. And all elements of a row of the result come from one row.
    let first = read.iter().map(|[_, channel]| *channel).min()?;
    let single = channels > 1 && read.iter().all(|[_, channel]| *channel == first);
    let mut from = vec![None; rows];
    for (&[row, channel], &[to_row, to_channel]) in read.iter().zip(&written) {
        let is_there = single || channel == first + to_channel;
        if !is_there || *from[to_row].get_or_insert(row) != row {
            return None;
        }
    }
    let from: Vec<usize> = from.into_iter().collect::<Option<_>>()?;
    let is_own = store.rows == rows && from.iter().copied().eq(0..rows);
    let table = || RowTable::new(rows, 1, store.rows, |row, _| Some(from[row]));
    Some(Repetition { rows: (!is_own).then(table), first, single })
}
