//! Operations that move numbers and change none: views where digits allow it, else copies.

use influence_autodiff::graph::Node;

use super::{Answer, Arrangement, Operand, Own, Reason, Support, default_axis};
use crate::compile::stage::StageOp;
use crate::compile::view::{Reading, SampleShape, View};

impl<'g> Support<'_, 'g> {
    pub(super) fn reshape(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (view, shape) = (self.view(node.inputs[0])?, self.shape(node.output)?);
        if let Some(view) = view.reshape(shape.clone()) {
            return Ok(Answer::View(view));
        }
        // Elements keep their order for each sample as long as as many stand before the batch.
        let before = |shape: &SampleShape| shape.sizes[..shape.batch].iter().product::<usize>();
        if before(&view.shape) != before(&shape) || view.shape.elements() != shape.elements() {
            return Err("a reshape across the samples".into());
        }
        let elements: Vec<_> = (0..shape.elements()).collect();
        self.moved(view, shape, &elements)
    }

    pub(super) fn permute(&self, node: &Node, axes: &[usize]) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?.permute(axes);
        view.map(Answer::View).ok_or_else(|| "an order without the samples".into())
    }

    pub(super) fn slice(&self, node: &Node, ranges: &[Option<[usize; 3]>]) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        let whole = |axis: usize, [start, end, step]: [usize; 3]| {
            start == 0 && step == 1 && end == view.shape.sizes[axis]
        };
        let parts = ranges.iter().enumerate();
        let parts: Vec<_> = parts
            .filter_map(|(axis, range)| Some((axis, (*range)?)))
            .filter(|&(axis, range)| axis == view.shape.batch || !whole(axis, range))
            .collect();
        if parts.iter().any(|(axis, _)| *axis == view.shape.batch) {
            return Err("a part of the samples".into());
        }
        let sliced = parts.iter().try_fold(view.clone(), |view, &(axis, range)| view.slice(axis, range));
        if let Some(view) = sliced {
            return Ok(Answer::View(view));
        }
        let starts: Vec<_> = (0..view.shape.sizes.len())
            .map(|axis| parts.iter().find(|part| part.0 == axis).map_or([0, 0, 1], |part| part.1))
            .collect();
        self.picked(node, view, |axis, i| starts[axis][0] + i * starts[axis][2])
    }

    pub(super) fn expand(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (view, shape) = (self.view(node.inputs[0])?, self.shape(node.output)?);
        let view = view.expand(shape);
        view.map(Answer::View).ok_or_else(|| "a repeat along a new axis".into())
    }

    pub(super) fn flip(&self, node: &Node, axes: &[usize]) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if axes.contains(&view.shape.batch) {
            return Err("samples in another order".into());
        }
        let sizes = view.shape.sizes.clone();
        self.picked(node, view, |axis, i| if axes.contains(&axis) { sizes[axis] - 1 - i } else { i })
    }

    pub(super) fn repeat(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if axis == view.shape.batch {
            return Err("samples that are repeated".into());
        }
        let size = view.shape.sizes[axis];
        self.picked(node, view, |other, i| if other == axis { i % size } else { i })
    }

    /// Slices at constant indices.
    pub(super) fn select(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?;
        if axis == view.shape.batch {
            return Err("samples in another order".into());
        }
        let indices = self.constants.indices(node.inputs[1]).ok_or("indices that depend on the input")?;
        self.picked(node, view, |other, i| if other == axis { indices[i] } else { i })
    }

    /// A copy: index i along an axis of the result is index `from(axis, i)` of the operand.
    fn picked(
        &self,
        node: &Node,
        view: &View,
        from: impl Fn(usize, usize) -> usize,
    ) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        if shape.batch != view.shape.batch || shape.sizes.len() != view.shape.sizes.len() {
            return Err("axes that come or go".into());
        }
        let mut elements = vec![0];
        for (axis, (&to, &size)) in shape.sizes.iter().zip(&view.shape.sizes).enumerate() {
            let from = &from;
            let step = |at: usize| (0..to).map(move |i| at * size + from(axis, i));
            elements = elements.into_iter().flat_map(step).collect();
        }
        self.moved(view, shape, &elements)
    }

    /// A copy whose elements, in row-major order, are these of the operand.
    fn moved(&self, view: &View, shape: SampleShape, elements: &[usize]) -> Result<Answer<'g>, Reason> {
        let store = self.stores[view.store];
        // Channels stay where they are, if the axes do.
        let stays = shape.sizes.len() == view.shape.sizes.len();
        let axis = view.channel_axis(store).filter(|_| stays).unwrap_or_else(|| default_axis(&shape));
        let result = Arrangement::channels(shape, axis);
        let places = view.elements();
        let mut sources = vec![0; result.store.size()];
        for ([row, channel], &element) in result.view.elements().into_iter().zip(elements) {
            let [from_row, from_channel] = *places.get(element).ok_or("an index beyond its axis")?;
            let from = u32::try_from(from_row * store.channels + from_channel);
            sources[row * result.store.channels + channel] = from.map_err(|_| "too large a value")?;
        }
        let operand = Operand { from: view.clone(), copy: None, reading: Reading::whole(store) };
        Ok(Answer::Own(Box::new(Own::new(StageOp::Rearrange { sources }, vec![operand], result))))
    }

    /// Channels side by side, along whatever axis.
    pub(super) fn concatenation(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        if axis == shape.batch {
            return Err("samples side by side".into());
        }
        let part = |&id: &usize| {
            let view = self.view(id)?;
            if view.shape.batch == shape.batch {
                Ok(self.whole_image(view, axis))
            } else {
                Err("samples along several axes".to_owned())
            }
        };
        let operands = node.inputs.iter().map(part).collect::<Result<Vec<_>, Reason>>()?;
        Ok(Answer::Own(Box::new(Own::new(
            StageOp::Concat(Vec::new()),
            operands,
            Arrangement::channels(shape, axis),
        ))))
    }
}
