//! Interpolation of `[B, C, H, W]` to another size.
//!
//! Every mode is linear in x and separable in H and W: y = A x B^T, with weights A `[H', H]` and B
//! `[W', W]` that depend only on the sizes. The pullback is A^T g B. The weights are computed here,
//! on the host in f64, and not by the device's kernels, because those of Burn's GPU backends use
//! other weights at some sizes. The conventions are those of burn-flex, which are PyTorch's where
//! PyTorch has the mode.

use std::fmt;

use burn::backend::ir::{InterpolateModeIr, ModuleOperationIr, OperationIr};
use burn::tensor::TensorData;

use super::conv::dims4;
use super::{Keep, Op, Recognition, Rule, Saved, cubic, only, unary, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// How values between pixels are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The pixel at or before the position.
    Nearest,
    /// The pixel nearest to the centre of the new one.
    NearestExact,
    /// Linear interpolation along both axes.
    Bilinear,
    /// Cubic convolution, a = -0.75.
    Bicubic,
    /// A windowed sinc over six pixels.
    Lanczos3,
}

/// Interpolation to `output` along H and W.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpolate {
    /// How values between pixels are computed.
    pub mode: Mode,
    /// Whether the centres of the outermost pixels of both sizes coincide.
    pub align_corners: bool,
    /// The size of the result along H and W.
    pub output: [usize; 2],
}

impl Interpolate {
    /// The centre of pixel `i` of `output`, as a position among `size` pixels.
    fn position(&self, size: usize, output: usize, i: usize) -> f64 {
        if self.align_corners {
            return i as f64 * ((size as f64 - 1.0) / (output as f64 - 1.0).max(1.0));
        }
        (i as f64 + 0.5) * (size as f64 / output as f64) - 0.5
    }

    /// For the nearest modes, the pixel among `size` that pixel `i` of `output` copies.
    fn nearest(&self, size: usize, output: usize, i: usize) -> usize {
        let taken = if self.mode == Mode::NearestExact {
            // floor((i + 1/2) size / output), in integers.
            (2 * i + 1) * size / (2 * output)
        } else {
            (i as f64 * (size as f64 / output as f64)) as usize
        };
        taken.min(size - 1)
    }

    /// The pixels among `size` that contribute to pixel `i` of `output` along one axis, with their
    /// weights; a pixel may occur twice.
    #[must_use]
    pub fn taps(&self, size: usize, output: usize, i: usize) -> Vec<(usize, f64)> {
        let position = self.position(size, output, i);
        let base = position.floor();
        let at = |offset: isize| base as isize + offset;
        let edge = |index: isize| index.clamp(0, size as isize - 1) as usize;
        let distance = |offset: isize| position - (base + offset as f64);
        match self.mode {
            Mode::Nearest | Mode::NearestExact => vec![(self.nearest(size, output, i), 1.0)],
            Mode::Bilinear => {
                // Before the first centre there is only the first pixel.
                let position = position.max(0.0);
                let (low, weight) = (position.floor(), position.fract());
                vec![(edge(low as isize), 1.0 - weight), (edge(low as isize + 1), weight)]
            }
            Mode::Bicubic => {
                (-1..=2).map(|offset| (edge(at(offset)), cubic::weight(distance(offset)))).collect()
            }
            Mode::Lanczos3 => {
                // Pixels outside are left out, and the weights of the others sum to 1.
                let inside = |offset: &isize| (0..size as isize).contains(&at(*offset));
                let taps: Vec<_> =
                    (-2..=3).filter(inside).map(|o| (edge(at(o)), lanczos(distance(o)))).collect();
                let sum: f64 = taps.iter().map(|(_, weight)| weight).sum();
                taps.into_iter().map(|(index, weight)| (index, weight / sum)).collect()
            }
        }
    }

    /// The matrix of weights from `size` pixels to `output`: `[output, size]`.
    fn weights(&self, size: usize, output: usize, place: &Placement) -> Array {
        let mut weights = vec![0.0; output * size];
        for (i, row) in weights.chunks_exact_mut(size).enumerate() {
            self.taps(size, output, i).into_iter().for_each(|(index, weight)| row[index] += weight);
        }
        Array::from_data(TensorData::new(weights, [output, size]), place)
    }
}

/// sinc(t) sinc(t / 3) within three pixels, else 0.
fn lanczos(t: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { x.sin() / x };
    let angle = std::f64::consts::PI * t;
    if t.abs() < 3.0 { sinc(angle) * sinc(angle / 3.0) } else { 0.0 }
}

/// R x C for every map of `x` `[maps, h, w]`, R `[h', h]` and C `[w, w']`: `[maps, h', w']`.
fn between(rows: Array, x: Array, columns: Array) -> Array {
    let (given, r, c) = (x.shape(), rows.shape(), columns.shape());
    let along = x.reshape(&[given[0] * given[1], given[2]]).matmul(columns);
    rows.reshape(&with_leading(1, &r)).matmul(along.reshape(&[given[0], given[1], c[1]]))
}

impl Rule for Interpolate {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let [b, c, h, w] = dims4(&inputs[0])?;
        if self.output.contains(&0) || h == 0 || w == 0 {
            return Err("sizes must be positive".into());
        }
        Ok(vec![b, c, self.output[0], self.output[1]])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let x = only(inputs);
        let [b, c, h, w] = [0, 1, 2, 3].map(|axis| x.shape()[axis]);
        let [height, width] = self.output;
        if matches!(self.mode, Mode::Nearest | Mode::NearestExact) {
            return [2, 3].into_iter().zip(self.output).fold(x, |x, (axis, output)| {
                let size = x.shape()[axis];
                let indices: Vec<_> = (0..output).map(|i| self.nearest(size, output, i) as i64).collect();
                x.select(axis, Array::indices(TensorData::new(indices, [output]), place))
            });
        }
        let columns = self.weights(w, width, place).permute(&[1, 0]);
        between(self.weights(h, height, place), x.reshape(&[b * c, h, w]), columns).reshape(shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > 1)
    }

    fn keeps(&self, _: &[bool]) -> Vec<Keep> {
        vec![]
    }

    fn pullback(&self, cotangent: Array, _: usize, saved: &Saved<'_>) -> Array {
        let (stacked, place, x) = (cotangent.shape(), cotangent.place(), &saved.shapes[0]);
        let [height, width] = self.output;
        let rows = self.weights(x[2], height, &place).permute(&[1, 0]);
        let maps = cotangent.reshape(&[stacked[..3].iter().product(), height, width]);
        between(rows, maps, self.weights(x[3], width, &place)).reshape(&with_leading(stacked[0], x))
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

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
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
    //! Samples of all modes, to larger and smaller sizes, and to and from one pixel.

    use burn::backend::Dispatch;
    use burn::backend::ops::{InterpolateMode, InterpolateOptions, ModuleOps};
    use burn::tensor::FloatDType;

    use super::super::derivatives::{
        OpSample, array, assert_close, check, check_values, place, spread, values,
    };
    use super::*;

    /// Tolerance against Burn's kernel in f64: the rounding of a few dozen products.
    const KERNEL: f64 = 1e-14;

    const MODES: [Mode; 5] =
        [Mode::Nearest, Mode::NearestExact, Mode::Bilinear, Mode::Bicubic, Mode::Lanczos3];

    pub(in super::super) fn samples() -> Vec<OpSample> {
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
                all.push(OpSample::new(op, vec![spread(&x, 8)]).linear(&[0]));
            }
        }
        all
    }

    #[test]
    fn interpolation_derivatives_match_differences() {
        check(&samples());
    }

    /// Every mode that burn-flex has a kernel for, against it.
    #[test]
    fn interpolation_values_are_those_of_burn_on_the_processor() {
        check_values(&samples(), KERNEL, |op, operands| {
            let Op::Interpolate(Interpolate { mode, align_corners, output }) = *op else { return None };
            let theirs = match mode {
                Mode::Nearest => InterpolateMode::Nearest,
                Mode::NearestExact => return None,
                Mode::Bilinear => InterpolateMode::Bilinear,
                Mode::Bicubic => InterpolateMode::Bicubic,
                Mode::Lanczos3 => InterpolateMode::Lanczos3,
            };
            let options = InterpolateOptions::new(theirs).with_align_corners(align_corners);
            Some(Array(Dispatch::interpolate(only(operands).0, output, options)))
        });
    }

    /// One row of pixels to another length, by PyTorch's conventions.
    #[test]
    fn interpolated_rows_are_those_worked_out_by_hand() {
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
