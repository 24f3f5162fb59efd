//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by. The gradient of a
//! weight is never in memory as a whole.
//!
//! At each kernel the reverse pass has the cotangents g of its results, and the forward pass has
//! left the rows x that it reads. For a product's weight there are three forms, of which the one
//! with the fewest operations is taken ([`GramCosts`]): *tiles* of the gradient in registers
//! ([`TileGram`]), tiles by *patches* in Winograd's form, or *pairs* of positions ([`PairGram`]).
//! Groups of a convolution are taken by tiles, each by itself; depthwise convolutions channel by
//! channel ([`ChannelwiseGram`]). The gradients of per-channel parameters (biases, gamma, beta) are
//! sums over positions.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::executor::Number;
use super::gram_costs::{GramCosts, GramForm, by_sources};
use super::reverse::ReversePass;
use crate::compile::ids::LeafId;
use crate::compile::program::{Kernel, KernelKind, KernelNorm, KernelTensors};
use crate::compile::steps::{CotangentRef, ReverseStep, StepKind};
use crate::kernels::{
    ByChannel, ChannelwiseGram, DenseRows, Normalized, PairGram, Patches, RowTable, SampleCotangents,
    TileGram, gram_of,
};

/// The matrices while they are taken.
pub(super) struct Squares<'a> {
    /// The index of a tensor among those asked for, if it is one of them.
    pub(super) wanted: &'a dyn Fn(LeafId) -> Option<usize>,
    /// `[tensor][sample][V, V]`, V the lines of a row.
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
            (KernelKind::Channelwise { .. }, StepKind::Channelwise { .. }) => true,
            (KernelKind::Affine(_), StepKind::Spread { scale }) => scale.is_some(),
            (KernelKind::Within(_), StepKind::Within { .. }) => true,
            (KernelKind::Elementwise { .. }, StepKind::Scaled { .. } | StepKind::Spread { .. }) => true,
            (KernelKind::Rearrange { .. }, StepKind::Rearrange) => true,
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
            for (tensor, elements) in &tensors.elements {
                if let Some(matrix) = self.matrix(&at, Some(*tensor)) {
                    matrix.copy_from_slice(&elements.gram(reverse.set, at.results));
                }
            }
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
        let (KernelKind::Product { table, .. } | KernelKind::Channelwise { table, .. }) = &at.kernel.kind
        else {
            return;
        };
        let scale = tensors.norm.as_ref().map(|norm| norm.affine[0].as_slice());
        if let Some(matrix) = self.matrix(at, tensors.weight) {
            let gram = match (&at.kernel.kind, tensors.groups) {
                (KernelKind::Channelwise { .. }, _) => at.by_channels(table, scale),
                (_, 1) => at.dense(table, tensors.patches.as_ref(), scale),
                (_, groups) => at.by_tiles(table, None, groups, scale),
            };
            matrix.copy_from_slice(&gram);
        }
    }

    /// Takes the matrices of per-channel parameters: biases, and gamma and beta of normalisations,
    /// factors and shifts.
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
        // The cotangents are those of the normalised results gamma h + beta: summed over positions
        // they are the gradient of beta, times h that of gamma.
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
            // A bias is added before the normalisation, which multiplies it by its scale: so is the
            // gradient. (Last, since it changes the sums that beta reads.)
            if let Some(KernelNorm { affine: [scale, _], .. }) = norm {
                for line in sums.chunks_exact_mut(scale.len()) {
                    line.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= scale.to_f64());
                }
            }
            matrix.copy_from_slice(&gram_of(set, &sums, lines));
        }
    }
}

/// The first `count` rows and columns of a matrix of `size`.
pub(super) fn leading(matrix: &[f64], size: usize, count: usize) -> impl Iterator<Item = f64> {
    matrix.chunks_exact(size).take(count).flat_map(move |row| &row[..count]).copied()
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

    /// The matrix of a weight whose outputs all read all inputs, by the form that takes the fewest
    /// operations. (Operations are counted for as many lines as the program has at most, so that
    /// all blocks of cotangents take the same form: a matrix of two forms, which round differently,
    /// would be no square of anything.)
    fn dense(&self, table: &RowTable, patches: Option<&Patches>, scale: Option<&[T]>) -> Vec<f64> {
        let (positions, lines) = (self.results.live.len(), self.reverse.slots.lines);
        let costs = GramCosts::new(self.kernel, table, patches, positions, lines);
        let patches = match costs.form(self.results.count()) {
            GramForm::Pairs => return self.by_pairs(table, scale),
            GramForm::Tiles => None,
            GramForm::Patches => patches,
        };
        self.by_tiles(table, patches, 1, scale)
    }

    /// The matrix of a weight whose outputs each read only their own channel.
    fn by_channels(&self, table: &RowTable, scale: Option<&[T]>) -> Vec<f64> {
        let rows = self.reverse.values(self.kernel.input);
        ChannelwiseGram { table, rows, cotangents: self.results, scale }.gram(self.reverse.set)
    }

    /// The matrix by tiles, or by patches where these are given.
    fn by_tiles(
        &self,
        table: &RowTable,
        patches: Option<&Patches>,
        groups: usize,
        scale: Option<&[T]>,
    ) -> Vec<f64> {
        let (rows, entries) = (self.reverse.values(self.kernel.input), &ByChannel::new(self.results));
        let SampleCotangents { live, sample, .. } = self.results;
        let outputs = [0, entries.channels()];
        let tiles = TileGram { table, patches, rows, live, entries, outputs, scale };
        tiles.grouped(self.reverse.set, sample, groups)
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

    /// A(p, q) = sum over taps of x(p, t) . x(q, t) for all live positions p, q, in f64: one matrix
    /// product per tap, of the rows that the positions read by it.
    fn inner_by_taps(&self, table: &RowTable, rows: DenseRows<'_, T>) -> Vec<f64> {
        let (live, inputs) = (self.results.live, rows.channels);
        let mut inner = vec![0.0; live.len() * live.len()];
        let mut read = vec![0.0; live.len() * inputs];
        for tap in 0..table.taps() {
            for (out, &position) in read.chunks_exact_mut(inputs).zip(live) {
                match self.read(table, rows, position, tap) {
                    Some(read) => out.iter_mut().zip(read).for_each(|(out, x)| *out = x.to_f64()),
                    None => out.fill(0.0),
                }
            }
            add_products(&mut inner, MatRef::from_row_major_slice(&read, live.len(), inputs));
        }
        inner
    }

    /// A(p, q) from one matrix product of all rows that are read with one another. Neighbouring
    /// positions read the same rows by different taps, so most of these products serve several
    /// terms of A. For each position only the positions up to it are filled in, since [`PairGram`]
    /// reads no others.
    fn inner_by_sources(&self, table: &RowTable, rows: DenseRows<'_, T>) -> Vec<f64> {
        let (live, sources) = (self.results.live, table.source_rows());
        let first = self.results.sample * sources;
        let read = (0..sources).flat_map(|source| rows.row(first + source).iter().map(|x| x.to_f64()));
        let read: Vec<f64> = read.collect();
        let mut products = vec![0.0; sources * sources];
        add_products(&mut products, MatRef::from_row_major_slice(&read, sources, rows.channels));
        if table.is_identity() && live.len() == sources {
            return products;
        }
        let mut inner = vec![0.0; live.len() * live.len()];
        for tap in 0..table.taps() {
            // Runs of positions that read runs of rows are added as vectors, not element by
            // element.
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
fn add_products(out: &mut [f64], rows: MatRef<'_, f64>) {
    let out = MatMut::from_row_major_slice_mut(out, rows.nrows(), rows.nrows());
    matmul(out, Accum::Add, rows, rows.transpose(), 1.0, Par::Seq);
}
