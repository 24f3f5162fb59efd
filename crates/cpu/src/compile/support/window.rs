//! Pools, interpolation, and means and sums over axes.

use influence_autodiff::graph::Node;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::resample::Interpolate;

use super::{Answer, Arrangement, NewStage, Reason, StageOperand, Support};
use crate::compile::geometry::{self, SlidingWindow, area};
use crate::compile::stage::StageOp;
use crate::compile::view::SampleShape;
use crate::kernels::{RowTable, Shares};

impl<'g> Support<'_, 'g> {
    pub(super) fn maximum(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let pool = match &node.op {
            Op::MaxPool2d(pool) => pool,
            Op::MaxPool1d(pool) => &pool.0,
            _ => return Err("no pool".into()),
        };
        let window = SlidingWindow::of_max(pool);
        if area(window.kernel) > usize::from(u16::MAX) {
            return Err("a window of more than 65535 elements".into());
        }
        let (operand, from, to) = self.images(node)?;
        let table = self.through(&operand, window.table(from, to), area(from));
        self.pool(node, operand, StageOp::Maximum { table })
    }

    pub(super) fn average(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (operand, from, to) = self.images(node)?;
        let plain =
            |pool| (SlidingWindow::of_average(pool).table(from, to), geometry::counts(pool, from, to));
        let (table, counts) = match &node.op {
            Op::AvgPool2d(pool) => plain(pool),
            Op::AvgPool1d(pool) => plain(&pool.0),
            Op::AdaptiveAvgPool2d(pool) => geometry::adaptive(pool, from),
            Op::AdaptiveAvgPool1d(pool) => geometry::adaptive(&pool.0, from),
            _ => return Err("no pool".into()),
        };
        let table = self.through(&operand, table, area(from));
        let shares = counts.iter().map(|&count| 1.0 / count as f64).collect::<Vec<_>>();
        let shares = shares.iter().copied().cycle().take(table.rows()).collect();
        self.pool(node, operand, StageOp::Average { table, shares: Shares::Rows(shares) })
    }

    /// Interpolation to another size: weighted sums of a few pixels. The weights of both axes are
    /// multiplied.
    pub(super) fn interpolation(&self, node: &Node, op: &Interpolate) -> Result<Answer<'g>, Reason> {
        let (operand, from, to) = self.images(node)?;
        let [rows, columns] = [0, 1].map(|axis| {
            let taps = (0..to[axis]).map(|at| op.taps(from[axis], to[axis], at));
            taps.collect::<Vec<_>>()
        });
        // Near an edge some modes read fewer pixels.
        let most = |taps: &[Vec<(usize, f64)>]| taps.iter().map(Vec::len).max().unwrap_or(1);
        let width = most(&columns);
        let taps = most(&rows) * width;
        let at = |row: usize, tap: usize| -> Option<(usize, f64)> {
            let (y, of_y) = *rows[row / to[1]].get(tap / width)?;
            let (x, of_x) = *columns[row % to[1]].get(tap % width)?;
            Some((y * from[1] + x, of_y * of_x))
        };
        let table = RowTable::new(area(to), taps, area(from), |row, tap| Some(at(row, tap)?.0));
        let table = self.through(&operand, table, area(from));
        let shares = (0..area(to)).flat_map(|row| (0..taps).map(move |tap| (row, tap)));
        let shares: Vec<_> = shares.map(|(row, tap)| at(row, tap).map_or(0.0, |(_, share)| share)).collect();
        let shares = shares.iter().copied().cycle().take(table.rows() * taps).collect();
        self.pool(node, operand, StageOp::Average { table, shares: Shares::Taps(shares) })
    }

    /// The operand of a window over images, and the extents before and after it.
    pub(super) fn images(&self, node: &Node) -> Result<(StageOperand, [usize; 2], [usize; 2]), Reason> {
        let view = self.view(node.inputs[0])?;
        let to = self.samples_first(node)?;
        if view.shape.batch != 0 {
            return Err("samples along another axis than the first".into());
        }
        let extent = |shape: &SampleShape| match shape.sizes[..] {
            [_, _, height, width] => Some([height, width]),
            [_, _, width] => Some([1, width]),
            _ => None,
        };
        let extents = extent(&view.shape).zip(extent(&to));
        let (from, to) = extents.ok_or("an image of other than one or two axes")?;
        Ok((self.image(view, 1), from, to))
    }

    /// A table of one image, for all images of an operand, through the rows where they lie.
    pub(super) fn through(&self, operand: &StageOperand, table: RowTable, area: usize) -> RowTable {
        let rows = &operand.reading.rows;
        let instances = rows.len() / area.max(1);
        RowTable::new(instances * table.rows(), table.taps(), self.read_rows(operand), |row, tap| {
            let (instance, at) = (row / table.rows(), row % table.rows());
            Some(rows[instance * area + table.source(at, tap)?])
        })
    }

    fn pool(&self, node: &Node, operand: StageOperand, op: StageOp<'g>) -> Result<Answer<'g>, Reason> {
        let result = Arrangement::channels(self.samples_first(node)?, 1);
        Ok(Answer::Stage(Box::new(NewStage::new(op, vec![operand], result))))
    }

    /// The mean or the sum over some axes, with the channels along another one.
    pub(super) fn reduction(&self, node: &Node, axes: &[usize], mean: bool) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        let (from, to) = (&view.shape, self.shape(node.output)?);
        if axes.contains(&from.batch) || to.batch != from.batch || to.sizes.len() != from.sizes.len() {
            return Err("a mean or sum over the samples".into());
        }
        let stored = view.channel_axis(self.store(view.store));
        if let Some(axis) = stored
            && axes.contains(&axis)
            && axes.iter().all(|&other| other == axis || from.sizes[other] == 1)
        {
            let share = if mean { 1.0 / from.sizes[axis] as f64 } else { 1.0 };
            return self.weighted(view, to, axis, share);
        }
        let stored = stored.filter(|axis| !axes.contains(axis));
        let kept = (0..from.sizes.len()).rev().filter(|axis| !axes.contains(axis));
        let channels = stored.or_else(|| kept.max_by_key(|&axis| from.sizes[axis]));
        let channels = channels.ok_or("a mean or sum over everything")?;
        let operand = self.image(view, channels);
        let others: Vec<usize> = (0..from.sizes.len()).filter(|&axis| axis != channels).collect();
        let sizes: Vec<usize> = others.iter().map(|&axis| from.sizes[axis]).collect();
        let reduced: Vec<bool> = others.iter().map(|axis| axes.contains(axis)).collect();
        // A row of the result gives the indices along the axes that are kept, a tap those along the
        // reduced axes.
        let source = |mut row: usize, mut tap: usize| {
            let (mut at, mut stride) = (0, 1);
            for (&size, &reduced) in sizes.iter().zip(&reduced).rev() {
                let digit = if reduced { &mut tap } else { &mut row };
                at += *digit % size * stride;
                *digit /= size;
                stride *= size;
            }
            at
        };
        let count = |wanted: bool| {
            sizes
                .iter()
                .zip(&reduced)
                .filter(|(_, reduced)| **reduced == wanted)
                .map(|(size, _)| size)
                .product()
        };
        let (rows, taps): (usize, usize) = (count(false), count(true));
        let table = RowTable::new(rows, taps, self.read_rows(&operand), |row, tap| {
            Some(operand.reading.rows[source(row, tap)])
        });
        let share = if mean { 1.0 / taps as f64 } else { 1.0 };
        let op = StageOp::Average { table, shares: Shares::Rows(vec![share; rows]) };
        Ok(Answer::Stage(Box::new(NewStage::new(op, vec![operand], Arrangement::channels(to, channels)))))
    }
}
