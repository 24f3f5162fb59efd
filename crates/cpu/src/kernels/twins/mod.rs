//! Every kernel on every instruction set of this CPU against plain loops in f64, over random
//! geometries and masks: none, some and all channels active, every tail length, several samples,
//! and canaries around what may be written that must not change.

pub(in crate::kernels) mod cases;
mod forward;
mod grams;
mod reverse;
mod smooth;
