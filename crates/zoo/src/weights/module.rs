//! All of Burn's module API that loading and saving need: visiting, mapping, tensors from and to
//! host data.
//!
//! One trap determines the order of steps. BatchNorm's running statistics are in a cell that all
//! clones of a module share, and mapping a module writes through it: a caller who keeps a clone
//! would see its buffers change. `valid()` makes fresh cells, but it initialises every parameter
//! that is still lazy, at random and for nothing. Therefore parameters are replaced first (lazy
//! ones without being initialised), then `valid()` is called, then buffers are replaced.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

use super::Values;
use crate::names::{Entry, ModulePath, TensorRole, entries};

/// Replaces every tensor of `module` by what `supply` returns for PyTorch's name, in PyTorch's
/// layout. A tensor for which it returns `None` is not changed.
///
/// The result is in evaluation mode on a plain device, and ready to train on an autodiff device.
/// Clones of `module` are not changed.
pub(super) fn replace<M: Module>(
    module: M,
    precision: FloatDType,
    device: &Device,
    mut supply: impl FnMut(&str) -> Option<(Values, Vec<usize>)>,
) -> M {
    let mut replace = |module: M, role: TensorRole, device: &Device| {
        module.map(&mut Replacer {
            path: ModulePath::default(),
            role,
            precision,
            device,
            supply: &mut supply,
        })
    };
    let module = replace(module, TensorRole::Parameter, device).valid();
    let plain = device.clone().without_autodiff();
    let module = replace(module, TensorRole::Buffer, &plain);
    if device.is_autodiff() { module.train() } else { module }
}

struct Replacer<'a, F> {
    path: ModulePath,
    role: TensorRole,
    precision: FloatDType,
    device: &'a Device,
    supply: &'a mut F,
}

impl<F: FnMut(&str) -> Option<(Values, Vec<usize>)>> ModuleMapper for Replacer<'_, F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.role() != self.role {
            return param;
        }
        let Some((values, shape)) = (self.supply)(&self.path.name()) else { return param };
        let data = to_data(values, shape, self.path.transposed());
        let tensor = Tensor::from_data(data, (self.device, DType::from(self.precision)));
        let id = param.id;
        match self.role {
            TensorRole::Buffer => Param::initialized(id, tensor),
            // Moving a lazy parameter only changes the device on which it would be initialised (a
            // parameter shared with a clone is initialised and copied). Its value is never
            // requested.
            TensorRole::Parameter => param.to_device(self.device).transform_for_load(tensor, id),
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

/// The transpose of a row-major matrix of `rows` x `columns`.
pub(super) fn transpose<T: Copy>(matrix: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

/// The float tensors of `module` in its own order, each with its type on the device. Initialises
/// lazy ones.
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

/// Passes every float tensor of `module` to `take`, in the module's order: its host data in Burn's
/// layout, or the error of reading it, and whether PyTorch's layout is the transpose.
///
/// Buffers are those of the last training step: `valid()` completes pending updates of the running
/// statistics.
pub(super) fn visit<M: Module>(module: &M, take: impl FnMut(Result<TensorData, String>, bool)) {
    module.valid().visit(&mut Taker { path: ModulePath::default(), take });
}

struct Taker<F> {
    path: ModulePath,
    take: F,
}

impl<F: FnMut(Result<TensorData, String>, bool)> ModuleVisitor for Taker<F> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.val().try_into_data().map_err(|error| error.to_string());
        (self.take)(data, self.path.transposed());
    }
}
