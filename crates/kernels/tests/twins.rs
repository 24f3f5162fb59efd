//! Every kernel on every instruction set of this processor against plain loops in f64, over random geometries and masks: none, some and
//! all channels active, every tail length, several samples, and numbers around what may be written that must not change.

use influence_kernels::{
    Active, At, ByChannel, Channelwise, Cotangents, Dense, Element, Gather, InstructionSet, Layout,
    MOST_LINES, Normalized, Outer, Panels, Place, Product, Pullback, Share, Spread, Start, Table, Target,
    gram_of,
};
use proptest::prelude::*;

/// Rounding of a sum of some hundred products of numbers up to 1, in units of the type's rounding.
const ROUNDINGS: f64 = 64.0;

/// What stands where nothing may be written.
const CANARY: f64 = 12_345.0;

/// A sequence of made-up numbers.
struct Draws(u64);

impl Draws {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// A number in [-1, 1) that f32 holds exactly.
    fn number(&mut self) -> f64 {
        (self.next() % (1 << 12)) as f64 / 2048.0 - 1.0
    }

    fn numbers<T: Element>(&mut self, count: usize) -> Vec<T> {
        (0..count).map(|_| T::from_f64(self.number())).collect()
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Rows whose channels are active in about `share` of ten cases.
    fn active(&mut self, rows: usize, channels: usize, share: usize) -> Active {
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
struct Case {
    samples: usize,
    inputs: usize,
    outputs: usize,
    /// Which divide both.
    groups: usize,
    /// Rows of a sample before and behind the layer.
    rows: [usize; 2],
    taps: usize,
    lines: usize,
    share: usize,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1..4_usize, 1..150_usize, 1..150_usize, 1..20_usize, 1..20_usize, 1..5_usize);
    let groups = prop_oneof![Just(1), 2..40_usize];
    (sizes, groups, 1..=MOST_LINES, 0..=10_usize, 1..u64::MAX).prop_map(
        |(sizes, groups, lines, share, seed)| {
            let (samples, inputs, outputs, before, behind, taps) = sizes;
            let [inputs, outputs] = [inputs, outputs].map(|channels| channels.next_multiple_of(groups));
            Case { samples, inputs, outputs, groups, rows: [before, behind], taps, lines, share, seed }
        },
    )
}

impl Case {
    /// Whether an input and an output belong to one group.
    fn joins(&self, input: usize, output: usize) -> bool {
        input / (self.inputs / self.groups) == output / (self.outputs / self.groups)
    }
}

/// A table in which each tap of each target row reads some source row or none, no source row twice by one tap.
fn table(case: &Case, draws: &mut Draws) -> Table {
    let [before, behind] = case.rows;
    let shifts: Vec<_> = (0..case.taps).map(|_| draws.below(before + 3)).collect();
    Table::new(behind, case.taps, before, |row, tap| {
        (row + shifts[tap]).checked_sub(2).filter(|&at| at < before)
    })
}

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_available())
}

fn close<T: Element>(found: &[T], expected: &[f64], unit: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = ROUNDINGS * unit * expected.abs().max(1.0) * 16.0;
        assert!((found.to_f64() - expected).abs() <= bound, "{what}: {at}: {found:?} for {expected}");
    }
}

/// Cotangents of one layout with their values in full, `[row][V][channels]`.
struct Given<T> {
    values: Vec<T>,
    full: Vec<f64>,
}

/// Made-up cotangents; what a layout does not hold is zero.
fn given<T: Element>(layout: Layout<'_>, rows: usize, lines: usize, draws: &mut Draws) -> Given<T> {
    let channels = layout.channels();
    let values: Vec<T> = draws.numbers(layout.size(rows, lines));
    let mut full = vec![0.0; rows * lines * channels];
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        let out = &mut full[(row * lines + line) * channels..][..channels];
        match layout {
            Layout::Dense { pitch, offset, .. } => {
                let from = &values[(row * lines + line) * pitch + offset..][..channels];
                out.iter_mut().zip(from).for_each(|(out, x)| *out = x.to_f64());
            }
            Layout::Compressed(active) => {
                let from = &values[active.block(row, lines) + line * active.stride(row)..];
                for (id, x) in active.list(row).iter().zip(from) {
                    out[*id as usize] = x.to_f64();
                }
            }
        }
    }
    Given { values, full }
}

/// What a target holds, in full, and whether every other number of its buffer is the canary.
fn read<T: Element>(
    target: Target<'_>,
    rows: usize,
    lines: usize,
    channels: usize,
    values: &[T],
) -> Vec<f64> {
    let layout = match target {
        Target::Lines(layout) => layout,
        Target::Masked { pitch, offset, .. } => Layout::Dense { pitch, offset, channels },
    };
    let mut full = Vec::new();
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        match layout {
            Layout::Dense { pitch, offset, channels } => {
                let from = &values[(row * lines + line) * pitch..][..pitch];
                full.extend(from[offset..offset + channels].iter().map(|x| x.to_f64()));
                let others = from[..offset].iter().chain(&from[offset + channels..]);
                assert!(others.into_iter().all(|x| x.to_f64() == CANARY), "written beside the channels");
            }
            Layout::Compressed(active) => {
                let from = &values[active.block(row, lines) + line * active.stride(row)..];
                let mut out = vec![0.0; channels];
                active.list(row).iter().zip(from).for_each(|(id, x)| out[*id as usize] = x.to_f64());
                full.extend(out);
            }
        }
    }
    full
}

/// Plain loops: what comes to each row and channel, in full.
fn naive_pullback(
    case: &Case,
    table: &Table,
    source: &[f64],
    weight: impl Fn(usize, usize, usize) -> f64,
) -> Vec<f64> {
    let Case { samples, inputs, outputs, rows: [before, behind], taps, lines, .. } = *case;
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

fn triples(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

fn check_pullback<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let Case { samples, inputs, outputs, groups, rows: [before, behind], taps, lines, share, .. } = *case;
    let table = table(case, &mut draws);
    let links = table.links();
    let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
    let weight = |tap: usize, o: usize, i: usize| {
        if case.joins(i, o) { weights[(tap * outputs + o) * inputs + i] } else { 0.0 }
    };
    let panels = Panels::<T>::reverse(taps, outputs, inputs, groups, weight);
    let (read_mask, written_mask) =
        (draws.active(samples * behind, outputs, share), draws.active(samples * before, inputs, 10 - share));
    let other_mask = draws.active(samples * before, inputs, 5);
    let (pitch, offset) = (inputs + draws.below(40) + 3, draws.below(3));
    let dense = Layout::Dense { pitch, offset, channels: inputs };
    let sources =
        [Layout::Compressed(&read_mask), Layout::Dense { pitch: outputs + 5, offset: 2, channels: outputs }];
    let targets = [
        Target::Lines(dense),
        Target::Lines(Layout::Compressed(&written_mask)),
        Target::Masked { active: &written_mask, pitch, offset },
    ];
    for (source, target) in sources.into_iter().flat_map(|source| targets.map(|target| (source, target))) {
        let cotangents: Given<T> = given(source, samples * behind, lines, &mut draws);
        let product = naive_pullback(case, &table, &cotangents.full, weight);
        let others = [dense, Layout::Compressed(&other_mask)]
            .map(|layout| given::<T>(layout, samples * before, lines, &mut draws));
        let starts = [
            Start::Sum,
            Start::Identity(Cotangents { values: &others[0].values, layout: dense }),
            Start::Identity(Cotangents {
                values: &others[1].values,
                layout: Layout::Compressed(&other_mask),
            }),
            Start::Empty,
        ];
        for (which, start) in starts.iter().enumerate() {
            let (block, channels) = (target.size(samples * before, lines), inputs);
            let mut initial = vec![T::from_f64(CANARY); block];
            fill(target, samples * before, lines, &mut initial, &mut draws);
            let old = read(target, samples * before, lines, channels, &initial);
            let keeps_old = matches!(start, Start::Sum);
            let zero = vec![0.0; old.len()];
            let added = match which {
                1 => &others[0].full,
                2 => &others[1].full,
                _ => &zero,
            };
            let expected: Vec<_> = (0..old.len())
                .map(|at| {
                    let (row, channel) = (at / inputs / lines, at % inputs);
                    let sum = if keeps_old { old[at] } else { 0.0 };
                    let on = target_is_on(target, row, channel);
                    if on { sum + added[at] + product[at] } else { sum }
                })
                .collect();
            for set in sets() {
                let mut out = initial.clone();
                let pullback = Pullback {
                    links: &links,
                    panels: &panels,
                    source: Cotangents { values: &cotangents.values, layout: source },
                    target,
                    start: *start,
                    lines,
                };
                pullback.run(set, samples, &mut out);
                let found = read(target, samples * before, lines, channels, &out);
                close(
                    &found,
                    &expected,
                    unit,
                    &format!("{set}, {source:?} to {target:?}, start {which}, {case:?}"),
                );
            }
        }
    }
}

/// Several layers into some of the channels of the same rows, which none of them has alone.
fn check_together<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let Case { samples, inputs, outputs, rows: [before, behind], taps, lines, share, .. } = *case;
    let rows = samples * before;
    let low = draws.below(inputs);
    let channels = low..low + 1 + draws.below(inputs - low);
    let layers: Vec<_> = (0..1 + draws.below(3))
        .map(|_| {
            let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
            let masks =
                [draws.active(samples * behind, outputs, share), draws.active(rows, inputs, 10 - share)];
            (table(case, &mut draws), weights, masks)
        })
        .collect();
    let (pitch, offset) = (inputs + 5, 2);
    let mut expected: Vec<f64> = draws.numbers(rows * lines * pitch + 64);
    let initial: Vec<T> = expected.iter().map(|&x| T::from_f64(x)).collect();
    let mut prepared = Vec::new();
    for (table, weights, [read_mask, written_mask]) in &layers {
        let weight = |tap: usize, o: usize, i: usize| weights[(tap * outputs + o) * inputs + i];
        let given: Given<T> = given(Layout::Compressed(read_mask), samples * behind, lines, &mut draws);
        let product = naive_pullback(case, table, &given.full, weight);
        for (row, line, channel) in triples(rows, lines, inputs) {
            if channels.contains(&channel) && written_mask.list(row).contains(&(channel as u16)) {
                let at = (row * lines + line) * pitch + offset + channel;
                expected[at] += product[(row * lines + line) * inputs + channel];
            }
        }
        let panels = Panels::<T>::reverse(taps, outputs, inputs, 1, weight).columns(channels.clone());
        prepared.push((table.links(), panels, given, read_mask, written_mask));
    }
    let pullbacks: Vec<_> = prepared
        .iter()
        .map(|(links, panels, given, read_mask, active)| Pullback {
            links,
            panels,
            source: Cotangents { values: &given.values, layout: Layout::Compressed(read_mask) },
            target: Target::Masked { active, pitch, offset },
            start: Start::Sum,
            lines,
        })
        .collect();
    for set in sets() {
        let mut out = initial.clone();
        Pullback::run_together(&pullbacks, set, samples, &mut out);
        close(&out, &expected, unit, &format!("{set}, channels {channels:?}, {case:?}"));
        // One after the other gives the same bits.
        let mut apart = initial.clone();
        pullbacks.iter().for_each(|pullback| pullback.run(set, samples, &mut apart));
        let bits = |values: &[T]| values.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&apart), "{set}, {case:?}");
    }
}

/// Masks and lists, as the sets make them, against one number at a time.
fn check_masks<T: Element>(case: &Case) {
    let mut draws = Draws(case.seed);
    let (rows, channels) = (case.samples * case.rows[0], case.inputs);
    let (pitch, offset) = (channels + 3, 1);
    let mut values: Vec<T> = draws.numbers(rows * pitch);
    values.iter_mut().step_by(7).for_each(|x| *x = T::default());
    let dense = Dense { values: &values, pitch, offset, channels };
    let live = |row: usize| row % 5 != 3;
    let on = |row: usize, channel: &usize| live(row) && dense.row(row)[*channel] > T::default();
    let lists: Vec<Vec<usize>> =
        (0..rows).map(|row| (0..channels).filter(|channel| on(row, channel)).collect()).collect();
    for set in sets() {
        let found = Active::positive(set, dense, rows, live);
        assert_eq!(found, Active::from_lists(channels, &lists), "{set}, {case:?}");
    }
}

fn target_is_on(target: Target<'_>, row: usize, channel: usize) -> bool {
    match target {
        Target::Lines(Layout::Compressed(active)) | Target::Masked { active, .. } => {
            active.list(row).contains(&(channel as u16))
        }
        Target::Lines(Layout::Dense { .. }) => true,
    }
}

/// Made-up numbers where the target is.
fn fill<T: Element>(target: Target<'_>, rows: usize, lines: usize, values: &mut [T], draws: &mut Draws) {
    for (row, line) in (0..rows).flat_map(|row| (0..lines).map(move |line| (row, line))) {
        let (start, count) = match target {
            Target::Lines(Layout::Dense { pitch, offset, channels }) => {
                ((row * lines + line) * pitch + offset, channels)
            }
            Target::Lines(Layout::Compressed(active)) => {
                (active.block(row, lines) + line * active.stride(row), active.list(row).len())
            }
            Target::Masked { active, pitch, offset } => {
                ((row * lines + line) * pitch + offset, active.channels())
            }
        };
        values[start..start + count].iter_mut().for_each(|x| *x = T::from_f64(draws.number()));
    }
}

fn check_product<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let Case { samples, inputs, outputs, groups, rows: [before, behind], taps, share, .. } = *case;
    let table = table(case, &mut draws);
    let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
    let weight = |tap: usize, i: usize, o: usize| {
        if case.joins(i, o) { weights[(tap * inputs + i) * outputs + o] } else { 0.0 }
    };
    let panels = Panels::<T>::forward(taps, inputs, outputs, groups, weight);
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < share.max(1)).collect();
    let (bias, x): (Vec<T>, Vec<T>) =
        (draws.numbers(outputs), draws.numbers(samples * before * (inputs + 4)));
    let residual: Vec<T> = draws.numbers(samples * behind * outputs);
    let source = Dense { values: &x, pitch: inputs + 4, offset: 3, channels: inputs };
    let place = Place { pitch: outputs + 7, offset: 2 };
    for (with, relu) in [(false, true), (true, false), (true, true)] {
        let dense = Dense { values: &residual, pitch: outputs, offset: 0, channels: outputs };
        let product = Product {
            table: &table,
            panels: &panels,
            bias: &bias,
            source,
            residual: with.then_some(dense),
            relu,
        };
        let mut expected = vec![CANARY; samples * behind * place.pitch];
        for (sample, row) in (0..samples).flat_map(|sample| live.iter().map(move |row| (sample, *row))) {
            let to = sample * behind + row;
            for o in 0..outputs {
                let mut sum = bias[o].to_f64() + if with { residual[to * outputs + o].to_f64() } else { 0.0 };
                for tap in 0..taps {
                    let Some(from) = table.source(row, tap) else { continue };
                    let x = source.row(sample * before + from);
                    sum += (0..inputs).map(|i| x[i].to_f64() * weight(tap, i, o)).sum::<f64>();
                }
                expected[to * place.pitch + 2 + o] = if relu { sum.max(0.0) } else { sum };
            }
        }
        for set in sets() {
            let mut out = vec![T::from_f64(CANARY); expected.len()];
            product.run(set, samples, &live, &mut out, place);
            close(&out, &expected, unit, &format!("{set}, residual {with}, relu {relu}, {case:?}"));
        }
    }
}

/// Each channel by itself: a product of as many groups.
fn check_channelwise<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let Case { samples, inputs: channels, rows: [before, behind], taps, share, .. } = *case;
    let table = table(case, &mut draws);
    let weights: Vec<T> = draws.numbers(taps * channels);
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < share.max(1)).collect();
    let (bias, x): (Vec<T>, Vec<T>) =
        (draws.numbers(channels), draws.numbers(samples * before * (channels + 4)));
    let residual: Vec<T> = draws.numbers(samples * behind * channels);
    let source = Dense { values: &x, pitch: channels + 4, offset: 3, channels };
    let other = Dense { values: &residual, pitch: channels, offset: 0, channels };
    let place = Place { pitch: channels + 7, offset: 2 };
    for (residual, relu) in [(None, true), (Some(other), false), (Some(other), true)] {
        let mut expected = vec![CANARY; samples * behind * place.pitch];
        for (sample, &row) in (0..samples).flat_map(|sample| live.iter().map(move |row| (sample, row))) {
            let to = sample * behind + row;
            for c in 0..channels {
                let mut sum = bias[c].to_f64() + residual.map_or(0.0, |other| other.row(to)[c].to_f64());
                for (tap, from) in (0..taps).filter_map(|tap| Some((tap, table.source(row, tap)?))) {
                    let x = source.row(sample * before + from)[c];
                    sum += x.to_f64() * weights[tap * channels + c].to_f64();
                }
                expected[to * place.pitch + 2 + c] = if relu { sum.max(0.0) } else { sum };
            }
        }
        for set in sets() {
            let own = Channelwise { table: &table, weights: &weights, bias: &bias, source, residual, relu };
            let mut out = vec![T::from_f64(CANARY); expected.len()];
            own.run(set, samples, &live, &mut out, place);
            close(&out, &expected, unit, &format!("{set}, relu {relu}, {case:?}"));
        }
    }
}

/// The reverse pass of the same.
fn check_gather<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let case = Case { outputs: case.inputs, groups: case.inputs, ..case.clone() };
    let Case { samples, inputs: channels, rows: [before, behind], taps, lines, share, .. } = case;
    let table = table(&case, &mut draws);
    let links = table.links();
    let (weights, scale): (Vec<T>, Vec<T>) = (draws.numbers(taps * channels), draws.numbers(channels));
    let (read_mask, written_mask) =
        (draws.active(samples * behind, channels, share), draws.active(samples * before, channels, 5));
    let (pitch, offset) = (channels + 3, 2);
    let dense = Layout::Dense { pitch, offset, channels };
    let targets = [
        Target::Lines(dense),
        Target::Lines(Layout::Compressed(&written_mask)),
        Target::Masked { active: &written_mask, pitch, offset },
    ];
    let sources =
        [Layout::Compressed(&read_mask), Layout::Dense { pitch: channels + 5, offset: 1, channels }];
    for (layout, target) in sources.into_iter().flat_map(|source| targets.map(|target| (source, target))) {
        let cotangents: Given<T> = given(layout, samples * behind, lines, &mut draws);
        let product = naive_pullback(&case, &table, &cotangents.full, |tap, o, i| {
            if o == i { weights[tap * channels + i].to_f64() * scale[i].to_f64() } else { 0.0 }
        });
        for (add, set) in [true, false].into_iter().flat_map(|add| sets().map(move |set| (add, set))) {
            let mut out = vec![T::from_f64(CANARY); target.size(samples * before, lines)];
            fill(target, samples * before, lines, &mut out, &mut draws);
            let old = read(target, samples * before, lines, channels, &out);
            let source = Cotangents { values: &cotangents.values, layout };
            let (share, scale) = (Share::Weights(&weights), Some(scale.as_slice()));
            let gather = Gather { links: &links, source, share, target, channels, scale, add, lines };
            gather.run(set, samples, &mut out);
            let expected: Vec<_> = (0..old.len())
                .map(|at| {
                    let on = target_is_on(target, at / channels / lines, at % channels);
                    (if add { old[at] } else { 0.0 }) + if on { product[at] } else { 0.0 }
                })
                .collect();
            let found = read(target, samples * before, lines, channels, &out);
            close(&found, &expected, unit, &format!("{set}, {layout:?} to {target:?}, add {add}, {case:?}"));
        }
    }
}

fn check_spread<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let (rows, channels, lines) = (case.samples * case.rows[0], case.inputs, case.lines);
    let (from, to) = (draws.active(rows, channels, case.share), draws.active(rows, channels, 5));
    let scale: Vec<T> = draws.numbers(channels);
    let dense = Layout::Dense { pitch: channels + 3, offset: 1, channels };
    for source in [Layout::Compressed(&from), dense] {
        let cotangents: Given<T> = given(source, rows, lines, &mut draws);
        let targets = [Target::Lines(dense), Target::Lines(Layout::Compressed(&to))];
        for (target, add, scale, set) in targets.into_iter().flat_map(|target| {
            let starts = [(true, None), (false, None), (true, Some(&scale)), (false, Some(&scale))];
            starts.into_iter().flat_map(move |(add, scale)| sets().map(move |set| (target, add, scale, set)))
        }) {
            let mut out = vec![T::from_f64(CANARY); target.size(rows, lines)];
            fill(target, rows, lines, &mut out, &mut draws);
            let old = read(target, rows, lines, channels, &out);
            let spread = Spread {
                source: Cotangents { values: &cotangents.values, layout: source },
                target,
                scale: scale.map(Vec::as_slice),
                add,
                lines,
            };
            spread.run(set, rows, &mut out);
            let expected: Vec<_> = (0..old.len())
                .map(|at| {
                    let on = target_is_on(target, at / channels / lines, at % channels);
                    let new = cotangents.full[at] * scale.map_or(1.0, |scale| scale[at % channels].to_f64());
                    (if add { old[at] } else { 0.0 }) + if on { new } else { 0.0 }
                })
                .collect();
            let found = read(target, rows, lines, channels, &out);
            close(&found, &expected, unit, &format!("{set}, {source:?} to {target:?}, add {add}, {case:?}"));
        }
    }
}

/// The Gram matrices of a layer's weight, of its bias, and of what is normalised behind it.
fn check_grams<T: Element>(case: &Case, unit: f64) {
    let mut draws = Draws(case.seed);
    let Case { samples, inputs, outputs, rows: [before, behind], taps, lines, share, .. } = *case;
    let table = table(case, &mut draws);
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < 7).collect();
    let mask = draws.active(samples * behind, outputs, share);
    let pitch = inputs + 4;
    let (x, y): (Vec<T>, Vec<T>) =
        (draws.numbers(samples * before * pitch + 64), draws.numbers(samples * behind * outputs));
    let rows = Dense { values: &x, pitch, offset: 3, channels: inputs };
    let others = Dense { values: &y, pitch: outputs, offset: 0, channels: outputs };
    let scale: Vec<T> = draws.numbers(outputs);
    let [mean, inverse] = [0, 1].map(|_| (0..outputs).map(|_| draws.number()).collect::<Vec<f64>>());
    let layouts =
        [Layout::Compressed(&mask), Layout::Dense { pitch: outputs + 5, offset: 2, channels: outputs }];
    for (layout, sample) in layouts.into_iter().flat_map(|layout| (0..samples).map(move |s| (layout, s))) {
        let cotangents: Given<T> = given(layout, samples * behind, lines, &mut draws);
        let source = Cotangents { values: &cotangents.values, layout };
        let g =
            |p: usize, v: usize, o: usize| cotangents.full[((sample * behind + p) * lines + v) * outputs + o];
        let mut gradients = vec![vec![0.0; outputs * taps * inputs]; lines];
        let (mut sums, mut moments) = (vec![0.0; lines * outputs], vec![0.0; lines * outputs]);
        for (&p, v, o) in
            live.iter().flat_map(|p| (0..lines).flat_map(move |v| (0..outputs).map(move |o| (p, v, o))))
        {
            sums[v * outputs + o] += g(p, v, o);
            let h = (others.row(sample * behind + p)[o].to_f64() - mean[o]) * inverse[o];
            moments[v * outputs + o] += g(p, v, o) * h;
            for (tap, from) in (0..taps).filter_map(|tap| Some((tap, table.source(p, tap)?))) {
                for (i, x) in rows.row(sample * before + from).iter().enumerate() {
                    gradients[v][(o * taps + tap) * inputs + i] +=
                        g(p, v, o) * scale[o].to_f64() * x.to_f64();
                }
            }
        }
        let naive = |rows: &[Vec<f64>]| -> Vec<f64> {
            let dot = |v: usize, w: usize| rows[v].iter().zip(&rows[w]).map(|(a, b)| a * b).sum();
            (0..lines * lines).map(|at| dot(at / lines, at % lines)).collect()
        };
        let largest = |all: &[f64]| all.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
        let near = |found: &[f64], expected: &[f64], unit: f64, what: &str| {
            let bound = ROUNDINGS * unit * largest(expected) * 16.0;
            assert_eq!(found.len(), expected.len());
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= bound, "{what}: {worst:e}, {case:?}");
        };
        let at = At { source, lines, rows: behind, live: &live, sample };
        let entries = ByChannel::new(at);
        let normalized = Normalized { rows: others, mean: &mean, inverse: &inverse };
        let weight = naive(&gradients);
        let biases: Vec<Vec<f64>> = sums.chunks(outputs).map(<[f64]>::to_vec).collect();
        for set in sets() {
            let outer = Outer { table: &table, rows, live: &live, entries: &entries, scale: Some(&scale) };
            near(&outer.gram(set, sample), &weight, unit, &format!("{set}, weight, {layout:?}"));
            let [found, products] = at.sums(set, Some(normalized));
            near(&found, &sums, f64::EPSILON, "sums");
            near(&products, &moments, f64::EPSILON, "moments");
            assert_eq!(at.sums(set, None), [found, vec![]], "{set}, {case:?}");
            near(&gram_of(set, &sums, lines), &naive(&biases), f64::EPSILON, "bias");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pullbacks_agree_with_plain_loops(case in cases()) {
        check_pullback::<f32>(&case, f64::from(f32::EPSILON));
        check_pullback::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn pullbacks_together_agree_with_plain_loops(case in cases()) {
        check_together::<f32>(&case, f64::from(f32::EPSILON));
        check_together::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn masks_agree_with_plain_loops(case in cases()) {
        check_masks::<f32>(&case);
        check_masks::<f64>(&case);
    }

    #[test]
    fn products_agree_with_plain_loops(case in cases()) {
        check_product::<f32>(&case, f64::from(f32::EPSILON));
        check_product::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn channelwise_products_agree_with_plain_loops(case in cases()) {
        check_channelwise::<f32>(&case, f64::from(f32::EPSILON));
        check_channelwise::<f64>(&case, f64::EPSILON);
        check_gather::<f32>(&case, f64::from(f32::EPSILON));
        check_gather::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn spreads_agree_with_plain_loops(case in cases()) {
        check_spread::<f32>(&case, f64::from(f32::EPSILON));
        check_spread::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gram_matrices_agree_with_plain_loops(case in cases()) {
        check_grams::<f32>(&case, f64::from(f32::EPSILON));
        check_grams::<f64>(&case, f64::EPSILON);
    }
}
