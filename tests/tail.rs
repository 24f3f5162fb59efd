//! Networks of many classes: compares the measure with a merged tail with that over all classes, on
//! both engines, for the input and for parameters.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence::{
    Engine, Error, Filter, MeasureError, Objective, Perturbation, Precision, SampleObjective, Score, Scorer,
    ScorerBuilder,
};

const CLASSES: usize = 60;
const EPSILON: f64 = 0.02;

/// Two layers; the head has large weights, so that few classes carry most of the probability.
#[derive(Module, Debug)]
struct Net {
    first: Linear,
    head: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        // Weights from a formula, so that they are the same in every run.
        let linear = |inputs: usize, outputs: usize, size: f64, seed: f64| {
            let mut linear = LinearConfig::new(inputs, outputs).with_bias(false).init(device);
            let value =
                |i: usize| size * ((i as f64 + seed) * 12.9898).sin() * ((i as f64) * 0.37 + seed).cos();
            let values: Vec<f64> = (0..inputs * outputs).map(value).collect();
            let data = TensorData::new(values, [inputs, outputs]);
            linear.weight = linear.weight.map(|_| Tensor::from_data(data, (device, DType::F64)));
            linear
        };
        Self { first: linear(8, 30, 0.6, 1.0), head: linear(30, CLASSES, 1.6, 2.0) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(tanh(self.first.forward(x)))
    }
}

fn samples(device: &Device) -> Tensor<2> {
    let values: Vec<f64> = (0..5 * 8).map(|i| 1.5 * ((i * i) as f64 * 0.7).sin()).collect();
    Tensor::from_data(TensorData::new(values, [5, 8]), (device, DType::F64))
}

fn scores(builder: ScorerBuilder, objective: &Objective) -> Vec<Score> {
    let device = Device::flex();
    let scorer = builder.compile(&Net::new(&device), Net::forward, &[8]).expect("it loads");
    scorer.score(samples(&device), objective).expect("it is scored")
}

fn objectives() -> [Objective; 3] {
    [Objective::label([3, 59, 0, 7, 21]), Objective::predicted(), Objective::margin()]
}

#[test]
fn scores_of_the_input_lie_between_the_bounds() {
    for engine in [Engine::Cpu(None), Engine::Burn] {
        for precision in [Precision::F64, Precision::F32] {
            for filter in [Filter::exact(), Filter::tikhonov(3.0).expect("positive")] {
                for objective in objectives() {
                    let builder = || Scorer::builder().engine(engine).precision(precision).filter(filter);
                    let (all, merged) =
                        (scores(builder(), &objective), scores(builder().tail(EPSILON), &objective));
                    assert!(merged.iter().any(|score| score.tail.is_some()), "some classes carry little");
                    for (all, merged) in all.iter().zip(&merged) {
                        between(all, merged, if precision == Precision::F64 { 1e-9 } else { 1e-4 });
                        let Some(tail) = merged.tail else { continue };
                        assert!(tail.probability <= EPSILON && tail.classes >= 2);
                        let least = tail.at_least.expect("known for the input");
                        let close = least <= all.value * 1.0001 && least > 0.5 * merged.value;
                        assert!(close, "{filter} {objective}: {least} {} {}", all.value, merged.value);
                    }
                }
            }
        }
    }
}

/// Asserts that the value with merged classes is an upper bound, that its bound is that over all
/// classes, and that everything that does not depend on the metric is unchanged.
fn between(all: &Score, merged: &Score, rounding: f64) {
    assert!(all.value <= merged.value * (1.0 + rounding), "{} {}", all.value, merged.value);
    assert!(merged.reach <= 1.0 + rounding);
    let same = [
        (all.bound, merged.bound),
        (all.probability, merged.probability),
        (all.baselines.odds, merged.baselines.odds),
        (all.baselines.entropy, merged.baselines.entropy),
        (all.baselines.margin, merged.baselines.margin),
        (all.baselines.jacobian_norm.unwrap_or(0.0), merged.baselines.jacobian_norm.unwrap_or(0.0)),
    ];
    for (all, merged) in same {
        assert!((all - merged).abs() <= rounding * all.abs().max(1e-12), "{all} {merged}");
    }
}

#[test]
fn scores_of_parameters_are_upper_bounds() {
    for engine in [Engine::Cpu(None), Engine::Burn] {
        for filter in [Filter::exact(), Filter::tikhonov(3.0).expect("positive")] {
            for perturbation in [Perturbation::Parameters, Perturbation::Layers] {
                let builder = || {
                    let builder = Scorer::builder().engine(engine).precision(Precision::F64);
                    builder.perturbation(perturbation.clone()).filter(filter)
                };
                for objective in objectives() {
                    let (all, merged) =
                        (scores(builder(), &objective), scores(builder().tail(EPSILON), &objective));
                    assert_eq!(all.len(), merged.len());
                    for (all, merged) in all.iter().zip(&merged) {
                        between(all, merged, 1e-7);
                        assert_eq!(merged.tail.and_then(|tail| tail.at_least), None);
                    }
                }
            }
        }
    }
}

#[test]
fn directions_are_those_of_the_merged_classes() {
    let device = Device::flex();
    let net = Net::new(&device);
    let scorer = Scorer::builder().tail(EPSILON).compile(&net, Net::forward, &[8]).expect("it loads");
    let data = || samples(&device).into_data();
    let objective = SampleObjective::Predicted;
    for at in scorer.linearize(data()).expect("they fit") {
        let at = at.expect("it runs");
        let score = at.score(&objective, scorer.filter()).expect("measured");
        let direction = at.direction(&objective, scorer.filter()).expect("measured");
        let value = direction.rates.slope.powi(2) / direction.rates.fisher.powi(2);
        assert!((value / score.value - 1.0).abs() < 1e-7, "{value} {}", score.value);
    }
    // The direction in the weights must move the logits as the Gram matrix predicts: its Fisher
    // length is computed from cotangents that are spread over the merged classes.
    let builder = || Scorer::builder().perturbation(Perturbation::Parameters);
    let merged = builder().tail(1e-9).compile(&net, Net::forward, &[8]).expect("it loads");
    let all = builder().compile(&net, Net::forward, &[8]).expect("it loads");
    let one = || samples(&device).slice(0..1).into_data();
    let [merged, all] =
        [&merged, &all].map(|of| of.parameter_direction(one(), &objective, 0).expect("found"));
    for (merged, all) in merged.tensors.iter().zip(&all.tensors) {
        let off = merged.values.iter().zip(&all.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-4, "{}: {off}", merged.name);
    }
}

#[test]
fn what_a_tail_cannot_measure_is_refused() {
    let device = Device::flex();
    let compile = |builder: ScorerBuilder| builder.compile(&Net::new(&device), Net::forward, &[8]);
    let paper = compile(Scorer::builder().tail(EPSILON).filter(Filter::paper(1e-3, 1e-3).expect("in range")));
    assert!(matches!(paper, Err(Error::Filter(MeasureError::TailFilter))), "{paper:?}");
    let share = compile(Scorer::builder().tail(1.5));
    assert!(matches!(share, Err(Error::Filter(MeasureError::TailShare { .. }))), "{share:?}");
    let scorer = compile(Scorer::builder().tail(EPSILON)).expect("it loads");
    for objective in [Objective::entropy(), Objective::rows(samples(&device)).expect("read")] {
        let refused = scorer.score(samples(&device), &objective);
        assert!(matches!(refused, Err(Error::Filter(MeasureError::TailObjective { .. }))), "{refused:?}");
    }
    let data = samples(&device).into_data();
    let at = scorer.linearize(data).expect("they fit").next().expect("five").expect("it runs");
    let class = at.tail().expect("some are merged").merged()[0];
    let refused = at.score(&SampleObjective::class(class), scorer.filter());
    let merged = MeasureError::MergedClass { class };
    assert_eq!(refused, Err(Error::Measure { sample: 0, source: merged }));
    let paper = at.score(&SampleObjective::Predicted, &Filter::paper(1e-3, 1e-3).expect("in range"));
    assert_eq!(paper, Err(Error::Measure { sample: 0, source: MeasureError::TailFilter }));
}
