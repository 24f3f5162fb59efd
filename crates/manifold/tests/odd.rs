//! Unusual cases, each named by its test, against the definition evaluated with 120 digits; and
//! many classes against a dense route in f64.

mod common;

use common::{Dense, Random, assert_close, close, fisher, gradient, measure, run, tangent};
use influence_manifold::{
    Channels, Error, Filter, PixelTangent, Probabilities, SampleObjective, Tangent, influence,
    measure as both,
};

/// The value and `ambiguous` of the only pixel of an image.
fn pixel(logits: &[f64], rows: &[f64], filter: &str) -> (f64, bool) {
    let pixels = PixelTangent::new(logits, rows, [1, 1, 1]).expect("a pixel");
    let filter: Filter = filter.parse().expect("a filter");
    let maps = pixels.maps(&SampleObjective::class(0), &filter, &[0], Channels::Joint).expect("a map");
    (maps[0].values[0], maps[0].ambiguous[0])
}

/// With K-2 columns in the window, A is singular: the last pivot of A + lambda I is lambda, and
/// here lambda is below the rounding of A.
#[test]
fn a_tiny_lambda_in_a_window_of_two_columns_less_than_classes() {
    for (rows, filter) in [
        ([1.7, 2.0], "tikhonov:1e-17"),
        ([1.7, 2.0], "tikhonov:1e-30"),
        ([1.7, 2.0], "tikhonov:1e-300"),
        ([1.7e12, 2.0e12], "tikhonov:0.1"),
    ] {
        let (value, ambiguous) = pixel(&[0.0; 3], &rows, filter);
        assert_close(value, 0.280_802_292_263_610_3, 1e-12);
        assert!(!ambiguous);
    }
    // A lambda above rounding: g^2 / (N + lambda), N = 2 (1.7^2 + 2^2 - 1.7 x 2) / 9,
    // g = (1.7 x 2 - 2) / 3.
    let expected = (1.4_f64 / 3.0).powi(2) / (2.0 * (2.89 + 4.0 - 3.4) / 9.0 + 0.1);
    assert_close(pixel(&[0.0; 3], &[1.7, 2.0], "tikhonov:0.1").0, expected, 1e-12);
}

/// Every window has the value that its own columns give, at any lambda.
#[test]
fn damped_windows_at_any_lambda() {
    let mut random = Random(41);
    for case in 0..300 {
        let (classes, shape) = (3 + case % 8, [1 + case % 3, 2, 3]);
        let columns: usize = shape.iter().product();
        let size = 10_f64.powi((case % 7) as i32 * 2 - 2);
        let jacobian = random.matrix(classes - 1, columns);
        let rows: Vec<f64> = jacobian.values.iter().map(|x| x * size).collect();
        let logits: Vec<f64> = random.vector(classes, 1.0).iter().map(|z| 3.0 * z).collect();
        let filter = Filter::tikhonov(10_f64.powi(-((case * 7) as i32 % 40))).expect("a filter");
        let pixels = PixelTangent::new(&logits, &rows, shape).expect("pixels");
        let objective = SampleObjective::class(case % classes);
        for channels in [Channels::Joint, Channels::Separate] {
            let map = &pixels.maps(&objective, &filter, &[0], channels).expect("maps")[0];
            for (at, value) in map.values.iter().enumerate() {
                let place = [at / 6, at / 3 % 2, at % 3];
                let own = pixels.window(&objective, &filter, 0, channels, place).expect("a window");
                assert!(close(*value, own.value, 1e-8), "{case} {place:?} {filter}: {value} {}", own.value);
            }
        }
    }
}

/// The influence by the p x p metric in f64, for independent columns.
fn dense(jacobian: &Dense, logits: &[f64], y: usize) -> f64 {
    let gradient = gradient(logits, jacobian, y);
    solve(fisher(logits, jacobian), &gradient).iter().zip(&gradient).map(|(x, g)| x * g).sum()
}

/// The solution of A x = b, A positive definite, by elimination.
fn solve(mut a: Dense, b: &[f64]) -> Vec<f64> {
    let (n, mut x) = (b.len(), b.to_vec());
    for k in 0..n {
        for i in k + 1..n {
            let factor = a.at(i, k) / a.at(k, k);
            for j in k..n {
                a.values[i * n + j] -= factor * a.at(k, j);
            }
            x[i] -= factor * x[k];
        }
    }
    for k in (0..n).rev() {
        let sum: f64 = (k + 1..n).map(|j| a.at(k, j) * x[j]).sum();
        x[k] = (x[k] - sum) / a.at(k, k);
    }
    x
}

/// The error estimate does not accumulate over pivots: with many classes, accurate values are not
/// marked ambiguous.
#[test]
fn many_classes_keep_their_digits_and_say_so() {
    let mut random = Random(42);
    for (classes, columns) in [(40, 22), (40, 35), (100, 10), (100, 65), (100, 97), (300, 120)] {
        let jacobian = random.matrix(classes, columns);
        let logits: Vec<f64> = random.vector(classes, 1.0).iter().map(|z| 2.0 * z).collect();
        let single: Vec<f32> = jacobian.values.iter().map(|x| *x as f32).collect();
        let single = Tangent::from_rows(&single, classes, columns).expect("rows");
        for y in [0, classes / 2] {
            let expected = dense(&jacobian, &logits, y);
            for (tangent, tolerance) in [(&tangent(&jacobian), 1e-7), (&single, 1e-3)] {
                for filter in ["exact", "tikhonov:1e-15"] {
                    let found = run(&logits, tangent, y, filter);
                    let context = format!("{classes} {columns} {y} {filter} {:?}", tangent.precision());
                    assert!(close(found.value, expected, tolerance), "{context}: {} {expected}", found.value);
                    assert!(!found.ambiguous && found.rank == columns, "{context}");
                }
            }
        }
    }
}

/// Thousands of random problems, with nearly dependent columns and probabilities over twenty orders
/// of magnitude: values not marked ambiguous have six digits, and few are marked.
#[test]
fn random_problems_are_right_or_ambiguous() {
    let mut random = Random(43);
    let mut ambiguous = 0;
    const CASES: usize = 3000;
    for case in 0..CASES {
        let classes = 3 + case % 10;
        let columns = 1 + case / 10 % (classes - 2);
        let mut jacobian = random.matrix(classes, columns);
        if columns > 1 && case % 3 == 0 {
            // The last column differs from the first by one part in a hundred.
            for k in 0..classes {
                let (first, last) = (k * columns, k * columns + columns - 1);
                jacobian.values[last] = jacobian.values[first] + 1e-2 * jacobian.values[last];
            }
        }
        let logits: Vec<f64> = random.vector(classes, 1.0).iter().map(|z| z * (case % 5) as f64).collect();
        let y = case % classes;
        let found = run(&logits, &tangent(&jacobian), y, "exact");
        let expected = dense(&jacobian, &logits, y);
        ambiguous += usize::from(found.ambiguous);
        assert!(found.ambiguous || close(found.value, expected, 1e-6), "{case}: {} {expected}", found.value);
    }
    assert!(ambiguous * 100 < CASES, "{ambiguous}");
}

/// Two likely classes with the same gradient among very unlikely classes: the difference of the two
/// rows is mere rounding.
#[test]
fn equal_rows_of_likely_classes_are_ambiguous() {
    let rows = [0.3, 0.7, 0.3, 0.7, 0.1 + 0.2, 0.7, 1.0, -1.0, 0.5, 2.0];
    let tangent = Tangent::from_rows(&rows, 5, 2).expect("rows");
    assert!(run(&[0.0, 0.0, 0.0, -90.0, -91.0], &tangent, 1, "exact").ambiguous);
    assert!(!run(&[0.0, 0.0, 0.0, -1.0, -2.0], &tangent, 1, "exact").ambiguous);
}

/// The authors' numerics lose digits where columns differ by 14 orders of magnitude, although no
/// singular value is near the cut.
#[test]
fn digits_lost_by_the_authors_numerics_are_reported() {
    let logits = [-2.0, 1.0, -1.0, 2.0];
    let tangent = Tangent::from_rows(&[0.0, 3.0, 1e14, 6e14, -1.0, 8.0], 4, 2).expect("rows");
    let found = run(&logits, &tangent, 0, "paper:1e-3:1e-6");
    assert!(found.ambiguous || close(found.value, 0.998_292_512_142_379_5, 1e-6), "{}", found.value);
    let tangent = Tangent::from_rows(&[0.0, 3.0, 1.0, 6.0, -1.0, 8.0], 4, 2).expect("rows");
    assert!(!run(&logits, &tangent, 0, "paper:1e-3:1e-6").ambiguous);
}

/// A large part common to all K rows is rounded with them: the centred rows have lost their digits.
#[test]
fn digits_lost_to_a_large_common_part_are_reported() {
    let mut random = Random(44);
    for case in 0..50 {
        let jacobian = random.matrix(5, 2);
        let logits = random.vector(5, 1.0);
        let exact = run(&logits, &tangent(&jacobian), case % 5, "exact").value;
        let shifted: Vec<f32> = jacobian.values.iter().map(|x| (x + 1.66e5) as f32).collect();
        let rows = Tangent::from_rows(&shifted, 5, 2).expect("rows");
        for filter in ["exact", "tikhonov:1e-9", "paper:1e-3"] {
            assert!(run(&logits, &rows, case % 5, filter).ambiguous, "{case} {filter}");
        }
        // Differences of the rows, rounded after subtraction, keep all digits.
        let differences: Vec<f32> = jacobian.differences().values.iter().map(|x| *x as f32).collect();
        let rows = Tangent::from_rows(&differences, 5, 2).expect("rows");
        let found = run(&logits, &rows, case % 5, "exact");
        assert!(!found.ambiguous && close(found.value, exact, 1e-3), "{case}");
    }
}

/// In a map, pixels whose rows have a large common part are ambiguous.
#[test]
fn a_large_common_part_is_reported_in_maps() {
    let mut random = Random(45);
    let rows: Vec<f32> = random.matrix(6, 12).values.iter().map(|x| (x + 1.66e5) as f32).collect();
    let logits = random.vector(6, 1.0);
    let pixels = PixelTangent::new(&logits, &rows, [1, 3, 4]).expect("pixels");
    for filter in ["exact", "tikhonov:1e-9", "paper:1e-3"] {
        let filter = filter.parse().expect("a filter");
        let map = &pixels.maps(&SampleObjective::class(0), &filter, &[0], Channels::Joint).expect("maps")[0];
        assert!(map.ambiguous.iter().all(|ambiguous| *ambiguous), "{filter} {:?}", map.ambiguous);
    }
}

/// The damped measure counts the same directions as the exact one and tends to it for lambda to 0.
#[test]
fn a_direction_below_the_tolerance_counts_in_neither_measure() {
    let logits = [0.3, 0.0, -0.4];
    let tangent = Tangent::from_rows(&[1.0, 0.0, 0.0, 1e-9, 0.0, 0.0], 3, 2).expect("rows");
    let exact = run(&logits, &tangent, 1, "exact");
    let damped = run(&logits, &tangent, 1, "tikhonov:1e-40");
    assert_eq!((exact.rank, damped.rank), (1, 1));
    assert_close(damped.value, exact.value, 1e-12);
    // A singular value near the tolerance: exact and slightly damped values are ambiguous; with a
    // large lambda the direction hardly contributes, and the value is not.
    let near = Tangent::from_rows(&[1.0, 0.0, 0.0, 5e-8, 0.0, 0.0], 3, 2).expect("rows");
    let ambiguous =
        ["exact", "tikhonov:1e-40", "tikhonov:1"].map(|filter| run(&logits, &near, 1, filter).ambiguous);
    assert_eq!(ambiguous, [true, true, false]);
}

/// P - e_0 of a confident sample is rounding in f64: it is refused with K rows and with K-1 rows,
/// and the message names the form that keeps its digits.
#[test]
fn a_gradient_below_the_rounding_of_probabilities_is_refused_with_the_remedy() {
    let logits = [40.0, 0.0, 1.0];
    let jacobian = Dense::new(3, 2, vec![1.0, 0.5, -1.0, 0.25, 0.0, 2.0]);
    let own = SampleObjective::logits("own", |p| {
        p.values().iter().enumerate().map(|(k, p)| if k == 0 { p - 1.0 } else { *p }).collect()
    });
    for rows in [&jacobian, &jacobian.differences()] {
        let tangent = Tangent::from_rows(&rows.values, 3, 2).expect("rows");
        let error = influence(&logits, &tangent, &own, &Filter::exact()).expect_err("refused");
        assert!(matches!(error, Error::RoundedGradient { .. }), "{error}");
        assert!(error.to_string().contains("SampleObjective::probabilities"), "{error}");
        assert!(!own.sees_common_shift(&logits));
        // -ln P_0 by its derivatives in P.
        let kept = SampleObjective::probabilities("kept", |p| {
            p.values().iter().enumerate().map(|(k, p)| if k == 0 { -1.0 / p } else { 0.0 }).collect()
        });
        assert_close(
            measure(&logits, &tangent, &kept, "exact").value,
            run(&logits, &tangent, 0, "exact").value,
            1e-12,
        );
    }
}

/// Fisher lengths, slopes and directions where all probabilities but one underflow f64.
#[test]
fn lengths_below_the_range_of_f64_have_their_logarithm() {
    let logits = [0.0, 2000.0, -5.0, 1.0, 900.0];
    let probabilities = Probabilities::new(&logits).expect("logits");
    let velocity = [1.0, 0.0, 0.0, 0.0, 3.0];
    // P_4 = e^-1100: v^T (diag P - P P^T) v = 9 e^-1100 and nothing else.
    let length = probabilities.log_fisher_length(&velocity).expect("a length").expect("it moves");
    assert_close(length, 3.0_f64.ln() - 550.0, 1e-14);
    assert_eq!(probabilities.log_fisher_length(&[2.0; 5]).expect("a length"), None);
    assert!(probabilities.log_fisher_length(&[2.0; 4]).is_err());
    // f = -ln P_4: df = P . v - v_4.
    let slope = SampleObjective::class(4).log_slope(&probabilities, &velocity).expect("a slope");
    assert_eq!(slope, Some((-1.0, 3.0_f64.ln())));
    let (sign, log) =
        SampleObjective::class(1).log_slope(&probabilities, &velocity).expect("a slope").expect("it moves");
    assert_eq!(sign, 1.0);
    assert_close(log, 3.0_f64.ln() - 1100.0, 1e-14);
}

/// A map has no negative zeros.
#[test]
fn zeros_of_maps_are_positive() {
    let rows = [0.0, -1.0, 0.0, 0.0, 2.0, 0.0, 0.0, -3.0, 0.0, 0.0, 0.5, 0.0];
    for logits in [[0.0, 0.0, 0.0], [-1.0, 3.0, 0.5]] {
        let pixels = PixelTangent::new(&logits, &rows, [1, 2, 2]).expect("pixels");
        for filter in ["exact", "tikhonov:1", "tikhonov:1e-20", "paper:1e-3"] {
            let filter: Filter = filter.parse().expect("a filter");
            for objective in [SampleObjective::class(0), SampleObjective::Entropy] {
                let Ok(maps) = pixels.maps(&objective, &filter, &[0], Channels::Joint) else { continue };
                let numbers = maps[0].values.iter().chain(&maps[0].reach).chain(&maps[0].outside);
                assert!(numbers.into_iter().all(|x| x.is_sign_positive()), "{:?}", maps[0]);
            }
        }
    }
}

/// `outside` of every window equals the one from its own columns, and is 0 for functions of the
/// probabilities.
#[test]
fn windows_tell_what_lies_outside() {
    let mut random = Random(46);
    let (rows, logits) = (random.matrix(4, 9), random.vector(4, 1.0));
    let pixels = PixelTangent::new(&logits, &rows.values, [1, 3, 3]).expect("pixels");
    let logit =
        SampleObjective::logits("z_2", |p| (0..p.classes()).map(|k| f64::from(u8::from(k == 2))).collect());
    let map = &pixels.maps(&logit, &Filter::exact(), &[1], Channels::Joint).expect("maps")[0];
    for (at, outside) in map.outside.iter().enumerate() {
        let own = pixels.window(&logit, &Filter::exact(), 1, Channels::Joint, [0, at / 3, at % 3]);
        assert_eq!(*outside, own.expect("a window").outside);
    }
    assert!(map.outside.iter().any(|outside| *outside > 0.0), "{:?}", map.outside);
    let map =
        &pixels.maps(&SampleObjective::class(1), &Filter::exact(), &[0], Channels::Joint).expect("maps")[0];
    assert_eq!(map.outside, [0.0; 9]);
}

/// `measure` gives the same as `influence` and `baselines`.
#[test]
fn influence_and_baselines_together_are_those_apart() {
    let mut random = Random(47);
    let (rows, logits) = (random.matrix(5, 3), random.vector(5, 1.0));
    let tangent = tangent(&rows);
    for objective in [SampleObjective::class(2), SampleObjective::Entropy, SampleObjective::Margin] {
        let (found, classical) = both(&logits, &tangent, &objective, &Filter::exact()).expect("a measure");
        assert_eq!(found, influence(&logits, &tangent, &objective, &Filter::exact()).expect("an influence"));
        assert_eq!(
            classical,
            influence_manifold::baselines(&logits, &tangent, &objective).expect("baselines")
        );
    }
}
