//! Compares both engines on one model with the caller's own forward pass and with central
//! differences of it.

use burn::tensor::{Device, Tensor, TensorData};
use influence_autodiff::{Error, Graph, Jacobian, Leaves, Precision, SampleGrams};

use crate::attack::differences::{self, SAME, distance, near};
use crate::attack::engines::{
    NoResult, captured, engine, grams, jacobians, loaded, loaded_in, numbers, rows,
};
use crate::attack::model::DrawnModel;
use crate::attack::quietly;
use crate::attack::rng::Rng;
use crate::attack::value::AnyTensor;
use crate::attack::weights::{DrawnWeights, ParameterNumbers};

/// What is wrong with a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    Panic,
    /// The engine's own check at load reports logits other than the model's.
    Caught,
    /// The engine loads the model and fails when it runs samples.
    FailsAtRun,
    Logits,
    Rows,
    RowsDiffer,
    Grams,
    GramsDiffer,
    /// The bits of a sample's result depend on the other samples of the batch.
    Bits,
    /// The second engine refuses a model that the first has computed.
    OneRefuses,
    /// The result in single precision is far from that in double precision.
    Single,
}

/// The outcome of the comparison of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ModelOutcome {
    Agrees {
        /// The engine's description of what our own kernels run, without numbers.
        ran: String,
        /// The operations of its graph, by the engine's names.
        nodes: Vec<&'static str>,
    },
    /// The model is not fit for the comparison, judged only by its own forward pass.
    Unfit(&'static str),
    Refused(String),
    Wrong {
        fault: Fault,
        engine: &'static str,
        detail: String,
    },
}

/// What is compared in addition to the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scope {
    /// Also compare Gram matrices of the parameters with differences in each element of each
    /// parameter.
    pub(crate) dense: bool,
}

/// Samples per call.
const SAMPLES: usize = 3;

/// The caller's side: the module, and its forward pass on the caller's device.
struct OwnModel<'a> {
    model: &'a DrawnModel,
    numbers: ParameterNumbers,
    device: Device,
}

impl OwnModel<'_> {
    /// The logits of a batch, `[n, K]`.
    fn logits(&self, numbers: &ParameterNumbers, samples: &[f64]) -> Vec<f64> {
        let weights = DrawnWeights::new(&self.model.parameters, numbers, &self.device);
        let size = self.model.sample.iter().product::<usize>();
        let n = samples.len() / size;
        let shape = [&[n], &self.model.sample[..]].concat();
        let x = AnyTensor::from_data(TensorData::new(samples.to_vec(), shape), &self.device);
        self.model.values(&weights, x, n).pop().map_or_else(Vec::new, |logits| logits.numbers())
    }

    /// The logits of one sample after one element of some parameters, which are tied to each other,
    /// is moved.
    fn moved(&self, fields: &[usize], sample: &[f64], element: usize, by: f64) -> Vec<f64> {
        let mut numbers = self.numbers.clone();
        fields.iter().for_each(|&field| numbers[field][element] += by);
        self.logits(&numbers, sample)
    }
}

/// Random samples of a model, row-major.
fn samples(model: &DrawnModel, count: usize, seed: u64) -> Vec<f64> {
    let mut rng = Rng::new(model.seed ^ seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    (0..count * model.sample.iter().product::<usize>()).map(|_| 1.2 * rng.weight()).collect()
}

/// Samples as a tensor `[n, ...sample]`.
fn data(model: &DrawnModel, samples: &[f64]) -> TensorData {
    let n = samples.len() / model.sample.iter().product::<usize>();
    TensorData::new(samples.to_vec(), [&[n], &model.sample[..]].concat())
}

/// Compares everything.
pub(crate) fn compare(model: &DrawnModel, scope: Scope) -> ModelOutcome {
    match judged(model, scope) {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

/// The outcome for a fault.
fn wrong<T>(fault: Fault, engine: &'static str, detail: String) -> Result<T, ModelOutcome> {
    Err(ModelOutcome::Wrong { fault, engine, detail })
}

/// The outcome for an engine that stops. A typed error at load is a refusal, unless it is one that
/// reports a difference from the model; later it is a fault, as is a panic at any time.
fn stopped(stop: NoResult, engine: &'static str, at_load: bool) -> ModelOutcome {
    match stop {
        NoResult::Refused(
            error @ (Error::Disagrees { .. } | Error::BatchDependent { .. } | Error::ForwardFailed { .. }),
        ) => ModelOutcome::Wrong { fault: Fault::Caught, engine, detail: error.to_string() },
        NoResult::Refused(error) if at_load => ModelOutcome::Refused(reason(&error)),
        NoResult::Refused(error) => {
            ModelOutcome::Wrong { fault: Fault::FailsAtRun, engine, detail: error.to_string() }
        }
        NoResult::Panic(message) => ModelOutcome::Wrong { fault: Fault::Panic, engine, detail: message },
    }
}

/// The reason of a refusal without its numbers, so that equal reasons are counted together.
fn reason(error: &Error) -> String {
    let text = match error {
        Error::Unsupported(problems) => {
            problems.first().map_or_else(String::new, |problem| format!("{}: {}", problem.op, problem.why))
        }
        other => other.to_string(),
    };
    without_numbers(&text)
}

/// The first 160 characters of a text with every number replaced by #.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(160) {
        match (c.is_ascii_digit(), out.ends_with('#')) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push(c),
        }
    }
    out
}

/// Runs the comparisons; the first fault ends them.
fn judged(model: &DrawnModel, scope: Scope) -> Result<ModelOutcome, ModelOutcome> {
    let own = OwnModel { model, numbers: model.numbers(), device: Device::flex() };
    let three = samples(model, SAMPLES, 1);
    let logits = own_logits(&own, &three)?;
    // The rank of the input is known only here, and Burn needs it at compile time.
    let graph = match model.sample.len() {
        1 => capture::<2>(model, &own),
        2 => capture::<3>(model, &own),
        3 => capture::<4>(model, &own),
        _ => capture::<5>(model, &own),
    };
    let graph = graph.map_err(|stop| stopped(stop, "capture", true))?;
    let mut ran = String::new();
    let mut found = Vec::new();
    // Each engine against the model itself, then the engines against each other.
    for name in ["flex", "cpu"] {
        let measured = measured(&own, &graph, name, &three);
        let (jacobians, grams, engine) = measured.map_err(|outcome| alike(outcome, name, &found))?;
        check_logits(name, &jacobians, &logits)?;
        check_rows(name, &own, &jacobians, &three)?;
        check_single(name, &own, &graph, &jacobians, &three)?;
        ran = engine;
        found.push((jacobians, grams));
    }
    between(&found[0].0, &found[1].0)?;
    check_grams(&own, &graph, &found[0].1, &found[1].1, &three, scope)?;
    let nodes = graph.nodes().iter().map(|node| node.op.name()).collect();
    Ok(ModelOutcome::Agrees { ran, nodes })
}

/// A refusal by the second engine is a fault, since the first has computed the model.
fn alike<T>(outcome: ModelOutcome, engine: &'static str, computed: &[T]) -> ModelOutcome {
    match outcome {
        ModelOutcome::Refused(detail) if !computed.is_empty() => {
            ModelOutcome::Wrong { fault: Fault::OneRefuses, engine, detail }
        }
        other => other,
    }
}

/// The graph of the model's forward function.
fn capture<const D: usize>(model: &DrawnModel, own: &OwnModel<'_>) -> Result<Graph, NoResult>
where
    AnyTensor: From<Tensor<D>>,
{
    let weights = DrawnWeights::new(&model.parameters, &own.numbers, &own.device);
    captured(&weights, |weights: &DrawnWeights, x: Tensor<D>| model.forward(weights, x), &model.sample)
}

/// The caller's logits of three samples, if they are finite and the same when the samples are run
/// one by one.
fn own_logits(own: &OwnModel<'_>, three: &[f64]) -> Result<Vec<f64>, ModelOutcome> {
    let size = three.len() / SAMPLES;
    let run = quietly(|| {
        let alone: Vec<f64> =
            three.chunks_exact(size).flat_map(|sample| own.logits(&own.numbers, sample)).collect();
        (own.logits(&own.numbers, three), alone)
    });
    let (together, alone) = run.map_err(|_| ModelOutcome::Unfit("its own forward pass panics"))?;
    if together.iter().any(|x| x.is_nan() || x.abs() >= 1e3) {
        return Err(ModelOutcome::Unfit("its own logits are large or not numbers"));
    }
    if distance(&together, &alone, 1.0) > 1e-12 {
        return Err(ModelOutcome::Unfit("its own samples depend on one another"));
    }
    if together.len() < 2 * SAMPLES {
        return Err(ModelOutcome::Unfit("one class"));
    }
    Ok(together)
}

type EngineResults = (Vec<Jacobian>, Vec<SampleGrams>, String);

/// What an engine returns for three samples. Asserts that running them one by one gives the same
/// bits.
fn measured(
    own: &OwnModel<'_>,
    graph: &Graph,
    name: &'static str,
    three: &[f64],
) -> Result<EngineResults, ModelOutcome> {
    // The Jacobian in the input: all samples in one call, then each in a call of its own.
    let kind = engine(name, own.model.seed);
    let program = loaded(graph, Leaves::input(), kind).map_err(|stop| stopped(stop, name, true))?;
    let ran = without_numbers(&program.engine());
    let at_run = |stop| stopped(stop, name, false);
    let together = jacobians(&program, &data(own.model, three)).map_err(at_run)?;
    let size = three.len() / SAMPLES;
    let singles = three.chunks_exact(size).enumerate();
    for (index, sample) in singles.clone() {
        let alone = jacobians(&program, &data(own.model, sample)).map_err(at_run)?;
        let same = bits(rows(&alone[0])) == bits(rows(&together[index]))
            && bits(&alone[0].logits) == bits(&together[index].logits);
        if !same {
            let shown = |of: &Jacobian| format!("logits {:?}, rows {:?}", of.logits, rows(of));
            let both = [&alone[0], &together[index]].map(shown);
            let what =
                format!("sample {index} has other bits when it runs alone:\n  {}\n  {}", both[0], both[1]);
            return wrong(Fault::Bits, name, what);
        }
    }
    if graph.parameters().is_empty() {
        return Ok((together, vec![], ran));
    }
    // The Gram matrices in the parameters and the input, in the same way.
    let leaves = Leaves::parameters(graph).and_input();
    let program = loaded(graph, leaves, kind).map_err(|stop| stopped(stop, name, true))?;
    let all = grams(&program, &data(own.model, three)).map_err(at_run)?;
    for (index, sample) in singles {
        let alone = grams(&program, &data(own.model, sample)).map_err(at_run)?;
        let same = alone[0].tensors.iter().zip(&all[index].tensors).all(|(a, b)| bits(a) == bits(b));
        if !same {
            return wrong(
                Fault::Bits,
                name,
                format!("Gram matrices of sample {index} have other bits when it runs alone"),
            );
        }
    }
    Ok((together, all, ran))
}

/// The bit patterns, which also compare NaN and the sign of 0.
fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Compares the logits with the model's own.
fn check_logits(name: &'static str, found: &[Jacobian], expected: &[f64]) -> Result<(), ModelOutcome> {
    let all: Vec<f64> = found.iter().flat_map(|jacobian| jacobian.logits.iter().copied()).collect();
    let apart = distance(&all, expected, 1.0);
    if apart > SAME {
        return wrong(Fault::Logits, name, format!("{apart:e}: {all:?}, the caller's {expected:?}"));
    }
    Ok(())
}

/// Compares the rows of one sample after the other with differences, until one agrees: a sample may
/// lie near a kink, but not all of them do.
fn check_rows(
    name: &'static str,
    own: &OwnModel<'_>,
    found: &[Jacobian],
    three: &[f64],
) -> Result<(), ModelOutcome> {
    let mut agreement = Ok(());
    for (sample, jacobian) in three.chunks_exact(three.len() / SAMPLES).zip(found) {
        let (rows, classes) = (rows(jacobian), jacobian.logits.len());
        let logits = |samples: &[f64]| own.logits(&own.numbers, samples);
        agreement = near(rows, |step| differences::rows(logits, sample, classes, step));
        if agreement.is_ok() || rows.iter().any(|x| !x.is_finite()) {
            break;
        }
    }
    agreement.or_else(|detail| wrong(Fault::Rows, name, detail))
}

/// Tolerance of single precision against double: wide enough for a dozen operations that lose
/// digits, far below the error of a wrong index.
const SINGLE: f64 = 2e-3;

/// Compares single with double precision, since the kernels have other vector widths there. One
/// agreeing sample is enough, as masks may differ near a kink.
fn check_single(
    name: &'static str,
    own: &OwnModel<'_>,
    graph: &Graph,
    double: &[Jacobian],
    three: &[f64],
) -> Result<(), ModelOutcome> {
    let kind = engine(name, own.model.seed);
    let program = loaded_in(graph, Leaves::input(), kind, Precision::F32);
    let program = program.map_err(|stop| stopped(stop, name, true))?;
    let found = jacobians(&program, &data(own.model, three)).map_err(|stop| stopped(stop, name, false))?;
    let apart = |(found, double): (&Jacobian, &Jacobian)| {
        let logits = distance(&found.logits, &double.logits, 1.0);
        logits.max(distance(&numbers(found), &numbers(double), 1.0))
    };
    let least = found.iter().zip(double).map(apart).fold(f64::INFINITY, f64::min);
    if least > SINGLE {
        return wrong(Fault::Single, name, format!("{least:e} from double precision"));
    }
    Ok(())
}

/// Compares the rows of the two engines.
fn between(flex: &[Jacobian], cpu: &[Jacobian]) -> Result<(), ModelOutcome> {
    for (flex, cpu) in flex.iter().zip(cpu) {
        let apart = distance(rows(cpu), rows(flex), 1e-3);
        if apart > SAME {
            let detail = format!("{apart:e}: {:?}, flex {:?}", rows(cpu), rows(flex));
            return wrong(Fault::RowsDiffer, "cpu", detail);
        }
    }
    Ok(())
}

/// The fields of the model that one parameter of the graph represents: one, or several that are
/// tied.
fn fields(model: &DrawnModel, name: &str) -> Vec<usize> {
    let all = 0..model.parameters.len();
    let Some(first) = all.clone().find(|&at| DrawnWeights::name(&model.parameters, at) == name) else {
        return vec![];
    };
    let first = model.parameters[first].tied.unwrap_or(first);
    all.filter(|&at| at == first || model.parameters[at].tied == Some(first)).collect()
}

/// Compares the Gram matrices of the two engines, and with differences if the scope asks for it.
fn check_grams(
    own: &OwnModel<'_>,
    graph: &Graph,
    flex: &[SampleGrams],
    cpu: &[SampleGrams],
    three: &[f64],
    scope: Scope,
) -> Result<(), ModelOutcome> {
    for (flex, cpu) in flex.iter().zip(cpu) {
        for (at, (flex, cpu)) in flex.tensors.iter().zip(&cpu.tensors).enumerate() {
            let apart = distance(cpu, flex, 1e-3);
            if apart > SAME {
                let name = &graph.parameters()[at].name;
                let detail = format!("{name}: {apart:e}: {cpu:?}, flex {flex:?}");
                return wrong(Fault::GramsDiffer, "cpu", detail);
            }
        }
    }
    let parameters = if scope.dense { 0..graph.parameters().len() } else { 0..0 };
    for at in parameters {
        let parameter = &graph.parameters()[at];
        let fields = fields(own.model, &parameter.name);
        if fields.is_empty() {
            return wrong(Fault::Grams, "capture", format!("no parameter is called {}", parameter.name));
        }
        near_dense(own, &parameter.name, &fields, at, flex, three)?;
    }
    Ok(())
}

/// Compares the Gram matrices of one parameter with differences, sample by sample until one agrees.
fn near_dense(
    own: &OwnModel<'_>,
    name: &str,
    fields: &[usize],
    at: usize,
    found: &[SampleGrams],
    three: &[f64],
) -> Result<(), ModelOutcome> {
    let mut agreement = Ok(());
    for (sample, grams) in three.chunks_exact(three.len() / SAMPLES).zip(found) {
        let (elements, classes) = (own.numbers[fields[0]].len(), grams.logits.len());
        let logits = |element, by| own.moved(fields, sample, element, by);
        agreement = near(&grams.tensors[at], |step| differences::gram(logits, elements, classes, step));
        if agreement.is_ok() {
            break;
        }
    }
    agreement.or_else(|detail| wrong(Fault::Grams, "flex", format!("{name}: {detail}")))
}
