//! The input that is perturbed, and the output that holds the logits.

use crate::error::{Error, Result};
use crate::file::Model;
use crate::names::is_own;
use crate::proto::{NodeProto, ValueInfoProto};
use crate::tensor;

/// A caller's choices about a network's input and output.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImportOptions {
    /// The name of the logits: an output, or any inner result. Needed where a network has several
    /// outputs of floats.
    pub output: Option<String>,
    /// The shape of one sample, without the batch axis. Needed where the file leaves sizes open.
    pub sample: Option<Vec<usize>>,
    /// Means and standard deviations of the channels (the sample's first axis): (x - mean) / std
    /// becomes the first layer, so that the graph takes inputs before normalisation.
    pub normalise: Option<(Vec<f64>, Vec<f64>)>,
    /// Names of initializers that were not trained (position tables, constants of the code), in
    /// which `*` stands for any letters. They are not perturbed. Each name must match an
    /// initializer that would be perturbed.
    pub frozen: Vec<String>,
}

/// The input and output of a network.
#[derive(Debug, Clone)]
pub(crate) struct Interface {
    pub(crate) input: String,
    pub(crate) sample: Vec<usize>,
    pub(crate) output: String,
    /// Whether the file has a fixed batch of 1.
    pub(crate) batch_of_one: bool,
    /// Means and standard deviations of the channels.
    pub(crate) normalise: Option<(Vec<f64>, Vec<f64>)>,
    /// Names of initializers that are not perturbed.
    pub(crate) frozen: Vec<String>,
}

/// What followed the logits in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Nothing: the output is taken as it is.
    Logits,
    /// A softmax, which was removed: the measure takes logits.
    Softmax {
        /// The node that was removed.
        node: String,
        /// The node's operand: the logits.
        logits: String,
    },
    /// A sigmoid of a single number z, which was removed: z is the logit of class 0, and class 1
    /// has the logit 0.
    Sigmoid {
        /// The node that was removed.
        node: String,
        /// The node's operand: the logit z.
        logits: String,
    },
    /// The probabilities `[1 - p, p]` of p = sigmoid(z): the logits are `[0, z]`.
    Pair {
        /// The node that was removed.
        node: String,
        /// The logit z.
        logits: String,
    },
}

impl Ending {
    /// The ending of the needed nodes that can be removed: a softmax along the last axis, a sigmoid
    /// of a single number, or the pair `[1 - p, p]` with p = sigmoid(z). For the name of a result,
    /// `is_single` says whether its shape is `[n, 1]`, and `is_one` whether it is the number 1.
    pub(crate) fn of(
        nodes: &[&NodeProto],
        interface: &Interface,
        opset: i64,
        is_single: impl Fn(&str) -> bool,
        is_one: impl Fn(&str) -> bool,
    ) -> Self {
        // The node that gives a result, if it is of ONNX's own domain.
        let maker = |name: &str| {
            let own = nodes.iter().find(|node| node.output.first().is_some_and(|output| output == name));
            own.copied().filter(|node| is_own(&node.domain))
        };
        let operand =
            |node: &NodeProto, position: usize| node.input.get(position).cloned().unwrap_or_default();
        // From the output back over nodes that change nothing.
        let mut last = maker(&interface.output);
        while let Some(node) = last.filter(|node| node.op_type == "Identity") {
            last = maker(&operand(node, 0));
        }
        let Some(node) = last else { return Self::Logits };
        // The default is that of Softmax; Concat always has an axis.
        let axis = crate::node::Attributes(node).int("axis", if opset < 13 { 1 } else { -1 });
        let (title, logits) = (crate::import::title(node).to_owned(), operand(node, 0));
        match node.op_type.as_str() {
            "Softmax" if axis == 1 || axis == -1 => Self::Softmax { node: title, logits },
            "Sigmoid" if is_single(&logits) => Self::Sigmoid { node: title, logits },
            "Concat" if node.input.len() == 2 && (axis == 1 || axis == -1) => {
                // 1 - p and p, with the same p, which is the sigmoid of one logit.
                let rest = maker(&operand(node, 0));
                let rest = rest.filter(|rest| rest.op_type == "Sub" && is_one(&operand(rest, 0)));
                let gate = maker(&operand(node, 1)).filter(|gate| gate.op_type == "Sigmoid");
                match (rest, gate) {
                    (Some(rest), Some(gate))
                        if operand(rest, 1) == operand(node, 1) && is_single(&operand(gate, 0)) =>
                    {
                        Self::Pair { node: title, logits: operand(gate, 0) }
                    }
                    _ => Self::Logits,
                }
            }
            _ => Self::Logits,
        }
    }

    /// The name of the logits.
    pub(crate) fn output<'a>(&'a self, output: &'a str) -> &'a str {
        match self {
            Self::Logits => output,
            Self::Softmax { logits, .. } | Self::Sigmoid { logits, .. } | Self::Pair { logits, .. } => logits,
        }
    }
}

impl Interface {
    /// The input and output of a file, with the caller's choices.
    pub(crate) fn of(model: &Model, choice: &ImportOptions) -> Result<Self> {
        let info = input(model)?;
        let (sample, batch_of_one) = sample(info, choice.sample.as_deref())?;
        let output = output(model, choice.output.as_deref())?;
        let normalise = choice.normalise.clone();
        if let Some((mean, std)) = &normalise
            && [mean.len(), std.len()].iter().any(|&count| Some(&count) != sample.first())
        {
            return Err(Error::Input {
                why: format!(
                    "a normalisation of {} and {} channels, for samples of shape {sample:?}",
                    mean.len(),
                    std.len()
                ),
                remedy: "give a mean and a deviation for each channel".into(),
            });
        }
        let frozen = choice.frozen.clone();
        Ok(Self { input: info.name.clone(), sample, output, batch_of_one, normalise, frozen })
    }
}

/// The one input that is not a constant.
fn input(model: &Model) -> Result<&ValueInfoProto> {
    let graph = &model.graph;
    // Files before IR version 4 list the constants among the inputs.
    let constant = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
    let inputs: Vec<_> = graph.input.iter().filter(|input| !constant(&input.name)).collect();
    let [input] = inputs[..] else {
        let names: Vec<_> = inputs.iter().map(|input| input.name.as_str()).collect();
        return Err(Error::Input {
            why: format!("there are {} inputs ({})", inputs.len(), names.join(", ")),
            remedy: "export a network of one input, with the others fixed inside it".into(),
        });
    };
    let tensor = input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    match tensor.map(|tensor| tensor.elem_type) {
        Some(data_type) if tensor::is_float(data_type) => Ok(input),
        found => Err(Error::Input {
            why: format!(
                "\"{}\" is of {}, not of floats",
                input.name,
                found.map_or("no tensor type".into(), tensor::type_name)
            ),
            remedy: "numbers that are looked up or cast have no derivative: export the network from \
                     its embeddings on, and give those as samples"
                .into(),
        }),
    }
}

/// The shape of one sample, and whether the batch is a fixed 1.
fn sample(input: &ValueInfoProto, given: Option<&[usize]>) -> Result<(Vec<usize>, bool)> {
    let name = &input.name;
    let tensor = input.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    let shape = tensor.and_then(|tensor| tensor.shape.as_ref());
    let sizes: Option<Vec<Option<usize>>> = shape.map(|shape| {
        let size = |value: i64| usize::try_from(value).ok().filter(|&size| size > 0);
        shape.dim.iter().map(|dim| dim.dim_value.and_then(size)).collect()
    });
    // The file may give no shape, some sizes or all; the caller's shape fills what is open, and has
    // to agree with the rest.
    let bad = |why: String, remedy: &str| Err(Error::Input { why, remedy: remedy.into() });
    let Some(sizes) = sizes else {
        return match given {
            Some(given) => Ok((given.to_vec(), false)),
            None => bad(format!("\"{name}\" has no shape"), "give the shape of one sample"),
        };
    };
    let Some((batch, sizes)) = sizes.split_first() else {
        return bad(format!("\"{name}\" is one number"), "export with the samples on the first axis");
    };
    if batch.is_some_and(|batch| batch != 1) {
        let found = batch.unwrap_or(0);
        return bad(
            format!("\"{name}\" takes batches of {found} samples only"),
            "export with a dynamic first axis (dynamic_axes or dynamic_shapes), or a batch of 1",
        );
    }
    if let Some(given) = given {
        let fits = given.len() == sizes.len()
            && sizes.iter().zip(given).all(|(size, given)| size.is_none_or(|size| size == *given));
        if !fits {
            let shown: Vec<_> =
                sizes.iter().map(|size| size.map_or("any".into(), |size| size.to_string())).collect();
            return bad(
                format!("\"{name}\" takes samples of shape [{}], not {given:?}", shown.join(", ")),
                "give samples of that shape",
            );
        }
        return Ok((given.to_vec(), batch.is_some()));
    }
    match sizes.iter().copied().collect::<Option<Vec<_>>>() {
        Some(sizes) => Ok((sizes, batch.is_some())),
        None => bad(
            format!("the file leaves sizes of \"{name}\" open"),
            "give the shape of one sample, or export with fixed sizes",
        ),
    }
}

/// The output with the given name, or the only output of floats.
fn output(model: &Model, named: Option<&str>) -> Result<String> {
    let graph = &model.graph;
    let all = model.outputs().join(", ");
    if let Some(name) = named {
        let made = graph.node.iter().any(|node| node.output.iter().any(|output| output == name));
        return if made && !name.is_empty() {
            Ok(name.to_owned())
        } else {
            Err(Error::Output {
                why: format!("there is no result \"{name}\""),
                remedy: format!("the network's outputs are: {all}"),
            })
        };
    }
    // An output without an element type may be one of floats.
    let floats = |output: &&ValueInfoProto| {
        let tensor = output.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
        tensor.is_some_and(|tensor| tensor::is_float(tensor.elem_type) || tensor.elem_type == 0)
    };
    let found: Vec<_> = graph.output.iter().filter(floats).collect();
    match found[..] {
        [only] => Ok(only.name.clone()),
        [] if zipped(model).is_some() => Ok(zipped(model).unwrap_or_default().to_owned()),
        _ => Err(Error::Output {
            why: match found.len() {
                0 => format!("none of the network's outputs ({all}) is a tensor of floats"),
                count => format!("the network has {count} outputs of floats ({all})"),
            },
            remedy: "name the logits with --output NAME (ImportOptions::output in the library); any inner \
                     result will do"
                .into(),
        }),
    }
}

/// The tensor of probabilities that scikit-learn's exporter converts to a list of dictionaries.
fn zipped(model: &Model) -> Option<&str> {
    let graph = &model.graph;
    let is_output = |name: &String| graph.output.iter().any(|output| output.name == *name);
    let mut zips =
        graph.node.iter().filter(|node| node.op_type == "ZipMap" && node.output.iter().any(is_output));
    let zip = zips.next().filter(|zip| zip.domain == "ai.onnx.ml" && zips.next().is_none())?;
    zip.input.first().map(String::as_str)
}
