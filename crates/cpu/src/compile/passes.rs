//! What is done to the stages once all are there: pools before convolutions, live positions, Winograd's form.

use influence_kernels::{Element, Table};

use super::compile::Compiler;
use super::stages::{Map, StageKind, View};
use super::weights::FEW_CHANNELS;

impl<T: Element> Compiler<'_, T> {
    /// Where only a mean over windows reads a convolution of each position by itself, takes the mean first: both are linear, one among the
    /// channels, the other among the positions, and then the convolution has fewer of these. (DenseNet has such a pair between its blocks.)
    pub(super) fn pool_first(&mut self) {
        for product in 0..self.stages.len() {
            if let Some(mean) = self.mean_behind(product) {
                self.exchange(product, mean);
            }
        }
    }

    /// The mean with which a product can change places.
    fn mean_behind(&self, product: usize) -> Option<usize> {
        let (stage, result) = (&self.stages[product], self.between[product].output?);
        let StageKind::Product { table, .. } = &stage.kind else { return None };
        let alone = stage.relu.is_none() && stage.other.is_none() && stage.kept_product().is_none();
        if !alone || self.is_concatenated(result) || !table.is_identity() {
            return None;
        }
        self.reader(result)?;
        let root = |id| self.uses.root(id);
        let mean = self.between.iter().position(|between| root(between.input) == root(result))?;
        let StageKind::Average { table, shares } = &self.stages[mean].kind else { return None };
        // A share of padding would be taken from the bias.
        let is_mean = |row: usize, share: &T| {
            let read = (0..table.taps()).filter(|&tap| table.source(row, tap).is_some()).count();
            (1.0 / share.to_f64()).round() as usize == read
        };
        let whole = shares.iter().enumerate().all(|(row, share)| is_mean(row, share));
        (whole && table.rows() < table.source_rows()).then_some(mean)
    }

    /// A product of the results of a mean instead of a mean of the results of the product, which comes first.
    fn exchange(&mut self, product: usize, mean: usize) {
        let Some(result) = self.between[product].output.map(|id| self.uses.root(id)) else { return };
        let (before, after) = (self.stages[product].input, self.stages[mean].output);
        let positions = self.maps[after.map].positions;
        let between = View { offset: 0, channels: before.channels, ..self.stages[product].output };
        self.maps[between.map] = Map { positions, pitch: before.channels, live: Vec::new() };
        self.views.insert(result, between);
        self.weights.swap(product, mean);
        self.stages.swap(product, mean);
        (self.stages[product].input, self.stages[product].output) = (before, between);
        (self.stages[mean].input, self.stages[mean].output) = (between, after);
        if let StageKind::Product { table, .. } = &mut self.stages[mean].kind {
            *table = Table::identity(positions);
        }
    }

    /// Takes Winograd's form where it pays, and where all positions are computed: a patch mixes all that it reads.
    pub(super) fn patch(&mut self) {
        for (stage, weights) in self.stages.iter_mut().zip(&self.weights) {
            let all = |view: View| self.maps[view.map].live.len() == self.maps[view.map].positions;
            let (alone, Some(weights)) = (stage.kept_product().is_some(), weights) else { continue };
            if !(all(stage.input) && all(stage.output)) {
                continue;
            }
            if let (Some(trainable), Some(neighbours)) = (&mut stage.trainable, weights.neighbours)
                && weights.inputs >= FEW_CHANNELS
            {
                trainable.patches = Some(neighbours.gradient());
            }
            let StageKind::Product { patches, panels, .. } = &mut stage.kind else { continue };
            let weights = if alone { weights.unscaled() } else { weights.clone() };
            if let Some((own, packed)) = weights.patched() {
                (*patches, *panels) = (Some(own), packed);
            }
        }
    }

    /// Which positions of each map are read, from the output backwards.
    pub(super) fn mark_live(&mut self, output: View) {
        let mut live: Vec<Vec<bool>> = self.maps.iter().map(|map| vec![false; map.positions]).collect();
        live[output.map].fill(true);
        for stage in self.stages.iter().rev() {
            let rows: Vec<_> =
                (0..live[stage.output.map].len()).filter(|&p| live[stage.output.map][p]).collect();
            for row in rows {
                match &stage.kind {
                    StageKind::Product { table, .. }
                    | StageKind::Channelwise { table, .. }
                    | StageKind::Average { table, .. }
                    | StageKind::Maximum { table, .. } => {
                        for source in (0..table.taps()).filter_map(|tap| table.source(row, tap)) {
                            live[stage.input.map][source] = true;
                        }
                    }
                    StageKind::Affine(_) | StageKind::Sum => live[stage.input.map][row] = true,
                }
                let norm = stage.trainable.as_ref().and_then(|trainable| trainable.norm.as_ref());
                for view in stage.other.into_iter().chain(norm.map(|norm| norm.rows)) {
                    live[view.map][row] = true;
                }
            }
        }
        for (map, live) in self.maps.iter_mut().zip(live) {
            map.live = (0..live.len()).filter(|&position| live[position]).collect();
        }
    }
}
