//! Convolutions and matrix products with constant weights.

use influence_autodiff::graph::{Node, ValueId};
use influence_autodiff::ops::conv::Conv2d;
use influence_autodiff::ops::transposed::ConvTranspose2d;

use super::{Answer, Arrangement, NewStage, Reason, StageOperand, Support};
use crate::compile::constants::ConstantNumbers;
use crate::compile::geometry::{self, Extent, Neighbours, SlidingWindow, area};
use crate::compile::stage::{StageOp, StageTensors};
use crate::compile::view::{Grid, Reading, SampleShape, StoreView};
use crate::compile::weights::{ProductWeights, WeightLayout};
use crate::kernels::RowTable;

/// A matrix product along one axis of a value.
struct Contraction {
    axis: usize,
    /// Elements from one entry of the weight to the next along the axis, and from one output to the
    /// next.
    strides: [usize; 2],
    outputs: usize,
}

impl<'g> Support<'_, 'g> {
    /// Over the last one or two axes, with the channels along the second and the samples first.
    pub(super) fn convolution(&self, node: &'g Node, conv: &Conv2d) -> Result<Answer<'g>, Reason> {
        let (operand, from, to) = self.images(node)?;
        let window = SlidingWindow::of_conv(conv, self.kernel(node)?);
        // Winograd's form takes one image per sample, whose rows are all of its store in order:
        // then the rows of a patch follow from its position.
        let one = self.shape(node.inputs[0])?.sizes[0] == 1;
        let plain = one && operand.reading.rows.iter().copied().eq(0..self.read_rows(&operand));
        let neighbours = plain.then(|| window.neighbours(from, to)).flatten();
        let table = self.through(&operand, window.table(from, to), area(from));
        self.sliding(node, operand, table, WeightLayout::Convolution, conv.groups, neighbours)
    }

    /// A convolution with the roles of the images exchanged: each position of the result reads the
    /// few positions whose windows it lies in.
    pub(super) fn transposed(&self, node: &'g Node, conv: &ConvTranspose2d) -> Result<Answer<'g>, Reason> {
        let (operand, from, to) = self.images(node)?;
        let table = geometry::transposed(conv, self.kernel(node)?, from, to);
        let table = self.through(&operand, table, area(from));
        self.sliding(node, operand, table, WeightLayout::Transposed, conv.groups, None)
    }

    /// Height and width of a convolution's kernel.
    fn kernel(&self, node: &Node) -> Result<Extent, Reason> {
        match self.graph.values()[node.inputs[1]].shape_at(1)[..] {
            [_, _, height, width] => Ok([height, width]),
            [_, _, width] => Ok([1, width]),
            _ => Err("a kernel of other than one or two axes".into()),
        }
    }

    fn sliding(
        &self,
        node: &'g Node,
        operand: StageOperand,
        table: RowTable,
        layout: WeightLayout,
        groups: usize,
        neighbours: Option<Neighbours>,
    ) -> Result<Answer<'g>, Reason> {
        let to = self.samples_first(node)?;
        let weights = ProductWeights {
            numbers: self.numbers(node, 1)?,
            layout,
            scale: None,
            taps: table.taps(),
            inputs: self.shape(node.inputs[0])?.sizes[1],
            outputs: to.sizes[1],
            groups,
            neighbours,
        };
        self.product(node, [1, 2], table, weights, operand, Arrangement::channels(to, 1))
    }

    /// Rows of the store that an operand is read from.
    pub(super) fn read_rows(&self, operand: &StageOperand) -> usize {
        match &operand.copy {
            Some(copy) => copy.store.rows,
            None => self.store(operand.from.store).rows,
        }
    }

    /// x W + b over the last axis.
    pub(super) fn linear(&self, node: &'g Node) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        let [_, outputs] = self.graph.values()[node.inputs[1]].shape_at(1)[..] else {
            return Err("a weight that is no matrix".into());
        };
        let contraction = Contraction { axis: view.shape.sizes.len() - 1, strides: [outputs, 1], outputs };
        self.contraction(node, view, [1, 2], &contraction)
    }

    /// A constant matrix from either side, one for all samples and all that stands before the last
    /// two axes.
    pub(super) fn matmul(&self, node: &'g Node) -> Result<Answer<'g>, Reason> {
        let [a, b] = [node.inputs[0], node.inputs[1]];
        let rank = self.graph.values()[node.output].shape.len();
        let matrix = |id: ValueId| {
            let shape = self.graph.values()[id].shape_at(1);
            let (leading, last) = shape.split_at(rank - 2);
            leading.iter().all(|&size| size == 1).then(|| [last[0], last[1]])
        };
        match (self.depends(a), self.depends(b)) {
            (true, false) => {
                let [_, outputs] = matrix(b).ok_or("a matrix for each of several parts")?;
                let contraction = Contraction { axis: rank - 1, strides: [outputs, 1], outputs };
                self.contraction(node, self.view(a)?, [1, 2], &contraction)
            }
            (false, true) => {
                let [outputs, inputs] = matrix(a).ok_or("a matrix for each of several parts")?;
                let contraction = Contraction { axis: rank - 2, strides: [1, inputs], outputs };
                self.contraction(node, self.view(b)?, [0, 2], &contraction)
            }
            _ => self.matrices(node),
        }
    }

    fn contraction(
        &self,
        node: &'g Node,
        view: &StoreView,
        [weight, bias]: [usize; 2],
        contraction: &Contraction,
    ) -> Result<Answer<'g>, Reason> {
        let Contraction { axis, strides, outputs } = *contraction;
        let to = self.shape(node.output)?;
        // The product has a result for each position beside the axis, so all other axes keep their
        // sizes.
        let fits = |other: usize| other == axis || to.sizes[other] == view.shape.sizes[other];
        if axis == view.shape.batch || to.batch != view.shape.batch || !(0..to.sizes.len()).all(fits) {
            return Err("a product along the samples, or one that repeats its operand".into());
        }
        let (operand, grid) = self.grid(view, axis).ok_or("an axis that cannot be read")?;
        let Grid { positions, taps, channels, index } = grid;
        let table = RowTable::new(positions.len(), taps.len(), self.read_rows(&operand), |row, tap| {
            Some(positions[row] + taps[tap])
        });
        let weights = ProductWeights {
            numbers: self.numbers(node, weight)?,
            layout: WeightLayout::Matrix { index: index.into(), strides },
            scale: None,
            taps: taps.len(),
            inputs: channels.len(),
            outputs,
            groups: 1,
            neighbours: None,
        };
        let operand = StageOperand { reading: Reading { channels, ..operand.reading }, ..operand };
        self.product(node, [weight, bias], table, weights, operand, Arrangement::channels(to, axis))
    }

    /// The sum along an axis times a share: a product with the same weight everywhere.
    pub(super) fn weighted(
        &self,
        view: &StoreView,
        to: SampleShape,
        axis: usize,
        share: f64,
    ) -> Result<Answer<'g>, Reason> {
        let (operand, grid) = self.grid(view, axis).ok_or("an axis that cannot be read")?;
        let Grid { positions, taps, channels, index } = grid;
        let table = RowTable::new(positions.len(), taps.len(), self.read_rows(&operand), |row, tap| {
            Some(positions[row] + taps[tap])
        });
        let weights = ProductWeights {
            numbers: ConstantNumbers::new(vec![share; index.len()]),
            layout: WeightLayout::Matrix { index: index.into(), strides: [1, 1] },
            scale: None,
            taps: taps.len(),
            inputs: channels.len(),
            outputs: 1,
            groups: 1,
            neighbours: None,
        };
        let operand = StageOperand { reading: Reading { channels, ..operand.reading }, ..operand };
        let op = StageOp::Product { table, weights: Box::new(weights), bias: vec![0.0] };
        Ok(Answer::Stage(Box::new(NewStage::new(op, vec![operand], Arrangement::channels(to, axis)))))
    }

    /// An axis as a product reads it, of the operand where it lies or of a copy.
    fn grid(&self, view: &StoreView, axis: usize) -> Option<(StageOperand, Grid)> {
        if let Some(grid) = view.grid(axis) {
            let reading = Reading { channels: grid.channels.clone(), rows: Vec::new() };
            return Some((StageOperand { from: view.clone(), copy: None, reading }, grid));
        }
        let arrangement = Arrangement::channels(view.shape.clone(), axis);
        let grid = arrangement.view.grid(axis)?;
        Some((Self::copied(view, arrangement), grid))
    }

    fn product(
        &self,
        node: &'g Node,
        [weight, bias]: [usize; 2],
        table: RowTable,
        weights: ProductWeights<'g>,
        operand: StageOperand,
        result: Arrangement,
    ) -> Result<Answer<'g>, Reason> {
        let outputs = weights.outputs;
        let constant = match node.inputs.len() > bias {
            true => self.numbers(node, bias)?.to_vec(),
            false => vec![0.0; outputs],
        };
        if constant.len() != outputs {
            return Err("a bias of another size than the outputs".into());
        }
        let tensor = |position: usize| self.perturbed.tensor(self.graph, *node.inputs.get(position)?);
        let tensors = StageTensors { weight: tensor(weight), bias: tensor(bias), ..StageTensors::default() };
        let op = StageOp::Product { table, weights: Box::new(weights), bias: constant };
        Ok(Answer::Stage(Box::new(NewStage { tensors, ..NewStage::new(op, vec![operand], result) })))
    }

    /// The elements of a constant operand.
    pub(super) fn numbers(&self, node: &Node, position: usize) -> Result<ConstantNumbers<'g>, Reason> {
        let id = node.inputs[position];
        self.perturbed.direct(self.graph, id)?;
        self.constants.numbers(id).ok_or_else(|| format!("operand {} depends on the input", position + 1))
    }
}
