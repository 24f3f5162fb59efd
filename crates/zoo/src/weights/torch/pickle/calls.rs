//! Replacements for the functions that Python would call: they make tensors of several kinds, and
//! the few objects that describe them.
//!
//! A tensor without plain elements (quantised, sparse, without values) is listed like any other. It
//! is an error only if a network needs it.

use super::super::value::{Body, Global, PickleValue, Storage, Tensor, add};
use super::{Machine, Stop};
use crate::weights::Dtype;
use crate::weights::checkpoint::{MOST_AXES, MOST_TENSORS};

/// Arguments of a call; PyTorch's functions take at most 8. Copying those of every call could take
/// a time that is quadratic in the number of instructions.
const MOST_ARGUMENTS: usize = 16;

impl<'a> Machine<'a> {
    /// A reference to a storage, which is outside of the pickle: ("storage", type, key, device,
    /// elements), and in old files a sixth item for a storage that is part of another. Only None is
    /// accepted there.
    pub(super) fn storage(&mut self) -> Result<(), Stop> {
        let items = match self.pop()? {
            PickleValue::Tuple(tuple) => &self.objects.tuples[tuple][..],
            _ => &[],
        };
        let storage = match *items {
            [
                PickleValue::Text("storage"),
                PickleValue::Global(Global::Storage(dtype)),
                PickleValue::Text(key),
                PickleValue::Text(_),
                PickleValue::Integer(count),
                ref part @ ..,
            ] if count >= 0 && matches!(part, [] | [PickleValue::None]) => {
                Storage { key, dtype, count: count.unsigned_abs() }
            }
            _ => return self.fault("something outside of the pickle that is not a plain storage"),
        };
        let storage = PickleValue::Storage(add(&mut self.objects.storages, storage));
        self.push(storage);
        Ok(())
    }

    /// Makes the value that the function on the stack would return for its arguments.
    pub(super) fn call(&mut self) -> Result<(), Stop> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (PickleValue::Global(global), PickleValue::Tuple(arguments)) = (function, arguments) else {
            return self.fault("a call of something that is not a function");
        };
        let arguments = &self.objects.tuples[arguments];
        if arguments.len() > MOST_ARGUMENTS {
            return self.fault("a call with more arguments than any function that is known here takes");
        }
        let arguments = arguments.clone();
        // The arguments as torch.save writes them. Those that are skipped do not concern the
        // tensor.
        let value = match (global, &arguments[..]) {
            (Global::OrderedDict, []) => {
                self.new_dict();
                return Ok(());
            }
            (Global::RebuildTensor, [PickleValue::Storage(storage), view @ ..]) => {
                let storage = self.objects.storages[*storage];
                self.dense(storage, view)?
            }
            (
                Global::RebuildTyped,
                [PickleValue::Storage(storage), view @ .., _, _, PickleValue::Global(Global::Type(dtype))],
            ) => {
                let storage = self.typed(*storage, *dtype)?;
                self.dense(storage, view)?
            }
            (Global::RebuildParameter, [tensor @ PickleValue::Tensor(_), ..]) => *tensor,
            (
                Global::RebuildQuantised,
                [PickleValue::Storage(_), PickleValue::Integer(_), PickleValue::Tuple(shape), ..],
            ) => {
                let shape = self.sizes(*shape)?;
                self.tensor(shape, Body::Odd(Dtype::QUANTISED))?
            }
            (Global::RebuildSparse, [PickleValue::Text(_), PickleValue::Tuple(parts)]) => {
                // In every sparse layout the tensors (indices, values) precede the shape, which is
                // the first tuple.
                let parts = &self.objects.tuples[*parts];
                let shape = parts.iter().find_map(|part| match part {
                    PickleValue::Tuple(shape) => Some(*shape),
                    _ => None,
                });
                let shape = shape
                    .map_or_else(|| self.fault("a sparse tensor without a shape"), |it| self.sizes(it))?;
                self.tensor(shape, Body::Odd(Dtype::SPARSE))?
            }
            (Global::RebuildMeta, [PickleValue::Global(Global::Type(_)), PickleValue::Tuple(shape), ..]) => {
                let shape = self.sizes(*shape)?;
                self.tensor(shape, Body::Odd(Dtype::META))?
            }
            (Global::Size, [shape @ PickleValue::Tuple(_)]) => *shape,
            (Global::Layout, [name @ PickleValue::Text(_)]) => *name,
            (Global::Device, [PickleValue::Text(_), ..]) => PickleValue::Other("a device"),
            _ => return self.fault("a call with other arguments than torch.save writes"),
        };
        self.push(value);
        Ok(())
    }

    /// A storage of bytes, reinterpreted as one of elements.
    fn typed(&self, storage: usize, dtype: Dtype) -> Result<Storage<'a>, Stop> {
        let Storage { key, dtype: stored, count } = self.objects.storages[storage];
        let bits = count.checked_mul(stored.bits()).filter(|bits| bits.is_multiple_of(dtype.bits()));
        let Some(bits) = bits else {
            return self.fault(format!("a storage that is not a whole number of elements of type {dtype}"));
        };
        Ok(Storage { key, dtype, count: bits / dtype.bits() })
    }

    /// A tensor that is a view of a storage; `view` begins with offset, shape and strides.
    fn dense(&mut self, storage: Storage<'a>, view: &[PickleValue<'a>]) -> Result<PickleValue<'a>, Stop> {
        let &[PickleValue::Integer(offset), PickleValue::Tuple(shape), PickleValue::Tuple(strides), ..] =
            view
        else {
            return self.fault("a call with other arguments than torch.save writes");
        };
        let Ok(offset) = u64::try_from(offset) else {
            return self.fault("a tensor that begins before its storage");
        };
        let (shape, strides) = (self.sizes(shape)?, self.sizes(strides)?);
        if shape.len() != strides.len() {
            return self.fault("a tensor with more axes than strides, or fewer");
        }
        self.tensor(shape, Body::Stored { storage, offset, strides })
    }

    fn tensor(&mut self, shape: Vec<usize>, body: Body<'a>) -> Result<PickleValue<'a>, Stop> {
        if self.objects.tensors.len() == MOST_TENSORS {
            return self.fault(format!("more than {MOST_TENSORS} tensors"));
        }
        let tensor = Tensor { at: self.began, shape, body };
        Ok(PickleValue::Tensor(add(&mut self.objects.tensors, tensor)))
    }

    fn sizes(&self, tuple: usize) -> Result<Vec<usize>, Stop> {
        let items = &self.objects.tuples[tuple];
        if items.len() > MOST_AXES {
            return self.fault(format!("a tensor of {} axes: at most {MOST_AXES}", items.len()));
        }
        let size = |item: &PickleValue<'_>| match *item {
            PickleValue::Integer(size) => usize::try_from(size).ok(),
            _ => None,
        };
        let sizes: Option<Vec<usize>> = items.iter().map(size).collect();
        sizes.map_or_else(|| self.fault("a shape or stride that is not a size"), Ok)
    }
}
