//! A list of named modules ("denselayer1", "denselayer2", ...), like PyTorch's `Sequential` of an
//! `OrderedDict`.

use std::fmt;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

/// Modules in order, each with the segment that it adds to a parameter's path.
#[derive(Debug, Clone)]
pub(super) struct NamedModules<M>(pub(super) Vec<(String, M)>);

/// The container type that is passed to visitors.
const CONTAINER: &str = "Struct:NamedModules";

impl<M: Module> NamedModules<M> {
    /// The modules without their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = &M> {
        self.0.iter().map(|(_, module)| module)
    }

    fn each(self, change: impl Fn(M) -> M) -> Self {
        Self(self.0.into_iter().map(|(name, module)| (name, change(module))).collect())
    }
}

impl<M: Module> Module for NamedModules<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.iter().fold(devices, |devices, module| module.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.each(M::train)
    }

    fn valid(&self) -> Self {
        Self(self.0.iter().map(|(name, module)| (name.clone(), module.valid())).collect())
    }

    fn materialize(self) -> Self {
        self.each(M::materialize)
    }

    fn visit<Visitor: ModuleVisitor>(&self, visitor: &mut Visitor) {
        for (name, module) in &self.0 {
            visitor.enter_module(name, CONTAINER);
            module.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
    }

    fn map<Mapper: ModuleMapper>(self, mapper: &mut Mapper) -> Self {
        let parts = self.0.into_iter().map(|(name, module)| {
            mapper.enter_module(&name, CONTAINER);
            let module = module.map(mapper);
            mapper.exit_module(&name, CONTAINER);
            (name, module)
        });
        Self(parts.collect())
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplayDefault for NamedModules<M> {
    fn content(&self, content: Content) -> Option<Content> {
        Some(self.0.iter().fold(content, |content, (name, module)| content.add(name, module)))
    }

    fn num_params(&self) -> usize {
        self.iter().map(Module::num_params).sum()
    }
}

impl<M: Module + ModuleDisplay> ModuleDisplay for NamedModules<M> {}

impl<M: Module> fmt::Display for NamedModules<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| name.as_str()).collect();
        f.write_str(&names.join(", "))
    }
}
