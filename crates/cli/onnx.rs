//! `--network FILE.onnx`: the network of an ONNX file, for the samples of the job.

use std::path::Path;

use influence::Graph;
use influence_onnx::{Ending, Import, ImportOptions, Model};

use crate::arguments::RunArguments;
use crate::data::Data;
use crate::failure::{Failure, Result};
use crate::normalisation::Normalisation;

/// The weight matrices that the engine stores transposed, `[in, out]`.
#[derive(Debug, Clone)]
pub(crate) enum Transposed {
    /// All of them: for the known networks, whose files have PyTorch's layout, `[out, in]`.
    All,
    /// The matrices with these names.
    Named(Vec<String>),
}

impl Transposed {
    /// Whether a tensor is stored transposed.
    pub(crate) fn holds(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.iter().any(|known| known == name),
        }
    }
}

/// Whether a network is given as an ONNX file.
pub(crate) fn is_file(network: &str) -> bool {
    Path::new(network).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx"))
}

/// The graph of a file, its description, and the matrices that it stores transposed.
pub(crate) fn graph(
    file: &Path,
    arguments: &RunArguments,
    data: &Data,
    normalisation: Option<&Normalisation>,
) -> Result<(Graph, String, Transposed)> {
    let model = Model::open(file)?;
    let normalise = normalisation.map(|of| (of.numbers().0.to_vec(), of.numbers().1.to_vec()));
    let frozen =
        arguments.frozen.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned());
    let choice = ImportOptions {
        output: arguments.output.clone(),
        sample: Some(data.sample()),
        normalise,
        frozen: frozen.filter(|name| !name.is_empty()).collect(),
    };
    let Import { graph, ending, transposed, frozen, .. } = model.graph(&choice)?;
    let producer = if model.producer().is_empty() { "an unnamed program" } else { model.producer() };
    let mut report = format!("opset {}, written by {producer}", model.opset());
    // The user should see that the logits are not the file's last result.
    let off = match ending {
        Ending::Softmax { node, logits } => Some(("softmax", node, logits)),
        Ending::Sigmoid { node, logits } => Some(("sigmoid", node, logits)),
        Ending::Pair { node, logits } => Some(("pair of probabilities", node, logits)),
        _ => None,
    };
    if let Some((what, node, logits)) = off {
        report.push_str(&format!("; the {what} at its end ({node}) is removed, logits are {logits}"));
    }
    if !frozen.is_empty() {
        report.push_str(&format!("; not perturbed: {}", frozen.join(", ")));
    }
    Ok((graph, report, Transposed::Named(transposed)))
}

/// Refuses the flags of ONNX files without one, and the flags of other networks with one.
pub(crate) fn check(arguments: &RunArguments) -> Result<()> {
    let file = arguments.onnx_file().is_some();
    let own = [
        ("--output names a result", arguments.output.is_some()),
        ("--frozen names initializers", arguments.frozen.is_some()),
    ];
    if let Some((what, _)) = own.iter().find(|(_, given)| !file && *given) {
        return Err(Failure::new(format!(
            "{what} of an ONNX file: add --network FILE.onnx, or leave it out"
        )));
    }
    let other = [
        ("--weights", arguments.weights.is_some()),
        ("--width", arguments.width.is_some()),
        ("--bn-eps", arguments.bn_eps.is_some()),
    ];
    match other.iter().find(|(_, given)| file && *given) {
        Some((flag, _)) => Err(Failure::new(format!(
            "{flag} applies to built-in networks only: an ONNX file has its own; leave it out"
        ))),
        None => Ok(()),
    }
}
