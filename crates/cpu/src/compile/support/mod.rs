//! Which nodes have kernels of ours, and which kernels: a pure function of the graph and of where
//! the operands lie, which is called before anything is built.
//!
//! [`Support::node`] answers with another view of the same store ([`Answer::View`]), with one stage
//! and the form in which it takes its operands ([`Answer::Stage`]), or with the reason why the node
//! runs on Burn's operations. Whatever is answered can be built: an operand that does not lie in
//! the form that is asked for is copied into it. Adding an operation to our kernels is an arm of
//! [`Support::node`] and a function beside it.

mod combine;
mod matrices;
mod moves;
mod pointwise;
mod product;
mod rowwise;
mod window;
mod within;

use influence_autodiff::graph::{Graph, Kind, Node, ValueId};
use influence_autodiff::ops::Op;

use super::constants::Constants;
use super::ids::StoreId;
use super::perturbed::Perturbed;
use super::stage::{StageOp, StageTensors};
use super::view::{Reading, SampleShape, Store, StoreView};
use crate::kernels::{Active, Repetition};

/// Why a node does not run on our kernels.
pub(crate) type Reason = String;

/// What becomes of a node.
#[derive(Debug)]
pub(crate) enum Answer<'g> {
    /// Its result is another view of its operand's store.
    View(StoreView),
    /// One stage.
    Stage(Box<NewStage<'g>>),
}

/// A stage that is not added yet.
#[derive(Debug)]
pub(crate) struct NewStage<'g> {
    pub(crate) op: StageOp<'g>,
    /// What it reads; for a concatenation, its parts.
    pub(crate) operands: Vec<StageOperand>,
    /// The size and the arrangement of its result.
    pub(crate) result: Arrangement,
    pub(crate) relu: bool,
    pub(crate) tensors: StageTensors,
}

/// A store of some size and a view that fills it; the view's own store is not known yet.
#[derive(Debug, Clone)]
pub(crate) struct Arrangement {
    pub(crate) store: Store,
    pub(crate) view: StoreView,
}

/// How a stage takes an operand.
#[derive(Debug, Clone)]
pub(crate) struct StageOperand {
    /// The operand as it lies.
    pub(crate) from: StoreView,
    /// The copy that it has to be, where it does not lie as it must.
    pub(crate) copy: Option<Arrangement>,
    /// What is read of the copy, or in place.
    pub(crate) reading: Reading,
}

/// The store of an arrangement, which has no index yet.
const UNKNOWN: StoreId = StoreId(usize::MAX);

impl Arrangement {
    /// A value with its channels along one axis.
    pub(crate) fn channels(shape: SampleShape, axis: usize) -> Self {
        Self { store: shape.store(axis), view: StoreView::new(UNKNOWN, shape, axis) }
    }

    /// The elements of its value, in row-major order, row by row as they are stored.
    fn stored<E: Copy + Default>(&self, elements: &[E]) -> Vec<E> {
        let mut stored = vec![E::default(); self.store.size()];
        for ([row, channel], element) in self.view.elements().into_iter().zip(elements) {
            stored[row * self.store.channels + channel] = *element;
        }
        stored
    }

    /// The arrangement of another value, which fills its store.
    fn like(view: &StoreView, store: Store) -> Self {
        Self { store, view: view.at(UNKNOWN) }
    }
}

/// The graph, and where the values before a node lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Support<'a, 'g> {
    pub(crate) graph: &'g Graph,
    pub(crate) constants: &'g Constants<'g>,
    pub(crate) perturbed: &'a Perturbed,
    /// Indexed by [`StoreId`].
    pub(crate) stores: &'a [Store],
    /// The views of the values that depend on the input, where they are stored: by [`ValueId`].
    pub(crate) views: &'a [Option<StoreView>],
}

impl<'g> Support<'_, 'g> {
    /// What becomes of a node that depends on the input.
    ///
    /// # Errors
    /// Why it runs on Burn's operations.
    pub(crate) fn node(&self, index: usize) -> Result<Answer<'g>, Reason> {
        let graph = self.graph;
        let node = &graph.nodes()[index];
        // Our kernels compute floats only: the masks of ReLUs are no values of the graph.
        if graph.values()[node.output].kind != Kind::Float {
            return Err("a mask that depends on the input".into());
        }
        let answer = match &node.op {
            Op::Conv2d(conv) => self.convolution(node, conv)?,
            Op::Conv1d(conv) => self.convolution(node, &conv.0)?,
            Op::ConvTranspose2d(conv) => self.transposed(node, conv)?,
            Op::ConvTranspose1d(conv) => self.transposed(node, &conv.0)?,
            Op::Linear(_) => self.linear(node)?,
            Op::Matmul(_) => self.matmul(node)?,
            Op::BatchNorm(norm) => self.batch_norm(node, norm)?,
            Op::Relu(_) => self.relu(node)?,
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Div(_) => self.arithmetic(node)?,
            Op::AddScalar(op) => self.scalar(node, [1.0, op.value])?,
            Op::MulScalar(op) => self.scalar(node, [op.value, 0.0])?,
            Op::DivScalar(op) => self.scalar(node, [1.0 / op.value, 0.0])?,
            Op::Cat(cat) => self.concatenation(node, cat.axis)?,
            Op::Reshape(_) => self.reshape(node)?,
            Op::Cast(_) => Answer::View(self.view(node.inputs[0])?.clone()),
            Op::Permute(permute) => self.permute(node, &permute.axes)?,
            Op::Slice(slice) => self.slice(node, &slice.ranges)?,
            Op::Expand(_) => self.expand(node)?,
            Op::Flip(flip) => self.flip(node, &flip.axes)?,
            Op::Repeat(repeat) => self.repeat(node, repeat.axis)?,
            Op::Select(select) => self.select(node, select.axis)?,
            Op::MaxPool2d(_) | Op::MaxPool1d(_) => self.maximum(node)?,
            Op::AvgPool2d(_) | Op::AvgPool1d(_) | Op::AdaptiveAvgPool2d(_) | Op::AdaptiveAvgPool1d(_) => {
                self.average(node)?
            }
            Op::Interpolate(op) => self.interpolation(node, op)?,
            Op::Mean(mean) => self.reduction(node, &mean.axes, true)?,
            Op::Sum(sum) => self.reduction(node, &sum.axes, false)?,
            Op::Softmax(softmax) => self.softmax(node, softmax.axis)?,
            Op::LayerNorm(norm) => self.layer_norm(node, norm)?,
            // All others are functions of one variable, or have no kernel.
            _ => self.pointwise(node)?,
        };
        if let Answer::Stage(own) = &answer {
            own.check()?;
        }
        Ok(answer)
    }

    /// The size of a store.
    fn store(&self, id: StoreId) -> Store {
        self.stores[id.index()]
    }

    fn view(&self, id: ValueId) -> Result<&StoreView, Reason> {
        self.views[id].as_ref().ok_or_else(|| "an operand that is not stored here".into())
    }

    fn shape(&self, id: ValueId) -> Result<SampleShape, Reason> {
        SampleShape::of(self.graph, id).ok_or_else(|| "a shape without a batch axis of its own".into())
    }

    fn depends(&self, id: ValueId) -> bool {
        self.constants.depends(id)
    }

    /// The shape of a node's result, samples first.
    fn samples_first(&self, node: &Node) -> Result<SampleShape, Reason> {
        let shape = self.shape(node.output)?;
        if shape.batch == 0 { Ok(shape) } else { Err("samples along another axis than the first".into()) }
    }

    /// An operand with its channels along one axis, read where it lies if it lies so.
    fn image(&self, view: &StoreView, axis: usize) -> StageOperand {
        match view.reading(axis) {
            Some(reading) => StageOperand { from: view.clone(), copy: None, reading },
            None => Self::copied(view, Arrangement::channels(view.shape.clone(), axis)),
        }
    }

    /// As [`Self::image`], but with all rows and channels of a store.
    fn whole_image(&self, view: &StoreView, axis: usize) -> StageOperand {
        let operand = self.image(view, axis);
        if operand.copy.is_some() || operand.reading.is_whole(self.store(view.store)) {
            return operand;
        }
        Self::copied(view, Arrangement::channels(view.shape.clone(), axis))
    }

    /// An operand whose elements may lie in any order, as long as they fill neighbouring channels
    /// of their store; and its arrangement.
    fn whole(&self, view: &StoreView) -> (StageOperand, Arrangement) {
        let store = self.store(view.store);
        // As it lies, if it is all of its store.
        if view.covers(store) {
            let reading = Reading::whole(store);
            return (
                StageOperand { from: view.clone(), copy: None, reading },
                Arrangement::like(view, store),
            );
        }
        // Else in place, if the value's rows are the store's and its channels are neighbours there;
        // or a copy.
        let arrangement = natural(view, store);
        let operand = match combine::repeat(view, store, &arrangement) {
            Some(Repetition { rows: None, first, single: false }) => {
                let rows = (0..store.rows).collect();
                let reading = Reading { channels: first..first + arrangement.store.channels, rows };
                StageOperand { from: view.clone(), copy: None, reading }
            }
            _ => Self::copied(view, arrangement.clone()),
        };
        (operand, arrangement)
    }

    /// An operand in the arrangement of another.
    fn arranged(&self, view: &StoreView, arrangement: &Arrangement) -> StageOperand {
        let store = self.store(view.store);
        if store == arrangement.store && view.is_like(&arrangement.view) {
            return StageOperand { from: view.clone(), copy: None, reading: Reading::whole(store) };
        }
        Self::copied(view, arrangement.clone())
    }

    fn copied(view: &StoreView, arrangement: Arrangement) -> StageOperand {
        let reading = Reading::whole(arrangement.store);
        StageOperand { from: view.clone(), copy: Some(arrangement), reading }
    }
}

/// The arrangement of a value when it is copied: its channels along the axes where they are
/// already, or along the usual one.
fn natural(view: &StoreView, store: Store) -> Arrangement {
    let shape = view.shape.clone();
    let axes = (0..shape.sizes.len()).filter(|&axis| axis != shape.batch);
    let along: Vec<usize> = axes.filter(|&axis| view.is_along_channels(axis)).collect();
    let channels: usize = along.iter().map(|&axis| shape.sizes[axis]).product();
    // The heads of an attention, for example: several axes lie along the channels, and stay there.
    if along.len() > 1 && channels <= Active::MOST_CHANNELS {
        let view = StoreView::of(UNKNOWN, shape.clone(), &along);
        return Arrangement { store: shape.store_of(&along), view };
    }
    let axis = view.channel_axis(store).unwrap_or_else(|| default_axis(&shape));
    Arrangement::channels(shape, axis)
}

/// The second axis, where images have their channels, if a row can have as many; else the batch
/// axis, so that a sample is rows of one element.
pub(crate) fn default_axis(shape: &SampleShape) -> usize {
    let fits = |axis: &usize| shape.sizes[*axis] <= Active::MOST_CHANNELS;
    let others = (0..shape.sizes.len()).filter(|&axis| axis != shape.batch);
    others.min_by_key(|&axis| axis.abs_diff(1)).filter(fits).unwrap_or(shape.batch)
}

impl<'g> NewStage<'g> {
    fn new(op: StageOp<'g>, operands: Vec<StageOperand>, result: Arrangement) -> Self {
        Self { op, operands, result, relu: false, tensors: StageTensors::default() }
    }

    /// Refuses values that are too large: lists name the channels of a row in 16 bits, copies the
    /// elements of a store in 32.
    fn check(&self) -> Result<(), Reason> {
        let copies = self.operands.iter().filter_map(|operand| operand.copy.as_ref());
        for arrangement in copies.chain([&self.result]) {
            let Store { channels, .. } = arrangement.store;
            if channels > Active::MOST_CHANNELS || u32::try_from(arrangement.store.size()).is_err() {
                return Err(format!("{channels} channels in a row, at most {}", Active::MOST_CHANNELS));
            }
        }
        Ok(())
    }
}
