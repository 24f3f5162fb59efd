//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by: no gradient is ever held.
//!
//! StageSample each stage the reverse pass has the cotangents g of its results, and the forward pass has left the rows x that it reads. Of a product's
//! weight there are three forms, and the one with the fewest operations is taken: *tiles* of the gradient in registers ([`TileGram`]), the same
//! by *patches* in Winograd's form, or by *pairs* of positions ([`PairGram`]).

use crate::kernels::{
    self, ByChannel, DenseRows, Normalized, PairGram, Patches, RowTable, TileGram, gram_of,
};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::executor::Number;
use super::reverse::ReversePass;
use crate::compile::program::{
    Compiled, CotangentRef, Kernel, KernelKind, KernelNorm, KernelTensors, ReverseStep, StepKind,
};
use crate::compile::weights::FEW_CHANNELS;

/// Matrices under way.
pub(super) struct Squares<'a> {
    /// The places of the wanted tensors among those asked for.
    pub(super) wanted: &'a dyn Fn(usize) -> Option<usize>,
    /// `[tensor][sample][V, V]`.
    pub(super) grams: Vec<f64>,
}

impl Squares<'_> {
    /// Takes the matrices of a stage's tensors when the reverse pass comes to the step that pulls it back.
    pub(super) fn visit<T: Number>(&mut self, reverse: &ReversePass<'_, T>, step: &ReverseStep<T>) {
        let stage = &reverse.compiled.kernels[step.stage];
        let Some(tensors) = &stage.tensors else { return };
        let is_own = match (&stage.kind, &step.kind) {
            (KernelKind::Product { .. }, StepKind::Product { .. } | StepKind::Columns { .. }) => true,
            (KernelKind::Affine(_), StepKind::Spread { scale }) => scale.is_some(),
            _ => false,
        };
        if !is_own {
            return;
        }
        if !tensors.tensors().any(|tensor| (self.wanted)(tensor).is_some()) {
            return;
        }
        for sample in 0..reverse.trace.samples {
            let at = StageSample::new(reverse, stage, step.source, sample);
            self.product(&at, tensors);
            self.channels(&at, tensors);
        }
    }

    /// The matrix of a tensor that was computed elsewhere, at a sample of so many.
    pub(super) fn take(&mut self, tensor: usize, [sample, samples]: [usize; 2], gram: &[f64]) {
        if let Some(place) = (self.wanted)(tensor) {
            self.grams[(place * samples + sample) * gram.len()..][..gram.len()].copy_from_slice(gram);
        }
    }

    /// Where the matrix of a tensor goes, if it is wanted.
    fn matrix<T>(&mut self, at: &StageSample<'_, T>, tensor: Option<usize>) -> Option<&mut [f64]> {
        let (place, size) = ((self.wanted)(tensor?)?, at.reverse.lines.pow(2));
        Some(&mut self.grams[(place * at.reverse.trace.samples + at.results.sample) * size..][..size])
    }

    fn product<T: Number>(&mut self, at: &StageSample<'_, T>, tensors: &KernelTensors<T>) {
        let KernelKind::Product { table, .. } = &at.stage.kind else { return };
        let scale = tensors.norm.as_ref().map(|norm| norm.affine[0].as_slice());
        if let Some(matrix) = self.matrix(at, tensors.weight) {
            let kernels::SampleCotangents { lines, live, .. } = at.results;
            let costs = GramCosts::new(at.stage, table, tensors.patches.as_ref(), live.len(), lines);
            let gram = match costs.form(at.results.count()) {
                GramForm::Pairs => at.by_pairs(table, scale),
                GramForm::Tiles => at.by_tiles(table, None, scale),
                GramForm::Patches => at.by_tiles(table, tensors.patches.as_ref(), scale),
            };
            matrix.copy_from_slice(&gram);
        }
    }

    /// What each channel has for itself: biases, and the tensors of a batch normalisation.
    fn channels<T: Number>(&mut self, at: &StageSample<'_, T>, tensors: &KernelTensors<T>) {
        let (set, lines) = (at.reverse.set, at.reverse.lines);
        let norm = tensors.norm.as_ref();
        let own = [tensors.bias, norm.and_then(|norm| norm.gamma), norm.and_then(|norm| norm.beta)];
        if !own.into_iter().flatten().any(|tensor| (self.wanted)(tensor).is_some()) {
            return;
        }
        let normalized = norm.map(|norm| {
            let rows = at.reverse.values(norm.rows);
            Normalized { rows, mean: &norm.mean, inverse: &norm.inverse }
        });
        let [mut sums, moments] = at.results.sums(set, normalized);
        if let Some(matrix) = self.matrix(at, norm.and_then(|norm| norm.beta)) {
            matrix.copy_from_slice(&gram_of(set, &sums, lines));
        }
        if let Some(norm) = norm
            && let Some(matrix) = self.matrix(at, norm.gamma)
        {
            matrix.copy_from_slice(&gram_of(set, &moments, lines));
        }
        if let Some(matrix) = self.matrix(at, tensors.bias) {
            if let Some(KernelNorm { affine: [scale, _], .. }) = norm {
                for line in sums.chunks_exact_mut(scale.len()) {
                    line.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= scale.to_f64());
                }
            }
            matrix.copy_from_slice(&gram_of(set, &sums, lines));
        }
    }
}

/// How the Gram matrix of a weight's gradients is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GramForm {
    Tiles,
    Patches,
    Pairs,
}

/// Operations that each form takes, at the rate of full vectors.
struct GramCosts {
    outputs: usize,
    /// Of a tile's squares, for all outputs.
    squares: usize,
    /// Of each active cotangent of a line.
    tile: usize,
    patches: Option<usize>,
    /// The inner products of what positions read.
    inner: usize,
}

/// What the sum over a tile's patches is followed by takes as long as so many patches more: all taps of it are transformed and squared.
const TRANSFORM: usize = 11;

/// The squares of a tile take as long as so many operations for each number of a line.
const SQUARES: usize = 220;

/// A pair of positions, an active position and an output take as long as so many operations.
const PAIR: usize = 40;
const ENTRY: usize = 350;
const OUTPUT: usize = 3000;

impl GramCosts {
    fn new<T>(
        stage: &Kernel<T>,
        table: &RowTable,
        patches: Option<&Patches>,
        positions: usize,
        lines: usize,
    ) -> Self {
        let (inputs, outputs) = (stage.input.channels, stage.output.channels);
        let read = inputs * table.taps();
        let of_patches = |patches: &Patches| {
            2 * lines * outputs * inputs * patches.frequencies() * (patches.count() + TRANSFORM)
        };
        let products = if by_sources(table, positions) {
            table.source_rows().pow(2) * inputs + positions.pow(2) * table.taps()
        } else {
            positions.pow(2) * read
        };
        Self {
            outputs,
            squares: outputs * read * SQUARES,
            tile: 2 * lines * read,
            patches: patches.map(of_patches),
            inner: 2 * products,
        }
    }

    fn tiles(&self, count: usize) -> usize {
        self.squares + count * self.tile
    }

    fn pairs(&self, count: usize) -> usize {
        let each = count / self.outputs.max(1);
        self.inner + self.outputs * (each.pow(2) / 2 * PAIR + each * ENTRY + OUTPUT)
    }

    /// The form that takes the fewest with so many active cotangents a line.
    fn form(&self, count: usize) -> GramForm {
        let (tiles, pairs) = (self.tiles(count), self.pairs(count));
        match self.patches {
            Some(patches) if patches < tiles.min(pairs) => GramForm::Patches,
            _ if pairs < tiles => GramForm::Pairs,
            _ => GramForm::Tiles,
        }
    }

    /// Whether pairs may take the fewest with up to so many.
    fn may_take_pairs(&self, most: usize) -> bool {
        (1..=SHARES).any(|share| self.form(most * share / SHARES) == GramForm::Pairs)
    }
}

/// Shares of all cotangents at which a plan looks.
const SHARES: usize = 64;

/// Whether it takes fewer operations to multiply all rows that a layer reads with one another than those of each tap by themselves.
fn by_sources(table: &RowTable, positions: usize) -> bool {
    table.source_rows().pow(2) <= table.taps() * positions.pow(2)
}

/// Numbers that are read behind the last column.
const COLUMNS_PAD: usize = 32;

/// Bytes that the matrices of one sample's tensors take while they are computed, at most.
pub(super) fn bytes<T: Number>(compiled: &Compiled<T>, lines: usize) -> usize {
    let of_stage = |stage: &Kernel<T>| {
        let (KernelKind::Product { table, .. }, Some(tensors)) = (&stage.kind, &stage.tensors) else {
            return 0;
        };
        if tensors.weight.is_none() {
            return 0;
        }
        let (positions, width) = (compiled.maps[stage.output.map].live.len(), stage.output.channels);
        let entries = positions * width;
        let tiles = entries * (lines * size_of::<T>() + size_of::<u32>())
            + positions * table.taps() * size_of::<Option<usize>>()
            + match stage.input.channels {
                few if few < FEW_CHANNELS => (positions * table.taps() * few + COLUMNS_PAD) * size_of::<T>(),
                _ => 0,
            };
        let patches = tensors.patches.as_ref();
        let costs = GramCosts::new(stage, table, patches, positions, lines);
        let pairs = if costs.may_take_pairs(entries) {
            let sources = if by_sources(table, positions) { table.source_rows().pow(2) } else { 0 };
            (positions.pow(2) + sources + positions * stage.input.channels) * size_of::<T>()
        } else {
            0
        };
        tiles
            + pairs
                .max(patches.map_or(0, |patches| TileGram::<T>::bytes(patches, stage.input.channels, lines)))
    };
    compiled.kernels.iter().map(of_stage).max().unwrap_or(0)
}

/// A stage at one sample, its cotangent complete.
struct StageSample<'a, T> {
    reverse: &'a ReversePass<'a, T>,
    stage: &'a Kernel<T>,
    /// The cotangents of its results.
    results: kernels::SampleCotangents<'a, T>,
}

impl<'a, T: Number> StageSample<'a, T> {
    fn new(
        reverse: &'a ReversePass<'a, T>,
        stage: &'a Kernel<T>,
        source: CotangentRef,
        sample: usize,
    ) -> Self {
        let map = &reverse.compiled.maps[stage.output.map];
        let source = reverse.cotangents(source);
        let (lines, rows) = (reverse.lines, map.positions);
        Self {
            reverse,
            stage,
            results: kernels::SampleCotangents { source, lines, rows, live: &map.live, sample },
        }
    }

    fn by_tiles(&self, table: &RowTable, patches: Option<&Patches>, scale: Option<&[T]>) -> Vec<f64> {
        let (rows, entries) = (self.reverse.values(self.stage.input), ByChannel::new(self.results));
        let (set, kernels::SampleCotangents { live, sample, .. }) = (self.reverse.set, self.results);
        if table.taps() == 1 || rows.channels >= FEW_CHANNELS {
            return TileGram { table, patches, rows, live, entries: &entries, scale }.gram(set, sample);
        }
        // Side by side the taps fill vectors that the channels of one would leave empty.
        let values = self.columns(table, rows);
        let channels = table.taps() * rows.channels;
        let rows = DenseRows { values: &values, pitch: channels, offset: 0, channels };
        let (table, live) = (RowTable::identity(live.len()), Vec::from_iter(0..live.len()));
        TileGram { table: &table, patches: None, rows, live: &live, entries: &entries, scale }.gram(set, 0)
    }

    /// What each live position reads by all taps, `[position][tap][channel]`, and room for two vectors.
    fn columns(&self, table: &RowTable, rows: DenseRows<'_, T>) -> Vec<T> {
        let width = table.taps() * rows.channels;
        let mut columns = vec![T::default(); self.results.live.len() * width + COLUMNS_PAD];
        for (at, &position) in self.results.live.iter().enumerate() {
            for (tap, out) in columns[at * width..][..width].chunks_exact_mut(rows.channels).enumerate() {
                if let Some(read) = self.read(table, rows, position, tap) {
                    out.copy_from_slice(read);
                }
            }
        }
        columns
    }

    /// The row that a position reads by a tap.
    fn read<'r>(
        &self,
        table: &RowTable,
        rows: DenseRows<'r, T>,
        position: usize,
        tap: usize,
    ) -> Option<&'r [T]> {
        let from = table.source(position, tap)?;
        Some(rows.row(self.results.sample * table.source_rows() + from))
    }

    fn by_pairs(&self, table: &RowTable, scale: Option<&[T]>) -> Vec<f64> {
        let (positions, entries) = (self.results.live.len(), ByChannel::new(self.results));
        let rows = self.reverse.values(self.stage.input);
        let inner = if by_sources(table, positions) {
            self.inner_by_sources(table, rows)
        } else {
            self.inner_by_taps(table, rows)
        };
        PairGram { inner: &inner, positions, entries: &entries, scale }.gram(self.reverse.set)
    }

    /// x(p) . x(q) for all live positions p, q: the sum over the taps.
    fn inner_by_taps(&self, table: &RowTable, rows: DenseRows<'_, T>) -> Vec<T> {
        let (live, inputs) = (self.results.live, rows.channels);
        let mut inner = vec![T::default(); live.len() * live.len()];
        let mut read = vec![T::default(); live.len() * inputs];
        for tap in 0..table.taps() {
            for (out, &position) in read.chunks_exact_mut(inputs).zip(live) {
                match self.read(table, rows, position, tap) {
                    Some(read) => out.copy_from_slice(read),
                    None => out.fill(T::default()),
                }
            }
            add_products(&mut inner, MatRef::from_row_major_slice(&read, live.len(), inputs));
        }
        inner
    }

    /// The same by the products of all rows that are read with one another; for each position, those with the positions before it.
    fn inner_by_sources(&self, table: &RowTable, rows: DenseRows<'_, T>) -> Vec<T> {
        let (live, sources) = (self.results.live, table.source_rows());
        let first = self.results.sample * sources * rows.pitch + rows.offset;
        let values = &rows.values[first..][..(sources - 1) * rows.pitch + rows.channels];
        let mut products = vec![T::default(); sources * sources];
        let read = MatRef::from_row_major_slice_with_stride(values, sources, rows.channels, rows.pitch);
        add_products(&mut products, read);
        if table.is_identity() && live.len() == sources {
            return products;
        }
        let mut inner = vec![T::default(); live.len() * live.len()];
        for tap in 0..table.taps() {
            let runs = runs(table, live, tap);
            for (out, &position) in inner.chunks_exact_mut(live.len()).zip(live) {
                let Some(source) = table.source(position, tap) else { continue };
                let products = &products[source * sources..][..sources];
                for &NeighbourRun { place, source, length } in &runs {
                    if live[place] > position {
                        break;
                    }
                    let run = out[place..].iter_mut().zip(&products[source..][..length]);
                    run.for_each(|(sum, product)| *sum += *product);
                }
            }
        }
        inner
    }
}

/// Neighbours among the live positions that read neighbouring rows.
struct NeighbourRun {
    /// The first among the live positions.
    place: usize,
    /// What it reads.
    source: usize,
    length: usize,
}

/// What the live positions read by a tap.
fn runs(table: &RowTable, live: &[usize], tap: usize) -> Vec<NeighbourRun> {
    let mut runs: Vec<NeighbourRun> = Vec::new();
    for (place, &position) in live.iter().enumerate() {
        let Some(source) = table.source(position, tap) else { continue };
        match runs.last_mut() {
            Some(run) if (run.place + run.length, run.source + run.length) == (place, source) => {
                run.length += 1;
            }
            _ => runs.push(NeighbourRun { place, source, length: 1 }),
        }
    }
    runs
}

/// The inner products of all rows with one another are added.
fn add_products<T: Number>(out: &mut [T], rows: MatRef<'_, T>) {
    let out = MatMut::from_row_major_slice_mut(out, rows.nrows(), rows.nrows());
    matmul(out, Accum::Add, rows, rows.transpose(), T::from_f64(1.0), Par::Seq);
}
