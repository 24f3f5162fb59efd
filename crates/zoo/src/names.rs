//! PyTorch's names for the tensors of a Burn module, and which of them are parameters.
//!
//! The modules of this crate are structured so that Burn's path of a tensor, its segments joined by
//! dots, equals PyTorch's name ("stages.0.0.conv1.weight", "body.12.conv.bias",
//! "stages.0.0.short.1.running_mean"): lists are `Vec`s, a two-layer `Sequential` is a tuple, enums
//! are transparent. [`torch_name`] handles the one remaining difference.
//!
//! BatchNorm's running mean and variance look like parameters to Burn's visitors (and to its
//! `num_params`). They are buffers: no optimiser changes them, their influence is not measured, and
//! they are not counted here.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// PyTorch's name for the tensor at a Burn path. Burn's normalisation layers have `gamma` and
/// `beta`, where PyTorch has `weight` and `bias`. Every other path is the name itself.
pub fn torch_name(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => path.to_owned(),
    }
}

/// The role of a tensor in a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorRole {
    /// A parameter: it is trained, perturbed and counted.
    Parameter,
    /// A running statistic of BatchNorm.
    Buffer,
}

/// A tensor of a module in PyTorch's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// PyTorch's name.
    pub name: String,
    /// PyTorch's shape: a linear weight is [out, in], whereas Burn's is [in, out].
    pub shape: Vec<usize>,
    /// Parameter or buffer.
    pub role: TensorRole,
}

impl Entry {
    /// The name of its layer: its own name without the last segment.
    pub fn layer(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(layer, _)| layer)
    }
}

/// The float tensors of a module in its own order, including buffers. Does not initialise lazy
/// ones.
pub fn entries<M: Module>(module: &M) -> Vec<Entry> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.entries
}

/// The number of trainable values: what PyTorch's `sum(p.numel() for p in net.parameters())` gives.
pub fn parameter_count<M: Module>(module: &M) -> usize {
    entries(module)
        .iter()
        .filter(|entry| entry.role == TensorRole::Parameter)
        .map(|entry| entry.shape.iter().product::<usize>())
        .sum()
}

/// The names of the layers that have parameters, in the module's order.
pub fn layers<M: Module>(module: &M) -> Vec<String> {
    let mut layers: Vec<String> = Vec::new();
    for entry in entries(module).iter().filter(|entry| entry.role == TensorRole::Parameter) {
        // The tensors of a layer are consecutive, so only the last name has to be compared.
        if layers.last().map(String::as_str) != Some(entry.layer()) {
            layers.push(entry.layer().to_owned());
        }
    }
    layers
}

/// The position of a visitor or mapper in a module.
#[derive(Debug, Default)]
pub(crate) struct ModulePath {
    segments: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.segments.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.segments.pop();
        self.containers.pop();
    }

    /// PyTorch's name of the tensor at this position.
    pub(crate) fn name(&self) -> String {
        torch_name(&self.segments.join("."))
    }

    pub(crate) fn role(&self) -> TensorRole {
        match self.segments.last().map(String::as_str) {
            Some("running_mean" | "running_var") if self.within("Struct:BatchNorm") => TensorRole::Buffer,
            _ => TensorRole::Parameter,
        }
    }

    /// Whether Burn's tensor is the transpose of PyTorch's: a linear weight is [in, out] in Burn
    /// and [out, in] in PyTorch.
    pub(crate) fn transposed(&self) -> bool {
        self.within("Struct:Linear") && self.segments.last().is_some_and(|name| name == "weight")
    }

    fn within(&self, container: &str) -> bool {
        self.containers.last().is_some_and(|last| last == container)
    }
}

#[derive(Default)]
struct Collector {
    path: ModulePath,
    entries: Vec<Entry>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let mut shape = param.lazy_shape().to_vec();
        if self.path.transposed() {
            shape.reverse();
        }
        self.entries.push(Entry { name: self.path.name(), shape, role: self.path.role() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_and_beta_are_weight_and_bias() {
        assert_eq!(torch_name("stages.0.0.bn1.gamma"), "stages.0.0.bn1.weight");
        assert_eq!(torch_name("bn.beta"), "bn.bias");
        assert_eq!(torch_name("bn.running_var"), "bn.running_var");
        assert_eq!(torch_name("gamma"), "gamma");
        assert_eq!(torch_name("gamma.weight"), "gamma.weight");
    }
}
