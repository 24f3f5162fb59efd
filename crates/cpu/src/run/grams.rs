//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by: no gradient is
//! ever held.
//!
//! At each kernel the reverse pass has the cotangents g of its results, and the forward pass has
//! left the rows x that it reads. Of a product's weight there are three forms, and the one with the
//! fewest operations is taken ([`GramCosts`]): *tiles* of the gradient in registers ([`TileGram`]),
//! the same by *patches* in Winograd's form, or by *pairs* of positions ([`PairGram`]). The
//! gradients of per-channel parameters (biases, gamma, beta) are sums over positions.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::executor::Number;
use super::gram_costs::{COLUMNS_PAD, GramCosts, GramForm, by_sources};
use super::reverse::ReversePass;
use crate::compile::ids::LeafId;
use crate::compile::program::{Kernel, KernelKind, KernelNorm, KernelTensors};
use crate::compile::steps::{CotangentRef, ReverseStep, StepKind};
use crate::compile::weights::FEW_CHANNELS;
use crate::kernels::{
    ByChannel, DenseRows, Normalized, PairGram, Patches, RowTable, SampleCotangents, TileGram, gram_of,
};

/// Matrices under way.
pub(super) struct Squares<'a> {
    /// The index of a tensor among those asked for, if it is one of them.
    pub(super) wanted: &'a dyn Fn(LeafId) -> Option<usize>,
    /// `[tensor][sample][V, V]`.
    pub(super) grams: Vec<f64>,
}

impl Squares<'_> {
    /// Takes the matrices of a kernel's tensors when the reverse pass comes to the step that pulls
    /// it back.
    pub(super) fn visit<T: Number>(&mut self, reverse: &ReversePass<'_, T>, step: &ReverseStep<T>) {
        let kernel = reverse.compiled.kernel(step.kernel);
        let Some(tensors) = &kernel.tensors else { return };
        // A kernel may be pulled back by several steps, and steps of the same kernel may only hand
        // on what was added to its result. The matrices are taken at the one that multiplies by the
        // tensors.
        let is_own = match (&kernel.kind, &step.kind) {
            (KernelKind::Product { .. }, StepKind::Product { .. } | StepKind::Columns { .. }) => true,
            (KernelKind::Affine(_), StepKind::Spread { scale }) => scale.is_some(),
            _ => false,
        };
        if !is_own {
            return;
        }
        if !tensors.all().any(|tensor| (self.wanted)(tensor).is_some()) {
            return;
        }
        for sample in 0..reverse.trace.samples {
            let at = KernelSample::new(reverse, kernel, step.source, sample);
            self.product(&at, tensors);
            self.channels(&at, tensors);
        }
    }

    /// Takes the matrix of a tensor that a segment has computed, at one of so many samples.
    pub(super) fn take(&mut self, tensor: LeafId, [sample, samples]: [usize; 2], gram: &[f64]) {
        if let Some(index) = (self.wanted)(tensor) {
            self.grams[(index * samples + sample) * gram.len()..][..gram.len()].copy_from_slice(gram);
        }
    }

    /// Where the matrix of a tensor goes, if it is wanted.
    fn matrix<T>(&mut self, at: &KernelSample<'_, T>, tensor: Option<LeafId>) -> Option<&mut [f64]> {
        let (index, size) = ((self.wanted)(tensor?)?, at.reverse.lines.pow(2));
        Some(&mut self.grams[(index * at.reverse.trace.samples + at.results.sample) * size..][..size])
    }

    fn product<T: Number>(&mut self, at: &KernelSample<'_, T>, tensors: &KernelTensors<T>) {
        let KernelKind::Product { table, .. } = &at.kernel.kind else { return };
        let scale = tensors.norm.as_ref().map(|norm| norm.affine[0].as_slice());
        if let Some(matrix) = self.matrix(at, tensors.weight) {
            let SampleCotangents { lines, live, .. } = at.results;
            let costs = GramCosts::new(at.kernel, table, tensors.patches.as_ref(), live.len(), lines);
            let gram = match costs.form(at.results.count()) {
                GramForm::Pairs => at.by_pairs(table, scale),
                GramForm::Tiles => at.by_tiles(table, None, scale),
                GramForm::Patches => at.by_tiles(table, tensors.patches.as_ref(), scale),
            };
            matrix.copy_from_slice(&gram);
        }
    }

    /// Per-channel parameters: biases, and the tensors of a batch normalisation.
    fn channels<T: Number>(&mut self, at: &KernelSample<'_, T>, tensors: &KernelTensors<T>) {
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

/// A kernel at one sample, its cotangent complete.
struct KernelSample<'a, T> {
    reverse: &'a ReversePass<'a, T>,
    kernel: &'a Kernel<T>,
    /// The cotangents of its results.
    results: SampleCotangents<'a, T>,
}

impl<'a, T: Number> KernelSample<'a, T> {
    fn new(
        reverse: &'a ReversePass<'a, T>,
        kernel: &'a Kernel<T>,
        source: CotangentRef,
        sample: usize,
    ) -> Self {
        let map = reverse.compiled.map(kernel.output.map);
        let source = reverse.cotangents(source);
        let (lines, rows) = (reverse.lines, map.positions);
        Self { reverse, kernel, results: SampleCotangents { source, lines, rows, live: &map.live, sample } }
    }

    /// By tiles, or by patches where these are given.
    fn by_tiles(&self, table: &RowTable, patches: Option<&Patches>, scale: Option<&[T]>) -> Vec<f64> {
        let (rows, entries) = (self.reverse.values(self.kernel.input), ByChannel::new(self.results));
        let (set, SampleCotangents { live, sample, .. }) = (self.reverse.set, self.results);
        if table.taps() == 1 || rows.channels >= FEW_CHANNELS {
            return TileGram { table, patches, rows, live, entries: &entries, scale }.gram(set, sample);
        }
        // The channels of one tap would leave vectors empty; side by side those of all taps fill
        // them. Then each position reads one row of its own.
        let values = self.columns(table, rows);
        let channels = table.taps() * rows.channels;
        let rows = DenseRows { values: &values, pitch: channels, offset: 0, channels };
        let (table, live) = (RowTable::identity(live.len()), Vec::from_iter(0..live.len()));
        TileGram { table: &table, patches: None, rows, live: &live, entries: &entries, scale }.gram(set, 0)
    }

    /// What each live position reads by all taps, `[position][tap][channel]`, and room for two
    /// vectors.
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
        let rows = self.reverse.values(self.kernel.input);
        let inner = if by_sources(table, positions) {
            self.inner_by_sources(table, rows)
        } else {
            self.inner_by_taps(table, rows)
        };
        PairGram { inner: &inner, positions, entries: &entries, scale }.gram(self.reverse.set)
    }

    /// A(p, q) = sum over taps of x(p, t) . x(q, t) for all live positions p, q: one matrix product
    /// per tap, of the rows that the positions read by it.
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

    /// The same from one matrix product of all rows that are read with one another: neighbouring
    /// positions read the same rows by different taps, so most of these products serve several of
    /// A's terms. For each position only the positions up to it are filled in, since [`PairGram`]
    /// reads no others.
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
            // Runs of positions that read runs of rows are added as vectors, not number by number.
            let runs = runs(table, live, tap);
            for (out, &position) in inner.chunks_exact_mut(live.len()).zip(live) {
                let Some(source) = table.source(position, tap) else { continue };
                let products = &products[source * sources..][..sources];
                for &NeighbourRun { first, source, length } in &runs {
                    // A run may reach past the position itself; what it adds there is not read.
                    if live[first] > position {
                        break;
                    }
                    let run = out[first..].iter_mut().zip(&products[source..][..length]);
                    run.for_each(|(sum, product)| *sum += *product);
                }
            }
        }
        inner
    }
}

/// Neighbours among the live positions that read neighbouring rows.
struct NeighbourRun {
    /// Index of the first among the live positions.
    first: usize,
    /// The row that it reads.
    source: usize,
    /// How many positions, and rows.
    length: usize,
}

/// What the live positions read by a tap.
fn runs(table: &RowTable, live: &[usize], tap: usize) -> Vec<NeighbourRun> {
    let mut runs: Vec<NeighbourRun> = Vec::new();
    for (index, &position) in live.iter().enumerate() {
        let Some(source) = table.source(position, tap) else { continue };
        match runs.last_mut() {
            Some(run) if (run.first + run.length, run.source + run.length) == (index, source) => {
                run.length += 1;
            }
            _ => runs.push(NeighbourRun { first: index, source, length: 1 }),
        }
    }
    runs
}

/// Adds the inner products of all rows with one another.
fn add_products<T: Number>(out: &mut [T], rows: MatRef<'_, T>) {
    let out = MatMut::from_row_major_slice_mut(out, rows.nrows(), rows.nrows());
    matmul(out, Accum::Add, rows, rows.transpose(), T::from_f64(1.0), Par::Seq);
}
