//! Gram matrices of the gradients of parameters, of which none is ever held.

pub(crate) mod channels;
pub(crate) mod pairs;
pub(crate) mod sums;
pub(crate) mod tiles;
