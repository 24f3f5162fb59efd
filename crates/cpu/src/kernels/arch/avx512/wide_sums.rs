//! Sums over rows of compressed lines, on AVX-512: each vector of neighbours is expanded among
//! zeros and added in registers, without lines in full in memory.

use pulp::NullaryFnOnce;
use pulp::x86::V4;

use crate::kernels::arch::avx512::wide::Vector;
use crate::kernels::gram::sums::{ROWS, RowBlock};
use crate::kernels::layout::active::Active;
use crate::kernels::layout::cotangent::LineLayout;
use crate::kernels::layout::lines::by_lines;
use crate::kernels::simd::SimdFloat;
use crate::kernels::simd::WIDEST;

/// Adds the sums of a block, where the CPU has the instructions and the lines are compressed.
pub(crate) fn sum<T: SimdFloat>(block: &RowBlock<'_, T>, sums: &mut [Vec<f64>; 2]) -> bool {
    let (Some(simd), LineLayout::Compressed(active)) = (V4::try_new(), block.source.layout) else {
        return false;
    };
    by_lines!(block.lines, |V| simd.vectorize(SumRows::<'_, '_, T, V> { simd, block, active, sums }));
    true
}

struct SumRows<'a, 'b, T, const V: usize> {
    simd: V4,
    block: &'a RowBlock<'a, T>,
    active: &'a Active,
    sums: &'b mut [Vec<f64>; 2],
}

impl<T: SimdFloat, const V: usize> NullaryFnOnce for SumRows<'_, '_, T, V> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { simd, block, active, sums: [sums, moments] } = self;
        let first = block.channels.start;
        // For each row: where its lines begin, how far apart they are, and the index in them that
        // comes next.
        let mut cursors = [(0, 0, 0); ROWS];
        for (cursor, &row) in cursors.iter_mut().zip(block.rows) {
            *cursor = (active.block(row, V), active.stride(row), active.before(row, first));
        }
        let (width, one) = (block.channels.len(), T::every(simd, T::from_f64(1.0)));
        for column in (0..width).step_by(T::LANES) {
            let mut own = [T::every(simd, T::default()); V];
            let mut products = own;
            // Only the bits of the block's own channels: the mask goes on after them.
            let rest = width - column;
            let limit = if rest < T::LANES { (1 << rest) - 1 } else { u32::MAX >> (32 - T::LANES) };
            for (at, (&row, (begin, stride, next))) in block.rows.iter().zip(&mut cursors).enumerate() {
                let bits = active.bits(row, first + column) & limit;
                let values = &block.source.values[*begin + *next..][..(V - 1) * *stride + T::LANES];
                *next += bits.count_ones() as usize;
                let factor =
                    if moments.is_empty() { one } else { T::read(&block.factors[at * width + column..]) };
                for (v, (own, products)) in own.iter_mut().zip(&mut products).enumerate() {
                    let x = T::among_zeros(simd, bits, T::read(&values[v * *stride..]));
                    *own = T::sum_of(simd, x, *own);
                    *products = T::fused(simd, x, factor, *products);
                }
            }
            // Each sum goes over at most ROWS rows in the precision of T before it is added in f64.
            let add = |vectors: [Vector<T>; V], out: &mut [f64]| {
                for (v, vector) in vectors.into_iter().enumerate() {
                    let mut own = [T::default(); WIDEST];
                    T::write(vector, &mut own);
                    block.add(v, column, &own[..T::LANES], out);
                }
            };
            add(own, sums);
            if !moments.is_empty() {
                add(products, moments);
            }
        }
    }
}
