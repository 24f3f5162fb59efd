//! Times `fi_score` on the embedded network, compiled once and run with several numbers of images,
//! and the loading of a network.
//!
//!     cargo bench --bench fi_score
//!
//! The results are compared with float64 reference values before anything is timed.

use std::hint::black_box;

use burn::tensor::{Device, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use influence::{Objective, Precision, Scorer};
use influence_data::{Dataset, sample};
use influence_zoo::weights;
use influence_zoo::{Architecture, Network};

/// The exact influence of the first four images of the MNIST test set (tests/golden, `fi_exact`).
const REFERENCE: [f64; 4] =
    [7.542490997374716e-07, 0.00015356564783211156, 6.532893211701212e-07, 8.439412176364505e-06];

/// Relative tolerance of single precision against it.
const TOLERANCE: f64 = 1e-4;

fn scorer() -> Scorer {
    let device = Device::flex();
    let network = Architecture::ResNet50 { width: 8 }.init(1, 28, 10, &device).expect("the embedded network");
    let (network, _) = weights::load(network, sample::RESNET50W8_MNIST, Precision::F32.dtype(), &device)
        .expect("its weights");
    let scorer = Scorer::builder().precision(Precision::F32).device(&device);
    scorer.compile(&network, Network::forward, &[1, 28, 28]).expect("a model that the engine knows")
}

fn batch(data: &Dataset, count: usize) -> (TensorData, Objective) {
    let indices: Vec<_> = (0..count).collect();
    let pixels = TensorData::new(data.batch::<f32>(&indices), [count, 1, 28, 28]);
    (pixels, Objective::label(indices.iter().map(|&index| data.label(index))))
}

fn run(scorer: &Scorer, images: TensorData, objective: &Objective) -> Vec<f64> {
    let scores = scorer.scores(images, objective).expect("sound images");
    scores.map(|score| score.expect("a finite score").value).collect()
}

fn fi_score(criterion: &mut Criterion) {
    let (scorer, data) = (scorer(), Dataset::embedded());
    let (images, objective) = batch(&data, REFERENCE.len());
    for (found, expected) in run(&scorer, images, &objective).into_iter().zip(REFERENCE) {
        assert!((found / expected - 1.0).abs() < TOLERANCE, "{found} instead of {expected}");
    }
    let mut group = criterion.benchmark_group(format!("resnet50w8/1x28x28/{}", scorer.engine()));
    group.sample_size(10);
    for count in [1, 8, 32] {
        let (images, objective) = batch(&data, count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} images"), |bencher| {
            bencher.iter(|| run(&scorer, black_box(images.clone()), &objective));
        });
    }
    group.finish();
}

/// Times loading with and without the comparison with the model's own forward pass.
fn load(criterion: &mut Criterion) {
    let device = Device::flex();
    let networks = [
        (Architecture::ResNet50 { width: 8 }, [1, 28, 28]),
        (Architecture::DenseNet121 { growth: 32 }, [3, 32, 32]),
    ];
    for (architecture, shape) in networks {
        let network = architecture.init(shape[0], shape[1], 10, &device).expect("a network");
        let mut group = criterion.benchmark_group(format!("load/{architecture}"));
        group.sample_size(10);
        for checked in [true, false] {
            let name = if checked { "checked" } else { "unchecked" };
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let builder = Scorer::builder().device(&device);
                    let builder = if checked { builder } else { builder.unchecked("a measurement") };
                    builder.compile(&network, Network::forward, &shape).expect("it loads")
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, fi_score, load);
criterion_main!(benches);
