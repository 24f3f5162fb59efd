//! All that weights need of Burn's module API: visiting, mapping, tensors from and to host data.
//!
//! One trap decides the order of things. BatchNorm's running statistics lie in a cell that all clones of a
//! module share, and mapping a module writes through it: a caller who keeps a clone would see its buffers
//! change. `valid()` makes fresh cells, but initialises every parameter that is still lazy, at random and in
//! vain. So: parameters first, which replaces the lazy ones unseen, then `valid()`, then the buffers.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

use super::{Precision, Values};
use crate::names::{Entry, Kind, Place, entries};

/// Replaces every tensor of `module` by what `supply` has under PyTorch's name, in PyTorch's layout. A tensor
/// for which it has nothing stays as it is.
///
/// The result is in the state of evaluation on a plain device, and ready to train on an autodiff device.
/// Clones of `module` are left as they were.
pub(super) fn replace<M: Module>(
    module: M,
    precision: Precision,
    device: &Device,
    mut supply: impl FnMut(&str) -> Option<(Values, Vec<usize>)>,
) -> M {
    let mut replace = |module: M, kind: Kind, device: &Device| {
        module.map(&mut Replacer { place: Place::default(), kind, precision, device, supply: &mut supply })
    };
    let module = replace(module, Kind::Parameter, device).valid();
    let plain = device.clone().without_autodiff();
    let module = replace(module, Kind::Buffer, &plain);
    if device.is_autodiff() { module.train() } else { module }
}

struct Replacer<'a, F> {
    place: Place,
    kind: Kind,
    precision: Precision,
    device: &'a Device,
    supply: &'a mut F,
}

impl<F: FnMut(&str) -> Option<(Values, Vec<usize>)>> ModuleMapper for Replacer<'_, F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.place.kind() != self.kind {
            return param;
        }
        let Some((values, shape)) = (self.supply)(&self.place.name()) else { return param };
        let data = to_data(values, shape, self.place.transposed());
        let tensor = Tensor::from_data(data, (self.device, self.precision.dtype()));
        let id = param.id;
        match self.kind {
            Kind::Buffer => Param::initialized(id, tensor),
            // Moving a lazy parameter only changes where it would be initialised (one that a clone shares is
            // initialised, and copied); what follows never asks for its value.
            Kind::Parameter => param.to_device(self.device).transform_for_load(tensor, id),
        }
    }
}

fn to_data(values: Values, shape: Vec<usize>, transposed: bool) -> TensorData {
    match (values, &shape[..]) {
        (Values::F32(values), &[rows, columns]) if transposed => {
            TensorData::new(transpose(&values, rows, columns), [columns, rows])
        }
        (Values::F64(values), &[rows, columns]) if transposed => {
            TensorData::new(transpose(&values, rows, columns), [columns, rows])
        }
        (Values::F32(values), _) => TensorData::new(values, shape),
        (Values::F64(values), _) => TensorData::new(values, shape),
    }
}

/// A row-major matrix of `rows` x `columns`, transposed.
pub(super) fn transpose<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

/// The float tensors of `module` in its own order, and the type that each has on its device. Initialises lazy
/// ones.
pub(super) fn types<M: Module>(module: &M) -> Vec<(Entry, DType)> {
    let mut visitor = Types::default();
    module.visit(&mut visitor);
    entries(module).into_iter().zip(visitor.types).collect()
}

#[derive(Default)]
struct Types {
    types: Vec<DType>,
}

impl ModuleVisitor for Types {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.types.push(param.val().dtype());
    }
}

/// Hands every float tensor of `module` to `take`, in the module's order: its host data in Burn's layout, or
/// what hindered reading it, and whether that layout is PyTorch's transposed.
///
/// Buffers are those of the last training step: `valid()` settles what threads have not yet averaged.
pub(super) fn visit<M: Module>(module: &M, take: impl FnMut(Result<TensorData, String>, bool)) {
    module.valid().visit(&mut Taker { place: Place::default(), take });
}

struct Taker<F> {
    place: Place,
    take: F,
}

impl<F: FnMut(Result<TensorData, String>, bool)> ModuleVisitor for Taker<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.place.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.place.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().try_into_data().map_err(|error| error.to_string());
        (self.take)(data, self.place.transposed());
    }
}
