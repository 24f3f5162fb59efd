//! Milliseconds per image that the input Jacobian of networks in ONNX files takes on our own
//! kernels, or the Gram matrices of their parameters:
//!
//! ```text
//! cargo bench --bench smooth --profile dev -- mobilenetv3_small.onnx vit.onnx
//! ```
//!
//! `benches/peers/smooth.py` exports such files and times PyTorch in alternation. Before a network
//! is timed, its Jacobian at one image is compared in double precision with that of Burn's
//! operations. `--threads T` (default 2), `--batch N` (8), `--rounds R` (5, of which the quickest
//! counts) and `--set avx2` (the widest of the CPU) set the conditions; `--plan` prints what runs;
//! `--unchecked` leaves out the comparison, which takes more memory than a run. With `--parameters`
//! it is the Gram matrices of all parameters, and of the input, that are timed and compared.
#![allow(clippy::print_stdout, reason = "a bench prints what it finds")]

use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::{Device, TensorData};
use influence_autodiff::{Graph, Leaves, Options, Precision, Program, Rows};
use influence_cpu::Engine;
use influence_onnx::FromOnnx;
use rayon::ThreadPoolBuilder;

/// Tolerance between the two executors, relative to the largest element.
const TOLERANCE: f64 = 1e-9;

/// The word after `name` on the command line.
fn given(name: &str) -> Option<String> {
    std::env::args().skip_while(|word| word != name).nth(1)
}

/// The number after `name` on the command line.
fn option(name: &str, otherwise: usize) -> usize {
    given(name).and_then(|word| word.parse().ok()).unwrap_or(otherwise)
}

/// Synthetic images, the same in every run.
fn images(graph: &Graph, count: usize) -> TensorData {
    let shape = graph.values()[graph.input()].shape_at(count);
    let mut state = 1_u64;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    TensorData::new((0..shape.iter().product()).map(|_| number()).collect::<Vec<f32>>(), shape)
}

/// What is timed: the input Jacobian, or the Gram matrices of all parameters and of the input.
#[derive(Clone, Copy)]
struct Work {
    parameters: bool,
}

impl Work {
    fn program(self, graph: &Graph, engine: Engine, precision: Precision, batch: usize) -> Program {
        let options = Options { precision, batch, ..Options::default() };
        let leaves = if self.parameters { Leaves::parameters(graph).and_input() } else { Leaves::input() };
        engine.load(graph.clone(), leaves, &Device::flex(), &options).unwrap()
    }

    /// All elements that it computes, matrix by matrix.
    fn run(self, program: &Program, images: TensorData) -> Vec<Vec<f64>> {
        if self.parameters {
            let grams = program.grams(images).unwrap().map(Result::unwrap);
            return grams.flat_map(|grams| grams.tensors.into_iter().chain(grams.input)).collect();
        }
        let rows = program.jacobians(images).unwrap().map(|jacobian| match jacobian.unwrap().rows {
            Rows::F64(rows) => rows,
            Rows::F32(rows) => rows.into_iter().map(f64::from).collect(),
        });
        rows.collect()
    }

    /// The difference of the executors at one image, relative to the largest element of each
    /// matrix.
    fn difference(self, graph: &Graph, own: Engine) -> f64 {
        let [own, other] = [own, Engine::Burn]
            .map(|engine| self.run(&self.program(graph, engine, Precision::F64, 1), images(graph, 1)));
        let of_matrix = |(own, other): (&Vec<f64>, &Vec<f64>)| {
            let largest = other.iter().fold(f64::MIN_POSITIVE, |most, x| most.max(x.abs()));
            let worst = own.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            worst / largest
        };
        own.iter().zip(&other).map(of_matrix).fold(0.0, f64::max)
    }
}

fn main() -> ExitCode {
    let (threads, batch, rounds) = (option("--threads", 2), option("--batch", 8), option("--rounds", 5));
    let own = Engine::Cpu(given("--set").map(|set| set.parse().unwrap()));
    let work = Work { parameters: std::env::args().any(|word| word == "--parameters") };
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut agree = true;
    for file in std::env::args().filter(|word| word.ends_with(".onnx")) {
        let graph = Graph::from_onnx(&file).unwrap();
        let program = pool.install(|| work.program(&graph, own, Precision::F32, batch));
        if std::env::args().any(|word| word == "--plan") {
            println!("{}", program.describe());
        }
        let checked = !std::env::args().any(|word| word == "--unchecked");
        let difference = if checked { work.difference(&graph, own) } else { f64::NAN };
        agree &= !checked || difference <= TOLERANCE;
        let images = images(&graph, batch);
        pool.install(|| work.run(&program, images.clone()));
        let once = || {
            let start = Instant::now();
            pool.install(|| work.run(&program, images.clone()));
            1e3 * start.elapsed().as_secs_f64() / batch as f64
        };
        let times: Vec<_> = (0..rounds).map(|_| once()).collect();
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let name = file.rsplit('/').next().unwrap_or(&file);
        println!("{name}: {least:.2} ms per image, {}, difference {difference:.1e}", program.engine());
    }
    if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
