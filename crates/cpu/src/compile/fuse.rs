//! Rewrites of the stage graph: fewer stages that compute the same.
//!
//! Each takes a stage and the only stage that reads its result, and makes one of the two. Both know
//! their rows and channels, so that a rewrite is right for any shapes that the graph gave the
//! values:
//!
//! | rewrite | of a stage | and its only reader |
//! |---|---|---|
//! | `fold_affine` | product | a scale and shift of each channel: into weights and bias |
//! | `add_residual` | product | a sum: the other summand is added before the ReLU |
//! | `compose` | scale and shift | another scale and shift |
//! | `begin_chain` | scale and shift, the same for all channels | a chain of functions |
//! | `continue_chain` | chain of functions | another, or a product with the chain's argument |
//! | `end_with_relu` | product, scale and shift, or sum | a ReLU |
//! | `mean_first` | product over one tap (1 x 1) | a mean over windows: they change order |

use super::ids::{StageId, StoreId};
use super::stage::{ChannelAffine, Stage, StageNorm, StageOp, Stages, StoreChannels};
use super::view::Store;
use crate::kernels::{ChainPart, How, RowTable, Shares};

/// The stages under rewriting, by [`StageId`]; none where a stage has been absorbed by another.
type Slots<'g> = [Option<Stage<'g>>];

/// Applies all rewrites.
pub(crate) fn fuse(stages: &mut Stages<'_>) {
    let (readers, writers) = (stages.readers(), stages.writers());
    let mut fusion = Fusion { readers, writers, output: stages.output, stores: &mut stages.stores };
    let mut all: Vec<Option<Stage<'_>>> = stages.stages.drain(..).map(Some).collect();
    for id in (0..all.len()).map(StageId) {
        let Some(mut stage) = all[id.index()].take() else { continue };
        fusion.rewrite(id, &mut stage, &mut all);
        all[id.index()] = Some(stage);
    }
    // Only now, since it moves stages: all others change one where it stands.
    for id in (0..all.len()).map(StageId) {
        fusion.mean_first(id, &mut all);
    }
    stages.stages = all.into_iter().flatten().collect();
}

/// A scale and shift that is the same for all channels, and nothing else.
fn uniform(stage: &Stage<'_>) -> Option<ChainPart> {
    let StageOp::Affine(Some(ChannelAffine { scale, shift })) = &stage.op else { return None };
    let (&first, &then) = scale.first().zip(shift.first())?;
    let alone = !stage.relu && stage.other.is_none() && stage.tensors.all().next().is_none();
    let same = scale.iter().all(|x| *x == first) && shift.iter().all(|x| *x == then);
    (alone && same && stage.tensors.norm.is_none()).then_some(ChainPart::Affine { scale: first, shift: then })
}

/// What the rewrites know of the graph's edges, kept up to date as stages absorb one another.
struct Fusion<'s> {
    /// The stages that read each store, once for each operand: by [`StoreId`].
    readers: Vec<Vec<StageId>>,
    /// The stage that writes each store, by [`StoreId`].
    writers: Vec<Option<StageId>>,
    output: StoreId,
    stores: &'s mut Vec<Store>,
}

impl Fusion<'_> {
    /// All rewrites of one stage that leave it where it stands. The order matters: a ReLU ends a
    /// stage, so it is looked for last.
    fn rewrite<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        if matches!(stage.op, StageOp::Product { .. }) {
            self.fold_affine(id, stage, all);
            self.add_residual(id, stage, all);
        } else if matches!(stage.op, StageOp::Affine(Some(_))) {
            self.compose(id, stage, all);
            self.begin_chain(id, stage, all);
        }
        if matches!(stage.op, StageOp::Pointwise(_)) {
            self.continue_chain(id, stage, all);
        }
        if matches!(stage.op, StageOp::Product { .. } | StageOp::Affine(_) | StageOp::Sum) {
            self.end_with_relu(id, stage, all);
        }
    }

    /// The only stage that reads a store, and reads all its channels; none where the store is the
    /// network's output, which has to stay as it is.
    fn sole_reader(&self, store: StoreId, all: &Slots<'_>) -> Option<StageId> {
        let [only] = self.readers[store.index()][..] else { return None };
        let whole = |source: &StoreChannels| source.store != store || self.is_whole(source);
        let reader = all[only.index()].as_ref()?;
        (store != self.output && reader.input.as_ref().is_none_or(whole)).then_some(only)
    }

    /// Whether all channels of a store are read.
    fn is_whole(&self, source: &StoreChannels) -> bool {
        source.channels == (0..self.stores[source.store.index()].channels)
    }

    /// Takes a reader of a stage's result into the stage, which then has the reader's result.
    fn absorb<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, reader: StageId, all: &mut Slots<'g>) {
        let Some(reader) = all[reader.index()].take() else { return };
        self.writers[reader.output.index()] = Some(id);
        stage.output = reader.output;
        stage.relu |= reader.relu;
        stage.nodes.extend(reader.nodes);
    }

    /// Takes a scale and shift of a product's results into its weights and bias.
    fn fold_affine<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        while let Some(next) = self.sole_reader(stage.output, all)
            && let Some(Stage { op: StageOp::Affine(Some(affine)), relu: false, tensors, .. }) =
                &all[next.index()]
            && let StageOp::Product { weights, bias, .. } = &mut stage.op
            && stage.tensors.norm.is_none()
        {
            let is_shift = affine.scale.iter().all(|&scale| scale == 1.0);
            let perturbed = stage.tensors.all().next().is_some();
            // A perturbed tensor that is only added is the product's bias, if it has no other. (A
            // normalisation with gamma is more than a shift, whatever the value of its scale.)
            let added = tensors.norm.as_ref().filter(|norm| is_shift && norm.gamma.is_none());
            let added = added.and_then(|norm| norm.beta);
            if let (Some(tensor), None) = (added, stage.tensors.bias) {
                stage.tensors.bias = Some(tensor);
            } else if tensors.norm.is_some() || perturbed && !is_shift {
                // Gradients read the product's own results, or are scaled: the product and what
                // follows it are kept apart within the stage. That can be done once, and only for a
                // product whose weights are still those of the graph.
                if weights.scale.is_some() {
                    return;
                }
                let norm = tensors.norm.clone().unwrap_or_else(|| StageNorm::constant(affine.clone()));
                stage.tensors.norm = Some(norm);
                weights.scale_by(&affine.scale);
                return self.absorb(id, stage, next, all);
            }
            weights.scale_by(&affine.scale);
            let ChannelAffine { scale, shift } = affine;
            bias.iter_mut().zip(scale.iter().zip(shift)).for_each(|(b, (s, t))| *b = *b * s + t);
            self.absorb(id, stage, next, all);
        }
    }

    /// Makes one of two scales and shifts that follow one another.
    fn compose<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        while let Some(next) = self.sole_reader(stage.output, all)
            && stage.tensors.norm.is_none()
            && let Some(Stage { op: StageOp::Affine(Some(then)), tensors, .. }) = &all[next.index()]
            && tensors.norm.is_none()
            && !stage.relu
            && let StageOp::Affine(Some(ChannelAffine { scale, shift })) = &mut stage.op
        {
            shift.iter_mut().zip(then.scale.iter().zip(&then.shift)).for_each(|(x, (s, t))| *x = *x * s + t);
            scale.iter_mut().zip(&then.scale).for_each(|(x, s)| *x *= s);
            self.absorb(id, stage, next, all);
        }
    }

    /// Takes a scale and shift, the same for all channels, into the chain of functions that follows
    /// it.
    fn begin_chain<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        if let Some(next) = self.sole_reader(stage.output, all)
            && let Some(Stage { op: StageOp::Pointwise(then), .. }) = &all[next.index()]
            // The argument of that chain is what comes out of the scale and shift, not what goes
            // in.
            && !then.contains(&ChainPart::Argument)
            && let Some(first) = uniform(stage)
        {
            let chain = [&[first], then.as_slice()].concat();
            self.absorb(id, stage, next, all);
            stage.op = StageOp::Pointwise(chain);
        }
    }

    /// Takes into a chain the functions that follow it, scales and shifts that are the same for all
    /// channels, and the product with what the chain began with (x sigmoid(x), say).
    fn continue_chain<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        while let (StageOp::Pointwise(chain), false, Some(next)) =
            (&mut stage.op, stage.relu, self.sole_reader(stage.output, all))
            && let Some(then) = &all[next.index()]
        {
            let begun =
                stage.input.as_ref().filter(|source| self.is_whole(source)).map(|source| source.store);
            let read = [then.input.as_ref().map(|source| source.store), then.other];
            match &then.op {
                StageOp::Pointwise(then) if !then.contains(&ChainPart::Argument) => chain.extend(then),
                StageOp::Affine(Some(_)) => match uniform(then) {
                    Some(part) => chain.push(part),
                    None => return,
                },
                StageOp::Combine { how: How::Product, repeat }
                    if repeat.is_plain() && begun.is_some() && read.contains(&begun) =>
                {
                    chain.push(ChainPart::Argument);
                    // The product is no longer a reader of the argument: the chain reads it.
                    if let Some(begun) = begun {
                        self.readers[begun.index()].retain(|reader| *reader != next);
                    }
                }
                _ => return,
            }
            self.absorb(id, stage, next, all);
        }
    }

    /// A sum of a product's results and another value is taken by the product, if the other value
    /// is computed before it.
    fn add_residual<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        let Some(next) = self.sole_reader(stage.output, all).filter(|_| !stage.relu) else { return };
        let Some(Stage { op: StageOp::Sum, input: Some(first), other: Some(second), .. }) =
            &all[next.index()]
        else {
            return;
        };
        if !self.is_whole(first) {
            return;
        }
        let partner = if first.store == stage.output { *second } else { first.store };
        if self.writers[partner.index()].is_some_and(|writer| writer >= id) {
            return;
        }
        stage.other = Some(partner);
        let readers = self.readers[partner.index()].iter_mut();
        readers.filter(|reader| **reader == next).for_each(|reader| *reader = id);
        self.absorb(id, stage, next, all);
    }

    fn end_with_relu<'g>(&mut self, id: StageId, stage: &mut Stage<'g>, all: &mut Slots<'g>) {
        let Some(next) = self.sole_reader(stage.output, all).filter(|_| !stage.relu) else { return };
        if all[next.index()].as_ref().is_some_and(Stage::is_relu) {
            self.absorb(id, stage, next, all);
        }
    }

    /// Takes the mean first, where only a mean over windows reads a 1 x 1 convolution. Both are
    /// linear, one over channels and the other over rows, and the product then has fewer rows.
    /// (DenseNet has such a pair between its blocks.)
    fn mean_first<'g>(&mut self, id: StageId, all: &mut Slots<'g>) {
        let Some((next, store)) = self.mean_behind(id, all) else { return };
        self.stores.push(store);
        let between = StoreId(self.stores.len() - 1);
        self.readers.push(vec![next]);
        self.writers.push(Some(id));
        let (Some(mut product), Some(mut mean)) = (all[id.index()].take(), all[next.index()].take()) else {
            return;
        };
        // x -> product -> mean -> y becomes x -> mean -> product -> y, with a store of its own
        // between.
        (mean.input, product.input) = (product.input, mean.input);
        product.output = mean.output;
        mean.output = between;
        if let Some(source) = &mut product.input {
            source.store = between;
            source.channels = 0..store.channels;
        }
        if let StageOp::Product { table, .. } = &mut product.op {
            *table = RowTable::identity(store.rows);
        }
        // They exchange their turns, so that what the product reads is computed before it.
        (all[id.index()], all[next.index()]) = (Some(mean), Some(product));
    }

    /// The mean over windows that is the only reader of a 1 x 1 convolution, if they may change
    /// their order and that leaves fewer rows; and the store between them if they do.
    fn mean_behind(&self, id: StageId, all: &Slots<'_>) -> Option<(StageId, Store)> {
        let product = all[id.index()].as_ref()?;
        let StageOp::Product { table, weights, .. } = &product.op else { return None };
        if product.relu || product.other.is_some() || product.tensors.norm.is_some() || !table.is_identity() {
            return None;
        }
        let next = self.sole_reader(product.output, all)?;
        let Some(Stage {
            op: StageOp::Average { table: windows, shares: Shares::Rows(shares) },
            input: Some(read),
            ..
        }) = &all[next.index()]
        else {
            return None;
        };
        // A mean of only some channels would need the product of only those.
        if read.channels.len() != weights.outputs {
            return None;
        }
        // The shares of a window have to add up to 1, or the bias after the mean would count for
        // more than it did before: an average that counts its padding is no such mean.
        let is_mean = |(row, share): (usize, &f64)| {
            let read = (0..windows.taps()).filter(|&tap| windows.source(row, tap).is_some()).count();
            *share > 0.0 && (1.0 / share).round() as usize == read
        };
        let fewer = windows.rows() < windows.source_rows();
        let store = Store { rows: windows.rows(), channels: weights.inputs };
        (fewer && shares.iter().enumerate().all(is_mean)).then_some((next, store))
    }
}
