//! Times maps and families of one image and the Jacobian from which they are computed, on our own
//! kernels, and prints the error of J T by central differences.
//!
//!     cargo bench --bench maps -- --quick
//!
//! One measurement covers all half-widths 0 .. 3, joint and separate, of one filter. Maps and
//! Jacobian run on one thread each, as in `influence map`. The lines printed before criterion's
//! give their ratio, from medians of several alternating rounds.

#![expect(clippy::print_stdout, reason = "the proportions are the result")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, TensorData};
use common::{GoldenCase, cases};
use criterion::{Criterion, criterion_group, criterion_main};
use influence::{Channels, Family, Filter, Linearization, Precision, SampleObjective, Scorer};
use influence_autodiff::{Graph, Leaves, Options, Rows};
use influence_cpu::Engine;
use influence_zoo::Network;

/// Filters and half-widths that are timed, and rounds of which the median is printed.
const FILTERS: [&str; 3] = ["exact", "paper:1e-3", "tikhonov:100"];
const HALF_WIDTHS: [usize; 4] = [0, 1, 2, 3];
const ROUNDS: usize = 7;
/// Steps of the differences in the units of the knobs (pixels, percent).
const STEPS: [f64; 4] = [1e-5, 1e-4, 1e-3, 1e-2];

/// A network and its first image.
struct Subject {
    scorer: Scorer,
    shape: [usize; 3],
    image: Vec<f64>,
}

impl Subject {
    fn new(case: &GoldenCase, precision: Precision) -> Self {
        let network = case.network(precision);
        let shape = case.golden.image_shape();
        let scorer = Scorer::builder().precision(precision).device(&Device::flex());
        let scorer = scorer.compile(&network, Network::forward, &shape).unwrap();
        let image = case.golden.images()[..shape.iter().product()].to_vec();
        Self { scorer, shape, image }
    }

    /// Images, concatenated.
    fn batch(&self, images: &[f64]) -> TensorData {
        let count = images.len() / self.image.len();
        TensorData::new(images.to_vec(), [&[count], &self.shape[..]].concat())
    }

    fn linearization(&self) -> Linearization<'_> {
        self.scorer.linearize(self.batch(&self.image)).unwrap().next().unwrap().unwrap()
    }

    /// J T by central differences of step `step`: the rows z_k - z_K of every member.
    fn differences(&self, tangents: &[f64], step: f64) -> Vec<Vec<f64>> {
        let moved = |tangent: &[f64], by: f64| -> Vec<f64> {
            self.image.iter().zip(tangent).map(|(x, t)| x + by * t).collect()
        };
        let both = |tangent| [moved(tangent, step), moved(tangent, -step)].concat();
        let images: Vec<f64> = tangents.chunks_exact(self.image.len()).flat_map(both).collect();
        let logits = self.scorer.logits(self.batch(&images)).unwrap();
        let slope = |pair: &[Vec<f64>]| {
            let change: Vec<f64> = pair[0].iter().zip(&pair[1]).map(|(a, b)| a - b).collect();
            let last = change[change.len() - 1];
            change.iter().map(|c| (c - last) / (2.0 * step)).collect()
        };
        logits.chunks_exact(2).map(slope).collect()
    }
}

/// All half-widths, joint and separate.
fn maps(at: &Linearization<'_>, filter: &Filter) -> usize {
    let each = |channels| at.maps(&SampleObjective::Predicted, filter, &HALF_WIDTHS, channels).unwrap().len();
    each(Channels::Joint) + each(Channels::Separate)
}

fn seconds<R>(work: impl FnOnce() -> R) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints the time of the Jacobian, and of the forward pass and the maps relative to it.
fn proportions(case: &GoldenCase, subject: &Subject) {
    let at = subject.linearization();
    let filters = FILTERS.map(|filter| filter.parse::<Filter>().unwrap());
    let rounds: Vec<Vec<f64>> = (0..ROUNDS)
        .map(|_| {
            let mut times = vec![seconds(|| subject.linearization())];
            times.push(seconds(|| subject.scorer.logits(subject.batch(&subject.image))));
            times.extend(filters.iter().map(|filter| seconds(|| maps(&at, filter))));
            times
        })
        .collect();
    let of = |column: usize| median(rounds.iter().map(|times| times[column]).collect());
    println!("{}: Jacobian {:.1} ms; forward pass {:.2} of it", case.name, of(0) * 1e3, of(1) / of(0));
    for (column, filter) in FILTERS.iter().enumerate() {
        println!(
            "{}: maps, {filter}: {:.1} ms, {:.2} of the Jacobian",
            case.name,
            of(column + 2) * 1e3,
            of(column + 2) / of(0)
        );
    }
}

/// Prints the error of J T by central differences, relative to the largest element of J T in f64,
/// per step.
fn accuracy(case: &GoldenCase) {
    for precision in [Precision::F32, Precision::F64] {
        let subject = Subject::new(case, precision);
        for family in [Family::Brightness, Family::Rotation, Family::Affine] {
            let basis = family.basis(&subject.image, subject.shape).unwrap();
            let expected = products(case, &subject, basis.tangents());
            let largest = expected.iter().flatten().fold(0.0_f64, |most, x| most.max(x.abs()));
            let error = |step: &f64| {
                let found = subject.differences(basis.tangents(), *step);
                let pairs = found.iter().flatten().zip(expected.iter().flatten());
                format!("{:.1e}", pairs.fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs())) / largest)
            };
            let errors = STEPS.each_ref().map(error).join(", ");
            println!(
                "{}: J T of {family} by differences in {precision}, steps {STEPS:?}: {errors}",
                case.name
            );
        }
    }
}

/// J T from the Jacobian in f64: the rows z_k - z_K of every member, the last of them 0.
fn products(case: &GoldenCase, subject: &Subject, tangents: &[f64]) -> Vec<Vec<f64>> {
    let network = case.network(Precision::F64);
    let graph = Graph::capture(&network, Network::forward, &subject.shape, &Device::flex()).unwrap();
    let options = Options { precision: Precision::F64, ..Options::default() };
    let program = Engine::Cpu(None).load(graph, Leaves::input(), &Device::flex(), &options).unwrap();
    let jacobian = program.jacobians(subject.batch(&subject.image)).unwrap().next().unwrap().unwrap();
    let Rows::F64(rows) = jacobian.rows else { panic!("a run in f64") };
    let columns = subject.image.len();
    let dot = |row: &[f64], tangent: &[f64]| row.iter().zip(tangent).map(|(x, t)| x * t).sum::<f64>();
    let of = |tangent| rows.chunks_exact(columns).map(|row| dot(row, tangent)).chain([0.0]).collect();
    tangents.chunks_exact(columns).map(of).collect()
}

fn measure(criterion: &mut Criterion, case: &GoldenCase) {
    let subject = Subject::new(case, Precision::F32);
    proportions(case, &subject);
    accuracy(case);
    let [c, h, w] = subject.shape;
    let mut group =
        criterion.benchmark_group(format!("{}/{c}x{h}x{w}/{}", case.name, subject.scorer.engine()));
    group.sample_size(10);
    group.bench_function("jacobian", |bencher| bencher.iter(|| black_box(subject.linearization())));
    let at = subject.linearization();
    for filter in FILTERS {
        let parsed = filter.parse().unwrap();
        group.bench_function(format!("maps/{filter}"), |bencher| {
            bencher.iter(|| maps(&at, black_box(&parsed)));
        });
    }
    for family in [Family::Brightness, Family::Affine] {
        let basis = family.basis(&subject.image, subject.shape).unwrap();
        let score = || at.family(black_box(&basis), &SampleObjective::Predicted, &Filter::exact()).unwrap();
        group.bench_function(format!("family/{family}"), |bencher| bencher.iter(score));
    }
    group.finish();
}

/// Every network on a single thread, since `influence map` computes each image on one thread.
fn all(criterion: &mut Criterion) {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
    cases().iter().for_each(|case| measure(criterion, case));
}

criterion_group!(benches, all);
criterion_main!(benches);
