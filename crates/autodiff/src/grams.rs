//! Gram matrices of a tensor's gradients, summed in f64, without holding the gradients.
//!
//! For each of V cotangents, and in each of G groups of channels, the gradient of a weight is a sum
//! of outer products over P positions: `D_v[o, i] = sum_p delta_v[o, p] a[p, i]`. Its Gram matrix
//! can be computed in two ways:
//! - by *gradient*: form D for as many rows o as may be held at once, and add up their inner
//!   products: about `V P O I + 2 V^2 O I` multiplications;
//! - by *position*: `G[v, w] = sum over p, q of (delta_v(p) . delta_w(q)) (a(p) . a(q))`, which
//!   takes about `2 V^2 P^2 O + P^2 I` of them.
//!
//! (A multiplication in f64 counts as two.) The cheaper one is taken; which that is depends only on
//! the shapes. Where a device has no f64, gradients are read back in parts and multiplied on the
//! host.

use burn::tensor::FloatDType;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};

use crate::array::Array;
use crate::error::{Error, Result};
use crate::parameters::LeafId;

/// The largest number of elements of a gradient, or of products between positions, that are held at
/// once.
///
/// It bounds the memory of a Gram matrix apart from its factors. A larger bound means fewer and
/// larger matrix products.
const HELD: usize = 1 << 20;

/// Cost of a multiplication in f64, in multiplications in f32: a vector holds half as many. Where
/// it is off, the slower form may be taken; only rounding differs between the two.
const DOUBLE: usize = 2;

/// The sizes of a gradient that is a sum of outer products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OuterSizes {
    /// G, groups of channels.
    pub(crate) groups: usize,
    /// O, rows of the weight in a group.
    pub(crate) outputs: usize,
    /// I, columns of the weight.
    pub(crate) inputs: usize,
    /// P, positions.
    pub(crate) positions: usize,
}

/// The factors of a gradient that is a sum of outer products.
#[derive(Debug)]
pub(crate) struct GradientFactors {
    /// delta `[V, G, O, P]`.
    pub(crate) deltas: Array,
    /// a `[G, P, I]`.
    pub(crate) inputs: Array,
}

/// Which of the two ways a Gram matrix is computed, and how much of it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SummationForm {
    /// By gradient: the number of groups at once, and of rows in each.
    Gradient([usize; 2]),
    /// By position: the number of groups at once.
    Position(usize),
}

impl OuterSizes {
    /// The cheaper way for this many cotangents.
    fn form(&self, cotangents: usize) -> SummationForm {
        let &Self { groups, outputs, inputs, positions } = self;
        let (row, square) = (cotangents * inputs, (cotangents * positions).pow(2));
        // Both costs are for one group, in multiplications of f32 (see the top of this file).
        let gradient = outputs * (positions * row + DOUBLE * cotangents * row);
        let position = square * (DOUBLE * outputs + 1) + positions.pow(2) * inputs;
        // By position, all V^2 P^2 products of a group are held at once.
        if position < gradient && square <= HELD {
            return SummationForm::Position((HELD / square.max(1)).clamp(1, groups));
        }
        // By gradient: several groups at once only if all rows of one can be held.
        let rows = (HELD / row.max(1)).clamp(1, outputs);
        let whole = if rows == outputs { (HELD / (row * outputs).max(1)).clamp(1, groups) } else { 1 };
        SummationForm::Gradient([whole, rows])
    }

    /// The bytes of the factors and of the products that are held at once, for elements of
    /// `element` bytes.
    pub(crate) fn bytes(&self, cotangents: usize, element: usize) -> usize {
        let &Self { groups, outputs, inputs, positions } = self;
        let factors = groups * positions * (cotangents * outputs + inputs) * element;
        // By gradient a part is held in the run's type and in f64. By position the products of the
        // deltas, their products with those of the inputs, and the factors are held in f64.
        let held = match self.form(cotangents) {
            SummationForm::Gradient([groups, rows]) => groups * rows * cotangents * inputs * (element + 8),
            SummationForm::Position(groups) => {
                let one = 2 * (cotangents * positions).pow(2) + positions * (cotangents * outputs + inputs);
                groups * one * 8
            }
        };
        factors + held
    }
}

impl GradientFactors {
    /// The factors for a matrix `[I, O]` that multiplies all rows of an operand `[..., I]`, from
    /// the cotangents `[V, ..., O]` of the result.
    pub(crate) fn of_rows(cotangent: Array, operand: Array) -> Self {
        let (full, own) = (cotangent.shape(), operand.shape());
        let (outputs, inputs) = (full[full.len() - 1], own[own.len() - 1]);
        let positions: usize = own[..own.len() - 1].iter().product();
        let deltas = cotangent.reshape(&[full[0], 1, positions, outputs]).permute(&[0, 1, 3, 2]);
        Self { deltas, inputs: operand.reshape(&[1, positions, inputs]) }
    }

    fn sizes(&self) -> (usize, OuterSizes) {
        let (deltas, inputs) = (self.deltas.shape(), self.inputs.shape());
        let outer =
            OuterSizes { groups: deltas[1], outputs: deltas[2], inputs: inputs[2], positions: deltas[3] };
        (deltas[0], outer)
    }

    /// `groups` groups from `from` on, and in each of them `rows` rows from `row` on.
    fn part(&self, [from, groups]: [usize; 2], [row, rows]: [usize; 2]) -> Self {
        let deltas = self.deltas.clone().part(1, from, groups).part(2, row, rows);
        Self { deltas, inputs: self.inputs.clone().part(0, from, groups) }
    }

    /// The gradients `[V, G O I]`.
    pub(crate) fn gradients(self) -> Array {
        let (v, OuterSizes { groups: g, outputs: o, inputs: i, positions: p }) = self.sizes();
        // One product per group, with the rows of all cotangents stacked.
        let stacked = self.deltas.permute(&[1, 0, 2, 3]).reshape(&[g, v * o, p]);
        let products = stacked.matmul(self.inputs).reshape(&[g, v, o * i]);
        products.permute(&[1, 0, 2]).reshape(&[v, g * o * i])
    }

    /// The Gram matrix `[V, V]`, by position, in f64.
    pub(crate) fn by_position(self) -> Array {
        let (v, OuterSizes { groups: g, outputs: o, positions: p, .. }) = self.sizes();
        let deltas = self.deltas.double().permute(&[1, 0, 3, 2]).reshape(&[g, v * p, o]);
        let inputs = self.inputs.double();
        // a(p) . a(q), the same for all pairs of cotangents, and delta_v(p) . delta_w(q).
        let between = inputs.clone().matmul(inputs.permute(&[0, 2, 1])).reshape(&[g, 1, p, 1, p]);
        let products = deltas.clone().matmul(deltas.permute(&[0, 2, 1])).reshape(&[g, v, p, v, p]);
        products.mul(between).sum_axis(4).sum_axis(2).sum_axis(0).reshape(&[v, v])
    }
}

/// Partial sums of the Gram matrices `[V, V]` of several tensors and of the input.
#[derive(Debug)]
pub(crate) struct GramSums {
    /// The tensors, ascending.
    tensors: Vec<LeafId>,
    cotangents: usize,
    /// Whether the device has f64.
    exact: bool,
    /// The sum for each tensor, and after them that of the input; none where nothing was added yet.
    sums: Vec<Option<PartialGram>>,
}

/// Which of the matrices of a [`GramSums`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GramSlot(usize);

/// A partial sum, on the device where that has f64, else on the host.
#[derive(Debug)]
enum PartialGram {
    /// Boxed: on some devices a tensor's handle takes hundreds of bytes.
    Device(Box<Array>),
    Host(Vec<f64>),
}

impl GramSums {
    /// Empty sums for these tensors (ascending) and the input; `exact` says whether the device has
    /// f64.
    pub(crate) fn new(tensors: &[LeafId], cotangents: usize, exact: bool) -> Self {
        let sums = (0..=tensors.len()).map(|_| None).collect();
        Self { tensors: tensors.to_vec(), cotangents, exact, sums }
    }

    /// The matrix of a tensor, where it is asked for.
    pub(crate) fn slot_of(&self, tensor: LeafId) -> Option<GramSlot> {
        self.tensors.binary_search(&tensor).ok().map(GramSlot)
    }

    /// The tensors with their matrices.
    pub(crate) fn slots(&self) -> Vec<(LeafId, GramSlot)> {
        self.tensors.iter().enumerate().map(|(at, &tensor)| (tensor, GramSlot(at))).collect()
    }

    /// The matrix of the input.
    pub(crate) fn of_input(&self) -> GramSlot {
        GramSlot(self.tensors.len())
    }

    /// Adds the inner products of gradients `[V, ...]`.
    pub(crate) fn gradients(&mut self, slot: GramSlot, gradients: Array) -> Result<()> {
        let elements: usize = gradients.shape()[1..].iter().product();
        let rows = gradients.reshape(&[self.cotangents, elements]);
        let step = (HELD / self.cotangents).max(1);
        for from in (0..elements).step_by(step) {
            self.rows(slot, rows.clone().part(1, from, step.min(elements - from)))?;
        }
        Ok(())
    }

    /// Adds the inner products of gradients that are given by their factors.
    pub(crate) fn factors(&mut self, slot: GramSlot, factors: GradientFactors) -> Result<()> {
        let (v, outer) = factors.sizes();
        // The products between positions are f64 on the device; where it has none, rows of
        // gradients are read back.
        let form = match outer.form(v) {
            SummationForm::Position(_) if !self.exact => {
                SummationForm::Gradient([1, (HELD / (v * outer.inputs).max(1)).clamp(1, outer.outputs)])
            }
            form => form,
        };
        let (groups, rows) = match form {
            SummationForm::Gradient([groups, rows]) => (groups, rows),
            SummationForm::Position(groups) => (groups, outer.outputs),
        };
        // In parts of as many groups, and rows of each, as may be held at once.
        for from in (0..outer.groups).step_by(groups) {
            for row in (0..outer.outputs).step_by(rows) {
                let groups = [from, groups.min(outer.groups - from)];
                let part = factors.part(groups, [row, rows.min(outer.outputs - row)]);
                match form {
                    SummationForm::Gradient(_) => self.rows(slot, part.gradients())?,
                    SummationForm::Position(_) => {
                        self.add(slot, PartialGram::Device(Box::new(part.by_position())));
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the inner products of rows `[V, B]`.
    fn rows(&mut self, slot: GramSlot, rows: Array) -> Result<()> {
        let product = if self.exact {
            let rows = rows.double();
            PartialGram::Device(Box::new(rows.clone().matmul(rows.permute(&[1, 0]))))
        } else {
            let rows: Vec<f64> = rows.into_data()?.iter().collect();
            PartialGram::Host(inner_products(&rows, self.cotangents))
        };
        self.add(slot, product);
        Ok(())
    }

    fn add(&mut self, slot: GramSlot, product: PartialGram) {
        let sum = match (self.sums[slot.0].take(), product) {
            (None, product) => product,
            (Some(PartialGram::Host(mut sum)), PartialGram::Host(product)) => {
                sum.iter_mut().zip(product).for_each(|(sum, product)| *sum += product);
                PartialGram::Host(sum)
            }
            (Some(PartialGram::Device(sum)), PartialGram::Device(product)) => {
                PartialGram::Device(Box::new(sum.add(*product)))
            }
            _ => unreachable!("all sums of a device are on the device, or all on the host"),
        };
        self.sums[slot.0] = Some(sum);
    }

    /// The matrices `[tensors + 1, V, V]`, that of the input last, with one read from the device;
    /// zeros where nothing was added.
    pub(crate) fn finish(self) -> Result<Vec<f64>> {
        let size = self.cotangents * self.cotangents;
        let mut all = vec![0.0; self.sums.len() * size];
        let (mut slots, mut arrays) = (Vec::new(), Vec::new());
        for (slot, sum) in self.sums.into_iter().enumerate() {
            match sum {
                Some(PartialGram::Host(sum)) => all[slot * size..][..size].copy_from_slice(&sum),
                Some(PartialGram::Device(array)) => {
                    slots.push(slot);
                    arrays.push(array.reshape(&[1, size]));
                }
                None => {}
            }
        }
        if !arrays.is_empty() {
            let read = Array::cat(arrays, 0).into_data()?;
            let read = read.as_slice::<f64>().map_err(|error| Error::Device(format!("{error:?}")))?;
            for (slot, sum) in slots.into_iter().zip(read.chunks_exact(size)) {
                all[slot * size..][..size].copy_from_slice(sum);
            }
        }
        Ok(all)
    }
}

impl Array {
    /// The `count` slices along an axis from `start` on.
    pub(crate) fn part(self, axis: usize, start: usize, count: usize) -> Self {
        let shape = self.shape();
        if (start, count) == (0, shape[axis]) {
            return self;
        }
        let range = |(at, &size)| if at == axis { start..start + count } else { 0..size };
        let ranges: Vec<_> = shape.iter().enumerate().map(|at| range(at).into()).collect();
        self.slice(&ranges)
    }

    /// The elements in f64.
    fn double(self) -> Self {
        self.cast(FloatDType::F64)
    }
}

/// The inner products `[V, V]` of rows `[V, B]`, on the host.
fn inner_products(rows: &[f64], cotangents: usize) -> Vec<f64> {
    let rows = MatRef::from_row_major_slice(rows, cotangents, rows.len() / cotangents);
    let mut gram = Mat::zeros(cotangents, cotangents);
    matmul(&mut gram, Accum::Replace, rows, rows.transpose(), 1.0, Par::Seq);
    // Columns for rows: the matrix is symmetric.
    (0..cotangents).flat_map(|v| gram.col(v).iter().copied().collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    //! Which way is taken, how it is cut into parts, that both ways give one matrix, and the way
    //! without f64.

    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::array::Placement;

    /// Two orders of summation in f64, relative to the largest entry.
    const ROUNDING: f64 = 1e-12;

    fn wave(shape: &[usize], seed: f64) -> Array {
        let place = Placement { device: Device::flex().as_dispatch().clone(), dtype: FloatDType::F64 };
        let values: Vec<f64> = (0..shape.iter().product()).map(|i| (i as f64 * 0.7 + seed).sin()).collect();
        Array::from_data(TensorData::new(values, shape.to_vec()), &place)
    }

    fn factors(v: usize, OuterSizes { groups, outputs, inputs, positions }: OuterSizes) -> GradientFactors {
        GradientFactors {
            deltas: wave(&[v, groups, outputs, positions], 0.3),
            inputs: wave(&[groups, positions, inputs], 1.1),
        }
    }

    /// The definition, in loops: sum over g, o, i of D_v D_w, D = sum over p of delta a.
    fn naive(v: usize, outer: OuterSizes) -> Vec<f64> {
        let OuterSizes { groups, outputs, inputs, positions } = outer;
        let GradientFactors { deltas, inputs: a } = factors(v, outer);
        let [deltas, a] =
            [deltas, a].map(|of| of.into_data().expect("read").iter::<f64>().collect::<Vec<_>>());
        let mut sums = vec![0.0; v * v];
        for (g, o, i) in (0..groups * outputs * inputs)
            .map(|at| (at / (outputs * inputs), at / inputs % outputs, at % inputs))
        {
            let delta = |v: usize, p: usize| deltas[((v * groups + g) * outputs + o) * positions + p];
            let d =
                |v| (0..positions).map(|p| delta(v, p) * a[(g * positions + p) * inputs + i]).sum::<f64>();
            let d: Vec<f64> = (0..v).map(d).collect();
            sums.iter_mut().enumerate().for_each(|(at, sum)| *sum += d[at / v] * d[at % v]);
        }
        sums
    }

    fn outer([groups, outputs, inputs, positions]: [usize; 4]) -> OuterSizes {
        OuterSizes { groups, outputs, inputs, positions }
    }

    #[test]
    fn every_form_agrees_with_the_definition() {
        for sizes in [[1, 3, 5, 1], [1, 1, 1, 7], [4, 1, 9, 6], [2, 5, 3, 4], [1, 40, 30, 2]] {
            let (v, outer) = (3, outer(sizes));
            let expected = naive(v, outer);
            let near = |found: &[f64]| {
                let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(found.len() == 9 && worst <= ROUNDING * largest, "{sizes:?}: {worst:e}");
            };
            for exact in [true, false] {
                let mut sums = GramSums::new(&[4, 6].map(LeafId::new), v, exact);
                assert_eq!([6, 5].map(|of| sums.slot_of(LeafId::new(of))), [Some(GramSlot(1)), None]);
                sums.factors(GramSlot(1), factors(v, outer)).expect("it is computed");
                sums.gradients(sums.of_input(), factors(v, outer).gradients()).expect("it is computed");
                let all = sums.finish().expect("it is read");
                assert_eq!(all[..9], [0.0; 9], "nothing was added to the first");
                near(&all[9..18]);
                near(&all[18..]);
            }
            let parts = (0..outer.groups).flat_map(|g| (0..outer.outputs).map(move |o| [g, o]));
            let by_parts = parts.fold(vec![0.0; 9], |sum, [g, o]| {
                let part = factors(v, outer).part([g, 1], [o, 1]).by_position().into_data().expect("read");
                sum.iter().zip(part.iter::<f64>()).map(|(a, b)| a + b).collect()
            });
            near(&by_parts);
        }
    }

    #[test]
    fn the_cheaper_form_is_taken_and_what_is_held_is_bounded() {
        let form = |sizes, v| outer(sizes).form(v);
        // A linear layer has one position; an early convolution many, and few channels; a late one
        // the reverse.
        assert!(matches!(form([1, 10, 2_048, 1], 9), SummationForm::Position(1)));
        assert!(matches!(form([1, 64, 576, 1_024], 9), SummationForm::Gradient([1, 64])));
        assert!(matches!(form([1, 512, 4_608, 16], 9), SummationForm::Position(1)));
        assert_eq!(form([512, 1, 9, 64], 9), SummationForm::Gradient([512, 1]), "all groups at once");
        let SummationForm::Gradient([1, rows]) = form([1, 4_096, 25_088, 196], 99) else {
            panic!("too many positions")
        };
        assert!(rows * 99 * 25_088 <= HELD.max(99 * 25_088));
        for v in [1, 9, 99, 999] {
            for sizes in [[1, 64, 576, 1_024], [1, 512, 4_608, 16], [512, 1, 9, 64], [1, 1_000, 2_048, 1]] {
                let OuterSizes { groups, outputs, inputs, positions } = outer(sizes);
                let own = 4 * groups * positions * (v * outputs + inputs);
                let held = outer(sizes).bytes(v, 4) - own;
                let least = 12 * v * inputs + 8 * positions * (v * outputs + inputs);
                assert!(held <= 16 * HELD + least, "{sizes:?} of {v}: {held}");
            }
        }
    }
}
