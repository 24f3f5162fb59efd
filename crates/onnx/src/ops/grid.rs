//! Images sampled at the points of a grid.

use burn::tensor::TensorData;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::grid::{Between, GridSample, Outside};
use influence_autodiff::ops::linear::Linear;

use crate::call::{Call, Results, fixed, one};
use crate::error::Refusal;
use crate::host::BatchId;

pub(super) fn sample(call: &mut Call<'_, '_>) -> Results {
    let (x, grid) = (call.value(0)?, call.value(1)?);
    if call.shape(x).len() != 4 {
        return Err(Refusal::new("it samples volumes", "only grids of images are supported"));
    }
    let attributes = call.attributes();
    let between = match attributes.word("mode", "linear") {
        "linear" | "bilinear" => Between::Bilinear,
        "cubic" | "bicubic" => Between::Bicubic,
        "nearest" => Between::Nearest,
        other => return Err(format!("there is no mode \"{other}\"").into()),
    };
    let outside = match attributes.word("padding_mode", "zeros") {
        "zeros" => Outside::Zeros,
        "border" => Outside::Edge,
        "reflection" => Outside::Reflection,
        other => return Err(format!("there is no padding_mode \"{other}\"").into()),
    };
    let align_corners = attributes.int("align_corners", 0) != 0;
    one(call.emit(Op::GridSample(GridSample { between, outside, align_corners }), &[x, grid])?)
}

/// The centres of `size` pixels in coordinates where -1 and 1 are their edges, or the outermost
/// centres.
fn centres(size: usize, align_corners: bool) -> Vec<f64> {
    let centre = |i: usize| match align_corners {
        true if size == 1 => 0.0,
        true => 2.0 * i as f64 / (size as f64 - 1.0) - 1.0,
        false => (2.0 * i as f64 + 1.0) / size as f64 - 1.0,
    };
    (0..size).map(centre).collect()
}

/// The grid of an affine map `[n, 2, 3]`: its products with the homogeneous coordinates of the
/// pixels.
pub(super) fn affine(call: &mut Call<'_, '_>) -> Results {
    let theta = call.value(0)?;
    let sizes = call.host(1)?.ok_or("it has no sizes")?;
    let sizes = sizes.at(BatchId::FIRST).ints();
    let &[_, _, height, width] = &sizes[..] else {
        return Err(Refusal::new("it makes a grid of volumes", "only grids of images are supported"));
    };
    let size =
        |size: i64| usize::try_from(size).ok().filter(|&size| size > 0).ok_or("a size is not positive");
    let (height, width) = (size(height)?, size(width)?);
    let align = call.attributes().int("align_corners", 0) != 0;
    let rows = centres(height, align);
    let columns = centres(width, align);
    // `[3, H W]`: x, y and 1 of every pixel, row by row.
    let mut points = Vec::new();
    for coordinate in 0..3 {
        for y in &rows {
            points.extend(columns.iter().map(|x| [*x, *y, 1.0][coordinate]));
        }
    }
    crate::known::elements(&[3, height, width])?;
    let points = call.literal(TensorData::new(points, [3, height * width]));
    let n = call.shape(theta)[0];
    let moved = call.emit(Op::Linear(Linear), &[theta, points])?;
    let last = call.permute(moved, vec![0, 2, 1])?;
    one(call.reshape(last, &[n, fixed(height), fixed(width), fixed(2)])?)
}
