//! The way in: a model captured, checked, planned and loaded once, then run on any number of samples.

use std::collections::VecDeque;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::burn_executor::BurnExecutor;
use crate::capture::record;
use crate::check;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::graph::Graph;
use crate::lower::{self, FIRST_BATCH};
use crate::ops::{self, with_leading};
use crate::plan::{Plan, Precision};

impl Graph {
    /// Captures `forward` as a graph, for samples of shape `sample` (without the batch axis).
    ///
    /// `forward` maps `[n, ...sample]` to logits `[n, K]`; it is run twice on a device that records and does not compute. The model
    /// itself is not touched: it can be used as before, captured again, and from several threads.
    ///
    /// `home` is any ordinary device; it is where the recorded input is made.
    ///
    /// # Errors
    /// [`Error::CaptureFailed`] when the model's code panics or reads computed values; [`Error::Unsupported`] with all operations that
    /// the engine cannot differentiate and all dependences on the batch; [`Error::Shape`] when the output is not `[n, K]`.
    pub fn capture<M, F, const D: usize>(
        model: &M,
        forward: F,
        sample: &[usize],
        home: &Device,
    ) -> Result<Self>
    where
        M: Module,
        F: Fn(&M, Tensor<D>) -> Tensor<2>,
    {
        let first = record(model, &forward, sample, FIRST_BATCH, home)?;
        let second = record(model, &forward, sample, FIRST_BATCH + 1, home)?;
        lower::graph(first, second, ops::lower)
    }
}

/// How to run a graph.
#[derive(Debug, Clone)]
pub struct Options {
    /// The float type of the run; weights are converted to it.
    pub precision: Precision,
    /// How many samples run together on a GPU: as many as its memory allows. Shorter batches are padded. On a CPU the engine always
    /// takes [`CPU_BATCH`] at a time, so that results do not depend on the batch to the last bit.
    pub batch: usize,
}

/// How many samples run together on a CPU, whatever batch is asked for.
pub const CPU_BATCH: usize = 1;

/// Whether `device` computes on the processor, with kernels whose order of summation follows from the shapes alone.
fn is_cpu(device: &Device) -> bool {
    let name = format!("{:?}", device.as_dispatch());
    ["Flex", "NdArray"].iter().any(|cpu| name.starts_with(cpu))
}

/// The largest number of cotangents in one reverse pass: beyond it, memory grows and speed does not.
const LARGEST_BLOCK: usize = 16;

/// How many cotangents to take at a time so that the passes are few and evenly filled.
fn block(cotangents: usize) -> usize {
    cotangents.div_ceil(cotangents.div_ceil(LARGEST_BLOCK).max(1)).max(1)
}

/// A network ready to be linearised at samples.
#[derive(Debug)]
pub struct Program {
    plan: Arc<Plan>,
    executor: Box<dyn Executor>,
    /// Whether batches run side by side, one on each thread of rayon's pool: on a CPU, whose kernels are too small at one sample to
    /// share their work.
    side_by_side: bool,
}

impl Program {
    /// Plans the input's perturbation, loads the weights onto `device`, and checks the network there.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for weights that are NaN or infinite; [`Error::BatchCoupled`] and [`Error::Probabilities`] from probes
    /// with made-up samples; [`Error::Device`] when the device lacks the float type.
    pub fn new(graph: Graph, device: &Device, options: &Options) -> Result<Self> {
        let device = device.clone().without_autodiff();
        let block = block(graph.classes() - 1);
        if options.batch == 0 {
            return Err(Error::InvalidArgument("a batch needs at least one sample".into()));
        }
        let side_by_side = is_cpu(&device);
        let batch = if side_by_side { CPU_BATCH } else { options.batch };
        let plan = Arc::new(Plan::input(Arc::new(graph), batch, block, options.precision)?);
        let executor = BurnExecutor::new(Arc::clone(&plan), &device)?;
        check::probe(&executor, if side_by_side { 0.0 } else { check::PROBE_TOLERANCE })?;
        Ok(Self { plan, executor: Box::new(executor), side_by_side })
    }

    /// A plan with an executor of your own, one batch at a time; nothing is checked but what the plan knows.
    #[must_use]
    pub fn with_executor(plan: Arc<Plan>, executor: Box<dyn Executor>) -> Self {
        Self { plan, executor, side_by_side: false }
    }

    /// The plan that is run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which executor runs it, and where.
    #[must_use]
    pub fn engine(&self) -> String {
        self.executor.name()
    }

    /// Logits and input Jacobians of `samples` `[N, ...sample]`, one after the other, in their order.
    ///
    /// # Errors
    /// [`Error::Shape`] when the samples are not what the graph was captured for, [`Error::InvalidArgument`] when they are no floats,
    /// [`Error::NonFinite`] when one holds NaN or infinity, by its index; all before anything runs. Each item is an error when the run at its samples fails.
    pub fn jacobians(&self, samples: TensorData) -> Result<Jacobians<'_>> {
        let graph = self.plan.graph();
        let count = samples.shape().first().copied().unwrap_or(0);
        check::shape("samples", samples.shape(), &with_leading(count, &graph.sample_shape()))?;
        let samples = check::as_float(samples, self.plan.precision.dtype())?;
        if count > 0 {
            check::finite_samples("the input", &samples)?;
        }
        Ok(Jacobians { program: self, samples, next: 0, count, ready: VecDeque::new() })
    }

    /// The logits of `samples` `[N, ...sample]`, K of them each: forward passes alone.
    ///
    /// # Errors
    /// As [`Program::jacobians`].
    pub fn logits(&self, samples: TensorData) -> Result<Vec<Vec<f64>>> {
        let jacobians = self.jacobians(samples)?;
        let (batch, classes, count) = (self.plan.batch(), self.plan.graph().classes(), jacobians.count);
        let run = |first: usize| {
            let linearized = self.executor.linearize(jacobians.batch(first)?)?;
            let logits: Vec<f64> = linearized.logits().iter().collect();
            let each = logits.chunks_exact(classes).take(count - first);
            Ok(each.map(<[f64]>::to_vec).collect())
        };
        let firsts: Vec<usize> = (0..count).step_by(batch).collect();
        let batches: Vec<Vec<Vec<f64>>> = if self.side_by_side {
            firsts.into_par_iter().map(run).collect::<Result<_>>()?
        } else {
            firsts.into_iter().map(run).collect::<Result<_>>()?
        };
        Ok(batches.concat())
    }

    /// e_k - e_K for k = 1 .. K-1, the same for every sample of a batch: `[K-1, n, K]`.
    fn differences(&self) -> TensorData {
        let (batch, classes) = (self.plan.batch(), self.plan.graph().classes());
        let row = |k: usize, j: usize| f32::from(u8::from(j == k)) - f32::from(u8::from(j == classes - 1));
        let values: Vec<f32> = (0..classes - 1)
            .flat_map(|k| (0..batch).flat_map(move |_| (0..classes).map(move |j| row(k, j))))
            .collect();
        TensorData::new(values, vec![classes - 1, batch, classes])
    }
}

/// A network's linearisation at one sample.
#[derive(Debug, Clone)]
pub struct Jacobian {
    /// Which sample of the call.
    pub sample: usize,
    /// The logits, K of them.
    pub logits: Vec<f64>,
    /// The rows d(z_k - z_K) / dx for k = 1 .. K-1, row-major `[K-1, p]`, in the precision of the run.
    pub rows: Rows,
}

/// Numbers in the precision in which they were computed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Rows {
    /// Single precision.
    F32(Vec<f32>),
    /// Double precision.
    F64(Vec<f64>),
}

/// The iterator of [`Program::jacobians`].
#[derive(Debug)]
pub struct Jacobians<'a> {
    program: &'a Program,
    samples: TensorData,
    /// The first sample that has not run.
    next: usize,
    count: usize,
    /// Results that wait for their turn.
    ready: VecDeque<Result<Jacobian>>,
}

impl Jacobians<'_> {
    /// Samples `first ..`, padded to the plan's batch with copies of the first of them.
    fn batch(&self, first: usize) -> Result<TensorData> {
        let (batch, shape) = (self.program.plan.batch(), self.samples.shape());
        let size = self.samples.num_elements() / self.count * self.program.plan.precision().bytes();
        let bytes = self.samples.as_bytes();
        let sample = |index: usize| {
            let index = if index < self.count { index } else { first };
            &bytes[index * size..(index + 1) * size]
        };
        let joined: Vec<u8> =
            (first..first + batch).flat_map(|index| sample(index).iter().copied()).collect();
        TensorData::try_from_bytes_vec(joined, with_leading(batch, &shape[1..]), self.samples.dtype())
            .map_err(unreadable)
    }

    /// Runs one batch.
    fn run(&self, first: usize) -> Result<Vec<Jacobian>> {
        let (batch, classes) = (self.program.plan.batch(), self.program.plan.graph().classes());
        let linearized = self.program.executor.linearize(self.batch(first)?)?;
        let logits: Vec<f64> = linearized.logits().iter().collect();
        let rows = linearized.pullback(self.program.differences())?;
        let one = |position: usize| {
            let rows = match rows.dtype() {
                DType::F64 => {
                    Rows::F64(gather(rows.as_slice().map_err(unreadable)?, classes - 1, batch, position))
                }
                _ => Rows::F32(gather(rows.as_slice().map_err(unreadable)?, classes - 1, batch, position)),
            };
            let logits = logits[position * classes..(position + 1) * classes].to_vec();
            Ok(Jacobian { sample: first + position, logits, rows })
        };
        (0..batch.min(self.count - first)).map(one).collect()
    }

    /// Runs the next batch, or the next ones side by side; their order, and so their bits, are the same either way.
    fn advance(&mut self) {
        let batch = self.program.plan.batch();
        let lanes = if self.program.side_by_side { rayon::current_num_threads() } else { 1 };
        let firsts: Vec<_> = (self.next..self.count).step_by(batch).take(lanes).collect();
        let results: Vec<_> = match firsts.as_slice() {
            [only] => vec![self.run(*only)],
            several => several.par_iter().map(|&first| self.run(first)).collect(),
        };
        self.next = self.count.min(self.next + firsts.len() * batch);
        for result in results {
            match result {
                Ok(samples) => self.ready.extend(samples.into_iter().map(Ok)),
                Err(error) => {
                    self.ready.push_back(Err(error));
                    self.next = self.count;
                    return;
                }
            }
        }
    }
}

impl Iterator for Jacobians<'_> {
    type Item = Result<Jacobian>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() && self.next < self.count {
            self.advance();
        }
        self.ready.pop_front()
    }
}

fn unreadable(error: burn::tensor::DataError) -> Error {
    Error::Device(format!("{error:?}"))
}

/// One sample's rows out of `[V, n, p]`.
fn gather<T: Copy>(values: &[T], cotangents: usize, batch: usize, position: usize) -> Vec<T> {
    let size = values.len() / (cotangents * batch);
    (0..cotangents).flat_map(|v| &values[(v * batch + position) * size..][..size]).copied().collect()
}

#[cfg(test)]
mod tests {
    //! Several samples in one run, as on a GPU: padding, the order of samples and rows; and how cotangents are cut into blocks.

    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::tanh;

    use super::*;

    /// One sample at a time against three, whose products may be summed in another order.
    const BATCHED: f64 = 1e-13;

    fn graph() -> Graph {
        let device = Device::flex();
        let layer = LinearConfig::new(4, 3).init(&device);
        let forward = |layer: &Linear, x: Tensor<2>| tanh(layer.forward(x));
        Graph::capture(&layer, forward, &[4], &device).expect("it is captured")
    }

    /// Runs `batch` samples together, which [`Program::new`] does not do on a CPU.
    fn program(graph: Graph, batch: usize) -> Program {
        let plan = Plan::input(Arc::new(graph), batch, 2, Precision::F64).expect("it is planned");
        let plan = Arc::new(plan);
        let executor = BurnExecutor::new(Arc::clone(&plan), &Device::flex()).expect("it loads");
        Program::with_executor(plan, Box::new(executor))
    }

    fn run(program: &Program, samples: &TensorData) -> Vec<Jacobian> {
        let all = program.jacobians(samples.clone()).expect("they fit");
        all.collect::<Result<_>>().expect("it runs")
    }

    #[test]
    fn padded_batches_give_each_sample_its_own_rows() {
        let graph = graph();
        let (one, three) = (program(graph.clone(), 1), program(graph, 3));
        for count in [1, 2, 3, 5, 6] {
            let values: Vec<f64> = (0..count * 4).map(|i| (i as f64 * 0.7).sin()).collect();
            let samples = TensorData::new(values, [count, 4]);
            let (expected, found) = (run(&one, &samples), run(&three, &samples));
            for program in [&one, &three] {
                let logits = program.logits(samples.clone()).expect("it runs");
                let own: Vec<Vec<f64>> = run(program, &samples).into_iter().map(|j| j.logits).collect();
                assert_eq!(logits, own, "the forward pass is the same alone");
            }
            assert_eq!(found.iter().map(|j| j.sample).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            for (expected, found) in expected.iter().zip(&found) {
                let (Rows::F64(a), Rows::F64(b)) = (&expected.rows, &found.rows) else { panic!("f64 runs") };
                assert_eq!((a.len(), b.len()), (2 * 4, 2 * 4));
                let pairs = a.iter().zip(b).chain(expected.logits.iter().zip(&found.logits));
                assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < BATCHED), "{expected:?} {found:?}");
            }
        }
    }

    #[test]
    fn single_precision_rows_come_as_such() {
        let device = Device::flex();
        let program = Program::new(graph(), &device, &Options { precision: Precision::F32, batch: 7 });
        let program = program.expect("it loads");
        assert_eq!((program.plan().batch(), program.engine().as_str()), (CPU_BATCH, "burn on flex"));
        let jacobian = run(&program, &TensorData::new(vec![0.5_f64; 4], [1, 4])).remove(0);
        assert!(matches!(&jacobian.rows, Rows::F32(rows) if rows.len() == 8));
    }

    /// Fails at its first run.
    #[derive(Debug)]
    struct Failing;

    impl Executor for Failing {
        fn name(&self) -> String {
            "failing".into()
        }

        fn linearize(&self, _: TensorData) -> Result<Box<dyn crate::executor::Linearized + '_>> {
            Err(Error::Device("out of order".into()))
        }
    }

    #[test]
    fn the_first_failure_ends_the_run() {
        let working = program(graph(), 1);
        let failing = Program { plan: working.plan, executor: Box::new(Failing), side_by_side: true };
        let samples = TensorData::zeros::<f64, _>([3, 4]);
        let results: Vec<_> = failing.jacobians(samples).expect("they fit").collect();
        assert!(matches!(results.as_slice(), [Err(Error::Device(_))]), "{results:?}");
    }

    #[test]
    fn blocks_are_few_and_evenly_filled() {
        let blocks = [1, 2, 9, 16, 17, 33, 99, 999].map(|cotangents| (cotangents, block(cotangents)));
        let expected = [(1, 1), (2, 2), (9, 9), (16, 16), (17, 9), (33, 11), (99, 15), (999, 16)];
        assert_eq!(blocks, expected);
    }
}
