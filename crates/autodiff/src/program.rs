//! The entry point: a model is captured, checked, planned and loaded once, then run on any number
//! of samples.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};

use crate::batches::CheckedSamples;
use crate::burn_executor::BurnExecutor;
use crate::capture::record;
use crate::check;
use crate::confirm::{self, LAST_BATCH};
use crate::device::is_processor;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::graph::Graph;
use crate::lower::{self, FIRST_BATCH};
use crate::memory::{DEFAULT_MEMORY, Memory, fitting_plan, gram_plan, samples_within, within};
use crate::ops;
use crate::parameters::Leaves;
use crate::plan::Plan;
use crate::precision::Precision;
use crate::reference::{Check, ModelLogits};

impl Graph {
    /// Captures `forward` as a graph, for samples of shape `sample` (without the batch axis).
    ///
    /// `forward` maps `[n, ...sample]` to logits `[n, K]`. It is recorded ([`Graph::record`]), and
    /// also run unchanged on five synthetic samples together and on one of them by itself. The
    /// graph holds the resulting logits, and every program that is made of it is compared with
    /// them.
    ///
    /// # Errors
    /// As [`Graph::record`]; [`Error::ForwardFailed`] when the model fails on its own device.
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
        let graph = Self::record(model, &forward, sample, home)?;
        let reference = ModelLogits::of(model, &forward, sample, &graph, home)?;
        Ok(Self { reference: Some(Arc::new(reference)), ..graph })
    }

    /// Records `forward` as a graph without running it: [`Graph::capture`] without the comparison.
    ///
    /// `forward` runs three times, with two, three and five samples, on a device that records and
    /// does not compute. The model itself is not changed: it can be used as before, and be captured
    /// again, also from several threads.
    ///
    /// `home` is any ordinary device; the recorded input is made there.
    ///
    /// # Errors
    /// [`Error::CaptureFailed`] when the model's code panics or reads computed values;
    /// [`Error::Unsupported`] with all operations that the engine cannot differentiate and all
    /// dependences on the batch; [`Error::Shape`] when the output is not `[n, K]`.
    pub fn record<M, F, const D: usize>(
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
        let graph = lower::graph(first, second, ops::lower)?;
        confirm::against(&graph, record(model, &forward, sample, LAST_BATCH, home)?, ops::lower)?;
        Ok(graph.with_two_logits())
    }
}

/// How to run a graph.
#[derive(Debug, Clone)]
pub struct Options {
    /// The float type of the run; weights are converted to it.
    pub precision: Precision,
    /// The largest number of samples that run together on a GPU; fewer do where `memory` requires
    /// it, and shorter batches are padded. On a CPU, results have the same bits whatever this
    /// number: Burn's operations take one sample per thread, and another executor ([`Program::on`])
    /// takes the number that suits it best.
    pub batch: usize,
    /// The memory that a run may take, by the plan's count (default: 2 GiB on a GPU, no limit on a
    /// CPU). On a GPU it bounds the batch, on a CPU the number of samples that run at a time.
    pub memory: Option<Memory>,
    /// Whether the program is compared with the model's own forward pass, where the graph holds its
    /// results (default: yes).
    pub check: Check,
}

/// The default of [`Options::batch`]: with larger batches memory grows faster than speed.
pub const GPU_BATCH: usize = 32;

impl Default for Options {
    fn default() -> Self {
        Self { precision: Precision::default(), batch: GPU_BATCH, memory: None, check: Check::On }
    }
}

/// The largest number of cotangents in one reverse pass: a larger one takes more memory and is not
/// faster.
const LARGEST_BLOCK: usize = 16;

/// The number of `cotangents` to take per pass, at most `most`, so that the passes are few and
/// evenly filled.
#[must_use]
pub fn even_block(cotangents: usize, most: usize) -> usize {
    // As few passes as `most` allows, and the cotangents divided among these.
    cotangents.div_ceil(cotangents.div_ceil(most.max(1)).max(1)).max(1)
}

/// [`even_block`] for Burn's operations.
fn block(cotangents: usize) -> usize {
    even_block(cotangents, LARGEST_BLOCK)
}

/// The memory that runs of an executor take, and the number of samples that suits it best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes that do not depend on the number of samples: the weights.
    pub fixed: usize,
    /// Bytes per sample, at most.
    pub sample: usize,
    /// The number of samples to run together.
    pub batch: usize,
}

/// A network ready to be linearised at samples.
#[derive(Debug)]
pub struct Program {
    plan: Arc<Plan>,
    executor: Box<dyn Executor>,
    pub(crate) schedule: BatchSchedule,
    /// Why another executor runs than the one asked for.
    instead: Option<String>,
    /// Why it is not compared with the model.
    pub(crate) unchecked: Option<String>,
}

/// How samples are divided into batches for an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSchedule {
    /// The largest number of batches that run side by side, one on each thread of rayon's pool. A
    /// thread that works on samples of its own waits for no other thread, and finds its data in its
    /// own caches.
    lanes: usize,
    /// Whether shorter batches are padded to the plan's size; otherwise that is the largest size.
    pub(crate) padded: bool,
}

impl Program {
    /// Plans the perturbation of the input, loads the weights onto `device`, and checks the network
    /// there.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for weights that are NaN or infinite; [`Error::BatchCoupled`];
    /// [`Error::Probabilities`] and [`Error::Bounded`]; [`Error::BatchDependent`] and
    /// [`Error::Disagrees`] from the comparison with the model; [`Error::Device`] when the device
    /// lacks the float type; [`Error::Memory`] when one sample does not fit.
    pub fn new(graph: Graph, device: &Device, options: &Options) -> Result<Self> {
        Self::perturbing(graph, Leaves::input(), device, options)
    }

    /// Plans the perturbation of some leaves: [`Program::grams`] then gives the Gram matrices of
    /// parameters, [`Program::jacobians`] the rows of the input.
    ///
    /// # Errors
    /// As [`Program::new`] and [`Plan::new`].
    pub fn perturbing(graph: Graph, leaves: Leaves, device: &Device, options: &Options) -> Result<Self> {
        let device = device.clone().without_autodiff();
        if options.batch == 0 {
            return Err(Error::InvalidArgument("a batch needs at least one sample".into()));
        }
        leaves.check(&graph)?;
        check::unbounded(&graph)?;
        Self::on_burn(Arc::new(graph), leaves, &device, options)?.compared(&device, &options.check)
    }

    /// A program run by another executor, on the CPU: one batch on each thread, of any size up to
    /// [`Footprint::batch`], as far as the memory allows. The executor must compute each sample
    /// independently of the others, with results that do not depend on the batch.
    ///
    /// # Errors
    /// [`Error::Memory`] when one sample does not fit, [`Error::Probabilities`] from probes with
    /// random samples; as [`Plan::new`].
    pub fn on(
        graph: Arc<Graph>,
        leaves: Leaves,
        executor: Box<dyn Executor>,
        footprint: Footprint,
        device: &Device,
        options: &Options,
    ) -> Result<Self> {
        check::unbounded(&graph)?;
        let threads = rayon::current_num_threads();
        // With fewer samples than threads, some threads would be idle.
        let asked = options.batch.max(threads);
        let most = match options.memory {
            Some(limit) => within(footprint.fixed, footprint.sample, limit)?.min(asked),
            None => asked,
        };
        let lanes = threads.min(most);
        let batch = footprint.batch.min(most / lanes);
        let block = block(graph.classes() - 1);
        let plan = Arc::new(Plan::new(graph, leaves, batch, block, options.precision)?);
        let schedule = BatchSchedule { lanes, padded: false };
        Self { plan, executor, schedule, instead: None, unchecked: None }.compared(device, &options.check)
    }

    /// A program of Burn's tensor operations.
    fn on_burn(graph: Arc<Graph>, leaves: Leaves, device: &Device, options: &Options) -> Result<Self> {
        let block = block(graph.classes() - 1);
        let Options { precision, batch, memory, .. } = *options;
        let limit = memory.unwrap_or(DEFAULT_MEMORY);
        let on_cpu = is_processor(device);
        // Gram matrices are taken sample by sample. So is all else on a CPU, where results must not
        // depend on the batch.
        let plan = match (leaves.indices().is_empty(), on_cpu) {
            (false, _) => gram_plan(graph, leaves, precision, limit)?,
            (true, true) => Plan::input(graph, 1, block, precision)?,
            (true, false) => fitting_plan(graph, batch, block, precision, limit)?,
        };
        let lanes = match on_cpu {
            true => memory.map_or(Ok(usize::MAX), |memory| samples_within(&plan, memory))?,
            false => 1,
        };
        let schedule = BatchSchedule { lanes, padded: true };
        let plan = Arc::new(plan);
        let executor = BurnExecutor::new(Arc::clone(&plan), device)?;
        Ok(Self { plan, executor: Box::new(executor), schedule, instead: None, unchecked: None })
    }

    /// A plan with any executor, one batch at a time. The checks of [`Program::new`] on a device
    /// are left out.
    #[must_use]
    pub fn with_executor(plan: Arc<Plan>, executor: Box<dyn Executor>) -> Self {
        Self {
            plan,
            executor,
            schedule: BatchSchedule { lanes: 1, padded: true },
            instead: None,
            unchecked: None,
        }
    }

    /// The plan that is run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Notes why another executor was asked for and does not run it.
    #[must_use]
    pub fn instead_of(self, why: &str) -> Self {
        Self { instead: Some(why.to_owned()), ..self }
    }

    /// Which executor runs the program, and on which device; with the reasons, if any, why it is
    /// not the one asked for and why it was not compared with the model.
    #[must_use]
    pub fn engine(&self) -> String {
        let instead = self.instead.iter().map(|why| format!(" (not on our own kernels: {why})"));
        let unchecked = self.unchecked.iter().map(|why| format!(" (not compared with the model: {why})"));
        std::iter::once(self.executor.name()).chain(instead).chain(unchecked).collect()
    }

    /// The executor's plan, step by step, in words: which operations run where, and what they keep.
    #[must_use]
    pub fn describe(&self) -> String {
        self.executor.describe()
    }

    /// The K logits of each of `samples` `[N, ...sample]`, by forward passes only.
    ///
    /// # Errors
    /// As [`Program::jacobians`].
    pub fn logits(&self, samples: TensorData) -> Result<Vec<Vec<f64>>> {
        let samples = CheckedSamples::new(self, samples)?;
        let classes = self.plan.graph().classes();
        samples.all(|first| {
            let logits: Vec<f64> = self.executor.logits(samples.batch(first)?)?.iter().collect();
            let each = logits.chunks_exact(classes).take(samples.count - first);
            Ok(each.map(<[f64]>::to_vec).collect())
        })
    }

    /// The executor that runs the plan.
    pub(crate) fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// The smallest batch that may be given to the executor.
    pub(crate) fn least(&self) -> usize {
        if self.schedule.padded { self.plan.batch() } else { 1 }
    }

    /// The number of batches that run side by side.
    pub(crate) fn lanes(&self) -> usize {
        self.schedule.lanes.min(rayon::current_num_threads())
    }
}

#[cfg(test)]
mod tests {
    //! Several samples in one run, as on a GPU: padding, the order of samples and rows, and the
    //! division of cotangents into blocks.

    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::tanh;

    use super::*;
    use crate::combinations::Combinations;
    use crate::jacobians::{Jacobian, Rows};

    /// Tolerance for one sample at a time against three together, whose products may be summed in
    /// another order.
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
    fn samples_that_run_together_have_combinations_of_their_own() {
        let program = program(graph(), 2);
        let samples = TensorData::new((0..16).map(|i| f64::from(i).cos()).collect::<Vec<_>>(), [4, 4]);
        let differences = run(&program, &samples);
        let choose = |sample: usize, logits: &[f64]| {
            assert_eq!(logits, differences[sample].logits);
            match sample {
                1 => Combinations::Rows(vec![0.25, -1.0, 0.75]),
                3 => Combinations::Logits,
                _ => Combinations::Differences,
            }
        };
        let found = program.jacobians(samples.clone()).expect("they fit").combining(choose);
        let found: Vec<_> = found.collect::<Result<_>>().expect("it runs");
        for sample in [0, 2] {
            assert_eq!(found[sample], differences[sample]);
        }
        let rows = |of: &Jacobian| match &of.rows {
            Rows::F64(rows) => rows.clone(),
            Rows::F32(_) => panic!("f64 runs"),
        };
        let (mixed, of) = (rows(&found[1]), rows(&differences[1]));
        let expected = (0..4).map(|i| 0.25 * of[i] - of[4 + i]);
        assert_eq!(mixed.len(), 4);
        assert!(mixed.iter().zip(expected).all(|(a, b)| (a - b).abs() < BATCHED), "{mixed:?}");
        let (all, of) = (rows(&found[3]), rows(&differences[3]));
        assert_eq!(all.len(), 3 * 4);
        let same = |(i, row): (usize, &f64)| (all[i] - all[8 + i % 4] - row).abs() < BATCHED;
        assert!(of.iter().enumerate().all(same), "{all:?} {of:?}");
    }

    #[test]
    fn memory_bounds_what_runs_side_by_side() {
        let device = Device::flex();
        let program = |memory: usize| {
            let memory = Some(Memory::new(memory));
            Program::new(graph(), &device, &Options { memory, ..Options::default() })
        };
        let bytes = program(1 << 20).expect("plenty").plan().bytes();
        let sample = bytes.peak() - bytes.weights;
        assert_eq!(
            program(bytes.weights + 3 * sample).expect("three fit").schedule,
            BatchSchedule { lanes: 3, padded: true }
        );
        let refused = program(bytes.peak() - 1).expect_err("not even one");
        assert!(
            matches!(refused, Error::Memory { needed, .. } if needed.bytes() == bytes.peak()),
            "{refused}"
        );
    }

    #[test]
    fn single_precision_rows_come_as_such() {
        let device = Device::flex();
        let program = Program::new(graph(), &device, &Options { batch: 7, ..Options::default() });
        let program = program.expect("it loads");
        assert_eq!((program.plan().batch(), program.engine().as_str()), (1, "burn on flex"));
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
        let failing = Program {
            plan: working.plan,
            executor: Box::new(Failing),
            schedule: BatchSchedule { lanes: 2, padded: true },
            instead: None,
            unchecked: None,
        };
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
