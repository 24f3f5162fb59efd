//! Interpolation of `[B, C, H, W]` to another size.
//!
//! Every mode is linear in x and works along H and W apart: y = A x B^T with weights A `[H', H]` and B `[W', W]` that depend on the sizes
//! alone. The pullback is A^T g B. The weights are read off the backend's own kernel, as its results for unit vectors, so that
//! the pullback belongs to the forward pass whatever conventions a backend has.

use std::fmt;

use burn::backend::Dispatch;
use burn::backend::ir::{InterpolateModeIr, ModuleOperationIr, OperationIr};
use burn::backend::ops::{InterpolateMode, InterpolateOptions, ModuleOps};
use burn::tensor::TensorData;

use super::conv::dims4;
use super::{Keep, Lowering, Op, Rule, Saved, only, unary, with_leading};
use crate::array::{Array, Place};

/// How values between samples are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The sample at or before the position.
    Nearest,
    /// The sample nearest to the centre of the new one.
    NearestExact,
    /// Straight lines.
    Bilinear,
    /// Cubic convolution, a = -0.75.
    Bicubic,
    /// A windowed sinc of six samples.
    Lanczos3,
}

/// Interpolation to `output` along H and W.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolate {
    /// How values between samples are made.
    pub mode: Mode,
    /// Whether the outermost samples of both sizes lie on one another.
    pub align_corners: bool,
    /// The size of the result along H and W.
    pub output: [usize; 2],
}

impl Interpolate {
    fn options(&self) -> InterpolateOptions {
        let mode = match self.mode {
            Mode::Nearest => InterpolateMode::Nearest,
            Mode::NearestExact => InterpolateMode::NearestExact,
            Mode::Bilinear => InterpolateMode::Bilinear,
            Mode::Bicubic => InterpolateMode::Bicubic,
            Mode::Lanczos3 => InterpolateMode::Lanczos3,
        };
        InterpolateOptions::new(mode).with_align_corners(self.align_corners)
    }

    /// For [`Mode::NearestExact`], the sample that each of `output` takes from `size`: floor((i + 1/2) size / output).
    fn nearest(size: usize, output: usize) -> impl Fn(usize) -> usize {
        move |i| ((2 * i + 1) * size / (2 * output)).min(size - 1)
    }

    /// The weights from `size` samples to `output`, transposed: `[size, output]`.
    fn weights(&self, size: usize, output: usize, place: &Place) -> Array {
        if self.mode == Mode::NearestExact {
            let taken = Self::nearest(size, output);
            let weight = |at: usize| f64::from(u8::from(taken(at % output) == at / output));
            let weights = (0..size * output).map(weight).collect::<Vec<_>>();
            return Array::from_data(TensorData::new(weights, [size, output]), place);
        }
        let unit = |i: usize| f64::from(u8::from(i / size == i % size));
        let units = TensorData::new((0..size * size).map(unit).collect::<Vec<_>>(), [1, size, size, 1]);
        let columns = Array::from_data(units, place);
        Array(Dispatch::interpolate(columns.0, [output, 1], self.options())).reshape(&[size, output])
    }
}

impl Rule for Interpolate {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let [b, c, h, w] = dims4(&inputs[0])?;
        if self.output.contains(&0) || h == 0 || w == 0 {
            return Err("sizes must be positive".into());
        }
        Ok(vec![b, c, self.output[0], self.output[1]])
    }

    fn forward(&self, inputs: Vec<Array>, _: &[usize], place: &Place) -> Array {
        if self.mode == Mode::NearestExact {
            // burn-flex has no kernel for it.
            let x = only(inputs);
            return [2, 3].into_iter().zip(self.output).fold(x, |x, (axis, output)| {
                let taken = Self::nearest(x.shape()[axis], output);
                let indices = (0..output).map(|i| taken(i) as i64).collect::<Vec<_>>();
                x.select(axis, Array::indices(TensorData::new(indices, [output]), place))
            });
        }
        Array(Dispatch::interpolate(only(inputs).0, self.output, self.options()))
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (stacked, place, x) = (cotangent.shape(), cotangent.place(), &saved.shapes[0]);
        let rows = self.weights(x[2], self.output[0], &place);
        let columns = self.weights(x[3], self.output[1], &place).permute(&[1, 0]);
        let maps = stacked[..3].iter().product::<usize>();
        // g B, for all rows of all maps at once.
        let along = cotangent.reshape(&[maps * self.output[0], self.output[1]]).matmul(columns);
        let rows = rows.reshape(&[1, x[2], self.output[0]]);
        let pulled = rows.matmul(along.reshape(&[maps, self.output[0], x[3]]));
        pulled.reshape(&with_leading(stacked[0], x))
    }
}

impl fmt::Display for Interpolate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Nearest => "nearest",
            Mode::NearestExact => "nearest_exact",
            Mode::Bilinear => "bilinear",
            Mode::Bicubic => "bicubic",
            Mode::Lanczos3 => "lanczos3",
        };
        let corners = if self.align_corners { ", corners aligned" } else { "" };
        write!(f, "interpolate({mode} to {}x{}{corners})", self.output[0], self.output[1])
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Lowering<'_> {
    let OperationIr::Module(ModuleOperationIr::Interpolate(io)) = ir else { return None };
    let mode = match io.options.mode {
        InterpolateModeIr::Nearest => Mode::Nearest,
        InterpolateModeIr::NearestExact => Mode::NearestExact,
        InterpolateModeIr::Bilinear => Mode::Bilinear,
        InterpolateModeIr::Bicubic => Mode::Bicubic,
        InterpolateModeIr::Lanczos3 => Mode::Lanczos3,
    };
    let (align_corners, output) = (io.options.align_corners, io.output_size);
    unary(Op::Interpolate(Interpolate { mode, align_corners, output }), &io.x, &io.out)
}

#[cfg(test)]
pub(super) mod tests {
    //! Samples of all modes, up and down, to and from one pixel.

    use burn::tensor::FloatDType;

    use super::super::derivatives::{Sample, array, assert_close, check, place, spread, values};
    use super::*;

    const MODES: [Mode; 5] =
        [Mode::Nearest, Mode::NearestExact, Mode::Bilinear, Mode::Bicubic, Mode::Lanczos3];

    pub(in super::super) fn samples() -> Vec<Sample> {
        let sizes = [
            ([1, 2, 3, 4], [5, 7]),
            ([2, 1, 7, 5], [3, 2]),
            ([5, 1, 1, 3], [2, 3]),
            ([1, 3, 4, 4], [1, 8]),
            ([2, 2, 3, 3], [3, 3]),
            ([2, 3, 9, 11], [18, 5]),
        ];
        let mut all = Vec::new();
        for (x, output) in sizes {
            for (mode, align_corners) in MODES.into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
                let op = Op::Interpolate(Interpolate { mode, align_corners, output });
                all.push(Sample::new(op, vec![spread(&x, 8)]).linear(&[0]));
            }
        }
        all
    }

    #[test]
    fn derivatives() {
        check(&samples());
    }

    /// One row of numbers to another length, in PyTorch's conventions.
    #[test]
    fn rows_by_hand() {
        let place = place(FloatDType::F64);
        let cases: [(Mode, bool, &[f64], &[f64]); 7] = [
            (Mode::Nearest, false, &[1.0, 2.0, 3.0], &[1.0, 1.0, 2.0, 2.0, 3.0]),
            (Mode::Nearest, false, &[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 2.0, 4.0]),
            (Mode::NearestExact, false, &[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 3.0, 5.0]),
            (Mode::NearestExact, false, &[1.0, 2.0], &[1.0, 1.0, 2.0, 2.0]),
            (Mode::Bilinear, false, &[1.0, 3.0], &[1.0, 1.5, 2.5, 3.0]),
            (Mode::Bilinear, true, &[1.0, 4.0], &[1.0, 2.0, 3.0, 4.0]),
            (Mode::Bicubic, true, &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]),
        ];
        for (mode, align_corners, x, expected) in cases {
            let rule = Interpolate { mode, align_corners, output: [1, expected.len()] };
            let given = vec![array(&[1, 1, 1, x.len()], x, &place)];
            let found = values(rule.forward(given, &[1, 1, 1, expected.len()], &place));
            assert_close(&rule.to_string(), expected, &found, 1e-15);
        }
    }
}
