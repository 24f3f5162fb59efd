//! Random cases, the operands that kernels get of them, and how their results are read.

use crate::kernels::layout::lanes::{FEW_LANES, MANY_LANES, carried, has_few_lanes, in_lanes};
use crate::kernels::layout::lines::{LINE_COUNTS, lines_for};
use crate::kernels::{
    Active, CotangentTarget, InstructionSet, LineLayout, Patches, RowTable, SimdFloat, WinogradForm,
};
use proptest::prelude::*;
use proptest::sample::select;

/// Rounding of a sum of some hundred products of values up to 1, in units of the type's rounding.
pub(crate) const ROUNDINGS: f64 = 64.0;

/// What stands where nothing may be written.
pub(crate) const CANARY: f64 = 12_345.0;

/// A pseudo-random sequence of numbers.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number in [-1, 1) that f32 holds exactly.
    pub(crate) fn number(&mut self) -> f64 {
        (self.next() % (1 << 12)) as f64 / 2048.0 - 1.0
    }

    pub(crate) fn numbers<T: SimdFloat>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::from_f64(self.number())).collect()
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Rows whose channels are active in about `share` of ten cases.
    pub(crate) fn active(&mut self, rows: usize, channels: usize, share: usize) -> Active {
        let lists: Vec<Vec<usize>> = (0..rows)
            .map(|row| {
                // Some rows are dead altogether, some have every channel.
                let share = [share, share, share, 0, 10][row % 5];
                (0..channels).filter(|_| self.below(10) < share).collect()
            })
            .collect();
        Active::from_lists(channels, &lists)
    }
}

/// Sizes of one layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerCase {
    pub(crate) samples: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Groups of channels, which divide inputs and outputs.
    pub(crate) groups: usize,
    /// Rows of a sample before and after the layer.
    pub(crate) rows: [usize; 2],
    pub(crate) taps: usize,
    pub(crate) lines: usize,
    pub(crate) share: usize,
    pub(crate) seed: u64,
}

pub(crate) fn cases() -> impl Strategy<Value = LayerCase> {
    let sizes = (1..4_usize, 1..150_usize, 1..150_usize, 1..20_usize, 1..20_usize, 1..5_usize);
    let groups = prop_oneof![Just(1), 2..40_usize];
    (sizes, groups, select(&LINE_COUNTS[..]), 0..=10_usize, 1..u64::MAX).prop_map(
        |(sizes, groups, lines, share, seed)| {
            let (samples, inputs, outputs, before, behind, taps) = sizes;
            let [inputs, outputs] = [inputs, outputs].map(|channels| channels.next_multiple_of(groups));
            LayerCase { samples, inputs, outputs, groups, rows: [before, behind], taps, lines, share, seed }
        },
    )
}

/// Cases of which some have their lines in lanes.
pub(crate) fn cases_in_lanes_too() -> impl Strategy<Value = LayerCase> {
    (cases(), 0..6).prop_map(|(case, which)| LayerCase {
        lines: match which {
            0 => MANY_LANES,
            1 => FEW_LANES,
            _ => case.lines,
        },
        ..case
    })
}

impl LayerCase {
    /// Whether an input and an output belong to one group.
    pub(crate) fn joins(&self, input: usize, output: usize) -> bool {
        input / (self.inputs / self.groups) == output / (self.outputs / self.groups)
    }
}

/// A table in which each tap of each target row reads some source row or none, no source row twice
/// by one tap.
pub(crate) fn table(case: &LayerCase, draws: &mut Draws) -> RowTable {
    let [before, behind] = case.rows;
    let shifts: Vec<_> = (0..case.taps).map(|_| draws.below(before + 3)).collect();
    RowTable::new(behind, case.taps, before, |row, tap| {
        (row + shifts[tap]).checked_sub(2).filter(|&at| at < before)
    })
}

/// A case over the 3 x 3 neighbours in an image of random size.
pub(crate) struct Image {
    pub(crate) case: LayerCase,
    pub(crate) table: RowTable,
    from: [usize; 2],
    to: [usize; 2],
    before: [usize; 2],
}

pub(crate) fn image(case: &LayerCase, draws: &mut Draws) -> Image {
    let from = [1 + draws.below(9), 1 + draws.below(9)];
    let before = [draws.below(3), draws.below(3)];
    // At least one position, with as much padding after the image as it takes.
    let to = [0, 1].map(|axis| (from[axis] + before[axis] + draws.below(3)).saturating_sub(2).max(1));
    let read = |row: usize, tap: usize| {
        let [y, x] = [row / to[1] + tap / 3, row % to[1] + tap % 3];
        let (y, x) = (y.checked_sub(before[0])?, x.checked_sub(before[1])?);
        (y < from[0] && x < from[1]).then_some(y * from[1] + x)
    };
    let [behind, ahead] = [to[0] * to[1], from[0] * from[1]];
    // Half the channels: plain loops over nine taps take long.
    let [inputs, outputs] = [case.inputs, case.outputs].map(|channels| channels.div_ceil(2));
    let case = LayerCase { inputs, outputs, rows: [ahead, behind], taps: 9, groups: 1, ..case.clone() };
    Image { case, table: RowTable::new(behind, 9, ahead, read), from, to, before }
}

impl Image {
    /// The patches of the forward pass.
    pub(crate) fn patches(&self, form: WinogradForm) -> Patches {
        Patches::new(form, self.from, self.to, self.before)
    }

    /// The patches of the reverse pass.
    pub(crate) fn reversed(&self, form: WinogradForm) -> Patches {
        Patches::new(form, self.to, self.from, self.before.map(|before| 2 - before))
    }
}

pub(crate) fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

/// The sets of this CPU that have kernels for rows of so many lines.
pub(crate) fn sets_for(lines: usize) -> impl Iterator<Item = InstructionSet> {
    sets().filter(move |set| {
        if in_lanes(lines) {
            lines != FEW_LANES || has_few_lanes(*set)
        } else {
            lines_for(*set, lines) == lines
        }
    })
}

/// Rounding of Winograd's form, in units of a plain sum's rounding: the terms that it adds up are
/// larger than the sum.
pub(crate) const PATCHED: f64 = 4.0;

pub(crate) fn close<T: SimdFloat>(found: &[T], expected: &[f64], unit: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = ROUNDINGS * unit * expected.abs().max(1.0) * 16.0;
        assert!((found.to_f64() - expected).abs() <= bound, "{what}: {at}: {found:?} for {expected}");
    }
}

/// Where a layout has a line's element of the channel with an index. Dense lines count all of the
/// buffer's channels, compressed ones the active channels.
pub(crate) fn place(layout: LineLayout<'_>, row: usize, [line, lines]: [usize; 2], index: usize) -> usize {
    let stride = match layout {
        LineLayout::Dense { pitch, .. } => pitch,
        LineLayout::Compressed(active) => active.stride(row),
    };
    let within = if in_lanes(lines) { index * lines + line } else { line * stride + index };
    layout.block(row, lines) + within
}

/// Cotangents of one layout with their values in full, `[row][V][channels]`.
pub(crate) struct GivenCotangents<T> {
    pub(crate) values: Vec<T>,
    pub(crate) full: Vec<f64>,
}

/// Random cotangents; what a layout does not hold is zero.
pub(crate) fn given<T: SimdFloat>(
    layout: LineLayout<'_>,
    rows: usize,
    lines: usize,
    draws: &mut Draws,
) -> GivenCotangents<T> {
    let channels = layout.channels();
    let mut values: Vec<T> = draws.numbers(layout.size(rows, lines));
    let zeros = if in_lanes(lines) { carried(lines)..lines } else { 0..0 };
    for (row, line) in (0..rows).flat_map(|row| zeros.clone().map(move |line| (row, line))) {
        let count = match layout {
            LineLayout::Dense { pitch, .. } => pitch,
            LineLayout::Compressed(active) => active.list(row).len(),
        };
        (0..count).for_each(|index| values[place(layout, row, [line, lines], index)] = T::default());
    }
    let mut full = vec![0.0; rows * lines * channels];
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        let out = &mut full[(row * lines + line) * channels..][..channels];
        match layout {
            LineLayout::Dense { offset, .. } => {
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = values[place(layout, row, [line, lines], offset + channel)].to_f64();
                }
            }
            LineLayout::Compressed(active) => {
                for (index, id) in active.list(row).iter().enumerate() {
                    out[*id as usize] = values[place(layout, row, [line, lines], index)].to_f64();
                }
            }
        }
    }
    GivenCotangents { values, full }
}

/// What a target holds, in full. Asserts that all other elements of its buffer are the canary.
pub(crate) fn read<T: SimdFloat>(
    target: CotangentTarget<'_>,
    rows: usize,
    lines: usize,
    channels: usize,
    values: &[T],
) -> Vec<f64> {
    let layout = match target {
        CotangentTarget::Lines(layout) => layout,
        CotangentTarget::Masked { pitch, offset, .. } => LineLayout::Dense { pitch, offset, channels },
    };
    let mut full = Vec::new();
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        match layout {
            LineLayout::Dense { pitch, offset, channels } => {
                let from: Vec<_> =
                    (0..pitch).map(|at| values[place(layout, row, [line, lines], at)].to_f64()).collect();
                full.extend(&from[offset..offset + channels]);
                let others = from[..offset].iter().chain(&from[offset + channels..]);
                assert!(others.into_iter().all(|x| *x == CANARY), "written beside the channels");
            }
            LineLayout::Compressed(active) => {
                let mut out = vec![0.0; channels];
                for (index, id) in active.list(row).iter().enumerate() {
                    out[*id as usize] = values[place(layout, row, [line, lines], index)].to_f64();
                }
                full.extend(out);
            }
        }
    }
    full
}

/// Plain loops: the pullback at each row and channel, in full.
pub(crate) fn naive_pullback(
    case: &LayerCase,
    table: &RowTable,
    source: &[f64],
    weight: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let LayerCase { samples, inputs, outputs, rows: [before, behind], taps, lines, .. } = *case;
    let mut out = vec![0.0; samples * before * lines * inputs];
    for (sample, row, tap) in triples(samples, behind, taps) {
        let Some(to) = table.source(row, tap) else { continue };
        for (line, i, o) in triples(lines, inputs, outputs) {
            let from = ((sample * behind + row) * lines + line) * outputs + o;
            out[((sample * before + to) * lines + line) * inputs + i] += source[from] * weight(tap, o, i);
        }
    }
    out
}

pub(crate) fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

pub(crate) fn target_is_on(target: CotangentTarget<'_>, row: usize, channel: usize) -> bool {
    match target {
        CotangentTarget::Lines(LineLayout::Compressed(active)) | CotangentTarget::Masked { active, .. } => {
            active.list(row).contains(&(channel as u16))
        }
        CotangentTarget::Lines(LineLayout::Dense { .. }) => true,
    }
}

/// Fills the target's own elements with random numbers.
pub(crate) fn fill<T: SimdFloat>(
    target: CotangentTarget<'_>,
    rows: usize,
    lines: usize,
    values: &mut [T],
    draws: &mut Draws,
) {
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        let (layout, indices) = match target {
            CotangentTarget::Lines(layout @ LineLayout::Dense { offset, channels, .. }) => {
                (layout, offset..offset + channels)
            }
            CotangentTarget::Lines(layout @ LineLayout::Compressed(active)) => {
                (layout, 0..active.list(row).len())
            }
            CotangentTarget::Masked { active, pitch, offset } => {
                let channels = active.channels();
                (LineLayout::Dense { pitch, offset, channels }, offset..offset + channels)
            }
        };
        for index in indices {
            values[place(layout, row, [line, lines], index)] = T::from_f64(draws.number());
        }
    }
}
