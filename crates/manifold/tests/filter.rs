//! The text form of filters, which scripts depend on.

mod common;

use influence_manifold::{Error, Filter};
use proptest::prelude::*;

#[test]
fn every_form_is_read() {
    let forms = [
        ("exact", Filter::Exact { tolerance: None }),
        ("exact:1e-6", Filter::Exact { tolerance: Some(1e-6) }),
        ("paper", Filter::Paper { epsilon: 1e-3, rank_epsilon: 1e-3 }),
        ("paper:1e-8", Filter::Paper { epsilon: 1e-8, rank_epsilon: 1e-8 }),
        ("paper:1e-3:0.255", Filter::Paper { epsilon: 1e-3, rank_epsilon: 0.255 }),
        ("tikhonov:100", Filter::Tikhonov { lambda: 100.0 }),
    ];
    for (text, expected) in forms {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    assert_eq!(Filter::default(), Filter::exact());
}

#[test]
fn wrong_forms_say_what_is_wrong() {
    let forms = [
        ("", "'' is not a filter"),
        ("Exact", "'Exact' is not a filter"),
        ("exact:", "missing"),
        ("exact:0", "greater than 0"),
        ("exact:1.5", "less than 1"),
        ("exact:1e-3:2", "too many"),
        ("exact:nan", "greater than 0"),
        ("paper:abc", "'abc' is not a number"),
        ("paper:1e-3:-1", "positive and finite"),
        ("paper:1:2:3", "too many"),
        ("tikhonov", "lambda"),
        ("tikhonov:inf", "positive and finite"),
        ("tikhonov:1:2", "too many"),
        ("tikhonov: 1", "not a number"),
    ];
    for (text, reason) in forms {
        let error = text.parse::<Filter>().expect_err(text);
        assert!(matches!(error, Error::FilterSyntax { .. }));
        let message = error.to_string();
        assert!(message.contains(reason), "{text}: {message}");
        assert!(message.contains("paper[:EPS[:RANK_EPS]]"), "{message}");
    }
}

proptest! {
    #![proptest_config(common::cases(256))]

    #[test]
    fn texts_round_trip(a in 1e-300..1e300_f64, b in 1e-9..1.0_f64, kind in 0..4) {
        let filter = match kind {
            0 => Filter::exact_within(b).expect("filter"),
            1 => Filter::paper(a, b).expect("filter"),
            2 => Filter::paper(b, b).expect("filter"),
            _ => Filter::tikhonov(a).expect("filter"),
        };
        prop_assert_eq!(filter.to_string().parse(), Ok(filter));
    }
}
