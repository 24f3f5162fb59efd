//! Steps of the reverse pass for rows of lines in lanes ([`layout::lanes`]).
//!
//! A weight is multiplied by whole vectors of a channel's lines, so that plain loops leave out
//! masks on both sides. [`LaneRows`] keeps tiles of some channels by one to four vectors of lines
//! in registers, and takes the ninth of ten lines as vectors of channels; all other steps go row by
//! row, channel by channel. Sums have the order and the roundings that they have for lines that are
//! `[line][channel]`: a cotangent's results do not depend on how many others are pulled back with
//! it.
//!
//! [`layout::lanes`]: crate::kernels::layout::lanes

use pulp::{Simd, WithSimd};

use crate::kernels::forward::pool::Shares;
use crate::kernels::layout::cotangent::{CotangentTarget, LineLayout, every};
use crate::kernels::layout::lanes::{FEW_LANES, IN_VECTORS, LaneLines, LaneRow, LaneTarget, MANY_LANES};
use crate::kernels::layout::moves::MovesPullback;
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::Chunk;
use crate::kernels::layout::table::Link;
use crate::kernels::reverse::gather::{GatherPullback, Share};
use crate::kernels::reverse::pullback::{Pullback, Start, panels_at_a_time};
use crate::kernels::reverse::spread::SpreadPullback;
use crate::kernels::simd::{SimdFloat, WIDEST, equally_long, load, store};

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
struct LaneRead<'a, T, const L: usize> {
    tap: usize,
    row: LaneRow<'a, T, L>,
}

impl<T: SimdFloat, const L: usize> LaneRows<'_, '_, '_, T, L> {
    #[inline(always)]
    fn pull<S: Simd, const G: usize, const C: usize, const HALF: usize>(&mut self, simd: S) {
        let Some(one) = self.pullbacks.first() else { return };
        let (step, count) = (panels_at_a_time(self.pullbacks), one.panels.count());
        let mut reads = Vec::new();
        for first in (0..count).step_by(step) {
            for row in self.chunk.rows.clone() {
                for pullback in self.pullbacks {
                    let block = &mut self.chunk.values[pullback.target.block(row, L) - self.chunk.start..];
                    let block = block.as_chunks_mut().0;
                    for panel in first..count.min(first + step) {
                        if panel == first || pullback.panels.begins_block(panel) {
                            pullback.lane_reads(row, panel, &mut reads);
                        }
                        pullback.lane_panel::<S, L, G, C, HALF>(simd, (row, panel), &reads, block);
                    }
                }
            }
        }
    }
}

impl<'p, T: SimdFloat> Pullback<'p, T> {
    /// What a row reads for the channels of a panel.
    #[inline(always)]
    fn lane_reads<const L: usize>(&self, row: usize, panel: usize, reads: &mut Vec<LaneRead<'p, T, L>>) {
        let block = self.panels.block(panel);
        reads.clear();
        reads.extend(
            self.links
                .readers(row)
                .map(|(link, from)| LaneRead { tap: link.tap, row: self.source.lanes(from, block.clone()) }),
        );
        reads.retain(|read| !read.row.ids.is_empty());
    }

    /// The channels of one panel of one row, in tiles of C channels and fewer.
    #[inline(always)]
    fn lane_panel<S: Simd, const L: usize, const G: usize, const C: usize, const HALF: usize>(
        &self,
        simd: S,
        (row, panel): (usize, usize),
        reads: &[LaneRead<'_, T, L>],
        block: &mut [LaneLines<T, L>],
    ) {
        let channels = self.panels.channels(panel..panel + 1);
        let target = self.target.lanes(row, channels.clone());
        let slopes = self.slopes.map(|slopes| slopes.row(row));
        let add = match self.start {
            Start::Empty => {
                target.clear(block);
                false
            }
            Start::Sum => true,
            // Written first: the block is in a core's L1 cache, and adding to it costs nothing that
            // could be measured.
            Start::Identity(other) => {
                target.deliver(other.lanes(row, channels.clone()), |_| T::of(1.0), false, block);
                true
            }
        };
        let tiles = LaneTiles { pullback: self, panel, reads, target, slopes, first: channels.start, add };
        let count = target.ids.len();
        for at in (0..count).step_by(C) {
            // Half a tile where that holds the rest.
            if count - at <= HALF {
                tiles.tile::<S, G, HALF>(simd, at, block);
            } else {
                tiles.tile::<S, G, C>(simd, at, block);
            }
        }
        if const { L == FEW_LANES } {
            tiles.beside(simd, block);
        }
    }
}

/// How many lines are taken as vectors of lines.
const fn in_vectors(lines: usize) -> usize {
    if lines == FEW_LANES { IN_VECTORS } else { lines }
}

/// The channels of a panel of a row.
struct LaneTiles<'a, T, const L: usize> {
    pullback: &'a Pullback<'a, T>,
    panel: usize,
    reads: &'a [LaneRead<'a, T, L>],
    target: LaneTarget<'a>,
    slopes: Option<&'a [T]>,
    /// The panel's first channel.
    first: usize,
    /// Whether results are added to what is in their block.
    add: bool,
}

impl<T: SimdFloat, const L: usize> LaneTiles<'_, T, L> {
    /// Up to C channels of those that are computed, from an index on.
    #[inline(always)]
    fn tile<S: Simd, const G: usize, const C: usize>(
        &self,
        simd: S,
        at: usize,
        block: &mut [LaneLines<T, L>],
    ) {
        let panels = self.pullback.panels;
        let lanes = T::lanes::<S>();
        // A tile that is not full computes the last channel several times and stores it once.
        let ids = &self.target.ids[at..];
        let columns: [usize; C] =
            std::array::from_fn(|c| usize::from(ids[c.min(ids.len() - 1)]) - self.first);
        for line in (0..in_vectors(L)).step_by(G * lanes) {
            let mut sums = [[T::splat(simd, T::default()); G]; C];
            for read in self.reads {
                let weights = panels.tap(self.panel, read.tap);
                // The weights from each column on, of which an active channel's are at one index.
                let weights: [&[T]; C] =
                    equally_long(Panels::after_columns(weights), |c| &weights[columns[c]..]);
                // A copy that stays in registers: see `accumulate` in `reverse/pullback.rs`.
                let mut local = sums;
                for (&id, lines) in read.row.ids.iter().zip(read.row.values) {
                    let row = panels.row(id);
                    let lines: [T::Vector<S>; G] =
                        std::array::from_fn(|g| T::load(simd, &lines[line + g * lanes..][..lanes]));
                    for (sums, weights) in local.iter_mut().zip(weights) {
                        let weight = T::splat(simd, weights[row]);
                        for (sum, lines) in sums.iter_mut().zip(lines) {
                            *sum = T::mul_add(simd, weight, lines, *sum);
                        }
                    }
                }
                sums = local;
            }
            for (c, sums) in sums.into_iter().enumerate().take(ids.len()) {
                let out = &mut block[self.target.at(at + c)];
                let slope = self.slopes.map(|slopes| T::splat(simd, slopes[usize::from(ids[c])]));
                for (g, sum) in sums.into_iter().enumerate() {
                    let lines = line + g * lanes..line + (g + 1) * lanes;
                    let zero = T::splat(simd, T::default());
                    let old = if self.add { T::load(simd, &out[lines.clone()]) } else { zero };
                    let sum = match slope {
                        Some(slope) => T::mul_add(simd, slope, sum, old),
                        None => T::sum(simd, old, sum),
                    };
                    T::store(simd, sum, &mut out[lines]);
                }
            }
        }
    }

    /// The line beside those in vectors, of all channels of the panel: as a vector of lines it
    /// would be almost empty. Channels that a mask switches off on the side that is written are
    /// computed too: for one line that costs less than picking the others. Eight vectors of
    /// channels are taken at a time, so that their sums do not wait for one another, or four where
    /// those hold the rest.
    #[inline(always)]
    fn beside<S: Simd>(&self, simd: S, block: &mut [LaneLines<T, L>]) {
        let (width, columns) = (self.pullback.panels.width, 8 * T::lanes::<S>());
        let mut done = 0;
        for column in (0..width).step_by(columns) {
            if width - column <= columns / 2 {
                done += self.columns_beside::<S, 4>(simd, (column, done), block);
            } else {
                done += self.columns_beside::<S, 8>(simd, (column, done), block);
            }
        }
    }

    /// Of that line V vectors of channels, from a column and the index of its first computed
    /// channel on. Returns how many computed channels they have.
    #[inline(always)]
    fn columns_beside<S: Simd, const V: usize>(
        &self,
        simd: S,
        (column, done): (usize, usize),
        block: &mut [LaneLines<T, L>],
    ) -> usize {
        let lanes = T::lanes::<S>();
        let first = self.first + column;
        let ids = &self.target.ids[done..];
        // The computed channels within these columns: the list ascends.
        let count = ids.iter().take_while(|id| usize::from(**id) < first + V * lanes).count();
        if count == 0 {
            return 0;
        }
        let mut values = [T::default(); 8 * WIDEST];
        for (values, sum) in values.chunks_exact_mut(lanes).zip(self.sums_beside::<S, V>(simd, column)) {
            T::store(simd, sum, values);
        }
        for (index, id) in ids[..count].iter().map(|id| usize::from(*id)).enumerate() {
            // The ninth line, and the tenth, which stays zero.
            let [out, zero] = &mut block[self.target.at(done + index)][IN_VECTORS..] else { continue };
            let (old, sum) = (if self.add { *out } else { T::default() }, values[id - first]);
            *out = match self.slopes {
                Some(slopes) => fused(simd, slopes[id], sum, old),
                None => old + sum,
            };
            if !self.add {
                *zero = T::default();
            }
        }
        count
    }

    /// Sums of the line beside over the active channels that are read, for V vectors of channels.
    #[inline(always)]
    fn sums_beside<S: Simd, const V: usize>(&self, simd: S, column: usize) -> [T::Vector<S>; V] {
        let panels = self.pullback.panels;
        let lanes = T::lanes::<S>();
        let mut sums = [T::splat(simd, T::default()); V];
        for read in self.reads {
            // A panel's columns may end within the vectors. Other weights follow, whose
            // results are not used.
            let weights = &panels.tap(self.panel, read.tap)[column..];
            // A copy that stays in registers: see `accumulate` in `reverse/pullback.rs`.
            let mut local = sums;
            for (&id, lines) in read.row.ids.iter().zip(read.row.values) {
                let weights = &weights[panels.row(id)..][..V * lanes];
                let x = T::splat(simd, lines[IN_VECTORS]);
                for (sum, weight) in local.iter_mut().zip(weights.chunks_exact(lanes)) {
                    *sum = T::mul_add(simd, x, T::load(simd, weight), *sum);
                }
            }
            sums = local;
        }
        sums
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

/// A step that computes its rows one by one.
pub(crate) trait LaneStep<T, const L: usize> {
    fn target(&self) -> CotangentTarget<'_>;

    /// How many channels of a row are summed before they are delivered.
    fn summed(&self) -> usize;

    /// Computes one row into its block; `sums` has room for the channels that are summed.
    fn row<S: Simd>(&self, simd: S, row: usize, sums: &mut [LaneLines<T, L>], block: &mut [LaneLines<T, L>]);
}

/// The rows of a chunk, of a step that computes them one by one.
pub(crate) struct LaneSteps<'a, 'b, 'c, K, T, const L: usize> {
    pub(crate) step: &'a K,
    pub(crate) chunk: &'b mut Chunk<'c, T>,
}

impl<T: SimdFloat, K: LaneStep<T, L>, const L: usize> WithSimd for LaneSteps<'_, '_, '_, K, T, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { step, chunk } = self;
        let mut sums = vec![[T::default(); L]; step.summed()];
        for row in chunk.rows.clone() {
            let block = &mut chunk.values[step.target().block(row, L) - chunk.start..];
            step.row(simd, row, &mut sums, block.as_chunks_mut().0);
        }
    }
}

impl<T: SimdFloat, const L: usize> LaneStep<T, L> for SpreadPullback<'_, T> {
    fn target(&self) -> CotangentTarget<'_> {
        self.target
    }

    fn summed(&self) -> usize {
        0
    }

    #[inline(always)]
    fn row<S: Simd>(&self, _: S, row: usize, _: &mut [LaneLines<T, L>], block: &mut [LaneLines<T, L>]) {
        let channels = 0..self.source.layout.channels();
        let target = self.target.lanes(row, channels.clone());
        let factor = |channel: usize| self.scale.map_or(T::of(1.0), |scale| scale[channel]);
        target.deliver(self.source.lanes(row, channels), factor, self.add, block);
    }
}

impl<T: SimdFloat, const L: usize> LaneStep<T, L> for GatherPullback<'_, T> {
    fn target(&self) -> CotangentTarget<'_> {
        self.target
    }

    fn summed(&self) -> usize {
        self.channels
    }

    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, row: usize, sums: &mut [LaneLines<T, L>], block: &mut [LaneLines<T, L>]) {
        sums.as_flattened_mut().fill(T::default());
        for (link, from) in self.links.readers(row) {
            self.add_lanes(simd, link, from, sums);
        }
        let slopes = self.slopes.map(|slopes| slopes.row(row));
        let factor = |channel: usize| {
            let of = |factors: Option<&[T]>| factors.map_or(T::of(1.0), |factors| factors[channel]);
            of(self.scale) * of(slopes)
        };
        let whole = LaneRow { ids: every(0..self.channels), values: sums };
        self.target.lanes(row, 0..self.channels).deliver(whole, factor, self.add, block);
    }
}

impl<T: SimdFloat> GatherPullback<'_, T> {
    /// Adds the share that a row has in one of the rows that read it.
    #[inline(always)]
    fn add_lanes<S: Simd, const L: usize>(
        &self,
        simd: S,
        link: Link,
        from: usize,
        sums: &mut [LaneLines<T, L>],
    ) {
        let wide = self.source.layout.channels();
        let one = T::of(1.0);
        match self.share {
            Share::Window(shares, taps) => {
                // The whole row times one factor: of the reading row (a mean), or of its tap
                // (interpolation).
                let share = match shares {
                    Shares::Rows(shares) => shares[link.row],
                    Shares::Taps(shares) => shares[link.row * taps + link.tap],
                };
                add(self.source.lanes(from, 0..wide), 0, |_| Some(share), sums);
            }
            Share::Chosen(choices) => {
                // A channel hands its cotangent on only by the tap of its maximum.
                let choices = &choices[from * wide..(from + 1) * wide];
                let share = |channel: usize| (usize::from(choices[channel]) == link.tap).then_some(one);
                add(self.source.lanes(from, 0..wide), 0, share, sums);
            }
            Share::Columns => {
                // The reading row has the channels of all taps side by side. Those of this tap
                // begin at `first`, from which `add` counts.
                let first = link.tap * self.channels;
                add(self.source.lanes(from, first..first + self.channels), first, |_| Some(one), sums);
            }
            Share::Weights(weights) => {
                let weights = &weights[link.tap * self.channels..][..self.channels];
                let read = self.source.lanes(from, 0..wide);
                // The same roundings as for lines that are `[line][channel]`: there dense lines
                // take a product and its sum at once (`WeightedRows`), compressed ones apart.
                match self.source.layout {
                    LineLayout::Dense { .. } => add_fused(simd, read, weights, sums),
                    LineLayout::Compressed(_) => add(read, 0, |channel| Some(weights[channel]), sums),
                }
            }
        }
    }
}

/// Adds the lines of a row of all channels times their weights, each product and its sum rounded
/// once.
#[inline(always)]
fn add_fused<S: Simd, T: SimdFloat, const L: usize>(
    simd: S,
    row: LaneRow<'_, T, L>,
    weights: &[T],
    sums: &mut [LaneLines<T, L>],
) {
    let lanes = T::lanes::<S>();
    for ((lines, weight), sums) in row.values.iter().zip(weights).zip(sums) {
        let weight = T::splat(simd, *weight);
        for (lines, sums) in lines.chunks(lanes).zip(sums.chunks_mut(lanes)) {
            let sum = T::mul_add(simd, load(simd, lines), weight, load(simd, sums));
            store(simd, sum, sums);
        }
    }
}

/// Adds the lines of a row's channels, counted from `first` on, times what `share` says of each;
/// none where it says nothing.
#[inline(always)]
fn add<T: SimdFloat, const L: usize>(
    row: LaneRow<'_, T, L>,
    first: usize,
    share: impl Fn(usize) -> Option<T>,
    sums: &mut [LaneLines<T, L>],
) {
    for (&id, lines) in row.ids.iter().zip(row.values) {
        let channel = usize::from(id) - first;
        let Some(share) = share(channel) else { continue };
        sums[channel].iter_mut().zip(lines).for_each(|(sum, x)| *sum = *sum + *x * share);
    }
}

impl<T: SimdFloat, const L: usize> LaneStep<T, L> for MovesPullback<'_, T> {
    fn target(&self) -> CotangentTarget<'_> {
        self.target
    }

    fn summed(&self) -> usize {
        self.moves.channels()[0]
    }

    #[inline(always)]
    fn row<S: Simd>(&self, _: S, row: usize, sums: &mut [LaneLines<T, L>], block: &mut [LaneLines<T, L>]) {
        let [_, wide] = self.moves.channels();
        sums.as_flattened_mut().fill(T::default());
        for (channel, taken, other) in self.moves.takers_of(row) {
            let LaneRow { ids, values } = self.source.lanes::<L>(taken, 0..wide);
            let Ok(at) = ids.binary_search(&(other as u16)) else { continue };
            sums[channel].iter_mut().zip(&values[at]).for_each(|(sum, x)| *sum = *sum + *x);
        }
        let channels = 0..sums.len();
        let factor = |channel: usize| self.scale.map_or(T::of(1.0), |scale| scale[channel]);
        let whole = LaneRow { ids: every(channels.clone()), values: sums };
        self.target.lanes(row, channels).deliver(whole, factor, self.add, block);
    }
}
