//! Products and masks.

use crate::kernels::{
    Active, Channelwise, DenseRows, Panels, Patches, Product, RowLayout, RowTable, SimdFloat, WinogradForm,
};
use proptest::prelude::*;

use super::cases::{CANARY, Draws, LayerCase, PATCHED, cases, close, image, sets, table};

/// Masks and lists, as each instruction set makes them, against one element at a time.
fn check_masks<T: SimdFloat>(case: &LayerCase) {
    let mut draws = Draws(case.seed);
    let (rows, channels) = (case.samples * case.rows[0], case.inputs);
    let (pitch, offset) = (channels + 3, 1);
    let mut values: Vec<T> = draws.numbers(rows * pitch);
    values.iter_mut().step_by(7).for_each(|x| *x = T::default());
    let dense = DenseRows { values: &values, pitch, offset, channels };
    let live = |row: usize| row % 5 != 3;
    let on = |row: usize, channel: &usize| live(row) && dense.row(row)[*channel] > T::default();
    let lists: Vec<Vec<usize>> =
        (0..rows).map(|row| (0..channels).filter(|channel| on(row, channel)).collect()).collect();
    for set in sets() {
        let found = Active::positive(set, dense, rows, live);
        assert_eq!(found, Active::from_lists(channels, &lists), "{set}, {case:?}");
    }
}

fn check_product_by_rows<T: SimdFloat>(case: &LayerCase, unit: f64) {
    check_product::<T>(case, &table(case, &mut Draws(case.seed)), None, unit);
}

fn check_product_by_patches<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let image = image(case, &mut draws);
    for form in [WinogradForm::Two, WinogradForm::Four] {
        check_product::<T>(&image.case, &image.table, Some(&image.patches(form)), PATCHED * unit);
    }
}

fn check_product<T: SimdFloat>(case: &LayerCase, table: &RowTable, patches: Option<&Patches>, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs, outputs, groups, rows: [before, behind], taps, share, .. } = *case;
    let weights: Vec<f64> = draws.numbers(taps * inputs * outputs);
    let weight = |tap: usize, i: usize, o: usize| {
        if case.joins(i, o) { weights[(tap * inputs + i) * outputs + o] } else { 0.0 }
    };
    let panels = match patches {
        Some(patches) => patches.panels(inputs, outputs, weight),
        None => Panels::<T>::forward(taps, inputs, outputs, groups, weight),
    };
    let is_live = |draws: &mut Draws| patches.is_some() || draws.below(10) < share.max(1);
    let live: Vec<_> = (0..behind).filter(|_| is_live(&mut draws)).collect();
    let (bias, x): (Vec<T>, Vec<T>) =
        (draws.numbers(outputs), draws.numbers(samples * before * (inputs + 4)));
    let residual: Vec<T> = draws.numbers(samples * behind * outputs);
    let source = DenseRows { values: &x, pitch: inputs + 4, offset: 3, channels: inputs };
    let layout = RowLayout { pitch: outputs + 7, offset: 2 };
    for (with, relu) in [(false, true), (true, false), (true, true)] {
        let dense = DenseRows { values: &residual, pitch: outputs, offset: 0, channels: outputs };
        let product = Product {
            table,
            patches,
            panels: &panels,
            bias: &bias,
            source,
            residual: with.then_some(dense),
            relu,
        };
        let mut expected = vec![CANARY; samples * behind * layout.pitch];
        for (sample, row) in (0..samples).flat_map(|sample| live.iter().map(move |row| (sample, *row))) {
            let to = sample * behind + row;
            for o in 0..outputs {
                let mut sum = bias[o].to_f64() + if with { residual[to * outputs + o].to_f64() } else { 0.0 };
                for tap in 0..taps {
                    let Some(from) = table.source(row, tap) else { continue };
                    let x = source.row(sample * before + from);
                    sum += (0..inputs).map(|i| x[i].to_f64() * weight(tap, i, o)).sum::<f64>();
                }
                expected[to * layout.pitch + 2 + o] = if relu { sum.max(0.0) } else { sum };
            }
        }
        for set in sets() {
            let mut out = vec![T::from_f64(CANARY); expected.len()];
            product.run(set, samples, &live, &mut out, layout);
            close(&out, &expected, unit, &format!("{set}, residual {with}, relu {relu}, {case:?}"));
        }
    }
}

/// A depthwise product.
fn check_channelwise<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs: channels, rows: [before, behind], taps, share, .. } = *case;
    let table = table(case, &mut draws);
    let weights: Vec<T> = draws.numbers(taps * channels);
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < share.max(1)).collect();
    let (bias, x): (Vec<T>, Vec<T>) =
        (draws.numbers(channels), draws.numbers(samples * before * (channels + 4)));
    let residual: Vec<T> = draws.numbers(samples * behind * channels);
    let source = DenseRows { values: &x, pitch: channels + 4, offset: 3, channels };
    let other = DenseRows { values: &residual, pitch: channels, offset: 0, channels };
    let layout = RowLayout { pitch: channels + 7, offset: 2 };
    for (residual, relu) in [(None, true), (Some(other), false), (Some(other), true)] {
        let mut expected = vec![CANARY; samples * behind * layout.pitch];
        for (sample, &row) in (0..samples).flat_map(|sample| live.iter().map(move |row| (sample, row))) {
            let to = sample * behind + row;
            for c in 0..channels {
                let mut sum = bias[c].to_f64() + residual.map_or(0.0, |other| other.row(to)[c].to_f64());
                for (tap, from) in (0..taps).filter_map(|tap| Some((tap, table.source(row, tap)?))) {
                    let x = source.row(sample * before + from)[c];
                    sum += x.to_f64() * weights[tap * channels + c].to_f64();
                }
                expected[to * layout.pitch + 2 + c] = if relu { sum.max(0.0) } else { sum };
            }
        }
        for set in sets() {
            let own = Channelwise { table: &table, weights: &weights, bias: &bias, source, residual, relu };
            let mut out = vec![T::from_f64(CANARY); expected.len()];
            own.run(set, samples, &live, &mut out, layout);
            close(&out, &expected, unit, &format!("{set}, relu {relu}, {case:?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn masks_and_lists_of_positive_numbers(case in cases()) {
        check_masks::<f32>(&case);
        check_masks::<f64>(&case);
    }

    #[test]
    fn product_by_rows(case in cases()) {
        check_product_by_rows::<f32>(&case, f64::from(f32::EPSILON));
        check_product_by_rows::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn product_winograd(case in cases()) {
        check_product_by_patches::<f32>(&case, f64::from(f32::EPSILON));
        check_product_by_patches::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn product_depthwise(case in cases()) {
        check_channelwise::<f32>(&case, f64::from(f32::EPSILON));
        check_channelwise::<f64>(&case, f64::EPSILON);
    }
}
