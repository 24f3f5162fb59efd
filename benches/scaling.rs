//! How the input Jacobian on our own kernels scales with classes, images per call, and threads.
//!
//!     cargo bench --bench scaling
//!
//! ResNet50 with random weights, so that it may have any number of classes, on the embedded images.
//! Groups are resnet50/classes/threads; throughput is in images per second. Before anything is
//! timed the Jacobian of one image is compared with that of Burn's operations, both in double
//! precision.

use std::hint::black_box;

use burn::tensor::{Device, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use influence_autodiff::{Graph, Jacobian, Leaves, Options, Precision, Program, Rows};
use influence_cpu::Engine;
use influence_data::Dataset;
use influence_zoo::{Architecture, Network};
use rayon::ThreadPoolBuilder;

/// One image.
const SHAPE: [usize; 3] = [1, 28, 28];
/// Tolerance between the two engines, relative to the largest element.
const TOLERANCE: f64 = 1e-9;

fn graph(classes: usize) -> Graph {
    let device = Device::flex();
    let architecture: Architecture = "resnet50".parse().unwrap();
    let network = architecture.init(SHAPE[0], SHAPE[1], classes, &device).unwrap();
    Graph::capture(&network, Network::forward, &SHAPE, &device).unwrap()
}

fn program(graph: &Graph, engine: Engine, precision: Precision, batch: usize) -> Program {
    let options = Options { precision, batch, ..Options::default() };
    engine.load(graph.clone(), Leaves::input(), &Device::flex(), &options).unwrap()
}

fn images(count: usize) -> TensorData {
    let indices: Vec<_> = (0..count).collect();
    TensorData::new(Dataset::embedded().batch::<f32>(&indices), [&[count], &SHAPE[..]].concat())
}

fn jacobians(program: &Program, images: TensorData) -> Vec<Jacobian> {
    program.jacobians(images).unwrap().map(Result::unwrap).collect()
}

/// Asserts that both engines agree on one image.
fn check(graph: &Graph) {
    let [own, other] = [Engine::Cpu(None), Engine::Burn].map(|engine| {
        let program = program(graph, engine, Precision::F64, 1);
        assert_eq!(program.engine().starts_with("cpu"), engine != Engine::Burn, "{}", program.engine());
        match jacobians(&program, images(1)).remove(0).rows {
            Rows::F64(rows) => rows,
            rows => panic!("{rows:?} in single precision"),
        }
    });
    let largest = other.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let worst = own.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest > 0.0 && worst <= TOLERANCE * largest, "{worst:e} of {largest:e}");
}

fn scaling(criterion: &mut Criterion) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (classes, counts) in [(10, &[1, 8, 32][..]), (100, &[1, 8][..])] {
        let graph = graph(classes);
        check(&graph);
        for threads in [1, cores] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut group =
                criterion.benchmark_group(format!("resnet50/{classes} classes/{threads} threads"));
            group.sample_size(10);
            for &count in counts {
                let program = pool.install(|| program(&graph, Engine::Cpu(None), Precision::F32, count));
                let images = images(count);
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(format!("{count} images"), |bencher| {
                    bencher.iter(|| pool.install(|| jacobians(&program, black_box(images.clone()))));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, scaling);
criterion_main!(benches);
