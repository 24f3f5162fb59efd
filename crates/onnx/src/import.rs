//! From a file's nodes to a graph.
//!
//! The nodes are visited once, in the file's order. A name stands for a *value* of the graph, a
//! *weight* (a float initializer, which becomes a value at its first use) or a *known* tensor. A
//! node whose operands are all known is computed at once ([`crate::host`]); any other node is
//! translated into operations of the engine ([`crate::ops`]). A node that cannot be translated is
//! noted. Its results become *unknown*, and nodes that depend on them are skipped, so that each
//! fault is reported once.

use std::collections::{HashMap, HashSet};

use burn::tensor::TensorData;
use influence_autodiff::GraphBuilder;
use influence_autodiff::graph::ValueId;
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Div, MulScalar, Sub};
use influence_autodiff::ops::layout::{Cat, Reshape};

use crate::Import;
use crate::call::{Call, fixed};
use crate::error::{Error, Problem, Refusal, Result};
use crate::external;
use crate::file::Model;
use crate::host::{self, Host};
use crate::interface::{Ending, Interface};
use crate::names::{self, is_own};
use crate::node::Attributes;
use crate::ops;
use crate::proto::NodeProto;
use crate::tensor;

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Binding {
    /// A value of the graph.
    Value(ValueId),
    /// A float initializer.
    Weight(WeightId),
    /// A tensor whose elements are known at import.
    Known(Host),
    /// The result of a node that was refused.
    Unknown,
}

/// A float initializer: its index in [`Importer::weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WeightId(usize);

impl WeightId {
    /// The index in [`Importer::weights`].
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// A float initializer.
#[derive(Debug, Clone)]
pub(crate) struct Weight {
    pub(crate) name: String,
    pub(crate) layer: String,
    pub(crate) data: TensorData,
    /// The value in the graph that holds it, once a node has used it.
    value: Option<ValueId>,
    /// The value that holds its transpose, once a node has used that.
    turned: Option<ValueId>,
    /// Whether the caller has declared it as not trained.
    frozen: bool,
}

impl Weight {
    /// Whether all its elements are 0.
    pub(crate) fn is_zero(&self) -> bool {
        self.data.iter::<f64>().all(|x| x == 0.0)
    }
}

/// The state of an import.
#[derive(Debug)]
pub(crate) struct Importer<'a> {
    model: &'a Model,
    pub(crate) builder: GraphBuilder,
    names: HashMap<&'a str, Binding>,
    pub(crate) weights: Vec<Weight>,
    /// For each name, the number of operands of nodes that have it.
    pub(crate) uses: HashMap<&'a str, usize>,
    problems: Vec<Problem>,
    /// Whether the file has a batch of 1, which is read as any batch.
    pub(crate) batch_of_one: bool,
}

/// The graph that computes the output of `interface`, without a softmax at its end.
pub(crate) fn graph(model: &Model, interface: &Interface) -> Result<Import> {
    let nodes = needed(model, &interface.output);
    // Nodes bind names to values of the graph, to weights, or to tensors that are known here. What
    // has no rule is collected, so that one error names all of it.
    let mut importer = Importer::new(model, interface, &nodes)?;
    importer.initializers(&nodes)?;
    importer.freeze(&interface.frozen)?;
    for node in &nodes {
        importer.node(node);
    }
    let Importer { mut builder, names, problems, weights, .. } = importer;
    if !problems.is_empty() {
        return Err(Error::Unsupported(problems));
    }
    // A softmax or a sigmoid at the end is removed, because the measure takes logits. The logit of
    // a single sigmoid becomes [z, 0] when the graph is finished; those of a pair are [0, z].
    let is_single = |name: &str| match names.get(name) {
        Some(Binding::Value(value)) => builder.shape(*value).get(1..) == Some(&[fixed(1)]),
        _ => false,
    };
    let is_one = |name: &str| match names.get(name) {
        Some(Binding::Known(host)) => host.constant().and_then(|numbers| numbers.only()) == Some(1.0),
        Some(Binding::Weight(id)) => weights[id.index()].data.iter::<f64>().all(|x| x == 1.0),
        _ => false,
    };
    let ending = Ending::of(&nodes, interface, model.opset, is_single, is_one);
    match names.get(ending.output(&interface.output)) {
        Some(Binding::Value(output)) => {
            let mut output = row(&mut builder, *output)?;
            if let Ending::Pair { .. } = ending {
                output = beside_zero(&mut builder, output)?;
            }
            let graph = builder.finish(output)?;
            let names =
                |of: fn(&&Weight) -> bool| weights.iter().filter(of).map(|w| w.name.clone()).collect();
            let (transposed, frozen) =
                (names(|weight| weight.turned.is_some()), names(|weight| weight.frozen));
            Ok(Import { graph, ending, transposed, frozen })
        }
        _ => Err(Error::Output {
            why: format!("\"{}\" does not depend on the input", interface.output),
            remedy: format!("name another output: {}", model.outputs().join(", ")),
        }),
    }
}

/// (x - mean) / std of the input, per channel, for samples of `rank` axes.
fn normalised(builder: &mut GraphBuilder, mean: &[f64], std: &[f64], rank: usize) -> Result<ValueId> {
    let mut literal = |numbers: &[f64]| {
        let mut shape = vec![1; rank + 1];
        if let Some(channels) = shape.get_mut(1) {
            *channels = numbers.len();
        }
        builder.literal(TensorData::new(numbers.to_vec(), shape))
    };
    let (mean, std) = (literal(mean), literal(std));
    let centred = builder.node(Op::Sub(Sub), &[builder.input(), mean], "normalisation")?;
    Ok(builder.node(Op::Div(Div), &[centred, std], "normalisation")?)
}

/// Logits `[n, K, 1, 1]`, as fully convolutional networks give them, reshaped to `[n, K]`.
fn row(builder: &mut GraphBuilder, output: ValueId) -> Result<ValueId> {
    let shape = builder.shape(output).to_vec();
    if shape.len() > 2 && shape[2..].iter().all(|&size| size == fixed(1)) {
        return Ok(builder.node_of(Op::Reshape(Reshape), &[output], &shape[..2], "the output")?);
    }
    Ok(output)
}

/// One logit z as `[0, z]`.
fn beside_zero(builder: &mut GraphBuilder, z: ValueId) -> Result<ValueId> {
    let zero = builder.node(Op::MulScalar(MulScalar { value: 0.0 }), &[z], "the output")?;
    Ok(builder.node(Op::Cat(Cat { axis: 1 }), &[zero, z], "the output")?)
}

/// The nodes on which a result depends, in the file's order.
fn needed<'a>(model: &'a Model, output: &str) -> Vec<&'a NodeProto> {
    let mut wanted = HashSet::from([output]);
    let mut needed = Vec::new();
    for node in model.graph.node.iter().rev() {
        if node.output.iter().any(|output| !output.is_empty() && wanted.contains(output.as_str())) {
            wanted.extend(node.input.iter().map(String::as_str));
            needed.push(node);
        }
    }
    needed.reverse();
    needed
}

impl<'a> Importer<'a> {
    fn new(model: &'a Model, interface: &Interface, nodes: &[&'a NodeProto]) -> Result<Self> {
        let mut builder = GraphBuilder::new(&interface.sample);
        let first = match &interface.normalise {
            Some((mean, std)) => normalised(&mut builder, mean, std, interface.sample.len())?,
            None => builder.input(),
        };
        let mut uses = HashMap::new();
        for input in nodes.iter().flat_map(|node| &node.input) {
            *uses.entry(input.as_str()).or_insert(0) += 1;
        }
        let input = model.graph.input.iter().find(|input| input.name == interface.input);
        let input = input.map(|input| (input.name.as_str(), Binding::Value(first)));
        Ok(Self {
            model,
            builder,
            names: input.into_iter().collect(),
            weights: Vec::new(),
            uses,
            problems: Vec::new(),
            batch_of_one: interface.batch_of_one,
        })
    }

    /// Reads the initializers that are used.
    fn initializers(&mut self, nodes: &[&'a NodeProto]) -> Result<()> {
        let model = self.model;
        let folder = model.folder.as_deref();
        for tensor in &model.graph.initializer {
            let Some(user) = nodes.iter().find(|node| node.input.contains(&tensor.name)) else {
                continue;
            };
            let operand = external::bytes(tensor, folder).and_then(|bytes| {
                // A layer of one channel has biases and scales of one element.
                let single = tensor.dims.is_empty() || tensor.dims == [1] && !has_weights(&user.op_type);
                let literal = single && names::is_generated(&tensor.name);
                if tensor::is_float(tensor.data_type) && !literal {
                    let layer = self.layer(&tensor.name, user, nodes).to_owned();
                    let data = tensor::weight(tensor, bytes.as_deref())?;
                    // Minus infinity marks a mask, which is not trained.
                    if data.iter::<f64>().any(f64::is_infinite) {
                        let numbers = tensor::known(tensor, bytes.as_deref())?;
                        return Ok(Binding::Known(Host::fixed(numbers)));
                    }
                    let name = tensor.name.clone();
                    self.weights.push(Weight { name, layer, data, value: None, turned: None, frozen: false });
                    return Ok(Binding::Weight(WeightId(self.weights.len() - 1)));
                }
                Ok(Binding::Known(Host::fixed(tensor::known(tensor, bytes.as_deref())?)))
            });
            let operand = operand.unwrap_or_else(|refusal| {
                self.refuse(user, refusal);
                Binding::Unknown
            });
            self.names.insert(&tensor.name, operand);
        }
        Ok(())
    }

    /// Freezes the initializers whose names match.
    fn freeze(&mut self, patterns: &[String]) -> Result<()> {
        for pattern in patterns {
            let named = self.weights.iter_mut().filter(|weight| names::matches(pattern, &weight.name));
            if named.map(|weight| weight.frozen = true).count() == 0 {
                let near = names::alike(pattern, self.weights.iter().map(|weight| weight.name.as_str()));
                return Err(Error::Frozen { pattern: pattern.clone(), near });
            }
        }
        Ok(())
    }

    /// The layer of an initializer: the stem of its name. If an exporter has generated the name,
    /// the initializer belongs to the layer of another initializer of the same node (a
    /// convolution's bias) or of one that is added to the node's result (a product's bias), or else
    /// to the node.
    fn layer(&self, name: &'a str, user: &'a NodeProto, nodes: &[&'a NodeProto]) -> &'a str {
        if !names::is_generated(name) {
            return names::layer(name);
        }
        let model = self.model;
        let named = |node: &'a NodeProto| {
            node.input.iter().map(String::as_str).find(|input| {
                let tensor = model.graph.initializer.iter().any(|tensor| tensor.name == *input);
                tensor && !names::is_generated(input)
            })
        };
        let result = user.output.first();
        let added = |node: &&&NodeProto| {
            node.op_type == "Add" && result.is_some_and(|result| node.input.contains(result))
        };
        // An initializer of the same node with a name of its own, or one that is added to the
        // node's result.
        let beside = named(user).or_else(|| nodes.iter().filter(added).find_map(|node| named(node)));
        beside.map_or_else(|| title(user), names::layer)
    }

    fn refuse(&mut self, node: &NodeProto, refusal: Refusal) {
        let own = is_own(&node.domain);
        let op = match own {
            true => node.op_type.clone(),
            false => format!("{}.{}", node.domain, node.op_type),
        };
        let refusal = if self.batch_of_one { refusal.of_one_sample() } else { refusal };
        let Refusal { why, remedy } = refusal;
        let (node, opset) = (title(node).to_owned(), self.model.opset);
        self.problems.push(Problem { node, op, opset, why, remedy });
    }

    /// Adds one node, or notes why it is refused.
    fn node(&mut self, node: &'a NodeProto) {
        let results = match self.operands(node) {
            Ok(operands) if operands.iter().flatten().any(|o| matches!(o, Binding::Unknown)) => vec![],
            Ok(operands) => self.results(node, operands).unwrap_or_else(|refusal| {
                self.refuse(node, refusal);
                vec![]
            }),
            Err(refusal) => {
                self.refuse(node, refusal);
                vec![]
            }
        };
        // An unused result has an empty name, which keeps the positions of the others.
        let results = results.into_iter().chain(std::iter::repeat(Binding::Unknown));
        for (output, result) in node.output.iter().zip(results).filter(|(output, _)| !output.is_empty()) {
            self.names.insert(output, result);
        }
    }

    /// The operands by their names; an empty name stands for none.
    fn operands(&self, node: &NodeProto) -> Result<Vec<Option<Binding>>, Refusal> {
        let operand = |name: &String| match self.names.get(name.as_str()) {
            _ if name.is_empty() => Ok(None),
            Some(operand) => Ok(Some(operand.clone())),
            None => Err(Refusal::from(format!("nothing in the file gives its operand \"{name}\""))),
        };
        node.input.iter().map(operand).collect()
    }

    /// The results of a node.
    fn results(
        &mut self,
        node: &'a NodeProto,
        operands: Vec<Option<Binding>>,
    ) -> Result<Vec<Binding>, Refusal> {
        let domain = node.domain.as_str();
        let own = is_own(domain) || domain == "ai.onnx.ml" && node.op_type == "Scaler";
        if !own {
            return Err(ops::foreign(domain, &node.op_type, &self.model.functions));
        }
        if let Some(known) = known(&operands)
            && let Some(folded) = host::fold(&node.op_type, &known, Attributes(node))
        {
            // With a batch of 1 in the file, the arithmetic may fail at other batch sizes; the rule
            // may still read it.
            if folded.is_ok() || !self.batch_of_one {
                return Ok(folded?.into_iter().map(Binding::Known).collect());
            }
        }
        let rule = ops::rule(&node.op_type)?;
        let opset = self.model.opset;
        let mut call = Call { importer: self, node, operands, opset };
        rule(&mut call)
    }

    /// A weight as a value of the graph: the same value at every use.
    pub(crate) fn weight(&mut self, id: WeightId) -> ValueId {
        if self.weights[id.index()].frozen {
            return self.buffer(id);
        }
        let Weight { name, layer, data, value, .. } = &mut self.weights[id.index()];
        *value.get_or_insert_with(|| self.builder.parameter(name, layer, data.clone()))
    }

    /// The transpose of a matrix that has no other use; the graph holds only the transpose.
    pub(crate) fn turned(&mut self, id: WeightId) -> ValueId {
        let Weight { name, layer, data, turned, frozen, .. } = &mut self.weights[id.index()];
        let builder = &mut self.builder;
        *turned.get_or_insert_with(|| match frozen {
            true => builder.buffer(name, tensor::turned(data)),
            false => builder.parameter(name, layer, tensor::turned(data)),
        })
    }

    /// A weight as state that is not trained.
    pub(crate) fn buffer(&mut self, id: WeightId) -> ValueId {
        let Weight { name, data, value, .. } = &mut self.weights[id.index()];
        *value.get_or_insert_with(|| self.builder.buffer(name, data.clone()))
    }
}

/// All operands as known tensors, if all are known.
fn known(operands: &[Option<Binding>]) -> Option<Vec<Option<Host>>> {
    let host = |operand: &Option<Binding>| match operand {
        None => Some(None),
        Some(Binding::Known(host)) => Some(Some(host.clone())),
        Some(_) => None,
    };
    operands.iter().map(host).collect()
}

/// The name of a node, or if it has none, that of its first result.
pub(crate) fn title(node: &NodeProto) -> &str {
    let first = || node.output.first().map_or("", String::as_str);
    if node.name.is_empty() { first() } else { &node.name }
}

/// Whether the operands of an operator after its first are what a layer has learned.
fn has_weights(operator: &str) -> bool {
    ["Conv", "ConvTranspose", "Gemm", "PRelu"].contains(&operator) || operator.ends_with("Normalization")
}
