//! One node with its operands, as given to its import rule.

use std::sync::Arc;

use burn::tensor::TensorData;
use influence_autodiff::graph::{Kind, Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Add, AddScalar, Mul, MulScalar};
use influence_autodiff::ops::layout::{Expand, Fill, Permute, Reshape};
use influence_autodiff::ops::logic::Indicator;
use influence_autodiff::ops::mask::{Compare, Relation};

use crate::error::Refusal;
use crate::host::{BatchId, Host};
use crate::import::{Binding, Importer, title};
use crate::known::{ElementKind, KnownTensor, axis};
use crate::node::Attributes;
use crate::proto::NodeProto;

/// A node that is being imported.
#[derive(Debug)]
pub(crate) struct Call<'a, 'b> {
    pub(crate) importer: &'b mut Importer<'a>,
    pub(crate) node: &'a NodeProto,
    pub(crate) operands: Vec<Option<Binding>>,
    pub(crate) opset: i64,
}

/// A size that does not depend on the batch.
pub(crate) fn fixed(fixed: usize) -> Size {
    Size { per_sample: 0, fixed }
}

impl<'a> Call<'a, '_> {
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.node)
    }

    pub(crate) fn operand(&self, position: usize) -> Option<&Binding> {
        self.operands.get(position).and_then(Option::as_ref)
    }

    pub(crate) fn has(&self, position: usize) -> bool {
        self.operand(position).is_some()
    }

    /// Whether another node uses the result at this position.
    pub(crate) fn uses_result(&self, position: usize) -> bool {
        let name = self.node.output.get(position).map_or("", String::as_str);
        !name.is_empty() && self.importer.uses.contains_key(name)
    }

    /// An operand as a value of the graph; known integers become floats.
    pub(crate) fn value(&mut self, position: usize) -> Result<ValueId, Refusal> {
        match self.operand(position).cloned() {
            Some(Binding::Value(value)) => Ok(value),
            Some(Binding::Weight(id)) => Ok(self.importer.weight(id)),
            Some(Binding::Known(host)) => {
                let Some(tensor) = host.constant() else { return self.filled(&host) };
                let numbers = tensor.numbers();
                Ok(self.literal(numbers))
            }
            Some(Binding::Unknown) | None => Err(format!("operand {position} is missing").into()),
        }
    }

    /// A known tensor whose elements are the same for all samples, in a shape that grows with the
    /// batch: the elements of one sample, repeated.
    fn filled(&mut self, host: &Host) -> Result<ValueId, Refusal> {
        let tensors = BatchId::ALL.map(|batch| host.at(batch));
        let shape = super::ops::lines(tensors.map(|tensor| tensor.shape.clone()))?;
        // The tensor of one sample has size 1 where the shape grows. It must give the tensor of
        // every followed batch size when it is repeated.
        let one: Vec<_> = shape.iter().map(|size| if size.per_sample > 0 { 1 } else { size.fixed }).collect();
        let first = KnownTensor::build(&one, tensors[0].element, |at| tensors[0].at(at))?;
        let same = |tensor: &&KnownTensor| {
            let repeated = KnownTensor::build(&tensor.shape, tensor.element, |at| first.at(at));
            repeated.is_ok_and(|repeated| repeated.values == tensor.values)
        };
        if !tensors.iter().all(same) {
            return Err("its numbers depend on the batch".into());
        }
        if let (Some(value), ElementKind::Float) = (first.only(), first.element) {
            return self.emit_of(Op::Fill(Fill { value }), &[], &shape);
        }
        let row = self.literal(first.numbers());
        self.expand(row, &shape)
    }

    /// The rank of an operand of any kind.
    pub(crate) fn rank(&self, position: usize) -> Result<usize, Refusal> {
        self.shape_of(position).map(|shape| shape.len())
    }

    /// The shape of an operand, at the first of the followed batch sizes: for operands whose shape
    /// does not depend on the batch.
    pub(crate) fn shape_of(&self, position: usize) -> Result<Vec<usize>, Refusal> {
        match self.operand(position) {
            Some(Binding::Value(value)) => Ok(self.shape_at(*value, BatchId::FIRST)),
            Some(Binding::Weight(id)) => Ok(self.importer.weights[id.index()].data.shape().to_vec()),
            Some(Binding::Known(host)) => Ok(host.at(BatchId::FIRST).shape.clone()),
            Some(Binding::Unknown) | None => Err(format!("operand {position} is missing").into()),
        }
    }

    /// An operand that must be known; its elements may depend on the batch.
    pub(crate) fn host(&self, position: usize) -> Result<Option<Host>, Refusal> {
        match self.operand(position) {
            None => Ok(None),
            Some(Binding::Known(host)) => Ok(Some(host.clone())),
            Some(Binding::Weight(id)) => {
                let data = &self.importer.weights[id.index()].data;
                let (shape, values) = (data.shape().to_vec(), data.iter::<f64>().collect());
                let element = ElementKind::Float;
                Ok(Some(Host::fixed(KnownTensor { shape, element, values })))
            }
            Some(Binding::Value(_) | Binding::Unknown) => Err(Refusal::new(
                format!("operand {position} is computed from the input, where a constant is needed"),
                "export with that operand as a constant",
            )),
        }
    }

    /// An operand that must be known and equal for every batch.
    pub(crate) fn constant(&self, position: usize) -> Result<Option<Arc<KnownTensor>>, Refusal> {
        let Some(host) = self.host(position)? else { return Ok(None) };
        let tensor = host.constant().cloned();
        Ok(Some(tensor.ok_or_else(|| format!("operand {position} depends on the batch"))?))
    }

    pub(crate) fn ints(&self, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
        Ok(self.constant(position)?.map(|tensor| tensor.ints()))
    }

    /// A known single number.
    pub(crate) fn number(&self, position: usize) -> Result<Option<f64>, Refusal> {
        let Some(tensor) = self.constant(position)? else { return Ok(None) };
        Ok(Some(tensor.only().ok_or_else(|| format!("operand {position} is not a single number"))?))
    }

    /// The number of an operand, if it is a single known number (a literal, not a parameter).
    pub(crate) fn literal_number(&self, position: usize) -> Option<f64> {
        match self.operand(position) {
            Some(Binding::Known(host)) => host.constant().and_then(|tensor| tensor.only()),
            _ => None,
        }
    }

    /// Integers that are an attribute in older files, and an operand in newer ones.
    pub(crate) fn listed(&self, name: &str, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match self.attributes().ints(name) {
            Some(ints) => Ok(Some(ints)),
            None => self.ints(position),
        }
    }

    /// The axes of [`Call::listed`], for an operand of this rank, counted from the front.
    pub(crate) fn axes(&self, position: usize, rank: usize) -> Result<Option<Vec<usize>>, Refusal> {
        let axes = self.listed("axes", position)?;
        axes.map(|axes| axes.into_iter().map(|given| axis(given, rank)).collect()).transpose()
    }

    pub(crate) fn shape(&self, value: ValueId) -> Vec<Size> {
        self.importer.builder.shape(value).to_vec()
    }

    /// The shape of a value at one of the followed batch sizes.
    pub(crate) fn shape_at(&self, value: ValueId, batch: BatchId) -> Vec<usize> {
        self.shape(value).iter().map(|size| size.at(batch.size())).collect()
    }

    /// The sizes of all axes but the first, which must not depend on the batch.
    pub(crate) fn sample(&self, value: ValueId) -> Result<Vec<usize>, Refusal> {
        let shape = self.shape(value);
        let rest = shape.get(1..).unwrap_or_default();
        match rest.iter().any(|size| size.per_sample > 0) {
            true => Err(Refusal::new(
                "an axis other than the first grows with the batch",
                "keep the samples on the first axis",
            )),
            false => Ok(rest.iter().map(|size| size.fixed).collect()),
        }
    }

    pub(crate) fn literal(&mut self, data: TensorData) -> ValueId {
        self.importer.builder.literal(data)
    }

    pub(crate) fn is_mask(&self, value: ValueId) -> bool {
        self.importer.builder.kind(value) == Kind::Mask
    }

    fn is_indices(&self, value: ValueId) -> bool {
        self.importer.builder.kind(value) == Kind::Index
    }

    /// Adds an operation.
    pub(crate) fn emit(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, Refusal> {
        self.emit_of(op, inputs, &[])
    }

    /// Adds an operation whose result has a given shape.
    pub(crate) fn emit_of(&mut self, op: Op, inputs: &[ValueId], shape: &[Size]) -> Result<ValueId, Refusal> {
        let takes_masks =
            matches!(op, Op::Logic(_) | Op::Not(_) | Op::Indicator(_) | Op::MaskFill(_) | Op::MaskWhere(_));
        if takes_masks || !inputs.iter().any(|&input| self.is_mask(input)) {
            return self.plain(op, inputs, shape);
        }
        // In the engine, only selections and logic take masks. For other operations a mask is
        // converted to floats; where these only move elements, the result is converted back to a
        // mask.
        let moves = matches!(
            op,
            Op::Reshape(_)
                | Op::Permute(_)
                | Op::Expand(_)
                | Op::Slice(_)
                | Op::Flip(_)
                | Op::Cat(_)
                | Op::Select(_)
        );
        let back = moves && inputs.iter().all(|&input| self.is_mask(input) || self.is_indices(input));
        let numbers: Vec<_> = inputs
            .iter()
            .map(|&input| match self.is_mask(input) {
                true => self.plain(Op::Indicator(Indicator), &[input], &[]),
                false => Ok(input),
            })
            .collect::<Result<_, _>>()?;
        let result = self.plain(op, &numbers, shape)?;
        match back {
            true => {
                self.plain(Op::Compare(Compare { relation: Relation::Unequal, bound: 0.0 }), &[result], &[])
            }
            false => Ok(result),
        }
    }

    /// Adds an operation as it is.
    fn plain(&mut self, op: Op, inputs: &[ValueId], shape: &[Size]) -> Result<ValueId, Refusal> {
        Ok(self.importer.builder.node_of(op, inputs, shape, title(self.node))?)
    }

    pub(crate) fn reshape(&mut self, x: ValueId, shape: &[Size]) -> Result<ValueId, Refusal> {
        if self.shape(x) == shape { Ok(x) } else { self.emit_of(Op::Reshape(Reshape), &[x], shape) }
    }

    pub(crate) fn permute(&mut self, x: ValueId, axes: Vec<usize>) -> Result<ValueId, Refusal> {
        if axes.iter().enumerate().all(|(position, &axis)| position == axis) {
            return Ok(x);
        }
        self.emit(Op::Permute(Permute { axes }), &[x])
    }

    pub(crate) fn expand(&mut self, x: ValueId, shape: &[Size]) -> Result<ValueId, Refusal> {
        if self.shape(x) == shape { Ok(x) } else { self.emit_of(Op::Expand(Expand), &[x], shape) }
    }

    pub(crate) fn times(&mut self, x: ValueId, value: f64) -> Result<ValueId, Refusal> {
        if value == 1.0 { Ok(x) } else { self.emit(Op::MulScalar(MulScalar { value }), &[x]) }
    }

    pub(crate) fn plus(&mut self, x: ValueId, value: f64) -> Result<ValueId, Refusal> {
        if value == 0.0 { Ok(x) } else { self.emit(Op::AddScalar(AddScalar { value }), &[x]) }
    }

    pub(crate) fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
        self.emit(Op::Add(Add), &[a, b])
    }

    pub(crate) fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, Refusal> {
        self.emit(Op::Mul(Mul), &[a, b])
    }

    /// A value with leading axes of size 1 added, up to `rank` axes.
    pub(crate) fn of_rank(&mut self, x: ValueId, rank: usize) -> Result<ValueId, Refusal> {
        let shape = self.shape(x);
        let new = rank.saturating_sub(shape.len());
        let shape: Vec<_> = std::iter::repeat_n(fixed(1), new).chain(shape).collect();
        self.reshape(x, &shape)
    }

    /// Values with leading axes of size 1 added, so that all have the same rank, as the engine's
    /// broadcasts require.
    pub(crate) fn alike<const N: usize>(
        &mut self,
        mut values: [ValueId; N],
    ) -> Result<[ValueId; N], Refusal> {
        let rank = values.iter().map(|&value| self.shape(value).len()).max().unwrap_or(0);
        for value in &mut values {
            *value = self.of_rank(*value, rank)?;
        }
        Ok(values)
    }
}

/// A value as the only result of a node.
pub(crate) fn one(value: ValueId) -> Results {
    Ok(vec![Binding::Value(value)])
}

/// The results of a node, or why there are none.
pub(crate) type Results = Result<Vec<Binding>, Refusal>;
