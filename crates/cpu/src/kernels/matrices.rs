//! Products of two values that both depend on the input: matrices of each sample, and of each head
//! of an attention. The products themselves are faer's, on every instruction set.
//!
//! A matrix is read where it lies, by two strides; a copy is made by the compiler only where
//! neither axis leads through neighbouring channels. Fast path of the pullback to A: where the rows
//! of A and C are the rows of their matrices, the V lines of all rows are one tall matrix, and one
//! product serves all lines.

use faer::linalg::matmul::matmul;
use faer::traits::RealField;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::kernels::layout::rows::{DenseRows, chunks};
use crate::kernels::simd::SimdFloat;

/// The distance between neighbouring entries of a matrix along one of its axes, in rows and in
/// channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stride {
    pub(crate) rows: usize,
    pub(crate) channels: usize,
}

/// One of A, B and C in C = A B.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum MatrixRole {
    A,
    B,
    C,
}

impl MatrixRole {
    /// Its index among the operands.
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The other factor of the product.
    fn partner(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B | Self::C => Self::A,
        }
    }
}

/// The matrices of one operand: row and channel of the first entry of each, and the strides along
/// both axes. One of these leads through neighbouring channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MatrixOperand {
    pub(crate) corners: Vec<[usize; 2]>,
    pub(crate) strides: [Stride; 2],
    /// Rows of a sample.
    pub(crate) rows: usize,
}

/// C = A B for each matrix of each sample: A is `sizes[0]` x `sizes[1]`, B is `sizes[1]` x
/// `sizes[2]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrices {
    pub(crate) sizes: [usize; 3],
    /// A, B and C.
    pub(crate) operands: [MatrixOperand; 3],
}

/// Where the entries of a matrix lie in a slice: entry (i, j) at `first + i strides[0] + j
/// strides[1]`.
#[derive(Debug, Clone, Copy)]
struct Spot {
    first: usize,
    sizes: [usize; 2],
    strides: [usize; 2],
}

impl Spot {
    fn transposed(self) -> Self {
        let ([a, b], [c, d]) = (self.sizes, self.strides);
        Self { sizes: [b, a], strides: [d, c], ..self }
    }

    /// Whether the second axis leads through neighbours.
    fn is_row_major(self) -> bool {
        self.strides[1] == 1 || self.sizes[1] == 1
    }

    fn of<T>(self, values: &[T]) -> MatRef<'_, T> {
        if !self.is_row_major() {
            return self.transposed().of_rows(values).transpose();
        }
        self.of_rows(values)
    }

    fn of_rows<T>(self, values: &[T]) -> MatRef<'_, T> {
        let [rows, columns] = self.sizes;
        MatRef::from_row_major_slice_with_stride(&values[self.first..], rows, columns, self.row_stride())
    }

    /// An axis of one entry leads nowhere, and may have any stride.
    fn row_stride(self) -> usize {
        if self.sizes[0] == 1 { self.sizes[1] } else { self.strides[0] }
    }

    fn of_mut<T>(self, values: &mut [T]) -> MatMut<'_, T> {
        if !self.is_row_major() {
            return self.transposed().of_rows_mut(values).transpose_mut();
        }
        self.of_rows_mut(values)
    }

    fn of_rows_mut<T>(self, values: &mut [T]) -> MatMut<'_, T> {
        let [rows, columns] = self.sizes;
        // (faer 0.24's constructor for rows, `from_row_major_slice_with_stride_mut`, exchanges the
        // strides. The transposed matrix has them right.)
        let values = &mut values[self.first..];
        MatMut::from_column_major_slice_with_stride_mut(values, columns, rows, self.row_stride())
            .transpose_mut()
    }
}

impl MatrixOperand {
    /// A matrix in the rows of one sample, of which each has `lines` lines of `pitch` elements.
    fn spot(&self, part: usize, sizes: [usize; 2], [lines, pitch, offset]: [usize; 3]) -> Spot {
        let [row, channel] = self.corners[part];
        let stride = |Stride { rows, channels }: Stride| rows * lines * pitch + channels;
        let first = row * lines * pitch + offset + channel;
        Spot { first, sizes, strides: self.strides.map(stride) }
    }

    /// Whether the first axis leads from each row to the next.
    fn leads_through_rows(&self) -> bool {
        self.strides[0] == Stride { rows: 1, channels: 0 }
    }
}

impl Matrices {
    /// The matrices of an operand.
    pub(crate) fn operand(&self, role: MatrixRole) -> &MatrixOperand {
        &self.operands[role.index()]
    }

    /// Rows and columns of an operand's matrices.
    fn sizes(&self, role: MatrixRole) -> [usize; 2] {
        let [m, k, n] = self.sizes;
        [[m, k], [k, n], [m, n]][role.index()]
    }

    /// How many matrices a sample has.
    fn count(&self) -> usize {
        self.operand(MatrixRole::C).corners.len()
    }

    /// Bytes that the corners take.
    pub(crate) fn bytes(&self) -> usize {
        self.operands.iter().map(|operand| size_of_val(operand.corners.as_slice())).sum()
    }

    /// Writes all of C, which begins `offset` elements into its rows of `pitch`.
    pub(crate) fn run<T: SimdFloat + RealField>(
        &self,
        [a, b]: [DenseRows<'_, T>; 2],
        samples: usize,
        out: &mut [T],
        [pitch, offset]: [usize; 2],
    ) {
        let size = self.operand(MatrixRole::C).rows * pitch;
        chunks(out, samples, samples, |sample| sample * size).into_par_iter().for_each(|chunk| {
            for sample in chunk.rows {
                let out = &mut chunk.values[sample * size - chunk.start..];
                for part in 0..self.count() {
                    let (of_a, a) = self.read(MatrixRole::A, a, sample, part);
                    let (of_b, b) = self.read(MatrixRole::B, b, sample, part);
                    let c = self.operand(MatrixRole::C);
                    let of_c = c.spot(part, self.sizes(MatrixRole::C), [1, pitch, offset]);
                    let (lhs, rhs) = (of_a.of(a), of_b.of(b));
                    matmul(of_c.of_mut(out), Accum::Replace, lhs, rhs, T::from_f64(1.0), Par::Seq);
                }
            }
        });
    }

    /// One matrix of a factor at a sample, and the sample's elements.
    fn read<'v, T>(
        &self,
        role: MatrixRole,
        values: DenseRows<'v, T>,
        sample: usize,
        part: usize,
    ) -> (Spot, &'v [T]) {
        let operand = self.operand(role);
        let spot = operand.spot(part, self.sizes(role), [1, values.pitch, values.offset]);
        (spot, &values.values[sample * operand.rows * values.pitch..])
    }
}

/// The cotangents of A, C^ B^T, or of B, A^T C^.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MatricesPullback<'a, T> {
    pub(crate) matrices: &'a Matrices,
    /// Which of the two is wanted: A or B.
    pub(crate) operand: MatrixRole,
    /// The cotangents of C: the buffer, from one line to the next, and the first channel.
    pub(crate) source: DenseRows<'a, T>,
    /// The values of the other operand.
    pub(crate) other: DenseRows<'a, T>,
    /// Elements from one line of the target to the next.
    pub(crate) pitch: usize,
    /// The target's first channel in a line.
    pub(crate) offset: usize,
    /// V.
    pub(crate) lines: usize,
}

impl<T: SimdFloat + RealField> MatricesPullback<'_, T> {
    /// Adds to all rows of `samples` samples of the target's buffer.
    pub(crate) fn run(&self, samples: usize, out: &mut [T]) {
        let size = self.matrices.operand(self.operand).rows * self.lines * self.pitch;
        chunks(out, samples, samples, |sample| sample * size).into_par_iter().for_each(|chunk| {
            for sample in chunk.rows {
                let out = &mut chunk.values[sample * size - chunk.start..][..size];
                (0..self.matrices.count()).for_each(|part| self.part(sample, part, out));
            }
        });
    }

    /// One matrix of a sample.
    fn part(&self, sample: usize, part: usize, out: &mut [T]) {
        let Self { matrices, operand, source, other, lines, .. } = *self;
        let (own, result) = (matrices.operand(operand), matrices.operand(MatrixRole::C));
        let (factor, values) = matrices.read(operand.partner(), other, sample, part);
        let factor = factor.transposed().of(values);
        let given = &source.values[sample * result.rows * lines * source.pitch..];
        let from = result.spot(part, matrices.sizes(MatrixRole::C), [lines, source.pitch, source.offset]);
        let to = own.spot(part, matrices.sizes(operand), [lines, self.pitch, self.offset]);
        // A^ has the cotangents as its left factor, B^ as its right one.
        let mut multiply = |to: Spot, from: Spot| {
            let (to, from) = (to.of_mut(out), from.of(given));
            let [lhs, rhs] = if operand == MatrixRole::A { [from, factor] } else { [factor, from] };
            matmul(to, Accum::Add, lhs, rhs, T::from_f64(1.0), Par::Seq);
        };
        // A^ = C^ B^T multiplies each row on its own. Where a row of the matrix is a row of the
        // buffer, the V lines of row i + 1 follow those of row i at the same distance as these
        // follow one another, so that all of them are the rows of one matrix V times as tall. For
        // B^ = A^T C^ lines must not be mixed: the sum runs over rows.
        if operand == MatrixRole::A && own.leads_through_rows() && result.leads_through_rows() {
            let tall = |spot: Spot, pitch: usize| Spot {
                sizes: [spot.sizes[0] * lines, spot.sizes[1]],
                strides: [pitch, spot.strides[1]],
                ..spot
            };
            return multiply(tall(to, self.pitch), tall(from, source.pitch));
        }
        for line in 0..lines {
            let of_line = |spot: Spot, pitch: usize| Spot { first: spot.first + line * pitch, ..spot };
            multiply(of_line(to, self.pitch), of_line(from, source.pitch));
        }
    }
}
