//! The Gram matrix of the gradients of 3 x 3 weights in Winograd's form
//! ([`crate::kernels::winograd::form`]).
//!
//! D_v(o, t, i) = A^T [ sum over patches of (G g_v(o) G^T) . (B^T x(i) B) ] A, with four times
//! fewer products than position by position. As in [`crate::kernels::gram::outer`] a tile of D, of
//! V lines by two vectors of inputs, is summed in registers, here one for each frequency; all nine
//! taps of it are then transformed back, squared and dropped.
//!
//! The frequencies of the inputs are computed once per sample and read by all threads; those of an
//! output's cotangents by the thread that takes the output, a few outputs at a time.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::gram::outer::{LinePairSums, TileGram, WIDE};
use crate::kernels::layout::lines::by_lines;
use crate::kernels::layout::rows::DenseRows;
use crate::kernels::simd::{InstructionSet, SimdFloat, WIDEST};
use crate::kernels::winograd::form::{load_square, results, store_square, weighings};
use crate::kernels::winograd::patched::PatchSource;
use crate::kernels::winograd::patches::Patches;

/// Frequencies of a patch of 4 x 4 results, as many as the rows that it reads.
const READS: usize = 36;

/// Cotangents of a patch.
const RESULTS: usize = 16;

const TAPS: usize = 9;

/// Output channels whose frequencies are held at a time: a block of the inputs' frequencies serves
/// all of them while it is in a core's L2 cache.
const HELD: usize = 2;

/// A [`TileGram`] by patches.
pub(crate) struct PatchGram<'a, T> {
    pub(crate) outer: &'a TileGram<'a, T>,
    pub(crate) patches: &'a Patches,
}

impl<T: SimdFloat> PatchGram<'_, T> {
    /// The sums of each task's output channels.
    pub(crate) fn sums(
        &self,
        set: InstructionSet,
        sample: usize,
        tasks: Vec<Range<usize>>,
    ) -> Vec<LinePairSums> {
        let spectrum = set.run(ReadSpectrum { own: self, sample });
        let run = |channels| set.run(PatchChannels { own: self, spectrum: &spectrum, channels });
        tasks.into_par_iter().map(run).collect()
    }

    /// Room for a row's inputs.
    fn width<S: Simd>(&self) -> usize {
        self.outer.rows.channels.next_multiple_of(2 * T::lanes::<S>())
    }
}

/// How many elements the frequencies take: those of all inputs, and for each thread those of the
/// outputs that it holds.
pub(crate) fn numbers(patches: &Patches, inputs: usize, lines: usize, threads: usize) -> usize {
    let (count, inputs) = (patches.count(), inputs.next_multiple_of(WIDE));
    let own = lines.next_multiple_of(WIDEST) * count * (RESULTS + HELD * READS) + READS * lines * WIDE;
    READS * count * inputs + threads * own
}

/// The frequencies of what a sample's patches read, `[frequency][patch][input]`.
struct ReadSpectrum<'a, T> {
    own: &'a PatchGram<'a, T>,
    sample: usize,
}

impl<T: SimdFloat> WithSimd for ReadSpectrum<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<T> {
        let (rows, patches, width) = (self.own.outer.rows, self.own.patches, self.own.width::<S>());
        let mut spectrum = vec![T::default(); READS * patches.count() * width];
        let DenseRows { values, pitch, offset, channels } = rows;
        let source = PatchSource { patches, values, pitch, offset, channels, lines: 1 };
        for patch in 0..patches.count() {
            let which = self.sample * patches.count() + patch;
            let out = &mut spectrum[patch * width..];
            source.frequencies::<S, 6>(simd, which, 0, out, patches.count() * width);
        }
        spectrum
    }
}

/// Some output channels.
struct PatchChannels<'a, T> {
    own: &'a PatchGram<'a, T>,
    spectrum: &'a [T],
    channels: Range<usize>,
}

impl<T: SimdFloat> WithSimd for PatchChannels<'_, T> {
    type Output = LinePairSums;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> LinePairSums {
        let mut sums = LinePairSums::default();
        if const { S::REGISTER_COUNT < 32 } {
            by_lines!(S, self.own.outer.entries.lines, |V| self.run::<S, 1, V>(simd, &mut sums));
        } else {
            by_lines!(S, self.own.outer.entries.lines, |V| self.run::<S, 2, V>(simd, &mut sums));
        }
        sums
    }
}

impl<T: SimdFloat> PatchChannels<'_, T> {
    #[inline(always)]
    fn run<S: Simd, const G: usize, const V: usize>(&self, simd: S, sums: &mut LinePairSums) {
        let (count, columns) = (self.own.patches.count(), G * T::lanes::<S>());
        let (inputs, width) = (self.own.outer.rows.channels, self.own.width::<S>());
        let padded = V.next_multiple_of(T::lanes::<S>());
        let mut planes = vec![T::default(); RESULTS * count * padded];
        let mut weights = vec![T::default(); HELD * READS * count * padded];
        let mut products = vec![T::default(); READS * V * columns];
        let mut taps = vec![T::default(); V * TAPS * columns];
        let mut wide = vec![0.0; V * TAPS * columns];
        for first in self.channels.clone().step_by(HELD) {
            let held = first..self.channels.end.min(first + HELD);
            // The frequencies of the held outputs' cotangents, once for all inputs.
            for (channel, weights) in held.clone().zip(weights.chunks_exact_mut(READS * count * padded)) {
                self.spread::<V>(channel, &mut planes, padded);
                simd.vectorize(Weigh { planes: &planes, weights, size: count * padded });
            }
            // Then a tile for each block of inputs and each output: summed over the patches,
            // transformed back into nine taps, and squared.
            for column in (0..inputs).step_by(columns) {
                for (channel, weights) in held.clone().zip(weights.chunks_exact(READS * count * padded)) {
                    let (spectrum, products) = (self.spectrum, products.as_mut_slice());
                    let multiply = Multiply { weights, padded, spectrum, column, width, count, products };
                    simd.vectorize(ByLines::<_, G, V>(multiply));
                    let taps = taps.as_mut_slice();
                    simd.vectorize(ByLines::<_, G, V>(Transform { products, taps }));
                    let scale = self.own.outer.scale.map_or(1.0, |scale| scale[channel].to_f64());
                    simd.vectorize(SquareTaps { taps, scale, wide: &mut wide, lines: V, sums });
                }
            }
        }
    }

    /// One output channel's cotangents, `[result of the patch][patch][V]`; zeros where it is not
    /// active.
    fn spread<const V: usize>(&self, channel: usize, planes: &mut [T], padded: usize) {
        let (outer, patches) = (self.own.outer, self.own.patches);
        let size = patches.count() * padded;
        planes.fill(T::default());
        let (positions, values) = outer.entries.entries(channel);
        for (position, values) in positions.iter().zip(values.chunks_exact(V)) {
            let (patch, at) = patches.result_of(outer.live[*position as usize]);
            planes[at * size + patch * padded..][..V].copy_from_slice(values);
        }
    }
}

// Each of the following kernels is compiled by itself: inlined into one function they are too long
// for the compiler to keep sums in registers.

/// Work for V lines by G vectors of columns.
struct ByLines<W, const G: usize, const V: usize>(W);

/// The frequencies of one output channel's cotangents, `[frequency][patch][V]`.
struct Weigh<'a, T> {
    planes: &'a [T],
    weights: &'a mut [T],
    /// Elements from one result or frequency to the next.
    size: usize,
}

impl<T: SimdFloat> WithSimd for Weigh<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { planes, weights, size } = self;
        for at in (0..size).step_by(T::lanes::<S>()) {
            let x = load_square::<S, T, 4>(simd, &planes[at..], size);
            store_square::<S, T, 6>(simd, weighings::<S, T>(simd, x), &mut weights[at..], size);
        }
    }
}

/// The sums over the patches, `[frequency][V][column]`.
struct Multiply<'a, T> {
    weights: &'a [T],
    /// Elements from one patch's lines to the next.
    padded: usize,
    spectrum: &'a [T],
    /// The first input.
    column: usize,
    width: usize,
    /// Patches.
    count: usize,
    products: &'a mut [T],
}

impl<T: SimdFloat, const G: usize, const V: usize> WithSimd for ByLines<Multiply<'_, T>, G, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Multiply { weights, padded, spectrum, column, width, count, products } = self.0;
        let lanes = T::lanes::<S>();
        let each = products.chunks_exact_mut(V * G * lanes).zip(weights.chunks_exact(count * padded));
        for ((products, weights), read) in each.zip(spectrum.chunks_exact(count * width)) {
            let mut sums = [[T::splat(simd, T::default()); G]; V];
            for (values, row) in weights.chunks_exact(padded).zip(read[column..].chunks(width)) {
                let row: [T::Vector<S>; G] =
                    std::array::from_fn(|g| T::load(simd, &row[g * lanes..(g + 1) * lanes]));
                for (sums, value) in sums.iter_mut().zip(&values[..V]) {
                    let value = T::splat(simd, *value);
                    for (sum, x) in sums.iter_mut().zip(row) {
                        *sum = T::mul_add(simd, value, x, *sum);
                    }
                }
            }
            for (to, sums) in products.chunks_exact_mut(G * lanes).zip(sums) {
                for (to, sum) in to.chunks_exact_mut(lanes).zip(sums) {
                    T::store(simd, sum, to);
                }
            }
        }
    }
}

/// D(o, t, ..), `[V][tap][column]`.
struct Transform<'a, T> {
    products: &'a [T],
    taps: &'a mut [T],
}

impl<T: SimdFloat, const G: usize, const V: usize> WithSimd for ByLines<Transform<'_, T>, G, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (lanes, columns) = (T::lanes::<S>(), G * T::lanes::<S>());
        let Transform { products, taps } = self.0;
        for (v, taps) in taps.chunks_exact_mut(TAPS * columns).enumerate() {
            for g in 0..G {
                let x = load_square::<S, T, 6>(simd, &products[(v * G + g) * lanes..], V * columns);
                let y = results::<S, T, 6, 3>(simd, x);
                store_square::<S, T, 3>(simd, y, &mut taps[g * lanes..], columns);
            }
        }
    }
}

/// sums(v, w) += scale^2 D_v . D_w.
struct SquareTaps<'a, T> {
    taps: &'a [T],
    scale: f64,
    wide: &'a mut [f64],
    lines: usize,
    sums: &'a mut LinePairSums,
}

impl<T: SimdFloat> WithSimd for SquareTaps<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { taps, scale, wide, lines, sums } = self;
        for (wide, x) in wide.iter_mut().zip(taps) {
            *wide = x.to_f64() * scale;
        }
        let size = wide.len() / lines;
        for (v, a) in wide.chunks_exact(size).enumerate() {
            for (w, b) in wide.chunks_exact(size).enumerate().skip(v) {
                sums.add(simd, v, w, a, b);
            }
        }
    }
}
