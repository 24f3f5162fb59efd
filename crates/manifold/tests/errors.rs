//! Any input gives either finite numbers or a typed error that names the fault and the remedy;
//! never a panic, never NaN.

mod common;

use common::{Random, tangent};
use influence_manifold::{
    Error, Filter, Probabilities, Row, RowPrecision, SampleObjective, Tangent, baselines, influence,
};
use proptest::prelude::*;

#[test]
fn logits_are_checked() {
    assert_eq!(Probabilities::new(&[]), Err(Error::TooFewClasses { classes: 0 }));
    assert_eq!(Probabilities::new(&[1.0]), Err(Error::TooFewClasses { classes: 1 }));
    let spread = Probabilities::new(&[f64::MAX, -f64::MAX]);
    assert!(matches!(spread, Err(Error::LogitSpread { .. })));
    let infinite = Probabilities::new(&[0.0, f64::INFINITY, f64::NAN]);
    assert_eq!(infinite, Err(Error::NonFinite { what: "the logits", index: 1, value: f64::INFINITY }));
    let tangent = Tangent::from_rows(&[1.0, 2.0, 3.0], 3, 1).expect("tangent");
    let run = |logits: &[f64], objective| influence(logits, &tangent, &objective, &Filter::default());
    let mismatch = run(&[1.0, 2.0], SampleObjective::Predicted);
    assert_eq!(mismatch, Err(Error::ClassMismatch { what: "logits", found: 2, expected: 3 }));
    let class = run(&[1.0, 2.0, 3.0], SampleObjective::class(3));
    assert_eq!(class, Err(Error::ClassOutOfRange { class: 3, classes: 3 }));
    assert!(baselines(&[1.0, 2.0, 3.0], &tangent, &SampleObjective::class(9)).is_err());
}

#[test]
fn rows_are_checked() {
    let rows = |rows: &[f64], classes, columns| Tangent::from_rows(rows, classes, columns).map(|_| ());
    assert_eq!(rows(&[1.0], 1, 1), Err(Error::TooFewClasses { classes: 1 }));
    assert_eq!(rows(&[], 3, 0), Err(Error::NoColumns));
    assert!(matches!(rows(&[1.0; 7], 3, 2), Err(Error::WrongLength { found: 7, .. })));
    assert!(rows(&[1.0; 6], 3, 2).is_ok() && rows(&[1.0; 4], 3, 2).is_ok());
    assert!(matches!(rows(&[1.0; 4], usize::MAX, usize::MAX), Err(Error::WrongLength { .. })));
    let mut spoiled = vec![1.0_f32; 12];
    spoiled[7] = f32::NAN;
    let found = Tangent::from_rows(&spoiled, 3, 4).map(|_| ());
    assert!(matches!(found, Err(Error::NonFinite { what: "the Jacobian", index: 7, .. })));
}

#[test]
fn gram_matrices_are_checked() {
    let gram = |gram: &[f64], classes| Tangent::from_gram(gram, classes, RowPrecision::F64).map(|_| ());
    assert_eq!(gram(&[1.0], 1), Err(Error::TooFewClasses { classes: 1 }));
    assert!(matches!(gram(&[1.0; 5], 3), Err(Error::WrongLength { found: 5, .. })));
    assert!(matches!(gram(&[1.0, 0.0, 0.0, f64::NAN], 2), Err(Error::NonFinite { index: 3, .. })));
    let asymmetric = gram(&[2.0, 0.5, 0.1, 1.0], 2);
    assert_eq!(asymmetric, Err(Error::Asymmetric { row: 1, column: 0, difference: 0.2 }));
    assert!(matches!(gram(&[1.0, 0.0, 0.0, -5.0], 2), Err(Error::Indefinite { .. })));
    assert!(matches!(gram(&[-1.0], 2), Err(Error::Indefinite { .. })));
    assert_eq!(Tangent::merged(&[]).map(|_| ()), Err(Error::NoBlocks));
    let block = |classes| Tangent::from_rows(&vec![1.0; classes], classes, 1).expect("tangent");
    let mixed = Tangent::merged(&[block(3), block(4)]).map(|_| ());
    assert_eq!(mixed, Err(Error::ClassMismatch { what: "a block", found: 4, expected: 3 }));
}

#[test]
fn cuts_finer_than_a_gram_matrix_carries_are_refused() {
    let mut random = Random(1);
    let jacobian = random.planted(4, 6, 3);
    let gram = Tangent::from_gram(&jacobian.gram().values, 4, RowPrecision::F64).expect("tangent");
    let logits = [1.0, 0.5, 0.0, -0.5];
    let run = |tangent: &Tangent, filter: &str| {
        influence(&logits, tangent, &SampleObjective::class(0), &filter.parse().expect("filter"))
    };
    for filter in ["exact:1e-9", "paper:1e-3:1e-12"] {
        assert!(run(&tangent(&jacobian), filter).is_ok());
        let refused = run(&gram, filter).expect_err("refused");
        assert!(matches!(refused, Error::BelowGramResolution { .. }));
        assert!(refused.to_string().contains("give the Jacobian's rows"), "{refused}");
    }
    assert!(run(&gram, "exact:1e-7").is_ok() && run(&gram, "paper").is_ok());
}

#[test]
fn filters_are_checked_however_they_are_made() {
    let tangent = Tangent::from_rows(&[1.0, 2.0], 2, 1).expect("tangent");
    let bad = [
        Filter::Exact { tolerance: Some(1.0) },
        Filter::Exact { tolerance: Some(f64::NAN) },
        Filter::Paper { epsilon: 0.0, rank_epsilon: 1.0 },
        Filter::Paper { epsilon: 1.0, rank_epsilon: f64::INFINITY },
        Filter::Tikhonov { lambda: -1.0 },
    ];
    for filter in bad {
        let found = influence(&[0.0, 1.0], &tangent, &SampleObjective::Predicted, &filter);
        assert!(matches!(found, Err(Error::FilterArgument { .. })), "{filter}");
    }
}

#[test]
fn directions_are_checked() {
    let tangent = Tangent::from_rows(&[1.0, 2.0, 3.0, 4.0], 2, 2).expect("tangent");
    let found =
        influence(&[0.0, 1.0], &tangent, &SampleObjective::Predicted, &Filter::default()).expect("influence");
    assert!(found.direction(&[1.0, 2.0, 3.0, 4.0], 2).is_ok() && found.direction(&[-2.0, -2.0], 2).is_ok());
    assert!(found.direction(&[1.0; 3], 2).is_err() && found.direction::<f64>(&[], 0).is_err());
    assert!(found.direction(&[1.0; 6], 2).is_err());
}

/// Numbers of every magnitude, and some NaN and infinities.
fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => -3.0..3.0_f64,
        2 => Just(0.0),
        2 => (-320.0..300.0_f64).prop_map(|power| 10_f64.powf(power)),
        1 => -1e4..1e4_f64,
        1 => prop_oneof![Just(f64::MAX), Just(5e-324), Just(-f64::MAX), Just(1e308)],
    ]
}

fn any_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        Just(Filter::default()),
        (-300.0..0.0_f64).prop_map(|power| Filter::Exact { tolerance: Some(10_f64.powf(power)) }),
        (-300.0..300.0_f64, -300.0..300.0_f64)
            .prop_map(|(e, r)| Filter::Paper { epsilon: 10_f64.powf(e), rank_epsilon: 10_f64.powf(r) }),
        (-300.0..300.0_f64).prop_map(|power| Filter::Tikhonov { lambda: 10_f64.powf(power) }),
    ]
}

/// Objectives other than -log P, with coefficients from `rows`.
fn general_objectives(rows: &[f64]) -> Vec<SampleObjective> {
    let numbers = rows[..4].to_vec();
    let row = Row::from_rows(rows, 4, 3, &rows[3..6]).map(SampleObjective::Row);
    let cost = SampleObjective::expected_cost(numbers.clone());
    let logits = SampleObjective::logits("numbers", move |_| numbers.clone());
    let known = [SampleObjective::Entropy, SampleObjective::Margin, SampleObjective::margin_of(2), logits];
    known.into_iter().chain(row).chain(cost).collect()
}

proptest! {
    #![proptest_config(common::cases(3000))]

    #[test]
    fn no_input_gives_nan(
        logits in prop::collection::vec(any_number(), 4),
        rows in prop::collection::vec(any_number(), 12),
        filter in any_filter(),
        squared in any::<bool>(),
        y in 0..4_usize,
    ) {
        // A tangent may be refused. If it is accepted, no result has NaN or a wrong sign.
        let tangent = if squared {
            let rows = common::Dense::new(4, 3, rows.clone());
            Tangent::from_gram(&rows.gram().values, 4, RowPrecision::F64)
        } else {
            Tangent::from_rows(&rows, 4, 3)
        };
        let Ok(tangent) = tangent else { return Ok(()) };
        if let Ok(found) = influence(&logits, &tangent, &SampleObjective::class(y), &filter) {
            prop_assert!(found.value >= 0.0 && found.bound >= 0.0 && found.reach >= 0.0, "{:?}", found);
            prop_assert!(found.log10.is_none_or(|log| !log.is_nan()));
            prop_assert!(found.log10.is_some() || found.value == 0.0);
            prop_assert!(found.spectrum.iter().all(|gamma| *gamma >= 0.0));
            prop_assert!(found.coefficients.iter().all(|c| c.is_finite()), "{:?}", found);
            prop_assert!(found.coefficients_log_scale.is_finite());
            let paper = matches!(filter, Filter::Paper { .. });
            prop_assert!(paper || found.reach <= 1.0);
        }
        for objective in general_objectives(&rows) {
            if let Ok(found) = influence(&logits, &tangent, &objective, &filter) {
                prop_assert!(found.value >= 0.0 && found.bound >= 0.0 && found.reach >= 0.0, "{objective} {:?}", found);
                prop_assert!(found.reach <= 1.0 && found.outside >= 0.0, "{objective} {:?}", found);
                prop_assert!(found.log10.is_none_or(|log| !log.is_nan()), "{objective} {:?}", found);
                prop_assert!(found.coefficients.iter().all(|c| c.is_finite()), "{objective} {:?}", found);
            }
            if let Ok(found) = baselines(&logits, &tangent, &objective) {
                prop_assert!(found.jacobian_norm >= Some(0.0) && found.odds >= 0.0, "{objective} {:?}", found);
            }
        }
        if let Ok(found) = baselines(&logits, &tangent, &SampleObjective::class(y)) {
            let of_jacobian = [found.jacobian_norm, found.fisher_norm, found.fisher_trace].map(|x| x.unwrap_or(f64::NAN));
            let all = [of_jacobian.as_slice(), &[found.odds, found.entropy, found.cross_entropy]].concat();
            prop_assert!(all.iter().all(|value| *value >= 0.0), "{:?}", found);
            prop_assert!(!found.margin.is_nan());
        }
    }
}
