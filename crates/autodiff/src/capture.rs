//! Records a Burn module's forward pass as a list of operations, without computing it and without
//! changing the caller's model.
//!
//! Burn's capture device records the operations on its tensors. This module handles the following:
//!
//! - The model that is moved to the capture device comes from [`Module::valid`], never from a
//!   clone: BatchNorm's running state is one cell that clones share, and the move to a capture
//!   device is one-way. `valid` makes a fresh cell, strips autodiff and initialises lazy
//!   parameters.
//! - One capture device (for each set of default types) serves the whole process, guarded by a
//!   lock: Burn allows 65 536 of them, and one scope at a time on each.
//! - The model sees the input as the result of an operation (x + 0, left out of the recording), so
//!   that reading its elements fails as for any computed tensor; a decision that a model bases on
//!   them would otherwise be recorded as if it were the same for every input.
//! - The model's code may panic while it is recorded (for example when it reads a computed tensor).
//!   The panic is caught, not printed, and returned with the last operation that was recorded.
//!
//! Burn 0.23 changes this interface; nothing outside this file knows how a recording is made.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, Once, PoisonError};

use burn::backend::Capture;
use burn::backend::ir::{OperationIr, TensorId};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, DType, Device, FloatDType, Int, IntDType, Tensor, TensorData};

use crate::error::{Error, Result};
use crate::graph::Role;

/// The record of one run of the model.
#[derive(Debug)]
pub(crate) struct Recording {
    /// Every operation, in order; initialisations and drops are left out.
    pub(crate) operations: Vec<OperationIr>,
    /// Host values of every tensor that was not computed: weights, buffers, literals.
    pub(crate) values: BTreeMap<TensorId, TensorData>,
    /// The model's own tensors.
    pub(crate) names: HashMap<TensorId, ModelTensor>,
    /// The input.
    pub(crate) input: TensorId,
    /// The input's shape, batch axis included.
    pub(crate) shape: Vec<usize>,
    /// The tensor that the forward function returned.
    pub(crate) output: TensorId,
    /// The type of the model's float tensors.
    pub(crate) dtype: DType,
}

/// A tensor of the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelTensor {
    /// The path in PyTorch's terms.
    pub(crate) name: String,
    /// Whether it is trained.
    pub(crate) role: Role,
    /// The index among the model's tensors, in the order in which the model holds them.
    pub(crate) order: usize,
}

/// Records `forward` on a batch of `batch` samples of shape `sample`.
pub(crate) fn record<M, F, const D: usize>(
    model: &M,
    forward: &F,
    sample: &[usize],
    batch: usize,
    home: &Device,
) -> Result<Recording>
where
    M: Module,
    F: Fn(&M, Tensor<D>) -> Tensor<2>,
{
    let shape: Vec<usize> = std::iter::once(batch).chain(sample.iter().copied()).collect();
    if shape.len() != D {
        let expected = format!("with {} axes beside the batch, as the forward function takes", D - 1);
        return Err(Error::Shape { what: "sample", expected, found: sample.to_vec() });
    }
    if RECORDING.get() {
        return Err(failed("the model's forward function measures influence itself".into(), None));
    }
    // Burn's own code may panic, too: wherever it or the model runs, panics become messages.
    let prepared = quietly(|| model.valid()).map_err(|message| failed(message, None))?;
    let home = home.clone().without_autodiff();

    let _recording = Recorded::begin();
    // Held until the recording ends: Burn allows one scope at a time on a device.
    let mut kept = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    let device = recorder(&mut kept, &home);
    // The scope gives the recorded operations. Other results of the run leave the scope by these
    // two.
    let mut outcome = Err(failed("the recording did not begin".into(), None));
    let input = Cell::new(None);
    let captured = device.capture_scope(|scope| {
        let names = RefCell::new(Names::default());
        let run = quietly(|| {
            // The model runs on the recording device, on zeros: their values are not read.
            configure(&device, &home);
            let moved = prepared.to_device(&device);
            moved.visit(&mut *names.borrow_mut());
            let dtype = names.borrow().dtype.unwrap_or(DType::F32);
            let data = TensorData::zeros::<f32, _>(shape.clone()).convert_dtype(dtype);
            let given = Tensor::<D>::from_data(data, (&home, dtype)).to_device(&device);
            let entry = id(&given);
            // x + 0, so that reading the input fails: see the top of this file.
            let x = given.add_scalar(0.0);
            input.set(id(&x));
            (entry, id(&forward(&moved, x)), dtype)
        });
        // The scope needs its end either way, without inputs and outputs if the run has failed.
        match run {
            Ok((Some(entry), Some(output), dtype)) => {
                outcome = Ok((output, dtype, names.into_inner().found));
                scope.complete([entry], [output])
            }
            other => {
                let elsewhere = "the forward function returned a tensor of another device";
                outcome = Err(failed(other.err().unwrap_or_else(|| elsewhere.into()), None));
                scope.complete([], [])
            }
        }
    });
    drop(kept);
    let seen = RecordedInput { input: input.get(), shape };
    let captured = captured.map_err(|error| error.to_string());
    seen.assemble(outcome, captured.map(|captured| (captured.graph.operations, captured.values)))
}

/// The input of a recorded run.
struct RecordedInput {
    input: Option<TensorId>,
    shape: Vec<usize>,
}

/// Output, float type and named tensors of a run that succeeded.
type RunOutcome = (TensorId, DType, HashMap<TensorId, ModelTensor>);

impl RecordedInput {
    /// Whether an operation is the model's own: neither the one that made its input, nor one that
    /// marks the beginning or end of a tensor's life.
    fn is_own(&self, op: &OperationIr) -> bool {
        !matches!(op, OperationIr::Init(_) | OperationIr::Drop(_))
            && op.outputs().all(|output| Some(output.id) != self.input)
    }

    /// The recording, or the reason why there is none, with the last operation that was recorded.
    fn assemble(
        self,
        outcome: Result<RunOutcome>,
        captured: Result<(Vec<OperationIr>, BTreeMap<TensorId, TensorData>), String>,
    ) -> Result<Recording> {
        match (outcome, captured, self.input) {
            (Ok((output, dtype, names)), Ok((operations, values)), Some(input)) => {
                let operations = operations.into_iter().filter(|op| self.is_own(op)).collect();
                Ok(Recording { operations, values, names, input, shape: self.shape, output, dtype })
            }
            (Err(Error::CaptureFailed { message, .. }), Ok((operations, _)), _) => {
                Err(failed(message, operations.iter().rfind(|op| self.is_own(op))))
            }
            (Err(error), ..) => Err(error),
            (Ok(_), Err(message), _) => Err(failed(message, None)),
            (Ok(_), Ok(_), None) => Err(failed("the input was not recorded".into(), None)),
        }
    }
}

fn failed(message: String, last: Option<&OperationIr>) -> Error {
    let last = last.map_or_else(|| "none".to_owned(), operation_name);
    // Burn's messages have several lines.
    let mut message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    if message.contains("no concrete value") {
        message.push_str("; the forward function reads computed values, which a recording does not have: control flow on data cannot be captured");
    }
    Error::CaptureFailed { message, last }
}

/// The operation as Burn names it, without operands: `Module::Conv2d`, `NumericFloat::Add`.
pub(crate) fn operation_name(op: &OperationIr) -> String {
    let text = format!("{op:?}");
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let family = words.next().unwrap_or_default();
    // `NumericFloat(F32, Add(...))`: the element type comes between the family and the operation.
    let operation = words.find(|word| word.parse::<DTypeName>().is_err()).unwrap_or_default();
    format!("{family}::{operation}")
}

/// A debug name of an element type ("F32", "I64", "Bool").
struct DTypeName;

impl std::str::FromStr for DTypeName {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        let digits = word.trim_start_matches(|c: char| c.is_alphabetic());
        let float = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        let prefix = &word[..word.len() - digits.len()];
        if (float && ["F", "BF", "I", "U", "Flex"].contains(&prefix)) || word == "Bool" {
            Ok(Self)
        } else {
            Err(())
        }
    }
}

/// The recorded identity of a tensor on the capture device.
fn id<const D: usize>(tensor: &Tensor<D>) -> Option<TensorId> {
    tensor.clone().try_into_primitive::<Capture>().ok().map(|primitive| primitive.id())
}

/// The default types of a device: those of tensors that a model makes without naming a type.
type Defaults = (FloatDType, IntDType);

static DEVICES: Mutex<Vec<(Defaults, Device)>> = Mutex::new(Vec::new());

/// The recording device with the default types of `home`, so that tensors made in the forward
/// function (the states of a recurrent layer) have the same type on both.
fn recorder(kept: &mut Vec<(Defaults, Device)>, home: &Device) -> Device {
    let defaults = defaults(home);
    if let Some((_, device)) = kept.iter().find(|(known, _)| *known == defaults) {
        return device.clone();
    }
    let device = Device::capture();
    kept.push((defaults, device.clone()));
    device
}

fn defaults(device: &Device) -> Defaults {
    let settings = device.settings();
    (settings.float_dtype, settings.int_dtype)
}

/// Gives the recording device the default types of the caller's device, once. The operations by
/// which Burn tries the types are recorded too, but nothing depends on them. A device that refuses
/// keeps Burn's defaults.
fn configure(device: &Device, home: &Device) {
    let wanted = defaults(home);
    if defaults(device) != wanted {
        let _ = device.clone().configure(wanted);
    }
}

thread_local! {
    /// Whether this thread records a model. It is not the same as [`QUIET`]: a thread that waits
    /// inside a kernel may take up another task of its pool, and that may be a capture.
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    /// Whether a panic of this thread becomes a message instead of reaching the terminal.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    /// The message of such a panic.
    static MESSAGE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// A guard: while it lives, this thread records a model.
struct Recorded;

impl Recorded {
    fn begin() -> Self {
        RECORDING.set(true);
        Self
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        RECORDING.set(false);
    }
}

/// Runs `work`; a panic becomes its message and does not reach the terminal.
///
/// # Errors
/// The message of the panic.
pub fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // One hook for the whole process; what panics outside of `quietly` goes on to the hook before
    // it.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                let location =
                    info.location().map(|at| format!(", at {}:{}", file_name(at.file()), at.line()));
                let text = info.payload_as_str().unwrap_or("a panic without a message");
                MESSAGE.set(Some(format!("{text}{}", location.unwrap_or_default())));
            } else {
                previous(info);
            }
        }));
    });
    let outer = QUIET.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(outer);
    result.map_err(|payload| MESSAGE.take().unwrap_or_else(|| text(payload.as_ref())))
}

/// The message of a panic that did not pass our hook: it was raised in another thread and passed
/// on, or the hook was replaced.
fn text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message")
        .to_owned()
}

fn file_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// Collects the names of a module's tensors, in PyTorch's terms.
#[derive(Default)]
struct Names {
    path: Vec<(String, String)>,
    found: HashMap<TensorId, ModelTensor>,
    dtype: Option<DType>,
}

impl Names {
    /// The path with dots; normalisation's gamma and beta are PyTorch's weight and bias.
    fn name(&self) -> String {
        let container = self.path.last().map(|(_, container)| container.as_str()).unwrap_or_default();
        let mut words: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(last) = words.last_mut()
            && container.ends_with("Norm")
        {
            *last = match *last {
                "gamma" => "weight",
                "beta" => "bias",
                other => other,
            };
        }
        words.join(".")
    }
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.push((name.to_owned(), container_type.to_owned()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let name = self.name();
        // A visitor sees running statistics as parameters, but they are state and not trained.
        let buffer = name.rsplit('.').next().is_some_and(|last| last.starts_with("running_"));
        let role = if buffer { Role::Buffer } else { Role::Parameter(param.id) };
        self.dtype.get_or_insert(tensor.dtype());
        if let Some(id) = id(&tensor) {
            let order = self.found.len();
            self.found.insert(id, ModelTensor { name, role, order });
        }
    }

    fn visit_int<const D: usize>(&mut self, _: &Param<Tensor<D, Int>>) {}

    fn visit_bool<const D: usize>(&mut self, _: &Param<Tensor<D, Bool>>) {}
}

#[cfg(test)]
mod tests {
    //! The recorder's state on one thread, and operation names from debug texts.

    use burn::nn::{Linear, LinearConfig};

    use super::*;

    fn captured() -> Result<Recording> {
        let device = Device::flex();
        let layer = LinearConfig::new(2, 2).init(&device);
        record(&layer, &|layer: &Linear, x: Tensor<2>| layer.forward(x), &[2], 2, &device)
    }

    #[test]
    fn a_capture_taken_up_inside_a_kernel_is_no_nested_capture() {
        assert!(quietly(captured).is_ok_and(|recording| recording.is_ok()));
    }

    #[test]
    fn a_panic_is_reported_whichever_thread_raised_it() {
        assert_eq!(quietly(|| 7), Ok(7));
        let own = quietly(|| panic!("own {}", 1)).expect_err("it panics");
        assert!(own.starts_with("own 1, at capture.rs:"), "{own}");
        // Raised in another thread and passed on, as a thread pool does: our hook has not seen it.
        let handed = quietly(|| panic::resume_unwind(Box::new("handed on".to_owned())));
        assert_eq!(handed, Err::<(), _>("handed on".to_owned()));
        let literal = quietly(|| panic::resume_unwind(Box::new("literal")));
        assert_eq!(literal, Err::<(), _>("literal".to_owned()));
        let inner = quietly(|| quietly(|| panic!("inner")).is_err());
        assert_eq!(inner, Ok(true));
    }

    #[test]
    fn a_recording_holds_names_and_not_the_input() {
        let recording = captured().expect("it is recorded");
        assert!(!recording.values.contains_key(&recording.input), "the input has no values to read");
        let mut names: Vec<_> = recording.names.values().map(|named| named.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["bias", "weight"]);
        let operations: Vec<_> = recording.operations.iter().map(operation_name).collect();
        assert_eq!(operations, ["Float::Matmul", "BaseFloat::Reshape", "NumericFloat::Add"]);
    }

    #[test]
    fn element_types_are_distinguished_from_operations() {
        for name in ["F32", "F64", "BF16", "I64", "U8", "Flex32", "Bool"] {
            assert!(name.parse::<DTypeName>().is_ok(), "{name}");
        }
        for name in ["Add", "Conv2d", "Fill", "F", "Cast", "IntoInt", "Log1p"] {
            assert!(name.parse::<DTypeName>().is_err(), "{name}");
        }
    }
}
