//! The derivative tests of all operations: one set of properties, checked at samples of each
//! operation.
//!
//! Each family keeps its samples at the end of its own file; an operation of [`Op::NAMES`] without
//! samples is a failing test. The properties, for each sample, in f64 on the CPU, and for each set
//! of operands that may be active:
//!
//! 1. the shape rule gives the shape of the result, and `trace` gives the same bits as `forward`;
//! 2. the pullback of all unit cotangents, stacked on V, is the transposed Jacobian by central
//!    differences (small shapes);
//! 3. adjoint identity: `<u, J v> = <J^T u, v>` for V in {1, 3, 9} (all shapes);
//! 4. for one value as two operands, the cotangent is the sum of both pullbacks;
//! 5. operands and cotangents that are views (transposed, sliced, flipped, expanded) give the same
//!    results as contiguous ones;
//! 6. where the cotangent of an operand is a sum of outer products, the factors have the sizes that
//!    the rule gives, and their Gram matrix, computed in either way, is that of the pullback.
//!
//! The pullback is always given only the tensors that `keeps` declares: a rule that reads others
//! panics.

use burn::tensor::{DType, Device, FloatDType, Slice as BurnSlice, TensorData};

use super::{Keep, Op, Saved, with_leading};
use crate::array::{Array, Placement};
use crate::grams::{GramSums, OuterSizes};
use crate::graph::Kind;

/// Step of central differences in f64: rounding costs 2^-53 / step = 1e-10, truncation step^2 =
/// 1e-12.
const STEP: f64 = 1e-6;
/// Error allowed at [`STEP`], relative to the largest entry of the Jacobian (at least 1).
const SMOOTH: f64 = 1e-7;
/// Step where the operation is linear in the operand (or quadratic, for one value as two operands):
/// differences are then exact.
const LINEAR_STEP: f64 = 1.0;
/// Error allowed at [`LINEAR_STEP`]: rounding of sums of some hundred products.
const LINEAR: f64 = 1e-12;
/// Tolerance for contiguous arrays against views: the same products, possibly summed in another
/// order.
const VIEWS: f64 = 1e-13;
/// Jacobians with more entries are tested only by the adjoint identity.
const FULL_JACOBIAN: usize = 40_000;
/// Numbers of stacked cotangents.
const STACKED: [usize; 3] = [1, 3, 9];

/// An operation at a point.
#[derive(Debug, Clone)]
pub(super) struct OpSample {
    pub(super) op: Op,
    pub(super) operands: Vec<OperandValues>,
    /// The shape that a recording would have for the result.
    pub(super) recorded: Vec<usize>,
    /// Positions of operands that may carry a derivative.
    pub(super) active: Vec<usize>,
    /// Positions in which the operation is linear.
    pub(super) linear: Vec<usize>,
    /// Operands that are masks or indices, by position.
    pub(super) kinds: Vec<(usize, Kind)>,
}

/// An operand's shape and values.
#[derive(Debug, Clone)]
pub(super) struct OperandValues {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// Distinct values in (-1, 1) in a scrambled order, none nearer to 0 or to each other than about 10
/// [`STEP`]s, so that no difference crosses a kink or a tie.
pub(super) fn spread(shape: &[usize], seed: usize) -> OperandValues {
    const PRIME: usize = 100_003;
    let count = shape.iter().product::<usize>();
    assert!(count < PRIME, "a sample this large would repeat values");
    // The multiples of a number modulo a prime are all different.
    let value = |i: usize| 2.0 * (((i + seed + 1) * 40_009 % PRIME) as f64 + 0.5) / PRIME as f64 - 1.0;
    OperandValues { shape: shape.to_vec(), values: (0..count).map(value).collect() }
}

/// [`spread`] moved to (0.5, 2.5): for denominators and variances.
pub(super) fn positive(shape: &[usize], seed: usize) -> OperandValues {
    let OperandValues { shape, values } = spread(shape, seed);
    OperandValues { shape, values: values.into_iter().map(|x| 1.5 + x).collect() }
}

impl OpSample {
    /// A sample whose operands are all active.
    pub(super) fn new(op: Op, operands: Vec<OperandValues>) -> Self {
        let recorded = operands.first().map(|operand| operand.shape.clone()).unwrap_or_default();
        let active = (0..operands.len()).collect();
        Self { op, operands, recorded, active, linear: vec![], kinds: vec![] }
    }

    /// The sample with only these operands active.
    pub(super) fn active(self, active: &[usize]) -> Self {
        Self { active: active.to_vec(), ..self }
    }

    /// The sample of an operation that is linear in these operands.
    pub(super) fn linear(self, linear: &[usize]) -> Self {
        Self { linear: linear.to_vec(), ..self }
    }

    /// The sample with a mask or indices as the operand at `position`.
    pub(super) fn kind(mut self, position: usize, kind: Kind) -> Self {
        self.kinds.push((position, kind));
        self
    }

    /// The operands on a device.
    pub(super) fn arrays(&self, place: &Placement) -> Vec<Array> {
        self.viewed(&self.operands, StorageLayout::Contiguous, place)
    }

    /// Arrays of these operands, laid out in memory as `view` says; masks and indices are always
    /// contiguous.
    fn viewed(&self, operands: &[OperandValues], view: StorageLayout, place: &Placement) -> Vec<Array> {
        let one = |(position, operand): (usize, &OperandValues)| {
            let kind = self.kinds.iter().find(|(other, _)| *other == position).map(|(_, kind)| *kind);
            let data = || TensorData::new(operand.values.clone(), operand.shape.clone());
            match kind {
                Some(Kind::Mask) => Array::mask(data(), place),
                Some(Kind::Index) => Array::indices(data(), place),
                _ => view.array(operand, place),
            }
        };
        operands.iter().enumerate().map(one).collect()
    }

    /// The sample whose recording has this shape for the result.
    pub(super) fn recorded(self, shape: &[usize]) -> Self {
        Self { recorded: shape.to_vec(), ..self }
    }

    pub(super) fn label(&self) -> String {
        let shapes: Vec<_> = self.operands.iter().map(|operand| &operand.shape).collect();
        format!("{} of {shapes:?}", self.op)
    }

    fn shapes(&self) -> Vec<Vec<usize>> {
        self.operands.iter().map(|operand| operand.shape.clone()).collect()
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        let shape = self.op.rule().shape(&self.shapes(), &self.recorded);
        shape.unwrap_or_else(|why| panic!("{}: {why}", self.label()))
    }

    /// Non-empty sets of active operands: each alone, and all together.
    fn active_sets(&self) -> Vec<Vec<bool>> {
        let set = |chosen: &[usize]| (0..self.operands.len()).map(|i| chosen.contains(&i)).collect();
        let mut sets: Vec<Vec<bool>> = self.active.iter().map(|&one| set(&[one])).collect();
        if self.active.len() > 1 {
            sets.push(set(&self.active));
        }
        sets
    }

    /// Step and tolerance for differences in the operand at `position`.
    fn accuracy(&self, position: usize) -> (f64, f64) {
        if self.linear.contains(&position) { (LINEAR_STEP, LINEAR) } else { (STEP, SMOOTH) }
    }
}

/// The CPU in f64 or f32.
pub(super) fn place(dtype: FloatDType) -> Placement {
    Placement { device: Device::flex().as_dispatch().clone(), dtype }
}

pub(super) fn array(shape: &[usize], values: &[f64], place: &Placement) -> Array {
    Array::from_data(TensorData::new(values.to_vec(), shape.to_vec()), place)
}

pub(super) fn values(array: Array) -> Vec<f64> {
    array.into_data().expect("the CPU can be read").iter::<f64>().collect()
}

/// The elements of a result, which may be a mask.
fn numbers(array: Array, place: &Placement) -> Vec<f64> {
    let is_mask = matches!(array.dtype(), DType::Bool(_));
    values(if is_mask { array.mask_as_numbers(place) } else { array })
}

/// The layout of an array in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
enum StorageLayout {
    Contiguous,
    Transposed,
    Sliced,
    Flipped,
    Expanded,
}

/// The layouts that are compared with contiguous ones.
const VIEWS_OF_ALL_KINDS: [StorageLayout; 4] =
    [StorageLayout::Transposed, StorageLayout::Sliced, StorageLayout::Flipped, StorageLayout::Expanded];

impl StorageLayout {
    /// The operand's values as this view can hold them: an expanded array repeats its first row.
    fn adapted(self, operand: &OperandValues) -> OperandValues {
        let OperandValues { shape, values } = operand;
        if self != Self::Expanded || shape.is_empty() {
            return operand.clone();
        }
        let row = &values[..values.len() / shape[0]];
        OperandValues { shape: shape.clone(), values: row.repeat(shape[0]) }
    }

    /// An array of these values, laid out in memory as the view says.
    fn array(self, operand: &OperandValues, place: &Placement) -> Array {
        let OperandValues { shape, values } = operand;
        let rank = shape.len();
        let axes: Vec<_> = (0..rank).collect();
        let reversed: Vec<_> = axes.iter().rev().copied().collect();
        let plain = array(shape, values, place);
        // A round trip through the host stores the moved array, of which a view is then taken.
        let stored = |moved: Array| Array::from_data(moved.into_data().expect("readable"), place);
        match self {
            _ if rank == 0 => plain,
            Self::Contiguous => plain,
            Self::Transposed => stored(plain.permute(&reversed)).permute(&reversed),
            Self::Flipped => stored(plain.flip(&axes)).flip(&axes),
            Self::Sliced => {
                let larger: Vec<_> = shape.iter().map(|size| 2 * size + 1).collect();
                let ranges: Vec<_> =
                    shape.iter().map(|&size| BurnSlice::new(1, Some(2 * size as isize + 1), 2)).collect();
                let junk = Array::full(&larger, 1e3, place);
                stored(junk.slice_assign(&ranges, plain)).slice(&ranges)
            }
            Self::Expanded => plain.rows(0, 1).expand(shape),
        }
    }
}

/// The results of a run at one point.
struct Traced<'a> {
    sample: &'a OpSample,
    inputs: Vec<Array>,
    output: Array,
    derived: Option<Array>,
    keeps: Vec<Keep>,
}

impl<'a> Traced<'a> {
    fn new(
        sample: &'a OpSample,
        operands: &[OperandValues],
        active: &[bool],
        view: StorageLayout,
        place: &Placement,
    ) -> Self {
        let rule = sample.op.rule();
        let inputs = sample.viewed(operands, view, place);
        // The rule gets arrays of its own, because it may reuse their storage.
        let given = sample.viewed(operands, view, place);
        let (output, derived) = rule.trace(given, &sample.shape(), place);
        Self { sample, inputs, output, derived, keeps: rule.keeps(active) }
    }

    /// The pullback to one operand.
    fn pullback(&self, cotangent: Array, position: usize) -> Array {
        self.with_saved(|saved| self.sample.op.rule().pullback(cotangent, position, saved))
    }

    /// Calls `work` with the tensors that the rule keeps, and no others.
    fn with_saved<T>(&self, work: impl FnOnce(&Saved<'_>) -> T) -> T {
        let kept: Vec<_> = (0..self.inputs.len())
            .map(|i| self.keeps.contains(&Keep::Input(i)).then(|| self.inputs[i].clone()))
            .collect();
        let derives = self.keeps.iter().any(|keep| matches!(keep, Keep::Mask | Keep::Indices));
        let saved = Saved {
            inputs: &kept,
            output: self.keeps.contains(&Keep::Output).then_some(&self.output),
            derived: self.derived.as_ref().filter(|_| derives),
            shapes: &self.sample.shapes(),
        };
        work(&saved)
    }
}

/// The forward pass, and the pullbacks of [`STACKED`] cotangents to every active operand, at a
/// place: the results by which devices are compared.
pub(super) fn results(sample: &OpSample, place: &Placement) -> Vec<(&'static str, Vec<f64>)> {
    let outputs: usize = sample.shape().iter().product();
    let all =
        |active: &[bool]| Traced::new(sample, &sample.operands, active, StorageLayout::Contiguous, place);
    let output = all(&vec![false; sample.operands.len()]).output;
    let mut found = vec![("forward", numbers(output, place))];
    for active in sample.active_sets() {
        let traced = all(&active);
        for position in (0..active.len()).filter(|&position| active[position]) {
            for v in STACKED {
                let cotangents = array(&with_leading(v, &sample.shape()), &cotangents(v, outputs), place);
                found.push(("pullback", values(traced.pullback(cotangents, position))));
            }
        }
    }
    found
}

/// `v` cotangents of `outputs` multiples of an eighth.
fn cotangents(v: usize, outputs: usize) -> Vec<f64> {
    (0..v * outputs).map(|i| ((i * 31 + v) % 17) as f64 / 8.0 - 1.0).collect()
}

/// The operation's result, row-major.
pub(super) fn forward(sample: &OpSample, operands: &[OperandValues]) -> Vec<f64> {
    let place = place(FloatDType::F64);
    let inputs = sample.viewed(operands, StorageLayout::Contiguous, &place);
    let output = sample.op.rule().forward(inputs, &sample.shape(), &place);
    assert_eq!(output.shape(), sample.shape(), "{}: the shape rule", sample.label());
    numbers(output, &place)
}

/// The directional derivative along `direction` of the operands at `positions`, by a central
/// difference.
fn difference(sample: &OpSample, positions: &[usize], direction: &[f64], step: f64) -> Vec<f64> {
    let moved = |by: f64| {
        let mut operands = sample.operands.clone();
        for &position in positions {
            for (x, d) in operands[position].values.iter_mut().zip(direction) {
                *x += by * d;
            }
        }
        forward(sample, &operands)
    };
    let (plus, minus) = (moved(step), moved(-step));
    plus.iter().zip(minus).map(|(plus, minus)| (plus - minus) / (2.0 * step)).collect()
}

/// The transposed Jacobian by central differences: a row for each element of the operand.
fn jacobian(sample: &OpSample, positions: &[usize], step: f64) -> Vec<Vec<f64>> {
    let count = sample.operands[positions[0]].values.len();
    let unit = |i: usize| -> Vec<f64> { (0..count).map(|j| f64::from(u8::from(i == j))).collect() };
    (0..count).map(|i| difference(sample, positions, &unit(i), step)).collect()
}

/// Asserts that both are equal within `tolerance`, relative to the largest element of `expected`,
/// at least 1.
pub(super) fn assert_close(what: &str, expected: &[f64], found: &[f64], tolerance: f64) {
    assert_eq!(expected.len(), found.len(), "{what}: number of elements");
    let scale = expected.iter().fold(1.0_f64, |max, x| max.max(x.abs()));
    for (i, (e, f)) in expected.iter().zip(found).enumerate() {
        let error = (e - f).abs() / scale;
        assert!(error <= tolerance, "{what}: element {i}: expected {e}, found {f}: {error:e} of the scale");
    }
}

/// Cotangents `[V, outputs]` pulled back to `[V, inputs]`.
fn pulled(
    traced: &Traced<'_>,
    position: usize,
    v: usize,
    cotangents: &[f64],
    view: StorageLayout,
) -> Vec<f64> {
    let operand =
        OperandValues { shape: with_leading(v, &traced.sample.shape()), values: cotangents.to_vec() };
    let cotangent = view.array(&operand, &place(FloatDType::F64));
    let pulled = traced.pullback(cotangent, position);
    let expected = with_leading(v, &traced.sample.operands[position].shape);
    assert_eq!(pulled.shape(), expected, "{}: shape of the pullback", traced.sample.label());
    values(pulled)
}

/// Property 2: unit cotangents stacked on V give the transposed Jacobian's columns.
fn check_jacobian(sample: &OpSample, traced: &Traced<'_>, position: usize) {
    let outputs: usize = sample.shape().iter().product();
    let inputs = sample.operands[position].values.len();
    if inputs * outputs > FULL_JACOBIAN {
        return;
    }
    let (step, tolerance) = sample.accuracy(position);
    let expected = jacobian(sample, &[position], step);
    let identity: Vec<f64> =
        (0..outputs * outputs).map(|i| f64::from(u8::from(i / outputs == i % outputs))).collect();
    let found = pulled(traced, position, outputs, &identity, StorageLayout::Contiguous);
    let transposed: Vec<f64> = (0..outputs).flat_map(|v| expected.iter().map(move |row| row[v])).collect();
    assert_close(&format!("{}, operand {position}", sample.label()), &transposed, &found, tolerance);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Property 3: the adjoint identity, for every number of stacked cotangents.
fn check_adjoint(sample: &OpSample, traced: &Traced<'_>, position: usize) {
    let (step, tolerance) = sample.accuracy(position);
    let shape = &sample.operands[position].shape;
    let outputs: usize = sample.shape().iter().product();
    let direction = spread(shape, 77).values;
    let tangent = difference(sample, &[position], &direction, step);
    for v in STACKED {
        let cotangents = cotangents(v, outputs);
        let found = pulled(traced, position, v, &cotangents, StorageLayout::Contiguous);
        for (u, row) in cotangents.chunks(outputs).zip(found.chunks(direction.len())) {
            let (left, right) = (dot(u, &tangent), dot(row, &direction));
            let scale: f64 = u.iter().zip(&tangent).map(|(u, t)| (u * t).abs()).sum::<f64>().max(1.0);
            assert!(
                (left - right).abs() <= tolerance * scale,
                "{}, operand {position}, V = {v}: <u, J v> = {left}, <J^T u, v> = {right}",
                sample.label()
            );
        }
    }
}

/// Property 4: one value as both operands, where the first two have the same shape.
fn check_twice(sample: &OpSample) {
    let same = |a: &OperandValues, b: &OperandValues| a.shape == b.shape;
    let [a, b, ..] = sample.operands.as_slice() else { return };
    if !same(a, b) || !sample.active.starts_with(&[0, 1]) {
        return;
    }
    let mut twice = sample.clone();
    twice.operands[1] = twice.operands[0].clone();
    let linear = twice.linear.starts_with(&[0, 1]);
    let (step, tolerance) = if linear { (LINEAR_STEP, LINEAR) } else { (STEP, SMOOTH) };
    let active: Vec<_> = (0..twice.operands.len()).map(|i| i < 2).collect();
    let place = place(FloatDType::F64);
    let traced = Traced::new(&twice, &twice.operands, &active, StorageLayout::Contiguous, &place);
    let outputs: usize = twice.shape().iter().product();
    let cotangent: Vec<f64> = spread(&[outputs], 5).values;
    let both: Vec<Vec<f64>> =
        (0..2).map(|position| pulled(&traced, position, 1, &cotangent, StorageLayout::Contiguous)).collect();
    let found: Vec<f64> = both[0].iter().zip(&both[1]).map(|(a, b)| a + b).collect();
    let expected: Vec<f64> = jacobian(&twice, &[0, 1], step).iter().map(|row| dot(row, &cotangent)).collect();
    assert_close(&format!("{}, one value for two operands", twice.label()), &expected, &found, tolerance);
}

/// Property 5: views as operands and cotangents.
fn check_views(sample: &OpSample, active: &[bool], view: StorageLayout) {
    let place = place(FloatDType::F64);
    let operands: Vec<_> = sample.operands.iter().map(|operand| view.adapted(operand)).collect();
    let [plain, viewed] =
        [StorageLayout::Contiguous, view].map(|view| Traced::new(sample, &operands, active, view, &place));
    let what = format!("{}, {view:?}", sample.label());
    let given = sample.viewed(&operands, view, &place);
    let alone = values(sample.op.rule().forward(given, &sample.shape(), &place));
    let expected = values(plain.output.clone());
    assert_close(&format!("{what}: forward"), &expected, &alone, VIEWS);
    assert_close(&format!("{what}: trace"), &expected, &values(viewed.output.clone()), VIEWS);
    let cotangents = view.adapted(&spread(&with_leading(3, &sample.shape()), 9)).values;
    for position in (0..active.len()).filter(|&position| active[position]) {
        let expected = pulled(&plain, position, 3, &cotangents, StorageLayout::Contiguous);
        let found = pulled(&viewed, position, 3, &cotangents, view);
        assert_close(&format!("{what}: pullback to operand {position}"), &expected, &found, VIEWS);
    }
}

/// Property 6: the factors of a sum of outer products.
fn check_factors(sample: &OpSample, traced: &Traced<'_>, position: usize) {
    let Some(outer) = sample.op.rule().outer(position, &sample.shapes(), &sample.shape()) else { return };
    let shape = with_leading(3, &sample.shape());
    let cotangents = array(&shape, &spread(&shape, 9).values, &place(FloatDType::F64));
    let factors = || {
        let rule = sample.op.rule();
        traced.with_saved(|saved| rule.factors(cotangents.clone(), position, saved))
    };
    let OuterSizes { groups, outputs, inputs, positions } = outer;
    assert_eq!(factors().deltas.shape(), [3, groups, outputs, positions], "{}", sample.label());
    assert_eq!(factors().inputs.shape(), [groups, positions, inputs], "{}", sample.label());
    let elements = sample.operands[position].values.len();
    let pulled = traced.pullback(cotangents.clone(), position).reshape(&[3, elements]);
    let expected = values(pulled.clone().matmul(pulled.permute(&[1, 0])));
    let what = |form| format!("{}: Gram matrix of operand {position} by {form}", sample.label());
    let gradients = factors().gradients();
    let by_gradient = values(gradients.clone().matmul(gradients.permute(&[1, 0])));
    assert_close(&what("gradient"), &expected, &by_gradient, LINEAR);
    assert_close(&what("position"), &expected, &values(factors().by_position()), LINEAR);
    let mut sums = GramSums::new(&[], 3, true);
    sums.factors(sums.of_input(), factors()).expect("the CPU computes");
    assert_close(&what("the cheaper form"), &expected, &sums.finish().expect("it is read")[..9], LINEAR);
}

/// Property 1: the shape rule (in [`forward`]), and the bits of `trace`.
fn check_trace(sample: &OpSample, traced: &Traced<'_>) {
    let forward: Vec<_> = forward(sample, &sample.operands).into_iter().map(f64::to_bits).collect();
    let traced: Vec<_> = values(traced.output.clone()).into_iter().map(f64::to_bits).collect();
    assert_eq!(forward, traced, "{}: trace and forward", sample.label());
}

/// Values of samples against Burn's own kernel, which is given the operation and its operands;
/// where it gives none, the sample is left out.
pub(super) fn check_values(
    samples: &[OpSample],
    tolerance: f64,
    kernel: impl Fn(&Op, Vec<Array>) -> Option<Array>,
) {
    let place = place(FloatDType::F64);
    for sample in samples {
        let Some(expected) = kernel(&sample.op, sample.arrays(&place)) else { continue };
        let found = forward(sample, &sample.operands);
        assert_close(&sample.label(), &values(expected), &found, tolerance);
    }
}

/// Checks all properties of all samples of a family.
pub(super) fn check(samples: &[OpSample]) {
    let place = place(FloatDType::F64);
    for sample in samples {
        forward(sample, &sample.operands);
        for active in sample.active_sets() {
            let traced = Traced::new(sample, &sample.operands, &active, StorageLayout::Contiguous, &place);
            check_trace(sample, &traced);
            for position in (0..active.len()).filter(|&position| active[position]) {
                check_jacobian(sample, &traced, position);
                check_adjoint(sample, &traced, position);
                check_factors(sample, &traced, position);
            }
            for view in VIEWS_OF_ALL_KINDS {
                check_views(sample, &active, view);
            }
        }
        check_twice(sample);
    }
}

#[test]
fn every_operation_has_samples() {
    let sampled: Vec<_> = samples().iter().map(|sample| sample.op.name()).collect();
    let without: Vec<_> = Op::NAMES.iter().filter(|name| !sampled.contains(*name)).collect();
    assert!(without.is_empty(), "operations without samples: {without:?}");
}

/// The samples of all families.
pub(super) fn samples() -> Vec<OpSample> {
    let families: [fn() -> Vec<OpSample>; 22] = [
        super::conv::tests::samples,
        super::linear::tests::samples,
        super::norm::tests::samples,
        super::activation::tests::samples,
        super::elementwise::tests::samples,
        super::pool::tests::samples,
        super::layout::tests::samples,
        super::arithmetic::tests::samples,
        super::reduce::tests::samples,
        super::softmax::tests::samples,
        super::mask::tests::samples,
        super::logic::tests::samples,
        super::step::tests::samples,
        super::sort::tests::samples,
        super::unfold::tests::samples,
        super::transposed::tests::samples,
        super::indexing::tests::samples,
        super::assembly::tests::samples,
        super::resample::tests::samples,
        super::attention::tests::samples,
        super::grid::tests::samples,
        super::volume::tests::samples,
    ];
    families.iter().flat_map(|family| family()).collect()
}
