//! Steps of the reverse pass for rows of lines in lanes ([`layout::lanes`]) that are computed row by
//! row, channel by channel: all but products ([`lane_products`]).
//!
//! Sums have the order and the roundings that they have for lines that are `[line][channel]`: a
//! cotangent's results do not depend on how many others are pulled back with it.
//!
//! [`layout::lanes`]: crate::kernels::layout::lanes
//! [`lane_products`]: super::lane_products

use pulp::{Simd, WithSimd};

use crate::kernels::forward::pool::Shares;
use crate::kernels::layout::cotangent::{CotangentTarget, LineLayout, every};
use crate::kernels::layout::lanes::{LaneLines, LaneRow};
use crate::kernels::layout::moves::MovesPullback;
use crate::kernels::layout::rows::Chunk;
use crate::kernels::layout::table::Link;
use crate::kernels::reverse::gather::{GatherPullback, Share};
use crate::kernels::reverse::spread::SpreadPullback;
use crate::kernels::simd::{SimdFloat, load, store};

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
