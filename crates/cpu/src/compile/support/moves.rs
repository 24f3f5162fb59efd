//! Operations that move elements and change none: views where digits allow it, else copies.

use influence_autodiff::graph::{Node, Origin, ValueId};
use influence_autodiff::ops::Op;

use super::rowwise::repeated_indices;
use super::{Answer, Arrangement, NewStage, Reason, StageOperand, Support, default_axis};
use crate::compile::ids::LeafId;
use crate::compile::stage::StageOp;
use crate::compile::view::{Reading, SampleShape, StoreView};
use crate::kernels::{ElementsOf, Moves};

/// A constant that is repeated to a shape, and for each element of the shape the index of the
/// constant's.
struct RepeatedConstant {
    numbers: Vec<f64>,
    indices: Vec<usize>,
    /// The perturbed tensor that it is.
    tensor: Option<LeafId>,
}

impl<'g> Support<'_, 'g> {
    pub(super) fn reshape(&self, node: &Node) -> Result<Answer<'g>, Reason> {
        let (view, shape) = (self.view(node.inputs[0])?, self.shape(node.output)?);
        if let Some(view) = view.reshape(shape.clone()) {
            return Ok(Answer::View(view));
        }
        // Elements keep their order within each sample if as many stand before the batch axis.
        let before = |shape: &SampleShape| shape.sizes[..shape.batch].iter().product::<usize>();
        if before(&view.shape) != before(&shape) || view.shape.elements() != shape.elements() {
            return Err("a reshape across the samples".into());
        }
        let elements: Vec<_> = (0..shape.elements()).map(Some).collect();
        self.moved(view, shape, &elements)
    }

    pub(super) fn permute(&self, node: &Node, axes: &[usize]) -> Result<Answer<'g>, Reason> {
        let view = self.view(node.inputs[0])?.permute(axes);
        view.map(Answer::View).ok_or_else(|| "a permutation without the batch axis".into())
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
        // A view, if each axis that is cut has one digit; else a copy.
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

    /// Picks slices at constant indices.
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
        view: &StoreView,
        from: impl Fn(usize, usize) -> usize,
    ) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        if shape.batch != view.shape.batch || shape.sizes.len() != view.shape.sizes.len() {
            return Err("axes that are added or removed".into());
        }
        let mut elements = vec![0];
        for (axis, (&to, &size)) in shape.sizes.iter().zip(&view.shape.sizes).enumerate() {
            let from = &from;
            let step = |at: usize| (0..to).map(move |i| at * size + from(axis, i));
            elements = elements.into_iter().flat_map(step).collect();
        }
        let elements: Vec<_> = elements.into_iter().map(Some).collect();
        self.moved(view, shape, &elements)
    }

    /// A copy whose elements in row-major order are the given ones of the operand, and 0 where none
    /// is given.
    fn moved(
        &self,
        view: &StoreView,
        shape: SampleShape,
        elements: &[Option<usize>],
    ) -> Result<Answer<'g>, Reason> {
        let store = self.store(view.store);
        // Channels stay where they are, if the axes do.
        let stays = shape.sizes.len() == view.shape.sizes.len();
        let axis = view.channel_axis(store).filter(|_| stays).unwrap_or_else(|| default_axis(&shape));
        let result = Arrangement::channels(shape, axis);
        let stored = view.elements();
        let mut sources = vec![Moves::NONE; result.store.size()];
        for ([row, channel], &element) in result.view.elements().into_iter().zip(elements) {
            let Some(element) = element else { continue };
            let [from_row, from_channel] = *stored.get(element).ok_or("an index beyond its axis")?;
            let from = u32::try_from(from_row * store.channels + from_channel);
            sources[row * result.store.channels + channel] = from.map_err(|_| "too large a value")?;
        }
        let operand = StageOperand { from: view.clone(), copy: None, reading: Reading::whole(store) };
        Ok(Answer::Stage(Box::new(NewStage::new(
            StageOp::Rearrange { sources, fill: None },
            vec![operand],
            result,
        ))))
    }

    /// One value that depends on the input, and constants beside it: its elements are moved, and
    /// the constants fill the rest.
    fn beside_constants(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        let live: Vec<_> = node.inputs.iter().filter(|&&id| self.depends(id)).collect();
        let [&live] = live[..] else { return Err("constants beside several values".into()) };
        let (inner, outer) = (shape.sizes[axis + 1..].iter().product::<usize>(), shape.sizes[axis]);
        let (mut elements, mut constants) = (vec![None; shape.elements()], vec![0.0; shape.elements()]);
        let mut perturbed: Vec<(LeafId, ElementsOf)> = Vec::new();
        let mut before = 0;
        for &id in &node.inputs {
            let own = self.shape(id)?;
            let width = own.sizes[axis];
            let first = before;
            // Where an element of this part is in the result: the same index above the axis, and
            // along the axis after the parts before it.
            let joined = |at: usize| {
                let (above, rest) = (at / (width * inner), at % (width * inner));
                (above * outer + first) * inner + rest
            };
            before += width;
            if id == live {
                (0..own.elements()).for_each(|at| elements[joined(at)] = Some(at));
                continue;
            }
            let RepeatedConstant { numbers, indices, tensor } = self.repeated_constant(id, &own)?;
            for (at, &index) in indices.iter().enumerate() {
                constants[joined(at)] = *numbers.get(index).ok_or("a constant that does not line up")?;
            }
            let Some(tensor) = tensor else { continue };
            // (One that is here twice runs in a segment, where its gradients are added.)
            let mut of =
                ElementsOf { count: numbers.len(), indices: vec![ElementsOf::NONE; shape.elements()] };
            indices.iter().enumerate().for_each(|(at, &index)| of.indices[joined(at)] = index as u32);
            perturbed.push((tensor, of));
        }
        let Answer::Stage(mut own) = self.moved(self.view(live)?, shape, &elements)? else {
            return Err("a value that is not moved".into());
        };
        if let StageOp::Rearrange { fill, .. } = &mut own.op {
            *fill = Some(own.result.stored(&constants));
        }
        let stored = |(tensor, of): (LeafId, ElementsOf)| {
            let indices = own.result.stored(&of.indices);
            (tensor, ElementsOf { indices, ..of })
        };
        own.tensors.elements = perturbed.into_iter().map(stored).collect();
        Ok(Answer::Stage(own))
    }

    /// A constant for one sample, which may be repeated for each.
    fn repeated_constant(&self, id: ValueId, shape: &SampleShape) -> Result<RepeatedConstant, Reason> {
        let (from, sizes) = match self.graph.values()[id].origin {
            Origin::Node(at) if matches!(self.graph.nodes()[at].op, Op::Expand(_)) => {
                let from = self.graph.nodes()[at].inputs[0];
                (from, self.graph.values()[from].shape_at(1))
            }
            _ => (id, self.graph.values()[id].shape_at(1)),
        };
        self.perturbed.direct(self.graph, from)?;
        let unknown = "a constant that is not known";
        let numbers = self.constants.numbers(from).ok_or(unknown)?.to_vec();
        let missing = shape.sizes.len().checked_sub(sizes.len()).ok_or(unknown)?;
        let sizes = [vec![1; missing], sizes].concat();
        let indices = repeated_indices(&shape.sizes, &sizes).ok_or(unknown)?;
        Ok(RepeatedConstant { numbers, indices, tensor: self.perturbed.tensor(self.graph, from) })
    }

    /// Channels side by side, along whatever axis.
    pub(super) fn concatenation(&self, node: &Node, axis: usize) -> Result<Answer<'g>, Reason> {
        let shape = self.shape(node.output)?;
        if axis == shape.batch {
            return Err("samples side by side".into());
        }
        if node.inputs.iter().any(|&id| !self.depends(id)) {
            return self.beside_constants(node, axis);
        }
        let part = |&id: &ValueId| {
            let view = self.view(id)?;
            if view.shape.batch == shape.batch {
                Ok(self.whole_image(view, axis))
            } else {
                Err("samples along several axes".to_owned())
            }
        };
        let operands = node.inputs.iter().map(part).collect::<Result<Vec<_>, Reason>>()?;
        Ok(Answer::Stage(Box::new(NewStage::new(
            StageOp::Concat(Vec::new()),
            operands,
            Arrangement::channels(shape, axis),
        ))))
    }
}
