//! Times forward pass, Jacobian and influence on every backend that this build and this machine
//! have.
//!
//!     cargo bench --bench backends --features ndarray,wgpu
//!     INFLUENCE_ENGINES=flex,wgpu:cpu INFLUENCE_CASES=resnet50-mnist \
//!         cargo bench --bench backends --features wgpu -- jacobian
//!
//! Groups are network/size/backend; throughput is in images per second. Before anything is timed
//! the influence is compared with float64 reference values. Networks without weight files and
//! missing backends are skipped with a printed line.

#![expect(clippy::print_stdout, reason = "it says what is skipped")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../crates/cli/engine.rs"]
#[allow(dead_code, reason = "the program uses the rest")]
mod engine;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::{Device, TensorData};
use common::{GoldenCase, cases};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use engine::EngineChoice;
use influence::{Objective, Precision, Scorer};
use influence_autodiff::{Graph, Leaves, Options, Program};
use influence_cpu::CpuExecutor;
use influence_zoo::Network;

/// Engines that are compared unless `INFLUENCE_ENGINES` names others.
const ENGINES: &str = "cpu,flex,ndarray,wgpu,cuda";
/// Numbers of images per call.
const COUNTS: [usize; 4] = [1, 8, 32, 256];
/// Calls that would take longer, estimated from the time of a single image, are skipped.
const LONGEST: Duration = Duration::from_secs(4);
/// Relative tolerance of single precision against the reference.
const TOLERANCE: f64 = 1e-4;

/// A network on a backend.
struct Subject {
    program: Program,
    scorer: Scorer,
    shape: [usize; 3],
}

impl Subject {
    /// Compiles the network for calls of `count` images.
    fn new(case: &GoldenCase, engine: EngineChoice, device: &Device, count: usize) -> Self {
        let (network, shape) = (case.network(Precision::F32), case.golden.image_shape());
        let graph = Graph::capture(&network, Network::forward, &shape, &Device::flex()).unwrap();
        let options = Options { batch: count, ..Options::default() };
        let program = engine.executor().load(graph, Leaves::input(), device, &options).unwrap();
        let scorer =
            Scorer::builder().engine(engine.executor()).precision(Precision::F32).device(device).batch(count);
        let scorer = scorer.compile(&network, Network::forward, &shape).unwrap();
        Self { program, scorer, shape }
    }

    /// `count` images, repeating those of the reference.
    fn images(&self, case: &GoldenCase, count: usize) -> TensorData {
        let size = self.shape.iter().product::<usize>() * count;
        let pixels: Vec<f32> = case.golden.images().iter().map(|&x| x as f32).cycle().take(size).collect();
        TensorData::new(pixels, [&[count], &self.shape[..]].concat())
    }

    fn forward(&self, images: TensorData) -> usize {
        self.program.logits(images).unwrap().len()
    }

    fn jacobians(&self, images: TensorData) -> usize {
        self.program.jacobians(images).unwrap().map(Result::unwrap).count()
    }

    fn scores(&self, images: TensorData, labels: &[usize]) -> Vec<f64> {
        let labels = labels.iter().copied().cycle().take(images.shape()[0]);
        let scores = self.scorer.scores(images, &Objective::label(labels)).unwrap();
        scores.map(|score| score.unwrap().value).collect()
    }
}

/// Asserts the result at one image, and returns how long it takes once everything is compiled.
fn checked(case: &GoldenCase, engine: EngineChoice, device: &Device) -> Duration {
    let subject = Subject::new(case, engine, device, 1);
    let (images, labels) = (subject.images(case, 1), case.golden.integers("labels"));
    let (found, expected) = (subject.scores(images.clone(), &labels)[0], case.golden.floats("fi_exact")[0]);
    assert!((found / expected - 1.0).abs() < TOLERANCE, "{}: {found} instead of {expected}", case.name);
    let start = Instant::now();
    subject.scores(images, &labels);
    start.elapsed()
}

/// Times forward pass, Jacobian and influence for each number of images.
fn compare(criterion: &mut Criterion, case: &GoldenCase, engine: EngineChoice, device: &Device) {
    let single = checked(case, engine, device);
    let [c, h, w] = case.golden.image_shape();
    let mut group = criterion.benchmark_group(format!("{}/{c}x{h}x{w}/{engine}", case.name));
    group.sample_size(10);
    for count in COUNTS.into_iter().filter(|&count| count == 1 || single * count as u32 <= LONGEST) {
        let subject = Subject::new(case, engine, device, count);
        let (images, labels) = (subject.images(case, count), case.golden.integers("labels"));
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("forward/{count}"), |bencher| {
            bencher.iter(|| subject.forward(black_box(images.clone())));
        });
        group.bench_function(format!("jacobian/{count}"), |bencher| {
            bencher.iter(|| subject.jacobians(black_box(images.clone())));
        });
        group.bench_function(format!("fi_score/{count}"), |bencher| {
            bencher.iter(|| subject.scores(black_box(images.clone()), &labels));
        });
    }
    group.finish();
}

/// Prints which share of the reverse pass remains after masking, at the reference's images.
fn tell_work(case: &GoldenCase) {
    let (network, shape) = (case.network(Precision::F32), case.golden.image_shape());
    let graph = Graph::capture(&network, Network::forward, &shape, &Device::flex()).unwrap();
    let executor = CpuExecutor::new(Arc::new(graph), Precision::F32, None, &Device::flex()).unwrap();
    let pixels: Vec<f32> = case.golden.images().iter().map(|&x| x as f32).collect();
    let count = pixels.len() / shape.iter().product::<usize>();
    let work = executor.reverse_work(TensorData::new(pixels, [&[count], &shape[..]].concat())).unwrap();
    let giga = |work: u64| 2e-9 * work as f64 / count as f64;
    let share = |part: u64| 100.0 * part as f64 / work.dense as f64;
    println!(
        "{}: reverse pass of one cotangent {:.3} GFLOP per image, dense {:.3}: {:.0} % (read side alone {:.0} %)",
        case.name,
        giga(work.done),
        giga(work.dense),
        share(work.done),
        share(work.read)
    );
}

fn backends(criterion: &mut Criterion) {
    let engines = std::env::var("INFLUENCE_ENGINES").unwrap_or_else(|_| ENGINES.to_owned());
    let mut cases = cases();
    // Criterion's own filter applies too late: every network would already be loaded and checked.
    if let Ok(names) = std::env::var("INFLUENCE_CASES") {
        cases.retain(|case| names.split(',').any(|name| name == case.name));
    }
    cases.iter().for_each(tell_work);
    for engine in engines.split(',') {
        let engine: EngineChoice = engine.parse().unwrap();
        match engine.device() {
            Ok(device) => cases.iter().for_each(|case| compare(criterion, case, engine, &device)),
            Err(missing) => println!("skipped: {missing}"),
        }
    }
}

criterion_group!(benches, backends);
criterion_main!(benches);
