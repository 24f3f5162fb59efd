//! Gram matrices of gradients.

use crate::kernels::{
    ByChannel, ChannelwiseGram, Cotangents, DenseRows, ElementsOf, LineLayout, Normalized, PairGram, Patches,
    RowTable, SampleCotangents, SimdFloat, TileGram, WinogradForm, gram_of,
};
use proptest::prelude::*;

use super::cases::{
    Draws, GivenCotangents, LayerCase, PATCHED, ROUNDINGS, cases, given, image, sets, sets_for, table,
};

/// Rounding by pairs, in units of the rounding by tiles: what cancels among cotangents is rounded
/// twice.
const PAIRED: f64 = 4.0;

fn check_gram_by_rows<T: SimdFloat>(case: &LayerCase, unit: f64) {
    check_gram::<T>(case, &table(case, &mut Draws(case.seed)), None, unit);
}

fn check_gram_by_patches<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let image = image(case, &mut draws);
    check_gram::<T>(&image.case, &image.table, Some(&image.patches(WinogradForm::Four)), PATCHED * unit);
}

/// The Gram matrices of a layer's weight, of its bias, and of what is normalised after it.
fn check_gram<T: SimdFloat>(case: &LayerCase, table: &RowTable, patches: Option<&Patches>, unit: f64) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, inputs, outputs, rows: [before, behind], taps, lines, share, .. } = *case;
    let is_live = |draws: &mut Draws| patches.is_some() || draws.below(10) < 7;
    let live: Vec<_> = (0..behind).filter(|_| is_live(&mut draws)).collect();
    let mask = draws.active(samples * behind, outputs, share);
    let pitch = inputs + 4;
    let (x, y): (Vec<T>, Vec<T>) =
        (draws.numbers(samples * before * pitch + 64), draws.numbers(samples * behind * outputs));
    let rows = DenseRows { values: &x, pitch, offset: 3, channels: inputs };
    let others = DenseRows { values: &y, pitch: outputs, offset: 0, channels: outputs };
    let scale: Vec<T> = draws.numbers(outputs);
    let [mean, inverse] = [0, 1].map(|_| (0..outputs).map(|_| draws.number()).collect::<Vec<f64>>());
    let layouts = [
        LineLayout::Compressed(&mask),
        LineLayout::Dense { pitch: outputs + 5, offset: 2, channels: outputs },
    ];
    for (layout, sample) in layouts.into_iter().flat_map(|layout| (0..samples).map(move |s| (layout, s))) {
        let cotangents: GivenCotangents<T> = given(layout, samples * behind, lines, &mut draws);
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
        let near = |found: &[f64], expected: &[f64], unit: f64, what: &str| {
            near(found, expected, unit, &format!("{what}, {case:?}"));
        };
        let at = SampleCotangents { source, lines, rows: behind, live: &live, sample };
        let entries = ByChannel::new(at);
        let read = |p: usize, tap: usize| Some(rows.row(sample * before + table.source(p, tap)?));
        let product = |p: usize, q: usize, tap: usize| -> Option<f64> {
            Some(read(p, tap)?.iter().zip(read(q, tap)?).map(|(a, b)| a.to_f64() * b.to_f64()).sum())
        };
        let pair = |p: usize, q: usize| (0..taps).filter_map(|tap| product(p, q, tap)).sum::<f64>();
        // Above the diagonal there may be anything.
        let lower = |(p, q): (usize, usize)| if q > p { 7.0 } else { pair(p, q) };
        let inner: Vec<f64> =
            live.iter().flat_map(|&p| live.iter().map(move |&q| (p, q))).map(lower).collect();
        let normalized = Normalized { rows: others, mean: &mean, inverse: &inverse };
        let weight = inner_products(&gradients);
        let biases: Vec<Vec<f64>> = sums.chunks(outputs).map(<[f64]>::to_vec).collect();
        for set in sets_for(lines) {
            let outer = TileGram {
                table,
                patches,
                rows,
                live: &live,
                entries: &entries,
                outputs: [0, outputs],
                scale: Some(&scale),
            };
            near(&outer.gram(set, sample), &weight, unit, &format!("{set}, weight, {layout:?}"));
            let pairs =
                PairGram { inner: &inner, positions: live.len(), entries: &entries, scale: Some(&scale) };
            near(&pairs.gram(set), &weight, unit * PAIRED, &format!("{set}, weight by pairs, {layout:?}"));
            let [found, products] = at.sums(set, Some(normalized));
            near(&found, &sums, unit, "sums");
            near(&products, &moments, unit, "moments");
            assert_eq!(at.sums(set, None), [found, vec![]], "{set}, {case:?}");
            near(&gram_of(set, &sums, lines), &inner_products(&biases), f64::EPSILON, "bias");
        }
    }
}

/// The Gram matrix of a depthwise layer's weight, with as many channels as the case has outputs.
fn check_gram_depthwise<T: SimdFloat>(case: &LayerCase, unit: f64) {
    let mut draws = Draws(case.seed);
    let table = &table(case, &mut draws);
    let LayerCase { samples, outputs: channels, rows: [before, behind], taps, lines, share, .. } = *case;
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < 7).collect();
    let mask = draws.active(samples * behind, channels, share);
    let pitch = channels + 4;
    let x: Vec<T> = draws.numbers(samples * before * pitch + 64);
    let rows = DenseRows { values: &x, pitch, offset: 3, channels };
    let scale: Vec<T> = draws.numbers(channels);
    let dense = LineLayout::Dense { pitch: channels + 5, offset: 2, channels };
    for (layout, sample) in [LineLayout::Compressed(&mask), dense]
        .into_iter()
        .flat_map(|layout| (0..samples).map(move |s| (layout, s)))
    {
        let cotangents: GivenCotangents<T> = given(layout, samples * behind, lines, &mut draws);
        let source = Cotangents { values: &cotangents.values, layout };
        let mut gradients = vec![vec![0.0; taps * channels]; lines];
        for (&p, tap) in live.iter().flat_map(|p| (0..taps).map(move |tap| (p, tap))) {
            let Some(from) = table.source(p, tap) else { continue };
            for (v, (c, x)) in (0..lines)
                .flat_map(|v| rows.row(sample * before + from).iter().enumerate().map(move |x| (v, x)))
            {
                let g = cotangents.full[((sample * behind + p) * lines + v) * channels + c];
                gradients[v][tap * channels + c] += g * scale[c].to_f64() * x.to_f64();
            }
        }
        let at = SampleCotangents { source, lines, rows: behind, live: &live, sample };
        let expected = inner_products(&gradients);
        for set in sets_for(lines) {
            let gram = ChannelwiseGram { table, rows, cotangents: at, scale: Some(&scale) }.gram(set);
            near(&gram, &expected, unit, &format!("{set}, depthwise, {layout:?}, {case:?}"));
        }
    }
}

/// The Gram matrix of a tensor of five elements. Each element of a result belongs to one of them,
/// or to none.
fn check_gram_elements<T: SimdFloat>(case: &LayerCase) {
    let mut draws = Draws(case.seed);
    let LayerCase { samples, outputs: channels, rows: [_, behind], lines, share, .. } = *case;
    let live: Vec<_> = (0..behind).filter(|_| draws.below(10) < 7).collect();
    let mask = draws.active(samples * behind, channels, share);
    let of = |p: usize, c: usize| (p * 3 + c * 7) % 6;
    let owners = (0..behind).flat_map(|p| (0..channels).map(move |c| of(p, c)));
    let indices = owners.map(|at| if at < 5 { at as u32 } else { ElementsOf::NONE }).collect();
    let elements = ElementsOf { count: 5, indices };
    let dense = LineLayout::Dense { pitch: channels + 5, offset: 2, channels };
    for layout in [LineLayout::Compressed(&mask), dense] {
        let cotangents: GivenCotangents<T> = given(layout, samples * behind, lines, &mut draws);
        let source = Cotangents { values: &cotangents.values, layout };
        for sample in 0..samples {
            let mut owned = vec![vec![0.0; 5]; lines];
            for (&p, v) in live.iter().flat_map(|p| (0..lines).map(move |v| (p, v))) {
                let first = ((sample * behind + p) * lines + v) * channels;
                for (c, g) in cotangents.full[first..first + channels].iter().enumerate() {
                    owned[v].get_mut(of(p, c)).into_iter().for_each(|sum| *sum += g);
                }
            }
            let at = SampleCotangents { source, lines, rows: behind, live: &live, sample };
            for set in sets() {
                let what = format!("{set}, elements, {layout:?}, {case:?}");
                near(&elements.gram(set, at), &inner_products(&owned), f64::EPSILON, &what);
            }
        }
    }
}

/// The inner products of rows, `[V, V]`.
fn inner_products(rows: &[Vec<f64>]) -> Vec<f64> {
    let dot = |v: &Vec<f64>, w: &Vec<f64>| v.iter().zip(w).map(|(a, b)| a * b).sum();
    rows.iter().flat_map(|v| rows.iter().map(move |w| dot(v, w))).collect()
}

/// Asserts that all entries differ only by rounding, relative to the largest.
fn near(found: &[f64], expected: &[f64], unit: f64, what: &str) {
    let largest = expected.iter().fold(1.0_f64, |most, x| most.max(x.abs()));
    let bound = ROUNDINGS * unit * largest * 16.0;
    assert_eq!(found.len(), expected.len());
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= bound, "{what}: {worst:e}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gram_by_tiles_and_pairs(case in cases()) {
        check_gram_by_rows::<f32>(&case, f64::from(f32::EPSILON));
        check_gram_by_rows::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gram_winograd(case in cases()) {
        check_gram_by_patches::<f32>(&case, f64::from(f32::EPSILON));
        check_gram_by_patches::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gram_depthwise(case in cases()) {
        check_gram_depthwise::<f32>(&case, f64::from(f32::EPSILON));
        check_gram_depthwise::<f64>(&case, f64::EPSILON);
    }

    #[test]
    fn gram_of_elements(case in cases()) {
        check_gram_elements::<f32>(&case);
        check_gram_elements::<f64>(&case);
    }
}
