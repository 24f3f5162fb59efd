//! The reverse pass of a convolution: for each row and V cotangents at once, only the weights of
//! the active channels.
//!
//! All cotangents of a sample share its masks, so a row's list of active channels and their weights
//! are read once for all V. That is the *read side*. The *write side* leaves out channels whose
//! cotangent a mask switches off.
//!
//! | path | when | what it leaves out |
//! |---|---|---|
//! | lanes ([`LaneRows`]) | rows that are `[channel][line]` | read and write side |
//! | windows (in `arch`) | AVX-512 or AVX2, a target with a mask | read and write side |
//! | panels ([`Full`]) | all else | the read side; inactive channels are computed and dropped |
//! | patches ([`Patched`]) | dense sources, as compiled | nothing; it takes fewer products |

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::kernels::arch;
use crate::kernels::layout::cotangent::{CotangentTarget, Cotangents, LineLayout, Lines, RowTile};
use crate::kernels::layout::lanes::{by_lanes, in_lanes};
use crate::kernels::layout::lines::{LINE_COUNTS, MOST_LINES, by_lines};
use crate::kernels::layout::panels::Panels;
use crate::kernels::layout::rows::{CACHED_WEIGHTS, Chunk, DenseRows, chunks, tasks};
use crate::kernels::layout::table::Links;
use crate::kernels::reverse::lanes::LaneRows;
use crate::kernels::reverse::spread::SpreadPullback;
use crate::kernels::simd::{InstructionSet, SimdFloat, load, store};
use crate::kernels::winograd::patched::{Deliver, PatchSource, Patched};
use crate::kernels::winograd::patches::Patches;

/// What is in the target beforehand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a, T> {
    /// Nothing: the results are written.
    Empty,
    /// Cotangents to which the results are added.
    Sum,
    /// Nothing, and these cotangents of the same rows and channels are added to the results.
    Identity(Cotangents<'a, T>),
}

/// target(row, v, i) += sum over the taps t and rows q that read the row, and channels o, of
/// source(q, v, o) w(t, o, i).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pullback<'a, T> {
    /// By which taps and rows each row is read.
    pub(crate) links: &'a Links,
    /// The links in Winograd's form, if the weights are in it: for dense sources.
    pub(crate) patches: Option<&'a Patches>,
    /// The weights, see [`Panels::reverse`] and [`Patches::panels`].
    pub(crate) panels: &'a Panels<T>,
    /// The cotangents of the layer's outputs.
    pub(crate) source: Cotangents<'a, T>,
    /// Where the cotangents of its inputs go.
    pub(crate) target: CotangentTarget<'a>,
    /// What is in the target beforehand.
    pub(crate) start: Start<'a, T>,
    /// Factors of each row's results: the derivatives of a function of each element through which
    /// the results are pulled back. The target is dense then.
    pub(crate) slopes: Option<DenseRows<'a, T>>,
    /// V: one of [`LINE_COUNTS`], or a number of lines in lanes.
    pub(crate) lines: usize,
}

/// Rows that a task should have at least ([`tasks`]): few, since a row takes the products of V
/// lines by all taps and channels.
const LEAST_ROWS: usize = 4;

/// The lines of one row that a row reads, and by which tap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Read<'a, T> {
    pub(crate) tap: usize,
    pub(crate) lines: Lines<'a, T>,
}

impl<T: SimdFloat> Pullback<'_, T> {
    /// Pulls back all rows of `samples` samples into `out`, the target's buffer.
    pub(crate) fn run(&self, set: InstructionSet, samples: usize, out: &mut [T]) {
        // A path that cannot add an identity has it written first, and adds the product to it.
        if let (Start::Identity(source), false) = (self.start, self.adds_identities(set)) {
            let spread =
                SpreadPullback { source, target: self.target, scale: None, add: false, lines: self.lines };
            spread.run(set, samples * self.links.targets(), out);
            return Self { start: Start::Sum, ..*self }.run(set, samples, out);
        }
        if let (Some(patches), LineLayout::Dense { pitch, offset, channels }) =
            (self.patches, self.source.layout)
        {
            let Self { panels, target, lines, .. } = *self;
            let source = PatchSource { patches, values: self.source.values, pitch, offset, channels, lines };
            let patched = Patched { source, panels };
            return patched.run(
                set,
                samples,
                out,
                |row| target.block(row, lines),
                &PullbackRows { pullback: self, set },
            );
        }
        Self::run_together(std::slice::from_ref(self), set, samples, out);
    }

    /// Pulls back several layers into the same channels of the same rows: a row takes all of them
    /// while it is in a core's L1 cache.
    ///
    /// They have the same number of lines, targets that differ only in their masks, and panels that
    /// read alike ([`Panels::reads_as`]) and write the same channels; none starts with an identity.
    pub(crate) fn run_together(pullbacks: &[Self], set: InstructionSet, samples: usize, out: &mut [T]) {
        let Some(one) = pullbacks.first() else { return };
        debug_assert!(LINE_COUNTS.contains(&one.lines) || in_lanes(one.lines), "{} lines", one.lines);
        debug_assert!(
            pullbacks.iter().all(|other| other.panels.written() == one.panels.written()
                && other.panels.width == one.panels.width)
        );
        let rows = samples * one.links.targets();
        // Where rows pass by one panel at a time, each part reads all weights: no more parts than
        // threads.
        let parts = if panels_at_a_time(pullbacks) < one.panels.count() {
            tasks(rows, LEAST_ROWS).min(rayon::current_num_threads())
        } else {
            tasks(rows, LEAST_ROWS)
        };
        let begin = |row: usize| one.target.block(row, one.lines);
        chunks(out, rows, parts, begin).into_par_iter().for_each(|mut chunk| {
            if in_lanes(one.lines) {
                let chunk = &mut chunk;
                by_lanes!(one.lines, |L| set.run(LaneRows::<'_, '_, '_, _, L> { pullbacks, chunk }));
            } else if one.is_windowed(set) {
                arch::pull_windows(set, pullbacks, &mut chunk);
            } else {
                set.run(Full { pullbacks, set, chunk: &mut chunk });
            }
        });
    }

    /// Whether channels that the target's mask has switched off are left out.
    fn is_windowed(&self, set: InstructionSet) -> bool {
        let has_permutations = matches!(set, InstructionSet::Avx512 | InstructionSet::Avx2);
        has_permutations && set.is_available() && self.patches.is_none() && self.target.active().is_some()
    }

    /// Whether identities are added row by row, with the results: in lanes, and by windows of
    /// AVX-512.
    fn adds_identities(&self, set: InstructionSet) -> bool {
        in_lanes(self.lines) || set == InstructionSet::Avx512 && self.is_windowed(set)
    }

    /// What a row reads for the channels of a panel.
    #[inline(always)]
    pub(crate) fn reads<'a>(&'a self, row: usize, panel: usize, reads: &mut Vec<Read<'a, T>>) {
        let block = self.panels.block(panel);
        reads.clear();
        reads.extend(self.links.readers(row).map(|(link, from)| Read {
            tap: link.tap,
            lines: self.source.part(from, self.lines, block.clone()),
        }));
        reads.retain(|read| !read.lines.ids.is_empty());
    }
}

/// How many panels each row takes at a time: all of them where the weights stay in a core's cache
/// together, else one, while all rows pass by.
pub(crate) fn panels_at_a_time<T: SimdFloat>(pullbacks: &[Pullback<'_, T>]) -> usize {
    let bytes = pullbacks.iter().map(|pullback| pullback.panels.bytes()).sum::<usize>();
    let all = pullbacks.first().map_or(1, |one| one.panels.count());
    if bytes <= CACHED_WEIGHTS { all.max(1) } else { 1 }
}

/// Where results of patches go.
struct PullbackRows<'a, T> {
    pullback: &'a Pullback<'a, T>,
    set: InstructionSet,
}

impl<T: SimdFloat> Deliver<T> for PullbackRows<'_, T> {
    #[inline(always)]
    fn deliver<S: Simd>(&self, _: S, tile: RowTile<'_, T>, chunk: &mut Chunk<'_, T>) {
        let Pullback { target, start, slopes, lines, .. } = self.pullback;
        let block = &mut chunk.values[target.block(tile.row, *lines) - chunk.start..];
        let add = !matches!(start, Start::Empty);
        if let (Some(slopes), CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. })) =
            (slopes, *target)
        {
            let at = offset + tile.first;
            return deliver_scaled(tile, slopes.row(tile.row), add, (pitch, &mut block[at..]));
        }
        target.deliver(self.set, tile, add, block);
    }
}

/// Adds results to lines `pitch` apart, or writes them there, times the factors of their row. (Not
/// inlined, so that it does not grow the loops that have no factors.)
#[inline(never)]
fn deliver_scaled<T: SimdFloat>(
    tile: RowTile<'_, T>,
    slopes: &[T],
    add: bool,
    (pitch, block): (usize, &mut [T]),
) {
    let slopes = &slopes[tile.first..tile.first + tile.width];
    for (line, values) in tile.values.chunks_exact(tile.stride).enumerate() {
        let out = &mut block[line * pitch..][..tile.width];
        for (out, (x, slope)) in out.iter_mut().zip(values.iter().zip(slopes)) {
            *out = if add { *out + *x * *slope } else { *x * *slope };
        }
    }
}

/// The panels path: all channels of each panel are computed.
struct Full<'a, 'b, 'c, T> {
    pullbacks: &'a [Pullback<'a, T>],
    set: InstructionSet,
    chunk: &'b mut Chunk<'c, T>,
}

impl<T: SimdFloat> WithSimd for Full<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // One vector of sums per line where registers are few, two where there are more.
        if const { S::REGISTER_COUNT < 32 } {
            self.by_lines::<S, 1>(simd);
        } else {
            self.by_lines::<S, 2>(simd);
        }
    }
}

/// Elements in the largest tile: lines of two vectors of 16.
const TILE: usize = MOST_LINES * 32;

impl<T: SimdFloat> Full<'_, '_, '_, T> {
    #[inline(always)]
    fn by_lines<S: Simd, const G: usize>(&mut self, simd: S) {
        let Some(one) = self.pullbacks.first() else { return };
        by_lines!(S, one.lines, |V| self.rows::<S, G, V>(simd));
    }

    #[inline(always)]
    fn rows<S: Simd, const G: usize, const V: usize>(&mut self, simd: S) {
        let mut reads = Vec::new();
        let (step, count) = (panels_at_a_time(self.pullbacks), self.pullbacks[0].panels.count());
        for first in (0..count).step_by(step) {
            for row in self.chunk.rows.clone() {
                for pullback in self.pullbacks {
                    for panel in first..count.min(first + step) {
                        if panel == first || pullback.panels.begins_block(panel) {
                            pullback.reads(row, panel, &mut reads);
                        }
                        self.panel::<S, G, V>(simd, pullback, row, panel, &reads);
                    }
                }
            }
        }
    }

    /// The channels of one panel of one row.
    #[inline(always)]
    fn panel<S: Simd, const G: usize, const V: usize>(
        &mut self,
        simd: S,
        pullback: &Pullback<'_, T>,
        row: usize,
        panel: usize,
        reads: &[Read<'_, T>],
    ) {
        let panels = pullback.panels;
        let (lanes, columns) = (T::lanes::<S>(), G * T::lanes::<S>());
        for column in (0..panels.width).step_by(columns) {
            let width = columns.min(panels.outputs.saturating_sub(panel * panels.width + column));
            if width == 0 {
                break;
            }
            let tile = (row, panel, column, width);
            // Where one vector holds the rest of the columns, it takes half of the products.
            if width <= lanes {
                self.tile::<S, 1, V>(simd, pullback, tile, reads);
            } else {
                self.tile::<S, G, V>(simd, pullback, tile, reads);
            }
        }
    }

    /// Some columns of a panel.
    #[inline(always)]
    fn tile<S: Simd, const G: usize, const V: usize>(
        &mut self,
        simd: S,
        pullback: &Pullback<'_, T>,
        (row, panel, column, width): (usize, usize, usize, usize),
        reads: &[Read<'_, T>],
    ) {
        let Pullback { panels, target, start, .. } = pullback;
        let (lanes, columns) = (T::lanes::<S>(), G * T::lanes::<S>());
        let first = panels.first + panel * panels.width + column;
        let add = !matches!(start, Start::Empty);
        let mut sums = [[T::splat(simd, T::default()); G]; V];
        for read in reads {
            accumulate(simd, &mut sums, read, &panels.tap(panel, read.tap)[column..], panels.width);
        }
        let block = &mut self.chunk.values[target.block(row, V) - self.chunk.start..];
        // Dense lines are written from the registers. Others go through a tile in memory, of which
        // `deliver` keeps the active channels.
        if let CotangentTarget::Lines(LineLayout::Dense { pitch, offset, .. }) = *target {
            let zero = T::splat(simd, T::default());
            let slopes = pullback.slopes.map(|slopes| &slopes.row(row)[first..first + width]);
            for (line, sums) in sums.iter().enumerate() {
                let out = &mut block[line * pitch + offset + first..][..width];
                for (g, (sum, out)) in sums.iter().zip(out.chunks_mut(lanes)).enumerate() {
                    let start = if add { load(simd, out) } else { zero };
                    let sum = match slopes {
                        Some(slopes) => {
                            T::mul_add(simd, load(simd, &slopes[g * lanes..][..out.len()]), *sum, start)
                        }
                        None if add => T::sum(simd, start, *sum),
                        None => *sum,
                    };
                    store(simd, sum, out);
                }
            }
            return;
        }
        let mut tile = [T::default(); TILE];
        for (line, sums) in sums.iter().enumerate() {
            for (g, sum) in sums.iter().enumerate() {
                T::store(simd, *sum, &mut tile[(line * G + g) * lanes..][..lanes]);
            }
        }
        let tile = narrowed(&mut tile, V, columns, width);
        let tile = RowTile { row, first, width, values: tile, stride: width };
        target.deliver(self.set, tile, add, block);
    }
}

/// The first `width` of `columns` elements of each line, side by side.
#[inline(always)]
fn narrowed<T: Copy>(tile: &mut [T], lines: usize, columns: usize, width: usize) -> &[T] {
    if width < columns {
        for line in 1..lines {
            tile.copy_within(line * columns..line * columns + width, line * width);
        }
    }
    &tile[..lines * width]
}

/// sums(v) += sum over active channels a of value(v, a) w(a).
#[inline(always)]
fn accumulate<S: Simd, T: SimdFloat, const G: usize, const V: usize>(
    simd: S,
    sums: &mut [[T::Vector<S>; G]; V],
    read: &Read<'_, T>,
    weights: &[T],
    width: usize,
) {
    let lanes = T::lanes::<S>();
    let lines = read.lines.each::<V>();
    // The compiler keeps a local copy of the sums in registers through the loop. Through the
    // reference it may load and store them at each step.
    let mut local = *sums;
    for (a, &id) in read.lines.ids.iter().enumerate() {
        let weights = &weights[id as usize * width..][..G * lanes];
        let weights: [T::Vector<S>; G] =
            std::array::from_fn(|g| T::load(simd, &weights[g * lanes..(g + 1) * lanes]));
        for (sums, line) in local.iter_mut().zip(&lines) {
            let value = T::splat(simd, line[a]);
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum = T::mul_add(simd, value, weight, *sum);
            }
        }
    }
    *sums = local;
}
