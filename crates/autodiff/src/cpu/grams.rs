//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by: no gradient is ever held.
//!
//! At each stage the reverse pass has the cotangents g of its results, and the forward pass has left the rows x that it reads. Of a product's
//! weight there are three forms, and the one with the fewest operations is taken: *tiles* of the gradient in registers ([`Outer`]), the same
//! by *patches* in Winograd's form, or products over *positions*: sum over p, q of (g_v(p) . g_w(q)) (x(p) . x(q)).

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use influence_kernels::{
    self as kernels, ByChannel, Dense, Normalized, Outer, Patches, Table, gram_of, scale_lines,
    symmetric_gram,
};

use super::Number;
use super::reverse::Reverse;
use super::stages::{Compiled, Norm, Place, Stage, StageKind, Step, StepKind, Trainable};
use super::weights::FEW_CHANNELS;

/// Matrices under way.
pub(super) struct Squares<'a> {
    /// The places of the wanted tensors among those asked for.
    pub(super) wanted: &'a dyn Fn(usize) -> Option<usize>,
    /// `[tensor][sample][V, V]`.
    pub(super) grams: Vec<f64>,
}

impl Squares<'_> {
    /// Takes the matrices of a stage's tensors when the reverse pass comes to the step that pulls it back.
    pub(super) fn visit<T: Number>(&mut self, reverse: &Reverse<'_, T>, step: &Step<T>) {
        let stage = &reverse.compiled.stages[step.stage];
        let Some(trainable) = &stage.trainable else { return };
        let is_own = match (&stage.kind, &step.kind) {
            (StageKind::Product { .. }, StepKind::Product { .. } | StepKind::Columns { .. }) => true,
            (StageKind::Affine(_), StepKind::Spread { scale }) => scale.is_some(),
            _ => false,
        };
        if !is_own {
            return;
        }
        if !trainable.tensors().any(|tensor| (self.wanted)(tensor).is_some()) {
            return;
        }
        for sample in 0..reverse.trace.samples {
            let at = At::new(reverse, stage, step.source, sample);
            self.product(&at, trainable);
            self.channels(&at, trainable);
        }
    }

    /// Where the matrix of a tensor goes, if it is wanted.
    fn place<T>(&mut self, at: &At<'_, T>, tensor: Option<usize>) -> Option<&mut [f64]> {
        let (place, size) = ((self.wanted)(tensor?)?, at.reverse.lines.pow(2));
        Some(&mut self.grams[(place * at.reverse.trace.samples + at.results.sample) * size..][..size])
    }

    fn product<T: Number>(&mut self, at: &At<'_, T>, trainable: &Trainable<T>) {
        let StageKind::Product { table, .. } = &at.stage.kind else { return };
        let scale = trainable.norm.as_ref().map(|norm| norm.affine[0].as_slice());
        if let Some(place) = self.place(at, trainable.weight) {
            let kernels::At { lines, live, .. } = at.results;
            let costs = Costs::new(at.stage, table, trainable.patches.as_ref(), live.len(), lines);
            let gram = match costs.form(at.results.count()) {
                Form::Positions => at.by_positions(table, scale),
                Form::Tiles => at.by_tiles(table, None, scale),
                Form::Patches => at.by_tiles(table, trainable.patches.as_ref(), scale),
            };
            place.copy_from_slice(&gram);
        }
    }

    /// What each channel has for itself: biases, and the tensors of a batch normalisation.
    fn channels<T: Number>(&mut self, at: &At<'_, T>, trainable: &Trainable<T>) {
        let (set, lines) = (at.reverse.set, at.reverse.lines);
        let norm = trainable.norm.as_ref();
        let own = [trainable.bias, norm.and_then(|norm| norm.gamma), norm.and_then(|norm| norm.beta)];
        if !own.into_iter().flatten().any(|tensor| (self.wanted)(tensor).is_some()) {
            return;
        }
        let normalized = norm.map(|norm| {
            let rows = at.reverse.values(norm.rows);
            Normalized { rows, mean: &norm.mean, inverse: &norm.inverse }
        });
        let [mut sums, moments] = at.results.sums(set, normalized);
        if let Some(place) = self.place(at, norm.and_then(|norm| norm.beta)) {
            place.copy_from_slice(&gram_of(set, &sums, lines));
        }
        if let Some(norm) = norm
            && let Some(place) = self.place(at, norm.gamma)
        {
            place.copy_from_slice(&gram_of(set, &moments, lines));
        }
        if let Some(place) = self.place(at, trainable.bias) {
            if let Some(Norm { affine: [scale, _], .. }) = norm {
                for line in sums.chunks_exact_mut(scale.len()) {
                    line.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= scale.to_f64());
                }
            }
            place.copy_from_slice(&gram_of(set, &sums, lines));
        }
    }
}

/// How the Gram matrix of a weight's gradients is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Tiles,
    Patches,
    Positions,
}

/// Operations that each form takes.
struct Costs {
    /// Of each active cotangent of a line.
    tile: usize,
    patches: Option<usize>,
    positions: usize,
}

/// What the sum over a tile's patches is followed by takes as long as so many patches more: all taps of it are transformed and squared.
const TRANSFORM: usize = 11;

impl Costs {
    fn new<T>(
        stage: &Stage<T>,
        table: &Table,
        patches: Option<&Patches>,
        positions: usize,
        lines: usize,
    ) -> Self {
        let (inputs, outputs) = (stage.input.channels, stage.output.channels);
        let read = inputs * table.taps();
        let of_patches = |patches: &Patches| {
            2 * lines * outputs * inputs * patches.frequencies() * (patches.count() + TRANSFORM)
        };
        Self {
            tile: 2 * lines * read,
            patches: patches.map(of_patches),
            positions: positions * positions * (2 * lines * outputs + read),
        }
    }

    /// The form that takes the fewest with so many active cotangents a line.
    fn form(&self, count: usize) -> Form {
        let tiles = count * self.tile;
        match self.patches {
            Some(patches) if patches < tiles.min(self.positions) => Form::Patches,
            _ if self.positions < tiles => Form::Positions,
            _ => Form::Tiles,
        }
    }
}

/// Numbers that are read behind the last column.
const COLUMNS_PAD: usize = 32;

/// Bytes that the matrices of one sample's tensors take while they are computed, at most.
pub(super) fn bytes<T: Number>(compiled: &Compiled<T>, lines: usize) -> usize {
    let of_stage = |stage: &Stage<T>| {
        let (StageKind::Product { table, .. }, Some(trainable)) = (&stage.kind, &stage.trainable) else {
            return 0;
        };
        if trainable.weight.is_none() {
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
        let patches = trainable.patches.as_ref();
        // The more cotangents are switched off the more do tiles pay.
        match (Costs::new(stage, table, patches, positions, lines).form(entries), patches) {
            (Form::Patches, Some(patches)) => tiles + Outer::<T>::bytes(patches, stage.input.channels, lines),
            (Form::Positions, _) => {
                let numbers = 2 * entries * lines + positions * (positions + stage.input.channels);
                tiles.max(numbers * size_of::<T>())
            }
            _ => tiles,
        }
    };
    compiled.stages.iter().map(of_stage).max().unwrap_or(0)
}

/// A stage at one sample, its cotangent complete.
struct At<'a, T> {
    reverse: &'a Reverse<'a, T>,
    stage: &'a Stage<T>,
    /// The cotangents of its results.
    results: kernels::At<'a, T>,
}

impl<'a, T: Number> At<'a, T> {
    fn new(reverse: &'a Reverse<'a, T>, stage: &'a Stage<T>, source: Place, sample: usize) -> Self {
        let map = &reverse.compiled.maps[stage.output.map];
        let source = reverse.cotangents(source);
        let (lines, rows) = (reverse.lines, map.positions);
        Self { reverse, stage, results: kernels::At { source, lines, rows, live: &map.live, sample } }
    }

    fn by_tiles(&self, table: &Table, patches: Option<&Patches>, scale: Option<&[T]>) -> Vec<f64> {
        let (rows, entries) = (self.reverse.values(self.stage.input), ByChannel::new(self.results));
        let (set, kernels::At { live, sample, .. }) = (self.reverse.set, self.results);
        if table.taps() == 1 || rows.channels >= FEW_CHANNELS {
            return Outer { table, patches, rows, live, entries: &entries, scale }.gram(set, sample);
        }
        // Side by side the taps fill vectors that the channels of one would leave empty.
        let values = self.columns(table, rows);
        let channels = table.taps() * rows.channels;
        let rows = Dense { values: &values, pitch: channels, offset: 0, channels };
        let (table, live) = (Table::identity(live.len()), Vec::from_iter(0..live.len()));
        Outer { table: &table, patches: None, rows, live: &live, entries: &entries, scale }.gram(set, 0)
    }

    /// What each live position reads by all taps, `[position][tap][channel]`, and room for two vectors.
    fn columns(&self, table: &Table, rows: Dense<'_, T>) -> Vec<T> {
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
    fn read<'r>(&self, table: &Table, rows: Dense<'r, T>, position: usize, tap: usize) -> Option<&'r [T]> {
        let from = table.source(position, tap)?;
        Some(rows.row(self.results.sample * table.source_rows() + from))
    }

    /// G(v, w) = sum over p of g_v(p) . e_w(p), e_w = A g_w, A(p, q) = x(p) . x(q).
    fn by_positions(&self, table: &Table, scale: Option<&[T]>) -> Vec<f64> {
        let kernels::At { source, lines, rows, live, sample } = self.results;
        let (count, width) = (live.len(), self.stage.output.channels);
        let inner = self.inner_products(table, self.reverse.values(self.stage.input));
        // [position][line][channel]
        let mut own = vec![T::default(); count * lines * width];
        for (out, position) in own.chunks_exact_mut(lines * width).zip(live) {
            source.expand(self.reverse.set, sample * rows + position, lines, 0..width, out);
            if let Some(scale) = scale {
                scale_lines(out, scale);
            }
        }
        let mut other = vec![T::default(); own.len()];
        matmul(
            MatMut::from_row_major_slice_mut(&mut other, count, lines * width),
            Accum::Replace,
            MatRef::from_row_major_slice(&inner, count, count),
            MatRef::from_row_major_slice(&own, count, lines * width),
            T::from_f64(1.0),
            Par::Seq,
        );
        symmetric_gram(self.reverse.set, &own, &other, [lines, width])
    }

    /// x(p) . x(q) for all live positions p, q.
    fn inner_products(&self, table: &Table, rows: Dense<'_, T>) -> Vec<T> {
        let (live, inputs) = (self.results.live, self.stage.input.channels);
        let mut inner = vec![T::default(); live.len() * live.len()];
        let mut read = vec![T::default(); live.len() * inputs];
        for tap in 0..table.taps() {
            for (out, &position) in read.chunks_exact_mut(inputs).zip(live) {
                match self.read(table, rows, position, tap) {
                    Some(read) => out.copy_from_slice(read),
                    None => out.fill(T::default()),
                }
            }
            let read = MatRef::from_row_major_slice(&read, live.len(), inputs);
            let inner = MatMut::from_row_major_slice_mut(&mut inner, live.len(), live.len());
            matmul(inner, Accum::Add, read, read.transpose(), T::from_f64(1.0), Par::Seq);
        }
        inner
    }
}
