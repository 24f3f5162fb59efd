//! Runs the operations of a random program with Burn.

use burn::module::Param;
use burn::nn::{GroupNorm, InstanceNorm};
use burn::tensor::activation as act;
use burn::tensor::module;
use burn::tensor::ops::{
    AttentionModuleOptions, AvgPoolOptions, ConvOptions, ConvTransposeOptions, GridSampleOptions,
    InterpolateOptions, MaxPoolOptions, PadMode,
};
use burn::tensor::{Bool, Device, Int, Shape, Slice, Tensor, TensorData};

use crate::attack::op::{DrawnOp, Fold, PadFill, WindowSpec};
use crate::attack::rng::Rng;
use crate::attack::value::{AnyTensor, with, with_both};
use crate::attack::weights::numbers;

/// A random mask in which one element of three is set.
fn mask(shape: &[usize], seed: u64) -> TensorData {
    let mut rng = Rng::new(seed);
    TensorData::new(
        (0..shape.iter().product()).map(|_| rng.once_in(3)).collect::<Vec<bool>>(),
        shape.to_vec(),
    )
}

/// A constant mask for a value, the same for all samples. It has one entry along the batch axis,
/// which broadcasts, or is expanded to the whole batch.
fn constant_mask<const D: usize>(x: &Tensor<D>, seed: u64, whole: bool) -> Tensor<D, Bool> {
    let device = x.device();
    let mut shape = x.dims();
    shape[0] = 1;
    let mask = Tensor::<D, Bool>::from_data(mask(&shape, seed), &device);
    if whole { mask.expand(x.dims()) } else { mask }
}

/// Random indices below `below`.
fn indices<const D: usize>(shape: [usize; D], below: usize, seed: u64, device: &Device) -> Tensor<D, Int> {
    let mut rng = Rng::new(seed);
    let values: Vec<i64> = (0..shape.iter().product::<usize>()).map(|_| rng.below(below) as i64).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// A list as an array, one entry per axis.
fn fixed<const N: usize, T: Copy + std::fmt::Debug>(list: &[T]) -> [T; N] {
    list.try_into().expect("one entry per axis")
}

impl WindowSpec {
    fn conv<const N: usize>(&self, groups: usize) -> ConvOptions<N> {
        ConvOptions {
            stride: fixed(&self.stride),
            padding: fixed(&self.padding),
            dilation: fixed(&self.dilation),
            groups,
        }
    }

    fn transposed<const N: usize>(&self, groups: usize, behind: &[usize]) -> ConvTransposeOptions<N> {
        let padding: Vec<usize> = self.padding.iter().map(|&(before, _)| before).collect();
        ConvTransposeOptions {
            stride: fixed(&self.stride),
            padding: fixed(&padding),
            padding_out: fixed(behind),
            dilation: fixed(&self.dilation),
            groups,
        }
    }

    fn max<const N: usize>(&self, ceil_mode: bool) -> MaxPoolOptions<N> {
        MaxPoolOptions {
            kernel_size: fixed(&self.kernel),
            stride: fixed(&self.stride),
            padding: fixed(&self.padding),
            dilation: fixed(&self.dilation),
            ceil_mode,
        }
    }

    fn mean<const N: usize>(&self, ceil_mode: bool, count_include_pad: bool) -> AvgPoolOptions<N> {
        AvgPoolOptions {
            kernel_size: fixed(&self.kernel),
            stride: fixed(&self.stride),
            padding: fixed(&self.padding),
            count_include_pad,
            ceil_mode,
        }
    }
}

impl DrawnOp {
    /// Applies the operation to its operands, in a batch of `n` samples.
    pub(crate) fn apply(&self, inputs: Vec<AnyTensor>, n: usize) -> AnyTensor {
        let mut rest = inputs.into_iter();
        let x = rest.next().expect("an operation has an operand");
        let mut next = || rest.next().expect("another operand");
        match self {
            Self::Same => x,
            Self::Unary(unary) => with!(x, x => unary.apply(x).into()),
            Self::Binary(binary) => with_both!(x, next(), (a, b) => binary.apply(a, b).into()),
            Self::Cat { axis } => with_both!(x, next(), (a, b) => Tensor::cat(vec![a, b], *axis).into()),
            Self::Linear => {
                let weight = next().two();
                let bias = rest.next().map(AnyTensor::one);
                with!(x, x => module::linear(x, weight, bias).into())
            }
            Self::Matmul => with_both!(x, next(), (a, b) => a.matmul(b).into()),
            Self::Stack { .. }
            | Self::Reshape { .. }
            | Self::Flatten { .. }
            | Self::Squeeze { .. }
            | Self::Unsqueeze { .. }
            | Self::Expand { .. }
            | Self::Unfold { .. }
            | Self::SelectDim { .. } => self.reshaped(x, rest.next(), n),
            Self::Conv1d { .. } | Self::Conv2d { .. } | Self::Conv3d { .. } | Self::Transposed { .. } => {
                let weight = next();
                self.convolved(x, weight, rest.next().map(AnyTensor::one))
            }
            Self::BatchNorm { .. } | Self::LayerNorm | Self::GroupNorm { .. } | Self::InstanceNorm => {
                let gamma = next().one();
                self.normed(x, gamma, rest.next().map(AnyTensor::one))
            }
            Self::PRelu => {
                let slopes = next().one();
                with!(x, x => act::prelu(x, slopes).into())
            }
            Self::Assign { .. } | Self::MaskWhere { .. } | Self::Choose { .. } => self.merged(x, next()),
            Self::Attention { causal, mask, cap } => {
                let (k, v) = (next(), next());
                attention([x, k, v], rest.next(), *causal, *mask, *cap)
            }
            Self::GridSample { mode, outside, corners } => {
                let options = GridSampleOptions::new(mode.clone()).with_padding_mode(*outside);
                x.four().grid_sample_2d(next().four(), options.with_align_corners(*corners)).into()
            }
            Self::Embedding { indices } => {
                let table = x.two();
                let device = table.device();
                let row: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
                let row = Tensor::<2, Int>::from_data(TensorData::new(row, [1, indices.len()]), &device);
                module::embedding(table, row.expand([n, indices.len()])).into()
            }
            Self::MaxPool1d { .. }
            | Self::MaxPool2d { .. }
            | Self::AvgPool1d { .. }
            | Self::AvgPool2d { .. }
            | Self::AdaptiveAvgPool1d { .. }
            | Self::AdaptiveAvgPool2d { .. }
            | Self::AdaptiveAvgPool3d { .. }
            | Self::Interpolate { .. } => self.pooled(x),
            _ => with!(x, x => self.alone(x)),
        }
    }

    /// Operations of one operand that keep its rank.
    fn alone<const D: usize>(&self, x: Tensor<D>) -> AnyTensor
    where
        AnyTensor: From<Tensor<D>>,
    {
        let device = x.device();
        match self {
            Self::Softmax { axis } => act::softmax(x, *axis).into(),
            Self::LogSoftmax { axis } => act::log_softmax(x, *axis).into(),
            Self::Softmin { axis } => act::softmin(x, *axis).into(),
            Self::CumSum { axis } => x.cumsum(*axis).into(),
            Self::Sort { axis, count: Some(count), .. } => x.topk(*count, *axis).into(),
            Self::Sort { axis, descending: true, .. } => x.sort_descending(*axis).into(),
            Self::Sort { axis, .. } => x.sort(*axis).into(),
            Self::Rewritten { axis } => rewritten(x, *axis).into(),
            Self::Glu { axis } => act::glu(x, *axis).into(),
            Self::Flip { axes } => match axes[..] {
                [a] => x.flip([a]).into(),
                [a, b] => x.flip([a, b]).into(),
                _ => x.flip([axes[0], axes[1], axes[2]]).into(),
            },
            Self::Permute { axes } => x.permute(fixed::<D, _>(axes)).into(),
            Self::SwapDims { axes: [a, b] } => x.swap_dims(*a, *b).into(),
            Self::Roll { axis, by } => x.roll_dim(*by as i64, *axis).into(),
            Self::Slice { axis, start, end, step } => {
                let slice = Slice { start: *start as isize, end: Some(*end as isize), step: *step };
                x.slice_dim(*axis, slice).into()
            }
            Self::Repeat { axis, times } => x.repeat_dim(*axis, *times).into(),
            Self::Pad { margins, with } => {
                let mode = match with {
                    PadFill::Number => PadMode::Constant(0.25),
                    PadFill::Reflect => PadMode::Reflect,
                    PadFill::Edge => PadMode::Edge,
                };
                x.pad(fixed::<D, _>(margins), mode).into()
            }
            Self::Select { axis, indices } => {
                let list: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
                let list = Tensor::<1, Int>::from_data(TensorData::new(list, [indices.len()]), &device);
                x.select(*axis, list).into()
            }
            Self::Gather { axis, length, seed } => {
                // The indices of one sample, expanded to the batch.
                let (mut shape, below) = (x.dims(), x.dims()[*axis]);
                shape[*axis] = *length;
                let mut one = shape;
                one[0] = 1;
                let index = indices(one, below, *seed, &device).expand(shape);
                x.gather(*axis, index).into()
            }
            Self::MaskFill { seed, whole } => {
                let mask = constant_mask(&x, *seed, *whole);
                x.mask_fill(mask, 0.35).into()
            }
            Self::FillWhere { compare } => {
                let mask = compare.mask(x.clone(), 0.17);
                x.mask_fill(mask, -0.45).into()
            }
            Self::Fold { fold, axes, squeeze } => {
                let folded = fold_axes(x, *fold, axes);
                if *squeeze { squeezed(folded.into(), axes) } else { folded.into() }
            }
            other => panic!("{other:?} takes other operands"),
        }
    }

    /// Operations that change the rank.
    fn reshaped(&self, x: AnyTensor, second: Option<AnyTensor>, n: usize) -> AnyTensor {
        let shape = x.shape();
        match self {
            Self::Reshape { shape } => x.reshape(&shape.iter().map(|dim| dim.at(n)).collect::<Vec<_>>()),
            Self::Flatten { from, to } => flattened(x, *from, *to, shape.len() - (to - from)),
            Self::Squeeze { axis } => squeezed(x, &[*axis]),
            Self::SelectDim { axis, at } => {
                with!(x, x => squeezed(x.narrow(*axis, *at, 1).into(), &[*axis]))
            }
            Self::Unsqueeze { axis } => match x {
                AnyTensor::One(x) => x.unsqueeze_dim::<2>(*axis).into(),
                AnyTensor::Two(x) => x.unsqueeze_dim::<3>(*axis).into(),
                AnyTensor::Three(x) => x.unsqueeze_dim::<4>(*axis).into(),
                AnyTensor::Four(x) => x.unsqueeze_dim::<5>(*axis).into(),
                AnyTensor::Five(_) => panic!("rank 6"),
            },
            Self::Unfold { axis, size, step } => match x {
                AnyTensor::One(x) => x.unfold::<2, _>(*axis, *size, *step).into(),
                AnyTensor::Two(x) => x.unfold::<3, _>(*axis, *size, *step).into(),
                AnyTensor::Three(x) => x.unfold::<4, _>(*axis, *size, *step).into(),
                AnyTensor::Four(x) => x.unfold::<5, _>(*axis, *size, *step).into(),
                AnyTensor::Five(_) => panic!("rank 6"),
            },
            Self::Stack { axis } => match (x, second.expect("two operands")) {
                (AnyTensor::One(a), AnyTensor::One(b)) => Tensor::stack::<2>(vec![a, b], *axis).into(),
                (AnyTensor::Two(a), AnyTensor::Two(b)) => Tensor::stack::<3>(vec![a, b], *axis).into(),
                (AnyTensor::Three(a), AnyTensor::Three(b)) => Tensor::stack::<4>(vec![a, b], *axis).into(),
                (AnyTensor::Four(a), AnyTensor::Four(b)) => Tensor::stack::<5>(vec![a, b], *axis).into(),
                _ => panic!("ranks differ"),
            },
            Self::Expand { shape } => {
                let to: Vec<usize> = shape.iter().map(|dim| dim.at(n)).collect();
                let whole = Shape::from(to.clone());
                match to.len() {
                    1 => with!(x, x => x.expand::<1, _>(whole).into()),
                    2 => with!(x, x => x.expand::<2, _>(whole).into()),
                    3 => with!(x, x => x.expand::<3, _>(whole).into()),
                    4 => with!(x, x => x.expand::<4, _>(whole).into()),
                    _ => with!(x, x => x.expand::<5, _>(whole).into()),
                }
            }
            other => panic!("{other:?} keeps the rank"),
        }
    }

    /// Convolutions, with weight and optional bias.
    fn convolved(&self, x: AnyTensor, weight: AnyTensor, bias: Option<Tensor<1>>) -> AnyTensor {
        match self {
            Self::Conv1d { window, groups } => {
                module::conv1d(x.three(), weight.three(), bias, window.conv::<1>(*groups)).into()
            }
            Self::Conv2d { window, groups } => {
                module::conv2d(x.four(), weight.four(), bias, window.conv::<2>(*groups)).into()
            }
            Self::Conv3d { window, groups } => {
                module::conv3d(x.five(), weight.five(), bias, window.conv::<3>(*groups)).into()
            }
            Self::Transposed { window, groups, behind } if behind.len() == 1 => {
                let options = window.transposed::<1>(*groups, behind);
                module::conv_transpose1d(x.three(), weight.three(), bias, options).into()
            }
            Self::Transposed { window, groups, behind } => {
                let options = window.transposed::<2>(*groups, behind);
                module::conv_transpose2d(x.four(), weight.four(), bias, options).into()
            }
            other => panic!("{other:?} is no convolution"),
        }
    }

    /// Normalisations, with scale and optional shift.
    fn normed(&self, x: AnyTensor, gamma: Tensor<1>, beta: Option<Tensor<1>>) -> AnyTensor {
        let epsilon = 0.01;
        match self {
            Self::BatchNorm { seed } => {
                // The running statistics come from the seed; variances are at least 0.3.
                let (device, channels) = (gamma.device(), gamma.dims()[0]);
                let made = |seed, of: fn(f64) -> f64| -> Tensor<1> {
                    let values = numbers(&[channels], seed).into_iter().map(of).collect::<Vec<_>>();
                    Tensor::from_data(TensorData::new(values, [channels]), (&device, gamma.dtype()))
                };
                let (mean, variance) = (made(*seed, |x| x), made(seed + 1, |x| x.abs() + 0.3));
                let beta = beta.expect("a shift");
                with!(x, x => module::batch_norm(x, gamma, beta, mean, variance, epsilon).into())
            }
            Self::LayerNorm => with!(x, x => module::layer_norm(x, gamma, beta, epsilon).into()),
            Self::GroupNorm { groups } => {
                let channels = gamma.dims()[0];
                let norm = GroupNorm {
                    gamma: Some(Param::from_tensor(gamma)),
                    beta: beta.map(Param::from_tensor),
                    num_groups: *groups,
                    num_channels: channels,
                    epsilon,
                    affine: true,
                };
                with!(x, x => norm.forward(x).into())
            }
            Self::InstanceNorm => {
                let channels = gamma.dims()[0];
                let norm = InstanceNorm {
                    gamma: Some(Param::from_tensor(gamma)),
                    beta: beta.map(Param::from_tensor),
                    num_channels: channels,
                    epsilon,
                    affine: true,
                };
                with!(x, x => norm.forward(x).into())
            }
            other => panic!("{other:?} is no normalisation"),
        }
    }

    /// Operations that put a second tensor into a first.
    fn merged(&self, x: AnyTensor, second: AnyTensor) -> AnyTensor {
        match self {
            Self::Assign { axis, start } => with_both!(x, second, (x, part) => {
                let mut slices: Vec<Slice> = x.dims().iter().map(|&size| Slice::from(0..size)).collect();
                slices[*axis] = Slice::from(*start..*start + part.dims()[*axis]);
                x.slice_assign(&slices[..], part).into()
            }),
            Self::MaskWhere { seed } => with_both!(x, second, (x, other) => {
                let mask = constant_mask(&x, *seed, true);
                x.mask_where(mask, other).into()
            }),
            Self::Choose { compare } => with_both!(x, second, (x, other) => {
                let mask = compare.mask(x.clone(), -0.11);
                x.mask_where(mask, other).into()
            }),
            other => panic!("{other:?} takes one operand"),
        }
    }

    /// Pools and interpolation.
    fn pooled(&self, x: AnyTensor) -> AnyTensor {
        match self {
            Self::MaxPool1d { window, ceil } => module::max_pool1d(x.three(), window.max(*ceil)).into(),
            Self::MaxPool2d { window, ceil } => module::max_pool2d(x.four(), window.max(*ceil)).into(),
            Self::AvgPool1d { window, ceil, count_margins } => {
                module::avg_pool1d(x.three(), window.mean(*ceil, *count_margins)).into()
            }
            Self::AvgPool2d { window, ceil, count_margins } => {
                module::avg_pool2d(x.four(), window.mean(*ceil, *count_margins)).into()
            }
            Self::AdaptiveAvgPool1d { size } => module::adaptive_avg_pool1d(x.three(), *size).into(),
            Self::AdaptiveAvgPool2d { size } => module::adaptive_avg_pool2d(x.four(), *size).into(),
            Self::AdaptiveAvgPool3d { size } => module::adaptive_avg_pool3d(x.five(), *size).into(),
            Self::Interpolate { mode, size, corners } => {
                let options = InterpolateOptions::new(mode.clone());
                let options = options.with_output_size(*size).with_align_corners(*corners);
                module::interpolate(x.four(), options).into()
            }
            other => panic!("{other:?} is no pool"),
        }
    }
}

/// Scaled dot-product attention with an optional bias, mask and cap of the scores.
fn attention(
    [q, k, v]: [AnyTensor; 3],
    bias: Option<AnyTensor>,
    causal: bool,
    seed: Option<u64>,
    cap: bool,
) -> AnyTensor {
    let (q, k, v) = (q.four(), k.four(), v.four());
    let ([n, heads, queries, _], keys, device) = (q.dims(), k.dims()[2], q.device());
    let mask = seed.map(|seed| {
        // The first key is never masked: a row with all keys masked would have no softmax.
        let mut rng = Rng::new(seed);
        let row: Vec<bool> = (0..queries * keys).map(|at| at % keys != 0 && rng.once_in(3)).collect();
        let mask = Tensor::<4, Bool>::from_data(TensorData::new(row, [1, 1, queries, keys]), &device);
        mask.expand([n, heads, queries, keys])
    });
    let softcap = cap.then_some(1.5);
    let options = AttentionModuleOptions { is_causal: causal, softcap, ..Default::default() };
    module::attention(q, k, v, mask, bias.map(AnyTensor::four), options).into()
}

/// Reduces axes to size 1.
fn fold_axes<const D: usize>(x: Tensor<D>, fold: Fold, axes: &[usize]) -> Tensor<D> {
    match fold {
        Fold::Sum => x.sum_dims(axes),
        Fold::Mean => x.mean_dims(axes),
        Fold::Max => axes.iter().fold(x, |x, &axis| x.max_dim(axis)),
        Fold::Min => axes.iter().fold(x, |x, &axis| x.min_dim(axis)),
        Fold::Var => axes.iter().fold(x, |x, &axis| x.var_bias(axis)),
    }
}

/// Removes axes of size 1.
fn squeezed(x: AnyTensor, axes: &[usize]) -> AnyTensor {
    let axes: Vec<i64> = axes.iter().map(|&axis| axis as i64).collect();
    match x.shape().len() - axes.len() {
        1 => with!(x, x => x.squeeze_dims::<1>(&axes).into()),
        2 => with!(x, x => x.squeeze_dims::<2>(&axes).into()),
        3 => with!(x, x => x.squeeze_dims::<3>(&axes).into()),
        4 => with!(x, x => x.squeeze_dims::<4>(&axes).into()),
        rank => panic!("rank {rank} of a squeezed tensor"),
    }
}

/// Merges the axes `from` to `to`; the result has rank `rank`.
fn flattened(x: AnyTensor, from: usize, to: usize, rank: usize) -> AnyTensor {
    match rank {
        1 => with!(x, x => x.flatten::<1>(from, to).into()),
        2 => with!(x, x => x.flatten::<2>(from, to).into()),
        3 => with!(x, x => x.flatten::<3>(from, to).into()),
        4 => with!(x, x => x.flatten::<4>(from, to).into()),
        _ => with!(x, x => x.flatten::<5>(from, to).into()),
    }
}

/// The axis reversed: each slice is assigned to an empty tensor, the last position first.
fn rewritten<const D: usize>(x: Tensor<D>, axis: usize) -> Tensor<D> {
    let size = x.dims()[axis];
    let empty = Tensor::<D>::empty(x.dims(), (&x.device(), x.dtype()));
    (0..size).rev().fold(empty, |out, at| {
        let mut slices: Vec<Slice> = x.dims().iter().map(|&size| Slice::from(0..size)).collect();
        slices[axis] = Slice::from(at..at + 1);
        let part = x.clone().narrow(axis, size - 1 - at, 1);
        out.slice_assign(&slices[..], part)
    })
}
