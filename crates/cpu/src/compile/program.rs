//! The program of the CPU executor as plain data: what runs forward, in order, and what runs in reverse.

use std::fmt;

use influence_autodiff::graph::ValueId;

use super::view;
use crate::kernels::{
    ChainPart, How, Links, Matrices, Moves, PAD, Panels, Patches, Repetition, RowTable, SimdFloat, WithinRow,
};

/// A buffer of rows: one for each position of each sample.
#[derive(Debug, Clone)]
pub(crate) struct RowMap {
    /// Rows of one sample.
    pub(crate) positions: usize,
    /// ConstantNumbers of one row.
    pub(crate) pitch: usize,
    /// The positions that something reads, ascending: no other is computed.
    pub(crate) live: Vec<usize>,
}

impl RowMap {
    /// ConstantNumbers of one sample.
    pub(crate) fn size(&self) -> usize {
        self.positions * self.pitch
    }
}

/// Neighbouring channels of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct MapView {
    pub(crate) map: usize,
    pub(crate) offset: usize,
    pub(crate) channels: usize,
}

/// Index of a mask: what one ReLU has left on.
pub(crate) type MaskId = usize;

/// One kernel call of the forward pass.
#[derive(Debug, Clone)]
pub(crate) struct Kernel<T> {
    pub(crate) kind: KernelKind<T>,
    pub(crate) input: MapView,
    pub(crate) output: MapView,
    /// A second operand of a sum, or what a convolution's result is added to.
    pub(crate) other: Option<MapView>,
    /// The mask that the ReLU at its end makes, if there is one.
    pub(crate) relu: Option<MaskId>,
    /// What it leaves for the reverse pass besides its result: derivatives, or what its pullback reads.
    pub(crate) kept: Vec<MapView>,
    /// The graph's operations that it stands for.
    pub(crate) name: String,
    /// Its perturbed tensors, where parameters are perturbed.
    pub(crate) tensors: Option<KernelTensors<T>>,
}

/// The perturbed tensors of a stage, by their indices among the network's.
#[derive(Debug, Clone)]
pub(crate) struct KernelTensors<T> {
    /// Of the product.
    pub(crate) weight: Option<usize>,
    /// The patches of its gradient in Winograd's form, where that can be taken.
    pub(crate) patches: Option<Patches>,
    pub(crate) bias: Option<usize>,
    /// The batch normalisation behind the product, or alone.
    pub(crate) norm: Option<KernelNorm<T>>,
}

/// A batch normalisation gamma (x - mean) inverse + beta whose tensors are perturbed.
#[derive(Debug, Clone)]
pub(crate) struct KernelNorm<T> {
    pub(crate) gamma: Option<usize>,
    pub(crate) beta: Option<usize>,
    pub(crate) mean: Vec<f64>,
    /// One over the deviation.
    pub(crate) inverse: Vec<f64>,
    /// What is normalised: the product's results have rows of their own, which its gradient reads.
    pub(crate) rows: MapView,
    /// The scale and the shift of it all.
    pub(crate) affine: [Vec<T>; 2],
}

impl<T> KernelTensors<T> {
    /// Whether a tensor is among them.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = usize> {
        let norm = self.norm.iter().flat_map(|norm| [norm.gamma, norm.beta]);
        [self.weight, self.bias].into_iter().chain(norm).flatten()
    }
}

impl<T> Kernel<T> {
    /// Whether it reads other channels of the buffer that it writes.
    pub(crate) fn reads_its_map(&self) -> bool {
        [Some(self.input), self.other].into_iter().flatten().any(|view| view.map == self.output.map)
    }

    /// The rows of the input that a row of the result is computed from.
    pub(crate) fn sources(&self, row: usize) -> Vec<usize> {
        match &self.kind {
            KernelKind::Product { table, .. }
            | KernelKind::Channelwise { table, .. }
            | KernelKind::Average { table, .. }
            | KernelKind::Maximum { table, .. } => {
                (0..table.taps()).filter_map(|tap| table.source(row, tap)).collect()
            }
            KernelKind::Rearrange { moves, .. } => moves.rows_of(row),
            KernelKind::Affine(_)
            | KernelKind::Sum
            | KernelKind::Pointwise(_)
            | KernelKind::Combine { .. }
            | KernelKind::Elementwise { .. }
            | KernelKind::Within(_) => vec![row],
            KernelKind::Matrices(matrices) => (0..matrices.operands[0].rows).collect(),
            KernelKind::Segment(_) => Vec::new(),
        }
    }

    /// Whether the other operand is added to the rest.
    fn adds_other(&self) -> bool {
        !matches!(self.kind, KernelKind::Combine { .. } | KernelKind::Matrices(_))
    }

    /// The rows of the other operand that a row of the result is computed from.
    pub(crate) fn other_sources(&self, row: usize) -> Vec<usize> {
        match &self.kind {
            KernelKind::Combine { repeat, .. } => vec![repeat.row(row)],
            KernelKind::Matrices(matrices) => (0..matrices.operands[1].rows).collect(),
            _ => vec![row],
        }
    }

    /// The batch normalisation behind a product whose results have rows of their own.
    pub(crate) fn kept_product(&self) -> Option<&KernelNorm<T>> {
        let norm = self.tensors.as_ref()?.norm.as_ref()?;
        matches!(self.kind, KernelKind::Product { .. }).then_some(norm)
    }
}

/// What a stage does with its operands.
#[derive(Debug, Clone)]
pub(crate) enum KernelKind<T> {
    /// A convolution or linear layer, batch normalisation folded in; in Winograd's form where there are patches.
    Product { table: RowTable, patches: Option<Patches>, panels: Panels<T>, bias: Vec<T> },
    /// The same of each channel by itself: `[tap][channel]`.
    Channelwise { table: RowTable, weights: Vec<T>, bias: Vec<T> },
    /// scale x + shift for each channel, or x itself.
    Affine(Option<[Vec<T>; 2]>),
    /// The operand and the other.
    Sum,
    /// A function of each number, which leaves its derivatives.
    Pointwise(Vec<ChainPart>),
    /// The operand and the other, which is repeated; a quotient leaves its derivatives by both.
    Combine { how: How, repeat: Repetition },
    /// scale x + shift for each number of a sample; no scale where all are 1.
    Elementwise { scale: Option<Vec<T>>, shift: Vec<T> },
    /// What the channels of a row do to one another.
    Within(WithinRow<T>),
    /// Matrices of the operand times matrices of the other.
    Matrices(Matrices),
    /// The mean over windows.
    Average { table: RowTable, shares: Vec<T> },
    /// The maximum over windows; the index is that of the choices it leaves.
    Maximum { table: RowTable, choices: usize },
    /// Each number is one of the input's, or a constant.
    Rearrange { moves: Moves, fill: Option<Vec<T>> },
    /// Nodes on Burn's operations; the index is that of the segment.
    Segment(usize),
}

impl<T> KernelKind<T> {
    /// Whether its pullback can multiply what it hands on by derivatives of the function before it. (That of
    /// another function may take no step of its own.)
    pub(crate) fn takes_slopes(&self) -> bool {
        matches!(
            self,
            Self::Product { .. }
                | Self::Channelwise { .. }
                | Self::Average { .. }
                | Self::Maximum { .. }
                | Self::Sum
                | Self::Combine { .. }
        )
    }

    /// Whether the cotangents of its operands and its result have to be dense: no mask has switched anything
    /// off where derivatives are kept as numbers.
    pub(crate) fn takes_dense(&self) -> bool {
        match self {
            Self::Pointwise(_) | Self::Combine { .. } | Self::Within(_) | Self::Matrices(_) => true,
            Self::Elementwise { scale, .. } => scale.is_some(),
            _ => false,
        }
    }
}

/// Where the cotangent of a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CotangentRef {
    /// In full, in the channels of a map.
    Dense(MapView),
    /// Of the active channels of a mask: the cotangent before the ReLU.
    Compressed(MaskId),
}

/// Where contributions to a value's cotangent go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// To the cotangent itself.
    Plain(CotangentRef),
    /// Times the derivatives of a function of each number, to the channels of a map: `slopes` are the kept values, row by row.
    Times { view: MapView, slopes: MapView },
    /// Through a mask and the scale of the channels before it, to the channels of a map: those of the mask from channel `from` on.
    Through { mask: MaskId, view: MapView, from: usize, scaled: Option<usize> },
}

impl Sink {
    /// The cotangent that is written in the end.
    pub(crate) fn cotangent(self) -> CotangentRef {
        match self {
            Self::Plain(cotangent) => cotangent,
            Self::Through { view, .. } | Self::Times { view, .. } => CotangentRef::Dense(view),
        }
    }

    /// The derivatives by which it multiplies.
    pub(crate) fn slopes(self) -> Option<MapView> {
        match self {
            Self::Times { slopes, .. } => Some(slopes),
            _ => None,
        }
    }

    /// The scale of the batch normalisation through which it goes.
    pub(crate) fn scale<T>(self, kernels: &[Kernel<T>]) -> Option<&[T]> {
        let Self::Through { scaled: Some(kernel), .. } = self else { return None };
        match &kernels[kernel].kind {
            KernelKind::Affine(Some([scale, _])) => Some(scale),
            _ => None,
        }
    }
}

/// A buffer of cotangents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Site {
    /// Of a map.
    Map(usize),
    /// Of a mask.
    Mask(MaskId),
}

impl CotangentRef {
    /// The buffer it lies in.
    pub(crate) fn site(self) -> Site {
        match self {
            Self::Dense(view) => Site::Map(view.map),
            Self::Compressed(mask) => Site::Mask(mask),
        }
    }
}

/// One step of the reverse pass: from the cotangent of one value to that of another.
#[derive(Debug, Clone)]
pub(crate) struct ReverseStep<T> {
    pub(crate) kind: StepKind<T>,
    pub(crate) source: CotangentRef,
    pub(crate) target: Sink,
    /// Whether the target's buffer holds nothing yet.
    pub(crate) first: bool,
    /// The stage that is pulled back.
    pub(crate) stage: usize,
}

/// How cotangents are pulled back.
#[derive(Debug, Clone)]
pub(crate) enum StepKind<T> {
    /// Through a convolution; cotangents of the same rows may come with it.
    Product { links: Links, patches: Option<Patches>, panels: Panels<T>, identity: Option<CotangentRef> },
    /// Several products through masks into the same channels, row by row.
    Together(Vec<ReverseStep<T>>),
    /// Through a convolution that reads too few channels to fill a vector: its taps stand side by side as columns, which are then added
    /// up.
    Columns {
        /// Each row by itself.
        rows: Links,
        panels: Panels<T>,
        /// Where the columns go.
        links: Links,
    },
    /// Through a convolution of each channel by itself.
    Channelwise { links: Links },
    /// Row by row, times a scale.
    Spread { scale: Option<Vec<T>> },
    /// Through a mean over windows.
    Average { links: Links },
    /// Through a maximum over windows.
    Maximum { links: Links },
    /// Back to where numbers came from.
    Rearrange,
    /// Times a factor for each number; to a repeated operand, the sum over the repeats.
    Scaled { links: Option<Links>, factor: Factor },
    /// Through what the channels of a row do to one another, by what the forward pass has left there.
    Within { kept: MapView },
    /// To one of the operands of matrix products, by the values of the other.
    Matrices { operand: usize, other: MapView },
    /// Through a segment: from its outputs, where anything has reached them, to its inputs, and whether each of
    /// these holds nothing yet.
    Segment { sources: Vec<Option<CotangentRef>>, targets: Vec<(Sink, bool)> },
}

/// The factors of a row's cotangents.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factor {
    /// One number for all.
    Number(f64),
    /// A row's values; whether they are repeated as the stage's other operand is.
    Values { view: MapView, repeated: bool },
    /// The stage's own scale.
    Own,
}

impl<T> ReverseStep<T> {
    /// The values of the forward pass that it reads.
    pub(crate) fn values(&self) -> impl Iterator<Item = MapView> {
        let own = match self.kind {
            StepKind::Scaled { factor: Factor::Values { view, .. }, .. }
            | StepKind::Within { kept: view }
            | StepKind::Matrices { other: view, .. } => Some(view),
            _ => None,
        };
        own.into_iter().chain(self.target.slopes())
    }

    /// Whether it reads other channels of the buffer that it writes.
    pub(crate) fn reads_its_target(&self) -> bool {
        self.source.site() == self.target.cotangent().site()
    }

    /// All cotangents that it reads or writes.
    pub(crate) fn cotangents(&self) -> Vec<CotangentRef> {
        let mut cotangents = vec![self.source, self.target.cotangent()];
        match &self.kind {
            StepKind::Product { identity, .. } => cotangents.extend(identity),
            StepKind::Together(parts) => cotangents.extend(parts.iter().flat_map(Self::cotangents)),
            StepKind::Segment { sources, targets } => {
                cotangents.extend(sources.iter().flatten());
                cotangents.extend(targets.iter().map(|(sink, _)| sink.cotangent()));
            }
            _ => {}
        }
        cotangents
    }

    /// The steps that are taken together, most often itself alone.
    pub(crate) fn parts(&self) -> &[Self] {
        match &self.kind {
            StepKind::Together(parts) => parts,
            _ => std::slice::from_ref(self),
        }
    }
}

/// The nodes of a segment, and where the values on its edges lie.
#[derive(Debug, Clone)]
pub(crate) struct CompiledSegment {
    pub(crate) nodes: Vec<usize>,
    pub(crate) inputs: Vec<Edge>,
    pub(crate) outputs: Vec<Edge>,
    /// Its perturbed tensors.
    pub(crate) tensors: Vec<usize>,
}

/// A value of the graph on the edge of a segment: where each of its elements lies.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) value: ValueId,
    pub(crate) view: MapView,
    /// Row and channel.
    pub(crate) elements: Vec<[usize; 2]>,
}

/// A value of the graph that a kernel computes: for whoever looks at a forward pass.
#[derive(Debug, Clone)]
pub(crate) struct ShownValue {
    pub(crate) kernel: usize,
    pub(crate) value: ValueId,
    /// The channels in which its store lies.
    pub(crate) at: MapView,
    pub(crate) view: view::StoreView,
}

/// A network compiled for the CPU executor.
#[derive(Debug, Clone)]
pub(crate) struct Compiled<T> {
    pub(crate) maps: Vec<RowMap>,
    pub(crate) kernels: Vec<Kernel<T>>,
    pub(crate) steps: Vec<ReverseStep<T>>,
    pub(crate) masks: Vec<MapView>,
    pub(crate) choices: usize,
    pub(crate) segments: Vec<CompiledSegment>,
    pub(crate) shown: Vec<ShownValue>,
    pub(crate) input: MapView,
    pub(crate) output: MapView,
    /// Whether parameters are perturbed: all values are kept for their gradients.
    pub(crate) perturbs_parameters: bool,
}

impl<T> Compiled<T> {
    /// Whether the reverse pass reads the values of a map.
    pub(crate) fn keeps(&self, map: usize) -> bool {
        self.perturbs_parameters
            || self.steps.iter().flat_map(ReverseStep::values).any(|view| view.map == map)
    }

    /// Whether it reads those of any.
    pub(crate) fn keeps_any(&self) -> bool {
        self.perturbs_parameters || self.steps.iter().any(|step| step.values().next().is_some())
    }

    /// ConstantNumbers that the cotangents of one sample take at most in a buffer.
    pub(crate) fn site_size(&self, site: Site, lines: usize) -> usize {
        match site {
            Site::Map(map) => self.maps[map].positions * lines * self.maps[map].pitch,
            Site::Mask(mask) => {
                let MapView { map, channels, .. } = self.masks[mask];
                self.maps[map].positions * (lines * channels + PAD)
            }
        }
    }

    /// Bytes of the packed weights of both passes, and of what says which row reads which.
    pub(crate) fn fixed_bytes(&self) -> usize
    where
        T: SimdFloat,
    {
        let forward = self.kernels.iter().map(|stage| match &stage.kind {
            KernelKind::Product { table, patches, panels, .. } => {
                panels.bytes() + table.bytes() + patches.as_ref().map_or(0, Patches::bytes)
            }
            KernelKind::Channelwise { table, weights, .. } => size_of_val(weights.as_slice()) + table.bytes(),
            KernelKind::Average { table, .. } | KernelKind::Maximum { table, .. } => table.bytes(),
            KernelKind::Rearrange { moves, fill } => {
                moves.bytes() + fill.as_ref().map_or(0, |fill| size_of_val(fill.as_slice()))
            }
            KernelKind::Combine { repeat, .. } => repeat.bytes(),
            KernelKind::Elementwise { scale, shift } => {
                let scales = scale.as_ref().map_or(0, |scale| size_of_val(scale.as_slice()));
                scales + size_of_val(shift.as_slice())
            }
            KernelKind::Within(row) => row.bytes(),
            KernelKind::Matrices(matrices) => matrices.bytes(),
            KernelKind::Affine(_) | KernelKind::Sum | KernelKind::Pointwise(_) | KernelKind::Segment(_) => 0,
        });
        let reverse = self.steps.iter().flat_map(ReverseStep::parts).map(|step| match &step.kind {
            StepKind::Product { links, patches, panels, .. } => {
                panels.bytes() + links.bytes() + patches.as_ref().map_or(0, Patches::bytes)
            }
            StepKind::Columns { rows, panels, links } => rows.bytes() + panels.bytes() + links.bytes(),
            StepKind::Channelwise { links } | StepKind::Average { links } | StepKind::Maximum { links } => {
                links.bytes()
            }
            StepKind::Scaled { links, .. } => links.as_ref().map_or(0, Links::bytes),
            StepKind::Together(_)
            | StepKind::Within { .. }
            | StepKind::Matrices { .. }
            | StepKind::Spread { .. }
            | StepKind::Rearrange
            | StepKind::Segment { .. } => 0,
        });
        let live = self.maps.iter().map(|map| size_of_val(map.live.as_slice()));
        forward.chain(reverse).chain(live).sum()
    }

    /// Bytes that the masks and choices of one sample take at most.
    pub(crate) fn kept_bytes(&self) -> usize {
        let masks = self.masks.iter().map(|view| {
            let words = 4 * (view.channels.div_ceil(32) + 1);
            self.maps[view.map].positions * (words + 2 * view.channels + size_of::<usize>())
        });
        let choices = self.kernels.iter().map(|stage| match &stage.kind {
            KernelKind::Maximum { .. } => 2 * self.maps[stage.output.map].positions * stage.output.channels,
            _ => 0,
        });
        masks.chain(choices).sum()
    }
}

impl fmt::Display for MapView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{}[{}..{}]", self.map, self.offset, self.offset + self.channels)
    }
}

impl<T> fmt::Display for Kernel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.kind {
            KernelKind::Product { table, patches, .. } => {
                let how = if patches.is_some() { " by patches" } else { "" };
                format!("product over {} taps{how} of", table.taps())
            }
            KernelKind::Channelwise { table, .. } => {
                format!("channelwise product over {} taps of", table.taps())
            }
            KernelKind::Affine(Some(_)) => "scaled and shifted".into(),
            KernelKind::Affine(None) => "copy of".into(),
            KernelKind::Sum => "sum of".into(),
            KernelKind::Pointwise(chain) => {
                let parts: Vec<_> = chain.iter().map(|part| format!("{part:?}")).collect();
                format!("{} of", parts.join(", "))
            }
            KernelKind::Combine { how, .. } => format!("{how:?} of"),
            KernelKind::Elementwise { .. } => "each number scaled and shifted of".into(),
            KernelKind::Within(WithinRow::Softmax) => "softmax of".into(),
            KernelKind::Within(WithinRow::Standard { .. }) => "normalised rows of".into(),
            KernelKind::Matrices(matrices) => {
                format!("{} matrix products of", matrices.operands[2].corners.len())
            }
            KernelKind::Average { .. } => "means of".into(),
            KernelKind::Maximum { .. } => "maxima of".into(),
            KernelKind::Rearrange { .. } => "rearranged".into(),
            KernelKind::Segment(segment) => format!("segment {segment} on Burn's operations, from"),
        };
        write!(f, "{} = {what} {}", self.output, self.input)?;
        if let Some(other) = self.other {
            let sign = if self.adds_other() { "+" } else { "and" };
            write!(f, " {sign} {other}")?;
        }
        if let Some(mask) = self.relu {
            write!(f, ", relu with mask r{mask}")?;
        }
        write!(f, "  # {}", self.name)
    }
}

impl fmt::Display for CotangentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dense(view) => write!(f, "d{view}"),
            Self::Compressed(mask) => write!(f, "dr{mask}"),
        }
    }
}

impl<T> fmt::Display for ReverseStep<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.first { "=" } else { "+=" };
        match self.target {
            Sink::Plain(cotangent) => write!(f, "{cotangent} {sign} ")?,
            Sink::Through { view, .. } | Sink::Times { view, .. } => write!(f, "d{view} {sign} ")?,
        }
        for (index, part) in self.parts().iter().enumerate() {
            if index > 0 {
                f.write_str(" + ")?;
            }
            part.write_source(f)?;
        }
        Ok(())
    }
}

impl<T> ReverseStep<T> {
    /// What is handed on.
    fn write_source(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Sink::Through { mask, .. } => write!(f, "through r{mask} ")?,
            Sink::Times { slopes, .. } => write!(f, "{slopes} times ")?,
            Sink::Plain(_) => {}
        }
        match &self.kind {
            StepKind::Product { patches, identity, .. } => {
                let how = if patches.is_some() { " by patches" } else { "" };
                write!(f, "product{how} of {}", self.source)?;
                identity.map_or(Ok(()), |cotangent| write!(f, " + {cotangent}"))
            }
            StepKind::Together(parts) => write!(f, "{} products", parts.len()),
            StepKind::Columns { .. } => write!(f, "columns of {}", self.source),
            StepKind::Channelwise { .. } => write!(f, "channelwise product of {}", self.source),
            StepKind::Spread { scale: None } => write!(f, "{}", self.source),
            StepKind::Spread { scale: Some(_) } => write!(f, "scaled {}", self.source),
            StepKind::Average { .. } => write!(f, "{} over its windows", self.source),
            StepKind::Maximum { .. } => write!(f, "{} at its choices", self.source),
            StepKind::Rearrange => write!(f, "{} moved back", self.source),
            StepKind::Scaled { factor: Factor::Number(1.0), .. } => write!(f, "{}", self.source),
            StepKind::Scaled { factor: Factor::Number(factor), .. } => write!(f, "{factor} {}", self.source),
            StepKind::Scaled { factor: Factor::Values { view, .. }, .. } => {
                write!(f, "{} times {view}", self.source)
            }
            StepKind::Scaled { factor: Factor::Own, .. } => write!(f, "scaled {}", self.source),
            StepKind::Within { kept } => write!(f, "{} within rows, by {kept}", self.source),
            StepKind::Matrices { other, .. } => write!(f, "matrices of {} times {other}", self.source),
            StepKind::Segment { .. } => write!(f, "segment of {}", self.source),
        }
    }
}

impl<T> fmt::Display for Compiled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for map in self.maps.iter().enumerate() {
            let (id, RowMap { positions, pitch, live }) = map;
            writeln!(f, "m{id} {positions} x {pitch}, {} live", live.len())?;
        }
        self.kernels.iter().try_for_each(|stage| writeln!(f, "{stage}"))?;
        writeln!(f, "reverse:")?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}
