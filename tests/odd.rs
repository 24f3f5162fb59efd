//! Edge cases of the library: the values that they give, or the errors.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor, TensorData};
use influence::{
    Budget, Channels, Engine, Error, Family, Filter, Objective, Perturbation, Precision, SampleObjective,
    Scorer, ScorerBuilder,
};

/// Pixels per sample, hidden units, classes.
const SIZES: [usize; 3] = [6, 4, 5];

/// Two linear layers; the bias of the second sets the logits freely.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    head: Linear,
}

/// A linear layer with the weights `weight(row, column)` and these biases.
fn layer(sizes: [usize; 2], weight: impl Fn(usize, usize) -> f64, bias: &[f64]) -> Linear {
    let device = Device::flex();
    let values: Vec<f64> = (0..sizes[0] * sizes[1]).map(|at| weight(at / sizes[1], at % sizes[1])).collect();
    let data = TensorData::new(values, sizes);
    let weight = Tensor::<2>::from_data(data, (&device, burn::tensor::DType::F64));
    let bias = TensorData::new(bias.to_vec(), [sizes[1]]);
    let bias = Tensor::<1>::from_data(bias, (&device, burn::tensor::DType::F64));
    Linear { weight: Param::from_tensor(weight), bias: Some(Param::from_tensor(bias)) }
}

fn wave(i: usize, j: usize) -> f64 {
    ((i * 5 + j * 3 + 1) as f64 * 0.7).sin()
}

impl Net {
    /// The network with the weights of the first layer times `first`, and those of the head times
    /// `head(class)`.
    fn new(first: f64, head: impl Fn(usize) -> f64, bias: &[f64]) -> Self {
        let [pixels, hidden, classes] = SIZES;
        Self {
            first: layer([pixels, hidden], |i, j| first * wave(i, j), &[0.1 * first; 4]),
            head: layer([hidden, classes], |i, j| head(j) * wave(i + 9, j), bias),
        }
    }

    fn plain() -> Self {
        Self::new(1.0, |_| 1.0, &[0.1, -0.2, 0.3, 0.0, 0.2])
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.first.forward(x.flatten(1, 3)).tanh())
    }
}

fn samples(count: usize) -> TensorData {
    TensorData::new((0..count * 6).map(|i| 0.5 + 0.4 * (i as f64 * 0.7).sin()).collect(), [count, 1, 2, 3])
}

fn compiled(net: &Net, builder: ScorerBuilder) -> Scorer {
    builder.compile(net, Net::forward, &[1, 2, 3]).unwrap()
}

fn builder() -> ScorerBuilder {
    Scorer::builder().precision(Precision::F64)
}

#[test]
fn a_step_from_a_sample_or_along_a_direction_of_another_length_is_refused() {
    let scorer = compiled(&Net::plain(), builder());
    let at = scorer.linearize(samples(1)).unwrap().next().unwrap().unwrap();
    let mut direction = at.direction(&SampleObjective::Predicted, &Filter::exact()).unwrap();
    let along = |sample: &[f64], direction: &_| {
        let sample = TensorData::new(sample.to_vec(), [1, sample.len()]);
        scorer.along(sample, direction, &SampleObjective::Predicted, &[0.1]).map(|_| ())
    };
    assert_eq!(along(&[0.5; 6], &direction), Ok(()));
    let fault = Error::SampleLength { what: "the sample", found: 5, expected: 6 };
    assert_eq!(along(&[0.5; 5], &direction), Err(fault));
    direction.values.push(0.0);
    let fault = Error::SampleLength { what: "the direction", found: 7, expected: 6 };
    assert_eq!(along(&[0.5; 6], &direction), Err(fault));
}

/// A group whose parameters are all zero has no relative perturbation, on either engine and with
/// either filter.
#[test]
fn a_group_of_zeros_has_no_relative_influence_by_any_way() {
    let dead = Net::new(0.0, |_| 1.0, &[0.1, -0.2, 0.3, 0.0, 0.2]);
    let silent = Net::new(1.0, |_| 0.0, &[0.0; 5]);
    for (net, zero) in [(&dead, 0), (&silent, 1)] {
        for engine in [Engine::Cpu(None), Engine::Burn] {
            for filter in [Filter::exact(), Filter::tikhonov(1e-3).unwrap()] {
                let builder = builder().engine(engine).filter(filter).budget(Budget::Relative);
                let scorer = compiled(net, builder.perturbation(Perturbation::Layers));
                let scores: Vec<_> =
                    scorer.scores(samples(2), &Objective::class(1)).unwrap().map(Result::unwrap).collect();
                for (sample, at) in scorer.linearize_parameters(samples(2)).unwrap().enumerate() {
                    let at = at.unwrap();
                    for group in 0..2 {
                        let long = at.score(group, &SampleObjective::class(1), &filter).unwrap();
                        let short = &scores[2 * sample + group];
                        assert_eq!((short.value, short.rank), (long.value, long.rank), "{group} {filter}");
                        if group == zero {
                            assert_eq!((long.value, long.log10, long.rank, long.reach), (0.0, None, 0, 0.0));
                        }
                    }
                }
                let one = samples(1);
                let found = scorer.parameter_direction(one, &SampleObjective::class(1), zero).unwrap();
                assert!(found.tensors.iter().all(|tensor| tensor.values.iter().all(|x| *x == 0.0)));
                assert_eq!((found.rates.fisher, found.rates.log10_fisher), (0.0, None));
            }
        }
    }
}

/// The biases by themselves reach every direction of the logits, so that the shortcut applies. It
/// must agree with the full route although one class's weights are 1e7 times as large as the
/// others'.
#[test]
fn one_large_class_row_does_not_part_the_short_way_from_the_full_one() {
    let net = Net::new(1.0, |class| if class == 0 { 1e7 } else { 1.0 }, &[0.1, -0.2, 0.3, 0.0, 0.2]);
    for precision in [Precision::F32, Precision::F64] {
        let builder = Scorer::builder().precision(precision).perturbation(Perturbation::Parameters);
        let scorer = compiled(&net, builder);
        let short = scorer.scores(samples(1), &Objective::class(1)).unwrap().next().unwrap().unwrap();
        let at = scorer.linearize_parameters(samples(1)).unwrap().next().unwrap().unwrap();
        let long = at.score(0, &SampleObjective::class(1), &Filter::exact()).unwrap();
        assert_eq!((short.value, short.rank, short.reach), (long.value, long.rank, long.reach));
        assert_eq!((long.rank, long.value), (4, long.bound));
        assert!(short.baselines.jacobian_norm.is_none() && long.baselines.jacobian_norm > Some(0.0));
        assert_eq!(short, short.clone(), "a score is equal to itself");
    }
}

/// All probabilities but one lie below the range of f64: directions, slopes and lengths are still
/// given, as logarithms.
#[test]
fn directions_do_not_vanish_where_probabilities_underflow() {
    let net = Net::new(1.0, |_| 1.0, &[0.0, 2000.0, -5.0, 1.0, 900.0]);
    let scorer = compiled(&net, builder());
    let at = scorer.linearize(samples(1)).unwrap().next().unwrap().unwrap();
    for class in [0, 1, 4] {
        let objective = SampleObjective::class(class);
        let score = at.score(&objective, &Filter::exact()).unwrap();
        let direction = at.direction(&objective, &Filter::exact()).unwrap();
        let square: f64 = direction.values.iter().map(|x| x * x).sum();
        assert!((square - 1.0).abs() < 1e-12);
        let reached = 2.0 * (direction.rates.log10_slope.unwrap() - direction.rates.log10_fisher.unwrap());
        let most = score.log10.unwrap();
        // Rounding of the direction for class 0 also moves class 4, which is e^900 times as
        // likely. The Fisher length is that of the rounded direction, so the ratio is smaller.
        assert!(if class == 0 { reached < most } else { (reached - most).abs() < 1e-6 }, "{reached} {most}");
        let image: Vec<f64> = samples(1).iter().collect();
        let basis = Family::Brightness.basis(&image, [1, 2, 3]).unwrap();
        let found = at.family(&basis, &objective, &Filter::exact()).unwrap();
        let setting = found.setting.expect("the setting of a family");
        assert!(setting.knobs[0].is_finite() && setting.knobs[0] != 0.0);
        let size = setting.log10 + setting.knobs[0].abs().log10();
        assert!(size > 200.0, "{size}");
    }
}

/// Objectives that do not fit the network are refused before any sample is run.
#[test]
fn margins_and_costs_of_other_classes_are_refused_at_once() {
    let scorer = compiled(&Net::plain(), builder());
    let refused =
        |objective: &Objective| scorer.scores(samples(3), objective).map(|_| ()).expect_err("refused");
    let fault = |what: &str| Error::ClassOutOfRange { what: what.into(), class: 5, classes: 5 };
    assert_eq!(refused(&Objective::label_margin([0, 5, 1])), fault("the objective of sample 1"));
    assert_eq!(refused(&Objective::All(SampleObjective::margin_of(5))), fault("the objective"));
    let costs = Objective::expected_cost([0.0, 1.0, 2.0]).unwrap();
    assert!(refused(&costs).to_string().contains("the list of costs has length 3, expected 5"));
    let matrix = vec![vec![0.0; 4]; 5];
    let error = refused(&Objective::label_cost(&matrix, [0, 1, 2]).unwrap());
    assert!(error.to_string().contains("length 4, expected 5"), "{error}");
}

/// A scorer of families, or of windows, gives the scores that a linearisation gives one by one.
#[test]
fn families_and_windows_are_perturbations_like_any_other() {
    let (count, shape, filter) = (3, [1, 2, 3], Filter::tikhonov(0.1).unwrap());
    let (net, data, objective) = (Net::plain(), samples(3), Objective::labels(labels(&[4, 0, 2])).unwrap());
    let families: Vec<Family> = Family::all().collect();
    // Scores come sample by sample, and within a sample family by family or window by window.
    let of = |perturbation| compiled(&net, builder().filter(filter).perturbation(perturbation));
    let found = of(Perturbation::Families(families.clone())).score(data.clone(), &objective).unwrap();
    let whole = of(Perturbation::Input);
    let at: Vec<_> = whole.linearize(data.clone()).unwrap().map(Result::unwrap).collect();
    assert_eq!(found.len(), count * families.len());
    for (score, place) in found.iter().zip(0..) {
        let (at, family) = (&at[place / families.len()], &families[place % families.len()]);
        let image: Vec<f64> = data.iter().skip(at.sample() * 6).take(6).collect();
        let basis = family.basis(&image, shape).unwrap();
        let class = SampleObjective::class([4, 0, 2][at.sample()]);
        let expected = at.family(&basis, &class, &filter).unwrap();
        assert_eq!((score.value, &score.setting), (expected.value, &expected.setting));
        assert_eq!((score.sample, score.group.to_string()), (at.sample(), family.to_string()));
        assert_eq!(score.objective.to_string(), class.to_string());
        assert_eq!(score.setting.as_ref().unwrap().knobs.len(), basis.len());
    }
    for channels in [Channels::Joint, Channels::Separate] {
        let scorer = of(Perturbation::Windows { half_width: 1, channels });
        let found = scorer.score(data.clone(), &objective).unwrap();
        let maps = at.iter().map(|at| {
            let class = SampleObjective::class([4, 0, 2][at.sample()]);
            at.maps(&class, &filter, &[1], channels).unwrap().remove(0)
        });
        let values: Vec<f64> = maps.flat_map(|map| map.values).collect();
        assert_eq!(found.len(), values.len());
        for (score, value) in found.iter().zip(values) {
            assert!((score.value - value).abs() <= 1e-9 * value, "{}: {} {value}", score.group, score.value);
        }
        let names: Vec<&str> = scorer.groups().collect();
        assert!(names[5].ends_with("row 1, column 2") && found[11].group.as_ref() == names[5]);
        let labels = vec![7, 2, 7, 2, 2, 9];
        let scorer = of(Perturbation::Regions { labels: labels.clone(), channels });
        let found = scorer.score(data.clone(), &objective).unwrap();
        let regions = at.iter().flat_map(|at| {
            let class = SampleObjective::class([4, 0, 2][at.sample()]);
            at.regions(&class, &filter, &labels, channels).unwrap()
        });
        let expected: Vec<(u32, f64)> = regions.map(|of| (of.label, of.influence.value)).collect();
        assert_eq!(found.len(), expected.len());
        for (score, (label, value)) in found.iter().zip(expected) {
            assert!(score.group.ends_with(&format!("label {label}")), "{}", score.group);
            assert_eq!(score.value, value, "{}", score.group);
        }
    }
}

#[test]
fn families_windows_and_regions_that_do_not_fit_are_refused() {
    let refused = |perturbation| {
        let built = builder().perturbation(perturbation).compile(&Net::plain(), Net::forward, &[1, 2, 3]);
        built.expect_err("refused").to_string()
    };
    assert!(refused(Perturbation::Families(vec![])).contains("at least one"));
    let large = refused(Perturbation::Windows { half_width: 2, channels: Channels::Joint });
    assert!(large.contains("at most 1"), "{large}");
    let few = refused(Perturbation::Regions { labels: vec![0; 5], channels: Channels::Joint });
    assert!(few.contains("5 labels") && few.contains("2 x 3"), "{few}");
    let tokens = |net: &Net, x: Tensor<3>| net.forward(x.reshape([0, 1, 2, 3]));
    let flat = builder().perturbation(Perturbation::Families(vec![Family::Blur]));
    let flat = flat.compile(&Net::plain(), tokens, &[2, 3]).expect_err("no image");
    assert_eq!(flat, Error::NotAnImage { shape: vec![2, 3] });
    let scorer = compiled(&Net::plain(), builder().perturbation(Perturbation::Families(vec![Family::Blur])));
    let rows = Objective::rows(Tensor::<4>::ones([1, 1, 2, 3], &Device::flex())).unwrap();
    let rows = scorer.score(samples(1), &rows).expect_err("no objective of families").to_string();
    assert!(rows.contains("families") && rows.contains("logits"), "{rows}");
    let negative = Objective::labels(labels(&[1, -1]));
    assert_eq!(negative, Err(Error::NegativeLabel { sample: 1, label: -1 }));
}

fn labels(labels: &[i64]) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(labels.to_vec(), [labels.len()]), &Device::flex())
}
