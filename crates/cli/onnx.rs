//! `--network FILE.onnx`: the network of an ONNX file, for the samples of the job.

use std::path::Path;

use influence::Graph;
use influence_onnx::{Choice, Ending, Import, Model};

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
    output: Option<&str>,
    data: &Data,
    normalisation: Option<&Normalisation>,
) -> Result<(Graph, String, Transposed)> {
    let model = Model::open(file)?;
    let normalise = normalisation.map(|of| (of.numbers().0.to_vec(), of.numbers().1.to_vec()));
    let choice = Choice { output: output.map(str::to_owned), sample: Some(data.sample()), normalise };
    let Import { graph, ending, transposed, .. } = model.graph(&choice)?;
    let producer = if model.producer().is_empty() { "an unnamed program" } else { model.producer() };
    let mut report = format!("opset {}, written by {producer}", model.opset());
    if let Ending::Softmax { node, logits } = ending {
        let words = format!("; the softmax at its end ({node}) is taken off, logits are {logits}");
        report.push_str(&words);
    }
    Ok((graph, report, Transposed::Named(transposed)))
}

/// Checks which flags may be combined with an ONNX file.
pub(crate) fn check(network: Option<&str>, output: Option<&str>, other: &[(&str, bool)]) -> Result<()> {
    let file = network.is_some_and(is_file);
    if output.is_some() && !file {
        return Err(Failure::new(
            "--output names a result of an ONNX file: add --network FILE.onnx, or leave it out",
        ));
    }
    match other.iter().find(|(_, given)| file && *given) {
        Some((flag, _)) => Err(Failure::new(format!(
            "{flag} is of the networks known by name: an ONNX file has its own; leave it out"
        ))),
        None => Ok(()),
    }
}
