//! The Gram matrix of a weight's gradients by pairs of positions, where these are few.
//!
//! With D_v(o, t, i) = sum over positions p of g(p, v, o) x(p, t, i) as in
//! [`crate::kernels::gram::outer`],
//!
//! ```text
//! G(v, w) = sum over o, t, i of D_v D_w = sum over o, p, q of A(p, q) g(p, v, o) g(q, w, o),
//! A(p, q) = sum over t, i of x(p, t, i) x(q, t, i).
//! ```
//!
//! A serves all outputs. For each output only those pairs of positions count at which it is active.
//! Since A is symmetric, the pairs with q <= p are enough: with A(p, p) halved they give a matrix
//! H, and G = H + H^T.
//!
//! All of it is in f64, whatever the precision of the run. Rounded tiles of a gradient that are
//! squared in f64 still are the Gram matrix of slightly other gradients. A sum over pairs is not
//! the square of anything: its rounding is added to G itself. In f32 that would be as large as the
//! squares of singular values of 2.4e-4 sigma_1, and zeros of a layer with few outputs would become
//! directions.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::gram::channels::ByChannel;
use crate::kernels::gram::outer::CHANNELS;
use crate::kernels::layout::lines::by_lines;
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST, equally_long};

/// G for one sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairGram<'a, T> {
    /// A, `[position][position]`; what lies above the diagonal is not read.
    pub(crate) inner: &'a [f64],
    /// How many positions there are.
    pub(crate) positions: usize,
    /// The cotangents of the layer's outputs there: g.
    pub(crate) entries: &'a ByChannel<T>,
    /// One factor for each output.
    pub(crate) scale: Option<&'a [T]>,
}

/// Positions p that are taken together: their sums over q run side by side, and g(q, ..) is loaded
/// once for all.
const SIDE: usize = 4;

impl<T: SimdFloat> PairGram<'_, T> {
    /// `[V, V]`, row-major.
    #[must_use]
    pub(crate) fn gram(&self, set: InstructionSet) -> Vec<f64> {
        let (channels, lines) = (self.entries.channels(), self.entries.lines);
        // Some outputs to a task, whose sums are added in order whatever the threads.
        let tasks: Vec<_> =
            (0..channels).step_by(CHANNELS).map(|from| from..channels.min(from + CHANNELS)).collect();
        let run = |channels| set.run(PairChannels { pairs: self, channels });
        let parts: Vec<Vec<f64>> = tasks.into_par_iter().map(run).collect();
        let mut half = vec![0.0; lines * lines];
        for part in parts {
            half.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        (0..lines * lines).map(|at| half[at] + half[at % lines * lines + at / lines]).collect()
    }
}

/// Some output channels.
struct PairChannels<'a, T> {
    pairs: &'a PairGram<'a, T>,
    channels: Range<usize>,
}

impl<T: SimdFloat> WithSimd for PairChannels<'_, T> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f64> {
        by_lines!(S, self.pairs.entries.lines, |V| self.run::<S, V>(simd))
    }
}

/// One output's active positions and their cotangents, `[entry][V]`, those of one vector of lines.
#[derive(Clone, Copy)]
struct OutputEntries<'a> {
    positions: &'a [u32],
    /// All lines, and a vector more.
    values: &'a [f64],
    /// The first line of the vector.
    first: usize,
}

impl<T: SimdFloat> PairChannels<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const V: usize>(&self, simd: S) -> Vec<f64> {
        let (lanes, mut sums) = (<f64 as SimdFloat>::lanes::<S>(), vec![0.0; V * V]);
        let mut wide = Vec::new();
        for channel in self.channels.clone() {
            let (positions, values) = self.pairs.entries.entries(channel);
            wide.clear();
            wide.extend(values[..positions.len() * V].iter().map(|x| x.to_f64()));
            wide.resize(wide.len() + WIDEST, 0.0);
            let scale = self.pairs.scale.map_or(1.0, |scale| scale[channel].to_f64());
            for first in (0..V).step_by(lanes) {
                let column = OutputEntries { positions, values: &wide, first };
                let mut gram = [simd.splat_f64s(0.0); V];
                let whole = positions.len() - positions.len() % SIDE;
                for from in (0..whole).step_by(SIDE) {
                    self.rows::<S, V, SIDE>(simd, column, from, &mut gram);
                }
                for from in whole..positions.len() {
                    self.rows::<S, V, 1>(simd, column, from, &mut gram);
                }
                for (sums, gram) in sums.chunks_exact_mut(V).zip(gram) {
                    let mut own = [0.0; WIDEST];
                    <f64 as SimdFloat>::store(simd, gram, &mut own);
                    // After the last line come elements of the next entry.
                    for (sum, own) in sums[first..].iter_mut().zip(&own[..lanes]) {
                        *sum += own * scale * scale;
                    }
                }
            }
        }
        sums
    }

    /// gram(v, ..) += sum over R entries p of g(p, v) (A(p, p) g(p, ..) / 2 + sum over entries q
    /// before p of A(p, q) g(q, ..)).
    #[inline(always)]
    fn rows<S: Simd, const V: usize, const R: usize>(
        &self,
        simd: S,
        column: OutputEntries<'_>,
        from: usize,
        gram: &mut [<f64 as SimdFloat>::Vector<S>; V],
    ) {
        let (count, lanes) = (self.pairs.positions, <f64 as SimdFloat>::lanes::<S>());
        let OutputEntries { positions, values, first } = column;
        let own: [usize; R] = std::array::from_fn(|r| positions[from + r] as usize);
        let inner: [&[f64]; R] = equally_long(count, |r| &self.pairs.inner[own[r] * count..]);
        let vector = |entry: usize| <f64 as SimdFloat>::load(simd, &values[entry * V + first..][..lanes]);
        // All q before the first of the R entries serve each of them alike.
        let mut sums = [simd.splat_f64s(0.0); R];
        for (entry, &position) in positions[..from].iter().enumerate() {
            let g = vector(entry);
            for (sum, inner) in sums.iter_mut().zip(inner) {
                *sum = simd.mul_add_f64s(simd.splat_f64s(inner[position as usize]), g, *sum);
            }
        }
        // Then the pairs among the R entries, and each entry with itself.
        for (r, (mut sum, inner)) in sums.into_iter().zip(inner).enumerate() {
            for (before, &position) in own[..r].iter().enumerate() {
                sum = simd.mul_add_f64s(simd.splat_f64s(inner[position]), vector(from + before), sum);
            }
            sum = simd.mul_add_f64s(simd.splat_f64s(inner[own[r]] * 0.5), vector(from + r), sum);
            for (gram, value) in gram.iter_mut().zip(&values[(from + r) * V..]) {
                *gram = simd.mul_add_f64s(simd.splat_f64s(*value), sum, *gram);
            }
        }
    }
}
