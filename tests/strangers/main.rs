//! Models that are not in the zoo: named ordinary ones, and random ones.

mod attack;
mod harness;
mod named;
mod random;
