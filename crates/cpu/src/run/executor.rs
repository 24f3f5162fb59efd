//! The executor around what was compiled: loading, batches, logits, pullbacks and Gram matrices.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use burn::tensor::{DType, Device, TensorData};
use influence_autodiff::graph::{Graph, Origin};
use influence_autodiff::{
    Error, Executor, Footprint, Grams, Leaves, Linearized, Memory, Precision, Result, check, even_block,
    folded, quietly,
};

use super::arena::{Arena, Arenas};
use super::forward::{self, ForwardTrace};
use super::gram_costs;
use super::grams::{Squares, leading};
use super::memory::{self, SlotPlan};
use super::reverse::{CotangentBlock, ReversePass};
use super::segments::{Segments, numbers};
use super::work::{self, Work};
use crate::compile::compile;
use crate::compile::constants::Constants;
use crate::compile::ids::LeafId;
use crate::compile::program::{Compiled, ShownValue};
use crate::kernels::{
    FEW_LANES, InstructionSet, MANY_LANES, MOST_LINES, SimdFloat, carried, gram_of, has_few_lanes, in_lanes,
    lines_for,
};

/// Why a graph was not compiled for the CPU.
#[derive(Debug)]
pub enum NotCompiled {
    /// It has to run on another executor as a whole, for this reason.
    Unsupported(String),
    /// No executor can run it: its weights or its leaves are at fault.
    Fault(Error),
}

impl From<Error> for NotCompiled {
    fn from(error: Error) -> Self {
        Self::Fault(error)
    }
}

/// A graph compiled for the CPU.
#[derive(Debug)]
pub struct CpuExecutor {
    graph: Arc<Graph>,
    leaves: Leaves,
    set: InstructionSet,
    network: EitherNetwork,
}

/// The network in the precision that was asked for.
#[derive(Debug)]
enum EitherNetwork {
    Single(LoadedProgram<f32>),
    Double(LoadedProgram<f64>),
}

/// A compiled network with what its runs need.
#[derive(Debug)]
pub(super) struct LoadedProgram<T> {
    pub(super) compiled: Compiled<T>,
    /// The most cotangents at once whose rows are `[line][channel]`.
    pub(super) lines: usize,
    /// The memory plan, for as many lines or for rows in lanes.
    pub(super) slots: SlotPlan,
    pub(super) arenas: Arenas<T>,
    pub(super) segments: Segments,
}

impl<T: SimdFloat> LoadedProgram<T> {
    fn new(
        graph: &Arc<Graph>,
        leaves: &Leaves,
        precision: Precision,
        set: InstructionSet,
        device: &Device,
    ) -> Result<Self, NotCompiled> {
        let folded = folded(graph, device)?;
        let compiled = compile(graph, &Constants::new(graph, &folded), &leaves.ids().collect::<Vec<_>>())
            .map_err(NotCompiled::Unsupported)?;
        // A reverse pass takes K - 1 cotangents, in even blocks; Gram matrices may be asked for of
        // all K logits.
        let most = if compiled.perturbs_parameters {
            graph.classes().min(MOST_LINES)
        } else {
            evenly(graph.classes() - 1)
        };
        let lines = lines_for(set, most);
        let widest = if compiled.fits_lanes() { lanes(set, graph.classes() - 1, usize::MAX) } else { None };
        let slots = memory::plan(&compiled, widest.unwrap_or(lines));
        let segments = Segments::load(graph, &compiled.segments, lines, precision, device)?;
        Ok(Self { compiled, lines, slots, arenas: Arenas::default(), segments })
    }

    /// How many of the remaining cotangents the next reverse pass takes, and in how many lines.
    fn block(&self, set: InstructionSet, cotangents: usize) -> CotangentBlock {
        match lanes(set, cotangents, self.slots.lines) {
            Some(lines) => CotangentBlock { count: cotangents.min(carried(lines)), lines },
            None => {
                let count = evenly(cotangents).min(self.lines);
                CotangentBlock { count, lines: lines_for(set, count) }
            }
        }
    }
}

impl<T: SimdFloat> fmt::Display for LoadedProgram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.compiled.fmt(f)?;
        match self.slots.lines {
            lines if in_lanes(lines) => {
                writeln!(f, "up to {} cotangents at once, in lanes", carried(lines))
            }
            _ => Ok(()),
        }
    }
}

impl<T: Number> LoadedProgram<T> {
    /// Bytes per sample: its slots, what kernels copy, its masks and choices, its rows of the
    /// Jacobian (twice: in the batch, and for each sample as they are handed on), what segments
    /// take, and what goes into the matrices of its tensors.
    fn sample_bytes(&self) -> usize {
        let Self { compiled, slots, .. } = self;
        let input = compiled.input.channels * compiled.map(compiled.input.map).positions;
        let rows = 2 * compiled.output.channels * input;
        let numbers = slots.sizes.iter().sum::<usize>() + slots.copied + rows;
        let grams = if compiled.perturbs_parameters { gram_costs::bytes(compiled, self.lines) } else { 0 };
        let [_, segments] = self.segments.bytes();
        numbers * size_of::<T>() + compiled.kept_bytes() + grams + segments
    }

    /// Plans the memory for fewer lines in lanes, or none, as long as that lets more samples run
    /// side by side.
    fn within(&mut self, set: InstructionSet, limit: Memory, threads: usize) {
        let room = limit.bytes().saturating_sub(self.fixed_bytes());
        let side_by_side = |sample: usize| (room / sample.max(1)).min(threads);
        while in_lanes(self.slots.lines) {
            let so_far = side_by_side(self.sample_bytes());
            let fewer = lanes(set, self.compiled.output.channels - 1, self.slots.lines - 1);
            let narrower = memory::plan(&self.compiled, fewer.unwrap_or(self.lines));
            let wider = std::mem::replace(&mut self.slots, narrower);
            if side_by_side(self.sample_bytes()) == so_far {
                self.slots = wider;
                return;
            }
        }
    }

    fn fixed_bytes(&self) -> usize {
        let [segments, _] = self.segments.bytes();
        self.compiled.fixed_bytes() + segments
    }
}

impl CpuExecutor {
    /// Compiles a graph for perturbations of the input, for the widest instruction set of this CPU
    /// unless another is given. Operations without a kernel run as segments on `device`, by Burn's
    /// operations.
    ///
    /// # Errors
    /// [`NotCompiled::Unsupported`] for a graph that has to run on another executor as a whole;
    /// [`Error::NonFinite`] with the name of the first tensor that holds NaN or infinity; the
    /// errors of planning and loading segments.
    pub fn new(
        graph: Arc<Graph>,
        precision: Precision,
        set: Option<InstructionSet>,
        device: &Device,
    ) -> Result<Self, NotCompiled> {
        Self::perturbing(graph, Leaves::input(), precision, set, device)
    }

    /// Compiles a graph as [`CpuExecutor::new`] does, for perturbations of any leaves.
    ///
    /// # Errors
    /// As [`CpuExecutor::new`]; [`Error::InvalidArgument`] for leaves that the graph does not have.
    pub fn perturbing(
        graph: Arc<Graph>,
        leaves: Leaves,
        precision: Precision,
        set: Option<InstructionSet>,
        device: &Device,
    ) -> Result<Self, NotCompiled> {
        leaves.check(&graph)?;
        for (_, constant) in graph.constants() {
            if constant.data.dtype().is_float() {
                check::weight(constant, precision.dtype())?;
            }
        }
        let set = set.unwrap_or_else(InstructionSet::detect);
        let network = match precision {
            Precision::F32 => {
                LoadedProgram::new(&graph, &leaves, precision, set, device).map(EitherNetwork::Single)
            }
            Precision::F64 => {
                LoadedProgram::new(&graph, &leaves, precision, set, device).map(EitherNetwork::Double)
            }
        };
        Ok(Self { graph, leaves, set, network: network? })
    }

    /// This executor within a memory limit, for this many threads. Rows in lanes take several times
    /// as much memory as others. Where fewer samples could then run side by side, they are not
    /// taken.
    #[must_use]
    pub fn within(mut self, limit: Memory, threads: usize) -> Self {
        match &mut self.network {
            EitherNetwork::Single(loaded) => loaded.within(self.set, limit, threads),
            EitherNetwork::Double(loaded) => loaded.within(self.set, limit, threads),
        }
        self
    }

    /// Bytes that a run takes whatever the number of samples: the weights, packed for both passes,
    /// and the tables that say which row reads which.
    #[must_use]
    pub fn fixed_bytes(&self) -> usize {
        match &self.network {
            EitherNetwork::Single(loaded) => loaded.fixed_bytes(),
            EitherNetwork::Double(loaded) => loaded.fixed_bytes(),
        }
    }

    /// How many samples to run together: as many as take about two thirds of the memory of the
    /// weights, between 1 and [`CPU_BATCH`].
    ///
    /// What does not fit the caches is read from memory again: with too few samples the weights,
    /// for every batch; with too many the samples' values, for every layer. (DenseNet121 with 2 or
    /// 3 samples together takes 0.9 times as long as with 4 or 6.) One sample where the values of
    /// all layers are kept for the gradients of parameters: there most of the time goes into a
    /// sample's matrices, and more samples take memory and gain nothing.
    #[must_use]
    pub fn batch(&self) -> usize {
        if !self.leaves.indices().is_empty() {
            return 1;
        }
        (2 * self.fixed_bytes().max(CACHE_BYTES) / (3 * self.sample_bytes()).max(1)).clamp(1, CPU_BATCH)
    }

    /// What runs take.
    #[must_use]
    pub fn footprint(&self) -> Footprint {
        Footprint { fixed: self.fixed_bytes(), sample: self.sample_bytes(), batch: self.batch() }
    }

    /// How many operations the reverse pass does at `batch` `[n, ...sample]`, compared with a dense
    /// one.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape.
    pub fn reverse_work(&self, batch: TensorData) -> Result<Work> {
        self.check_batch(&batch)?;
        Ok(match &self.network {
            EitherNetwork::Single(loaded) => linearized(self, loaded, batch)?.work(),
            EitherNetwork::Double(loaded) => linearized(self, loaded, batch)?.work(),
        })
    }

    /// Refuses a batch without samples, or of another shape than the network's input.
    fn check_batch(&self, batch: &TensorData) -> Result<()> {
        let samples = check::first_axis(batch);
        if samples == 0 {
            return Err(Error::InvalidArgument("a batch needs at least one sample".into()));
        }
        check::shape("batch", batch.shape(), &self.graph.values()[self.graph.input()].shape_at(samples))
    }

    /// Bytes that a run takes at most for each sample: values, masks and cotangents, as if no ReLU
    /// switched anything off.
    #[must_use]
    pub fn sample_bytes(&self) -> usize {
        match &self.network {
            EitherNetwork::Single(loaded) => loaded.sample_bytes(),
            EitherNetwork::Double(loaded) => loaded.sample_bytes(),
        }
    }
}

impl fmt::Display for CpuExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.network {
            EitherNetwork::Single(loaded) => loaded.fmt(f),
            EitherNetwork::Double(loaded) => loaded.fmt(f),
        }
    }
}

impl Executor for CpuExecutor {
    fn name(&self) -> String {
        let segments = match &self.network {
            EitherNetwork::Single(loaded) => loaded.compiled.segments.len(),
            EitherNetwork::Double(loaded) => loaded.compiled.segments.len(),
        };
        match segments {
            0 => format!("cpu ({})", self.set),
            1 => format!("cpu ({}; 1 segment on Burn's operations)", self.set),
            count => format!("cpu ({}; {count} segments on Burn's operations)", self.set),
        }
    }

    fn describe(&self) -> String {
        self.to_string()
    }

    fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>> {
        self.check_batch(&batch)?;
        Ok(match &self.network {
            EitherNetwork::Single(loaded) => Box::new(linearized(self, loaded, batch)?),
            EitherNetwork::Double(loaded) => Box::new(linearized(self, loaded, batch)?),
        })
    }

    fn logits(&self, batch: TensorData) -> Result<TensorData> {
        self.check_batch(&batch)?;
        match &self.network {
            EitherNetwork::Single(loaded) => logits(self, loaded, batch),
            EitherNetwork::Double(loaded) => logits(self, loaded, batch),
        }
    }

    fn observe(&self, batch: TensorData, look: &mut dyn FnMut(usize, TensorData)) -> Result<()> {
        self.check_batch(&batch)?;
        match &self.network {
            EitherNetwork::Single(loaded) => observe(self, loaded, batch, look),
            EitherNetwork::Double(loaded) => observe(self, loaded, batch, look),
        }
    }

    fn most_cotangents(&self) -> usize {
        match &self.network {
            EitherNetwork::Single(loaded) => loaded.lines,
            EitherNetwork::Double(loaded) => loaded.lines,
        }
    }
}

/// A forward pass of which nothing is kept.
fn logits<T: Number>(
    executor: &CpuExecutor,
    loaded: &LoadedProgram<T>,
    batch: TensorData,
) -> Result<TensorData> {
    let (trace, arena) = forward(executor, loaded, batch, false)?;
    loaded.arenas.give(arena);
    Ok(TensorData::new(trace.logits, [trace.samples, executor.graph.classes()]))
}

/// A forward pass that shows every value it computes.
fn observe<T: Number>(
    executor: &CpuExecutor,
    loaded: &LoadedProgram<T>,
    batch: TensorData,
    look: &mut dyn FnMut(usize, TensorData),
) -> Result<()> {
    let (graph, samples) = (&executor.graph, batch.shape()[0]);
    let batch = batch.convert_dtype(T::DTYPE);
    let show = |forward: &forward::ForwardPass<'_, T>, shown: &ShownValue| {
        let value = &graph.values()[shown.value];
        if let (Origin::Node(node), Some(numbers)) = (&value.origin, forward.numbers(shown)) {
            let numbers = interleaved(&numbers, samples, shown.view.shape.before_batch());
            look(*node, TensorData::new(numbers, value.shape_at(samples)));
        }
    };
    let input = numbers::<T>(&batch)?;
    let (_, arena) = guarded(|| forward::observed(loaded, executor.set, input, samples, false, show))?;
    loaded.arenas.give(arena);
    Ok(())
}

/// Values of samples one after the other as one value whose batch axis has `outer` elements before
/// it.
fn interleaved<T: Copy>(values: &[T], samples: usize, outer: usize) -> Vec<T> {
    let inner = values.len() / (samples * outer);
    let part = |outer_index: usize, sample: usize| &values[(sample * outer + outer_index) * inner..][..inner];
    let pairs = (0..outer).flat_map(|outer| (0..samples).map(move |sample| (outer, sample)));
    pairs.flat_map(|(outer, sample)| part(outer, sample)).copied().collect()
}

fn forward<T: Number>(
    executor: &CpuExecutor,
    loaded: &LoadedProgram<T>,
    batch: TensorData,
    masked: bool,
) -> Result<(ForwardTrace<T>, Arena<T>)> {
    let batch = batch.convert_dtype(T::DTYPE);
    let input = numbers::<T>(&batch)?;
    guarded(|| forward::run(loaded, executor.set, input, batch.shape()[0], masked))
}

/// Runs kernels; a panic in one becomes an error.
fn guarded<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    quietly(work).unwrap_or_else(|message| Err(Error::Execution { node: "our own kernels".into(), message }))
}

/// The forward pass, and what a reverse pass needs of it.
fn linearized<'a, T: Number>(
    executor: &'a CpuExecutor,
    loaded: &'a LoadedProgram<T>,
    batch: TensorData,
) -> Result<CpuLinearized<'a, T>> {
    let (trace, arena) = forward(executor, loaded, batch, true)?;
    let kept = RefCell::new(None);
    let linearized = CpuLinearized { executor, loaded, trace, kept };
    linearized.give(arena);
    Ok(linearized)
}

/// A float type that our kernels, Burn and faer have in common.
pub(super) trait Number: SimdFloat + burn::tensor::Element + faer::traits::RealField {
    const DTYPE: DType;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
}

impl Number for f64 {
    const DTYPE: DType = DType::F64;
}

/// A batch's logits and masks.
#[derive(Debug)]
struct CpuLinearized<'a, T: SimdFloat> {
    executor: &'a CpuExecutor,
    loaded: &'a LoadedProgram<T>,
    trace: ForwardTrace<T>,
    /// The arena with the values of the forward pass, where the reverse pass or gradients of
    /// parameters read them.
    kept: RefCell<Option<Arena<T>>>,
}

impl<T: Number> CpuLinearized<'_, T> {
    /// An arena for a reverse pass: the one with the values, where they are kept.
    fn take(&self) -> Arena<T> {
        let LoadedProgram { slots, arenas, .. } = self.loaded;
        self.kept.take().unwrap_or_else(|| arenas.take(&slots.sizes, slots.slack, self.trace.samples))
    }

    /// Takes an arena back, for the next pass.
    fn give(&self, arena: Arena<T>) {
        if self.loaded.compiled.keeps_any() {
            self.kept.replace(Some(arena));
        } else {
            self.loaded.arenas.give(arena);
        }
    }

    fn work(&self) -> Work {
        work::count(&self.loaded.compiled, &self.trace)
    }

    /// V, and cotangents `[V, n, K]` in the precision of the run.
    fn checked(&self, cotangents: TensorData) -> Result<(usize, TensorData)> {
        let (samples, classes) = (self.trace.samples, self.executor.graph.classes());
        let count = check::first_axis(&cotangents);
        check::shape("cotangents", cotangents.shape(), &[count, samples, classes])?;
        if count == 0 {
            return Err(Error::InvalidArgument("a pullback needs at least one cotangent".into()));
        }
        Ok((count, cotangents.convert_dtype(T::DTYPE)))
    }

    /// A reverse pass that starts with a block of cotangents.
    fn reverse<'r>(
        &'r self,
        cotangents: &[T],
        block: CotangentBlock,
        asked: &'r [LeafId],
    ) -> ReversePass<'r, T> {
        ReversePass::new(self.loaded, self.executor.set, &self.trace, self.take(), cotangents, block, asked)
    }
}

impl<T: SimdFloat> Drop for CpuLinearized<'_, T> {
    fn drop(&mut self) {
        if let Some(arena) = self.kept.take() {
            self.loaded.arenas.give(arena);
        }
    }
}

/// Bytes that the last-level cache of a CPU holds at least. A network with smaller weights runs as
/// many samples together as take two thirds of this. If it is too small, weights are read again for
/// fewer samples; if it is too large, the samples' values leave the cache between layers.
const CACHE_BYTES: usize = 16 << 20;

/// How many samples run together at most.
pub const CPU_BATCH: usize = 8;

/// Cotangents from which on a block of [`MANY_LANES`] is taken. On AVX-512 three blocks of nine
/// lines take 1.2 times as long, and three of seven as long. Elsewhere it takes as long as two
/// blocks of [`FEW_LANES`].
fn least_in_many(set: InstructionSet) -> usize {
    if has_few_lanes(set) { 2 * carried(FEW_LANES) + 1 } else { 22 }
}

/// Cotangents from which on a block of [`FEW_LANES`] is taken, on sets that have kernels for it. On
/// AVX2 it takes 0.6 to 0.9 of the time of nine lines in windows, as long as seven. Without windows
/// it takes as many products as five lines, whose inactive channels are computed.
fn least_in_few(set: InstructionSet) -> usize {
    if set == InstructionSet::Avx2 { 8 } else { 4 }
}

/// The lines of the widest rows in lanes that pay for so many cotangents, with at most so many
/// lines.
fn lanes(set: InstructionSet, cotangents: usize, most: usize) -> Option<usize> {
    let many = cotangents >= least_in_many(set);
    let few = cotangents >= least_in_few(set) && has_few_lanes(set);
    let widths = [(MANY_LANES, many), (FEW_LANES, few)];
    widths.into_iter().find(|(lines, pays)| *pays && *lines <= most).map(|(lines, _)| lines)
}

/// How many cotangents to take at a time so that the passes are few and evenly filled.
fn evenly(cotangents: usize) -> usize {
    even_block(cotangents, MOST_LINES)
}

impl<T: Number> Linearized for CpuLinearized<'_, T> {
    fn logits(&self) -> Result<TensorData> {
        Ok(TensorData::new(self.trace.logits.clone(), [self.trace.samples, self.executor.graph.classes()]))
    }

    fn pullback(&self, cotangents: TensorData) -> Result<TensorData> {
        let (graph, samples) = (&self.executor.graph, self.trace.samples);
        let (count, cotangents) = self.checked(cotangents)?;
        let all = numbers::<T>(&cotangents)?;
        let size = samples * graph.classes();
        let shape = graph.values()[graph.input()].shape_at(samples);
        let mut rows = Vec::with_capacity(count * shape.iter().product::<usize>());
        // A reverse pass for each block of cotangents.
        let mut rest: &[T] = all;
        while !rest.is_empty() {
            let block = self.loaded.block(self.executor.set, rest.len() / size);
            let (own, behind) = rest.split_at(block.count * size);
            rest = behind;
            let mut reverse = self.reverse(own, block, &[]);
            guarded(|| reverse.run(true, |_, _| {}))?;
            rows.extend(reverse.input());
            self.give(reverse.into_arena());
        }
        let shape: Vec<usize> = std::iter::once(count).chain(shape).collect();
        Ok(TensorData::new(rows, shape))
    }

    fn grams(&self, cotangents: TensorData, tensors: &[usize]) -> Result<Grams> {
        let (leaves, samples) = (&self.executor.leaves, self.trace.samples);
        leaves.check_asked(tensors)?;
        let (count, cotangents) = self.checked(cotangents)?;
        let most = self.loaded.lines;
        if count > most {
            return Err(Error::InvalidArgument(format!("{count} cotangents, at most {most} at a time")));
        }
        let all = numbers::<T>(&cotangents)?;
        let tensors: Vec<LeafId> = tensors.iter().copied().map(LeafId::new).collect();
        let wanted = |tensor: LeafId| tensors.binary_search(&tensor).ok();
        let lines = lines_for(self.executor.set, count);
        let grams = vec![0.0; tensors.len() * samples * lines.pow(2)];
        let mut squares = Squares { wanted: &wanted, grams };
        let mut reverse = self.reverse(all, CotangentBlock { count, lines }, &tensors);
        guarded(|| reverse.run(leaves.has_input(), |reverse, step| squares.visit(reverse, step)))?;
        for (tensor, sample, gram) in std::mem::take(&mut reverse.given) {
            squares.take(tensor, [sample, samples], &gram);
        }
        let input = leaves.has_input().then(|| of_input(self.executor.set, &reverse.input(), count, samples));
        self.give(reverse.into_arena());
        // The matrices without the lines of zeros.
        let matrices = squares.grams.chunks_exact(lines.pow(2));
        let tensors = matrices.flat_map(|matrix| leading(matrix, lines, count)).collect();
        Ok(Grams { samples, cotangents: count, tensors, input })
    }
}

/// `[n, V, V]` of rows `[V, n, ...]`.
fn of_input<T: Number>(set: InstructionSet, rows: &[T], lines: usize, samples: usize) -> Vec<f64> {
    let size = rows.len() / (lines * samples);
    let row = |line: usize, sample: usize| &rows[(line * samples + sample) * size..][..size];
    let of_sample = |sample: usize| {
        let own: Vec<T> = (0..lines).flat_map(|line| row(line, sample)).copied().collect();
        gram_of(set, &own, lines)
    };
    (0..samples).flat_map(of_sample).collect()
}
