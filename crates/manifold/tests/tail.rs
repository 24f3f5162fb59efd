//! Unlikely classes merged into one: the bounds enclose the measure over all classes.

mod common;

use common::Random;
use influence_manifold::{Error, Filter, Probabilities, SampleObjective, Tail, Tangent, influence};

const CLASSES: usize = 40;

/// Rounding of a value computed from rows.
const ROUNDING: f64 = 1e-9;

struct Case {
    logits: Vec<f64>,
    /// The rows, `[K, p]`.
    rows: Vec<f64>,
    columns: usize,
}

impl Case {
    /// A case in which a few classes carry most of the probability.
    fn new(random: &mut Random, columns: usize) -> Self {
        let logits =
            (0..CLASSES).map(|k| if k % 9 == 4 { 4.0 * random.uniform() + 8.0 } else { random.uniform() });
        Self {
            logits: logits.collect(),
            rows: (0..CLASSES * columns).map(|_| random.uniform()).collect(),
            columns,
        }
    }

    /// Rows `[m, p]` of combinations `[m, K]`.
    fn combined(&self, combinations: &[f64]) -> Vec<f64> {
        let mut rows = Vec::new();
        for combination in combinations.chunks_exact(CLASSES) {
            rows.extend((0..self.columns).map(|i| {
                (0..CLASSES).map(|k| combination[k] * self.rows[k * self.columns + i]).sum::<f64>()
            }));
        }
        rows
    }

    /// ln FI over all classes.
    fn all(&self, objective: &SampleObjective, filter: &Filter) -> f64 {
        let tangent = Tangent::from_rows(&self.rows, CLASSES, self.columns).expect("rows");
        influence(&self.logits, &tangent, objective, filter).expect("measured").value.ln()
    }

    /// ln of the bounds with a tail merged: from below and from above.
    fn bounds(&self, tail: &Tail, objective: &SampleObjective, filter: &Filter) -> [f64; 2] {
        let rows = self.combined(&tail.combinations());
        let classes = tail.logits().len();
        let tangent = Tangent::from_rows(&rows, classes, self.columns).expect("rows");
        let merged = tail.objective(objective).expect("its classes are kept");
        let found = influence(tail.logits(), &tangent, &merged, filter).expect("measured");
        let x = found.direction(&rows, self.columns).expect("a direction");
        let along = |row: &[f64]| row.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
        let kept: Vec<f64> = rows.chunks_exact(self.columns).map(along).collect();
        let of = |&k: &usize| along(&self.rows[k * self.columns..(k + 1) * self.columns]);
        let merged: Vec<f64> = tail.merged().iter().map(of).collect();
        let lambda = if let Filter::Tikhonov { lambda } = filter { *lambda } else { 0.0 };
        let penalty = lambda * x.iter().map(|x| x * x).sum::<f64>();
        let below = tail.log_at_least(objective, &kept, &merged, 0.0, penalty).expect("fits");
        [below.expect("it moves"), found.value.ln()]
    }
}

#[test]
fn the_measure_over_all_classes_lies_between_the_bounds() {
    let mut random = Random(5);
    let mut width: [f64; 2] = [0.0; 2];
    for round in 0..40 {
        // Fewer and more columns than classes.
        let case = Case::new(&mut random, if round % 2 == 0 { 6 } else { 90 });
        let predicted = Probabilities::new(&case.logits).expect("finite").predicted();
        for objective in [
            SampleObjective::class(7),
            SampleObjective::Predicted,
            SampleObjective::margin_of(predicted),
            SampleObjective::Margin,
        ] {
            for filter in [Filter::exact(), Filter::tikhonov(0.5).expect("positive")] {
                for (at, epsilon) in [0.1, 1e-3].into_iter().enumerate() {
                    let Some(tail) = Tail::new(&case.logits, &objective, epsilon).expect("fits") else {
                        continue;
                    };
                    assert!(tail.probability() <= epsilon);
                    assert_eq!(tail.kept().len() + tail.merged().len(), CLASSES);
                    let all = case.all(&objective, &filter);
                    let [below, above] = case.bounds(&tail, &objective, &filter);
                    assert!(
                        below <= all + ROUNDING && all <= above + ROUNDING,
                        "{objective} {filter}: {below} {all} {above}"
                    );
                    width[at] = width[at].max(above - below);
                }
            }
        }
    }
    assert!(width[0] > 0.0 && width[1] < width[0], "less in the tail, closer bounds: {width:?}");
}

#[test]
fn classes_that_move_together_lose_nothing() {
    let mut random = Random(6);
    let mut case = Case::new(&mut random, 5);
    let objective = SampleObjective::class(0);
    let tail = Tail::new(&case.logits, &objective, 0.05).expect("fits").expect("some carry little");
    let first = tail.merged()[0] * case.columns;
    let row = case.rows[first..first + case.columns].to_vec();
    for &k in tail.merged() {
        case.rows[k * case.columns..(k + 1) * case.columns].copy_from_slice(&row);
    }
    for filter in [Filter::exact(), Filter::tikhonov(2.0).expect("positive")] {
        let all = case.all(&objective, &filter);
        for bound in case.bounds(&tail, &objective, &filter) {
            assert!((bound - all).abs() < ROUNDING, "{filter}: {bound} {all}");
        }
    }
}

#[test]
fn errors_of_the_velocities_lower_the_lower_bound() {
    let mut random = Random(7);
    let case = Case::new(&mut random, 5);
    let tail =
        Tail::new(&case.logits, &SampleObjective::Predicted, 0.05).expect("fits").expect("some carry little");
    let (kept, merged) = (vec![1.0; tail.kept().len()], vec![0.5; tail.merged().len()]);
    let at = |error: f64| {
        tail.log_at_least(&SampleObjective::Predicted, &kept, &merged, error, 0.0).expect("fits")
    };
    assert!(at(0.1) < at(0.0) && at(1.0) < at(0.1));
}

#[test]
fn a_combination_is_spread_over_the_classes_by_their_shares() {
    let logits = [9.0, 1.0, 8.0, 0.0, 2.0];
    let tail = Tail::new(&logits, &SampleObjective::class(3), 0.01).expect("fits").expect("two carry less");
    let shares = 2_f64.exp() + 1_f64.exp();
    let expected = [1.0, 4.0 * 1_f64.exp() / shares, 2.0, 3.0, 4.0 * 2_f64.exp() / shares];
    let found = tail.spread(&[1.0, 2.0, 3.0, 4.0]).expect("four");
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?}");
}

#[test]
fn what_cannot_be_merged_is_said() {
    let logits = [9.0, 1.0, 8.0, 0.0, 2.0];
    assert_eq!(Tail::new(&logits, &SampleObjective::Predicted, 0.0), Ok(None), "nothing to merge");
    assert_eq!(Tail::new(&logits[..4], &SampleObjective::class(1), 0.5), Ok(None), "one class is no tail");
    let refused = Tail::new(&logits, &SampleObjective::Entropy, 0.1);
    assert!(matches!(refused, Err(Error::TailObjective { .. })), "{refused:?}");
    for epsilon in [-0.1, 1.0, f64::NAN] {
        assert!(matches!(Tail::check(epsilon), Err(Error::TailShare { .. })));
    }
    let tail = Tail::new(&logits, &SampleObjective::Predicted, 0.1).expect("fits").expect("three carry less");
    assert_eq!(tail.objective(&SampleObjective::class(4)), Err(Error::MergedClass { class: 4 }));
    assert_eq!(
        tail.objective(&SampleObjective::class(5)),
        Err(Error::ClassOutOfRange { class: 5, classes: 5 })
    );
}
