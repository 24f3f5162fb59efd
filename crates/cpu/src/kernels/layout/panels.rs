//! Weights packed for the kernels: column panels, so that a kernel reads them in one stream.

use std::ops::Range;

use crate::kernels::layout::rows::CACHE_LINE;
use crate::kernels::simd::SimdFloat;

/// Elements after the last row of weights: as many as the widest panel has columns, so that every
/// column is followed by equally many ([`Panels::after_columns`]); and four of the widest vectors
/// may be read from any channel on.
const PAD: usize = WIDTHS[1];

/// The least and the most columns to which [`PANEL_BYTES`] limits a pullback's panels. Narrow
/// panels leave few neighbours to choose active channels from, so that vectors are not full. Wide
/// panels do not stay in the cache. Each column more is an element more in [`PAD`].
const WIDTHS: [usize; 2] = [64, 256];

/// Bytes that a panel should take at most, so that it stays in a core's L2 cache while rows pass
/// by. With larger panels each row reads its weights from a slower cache.
const PANEL_BYTES: usize = 600_000;

/// The weights of y(o) = sum over taps t and channels i of x(t, i) w(t, i, o), as
/// `[panel][tap][input][column]`. The columns of a panel are neighbouring outputs, and zeros where
/// there are none.
///
/// By the number of groups:
/// - *One*: each panel reads all inputs.
/// - *Several*: a panel holds only its *block*, the inputs of the groups that its columns belong
///   to, with zeros where input and column belong to different ones. A panel of C columns over
///   groups of O outputs reads the inputs of at most C / O + 2 groups. Where groups are small that
///   multiplies zeros, but their outputs would not fill vectors by themselves either.
/// - *As many as channels*: no panels; see [`Channelwise`](crate::kernels::Channelwise).
#[derive(Debug, Clone)]
pub(crate) struct Panels<T> {
    /// Columns in a panel.
    pub(crate) width: usize,
    pub(crate) taps: usize,
    /// Channels that are read, of one tap.
    pub(crate) inputs: usize,
    /// Channels that are written.
    pub(crate) outputs: usize,
    /// The channel of the first column: 0 unless these are a part of a layer's columns.
    pub(crate) first: usize,
    groups: usize,
    /// The inputs that each panel reads: all of them where there is one group.
    blocks: Vec<Range<usize>>,
    /// The most inputs that a panel reads.
    depth: usize,
    /// The packed weights after some zeros, so that each row of a panel begins with a cache line.
    /// (The rows of a clone may not, since it lies elsewhere: that costs time and changes no
    /// result.)
    weights: Vec<T>,
    /// How many zeros there are before the weights.
    lead: usize,
}

impl<T: SimdFloat> Panels<T> {
    /// Packs `weight(tap, input, output)` for a [`Product`](crate::kernels::Product) in `groups`
    /// groups of neighbouring channels, which divide inputs and outputs evenly; between groups
    /// `weight` has to be 0.
    #[must_use]
    pub(crate) fn forward(
        taps: usize,
        inputs: usize,
        outputs: usize,
        groups: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        Self::pack(32, taps, [inputs, outputs], groups, weight)
    }

    /// Packs `weight(tap, input, output)` for a [`Pullback`](crate::kernels::Pullback), whose
    /// inputs are the cotangents of the layer's outputs. Wide panels leave more neighbours to
    /// choose active channels from ([`WIDTHS`]).
    #[must_use]
    pub(crate) fn reverse(
        taps: usize,
        inputs: usize,
        outputs: usize,
        groups: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let [read, written] = [inputs, outputs].map(|channels| channels / groups);
        // The most columns that a panel may have. As few panels as that takes then share the
        // columns evenly, rounded up to 32.
        let column = (taps * read * size_of::<T>()).max(1);
        let widest = (PANEL_BYTES / column).clamp(WIDTHS[0], WIDTHS[1]);
        let width = written.div_ceil(written.div_ceil(widest).max(1)).next_multiple_of(32).max(32);
        Self::pack(width, taps, [inputs, outputs], groups, weight)
    }

    fn pack(
        width: usize,
        taps: usize,
        [inputs, outputs]: [usize; 2],
        groups: usize,
        weight: impl Fn(usize, usize, usize) -> f64,
    ) -> Self {
        let panels = outputs.div_ceil(width);
        let block = |panel: usize| {
            let [read, written] = [inputs, outputs].map(|channels| channels / groups);
            let end = outputs.min((panel + 1) * width);
            panel * width / written * read..end.div_ceil(written) * read
        };
        let blocks: Vec<_> = (0..panels).map(block).collect();
        let depth = blocks.iter().map(Range::len).max().unwrap_or(0);
        let most = CACHE_LINE / size_of::<T>();
        let size = most + panels * taps * depth * width + PAD;
        let mut weights: Vec<T> = Vec::with_capacity(size);
        let lead = weights.as_ptr().align_offset(CACHE_LINE).min(most);
        weights.resize(lead, T::default());
        for (panel, block) in blocks.iter().enumerate() {
            // All panels have `depth` rows for each tap, so that `tap` finds them by a product. A
            // panel that reads fewer inputs has zeros there.
            let rows = block.start..block.start + depth;
            for (tap, input) in (0..taps).flat_map(|tap| rows.clone().map(move |input| (tap, input))) {
                let is_there = |o: usize| o < outputs && input < block.end;
                let columns = (panel * width..(panel + 1) * width)
                    .map(|o| if is_there(o) { T::from_f64(weight(tap, input, o)) } else { T::default() });
                weights.extend(columns);
            }
        }
        // The same size wherever they begin, so that memory can be promised.
        weights.resize(size, T::default());
        Self { width, taps, inputs, outputs, first: 0, groups, blocks, depth, weights, lead }
    }

    /// The weights of a [`Pullback`](crate::kernels::Pullback) that write some channels, packed
    /// anew.
    ///
    /// # Panics
    /// When they are of several groups.
    #[must_use]
    pub(crate) fn columns(&self, channels: Range<usize>) -> Self {
        assert!(self.groups == 1, "{} groups", self.groups);
        let weight = |tap: usize, input: usize, o: usize| {
            let column = channels.start - self.first + o;
            self.tap(column / self.width, tap)[input * self.width + column % self.width].to_f64()
        };
        let first = channels.start;
        Self { first, ..Self::reverse(self.taps, self.inputs, channels.len(), 1, weight) }
    }

    /// The channels that a run of panels writes.
    #[inline(always)]
    pub(crate) fn channels(&self, panels: Range<usize>) -> Range<usize> {
        let channel = |panel: usize| self.first + (panel * self.width).min(self.outputs);
        channel(panels.start)..channel(panels.end)
    }

    /// Whether these and others, all of one group, read as many channels by as many taps: then
    /// panels of the same channels are equally wide.
    #[must_use]
    pub(crate) fn reads_as(&self, other: &Self) -> bool {
        (self.taps, self.inputs, self.groups, 1) == (other.taps, other.inputs, 1, other.groups)
    }

    /// How many groups the channels are divided into.
    #[must_use]
    pub(crate) fn groups(&self) -> usize {
        self.groups
    }

    /// What each panel reads and writes.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = [Range<usize>; 2]> {
        self.blocks.iter().enumerate().map(|(panel, read)| [read.clone(), self.channels(panel..panel + 1)])
    }

    /// The channels that a panel reads.
    #[inline(always)]
    pub(crate) fn block(&self, panel: usize) -> Range<usize> {
        self.blocks[panel].clone()
    }

    /// Whether a panel reads other channels than the one before it.
    #[inline(always)]
    pub(crate) fn begins_block(&self, panel: usize) -> bool {
        panel == 0 || self.blocks[panel] != self.blocks[panel - 1]
    }

    /// The channels that are written.
    #[must_use]
    pub(crate) fn written(&self) -> Range<usize> {
        self.first..self.first + self.outputs
    }

    /// How many panels there are.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.outputs.div_ceil(self.width)
    }

    /// The weights of one tap of one panel, `[input][column]`, with at least [`PAD`] more elements
    /// after them. Inputs are counted from the layer's first, so that lists of active channels
    /// index the rows as they are. Rows before the panel's block are other weights, and are not
    /// read.
    ///
    /// (There are always as many rows before the block: a panel that does not begin with input 0
    /// has full panels before it, and those have `depth` rows each, at least one for each input
    /// before this block.)
    #[inline(always)]
    pub(crate) fn tap(&self, panel: usize, tap: usize) -> &[T] {
        let block = &self.blocks[panel];
        let first = (panel * self.taps + tap) * self.depth - block.start;
        &self.weights[self.lead + first * self.width..][..block.end * self.width + PAD]
    }

    /// Where the row of a channel begins among those of a tap.
    #[inline(always)]
    pub(crate) fn row(&self, channel: u16) -> usize {
        usize::from(channel) * self.width
    }

    /// How many elements of a tap follow from the first row of every column on: at least as many as
    /// reach the last row.
    #[inline(always)]
    pub(crate) fn after_columns(tap: &[T]) -> usize {
        tap.len() - PAD
    }

    /// Bytes that the weights take.
    #[must_use]
    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() * size_of::<T>()
    }

    /// How many times the rows pass by: once if all panels stay in a core's cache together, else
    /// once for each panel.
    pub(crate) fn passes(&self) -> usize {
        if self.bytes() <= crate::kernels::layout::rows::CACHED_WEIGHTS { 1 } else { self.count() }
    }
}
