//! Rewrites of the stage graph: fewer stages that compute the same.
//!
//! Each takes a stage and the only stage that reads its result. Both know their rows and channels, so that a
//! rewrite is right for any shapes that the graph gave the values.

use super::stage::{ChannelAffine, Stage, StageNorm, StageOp, Stages, StoreChannels};
use super::view::{Store, StoreId};
use crate::kernels::{ChainPart, How, RowTable};

/// Applies all rewrites.
pub(crate) fn fuse(stages: &mut Stages<'_>) {
    let (readers, writers) = (stages.readers(), stages.writers());
    let mut fusion = Fusion { readers, writers, output: stages.output, stores: &mut stages.stores };
    let mut kept: Vec<Option<Stage<'_>>> = stages.stages.drain(..).map(Some).collect();
    for index in 0..kept.len() {
        let Some(mut stage) = kept[index].take() else { continue };
        if matches!(stage.op, StageOp::Product { .. }) {
            fusion.fold_affine(index, &mut stage, &mut kept);
            fusion.add_residual(index, &mut stage, &mut kept);
        } else if matches!(stage.op, StageOp::Affine(Some(_))) {
            fusion.compose(index, &mut stage, &mut kept);
            fusion.begin_chain(index, &mut stage, &mut kept);
        }
        if matches!(stage.op, StageOp::Pointwise(_)) {
            fusion.continue_chain(index, &mut stage, &mut kept);
        }
        if matches!(stage.op, StageOp::Product { .. } | StageOp::Affine(_) | StageOp::Sum) {
            fusion.end_with_relu(index, &mut stage, &mut kept);
        }
        kept[index] = Some(stage);
    }
    for index in 0..kept.len() {
        fusion.mean_first(index, &mut kept);
    }
    stages.stages = kept.into_iter().flatten().collect();
}

/// A scale and shift that is the same for all channels, and nothing else.
fn uniform(stage: &Stage<'_>) -> Option<ChainPart> {
    let StageOp::Affine(Some(ChannelAffine { scale, shift })) = &stage.op else { return None };
    let (&first, &then) = scale.first().zip(shift.first())?;
    let alone = !stage.relu && stage.other.is_none() && stage.tensors.tensors().next().is_none();
    let same = scale.iter().all(|x| *x == first) && shift.iter().all(|x| *x == then);
    (alone && same && stage.tensors.norm.is_none()).then_some(ChainPart::Affine { scale: first, shift: then })
}

struct Fusion<'s> {
    readers: Vec<Vec<usize>>,
    writers: Vec<Option<usize>>,
    output: StoreId,
    stores: &'s mut Vec<Store>,
}

impl Fusion<'_> {
    /// The only stage that reads a store, all its channels, where the network's output is another one.
    fn sole(&self, store: StoreId, all: &[Option<Stage<'_>>]) -> Option<usize> {
        let [only] = self.readers[store][..] else { return None };
        let whole = |source: &StoreChannels| source.store != store || self.is_whole(source);
        let reader = all[only].as_ref()?;
        (store != self.output && reader.input.as_ref().is_none_or(whole)).then_some(only)
    }

    /// Whether all channels of a store are read.
    fn is_whole(&self, source: &StoreChannels) -> bool {
        source.channels == (0..self.stores[source.store].channels)
    }

    /// Takes a reader of a stage's result into the stage.
    fn absorb(&mut self, index: usize, stage: &mut Stage<'_>, reader: Stage<'_>) {
        self.writers[reader.output] = Some(index);
        stage.output = reader.output;
        stage.relu |= reader.relu;
        stage.nodes.extend(reader.nodes);
    }

    /// A scale and shift of a product's results goes into its weights.
    fn fold_affine<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        while let Some(next) = self.sole(stage.output, all)
            && let Some(Stage { op: StageOp::Affine(Some(affine)), relu: false, tensors, .. }) = &all[next]
            && let StageOp::Product { weights, bias, .. } = &mut stage.op
            && stage.tensors.norm.is_none()
        {
            let is_shift = affine.scale.iter().all(|&scale| scale == 1.0);
            let perturbed = stage.tensors.tensors().next().is_some();
            // What is added to a product is its bias; a normalisation has gamma too.
            let added = tensors.norm.as_ref().filter(|norm| is_shift && norm.gamma.is_none());
            let added = added.and_then(|norm| norm.beta);
            if let (Some(tensor), None) = (added, stage.tensors.bias) {
                stage.tensors.bias = Some(tensor);
            } else if tensors.norm.is_some() || perturbed && !is_shift {
                // What is kept apart is the product with weights as they are.
                if weights.scale.is_some() {
                    return;
                }
                // Gradients read the product's own results, or are scaled: the two are kept apart.
                let plain = || StageNorm {
                    gamma: None,
                    beta: None,
                    mean: vec![0.0; affine.shift.len()],
                    inverse: vec![1.0; affine.shift.len()],
                    affine: affine.clone(),
                };
                stage.tensors.norm = Some(tensors.norm.clone().unwrap_or_else(plain));
                weights.scale_by(&affine.scale);
                if let Some(reader) = all[next].take() {
                    self.absorb(index, stage, reader);
                }
                return;
            }
            weights.scale_by(&affine.scale);
            let ChannelAffine { scale, shift } = affine;
            bias.iter_mut().zip(scale.iter().zip(shift)).for_each(|(b, (s, t))| *b = *b * s + t);
            if let Some(reader) = all[next].take() {
                self.absorb(index, stage, reader);
            }
        }
    }

    /// Two scales and shifts one behind the other.
    fn compose<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        while let Some(next) = self.sole(stage.output, all)
            && stage.tensors.norm.is_none()
            && let Some(Stage { op: StageOp::Affine(Some(then)), tensors, .. }) = &all[next]
            && tensors.norm.is_none()
            && !stage.relu
            && let StageOp::Affine(Some(ChannelAffine { scale, shift })) = &mut stage.op
        {
            shift.iter_mut().zip(then.scale.iter().zip(&then.shift)).for_each(|(x, (s, t))| *x = *x * s + t);
            scale.iter_mut().zip(&then.scale).for_each(|(x, s)| *x *= s);
            if let Some(reader) = all[next].take() {
                self.absorb(index, stage, reader);
            }
        }
    }

    /// A scale and shift, the same for all channels, before a function of each number.
    fn begin_chain<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        if let Some(next) = self.sole(stage.output, all)
            && let Some(Stage { op: StageOp::Pointwise(then), .. }) = &all[next]
            && !then.contains(&ChainPart::Argument)
            && let Some(first) = uniform(stage)
        {
            let chain = [&[first], then.as_slice()].concat();
            if let Some(reader) = all[next].take() {
                self.absorb(index, stage, reader);
            }
            stage.op = StageOp::Pointwise(chain);
        }
    }

    /// Functions one behind the other, scales and shifts that are the same for all channels, and the product
    /// with what the chain began with.
    fn continue_chain<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        while let (StageOp::Pointwise(chain), false, Some(next)) =
            (&mut stage.op, stage.relu, self.sole(stage.output, all))
            && let Some(then) = &all[next]
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
                    // It reads the beginning no longer, which this stage does already.
                    if let Some(begun) = begun {
                        self.readers[begun].retain(|reader| *reader != next);
                    }
                }
                _ => return,
            }
            if let Some(reader) = all[next].take() {
                self.absorb(index, stage, reader);
            }
        }
    }

    /// What a product's results are added to is added by the product, if it is there before.
    fn add_residual<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        let Some(next) = self.sole(stage.output, all).filter(|_| !stage.relu) else { return };
        let Some(Stage { op: StageOp::Sum, input: Some(first), other: Some(second), .. }) = &all[next] else {
            return;
        };
        if !self.is_whole(first) {
            return;
        }
        let partner = if first.store == stage.output { *second } else { first.store };
        if self.writers[partner].is_some_and(|writer| writer >= index) {
            return;
        }
        stage.other = Some(partner);
        self.readers[partner].iter_mut().filter(|reader| **reader == next).for_each(|reader| *reader = index);
        if let Some(reader) = all[next].take() {
            self.absorb(index, stage, reader);
        }
    }

    fn end_with_relu<'g>(&mut self, index: usize, stage: &mut Stage<'g>, all: &mut [Option<Stage<'g>>]) {
        let Some(next) = self.sole(stage.output, all).filter(|_| !stage.relu) else { return };
        if let Some(reader) = all[next].take_if(|reader| reader.is_relu()) {
            self.absorb(index, stage, reader);
        }
    }

    /// Where only a mean over windows reads a product of each row by itself, takes the mean first: both are
    /// linear, one among the channels, the other among the rows, and then the product has fewer of these.
    /// (DenseNet has such a pair between its blocks.)
    fn mean_first<'g>(&mut self, index: usize, all: &mut [Option<Stage<'g>>]) {
        let Some(product) = &all[index] else { return };
        let StageOp::Product { table, weights, .. } = &product.op else { return };
        let alone = !product.relu && product.other.is_none() && product.tensors.norm.is_none();
        let Some(next) = self.sole(product.output, all).filter(|_| alone && table.is_identity()) else {
            return;
        };
        let Some(Stage { op: StageOp::Average { table: windows, shares }, input: Some(read), .. }) =
            &all[next]
        else {
            return;
        };
        // A mean of some channels alone needs the product of those alone.
        if read.channels.len() != weights.outputs {
            return;
        }
        // A share of padding would be taken from the bias.
        let is_mean = |(row, share): (usize, &f64)| {
            let read = (0..windows.taps()).filter(|&tap| windows.source(row, tap).is_some()).count();
            *share > 0.0 && (1.0 / share).round() as usize == read
        };
        let fewer = windows.rows() < windows.source_rows();
        if !fewer || !shares.iter().enumerate().all(is_mean) {
            return;
        }
        let store = Store { rows: windows.rows(), channels: weights.inputs };
        self.stores.push(store);
        let between = self.stores.len() - 1;
        self.readers.push(vec![next]);
        self.writers.push(Some(index));
        let (Some(mut product), Some(mut mean)) = (all[index].take(), all[next].take()) else { return };
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
        // Each where the other was: what the product reads is there in its place already.
        (all[index], all[next]) = (Some(mean), Some(product));
    }
}
