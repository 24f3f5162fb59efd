//! From stages to kernel calls: buffers, packed weights, rows that are read, Winograd's form.

use influence_autodiff::graph::{Graph, ValueId};

use super::ids::{ChoiceId, KernelId, MapId, MaskId, SegmentId, StoreId};
use super::nesting::Nesting;
use super::perturbed::Perturbed;
use super::program::{
    Compiled, CompiledSegment, Edge, Kernel, KernelKind, KernelNorm, KernelTensors, MapView, RowMap,
    ShownValue,
};
use super::stage::{
    ChannelAffine, Stage, StageNorm, StageOp, StageSegment, StageTensors, Stages, StoreChannels,
};
use super::steps::ReverseStep;
use super::view::{Store, StoreView};
use super::weights::ProductWeights;
use crate::kernels::{FEW_CHANNELS, How, Moves, SimdFloat};

/// The stores between which a kernel stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct KernelStores {
    pub(crate) input: Option<StoreChannels>,
    pub(crate) other: Option<StoreId>,
    /// The kernel's result; none for a copy into a concatenation, and for a segment.
    pub(crate) output: Option<StoreId>,
}

/// What is known about a store while kernels are made.
#[derive(Debug, Clone, Copy, Default)]
struct StoreState {
    /// Where the store lies; none before it is written, or if a rewrite has removed it.
    view: Option<MapView>,
    /// The mask of the ReLU that computes it.
    mask: Option<MaskId>,
    /// Whether the store is on the edge of a segment.
    on_segment: bool,
    /// Whether the store is on the edge of a segment, or of a kernel that takes and gives dense
    /// cotangents.
    dense: bool,
}

/// The kernel calls so far, and what each was made of.
pub(crate) struct ProgramBuilder<'g, T> {
    graph: &'g Graph,
    pub(crate) stages: Stages<'g>,
    pub(crate) nesting: Nesting,
    perturbed: &'g Perturbed,
    maps: Vec<RowMap>,
    /// Indexed by [`StoreId`].
    states: Vec<StoreState>,
    pub(crate) kernels: Vec<Kernel<T>>,
    /// Indexed by [`KernelId`].
    pub(crate) kernel_stores: Vec<KernelStores>,
    /// The weights of each kernel that has some: by [`KernelId`].
    weights: Vec<Option<Box<ProductWeights<'g>>>>,
    masks: Vec<MapView>,
    choices: usize,
    segments: Vec<CompiledSegment>,
    shown: Vec<ShownValue>,
}

impl ChannelAffine {
    /// Scale and shift in the precision of the run.
    fn rounded<T: SimdFloat>(&self) -> [Vec<T>; 2] {
        [rounded(&self.scale), rounded(&self.shift)]
    }
}

/// The elements of a vector in the precision of the run.
fn rounded<T: SimdFloat>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|x| T::from_f64(*x)).collect()
}

impl<'g, T: SimdFloat> ProgramBuilder<'g, T> {
    pub(crate) fn new(
        graph: &'g Graph,
        mut stages: Stages<'g>,
        nesting: Nesting,
        perturbed: &'g Perturbed,
    ) -> Self {
        let all = std::mem::take(&mut stages.stages);
        let states = vec![StoreState::default(); stages.stores.len()];
        let mut this = Self {
            graph,
            stages,
            nesting,
            perturbed,
            maps: Vec::new(),
            states,
            kernels: Vec::new(),
            kernel_stores: Vec::new(),
            weights: Vec::new(),
            masks: Vec::new(),
            choices: 0,
            segments: Vec::new(),
            shown: Vec::new(),
        };
        this.reserve(this.stages.input);
        all.into_iter().for_each(|stage| this.stage(stage));
        this.mark_live();
        this.take_patches();
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

    fn state(&self, store: StoreId) -> &StoreState {
        &self.states[store.index()]
    }

    fn state_mut(&mut self, store: StoreId) -> &mut StoreState {
        &mut self.states[store.index()]
    }

    /// The size of a store.
    pub(crate) fn store(&self, store: StoreId) -> Store {
        self.stages.store(store)
    }

    /// Where a store lies.
    pub(crate) fn view(&self, store: StoreId) -> MapView {
        self.state(store).view.unwrap_or_else(|| unreachable!("a store is written before it is read"))
    }

    /// The mask of the ReLU that computes a store, if one does.
    pub(crate) fn mask_of(&self, store: StoreId) -> Option<MaskId> {
        self.state(store).mask
    }

    /// Whether a store is on the edge of a segment.
    pub(crate) fn is_on_segment(&self, store: StoreId) -> bool {
        self.state(store).on_segment
    }

    /// Whether a store is on the edge of a segment, or of a kernel that takes and gives dense
    /// cotangents.
    pub(crate) fn is_dense(&self, store: StoreId) -> bool {
        self.state(store).dense
    }

    pub(crate) fn kernel(&self, id: KernelId) -> &Kernel<T> {
        &self.kernels[id.index()]
    }

    /// The stores between which a kernel stands.
    pub(crate) fn stores_of(&self, id: KernelId) -> &KernelStores {
        &self.kernel_stores[id.index()]
    }

    /// The weights of a kernel that has some.
    pub(crate) fn weights_of(&self, id: KernelId) -> Option<&ProductWeights<'g>> {
        self.weights[id.index()].as_deref()
    }

    pub(crate) fn segment(&self, id: SegmentId) -> &CompiledSegment {
        &self.segments[id.index()]
    }

    /// The kernel that writes a store.
    pub(crate) fn writer(&self, store: StoreId) -> Option<KernelId> {
        self.kernel_stores.iter().position(|stores| stores.output == Some(store)).map(KernelId)
    }

    fn map(&self, id: MapId) -> &RowMap {
        &self.maps[id.index()]
    }

    /// The rows of a view that something reads.
    pub(crate) fn live(&self, view: MapView) -> &[usize] {
        &self.map(view.map).live
    }

    /// A new buffer, all of it as a view.
    fn new_map(&mut self, positions: usize, pitch: usize) -> MapView {
        self.maps.push(RowMap { positions, pitch, live: Vec::new() });
        MapView { map: MapId(self.maps.len() - 1), offset: 0, channels: pitch }
    }

    /// Finds room for a store: in the buffer of the concatenation that holds it, or in one of its
    /// own.
    fn reserve(&mut self, store: StoreId) -> MapView {
        let (root, offset) = self.nesting.of(store);
        let map = match self.state(root).view {
            Some(view) => view.map,
            None => {
                let whole = self.store(root);
                let view = self.new_map(whole.rows, whole.channels);
                self.state_mut(root).view = Some(view);
                view.map
            }
        };
        let view = MapView { map, offset, channels: self.store(store).channels };
        self.state_mut(store).view = Some(view);
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

    /// Adds the kernel of a stage.
    fn stage(&mut self, stage: Stage<'g>) {
        let name = self.name(&stage.nodes);
        let Stage { op, input, other, output, relu, nodes, tensors } = stage;
        let (kind, weights) = match op {
            StageOp::Concat(parts) => return self.concatenation(&parts, output, &name),
            StageOp::Segment(segment) => return self.add_segment(*segment, name),
            StageOp::Product { table, weights, bias } => {
                // Gradients of a normalisation read the product's own results: the scale is applied
                // after them.
                let forward = if tensors.norm.is_some() { weights.unscaled() } else { (*weights).clone() };
                (forward.kernel(table, rounded(&bias)), Some(weights))
            }
            StageOp::Sum => (KernelKind::Sum, None),
            StageOp::Matrices(matrices) => (KernelKind::Matrices(matrices), None),
            StageOp::Pointwise(chain) => (KernelKind::Pointwise(chain), None),
            StageOp::Combine { how, repeat } => (KernelKind::Combine { how, repeat }, None),
            StageOp::Within(row) => (KernelKind::Within(row.rounded()), None),
            StageOp::Affine(affine) => (KernelKind::Affine(affine.map(|affine| affine.rounded())), None),
            StageOp::Elementwise { scale, shift } => {
                let scale = scale.as_deref().map(rounded);
                (KernelKind::Elementwise { scale, shift: rounded(&shift) }, None)
            }
            StageOp::Average { table, shares } => {
                (KernelKind::Average { table, shares: shares.rounded() }, None)
            }
            StageOp::Maximum { table } => {
                self.choices += 1;
                (KernelKind::Maximum { table, choices: ChoiceId(self.choices - 1) }, None)
            }
            StageOp::Rearrange { sources, fill } => {
                let to = self.store(output);
                let from = input.as_ref().map_or(to, |source| self.store(source.store));
                let moves = Moves::new(sources, [from.rows, from.channels], [to.rows, to.channels]);
                (KernelKind::Rearrange { moves, fill: fill.as_deref().map(rounded) }, None)
            }
        };
        let Some(input) = input else { return };
        let from = self.read(&input);
        let addend = other.map(|other| read_by(&kind, self.view(other), from.channels));
        if kind.takes_dense() {
            let all = [Some(input.store), other, Some(output)];
            all.into_iter().flatten().for_each(|store| self.state_mut(store).dense = true);
        }
        let to = self.reserve(output);
        let kept = self.kept(&kind, to);
        let relu = relu.then(|| self.new_mask(output, to));
        let groups = weights.as_ref().map_or(1, |weights| weights.groups);
        let tensors = self.tensors(tensors, groups, &kind, from, &kept, to);
        let kernel = Kernel { kind, input: from, output: to, other: addend, relu, kept, name, tensors };
        self.show(nodes.last().map(|&node| self.graph.nodes()[node].output), output, to);
        self.push(kernel, KernelStores { input: Some(input), other, output: Some(output) }, weights);
    }

    /// Room for what a kernel leaves for the reverse pass besides its result.
    fn kept(&mut self, kind: &KernelKind<T>, to: MapView) -> Vec<MapView> {
        let pitches = match kind {
            KernelKind::Pointwise(_) => vec![to.channels],
            KernelKind::Combine { how: How::Quotient | How::Inverse, .. } => vec![to.channels; 2],
            KernelKind::Within(row) => row.kept(to.channels).into_iter().collect(),
            _ => Vec::new(),
        };
        let positions = self.map(to.map).positions;
        pitches.into_iter().map(|pitch| self.new_map(positions, pitch)).collect()
    }

    /// Notes that the kernel that comes next computes a value of the graph.
    fn show(&mut self, value: Option<ValueId>, store: StoreId, at: MapView) {
        let view = value.and_then(|value| self.stages.values[value].clone().map(|view| (value, view)));
        if let Some((value, view)) = view.filter(|(_, view)| view.store == store) {
            self.shown.push(ShownValue { kernel: KernelId(self.kernels.len()), value, at, view });
        }
    }

    fn push(&mut self, kernel: Kernel<T>, stores: KernelStores, weights: Option<Box<ProductWeights<'g>>>) {
        self.kernels.push(kernel);
        self.kernel_stores.push(stores);
        self.weights.push(weights);
    }

    fn new_mask(&mut self, store: StoreId, view: MapView) -> MaskId {
        self.masks.push(view);
        let mask = MaskId(self.masks.len() - 1);
        self.state_mut(store).mask = Some(mask);
        mask
    }

    /// The perturbed tensors of a kernel; the product before a normalisation gets rows of its own.
    fn tensors(
        &mut self,
        tensors: StageTensors,
        groups: usize,
        kind: &KernelKind<T>,
        from: MapView,
        kept: &[MapView],
        to: MapView,
    ) -> Option<KernelTensors<T>> {
        if !self.perturbs_parameters() {
            return None;
        }
        let StageTensors { weight, bias, norm, elements } = tensors;
        let norm = norm.map(|norm| {
            let StageNorm { gamma, beta, mean, inverse, affine } = norm;
            let rows = match (kind, kept) {
                // What it keeps begins with what gamma multiplies.
                (KernelKind::Within(_), [kept]) => MapView { channels: to.channels, ..*kept },
                _ if kind.multiplies() => self.new_map(self.map(to.map).positions, to.channels),
                _ => from,
            };
            KernelNorm { gamma, beta, mean, inverse, rows, affine: affine.rounded() }
        });
        Some(KernelTensors { weight, groups, patches: None, bias, norm, elements })
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
            let kernel = plain_kernel(KernelKind::Affine(None), view, wanted, name.to_owned());
            let input = Some(StoreChannels { store: part, channels: 0..view.channels });
            self.push(kernel, KernelStores { input, ..KernelStores::default() }, None);
        }
    }

    fn add_segment(&mut self, segment: StageSegment, name: String) {
        let StageSegment { nodes, inputs, outputs } = segment;
        for (_, view) in inputs.iter().chain(&outputs) {
            let state = self.state_mut(view.store);
            (state.on_segment, state.dense) = (true, true);
        }
        let edge = |(value, view): (ValueId, StoreView), at: MapView| Edge {
            value,
            view: at,
            elements: view.elements(),
        };
        let read = |input: (ValueId, StoreView)| {
            let at = self.view(input.1.store);
            edge(input, at)
        };
        let inputs: Vec<_> = inputs.into_iter().map(read).collect();
        let mut written = Vec::with_capacity(outputs.len());
        for output in outputs {
            let at = self.reserve(output.1.store);
            self.show(Some(output.0), output.1.store, at);
            written.push(edge(output, at));
        }
        // A segment that reads nothing would be a constant, one that writes nothing is not made.
        let (Some(from), Some(to)) = (inputs.first(), written.first()) else { return };
        let (from, to) = (from.view, to.view);
        let tensors = self.perturbed.read_by(&nodes);
        self.segments.push(CompiledSegment { nodes, inputs, outputs: written, tensors });
        let kind = KernelKind::Segment(SegmentId(self.segments.len() - 1));
        self.push(plain_kernel(kind, from, to, name), KernelStores::default(), None);
    }

    /// Marks the rows of each buffer that are read, from the output backwards: no other is
    /// computed.
    fn mark_live(&mut self) {
        let mut live: Vec<Vec<bool>> = self.maps.iter().map(|map| vec![false; map.positions]).collect();
        live[self.view(self.stages.output).map.index()].fill(true);
        for kernel in self.kernels.iter().rev() {
            if let KernelKind::Segment(segment) = kernel.kind {
                for Edge { view, elements, .. } in &self.segment(segment).inputs {
                    elements.iter().for_each(|[row, _]| live[view.map.index()][*row] = true);
                }
                continue;
            }
            mark_operands(kernel, &mut live);
        }
        for (map, live) in self.maps.iter_mut().zip(live) {
            map.live = (0..live.len()).filter(|&position| live[position]).collect();
        }
    }

    /// Takes Winograd's form where it pays, and where all rows are computed: a patch mixes all that
    /// it reads, and rows that are not computed may hold anything.
    fn take_patches(&mut self) {
        for (kernel, weights) in self.kernels.iter_mut().zip(&self.weights) {
            let all = |view: MapView| self.maps[view.map.index()].is_all_live();
            let (alone, Some(weights)) = (kernel.kept_product().is_some(), weights) else { continue };
            if !(all(kernel.input) && all(kernel.output)) {
                continue;
            }
            // The gradient may take patches, too. Whether it does is decided for each sample
            // (`GramCosts`).
            if let (Some(tensors), Some(neighbours)) = (&mut kernel.tensors, weights.neighbours)
                && weights.groups == 1
                && weights.inputs >= FEW_CHANNELS
            {
                tensors.patches = Some(neighbours.gradient());
            }
            let KernelKind::Product { patches, panels, .. } = &mut kernel.kind else { continue };
            // A product that is kept for gradients has its scale applied after it.
            let weights = if alone { weights.unscaled() } else { (**weights).clone() };
            if let Some((own, packed)) = weights.patched() {
                (*patches, *panels) = (Some(own), packed);
            }
        }
    }
}

/// A kernel of one operand with nothing else: a copy, or a segment.
fn plain_kernel<T>(kind: KernelKind<T>, input: MapView, output: MapView, name: String) -> Kernel<T> {
    Kernel { kind, input, output, other: None, relu: None, kept: Vec::new(), name, tensors: None }
}

/// Marks what a kernel reads for the live rows of its result, and the rows that it keeps beside
/// these.
fn mark_operands<T>(kernel: &Kernel<T>, live: &mut [Vec<bool>]) {
    let of_output = &live[kernel.output.map.index()];
    let rows: Vec<_> = (0..of_output.len()).filter(|&row| of_output[row]).collect();
    let norm = kernel.tensors.as_ref().and_then(|tensors| tensors.norm.as_ref());
    for row in rows {
        for source in kernel.sources(row) {
            live[kernel.input.map.index()][source] = true;
        }
        for view in norm.map(|norm| norm.rows).into_iter().chain(kernel.kept.iter().copied()) {
            live[view.map.index()][row] = true;
        }
        if let Some(MapView { map, .. }) = kernel.other {
            for source in kernel.other_sources(row) {
                live[map.index()][source] = true;
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
