//! Compares a model on both engines with its own forward pass: logits, Jacobian rows and Gram
//! matrices of all parameters, in f64.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use influence_autodiff::{Leaves, Program};

use crate::attack::differences::{self, SAME, distance, near};
use crate::attack::engines::{NoResult, captured, engine, grams, jacobians, loaded, rows};
use crate::attack::weights::numbers;

/// Samples per call.
const SAMPLES: usize = 3;

/// Fills a model with synthetic elements in f64, the same in every run, and moves one of them by a
/// step.
#[derive(Debug, Default, Clone)]
struct Filler {
    path: Vec<String>,
    seen: u64,
    /// Name and number of elements of each trained tensor.
    trained: Vec<(String, usize)>,
    moved: Option<(String, usize, f64)>,
}

impl ModuleMapper for Filler {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seen += 1;
        let shape = param.val().dims();
        let mut values = numbers(&shape, self.seen);
        let name = self.path.join(".");
        match self.path.last().map(String::as_str) {
            Some("running_var") => values.iter_mut().for_each(|x| *x = 0.5 + x.abs()),
            Some("running_mean") => {}
            _ => self.trained.push((name.clone(), values.len())),
        }
        if let Some((moved, element, by)) = &self.moved
            && *moved == name
        {
            values[*element] += by;
        }
        param.map(|old| Tensor::from_data(TensorData::new(values, shape), (&old.device(), DType::F64)))
    }
}

/// A model filled with synthetic elements in f64.
pub(crate) fn filled<M: Module>(model: M) -> M {
    model.map(&mut Filler::default())
}

/// A model filled with synthetic elements, and its forward pass.
struct Caller<'a, M, F, const D: usize> {
    model: M,
    forward: F,
    sample: &'a [usize],
    trained: Vec<(String, usize)>,
}

impl<'a, M, F, const D: usize> Caller<'a, M, F, D>
where
    M: Module,
    F: Fn(&M, Tensor<D>) -> Tensor<2>,
{
    fn new(model: M, forward: F, sample: &'a [usize]) -> Self {
        let mut fill = Filler::default();
        let model = model.map(&mut fill);
        Self { model, forward, sample, trained: fill.trained }
    }

    fn data(&self, samples: &[f64]) -> TensorData {
        let n = samples.len() / self.sample.iter().product::<usize>();
        TensorData::new(samples.to_vec(), [&[n], self.sample].concat())
    }

    /// The logits of a batch on the caller's device.
    fn logits(&self, model: &M, samples: &[f64]) -> Vec<f64> {
        let x = Tensor::from_data(self.data(samples), (&Device::flex(), DType::F64));
        (self.forward)(model, x).into_data().iter::<f64>().collect()
    }

    /// The logits of one sample after one element of one parameter is moved.
    fn moved(&self, name: &str, sample: &[f64], element: usize, by: f64) -> Vec<f64> {
        let moved = Some((name.to_owned(), element, by));
        let model = self.model.clone().map(&mut Filler { moved, ..Filler::default() });
        self.logits(&model, sample)
    }

    /// Compares one engine with the model; the error describes the first difference.
    fn judge(&self, name: &str, samples: &[f64]) -> Result<(), String> {
        let described = |stop: NoResult| match stop {
            NoResult::Panic(message) => format!("panics: {message}"),
            NoResult::Refused(error) => format!("refuses: {error}"),
        };
        let graph = captured(&self.model, &self.forward, self.sample).map_err(described)?;
        let kind = engine(name, u64::MAX);
        let program = loaded(&graph, Leaves::input(), kind).map_err(described)?;
        self.judge_rows(&program, samples).map_err(|why| format!("{} ({})", why, program.engine()))?;
        if graph.parameters().is_empty() {
            return Ok(());
        }
        let program = loaded(&graph, Leaves::parameters(&graph), kind).map_err(described)?;
        self.judge_grams(&program, samples).map_err(|why| format!("{} ({})", why, program.engine()))
    }

    /// Compares logits and rows at every sample.
    fn judge_rows(&self, program: &Program, samples: &[f64]) -> Result<(), String> {
        let own = self.logits(&self.model, samples);
        let classes = own.len() / SAMPLES;
        let found = jacobians(program, &self.data(samples)).map_err(|stop| format!("{stop:?}"))?;
        let singles = samples.chunks_exact(samples.len() / SAMPLES);
        for (index, (sample, jacobian)) in singles.zip(&found).enumerate() {
            let apart = distance(&jacobian.logits, &own[index * classes..(index + 1) * classes], 1.0);
            if apart > SAME {
                return Err(format!("logits of sample {index} are {apart:e} off"));
            }
            let logits = |samples: &[f64]| self.logits(&self.model, samples);
            let expected = |step| differences::rows(logits, sample, classes, step);
            near(rows(jacobian), expected).map_err(|why| format!("rows of sample {index}: {why}"))?;
        }
        Ok(())
    }

    /// Compares the Gram matrix of every parameter at the first sample.
    fn judge_grams(&self, program: &Program, samples: &[f64]) -> Result<(), String> {
        let found = grams(program, &self.data(samples)).map_err(|stop| format!("{stop:?}"))?;
        let sample = &samples[..samples.len() / SAMPLES];
        for (parameter, gram) in program.plan().graph().parameters().iter().zip(&found[0].tensors) {
            // The engine names normalisation parameters as PyTorch does.
            let burn = parameter.name.replace("norm.weight", "norm.gamma").replace("norm.bias", "norm.beta");
            let known = self.trained.iter().find(|(name, _)| *name == burn);
            let (name, elements) = known.ok_or_else(|| format!("no parameter is called {burn}"))?;
            let classes = found[0].logits.len();
            let logits = |element, by| self.moved(name, sample, element, by);
            let expected = |step| differences::gram(logits, *elements, classes, step);
            near(gram, expected).map_err(|why| format!("Gram matrix of {name}: {why}"))?;
        }
        Ok(())
    }
}

/// Asserts that both engines agree with the model's own forward pass and its differences, on three
/// samples.
///
/// # Panics
/// If an engine differs; the message lists the first difference per engine.
pub(crate) fn agrees<M, F, const D: usize>(model: M, forward: F, sample: &[usize])
where
    M: Module,
    F: Fn(&M, Tensor<D>) -> Tensor<2>,
{
    let caller = Caller::new(model, forward, sample);
    let samples = numbers(&[SAMPLES * sample.iter().product::<usize>()], 77);
    let wrong: Vec<String> = ["flex", "cpu"]
        .into_iter()
        .filter_map(|name| caller.judge(name, &samples).err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asserts that a model is refused with a typed error, when it is captured or when it is loaded, on
/// either engine.
///
/// # Panics
/// If an engine accepts the model, or panics.
pub(crate) fn refused<M, F, const D: usize>(model: M, forward: F, sample: &[usize])
where
    M: Module,
    F: Fn(&M, Tensor<D>) -> Tensor<2>,
{
    let caller = Caller::new(model, forward, sample);
    for name in ["flex", "cpu"] {
        let graph = captured(&caller.model, &caller.forward, sample);
        let program = graph.and_then(|graph| loaded(&graph, Leaves::input(), engine(name, u64::MAX)));
        match program {
            Err(NoResult::Refused(_)) => {}
            Err(NoResult::Panic(message)) => panic!("{name} panics: {message}"),
            Ok(program) => panic!("{} takes it", program.engine()),
        }
    }
}
