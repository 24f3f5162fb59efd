//! Draws the next instruction; those of layout, arithmetic and selection are defined here.

use crate::attack::draw::{Drawer, batched, in_order, plain};
use crate::attack::model::StepInput;
use crate::attack::op::{Binary, DrawnOp, Fold, PadFill, ScalarComparison, Unary};
use crate::attack::value::Dim;

impl Drawer {
    /// Draws one instruction and adds it if it fits.
    pub(crate) fn instruction(&mut self) -> Option<StepInput> {
        if self.convolutional {
            return self.convolutional_instruction();
        }
        match self.rng.below(36) {
            0..=3 => self.unary(),
            4..=6 => self.binary(),
            7..=11 => self.relayout(),
            12 => self.softmax(),
            13 => self.part(),
            14 => self.fold(),
            15 => self.grow(),
            16 => self.chosen(),
            17 => self.masked(),
            18 => self.side_by_side(),
            19 => self.assigned(),
            20..=21 => self.linear(),
            22 => self.matmul(),
            23..=24 => self.conv(1),
            25..=26 => self.conv(2),
            27 => self.norm(),
            28..=29 => self.pool(),
            30 => self.interpolate_or_embed(),
            32 => self.along(),
            33 => self.conv_transposed(),
            34 => self.conv(3),
            35 => self.sampled(),
            _ => self.attention(),
        }
    }

    /// Draws one of the operations of convolutional networks, for which our own kernels have the
    /// most special cases.
    fn convolutional_instruction(&mut self) -> Option<StepInput> {
        match self.rng.below(16) {
            0..=2 => {
                let x = self.pick(|_| true)?;
                self.push(DrawnOp::Unary(Unary::Relu), vec![x])
            }
            3..=4 => self.conv(1),
            5..=7 => self.conv(2),
            8 => self.pool(),
            9..=10 => self.relayout(),
            11 => self.linear(),
            12 => self.batch_norm(),
            13 => self.side_by_side(),
            14 => self.sum(),
            _ => self.fold(),
        }
    }

    /// A residual sum.
    fn sum(&mut self) -> Option<StepInput> {
        let x = self.pick(batched)?;
        let shape = self.shape(x);
        let other =
            if self.rng.once_in(5) { self.broadcast(&shape) } else { self.pick(|other| other == shape)? };
        self.push(DrawnOp::Binary(Binary::Add), vec![x, other])
    }

    /// Most often a value that depends on the samples, sometimes a parameter.
    fn any(&mut self) -> Option<StepInput> {
        if self.rng.once_in(16) {
            let rank = self.rng.between(1, 3);
            let shape: Vec<usize> = (0..rank).map(|_| self.rng.between(1, 4)).collect();
            return Some(self.parameter(&shape));
        }
        self.pick(|_| true)
    }

    /// A function of each element.
    fn unary(&mut self) -> Option<StepInput> {
        let (x, unary) = (self.any()?, self.rng.of(&Unary::ALL));
        // ReLU more often than the others, as in real models.
        let unary = if self.rng.once_in(4) { Unary::Relu } else { unary };
        self.push(DrawnOp::Unary(unary), vec![x])
    }

    /// A sum or product of a value with one of the same or a broadcastable shape, or with a
    /// parameter or constant that broadcasts, on either side.
    fn binary(&mut self) -> Option<StepInput> {
        let x = self.any()?;
        let shape = self.shape(x);
        let mut binary = self.rng.of(&Binary::COMMON);
        let other = match self.rng.below(4) {
            0 | 1 => {
                let fits = |other: &[Dim]| {
                    other.len() == shape.len()
                        && other.iter().zip(&shape).all(|(a, b)| a == b || *a == Dim::fixed(1))
                };
                self.pick(fits)?
            }
            2 => self.broadcast(&shape),
            // A vector reshaped to the rank of the value.
            _ => self.raised(&shape)?,
        };
        if !matches!(other, StepInput::Value(_)) && self.rng.once_in(4) {
            binary = Binary::Div;
        }
        let (a, b) = if binary != Binary::Div && self.rng.once_in(2) { (other, x) } else { (x, other) };
        self.push(DrawnOp::Binary(binary), vec![a, b])
    }

    /// A parameter or constant with some of the value's sizes, 1 elsewhere.
    fn broadcast(&mut self, shape: &[Dim]) -> StepInput {
        let of = |drawer: &mut Self, dim: &Dim| {
            if dim.per_sample > 0 || drawer.rng.once_in(2) { 1 } else { dim.fixed }
        };
        let sizes: Vec<usize> = shape.iter().map(|dim| of(self, dim)).collect();
        self.given(&sizes)
    }

    /// A vector, reshaped or unsqueezed so that it lies along one of the value's axes.
    fn raised(&mut self, shape: &[Dim]) -> Option<StepInput> {
        let axis = self.rng.below(shape.len());
        if shape[axis].per_sample > 0 || shape.len() < 2 {
            return None;
        }
        let size = shape[axis].fixed;
        let vector = self.given(&[size]);
        let mut to = vec![Dim::fixed(1); shape.len()];
        to[axis] = Dim::fixed(size);
        self.push(DrawnOp::Reshape { shape: to }, vec![vector])
    }

    /// Changes the shape or order of the same elements.
    pub(crate) fn relayout(&mut self) -> Option<StepInput> {
        match self.rng.below(10) {
            0 | 1 => {
                let x = self.pick(in_order)?;
                let rank = self.rng.between(2, 5);
                self.at_rank(x, rank)
            }
            2 => {
                let x = self.pick(|shape| shape.len() > 2 && in_order(shape))?;
                let rank = self.shape(x).len();
                let from = self.rng.below(rank - 1);
                let to = self.rng.between(from + 1, rank - 1);
                self.push(DrawnOp::Flatten { from, to }, vec![x])
            }
            3 => {
                let x = self.pick(|shape| shape.len() > 2 && shape[1..].contains(&Dim::fixed(1)))?;
                let shape = self.shape(x);
                let axes: Vec<usize> =
                    (1..shape.len()).filter(|&axis| shape[axis] == Dim::fixed(1)).collect();
                let axis = self.rng.of(&axes);
                self.push(DrawnOp::Squeeze { axis }, vec![x])
            }
            // Now and then the new axis precedes that of the samples.
            4 => {
                let x = self.pick(|shape| shape.len() < 5)?;
                let rank = self.shape(x).len();
                let first = usize::from(!self.rng.once_in(8));
                let axis = self.rng.between(first, rank);
                self.push(DrawnOp::Unsqueeze { axis }, vec![x])
            }
            5 | 6 => self.permute(),
            7 => self.around_the_batch(),
            8 => {
                let x = self.pick(|shape| shape.len() > 1)?;
                let rank = self.shape(x).len();
                let first = self.rng.between(1, rank - 1);
                let second = self.rng.between(1, rank - 1);
                let axes = if first == second { vec![first] } else { vec![first, second] };
                self.push(DrawnOp::Flip { axes }, vec![x])
            }
            _ => self.merged_rows(),
        }
    }

    /// A reshape to a rank, with the factors of the size spread over the axes at random.
    pub(crate) fn at_rank(&mut self, x: StepInput, rank: usize) -> Option<StepInput> {
        let shape = self.shape(x);
        let all = shape.iter().fold(1, |all, dim| all * dim.at(1));
        let samples = shape.iter().any(|dim| dim.per_sample > 0);
        let mut sizes = vec![1; if samples { rank - 1 } else { rank }];
        let mut rest = all;
        let mut factor = 2;
        while rest > 1 {
            if rest.is_multiple_of(factor) {
                let axis = self.rng.below(sizes.len());
                sizes[axis] *= factor;
                rest /= factor;
            } else {
                factor += 1;
            }
        }
        let leading = samples.then_some(Dim::N);
        let to: Vec<Dim> = leading.into_iter().chain(sizes.into_iter().map(Dim::fixed)).collect();
        if to == shape {
            return None;
        }
        self.push(DrawnOp::Reshape { shape: to }, vec![x])
    }

    /// A permutation of the axes after the first, or a swap of two of them.
    fn permute(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 2)?;
        let rank = self.shape(x).len();
        let mut axes: Vec<usize> = (0..rank).collect();
        for at in (2..rank).rev() {
            let other = self.rng.between(1, at);
            axes.swap(at, other);
        }
        if rank > 2 && self.rng.once_in(2) {
            let (a, b) = (self.rng.between(1, rank - 1), self.rng.between(1, rank - 1));
            return self.push(DrawnOp::SwapDims { axes: [a, b] }, vec![x]);
        }
        self.push(DrawnOp::Permute { axes }, vec![x])
    }

    /// Swaps the sample axis with another, computes something and swaps back, as models with
    /// sequences first do.
    fn around_the_batch(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1 && plain(shape))?;
        let rank = self.shape(x).len();
        let axis = self.rng.between(1, rank - 1);
        let there = self.push(DrawnOp::SwapDims { axes: [0, axis] }, vec![x])?;
        let between = match self.rng.below(3) {
            0 => self.push(DrawnOp::Unary(Unary::Tanh), vec![there])?,
            1 => {
                let (shape, features) = (self.shape(there), self.shape(there)[rank - 1]);
                if features.per_sample > 0 {
                    let vector: Vec<usize> =
                        shape.iter().map(|dim| if dim.per_sample > 0 { 1 } else { dim.fixed }).collect();
                    let given = self.given(&vector);
                    self.push(DrawnOp::Binary(Binary::Mul), vec![there, given])?
                } else {
                    let weight = self.parameter(&[features.fixed, features.fixed]);
                    self.push(DrawnOp::Linear, vec![there, weight])?
                }
            }
            _ => there,
        };
        self.push(DrawnOp::SwapDims { axes: [0, axis] }, vec![between])
    }

    /// Merges samples and another axis into rows of one matrix, computes something and usually
    /// splits them again.
    fn merged_rows(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 2 && plain(shape))?;
        let shape = self.shape(x);
        let rows = Dim { per_sample: shape[1].fixed, fixed: 0 };
        let merged: Vec<Dim> = std::iter::once(rows).chain(shape[2..].iter().copied()).collect();
        let at = self.push(DrawnOp::Reshape { shape: merged.clone() }, vec![x])?;
        let last = merged[merged.len() - 1].fixed;
        let at = match self.rng.below(3) {
            0 => {
                let weight = self.parameter(&[last, last]);
                let bias = self.given(&[last]);
                self.push(DrawnOp::Linear, vec![at, weight, bias])?
            }
            1 => self.push(DrawnOp::Softmax { axis: merged.len() - 1 }, vec![at])?,
            _ => at,
        };
        if self.rng.once_in(4) { Some(at) } else { self.push(DrawnOp::Reshape { shape }, vec![at]) }
    }

    /// A softmax or one of its relatives along an axis after the first.
    fn softmax(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1 && batched(shape))?;
        let axis = self.rng.between(1, self.shape(x).len() - 1);
        let even = self.shape(x)[axis].fixed.is_multiple_of(2);
        let op = match self.rng.below(4) {
            0 => DrawnOp::LogSoftmax { axis },
            3 => DrawnOp::Softmin { axis },
            1 if even => DrawnOp::Glu { axis },
            _ => DrawnOp::Softmax { axis },
        };
        self.push(op, vec![x])
    }

    /// An axis of a value other than that of the samples, with its size.
    fn axis(&mut self, x: StepInput) -> Option<(usize, usize)> {
        let shape = self.shape(x);
        let axes: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis].per_sample == 0).collect();
        if axes.is_empty() {
            return None;
        }
        let axis = self.rng.of(&axes);
        Some((axis, shape[axis].fixed))
    }

    /// Part of an axis, one position of it, or a roll along it.
    fn part(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.iter().any(|dim| dim.per_sample == 0 && dim.fixed > 1))?;
        let (axis, size) = self.axis(x)?;
        let start = self.rng.below(size);
        if self.rng.once_in(4) && self.shape(x).len() > 2 {
            return self.push(DrawnOp::SelectDim { axis, at: start }, vec![x]);
        }
        if self.rng.once_in(6) {
            let by = self.rng.between(1, 3);
            return self.push(DrawnOp::Roll { axis, by }, vec![x]);
        }
        let end = self.rng.between(start + 1, size);
        let step = self.rng.of(&[1, 1, 1, 2, -1, -2]);
        self.push(DrawnOp::Slice { axis, start, end, step }, vec![x])
    }

    /// Cumulative sums, sorts, windows and slices along one axis.
    fn along(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1)?;
        let (axis, size) = self.axis(x)?;
        let op = match self.rng.below(4) {
            0 => DrawnOp::CumSum { axis },
            1 => {
                let count = self.rng.once_in(2).then(|| self.rng.between(1, size));
                DrawnOp::Sort { axis, descending: self.rng.once_in(2), count }
            }
            2 if self.shape(x).len() < 5 => {
                let window = self.rng.between(1, size);
                DrawnOp::Unfold { axis, size: window, step: self.rng.between(1, 2) }
            }
            _ => DrawnOp::Rewritten { axis },
        };
        self.push(op, vec![x])
    }

    /// A reduction over some of the axes other than that of the samples.
    fn fold(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1)?;
        let shape = self.shape(x);
        let own: Vec<usize> = (0..shape.len()).filter(|&axis| shape[axis].per_sample == 0).collect();
        let mut axes: Vec<usize> = own.into_iter().filter(|_| self.rng.once_in(2)).collect();
        if axes.is_empty() {
            axes = vec![self.axis(x)?.0];
        }
        let fold = self.rng.of(&[Fold::Sum, Fold::Mean, Fold::Max, Fold::Min, Fold::Var]);
        let squeeze = axes.len() + 1 < shape.len() && self.rng.once_in(2);
        self.push(DrawnOp::Fold { fold, axes, squeeze }, vec![x])
    }

    /// A repetition, an expansion or a padding.
    fn grow(&mut self) -> Option<StepInput> {
        let x = self.any()?;
        let shape = self.shape(x);
        let (axis, size) = self.axis(x)?;
        match self.rng.below(4) {
            0 => {
                let times = self.rng.between(2, 3);
                self.push(DrawnOp::Repeat { axis, times }, vec![x])
            }
            1 if size == 1 => {
                let mut to = shape;
                to[axis] = Dim::fixed(self.rng.between(2, 4));
                self.push(DrawnOp::Expand { shape: to }, vec![x])
            }
            // A parameter or constant, repeated for each sample.
            2 if shape.iter().all(|dim| dim.per_sample == 0) && shape.len() < 5 => {
                let to = std::iter::once(Dim::N).chain(shape).collect();
                self.push(DrawnOp::Expand { shape: to }, vec![x])
            }
            _ => {
                let mut margins = vec![(0, 0); shape.len()];
                margins[axis] = (self.rng.below(3), self.rng.below(3));
                let with = self.rng.of(&[PadFill::Number, PadFill::Reflect, PadFill::Edge]);
                self.push(DrawnOp::Pad { margins, with }, vec![x])
            }
        }
    }

    /// A gather, or a selection by fixed indices.
    fn chosen(&mut self) -> Option<StepInput> {
        let x = self.pick(|_| true)?;
        let (axis, size) = self.axis(x)?;
        let length = self.rng.between(1, 4);
        if self.rng.once_in(2) && plain(&self.shape(x)) {
            let seed = self.rng.next();
            return self.push(DrawnOp::Gather { axis, length, seed }, vec![x]);
        }
        let indices = (0..length).map(|_| self.rng.below(size)).collect();
        self.push(DrawnOp::Select { axis, indices }, vec![x])
    }

    /// A fill or a choice through a constant mask or through a comparison.
    fn masked(&mut self) -> Option<StepInput> {
        let compare = self.rng.of(&[
            ScalarComparison::Greater,
            ScalarComparison::GreaterEqual,
            ScalarComparison::Lower,
            ScalarComparison::LowerEqual,
        ]);
        let x = self.pick(plain)?;
        let (seed, shape) = (self.rng.next(), self.shape(x));
        match self.rng.below(4) {
            0 => {
                let whole = self.rng.once_in(2);
                self.push(DrawnOp::MaskFill { seed, whole }, vec![x])
            }
            1 => self.push(DrawnOp::FillWhere { compare }, vec![x]),
            choice => {
                let other = self.pick(|other| other == shape)?;
                let op = if choice == 2 { DrawnOp::MaskWhere { seed } } else { DrawnOp::Choose { compare } };
                self.push(op, vec![x, other])
            }
        }
    }

    /// A concatenation or a stack of two values.
    fn side_by_side(&mut self) -> Option<StepInput> {
        let x = self.pick(batched)?;
        let shape = self.shape(x);
        if self.rng.once_in(4) && shape.len() < 5 {
            let other = self.pick(|other| other == shape)?;
            let axis = self.rng.between(1, shape.len());
            return self.push(DrawnOp::Stack { axis }, vec![x, other]);
        }
        let (axis, _) = self.axis(x)?;
        let fits = |other: &[Dim]| {
            let alike =
                |at: usize| if at == axis { other[at].per_sample == 0 } else { other[at] == shape[at] };
            other.len() == shape.len() && (0..shape.len()).all(alike)
        };
        let other = self.pick(fits)?;
        let inputs = if self.rng.once_in(2) { vec![x, other] } else { vec![other, x] };
        self.push(DrawnOp::Cat { axis }, inputs)
    }

    /// A value with a slice replaced by another value.
    fn assigned(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| plain(shape) && shape.len() > 1)?;
        let shape = self.shape(x);
        let (axis, size) = self.axis(x)?;
        let fits = |other: &[Dim]| {
            let alike = |at: usize| if at == axis { other[at].fixed <= size } else { other[at] == shape[at] };
            other.len() == shape.len() && (0..shape.len()).all(alike)
        };
        let part = self.pick(fits)?;
        let start = self.rng.between(0, size - self.shape(part)[axis].fixed);
        self.push(DrawnOp::Assign { axis, start }, vec![x, part])
    }
}
