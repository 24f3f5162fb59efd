//! Gram matrices of the parameters' gradients, taken as the reverse pass goes by: no gradient is ever held.
//!
//! At each stage the reverse pass has the cotangents g of its results, and the forward pass has left the rows x that it reads. Of a product's
//! weight there are two forms, and the one with fewer operations is taken: *tiles* of the gradient in registers ([`Outer`]), or products
//! over *positions*: sum over p, q of (g_v(p) . g_w(q)) (x(p) . x(q)).

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use influence_kernels::{Channels, Dense, Outer, Table, gram_of, symmetric_gram};

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
        for sample in 0..reverse.trace.samples {
            let at = At { reverse, stage, source: step.source, sample };
            self.product(&at, trainable);
            if let Some(norm) = &trainable.norm {
                self.norm(&at, norm);
            }
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
            let gram = if at.prefers_positions(table) {
                at.by_positions(table, scale)
            } else {
                at.by_tiles(table, scale)
            };
            place.copy_from_slice(&gram);
        }
        if let Some(place) = self.place(at, trainable.bias) {
            let mut sums = at.channels().sums(at.sample);
            if let Some(scale) = scale {
                for line in sums.chunks_exact_mut(scale.len()) {
                    line.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= scale.to_f64());
                }
            }
            place.copy_from_slice(&gram_of(&sums, at.reverse.lines));
        }
    }

    fn norm<T: Number>(&mut self, at: &At<'_, T>, norm: &Norm<T>) {
        let lines = at.reverse.lines;
        if let Some(place) = self.place(at, norm.gamma) {
            let rows = at.reverse.values(norm.rows);
            place.copy_from_slice(&gram_of(
                &at.channels().moments(at.sample, rows, &norm.mean, &norm.inverse),
                lines,
            ));
        }
        if let Some(place) = self.place(at, norm.beta) {
            place.copy_from_slice(&gram_of(&at.channels().sums(at.sample), lines));
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
}

impl<T: Number> At<'_, T> {
    fn positions(&self) -> usize {
        self.reverse.compiled.maps[self.stage.output.map].positions
    }

    /// The positions at which something reads the results.
    fn live(&self) -> &[usize] {
        &self.reverse.compiled.maps[self.stage.output.map].live
    }

    fn channels(&self) -> Channels<'_, T> {
        let source = self.reverse.cotangents(self.source);
        Channels { source, positions: self.positions(), live: self.live(), lines: self.reverse.lines }
    }

    /// Whether the products over positions take fewer operations than the tiles.
    fn prefers_positions(&self, table: &Table) -> bool {
        let (inputs, outputs, positions) =
            (self.stage.input.channels * table.taps(), self.stage.output.channels, self.live().len());
        let active = match self.source {
            Place::Compressed(mask) => {
                let rows = self.positions();
                self.reverse.trace.masks[mask].count_in(self.sample * rows..(self.sample + 1) * rows)
            }
            Place::Dense(_) | Place::Slice(_) => positions * outputs,
        };
        positions * positions * (2 * self.reverse.lines * outputs + inputs)
            < 2 * self.reverse.lines * active * inputs
    }

    fn by_tiles(&self, table: &Table, scale: Option<&[T]>) -> Vec<f64> {
        let (rows, source) = (self.reverse.values(self.stage.input), self.reverse.cotangents(self.source));
        let outer = Outer { table, rows, live: self.live(), source, scale, lines: self.reverse.lines };
        outer.gram(self.reverse.set, self.sample)
    }

    /// G(v, w) = sum over p of g_v(p) . e_w(p), e_w = A g_w, A(p, q) = x(p) . x(q).
    fn by_positions(&self, table: &Table, scale: Option<&[T]>) -> Vec<f64> {
        let (live, lines) = (self.live(), self.reverse.lines);
        let (count, width) = (live.len(), self.stage.output.channels);
        let inner = self.inner_products(table, self.reverse.values(self.stage.input));
        // [line][position][channel]
        let mut own = vec![T::default(); lines * count * width];
        self.channels().expand(self.sample, scale, &mut own);
        let mut other = vec![T::default(); own.len()];
        for (own, other) in own.chunks_exact(count * width).zip(other.chunks_exact_mut(count * width)) {
            let (own, other) = (
                MatRef::from_row_major_slice(own, count, width),
                MatMut::from_row_major_slice_mut(other, count, width),
            );
            let inner = MatRef::from_row_major_slice(&inner, count, count);
            matmul(other, Accum::Replace, inner, own, T::from_f64(1.0), Par::Seq);
        }
        symmetric_gram(&own, &other, lines)
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
