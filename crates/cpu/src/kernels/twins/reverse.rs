//! Pullbacks, gathers and spreads.

use crate::kernels::{
    CotangentTarget, Cotangents, GatherPullback, LineLayout, Panels, Patches, Pullback, RowTable, Share,
    SimdFloat, SpreadPullback, Start, WinogradForm,
};
use proptest::prelude::*;

use super::cases::{
    CANARY, Draws, GivenCotangents, LayerCase, PATCHED, cases, cases_in_lanes_too, close, fill, given, image,
    naive_pullback, place, read, sets_for, table, target_is_on, triples,
};

fn check_pullback_by_rows<T: SimdFloat>(case: &LayerCase, unit: f64) {
    check_pullback::<T>(case, &table(case, &mut Draws(case.seed)), None, unit);
}

fn check_pullback_by_patches<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let image = image(case, &mut draws);
    let form = [WinogradForm::Two, WinogradForm::Four][draws.below(2)];
    check_pullback::<T>(&image.case, &image.table, Some(&image.reversed(form)), PATCHED * unit);
}

fn check_pullback<T: SimdFloat>(case: &LayerCase, table: &RowTable, patches: Option<&Patches>, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs, outputs, groups, rows: [before, behind], taps, lines, share, .. } =
        *case;
    let links = table.links();
    let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
    let weight = |tap: usize, o: usize, i: usize| {
        if case.joins(i, o) { weights[(tap * outputs + o) * inputs + i] } else { 0.0 }
    };
    let panels = match patches {
        // Seen from the inputs, each tap leads to the opposite side.
        Some(patches) => patches.panels(outputs, inputs, |tap, o, i| weight(8 - tap, o, i)),
        None => Panels::<T>::reverse(taps, outputs, inputs, groups, weight),
    };
    let (read_mask, written_mask) =
        (draws.active(samples * behind, outputs, share), draws.active(samples * before, inputs, 10 - share));
    let other_mask = draws.active(samples * before, inputs, 5);
    let (pitch, offset) = (inputs + draws.below(40) + 3, draws.below(3));
    let dense = LineLayout::Dense { pitch, offset, channels: inputs };
    let dense_source = LineLayout::Dense { pitch: outputs + 5, offset: 2, channels: outputs };
    let compressed = patches.is_none().then_some(LineLayout::Compressed(&read_mask));
    let sources = compressed.into_iter().chain([dense_source]);
    let targets = [
        CotangentTarget::Lines(dense),
        CotangentTarget::Lines(LineLayout::Compressed(&written_mask)),
        CotangentTarget::Masked { active: &written_mask, pitch, offset },
    ];
    for (source, target) in sources.flat_map(|source| targets.map(|target| (source, target))) {
        let cotangents: GivenCotangents<T> = given(source, samples * behind, lines, &mut draws);
        let product = naive_pullback(case, table, &cotangents.full, weight);
        let others = [dense, LineLayout::Compressed(&other_mask)]
            .map(|layout| given::<T>(layout, samples * before, lines, &mut draws));
        let starts = [
            Start::Sum,
            Start::Identity(Cotangents { values: &others[0].values, layout: dense }),
            Start::Identity(Cotangents {
                values: &others[1].values,
                layout: LineLayout::Compressed(&other_mask),
            }),
            Start::Empty,
        ];
        for (which, start) in starts.iter().enumerate() {
            let (block, channels) = (target.size(samples * before, lines), inputs);
            let mut initial = vec![T::from_f64(CANARY); block];
            fill(target, samples * before, lines, &mut initial, &mut draws);
            let old = read(target, samples * before, lines, channels, &initial);
            let zero = vec![0.0; old.len()];
            let added = match which {
                1 => &others[0].full,
                2 => &others[1].full,
                _ => &zero,
            };
            let expected = |at: usize| {
                let (row, channel) = (at / inputs / lines, at % inputs);
                let sum = if matches!(start, Start::Sum) { old[at] } else { 0.0 };
                let on = target_is_on(target, row, channel);
                if on { sum + added[at] + product[at] } else { sum }
            };
            let expected: Vec<_> = (0..old.len()).map(expected).collect();
            for set in sets_for(lines) {
                let mut out = initial.clone();
                let pullback = Pullback {
                    links: &links,
                    patches,
                    panels: &panels,
                    source: Cotangents { values: &cotangents.values, layout: source },
                    target,
                    start: *start,
                    slopes: None,
                    lines,
                };
                pullback.run(set, samples, &mut out);
                let found = read(target, samples * before, lines, channels, &out);
                let what = format!("{set}, {source:?} to {target:?}, start {which}, {case:?}");
                close(&found, &expected, unit, &what);
            }
        }
    }
}

/// Several layers into some of the channels of the same rows, which each of them adds to.
fn check_together<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs, outputs, rows: [before, behind], taps, lines, share, .. } = *case;
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
        let given: GivenCotangents<T> =
            given(LineLayout::Compressed(read_mask), samples * behind, lines, &mut draws);
        let product = naive_pullback(case, table, &given.full, weight);
        for (row, line, channel) in triples(rows, lines, inputs) {
            if channels.contains(&channel) && written_mask.list(row).contains(&(channel as u16)) {
                let dense = LineLayout::Dense { pitch, offset, channels: inputs };
                expected[place(dense, row, [line, lines], offset + channel)] +=
                    product[(row * lines + line) * inputs + channel];
            }
        }
        let panels = Panels::<T>::reverse(taps, outputs, inputs, 1, weight).columns(channels.clone());
        prepared.push((table.links(), panels, given, read_mask, written_mask));
    }
    let pullbacks: Vec<_> = prepared
        .iter()
        .map(|(links, panels, given, read_mask, active)| Pullback {
            links,
            patches: None,
            panels,
            source: Cotangents { values: &given.values, layout: LineLayout::Compressed(read_mask) },
            target: CotangentTarget::Masked { active, pitch, offset },
            start: Start::Sum,
            slopes: None,
            lines,
        })
        .collect();
    for set in sets_for(lines) {
        let mut out = initial.clone();
        Pullback::run_together(&pullbacks, set, samples, &mut out);
        close(&out, &expected, unit, &format!("{set}, channels {channels:?}, {case:?}"));
        // One after the other they give bit-identical results.
        let mut apart = initial.clone();
        pullbacks.iter().for_each(|pullback| pullback.run(set, samples, &mut apart));
        let bits = |values: &[T]| values.iter().map(|x| x.to_f64().to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&apart), "{set}, {case:?}");
    }
}

/// The reverse pass of a depthwise convolution.
fn check_gather<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let case = LayerCase { outputs: case.inputs, groups: case.inputs, ..case.clone() };
    let LayerCase { samples, inputs: channels, rows: [before, behind], taps, lines, share, .. } = case;
    let table = table(&case, &mut draws);
    let links = table.links();
    let (weights, scale): (Vec<T>, Vec<T>) = (draws.numbers(taps * channels), draws.numbers(channels));
    let (read_mask, written_mask) =
        (draws.active(samples * behind, channels, share), draws.active(samples * before, channels, 5));
    let (pitch, offset) = (channels + 3, 2);
    let dense = LineLayout::Dense { pitch, offset, channels };
    let targets = [
        CotangentTarget::Lines(dense),
        CotangentTarget::Lines(LineLayout::Compressed(&written_mask)),
        CotangentTarget::Masked { active: &written_mask, pitch, offset },
    ];
    let sources =
        [LineLayout::Compressed(&read_mask), LineLayout::Dense { pitch: channels + 5, offset: 1, channels }];
    for (layout, target) in sources.into_iter().flat_map(|source| targets.map(|target| (source, target))) {
        let cotangents: GivenCotangents<T> = given(layout, samples * behind, lines, &mut draws);
        let product = naive_pullback(&case, &table, &cotangents.full, |tap, o, i| {
            if o == i { weights[tap * channels + i].to_f64() * scale[i].to_f64() } else { 0.0 }
        });
        for (add, set) in [true, false].into_iter().flat_map(|add| sets_for(lines).map(move |set| (add, set)))
        {
            let mut out = vec![T::from_f64(CANARY); target.size(samples * before, lines)];
            fill(target, samples * before, lines, &mut out, &mut draws);
            let old = read(target, samples * before, lines, channels, &out);
            let source = Cotangents { values: &cotangents.values, layout };
            let (share, scale) = (Share::Weights(&weights), Some(scale.as_slice()));
            let gather = GatherPullback {
                links: &links,
                source,
                share,
                target,
                channels,
                scale,
                slopes: None,
                add,
                lines,
            };
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

fn check_spread<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let (rows, channels, lines) = (case.samples * case.rows[0], case.inputs, case.lines);
    let (from, to) = (draws.active(rows, channels, case.share), draws.active(rows, channels, 5));
    let scale: Vec<T> = draws.numbers(channels);
    let dense = LineLayout::Dense { pitch: channels + 3, offset: 1, channels };
    for source in [LineLayout::Compressed(&from), dense] {
        let cotangents: GivenCotangents<T> = given(source, rows, lines, &mut draws);
        let targets = [CotangentTarget::Lines(dense), CotangentTarget::Lines(LineLayout::Compressed(&to))];
        for (target, add, scale, set) in targets.into_iter().flat_map(|target| {
            let starts = [(true, None), (false, None), (true, Some(&scale)), (false, Some(&scale))];
            starts
                .into_iter()
                .flat_map(move |(add, scale)| sets_for(lines).map(move |set| (target, add, scale, set)))
        }) {
            let mut out = vec![T::from_f64(CANARY); target.size(rows, lines)];
            fill(target, rows, lines, &mut out, &mut draws);
            let old = read(target, rows, lines, channels, &out);
            let spread = SpreadPullback {
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pullback_by_rows(case in cases_in_lanes_too()) {
        check_pullback_by_rows::<f32>(&case, f64::from(f32::EPSILON));
        check_pullback_by_rows::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn pullback_winograd_dense(case in cases()) {
        check_pullback_by_patches::<f32>(&case, f64::from(f32::EPSILON));
        check_pullback_by_patches::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn pullback_of_several_layers_together(case in cases_in_lanes_too()) {
        check_together::<f32>(&case, f64::from(f32::EPSILON));
        check_together::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gather_depthwise(case in cases_in_lanes_too()) {
        check_gather::<f32>(&case, f64::from(f32::EPSILON));
        check_gather::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn spread_dense_and_compressed(case in cases_in_lanes_too()) {
        check_spread::<f32>(&case, f64::from(f32::EPSILON));
        check_spread::<f64>(&case, f64::EPSILON);
    }
}
