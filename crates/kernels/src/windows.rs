//! The write side of the pullback on AVX-512: channels whose cotangent a mask switches off are not computed.
//!
//! The active channels of a row are taken in *windows*: up to one vector of them that lie within two vectors of neighbours. One
//! two-source permutation of a row of weights brings the window's channels side by side; the index vector serves every row of weights, and
//! the result is compressed already. For f32 a window has up to 16 channels among 32 neighbours, for f64 8 among 16.

use std::arch::x86_64::{__m128i, __m256i, __m512, __m512d, __m512i};

use pulp::x86::V4;
use pulp::{NullaryFnOnce, cast};

use crate::active::{Active, PAD};
use crate::cotangent::{Cotangents, Layout, Lines, Target};
use crate::panels::Panels;
use crate::pullback::{MOST_LINES, Pullback, Read, Start, by_lines};
use crate::rows::Chunk;
use crate::simd::Element;
use crate::stage::Stage;

/// A vector of AVX-512: the processor's own type, since the compiler keeps portable vectors in memory between permutations.
type Vector<T> = <T as Wide>::Register;

/// Runs the rows of a chunk.
pub(crate) fn pull<T: Wide>(pullback: &Pullback<'_, T>, chunk: &mut Chunk<'_, T>) {
    let (Some(simd), Some(active)) = (V4::try_new(), pullback.target.active()) else { return };
    simd.vectorize(Rows { simd, pullback, active, chunk });
}

/// What AVX-512 offers for a float type.
pub(crate) trait Wide: Element {
    /// A vector.
    type Register: Copy;

    /// Numbers in a vector.
    const LANES: usize;

    /// The number everywhere.
    fn every(simd: V4, value: Self) -> Self::Register;

    /// The first numbers of `from`.
    fn read(from: &[Self]) -> Self::Register;

    /// Writes over the first numbers of `to`.
    fn write(value: Self::Register, to: &mut [Self]);

    /// a + b.
    fn sum_of(simd: V4, a: Self::Register, b: Self::Register) -> Self::Register;

    /// a b + c.
    fn fused(simd: V4, a: Self::Register, b: Self::Register, c: Self::Register) -> Self::Register;

    /// How far the first channels of a list, one vector of them, lie behind `first`.
    fn distances(simd: V4, ids: &[u16], first: usize) -> __m512i;

    /// Which distances are below `limit`.
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32;

    /// Number `index` of both vectors in a row, where `keep` says so, else 0.
    fn pick(simd: V4, keep: u32, low: Self::Register, index: __m512i, high: Self::Register)
    -> Self::Register;

    /// The first numbers, one to each set bit, 0 elsewhere.
    fn expand(simd: V4, bits: u32, from: Self::Register) -> Self::Register;

    /// For the channels at `distances`: how many set bits come before each, and whether its own is set.
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i);
}

/// Up to one vector of active channels that lie within two vectors of neighbours.
#[derive(Clone, Copy)]
struct Window {
    /// The first channel.
    first: usize,
    /// Its place in the row's list.
    at: usize,
    /// The lanes that hold one.
    keep: u32,
    /// How far each lies behind the first.
    distances: __m512i,
}

struct Rows<'a, 'b, 'c, T> {
    simd: V4,
    pullback: &'a Pullback<'a, T>,
    active: &'a Active,
    chunk: &'b mut Chunk<'c, T>,
}

impl<T: Wide> NullaryFnOnce for Rows<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        by_lines!(self.pullback.lines, |V| self.rows::<V>());
    }
}

impl<T: Wide> Rows<'_, '_, '_, T> {
    #[inline(always)]
    fn rows<const V: usize>(&mut self) {
        let Pullback { panels, target, start, .. } = self.pullback;
        let add = matches!(start, Start::Sum);
        let (mut reads, mut windows) = (Vec::new(), Vec::new());
        let step = panels.count().div_ceil(panels.passes()).max(1);
        let mut stage = Stage::new(V, step * panels.width);
        for first in (0..panels.count()).step_by(step) {
            let last = panels.count().min(first + step);
            let channels = first * panels.width..(last * panels.width).min(self.active.channels());
            for row in self.chunk.rows.clone() {
                self.pullback.reads(row, &mut reads);
                let from = self.active.before(row, channels.start);
                let mut at = from;
                let block = target.block(row, V) - self.chunk.start;
                let block = &mut self.chunk.values[block..];
                let own = Group { simd: self.simd, pullback: self.pullback, row, reads: &reads };
                for panel in first..last {
                    at = windows_of(self.simd, panels, self.active, row, panel, at, &mut windows);
                    let mut lines = match target {
                        Target::Lines(_) => {
                            Written { values: block, stride: self.active.stride(row), from: 0, add }
                        }
                        Target::Masked { .. } => stage.written(from),
                    };
                    let mut pairs = windows.chunks_exact(2);
                    for pair in &mut pairs {
                        own.run::<V, 2>(panel, [pair[0], pair[1]], &mut lines);
                    }
                    for window in pairs.remainder() {
                        own.run::<V, 1>(panel, [*window], &mut lines);
                    }
                }
                if let Target::Masked { pitch, offset, .. } = *target {
                    let block = &mut block[offset + channels.start..];
                    stage.expand(self.simd, self.active, row, channels.clone(), add, block, pitch);
                }
            }
        }
    }
}

/// The windows of one panel of a row, whose list of channels begins `at`; and where it ends.
#[inline(always)]
fn windows_of<T: Wide>(
    simd: V4,
    panels: &Panels<T>,
    active: &Active,
    row: usize,
    panel: usize,
    mut at: usize,
    windows: &mut Vec<Window>,
) -> usize {
    let end = ((panel + 1) * panels.width).min(active.channels());
    let list = active.padded_list(row);
    let till = if end == active.channels() { list.len() - PAD } else { active.before(row, end) };
    windows.clear();
    while at < till {
        let first = list[at] as usize;
        let distances = T::distances(simd, &list[at..], first);
        let neighbours = (end - first).min(2 * T::LANES);
        let rest = u32::MAX.checked_shr(32_u32.saturating_sub((till - at) as u32)).unwrap_or(0);
        let keep = T::below(simd, distances, neighbours) & rest;
        windows.push(Window { first, at, keep, distances });
        at += keep.count_ones() as usize;
    }
    till
}

/// Lines of compressed results under way.
pub(crate) struct Written<'a, T> {
    pub(crate) values: &'a mut [T],
    /// From one line to the next.
    pub(crate) stride: usize,
    /// The place in the row's list with which the lines begin.
    pub(crate) from: usize,
    /// Whether results are added to what is there.
    pub(crate) add: bool,
}

/// What the windows of a row share.
struct Group<'a, T> {
    simd: V4,
    pullback: &'a Pullback<'a, T>,
    row: usize,
    reads: &'a [Read<'a, T>],
}

impl<T: Wide> Group<'_, T> {
    /// All lines of some windows.
    #[inline(always)]
    fn run<const V: usize, const G: usize>(
        &self,
        panel: usize,
        windows: [Window; G],
        out: &mut Written<'_, T>,
    ) {
        let Group { simd, pullback, row, reads } = *self;
        let mut sums: [[Vector<T>; G]; V] = product(simd, pullback.panels, panel, &windows, reads);
        if let Start::Identity(other) = pullback.start {
            let picks = self.picks(&windows, &other);
            for (line, sums) in sums.iter_mut().enumerate() {
                for (sum, pick) in sums.iter_mut().zip(&picks) {
                    *sum = T::sum_of(simd, *sum, pick.line(simd, &other, row, V, line));
                }
            }
        }
        let add = out.add;
        for (line, sums) in sums.into_iter().enumerate() {
            for (mut sum, window) in sums.into_iter().zip(&windows) {
                let out = &mut out.values[line * out.stride + window.at - out.from..][..T::LANES];
                if add {
                    sum = T::sum_of(simd, sum, T::read(out));
                }
                T::write(sum, out);
            }
        }
    }

    /// Where the windows' channels are in other cotangents.
    #[inline(always)]
    fn picks<const G: usize>(&self, windows: &[Window; G], other: &Cotangents<'_, T>) -> [Pick; G] {
        let mut picks = [Pick { keep: 0, index: windows[0].distances, at: 0 }; G];
        for (pick, window) in picks.iter_mut().zip(windows) {
            *pick = match other.layout {
                Layout::Dense { .. } => Pick { keep: window.keep, index: window.distances, at: window.first },
                Layout::Compressed(active) => {
                    let bits = active.bits(self.row, window.first);
                    let (on, index) = T::ranks(self.simd, bits, window.distances);
                    Pick { keep: on & window.keep, index, at: active.before(self.row, window.first) }
                }
            };
        }
        picks
    }
}

/// Where a window's channels are in a line of other cotangents.
#[derive(Clone, Copy)]
struct Pick {
    /// The lanes that are there.
    keep: u32,
    /// Their places from `at` on.
    index: __m512i,
    at: usize,
}

impl Pick {
    /// The channels of one line. The two vectors may reach behind the row.
    #[inline(always)]
    fn line<T: Wide>(
        &self,
        simd: V4,
        other: &Cotangents<'_, T>,
        row: usize,
        lines: usize,
        line: usize,
    ) -> Vector<T> {
        let stride = other.layout.stride(row);
        let pair = &other.values[other.layout.begin(row, lines) + line * stride + self.at..][..2 * T::LANES];
        T::pick(simd, self.keep, T::read(pair), self.index, T::read(&pair[T::LANES..]))
    }
}

/// For each line, the sum over what is read of value(v, a) w(a), the windows' columns alone.
#[inline(always)]
fn product<T: Wide, const V: usize, const G: usize>(
    simd: V4,
    panels: &Panels<T>,
    panel: usize,
    windows: &[Window; G],
    reads: &[Read<'_, T>],
) -> [[Vector<T>; G]; V] {
    let zero = T::every(simd, T::default());
    let mut sums = [[zero; G]; V];
    let mut columns = [0; G];
    for g in 0..G {
        columns[g] = windows[g].first - panel * panels.width;
    }
    for read in reads {
        let weights = panels.tap(panel, read.tap);
        let Lines { ids, values, stride } = read.lines;
        let lines: [&[T]; V] = std::array::from_fn(|line| &values[line * stride..][..ids.len()]);
        for (a, &id) in ids.iter().enumerate() {
            let row = id as usize * panels.width;
            // Loops, not closures: a closure would be compiled without the instruction set.
            let mut picked = [zero; G];
            for g in 0..G {
                let pair = &weights[row + columns[g]..][..2 * T::LANES];
                let (low, high) = (T::read(&pair[..T::LANES]), T::read(&pair[T::LANES..]));
                picked[g] = T::pick(simd, windows[g].keep, low, windows[g].distances, high);
            }
            for (sums, line) in sums.iter_mut().zip(&lines) {
                let value = T::every(simd, line[a]);
                for (sum, weight) in sums.iter_mut().zip(picked) {
                    *sum = T::fused(simd, value, weight, *sum);
                }
            }
        }
    }
    sums
}

/// Sixteen ids as they lie in memory.
#[inline(always)]
fn ids(list: &[u16]) -> [u16; 16] {
    let mut own = [0; 16];
    own.copy_from_slice(&list[..16]);
    own
}

const IOTA32: [u32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
const IOTA64: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

impl Wide for f32 {
    type Register = __m512;

    const LANES: usize = 16;

    #[inline(always)]
    fn every(simd: V4, value: Self) -> __m512 {
        simd.avx512f._mm512_set1_ps(value)
    }

    #[inline(always)]
    fn read(from: &[Self]) -> __m512 {
        let mut own = [0.0; 16];
        own.copy_from_slice(&from[..16]);
        cast(own)
    }

    #[inline(always)]
    fn write(value: __m512, to: &mut [Self]) {
        let own: [Self; 16] = cast(value);
        to[..16].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of(simd: V4, a: __m512, b: __m512) -> __m512 {
        simd.avx512f._mm512_add_ps(a, b)
    }

    #[inline(always)]
    fn fused(simd: V4, a: __m512, b: __m512, c: __m512) -> __m512 {
        simd.avx512f._mm512_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    fn distances(simd: V4, list: &[u16], first: usize) -> __m512i {
        let f = simd.avx512f;
        let own: __m256i = cast(ids(list));
        f._mm512_sub_epi32(f._mm512_cvtepu16_epi32(own), f._mm512_set1_epi32(first as i32))
    }

    #[inline(always)]
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32 {
        let f = simd.avx512f;
        u32::from(f._mm512_cmplt_epu32_mask(distances, f._mm512_set1_epi32(limit as i32)))
    }

    #[inline(always)]
    fn pick(
        simd: V4,
        keep: u32,
        low: Self::Register,
        index: __m512i,
        high: Self::Register,
    ) -> Self::Register {
        simd.avx512f._mm512_maskz_permutex2var_ps(keep as u16, low, index, high)
    }

    #[inline(always)]
    fn expand(simd: V4, bits: u32, from: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_expand_ps(bits as u16, from)
    }

    #[inline(always)]
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i) {
        let f = simd.avx512f;
        let low = f._mm512_maskz_expand_epi32(bits as u16, cast(IOTA32));
        let later =
            f._mm512_add_epi32(cast(IOTA32), f._mm512_set1_epi32((bits & 0xFFFF).count_ones() as i32));
        let high = f._mm512_maskz_expand_epi32((bits >> 16) as u16, later);
        let own = f._mm512_srlv_epi32(f._mm512_set1_epi32(bits as i32), distances);
        let on = f._mm512_test_epi32_mask(own, f._mm512_set1_epi32(1));
        (u32::from(on), f._mm512_permutex2var_epi32(low, distances, high))
    }
}

impl Wide for f64 {
    type Register = __m512d;

    const LANES: usize = 8;

    #[inline(always)]
    fn every(simd: V4, value: Self) -> __m512d {
        simd.avx512f._mm512_set1_pd(value)
    }

    #[inline(always)]
    fn read(from: &[Self]) -> __m512d {
        let mut own = [0.0; 8];
        own.copy_from_slice(&from[..8]);
        cast(own)
    }

    #[inline(always)]
    fn write(value: __m512d, to: &mut [Self]) {
        let own: [Self; 8] = cast(value);
        to[..8].copy_from_slice(&own);
    }

    #[inline(always)]
    fn sum_of(simd: V4, a: __m512d, b: __m512d) -> __m512d {
        simd.avx512f._mm512_add_pd(a, b)
    }

    #[inline(always)]
    fn fused(simd: V4, a: __m512d, b: __m512d, c: __m512d) -> __m512d {
        simd.avx512f._mm512_fmadd_pd(a, b, c)
    }

    #[inline(always)]
    fn distances(simd: V4, list: &[u16], first: usize) -> __m512i {
        let f = simd.avx512f;
        let [own, _]: [__m128i; 2] = cast(ids(list));
        f._mm512_sub_epi64(f._mm512_cvtepu16_epi64(own), f._mm512_set1_epi64(first as i64))
    }

    #[inline(always)]
    fn below(simd: V4, distances: __m512i, limit: usize) -> u32 {
        let f = simd.avx512f;
        u32::from(f._mm512_cmplt_epu64_mask(distances, f._mm512_set1_epi64(limit as i64)))
    }

    #[inline(always)]
    fn pick(
        simd: V4,
        keep: u32,
        low: Self::Register,
        index: __m512i,
        high: Self::Register,
    ) -> Self::Register {
        simd.avx512f._mm512_maskz_permutex2var_pd(keep as u8, low, index, high)
    }

    #[inline(always)]
    fn expand(simd: V4, bits: u32, from: Self::Register) -> Self::Register {
        simd.avx512f._mm512_maskz_expand_pd(bits as u8, from)
    }

    #[inline(always)]
    fn ranks(simd: V4, bits: u32, distances: __m512i) -> (u32, __m512i) {
        let f = simd.avx512f;
        let low = f._mm512_maskz_expand_epi64(bits as u8, cast(IOTA64));
        let later =
            f._mm512_add_epi64(cast(IOTA64), f._mm512_set1_epi64(i64::from((bits & 0xFF).count_ones())));
        let high = f._mm512_maskz_expand_epi64((bits >> 8) as u8, later);
        let own = f._mm512_srlv_epi64(f._mm512_set1_epi64(i64::from(bits)), distances);
        let on = f._mm512_test_epi64_mask(own, f._mm512_set1_epi64(1));
        (u32::from(on), f._mm512_permutex2var_epi64(low, distances, high))
    }
}
