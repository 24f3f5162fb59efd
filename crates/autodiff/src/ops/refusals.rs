//! Operands that do not fit: every shape rule gives a reason, and none panics.

use super::Op;
use super::activation::{LeakyRelu, PRelu, Relu};
use super::arithmetic::{Add, Div, Mul, Pow, Sub};
use super::assembly::{Margin, Pad, Repeat, SliceAssign};
use super::attention::Attention;
use super::conv::Conv2d;
use super::elementwise::Clamp;
use super::grid::{Between, GridSample, Outside};
use super::indexing::{Embedding, Gather, Select};
use super::layout::{Cat, Expand, Flip, Permute, Reshape, Slice};
use super::linear::{Linear, Matmul};
use super::logic::{ComparePair, Connective, Logic};
use super::mask::{MaskFill, MaskWhere, Relation};
use super::norm::{BatchNorm, LayerNorm};
use super::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};
use super::reduce::{CumSum, Extremum, Mean, Sum};
use super::resample::{Interpolate, Mode};
use super::row::AsImage;
use super::softmax::{LogSoftmax, Softmax, Softmin};
use super::sort::Sort;
use super::transposed::ConvTranspose2d;
use super::unfold::Unfold;
use super::volume::{AdaptiveAvgPool3d, Conv3d};

/// Operations whose operands may have any shape.
const FIT_ANY_SHAPE: &[&str] = &[
    "Relu",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "Gelu",
    "Fill",
    "Empty",
    "Step",
    "Not",
    "Indicator",
    "Cast",
    "AddScalar",
    "MulScalar",
    "DivScalar",
    "Recip",
    "HardSigmoid",
    "LogSigmoid",
    "Exp",
    "Log",
    "Log1p",
    "Sqrt",
    "Power",
    "Sin",
    "Cos",
    "Erf",
    "Abs",
    "Compare",
];

/// An operation, its operands' shapes, the recorded shape, and a part of the reason.
type BadInput = (Op, Vec<Vec<usize>>, Vec<usize>, &'static str);

fn bad_input(op: Op, inputs: &[&[usize]], recorded: &[usize], reason: &'static str) -> BadInput {
    (op, inputs.iter().map(|shape| shape.to_vec()).collect(), recorded.to_vec(), reason)
}

fn conv(stride: usize, dilation: usize, groups: usize) -> Op {
    Op::Conv2d(Conv2d { stride: [stride; 2], padding: [(0, 0); 2], dilation: [dilation; 2], groups })
}

fn convolutions() -> Vec<BadInput> {
    let x: &[usize] = &[1, 4, 5, 5];
    vec![
        bad_input(conv(1, 1, 1), &[&[4, 5, 5], &[2, 4, 3, 3]], &[], "four axes"),
        bad_input(conv(1, 1, 1), &[x, &[2, 4, 3]], &[], "four axes"),
        bad_input(conv(1, 1, 1), &[x, &[2, 3, 3, 3]], &[], "channels"),
        bad_input(conv(1, 1, 2), &[x, &[3, 2, 3, 3]], &[], "channels"),
        bad_input(conv(1, 1, 0), &[x, &[2, 4, 3, 3]], &[], "channels"),
        bad_input(conv(0, 1, 1), &[x, &[2, 4, 3, 3]], &[], "positive"),
        bad_input(conv(1, 0, 1), &[x, &[2, 4, 3, 3]], &[], "positive"),
        bad_input(conv(1, 1, 1), &[x, &[2, 4, 0, 3]], &[], "positive"),
        bad_input(conv(1, 1, 1), &[x, &[2, 4, 6, 3]], &[], "larger"),
        bad_input(conv(1, 3, 1), &[x, &[2, 4, 3, 3]], &[], "larger"),
        bad_input(conv(1, 1, 1), &[x, &[2, 4, 3, 3], &[3]], &[], "bias"),
        bad_input(conv(1, 1, 1), &[x, &[2, 4, 3, 3], &[2, 1]], &[], "bias"),
        bad_input(conv(1, usize::MAX, 1), &[x, &[2, 4, 3, 3]], &[], "larger"),
    ]
}

fn transposed() -> Vec<BadInput> {
    let conv = |stride: usize, padding: usize, groups| ConvTranspose2d {
        stride: [stride; 2],
        padding: [padding; 2],
        padding_out: [0; 2],
        dilation: [1; 2],
        groups,
    };
    let two = |stride, padding, groups| Op::ConvTranspose2d(conv(stride, padding, groups));
    let x: &[usize] = &[1, 4, 5, 5];
    vec![
        bad_input(two(1, 0, 1), &[&[4, 5, 5], &[4, 2, 3, 3]], &[], "four axes"),
        bad_input(two(1, 0, 1), &[x, &[3, 2, 3, 3]], &[], "channels"),
        bad_input(two(1, 0, 3), &[x, &[4, 2, 3, 3]], &[], "channels"),
        bad_input(two(0, 0, 1), &[x, &[4, 2, 3, 3]], &[], "positive"),
        bad_input(two(1, 3, 1), &[x, &[4, 2, 3, 3]], &[], "reach"),
        bad_input(two(1, 0, 1), &[x, &[4, 2, 3, 3], &[3]], &[], "bias"),
        bad_input(Op::ConvTranspose1d(AsImage(conv(1, 0, 1))), &[x, &[4, 2, 3]], &[], "three axes"),
        bad_input(Op::Unfold(Unfold { axis: 1, size: 4, step: 1 }), &[&[2, 3]], &[], "does not fit"),
        bad_input(Op::Unfold(Unfold { axis: 2, size: 1, step: 1 }), &[&[2, 3]], &[], "does not fit"),
        bad_input(Op::Unfold(Unfold { axis: 1, size: 1, step: 0 }), &[&[2, 3]], &[], "does not fit"),
        bad_input(
            Op::Sort(Sort { axis: 1, descending: true, count: Some(4) }),
            &[&[2, 3]],
            &[],
            "fewer than 4",
        ),
    ]
}

fn volumes() -> Vec<BadInput> {
    let conv = |stride: usize, groups| {
        Op::Conv3d(Conv3d { stride: [stride; 3], padding: [(0, 0); 3], dilation: [1; 3], groups })
    };
    let x: &[usize] = &[1, 4, 3, 5, 5];
    let adaptive = |output| Op::AdaptiveAvgPool3d(AdaptiveAvgPool3d { output });
    let (between, outside) = (Between::Bilinear, Outside::Zeros);
    let grid = || Op::GridSample(GridSample { between, outside, align_corners: false });
    vec![
        bad_input(conv(1, 1), &[&[4, 3, 5, 5], &[2, 4, 1, 3, 3]], &[], "five axes"),
        bad_input(conv(1, 1), &[x, &[2, 4, 3, 3]], &[], "five axes"),
        bad_input(conv(1, 1), &[x, &[2, 3, 1, 3, 3]], &[], "channels"),
        bad_input(conv(1, 0), &[x, &[2, 4, 1, 3, 3]], &[], "channels"),
        bad_input(conv(0, 1), &[x, &[2, 4, 1, 3, 3]], &[], "positive"),
        bad_input(conv(1, 1), &[x, &[2, 4, 0, 3, 3]], &[], "positive"),
        bad_input(conv(1, 1), &[x, &[2, 4, 4, 3, 3]], &[], "larger"),
        bad_input(conv(1, 1), &[x, &[2, 4, 1, 6, 3]], &[], "larger"),
        bad_input(conv(1, 1), &[x, &[2, 4, 1, 3, 3], &[3]], &[], "bias"),
        bad_input(adaptive([1, 1, 1]), &[&[4, 3, 5, 5]], &[], "five axes"),
        bad_input(adaptive([1, 0, 1]), &[x], &[], "positive"),
        bad_input(grid(), &[&[4, 3, 5], &[4, 1, 1, 2]], &[], "four axes"),
        bad_input(grid(), &[&[4, 3, 5, 5], &[4, 1, 1, 3]], &[], "does not fit"),
        bad_input(grid(), &[&[4, 3, 5, 5], &[3, 1, 1, 2]], &[], "does not fit"),
        bad_input(grid(), &[&[4, 3, 0, 5], &[4, 1, 1, 2]], &[], "does not fit"),
    ]
}

fn rows() -> Vec<BadInput> {
    let (x, conv): (&[usize], _) = (&[1, 4, 5], |stride| Op::Conv1d(super::conv::row(stride, (0, 0), 1, 1)));
    let (kernel, stride, padding) = ([1, 6], [1, 1], [0, 0]);
    let max = AsImage(MaxPool2d { kernel, stride, padding, dilation: [1, 1], ceil_mode: false });
    let mean = AsImage(AvgPool2d { kernel, stride, padding, count_include_pad: true, ceil_mode: false });
    let adaptive = |size| Op::AdaptiveAvgPool1d(AsImage(AdaptiveAvgPool2d { output: [1, size] }));
    vec![
        bad_input(conv(1), &[&[1, 4, 5, 5], &[2, 4, 3]], &[], "three axes"),
        bad_input(conv(1), &[x, &[2, 4]], &[], "four axes"),
        bad_input(conv(1), &[x, &[2, 3, 3]], &[], "channels"),
        bad_input(conv(0), &[x, &[2, 4, 3]], &[], "positive"),
        bad_input(conv(1), &[x, &[2, 4, 6]], &[], "larger"),
        bad_input(conv(1), &[x, &[2, 4, 3], &[3]], &[], "bias"),
        bad_input(Op::MaxPool1d(max.clone()), &[x], &[], "larger"),
        bad_input(Op::MaxPool1d(max), &[&[4, 5]], &[], "three axes"),
        bad_input(Op::AvgPool1d(mean), &[x], &[], "larger"),
        bad_input(adaptive(0), &[x], &[], "positive"),
        bad_input(adaptive(2), &[&[5]], &[], "three axes"),
    ]
}

fn products() -> Vec<BadInput> {
    let (linear, matmul) = (|| Op::Linear(Linear), || Op::Matmul(Matmul));
    vec![
        bad_input(linear(), &[&[2, 3], &[4, 5]], &[], "does not fit"),
        bad_input(linear(), &[&[], &[4, 5]], &[], "does not fit"),
        bad_input(linear(), &[&[2, 3], &[3]], &[], "does not fit"),
        bad_input(linear(), &[&[2, 3], &[3, 5], &[4]], &[], "bias"),
        bad_input(matmul(), &[&[2, 3], &[4, 5]], &[], "do not fit"),
        bad_input(matmul(), &[&[3], &[3]], &[], "do not fit"),
        bad_input(matmul(), &[&[2, 2, 3], &[3, 5]], &[], "do not fit"),
        bad_input(matmul(), &[&[2, 2, 3], &[3, 3, 5]], &[], "broadcast"),
    ]
}

fn pools() -> Vec<BadInput> {
    let max = |kernel, stride, padding, dilation| {
        let dilation = [dilation; 2];
        let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
        Op::MaxPool2d(MaxPool2d { kernel, stride, padding, dilation, ceil_mode: false })
    };
    let mean = |kernel, stride, padding| {
        let (kernel, stride, padding) = ([kernel; 2], [stride; 2], [padding; 2]);
        Op::AvgPool2d(AvgPool2d { kernel, stride, padding, count_include_pad: true, ceil_mode: false })
    };
    let adaptive = |output| Op::AdaptiveAvgPool2d(AdaptiveAvgPool2d { output });
    let x: &[usize] = &[1, 2, 5, 5];
    vec![
        bad_input(max(2, 1, 0, 1), &[&[2, 5, 5]], &[], "four axes"),
        bad_input(max(2, 0, 0, 1), &[x], &[], "positive"),
        bad_input(max(2, 1, 0, 0), &[x], &[], "positive"),
        bad_input(max(0, 1, 0, 1), &[x], &[], "positive"),
        bad_input(max(6, 1, 0, 1), &[x], &[], "larger"),
        bad_input(max(3, 1, 0, 3), &[x], &[], "larger"),
        bad_input(max(2, 1, 2, 1), &[x], &[], "padding"),
        bad_input(mean(2, 1, 0), &[&[5, 5]], &[], "four axes"),
        bad_input(mean(2, 0, 0), &[x], &[], "positive"),
        bad_input(mean(6, 1, 0), &[x], &[], "larger"),
        bad_input(mean(2, 1, 2), &[x], &[], "padding"),
        bad_input(adaptive([2, 2]), &[&[2, 5, 5]], &[], "four axes"),
        bad_input(adaptive([0, 2]), &[x], &[], "positive"),
    ]
}

fn norms_and_elementwise() -> Vec<BadInput> {
    let norm = || Op::BatchNorm(BatchNorm { epsilon: 1e-5 });
    let c: &[usize] = &[3];
    let mut all = vec![
        bad_input(norm(), &[&[3], c, c, c, c], &[], "do not fit"),
        bad_input(norm(), &[&[2, 4], c, c, c, c], &[], "do not fit"),
        bad_input(norm(), &[&[2, 3], c, c, c, &[1, 3]], &[], "do not fit"),
        bad_input(Op::LayerNorm(LayerNorm { epsilon: 1e-5 }), &[&[3, 2], c], &[], "do not fit"),
        bad_input(Op::LayerNorm(LayerNorm { epsilon: 1e-5 }), &[&[2, 3], c, &[2]], &[], "do not fit"),
        bad_input(Op::LayerNorm(LayerNorm { epsilon: 1e-5 }), &[&[], c], &[], "do not fit"),
        bad_input(Op::PRelu(PRelu), &[&[2, 1], &[1, 3]], &[], "do not fit"),
        bad_input(Op::PRelu(PRelu), &[&[2, 3], &[3]], &[], "broadcast"),
        bad_input(Op::Clamp(Clamp { min: Some(1.0), max: Some(0.0) }), &[c], &[], "no number"),
        bad_input(Op::Clamp(Clamp { min: Some(f64::NAN), max: None }), &[c], &[], "no number"),
        bad_input(Op::Extremum(Extremum { axis: 2, smallest: false }), &[&[2, 3]], &[], "axes"),
    ];
    let pair = Op::ComparePair(ComparePair { relation: Relation::Above });
    let logic = Op::Logic(Logic { connective: Connective::And });
    for op in [Op::Add(Add), Op::Sub(Sub), Op::Mul(Mul), Op::Div(Div), Op::Pow(Pow), pair, logic] {
        all.push(bad_input(op.clone(), &[&[2, 3], &[3, 2]], &[], "broadcast"));
        all.push(bad_input(op, &[&[2, 3], &[3]], &[], "broadcast"));
    }
    for axis in [2, usize::MAX] {
        all.push(bad_input(Op::Softmax(Softmax { axis }), &[&[2, 3]], &[], "axis"));
        all.push(bad_input(Op::Softmin(Softmin { axis }), &[&[2, 3]], &[], "axis"));
        all.push(bad_input(Op::CumSum(CumSum { axis }), &[&[2, 3]], &[], "axes"));
        all.push(bad_input(Op::Sort(Sort { axis, descending: true, count: None }), &[&[2, 3]], &[], "axis"));
        all.push(bad_input(Op::LogSoftmax(LogSoftmax { axis }), &[&[2, 3]], &[], "axis"));
        all.push(bad_input(Op::Sum(Sum { axes: vec![0, axis] }), &[&[2, 3]], &[], "axes"));
        all.push(bad_input(Op::Mean(Mean { axes: vec![axis] }), &[&[2, 3]], &[], "axes"));
    }
    all
}

fn layouts() -> Vec<BadInput> {
    let cat = |axis| Op::Cat(Cat { axis });
    let permute = |axes: &[usize]| Op::Permute(Permute { axes: axes.to_vec() });
    let slice = |range| Op::Slice(Slice { ranges: vec![None, Some(range)] });
    let x: &[usize] = &[2, 3];
    vec![
        bad_input(cat(2), &[x], &[], "axis"),
        bad_input(cat(2), &[x, x], &[], "axis"),
        bad_input(cat(0), &[x, &[2, 4]], &[], "side by side"),
        bad_input(cat(0), &[x, &[2, 3, 1]], &[], "side by side"),
        bad_input(cat(0), &[], &[], "operand"),
        bad_input(Op::Reshape(Reshape), &[x], &[5], "do not fill"),
        bad_input(permute(&[0]), &[x], &[], "order"),
        bad_input(permute(&[0, 0]), &[x], &[], "order"),
        bad_input(permute(&[0, 2]), &[x], &[], "order"),
        bad_input(Op::Flip(Flip { axes: vec![2] }), &[x], &[], "axis"),
        bad_input(slice([1, 4, 1]), &[x], &[], "does not fit"),
        bad_input(slice([2, 2, 1]), &[x], &[], "does not fit"),
        bad_input(slice([0, 2, 0]), &[x], &[], "does not fit"),
        bad_input(slice([0, 1, 1]), &[&[2]], &[], "ranges"),
        bad_input(Op::Expand(Expand), &[x], &[3], "does not expand"),
        bad_input(Op::Expand(Expand), &[x], &[2, 4], "does not expand"),
        bad_input(Op::Expand(Expand), &[x], &[3, 2], "does not expand"),
    ]
}

fn choices() -> Vec<BadInput> {
    let (select, gather) = (|axis| Op::Select(Select { axis }), |axis| Op::Gather(Gather { axis }));
    let assign = |range| Op::SliceAssign(SliceAssign { part: Slice { ranges: vec![None, Some(range)] } });
    let repeat = |axis| Op::Repeat(Repeat { axis });
    let pad = |padding: &[(usize, usize)], margin| Op::Pad(Pad { padding: padding.to_vec(), margin });
    let x: &[usize] = &[2, 3];
    vec![
        bad_input(pad(&[(1, 1)], Margin::Constant(0.0)), &[x], &[], "do not fit"),
        bad_input(pad(&[(0, 0), (3, 0)], Margin::Reflect), &[x], &[], "do not fit"),
        bad_input(pad(&[(1, 0)], Margin::Edge), &[&[0]], &[], "do not fit"),
        bad_input(Op::MaskFill(MaskFill { value: 0.0 }), &[x, &[2, 2]], &[], "broadcast"),
        bad_input(Op::MaskWhere(MaskWhere), &[x, x, &[3]], &[], "broadcast"),
        bad_input(select(2), &[x, &[4]], &[], "no axis"),
        bad_input(select(1), &[x, &[4, 1]], &[], "not the shape of a list"),
        bad_input(gather(2), &[x, x], x, "do not fit"),
        bad_input(gather(1), &[x, &[3]], x, "do not fit"),
        bad_input(gather(1), &[&[3, 3], x], x, "do not fit"),
        bad_input(Op::Embedding(Embedding), &[x, &[2, 2]], &[2, 2, 2], "do not fit"),
        bad_input(Op::Embedding(Embedding), &[x, &[2]], &[2, 3], "do not fit"),
        bad_input(assign([1, 4, 1]), &[x, x], &[], "does not fit"),
        bad_input(assign([1, 3, 1]), &[x, x], &[], "does not fill"),
        bad_input(repeat(1), &[x], &[2, 4], "do not fill"),
        bad_input(repeat(2), &[x], x, "do not fill"),
        bad_input(repeat(0), &[x], &[4, 6], "do not fill"),
    ]
}

fn resampling_and_attention() -> Vec<BadInput> {
    let to = |output| Op::Interpolate(Interpolate { mode: Mode::Bilinear, align_corners: true, output });
    let attention = |cap, masked| Op::Attention(Attention { scale: None, cap, causal: false, masked });
    let q: &[usize] = &[1, 2, 3, 4];
    vec![
        bad_input(to([2, 2]), &[&[2, 5, 5]], &[], "four axes"),
        bad_input(to([0, 2]), &[&[1, 2, 5, 5]], &[], "positive"),
        bad_input(to([2, 2]), &[&[1, 2, 0, 5]], &[], "positive"),
        bad_input(attention(None, false), &[q, &[1, 2, 3, 5], q], &[], "do not fit"),
        bad_input(attention(None, false), &[q, q, &[1, 2, 4, 4]], &[], "do not fit"),
        bad_input(attention(None, false), &[q, &[1, 1, 3, 4], &[1, 1, 3, 4]], &[], "do not fit"),
        bad_input(attention(Some(0.0), false), &[q, q, q], &[], "cap"),
        bad_input(attention(None, true), &[q, q, q, &[1, 2, 3, 4]], &[], "broadcast"),
        bad_input(attention(None, false), &[q, q, q, &[5, 2, 3, 3]], &[], "does not fit"),
    ]
}

fn table() -> Vec<BadInput> {
    [
        choices(),
        resampling_and_attention(),
        convolutions(),
        transposed(),
        volumes(),
        rows(),
        products(),
        pools(),
        norms_and_elementwise(),
        layouts(),
    ]
    .concat()
}

#[test]
fn operands_that_do_not_fit_are_refused_with_the_reason() {
    for (op, inputs, recorded, reason) in table() {
        match op.rule().shape(&inputs, &recorded) {
            Err(why) => assert!(why.contains(reason), "{op} of {inputs:?}: {why:?} does not say {reason:?}"),
            Ok(shape) => panic!("{op} of {inputs:?} gives {shape:?}"),
        }
    }
}

#[test]
fn every_operation_that_can_be_misused_is_in_the_table() {
    let refused: Vec<_> = table().iter().map(|(op, ..)| op.name()).collect();
    let missing: Vec<_> =
        Op::NAMES.iter().filter(|name| !refused.contains(name) && !FIT_ANY_SHAPE.contains(name)).collect();
    assert!(missing.is_empty(), "operations without a bad_input input: {missing:?}");
}

#[test]
fn elementwise_operations_fit_any_shape() {
    for op in [Op::Relu(Relu), Op::LeakyRelu(LeakyRelu { slope: 0.1 })] {
        for shape in [vec![], vec![0], vec![1, 2, 3, 4, 5, 6]] {
            assert_eq!(op.rule().shape(std::slice::from_ref(&shape), &shape), Ok(shape.clone()));
        }
    }
}
