//! Draws instructions that are layers: products, convolutions, normalisations, pools, attention.

use burn::tensor::ops::{GridSamplePaddingMode, InterpolateMode};

use crate::attack::draw::{Drawer, batched, plain};
use crate::attack::model::StepInput;
use crate::attack::op::{DrawnOp, WindowSpec};
use crate::attack::value::Dim;

impl Drawer {
    /// A value that depends on the samples and has this rank: an existing one, or one reshaped to
    /// it.
    fn of_rank(&mut self, rank: usize) -> Option<StepInput> {
        if self.rng.below(3) > 0
            && let Some(found) = self.pick(|shape| shape.len() == rank && plain(shape))
        {
            return Some(found);
        }
        let x = self.pick(batched)?;
        match (self.shape(x).len() == rank, self.rng.once_in(4)) {
            (true, false) => Some(x),
            (_, true) if self.shape(x).len() + 1 == rank => {
                let axis = self.rng.between(1, rank - 1);
                self.push(DrawnOp::Unsqueeze { axis }, vec![x])
            }
            _ => self.at_rank(x, rank),
        }
    }

    /// A linear layer, with a weight that may be transposed or constant.
    pub(crate) fn linear(&mut self) -> Option<StepInput> {
        let rank = self.rng.between(2, 4);
        let x = self.of_rank(rank)?;
        let shape = self.shape(x);
        let (features, outputs) = (shape[shape.len() - 1].fixed, self.rng.between(1, 5));
        let mut weight = if self.rng.once_in(6) {
            // The weight is stored transposed, as PyTorch does.
            let kept = self.parameter(&[outputs, features]);
            self.push(DrawnOp::SwapDims { axes: [0, 1] }, vec![kept])?
        } else {
            self.parameter(&[features, outputs])
        };
        if self.rng.once_in(12) {
            weight = self.constant(&[features, outputs]);
        }
        let mut inputs = vec![x, weight];
        if self.rng.below(3) > 0 {
            inputs.push(self.given(&[outputs]));
        }
        self.push(DrawnOp::Linear, inputs)
    }

    /// A product of two values, or of a value with a parameter on either side.
    pub(crate) fn matmul(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1 && plain(shape))?;
        let shape = self.shape(x);
        let rank = shape.len();
        let (rows, columns) = (shape[rank - 2], shape[rank - 1].fixed);
        let leading = vec![1; rank - 2];
        match self.rng.below(4) {
            0 => {
                let weight = self.given(&[&leading[..], &[columns, 3]].concat());
                self.push(DrawnOp::Matmul, vec![x, weight])
            }
            1 if rows.per_sample == 0 => {
                let weight = self.given(&[&leading[..], &[3, rows.fixed]].concat());
                self.push(DrawnOp::Matmul, vec![weight, x])
            }
            2 => {
                let fits = |other: &[Dim]| {
                    other.len() == rank && other[rank - 2] == Dim::fixed(columns) && other[0] == Dim::N
                };
                let other = self.pick(fits)?;
                self.push(DrawnOp::Matmul, vec![x, other])
            }
            _ if rank > 2 => {
                let turned = self.push(DrawnOp::SwapDims { axes: [rank - 2, rank - 1] }, vec![x])?;
                let inputs = if self.rng.once_in(2) { vec![x, turned] } else { vec![turned, x] };
                self.push(DrawnOp::Matmul, inputs)
            }
            _ => None,
        }
    }

    /// Draws a window that fits into these sizes.
    fn window(&mut self, sizes: &[usize], pool: bool) -> Option<WindowSpec> {
        let mut window = WindowSpec { kernel: vec![], stride: vec![], padding: vec![], dilation: vec![] };
        for &size in sizes {
            let kernel = self.rng.of(&[1, 2, 3, 1, 2, 3, 5, size]);
            let most = if pool { kernel / 2 } else { 2 };
            let before = self.rng.below(most + 1);
            let after = if self.rng.once_in(4) { self.rng.below(most + 1) } else { before };
            let dilation = if self.rng.once_in(4) { 2 } else { 1 };
            if size + before + after < dilation * (kernel - 1) + 1 {
                return None;
            }
            window.kernel.push(kernel);
            window.stride.push(self.rng.of(&[1, 1, 1, 2, 3]));
            window.padding.push((before, after));
            window.dilation.push(dilation);
        }
        Some(window)
    }

    /// A convolution along one axis, two or three, with groups of every kind.
    pub(crate) fn conv(&mut self, axes: usize) -> Option<StepInput> {
        let x = self.of_rank(2 + axes)?;
        let shape = self.shape(x);
        let channels = shape[1].fixed;
        let sizes: Vec<usize> = shape[2..].iter().map(|dim| dim.fixed).collect();
        let mut window = self.window(&sizes, false)?;
        if axes == 3 {
            // Burn pads volumes by the same on both sides.
            window.padding.iter_mut().for_each(|(before, after)| *after = *before);
        }
        let divisors: Vec<usize> = (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).collect();
        let groups = if self.rng.once_in(2) { 1 } else { self.rng.of(&divisors) };
        let outputs = groups * self.rng.between(1, 3);
        let weight = self.parameter(&[&[outputs, channels / groups], &window.kernel[..]].concat());
        let mut inputs = vec![x, weight];
        if self.rng.below(3) > 0 {
            inputs.push(self.given(&[outputs]));
        }
        let op = match axes {
            1 => DrawnOp::Conv1d { window, groups },
            2 => DrawnOp::Conv2d { window, groups },
            _ => DrawnOp::Conv3d { window, groups },
        };
        self.push(op, inputs)
    }

    /// A transposed convolution along one or two axes.
    pub(crate) fn conv_transposed(&mut self) -> Option<StepInput> {
        let axes = self.rng.between(1, 2);
        let x = self.of_rank(2 + axes)?;
        let shape = self.shape(x);
        let channels = shape[1].fixed;
        let sizes: Vec<usize> = shape[2..].iter().map(|dim| dim.fixed).collect();
        let window = self.window(&sizes, true)?;
        let divisors: Vec<usize> = (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).collect();
        let groups = self.rng.of(&divisors);
        let outputs = self.rng.between(1, 2);
        let behind = window.stride.iter().map(|&stride| self.rng.below(stride)).collect();
        let weight = self.parameter(&[&[channels, outputs], &window.kernel[..]].concat());
        let mut inputs = vec![x, weight];
        if self.rng.once_in(2) {
            inputs.push(self.given(&[groups * outputs]));
        }
        self.push(DrawnOp::Transposed { window, groups, behind }, inputs)
    }

    /// BatchNorm with running statistics.
    pub(crate) fn batch_norm(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1 && plain(shape))?;
        let (channels, seed) = (self.shape(x)[1].fixed, self.rng.next() >> 1);
        let inputs = vec![x, self.parameter(&[channels]), self.given(&[channels])];
        self.push(DrawnOp::BatchNorm { seed }, inputs)
    }

    /// A normalisation, or PReLU.
    pub(crate) fn norm(&mut self) -> Option<StepInput> {
        let x = self.pick(|shape| shape.len() > 1 && plain(shape))?;
        let shape = self.shape(x);
        let (channels, last) = (shape[1].fixed, shape[shape.len() - 1].fixed);
        let choice = self.rng.below(5);
        if choice < 2 {
            return self.batch_norm();
        }
        let divisors: Vec<usize> = (1..=channels).filter(|groups| channels.is_multiple_of(*groups)).collect();
        let groups = self.rng.of(&divisors);
        let (op, size) = match choice {
            2 => (DrawnOp::LayerNorm, last),
            3 => (DrawnOp::GroupNorm { groups }, channels),
            _ if shape.len() > 2 && self.rng.once_in(2) => (DrawnOp::InstanceNorm, channels),
            _ => {
                let slopes = if self.rng.once_in(2) { channels } else { 1 };
                let slopes = self.parameter(&[slopes]);
                return self.push(DrawnOp::PRelu, vec![x, slopes]);
            }
        };
        let inputs = vec![x, self.parameter(&[size]), self.given(&[size])];
        self.push(op, inputs)
    }

    /// A pool along one or two axes, or an adaptive one along one to three.
    pub(crate) fn pool(&mut self) -> Option<StepInput> {
        let rank = self.rng.of(&[3, 4, 3, 4, 5]);
        let x = self.of_rank(rank)?;
        let sizes: Vec<usize> = self.shape(x)[2..].iter().map(|dim| dim.fixed).collect();
        let (ceil, count_margins) = (self.rng.once_in(3), self.rng.once_in(2));
        let choice = self.rng.below(5);
        if choice == 4 || rank == 5 {
            let size: Vec<usize> = sizes.iter().map(|&size| self.rng.between(1, size + 1)).collect();
            let op = match size[..] {
                [size] => DrawnOp::AdaptiveAvgPool1d { size },
                [height, width] => DrawnOp::AdaptiveAvgPool2d { size: [height, width] },
                _ => DrawnOp::AdaptiveAvgPool3d { size: [size[0], size[1], size[2]] },
            };
            return self.push(op, vec![x]);
        }
        let mut window = self.window(&sizes, true)?;
        let op = match (choice < 2, sizes.len()) {
            (true, 1) => DrawnOp::MaxPool1d { window, ceil },
            (true, _) => DrawnOp::MaxPool2d { window, ceil },
            (false, axes) => {
                window.dilation = vec![1; axes];
                match axes {
                    1 => DrawnOp::AvgPool1d { window, ceil, count_margins },
                    _ => DrawnOp::AvgPool2d { window, ceil, count_margins },
                }
            }
        };
        self.push(op, vec![x])
    }

    /// An interpolation of images, or rows of an embedding table.
    pub(crate) fn interpolate_or_embed(&mut self) -> Option<StepInput> {
        if self.rng.once_in(3) {
            let (rows, width) = (self.rng.between(2, 4), self.rng.between(1, 4));
            let table = self.parameter(&[rows, width]);
            let indices = (0..self.rng.between(1, 4)).map(|_| self.rng.below(rows)).collect();
            return self.push(DrawnOp::Embedding { indices }, vec![table]);
        }
        let x = self.of_rank(4)?;
        let mode = self.rng.of(&[
            InterpolateMode::Nearest,
            InterpolateMode::Bilinear,
            InterpolateMode::Bicubic,
            InterpolateMode::Lanczos3,
        ]);
        let (size, corners) = ([self.rng.between(1, 5), self.rng.between(1, 5)], self.rng.once_in(2));
        self.push(DrawnOp::Interpolate { mode, size, corners }, vec![x])
    }

    /// Images sampled at given positions, the same for all samples, or at positions that depend on
    /// them.
    pub(crate) fn sampled(&mut self) -> Option<StepInput> {
        let x = self.of_rank(4)?;
        let follows = |shape: &[Dim]| shape.len() == 4 && plain(shape) && shape[3] == Dim::fixed(2);
        let grid = match self.rng.once_in(2) {
            true => self.pick(follows)?,
            false => {
                let (height, width) = (self.rng.between(1, 3), self.rng.between(1, 3));
                let given = self.given(&[1, height, width, 2]);
                let shape = vec![Dim::N, Dim::fixed(height), Dim::fixed(width), Dim::fixed(2)];
                self.push(DrawnOp::Expand { shape }, vec![given])?
            }
        };
        let mode = self.rng.of(&[InterpolateMode::Nearest, InterpolateMode::Bilinear]);
        let outside = self.rng.of(&[
            GridSamplePaddingMode::Zeros,
            GridSamplePaddingMode::Border,
            GridSamplePaddingMode::Reflection,
        ]);
        let corners = self.rng.once_in(2);
        self.push(DrawnOp::GridSample { mode, outside, corners }, vec![x, grid])
    }

    /// Attention whose queries, keys and values are any values of fitting shapes, possibly the
    /// same.
    pub(crate) fn attention(&mut self) -> Option<StepInput> {
        let q = self.of_rank(4)?;
        let shape = self.shape(q);
        let fits = |other: &[Dim]| other.len() == 4 && other[..2] == shape[..2] && other[3] == shape[3];
        let k = self.pick(fits)?;
        let keys = self.shape(k)[2];
        let v = self.pick(|other| other.len() == 4 && other[..2] == shape[..2] && other[2] == keys)?;
        let causal = keys == shape[2] && self.rng.once_in(3);
        let mask = if !causal && self.rng.once_in(3) { Some(self.rng.next()) } else { None };
        let cap = self.rng.once_in(5);
        let mut inputs = vec![q, k, v];
        if self.rng.once_in(3) {
            let bias = self.given(&[1, shape[1].fixed, shape[2].fixed, keys.fixed]);
            let whole = vec![Dim::N, shape[1], shape[2], keys];
            inputs.push(self.push(DrawnOp::Expand { shape: whole }, vec![bias])?);
        }
        self.push(DrawnOp::Attention { causal, mask, cap }, inputs)
    }
}
