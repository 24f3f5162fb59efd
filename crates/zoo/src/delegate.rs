//! Enums of modules that add nothing to the path of a parameter.
//!
//! `#[derive(Module)]` on an enum inserts the variant's name into the path
//! ("body.3.Layer.conv1.weight"), which PyTorch's names do not contain. [`transparent_module`]
//! delegates every method of `Module` to the variant instead, so that every visitor, of this crate
//! or another, sees PyTorch's names.

/// Implements Burn's `Module` and display traits for an enum whose variants each hold one module.
macro_rules! transparent_module {
    ($name:ident { $($variant:ident),+ $(,)? }) => {
        impl burn::module::Module for $name {
            fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
                match self { $(Self::$variant(module) => module.collect_devices(devices)),+ }
            }
            fn fork(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.fork(device))),+ }
            }
            fn to_device(self, device: &burn::tensor::Device) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.to_device(device))),+ }
            }
            fn train(self) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.train())),+ }
            }
            fn valid(&self) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.valid())),+ }
            }
            fn materialize(self) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.materialize())),+ }
            }
            fn visit<Visitor: burn::module::ModuleVisitor>(&self, visitor: &mut Visitor) {
                match self { $(Self::$variant(module) => module.visit(visitor)),+ }
            }
            fn map<Mapper: burn::module::ModuleMapper>(self, mapper: &mut Mapper) -> Self {
                match self { $(Self::$variant(module) => Self::$variant(module.map(mapper))),+ }
            }
        }

        impl burn::module::ModuleDisplayDefault for $name {
            fn content(&self, content: burn::module::Content) -> Option<burn::module::Content> {
                match self { $(Self::$variant(module) => module.content(content)),+ }
            }
            fn num_params(&self) -> usize {
                burn::module::Module::num_params(self)
            }
        }

        impl burn::module::ModuleDisplay for $name {}

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self { $(Self::$variant(module) => std::fmt::Display::fmt(module, f)),+ }
            }
        }
    };
}
pub(crate) use transparent_module;
