//! From stages to kernel calls: buffers, packed weights, rows that are read, Winograd's form.

use influence_autodiff::graph::{Graph, ValueId};

use super::nesting::Nesting;
use super::perturbed::Perturbed;
use super::program::{
    Compiled, CompiledSegment, Edge, Kernel, KernelKind, KernelNorm, KernelTensors, MapView, MaskId,
    ReverseStep, RowMap, ShownValue,
};
use super::stage::{
    ChannelAffine, Stage, StageNorm, StageOp, StageSegment, StageTensors, Stages, StoreChannels,
};
use super::view::StoreId;
use super::weights::{FEW_CHANNELS, ProductWeights};
use crate::kernels::{How, Moves, SimdFloat};

/// The stores between which a kernel stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelStores {
    pub(crate) input: Option<StoreChannels>,
    pub(crate) other: Option<StoreId>,
    /// Its result; none for a copy into a concatenation, and for a segment.
    pub(crate) output: Option<StoreId>,
}

/// The kernel calls so far, and what each was made of.
pub(crate) struct ProgramBuilder<'g, T> {
    graph: &'g Graph,
    pub(crate) stages: Stages<'g>,
    pub(crate) nesting: Nesting,
    perturbed: &'g Perturbed,
    maps: Vec<RowMap>,
    /// Where each store lies; none for one that a rewrite has done away with.
    views: Vec<Option<MapView>>,
    pub(crate) kernels: Vec<Kernel<T>>,
    pub(crate) between: Vec<KernelStores>,
    /// The weights of each kernel that has some.
    pub(crate) weights: Vec<Option<Box<ProductWeights<'g>>>>,
    /// The masks of the results of ReLUs, by store.
    pub(crate) mask_of: Vec<Option<MaskId>>,
    masks: Vec<MapView>,
    choices: usize,
    pub(crate) segments: Vec<CompiledSegment>,
    shown: Vec<ShownValue>,
    /// Whether a store is on the edge of a segment.
    pub(crate) on_segment: Vec<bool>,
    /// Whether a store is on the edge of a segment, or of a kernel, which takes and gives dense cotangents.
    pub(crate) is_dense: Vec<bool>,
}

impl<'g, T: SimdFloat> ProgramBuilder<'g, T> {
    pub(crate) fn new(
        graph: &'g Graph,
        mut stages: Stages<'g>,
        nesting: Nesting,
        perturbed: &'g Perturbed,
    ) -> Self {
        let all = std::mem::take(&mut stages.stages);
        let count = stages.stores.len();
        let mut this = Self {
            graph,
            stages,
            nesting,
            perturbed,
            maps: Vec::new(),
            views: vec![None; count],
            kernels: Vec::new(),
            between: Vec::new(),
            weights: Vec::new(),
            mask_of: vec![None; count],
            masks: Vec::new(),
            choices: 0,
            segments: Vec::new(),
            shown: Vec::new(),
            on_segment: vec![false; count],
            is_dense: vec![false; count],
        };
        this.reserve(this.stages.input);
        all.into_iter().for_each(|stage| this.stage(stage));
        this.mark_live();
        this.patch();
        this
    }

    pub(crate) fn finish(self, steps: Vec<ReverseStep<T>>) -> Compiled<T> {
        let (input, output) = (self.view(self.stages.input), self.view(self.stages.output));
        let perturbs_parameters = self.perturbs_parameters();
        let Self { maps, kernels, masks, choices, segments, shown, .. } = self;
        Compiled { maps, kernels, steps, masks, choices, segments, shown, input, output, perturbs_parameters }
    }

    /// Whether parameters are perturbed.
    pub(crate) fn perturbs_parameters(&self) -> bool {
        self.perturbed.tensors().next().is_some()
    }

    /// Where a store lies.
    pub(crate) fn view(&self, store: StoreId) -> MapView {
        self.views[store].unwrap_or_else(|| unreachable!("a store is written before it is read"))
    }

    /// The rows of a view that something reads.
    pub(crate) fn live(&self, view: MapView) -> &[usize] {
        &self.maps[view.map].live
    }

    /// Finds room for a store.
    fn reserve(&mut self, store: StoreId) -> MapView {
        let (root, offset) = self.nesting.of(store);
        let map = match self.views[root] {
            Some(view) => view.map,
            None => {
                let whole = self.stages.stores[root];
                self.maps.push(RowMap { positions: whole.rows, pitch: whole.channels, live: Vec::new() });
                let map = self.maps.len() - 1;
                self.views[root] = Some(MapView { map, offset: 0, channels: whole.channels });
                map
            }
        };
        let view = MapView { map, offset, channels: self.stages.stores[store].channels };
        self.views[store] = Some(view);
        view
    }

    fn read(&self, source: &StoreChannels) -> MapView {
        let view = self.view(source.store);
        MapView { offset: view.offset + source.channels.start, channels: source.channels.len(), ..view }
    }

    fn name(&self, nodes: &[usize]) -> String {
        match nodes {
            [] => "copy".into(),
            nodes => nodes.iter().map(|&node| self.graph.describe(node)).collect::<Vec<_>>().join(", "),
        }
    }

    fn stage(&mut self, stage: Stage<'g>) {
        let name = self.name(&stage.nodes);
        let Stage { op, input, other, output, relu, nodes, tensors } = stage;
        let numbers = |all: &[f64]| all.iter().map(|x| T::from_f64(*x)).collect::<Vec<T>>();
        let mut own = None;
        let kind = match op {
            StageOp::Concat(parts) => return self.concatenation(&parts, output, &name),
            StageOp::Segment(island) => return self.segment(*island, name),
            StageOp::Product { table, weights, bias } => {
                // Gradients of a normalisation read the product's own results.
                let forward = if tensors.norm.is_some() { weights.unscaled() } else { (*weights).clone() };
                own = Some(weights);
                forward.kernel(table, numbers(&bias))
            }
            StageOp::Affine(affine) => KernelKind::Affine(
                affine.map(|ChannelAffine { scale, shift }| [numbers(&scale), numbers(&shift)]),
            ),
            StageOp::Sum => KernelKind::Sum,
            StageOp::Pointwise(chain) => KernelKind::Pointwise(chain),
            StageOp::Combine { how, repeat } => KernelKind::Combine { how, repeat },
            StageOp::Elementwise { scale, shift } => {
                KernelKind::Elementwise { scale: scale.as_deref().map(numbers), shift: numbers(&shift) }
            }
            StageOp::Within(row) => KernelKind::Within(row.rounded()),
            StageOp::Matrices(matrices) => KernelKind::Matrices(matrices),
            StageOp::Average { table, shares } => KernelKind::Average { table, shares: numbers(&shares) },
            StageOp::Maximum { table } => {
                self.choices += 1;
                KernelKind::Maximum { table, choices: self.choices - 1 }
            }
            StageOp::Rearrange { sources, fill } => {
                let channels = |store: StoreId| self.stages.stores[store];
                let from = input.as_ref().map_or(channels(output), |source| channels(source.store));
                let to = channels(output);
                let moves = Moves::new(sources, [from.rows, from.channels], [to.rows, to.channels]);
                KernelKind::Rearrange { moves, fill: fill.as_deref().map(numbers) }
            }
        };
        let Some(input) = input else { return };
        let (from, addend) = (self.read(&input), other.map(|other| self.view(other)));
        let addend = addend.map(|other| read_by(&kind, other, from.channels));
        if kind.takes_dense() {
            [Some(input.store), other, Some(output)]
                .into_iter()
                .flatten()
                .for_each(|store| self.is_dense[store] = true);
        }
        let to = self.reserve(output);
        let kept = self.kept(&kind, to);
        let relu = relu.then(|| self.new_mask(output, to));
        let tensors = self.tensors(tensors, &kind, from, to);
        let kernel = Kernel { kind, input: from, output: to, other: addend, relu, kept, name, tensors };
        self.show(nodes.last().map(|&node| self.graph.nodes()[node].output), output, to);
        self.push(kernel, KernelStores { input: Some(input), other, output: Some(output) }, own);
    }

    /// Room for what a kernel leaves for the reverse pass besides its result.
    fn kept(&mut self, kind: &KernelKind<T>, to: MapView) -> Vec<MapView> {
        let pitches = match kind {
            KernelKind::Pointwise(_) => vec![to.channels],
            KernelKind::Combine { how: How::Quotient | How::Inverse, .. } => vec![to.channels; 2],
            KernelKind::Within(row) => row.kept(to.channels).into_iter().collect(),
            _ => Vec::new(),
        };
        let positions = self.maps[to.map].positions;
        let own = |pitch: usize| {
            self.maps.push(RowMap { positions, pitch, live: Vec::new() });
            MapView { map: self.maps.len() - 1, offset: 0, channels: pitch }
        };
        pitches.into_iter().map(own).collect()
    }

    /// Notes that the kernel that comes next computes a value of the graph.
    fn show(&mut self, value: Option<ValueId>, store: StoreId, at: MapView) {
        let view = value.and_then(|value| self.stages.values[value].clone().map(|view| (value, view)));
        if let Some((value, view)) = view.filter(|(_, view)| view.store == store) {
            self.shown.push(ShownValue { kernel: self.kernels.len(), value, at, view });
        }
    }

    fn push(&mut self, kernel: Kernel<T>, between: KernelStores, weights: Option<Box<ProductWeights<'g>>>) {
        self.kernels.push(kernel);
        self.between.push(between);
        self.weights.push(weights);
    }

    fn new_mask(&mut self, store: StoreId, view: MapView) -> MaskId {
        self.masks.push(view);
        self.mask_of[store] = Some(self.masks.len() - 1);
        self.masks.len() - 1
    }

    /// The perturbed tensors of a kernel; the product before a normalisation has rows of its own.
    fn tensors(
        &mut self,
        tensors: StageTensors,
        kind: &KernelKind<T>,
        from: MapView,
        to: MapView,
    ) -> Option<KernelTensors<T>> {
        if !self.perturbs_parameters() {
            return None;
        }
        let StageTensors { weight, bias, norm } = tensors;
        let norm = norm.map(|norm| {
            let StageNorm { gamma, beta, mean, inverse, affine } = norm;
            let rows = if matches!(kind, KernelKind::Product { .. } | KernelKind::Channelwise { .. }) {
                let positions = self.maps[to.map].positions;
                self.maps.push(RowMap { positions, pitch: to.channels, live: Vec::new() });
                MapView { map: self.maps.len() - 1, offset: 0, channels: to.channels }
            } else {
                from
            };
            let numbers = |all: &[f64]| all.iter().map(|x| T::from_f64(*x)).collect::<Vec<T>>();
            let affine = [numbers(&affine.scale), numbers(&affine.shift)];
            KernelNorm { gamma, beta, mean, inverse, rows, affine }
        });
        Some(KernelTensors { weight, patches: None, bias, norm })
    }

    /// Copies of the parts that do not lie in the whole already.
    fn concatenation(&mut self, parts: &[StoreId], output: StoreId, name: &str) {
        let whole = self.reserve(output);
        let mut offset = whole.offset;
        for &part in parts {
            let view = self.view(part);
            let wanted = MapView { map: whole.map, offset, channels: view.channels };
            offset += view.channels;
            if view == wanted {
                continue;
            }
            let kernel = Kernel {
                kind: KernelKind::Affine(None),
                input: view,
                output: wanted,
                other: None,
                relu: None,
                kept: Vec::new(),
                name: name.to_owned(),
                tensors: None,
            };
            let input = Some(StoreChannels { store: part, channels: 0..view.channels });
            self.push(kernel, KernelStores { input, ..KernelStores::default() }, None);
        }
    }

    fn segment(&mut self, island: StageSegment, name: String) {
        let StageSegment { nodes, inputs, outputs } = island;
        for (_, view) in inputs.iter().chain(&outputs) {
            (self.on_segment[view.store], self.is_dense[view.store]) = (true, true);
        }
        let edge = |(value, view): (usize, super::view::StoreView), at: MapView| Edge {
            value,
            view: at,
            elements: view.elements(),
        };
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|input| {
                let at = self.view(input.1.store);
                (input.1.store, edge(input, at))
            })
            .collect();
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|output| {
                let at = self.reserve(output.1.store);
                self.show(Some(output.0), output.1.store, at);
                edge(output, at)
            })
            .collect();
        let (Some(from), Some(to)) = (inputs.first().map(|(_, edge)| edge.view), outputs.first()) else {
            return;
        };
        let to = to.view;
        let inputs = inputs.into_iter().map(|(_, edge)| edge).collect();
        let tensors = self.perturbed.read_by(&nodes);
        self.segments.push(CompiledSegment { nodes, inputs, outputs, tensors });
        let kind = KernelKind::Segment(self.segments.len() - 1);
        let kernel = Kernel {
            kind,
            input: from,
            output: to,
            other: None,
            relu: None,
            kept: Vec::new(),
            name,
            tensors: None,
        };
        self.push(kernel, KernelStores::default(), None);
    }

    /// Which rows of each buffer are read, from the output backwards: no other is computed.
    fn mark_live(&mut self) {
        let mut live: Vec<Vec<bool>> = self.maps.iter().map(|map| vec![false; map.positions]).collect();
        live[self.view(self.stages.output).map].fill(true);
        for kernel in self.kernels.iter().rev() {
            if let KernelKind::Segment(segment) = kernel.kind {
                for Edge { view, elements, .. } in &self.segments[segment].inputs {
                    elements.iter().for_each(|[row, _]| live[view.map][*row] = true);
                }
                continue;
            }
            let rows: Vec<_> =
                (0..live[kernel.output.map].len()).filter(|&p| live[kernel.output.map][p]).collect();
            for row in rows {
                kernel.sources(row).into_iter().for_each(|source| live[kernel.input.map][source] = true);
                let norm = kernel.tensors.as_ref().and_then(|tensors| tensors.norm.as_ref());
                for view in norm.map(|norm| norm.rows).into_iter().chain(kernel.kept.iter().copied()) {
                    live[view.map][row] = true;
                }
                if let Some(MapView { map, .. }) = kernel.other {
                    kernel.other_sources(row).into_iter().for_each(|source| live[map][source] = true);
                }
            }
        }
        for (map, live) in self.maps.iter_mut().zip(live) {
            map.live = (0..live.len()).filter(|&position| live[position]).collect();
        }
    }

    /// Takes Winograd's form where it pays, and where all rows are computed: a patch mixes all that it reads.
    fn patch(&mut self) {
        for (kernel, weights) in self.kernels.iter_mut().zip(&self.weights) {
            let all = |view: MapView| self.maps[view.map].live.len() == self.maps[view.map].positions;
            let (alone, Some(weights)) = (kernel.kept_product().is_some(), weights) else { continue };
            if !(all(kernel.input) && all(kernel.output)) {
                continue;
            }
            if let (Some(tensors), Some(neighbours)) = (&mut kernel.tensors, weights.neighbours)
                && weights.inputs >= FEW_CHANNELS
            {
                tensors.patches = Some(neighbours.gradient());
            }
            let KernelKind::Product { patches, panels, .. } = &mut kernel.kind else { continue };
            let weights = if alone { weights.unscaled() } else { (**weights).clone() };
            if let Some((own, packed)) = weights.patched() {
                (*patches, *panels) = (Some(own), packed);
            }
        }
    }
}

/// The channels of a second operand that a kernel reads.
fn read_by<T>(kind: &KernelKind<T>, other: MapView, channels: usize) -> MapView {
    let KernelKind::Combine { repeat, .. } = kind else { return other };
    let channels = if repeat.single { 1 } else { channels };
    MapView { offset: other.offset + repeat.first, channels, ..other }
}
