//! Gram matrices and influence of parameters, from weights and images to scores, against float64
//! reference values computed with PyTorch.
//!
//! Tolerances are those that the project promises; docs/parameters.md explains where they come
//! from.

#![expect(clippy::print_stdout, reason = "the differences found are worth reading")]

mod common;

use burn::tensor::{Device, TensorData};
use common::{GoldenCase, cases};
use influence::{Engine, Filter, ParameterLinearization, Perturbation, Precision, SampleObjective, Scorer};
use influence_zoo::Network;

/// Tolerance for Gram entries, relative to the largest of their matrix.
const GRAM_F64: f64 = 1e-8;
const GRAM_F32: f64 = 1e-4;
/// Relative tolerance for scores in f64.
const EXACT: f64 = 1e-7;
const PAPER: f64 = 1e-6;

/// Every network on our own kernels, and the small one on Burn's operations as well; there the
/// large ones take minutes.
fn runs() -> impl Iterator<Item = (GoldenCase, Engine)> {
    cases().into_iter().flat_map(|case| {
        let burn = case.name.contains("w8").then(|| (case.clone(), Engine::Burn));
        std::iter::once((case, Engine::Cpu(None))).chain(burn)
    })
}

fn scorer(
    case: &GoldenCase,
    engine: Engine,
    perturbation: Perturbation,
    filter: Filter,
    precision: Precision,
) -> Scorer {
    let device = Device::flex();
    let network = case.network(precision);
    let scorer = Scorer::builder().perturbation(perturbation).filter(filter).precision(precision);
    let scorer = scorer.engine(engine).device(&device);
    let scorer = scorer.compile(&network, Network::forward, &case.golden.image_shape()).unwrap();
    assert_eq!(scorer.engine().starts_with("cpu"), engine != Engine::Burn, "{}", scorer.engine());
    scorer
}

/// The images that have reference values per layer.
fn images(case: &GoldenCase) -> TensorData {
    let count = case.golden.shape("gram_layers")[0];
    let [c, h, w] = case.golden.image_shape();
    let pixels = case.golden.images().into_iter().take(count * c * h * w).collect::<Vec<_>>();
    TensorData::new(pixels, [count, c, h, w])
}

fn linearized(scorer: &Scorer, images: TensorData) -> Vec<ParameterLinearization<'_>> {
    scorer.linearize_parameters(images).unwrap().collect::<Result<_, _>>().unwrap()
}

/// The largest difference per image and layer of the Gram matrix of logit differences, relative to
/// its largest entry.
fn gram_errors(case: &GoldenCase, at: &[ParameterLinearization<'_>], layers: usize) -> Vec<Vec<f64>> {
    let expected = case.golden.floats("gram_layers");
    let of = |image: usize, at: &ParameterLinearization<'_>, layer: usize| {
        let reference = &expected[(image * layers + layer) * 100..][..100];
        let entry = |k: usize, l: usize| reference[k * 10 + l];
        let difference = |k: usize, l: usize| entry(k, l) - entry(k, 9) - entry(9, l) + entry(9, 9);
        let found = at.gram(layer).unwrap();
        assert_eq!(found.len(), 81);
        let largest = (0..9).map(|k| difference(k, k)).fold(0.0, f64::max);
        let errors = (0..81).map(|i| (found[i] - difference(i / 9, i % 9)).abs());
        errors.fold(0.0, f64::max) / largest
    };
    let images = at.iter().enumerate();
    images.map(|(image, at)| (0..layers).map(|layer| of(image, at, layer)).collect()).collect()
}

fn largest(errors: &[f64]) -> f64 {
    errors.iter().copied().fold(0.0, f64::max)
}

/// The largest relative difference.
fn worst(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs()).fold(0.0, f64::max)
}

fn scores(case: &GoldenCase, at: &[ParameterLinearization<'_>], groups: usize, filter: &str) -> Vec<f64> {
    let (labels, filter) = (case.golden.integers("labels"), filter.parse::<Filter>().unwrap());
    let of = |at: &ParameterLinearization<'_>, group| {
        at.score(group, &SampleObjective::class(labels[at.sample()]), &filter).unwrap().value
    };
    at.iter().flat_map(|at| (0..groups).map(move |group| of(at, group))).collect()
}

#[test]
fn layers_in_f64() {
    for (case, engine) in runs() {
        let scorer = scorer(&case, engine, Perturbation::Layers, Filter::exact(), Precision::F64);
        let layers = case.golden.layers();
        assert_eq!(scorer.groups().collect::<Vec<_>>(), layers, "{}", case.name);
        let at = linearized(&scorer, images(&case));
        let gram = largest(&gram_errors(&case, &at, layers.len()).concat());
        let exact = worst(&scores(&case, &at, layers.len(), "exact"), &case.golden.floats("fi_layers_exact"));
        let paper =
            worst(&scores(&case, &at, layers.len(), "paper:1e-3"), &case.golden.floats("fi_layers_paper"));
        println!(
            "{} on {engine:?}: {} layers, Gram {gram:.1e}, exact {exact:.1e}, paper {paper:.1e}",
            case.name,
            layers.len()
        );
        assert!(gram <= GRAM_F64 && exact <= EXACT && paper <= PAPER, "{}", case.name);
    }
}

#[test]
fn the_whole_network_in_f64() {
    for (case, engine) in runs() {
        let scorer = scorer(&case, engine, Perturbation::Parameters, Filter::exact(), Precision::F64);
        let at = linearized(&scorer, images(&case));
        let found = scores(&case, &at, 1, "paper:1e-3");
        let paper = worst(&found, &case.golden.floats("fi_all_parameters_paper"));
        println!("{} on {engine:?}: paper {paper:.1e}", case.name);
        assert!(paper <= PAPER, "{}", case.name);
    }
}

/// Tolerance for a Gram matrix if rounding in f32 puts a ReLU on the other side of its kink, as at
/// some images of the large networks. That changes the gradients of its own layer and of the layers
/// below it, but not those above.
const GRAM_F32_KINK: f64 = 1e-2;

#[test]
fn layers_in_f32() {
    for (case, engine) in runs() {
        let scorer = scorer(&case, engine, Perturbation::Layers, Filter::exact(), Precision::F32);
        let at = linearized(&scorer, images(&case));
        let all = gram_errors(&case, &at, case.golden.layers().len());
        for (image, errors) in all.iter().enumerate() {
            let mut last = errors[3 * errors.len() / 4..].to_vec();
            last.sort_by(f64::total_cmp);
            let (all, most) = (largest(errors), last[last.len() / 2]);
            let what = format!(
                "{} on {engine:?}, image {image}: Gram in f32 {all:.1e}, last layers {most:.1e}",
                case.name
            );
            println!("{what}");
            assert!(most <= GRAM_F32 / 10.0, "{what}");
            assert!(all <= if case.name.contains("w8") { GRAM_F32 } else { GRAM_F32_KINK }, "{what}");
        }
    }
}
