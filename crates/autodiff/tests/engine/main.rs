//! The engine's public functions: models in Burn, and their logits and Jacobians or one clear
//! error.

mod agreement;
mod bits;
mod dump;
mod layers;
mod lowering;
mod models;
mod parameters;
mod refusals;
mod traps;
mod untouched;
mod values;
