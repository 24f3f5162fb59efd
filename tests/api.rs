//! The library's way in: `fi_score` and the builder, and what they refuse.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence::{Error, Filter, Objective, Precision, Scorer, fi_score};

/// A linear softmax model of four classes over six numbers.
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
        assert_eq!(&*score.engine, "burn on flex");
    }
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
    assert_eq!(together, split);
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
fn a_model_runs_in_its_own_precision_unless_told() {
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
