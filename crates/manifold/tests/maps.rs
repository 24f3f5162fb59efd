//! Maps: every window against the golden values and against the reference route on the window's own
//! columns.
#![allow(clippy::print_stdout, reason = "the differences from the reference are worth seeing")]

mod common;

use common::{Golden, Random, golden_files};
use influence_manifold::{Channels, Error, Filter, Map, PixelTangent, Probabilities, SampleObjective};

/// Tolerance against the golden maps.
const GOLDEN: f64 = 1e-7;
/// Tolerance of the fast routes against the reference route. They accept values with an estimated
/// error of up to 1e-9, or 1e-8 for the authors' numerics.
const TWIN: f64 = 1e-8;
const TWIN_PAPER: f64 = 2e-8;
const TWIN_PAPER_F32: f64 = 2e-6;
const NORM: f64 = 1e-12;

fn maps(golden: &Golden, i: usize, filter: &str, scales: &[usize], channels: Channels) -> Vec<Map> {
    let shape: [usize; 3] = golden.shape("jacobian_input")[2..].try_into().expect("C, H, W");
    let pixels = PixelTangent::new(golden.sample("logits", i), golden.sample("jacobian_input", i), shape);
    let filter: Filter = filter.parse().expect("a filter");
    pixels.expect("sound").maps(&SampleObjective::Predicted, &filter, scales, channels).expect("maps")
}

fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let relative = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() / b.abs().max(1e-300) };
    found.iter().zip(expected).map(relative).fold(0.0, f64::max)
}

#[test]
fn maps_meet_the_golden_values() {
    for (name, golden) in golden_files() {
        for i in 0..golden.shape("map_exact_joint_scale0")[0] {
            for map in maps(&golden, i, "paper:1e-3", &[0, 1, 2, 3], Channels::Separate) {
                let expected = golden.sample(&format!("map_paper_scale{}", map.half_width), i);
                let difference = worst(&map.values, expected);
                println!("{name:24} {i} paper {} {difference:.1e}", map.half_width);
                assert!(difference <= GOLDEN, "{name} {i} {}: {difference:e}", map.half_width);
            }
            for map in maps(&golden, i, "exact", &[0, 1], Channels::Joint) {
                let expected = format!("map_exact_joint_scale{}", map.half_width);
                let difference = worst(&map.values, golden.sample(&expected, i));
                println!("{name:24} {i} exact {} {difference:.1e}", map.half_width);
                assert!(difference <= GOLDEN, "{name} {i} {}: {difference:e}", map.half_width);
                let ranks: Vec<i64> = map.ranks.iter().map(|rank| *rank as i64).collect();
                assert_eq!(ranks, golden.sample_integers(&format!("rank_{expected}"), i), "{name} {i}");
            }
        }
    }
}

/// Rows whose neighbouring columns are similar, as in a network, and some that are equal or zero.
fn rows(random: &mut Random, classes: usize, [c, h, w]: [usize; 3]) -> Vec<f64> {
    let plane = h * w;
    let mut rows = Vec::new();
    for _ in 0..(classes - 1) * c {
        let (slope, noise) = (random.vector(3, 1.0), random.vector(plane, 0.3));
        rows.extend((0..plane).map(|at| {
            let (y, x) = (at / w, at % w);
            match (y, x) {
                (0, 0) => 0.0,
                (1, 0 | 1) => slope[0],
                _ => slope[0] * (0.3 * y as f64).sin() + slope[1] * (0.4 * x as f64).cos() + noise[at],
            }
        }));
    }
    rows
}

/// All windows of some maps against the reference route.
fn check<T: influence_manifold::Scalar>(
    pixels: &PixelTangent<'_, T>,
    objective: &SampleObjective,
    filter: &str,
    tolerance: f64,
) {
    let filter: Filter = filter.parse().expect("a filter");
    for channels in [Channels::Joint, Channels::Separate] {
        for map in pixels.maps(objective, &filter, &[2, 0, 1], channels).expect("maps") {
            let [_, height, width] = map.shape;
            for at in 0..map.values.len() {
                let place = [at / width / height, at / width % height, at % width];
                let twin =
                    pixels.window(objective, &filter, map.half_width, channels, place).expect("a window");
                let context = format!("{objective} {filter} {channels:?} {} {place:?}", map.half_width);
                let close = |a: f64, b: f64| a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs());
                assert!(
                    close(map.values[at], twin.value),
                    "{context}: {:e} {:e}",
                    map.values[at],
                    twin.value
                );
                assert!(close(map.reach[at], twin.reach), "{context}: {:e} {:e}", map.reach[at], twin.reach);
                assert_eq!((map.ranks[at], map.ambiguous[at]), (twin.rank, twin.ambiguous), "{context}");
                assert!(close(map.bound, twin.bound), "{context}");
            }
        }
    }
}

#[test]
fn every_window_is_that_of_its_own_columns() {
    let mut random = Random(7);
    for (classes, shape, gap) in [
        (10, [3, 6, 7], 1.0),
        (10, [1, 7, 6], 12.0),
        (3, [2, 5, 5], 30.0),
        (2, [1, 5, 6], 3.0),
        (40, [1, 5, 5], 5.0),
    ] {
        let rows = rows(&mut random, classes, shape);
        let single: Vec<f32> = rows.iter().map(|x| *x as f32).collect();
        let logits = random.vector(classes, gap);
        let pixels = PixelTangent::new(&logits, &rows, shape).expect("sound");
        let in_f32 = PixelTangent::new(&logits, &single, shape).expect("sound");
        let objectives = [
            SampleObjective::Predicted,
            SampleObjective::class(classes - 1),
            SampleObjective::Entropy,
            SampleObjective::Margin,
        ];
        for objective in objectives {
            for filter in ["exact", "tikhonov:1e-2", "tikhonov:1", "tikhonov:1e4"] {
                check(&pixels, &objective, filter, TWIN);
                check(&in_f32, &objective, filter, TWIN);
            }
            if objective.is_neg_log_probability() {
                for filter in ["paper", "paper:1e-8", "paper:1e-3:0.255"] {
                    check(&pixels, &objective, filter, TWIN_PAPER);
                    check(&in_f32, &objective, filter, TWIN_PAPER_F32);
                }
            }
        }
    }
}

/// Logit gaps and scales of the rows that exceed the range of plain numbers.
#[test]
fn windows_beyond_plain_numbers_are_measured_too() {
    let mut random = Random(8);
    let rows = rows(&mut random, 3, [1, 5, 5]);
    for scale in [1e-200, 1.0, 1e200] {
        let rows: Vec<f64> = rows.iter().map(|x| x * scale).collect();
        for logits in [[800.0, 810.0, 0.0], [0.0, 0.5, -700.0], [0.1, 0.0, 0.2]] {
            let pixels = PixelTangent::new(&logits, &rows, [1, 5, 5]).expect("sound");
            check(&pixels, &SampleObjective::class(0), "exact", TWIN);
        }
    }
}

/// Maps of the whole golden Jacobians in f32 and of filters without golden maps.
#[test]
fn maps_of_trained_networks_are_those_of_the_reference_route() {
    for (name, golden) in golden_files() {
        let shape: [usize; 3] = golden.shape("jacobian_input")[2..].try_into().expect("C, H, W");
        let single: Vec<f32> = golden.sample("jacobian_input", 1).iter().map(|x| *x as f32).collect();
        let pixels = PixelTangent::new(golden.sample("logits", 1), &single, shape).expect("sound");
        for filter in ["exact", "tikhonov:1", "tikhonov:1e4"] {
            let filter: Filter = filter.parse().expect("a filter");
            for channels in [Channels::Joint, Channels::Separate] {
                for map in
                    pixels.maps(&SampleObjective::Predicted, &filter, &[0, 1, 3], channels).expect("maps")
                {
                    for at in (0..map.values.len()).step_by(53) {
                        let place = [at / shape[1] / shape[2], at / shape[2] % shape[1], at % shape[2]];
                        let twin = pixels.window(
                            &SampleObjective::Predicted,
                            &filter,
                            map.half_width,
                            channels,
                            place,
                        );
                        let twin = twin.expect("a window");
                        let relative = (map.values[at] - twin.value).abs() / twin.value;
                        assert!(relative <= TWIN, "{name} {filter} {channels:?} {place:?} {relative:e}");
                        assert_eq!(map.ranks[at], twin.rank, "{name} {filter} {channels:?} {place:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn regions_hold_the_columns_of_their_labels() {
    let mut random = Random(9);
    let shape = [2, 4, 5];
    let rows = rows(&mut random, 10, shape);
    let logits = random.vector(10, 2.0);
    let pixels = PixelTangent::new(&logits, &rows, shape).expect("sound");
    // The window of half-width 1 around (2, 3) as one label, the corner as another.
    let inside = |at: usize| (1..4).contains(&(at / 5)) && (2..5).contains(&(at % 5));
    let labels: Vec<u32> = (0..20).map(|at| if inside(at) { 7 } else { u32::from(at == 0) }).collect();
    for (channels, place) in [(Channels::Joint, [0, 2, 3]), (Channels::Separate, [1, 2, 3])] {
        let filter = Filter::exact();
        let regions =
            pixels.regions(&SampleObjective::Predicted, &filter, &labels, channels).expect("regions");
        let window =
            pixels.window(&SampleObjective::Predicted, &filter, 1, channels, place).expect("a window");
        let region = regions.iter().rev().find(|region| region.label == 7).expect("the label");
        assert_eq!(region.influence, window);
        assert_eq!(region.pixels, 9);
        assert_eq!(regions.len(), if channels == Channels::Joint { 3 } else { 6 });
    }
    let wrong = pixels.regions(&SampleObjective::Predicted, &Filter::exact(), &labels[1..], Channels::Joint);
    assert!(matches!(wrong, Err(Error::WrongLength { .. })));
}

#[test]
fn gradients_and_their_norms_are_those_of_the_columns() {
    let mut random = Random(10);
    let shape = [2, 5, 6];
    let rows = rows(&mut random, 4, shape);
    let logits = [0.3, -1.0, 0.9, 0.1];
    let pixels = PixelTangent::new(&logits, &rows, shape).expect("sound");
    let p = Probabilities::new(&logits).expect("sound").values();
    let df = pixels.gradient(&SampleObjective::class(1)).expect("a gradient");
    for (i, df) in df.iter().enumerate() {
        let expected: f64 = (0..3).map(|k| (p[k] - if k == 1 { 1.0 } else { 0.0 }) * rows[k * 60 + i]).sum();
        assert!((df - expected).abs() < NORM);
    }
    let norms = pixels.gradient_norms(&SampleObjective::class(1), 1, Channels::Joint).expect("norms");
    let mut square = 0.0;
    for channel in 0..2 {
        for y in 3..5 {
            for x in 0..2 {
                square += df[(channel * 5 + y) * 6 + x].powi(2);
            }
        }
    }
    assert!((norms[4 * 6] - square.sqrt()).abs() < NORM);
}

#[test]
fn what_has_no_map_is_refused() {
    let (rows, logits) = (vec![1.0; 2 * 20], [0.0, 1.0, 2.0]);
    let pixels = PixelTangent::new(&logits, &rows, [1, 4, 5]).expect("sound");
    let maps = |scales: &[usize]| {
        pixels.maps(&SampleObjective::Predicted, &Filter::exact(), scales, Channels::Joint)
    };
    assert!(matches!(maps(&[]), Err(Error::NoHalfWidths)));
    assert!(matches!(maps(&[1, 0, 1]), Err(Error::RepeatedHalfWidth { half_width: 1 })));
    assert!(maps(&[2]).is_ok(), "5 x 5 pixels are not larger than 4 x 5");
    assert!(matches!(maps(&[0, 3]), Err(Error::WindowTooLarge { half_width: 3, height: 4, width: 5 })));
    assert!(matches!(maps(&[usize::MAX]), Err(Error::WindowTooLarge { .. })));
    let paper: Filter = "paper".parse().expect("a filter");
    let refused = pixels.maps(&SampleObjective::Margin, &paper, &[0], Channels::Joint);
    assert!(matches!(refused, Err(Error::PaperObjective { .. })));
    let refused = pixels.maps(&SampleObjective::class(3), &Filter::exact(), &[0], Channels::Joint);
    assert!(matches!(refused, Err(Error::ClassOutOfRange { .. })));
    assert!(matches!(PixelTangent::new(&logits, &rows[1..], [1, 4, 5]), Err(Error::WrongLength { .. })));
    assert!(matches!(PixelTangent::new(&logits, &rows, [1, 0, 5]), Err(Error::NoColumns)));
    let mut broken = rows.clone();
    broken[7] = f64::NAN;
    assert!(matches!(PixelTangent::new(&logits, &broken, [1, 4, 5]), Err(Error::NonFinite { index: 7, .. })));
    let outside = pixels.window(&SampleObjective::Predicted, &Filter::exact(), 0, Channels::Joint, [0, 4, 0]);
    assert!(matches!(outside, Err(Error::NoSuchWindow { .. })));
}
