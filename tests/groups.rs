//! Perturbed parameters through the library: groups, parameters together with the input, shortcuts,
//! budgets, directions, and what is refused.

mod common;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use common::{GoldenCase, cases};
use influence::{
    Budget, Engine, Error, Filter, Graph, Group, Objective, ParameterLinearization, Perturbation, Precision,
    Probabilities, SampleObjective, Score, Scorer, ScorerBuilder,
};
use influence_zoo::{Network, weights};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Relative tolerance between two orders of summing the same products.
const SUMS: f64 = 1e-12;
/// Relative tolerance between scores by two routes in f64: Gram matrices carry half the digits of
/// their smallest directions.
const SCORES: f64 = 1e-8;
/// The step of a central difference along a direction, small enough that no ReLU crosses its kink.
/// [`ALONG`] is the tolerance of the difference, whose error comes from the rounding of the logits,
/// 1e-15.
const STEP: f64 = 1e-6;
const ALONG: f64 = 1e-5;

/// The embedded network's case.
fn embedded() -> GoldenCase {
    cases().remove(0)
}

fn builder(perturbation: Perturbation) -> ScorerBuilder {
    Scorer::builder().perturbation(perturbation).precision(Precision::F64).engine(Engine::Burn)
}

fn compiled(case: &GoldenCase, builder: ScorerBuilder) -> Scorer {
    let network = case.network(Precision::F64);
    builder.compile(&network, Network::forward, &case.golden.image_shape()).unwrap()
}

fn images(case: &GoldenCase, count: usize) -> TensorData {
    let [c, h, w] = case.golden.image_shape();
    let pixels: Vec<f64> = case.golden.images().into_iter().take(count * c * h * w).collect();
    TensorData::new(pixels, [count, c, h, w])
}

fn linearized<'a>(scorer: &'a Scorer, case: &GoldenCase) -> Vec<ParameterLinearization<'a>> {
    scorer.linearize_parameters(images(case, 2)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn assert_near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * largest, "{what}: {:e}", worst / largest);
}

fn sum(matrices: impl IntoIterator<Item = Vec<f64>>) -> Vec<f64> {
    let add = |sum: Vec<f64>, next: Vec<f64>| sum.iter().zip(next).map(|(a, b)| a + b).collect();
    matrices.into_iter().reduce(add).unwrap()
}

#[test]
fn blocks_add() {
    let case = embedded();
    let group = |name: &str, members: &[&str]| Group::new(name, members.iter().copied());
    let groups =
        vec![group("body", &["conv1", "bn1", "stages"]), group("head", &["fc"]), group("bias", &["fc.bias"])];
    let of = |perturbation| compiled(&case, builder(perturbation));
    let [tensors, layers, all, both] = [
        Perturbation::Tensors,
        Perturbation::Layers,
        Perturbation::Parameters,
        Perturbation::InputAndParameters,
    ]
    .map(of);
    let grouped = of(Perturbation::Groups(groups));
    assert_eq!(grouped.groups().collect::<Vec<_>>(), ["body", "head", "bias"]);
    assert_eq!((all.groups().collect::<Vec<_>>(), layers.groups().len()), (vec![""], 107));
    let names: Vec<&str> = tensors.groups().collect();
    assert_eq!((names[0], names[213], names.len()), ("conv1.weight", "fc.bias", 214));
    let input = compiled(&case, Scorer::builder().precision(Precision::F64).engine(Engine::Burn));
    let input: Vec<_> = input.linearize(images(&case, 2)).unwrap().map(Result::unwrap).collect();
    let [tensors, layers, all, both, grouped] =
        [&tensors, &layers, &all, &both, &grouped].map(|scorer| linearized(scorer, &case));
    for image in 0..2 {
        let whole = all[image].gram(0).unwrap();
        let sum_of =
            |of: &ParameterLinearization<'_>, groups| sum((0..groups).map(|group| of.gram(group).unwrap()));
        assert_near("tensors", &sum_of(&tensors[image], 214), &whole, SUMS);
        assert_near("layers", &sum_of(&layers[image], 107), &whole, SUMS);
        assert_near("groups", &sum_of(&grouped[image], 2), &whole, SUMS);
        // The trace of C M C, by its singular values.
        let squares: f64 = input[image].tangent().singular_values().iter().map(|s| s * s).sum();
        let centred = |gram: &[f64]| {
            let (trace, all): (f64, f64) = ((0..9).map(|k| gram[10 * k]).sum(), gram.iter().sum());
            trace - all / 10.0
        };
        let joint = both[image].gram(0).unwrap();
        assert_near("both", &[centred(&joint)], &[centred(&whole) + squares], 1e-9);
    }
}

#[test]
fn short_ways_change_no_exact_score() {
    let case = embedded();
    let labels = case.golden.integers("labels")[..2].to_vec();
    for perturbation in [Perturbation::Parameters, Perturbation::Layers, Perturbation::InputAndParameters] {
        let scorer = compiled(&case, builder(perturbation.clone()));
        let short: Vec<Score> = scorer
            .scores(images(&case, 2), &Objective::label(labels.clone()))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let groups = scorer.groups().len();
        assert_eq!(short.len(), 2 * groups);
        let mut spared = 0;
        for at in linearized(&scorer, &case) {
            for group in 0..groups {
                let long =
                    at.score(group, &SampleObjective::class(labels[at.sample()]), &Filter::exact()).unwrap();
                let short = &short[at.sample() * groups + group];
                assert_eq!((short.rank, &short.group), (long.rank, &long.group));
                assert_near("value", &[short.value], &[long.value], SCORES);
                spared += usize::from(short.baselines.jacobian_norm.is_none());
            }
        }
        // The biases of the seven convolutions to 8 channels have rank 8, and their weights are
        // needed.
        let needed = if perturbation == Perturbation::Layers { 7 } else { 0 };
        assert_eq!(spared, 2 * (groups - needed), "{perturbation}");
    }
}

#[test]
fn every_sample_has_the_same_bits_alone() {
    let case = embedded();
    let filter = Filter::tikhonov(1.0).unwrap();
    let scorer = compiled(&case, builder(Perturbation::Layers).filter(filter));
    let score = |from: usize, count: usize| -> Vec<Score> {
        let [c, h, w] = case.golden.image_shape();
        let pixels = case.golden.images()[from * c * h * w..(from + count) * c * h * w].to_vec();
        let batch = TensorData::new(pixels, [count, c, h, w]);
        scorer.scores(batch, &Objective::predicted()).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let later = score(1, 2).into_iter().map(|mut score| {
        score.sample += 1;
        score
    });
    assert_eq!(score(0, 3), [score(0, 1), later.collect()].concat());
}

/// |theta|^2 of every tensor.
fn square_norms(graph: &Graph) -> Vec<f64> {
    let norm = |at| graph.data(at).iter::<f64>().map(|x| x * x).sum();
    (0..graph.parameters().len()).map(norm).collect()
}

#[test]
fn a_relative_budget_is_one_in_units_of_the_tensor() {
    let case = embedded();
    let relative = builder(Perturbation::Tensors).budget(Budget::Relative);
    let relative = compiled(&case, relative);
    let absolute = compiled(&case, builder(Perturbation::Tensors));
    let norms = square_norms(absolute.plan().graph());
    let (relative, absolute) = (linearized(&relative, &case), linearized(&absolute, &case));
    let objective = SampleObjective::Predicted;
    for (tensor, norm) in norms.iter().enumerate().step_by(7) {
        let found = relative[0].score(tensor, &objective, &Filter::tikhonov(3.0).unwrap()).unwrap().value;
        let expected =
            absolute[0].score(tensor, &objective, &Filter::tikhonov(3.0 / norm).unwrap()).unwrap().value;
        assert_near("relative", &[found], &[expected], SCORES);
    }
}

#[test]
fn of_both_together_each_has_its_own_size() {
    let case = embedded();
    let of = |perturbation, budget| compiled(&case, builder(perturbation).budget(budget));
    let parameters = of(Perturbation::Parameters, Budget::Absolute);
    let both = of(Perturbation::InputAndParameters, Budget::Absolute);
    let relative = of(Perturbation::InputAndParameters, Budget::Relative);
    let theta: f64 = square_norms(parameters.plan().graph()).iter().sum();
    let pixels = case.golden.images();
    let at = [&parameters, &both, &relative].map(|scorer| linearized(scorer, &case));
    for image in 0..2 {
        let x: f64 = pixels[image * 784..(image + 1) * 784].iter().map(|x| x * x).sum();
        let [parameters, both, relative] = [0, 1, 2].map(|which| at[which][image].gram(0).unwrap());
        let scaled = |(p, b): (&f64, &f64)| theta * p + x * (b - p);
        let expected: Vec<f64> = parameters.iter().zip(&both).map(scaled).collect();
        assert_near("both, relative", &relative, &expected, SUMS);
    }
}

/// The network with its weights moved along a direction.
fn moved(case: &GoldenCase, direction: &[influence::DirectionTensor], step: f64) -> Network {
    let bytes = std::fs::read(&case.weights).unwrap();
    let (old, device) = (SafeTensors::deserialize(&bytes).unwrap(), Device::flex());
    let network = case.network(Precision::F64);
    let mut all: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let entries = influence_zoo::names::entries(&network);
    let mut found: BTreeMap<&str, &influence::DirectionTensor> = BTreeMap::new();
    direction.iter().for_each(|tensor| assert!(found.insert(&tensor.name, tensor).is_none()));
    for name in old.names() {
        let view = old.tensor(name).unwrap();
        let half =
            view.data().chunks_exact(2).map(|b| burn::tensor::f16::from_le_bytes([b[0], b[1]]).to_f64());
        let mut values: Vec<f64> = half.collect();
        if let Some(tensor) = found.remove(name) {
            // A matrix is the weight of a linear layer: [in, out] in Burn, but [out, in] in the
            // file.
            for (at, x) in values.iter_mut().enumerate() {
                let own = match tensor.shape[..] {
                    [inputs, outputs] => at % inputs * outputs + at / inputs,
                    _ => at,
                };
                *x += step * tensor.values[own];
            }
        }
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        all.insert(name.to_owned(), (view.shape().to_vec(), bytes));
    }
    assert!(found.is_empty() && !entries.is_empty(), "every tensor of the direction is one of the file");
    let views: Vec<(&str, TensorView<'_>)> = all
        .iter()
        .map(|(name, (shape, bytes))| {
            (name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
        })
        .collect();
    let file = safetensors::serialize(views, None).unwrap();
    let [channels, size, _] = case.golden.image_shape();
    let network = case.architecture.init(channels, size, 10, &device).unwrap();
    weights::load(network, file.as_slice(), Precision::F64.dtype(), &device).unwrap().0
}

#[test]
fn the_direction_changes_the_objective_as_the_influence_says() {
    let case = embedded();
    let label = case.golden.integers("labels")[1];
    let pixels = case.golden.images();
    let image = TensorData::new(pixels[784..2 * 784].to_vec(), [1, 1, 28, 28]);
    let objective = SampleObjective::class(label);
    for budget in [Budget::Absolute, Budget::Relative] {
        for filter in [Filter::exact(), Filter::tikhonov(1e-3).unwrap()] {
            let scorer = compiled(&case, builder(Perturbation::Parameters).filter(filter).budget(budget));
            let found = scorer.parameter_direction(image.clone(), &objective, 0).unwrap();
            let squares: f64 = found.tensors.iter().flat_map(|tensor| &tensor.values).map(|x| x * x).sum();
            assert!((squares - 1.0).abs() < 1e-9, "{squares}");
            let f = |step: f64| {
                let network = moved(&case, &found.tensors, step);
                let x = Tensor::<4>::from_data(image.clone(), (&Device::flex(), burn::tensor::DType::F64));
                let logits: Vec<f64> = network.forward(x).into_data().iter().collect();
                -Probabilities::new(&logits).unwrap().logs()[label]
            };
            let slope = (f(STEP) - f(-STEP)) / (2.0 * STEP);
            let at = scorer.linearize_parameters(image.clone()).unwrap().next().unwrap().unwrap();
            let score = at.score(0, &objective, &Filter::exact()).unwrap();
            let reached = slope.powi(2) / found.rates.fisher.powi(2);
            if filter == Filter::exact() {
                assert_near("slope^2 / fisher^2", &[reached], &[score.value], ALONG);
            } else {
                // The exact direction has the largest ratio of all, so a damped one does not exceed
                // it; nor is a slope steeper than |df|.
                assert!(
                    reached <= score.value * (1.0 + ALONG)
                        && slope.abs() <= score.baselines.jacobian_norm.unwrap() * (1.0 + ALONG)
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_the_remedy() {
    let case = embedded();
    let network = case.network(Precision::F64);
    let compile = |builder: ScorerBuilder| builder.compile(&network, Network::forward, &[1, 28, 28]);
    let says = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let groups = |members: &[&str]| Perturbation::Groups(vec![Group::new("mine", members.iter().copied())]);
    says(compile(builder(groups(&["stage"]))).unwrap_err(), &["mine", "stage", "conv1"]);
    says(compile(builder(groups(&["bn1.running_mean"]))).unwrap_err(), &["bn1.running_mean"]);
    says(compile(builder(groups(&[]))).unwrap_err(), &["mine", "no members"]);
    says(compile(builder(Perturbation::Groups(vec![]))).unwrap_err(), &["no groups"]);
    says(compile(Scorer::builder().budget(Budget::Relative)).unwrap_err(), &["relative", "parameters"]);
    let layers = compile(builder(Perturbation::Layers)).unwrap();
    says(layers.linearize(images(&case, 1)).unwrap_err(), &["parameters", "input"]);
    let rows = Objective::rows(Tensor::<4>::zeros([1, 1, 28, 28], &Device::flex())).unwrap();
    says(layers.scores(images(&case, 1), &rows).unwrap_err(), &["gradient in the input", "probabilities"]);
    says(
        layers.parameter_direction(images(&case, 2), &SampleObjective::Predicted, 0).unwrap_err(),
        &["one image"],
    );
    let input = compile(Scorer::builder().precision(Precision::F64)).unwrap();
    says(input.linearize_parameters(images(&case, 1)).unwrap_err(), &["only the input"]);
}

#[test]
fn objectives_of_all_kinds_are_measured() {
    let case = embedded();
    let scorer = compiled(&case, builder(Perturbation::Groups(vec![Group::new("first", ["conv1.bias"])])));
    let both =
        |objective: &Objective| scorer.scores(images(&case, 1), objective).unwrap().next().unwrap().unwrap();
    for objective in [Objective::entropy(), Objective::margin(), Objective::class(3)] {
        let score = both(&objective);
        assert!(score.value > 0.0 && score.reach < 1.0 && score.rank == 8, "{score:?}");
    }
    // A single logit changes when a constant is added to all logits; the K - 1 differences do not
    // contain that direction.
    let logit = Objective::logits("z_3", |p| (0..p.classes()).map(|k| f64::from(u8::from(k == 3))).collect());
    let score = both(&logit);
    assert!(score.is_unbounded() || score.outside == 0.0, "{score:?}");
    assert!(score.value > 0.0);
}
