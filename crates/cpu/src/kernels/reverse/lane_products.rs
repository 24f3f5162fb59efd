//! The reverse pass of a convolution for rows of lines in lanes ([`layout::lanes`]).
//!
//! A weight meets the lines of the channel that is read as whole vectors, so that masks are left
//! out on both sides by plain loops. Tiles of some channels by one to four vectors of lines are
//! computed in registers, and a line beside those as vectors of channels. Rows are computed some
//! together ([`LaneGroup`]), so that weights come to the L1 cache for all of them at once.
//!
//! Sums have the order and the roundings that they have for lines that are `[line][channel]`: a
//! cotangent's results do not depend on how many others are pulled back with it.
//!
//! [`layout::lanes`]: crate::kernels::layout::lanes

use std::ops::Range;

use pulp::{Simd, WithSimd};

use crate::kernels::layout::lanes::{FEW_LANES, IN_VECTORS, LaneLines, LaneRow, LaneTarget, MANY_LANES};
use crate::kernels::layout::rows::Chunk;
use crate::kernels::reverse::pullback::{Pullback, Start, panels_at_a_time};
use crate::kernels::simd::{SimdFloat, WIDEST};

/// The rows of a chunk, of several pullbacks into the same channels.
pub(crate) struct LaneRows<'a, 'b, 'c, T, const L: usize> {
    pub(crate) pullbacks: &'a [Pullback<'a, T>],
    pub(crate) chunk: &'b mut Chunk<'c, T>,
}

impl<T: SimdFloat, const L: usize> WithSimd for LaneRows<'_, '_, '_, T, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // Vectors of lines by channels: as many channels as leave registers for the lines that are
        // read and the weights. (With twelve channels, which would just leave enough for the lines
        // and one weight, all weights were loaded first and sums were spilled: 0.6 of the speed.)
        // Constants, so that nothing is compiled that no set has (`has_few_lanes`).
        if const { L == FEW_LANES && S::F32_LANES == 8 && size_of::<T>() == 4 } {
            self.pull::<S, 1, 8, 4>(simd);
        } else if const { L == FEW_LANES && S::F32_LANES == 8 } {
            self.pull::<S, 2, 6, 3>(simd);
        } else if const { L == FEW_LANES && S::F32_LANES == 4 && size_of::<T>() == 4 } {
            self.pull::<S, 2, 8, 4>(simd);
        } else if const { L == FEW_LANES && S::F32_LANES <= 4 } {
            self.pull::<S, 4, 3, 1>(simd);
        } else if const { L == MANY_LANES && S::REGISTER_COUNT >= 32 } {
            self.pull::<S, 2, 8, 4>(simd);
        } else if const { L == MANY_LANES && S::REGISTER_COUNT < 32 } {
            self.pull::<S, 2, 6, 3>(simd);
        } else {
            unreachable!("{L} lines in lanes on a set that has no kernels for them");
        }
    }
}

/// What a row reads by one tap.
#[derive(Clone, Copy)]
struct LaneRead<'a, T, const L: usize> {
    tap: usize,
    row: LaneRow<'a, T, L>,
}

/// How many rows are computed together: enough that their weights come to the L1 cache for all of
/// them at once, few enough that their lines and sums stay there too.
const fn rows_together(lines: usize) -> usize {
    if lines == FEW_LANES { 8 } else { 4 }
}

/// Bytes of weights that are gone through at a time, by all rows that are computed together: two
/// thirds of an L1 cache of 32 KiB. (A wide panel's rows count as [`NEAR_COLUMNS`], which is more
/// than a tile spans.)
const NEAR_BYTES: usize = 20_480;

/// See [`NEAR_BYTES`].
const NEAR_COLUMNS: usize = 32;

/// Vectors of channels that the line beside the others is taken in at a time.
const BESIDE: usize = 8;

/// How many lines are taken as vectors of lines.
const fn in_vectors(lines: usize) -> usize {
    if lines == FEW_LANES { IN_VECTORS } else { lines }
}

impl<T: SimdFloat, const L: usize> LaneRows<'_, '_, '_, T, L> {
    #[inline(always)]
    fn pull<S: Simd, const G: usize, const C: usize, const HALF: usize>(&mut self, simd: S) {
        let Some(one) = self.pullbacks.first() else { return };
        let (step, count) = (panels_at_a_time(self.pullbacks), one.panels.count());
        let mut group = LaneGroup::<T, L>::default();
        let Chunk { rows, start, values } = self.chunk;
        for first in (0..count).step_by(step) {
            for row in rows.clone().step_by(rows_together(L)) {
                let rows = row..rows.end.min(row + rows_together(L));
                for pullback in self.pullbacks {
                    for panel in first..count.min(first + step) {
                        if panel == first || pullback.panels.begins_block(panel) {
                            group.read(pullback, rows.clone(), panel);
                        }
                        let panel = LanePanel { pullback, panel };
                        group.begin::<S, C>(panel);
                        group.add::<S, G, C, HALF>(simd, panel);
                        group.deliver(simd, panel, *start, values);
                    }
                }
            }
        }
    }
}

/// Some channels of a pullback: one panel of its weights.
#[derive(Clone, Copy)]
struct LanePanel<'a, T> {
    pullback: &'a Pullback<'a, T>,
    panel: usize,
}

/// Rows that are computed together, for one panel after another. Their sums stay in memory while
/// weights that are in the L1 cache are added to all of them. (Each row by itself reads all weights
/// from the L2 cache or from farther away, which takes about as long as its products.)
#[derive(Default)]
struct LaneGroup<'a, T, const L: usize> {
    rows: Vec<GroupRow<'a>>,
    /// What the rows read, one row after the other.
    reads: Vec<LaneRead<'a, T, L>>,
    /// What of it has not been added yet.
    rest: Vec<LaneRead<'a, T, L>>,
    /// What is read by the weights that are gone through at the moment, likewise.
    part: Vec<LaneRead<'a, T, L>>,
    /// `[row][computed channel]`: the columns of the panel.
    columns: Vec<u8>,
    /// `[row][computed channel][line]`: sums of the lines that are taken as vectors of lines.
    sums: Vec<T>,
    /// `[row][column]`: sums of the line beside those.
    beside: Vec<T>,
}

struct GroupRow<'a> {
    row: usize,
    reads: Range<usize>,
    part: Range<usize>,
    target: LaneTarget<'a>,
    /// The index of its first computed channel among those of all rows.
    first: usize,
}

impl<'a, T: SimdFloat, const L: usize> LaneGroup<'a, T, L> {
    /// Finds what rows read for the channels of a panel.
    #[inline(always)]
    fn read(&mut self, pullback: &Pullback<'a, T>, rows: Range<usize>, panel: usize) {
        let block = pullback.panels.block(panel);
        self.rows.clear();
        self.reads.clear();
        for row in rows {
            let first = self.reads.len();
            for (link, from) in pullback.links.readers(row) {
                let read = pullback.source.lanes(from, block.clone());
                if !read.ids.is_empty() {
                    self.reads.push(LaneRead { tap: link.tap, row: read });
                }
            }
            let (reads, target) = (first..self.reads.len(), pullback.target.lanes(row, 0..0));
            self.rows.push(GroupRow { row, reads, part: 0..0, target, first: 0 });
        }
    }

    /// Finds the channels that a panel computes, and makes their sums zero.
    #[inline(always)]
    fn begin<S: Simd, const C: usize>(&mut self, LanePanel { pullback, panel }: LanePanel<'a, T>) {
        let channels = pullback.panels.channels(panel..panel + 1);
        self.columns.clear();
        for row in &mut self.rows {
            row.target = pullback.target.lanes(row.row, channels.clone());
            row.first = self.columns.len();
            let ids = row.target.ids;
            self.columns.extend(ids.iter().map(|id| (usize::from(*id) - channels.start) as u8));
            // Whole tiles: after the last channel it is computed again, into sums that nothing
            // reads.
            let last = self.columns.last().copied().unwrap_or(0);
            self.columns.resize(row.first + ids.len().next_multiple_of(C), last);
        }
        self.sums.clear();
        self.sums.resize(self.columns.len() * in_vectors(L), T::default());
        if const { L == FEW_LANES } {
            self.beside.clear();
            self.beside.resize(self.rows.len() * beside_pitch::<S, T>(pullback.panels.width), T::default());
        }
    }

    /// Adds the products, some rows of weights after the other ([`NEAR_BYTES`]): those of several
    /// taps, or some of one tap.
    #[inline(always)]
    fn add<S: Simd, const G: usize, const C: usize, const HALF: usize>(
        &mut self,
        simd: S,
        panel: LanePanel<'_, T>,
    ) {
        let panels = panel.pullback.panels;
        let block = panels.block(panel.panel);
        let near = NEAR_BYTES / (panels.width.min(NEAR_COLUMNS) * size_of::<T>());
        let taps = (near / block.len().max(1)).max(1);
        // As many rows in every part, as nearly as may be.
        let depth = block.len().div_ceil(block.len().div_ceil(near).max(1)).max(1);
        let is_split = depth < block.len();
        if is_split {
            self.rest.clone_from(&self.reads);
        }
        let most = self.rows.iter().map(|row| row.reads.len()).max().unwrap_or(0);
        // Neighbouring rows mostly read by the same taps, in the same order.
        for tap in (0..most).step_by(taps) {
            if is_split {
                for first in block.clone().step_by(depth) {
                    self.take_part(tap..tap + taps, first + depth, depth);
                    self.add_part::<S, G, C, HALF>(simd, panel, true);
                }
            } else {
                for row in &mut self.rows {
                    let at = |tap: usize| row.reads.start + tap.min(row.reads.len());
                    row.part = at(tap)..at(tap + taps);
                }
                self.add_part::<S, G, C, HALF>(simd, panel, false);
            }
        }
    }

    /// Adds the products of each row's part, among the parts or among all that the rows read. A
    /// tile of all rows comes before the next one: its columns of the weights are in the L1 cache
    /// then.
    #[inline(always)]
    fn add_part<S: Simd, const G: usize, const C: usize, const HALF: usize>(
        &mut self,
        simd: S,
        panel: LanePanel<'_, T>,
        is_split: bool,
    ) {
        let Self { rows, reads, part, columns, sums, beside, .. } = self;
        let part = if is_split { part } else { reads };
        let computed = rows.iter().map(|row| row.target.ids.len()).max().unwrap_or(0);
        for tile in (0..computed).step_by(C) {
            for row in rows.iter().filter(|row| row.target.ids.len() > tile) {
                let at = row.first + tile;
                let (columns, sums) = (&columns[at..], &mut sums[at * in_vectors(L)..]);
                let reads = &part[row.part.clone()];
                // Half a tile where that holds the rest.
                if row.target.ids.len() - tile <= HALF {
                    panel.tile::<S, L, G, HALF>(simd, reads, columns, sums);
                } else {
                    panel.tile::<S, L, G, C>(simd, reads, columns, sums);
                }
            }
        }
        if const { L == FEW_LANES } {
            let most = BESIDE * T::lanes::<S>();
            let pitch = beside_pitch::<S, T>(panel.pullback.panels.width);
            for (row, sums) in rows.iter().zip(beside.chunks_exact_mut(pitch)) {
                let reads = &part[row.part.clone()];
                for (index, sums) in sums.chunks_mut(most).enumerate() {
                    // Half of the vectors where those hold the rest.
                    if sums.len() <= most / 2 {
                        panel.beside::<S, L, { BESIDE / 2 }>(simd, reads, index * most, sums);
                    } else {
                        panel.beside::<S, L, BESIDE>(simd, reads, index * most, sums);
                    }
                }
            }
        }
    }

    /// Takes what the rows read by some taps, and of that the channels before `end`, which are
    /// `most` or fewer.
    #[inline(always)]
    fn take_part(&mut self, taps: Range<usize>, end: usize, most: usize) {
        self.part.clear();
        for row in &mut self.rows {
            let own = taps.start.min(row.reads.len())..taps.end.min(row.reads.len());
            let rest = &mut self.rest[row.reads.clone()][own];
            row.part = self.part.len()..self.part.len() + rest.len();
            self.part.extend(
                rest.iter_mut().map(|read| LaneRead { tap: read.tap, row: read.row.split_before(end, most) }),
            );
        }
    }

    /// Brings the sums to their rows.
    #[inline(always)]
    fn deliver<S: Simd>(
        &self,
        simd: S,
        LanePanel { pullback, panel }: LanePanel<'_, T>,
        start: usize,
        values: &mut [T],
    ) {
        let channels = pullback.panels.channels(panel..panel + 1);
        let pitch = beside_pitch::<S, T>(pullback.panels.width);
        let (lanes, zero) = (T::lanes::<S>(), T::splat(simd, T::default()));
        for (index, GroupRow { row, target, first, .. }) in self.rows.iter().enumerate() {
            let block = &mut values[pullback.target.block(*row, L) - start..];
            let block: &mut [LaneLines<T, L>] = block.as_chunks_mut().0;
            let add = match pullback.start {
                Start::Empty => {
                    target.clear(block);
                    false
                }
                Start::Sum => true,
                // Written first: the block is in the L1 cache, and adding to it costs nothing that
                // could be measured.
                Start::Identity(other) => {
                    target.deliver(other.lanes(*row, channels.clone()), |_| T::of(1.0), false, block);
                    true
                }
            };
            let slopes = pullback.slopes.map(|slopes| slopes.row(*row));
            let sums = self.sums[*first * in_vectors(L)..].chunks_exact(in_vectors(L));
            for ((at, &id), sums) in target.ids.iter().enumerate().zip(sums) {
                let out = &mut block[target.at(at)];
                let id = usize::from(id);
                let slope = slopes.map(|slopes| T::splat(simd, slopes[id]));
                for (out, sum) in out.chunks_exact_mut(lanes).zip(sums.chunks_exact(lanes)) {
                    let (old, sum) = (if add { T::load(simd, out) } else { zero }, T::load(simd, sum));
                    let sum = match slope {
                        Some(slope) => T::mul_add(simd, slope, sum, old),
                        None => T::sum(simd, old, sum),
                    };
                    T::store(simd, sum, out);
                }
                let [out, zero] = &mut out[in_vectors(L)..] else { continue };
                let sum = self.beside[index * pitch + id - channels.start];
                let old = if add { *out } else { T::default() };
                *out = match slopes {
                    Some(slopes) => fused(simd, slopes[id], sum, old),
                    None => old + sum,
                };
                if !add {
                    *zero = T::default();
                }
            }
        }
    }
}

/// Elements of a row's sums of the line beside: whole vectors, half as many as are taken at a time,
/// or a multiple of that.
fn beside_pitch<S: Simd, T: SimdFloat>(width: usize) -> usize {
    width.next_multiple_of(BESIDE / 2 * T::lanes::<S>())
}

impl<T: SimdFloat> LanePanel<'_, T> {
    /// Adds to the sums of C channels of a row.
    #[inline(always)]
    fn tile<S: Simd, const L: usize, const G: usize, const C: usize>(
        &self,
        simd: S,
        reads: &[LaneRead<'_, T, L>],
        columns: &[u8],
        sums: &mut [T],
    ) {
        let panels = self.pullback.panels;
        let lanes = T::lanes::<S>();
        let sums = &mut sums[..C * in_vectors(L)];
        let columns: [u8; C] = std::array::from_fn(|c| columns[..C][c]);
        for line in (0..in_vectors(L)).step_by(G * lanes) {
            let at = |c: usize, g: usize| c * in_vectors(L) + line + g * lanes;
            // The compiler keeps this copy of the sums in registers.
            let mut local: [[T::Vector<S>; G]; C] =
                std::array::from_fn(|c| std::array::from_fn(|g| T::load(simd, &sums[at(c, g)..][..lanes])));
            for read in reads {
                let weights = panels.tap(self.panel, read.tap);
                for (&id, lines) in read.row.ids.iter().zip(read.row.values) {
                    let weights = panels.row(weights, id);
                    let lines: [T::Vector<S>; G] =
                        std::array::from_fn(|g| T::load(simd, &lines[line + g * lanes..][..lanes]));
                    for (sums, column) in local.iter_mut().zip(columns) {
                        let weight = T::splat(simd, weights[usize::from(column)]);
                        for (sum, lines) in sums.iter_mut().zip(lines) {
                            *sum = T::mul_add(simd, lines, weight, *sum);
                        }
                    }
                }
            }
            for (c, own) in local.into_iter().enumerate() {
                for (g, sum) in own.into_iter().enumerate() {
                    T::store(simd, sum, &mut sums[at(c, g)..][..lanes]);
                }
            }
        }
    }

    /// Adds to the sums of the line beside those in vectors, of all channels from a column on: as a
    /// vector of lines it would be almost empty. What a mask switches off on the side that is
    /// written is computed, which for one line costs less than to pick the others. B vectors of
    /// channels at a time ([`BESIDE`], so many sums do not wait for one another).
    #[inline(always)]
    fn beside<S: Simd, const L: usize, const B: usize>(
        &self,
        simd: S,
        reads: &[LaneRead<'_, T, L>],
        column: usize,
        sums: &mut [T],
    ) {
        let panels = self.pullback.panels;
        let lanes = T::lanes::<S>();
        let sums = &mut sums[..B * lanes];
        let mut local: [T::Vector<S>; B] =
            std::array::from_fn(|g| T::load(simd, &sums[g * lanes..][..lanes]));
        for read in reads {
            // A panel's columns may end within the vectors: other weights follow, whose results are
            // left.
            let weights = &panels.tap(self.panel, read.tap)[column..];
            for (&id, lines) in read.row.ids.iter().zip(read.row.values) {
                let weights = panels.row(weights, id);
                let x = T::splat(simd, lines[IN_VECTORS]);
                for (g, sum) in local.iter_mut().enumerate() {
                    *sum = T::mul_add(simd, x, T::load(simd, &weights[g * lanes..(g + 1) * lanes]), *sum);
                }
            }
        }
        for (sum, own) in sums.chunks_exact_mut(lanes).zip(local) {
            T::store(simd, own, sum);
        }
    }
}

/// a b + c, rounded once.
#[inline(always)]
fn fused<S: Simd, T: SimdFloat>(simd: S, a: T, b: T, c: T) -> T {
    let [a, b, c] = [a, b, c].map(|x| T::splat(simd, x));
    let mut own = [T::default(); WIDEST];
    T::store(simd, T::mul_add(simd, a, b, c), &mut own);
    own[0]
}
