//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by: no gradient is ever held.
//!
//! At each stage the reverse pass has the cotangents g of its results, and the forward pass has left the rows x that it reads. Of a product's
//! weight there are two forms, and the one with fewer operations is taken: *tiles* of the gradient in registers ([`Outer`]), or products
//! over *positions*: sum over p, q of (g_v(p) . g_w(q)) (x(p) . x(q)).

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use influence_kernels::{self as kernels, ByChannel, Dense, Outer, Table, gram_of, symmetric_gram};

use super::Number;
use super::reverse::Reverse;
use super::stages::{Norm, Place, Stage, StageKind, Step, StepKind, Trainable};

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
        Some(&mut self.grams[(place * at.reverse.trace.samples + at.sample) * size..][..size])
    }

    fn product<T: Number>(&mut self, at: &At<'_, T>, trainable: &Trainable<T>) {
        let StageKind::Product { table, .. } = &at.stage.kind else { return };
        let scale = trainable.norm.as_ref().map(|norm| norm.affine[0].as_slice());
        if let Some(place) = self.place(at, trainable.weight) {
            let by_positions = at.prefers_positions(table);
            let gram = if by_positions { at.by_positions(table, scale) } else { at.by_tiles(table, scale) };
            place.copy_from_slice(&gram);
        }
    }

    /// What each channel has for itself: biases, and the tensors of a batch normalisation.
    fn channels<T: Number>(&mut self, at: &At<'_, T>, trainable: &Trainable<T>) {
        let (set, lines) = (at.reverse.set, at.reverse.lines);
        let norm = trainable.norm.as_ref();
        let mut sums = at.entries.sums(set);
        if let Some(place) = self.place(at, norm.and_then(|norm| norm.beta)) {
            place.copy_from_slice(&gram_of(set, &sums, lines));
        }
        if let Some(norm) = norm
            && let Some(place) = self.place(at, norm.gamma)
        {
            place.copy_from_slice(&gram_of(set, &at.entries.moments(set, &norm.mean, &norm.inverse), lines));
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

/// A stage at one sample, its cotangent complete.
struct At<'a, T> {
    reverse: &'a Reverse<'a, T>,
    stage: &'a Stage<T>,
    /// Where the cotangent of its results is.
    source: Place,
    sample: usize,
    entries: ByChannel<T>,
}

impl<'a, T: Number> At<'a, T> {
    fn new(reverse: &'a Reverse<'a, T>, stage: &'a Stage<T>, source: Place, sample: usize) -> Self {
        let map = &reverse.compiled.maps[stage.output.map];
        let norm = stage.trainable.as_ref().and_then(|trainable| trainable.norm.as_ref());
        let at = kernels::At {
            source: reverse.cotangents(source),
            lines: reverse.lines,
            rows: map.positions,
            live: &map.live,
            sample,
        };
        let entries = ByChannel::new(at, norm.map(|norm| reverse.values(norm.rows)));
        Self { reverse, stage, source, sample, entries }
    }

    fn positions(&self) -> usize {
        self.reverse.compiled.maps[self.stage.output.map].positions
    }

    /// The positions at which something reads the results.
    fn live(&self) -> &[usize] {
        &self.reverse.compiled.maps[self.stage.output.map].live
    }

    /// Whether the products over positions take fewer operations than the tiles.
    fn prefers_positions(&self, table: &Table) -> bool {
        let (inputs, outputs, positions) =
            (self.stage.input.channels * table.taps(), self.stage.output.channels, self.live().len());
        let active = self.entries.count();
        positions * positions * (2 * self.reverse.lines * outputs + inputs)
            < 2 * self.reverse.lines * active * inputs
    }

    fn by_tiles(&self, table: &Table, scale: Option<&[T]>) -> Vec<f64> {
        let rows = self.reverse.values(self.stage.input);
        let outer = Outer { table, rows, live: self.live(), entries: &self.entries, scale };
        outer.gram(self.reverse.set, self.sample)
    }

    /// G(v, w) = sum over p of g_v(p) . e_w(p), e_w = A g_w, A(p, q) = x(p) . x(q).
    fn by_positions(&self, table: &Table, scale: Option<&[T]>) -> Vec<f64> {
        let (live, lines) = (self.live(), self.reverse.lines);
        let (count, width) = (live.len(), self.stage.output.channels);
        let inner = self.inner_products(table, self.reverse.values(self.stage.input));
        let source = self.reverse.cotangents(self.source);
        // [position][line][channel]
        let mut own = vec![T::default(); count * lines * width];
        for (out, position) in own.chunks_exact_mut(lines * width).zip(live) {
            source.expand(self.sample * self.positions() + position, lines, out);
            if let Some(scale) = scale {
                for line in out.chunks_exact_mut(width) {
                    line.iter_mut().zip(scale).for_each(|(x, s)| *x *= *s);
                }
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
        let (live, inputs) = (self.live(), self.stage.input.channels);
        let mut inner = vec![T::default(); live.len() * live.len()];
        let mut read = vec![T::default(); live.len() * inputs];
        for tap in 0..table.taps() {
            for (out, &position) in read.chunks_exact_mut(inputs).zip(live) {
                match table.source(position, tap) {
                    Some(from) => out.copy_from_slice(rows.row(self.sample * table.source_rows() + from)),
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
