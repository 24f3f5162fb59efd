//! The error type of this crate. Messages name the position and the remedy.
//!
//! Names from a file are escaped and truncated, so that no file can write control characters to a
//! terminal.

use std::io;

use burn::tensor::{DType, FloatDType};

use crate::mismatch::{Mismatch, Resized, Strangers};
use crate::torchvision::sizes;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network's configuration cannot be built.
    #[error("{network} cannot be built: {}", faults.join("; "))]
    Configuration {
        /// The network's name.
        network: &'static str,
        /// Every fault found.
        faults: Vec<String>,
    },

    /// No network has this name.
    #[error(
        "no network is called `{}`{}; there are resnet50, densenet121, cnn; the resnets and densenets of \
         torchvision and timm are recognised by their weights",
        quoted(name),
        offer(nearest.as_deref())
    )]
    UnknownNetwork {
        /// The name asked for.
        name: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
    },

    /// An error of the operating system.
    #[error("{file}: cannot {action}: {source}")]
    Io {
        /// The file.
        file: String,
        /// The attempted action.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },

    /// The file violates its format.
    #[error("{file}: not a valid {format} file: at byte {offset}: {why}")]
    Corrupt {
        /// The file.
        file: String,
        /// The format according to its first bytes: safetensors or PyTorch.
        format: &'static str,
        /// Offset in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        why: String,
    },

    /// A PyTorch file names a Python class or function that weights do not need, e.g. because a
    /// whole model was saved. None of its code was run.
    #[error(
        "{file}: at byte {offset}: it asks for Python's `{}`, which is more than weights (nothing of it was run); \
         in Python, save only the weights: torch.save(model.state_dict(), \"weights.pt\")",
        quoted(class)
    )]
    Foreign {
        /// The file.
        file: String,
        /// Offset in the file, in bytes.
        offset: u64,
        /// The first such name, with its module.
        class: String,
    },

    /// A PyTorch file contains a TorchScript program.
    #[error(
        "{file}: a TorchScript program (torch.jit), which is more than weights; in Python, save its weights: \
         torch.save(torch.jit.load(\"model.pt\").state_dict(), \"weights.pt\")"
    )]
    TorchScript {
        /// The file.
        file: String,
    },

    /// The file is of a kind that contains no weights, or none in a supported format.
    #[error("{file}: this is {what}, not a file of weights that is read here; {remedy}")]
    NotWeights {
        /// The file.
        file: String,
        /// What it is, according to its first bytes.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },

    /// A PyTorch file does not contain exactly one dict of tensors.
    #[error(
        "{file}: {why}; in Python, save only the weights: torch.save(model.state_dict(), \"weights.pt\")"
    )]
    StateDict {
        /// The file.
        file: String,
        /// What it contains.
        why: String,
    },

    /// The file has no tensor of this name.
    #[error("{file}: there is no tensor `{}`{}", quoted(name), offer(nearest.as_deref()))]
    NoSuchTensor {
        /// The file.
        file: String,
        /// The name asked for.
        name: String,
        /// The most similar name in the file, if one is similar.
        nearest: Option<String>,
    },

    /// A tensor has an element type that weights cannot have.
    #[error(
        "{file}: tensor `{}` has type {dtype}: weights are F16, BF16, F32 or F64; in Python, before saving: \
         dequantize() for quantised, to_dense() for sparse tensors, float() for other types",
        quoted(name)
    )]
    NotFloat {
        /// The file.
        file: String,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: &'static str,
    },

    /// The file contains the weights of another network.
    #[error("{file}: {strangers}")]
    WrongNetwork {
        /// The file.
        file: String,
        /// The other network, and the tensors that show it.
        strangers: Box<Strangers>,
    },

    /// The file contains the weights of the same network in another size.
    #[error("{file}: {resized}")]
    WrongSize {
        /// The file.
        file: String,
        /// Both sizes.
        resized: Box<Resized>,
    },

    /// The names are those of torchvision's networks, but one tensor differs from their form.
    #[error(
        "{file}: this looks like a {network} of torchvision or timm, but tensor `{}` {why}; take the network as an \
         ONNX file instead (torch.onnx.export), with --network FILE.onnx",
        quoted(tensor)
    )]
    Form {
        /// The file.
        file: String,
        /// The family to which the other names belong.
        network: &'static str,
        /// The tensor that differs.
        tensor: String,
        /// What is wrong with it.
        why: String,
    },

    /// The network does not accept images of this shape.
    #[error(
        "the data set has images of {}, and the network of {file} reads images of {channels} channel(s) and at least \
         {smallest}x{smallest} pixels: choose the data that it was trained on",
        sizes(*found)
    )]
    Images {
        /// The file.
        file: String,
        /// Channels, height and width of the images.
        found: [usize; 3],
        /// The input channels of the stem.
        channels: usize,
        /// The smallest side that leaves a pixel after all strides.
        smallest: usize,
    },

    /// Names or shapes in the file do not match the network; every problem is listed.
    #[error("{file}: the tensors do not fit the network{problems}")]
    Mismatch {
        /// The file.
        file: String,
        /// All problems.
        problems: Box<Mismatch>,
    },

    /// A weight is NaN or infinite, or becomes infinite in the requested precision.
    #[error("{file}: tensor `{}` {}", quoted(tensor), non_finite(*index, *value, *precision, *others))]
    NonFinite {
        /// The file.
        file: String,
        /// The first such tensor in the network's order, by its name in the file.
        tensor: String,
        /// The first such value, by its flat index in the file's layout.
        index: usize,
        /// The value in the file.
        value: f64,
        /// The requested precision.
        precision: FloatDType,
        /// Number of further tensors with such values.
        others: usize,
    },

    /// A running variance is below zero.
    #[error("{file}: tensor `{}` is a variance, and its value {index} is {value}", quoted(tensor))]
    NegativeVariance {
        /// The file.
        file: String,
        /// The first such tensor in the network's order, by its name in the file.
        tensor: String,
        /// The first such value, by its flat index.
        index: usize,
        /// The value in the file.
        value: f64,
    },

    /// Weights are converted to f32 and f64 only.
    #[error("weights are loaded as f32 or f64, not as {}", DType::from(*precision).name())]
    NoSuchPrecision {
        /// The precision asked for.
        precision: FloatDType,
    },

    /// The device does not support this precision.
    #[error("{device} does not compute in {}; f32 runs everywhere", DType::from(*precision).name())]
    UnsupportedPrecision {
        /// The device.
        device: String,
        /// The precision asked for.
        precision: FloatDType,
    },

    /// A tensor has an element type that weight files do not support.
    #[error("tensor `{tensor}` cannot be saved: {why}")]
    NotSavable {
        /// PyTorch's name of the tensor.
        tensor: String,
        /// Its type.
        why: String,
    },
}

/// A name from a file, safe for a terminal: escaped, and truncated after 120 characters.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    let mut escaped: String = name.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST).is_some() {
        escaped.push_str("...");
    }
    escaped
}

/// A suggestion of the most similar name, if there is one.
pub(crate) fn offer(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!(" (did you mean `{}`?)", quoted(name)))
}

fn non_finite(index: usize, value: f64, precision: FloatDType, others: usize) -> String {
    let mut message = format!("holds {value} at {index}");
    if value.is_finite() {
        message.push_str(&format!(", which is infinite in {}: ask for f64", DType::from(precision).name()));
    }
    if others > 0 {
        message.push_str(&format!(" ({others} more tensors hold such values)"));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_are_harmless() {
        assert_eq!(quoted("\u{1b}[31mred"), "\\u{1b}[31mred");
        assert_eq!(quoted("a\nb"), "a\\nb");
        assert_eq!(quoted(&"x".repeat(200)).len(), 123);
    }
}
