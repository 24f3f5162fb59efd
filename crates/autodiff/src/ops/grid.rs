//! Images sampled at the points of a grid.
//!
//! In [`GridSample`], `y[b, c, i, j]` is the image `x[b, c]` at the point `(u, v) = grid[b, i, j]`,
//! where -1 and 1 are the image's edges (or, with `align_corners`, the centres of its outermost
//! pixels). Along each axis a few neighbouring pixels have weights w that depend on the point: y =
//! sum of w_row w_column x. The pullback to x adds g w at these pixels; the pullback to the grid is
//! the sum over channels of g x times the slopes of the weights. All of it is computed on the
//! device, because a grid may depend on the input.
//!
//! Kinks are those of PyTorch: a point exactly on a pixel belongs to the cell after it, and a point
//! that is cut to an edge, or lies on it, has slope 0.

use std::fmt;

use burn::backend::ir::{FloatOperationIr, GridSamplePaddingModeIr, InterpolateModeIr, OperationIr};

use super::arithmetic::sum_to;
use super::conv::dims4;
use super::{Keep, Lowered, Op, Recognition, Rule, Saved, both, cubic, over_cotangents, with_leading};
use crate::array::{Array, Placement};
use crate::coupling::{BatchAxis, Passage};

/// How values between pixels are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// The nearest pixel; of two, the one with the even index.
    Nearest,
    /// Linear interpolation along both axes.
    Bilinear,
    /// Cubic convolution, a = -0.75.
    Bicubic,
}

/// The values outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Zeros.
    Zeros,
    /// The outermost pixels, repeated.
    Edge,
    /// The image, mirrored at its edges.
    Reflection,
}

/// Images `[B, C, H, W]` at the points of a grid `[B, H', W', 2]`, or `[1, H', W', 2]` for all
/// images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridSample {
    /// How values between pixels are computed.
    pub between: Between,
    /// The values outside the image.
    pub outside: Outside,
    /// Whether -1 and 1 are the centres of the outermost pixels.
    pub align_corners: bool,
}

/// One of the neighbouring pixels along one axis, for every point of the grid: arrays `[B, H' W']`.
struct Tap {
    /// The pixel's index, as a float.
    index: Array,
    weight: Array,
    /// The derivative of the weight with respect to the grid's coordinate.
    slope: Array,
}

/// A polynomial with these coefficients, the constant first.
fn polynomial(x: &Array, coefficients: &[f64]) -> Array {
    let start = x.zeros_like(&x.shape());
    coefficients.iter().rev().fold(start, |sum, &c| sum.mul(x.clone()).add_scalar(c))
}

/// The derivative of a cubic polynomial.
fn derivative(coefficients: [f64; 4]) -> [f64; 3] {
    [coefficients[1], 2.0 * coefficients[2], 3.0 * coefficients[3]]
}

impl GridSample {
    /// The number of pixels, along an axis of `size`, in one unit of the grid.
    fn scale(&self, size: usize) -> f64 {
        if self.align_corners { (size as f64 - 1.0) / 2.0 } else { size as f64 / 2.0 }
    }

    /// The grid's coordinates in pixels, along an axis of `size`.
    fn positions(&self, grid: Array, size: usize) -> Array {
        let offset = if self.align_corners { 0.0 } else { -0.5 };
        grid.add_scalar(1.0).mul_scalar(self.scale(size)).add_scalar(offset)
    }

    /// Positions moved inside the image, with the derivative of that: 1, -1 where they are mirrored
    /// an odd number of times, and 0 where they are cut.
    fn moved_inside(&self, positions: Array, size: usize, place: &Placement) -> [Array; 2] {
        let (shape, last) = (positions.shape(), size as f64 - 1.0);
        match self.outside {
            Outside::Zeros => [positions, Array::full(&shape, 1.0, place)],
            Outside::Edge => cut(positions, last, place),
            Outside::Reflection => {
                let (low, high) = if self.align_corners { (0.0, last) } else { (-0.5, last + 0.5) };
                let span = high - low;
                // One pixel, whose centre is both edges: every position is on it.
                if span <= 0.0 {
                    let zeros = positions.zeros_like(&shape);
                    return [zeros.clone(), zeros];
                }
                // Reflection is periodic: over two spans, from the low edge to the high one and
                // back. Over these, `along` runs from -span to span, and the position is as far
                // below the high edge as `along` is from 0.
                let far = positions.add_scalar(-low);
                let (distance, side) = (far.clone().abs(), far.sign());
                let turns = distance.clone().div_scalar(2.0 * span).floor();
                let along = distance.sub(turns.mul_scalar(2.0 * span)).add_scalar(-span);
                let mirrored = along.clone().abs().neg().add_scalar(span + low);
                let turned = side.mul(along.sign().neg());
                let [positions, slopes] = cut(mirrored, last, place);
                [positions, slopes.mul(turned)]
            }
        }
    }

    /// The neighbours along an axis of `size`, for the grid's coordinates `[B, H' W']`.
    fn taps(&self, grid: Array, size: usize, place: &Placement) -> Vec<Tap> {
        let (positions, scale) = (self.positions(grid, size), self.scale(size));
        let taps = match self.between {
            Between::Nearest => {
                let [inside, _] = self.moved_inside(positions, size, place);
                let index = inside.round();
                let shape = index.shape();
                vec![Tap { weight: Array::full(&shape, 1.0, place), slope: index.zeros_like(&shape), index }]
            }
            Between::Bilinear => {
                let [inside, slopes] = self.moved_inside(positions, size, place);
                // The weights are 1 - t and t at the distance t from the lower pixel.
                let (low, slope) = (inside.clone().floor(), slopes.mul_scalar(scale));
                let high = inside.sub(low.clone());
                let behind = low.clone().add_scalar(1.0);
                vec![
                    Tap {
                        index: low,
                        weight: high.clone().neg().add_scalar(1.0),
                        slope: slope.clone().neg(),
                    },
                    Tap { index: behind, weight: high, slope },
                ]
            }
            Between::Bicubic => self.cubic(positions, size, place),
        };
        taps.into_iter().map(|tap| self.kept_inside(tap, size, place)).collect()
    }

    /// The four neighbours of bicubic sampling. Here the position itself stays outside, and each
    /// neighbour is moved inside.
    fn cubic(&self, positions: Array, size: usize, place: &Placement) -> Vec<Tap> {
        let low = positions.clone().floor();
        let behind = positions.sub(low.clone());
        let tap = |offset: f64| {
            // The distance of the position from the neighbour, and the sign of its derivative.
            let (distance, grows) = match offset > 0.0 {
                true => (behind.clone().neg().add_scalar(offset), -1.0),
                false => (behind.clone().add_scalar(-offset), 1.0),
            };
            let weights = if offset == 0.0 || offset == 1.0 { cubic::NEAR } else { cubic::FAR };
            let slope = polynomial(&distance, &derivative(weights)).mul_scalar(grows * self.scale(size));
            let [index, _] = self.moved_inside(low.clone().add_scalar(offset), size, place);
            Tap { index, weight: polynomial(&distance, &weights), slope }
        };
        [-1.0, 0.0, 1.0, 2.0].map(tap).into()
    }

    /// The neighbour, with an index that the axis has. Where the image is surrounded by zeros,
    /// neighbours outside get weight 0.
    fn kept_inside(&self, tap: Tap, size: usize, place: &Placement) -> Tap {
        let last = size as f64 - 1.0;
        let index = tap.index.clone().clamp(Some(0.0), Some(last));
        if self.outside != Outside::Zeros {
            return Tap { index, ..tap };
        }
        let inside = tap.index.at_least(0.0).and(tap.index.at_most(last)).mask_as_numbers(place);
        Tap { index, weight: tap.weight.mul(inside.clone()), slope: tap.slope.mul(inside) }
    }

    /// Rows and columns of neighbours for a grid `[B, H', W', 2]`.
    fn neighbours(&self, grid: Array, [h, w]: [usize; 2], place: &Placement) -> [Vec<Tap>; 2] {
        let shape = grid.shape();
        let flat = grid.reshape(&[shape[0], shape[1] * shape[2], 2]);
        let along = |axis: usize| flat.clone().part(2, axis, 1).reshape(&[shape[0], shape[1] * shape[2]]);
        [self.taps(along(1), h, place), self.taps(along(0), w, place)]
    }
}

/// Positions cut to `0 ..= last`, with derivative 0 on and beyond the bounds.
fn cut(positions: Array, last: f64, place: &Placement) -> [Array; 2] {
    let between = positions.above(0.0).and(positions.below(last)).mask_as_numbers(place);
    [positions.clamp(Some(0.0), Some(last)), between]
}

/// The indices `[B, C, H' W']` of the pixel in a row and a column, among the `H W` pixels of an
/// image.
fn indices(row: &Tap, column: &Tap, width: usize, shape: &[usize]) -> Array {
    let index = row.index.clone().mul_scalar(width as f64).add(column.index.clone()).into_indices();
    let [b, points] = [0, 1].map(|axis| row.index.shape()[axis]);
    index.reshape_indices(&[b, 1, points]).expand_indices(shape)
}

/// `[B, points]` as `[B, 1, points]`, to broadcast over channels.
fn over_channels(numbers: Array) -> Array {
    let shape = numbers.shape();
    numbers.reshape(&[shape[0], 1, shape[1]])
}

impl Rule for GridSample {
    fn shape(&self, inputs: &[Vec<usize>], _: &[usize]) -> Result<Vec<usize>, String> {
        let ([b, c, h, w], [grids, height, width, two]) = (dims4(&inputs[0])?, dims4(&inputs[1])?);
        if two != 2 || (grids != b && grids != 1) || h == 0 || w == 0 {
            return Err(format!("a grid of shape {:?} does not fit images of {:?}", inputs[1], inputs[0]));
        }
        Ok(vec![b, c, height, width])
    }

    fn forward(&self, inputs: Vec<Array>, shape: &[usize], place: &Placement) -> Array {
        let [x, grid] = both(inputs);
        let [b, c, h, w] = [0, 1, 2, 3].map(|axis| x.shape()[axis]);
        let flat = [b, c, shape[2] * shape[3]];
        let [rows, columns] = self.neighbours(grid, [h, w], place);
        let x = x.reshape(&[b, c, h * w]);
        // Each row and column of neighbours is one pixel for every point.
        let parts = rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        let sum = parts.fold(Array::full(&flat, 0.0, place), |sum, (row, column)| {
            let seen = x.clone().gather(2, indices(row, column, w, &flat));
            sum.add(seen.mul(over_channels(row.weight.clone().mul(column.weight.clone()))))
        });
        sum.reshape(shape)
    }

    fn carry(&self, passage: &Passage<'_>) -> Option<BatchAxis> {
        passage.unless(passage.from.axis > usize::from(passage.position == 0))
    }

    fn keeps(&self, active: &[bool]) -> Vec<Keep> {
        let image = active[1].then_some(Keep::Input(0));
        image.into_iter().chain([Keep::Input(1)]).collect()
    }

    fn pullback(&self, cotangent: Array, position: usize, saved: &Saved<'_>) -> Array {
        let (full, x, place) = (cotangent.shape(), &saved.shapes[0], cotangent.place());
        let ([v, b, c], count) = ([full[0], full[1], full[2]], full[3] * full[4]);
        let (h, w) = (x[2], x[3]);
        let [rows, columns] = self.neighbours(saved.input(1), [h, w], &place);
        let cotangent = cotangent.reshape(&[v, b, c, count]);
        let parts = || rows.iter().flat_map(|row| columns.iter().map(move |column| (row, column)));
        if position == 0 {
            // To x: g w is added at each neighbour.
            let zeros = cotangent.zeros_like(&[v, b, c, h * w]);
            let sum = parts().fold(zeros, |sum, (row, column)| {
                let weight = over_channels(row.weight.clone().mul(column.weight.clone()));
                let index = indices(row, column, w, &[b, c, count]);
                let index = index.reshape_indices(&[1, b, c, count]).expand_indices(&[v, b, c, count]);
                sum.scatter_add(3, index, cotangent.clone().mul(over_cotangents(weight)))
            });
            return sum.reshape(&with_leading(v, x));
        }
        // To the grid: for each neighbour the sum of g x over channels, times the slope along one
        // axis and the weight along the other.
        let image = saved.input(0).reshape(&[b, c, h * w]);
        let zeros = || cotangent.zeros_like(&[v, b, 1, count]);
        let [along_x, along_y] = parts().fold([zeros(), zeros()], |[across, down], (row, column)| {
            let seen = image.clone().gather(2, indices(row, column, w, &[b, c, count]));
            let sum = cotangent.clone().mul(over_cotangents(seen)).sum_axis(2);
            let slope = |a: &Array, b: &Array| over_cotangents(over_channels(a.clone().mul(b.clone())));
            [
                across.add(sum.clone().mul(slope(&row.weight, &column.slope))),
                down.add(sum.mul(slope(&row.slope, &column.weight))),
            ]
        });
        let wide = |part: Array| part.reshape(&[v, b, full[3], full[4], 1]);
        sum_to(Array::cat(vec![wide(along_x), wide(along_y)], 4), &saved.shapes[1])
    }
}

impl fmt::Display for GridSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.between {
            Between::Nearest => "nearest",
            Between::Bilinear => "bilinear",
            Between::Bicubic => "bicubic",
        };
        let outside = match self.outside {
            Outside::Zeros => "zeros",
            Outside::Edge => "edges",
            Outside::Reflection => "reflections",
        };
        let corners = if self.align_corners { ", corners aligned" } else { "" };
        write!(f, "grid_sample({between}, {outside} outside{corners})")
    }
}

pub(crate) fn lower(ir: &OperationIr) -> Recognition<'_> {
    let OperationIr::Float(_, FloatOperationIr::GridSample2d(io)) = ir else { return None };
    let between = match io.options.mode {
        InterpolateModeIr::Nearest => Between::Nearest,
        InterpolateModeIr::Bilinear => Between::Bilinear,
        InterpolateModeIr::Bicubic => Between::Bicubic,
        _ => {
            return Some(Err(
                "grids are sampled as nearest, bilinear or bicubic here; take one of these".into()
            ));
        }
    };
    let outside = match io.options.padding_mode {
        GridSamplePaddingModeIr::Zeros => Outside::Zeros,
        GridSamplePaddingModeIr::Border => Outside::Edge,
        GridSamplePaddingModeIr::Reflection => Outside::Reflection,
    };
    let op = Op::GridSample(GridSample { between, outside, align_corners: io.options.align_corners });
    Some(Ok(Lowered { op, inputs: vec![&io.tensor, &io.grid], output: &io.out }))
}

#[cfg(test)]
pub(super) mod tests {
    //! Grids inside and far outside, in every mode: derivatives, and the values against Burn's own
    //! kernel.

    use burn::backend::Dispatch;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::ops::{GridSampleOptions, GridSamplePaddingMode, InterpolateMode};

    use super::super::derivatives::{OpSample, OperandValues, check, check_values, spread};
    use super::*;

    /// Tolerance for f64 against Burn's kernel, which sums in another order.
    const KERNEL: f64 = 1e-13;

    const MODES: [Between; 3] = [Between::Nearest, Between::Bilinear, Between::Bicubic];
    const OUTSIDE: [Outside; 3] = [Outside::Zeros, Outside::Edge, Outside::Reflection];

    /// Points from inside the image to beyond its mirror images.
    fn grid(shape: &[usize], reach: f64) -> OperandValues {
        let OperandValues { shape, values } = spread(shape, 50);
        OperandValues { shape, values: values.into_iter().map(|x| reach * x).collect() }
    }

    fn sample(op: GridSample, x: [usize; 4], points: [usize; 3], reach: f64) -> OpSample {
        let [grids, height, width] = points;
        let operands = vec![spread(&x, 3), grid(&[grids, height, width, 2], reach)];
        OpSample::new(Op::GridSample(op), operands).linear(&[0])
    }

    pub(in super::super) fn samples() -> Vec<OpSample> {
        let mut all = Vec::new();
        for (index, between) in MODES.into_iter().enumerate() {
            for (other, outside) in OUTSIDE.into_iter().enumerate() {
                for align_corners in [false, true] {
                    let op = GridSample { between, outside, align_corners };
                    all.push(sample(
                        op.clone(),
                        [2, 3, 4, 3],
                        [2, 2, 3],
                        [0.9, 1.7, 4.3][(index + other) % 3],
                    ));
                    all.push(sample(op.clone(), [3, 1, 2, 5], [1, 3, 1], 1.4));
                    all.push(sample(op, [1, 2, 1, 2], [1, 1, 2], 2.1));
                }
            }
        }
        all
    }

    #[test]
    fn grid_sample_derivatives_match_differences() {
        check(&samples());
    }

    #[test]
    fn grid_sample_values_are_those_of_burns_kernel() {
        check_values(&samples(), KERNEL, |op, operands| {
            let Op::GridSample(op) = op else { return None };
            let mode = match op.between {
                Between::Nearest => InterpolateMode::Nearest,
                Between::Bilinear => InterpolateMode::Bilinear,
                // burn-flex has no kernel for it.
                Between::Bicubic => return None,
            };
            let padding = match op.outside {
                Outside::Zeros => GridSamplePaddingMode::Zeros,
                Outside::Edge => GridSamplePaddingMode::Border,
                Outside::Reflection => GridSamplePaddingMode::Reflection,
            };
            let options = GridSampleOptions::new(mode).with_padding_mode(padding);
            let options = options.with_align_corners(op.align_corners);
            let [x, grid] = both(operands);
            let shape = with_leading(x.shape()[0], &grid.shape()[1..]);
            Some(Array(Dispatch::float_grid_sample_2d(x.0, grid.expand(&shape).0, options)))
        });
    }
}
