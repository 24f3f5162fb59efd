//! One node with its operands, as its rule sees it.

use std::sync::Arc;

use burn::tensor::TensorData;
use influence_autodiff::graph::{Kind, Size, ValueId};
use influence_autodiff::ops::Op;
use influence_autodiff::ops::arithmetic::{Add, AddScalar, Mul, MulScalar};
use influence_autodiff::ops::layout::{Expand, Fill, Permute, Reshape};
use influence_autodiff::ops::logic::Indicator;
use influence_autodiff::ops::mask::{Compare, Relation};

use crate::error::Refusal;
use crate::host::{BATCHES, Host};
use crate::import::{Importer, Operand, title};
use crate::node::Attributes;
use crate::proto::NodeProto;
use crate::table::{Element, Table, axis};

/// A node that is being imported.
#[derive(Debug)]
pub(crate) struct Call<'a, 'b> {
    pub(crate) importer: &'b mut Importer<'a>,
    pub(crate) node: &'a NodeProto,
    pub(crate) operands: Vec<Option<Operand>>,
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

    pub(crate) fn operand(&self, position: usize) -> Option<&Operand> {
        self.operands.get(position).and_then(Option::as_ref)
    }

    pub(crate) fn has(&self, position: usize) -> bool {
        self.operand(position).is_some()
    }

    /// Whether a result beside the first is used by another node.
    pub(crate) fn uses_result(&self, position: usize) -> bool {
        let name = self.node.output.get(position).map_or("", String::as_str);
        !name.is_empty() && self.importer.uses.contains_key(name)
    }

    /// An operand as a value of the graph; whole numbers that are known become floats.
    pub(crate) fn value(&mut self, position: usize) -> Result<ValueId, Refusal> {
        match self.operand(position).cloned() {
            Some(Operand::Value(value)) => Ok(value),
            Some(Operand::Weight(place)) => Ok(self.importer.weight(place)),
            Some(Operand::Known(host)) => {
                let Some(table) = host.constant() else { return self.filled(&host) };
                let numbers = table.numbers();
                Ok(self.literal(numbers))
            }
            Some(Operand::Unknown) | None => Err(format!("operand {position} is missing").into()),
        }
    }

    /// Numbers that are the same for every sample, in a shape that follows the batch: those of one
    /// sample, repeated.
    fn filled(&mut self, host: &Host) -> Result<ValueId, Refusal> {
        let tables = [host.at(0), host.at(1), host.at(2)];
        let shape = super::ops::lines(tables.map(|table| table.shape.clone()))?;
        let one: Vec<_> = shape.iter().map(|size| if size.per_sample > 0 { 1 } else { size.fixed }).collect();
        let first = Table::build(&one, tables[0].element, |at| tables[0].at(at))?;
        let same = |table: &&Table| {
            let repeated = Table::build(&table.shape, table.element, |at| first.at(at));
            repeated.is_ok_and(|repeated| repeated.values == table.values)
        };
        if !tables.iter().all(same) {
            return Err("its numbers depend on the batch".into());
        }
        if let (Some(value), Element::Float) = (first.only(), first.element) {
            return self.emit_of(Op::Fill(Fill { value }), &[], &shape);
        }
        let row = self.literal(first.numbers());
        self.expand(row, &shape)
    }

    /// The rank of an operand, wherever it is.
    pub(crate) fn rank(&self, position: usize) -> Result<usize, Refusal> {
        self.shape_of(position).map(|shape| shape.len())
    }

    /// The shape of an operand that does not depend on the batch.
    pub(crate) fn shape_of(&self, position: usize) -> Result<Vec<usize>, Refusal> {
        match self.operand(position) {
            Some(Operand::Value(value)) => Ok(self.shape_at(*value, 0)),
            Some(Operand::Weight(place)) => Ok(self.importer.weights[*place].data.shape().to_vec()),
            Some(Operand::Known(host)) => Ok(host.at(0).shape.clone()),
            Some(Operand::Unknown) | None => Err(format!("operand {position} is missing").into()),
        }
    }

    /// An operand that must be known: its numbers, whether or not they depend on the batch.
    pub(crate) fn host(&self, position: usize) -> Result<Option<Host>, Refusal> {
        match self.operand(position) {
            None => Ok(None),
            Some(Operand::Known(host)) => Ok(Some(host.clone())),
            Some(Operand::Weight(place)) => {
                let data = &self.importer.weights[*place].data;
                let (shape, values) = (data.shape().to_vec(), data.iter::<f64>().collect());
                let element = Element::Float;
                Ok(Some(Host::fixed(Table { shape, element, values })))
            }
            Some(Operand::Value(_) | Operand::Unknown) => Err(Refusal::new(
                format!("operand {position} is computed from the input, where a constant is needed"),
                "export with that operand as a constant",
            )),
        }
    }

    /// An operand that must be known and the same for every batch.
    pub(crate) fn table(&self, position: usize) -> Result<Option<Arc<Table>>, Refusal> {
        let Some(host) = self.host(position)? else { return Ok(None) };
        let table = host.constant().cloned();
        Ok(Some(table.ok_or_else(|| format!("operand {position} depends on the batch"))?))
    }

    pub(crate) fn ints(&self, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
        Ok(self.table(position)?.map(|table| table.ints()))
    }

    /// A known single number.
    pub(crate) fn number(&self, position: usize) -> Result<Option<f64>, Refusal> {
        let Some(table) = self.table(position)? else { return Ok(None) };
        Ok(Some(table.only().ok_or_else(|| format!("operand {position} is no single number"))?))
    }

    /// The number of an operand, where it is a known single one: a literal, no parameter.
    pub(crate) fn literal_number(&self, position: usize) -> Option<f64> {
        match self.operand(position) {
            Some(Operand::Known(host)) => host.constant().and_then(|table| table.only()),
            _ => None,
        }
    }

    /// Integers of an attribute in older files, of an operand in newer ones.
    pub(crate) fn listed(&self, name: &str, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
        match self.attributes().ints(name) {
            Some(ints) => Ok(Some(ints)),
            None => self.ints(position),
        }
    }

    /// Axes out of [`Call::listed`], for an operand of this rank.
    pub(crate) fn axes(&self, position: usize, rank: usize) -> Result<Option<Vec<usize>>, Refusal> {
        let axes = self.listed("axes", position)?;
        axes.map(|axes| axes.into_iter().map(|given| axis(given, rank)).collect()).transpose()
    }

    pub(crate) fn shape(&self, value: ValueId) -> Vec<Size> {
        self.importer.builder.shape(value).to_vec()
    }

    /// The shape of a value at the batch size with this place in [`BATCHES`].
    pub(crate) fn shape_at(&self, value: ValueId, batch: usize) -> Vec<usize> {
        self.shape(value).iter().map(|size| size.at(BATCHES[batch])).collect()
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

    /// Adds an operation that is told its shape.
    pub(crate) fn emit_of(&mut self, op: Op, inputs: &[ValueId], shape: &[Size]) -> Result<ValueId, Refusal> {
        let takes_masks =
            matches!(op, Op::Logic(_) | Op::Not(_) | Op::Indicator(_) | Op::MaskFill(_) | Op::MaskWhere(_));
        if takes_masks || !inputs.iter().any(|&input| self.is_mask(input)) {
            return self.plain(op, inputs, shape);
        }
        // The engine has masks for choices alone: in any other place they are numbers, and masks again
        // where elements are only moved.
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
        if axes.iter().enumerate().all(|(place, &axis)| place == axis) {
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

    /// A value with axes of size 1 in front, so that it has `rank` of them.
    pub(crate) fn of_rank(&mut self, x: ValueId, rank: usize) -> Result<ValueId, Refusal> {
        let shape = self.shape(x);
        let new = rank.saturating_sub(shape.len());
        let shape: Vec<_> = std::iter::repeat_n(fixed(1), new).chain(shape).collect();
        self.reshape(x, &shape)
    }

    /// Values with axes in front so that all have the same rank, as broadcasts need it.
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
    Ok(vec![Operand::Value(value)])
}

/// The results of a node, or why there are none.
pub(crate) type Results = Result<Vec<Operand>, Refusal>;
