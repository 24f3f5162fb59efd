//! Matrix products of two values that both depend on the input: attention.

use influence_autodiff::graph::Node;

use super::{Answer, Arrangement, NewStage, Reason, StageOperand, Support};
use crate::compile::stage::StageOp;
use crate::compile::view::{Digit, Reading, SampleShape, StoreView};
use crate::kernels::{Matrices, MatrixOperand, Stride};

impl<'g> Support<'_, 'g> {
    /// Products along the last two axes, for all that stands before them.
    pub(super) fn matrices(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        let rank = shape.sizes.len();
        let leading = &shape.sizes[..rank - 2];
        let expanded = |position: usize| {
            let view = self.view(node.inputs[position])?;
            let own = &view.shape.sizes;
            if own.len() != rank || view.shape.batch != shape.batch {
                return Err("a product of values with other axes".to_owned());
            }
            let sizes = [leading, &own[rank - 2..]].concat();
            view.expand(SampleShape { sizes, ..shape.clone() })
                .ok_or_else(|| "operands that do not line up".into())
        };
        if shape.batch + 2 >= rank {
            return Err("a product along the samples".into());
        }
        // Repeated along leading axes, an operand's matrices are read several times where they lie.
        let [a, b] = [expanded(0)?, expanded(1)?];
        let result = heads_together(&b, &shape);
        let [(first, of_a), (second, of_b)] = [self.matrix(&a)?, self.matrix(&b)?];
        let (corners, digits) = result.view.matrices().ok_or("a result that is no matrices")?;
        let of_c = operand(corners, digits, result.store.rows);
        let sizes = [a.shape.sizes[rank - 2], a.shape.sizes[rank - 1], b.shape.sizes[rank - 1]];
        let op = StageOp::Matrices(Matrices { sizes, operands: [of_a, of_b, of_c] });
        Ok(Answer::Stage(Box::new(NewStage::new(op, vec![first, second], result))))
    }

    /// An operand as matrices: where it lies, if one axis of each matrix leads through neighbouring
    /// channels, else a copy.
    fn matrix(&self, view: &StoreView) -> Result<(StageOperand, MatrixOperand), Reason> {
        // An axis of one entry may have any stride.
        let is_dense = |digits: &[Digit; 2]| {
            digits.iter().any(|digit| digit.size == 1 || (digit.rows, digit.channels) == (0, 1))
        };
        if let Some((corners, digits)) = view.matrices().filter(|(_, digits)| is_dense(digits)) {
            let store = self.store(view.store);
            let own = StageOperand { from: view.clone(), copy: None, reading: Reading::whole(store) };
            return Ok((own, operand(corners, digits, store.rows)));
        }
        let arrangement = Arrangement::channels(view.shape.clone(), view.shape.sizes.len() - 1);
        let (corners, digits) = arrangement.view.matrices().ok_or("a value that is no matrices")?;
        let rows = arrangement.store.rows;
        Ok((Self::copied(view, arrangement), operand(corners, digits, rows)))
    }
}

fn operand(corners: Vec<[usize; 2]>, digits: [Digit; 2], rows: usize) -> MatrixOperand {
    let strides = digits.map(|Digit { rows, channels, .. }| Stride { rows, channels });
    MatrixOperand { corners, strides, rows }
}

/// The arrangement of the result: its last axis as channels, and the heads beside it if they lie so
/// in the second operand. A layer that reads all heads then finds them side by side.
fn heads_together(b: &StoreView, shape: &SampleShape) -> Arrangement {
    let last = shape.sizes.len() - 1;
    let heads: Vec<usize> = match b.is_along_channels(last) {
        true => (0..last - 1).filter(|&axis| axis != shape.batch && b.is_along_channels(axis)).collect(),
        false => Vec::new(),
    };
    let along = [heads, vec![last]].concat();
    Arrangement { store: shape.store_of(&along), view: StoreView::of(super::UNKNOWN, shape.clone(), &along) }
}
