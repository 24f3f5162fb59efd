//! Which executor runs a graph: the only module that knows both.

use std::sync::Arc;

use burn::tensor::Device;
use influence_autodiff::{Graph, Leaves, Options, Program, Result, is_processor, quietly};

use crate::kernels::InstructionSet;
use crate::run::{CpuExecutor, NotCompiled};

/// Which executor runs a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Burn's tensor operations on the device.
    #[default]
    Burn,
    /// Our own kernels on the CPU, with the widest instruction set that it has unless one is named.
    /// Operations that have no kernel run as segments on Burn's, on the device; [`Program::engine`]
    /// says how many, and [`Program::describe`] which.
    Cpu(Option<InstructionSet>),
}

impl Engine {
    /// The faster engine for a device: our own kernels where it is the CPU.
    #[must_use]
    pub fn of(device: &Device) -> Self {
        if is_processor(device) { Self::Cpu(None) } else { Self::Burn }
    }

    /// A graph, loaded for perturbations of some leaves. A graph that our own kernels cannot run as
    /// a whole (its output does not depend on the input, say) runs on Burn's operations, and
    /// [`Program::engine`] says why.
    ///
    /// # Errors
    /// As [`Program::perturbing`].
    pub fn load(self, graph: Graph, leaves: Leaves, device: &Device, options: &Options) -> Result<Program> {
        let Self::Cpu(set) = self else {
            return Program::perturbing(graph, leaves, device, options);
        };
        let shared = Arc::new(graph);
        let own = (Arc::clone(&shared), leaves.clone());
        // A panic in our compiler is a reason to run on Burn's operations, not to crash the caller.
        let compiled = quietly(|| CpuExecutor::perturbing(own.0, own.1, options.precision, set, device));
        let fault = |panic| Err(NotCompiled::Unsupported(format!("a fault in its compiler: {panic}")));
        match compiled.unwrap_or_else(fault) {
            Ok(executor) => {
                let executor = match options.memory {
                    Some(limit) => executor.within(limit, rayon::current_num_threads()),
                    None => executor,
                };
                let footprint = executor.footprint();
                Program::on(shared, leaves, Box::new(executor), footprint, device, options)
            }
            Err(NotCompiled::Fault(error)) => Err(error),
            Err(NotCompiled::Unsupported(why)) => {
                let graph = Arc::unwrap_or_clone(shared);
                Ok(Program::perturbing(graph, leaves, device, options)?.instead_of(&why))
            }
        }
    }
}
