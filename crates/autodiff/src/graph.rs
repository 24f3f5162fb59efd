//! The captured network as plain data: values, nodes in the order of execution, one input, one
//! output.
//!
//! The graph is typed (every value has a shape in terms of the batch size), printable
//! ([`std::fmt::Display`]) and holds the module path of each node. It owns the constants (weights,
//! buffers, literals) as host data in the type in which they were captured; the plan decides on
//! precision and device.

use std::fmt;
use std::sync::Arc;

use burn::module::ParamId;
use burn::tensor::{DType, TensorData};

use crate::direct::direct;
use crate::error::{Error, Problem, Result};
use crate::ops::Op;
use crate::ops::linear::Linear;
use crate::parameters::{Leaves, Parameter};
use crate::reference::ModelLogits;

/// Index of a [`Value`] in its graph.
pub type ValueId = usize;

/// A size along one axis as a function of the batch size n: `per_sample * n + fixed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// How much each sample adds.
    pub per_sample: usize,
    /// The part that does not depend on the batch.
    pub fixed: usize,
}

impl Size {
    /// The size at batch size `n`.
    #[must_use]
    pub fn at(self, n: usize) -> usize {
        self.per_sample * n + self.fixed
    }

    /// The line through two measured sizes: `first` at batch `n`, `second` at batch `n + 1`; `None`
    /// where its coefficients are not natural numbers.
    pub(crate) fn through(n: usize, first: usize, second: usize) -> Option<Self> {
        let per_sample = second.checked_sub(first)?;
        let fixed = first.checked_sub(per_sample * n)?;
        Some(Self { per_sample, fixed })
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.per_sample, self.fixed) {
            (0, fixed) => write!(f, "{fixed}"),
            (1, 0) => write!(f, "n"),
            (a, 0) => write!(f, "{a}n"),
            (1, b) => write!(f, "n+{b}"),
            (a, b) => write!(f, "{a}n+{b}"),
        }
    }
}

/// What the elements of a value are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Floats in the precision of the run.
    Float,
    /// Indices along an axis: always constants.
    Index,
    /// Booleans: a constant, or the result of a comparison.
    Mask,
}

impl Kind {
    /// The kind of a recorded tensor.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::Bool(_) => Self::Mask,
            dtype if dtype.is_float() => Self::Float,
            _ => Self::Index,
        }
    }
}

/// One tensor of the network.
#[derive(Debug, Clone)]
pub struct Value {
    /// The shape, as a function of the batch size.
    pub shape: Vec<Size>,
    /// What the elements are.
    pub kind: Kind,
    /// Where the elements come from.
    pub origin: Origin,
}

impl Value {
    /// The shape at batch size `n`.
    #[must_use]
    pub fn shape_at(&self, n: usize) -> Vec<usize> {
        self.shape.iter().map(|size| size.at(n)).collect()
    }
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The network's input.
    Input,
    /// A weight, a buffer or a literal.
    Constant(Constant),
    /// The result of the node with this index.
    Node(usize),
}

/// A tensor that does not depend on the input.
#[derive(Debug, Clone)]
pub struct Constant {
    /// The name in PyTorch's terms ("layer1.0.conv1.weight"), or `constant` for a literal of the
    /// model's code.
    pub name: String,
    /// The role in the model.
    pub role: Role,
    /// The elements, in the type in which they were captured.
    pub data: TensorData,
}

/// The role of a constant in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A trainable parameter: part of "all parameters".
    Parameter(ParamId),
    /// State that is not trained, such as the running statistics of a batch normalisation: never
    /// perturbed, and not counted among the parameters.
    Buffer,
    /// A tensor made by the model's code.
    Literal,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Node {
    /// The operation.
    pub op: Op,
    /// The operands.
    pub inputs: Vec<ValueId>,
    /// The result.
    pub output: ValueId,
    /// The path of the module that was last entered before the operation ("stages.0.0.conv1"), for
    /// messages; empty before the first named module.
    pub path: String,
}

/// A network as a directed acyclic graph.
#[derive(Debug, Clone)]
pub struct Graph {
    /// All values; nodes refer to them by index.
    pub(crate) values: Vec<Value>,
    /// All nodes, each after the nodes whose results it uses.
    pub(crate) nodes: Vec<Node>,
    /// The input, of shape `[n, ...]`.
    pub(crate) input: ValueId,
    /// The logits, of shape `[n, K]`.
    pub(crate) output: ValueId,
    /// The trainable tensors, in the model's order.
    pub(crate) parameters: Vec<Parameter>,
    /// Whether the model itself gives one logit z, to which this crate adds a zero: `[z, 0]`.
    pub(crate) one_logit: bool,
    /// The type of the captured weights.
    pub(crate) dtype: DType,
    /// The model's own logits at synthetic samples, where it was run.
    pub(crate) reference: Option<Arc<ModelLogits>>,
}

impl Graph {
    /// All values; nodes refer to them by index.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// All nodes, each after the nodes whose results it uses.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The input, of shape `[n, ...]`.
    #[must_use]
    pub fn input(&self) -> ValueId {
        self.input
    }

    /// The logits, of shape `[n, K]`.
    #[must_use]
    pub fn output(&self) -> ValueId {
        self.output
    }

    /// The trainable tensors on which the logits depend, in the order in which the model holds
    /// them: PyTorch's `named_parameters`.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The elements of a trainable tensor, given by its index in [`Graph::parameters`], in the type
    /// in which they were captured.
    #[must_use]
    pub fn data(&self, parameter: usize) -> &TensorData {
        match &self.values[self.parameters[parameter].values[0]].origin {
            Origin::Constant(constant) => &constant.data,
            Origin::Input | Origin::Node(_) => unreachable!("a parameter is a constant"),
        }
    }

    /// The trainable tensor that is added to the logits, one element to each, and used nowhere
    /// else: perturbing it moves the logits in every direction. Given by its index in
    /// [`Graph::parameters`].
    #[must_use]
    pub fn output_bias(&self) -> Option<usize> {
        let classes = self.classes();
        // A direct use is the only one: here as the bias of a linear layer, or as a term of a sum,
        // whose result is the output.
        direct(self, &Leaves::parameters(self)).into_iter().find_map(|direct| {
            let Node { op, output, .. } = &self.nodes[direct.node];
            let added = match op {
                Op::Linear(_) => direct.position == 2,
                Op::Add(_) => true,
                _ => false,
            };
            let leaf = direct.leaf.index();
            let one_each = self.parameters[leaf].elements() == classes;
            (added && one_each && *output == self.output).then_some(leaf)
        })
    }

    /// The type of the captured weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The number of classes K.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.values[self.output].shape.last().map_or(0, |size| size.fixed)
    }

    /// The shape of one sample, without the batch axis.
    #[must_use]
    pub fn sample_shape(&self) -> Vec<usize> {
        self.values[self.input].shape[1..].iter().map(|size| size.fixed).collect()
    }

    /// Whether the model itself gives one logit z per sample, `[n, 1]`. The graph then has two
    /// classes, with the logits `[z, 0]`: class 0 has the probability sigmoid(z).
    #[must_use]
    pub fn is_of_one_logit(&self) -> bool {
        self.one_logit
    }

    /// Gives the graph the logits `[z, 0]` where the model gives a single one, z: a product with
    /// the matrix `[1, 0]` is added.
    pub(crate) fn with_two_logits(mut self) -> Self {
        if self.values[self.output].shape.get(1) != Some(&Size { per_sample: 0, fixed: 1 }) {
            return self;
        }
        let fixed = |fixed| Size { per_sample: 0, fixed };
        let data = TensorData::new(vec![1.0_f64, 0.0], [1, 2]).convert_dtype(self.dtype);
        let constant = Constant { name: "constant".into(), role: Role::Literal, data };
        let matrix = vec![fixed(1), fixed(2)];
        // Values and node are added at the end, so that no index changes.
        self.values.push(Value { shape: matrix, kind: Kind::Float, origin: Origin::Constant(constant) });
        let origin = Origin::Node(self.nodes.len());
        let logits = vec![Size { per_sample: 1, fixed: 0 }, fixed(2)];
        self.values.push(Value { shape: logits, kind: Kind::Float, origin });
        let (matrix, output) = (self.values.len() - 2, self.values.len() - 1);
        let inputs = vec![self.output, matrix];
        self.nodes.push(Node { op: Op::Linear(Linear), inputs, output, path: "the logits [z, 0]".into() });
        Self { output, one_logit: true, ..self }
    }

    /// The constants with the values that hold them.
    pub fn constants(&self) -> impl Iterator<Item = (ValueId, &Constant)> {
        self.values.iter().enumerate().filter_map(|(id, value)| match &value.origin {
            Origin::Constant(constant) => Some((id, constant)),
            _ => None,
        })
    }

    /// A node's number, operation and module path, for messages.
    #[must_use]
    pub fn describe(&self, node: usize) -> String {
        let Node { op, path, .. } = &self.nodes[node];
        if path.is_empty() {
            format!("node {node} ({})", op.name())
        } else {
            format!("node {node} ({}) near {path}", op.name())
        }
    }

    /// Checks what every later step relies on: the batch axes of input and output, and each node's
    /// recorded shape against the shape rule of its operation.
    pub(crate) fn check(&self) -> Result<()> {
        let batch = Size { per_sample: 1, fixed: 0 };
        let input = &self.values[self.input].shape;
        let output = &self.values[self.output].shape;
        let fixed = |sizes: &[Size]| sizes.iter().all(|size| size.per_sample == 0 && size.fixed > 0);
        if input.first() != Some(&batch) || !fixed(&input[1..]) {
            return Err(Error::Shape {
                what: "input",
                expected: "[n, ...]".into(),
                found: self.values[self.input].shape_at(2),
            });
        }
        if output.len() != 2 || output[0] != batch || !fixed(&output[1..]) {
            let found = self.values[self.output].shape_at(2);
            let expected = "[n, K] with one row of logits per sample (here n = 2)".into();
            return Err(Error::Shape { what: "the model's output", expected, found });
        }
        let problems: Vec<_> = (0..self.nodes.len()).filter_map(|index| self.check_node(index)).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Unsupported(problems)) }
    }

    /// Compares the shape that Burn recorded with the one that the operation's shape rule gives. A
    /// difference means that the operation was misread, so it is an error.
    fn check_node(&self, index: usize) -> Option<Problem> {
        let node = &self.nodes[index];
        let differs = |n: usize| {
            let inputs: Vec<_> = node.inputs.iter().map(|&id| self.values[id].shape_at(n)).collect();
            let recorded = self.values[node.output].shape_at(n);
            let expected = node.op.rule().shape(&inputs, &recorded);
            match expected {
                Ok(shape) if shape == recorded => None,
                Ok(shape) => Some(format!("its rule gives shape {shape:?}, the recording {recorded:?}")),
                Err(why) => Some(why),
            }
        };
        // Every size is a line in the batch size, which two batch sizes determine.
        let why = [2, 3].into_iter().find_map(differs).or_else(|| self.beyond(node))?;
        Some(Problem { op: node.op.to_string(), node: self.describe(index), why })
    }
}

impl Graph {
    /// Why a node's indices are refused: one of them points beyond its axis, or they are computed.
    fn beyond(&self, node: &Node) -> Option<String> {
        let shapes: Vec<_> = node.inputs.iter().map(|&id| self.values[id].shape_at(2)).collect();
        let (position, size) = node.op.rule().indexes(&shapes)?;
        let Origin::Constant(constant) = &self.values[node.inputs[position]].origin else {
            return Some("its indices are computed".into());
        };
        let wrong = constant.data.iter::<i64>().find(|&index| !(0..size as i64).contains(&index))?;
        Some(format!("index {wrong} lies outside an axis of {size}"))
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = |id: ValueId| {
            let sizes: Vec<_> = self.values[id].shape.iter().map(ToString::to_string).collect();
            format!("[{}]", sizes.join(", "))
        };
        writeln!(f, "input %{} {}", self.input, shape(self.input))?;
        for node in &self.nodes {
            write!(f, "%{} {} = {}", node.output, shape(node.output), node.op)?;
            for (position, &input) in node.inputs.iter().enumerate() {
                let separator = if position == 0 { " " } else { ", " };
                match &self.values[input].origin {
                    Origin::Constant(constant) => write!(f, "{separator}{}{}", constant.name, shape(input))?,
                    _ => write!(f, "{separator}%{input}")?,
                }
            }
            if !node.path.is_empty() {
                write!(f, "  # {}", node.path)?;
            }
            writeln!(f)?;
        }
        writeln!(f, "output %{} {}", self.output, shape(self.output))
    }
}
