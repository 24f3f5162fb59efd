//! Models that the zoo does not have: ordinary ones by name, and random ones.

mod attack;
mod harness;
mod named;
mod random;
