//! Objectives other than -log P against closed forms, the dense p x p route and differences of h;
//! their invariances; and `outside`.

mod common;

use common::{
    Dense, Random, assert_close, close, fisher, measure, pseudo_inverse_quadratic, run, softmax, tangent,
};
use influence_manifold::{Error, Filter, Row, RowPrecision, SampleObjective, Tangent, baselines, influence};
use proptest::prelude::*;

const CLASSES: usize = 6;
const COLUMNS: usize = 8;
const ROUNDING: f64 = 1e-12;
/// Tolerance of values from rows in float64, of a condition up to a thousand.
const ROWS: f64 = 1e-8;
/// Tolerances of routes through G and through Gram matrices, which square the condition.
const ROUTES: f64 = 1e-7;
const GRAM: f64 = 1e-5;
/// Step and tolerance of central differences in float64.
const STEP: f64 = 1e-6;
const DIFFERENCES: f64 = 1e-7;
const COSTS: [f64; CLASSES] = [0.0, 1.5, -2.0, 4.0, 0.25, 1.5];

/// An objective with its function h and its gradient dh in plain numbers.
struct Known {
    objective: SampleObjective,
    h: fn(&[f64]) -> f64,
    dh: fn(&[f64]) -> Vec<f64>,
}

fn entropy(z: &[f64]) -> f64 {
    softmax(z).iter().map(|p| -p * p.ln()).sum()
}

fn expected_cost(z: &[f64]) -> f64 {
    softmax(z).iter().zip(COSTS).map(|(p, c)| p * c).sum()
}

/// P_k (g_k - E g).
fn through_probabilities(z: &[f64], g: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let p = softmax(z);
    let g: Vec<f64> = p.iter().enumerate().map(|(k, p)| g(k, *p)).collect();
    let mean: f64 = p.iter().zip(&g).map(|(p, g)| p * g).sum();
    p.iter().zip(&g).map(|(p, g)| p * (g - mean)).collect()
}

fn largest(z: &[f64], except: Option<usize>) -> usize {
    let order = (0..z.len()).filter(|k| Some(*k) != except);
    order.reduce(|best, k| if z[k] > z[best] { k } else { best }).expect("a class")
}

/// e_a - e_b.
fn difference(a: usize, b: usize) -> Vec<f64> {
    (0..CLASSES).map(|k| f64::from(u8::from(k == a)) - f64::from(u8::from(k == b))).collect()
}

fn known() -> Vec<Known> {
    let square = |z: &[f64]| (0..CLASSES).map(|k| (z[0] - z[1]) * difference(0, 1)[k]).collect::<Vec<_>>();
    vec![
        Known {
            objective: SampleObjective::Entropy,
            h: entropy,
            dh: |z| through_probabilities(z, |_, p| -p.ln()),
        },
        Known {
            objective: SampleObjective::Margin,
            h: |z| z[largest(z, None)] - z[largest(z, Some(largest(z, None)))],
            dh: |z| difference(largest(z, None), largest(z, Some(largest(z, None)))),
        },
        Known {
            objective: SampleObjective::margin_of(2),
            h: |z| z[2] - z[largest(z, Some(2))],
            dh: |z| difference(2, largest(z, Some(2))),
        },
        Known {
            objective: SampleObjective::expected_cost(COSTS).expect("costs"),
            h: expected_cost,
            dh: |z| through_probabilities(z, |k, _| COSTS[k]),
        },
        Known {
            objective: SampleObjective::probabilities("gini", |p| {
                p.values().iter().map(|p| -2.0 * p).collect()
            }),
            h: |z| 1.0 - softmax(z).iter().map(|p| p * p).sum::<f64>(),
            dh: |z| through_probabilities(z, |_, p| -2.0 * p),
        },
        Known {
            objective: SampleObjective::logits("square", move |p| square(p.logits())),
            h: |z| 0.5 * (z[0] - z[1]).powi(2),
            dh: |z| difference(0, 1).iter().map(|d| d * (z[0] - z[1])).collect(),
        },
    ]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A planted Jacobian with a condition of at most 30, and logits whose three largest are well
/// apart.
fn sample(seed: u64, rank: usize) -> Option<(Vec<f64>, Dense)> {
    let mut random = Random(seed);
    let jacobian = random.planted(CLASSES, COLUMNS, rank);
    let singular = tangent(&jacobian).singular_values().to_vec();
    let logits = random.vector(CLASSES, 3.0);
    let mut sorted = logits.clone();
    sorted.sort_by(f64::total_cmp);
    let apart = sorted.windows(2).all(|pair| pair[1] - pair[0] > 1e-3);
    (apart && singular[0] < 30.0 * singular[rank - 1]).then_some((logits, jacobian))
}

fn gram(jacobian: &Dense) -> Tangent {
    Tangent::from_gram(&jacobian.gram().values, jacobian.rows, RowPrecision::F64).expect("tangent")
}

proptest! {
    #![proptest_config(common::cases(48))]

    #[test]
    fn gradients_meet_differences_of_h(seed in any::<u64>(), rank in 1..CLASSES) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        for Known { objective, h, dh } in known() {
            let at = |k: usize, step: f64| {
                let moved: Vec<f64> = (0..CLASSES).map(|j| logits[j] + if j == k { step } else { 0.0 }).collect();
                h(&moved)
            };
            let slopes: Vec<f64> = (0..CLASSES).map(|k| (at(k, STEP) - at(k, -STEP)) / (2.0 * STEP)).collect();
            let scale = slopes.iter().fold(0.0_f64, |scale, x| scale.max(x.abs()));
            let plain = dh(&logits);
            prop_assert!(slopes.iter().zip(&plain).all(|(x, y)| (x - y).abs() <= DIFFERENCES * scale.max(1e-2)));
            let df = jacobian.transpose().apply(&plain);
            let norm = baselines(&logits, &tangent(&jacobian), &objective).expect("baselines").jacobian_norm.expect("known");
            prop_assert!(close(norm, dot(&df, &df).sqrt(), ROWS), "{objective}");
        }
    }

    #[test]
    fn dense_routes_agree(seed in any::<u64>(), rank in 1..CLASSES, exponent in -3.0..3.0_f64) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        let (g, lambda) = (fisher(&logits, &jacobian), 10_f64.powf(exponent));
        let damped = Dense::from_fn(COLUMNS, COLUMNS, |i, j| g.at(i, j) + if i == j { lambda } else { 0.0 });
        for Known { objective, dh, .. } in known() {
            let df = jacobian.transpose().apply(&dh(&logits));
            let found = measure(&logits, &tangent(&jacobian), &objective, "exact");
            let expected = pseudo_inverse_quadratic(&g, &df, 1e-11);
            prop_assert!(close(found.value, expected, ROUTES), "{objective} {} {expected}", found.value);
            prop_assert!(found.rank == rank && found.outside == 0.0 && found.value <= found.bound);
            let through = measure(&logits, &gram(&jacobian), &objective, "exact").value;
            prop_assert!(close(found.value, through, GRAM), "{objective}");
            let found = measure(&logits, &tangent(&jacobian), &objective, &format!("tikhonov:{lambda:e}"));
            prop_assert!(close(found.value, pseudo_inverse_quadratic(&damped, &df, 0.0), ROUTES), "{objective}");
            // h solves (G + lambda I) h = df.
            let image = damped.apply(&found.direction(&jacobian.values, COLUMNS).expect("direction"));
            let norm = dot(&df, &df).sqrt();
            prop_assert!(image.iter().zip(&df).all(|(x, y)| (x - y).abs() <= ROUTES * norm), "{objective}");
        }
    }

    #[test]
    fn coordinates_names_and_shifts_change_nothing(seed in any::<u64>(), rank in 1..CLASSES, shift in -500.0..500.0_f64) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        let mut random = Random(seed ^ 3);
        let map = random.conditioned(COLUMNS, 1e3);
        let order = random.permutation(CLASSES);
        let renamed: Vec<f64> = order.iter().map(|k| logits[*k] + shift).collect();
        let rows = jacobian.select_rows(&order);
        let place = order.iter().position(|k| *k == 2).expect("a class");
        let costs: Vec<f64> = order.iter().map(|k| COSTS[*k]).collect();
        let cost = |costs: &[f64]| SampleObjective::expected_cost(costs).expect("costs");
        for (before, after) in [
            (SampleObjective::Entropy, SampleObjective::Entropy),
            (SampleObjective::Margin, SampleObjective::Margin),
            (SampleObjective::margin_of(2), SampleObjective::margin_of(place)),
            (cost(&COSTS), cost(&costs)),
        ] {
            let once = measure(&logits, &tangent(&jacobian), &before, "exact");
            let moved = jacobian.times(&map);
            let units = Dense::from_fn(CLASSES, COLUMNS, |k, i| jacobian.at(k, i) / 255.0);
            let order = Random(seed).permutation(COLUMNS);
            for jacobian in [&moved, &units, &jacobian.select(&order), &jacobian.differences()] {
                let tangent = Tangent::from_rows(&jacobian.values, CLASSES, COLUMNS).expect("tangent");
                let found = measure(&logits, &tangent, &before, "exact");
                prop_assert!(close(once.value, found.value, ROWS), "{before} {} {}", once.value, found.value);
            }
            prop_assert!(close(once.value, measure(&logits, &gram(&moved), &before, "exact").value, GRAM));
            for filter in ["exact", "tikhonov:0.1"] {
                let found = measure(&renamed, &tangent(&rows), &after, filter);
                let once = measure(&logits, &tangent(&jacobian), &before, filter);
                prop_assert!(close(once.value, found.value, ROWS) && close(once.bound, found.bound, ROWS), "{before}");
            }
        }
    }

    /// Invariances of the expected cost: a class split into two halves with the same cost; an added
    /// class of negligible probability and any cost.
    #[test]
    fn split_and_vanishing_classes_change_no_expected_cost(seed in any::<u64>(), rank in 1..CLASSES - 2) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        let whole = measure(&logits, &tangent(&jacobian), &SampleObjective::expected_cost(COSTS).expect("costs"), "exact");
        let order: Vec<usize> = (0..CLASSES).chain([4]).collect();
        let half = |at: usize| if order[at] == 4 { std::f64::consts::LN_2 } else { 0.0 };
        let halves: Vec<f64> = (0..=CLASSES).map(|at| logits[order[at]] - half(at)).collect();
        let costs: Vec<f64> = order.iter().map(|k| COSTS[*k]).collect();
        let rows = jacobian.select_rows(&order);
        let parts = measure(&halves, &tangent(&rows), &SampleObjective::expected_cost(costs).expect("costs"), "exact");
        prop_assert!(parts.rank == whole.rank && close(parts.value, whole.value, ROWS) && close(parts.bound, whole.bound, ROWS));
        let mut costs = COSTS.to_vec();
        costs.push(17.0);
        let order: Vec<usize> = (0..CLASSES).chain([0]).collect();
        for depth in [100.0, 400.0, 1e4, 1e100] {
            let mut more = logits.clone();
            more.push(-depth);
            let objective = SampleObjective::expected_cost(costs.clone()).expect("costs");
            let found = measure(&more, &tangent(&jacobian.select_rows(&order)), &objective, "exact");
            prop_assert!(close(found.value, whole.value, ROWS), "{} {}", found.value, whole.value);
        }
    }

    /// Any row df against the dense pseudo-inverse and the dense projection; damping includes the
    /// part outside the row space.
    #[test]
    fn general_rows_meet_the_dense_routes(seed in any::<u64>(), rank in 1..CLASSES, exponent in -3.0..3.0_f64) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        let (g, lambda) = (fisher(&logits, &jacobian), 10_f64.powf(exponent));
        let damped = Dense::from_fn(COLUMNS, COLUMNS, |i, j| g.at(i, j) + if i == j { lambda } else { 0.0 });
        let df = Random(seed ^ 5).vector(COLUMNS, 2.0);
        let outside = outside(&jacobian, &df);
        let row = |rows: &Dense| Row::from_rows(&rows.values, CLASSES, COLUMNS, &df).map(SampleObjective::Row).expect("row");
        let products = Row::from_products(&jacobian.apply(&df), CLASSES, dot(&df, &df).sqrt()).map(SampleObjective::Row).expect("row");
        for (objective, tangent, tolerance) in [
            (row(&jacobian), tangent(&jacobian), ROUTES),
            (row(&jacobian.differences()), tangent(&jacobian), ROUTES),
            (products, gram(&jacobian), GRAM),
        ] {
            let found = measure(&logits, &tangent, &objective, "exact");
            let expected = pseudo_inverse_quadratic(&g, &df, 1e-11);
            prop_assert!(close(found.value, expected, tolerance), "{} {expected}", found.value);
            prop_assert!(close(found.outside, outside, tolerance), "{} {outside}", found.outside);
            prop_assert!(found.bound == f64::INFINITY && found.reach == 0.0 && !found.ambiguous);
            let found = measure(&logits, &tangent, &objective, &format!("tikhonov:{lambda:e}"));
            prop_assert!(close(found.value, pseudo_inverse_quadratic(&damped, &df, 0.0), tolerance));
            let norm = baselines(&logits, &tangent, &objective).expect("baselines").jacobian_norm.expect("known");
            prop_assert!(close(norm, dot(&df, &df).sqrt(), ROUNDING));
        }
    }

    /// h = z_1: a common shift of the logits changes it. From K rows, their Gram matrix, and blocks
    /// of columns.
    #[test]
    fn objectives_that_see_a_common_shift(seed in any::<u64>(), rank in 1..CLASSES) {
        let Some((logits, jacobian)) = sample(seed, rank) else { return Ok(()) };
        let objective = SampleObjective::logits("z_1", |p| (0..p.classes()).map(|k| f64::from(u8::from(k == 1))).collect());
        let df: Vec<f64> = (0..COLUMNS).map(|i| jacobian.at(1, i)).collect();
        let (expected, outside) = (pseudo_inverse_quadratic(&fisher(&logits, &jacobian), &df, 1e-11), outside(&jacobian, &df));
        let (left, right): (Vec<usize>, Vec<usize>) = ((0..3).collect(), (3..COLUMNS).collect());
        let blocks = [left, right].map(|columns| tangent(&jacobian.select(&columns)));
        let merged = Tangent::merged(&blocks).expect("merged");
        for (tangent, tolerance) in [(tangent(&jacobian), ROUTES), (merged, ROUTES), (gram(&jacobian), GRAM)] {
            let found = measure(&logits, &tangent, &objective, "exact");
            prop_assert!(close(found.value, expected, tolerance), "{} {expected}", found.value);
            // With full row rank of J the common shift is an independent direction, and `outside`
            // is positive. Otherwise it lies in the row space.
            let scale = dot(&df, &df);
            prop_assert!((found.outside - outside).abs() <= tolerance * scale, "{} {outside}", found.outside);
            let norm = baselines(&logits, &tangent, &objective).expect("baselines").jacobian_norm.expect("known");
            prop_assert!(close(norm, scale.sqrt(), ROWS));
        }
    }
}

/// |df|^2 minus the square of its projection on the row space of C J.
fn outside(jacobian: &Dense, df: &[f64]) -> f64 {
    let centred = Dense::from_fn(CLASSES, COLUMNS, |k, i| {
        jacobian.at(k, i) - (0..CLASSES).map(|j| jacobian.at(j, i)).sum::<f64>() / CLASSES as f64
    });
    let (values, vectors) = centred.transpose().times(&centred).eigen();
    let largest = values.iter().copied().fold(0.0, f64::max);
    let rest = (0..COLUMNS).filter(|i| values[*i] <= 1e-11 * largest);
    rest.map(|i| (0..COLUMNS).map(|j| vectors.at(j, i) * df[j]).sum::<f64>().powi(2)).sum()
}

#[test]
fn full_rank_meets_the_closed_forms() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let (logits, jacobian) = (random.vector(CLASSES, 5.0), random.matrix(CLASSES, COLUMNS));
        let p = softmax(&logits);
        let variance = |x: &dyn Fn(usize) -> f64| {
            let mean: f64 = (0..CLASSES).map(|k| p[k] * x(k)).sum();
            (0..CLASSES).map(|k| p[k] * (x(k) - mean).powi(2)).sum::<f64>()
        };
        let (top, second) = (largest(&logits, None), largest(&logits, Some(largest(&logits, None))));
        for (objective, expected) in [
            (SampleObjective::Entropy, variance(&|k| p[k].ln())),
            (SampleObjective::Margin, 1.0 / p[top] + 1.0 / p[second]),
            (SampleObjective::margin_of(2), 1.0 / p[2] + 1.0 / p[largest(&logits, Some(2))]),
            (SampleObjective::expected_cost(COSTS).expect("costs"), variance(&|k| COSTS[k])),
        ] {
            let found = measure(&logits, &tangent(&jacobian), &objective, "exact");
            assert_eq!((found.rank, found.reach), (CLASSES - 1, 1.0), "{objective}");
            assert_close(found.value, expected, 1e-10);
        }
    }
}

/// One direction a, at logit gaps at which plain probabilities underflow.
#[test]
fn one_direction_by_hand_at_any_gap() {
    let a = [0.5, -0.25, 1.5];
    let tangent = tangent(&Dense::new(3, 1, a.to_vec()));
    let ratio = 2.0 * ((a[2] - a[0]) / (a[1] - a[0])).abs().ln();
    for gap in [50.0_f64, 800.0, 2_000.0, 1e6] {
        let logits = [0.0, -gap, -2.5 * gap];
        for (objective, expected) in [
            (SampleObjective::Entropy, 2.0 * gap.ln() - gap),
            (SampleObjective::Margin, gap),
            (SampleObjective::margin_of(2), gap + ratio),
            (SampleObjective::expected_cost([1.0, 4.0, -7.0]).expect("costs"), 9.0_f64.ln() - gap),
        ] {
            let found = measure(&logits, &tangent, &objective, "exact");
            let log = found.log10.expect("above 0") * std::f64::consts::LN_10;
            assert!((log - expected).abs() <= 1e-13 * gap.max(100.0), "{objective} {gap}: {log} {expected}");
            assert!(!found.ambiguous && found.value.is_finite() == (expected < 709.0));
            let norm =
                baselines(&logits, &tangent, &objective).expect("baselines").jacobian_norm.expect("known");
            assert!(norm.is_finite());
        }
    }
}

#[test]
fn a_flat_objective_has_no_influence() {
    let tangent = tangent(&Random(3).matrix(4, 5));
    let flat = SampleObjective::expected_cost([2.5; 4]).expect("costs");
    let none = SampleObjective::logits("none", |p| vec![0.0; p.classes()]);
    for objective in [SampleObjective::Entropy, flat, none] {
        for filter in ["exact", "tikhonov:1"] {
            let found = measure(&[3.0; 4], &tangent, &objective, filter);
            assert_eq!(
                (found.value, found.log10, found.bound, found.reach),
                (0.0, None, 0.0, 0.0),
                "{objective}"
            );
            assert!(!found.ambiguous && found.coefficients == [0.0; 4] && found.rank == 3);
        }
        let norm =
            baselines(&[3.0; 4], &tangent, &objective).expect("baselines").jacobian_norm.expect("known");
        assert_eq!(norm, 0.0);
    }
}

#[test]
fn a_multiple_has_the_square_of_its_factor() {
    let mut random = Random(17);
    let (logits, tangent) = (random.vector(CLASSES, 4.0), tangent(&random.planted(CLASSES, COLUMNS, 3)));
    let cost = |factor: f64| SampleObjective::expected_cost(COSTS.map(|c| c * factor + 11.0)).expect("costs");
    for filter in ["exact", "tikhonov:0.1"] {
        let once = measure(&logits, &tangent, &cost(1.0), filter);
        let often = measure(&logits, &tangent, &cost(-8.0), filter);
        assert_close(64.0 * once.value, often.value, ROUNDING);
        assert_close(64.0 * once.bound, often.bound, ROUNDING);
        let scaled = once.coefficients.iter().zip(&often.coefficients);
        scaled
            .for_each(|(c, multiple)| assert!((multiple + 8.0 * c).abs() <= ROWS * multiple.abs().max(1e-6)));
    }
}

/// -log P_y four ways: named, through P, through z, and as the row J^T (P - e_y).
#[test]
fn one_objective_by_every_route() {
    let mut random = Random(29);
    for rank in 1..CLASSES {
        let (logits, jacobian) = (random.vector(CLASSES, 3.0), random.planted(CLASSES, COLUMNS, rank));
        let tangent = tangent(&jacobian);
        let through_p = SampleObjective::probabilities("p", |p| {
            (0..CLASSES).map(|k| if k == 1 { -1.0 / p.values()[k] } else { 0.0 }).collect()
        });
        let plain = |p: &[f64]| (0..CLASSES).map(|k| p[k] - f64::from(u8::from(k == 1))).collect::<Vec<_>>();
        let df = jacobian.transpose().apply(&plain(&softmax(&logits)));
        let through_z = SampleObjective::logits("z", move |p| plain(&p.values()));
        let row =
            Row::from_rows(&jacobian.values, CLASSES, COLUMNS, &df).map(SampleObjective::Row).expect("row");
        for filter in ["exact", "tikhonov:0.3"] {
            let expected = run(&logits, &tangent, 1, filter);
            for objective in [&through_p, &through_z, &row] {
                let found = measure(&logits, &tangent, objective, filter);
                assert_close(found.value, expected.value, ROWS);
                assert_eq!((found.rank, found.outside), (rank, 0.0), "{objective}");
            }
        }
    }
}

#[test]
fn rows_that_the_distribution_never_sees() {
    // The logits depend on the first coordinate only, f on the second only.
    let jacobian = Dense::new(2, 2, vec![1.0, 0.0, -1.0, 0.0]);
    let row =
        |df: [f64; 2]| Row::from_rows(&jacobian.values, 2, 2, &df).map(SampleObjective::Row).expect("row");
    let found = measure(&[0.0, 0.0], &tangent(&jacobian), &row([0.0, 3.0]), "exact");
    assert_eq!((found.value, found.log10), (0.0, None));
    assert_close(found.outside, 9.0, ROUNDING);
    assert_eq!((found.bound, found.reach), (f64::INFINITY, 0.0));
    let damped = measure(&[0.0, 0.0], &tangent(&jacobian), &row([0.0, 3.0]), "tikhonov:2");
    assert_close(damped.value, 4.5, ROUNDING);
    // G = 1 along the first coordinate.
    let both = measure(&[0.0, 0.0], &tangent(&jacobian), &row([2.0, 3.0]), "exact");
    assert_close(both.value, 4.0, ROUNDING);
    assert_close(both.outside, 9.0, ROUNDING);
    // The logits do not move at all.
    let flat = tangent(&Dense::new(2, 2, vec![0.0; 4]));
    let found = measure(&[0.0, 0.0], &flat, &row([2.0, 3.0]), "exact");
    assert_eq!((found.value, found.rank), (0.0, 0));
    assert_close(found.outside, 13.0, ROUNDING);
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_remedy() {
    let tangent = Tangent::from_rows(&[1.0, 2.0, 3.0], 3, 1).expect("tangent");
    let logits = [1.0, 2.0, 3.0];
    let refused = |objective: &SampleObjective, filter: &Filter| {
        influence(&logits, &tangent, objective, filter).expect_err("refused")
    };
    let paper = "paper".parse().expect("filter");
    for Known { objective, .. } in known() {
        let error = refused(&objective, &paper);
        assert!(matches!(error, Error::PaperObjective { .. }), "{error}");
        assert!(error.to_string().contains("take exact or tikhonov:LAMBDA"), "{error}");
    }
    assert!(influence(&logits, &tangent, &SampleObjective::Predicted, &paper).is_ok());
    let exact = Filter::default();
    let function = |values: Vec<f64>| SampleObjective::logits("f", move |_| values.clone());
    assert!(matches!(refused(&function(vec![1.0]), &exact), Error::WrongLength { found: 1, .. }));
    assert!(matches!(
        refused(&function(vec![0.0, f64::NAN, 0.0]), &exact),
        Error::NonFinite { index: 1, .. }
    ));
    assert!(matches!(
        SampleObjective::expected_cost([0.0, f64::INFINITY]),
        Err(Error::NonFinite { index: 1, .. })
    ));
    assert!(matches!(SampleObjective::expected_cost([f64::MAX, f64::MIN]), Err(Error::NonFinite { .. })));
    let short = SampleObjective::expected_cost([1.0, 2.0]).expect("costs");
    assert!(matches!(
        refused(&short, &exact),
        Error::WrongLength { what: "the list of costs", found: 2, .. }
    ));
    assert!(matches!(
        refused(&SampleObjective::margin_of(3), &exact),
        Error::ClassOutOfRange { class: 3, .. }
    ));
    let differences = Tangent::from_rows(&[1.0, 2.0], 3, 1).expect("tangent");
    let shifted =
        influence(&logits, &differences, &function(vec![0.0, 1.0, 0.0]), &exact).expect_err("refused");
    assert!(matches!(shifted, Error::CommonShift { sum: 1.0, .. }), "{shifted}");
    assert!(shifted.to_string().contains("give the Jacobian's K rows"), "{shifted}");
}

#[test]
fn only_functions_of_the_logits_can_see_a_common_shift() {
    let logits = [2.0, 0.5, -1.0];
    let of = |dh: [f64; 3]| SampleObjective::logits("f", move |_| dh.to_vec());
    assert!(of([0.0, 1.0, 0.0]).sees_common_shift(&logits));
    assert!(!of([1.0, -0.25, -0.75]).sees_common_shift(&logits) && !of([0.0; 3]).sees_common_shift(&logits));
    assert!(!of([f64::NAN; 3]).sees_common_shift(&logits) && !of([1.0; 3]).sees_common_shift(&[f64::NAN; 3]));
    let short = SampleObjective::logits("short", |_| vec![1.0]);
    assert!(!short.sees_common_shift(&logits));
    for Known { objective, .. } in known() {
        let expected = matches!(objective, SampleObjective::Logits(_));
        assert!(expected || !objective.sees_common_shift(&logits), "{objective}");
    }
}

#[test]
fn rows_are_checked() {
    let row = |rows: &[f64], classes, columns, df: &[f64]| Row::from_rows(rows, classes, columns, df);
    assert!(matches!(row(&[1.0; 6], 3, 2, &[1.0]), Err(Error::WrongLength { what: "the gradient df", .. })));
    assert!(matches!(row(&[1.0; 5], 3, 2, &[1.0; 2]), Err(Error::WrongLength { .. })));
    assert!(matches!(row(&[1.0; 8], 3, 2, &[1.0; 2]), Err(Error::WrongLength { .. })));
    assert!(matches!(row(&[], 3, 0, &[]), Err(Error::NoColumns)));
    assert!(matches!(row(&[1.0; 2], 1, 2, &[1.0; 2]), Err(Error::TooFewClasses { classes: 1 })));
    assert!(matches!(row(&[1.0; 6], 3, 2, &[1.0, f64::NAN]), Err(Error::NonFinite { index: 1, .. })));
    assert!(matches!(Row::from_products(&[1.0; 3], 3, -1.0), Err(Error::NonFinite { .. })));
    assert_close(row(&[1.0; 6], 3, 2, &[3e200, 4e200]).expect("row").norm(), 5e200, ROUNDING);
    let other = Row::from_products(&[1.0; 4], 4, 1.0).map(SampleObjective::Row).expect("row");
    let tangent = Tangent::from_rows(&[1.0, 2.0, 3.0], 3, 1).expect("tangent");
    let found = influence(&[0.0; 3], &tangent, &other, &Filter::default());
    assert_eq!(found, Err(Error::ClassMismatch { what: "a row", found: 4, expected: 3 }));
}

#[test]
fn objectives_compare_by_what_they_are() {
    for Known { objective, .. } in known() {
        assert_eq!(objective, objective.clone());
        assert!(!format!("{objective:?}").is_empty());
    }
    let function = || SampleObjective::logits("f", |p| p.logits().to_vec());
    assert_ne!(function(), function());
    let cost = |c: f64| SampleObjective::expected_cost([c, 1.0]).expect("costs");
    assert!(cost(2.0) == cost(2.0) && cost(2.0) != cost(3.0));
    let names: Vec<String> = known().iter().map(|known| known.objective.to_string()).collect();
    assert_eq!(names, ["entropy", "margin", "margin:2", "cost", "gini", "square"]);
}
