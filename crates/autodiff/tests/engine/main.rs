//! The engine from outside: models in Burn go in, logits and Jacobians or one clear error come out.

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
