//! The entry points of the library: `fi_score` and the builder, and what they refuse.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence::{
    Error, Filter, Objective, Precision, Probabilities, SampleObjective, Score, Scorer, Target, fi_score,
};

/// A linear softmax model with four classes and six inputs.
#[derive(Module, Debug)]
struct Net {
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self { head: LinearConfig::new(6, 4).init(device) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(x)
    }

    fn probabilities(&self, x: Tensor<2>) -> Tensor<2> {
        burn::tensor::activation::softmax(self.head.forward(x), 1)
    }
}

fn samples(count: usize) -> TensorData {
    TensorData::new((0..count * 6).map(|i| (i as f32 * 0.7).sin()).collect(), [count, 6])
}

fn tensor(count: usize) -> Tensor<2> {
    Tensor::from_data(samples(count), &Device::flex())
}

#[test]
fn a_linear_model_meets_the_closed_form() {
    let net = Net::new(&Device::flex());
    let scores = fi_score(&net, Net::forward, tensor(5), &Objective::label([0, 1, 2, 3, 0])).unwrap();
    assert_eq!(scores.len(), 5);
    for score in &scores {
        let expected = (1.0 - score.probability) / score.probability;
        assert!((score.value / expected - 1.0).abs() < 1e-6, "{} {expected}", score.value);
        assert_eq!(score.rank, 3);
        assert!(score.is_saturated() && !score.ambiguous);
        assert!((score.baselines.odds / expected - 1.0).abs() < 1e-12);
        assert!(score.engine.starts_with("cpu ("), "{}", score.engine);
    }
}

/// The scores as those of one call, one score per sample.
fn renumbered(scores: Vec<Score>) -> Vec<Score> {
    let number = |(sample, mut score): (usize, Score)| {
        score.sample = sample;
        score
    };
    scores.into_iter().enumerate().map(number).collect()
}

#[test]
fn one_call_and_a_compiled_scorer_agree_to_the_bit() {
    let net = Net::new(&Device::flex());
    let scorer = Scorer::builder().compile(&net, Net::forward, &[6]).unwrap();
    let together = fi_score(&net, Net::forward, tensor(7), &Objective::predicted()).unwrap();
    let split: Vec<_> = [0..3, 3..4, 4..7]
        .into_iter()
        .flat_map(|range| scorer.score(tensor(7).slice(range), &Objective::predicted()).unwrap())
        .collect();
    // Each call counts its own samples.
    assert_eq!(split.iter().map(|score| score.sample).collect::<Vec<_>>(), [0, 1, 2, 0, 0, 1, 2]);
    assert_eq!(together, renumbered(split));
}

#[test]
fn the_builder_s_settings_are_used() {
    let net = Net::new(&Device::flex());
    let value = |filter: Filter, precision: Precision| {
        let scorer = Scorer::builder().filter(filter).precision(precision).batch(2);
        let scorer = scorer.compile(&net, Net::forward, &[6]).unwrap();
        scorer.score(tensor(1), &Objective::class(1)).unwrap()[0].value
    };
    let exact = value(Filter::default(), Precision::F64);
    let damped = value(Filter::tikhonov(10.0).unwrap(), Precision::F64);
    assert!(damped < exact, "{damped} {exact}");
    assert!((value(Filter::default(), Precision::F32) / exact - 1.0).abs() < 1e-5);
}

#[test]
fn a_model_runs_in_its_own_precision_unless_another_is_set() {
    let device = Device::flex();
    let weight = TensorData::new((0..24).map(|i| f64::from(i).sin()).collect(), [6, 4]);
    let weight = Param::from_tensor(Tensor::from_data(weight, (&device, DType::F64)));
    let double = Net { head: Linear { weight, bias: None } };
    let precision =
        |net: &Net| Scorer::builder().compile(net, Net::forward, &[6]).unwrap().plan().precision();
    assert_eq!(precision(&double), Precision::F64);
    assert_eq!(precision(&Net::new(&device)), Precision::F32);
}

#[test]
fn bad_calls_are_refused_by_name() {
    let device = Device::flex();
    let net = Net::new(&device);
    let call = |images: Tensor<2>, objective: &Objective| {
        fi_score(&net, Net::forward, images, objective).unwrap_err()
    };
    assert_eq!(call(tensor(3), &Objective::label([0, 1])), Error::LabelCount { labels: 2, samples: 3 });
    let out_of_range = call(tensor(3), &Objective::label([0, 1, 4])).to_string();
    assert!(out_of_range.contains("label of sample 2") && out_of_range.contains("0 to 3"), "{out_of_range}");
    let no_class = call(tensor(3), &Objective::class(9)).to_string();
    assert!(no_class.contains("class 9"), "{no_class}");
    let mut values: Vec<f32> = samples(3).try_to_vec().unwrap();
    values[2 * 6 + 4] = f32::NAN;
    let nan = call(Tensor::from_data(TensorData::new(values, [3, 6]), &device), &Objective::predicted())
        .to_string();
    assert!(nan.contains("sample 2") && nan.contains("index 4") && nan.contains("NaN"), "{nan}");
    let scorer = Scorer::builder().compile(&net, Net::forward, &[6]).unwrap();
    let shape =
        scorer.score(Tensor::<2>::zeros([2, 5], &device), &Objective::predicted()).unwrap_err().to_string();
    assert!(shape.contains("[2, 6]") && shape.contains("[2, 5]"), "{shape}");
    let empty =
        scorer.scores(TensorData::new(Vec::<f32>::new(), [0, 6]), &Objective::predicted()).unwrap_err();
    assert_eq!(empty, Error::NoSamples);
}

#[test]
fn a_softmax_head_is_refused_with_the_remedy() {
    let net = Net::new(&Device::flex());
    let error =
        fi_score(&net, Net::probabilities, tensor(2), &Objective::predicted()).unwrap_err().to_string();
    assert!(error.contains("remove the final softmax"), "{error}");
}

/// Scores in f64 under a filter.
fn in_f64(objective: &Objective, filter: Filter, count: usize) -> influence::Result<Vec<Score>> {
    let net = Net::new(&Device::flex());
    let scorer =
        Scorer::builder().filter(filter).precision(Precision::F64).compile(&net, Net::forward, &[6])?;
    scorer.score(tensor(count), objective)
}

#[test]
fn entropy_margin_and_costs_meet_their_closed_forms() {
    let probabilities = |objective: SampleObjective| {
        let net = Net::new(&Device::flex());
        let scorer = Scorer::builder().precision(Precision::F64).compile(&net, Net::forward, &[6]).unwrap();
        let at: Vec<_> = scorer.linearize(samples(4)).unwrap().collect::<Result<_, _>>().unwrap();
        at.iter()
            .map(|at| {
                let p = Probabilities::new(at.logits()).unwrap();
                (p, at.score(&objective, &Filter::default()).unwrap())
            })
            .collect::<Vec<_>>()
    };
    let variance = |p: &Probabilities, x: &[f64]| {
        let mean: f64 = p.values().iter().zip(x).map(|(p, x)| p * x).sum();
        p.values().iter().zip(x).map(|(p, x)| p * (x - mean).powi(2)).sum::<f64>()
    };
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-10, "{a} {b}");
    for (p, score) in probabilities(SampleObjective::Entropy) {
        close(score.value, variance(&p, p.logs()));
        assert_eq!((score.class, score.probability), (p.predicted(), p.values()[p.predicted()]));
        assert!(score.is_saturated() && !score.is_unbounded());
    }
    for (p, score) in probabilities(SampleObjective::Margin) {
        let top = p.values()[p.predicted()];
        close(score.value, 1.0 / top + score.baselines.margin.exp() / top);
    }
    let costs = [0.0, 1.0, 5.0, -2.0];
    for (p, score) in probabilities(SampleObjective::expected_cost(costs).unwrap()) {
        close(score.value, variance(&p, &costs));
    }
}

#[test]
fn objectives_of_a_batch_agree_with_one_another() {
    let net = Net::new(&Device::flex());
    let values = |objective: Objective, filter: &Filter| -> Vec<f64> {
        let scorer = Scorer::builder().filter(*filter).precision(Precision::F64);
        let scorer = scorer.compile(&net, Net::forward, &[6]).unwrap();
        scorer.score(tensor(3), &objective).unwrap().iter().map(|score| score.value).collect()
    };
    let matrix: Vec<Vec<f64>> = (0..4).map(|y| (0..4).map(|k| f64::from((y * k) as u32)).collect()).collect();
    let singles = [1, 3, 2].map(|y: usize| SampleObjective::expected_cost(matrix[y].clone()).unwrap());
    for filter in [Filter::default(), Filter::tikhonov(3.0).unwrap()] {
        let costs = values(Objective::label_cost(&matrix, [1, 3, 2]).unwrap(), &filter);
        assert_eq!(costs, values(Objective::each(singles.clone()), &filter));
        let margins = values(Objective::label_margin([0, 1, 2]), &filter);
        assert_eq!(margins, values(Objective::each([0, 1, 2].map(SampleObjective::margin_of)), &filter));
        let entropy = Objective::probabilities("entropy", |p| p.logs().iter().map(|l| -l).collect());
        assert_eq!(entropy.to_string(), "entropy");
        for (own, named) in values(entropy, &filter).iter().zip(values(Objective::entropy(), &filter)) {
            assert!((own / named - 1.0).abs() < 1e-10, "{own} {named}");
        }
    }
}

/// z = W x + b: the gradient of z_1 - z_2 in the input is W_1 - W_2 at every x. The gradient of x_0
/// lies partly outside the row space.
#[test]
fn gradient_rows_tell_what_the_distribution_does_not_see() {
    let device = Device::flex();
    let weight: Vec<f64> = (0..24).map(|i| f64::from(i * i).sin()).collect();
    let tensor =
        Param::from_tensor(Tensor::from_data(TensorData::new(weight.clone(), [6, 4]), (&device, DType::F64)));
    let net = Net { head: Linear { weight: tensor, bias: None } };
    let scorer = Scorer::builder().compile(&net, Net::forward, &[6]).unwrap();
    let images = || Tensor::<2>::from_data(samples(2), &device);
    let score = |objective: &Objective| scorer.score(images(), objective);
    let row: Vec<f64> = (0..6).map(|i| weight[i * 4 + 1] - weight[i * 4 + 2]).collect();
    let rows = |row: &[f64]| {
        Tensor::<2>::from_data(TensorData::new([row, row].concat(), [2, 6]), (&device, DType::F64))
    };
    let known = Objective::logits("z_1 - z_2", |_| vec![0.0, 1.0, -1.0, 0.0]);
    for (row, known) in
        score(&Objective::rows(rows(&row)).unwrap()).unwrap().iter().zip(score(&known).unwrap())
    {
        assert!((row.value / known.value - 1.0).abs() < 1e-10, "{} {}", row.value, known.value);
        assert!(!row.is_unbounded() && row.bound == f64::INFINITY && !row.is_saturated());
        assert!(
            (row.baselines.jacobian_norm.unwrap() / known.baselines.jacobian_norm.unwrap() - 1.0).abs()
                < 1e-10
        );
    }
    let pixel = Objective::rows(rows(&[1.0, 0.0, 0.0, 0.0, 0.0, 0.0])).unwrap();
    for score in score(&pixel).unwrap() {
        assert!(score.is_unbounded() && score.outside < 1.0 && score.value > 0.0 && score.reach == 0.0);
    }
    let wrong = Objective::rows(Tensor::<2>::zeros([2, 5], &device)).unwrap();
    let error = score(&wrong).unwrap_err();
    assert_eq!(error, Error::GradientShape { found: vec![2, 5], expected: vec![2, 6] });
}

/// Solves A x = b by elimination with pivoting.
fn solved(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&p, &q| a[p][i].abs().total_cmp(&a[q][i].abs())).unwrap();
        a.swap(i, pivot);
        b.swap(i, pivot);
        for row in i + 1..n {
            let factor = a[row][i] / a[i][i];
            (i..n).for_each(|j| a[row][j] -= factor * a[i][j]);
            b[row] -= factor * b[i];
        }
    }
    for i in (0..n).rev() {
        b[i] = (b[i] - (i + 1..n).map(|j| a[i][j] * b[j]).sum::<f64>()) / a[i][i];
    }
    b
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// An orthonormal basis of the span of the rows, by Gram-Schmidt applied twice.
fn orthonormal(rows: impl Iterator<Item = Vec<f64>>) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = vec![];
    for mut row in rows {
        for q in basis.iter().chain(&basis) {
            let along = dot(q, &row);
            row.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
        }
        let norm = dot(&row, &row).sqrt();
        basis.push(row.iter().map(|x| x / norm).collect());
    }
    basis
}

/// h = |z|^2 / 2 changes when a constant is added to all logits. Compared with the p x p metric G
/// of z = W x, inverted on its row space, and damped.
#[test]
fn functions_of_the_logits_that_see_a_common_shift_meet_the_dense_route() {
    let device = Device::flex();
    let weight: Vec<f64> = (0..24).map(|i| f64::from(i * i).sin()).collect();
    let tensor =
        Param::from_tensor(Tensor::from_data(TensorData::new(weight.clone(), [6, 4]), (&device, DType::F64)));
    let net = Net { head: Linear { weight: tensor, bias: None } };
    let square = Objective::logits("square", |p| p.logits().to_vec());
    let scores = |filter: Filter| {
        let scorer = Scorer::builder().filter(filter).compile(&net, Net::forward, &[6]).unwrap();
        scorer.scores(samples(3), &square).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
    };
    let jacobian: Vec<Vec<f64>> = (0..4).map(|k| (0..6).map(|i| weight[i * 4 + k]).collect()).collect();
    let (exact, damped) = (scores(Filter::default()), scores(Filter::tikhonov(0.3).unwrap()));
    let samples: Vec<f64> = samples(3).iter().collect();
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-10, "{a} {b}");
    for ((x, exact), damped) in samples.chunks(6).zip(exact).zip(damped) {
        let z: Vec<f64> = jacobian.iter().map(|row| dot(row, x)).collect();
        let total: f64 = z.iter().map(|z| z.exp()).sum();
        let p: Vec<f64> = z.iter().map(|z| z.exp() / total).collect();
        let column = |i: usize| jacobian.iter().map(|row| row[i]).collect::<Vec<_>>();
        let df: Vec<f64> = (0..6).map(|i| dot(&z, &column(i))).collect();
        // The metric as a bilinear form: the covariance of J a and J b under p.
        let metric = |a: &[f64], b: &[f64]| {
            let along = |x: &[f64]| jacobian.iter().map(|row| dot(row, x)).collect::<Vec<_>>();
            let (a, b) = (along(a), along(b));
            let both: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
            dot(&p, &both) - dot(&p, &a) * dot(&p, &b)
        };
        // df^T (G + lambda I)^-1 df in the span of an orthonormal basis, and the square of df in
        // it.
        let inverted = |basis: &[Vec<f64>], lambda: f64| {
            let entry = |i: usize, j: usize| metric(&basis[i], &basis[j]) + if i == j { lambda } else { 0.0 };
            let of = 0..basis.len();
            let matrix = of.clone().map(|i| of.clone().map(|j| entry(i, j)).collect()).collect();
            let a: Vec<f64> = basis.iter().map(|q| dot(q, &df)).collect();
            (dot(&a, &solved(matrix, a.clone())), dot(&a, &a))
        };
        let unit = |i: usize| (0..6).map(|j| f64::from(u8::from(i == j))).collect::<Vec<f64>>();
        // The row space of the differences of the logits, on which the distribution depends.
        let seen = orthonormal((0..3).map(|k| (0..6).map(|i| jacobian[k][i] - jacobian[3][i]).collect()));
        let (value, inside) = inverted(&seen, 0.0);
        close(exact.value, value);
        close(exact.outside, dot(&df, &df) - inside);
        close(damped.value, inverted(&(0..6).map(unit).collect::<Vec<_>>(), 0.3).0);
        assert!(exact.is_unbounded() && exact.bound == f64::INFINITY && exact.rank == 3);
    }
}

#[test]
fn objectives_that_cannot_be_measured_are_refused() {
    let exact = Filter::default();
    let error = |objective: &Objective, filter: Filter| in_f64(objective, filter, 2).unwrap_err();
    let paper: Filter = "paper".parse().unwrap();
    let rows = Objective::rows(Tensor::<2>::zeros([2, 6], &Device::flex())).unwrap();
    for objective in [Objective::entropy(), Objective::margin(), Objective::label_margin([0, 1]), rows] {
        let refused = error(&objective, paper);
        assert!(matches!(refused, Error::Filter(_)), "{refused}");
        assert!(refused.to_string().contains("take exact or tikhonov:LAMBDA"), "{refused}");
    }
    assert!(in_f64(&Objective::each(vec![SampleObjective::Predicted; 2]), paper, 2).is_ok());
    let count = error(&Objective::label_margin([0, 1, 2]), exact);
    assert_eq!(count, Error::ObjectiveCount { objectives: 3, samples: 2 });
    assert!(matches!(Objective::expected_cost([f64::NAN]), Err(Error::Objective(_))));
    let label = Objective::label_cost(&[vec![0.0; 4]], [0, 1]).unwrap_err().to_string();
    assert!(label.contains("label of sample 1"), "{label}");
}

#[test]
fn words_are_objectives() {
    for text in ["label", "predicted", "class:3", "entropy", "margin"] {
        let target: Target = text.parse().unwrap();
        assert_eq!((target.to_string(), target.objective([1, 2]).to_string()), (text.into(), text.into()));
    }
    for text in ["", "loss", "class", "class:", "class:-1", "margin:2", "Entropy"] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(error.contains("label, predicted, class:N, entropy or margin"), "{error}");
    }
}
