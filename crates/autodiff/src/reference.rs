//! The comparison with the caller's own forward pass: a check that does not depend on the rest of
//! this crate being right.
//!
//! When a model is captured, it also runs unchanged, on its own device, on [`TOGETHER`] synthetic
//! samples and once more on one of them alone; the graph holds these logits ([`ModelLogits`]). When
//! a program is loaded, the executor runs at the same samples ([`Program::compare`]). A fault in
//! between (control flow that the recordings did not show, an operation taken for another, a kernel
//! that reads a wrong element) moves the logits by far more than rounding, and is reported with the
//! first node at which it shows.

use std::collections::HashMap;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::burn_executor::BurnExecutor;
use crate::capture::quietly;
use crate::check::{distribution, draw_sample};
use crate::device::is_processor;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::graph::Graph;
use crate::ops::{Op, with_leading};
use crate::plan::Plan;
use crate::precision::Precision;
use crate::program::Program;

/// The number of samples that run together: more than two recordings have, and odd, so that a model
/// that treats halves or pairs of a batch differently is found.
const TOGETHER: usize = 5;

/// The sample that also runs alone: one with elements on both sides of 0 ([`draw_sample`]).
const LONE: usize = 1;

/// Two runs may differ by this many times the difference between single and double precision. A
/// factor is needed because that difference, a single measurement of rounding, may happen to be
/// small.
const ROUNDINGS: f64 = 16.0;

/// Two runs may differ by this much whatever the values: what is left of numbers that cancel may be
/// so small that single precision, by which rounding is measured, has no such numbers. Its smallest
/// normal number is 1.18e-38.
const UNDERFLOW: f64 = 1.2e-38;

/// Whether a program is compared with the model's own forward pass when it is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Check {
    /// The program is compared.
    #[default]
    On,
    /// The program is not compared, for this reason, which [`Program::engine`] shows.
    Off(String),
}

/// The model's own logits at synthetic samples.
#[derive(Debug, Clone)]
pub(crate) struct ModelLogits {
    /// The device on which the model ran.
    device: Device,
    /// The float type in which it ran.
    dtype: DType,
    /// `[TOGETHER, ...sample]`, rounded to the model's type.
    samples: TensorData,
    /// Their logits `[TOGETHER, K]`.
    together: Vec<f64>,
    /// The logits of [`LONE`], run alone.
    alone: Vec<f64>,
}

impl ModelLogits {
    /// Runs `forward` on the model's own device.
    pub(crate) fn of<M, F, const D: usize>(
        model: &M,
        forward: &F,
        sample: &[usize],
        graph: &Graph,
        home: &Device,
    ) -> Result<Self>
    where
        M: Module,
        F: Fn(&M, Tensor<D>) -> Tensor<2>,
    {
        let dtype = graph.dtype();
        let samples = synthetic_samples(sample, dtype);
        let run = || {
            // Like the recording, the run is one of inference, on a copy of the model.
            let model = model.valid();
            let device =
                model.devices().into_iter().next().unwrap_or_else(|| home.clone()).without_autodiff();
            let logits = |samples: TensorData| {
                let x = Tensor::<D>::from_data(samples, (&device, dtype));
                let logits = forward(&model, x).into_data().iter::<f64>().collect::<Vec<_>>();
                // One logit z is [z, 0] in the graph.
                if graph.is_of_one_logit() { logits.iter().flat_map(|&z| [z, 0.0]).collect() } else { logits }
            };
            (logits(samples.clone()), logits(copies(&samples, LONE, 1)), device.clone())
        };
        let (together, alone, device) = quietly(run).map_err(|message| Error::ForwardFailed { message })?;
        Ok(Self { device, dtype, samples, together, alone })
    }

    /// Binary digits of the coarsest arithmetic on either side.
    fn digits(&self, graph: &Graph, precision: Precision, device: &Device) -> i32 {
        // A cast may take a part of the model to single precision, and Burn's hard sigmoid computes
        // in it.
        let mixed = graph.nodes.iter().any(|node| matches!(node.op, Op::Cast(_) | Op::HardSigmoid(_)));
        let single = precision == Precision::F32 || mixed || self.dtype == DType::F32;
        let on_cpu = [device, &self.device].iter().all(|device| is_processor(device));
        match self.dtype {
            DType::BF16 => 8,
            DType::F16 => 11,
            // The matrix units of GPUs may round single precision to eleven bits.
            _ if single && !on_cpu => 11,
            _ if single => 24,
            _ => 53,
        }
    }
}

/// The synthetic samples, rounded to the model's type.
fn synthetic_samples(sample: &[usize], dtype: DType) -> TensorData {
    let values: Vec<f32> = (0..TOGETHER).flat_map(|draw| draw_sample(sample, draw)).collect();
    TensorData::new(values, with_leading(TOGETHER, sample)).convert_dtype(dtype)
}

/// `count` copies of one of several samples, in double precision.
fn copies(samples: &TensorData, sample: usize, count: usize) -> TensorData {
    let shape = &samples.shape()[1..];
    let size: usize = shape.iter().product();
    let one: Vec<f64> = samples.iter::<f64>().skip(sample * size).take(size).collect();
    TensorData::new(one.repeat(count), with_leading(count, shape))
}

/// The largest difference between two lists of values, if it exceeds `allowed`: its index, and both
/// values.
fn furthest(expected: &[f64], found: &[f64], allowed: f64) -> Option<(usize, [f64; 2])> {
    let off = |(_, [a, b]): &(usize, [f64; 2])| if b.is_finite() { (a - b).abs() } else { f64::INFINITY };
    let pairs = expected.iter().zip(found).map(|(a, b)| [*a, *b]).enumerate();
    // Values at which the model itself overflows are not compared.
    let worst = pairs.filter(|(_, [a, _])| a.is_finite()).max_by(|a, b| off(a).total_cmp(&off(b)))?;
    (off(&worst) > allowed).then_some(worst)
}

/// The largest finite magnitude.
fn largest(values: &[f64]) -> f64 {
    values.iter().filter(|x| x.is_finite()).fold(0.0, |max, x| max.max(x.abs()))
}

impl Program {
    /// Compares the logits at the synthetic samples with the model's own, and refuses outputs that
    /// are probabilities.
    ///
    /// # Errors
    /// [`Error::BatchDependent`] when the model's logits of a sample depend on whether it runs
    /// alone; [`Error::Disagrees`] when the executor's logits are not the model's;
    /// [`Error::Probabilities`].
    pub(crate) fn compared(mut self, device: &Device, check: &Check) -> Result<Self> {
        self.compare(device, check)?;
        if let Check::Off(why) = check {
            self.unchecked = Some(why.clone());
        }
        Ok(self)
    }

    fn compare(&self, device: &Device, check: &Check) -> Result<()> {
        let graph = self.plan().graph();
        let samples = graph.reference.as_ref().map_or_else(
            || synthetic_samples(&graph.sample_shape(), DType::F32),
            |reference| reference.samples.clone(),
        );
        let found = self.logits(samples)?.concat();
        if let (Some(reference), Check::On) = (&graph.reference, check) {
            let digits = reference.digits(graph, self.plan().precision(), device);
            ModelComparison { program: self, reference: reference.as_ref(), digits }.run(&found)?;
        }
        distribution(&found, graph.classes())
    }
}

/// A program and the model's logits to compare it with.
struct ModelComparison<'a> {
    program: &'a Program,
    reference: &'a ModelLogits,
    /// Binary digits of the coarsest arithmetic on either side.
    digits: i32,
}

impl ModelComparison<'_> {
    fn run(&self, found: &[f64]) -> Result<()> {
        let ModelLogits { together, alone, .. } = self.reference;
        let graph = self.program.plan().graph();
        let classes = graph.classes();
        let lone = &together[LONE * classes..][..classes];
        // The tolerance is generous and costs nothing; only where it is exceeded is rounding
        // measured.
        let mut allowed = self.tolerance(largest(together).max(largest(alone)));
        if furthest(alone, lone, allowed).or_else(|| furthest(together, found, allowed)).is_none() {
            return Ok(());
        }
        allowed = allowed.max(self.rounding()?);
        if let Some((class, [alone, together])) = furthest(alone, lone, allowed) {
            return Err(Error::BatchDependent { class, alone, samples: TOGETHER, together });
        }
        let Some((at, [expected, found])) = furthest(together, found, allowed) else { return Ok(()) };
        let (sample, class) = (at / classes, at % classes);
        let (node, remedy) = self.blame(sample, allowed)?;
        let node = node.map_or_else(|| "the output".to_owned(), |node| graph.describe(node));
        Err(Error::Disagrees { engine: self.program.engine(), node, sample, class, expected, found, remedy })
    }

    /// The difference allowed between two runs of values of this largest magnitude: half of the
    /// digits.
    ///
    /// Rounding errors of deep networks are well below: f32 runs of the networks that we know
    /// differ by 1e-5 at most, f64 runs by 1e-13. An error of the engine is of the order of the
    /// logits themselves.
    fn tolerance(&self, largest: f64) -> f64 {
        UNDERFLOW.max((-f64::from(self.digits) / 2.0).exp2() * largest)
    }

    /// The effect of rounding on these logits: the difference between single and double precision,
    /// scaled to the digits in use. Where large terms cancel, it can exceed half of the digits that
    /// are left. On a device other than a CPU it is not measured: 0.
    fn rounding(&self) -> Result<f64> {
        let ModelLogits { device, samples, .. } = self.reference;
        if !is_processor(device) {
            return Ok(0.0);
        }
        let logits = |precision: Precision| -> Result<Vec<f64>> {
            let plan = Plan::input(Arc::clone(&self.program.plan().graph), TOGETHER, 1, precision)?;
            let batch = samples.clone().convert_dtype(precision.dtype().into());
            Ok(BurnExecutor::new(Arc::new(plan), device)?.logits(batch)?.iter().collect())
        };
        let (single, double) = (logits(Precision::F32)?, logits(Precision::F64)?);
        let moved = furthest(&double, &single, 0.0).map_or(0.0, |(_, [a, b])| (a - b).abs());
        // Single precision has 24 binary digits.
        Ok(ROUNDINGS * moved * f64::from(24 - self.digits).exp2())
    }

    /// The first node that differs, and a remedy: another engine, where Burn's own operations on
    /// the model's device agree with the model.
    fn blame(&self, sample: usize, allowed: f64) -> Result<(Option<usize>, &'static str)> {
        let (plan, classes) = (self.program.plan(), self.program.plan().graph().classes());
        // As many copies of the sample as the executor takes at least.
        let count = self.program.least();
        let own = Plan::input(Arc::clone(&plan.graph), count, 1, plan.precision())?;
        let burn = BurnExecutor::new(Arc::new(own), &self.reference.device)?;
        let batch =
            copies(&self.reference.samples, sample, count).convert_dtype(plan.precision().dtype().into());
        let logits: Vec<f64> = burn.logits(batch.clone())?.iter().take(classes).collect();
        let expected = &self.reference.together[sample * classes..][..classes];
        if furthest(expected, &logits, allowed).is_some() {
            return Ok((None, NEITHER));
        }
        Ok((self.first_difference(&burn, batch)?, OTHER))
    }

    /// The first node whose result differs between the program's executor and `burn`.
    fn first_difference(&self, burn: &BurnExecutor, batch: TensorData) -> Result<Option<usize>> {
        let mut expected = HashMap::new();
        burn.observe(batch.clone(), &mut |node, value| {
            expected.insert(node, value.iter::<f64>().collect::<Vec<_>>());
        })?;
        let differs = |expected: &Vec<f64>, found: &[f64]| {
            expected.len() != found.len()
                || furthest(expected, found, self.tolerance(largest(expected))).is_some()
        };
        let mut first: Option<usize> = None;
        self.program.executor().observe(batch, &mut |node, value| {
            let found: Vec<f64> = value.iter().collect();
            // An executor may compute nodes in another order than the graph's.
            let earlier = first.is_none_or(|first| node < first);
            if earlier && expected.get(&node).is_some_and(|expected| differs(expected, &found)) {
                first = Some(node);
            }
        })?;
        Ok(first)
    }
}

/// The remedy where Burn's operations agree with the model.
const OTHER: &str = "Burn's own operations agree with the model: choose them (`Engine::Burn`, on a CPU device), \
                     and report this network, please";

/// The remedy where Burn's operations do not agree with the model either.
const NEITHER: &str = "Burn's own operations, run from the recording, do not agree with the model either: the recording is not what the \
                       model does (control flow on the batch or on values, a custom kernel); report this network, please";

#[cfg(test)]
mod tests {
    //! The reports for a graph that was changed after its capture, and for an executor that
    //! computes one node wrongly.

    use burn::module::Param;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::tanh;

    use super::*;
    use crate::executor::Linearized;
    use crate::program::Options;

    fn graph() -> Graph {
        let device = Device::flex();
        let layer = LinearConfig::new(4, 3).init(&device);
        let forward = |layer: &Linear, x: Tensor<2>| tanh(layer.forward(x * 2.0)) * 3.0;
        Graph::capture(&layer, forward, &[4], &device).expect("it is captured")
    }

    #[test]
    fn a_graph_that_is_not_the_model_is_found() {
        for precision in [Precision::F32, Precision::F64] {
            let options = Options { precision, ..Options::default() };
            let mut graph = graph();
            assert!(Program::new(graph.clone(), &Device::flex(), &options).is_ok());
            let scaled = |node: &&mut crate::graph::Node| matches!(&node.op, Op::MulScalar(scale) if scale.value == 3.0);
            let node = graph.nodes.iter_mut().find(scaled).expect("the last operation");
            node.op = Op::MulScalar(crate::ops::arithmetic::MulScalar { value: 3.01 });
            let found = Program::new(graph, &Device::flex(), &options).expect_err("it is refused");
            let Error::Disagrees { engine, node, expected, found, remedy, .. } = found else {
                panic!("{found}")
            };
            assert_eq!((engine.as_str(), node.as_str(), remedy), ("burn on flex", "the output", NEITHER));
            assert!((found / expected - 3.01 / 3.0).abs() < 1e-3, "{found} {expected}");
        }
    }

    /// Burn's executor, whose results are off by a number from one node on.
    #[derive(Debug)]
    struct Wrong {
        burn: BurnExecutor,
        node: usize,
        by: f64,
    }

    impl Executor for Wrong {
        fn name(&self) -> String {
            "wrong".into()
        }

        fn linearize(&self, batch: TensorData) -> Result<Box<dyn Linearized + '_>> {
            self.burn.linearize(batch)
        }

        fn logits(&self, batch: TensorData) -> Result<TensorData> {
            Ok(off(&self.burn.logits(batch)?, self.by))
        }

        fn observe(&self, batch: TensorData, look: &mut dyn FnMut(usize, TensorData)) -> Result<()> {
            self.burn.observe(batch, &mut |node, value| {
                look(node, if node < self.node { value } else { off(&value, self.by) });
            })
        }
    }

    fn off(data: &TensorData, by: f64) -> TensorData {
        TensorData::new(data.iter::<f64>().map(|x| x + by).collect::<Vec<_>>(), data.shape().clone())
    }

    /// Loads a program that is off from one node on.
    fn wrong(graph: &Arc<Graph>, node: usize, by: f64) -> Program {
        let plan = Arc::new(Plan::input(Arc::clone(graph), 2, 2, Precision::F64).expect("it is planned"));
        let burn = BurnExecutor::new(Arc::clone(&plan), &Device::flex()).expect("it loads");
        Program::with_executor(plan, Box::new(Wrong { burn, node, by }))
    }

    #[test]
    fn the_first_node_that_differs_is_named() {
        let graph = Arc::new(graph());
        for node in 0..graph.nodes.len() {
            let program = wrong(&graph, node, 0.1);
            // Constants are folded, and not computed with the batch.
            let computed = program.plan().steps.iter().map(|step| step.node).find(|&step| step >= node);
            let refused = program.compare(&Device::flex(), &Check::On).expect_err("it is refused");
            let Error::Disagrees { node: found, remedy, .. } = refused else { panic!("{refused}") };
            assert_eq!((found, remedy), (graph.describe(computed.expect("the last one")), OTHER));
            assert!(program.compare(&Device::flex(), &Check::Off("a test".into())).is_ok());
        }
    }

    #[test]
    fn logits_that_are_rounding_alone_are_not_compared() {
        let device = Device::flex();
        let weight = TensorData::from([[0.7, -0.3], [0.1, 0.9], [-0.6, 0.2]]);
        let weight = Param::from_tensor(Tensor::from_data(weight, (&device, DType::F64)));
        let layer = Linear { weight, bias: None };
        // A number minus itself, up to rounding, where f32 has only zero.
        let forward = |layer: &Linear, x: Tensor<2>| {
            let y = layer.forward(x) * 1e-60;
            y.clone() / 3.0 * 3.0 - y
        };
        let graph = Arc::new(Graph::capture(&layer, forward, &[3], &device).expect("it is captured"));
        let node = graph.nodes.len() - 1;
        assert!(wrong(&graph, node, 1e-70).compare(&device, &Check::On).is_ok());
        let refused = wrong(&graph, node, 1e-30).compare(&device, &Check::On);
        assert!(matches!(refused, Err(Error::Disagrees { .. })), "{refused:?}");
    }

    #[test]
    fn nan_in_the_model_is_not_compared_and_nan_in_the_program_differs() {
        assert_eq!(furthest(&[f64::NAN, 1.0], &[2.0, 1.0], 0.0), None);
        assert_eq!(furthest(&[1.0, 2.0], &[1.25, 2.5], 0.3), Some((1, [2.0, 2.5])));
        assert!(furthest(&[1.0], &[f64::NAN], 1e300).is_some_and(|(at, _)| at == 0));
        assert_eq!(largest(&[f64::INFINITY, -3.0, 2.0]), 3.0);
    }
}
