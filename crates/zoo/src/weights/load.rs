//! Loads weights from a file into a network.

use burn::module::Module;
use burn::tensor::{Device, FloatDType};

use super::checkpoint::{Checkpoint, Values};
use super::fit::{Fit, fit};
use super::input::Source;
use super::{LoadReport, module};
use crate::Error;
use crate::names::{Entry, TensorRole, entries};

/// Loads weights of any float type into a network. The network then computes in `precision` on
/// `device`.
///
/// Works for any Burn module whose paths are PyTorch's names. The network is moved to `device` and
/// returned in evaluation mode; on an autodiff device, ready to train. Clones of it keep their
/// weights and buffers.
///
/// # Errors
///
/// - [`Error::Io`], [`Error::Corrupt`]: the file cannot be read, or is not a valid safetensors or
///   PyTorch file.
/// - [`Error::Foreign`], [`Error::StateDict`]: a PyTorch file contains more than weights, or not
///   one `state_dict`.
/// - [`Error::WrongNetwork`], [`Error::WrongSize`], [`Error::Mismatch`]: its tensors do not match
///   the network.
/// - [`Error::NonFinite`], [`Error::NegativeVariance`]: a weight is NaN or infinite, or a variance
///   negative.
/// - [`Error::NoSuchPrecision`]: `precision` is neither f32 nor f64.
/// - [`Error::UnsupportedPrecision`]: the device does not support `precision`.
///
/// # Example
///
/// ```no_run
/// use std::path::Path;
///
/// use burn::tensor::{Device, FloatDType};
/// use influence_zoo::weights;
/// use influence_zoo::ResNet50Config;
///
/// # fn main() -> Result<(), influence_zoo::Error> {
/// let device = Device::flex();
/// let network = ResNet50Config::new(1, 28, 10).with_width(8).init(&device)?;
/// let file = Path::new("resnet50w8-mnist.safetensors");
/// let (network, report) = weights::load(network, file, FloatDType::F64, &device)?;
/// # let _ = network;
/// assert_eq!(report.parameters, 386_618);
/// # Ok(())
/// # }
/// ```
pub fn load<'a, M: Module>(
    network: M,
    source: impl Into<Source<'a>>,
    precision: FloatDType,
    device: &Device,
) -> Result<(M, LoadReport), Error> {
    Values::empty(precision)?;
    if !device.supports_dtype(precision) {
        return Err(Error::UnsupportedPrecision { device: format!("{device:?}"), precision });
    }
    let mut checkpoint = Checkpoint::open(source)?;
    let wanted = entries(&network);
    let fit = fit(checkpoint.file(), checkpoint.tensors(), &wanted, device)?;
    let mut reader =
        TensorReader { checkpoint: &mut checkpoint, fit: &fit, wanted: &wanted, precision, fault: None };
    let network = module::replace(network, precision, device, |name| reader.read(name));
    match reader.fault {
        Some(fault) => Err(fault),
        None => Ok((network, LoadReport::new(&checkpoint, fit, &wanted, precision))),
    }
}

/// Reads tensors by PyTorch's name and keeps the first fault. After NaN or infinity, the remaining
/// tensors are read only to count further ones.
struct TensorReader<'r, 'a> {
    checkpoint: &'r mut Checkpoint<'a>,
    fit: &'r Fit,
    wanted: &'r [Entry],
    precision: FloatDType,
    fault: Option<Error>,
}

impl TensorReader<'_, '_> {
    fn read(&mut self, name: &str) -> Option<(Values, Vec<usize>)> {
        // Only NaN and infinity are counted further; after any other fault the file is not read
        // again.
        if !matches!(self.fault, None | Some(Error::NonFinite { .. })) {
            return None;
        }
        let &index = self.fit.slots.get(name)?;
        let (values, odd) = match self.checkpoint.read_at(index, self.precision) {
            Ok(read) => read,
            Err(fault) => {
                self.fault = Some(fault);
                return None;
            }
        };
        if let Some((first, value)) = odd {
            self.note_non_finite(index, first, value);
        } else if self.fault.is_none() && self.is_variance(name) {
            self.fault = self.negative_variance(index, &values);
        }
        let shape = self.checkpoint.tensors()[index].shape.clone();
        self.fault.is_none().then_some((values, shape))
    }

    fn note_non_finite(&mut self, tensor: usize, index: usize, value: f64) {
        if let Some(Error::NonFinite { others, .. }) = &mut self.fault {
            *others += 1;
            return;
        }
        self.fault = Some(Error::NonFinite {
            file: self.checkpoint.file().to_owned(),
            tensor: self.checkpoint.tensors()[tensor].name.clone(),
            index,
            value,
            precision: self.precision,
            others: 0,
        });
    }

    fn is_variance(&self, name: &str) -> bool {
        name.ends_with("running_var")
            && self.wanted.iter().any(|entry| entry.role == TensorRole::Buffer && entry.name == name)
    }

    fn negative_variance(&self, tensor: usize, values: &Values) -> Option<Error> {
        let negative = match values {
            Values::F32(values) => {
                values.iter().map(|&value| f64::from(value)).enumerate().find(|&(_, x)| x < 0.0)
            }
            Values::F64(values) => values.iter().copied().enumerate().find(|&(_, x)| x < 0.0),
        };
        negative.map(|(index, value)| Error::NegativeVariance {
            file: self.checkpoint.file().to_owned(),
            tensor: self.checkpoint.tensors()[tensor].name.clone(),
            index,
            value,
        })
    }
}
