//! From two recordings of a model, at batch sizes 2 and 3, to one graph whose shapes are functions
//! of the batch size.
//!
//! Recordings hold concrete shapes only (a reshape, for example, holds only the shape of its
//! result). Two recordings show which sizes grow with the batch: each size must lie on a line a n +
//! b through both. (At batch size 1, a batch axis could not be distinguished from one that
//! broadcasts.) Any other difference between the two is control flow on the batch, and is refused
//! with the operation at which it shows.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::backend::ir::{OperationIr, TensorId, TensorIr};
use burn::module::ParamId;
use burn::tensor::TensorData;

use crate::capture::{ModelTensor, Recording, operation_name};
use crate::error::{Error, Problem, Result};
use crate::graph::{Constant, Graph, Kind, Node, Origin, Role, Size, Value, ValueId};
use crate::integers;
use crate::linears;
use crate::ops::{self, Lowered};
use crate::parameters::Parameter;
use crate::slices;

/// The batch size of the first recording; the second has one sample more.
pub(crate) const FIRST_BATCH: usize = 2;

/// Recognises an operation. The tests use recognisers that leave operations out.
pub(crate) type Recogniser = fn(&OperationIr) -> ops::Recognition<'_>;

/// The graph of a model recorded at batch sizes [`FIRST_BATCH`] and one more.
///
/// # Errors
/// [`Error::Unsupported`] with every needed operation that the engine does not know, and every
/// dependence on the batch.
pub(crate) fn graph(mut first: Recording, mut second: Recording, recognise: Recogniser) -> Result<Graph> {
    // What several recorded operations mean together is rewritten first, in both recordings alike.
    for recording in [&mut first, &mut second] {
        integers::fold(recording);
        slices::turn(recording);
        linears::unite(recording);
    }
    // The two recordings are read side by side, operation by operation: what differs between them
    // is how sizes depend on the batch. That takes the same number of needed operations in both.
    let (needed, other) = (needed(&first), needed(&second));
    if needed.len() != other.len() {
        let unknown = needed.iter().filter_map(|&index| unknown(index, &first.operations[index], recognise));
        let problems = unknown.chain([uneven(&first, &second, &needed, &other)]);
        return Err(Error::Unsupported(problems.collect()));
    }
    let weights = std::mem::take(&mut first.values);
    let mut builder = Aligner::new(&first, &second, weights);
    for (&index, &twin) in needed.iter().zip(&other) {
        // Problems are collected, so that one error names all of them.
        builder.node(index, &first.operations[index], &second.operations[twin], recognise);
    }
    let output = builder.twin(first.output, second.output);
    if output.is_none() && builder.problems.is_empty() {
        builder.refuse(
            first.operations.len(),
            "the result",
            "it does not depend on the input in the same way at every batch size".into(),
        );
    }
    let parameters = builder.parameters();
    let Aligner { values, nodes, problems, .. } = builder;
    let (Some(output), true) = (output, problems.is_empty()) else {
        return Err(Error::Unsupported(problems));
    };
    let graph = Graph {
        values,
        nodes,
        input: 0,
        output,
        parameters,
        dtype: first.dtype,
        one_logit: false,
        reference: None,
    };
    graph.check()?;
    Ok(graph)
}

/// The operations on which the output depends, in order; all others are left out.
pub(crate) fn needed(recording: &Recording) -> Vec<usize> {
    let mut wanted = HashSet::from([recording.output]);
    let mut needed = Vec::new();
    for (index, op) in recording.operations.iter().enumerate().rev() {
        if op.outputs().any(|output| wanted.contains(&output.id)) {
            wanted.extend(op.inputs().map(|input| input.id));
            needed.push(index);
        }
    }
    needed.reverse();
    needed
}

/// Why an operation is refused, whatever its operands are.
fn unknown(index: usize, op: &OperationIr, recognise: Recogniser) -> Option<Problem> {
    let why = match recognise(op) {
        Some(Ok(_)) => return None,
        Some(Err(why)) => why,
        None => reason(op).into(),
    };
    Some(Problem { op: operation_name(op), node: format!("operation {index}"), why })
}

/// Names the first operation at which two recordings of unequal length differ.
fn uneven(first: &Recording, second: &Recording, needed: &[usize], other: &[usize]) -> Problem {
    let names = |recording: &Recording, indices: &[usize]| -> Vec<String> {
        indices.iter().map(|&index| operation_name(&recording.operations[index])).collect()
    };
    let (a, b) = (names(first, needed), names(second, other));
    let at = a.iter().zip(&b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    let op = a.get(at).or(b.get(at)).cloned().unwrap_or_default();
    let why = format!(
        "control flow on the batch or on values: {} operations for {FIRST_BATCH} samples, {} for {}; \
         compute the same for every batch",
        a.len(),
        b.len(),
        FIRST_BATCH + 1
    );
    Problem { op, node: format!("operation {at}"), why }
}

/// The graph of two recordings, built from pairs of corresponding operations.
struct Aligner<'a> {
    first: &'a Recording,
    second: &'a Recording,
    /// Host values of the first recording, moved into the graph at their first use.
    weights: BTreeMap<TensorId, TensorData>,
    /// For each tensor of the first recording, its value and the corresponding tensor of the
    /// second.
    known: HashMap<TensorId, (ValueId, TensorId)>,
    values: Vec<Value>,
    nodes: Vec<Node>,
    problems: Vec<Problem>,
    /// The values of the trainable tensors, by their order in the model.
    parameters: BTreeMap<usize, ValueId>,
    /// Results of operations other than the one that their rules give (the indices that come with
    /// sorted values).
    side_results: HashSet<TensorId>,
    path: String,
}

impl<'a> Aligner<'a> {
    fn new(first: &'a Recording, second: &'a Recording, weights: BTreeMap<TensorId, TensorData>) -> Self {
        let shape = sizes(&first.shape, &second.shape).unwrap_or_default();
        Self {
            first,
            second,
            weights,
            known: HashMap::from([(first.input, (0, second.input))]),
            values: vec![Value { shape, kind: Kind::Float, origin: Origin::Input }],
            parameters: BTreeMap::new(),
            side_results: HashSet::new(),
            nodes: Vec::new(),
            problems: Vec::new(),
            path: String::new(),
        }
    }

    fn refuse(&mut self, index: usize, op: &str, why: String) {
        let near = if self.path.is_empty() { String::new() } else { format!(" near {}", self.path) };
        self.problems.push(Problem { op: op.to_owned(), node: format!("operation {index}{near}"), why });
    }

    /// The value of two corresponding tensors; none where they do not correspond.
    fn twin(&self, first: TensorId, second: TensorId) -> Option<ValueId> {
        self.known.get(&first).filter(|(_, twin)| *twin == second).map(|(value, _)| *value)
    }

    /// Adds one operation, or notes why it is refused.
    fn node(&mut self, index: usize, op: &OperationIr, twin: &OperationIr, recognise: Recogniser) {
        if let Some(path) = op.inputs().find_map(|input| self.module_of(input.id)) {
            self.path = path;
        }
        let name = operation_name(op);
        match (recognise(op), recognise(twin)) {
            (Some(Ok(a)), Some(Ok(b))) => match self.add(&a, &b) {
                Ok(()) => {
                    self.side_results.extend(op.outputs().map(|t| t.id).filter(|&id| id != a.output.id));
                }
                Err(why) => self.refuse(index, &name, why),
            },
            (Some(Err(why)), _) | (_, Some(Err(why))) => self.refuse(index, &name, why),
            _ => self.refuse(index, &name, reason(op).into()),
        }
        // Even if the operation was refused, later ones may use its result: so that each problem is
        // reported once, the result stays known.
        for (output, twin) in op.outputs().zip(twin.outputs()) {
            if !self.known.contains_key(&output.id) {
                let shape = sizes(&output.shape, &twin.shape).unwrap_or_default();
                let (kind, origin) = (Kind::of(output.dtype), Origin::Node(usize::MAX));
                self.push(output.id, twin.id, Value { shape, kind, origin });
            }
        }
    }

    fn add(&mut self, a: &Lowered<'_>, b: &Lowered<'_>) -> Result<(), String> {
        if a.op != b.op || a.inputs.len() != b.inputs.len() {
            return Err(format!(
                "it depends on the batch: {} for {FIRST_BATCH} samples, {} for one more; treat each sample on its own",
                a.op, b.op
            ));
        }
        let inputs: Vec<_> =
            a.inputs.iter().zip(&b.inputs).map(|(a, b)| self.operand(a, b)).collect::<Result<_, String>>()?;
        let shape = sizes(&a.output.shape, &b.output.shape)
            .ok_or_else(|| batch_shapes("its result", &a.output.shape, &b.output.shape))?;
        let (kind, origin) = (Kind::of(a.output.dtype), Origin::Node(self.nodes.len()));
        let output = self.push(a.output.id, b.output.id, Value { shape, kind, origin });
        self.nodes.push(Node { op: a.op.clone(), inputs, output, path: self.path.clone() });
        Ok(())
    }

    fn push(&mut self, id: TensorId, twin: TensorId, value: Value) -> ValueId {
        self.values.push(value);
        self.known.insert(id, (self.values.len() - 1, twin));
        self.values.len() - 1
    }

    /// The value of an operand; constants are added at their first use.
    fn operand(&mut self, a: &TensorIr, b: &TensorIr) -> Result<ValueId, String> {
        if self.side_results.contains(&a.id) {
            return Err(
                "it takes indices that depend on the input; only constants are supported there: take the values themselves (max_dim, topk)"
                    .into()
            );
        }
        match self.known.get(&a.id) {
            Some((value, twin)) if *twin == b.id => Ok(*value),
            Some(_) => {
                Err("it takes another operand at another batch size; use the same tensors for every batch"
                    .into())
            }
            None => self.constant(a, b),
        }
    }

    fn constant(&mut self, a: &TensorIr, b: &TensorIr) -> Result<ValueId, String> {
        let (Some(data), Some(twin)) = (self.weights.remove(&a.id), self.second.values.get(&b.id)) else {
            return Err("an operand was computed outside the forward function; make it inside, or hold it in the module".into());
        };
        // Indices with one row per sample, all equal, do not depend on the batch: one row is
        // enough.
        let row = integers::common_row(&data, FIRST_BATCH);
        let row = row.filter(|row| integers::common_row(twin, FIRST_BATCH + 1).as_ref() == Some(row));
        let (data, twin) = row.as_ref().map_or((data, twin), |row| (row.clone(), row));
        if data.shape() != twin.shape() {
            return Err(batch_shapes("a tensor made in the forward function", data.shape(), twin.shape()));
        }
        // Both recordings must have the same tensor: by its name, or, for what the forward function
        // makes, by its elements.
        let named = self.first.names.get(&a.id);
        let (name, role) =
            named.map_or(("constant".into(), Role::Literal), |named| (named.name.clone(), named.role));
        if self.second.names.get(&b.id) != named {
            return Err(format!(
                "it takes another tensor than {name} at another batch size; use the same for every batch"
            ));
        }
        if role == Role::Literal && data != *twin {
            let why = "a tensor made in the forward function has other values at another batch size, or in every run; make it of fixed numbers";
            return Err(why.into());
        }
        let shape = data.shape().iter().map(|&fixed| Size { per_sample: 0, fixed }).collect();
        let kind = Kind::of(data.dtype());
        let constant = Constant { name, role, data };
        let value = self.push(a.id, b.id, Value { shape, kind, origin: Origin::Constant(constant) });
        if let Some(ModelTensor { role: Role::Parameter(_), order, .. }) = named {
            self.parameters.insert(*order, value);
        }
        Ok(value)
    }

    /// The trainable tensors in the model's order; fields that share a tensor give one
    /// [`Parameter`].
    fn parameters(&self) -> Vec<Parameter> {
        let mut found: Vec<(ParamId, Parameter)> = Vec::new();
        for &value in self.parameters.values() {
            let Origin::Constant(Constant { name, role: Role::Parameter(id), .. }) =
                &self.values[value].origin
            else {
                continue;
            };
            // Fields that share a tensor have one identity.
            match found.iter_mut().find(|(other, _)| other == id) {
                Some((_, parameter)) => parameter.values.push(value),
                None => {
                    let (name, shape) = (name.clone(), self.values[value].shape_at(0));
                    let layer = Parameter::module_of(&name);
                    found.push((*id, Parameter { name, layer, shape, values: vec![value] }));
                }
            }
        }
        let mut parameters: Vec<_> = found.into_iter().map(|(_, parameter)| parameter).collect();
        parameters.iter_mut().for_each(|parameter| parameter.values.sort_unstable());
        parameters
    }

    /// The module that owns a named tensor: its name without the last word.
    fn module_of(&self, id: TensorId) -> Option<String> {
        let name = &self.first.names.get(&id)?.name;
        Some(name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module).to_owned())
    }
}

/// Why an operation that no family knows is refused.
fn reason(op: &OperationIr) -> &'static str {
    use burn::backend::ir::FloatOperationIr;
    match op {
        OperationIr::Float(_, FloatOperationIr::Random(_)) => {
            "random operations are refused: the output would not be a function of the input"
        }
        OperationIr::Float(_, FloatOperationIr::IntoInt(_)) => {
            "integers have no derivative; where the input is token ids, look them up first and give the embeddings as samples"
        }
        OperationIr::Custom(_) => {
            "a custom kernel has no derivative here; write it in Burn tensor operations"
        }
        _ => {
            "this engine has no rule for it; write it with those it has (`Op::NAMES`, docs/ops.md), or cut the model after it"
        }
    }
}

/// Why two shapes are refused: some size is no line in the batch size.
fn batch_shapes(what: &str, a: &[usize], b: &[usize]) -> String {
    format!(
        "{what} has shape {a:?} for {FIRST_BATCH} samples and {b:?} for one more, which no line a n + b explains; keep the samples on an axis of their own"
    )
}

/// Two shapes as one function of the batch size; none where a size is no line in it.
fn sizes(a: &[usize], b: &[usize]) -> Option<Vec<Size>> {
    if a.len() != b.len() {
        return None;
    }
    a.iter().zip(b).map(|(&a, &b)| Size::through(FIRST_BATCH, a, b)).collect()
}

#[cfg(test)]
mod tests {
    //! One network with every operation of the table, lowered with each of them missing in turn.

    use std::cell::Cell;

    use burn::module::Module;
    use burn::nn::conv::{
        Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d,
        ConvTranspose1dConfig, ConvTranspose2d, ConvTranspose2dConfig,
    };
    use burn::nn::{
        BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PRelu, PReluConfig,
    };
    use burn::tensor::ops::{
        AttentionModuleOptions, AvgPoolOptions, GridSampleOptions, InterpolateMode, InterpolateOptions,
        MaxPoolOptions,
    };
    use burn::tensor::{Bool, DType, Device, Int, Tensor, activation, module};

    use super::*;
    use crate::capture::record;

    #[derive(Module, Debug)]
    struct Everything {
        conv: Conv2d,
        norm: BatchNorm,
        along: Conv1d,
        volume: Conv3d,
        up: ConvTranspose1d,
        wide: ConvTranspose2d,
        rows: LayerNorm,
        slopes: PRelu,
        head: Linear,
    }

    impl Everything {
        fn new(device: &Device) -> Self {
            Self {
                conv: Conv2dConfig::new([2, 3], [3, 3]).init(device),
                norm: BatchNormConfig::new(3).init(device),
                along: Conv1dConfig::new(3, 3, 1).init(device),
                volume: Conv3dConfig::new([3, 3], [1, 1, 1]).init(device),
                up: ConvTranspose1dConfig::new([3, 3], 1).init(device),
                wide: ConvTranspose2dConfig::new([3, 3], [1, 1]).init(device),
                rows: LayerNormConfig::new(4).init(device),
                slopes: PReluConfig::new().init(device),
                head: LinearConfig::new(4, 3).init(device),
            }
        }

        /// `[n, 2, 9, 9]` to `[n, 3, 2, 2]`, through the operations on images.
        fn images(&self, x: Tensor<4>) -> Tensor<4> {
            let x = activation::relu(self.norm.forward(self.conv.forward(x)));
            let x = activation::leaky_relu(
                module::max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([1, 1])),
                0.1,
            );
            let x = activation::sigmoid(module::avg_pool2d(
                x,
                AvgPoolOptions::new([2, 2]).with_stride([1, 1]).with_padding([1, 1]),
            ));
            let x = activation::gelu(activation::tanh(module::adaptive_avg_pool2d(x, [2, 2])));
            let deep = self.volume.forward(x.unsqueeze_dim::<5>(2));
            let x = module::adaptive_avg_pool3d(deep, [1, 2, 2]).squeeze_dim::<4>(2);
            let grid = x.clone().narrow(1, 0, 2).permute([0, 2, 3, 1]);
            x.grid_sample_2d(grid, GridSampleOptions::default())
        }

        /// `[n, 3, 4]` to `[n, 3, 4]`, through the operations on sequences.
        fn sequences(&self, x: Tensor<3>) -> Tensor<3> {
            let x = self.slopes.forward(self.rows.forward(self.along.forward(x)));
            let largest = module::max_pool1d(x.clone(), MaxPoolOptions::new([2]));
            let mean = module::avg_pool1d(x.clone(), AvgPoolOptions::new([2]));
            let pooled = module::adaptive_avg_pool1d(largest * mean, 4);
            pooled * x.max_dim(2)
        }

        /// All functions of one variable.
        fn elementary(x: Tensor<3>) -> Tensor<3> {
            let x = activation::log_sigmoid(activation::hard_sigmoid(x.sin().cos().erf(), 0.2, 0.5)).abs();
            (x.exp().log() + 1.0).log1p().sqrt().powf_scalar(1.5).clamp(0.0, 6.0)
        }

        /// `[n, 3, 4]` to `[n, 3, 4]`, through masks, indices, copies, interpolation and attention.
        fn choices(x: Tensor<3>) -> Tensor<3> {
            let (device, [n, ..]) = (x.device(), x.dims());
            let mask = Tensor::<3, Bool>::tril_mask([1, 3, 4], 0, &device);
            let filled = x.clone().mask_fill(mask, 0.5);
            let x = filled.mask_where(x.clone().lower_scalar(0.25), x * 2.0);
            let order = Tensor::<1, Int>::arange(0..4, &device);
            let x = x.select(2, order.clone()).gather(2, order.reshape([1, 1, 4]).expand([n, 3, 4]));
            let positions = Tensor::<1, Int>::arange(0..3, &device).reshape([1, 3]).expand([n, 3]);
            let x = x + module::embedding(Tensor::<2>::ones([3, 4], &device), positions);
            let x = x.pad((1, 0, 0, 0), 0.0).narrow(2, 1, 4);
            let x = x
                .clone()
                .slice_assign([0..n, 0..3, 0..2], x.narrow(2, 2, 2))
                .repeat_dim(1, 2)
                .narrow(1, 0, 3);
            let options = InterpolateOptions::new(InterpolateMode::Bilinear).with_output_size([3, 4]);
            let x = module::interpolate(x.unsqueeze_dim::<4>(1), options);
            let options = AttentionModuleOptions::default();
            module::attention(x.clone(), x.clone(), x, None, None, options).squeeze_dim(1)
        }

        /// `[n, 3, 4]` to `[n, 3, 4]`, through assigned parts, masks of two tensors, steps, sorts
        /// and windows.
        fn steps(&self, x: Tensor<3>) -> Tensor<3> {
            let (device, [n, ..]) = (x.device(), x.dims());
            let up = self.wide.forward(self.up.forward(x).unsqueeze_dim::<4>(2)).squeeze_dim::<3>(2);
            let x = Tensor::<3>::empty([n, 3, 4], &device).slice_assign([0..n, 0..3, 0..4], up);
            let mask = x.clone().greater(x.clone() * 0.5).bool_and(x.clone().lower_scalar(3.0)).bool_not();
            let x = x.clone().cumsum(2) + mask.float() + x.floor();
            let windows: Tensor<4> = activation::softmin(x.sort(2), 2).unfold(2, 2, 2);
            let x = windows.reshape([n, 3, 4]);
            (x.clone() + 1.0).powf(x)
        }

        fn forward(&self, x: Tensor<4>) -> Tensor<2> {
            let device = x.device();
            let [n, ..] = x.dims();
            let x = self.steps(self.sequences(self.images(x).reshape([n, 3, 4])));
            let x = Self::choices(Self::elementary(x));
            let wide = Tensor::cat(vec![x.clone().flip([2]), x.clone().narrow(2, 1, 2)], 2);
            let square = wide.clone().matmul(wide.swap_dims(1, 2));
            let ones = Tensor::<3>::ones([1, 1, 1], &device).expand([n, 3, 3]);
            let mixed = (square.clone() + ones.clone()) * square.clone() / (square + ones * 30.0);
            let mixed = (mixed - 0.5).recip() / 3.0 - 1.0;
            let summed = mixed.clone().sum_dim(2) - mixed.mean_dim(2);
            let logits =
                self.head.forward((x * summed).mean_dim(1).reshape([n, 4]).cast(DType::F64).cast(DType::F32));
            activation::log_softmax(activation::softmax(logits, 1), 1)
        }
    }

    fn recordings(net: &Everything) -> [Recording; 2] {
        let record =
            |n| record(net, &Everything::forward, &[2, 9, 9], n, &Device::flex()).expect("it records");
        [FIRST_BATCH, FIRST_BATCH + 1].map(record)
    }

    thread_local! {
        static REMOVED: Cell<&'static str> = const { Cell::new("") };
    }

    fn without_one_operation(ir: &OperationIr) -> ops::Recognition<'_> {
        ops::lower(ir)
            .filter(|lowered| lowered.as_ref().map_or(true, |lowered| lowered.op.name() != REMOVED.get()))
    }

    /// Operations that Burn 0.22 records as several others: a linear layer as a product and a sum.
    const DECOMPOSED: [&str; 1] = ["Linear"];

    #[test]
    fn each_operation_that_is_not_recognised_is_refused_by_name_and_node() {
        let net = Everything::new(&Device::flex());
        for name in ops::Op::NAMES.iter().filter(|name| !DECOMPOSED.contains(name)) {
            let [first, second] = recordings(&net);
            let used = graph(first, second, ops::lower).expect("every operation has a rule");
            let used = used.nodes.iter().filter(|node| node.op.name() == *name).count();
            assert!(used > 0, "{name} is missing from the network of this test");
            REMOVED.set(name);
            let [first, second] = recordings(&net);
            let refused = graph(first, second, without_one_operation);
            let Err(Error::Unsupported(problems)) = refused else { panic!("{name}: {refused:?}") };
            assert_eq!(problems.len(), used, "{name}: every use is listed, once: {problems:?}");
            assert!(problems.iter().all(|p| p.why.contains("no rule")), "{name}: {problems:?}");
            assert!(problems.iter().all(|p| p.node.starts_with("operation ")), "{name}: {problems:?}");
        }
        REMOVED.set("BatchNorm");
        let [first, second] = recordings(&net);
        let message = graph(first, second, without_one_operation).expect_err("refused").to_string();
        assert!(message.contains("Module::BatchNorm") && message.contains("near norm"), "{message}");
    }

    #[test]
    fn sizes_lie_on_a_line_with_natural_coefficients() {
        let through = |a, b| Size::through(FIRST_BATCH, a, b).map(|size| (size.per_sample, size.fixed));
        assert_eq!(through(7, 7), Some((0, 7)));
        assert_eq!(through(2, 3), Some((1, 0)));
        assert_eq!(through(9, 13), Some((4, 1)));
        assert_eq!(through(4, 9), None, "n squared");
        assert_eq!(through(6, 4), None, "12 / n");
        assert_eq!(sizes(&[2, 1], &[3]), None);
    }
}
