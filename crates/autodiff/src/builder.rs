//! Graphs that are built node by node instead of captured from a Burn module: networks read from
//! files.
//!
//! A [`GraphBuilder`] starts with the input, adds constants and nodes, and infers the shape of each
//! result from the operation's own rule at three batch sizes. [`GraphBuilder::finish`] drops the
//! values on which the output does not depend, and checks the rest as a captured graph is checked.

use std::collections::HashMap;

use burn::module::ParamId;
use burn::tensor::{DType, TensorData};

use crate::check;
use crate::coupling::{self, BatchAxis};
use crate::error::{Error, Problem, Result};
use crate::graph::{Constant, Graph, Kind, Node, Origin, Role, Size, Value, ValueId};
use crate::ops::Op;
use crate::parameters::Parameter;

/// The batch sizes at which shapes are inferred. A size is the line through the first two, and must
/// lie on it at the third, so that a rounded size (half a batch) is not taken for a constant.
const BATCHES: [usize; 3] = [2, 3, 7];

/// A graph under construction.
///
/// ```
/// use burn::tensor::TensorData;
/// use influence_autodiff::GraphBuilder;
/// use influence_autodiff::ops::{Op, activation::Relu, linear::Linear};
///
/// # fn main() -> influence_autodiff::Result<()> {
/// let mut builder = GraphBuilder::new(&[3]);
/// let weight = TensorData::new(vec![1f32, 0., 2., -1., 0., 1.], [3, 2]);
/// let weight = builder.parameter("head.weight", "head", weight);
/// let x = builder.input();
/// let hidden = builder.node(Op::Relu(Relu), &[x], "")?;
/// let logits = builder.node(Op::Linear(Linear), &[hidden, weight], "head")?;
/// let graph = builder.finish(logits)?;
/// assert_eq!((graph.classes(), graph.sample_shape()), (2, vec![3]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    values: Vec<Value>,
    nodes: Vec<Node>,
    /// Where the samples lie in each value; none where it has no samples or couples them.
    samples: Vec<Option<BatchAxis>>,
    /// For each value, whether it depends on the input.
    dependent: Vec<bool>,
    /// The layer of each parameter, by its value.
    layers: HashMap<ValueId, String>,
    dtype: Option<DType>,
}

impl GraphBuilder {
    /// A graph that holds only its input, of shape `[n, ...sample]`.
    #[must_use]
    pub fn new(sample: &[usize]) -> Self {
        let batch = Size { per_sample: 1, fixed: 0 };
        let shape = std::iter::once(batch).chain(sample.iter().map(|&size| fixed(size))).collect();
        let input = Value { shape, kind: Kind::Float, origin: Origin::Input };
        Self {
            values: vec![input],
            nodes: Vec::new(),
            samples: vec![Some(BatchAxis { axis: 0, inner: 1 })],
            dependent: vec![true],
            layers: HashMap::new(),
            dtype: None,
        }
    }

    /// The input.
    #[must_use]
    pub fn input(&self) -> ValueId {
        0
    }

    /// A value's shape as a function of the batch size.
    #[must_use]
    pub fn shape(&self, value: ValueId) -> &[Size] {
        &self.values[value].shape
    }

    /// What a value's elements are.
    #[must_use]
    pub fn kind(&self, value: ValueId) -> Kind {
        self.values[value].kind
    }

    /// The number of neighbours along the batch axis that belong to one sample: 1 in `[n, d]`, and
    /// s in `[n s, d]` that was `[n, s, d]`. None where the value has no samples or couples them.
    #[must_use]
    pub fn neighbours(&self, value: ValueId) -> Option<usize> {
        self.samples[value].map(|lie| lie.inner)
    }

    /// The node that computes a value; none for the input and for constants.
    #[must_use]
    pub fn maker(&self, value: ValueId) -> Option<&Node> {
        match self.values[value].origin {
            Origin::Node(node) => Some(&self.nodes[node]),
            Origin::Input | Origin::Constant(_) => None,
        }
    }

    /// Adds a trainable tensor; the tensors of one layer can be perturbed together. The graph's
    /// parameters have the order in which they are added.
    pub fn parameter(&mut self, name: &str, layer: &str, data: TensorData) -> ValueId {
        self.dtype.get_or_insert(data.dtype());
        let value = self.constant(name, Role::Parameter(ParamId::new()), data);
        self.layers.insert(value, layer.to_owned());
        value
    }

    /// Adds state that is not trained, such as the statistics of a batch normalisation.
    pub fn buffer(&mut self, name: &str, data: TensorData) -> ValueId {
        self.constant(name, Role::Buffer, data)
    }

    /// Adds a constant of the network's code: floats, indices (integers) or a mask (booleans).
    pub fn literal(&mut self, data: TensorData) -> ValueId {
        self.constant("constant", Role::Literal, data)
    }

    fn constant(&mut self, name: &str, role: Role, data: TensorData) -> ValueId {
        let shape = data.shape().iter().map(|&size| fixed(size)).collect();
        let kind = Kind::of(data.dtype());
        let origin = Origin::Constant(Constant { name: name.to_owned(), role, data });
        self.push(Value { shape, kind, origin })
    }

    fn push(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        self.samples.push(None);
        self.dependent.push(false);
        self.values.len() - 1
    }

    /// Adds an operation whose operands determine the shape of its result, and returns the result;
    /// `path` names the node in messages.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the operands do not fit.
    pub fn node(&mut self, op: Op, inputs: &[ValueId], path: &str) -> Result<ValueId> {
        self.node_of(op, inputs, &[], path)
    }

    /// Adds an operation whose result has a given shape: a reshape, an expansion, a fill.
    ///
    /// # Errors
    /// As [`GraphBuilder::node`], and when the shape is not what the operation's rule allows.
    pub fn node_of(&mut self, op: Op, inputs: &[ValueId], shape: &[Size], path: &str) -> Result<ValueId> {
        let shape = self.inferred(&op, inputs, shape).map_err(|why| {
            let node = format!("node {}", self.nodes.len());
            let node = if path.is_empty() { node } else { format!("{node} near {path}") };
            Error::Unsupported(vec![Problem { op: op.to_string(), node, why }])
        })?;
        let mask = matches!(op, Op::Compare(_) | Op::ComparePair(_) | Op::Logic(_) | Op::Not(_));
        let kind = if mask { Kind::Mask } else { Kind::Float };
        let output = self.push(Value { shape, kind, origin: Origin::Node(self.nodes.len()) });
        let node = Node { op, inputs: inputs.to_vec(), output, path: path.to_owned() };
        self.dependent[output] = inputs.iter().any(|&input| self.dependent[input]);
        let lie = coupling::of_result(&self.values, &node, &self.samples, self.dependent[output]);
        self.samples[output] = lie.flatten();
        self.nodes.push(node);
        Ok(output)
    }

    /// The shape of a result from the operation's rule; every size must be a line in the batch
    /// size.
    fn inferred(&self, op: &Op, inputs: &[ValueId], given: &[Size]) -> Result<Vec<Size>, String> {
        if let Some(&unknown) = inputs.iter().find(|&&input| input >= self.values.len()) {
            return Err(format!("there is no value {unknown}"));
        }
        let at = |n: usize| {
            let inputs: Vec<_> = inputs.iter().map(|&input| self.values[input].shape_at(n)).collect();
            let given: Vec<_> = given.iter().map(|size| size.at(n)).collect();
            let shape = op.rule().shape(&inputs, &given)?;
            check::elements(&shape).map(|_| shape)
        };
        let [first, second, third] = [at(BATCHES[0])?, at(BATCHES[1])?, at(BATCHES[2])?];
        let line = |axis: usize| {
            let size = Size::through(BATCHES[0], first[axis], second[axis])?;
            (size.at(BATCHES[2]) == third[axis]).then_some(size)
        };
        let line = (first.len() == second.len() && first.len() == third.len())
            .then(|| (0..first.len()).map(line).collect::<Option<Vec<_>>>());
        line.flatten().ok_or_else(|| {
            format!("its shape is not a line in the batch size: {first:?}, {second:?}, {third:?}")
        })
    }

    /// The graph that computes `output`, of shape `[n, K]`, without values on which it does not
    /// depend.
    ///
    /// # Errors
    /// As [`Graph::capture`]: [`Error::Shape`] for input or output, [`Error::Unsupported`] with all
    /// nodes at which an index points beyond its axis.
    pub fn finish(self, output: ValueId) -> Result<Graph> {
        if output >= self.values.len() {
            return Err(Error::InvalidArgument(format!("there is no value {output}")));
        }
        let needed = self.needed(output);
        let dtype = self.dtype.unwrap_or(DType::F32);
        // The number of each needed value in the finished graph.
        let mut renumbered: Vec<ValueId> = vec![usize::MAX; self.values.len()];
        let mut values = Vec::new();
        let mut parameters = Vec::new();
        let mut nodes = self.nodes.into_iter().enumerate();
        let mut kept: Vec<Node> = Vec::new();
        for (id, mut value) in self.values.into_iter().enumerate().filter(|(id, _)| needed[*id]) {
            renumbered[id] = values.len();
            if let Origin::Node(index) = &mut value.origin {
                // The results of nodes have the order of the nodes, so one pass over both is
                // enough.
                let node = nodes.find(|(number, _)| number == index).map(|(_, node)| node);
                *index = kept.len();
                kept.extend(node);
            }
            if let (Origin::Constant(constant), Some(layer)) = (&value.origin, self.layers.get(&id)) {
                let (name, shape) = (constant.name.clone(), constant.data.shape().to_vec());
                let values = vec![renumbered[id]];
                parameters.push(Parameter { name, layer: layer.clone(), shape, values });
            }
            values.push(value);
        }
        // Nodes still name their values by the old indices.
        for node in &mut kept {
            node.inputs.iter_mut().for_each(|input| *input = renumbered[*input]);
            node.output = renumbered[node.output];
        }
        let output = renumbered[output];
        let graph = Graph {
            values,
            nodes: kept,
            input: 0,
            output,
            parameters,
            dtype,
            one_logit: false,
            reference: None,
        };
        graph.check()?;
        Ok(graph.with_two_logits())
    }

    /// For each value, whether the output depends on it; the input is always needed.
    fn needed(&self, output: ValueId) -> Vec<bool> {
        let mut needed = vec![false; self.values.len()];
        needed[0] = true;
        needed[output] = true;
        for node in self.nodes.iter().rev().collect::<Vec<_>>() {
            if needed[node.output] {
                node.inputs.iter().for_each(|&input| needed[input] = true);
            }
        }
        needed
    }
}

/// A size that does not depend on the batch.
fn fixed(fixed: usize) -> Size {
    Size { per_sample: 0, fixed }
}

#[cfg(test)]
mod tests {
    //! What is kept, in which order, and what is refused.

    use super::*;
    use crate::ops::activation::Relu;
    use crate::ops::arithmetic::Add;
    use crate::ops::indexing::Select;
    use crate::ops::layout::Reshape;
    use crate::ops::linear::Linear;

    fn weight(shape: [usize; 2]) -> TensorData {
        TensorData::new((0..shape[0] * shape[1]).map(|x| x as f32).collect::<Vec<_>>(), shape)
    }

    #[test]
    fn what_the_output_does_not_need_is_dropped() -> Result<()> {
        let mut builder = GraphBuilder::new(&[3]);
        let unused = builder.parameter("unused", "u", weight([3, 5]));
        let second = builder.parameter("b.weight", "b", weight([3, 2]));
        let x = builder.input();
        builder.node(Op::Linear(Linear), &[x, unused], "")?;
        let hidden = builder.node(Op::Relu(Relu), &[x], "")?;
        let logits = builder.node(Op::Linear(Linear), &[hidden, second], "b")?;
        builder.node(Op::Relu(Relu), &[logits], "")?;
        let graph = builder.finish(logits)?;
        let names: Vec<_> = graph.parameters().iter().map(|p| (p.name.as_str(), p.layer())).collect();
        assert_eq!(names, [("b.weight", "b")]);
        let text = graph.to_string();
        assert_eq!(
            text,
            "input %0 [n, 3]\n%2 [n, 3] = relu %0\n%3 [n, 2] = linear %2, b.weight[3, 2]  # b\n\
             output %3 [n, 2]\n"
        );
        Ok(())
    }

    #[test]
    fn operands_that_do_not_fit_are_refused_with_their_node() {
        let mut builder = GraphBuilder::new(&[3]);
        let other = builder.literal(weight([2, 5]));
        let error = builder.node(Op::Add(Add), &[0, other], "stem").expect_err("3 is not 5");
        assert!(error.to_string().contains("add at node 0 near stem: shapes [2, 3]"), "{error}");
        let error = builder.node(Op::Relu(Relu), &[9], "").expect_err("there is no value 9");
        assert!(error.to_string().contains("no value 9"), "{error}");
        assert!(builder.finish(77).is_err());
    }

    #[test]
    fn a_shape_must_be_a_line_in_the_batch_size() {
        let mut builder = GraphBuilder::new(&[6]);
        let two_n = [Size { per_sample: 2, fixed: 0 }, fixed(3)];
        let folded = builder.node_of(Op::Reshape(Reshape), &[0], &two_n, "");
        assert!(folded.is_ok_and(|value| builder.shape(value)[0].per_sample == 2));
        let literal = [fixed(2), fixed(6)];
        let error = builder.node_of(Op::Reshape(Reshape), &[0], &literal, "").expect_err("n = 3");
        assert!(error.to_string().contains("do not fill"), "{error}");
    }

    #[test]
    fn the_output_is_checked_as_of_a_captured_model() -> Result<()> {
        let mut builder = GraphBuilder::new(&[4]);
        let indices = builder.literal(TensorData::new(vec![0i64, 9], [2]));
        let chosen = builder.node(Op::Select(Select { axis: 1 }), &[0, indices], "pick")?;
        let error = builder.finish(chosen).expect_err("there is no column 9");
        assert!(error.to_string().contains("index 9 lies outside an axis of 4"), "{error}");
        let error = GraphBuilder::new(&[4, 4]).finish(0).expect_err("an image is no row of logits");
        assert!(matches!(error, Error::Shape { what: "the model's output", .. }), "{error}");
        Ok(())
    }
}
